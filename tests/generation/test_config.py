"""What generation_config.json says is done as stock ``generate`` does it, or named; a caller's word wins."""

from __future__ import annotations

import json
import shutil
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from typer.testing import CliRunner

import pretune
from pretune.cli.main import app
from pretune.errors import CheckpointError, UsageError
from pretune.generation import config
from pretune.generation.sampling import Sampling
from pretune.generation.settings import Decoding
from pretune.text.training import train_byte_bpe

GREEDY = Sampling(temperature=0)
PROMPTS = ("The captain", "渔夫看见港口，船长回家了。", "and the fishermen were home again", "了")
NEUTRAL = {
    "bos_token_id", "pad_token_id", "transformers_version", "use_cache", "cache_config",
    "cache_implementation",
    "max_cache_len", "compile_config", "disable_compile", "low_memory", "prefill_chunk_size",
    "_from_model_config",
    "output_attentions", "output_hidden_states", "output_logits", "output_scores", "return_dict_in_generate",
    "is_assistant", "num_assistant_tokens", "num_assistant_tokens_schedule", "assistant_confidence_threshold",
    "assistant_early_exit", "assistant_ensemble_weight", "assistant_lookbehind", "target_lookbehind",
    "max_matching_ngram_size", "prompt_lookup_num_tokens", "speculation_type", "use_mtp",
    "continuous_batching_config", "do_sample",
}  # fmt: skip
"""Keys that change how fast a text comes, or what comes beside it, and not the text."""


def changed(folder: Path, to: Path, values: dict[str, Any], file: str = "generation_config.json") -> Path:
    """A copy of a folder whose file says this, too."""
    shutil.copytree(folder, to)
    (to / "manifest.json").unlink(missing_ok=True)
    path = to / file
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))
    return to


def written_by_stock(folder: Path, prompt: str, kind: str = "AutoModelForCausalLM") -> list[int]:
    """What ``generate`` gives with nothing else said, up to the token that ends it."""
    reader = transformers.AutoTokenizer.from_pretrained(folder)
    model = getattr(transformers, kind).from_pretrained(folder).eval()
    inputs = reader([prompt], return_tensors="pt")
    begin = 1 if kind == "AutoModelForSeq2SeqLM" else inputs["input_ids"].shape[1]
    row = model.generate(**inputs)[0, begin:].tolist()
    told = model.generation_config.eos_token_id
    ends = {told} if isinstance(told, int) else set(told)
    return row[: next((i for i, token in enumerate(row) if token in ends), len(row))]


def written(folder: Path, prompt: str, **settings: Any) -> list[int]:
    return list(pretune.load(folder).generate_batch([prompt], Decoding(**settings))[0][0].tokens)


SAID: list[dict[str, Any]] = [
    {"max_new_tokens": 7},
    {"max_length": 30},
    {"max_length": 30, "max_new_tokens": 5},
    {"num_beams": 4, "max_new_tokens": 12},
    {"num_beams": 3, "length_penalty": 2.0, "early_stopping": True, "max_length": 40},
    {"num_beams": 3, "length_penalty": 0.5, "early_stopping": "never", "max_new_tokens": 16},
    {"num_beams": 2, "num_return_sequences": 2, "max_new_tokens": 9},
    {"max_new_tokens": 40, "min_new_tokens": 35},
    {"max_length": 60, "min_length": 50},
    {"max_new_tokens": 12, "suppress_tokens": "drawn", "begin_suppress_tokens": "first"},
    {"max_new_tokens": 12, "bad_words_ids": "pairs", "num_beams": 3},
    {"max_new_tokens": 12, "bad_words_ids": "pairs"},
    {"max_new_tokens": 12, "bad_words_ids": "single", "forced_eos_token_id": 33},
    {"max_length": 40, "forced_eos_token_id": [33, 34], "forced_bos_token_id": 44, "num_beams": 2},
    {"max_new_tokens": 12, "no_repeat_ngram_size": 2, "repetition_penalty": 1.3, "num_beams": 3},
]
SLOW = {2, 5, 6, 7, 8, 11, 14}


def filled(values: dict[str, Any], plain: list[int]) -> dict[str, Any]:
    """Tokens that the model would write, in the places of words for them."""
    words: dict[str, Any] = {
        "drawn": plain[1:4], "first": plain[:1], "single": [[plain[0]], [plain[2]]],
        "pairs": [plain[:2], plain[2:5], [plain[5]]],
    }  # fmt: skip
    return {
        k: words.get(v, v) if isinstance(v, str) and k != "early_stopping" else v for k, v in values.items()
    }


@pytest.mark.parametrize(
    "said",
    [
        pytest.param(one, id=",".join(one), marks=[pytest.mark.slow] * (n in SLOW))
        for n, one in enumerate(SAID)
    ],
)
def test_a_decoder_does_what_its_file_says(pair: Any, tmp_path: Path, said: dict[str, Any]) -> None:
    plain = written(pair.folder, PROMPTS[0], max_new_tokens=8, min_new_tokens=8, sampling=GREEDY)
    folder = changed(pair.folder, tmp_path / "model", {**filled(said, plain), "do_sample": False})
    for prompt in PROMPTS[:: 1 if "num_beams" not in said else 2]:
        assert written(folder, prompt) == written_by_stock(folder, prompt)
    others = [one for one in PROMPTS if "max_length" not in said or one != PROMPTS[1]]
    found = pretune.load(folder).generate_batch(others)  # lengths of each prompt, though they share a batch
    assert [list(one[0].tokens) for one in found] == [written(folder, prompt) for prompt in others]


@pytest.mark.parametrize("said", [SAID[n] for n in (4, 8, 12, 13)], ids=lambda said: ",".join(said))
def test_an_encoder_decoder_does_what_its_file_says(
    seq2seq: Path, tmp_path: Path, said: dict[str, Any]
) -> None:
    plain = written(seq2seq, PROMPTS[0], max_new_tokens=8, min_new_tokens=8, sampling=GREEDY)
    folder = changed(seq2seq, tmp_path / "model", {**filled(said, plain), "do_sample": False})
    for prompt in PROMPTS[:2]:
        assert written(folder, prompt) == written_by_stock(folder, prompt, "AutoModelForSeq2SeqLM")


@pytest.fixture(scope="module")
def seq2seq(one_thread: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("t5")
    tokenizer = train_byte_bpe(["The captain saw the harbour. 渔夫看见港口。" * 20], 350).with_template("end")
    tokenizer.save(folder)
    torch.manual_seed(3)
    model = transformers.T5ForConditionalGeneration(transformers.T5Config(
        vocab_size=tokenizer.vocabulary_size, d_model=32, d_kv=8, d_ff=64, num_layers=2, num_heads=4,
        decoder_start_token_id=tokenizer.specials.pad_id, pad_token_id=tokenizer.specials.pad_id,
        eos_token_id=tokenizer.specials.eos_id,
    ))  # fmt: skip
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.2)
    model.save_pretrained(folder)
    return folder


def test_a_config_json_without_such_a_file_says_it_as_well(pair: Any, tmp_path: Path) -> None:
    """As folders from before generation_config.json do: stock reads the same keys there."""
    said = {"num_beams": 3, "max_length": 24, "no_repeat_ngram_size": 2, "suppress_tokens": [40]}
    folder = changed(pair.folder, tmp_path / "model", said, "config.json")
    (folder / "generation_config.json").unlink()
    assert written(folder, "The captain") == written_by_stock(folder, "The captain")
    pretune.load(folder).save(tmp_path / "saved")
    assert written(tmp_path / "saved", "The captain") == written_by_stock(folder, "The captain")


def test_what_a_caller_gives_wins(pair: Any, tmp_path: Path) -> None:
    said = {"do_sample": False, "num_beams": 4, "max_new_tokens": 5, "min_new_tokens": 4}
    folder = changed(pair.folder, tmp_path / "model", said)
    model, prompt = pretune.load(folder), "The captain"

    def stock(**settings: Any) -> list[int]:
        return pair.stock_ids([prompt], **{"do_sample": False, **settings})[0]

    assert written(folder, prompt, max_new_tokens=3) == stock(num_beams=4, max_new_tokens=3, min_new_tokens=3)
    assert written(folder, prompt, num_beams=1) == stock(num_beams=1, max_new_tokens=5, min_new_tokens=4)
    assert len(written(folder, prompt, max_length=40, num_beams=1)) > 5
    drawn = Sampling(temperature=1.5)
    assert model.generate(prompt, sampling=drawn, seed=1) != model.generate(prompt, sampling=drawn, seed=2)
    assert "".join(model.stream(prompt)) == model.generate(prompt), "beams come in one piece"
    text = ["generate", str(folder), prompt]
    assert CliRunner().invoke(app, text).stdout == f"{prompt}{model.generate(prompt)}\n"
    more = CliRunner().invoke(app, [*text, "--max-new-tokens", "9", "--temperature", "0", "--num-beams", "1"])
    greedy = model.generate(prompt, max_new_tokens=9, num_beams=1, sampling=GREEDY)
    assert more.stdout == f"{prompt}{greedy}\n"


def test_a_prompt_that_leaves_no_room_is_refused(pair: Any, tmp_path: Path) -> None:
    folder = changed(pair.folder, tmp_path / "model", {"do_sample": False, "max_length": 8})
    with pytest.raises(UsageError, match=r"max_length = 8 leaves no room .* give max_new_tokens"):
        pretune.load(folder).generate(PROMPTS[2])
    assert pretune.load(folder).generate(PROMPTS[2], max_new_tokens=2)


UNUSED: list[tuple[dict[str, Any], str]] = [
    ({"do_sample": True, "typical_p": 0.9}, "typical_p = 0.9"),
    ({"do_sample": True, "num_beams": 2}, r"do_sample = True beside num_beams = 2 \(beams draw nothing\)"),
    ({"exponential_decay_length_penalty": [15, 1.6]}, r"exponential_decay_length_penalty = \[15, 1.6\]"),
    ({"renormalize_logits": True, "guidance_scale": 1.5}, "renormalize_logits = True, guidance_scale = 1.5"),
    ({"sequence_bias": [[[5], -4.0]] * 200}, r"sequence_bias = \[\[\[5\], .{0,70}\.\.\.$"),
]


@pytest.mark.parametrize(("said", "named"), UNUSED)
def test_what_is_not_done_is_named_once(pair: Any, tmp_path: Path, said: dict[str, Any], named: str) -> None:
    folder = changed(pair.folder, tmp_path / "model", {"do_sample": False, **said})
    model = pretune.load(folder)
    with pytest.warns(UserWarning, match=f"not done as its generation_config.json asks: .*{named}"):
        model.generate("The", max_new_tokens=1)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model.generate("The", max_new_tokens=1)
    for verb in ("generate", "predict"):
        said_there = CliRunner().invoke(app, [verb, str(folder), "The", "--max-new-tokens", "1"]).stderr
        assert said_there.count("not done as its generation_config.json asks") == 1
    answer = CliRunner().invoke(app, ["generate", str(folder), "The", "--max-new-tokens", "1", "--json"])
    assert json.loads(answer.stdout)["notes"][0].startswith("not done as")
    model.save(tmp_path / "saved")
    kept = json.loads((tmp_path / "saved" / "generation_config.json").read_text())
    assert {key: kept[key] for key in said} == said, "another program does it"


@pytest.mark.parametrize(
    "said", [{"typical_p": 0.9}, {"typical_p": 1.0, "num_beam_groups": 1}, {"my_key": 1}]
)
def test_what_changes_no_text_is_not_named(pair: Any, tmp_path: Path, said: dict[str, Any]) -> None:
    model = pretune.load(changed(pair.folder, tmp_path / "model", {"do_sample": False, **said}))
    assert not model.take_unused_settings()


def test_every_key_of_stock_is_dealt_with() -> None:
    """Each is done, named, or changes no text; a key that a later transformers brings is noticed here."""
    done = {*config.STOCK_DEFAULTS, *config.PENALTY_DEFAULTS, *config.DECODING_KEYS, *config.TOKEN_KEYS}
    named = {*config.UNSUPPORTED_KEYS, *config.UNSUPPORTED_SAMPLING_KEYS}
    assert not done & named
    assert set(transformers.GenerationConfig().to_dict()) == (done | named | NEUTRAL)


@pytest.mark.parametrize(
    ("said", "named"),
    [
        ({"num_beams": 0}, "num_beams = 0"),
        ({"max_new_tokens": "many"}, "max_new_tokens = 'many'"),
        ({"early_stopping": "soon"}, "early_stopping"),
        (
            {"bad_words_ids": [[10_000_000]]},
            r"bad_words_ids = \[\[10000000\]\]: expected a list of lists of ids",
        ),
        ({"bad_words_ids": [[]]}, r"bad_words_ids = \[\[\]\]"),
        ({"suppress_tokens": "all"}, "suppress_tokens = 'all': expected a list of ids"),
        ({"eos_token_id": ["x" * 5000]}, r"eos_token_id = \['x+\.\.\.x+'\]: expected an id"),
    ],
)
def test_a_wrong_value_is_named(pair: Any, tmp_path: Path, said: dict[str, Any], named: str) -> None:
    with pytest.raises(CheckpointError, match=f"generation_config.json: {named}"):
        pretune.load(changed(pair.folder, tmp_path / "model", said))
