"""What a tokenizer.json may hold, judged by its text before `tokenizers` is handed it.

Its Rust code aborts the process where it cannot allocate, for which an id of 2**31 is enough, and steps that
lengthen the text multiply each other. All bounds are many times what any published tokenizer has.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from pretune.errors import CheckpointError, quote

MAX_IDS = 1 << 24
"""Ids lie below it: tables are indexed by them."""
MAX_STEPS = 48
"""Of a normalizer, a pre-tokenizer, a decoder or a post-processor, those inside sequences counted."""
MAX_GROWTH = 256
"""How many times longer all steps together may make a text."""
MAX_PATTERN_CHARACTERS = 8_192
"""Characters of a regular expression, or of a text that a step puts in."""
MAX_VOCABULARY_CHARACTERS = 16 << 20
"""Characters of all tokens together: a Unigram model keeps a node for each."""
COMPONENTS = ("normalizer", "pre_tokenizer", "decoder", "post_processor")
STEP_GROWTH = {"ByteLevel": 4, "Precompiled": 4, "NFKD": 4, "NFKC": 4, "NFD": 4, "BertNormalizer": 3}
"""How many times longer a step can make a text; NFKC makes 18 characters of one, and does it once."""


def check_tokenizer(values: Mapping[str, Any], path: Path) -> None:
    """Refuse sizes and steps that no tokenizer has.

    Raises:
        CheckpointError: names the file, the key and the value.
    """
    model = values.get("model")
    if not isinstance(model, Mapping):
        raise _error(path, "model", model, "expected an object")
    _check_tokens(model, values.get("added_tokens"), path)
    for part in COMPONENTS:
        steps = list(_iter_steps(values.get(part)))
        if len(steps) > MAX_STEPS:
            raise _error(path, part, len(steps), f"{MAX_STEPS} steps are the most")
        growth = 1
        for step in steps:
            growth *= _growth(step)
            for key, text in _iter_texts(step):
                if len(text) > MAX_PATTERN_CHARACTERS:
                    raise _error(
                        path, f"{part}.{key}", text, f"{MAX_PATTERN_CHARACTERS:,} characters are the most"
                    )
        if growth > MAX_GROWTH:
            raise _error(path, part, growth, f"times as long can a text become, {MAX_GROWTH} is the most")


def check_vocabulary(vocabulary: Any, path: Path) -> None:
    """The same of the tokens and ids of a ``vocab.json``.

    Raises:
        CheckpointError: names the file and the id.
    """
    if not isinstance(vocabulary, Mapping):
        raise _error(path, "vocabulary", vocabulary, "expected tokens with their ids")
    for token, id in vocabulary.items():
        _check_id(id, f"the id of {quote(token)}", path)
    names: dict[int, str] = {}
    for token, id in vocabulary.items():
        if names.setdefault(id, token) != token:  # which of the two it stands for would be drawn by chance
            raise _error(path, f"the id of {quote(token)}", id, f"is that of {quote(names[id])} too")
    if sum(map(len, vocabulary)) > MAX_VOCABULARY_CHARACTERS:
        raise _error(
            path, "vocabulary", "its tokens", f"{MAX_VOCABULARY_CHARACTERS:,} characters are the most"
        )


def _check_tokens(model: Mapping[str, Any], added: Any, path: Path) -> None:
    vocabulary = model.get("vocab")
    if isinstance(vocabulary, list):  # of Unigram: [token, score] at the place of its id
        pairs = [entry for entry in vocabulary if isinstance(entry, list) and entry]
        if sum(len(entry[0]) for entry in pairs if isinstance(entry[0], str)) > MAX_VOCABULARY_CHARACTERS:
            raise _error(
                path, "model.vocab", "its tokens", f"{MAX_VOCABULARY_CHARACTERS:,} characters are the most"
            )
    elif vocabulary is not None:
        check_vocabulary(vocabulary, path)
    if added is not None and not isinstance(added, list):
        raise _error(path, "added_tokens", added, "expected a list")
    length = 0
    for number, token in enumerate(added or ()):
        if not isinstance(token, Mapping) or not isinstance(token.get("content"), str):
            raise _error(path, f"added_tokens[{number}]", token, "expected an object with content and id")
        _check_id(token.get("id"), f"added_tokens[{number}].id", path)
        length += len(token["content"])
    if length > MAX_VOCABULARY_CHARACTERS // 8:
        raise _error(
            path, "added_tokens", length, f"{MAX_VOCABULARY_CHARACTERS // 8:,} characters are the most"
        )


def _check_id(id: Any, name: str, path: Path) -> None:
    if not isinstance(id, int) or isinstance(id, bool) or not 0 <= id < MAX_IDS:
        raise _error(path, name, id, f"must be a number from 0 to {MAX_IDS - 1:,}")


def _iter_steps(step: Any) -> Iterator[Mapping[str, Any]]:
    """A step, or those inside a sequence; files are checked for depth before."""
    if isinstance(step, list):
        for inner in step:
            yield from _iter_steps(inner)
    elif isinstance(step, Mapping):
        inner = [value for value in step.values() if isinstance(value, list)]
        if step.get("type") == "Sequence":
            yield from _iter_steps([item for items in inner for item in items])
        else:
            yield step


def _growth(step: Mapping[str, Any]) -> int:
    kind = step.get("type")
    if kind in ("Replace", "Prepend"):
        put = step.get("content", step.get("prepend"))
        return max(1, len(put)) if isinstance(put, str) else 1
    return STEP_GROWTH.get(kind, 1) if isinstance(kind, str) else 1


def _iter_texts(step: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    for key, value in step.items():
        if isinstance(value, Mapping):
            yield from ((f"{key}.{inner}", text) for inner, text in value.items() if isinstance(text, str))
        elif isinstance(value, str) and key != "precompiled_charsmap":
            yield key, value


def _error(path: Path, key: str, value: Any, reason: str) -> CheckpointError:
    return CheckpointError(f"{path}: {key} = {quote(value)}: {reason}; fetch the tokenizer again")
