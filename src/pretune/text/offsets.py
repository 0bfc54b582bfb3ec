"""Which characters a token stands for, computed from its bytes where a tokenizer keeps every byte.

`tokenizers` tells offsets as one tuple a token, which takes longer to read than the text takes to encode; and
it gives all bytes of a run of characters without a token the offsets of the whole run.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from pretune.types import IntArray


def is_byte_preserving(description: Mapping[str, Any]) -> bool:
    """Do the ids of a text stand for exactly its bytes, in order, spaces included?

    True for byte-level BPE and for byte fallback without a normaliser, without a space put before the text
    and without spaces trimmed from offsets; others may keep bytes too, but it is not told here.
    """
    if description["normalizer"] is not None or description["pre_tokenizer"] is None:
        return False
    if any(t["lstrip"] or t["rstrip"] for t in description["added_tokens"] if not t["special"]):
        return False
    steps = description["pre_tokenizer"].get("pretokenizers", [description["pre_tokenizer"]])
    after = description["post_processor"] or {}
    trims = any(step.get("trim_offsets") for step in (after, *after.get("processors", ())))
    if not steps:
        return False
    last, model = steps[-1], description["model"]
    if trims or any(step["type"] not in _BYTE_PRESERVING_STEPS for step in steps[:-1]):
        return False
    if last["type"] == "ByteLevel":
        return model["type"] == "BPE" and not last["add_prefix_space"]
    return (
        last["type"] == "Metaspace" and last["prepend_scheme"] == "never" and bool(model.get("byte_fallback"))
    )


_BYTE_PRESERVING_STEPS = frozenset({"Split", "Digits", "Punctuation"})


def byte_offsets(text: str, sizes: IntArray) -> IntArray | None:
    """(T, 2) characters [start, end) of tokens of ``sizes`` bytes; None where they are not the text's bytes.

    A token that holds a part of a character gets the whole of it.
    """
    ends = np.cumsum(sizes)
    data = text.encode()
    if (ends[-1] if len(ends) else 0) != len(data) or not (sizes > 0).all():
        return None
    starts = ends - sizes
    if len(data) != len(text):
        # A byte of the form 10xxxxxx goes on with a character, any other begins one.
        character = np.cumsum((np.frombuffer(data, np.uint8) & 0xC0) != 0x80) - 1
        starts, ends = character[starts], character[ends - 1] + 1
    return np.stack([starts, ends], axis=1)
