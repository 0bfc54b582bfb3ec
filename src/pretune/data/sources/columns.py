"""Which column of a file is which field of a record: as the user says, by its name, or by a usual name."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from pretune.errors import ConfigError, DataError, suggestion

ALIASES: dict[str, tuple[str, ...]] = {
    "text": (
        "sentence", "review", "review_text", "review_body", "content", "document", "comment", "comment_text",
        "message", "body", "tweet", "post", "utterance", "passage", "article", "question", "query",
        "description", "abstract", "headline", "title", "snippet", "input_text",
        "文本", "文本内容", "内容", "正文", "评论", "评论内容", "句子", "文章", "标题", "问题", "短文",
    ),
    "label": (
        "labels", "label_name", "label_text", "category", "category_name", "class", "class_name",
        "class_label", "stars", "rating", "sentiment", "target", "topic", "intent", "emotion", "polarity",
        "gold_label", "tag",
        "标签", "标签名", "类别", "类别名", "分类", "情感", "类目", "标注", "星级", "评分",
    ),
    "labels": (
        "label", "tags", "categories", "classes", "topics", "genres", "label_names", "emotions",
        "标签", "类别", "分类", "标注",
    ),
    "tokens": ("words", "sentence", "词语", "分词"),
    "tags": ("ner_tags", "pos_tags", "labels", "标签", "标注"),
    "question": ("query", "问题"),
    "context": ("passage", "paragraph", "document", "文章", "短文", "材料"),
    "answers": ("answer", "答案"),
    "source": (
        "src", "source_text", "input", "inputs", "document", "article", "text", "prompt", "question",
        "原文", "源文", "输入", "正文", "文章", "问题",
    ),
    "target": (
        "tgt", "target_text", "output", "outputs", "summary", "highlights", "answer", "response",
        "completion", "translation", "译文", "摘要", "目标", "输出", "答案", "回答",
    ),
}  # fmt: skip
"""Names that files give to a field; one is taken where exactly one of them is there, and that is said."""
PAIR_ALIASES = (
    ("sentence1", "sentence2"), ("sentence_1", "sentence_2"), ("sentence_a", "sentence_b"),
    ("premise", "hypothesis"), ("question1", "question2"), ("text1", "text2"), ("text_a", "text_b"),
    ("question", "sentence"), ("question", "passage"), ("question", "answer"), ("query", "passage"),
    ("query", "document"), ("query", "title"), ("句子1", "句子2"), ("文本1", "文本2"), ("前提", "假设"),
    ("问题1", "问题2"), ("问题", "答案"),
)  # fmt: skip
"""Names of the two texts of a pair."""
_MAX_LISTED = 20
_SHOWN_CHARACTERS = 60
_NO_LETTERS = re.compile(r"[\W_]+")


@dataclass(frozen=True, slots=True)
class Field:
    """A field that a record should have."""

    name: str
    required: bool = True
    """Is a file without it refused?"""
    is_text: bool = True
    """Must its value be text that is not empty? Of other fields who reads the record judges the value."""
    is_label: bool = False
    """Is it known of labelled records only?"""
    is_echoed: bool = True
    """Is it repeated beside an answer?"""


def input_fields(fields: Iterable[Field]) -> tuple[Field, ...]:
    """The fields of a record of which the label is asked."""
    return tuple(field for field in fields if not field.is_label)


def column_option(field: str) -> str:
    """The option of the command line that names the column of a field."""
    return f"--{field.replace('_', '-')}-column"


def check_column_names(columns: Mapping[str, str], fields: Iterable[str], where: str) -> None:
    """See that columns are named for fields that there are.

    Raises:
        ConfigError: a field that is none, an empty name, or one column for two fields.
    """
    known, used = list(fields), set()
    for field, column in columns.items():
        if field not in known:
            raise ConfigError(f"{where}: columns.{field} = {column!r}: the fields are {', '.join(known)}")
        if not column.strip():
            raise ConfigError(f"{where}: columns.{field} is empty: give the name of a column")
        if column in used:
            raise ConfigError(f"{where}: columns: {column!r} is named for two fields; give each its own")
        used.add(column)


@dataclass(frozen=True, slots=True)
class ColumnMatch:
    """What was found in one file: the column of each field."""

    fields: tuple[Field, ...]
    columns: Mapping[str, str]
    """Field to column; a field that need not be there may be missing."""

    def to_fields(self, values: Mapping[str, Any]) -> Mapping[str, Any]:
        """A row by its fields; what else it holds comes along under its own names."""
        moved = {field: column for field, column in self.columns.items() if field != column}
        if not moved:
            return values
        gone = {*moved.values(), *moved}
        kept = {name: value for name, value in values.items() if name not in gone}
        return kept | {field: values[column] for field, column in moved.items() if column in values}

    def describe_field(self, field: str) -> str:
        """A field as a message names it: by the column, and the field where that is called otherwise."""
        column = self.columns.get(field, field)
        return repr(field) if column == field else f"{column!r} ({field})"

    def describe_renames(self, user_columns: Mapping[str, str]) -> str | None:
        """Which fields are read from a column that is neither called so nor was ``user_columns``; None:
        none.
        """
        moved = [
            (field, column) for field, column in self.columns.items()
            if column not in (field, user_columns.get(field))
        ]  # fmt: skip
        if not moved:
            return None
        (field, column), *others = moved
        return f"{field} is read from column {_truncate(column)!r}" + "".join(
            f", {name} from {_truncate(other)!r}" for name, other in others
        )


@dataclass(frozen=True, slots=True)
class ColumnSpec:
    """The fields that are wanted of a file, and the columns that were named for them."""

    fields: tuple[Field, ...]
    user_columns: Mapping[str, str]
    """Field to column, as the user says; it must be there."""
    trained_columns: Mapping[str, str]
    """Field to column, as a model was trained; it counts where the file has it."""

    @property
    def is_document(self) -> bool:
        """Is a document without columns, which is one text, all that is needed?"""
        return [field.name for field in self.fields if field.required] == ["text"]

    def required_names(self) -> str:
        """The fields that a file must have, for a message."""
        return ", ".join(field.name for field in self.fields if field.required)

    def matches(self, available: Sequence[str]) -> bool:
        """Do columns of these names have all that is needed?"""
        try:
            self.match("", available)
        except DataError:
            return False
        return True

    def match(self, file: str, available: Sequence[str]) -> ColumnMatch:
        """The column of each field among those that are ``available``.

        What the user names comes first, then what the model was trained by, the field's own name, that name
        in other letters or with white space around it, and a usual name where exactly one is there.

        Raises:
            DataError: a field that is needed has no column, or several could be it; names the columns and
                the option that says which.
        """
        found: dict[str, str] = {}
        for field in self.fields:
            asked = self.user_columns.get(field.name)
            if asked is not None:
                same = [asked] if asked in available else _find_normalized((asked,), available)
                if len(same) != 1:
                    raise DataError(_missing_column_message(file, field.name, available, requested=asked))
                found[field.name] = same[0]
        for known in (self._match_trained, self._match_exact, self._match_normalized):
            for field in self.fields:
                free = [name for name in available if name not in found.values()]
                if field.name not in found and len(same := known(field.name, free)) == 1:
                    found[field.name] = same[0]
        return ColumnMatch(self.fields, self._fill_from_aliases(file, found, available))

    def _match_trained(self, field: str, free: Sequence[str]) -> list[str]:
        return [name for name in free if name == self.trained_columns.get(field)]

    def _match_exact(self, field: str, free: Sequence[str]) -> list[str]:
        return [field] if field in free else []

    def _match_normalized(self, field: str, free: Sequence[str]) -> list[str]:
        return _find_normalized((field,), free)

    def _fill_from_aliases(
        self, file: str, matched: dict[str, str], available: Sequence[str]
    ) -> dict[str, str]:
        """What was found, with usual names for what is still missing."""
        names = {field.name for field in self.fields}
        missing = [field for field in self.fields if field.required and field.name not in matched]
        for field in missing:
            free = [name for name in available if name not in matched.values()]
            several = _find_normalized((field.name,), free) or _find_normalized(
                ALIASES.get(field.name, ()), free
            )
            pairs = (
                _find_pairs(free) if field.name == "text" and "text_pair" in names - matched.keys() else []
            )
            parts = {name for pair in pairs for name in pair}
            alone = [name for name in several if name not in parts]
            if len(pairs) == 1 and not alone:
                matched["text"], matched["text_pair"] = pairs[0]
            elif len(several) == 1 and not pairs:
                matched[field.name] = several[0]
            else:
                raise DataError(
                    _missing_column_message(file, field.name, available, candidates=[*several, *parts])
                )
        return matched


def build_column_spec(
    fields: Sequence[str | Field], user_columns: Mapping[str, str], trained_columns: Mapping[str, str]
) -> ColumnSpec:
    """The columns of some fields; a name alone is a field of text that is needed."""
    return ColumnSpec(
        tuple(Field(f) if isinstance(f, str) else f for f in fields), user_columns, trained_columns
    )


def as_optional(field: Field) -> Field:
    """The same field where a file may lack it."""
    return replace(field, required=False)


def _find_normalized(names: Sequence[str], available: Sequence[str]) -> list[str]:
    """The columns that are called by one of the names, whatever the case, white space and hyphens."""
    known = {_normalize_name(name) for name in names}
    return [name for name in available if _normalize_name(name) in known]


def _normalize_name(name: str) -> str:
    return _NO_LETTERS.sub("", name.casefold())


def _find_pairs(available: Sequence[str]) -> list[tuple[str, str]]:
    found: dict[tuple[str, str], None] = {}
    for first, second in PAIR_ALIASES:
        firsts, seconds = _find_normalized((first,), available), _find_normalized((second,), available)
        if len(firsts) == len(seconds) == 1:
            found[firsts[0], seconds[0]] = None
    return list(found)


def _missing_column_message(
    file: str,
    field: str,
    available: Sequence[str],
    *,
    requested: str | None = None,
    candidates: Sequence[str] = (),
) -> str:
    """Why no column can be taken for a field, what there is, and how to name one."""
    listed = ", ".join(_truncate(name) for name in available[:_MAX_LISTED]) or "none"
    listed += f" and {len(available) - _MAX_LISTED:,} more" if len(available) > _MAX_LISTED else ""
    way_out = f"name it with {column_option(field)} (as a setting: columns.{field}=NAME)"
    near = suggestion(requested or field, available) if available else ""
    near = f"; {near}" if near.startswith("did") else ";"
    if requested is not None:
        named = f"which {column_option(field)} (or columns.{field}) names"
        return (
            f"{file}: no column {_truncate(requested)!r}, {named}; there are: "
            f"{listed}{near.removesuffix(';')}"
        )
    if len(candidates) > 1:
        could = " or ".join(repr(_truncate(name)) for name in dict.fromkeys(candidates))
        return f"{file}: no column {field!r}, and {could} could be it; there are: {listed}; {way_out}"
    return f"{file}: no column {field!r}; there are: {listed}{near} {way_out}"


def _truncate(name: str) -> str:
    return name if len(name) <= _SHOWN_CHARACTERS else name[:_SHOWN_CHARACTERS] + "..."
