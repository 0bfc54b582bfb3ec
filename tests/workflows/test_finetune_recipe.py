"""What fine-tuning uses at its defaults, and that at equal settings its first step is stock's."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import small
import torch
import transformers
from safetensors.torch import load_file

from pretune.errors import ConfigError
from pretune.model.folder import FolderInfo, read_folder_info
from pretune.model.model import Model
from pretune.registry import find, list_names
from pretune.runtime.distributed import World
from pretune.runtime.progress import NullReporter
from pretune.training.gradients import GradientAccumulator, never_stop
from pretune.workflows.finetune import finetune as workflow
from pretune.workflows.finetune import recipe
from pretune.workflows.finetune.components import FinetuneSetup

TEXTS = ["the king sent word to the city", "人民法院应当依法审理案件", "sent", "the city the king sent word",
         "word word", "to the king in the city word", "案件", "the the the"]  # fmt: skip


def folder_of(folder: Path, family: str, **about: Any) -> Path:
    """A small language model without dropout; ``about``: what pretune knows of it beyond stock's files."""
    module = find("families", family)
    head = next(head for head in ("masked_lm", "causal_lm") if head in module.HEADS)
    shape = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    dropouts = [
        field for field in module.Config.model_fields if "dropout" in field and field != "classifier_dropout"
    ]
    reader = small.tokenizer(module.TRAITS)
    model = Model.create(
        family, shape | dict.fromkeys(dropouts, 0.0), reader, head, max_length=small.MAX_LENGTH, seed=1
    )
    model.metadata |= about
    model.save(folder)
    return folder


def records(path: Path) -> Path:
    rows = [{"text": text, "label": f"class {number % 3}"} for number, text in enumerate(TEXTS)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


@pytest.mark.parametrize("family", ["bert", "modernbert", "gpt2", "llama"])
def test_the_gradients_of_the_first_step_equal_stocks(family: str, tmp_path: Path) -> None:
    """Packed rows of ours beside stock's padded batch of the same eight records, by stock's names.

    To 1e-5 of the largest gradient: both add up in fp32, in another order.
    """
    train = records(tmp_path / "train.jsonl")
    settings = workflow.resolve(
        {
            "model": str(folder_of(tmp_path / "base", family)),
            "train": (str(train),),
            "validation": (str(train),),
        },
        {"training": {"batch_examples": len(TEXTS)}},
    )
    parts = FinetuneSetup(settings, NullReporter(), World())
    assert isinstance(parts.model, Model)
    parts.model.save(tmp_path / "start")
    stock = transformers.AutoModelForSequenceClassification.from_pretrained(tmp_path / "start").train()
    reader = transformers.AutoTokenizer.from_pretrained(tmp_path / "start")
    encoded = reader(TEXTS, padding=True, return_tensors="pt")
    labels = torch.tensor([number % 3 for number in range(len(TEXTS))])
    loss = stock(**encoded, labels=labels).loss
    loss.backward()
    assert encoded["input_ids"].shape[1] <= small.MAX_LENGTH, "no text is cut"

    found = GradientAccumulator(parts.model.network, seed=0).accumulate(parts.dataloader(0), 0, never_stop)
    assert found == pytest.approx(float(loss.detach()), rel=1e-5)
    ours = parts.model.network
    with torch.no_grad():  # written as weights, the gradients come out under stock's names
        for parameter in ours.parameters():
            parameter.copy_(torch.zeros_like(parameter) if parameter.grad is None else parameter.grad)
    parts.model.write(tmp_path / "gradients")
    written = load_file(tmp_path / "gradients" / "model.safetensors")
    theirs = {name: p.grad for name, p in stock.named_parameters() if p.grad is not None}
    largest = max(float(gradient.abs().max()) for gradient in theirs.values())
    for name, gradient in theirs.items():
        torch.testing.assert_close(written[name], gradient, rtol=1e-4, atol=1e-5 * largest, msg=name)


def described(width: int, *, objective: str | None = None, longest: int = 512) -> FolderInfo:
    config = find("families", "bert").tiny_config().model_copy(update={"hidden_size": width})
    return FolderInfo(Path("model"), "bert", config, "masked_lm", longest, objective)


@pytest.mark.parametrize(("width", "rate"), [(384, 1e-4), (768, 5e-5), (1024, 3.8e-5)])
def test_a_published_checkpoint_gets_the_rate_of_its_width(width: int, rate: float) -> None:
    assert recipe.training_defaults(described(width), random_init=False)["optimizer"]["learning_rate"] == rate


def test_a_model_of_minutes_gets_higher_rates() -> None:
    own = recipe.training_defaults(described(128, objective="masked_lm"), random_init=False)
    published = recipe.training_defaults(described(128), random_init=False)
    assert own["optimizer"]["learning_rate"] > published["optimizer"]["learning_rate"]
    assert recipe.training_defaults(described(128), random_init=True) == own


@pytest.mark.parametrize("family", list_names("families"))
def test_every_family_says_its_width(family: str) -> None:
    config = find("families", family).tiny_config()
    start = FolderInfo(Path("model"), family, config, None, 64)
    assert recipe.training_defaults(start, random_init=False)["optimizer"]["learning_rate"] > 0


@pytest.mark.parametrize(
    ("records", "tokens", "epochs"),
    [(300, 300 * 128, 2), (300, 300 * 20, 6), (3000, 3000 * 75, 3.5), (10, 10 * 5000, 2), (1, 0, 6)],
)
def test_short_texts_are_read_more_often(records: int, tokens: float, epochs: float) -> None:
    assert recipe.epochs(records, tokens) == epochs


def test_few_records_are_learnt_in_small_steps() -> None:
    assert [recipe.batch_examples(n, pretune_model=False) for n in (300, 9_999, 10_000)] == [8, 8, 16]
    assert recipe.batch_examples(300, pretune_model=True) == 16


def test_what_is_given_wins_and_the_rest_is_completed(tmp_path: Path) -> None:
    folder = folder_of(tmp_path / "base", "bert")
    base = {"model": str(folder), "train": ("x.jsonl",)}
    plain = workflow.resolve(base, {})
    assert plain.training.schedule.name == "linear"
    assert plain.budget == workflow.AUTO
    asked = workflow.resolve(base, {"training": {"optimizer": {"learning_rate": 7e-5}}, "budget": "1 epoch"})
    assert asked.training.optimizer.learning_rate == 7e-5
    assert asked.training.optimizer.betas == plain.training.optimizer.betas
    assert asked.training.batch_examples is plain.training.batch_examples is None
    # Another optimiser or schedule has its own defaults, not AdamW's and not the linear schedule's.
    other = workflow.resolve(base, {"training": {"optimizer": {"name": "sgd"}, "schedule": {"name": "wsd"}}})
    assert other.training.optimizer == type(other.training.optimizer)(name="sgd")
    assert other.training.schedule == type(other.training.schedule)(name="wsd")
    assert workflow.resolve(plain, {}) == plain
    with pytest.raises(ConfigError, match="30min, 2h, 2000 steps"):
        workflow.resolve(base, {"budget": "a while"})


def test_texts_are_read_as_far_as_stocks_example_reads_them(tmp_path: Path) -> None:
    long = described(32)
    assert recipe.apply_recipe({}, long)["max_length"] == 128
    assert recipe.apply_recipe({}, long)["task_options"] == {"long_texts": "longest_first"}
    short = described(32, longest=64)
    assert recipe.apply_recipe({}, short).get("max_length") is None
    assert recipe.apply_recipe({}, short)["task_options"] == {"long_texts": "windows"}
    for given in ({"max_length": 256}, {"task_options": {"long_texts": "windows"}}):
        kept = recipe.apply_recipe(given, long)
        assert {key: kept[key] for key in given} == given
        assert kept.get("max_length", 256) == 256
    assert read_folder_info(folder_of(tmp_path / "base", "bert")).max_length == small.MAX_LENGTH
