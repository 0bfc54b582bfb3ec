"""Scores are the sums that stock transformers gives, over windows and masks written out by hand."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

import pretune
from pretune.errors import UsageError
from pretune.text.segmentation import WORD_START, find_word_starts

SENTENCES = ("the king saw a castle and the captains.", "我爱你。国王爱王后。", "king")


def stock_masked(masked: Any, ids: list[int], place: int, hidden: list[int]) -> float:
    row = list(ids)
    for other in hidden:
        row[other] = masked.reader.mask_token_id
    with torch.inference_mode():
        logs = masked.stock(torch.tensor([row])).logits[0, place].log_softmax(-1)
    return float(logs[ids[place]])


@pytest.mark.parametrize("within", [False, True])
def test_the_pseudo_log_likelihood_masks_one_token_after_another(masked: Any, within: bool) -> None:
    model = masked.ours
    several = 0
    for text in SENTENCES:
        ids = masked.reader(text)["input_ids"]
        encoded = model.tokenizer.encode(text)
        words = (find_word_starts(text, encoded.offsets) & WORD_START).cumsum().tolist()
        several += len(words) - len(set(words))
        wanted = []
        for place in range(1, len(ids) - 1):
            same = [k + 1 for k in range(place - 1, len(words)) if words[k] == words[place - 1]]
            wanted.append(stock_masked(masked, ids, place, same if within else [place]))
        score = model.score(text, within_word=within)
        assert [value for _, value in score.tokens] == pytest.approx(wanted, abs=1e-4)
        assert score.nll == pytest.approx(-sum(wanted), abs=1e-3)
        assert score.pseudo
        assert score.perplexity == pytest.approx(math.exp(-sum(wanted) / len(wanted)), rel=1e-4)
        assert score.bits_per_byte == pytest.approx(-sum(wanted) / math.log(2) / len(text.encode()), rel=1e-4)
    assert several, "some words have several tokens"


def test_a_long_text_is_scored_by_the_middles_of_its_windows(masked: Any) -> None:
    model = masked.ours
    text = "the king saw a castle and the queen was old. " * 9
    ids = model.tokenizer.encode(text).ids.tolist()
    room, stride = model.max_length - 2, 10
    assert len(ids) > 2 * room
    specials = model.tokenizer.specials
    wanted = []
    for place in range(len(ids)):
        first = place // stride * stride
        begin = max(0, min(first - (room - stride) // 2, len(ids) - room))
        window = [*specials.single[0], *ids[begin : begin + room], *specials.single[1]]
        at = place - begin + 1
        wanted.append(stock_masked(masked, window, at, [at]))
    got = [value for _, value in model.score(text, stride=stride).tokens]
    assert got == pytest.approx(wanted, abs=1e-4)
    assert len(model.score(text).tokens) == len(ids)


def test_texts_are_scored_together_as_alone(masked: Any) -> None:
    together = masked.ours.score_batch(SENTENCES)
    assert [s.nll for s in together] == pytest.approx([masked.ours.score(t).nll for t in SENTENCES], abs=1e-4)


def test_a_causal_text_is_scored_in_windows_with_context(llama: Path) -> None:
    model = pretune.load(llama)
    stock = transformers.AutoModelForCausalLM.from_pretrained(llama / "model").eval()
    specials = model.tokenizer.specials
    text = "The soldier saw the castle in year 7. 士兵看见城堡，第9年。" * 8
    ids = [specials.bos_id, *model.tokenizer.encode(text).ids.tolist(), specials.eos_id]
    length, stride = model.max_length, 12
    assert len(ids) > 3 * length
    wanted: list[float] = []
    while len(wanted) < len(ids) - 1:
        end = min(len(ids) - 1, len(wanted) + (stride if wanted else length))
        begin = max(0, end - length)
        with torch.inference_mode():
            logs = stock(torch.tensor([ids[begin:end]])).logits[0].log_softmax(-1)
        wanted += [float(logs[k - begin, ids[k + 1]]) for k in range(len(wanted), end)]
    got = model.score(text, stride=stride)
    assert [value for _, value in got.tokens] == pytest.approx(wanted, abs=1e-4)
    assert not got.pseudo
    # As much context as there is cannot be worse on the whole than none; both are averages over many tokens.
    assert model.score(text, stride=1).nll == pytest.approx(got.nll, rel=0.1)


def test_causal_texts_of_all_lengths_are_scored_together_as_alone(
    llama: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = pretune.load(llama)
    texts = ["The", "士兵看见城堡，第9年。", "The soldier saw the castle in year 7. " * 9, ""]
    alone = [model.score(text) for text in texts]
    together = model.score_batch(texts)
    assert [s.nll for s in together] == pytest.approx([s.nll for s in alone], abs=1e-4)
    # Little memory: few rows at once, and a long one in pieces over a cache.
    monkeypatch.setattr("pretune.inference.scoring.MAX_LOGITS", 5 * model.tokenizer.vocabulary_size)
    pieces = model.score_batch(texts)
    assert [s.tokens for s in pieces] == [
        tuple((token, pytest.approx(value, abs=1e-4)) for token, value in s.tokens) for s in alone
    ]


def test_wrong_questions_are_named(llama: Path, masked: Any) -> None:
    causal = pretune.load(llama)
    for model, settings, fault in (
        (causal, {"within_word": True}, "within_word is for masked"),
        (causal, {"stride": 33}, "from 1 to 32"),
        (masked.ours, {"stride": 0}, "from 1 to 38"),
    ):
        with pytest.raises(UsageError, match=fault):
            model.score("the king", **settings)
    with pytest.raises(UsageError, match="nothing to score"):
        masked.ours.score("")
