"""Span corruption: the paper's example, the authors' spans, statistics, and what is refused."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from pairs import SPECIALS, TRAITS, feature, ids, shown, words

from pretune.checkpoint import weights
from pretune.data.corpus.windows import EncodedRecords
from pretune.data.order import training_rng
from pretune.errors import ConfigError, UnsupportedError
from pretune.families import bert, gpt2, t5
from pretune.objectives import parse_objective
from pretune.objectives.span_corruption import HEAD, Objective, Options, insert_sentinels, noise_mask
from pretune.types import IGNORE_INDEX, Feature, SpecialTokens

MANY = SpecialTokens(
    vocabulary_size=100_000, pad_id=0, eos_id=1, all_ids=(0, 1, *range(99_900, 100_000)), single=((), (1,)),
    sentinel_ids=tuple(range(99_999, 99_899, -1)),
)  # fmt: skip


def test_the_papers_example() -> None:
    """Raffel et al. 2020, figure 2."""
    text = ids("Thank you for inviting me to your party last week .")
    hidden = np.array([word in ("for", "inviting", "last") for word in words(text).split()])
    sentinels = np.array(SPECIALS.sentinel_ids)
    assert words(insert_sentinels(text, hidden, sentinels)) == "Thank you <X> me to your party <Y> week ."
    assert words(insert_sentinels(text, ~hidden, sentinels)) == "<X> for inviting <Y> last <Z>"


def test_a_window_by_eye() -> None:
    objective = Objective(TRAITS, SPECIALS)
    text = feature("Thank you for inviting me to your party last week .")
    found = {shown(objective.build(text, training_rng(0, epoch, 0))) for epoch in range(200)}
    # 15 % of 11 are two tokens in one span, at the end: the spans of the authors' code close the window.
    assert found == {
        ("Thank you for inviting me to your party last <X> </s>", "<pad> <X> week .", "<X> week . </s>")
    }
    two = Objective(TRAITS, SPECIALS, Options(noise_density=0.4, mean_span_length=2))
    found = {shown(two.build(text, training_rng(0, epoch, 0))) for epoch in range(300)}
    assert (
        "Thank you <X> inviting me to your party <Y> </s>",
        "<pad> <X> for <Y> last week .",
        "<X> for <Y> last week . </s>",
    ) in found
    # Four tokens in two spans, before each of which something stays: 3 ways by 6 ways.
    assert len(found) == 18


def test_hidden_only_counts_no_sentinel_and_no_end() -> None:
    text = feature("白日 依 山 尽 。 黄河 入 海 流 。")
    objective = Objective(TRAITS, SPECIALS, Options(noise_density=0.4, mean_span_length=2, masked_only=True))
    example = objective.build(text, training_rng(0, 2, 0))
    _, read, told = shown(example)
    unsaid = [word if word not in ("<X>", "<Y>", "</s>") else "·" for word in f"{read} </s>".split()[1:]]
    assert told.split() == unsaid
    assert objective.collate([[example]]).counts == {HEAD: 4}


def reference_mask(length: int, density: float, mean: float, shuffle: Any) -> np.ndarray[Any, Any]:
    """`random_spans_noise_mask` of t5.data.preprocessors, its tensors written as arrays."""
    orig_length = length
    length = max(length, 2)
    num_noise = int(np.round(np.float32(length) * np.float32(density)))
    num_noise = min(max(num_noise, 1), length - 1)
    num_spans = max(int(np.round(np.float32(num_noise) / np.float32(mean))), 1)
    num_nonnoise = length - num_noise

    def segmentation(num_items: int, num_segments: int) -> np.ndarray[Any, Any]:
        shuffled = (np.arange(num_items - 1) < num_segments - 1).astype(np.int64)
        shuffle(shuffled)
        segment_id = np.cumsum(np.pad(shuffled, [[1, 0]]))
        _, lengths = np.unique(segment_id, return_counts=True)
        return lengths

    noise_lengths = segmentation(num_noise, num_spans)
    nonnoise_lengths = segmentation(num_nonnoise, num_spans)
    interleaved = np.reshape(np.stack([nonnoise_lengths, noise_lengths], axis=1), [num_spans * 2])
    starts = np.cumsum(interleaved)[:-1]
    indicator = np.zeros(length, np.int64)
    indicator[starts] = 1
    return np.equal(np.cumsum(indicator) % 2, 1)[:orig_length]


@pytest.mark.parametrize(("density", "mean"), [(0.15, 3.0), (0.5, 3.0), (0.15, 8.0), (0.3, 1.0)])
def test_spans_are_those_of_the_authors(density: float, mean: float) -> None:
    objective = Objective(TRAITS, MANY, Options(noise_density=density, mean_span_length=mean))
    for length in [*range(1, 80), 127, 511]:
        draw, again = np.random.default_rng(length), np.random.default_rng(length)
        ours = noise_mask(length, objective.noise_counts(length), draw)
        assert ours.tolist() == reference_mask(length, density, mean, again.shuffle).tolist(), length


def test_rates_and_spans_over_many_draws() -> None:
    objective = Objective(TRAITS, MANY)
    text = Feature(0, 0, (np.arange(10, 522),))
    hidden, lengths, firsts = 0, Counter[int](), Counter[int]()
    for epoch in range(200):
        row = objective.build(text, training_rng(0, epoch, 0)).rows[0]
        assert row.source_tokens is not None
        told = row.targets[HEAD]
        marks = np.flatnonzero(told > 99_000)
        assert told[marks].tolist() == list(MANY.sentinel_ids[: len(marks)])
        assert (
            np.setdiff1d(text.sequences[0], row.source_tokens).tolist()
            == np.sort(told[(told > 9) & (told < 9999)]).tolist()
        )
        sizes = np.diff(np.append(marks, len(told) - 1)) - 1
        hidden += int(sizes.sum())
        lengths.update(sizes.tolist())
        firsts.update([int(told[1]) - 10])
    assert hidden == 200 * 77  # 15 % of 512
    assert lengths.total() == 200 * 26
    mean = sum(size * count for size, count in lengths.items()) / lengths.total()
    assert mean == pytest.approx(77 / 26)
    # Compositions of 77 into 26 parts, all equally likely: a part is 1 with probability 25/76.
    share = lengths[1] / lengths.total()
    assert share == pytest.approx(25 / 76, abs=4 * (0.33 * 0.67 / (200 * 26)) ** 0.5)
    assert len(firsts) > 20


def test_bounds_hold_for_every_length() -> None:
    for options in (
        Options(),
        Options(noise_density=0.5),
        Options(noise_density=0.9, mean_span_length=1),
        Options(noise_density=0.01),
    ):
        many = SpecialTokens(
            100_000, 0, eos_id=1, single=((), (1,)), sentinel_ids=tuple(range(90_000, 91_000))
        )
        objective = Objective(TRAITS, many, options)
        sizes = np.arange(1, 200)
        bounds = objective.length_bounds(sizes[:, None])
        for size, bound in zip(sizes.tolist(), bounds.tolist(), strict=True):
            row = objective.build(Feature(0, 0, (np.arange(10, 10 + size),)), training_rng(0, 0, size)).rows[
                0
            ]
            assert row.source_tokens is not None
            assert max(len(row.source_tokens), len(row.tokens)) <= bound
            assert bound <= max(size, 2) + 1
    assert Objective.window_spec(SPECIALS, 128).length == 127


def test_contexts_are_the_true_neighbours() -> None:
    text = Feature(0, 0, (np.arange(10, 110),))
    for options in (
        Options(),
        Options(masked_only=True),
        Options(noise_density=0.5, mean_span_length=2, masked_only=True),
    ):
        objective = Objective(TRAITS, MANY, options)
        example = objective.build(text, training_rng(0, 0, 0))
        previous, target = Objective.ngram_contexts(text, example, MANY)
        told = example.rows[0].targets[HEAD]
        assert target.tolist() == told[told != IGNORE_INDEX].tolist()
        ordinary = target < 9999
        ordinary &= target > 9
        assert (previous[ordinary] == target[ordinary] - 1).all()
        assert (previous[~ordinary] == -1).all()
        assert bool(ordinary.all()) == options.masked_only


def test_what_cannot_be_is_refused() -> None:
    for traits in (bert.TRAITS, gpt2.TRAITS):
        with pytest.raises(UnsupportedError, match="span_corruption needs an encoder-decoder"):
            Objective(traits, SPECIALS)
        assert not parse_objective("span_corruption").is_supported_by(traits)
    assert parse_objective("span_corruption").is_supported_by(TRAITS)
    with pytest.raises(UnsupportedError, match="sentinels"):
        Objective(TRAITS, SpecialTokens(100, 0, eos_id=1))
    long = EncodedRecords([Feature(0, 0, (np.arange(10, 130),))])
    with pytest.raises(ConfigError, match="6 spans, the tokenizer has 3 sentinels"):
        Objective(TRAITS, SPECIALS, store=long)


@pytest.mark.parametrize("name", ["span_corruption", "denoising", "prefix_lm"])
def test_a_batch_costs_what_it_costs_in_stock(name: str) -> None:
    """T5ForConditionalGeneration, given sources and labels alone, shifts and sums as we do; packed, too."""
    torch.manual_seed(0)
    config = transformers.T5Config(
        vocab_size=200, d_model=32, d_kv=8, num_heads=4, d_ff=64, num_layers=2, initializer_factor=3.0,
        dropout_rate=0.0, decoder_start_token_id=0,
    )  # fmt: skip
    stock = transformers.T5ForConditionalGeneration(config).eval()
    network = t5.Network(t5.Config.from_hugging_face(config.to_dict()), heads=(HEAD,)).eval()
    assert weights.load_weights(network, stock.state_dict(), t5.WEIGHTS) == []
    specials = SpecialTokens(
        vocabulary_size=200,
        pad_id=0,
        eos_id=1,
        mask_id=2,
        all_ids=(0, 1, 2),
        single=((), (1,)),
        sentinel_ids=(199, 198, 197),
    )
    objective = parse_objective(name).build_objective(t5.TRAITS, specials, {})
    texts = [
        Feature(i, 0, (np.arange(10, 10 + n),), word_starts=(np.full(n, 3, np.uint8),))
        for i, n in enumerate((30, 12))
    ]
    examples = [objective.build(text, training_rng(0, 0, text.record)) for text in texts]
    batch = objective.collate([[example] for example in examples])
    assert batch.source_tokens is not None
    assert batch.source_layout is not None
    labels = torch.full(batch.tokens.shape, IGNORE_INDEX)
    labels.view(-1)[batch.positions[HEAD]] = batch.targets[HEAD]
    mask = torch.arange(batch.source_tokens.shape[1]) < batch.source_layout.lengths[:, None]
    with torch.no_grad():
        expected = stock(batch.source_tokens, attention_mask=mask.long(), labels=labels).loss
        (loss,) = objective.loss(network, batch)
        (together,) = objective.loss(network, objective.collate([examples]))
    torch.testing.assert_close(loss.terms[HEAD][0] / batch.counts[HEAD], expected, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(together.terms[HEAD][0], loss.terms[HEAD][0], atol=1e-3, rtol=1e-4)
