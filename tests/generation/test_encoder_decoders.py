"""An encoder-decoder writes from its source what stock ``generate`` writes, token for token."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
import transformers

import pretune
from pretune import registry
from pretune.errors import CheckpointError, UsageError
from pretune.generation.sampling import Sampling
from pretune.generation.settings import Decoding
from pretune.text.tokenizer import TemplateName
from pretune.text.training import train_byte_bpe

GREEDY = Sampling(temperature=0)
TEXT = "The captain saw the harbour, and the fishermen were home. 渔夫看见港口，船长回家了。\n" * 20
PROMPTS = (
    "The captain",
    "渔夫看见港口，船长回家了。",
    "and the fishermen were home again",
    "了",
    "Zyx 123!",
    "home.",
)
FRAMES: dict[str, TemplateName] = {"bart": "cls_sep"}
"""Of the source; of the others ``end``, as a tokenizer that is trained for them has it."""
FAMILIES = [
    (name, FRAMES.get(name, "end"))
    for name in registry.list_names("families")
    if registry.find("families", name).TRAITS.architecture == "encoder-decoder"
]


@dataclass(frozen=True)
class Pair:
    """The same weights, read by us and by stock transformers."""

    family: ModuleType
    folder: Path
    ours: pretune.Model
    stock: Any
    reader: Any

    def stock_ids(self, prompts: list[str], **settings: Any) -> list[list[int]]:
        """What stock writes behind the decoder's start, up to the token that ends it."""
        inputs = self.reader(prompts, return_tensors="pt", padding=True)
        found = self.stock.generate(**inputs, **settings)[:, 1:].tolist()
        ends = set(self.ours.generation_config.eos_ids)
        return [row[: next((i for i, token in enumerate(row) if token in ends), len(row))] for row in found]

    def our_ids(self, prompts: list[str], **settings: Any) -> list[list[int]]:
        return [list(said[0].tokens) for said in self.ours.generate_batch(prompts, Decoding(**settings))]


@pytest.fixture(scope="module", params=FAMILIES, ids=lambda param: param[0])
def pair(request: Any, one_thread: None, tmp_path_factory: pytest.TempPathFactory) -> Pair:
    family, frame = registry.find("families", request.param[0]), request.param[1]
    folder = tmp_path_factory.mktemp(request.param[0])
    tokenizer = train_byte_bpe([TEXT], 400).with_template(frame)
    tokenizer.save(folder)
    config = family.tiny_config().model_copy(update={"vocab_size": tokenizer.vocabulary_size})
    values = config.to_hugging_face("causal_lm", specials=tokenizer.specials)
    torch.manual_seed(3)
    stock = transformers.AutoModelForSeq2SeqLM.from_config(transformers.AutoConfig.for_model(**values))
    with torch.no_grad():  # so that what is written depends on the source, and ends at times
        for parameter in stock.parameters():
            if parameter.requires_grad:
                parameter.mul_(1.0 + torch.rand_like(parameter)).add_(torch.randn_like(parameter) * 0.2)
    stock.save_pretrained(folder)
    stock = transformers.AutoModelForSeq2SeqLM.from_pretrained(folder).eval()
    reader = transformers.AutoTokenizer.from_pretrained(folder, padding_side="right")
    return Pair(family, folder, pretune.load(folder), stock, reader)


@pytest.mark.parametrize(
    ("settings", "sampling"),
    [
        ({}, GREEDY),
        pytest.param(
            {"repetition_penalty": 1.3},
            Sampling(temperature=0, repetition_penalty=1.3),
            marks=pytest.mark.slow,
        ),
        pytest.param(
            {"no_repeat_ngram_size": 2},
            Sampling(temperature=0, no_repeat_ngram_size=2),
            marks=pytest.mark.slow,
        ),
        pytest.param({"min_new_tokens": 20}, GREEDY, marks=pytest.mark.slow),
    ],
)
def test_greedy_is_that_of_stock(pair: Pair, settings: dict[str, Any], sampling: Sampling) -> None:
    limits = {"max_new_tokens": 30, "min_new_tokens": settings.get("min_new_tokens", 0)}
    prompts = list(PROMPTS)
    wanted = [
        pair.stock_ids([prompt], do_sample=False, num_beams=1, **{**settings, **limits})[0]
        for prompt in prompts
    ]
    assert pair.our_ids(prompts, sampling=sampling, **limits) == wanted
    assert [pair.our_ids([prompt], sampling=sampling, **limits)[0] for prompt in prompts] == wanted
    assert pair.our_ids(prompts[:3], sampling=sampling, use_cache=False, **limits) == wanted[:3]
    assert len({tuple(row) for row in wanted}) > 1, "it depends on the source"


@pytest.mark.parametrize(
    ("width", "penalty", "early"),
    [
        (4, 1.0, False),
        pytest.param(2, 0.0, False, marks=pytest.mark.slow),
        pytest.param(4, 2.0, True, marks=pytest.mark.slow),
        pytest.param(3, -1.0, False, marks=pytest.mark.slow),
    ],
)
def test_beams_are_those_of_stock(pair: Pair, width: int, penalty: float, early: bool) -> None:
    settings = {"num_beams": width, "length_penalty": penalty, "early_stopping": early, "max_new_tokens": 20}
    for prompt in PROMPTS[:4]:
        wanted = pair.stock_ids([prompt], **settings, do_sample=False, num_return_sequences=2)
        inputs = pair.reader([prompt], return_tensors="pt")
        scores = pair.stock.generate(
            **inputs, **settings, do_sample=False, num_return_sequences=2,
            return_dict_in_generate=True, output_scores=True,
        ).sequences_scores  # fmt: skip
        said = pair.ours.generate_batch([prompt], Decoding(**settings, num_return_sequences=2))[0]
        assert [list(one.tokens) for one in said] == wanted
        assert [one.score for one in said] == pytest.approx(scores.tolist(), rel=1e-4)


def test_first_tokens_have_the_probabilities_of_stock(pair: Pair) -> None:
    sampling, count = Sampling(temperature=1.2, top_k=6, top_p=0.95), 2000
    inputs = pair.reader(["渔夫"], return_tensors="pt")
    found = pair.stock.generate(
        **inputs, do_sample=True, temperature=1.2, top_k=6, top_p=0.95, max_new_tokens=2,
        return_dict_in_generate=True, output_scores=True,
    )  # fmt: skip
    share = found.scores[0][0].softmax(-1)
    said = pair.ours.generate_batch(
        ["渔夫"], Decoding(max_new_tokens=2, num_return_sequences=count, sampling=sampling)
    )[0]
    end = pair.ours.generation_config.eos_ids[0]
    counts = torch.bincount(
        torch.tensor([one.tokens[0] if one.tokens else end for one in said]), minlength=len(share)
    )
    assert (counts[share == 0] == 0).all()
    expected = share[share > 0] * count
    statistic = float(((counts[share > 0] - expected) ** 2 / expected).sum())
    assert statistic < 20.5  # chi-square, at most 5 degrees of freedom: p > 0.001; the draws are fixed


def test_a_folder_says_how_a_text_begins_and_ends(pair: Pair, tmp_path: Path) -> None:
    """As those of BART and Marian do: tokens that are forced, or forbidden, and another start."""
    model = pretune.load(pair.folder)
    model.save(tmp_path / "model")
    (tmp_path / "model" / "manifest.json").unlink()
    path = tmp_path / "model" / "generation_config.json"
    values = json.loads(path.read_text())
    assert values["decoder_start_token_id"] == model.generation_config.decoder_start_id
    plain = pair.our_ids(["渔夫"], max_new_tokens=8, sampling=GREEDY)[0]
    told = {"decoder_start_token_id": 40, "forced_bos_token_id": 41, "forced_eos_token_id": 42}
    path.write_text(json.dumps({**values, **told, "bad_words_ids": [[plain[0]], [plain[1]]]}))
    changed = Pair(
        pair.family, path.parent, pretune.load(path.parent),
        transformers.AutoModelForSeq2SeqLM.from_pretrained(path.parent).eval(), pair.reader,
    )  # fmt: skip
    for beams in (1, 4):
        settings = {"max_new_tokens": 12, "num_beams": beams}
        wanted = changed.stock_ids(list(PROMPTS[1:2]), do_sample=False, **settings)
        sampling = {"sampling": GREEDY} if beams == 1 else {}
        assert changed.our_ids(list(PROMPTS[1:2]), **settings, **sampling) == wanted
        assert wanted[0][0] == 41
        assert wanted[0][-1] == 42
        assert not {plain[0], plain[1]} & set(wanted[0])
    changed.ours.save(tmp_path / "again")
    kept = transformers.GenerationConfig.from_pretrained(tmp_path / "again")
    assert {key: getattr(kept, key) for key in told} == told
    assert pretune.load(tmp_path / "again").generation_config == changed.ours.generation_config


def test_what_we_save_is_decoded_by_stock_as_by_us(pair: Pair, tmp_path: Path) -> None:
    """A model that is made here, its folder opened by stock with nothing else said."""
    made = pretune.Model.create(
        pair.family.__name__.rpartition(".")[2],
        {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2},
        pair.ours.tokenizer, "causal_lm", max_length=40, seed=1,
    )  # fmt: skip
    made.save(tmp_path / "made")
    stock = transformers.AutoModelForSeq2SeqLM.from_pretrained(tmp_path / "made").eval()
    loaded = Pair(pair.family, tmp_path / "made", pretune.load(tmp_path / "made"), stock, pair.reader)
    assert loaded.ours.generation_config.decoder_start_id == made.generation_config.decoder_start_id
    for prompt in PROMPTS[:3]:
        wanted = loaded.stock_ids([prompt], do_sample=False, max_new_tokens=15)
        assert loaded.our_ids([prompt], sampling=GREEDY, max_new_tokens=15) == wanted


def test_a_stream_and_a_call_give_the_same_text(pair: Pair) -> None:
    settings: dict[str, Any] = {"max_new_tokens": 20, "sampling": Sampling(temperature=1.5), "seed": 3}
    text = pair.ours.generate("渔夫看见港口", **settings)
    assert "".join(pair.ours.stream("渔夫看见港口", **settings)) == text
    said = pair.ours.generate_batch(["渔夫看见港口"], Decoding(**settings))[0][0]
    assert pair.reader.decode(list(said.tokens), skip_special_tokens=True) == text


def test_a_text_is_as_long_as_the_decoder_reads(pair: Pair) -> None:
    limit = pair.ours.config.max_position_embeddings
    decoding = Decoding(max_new_tokens=limit + 50, min_new_tokens=limit + 10, sampling=GREEDY)
    [[said]] = pair.ours.generate_batch(["渔夫"], decoding)
    assert len(said.tokens) == limit
    assert said.finish_reason == "length"


def test_what_makes_no_sense_is_refused(pair: Pair) -> None:
    with pytest.raises(UsageError, match="this model reads 48 at most: shorten it"):
        pair.ours.generate("The captain saw the harbour " * 30)
    with pytest.raises(UsageError, match="only beside a source"):
        pair.ours.score("The captain")


@pytest.mark.parametrize("key", ["decoder_start_token_id", "forced_bos_token_id", "forced_eos_token_id"])
@pytest.mark.parametrize("value", [-1, 10_000, "no"])
def test_a_token_that_is_none_is_named(pair: Pair, tmp_path: Path, key: str, value: Any) -> None:
    pretune.load(pair.folder).save(tmp_path / "model")
    (tmp_path / "model" / "manifest.json").unlink()
    path = tmp_path / "model" / "generation_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), key: value}))
    with pytest.raises(CheckpointError, match=f"{key} = {value!r}: expected an id below"):
        pretune.load(tmp_path / "model")
