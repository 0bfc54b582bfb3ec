"""The model card: README.md of a model folder, as Hugging Face reads it."""

from __future__ import annotations

import json
import math
import re
import shlex
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import yaml

from pretune.report.words import translations
from pretune.types import Score

# Head to (pipeline tag of Hugging Face, class of transformers).
PIPELINES = {
    "masked_lm": ("fill-mask", "AutoModelForMaskedLM"),
    "permutation_lm": ("", "AutoModelForCausalLM"),
    "causal_lm": ("text-generation", "AutoModelForCausalLM"),
    "classification": ("text-classification", "AutoModelForSequenceClassification"),
    "token_classification": ("token-classification", "AutoModelForTokenClassification"),
    "question_answering": ("question-answering", "AutoModelForQuestionAnswering"),
    "sentence": ("text-classification", "AutoModelForSequenceClassification"),
    "tagging": ("token-classification", "AutoModelForTokenClassification"),
    "token": ("token-classification", "AutoModelForTokenClassification"),
    "span": ("question-answering", "AutoModelForQuestionAnswering"),
    "choice": ("multiple-choice", "AutoModelForMultipleChoice"),
    "embedding": ("feature-extraction", "AutoModel"),
    "sequence_to_sequence": ("", "AutoModelForSeq2SeqLM"),
}
PIPELINE_TASKS = {"fill-mask", "text-generation", "text-classification", "token-classification"}
"""What ``transformers.pipeline`` (5.0) still does for text; the other heads are loaded by their class."""


@dataclass(frozen=True, slots=True)
class DataSource:
    """A part of the training data."""

    name: str
    license: str = ""
    size: str = ""


@dataclass(frozen=True, slots=True)
class CardScore:
    """A score on a data set, beside the baselines on the same records."""

    dataset: str
    score: Score
    baselines: tuple[tuple[str, float], ...] = ()


@dataclass(frozen=True, slots=True)
class Card:
    """All that a model card says; what is left empty is left out, or said to be missing."""

    name: str
    summary: str
    head: str
    languages: tuple[str, ...] = ()
    """ISO 639 codes of the languages that the model was trained on."""
    family: str = ""
    parameters: int | None = None
    base_model: str = ""
    teacher: str = ""
    """Whom it learnt from, beside its text or its labels."""
    license: str = ""
    tags: tuple[str, ...] = ()
    example: str = ""
    """A text that the model can be tried on."""
    example_pair: str = ""
    """The second text, where the model reads pairs."""
    multi_label: bool = False
    """Does the model give every label a probability of its own?"""
    sources: tuple[DataSource, ...] = ()
    settings: tuple[tuple[str, str], ...] = ()
    scores: tuple[CardScore, ...] = ()
    limits: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    """What a reader must know before all else."""
    language: str = "en"
    """Of the card itself: en or zh."""


def model_card(card: Card) -> str:
    """The card as Markdown below a YAML front matter.

    Raises:
        ConfigError: pretune has no words in the language of the card.
    """
    word = translations(card.language)
    facts = [
        (word["family"], card.family),
        (word["head"], card.head),
        (word["parameters"], f"{card.parameters:,}" if card.parameters else ""),
        (word["base_model"], card.base_model),
        (word["teacher"], card.teacher),
    ]
    blocks = [
        f"---\n{_front_matter(card)}---\n\n# {_escape_inline(card.name)}",
        "\n>\n".join(f"> {_escape_inline(warning)}" for warning in card.warnings),
        f"## {word['what_it_is']}",
        _escape_paragraphs(card.summary),
        "\n".join(f"- {name}: {_escape_inline(value)}" for name, value in facts if value),
        f"## {word['how_to_use']}",
        word["with_transformers"],
        _fence("python", _snippet(card)),
        word["with_pretune"],
        _fence("bash", _command(card)),
        f"## {word['training_data']}",
        _sources(card, word["source"], word["licence"], word["size"], word["licence_unknown"])
        or word["no_data"],
        f"## {word['settings']}",
        _table((word["setting"], word["value"]), card.settings) or word["no_settings"],
        f"## {word['evaluation']}",
        _scores(
            card, (word["dataset"], word["metric"], word["value"], word["interval"], word["baseline"], "n")
        )
        or word["no_scores"],
        _signatures(card, word["signature"], word["scores_note"]),
        f"## {word['limits']}",
        "\n".join(f"- {_escape_inline(limit)}" for limit in card.limits) or word["no_limits"],
    ]
    return "\n\n".join(block for block in blocks if block) + "\n"


def _front_matter(card: Card) -> str:
    pipeline, _ = PIPELINES.get(card.head, ("", ""))
    values = {
        "language": [_one_line(language) for language in card.languages],
        "license": _one_line(card.license),
        "library_name": "transformers",
        "pipeline_tag": pipeline,
        "base_model": _one_line(card.base_model),
        "tags": ["pretune", *(_one_line(tag) for tag in card.tags if tag != "pretune")],
    }
    filled = {key: value for key, value in values.items() if value}
    text: str = yaml.safe_dump(filled, sort_keys=False, allow_unicode=True, width=math.inf)
    return text


def _command(card: Card) -> str:
    command = f"pretune predict . --text {shlex.quote(_one_line(card.example or card.name))}"
    pair = card.example_pair
    return f"{command} --text-pair {shlex.quote(_one_line(pair))}" if pair else command


def _snippet(card: Card) -> str:
    pipeline, model = PIPELINES.get(card.head, ("", "AutoModel"))
    text = json.dumps(card.example or card.name, ensure_ascii=False)  # a Python string too
    if card.example_pair:
        pair = json.dumps(card.example_pair, ensure_ascii=False)
        text = f'{{"text": {text}, "text_pair": {pair}}}' if pipeline in PIPELINE_TASKS else f"{text}, {pair}"
    if pipeline in PIPELINE_TASKS:
        text += ", top_k=None" if card.multi_label else ""
        load = f'from transformers import pipeline\n\nmodel = pipeline("{pipeline}", model=".")'
        return f"{load}\nprint(model({text}))"
    inputs = f'tokenizer({text}, return_tensors="pt")'
    call = f"print(model(**{inputs}))"
    if card.head == "sequence_to_sequence":  # which says nothing before it is given what it has said
        call = f"print(tokenizer.decode(model.generate(**{inputs})[0]))"
    return (
        f"from transformers import AutoTokenizer, {model}\n\n"
        f'tokenizer = AutoTokenizer.from_pretrained(".")\nmodel = {model}.from_pretrained(".")\n{call}'
    )


def _sources(card: Card, source: str, license_header: str, size: str, unknown: str) -> str:
    rows = [(one.name, one.license or unknown, one.size) for one in card.sources]
    return _table((source, license_header, size), rows)


def _scores(card: Card, header: Sequence[str]) -> str:
    rows = []
    for one in card.scores:
        low_high = one.score.interval
        interval = f"{_format_value(low_high[0])} – {_format_value(low_high[1])}" if low_high else "–"
        baselines = ", ".join(f"{name} {_format_value(value)}" for name, value in one.baselines) or "–"
        rows.append(
            (
                one.dataset,
                one.score.name,
                _format_value(one.score.value),
                interval,
                baselines,
                f"{one.score.n:,}",
            )
        )
    return _table(header, rows)


def _signatures(card: Card, name: str, note: str) -> str:
    lines = [
        f"- {name} ({_escape_inline(one.score.name)}): {_escape_inline(one.score.signature)}"
        for one in card.scores
    ]
    return "\n".join([*dict.fromkeys(lines), "", note]) if lines else ""


def _format_value(value: float) -> str:
    return f"{value:.3f}" if abs(value) < 10 else f"{value:.1f}"


def _table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table; empty where there are no rows."""
    lines = ["| " + " | ".join(_escape_inline(cell) for cell in row) + " |" for row in rows]
    if not lines:
        return ""
    return "\n".join(
        ["| " + " | ".join(header) + " |", "| " + " | ".join("---" for _ in header) + " |", *lines]
    )


def _escape_paragraphs(text: str) -> str:
    """Paragraphs that hold nothing but text."""
    return "\n\n".join(
        _escape_inline(paragraph) for paragraph in re.split(r"\n\s*\n", text) if paragraph.strip()
    )


def _escape_inline(text: str) -> str:
    """The text on one line, with all that Markdown or HTML would act on made harmless."""
    text = re.sub(r"([\\`*_\[\]|~$])", r"\\\1", _one_line(text).replace("&", "&amp;").replace("<", "&lt;"))
    return re.sub(r"^([-+=>#])|^(\d+)([.)])(?=\s|$)", _escape_start, text)


def _escape_start(start: re.Match[str]) -> str:
    """A backslash before what would open a list, a heading or a quotation at the start of a line."""
    return f"{start[2] or ''}\\{start[1] or start[3]}"


def _one_line(text: str) -> str:
    printable = "".join(c if c.isprintable() else " " for c in text)
    return " ".join(printable.split())


def _fence(language: str, code: str) -> str:
    """A code block that no run of backticks inside it can close."""
    longest = max((len(run) for run in re.findall(r"`+", code)), default=0)
    marks = "`" * max(3, longest + 1)
    return f"{marks}{language}\n{code}\n{marks}"
