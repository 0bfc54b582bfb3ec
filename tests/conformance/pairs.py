"""An encoder-decoder's traits and a tokenizer of one token a word, for tests of what they are trained by."""

from __future__ import annotations

import numpy as np

from pretune.types import Example, Feature, IntArray, SpecialTokens, Traits

TRAITS = Traits(
    architecture="encoder-decoder",
    heads=("causal_lm",),
    pooling="last",
    supports_packing=False,
    decoder_start_token="pad",
)
SENTINELS = ("<X>", "<Y>", "<Z>")
WORDS = (
    "<pad>", "</s>", "<mask>", *SENTINELS, "Thank", "you", "for", "inviting", "me", "to", "your", "party",
    "last", "week", ".", "白日", "依", "山", "尽", "。", "黄河", "入", "海", "流",
)  # fmt: skip
SPECIALS = SpecialTokens(
    vocabulary_size=1000, pad_id=0, eos_id=1, mask_id=2, all_ids=(0, 1, 2, 3, 4, 5), single=((), (1,)),
    sentinel_ids=(3, 4, 5),
)  # fmt: skip


def ids(text: str) -> IntArray:
    return np.array([WORDS.index(word) for word in text.split()], np.int64)


def feature(*texts: str) -> Feature:
    """Sentences end with a full stop."""
    found = [ids(text) for text in texts]
    ends = [np.isin(tokens, [WORDS.index("."), WORDS.index("。")]) for tokens in found]
    starts = tuple(
        np.where(np.concatenate([[True], end[:-1]]), 3, 1).astype(np.uint8)  # a word each
        for end in ends
    )
    return Feature(7, 0, tuple(found), word_starts=starts)


def words(tokens: IntArray) -> str:
    return " ".join("·" if token == -100 else WORDS[token] for token in tokens.tolist())


def shown(example: Example) -> tuple[str, str, str]:
    """What the encoder reads, what the decoder reads, and what it must say, as a person reads them."""
    (row,) = example.rows
    assert row.source_tokens is not None
    assert row.positions["causal_lm"].tolist() == list(range(len(row.tokens)))
    return words(row.source_tokens), words(row.tokens), words(row.targets["causal_lm"])
