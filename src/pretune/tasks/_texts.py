"""What tasks on a text or a pair of texts share: their fields, and how a long one is cut."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from typing import Any, Literal

import pydantic

from pretune.config import Settings
from pretune.data.sources.columns import Field
from pretune.errors import DataError, quote
from pretune.text.tokenizer import Tokenizer
from pretune.types import IntArray, Record, Specials, framed

TEXT_FIELDS = (Field("text"), Field("text_pair", needed=False, text=False))
"""A text, or a pair of them."""
Sequences = tuple[IntArray, ...]

_NUMBER = re.compile(r"[+-]?\d+(\.\d+)?", re.ASCII)


class Cutting(Settings):
    """How a text that is longer than the model is read."""

    long_texts: Literal["windows", "truncate", "longest_first"] = "windows"
    """``windows``: all of it, in windows. ``truncate``: its beginning. ``longest_first``: of a pair, the
    longer text is cut first, as stock tokenizers do by default. In windows, and where it is cut, the first
    text of a pair keeps half of the room, and what the second leaves."""
    overlap: int = pydantic.Field(default=16, ge=0)
    """Tokens that neighbouring windows share."""


def texts(record: Record) -> tuple[str, ...]:
    """The text of a record, or its pair of texts."""
    pair = record.fields.get("text_pair")
    first = str(record.fields["text"])
    return (first,) if pair is None else (first, str(pair))


def text_fields(fields: Mapping[str, Any]) -> Mapping[str, Any]:
    """The fields, with a number in ``text_pair`` read as text.

    Raises:
        DataError: the second text is there, but is no text or an empty one.
    """
    pair = fields.get("text_pair")
    if pair is None:
        return fields
    if isinstance(pair, int | float):
        return {**fields, "text_pair": json.dumps(pair)}
    if not isinstance(pair, str):
        raise DataError(f"'text_pair' is {type(pair).__name__}, not text")
    if not pair.strip():
        raise DataError("'text_pair' is empty")
    return fields


def in_order(labels: Iterable[str]) -> list[str]:
    """Labels sorted: as numbers where all are numbers (2 before 10), and else as text."""
    found = sorted(labels)
    if all(_NUMBER.fullmatch(label) for label in found):
        found.sort(key=float)
    return found


def features(
    record: Record, tokenizer: Tokenizer, specials: Specials, max_length: int, cutting: Cutting
) -> list[Sequences]:
    """The ids of a text or a pair, without their frame: once, or once a window of a long text.

    Raises:
        DataError: the model would be handed no token at all, or has no room for one.
    """
    sequences = tuple(tokenizer.encode(text).ids for text in texts(record))
    frame = len(framed(specials, tuple(s[:0] for s in sequences))[0])
    if not frame and not any(map(len, sequences)):
        raise DataError(
            f"{record.where}: the tokenizer makes no token of {quote(texts(record)[-1])}, "
            "and puts none around a text"
        )
    if max_length <= frame:
        raise DataError(f"{record.where}: the model reads {max_length} tokens, and {frame} are special ones")
    return _CUTS[cutting.long_texts](sequences, max_length - frame, cutting.overlap)


def _windows(sequences: Sequences, room: int, overlap: int) -> list[Sequences]:
    """The last text is cut into windows; a first text takes at most half of the room."""
    *fixed, last = _first_halved(sequences, room)
    room -= sum(map(len, fixed))
    if len(last) <= room:
        return [(*fixed, last)]
    stride = max(1, room - min(overlap, room // 2))
    count = 1 + -(-(len(last) - room) // stride)
    return [(*fixed, last[k * stride : k * stride + room]) for k in range(count)]


def _beginning(sequences: Sequences, room: int, overlap: int) -> list[Sequences]:
    *fixed, last = _first_halved(sequences, room)
    return [(*fixed, last[: room - sum(map(len, fixed))])]


def _longest_first(sequences: Sequences, room: int, overlap: int) -> list[Sequences]:
    """As ``truncation="longest_first"`` of `tokenizers`: the longer one loses tokens until both are even."""
    if len(sequences) == 1:
        return [(sequences[0][:room],)]
    first, second = sequences
    short, long = sorted((len(first), len(second)))
    if short + long > room:
        short = min(short, room // 2)
        long = room - short
    sizes = (short, long) if len(first) <= len(second) else (long, short)
    return [(first[: sizes[0]], second[: sizes[1]])]


def _first_halved(sequences: Sequences, room: int) -> Sequences:
    if len(sequences) == 1:
        return sequences
    first, second = sequences
    return first[: max(room // 2, room - len(second))], second


_CUTS = {"windows": _windows, "truncate": _beginning, "longest_first": _longest_first}
