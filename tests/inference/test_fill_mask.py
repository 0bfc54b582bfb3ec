"""Masks are filled as stock's pipeline fills them, in any vocabulary, and spaces come out right."""

from __future__ import annotations

import itertools
import math
from typing import Any

import pytest
import torch
import transformers

from pretune.errors import UsageError

TEXTS = ("the [MASK] saw a castle.", "[MASK] was old.", "我爱[MASK]。", "the king saw the [MASK]")


def logs(masked: Any, ids: list[int]) -> torch.Tensor:
    """Stock's log-probabilities (T, V) of a framed text."""
    with torch.inference_mode():
        logits: torch.Tensor = masked.stock(torch.tensor([ids])).logits[0]
    return logits.log_softmax(-1)


@pytest.mark.parametrize("text", TEXTS)
def test_one_mask_is_filled_as_by_the_pipeline(masked: Any, text: str) -> None:
    pipe = transformers.pipeline("fill-mask", model=masked.stock, tokenizer=masked.reader, top_k=15)
    special = set(masked.ours.tokenizer.specials.all_ids)
    wanted = [guess for guess in pipe(text) if guess["token"] not in special][:5]
    got = masked.ours.fill(text)[0]
    assert [guess.ids for guess in got] == [(guess["token"],) for guess in wanted]
    assert [guess.probability for guess in got] == pytest.approx(
        [guess["score"] for guess in wanted], abs=1e-5
    )
    squeezed = [guess["sequence"].replace(" ", "") for guess in wanted]
    assert [guess.text.replace(" ", "") for guess in got] == squeezed


def test_several_masks_are_filled_as_by_the_pipeline(masked: Any) -> None:
    text = "the [MASK] saw a [MASK]."
    pipe = transformers.pipeline("fill-mask", model=masked.stock, tokenizer=masked.reader, top_k=15)
    special = set(masked.ours.tokenizer.specials.all_ids)
    for got, wanted in zip(masked.ours.fill(text, top_k=3), pipe(text), strict=True):
        ids = [guess["token"] for guess in wanted if guess["token"] not in special][:3]
        assert [guess.ids[0] for guess in got] == ids
        assert all(guess.text.count("[MASK]") == 1 for guess in got)


def test_targets_are_those_of_the_pipeline(masked: Any) -> None:
    text = "the [MASK] saw a castle."
    got = masked.ours.fill(text, targets=["king", "queen", "king"])[0]
    assert sorted(guess.token.strip() for guess in got) == ["king", "queen"]
    assert sorted(guess.text for guess in got) == ["the king saw a castle.", "the queen saw a castle."]
    tokenizer = masked.ours.tokenizer
    names = [tokenizer.id_to_token(guess.ids[0]) for guess in got]
    assert all(len(guess.ids) == 1 for guess in got), "the vocabularies have these words"
    pipe = transformers.pipeline("fill-mask", model=masked.stock, tokenizer=masked.reader)
    wanted = pipe(text, targets=names)
    assert [guess.ids[0] for guess in got] == [guess["token"] for guess in wanted]
    assert [guess.probability for guess in got] == pytest.approx([g["score"] for g in wanted], abs=1e-5)
    assert len(masked.ours.fill(text, 1, targets=["king", "queen"])[0]) == 1


def test_a_target_of_several_tokens_has_the_probability_of_its_chain(masked: Any) -> None:
    text, target = "the [MASK] saw a castle.", "kings"
    (guess,) = masked.ours.fill(text, targets=[target])[0]
    whole = masked.reader(text.replace("[MASK]", target))["input_ids"]
    assert guess.text == "the kings saw a castle."
    start = next(i for i in range(len(whole)) if tuple(whole[i : i + len(guess.ids)]) == guess.ids)
    assert len(guess.ids) > 1
    total, mask = 0.0, masked.reader.mask_token_id
    for number, id in enumerate(guess.ids):
        hidden = list(whole)
        hidden[start + number : start + len(guess.ids)] = [mask] * (len(guess.ids) - number)
        total += float(logs(masked, hidden)[start + number, id])
    assert guess.probability == pytest.approx(math.exp(total / len(guess.ids)), rel=1e-4)


def test_masks_are_filled_jointly(masked: Any) -> None:
    """The best pair that a beam finds has the product of its conditional probabilities."""
    text = "the [MASK][MASK] saw a castle."
    first, second = masked.ours.fill(text, top_k=4, joint=True)
    assert [guess.probability for guess in first] == [guess.probability for guess in second]
    assert [guess.text for guess in first] == [guess.text for guess in second]
    assert all("[MASK]" not in guess.text for guess in first)
    whole = masked.reader(text)["input_ids"]
    mask = masked.reader.mask_token_id
    places = [i for i, id in enumerate(whole) if id == mask]
    special = list(masked.ours.tokenizer.specials.all_ids)
    start = logs(masked, whole)[places[0]]
    start[special] = -torch.inf
    best: dict[tuple[int, int], float] = {}
    for id in start.topk(16).indices.tolist():
        row = list(whole)
        row[places[0]] = id
        after = logs(masked, row)[places[1]]
        after[special] = -torch.inf
        for other in after.topk(16).indices.tolist():
            best[id, other] = math.exp(float(start[id] + after[other]))
    wanted = sorted(best.items(), key=lambda item: -item[1])[:4]
    assert [(a.ids[0], b.ids[0]) for a, b in zip(first, second, strict=True)] == [pair for pair, _ in wanted]
    assert [guess.probability for guess in first] == pytest.approx([p for _, p in wanted], rel=1e-4)


def test_whole_words_are_words_that_the_tokenizer_would_write_so(masked: Any) -> None:
    tokenizer = masked.ours.tokenizer
    for text in ("the [MASK] saw a castle.", "我爱[MASK]。"):
        found = masked.ours.fill(text, top_k=40, whole_words=True)[0]
        assert found
        assert [g.probability for g in found] == sorted((g.probability for g in found), reverse=True)
        for guess in found:
            before = text[: text.index("[MASK]")].rstrip()
            expected = [*tokenizer.encode(before).ids.tolist(), *guess.ids]
            assert tokenizer.encode(guess.text).ids.tolist()[: len(expected)] == expected
            assert guess.text == text.replace("[MASK]", guess.token.strip()), "spaces stand where they stood"
            assert "\ufffd" not in guess.text
            assert len(guess.ids) == 1 or guess.token.strip().isalnum()
    english = masked.ours.fill("the [MASK] saw a castle.", top_k=40, whole_words=True)[0]
    assert any(len(guess.ids) > 1 for guess in english)
    assert not any(guess.token.startswith("##") for guess in english)
    long = next(guess for guess in english if len(guess.ids) > 1)
    (alone,) = masked.ours.fill("the [MASK] saw a castle.", targets=[long.token.strip()])[0]
    assert (alone.ids, alone.text) == (long.ids, long.text)
    assert alone.probability == pytest.approx(long.probability, rel=1e-4)


def test_wrong_questions_are_named(masked: Any) -> None:
    fill = masked.ours.fill
    for settings, fault in (
        ({"targets": ["king"], "joint": True}, "exclude each other"),
        ({"joint": True, "whole_words": True}, "exclude each other"),
        ({"top_k": 0}, "top_k = 0"),
        ({"targets": [" "]}, "target ' '"),
    ):
        with pytest.raises(UsageError, match=fault):
            fill("the [MASK]", **settings)
    with pytest.raises(UsageError, match="holds no"):
        fill("the king")
    with pytest.raises(UsageError, match="the model reads 40"):
        fill("the king " * 30 + "[MASK]")


def test_all_of_a_small_vocabulary_may_be_asked_for(masked: Any) -> None:
    found = masked.ours.fill("the [MASK]", top_k=10_000)[0]
    assert len(found) == len({guess.ids for guess in found})
    assert not any(id in masked.ours.tokenizer.specials.all_ids for (id,) in (guess.ids for guess in found))
    # What the special tokens have is not given to the others.
    assert 0.1 < sum(guess.probability for guess in found) < 1 - 1e-6
    assert all(a.probability >= b.probability for a, b in itertools.pairwise(found))
