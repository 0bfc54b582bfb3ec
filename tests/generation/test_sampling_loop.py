"""Texts are continued as stock ``generate`` does, in whole characters, and stop where they should."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

import pretune
from pretune.config import build_settings
from pretune.errors import CheckpointError, ConfigError, UsageError
from pretune.generation.sampling import Sampling
from pretune.generation.settings import Decoding

GREEDY = Sampling(temperature=0)
WILD = Sampling(temperature=1.5, top_k=0, top_p=1.0)


def ids(model: pretune.Model, prompts: list[str], **settings: Any) -> list[list[int]]:
    found = model.generate_batch(prompts, Decoding(**settings))
    return [list(said[0].tokens) for said in found]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("settings", "sampling"),
    [
        ({}, GREEDY),
        ({"repetition_penalty": 1.3}, Sampling(temperature=0, repetition_penalty=1.3)),
        ({"no_repeat_ngram_size": 2}, Sampling(temperature=0, no_repeat_ngram_size=2)),
        ({"min_new_tokens": 40}, GREEDY),
    ],
)
def test_greedy_is_that_of_stock(pair: Any, settings: dict[str, Any], sampling: Sampling) -> None:
    prompts = list(pair.prompts[:: 2 if settings else 1])
    limits = {"max_new_tokens": 64, "min_new_tokens": settings.get("min_new_tokens", 0)}
    wanted = [pair.stock_ids([prompt], do_sample=False, **{**settings, **limits})[0] for prompt in prompts]
    assert ids(pair.ours, prompts, sampling=sampling, **limits) == wanted
    alone = [ids(pair.ours, [prompt], sampling=sampling, **limits)[0] for prompt in prompts]
    assert alone == wanted
    assert ids(pair.ours, prompts[:4], sampling=sampling, use_cache=False, **limits) == wanted[:4]
    assert settings or {len(row) for row in wanted} != {64}, "some end by themselves"


@pytest.mark.parametrize(
    ("width", "penalty", "early", "more"),
    [
        (2, 1.0, False, {}),
        pytest.param(4, 0.0, False, {}, marks=pytest.mark.slow),
        pytest.param(4, 2.0, True, {}, marks=pytest.mark.slow),
        pytest.param(3, -1.0, False, {"min_new_tokens": 5}, marks=pytest.mark.slow),
        (5, 1.0, True, {"repetition_penalty": 1.2}),
    ],
)
def test_beams_are_those_of_stock(
    pair: Any, width: int, penalty: float, early: bool, more: dict[str, Any]
) -> None:
    settings = {"num_beams": width, "length_penalty": penalty, "early_stopping": early, "max_new_tokens": 24}
    sampling = Sampling(temperature=0, repetition_penalty=more.get("repetition_penalty", 1.0))
    limits = {key: value for key, value in more.items() if key != "repetition_penalty"}
    for prompt in pair.prompts[::3]:
        inputs = pair.reader([prompt], return_tensors="pt")
        found = pair.stock.generate(
            **inputs, **settings, **more, do_sample=False, num_return_sequences=2,
            return_dict_in_generate=True, output_scores=True,
        )  # fmt: skip
        said = pair.ours.generate_batch(
            [prompt],
            build_settings(Decoding, {**settings, **limits, "num_return_sequences": 2, "sampling": sampling}),
        )[0]
        wanted = pair.stock_ids([prompt], **settings, **more, do_sample=False, num_return_sequences=2)
        assert [list(one.tokens) for one in said] == wanted
        assert [one.score for one in said] == pytest.approx(found.sequences_scores.tolist(), rel=1e-5)


def test_drawn_texts_have_the_probabilities_of_stock(pair: Any) -> None:
    """Two tokens, drawn many times: as often as the product of stock's own probabilities says."""
    sampling = Sampling(temperature=1.2, top_k=5, top_p=0.9)
    settings = {"do_sample": True, "temperature": 1.2, "top_k": 5, "top_p": 0.9}
    count = 2000
    decoding = Decoding(max_new_tokens=2, num_return_sequences=count, sampling=sampling)
    drawn = [said.tokens for said in pair.ours.generate_batch(["渔夫"], decoding)[0]]
    ends = pair.ours.generation_config.eos_ids
    inputs = pair.reader("渔夫", return_tensors="pt")["input_ids"]

    def step(text: torch.Tensor) -> torch.Tensor:
        found = pair.stock.generate(
            text, attention_mask=torch.ones_like(text), **settings, max_new_tokens=1,
            return_dict_in_generate=True, output_scores=True,
        )  # fmt: skip
        return found.scores[0][0].softmax(-1)

    expected: dict[tuple[int, ...], float] = {}
    for first, share in enumerate(step(inputs).tolist()):
        if not share:
            continue
        if first in ends:
            expected[()] = expected.get((), 0.0) + share
            continue
        for second, rest in enumerate(step(torch.cat([inputs, torch.tensor([[first]])], 1)).tolist()):
            if rest:
                key = (first,) if second in ends else (first, second)
                expected[key] = expected.get(key, 0.0) + share * rest
    assert set(drawn) <= expected.keys()
    statistic = sum((drawn.count(key) - count * p) ** 2 / (count * p) for key, p in expected.items())
    assert statistic < len(expected) + 4 * (2 * len(expected)) ** 0.5  # four sigma; the draws are fixed


def test_a_seed_gives_the_same_text_wherever_the_prompt_stands(pair: Any) -> None:
    model = pair.ours
    decoding = Decoding(max_new_tokens=12, num_return_sequences=3, sampling=WILD, seed=4)
    together = model.generate_batch(pair.prompts, decoding)
    assert together[5] == model.generate_batch([pair.prompts[5]], decoding)[0]
    assert len({said.text for said in together[5]}) == 3
    assert together[5][0].text == model.generate(pair.prompts[5], max_new_tokens=12, sampling=WILD, seed=4)
    assert together != model.generate_batch(pair.prompts, decoding.model_copy(update={"seed": 5}))


@pytest.mark.parametrize("prompt", ["The captain", "渔夫", "𠮷"])
def test_a_stream_is_the_text_in_whole_characters(pair: Any, prompt: str) -> None:
    for seed in range(4):
        settings: dict[str, Any] = {"max_new_tokens": 60, "sampling": WILD, "seed": seed}
        pieces = list(pair.ours.stream(prompt, **settings))
        assert "".join(pieces) == pair.ours.generate(prompt, **settings)
        assert all(pieces)
        said = pair.ours.generate_batch([prompt], Decoding(**settings))[0][0]
        whole = pair.ours.tokenizer.decode(list(said.tokens))
        assert "".join(pieces) == whole


@pytest.mark.slow
def test_a_stop_string_ends_the_text_before_it(pair: Any) -> None:
    """Also one that lies across tokens, or within one, or is half a character when its first token comes."""
    model = pair.ours
    checked = 0
    for prompt in pair.prompts[::2]:
        whole = model.generate(prompt, max_new_tokens=40, sampling=GREEDY)
        for start in range(2, max(2, len(whole) - 3), 7):
            for size in (1, 3):
                stop = whole[start : start + size]
                if "\ufffd" in stop:
                    continue
                settings: dict[str, Any] = {"max_new_tokens": 40, "stop": (stop, "never this")}
                said = model.generate_batch([prompt], Decoding(sampling=GREEDY, **settings))[0][0]
                assert said.text == whole[: whole.index(stop)]
                assert said.finish_reason == "stop"
                assert "".join(model.stream(prompt, sampling=GREEDY, **settings)) == said.text
                checked += 1
    assert checked > 30


def test_stop_strings_stop_beams_too(pair: Any) -> None:
    plain = Decoding(max_new_tokens=20, num_beams=3)
    whole = pair.ours.generate_batch(["渔夫"], plain)[0][0].text
    stop = whole[4:6]
    said = pair.ours.generate_batch(["渔夫"], plain.model_copy(update={"stop": (stop,)}))[0]
    assert all(stop not in one.text for one in said)


def test_a_text_ends_at_any_of_the_end_tokens(pair: Any) -> None:
    model = pair.ours
    assert model.generation_config.eos_ids == (model.tokenizer.specials.eos_id, 17)
    decoding = Decoding(max_new_tokens=80, num_return_sequences=40, sampling=WILD)
    said = model.generate_batch(["The"], decoding)[0]
    assert {one.finish_reason for one in said} == {"end", "length"}
    assert all(17 not in one.tokens for one in said)
    longer = model.generate_batch(["The"], decoding.model_copy(update={"min_new_tokens": 30}))[0]
    assert min(len(one.tokens) for one in longer) >= 30


def test_a_text_outgrows_what_the_model_reads(pair: Any) -> None:
    model = pair.ours
    decoding = Decoding(max_new_tokens=200, min_new_tokens=200, sampling=GREEDY)
    together = model.generate_batch(["The", "渔夫看见港口，船长回家了。" * 3], decoding)
    assert [len(said[0].tokens) for said in together] == [200, 200]
    assert together[0] == model.generate_batch(["The"], decoding)[0]
    assert model.generate_batch(["The " * 300], Decoding(max_new_tokens=3))[0][0].tokens  # its end is read


def test_the_defaults_are_those_of_the_folder(pair: Any, tmp_path: Path) -> None:
    settings = {"do_sample": True, "temperature": 0.6, "top_p": 0.9, "eos_token_id": [5, 6], "min_p": None}
    model = pretune.load(pair.folder)
    model.save(tmp_path / "model")
    path = tmp_path / "model" / "generation_config.json"
    (tmp_path / "model" / "manifest.json").unlink()
    path.write_text(json.dumps({**settings, "cache_implementation": "static"}))
    loaded = pretune.load(tmp_path / "model")
    assert loaded.generation_config.eos_ids == (5, 6)
    assert loaded.generation_config.sampling == Sampling(temperature=0.6, top_k=50, top_p=0.9)
    loaded.save(tmp_path / "again")
    kept = transformers.GenerationConfig.from_pretrained(tmp_path / "again")
    assert (kept.do_sample, kept.temperature, kept.top_k, kept.top_p) == (True, 0.6, 50, 0.9)
    assert (kept.eos_token_id, kept.cache_implementation) == ([5, 6], "static")
    path.write_text(json.dumps({"eos_token_id": 5}))  # stock draws only where the file says so
    assert pretune.load(tmp_path / "model").generation_config.sampling.temperature == 0
    path.unlink()
    assert pretune.load(tmp_path / "model").generation_config.sampling == Sampling()


def test_stock_draws_from_what_we_save_as_we_do(llama: Path) -> None:
    stock = transformers.GenerationConfig.from_pretrained(llama / "model")
    ours = pretune.load(llama)
    assert (stock.do_sample, stock.temperature, stock.top_k, stock.top_p) == (True, 0.8, 50, 0.95)
    assert stock.eos_token_id == ours.tokenizer.specials.eos_id
    assert ours.generation_config.sampling == Sampling()


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("{", "cannot be read as JSON"),
        ("[1]", "expected an object, found list"),
        ('{"eos_token_id": "no"}', "eos_token_id = 'no'"),
        ('{"do_sample": true, "temperature": -1}', "temperature = -1"),
    ],
)
def test_damaged_defaults_are_named(pair: Any, tmp_path: Path, text: str, fault: str) -> None:
    pretune.load(pair.folder).save(tmp_path / "model")
    (tmp_path / "model" / "manifest.json").unlink()
    (tmp_path / "model" / "generation_config.json").write_text(text)
    with pytest.raises(CheckpointError, match=f"generation_config.json.*{fault}"):
        pretune.load(tmp_path / "model")


def test_what_makes_no_sense_is_refused(pair: Any) -> None:
    model = pair.ours
    with pytest.raises(UsageError, match="same text each time"):
        model.generate_batch(["a"], Decoding(num_return_sequences=2, sampling=GREEDY))
    with pytest.raises(UsageError, match="num_beams = 2 searches"):
        model.generate("a", num_beams=2, sampling=WILD)
    for settings, fault in (
        ({"min_new_tokens": 9, "max_new_tokens": 3}, "min_new_tokens 9"),
        ({"num_beams": 2, "num_return_sequences": 3}, "num_return_sequences 3"),
        ({"stop": [""]}, "empty string"),
        ({"max_new_tokens": -1}, "max_new_tokens = -1"),
    ):
        with pytest.raises(ConfigError, match=fault):
            build_settings(Decoding, settings)
    assert model.generate("", max_new_tokens=3, sampling=GREEDY) is not None


def test_words_keep_their_space_where_tokens_hold_it_in_front(pair: Any) -> None:
    """A decoder that strips the space of a first token, as those of Llama's vocabularies do."""
    from tokenizers import Tokenizer as Backend
    from tokenizers import decoders, models, pre_tokenizers

    from pretune.generation.detokenizer import StreamingDetokenizer
    from pretune.text.tokenizer import Tokenizer

    vocabulary = [("<unk>", 0.0), ("▁the", -1.0), ("▁cap", -1.0), ("tain", -1.0), ("▁", -2.0), ("。", -2.0)]
    backend = Backend(models.Unigram(vocabulary, unk_id=0))
    backend.pre_tokenizer = pre_tokenizers.Metaspace()
    backend.decoder = decoders.Metaspace()
    writer = StreamingDetokenizer(Tokenizer(backend), [1])
    assert "".join(writer.push(token) for token in (2, 3, 1)) + writer.finish("length") == " captain the"
