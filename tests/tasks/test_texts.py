"""How a text or a pair that is too long is cut: against stock tokenizers, and without losing a token."""

from __future__ import annotations

import numpy as np
import pytest
import transformers
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer as Backend
from tokenizers import models, pre_tokenizers, processors

from pretune.errors import DataError
from pretune.tasks._texts import LongTextSettings, encode_windows, parse_text_pair
from pretune.tasks.base import Reader
from pretune.tasks.classification import Task
from pretune.text.tokenizer import Tokenizer
from pretune.types import Record

WORDS = [f"w{number}" for number in range(60)]


def reader() -> Tokenizer:
    tokens = ["[PAD]", "[CLS]", "[SEP]", *WORDS, "[UNK]"]
    numbers = {token: number for number, token in enumerate(tokens)}
    backend = Backend(models.WordLevel(numbers, unk_token="[UNK]"))
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    backend.post_processor = processors.BertProcessing(("[SEP]", 2), ("[CLS]", 1))
    return Tokenizer(backend)


READER = reader()


def encode(record: Record, length: int, settings: LongTextSettings) -> list[tuple[np.ndarray, ...]]:
    return encode_windows(record, Task().texts(record), Reader(READER, length), settings)


def pair(first: int, second: int) -> Record:
    return Record({"text": " ".join(WORDS[:first]), "text_pair": " ".join(WORDS[30 : 30 + second])}, "a", 1)


@settings(max_examples=80, deadline=None)
@given(st.integers(1, 30), st.integers(1, 30), st.integers(8, 40))
def test_longest_first_is_that_of_stock(first: int, second: int, length: int) -> None:
    stock = transformers.PreTrainedTokenizerFast(
        tokenizer_object=Backend.from_str(READER._backend.to_str()), pad_token="[PAD]",
        cls_token="[CLS]", sep_token="[SEP]",
    )  # fmt: skip
    record = pair(first, second)
    ours = encode(record, length, LongTextSettings(long_texts="longest_first"))
    tokens, segments = READER.add_special_tokens(*ours[0])
    theirs = stock(
        record.fields["text"], record.fields["text_pair"], truncation=True, max_length=length,
        return_token_type_ids=True,
    )  # fmt: skip
    assert len(ours) == 1
    assert tokens.tolist() == theirs["input_ids"]
    assert segments.tolist() == theirs["token_type_ids"]


@settings(max_examples=80, deadline=None)
@given(st.integers(1, 30), st.integers(1, 30), st.integers(8, 40), st.integers(0, 20))
def test_windows_fit_and_hold_all_of_the_second_text(
    first: int, second: int, length: int, overlap: int
) -> None:
    record = pair(first, second)
    found = encode(record, length, LongTextSettings(overlap=overlap))
    assert all(len(READER.add_special_tokens(*sequences)[0]) <= length for sequences in found)
    seen = np.unique(np.concatenate([sequences[1] for sequences in found]))
    assert seen.tolist() == READER.encode(str(record.fields["text_pair"])).ids.tolist()
    room = length - 3
    assert len(found[0][0]) == min(first, max(room // 2, room - second))


def test_a_long_single_text_is_cut_at_its_end() -> None:
    record = Record({"text": " ".join(WORDS)}, "a", 1)
    for kind in ("truncate", "longest_first"):
        (found,) = encode(record, 10, LongTextSettings(long_texts=kind))
        assert found[0].tolist() == READER.encode(" ".join(WORDS[:8])).ids.tolist()


def test_a_second_text_must_be_text() -> None:
    assert parse_text_pair({"text": "a", "text_pair": 7})["text_pair"] == "7"
    assert parse_text_pair({"text": "a", "text_pair": None}) == {"text": "a", "text_pair": None}
    for value, fault in ((" ", "empty"), (["b"], "list, not text")):
        with pytest.raises(DataError, match=f"'text_pair' is {fault}"):
            parse_text_pair({"text": "a", "text_pair": value})
