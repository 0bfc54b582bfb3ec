"""What tasks on a text or a pair of texts share: their fields, and how a long one is cut."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Literal

import numpy as np
import pydantic

from pretune.config import Settings
from pretune.data.sources.columns import Field
from pretune.errors import DataError, quote
from pretune.tasks.base import Reader
from pretune.types import IntArray, Record, SpecialTokens, add_special_tokens

TEXT_FIELDS = (Field("text"), Field("text_pair", required=False, is_text=False))
"""A text, or a pair of them."""
LONG_TEXT_ADVICE = ", task_options.long_texts=windows all"
Sequences = tuple[IntArray, ...]

_NUMBER = re.compile(r"[+-]?\d+(\.\d+)?", re.ASCII)


class LongTextSettings(Settings):
    """How a text that is longer than the model is read."""

    long_texts: Literal["windows", "truncate", "longest_first"] = "windows"
    """``windows``: all of it, in windows. ``truncate``: its beginning. ``longest_first``: of a pair, the
    longer text is cut first, as stock tokenizers do by default. In windows, and where it is cut, the first
    text of a pair keeps half of the room, and what the second leaves."""
    overlap: int = pydantic.Field(default=16, ge=0)
    """Tokens that neighbouring windows share."""


def parse_text_pair(fields: Mapping[str, Any]) -> Mapping[str, Any]:
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


def sort_labels(labels: Iterable[str]) -> list[str]:
    """Labels sorted: as numbers where all are numbers (2 before 10), and else as text."""
    found = sorted(labels)
    if all(_NUMBER.fullmatch(label) for label in found):
        found.sort(key=float)
    return found


def encode_windows(
    record: Record, texts: Sequence[str], reader: Reader, long_text_settings: LongTextSettings
) -> list[Sequences]:
    """The ids of the text or the pair of a record, without their special tokens: once, or once a window.

    Raises:
        DataError: the model would be handed no token at all, or has no room for one.
    """
    specials, max_length = reader.tokenizer.specials, reader.max_length
    sequences = tuple(reader.tokenizer.encode(text).ids for text in texts)
    num_special_tokens = len(add_special_tokens(specials, tuple(s[:0] for s in sequences))[0])
    if not num_special_tokens and not any(map(len, sequences)):
        raise DataError(
            f"{record.location}: the tokenizer makes no token of {quote(texts[-1])}, and puts none around a "
            "text"
        )
    if max_length <= num_special_tokens:
        raise DataError(
            f"{record.location}: the model reads {max_length} tokens, and {num_special_tokens} are "
            "special ones"
        )
    return _STRATEGIES[long_text_settings.long_texts](
        sequences, max_length - num_special_tokens, long_text_settings.overlap
    )


def parse_words(fields: Mapping[str, Any], name: str) -> list[str]:
    """The words of a field: a list, or a cell of a table with spaces (else ``|``) between them.

    Raises:
        DataError: it is neither.
    """
    value = fields.get(name)
    if isinstance(value, str):  # a cell of a table, with | between words where pretune wrote it
        value = value.split() if " " in value else value.split("|")
    if not isinstance(value, list | tuple) or not all(isinstance(word, str) for word in value):
        raise DataError(f"{name!r} must be a list of texts, not {type(value).__name__}")
    return list(value)


def window_slices(record: Record, size: int, room: int, overlap: int) -> Iterator[slice]:
    """Windows of ``room`` tokens over ``size``, each sharing ``overlap`` with the one before.

    Raises:
        DataError: there is no token, or no room for one.
    """
    if room < 1 or not size:
        raise DataError(f"{record.location}: no token of the text fits into the model")
    stride = max(1, room - min(overlap, room // 2))
    for start in range(0, max(1, size - room + stride), stride):
        yield slice(start, start + room)


def second_text_start(specials: SpecialTokens, size: int) -> tuple[int, int]:
    """Where the second text of a pair begins behind a first of ``size`` tokens; how many are special ones."""
    marks, _ = add_special_tokens(specials, (np.full(size, -1), np.array([-2])))
    return int(np.flatnonzero(marks == -2)[0]), len(marks) - size - 1


def _split_windows(sequences: Sequences, max_tokens: int, overlap: int) -> list[Sequences]:
    """The last text is cut into windows; a first text takes at most half of the room."""
    *fixed, last = _shorten_first(sequences, max_tokens)
    max_tokens -= sum(map(len, fixed))
    if len(last) <= max_tokens:
        return [(*fixed, last)]
    stride = max(1, max_tokens - min(overlap, max_tokens // 2))
    count = 1 + -(-(len(last) - max_tokens) // stride)
    return [(*fixed, last[k * stride : k * stride + max_tokens]) for k in range(count)]


def _truncate(sequences: Sequences, max_tokens: int, overlap: int) -> list[Sequences]:
    *fixed, last = _shorten_first(sequences, max_tokens)
    return [(*fixed, last[: max_tokens - sum(map(len, fixed))])]


def _truncate_longest(sequences: Sequences, max_tokens: int, overlap: int) -> list[Sequences]:
    """As ``truncation="longest_first"`` of `tokenizers`: the longer one loses tokens until both are even."""
    if len(sequences) == 1:
        return [(sequences[0][:max_tokens],)]
    first, second = sequences
    short, long = sorted((len(first), len(second)))
    if short + long > max_tokens:
        short = min(short, max_tokens // 2)
        long = max_tokens - short
    sizes = (short, long) if len(first) <= len(second) else (long, short)
    return [(first[: sizes[0]], second[: sizes[1]])]


def _shorten_first(sequences: Sequences, max_tokens: int) -> Sequences:
    if len(sequences) == 1:
        return sequences
    first, second = sequences
    return first[: max(max_tokens // 2, max_tokens - len(second))], second


_STRATEGIES = {"windows": _split_windows, "truncate": _truncate, "longest_first": _truncate_longest}
