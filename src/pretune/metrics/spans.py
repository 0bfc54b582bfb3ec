"""F1 of the spans that tags of words stand for: strict, as seqeval with a scheme, and as conlleval."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Literal, TypeAlias

from pretune.metrics.base import Counts, Metric
from pretune.metrics.f1 import count_sets, f1

Scheme = Literal["IOB2", "IOBES", "BILOU"]
Span: TypeAlias = "tuple[str, int, int]"
"""(type, first word, word after the last)"""

SCHEMES: dict[str, tuple[str, str, str]] = {
    "IOB2": ("B", "I", ""),
    "IOBES": ("B", "E", "S"),
    "BILOU": ("B", "L", "U"),
}
"""Prefixes of the first word, of the last word, and of a span of one word (IOB2 has none of its own)."""


def split_tag(tag: str) -> tuple[str, str]:
    """``B-PER`` as (prefix, type); a tag without a prefix of its own is ("O", "")."""
    prefix, dash, name = tag.partition("-")
    return (prefix, name) if dash else ("O", "")


def strict_spans(tags: Sequence[str], scheme: Scheme = "IOB2") -> set[Span]:
    """The spans that are written exactly as the scheme asks; a stray ``I-`` begins none.

    Equal to ``seqeval.scheme.Entities``.
    """
    first, last, single = SCHEMES[scheme]
    parts = [split_tag(tag) for tag in tags]
    found: set[Span] = set()
    start = 0
    while start < len(parts):
        prefix, name = parts[start]
        end = start + 1
        if prefix == single:
            found.add((name, start, end))
        elif prefix == first:
            inside = True
            while inside and end < len(parts) and parts[end][1] == name and parts[end][0] in ("I", last):
                inside = scheme == "IOB2" or parts[end][0] == "I"
                end += 1
            if scheme == "IOB2" or not inside:
                found.add((name, start, end))
        start = end
    return found


def conlleval_spans(tags: Sequence[str]) -> set[Span]:
    """The spans as the CoNLL-2000 script reads tags: a change of type or a stray ``I-`` begins one, too."""
    found: set[Span] = set()
    begin, before = 0, ("O", "")
    for i, (prefix, name) in enumerate([*map(split_tag, tags), ("O", "")]):
        ends = before[0] != "O" and (before[0] in "ES" or prefix in "BSO" or name != before[1])
        starts = prefix != "O" and (prefix in "BS" or before[0] in "ESO" or name != before[1])
        if ends:
            found.add((before[1], begin, i))
        if starts:
            begin = i
        before = (prefix, name)
    return found


def _count_strict(scheme: Scheme, prediction: Sequence[str], reference: Sequence[str]) -> Counts:
    return count_sets(strict_spans(prediction, scheme), strict_spans(reference, scheme))


def _count_conlleval(prediction: Sequence[str], reference: Sequence[str]) -> Counts:
    return count_sets(conlleval_spans(prediction), conlleval_spans(reference))


def _count_tags(prediction: Sequence[str], reference: Sequence[str]) -> Counts:
    correct = sum(p == r for p, r in zip(prediction, reference, strict=False))
    return {"correct": float(correct), "n": float(len(reference))}


def span_f1(scheme: Scheme) -> Metric:
    """Strict micro F1 of spans: type, first and last word must be right."""
    return Metric(
        "span_f1", {"en": "span F1", "zh": "实体 F1"}, partial(_count_strict, scheme), f1,
        settings={"mode": "strict", "scheme": scheme},
    )  # fmt: skip


CONLLEVAL_F1 = Metric(
    "conlleval_f1", {"en": "span F1 (conlleval)", "zh": "实体 F1（conlleval）"}, _count_conlleval, f1,
    settings={"mode": "conlleval"},
)  # fmt: skip
"""``seqeval``'s default mode."""
TAG_ACCURACY = Metric(
    "tag_accuracy",
    {"en": "accuracy of tags", "zh": "标签准确率"},
    _count_tags,
    lambda sums: sums["correct"] / sums["n"],
)
