"""A training run so small that a test can repeat it many times."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch
from torch import nn

from pretune import registry
from pretune.data.corpus.windows import EncodedRecords
from pretune.model.model import Model
from pretune.nn.heads import combined_names
from pretune.objectives import objectives_for_heads, parse_objective
from pretune.objectives.wrappers.sampled_softmax import (
    NegativeSampler,
    SampledSoftmaxObjective,
    SampledSoftmaxSettings,
)
from pretune.runtime.distributed import World
from pretune.runtime.progress import NullReporter
from pretune.runtime.run_folder import Run
from pretune.text.tokenizer import Tokenizer, template_for
from pretune.text.training import train_byte_bpe
from pretune.training.dataloader import DataLoader
from pretune.training.duration import parse_duration
from pretune.training.settings import TrainingSettings
from pretune.training.train_state import TrainResult
from pretune.training.trainer import Trainer
from pretune.types import Feature, Score, Traits

WORDS = ["the", "king", "sent", "word", "to", "city", "人民", "法院", "应当", "依法", "审理", "案件"]
MAX_LENGTH = 24


def tokenizer(traits: Traits) -> Tokenizer:
    texts = [" ".join(WORDS)] * 20
    reader = train_byte_bpe(texts, 300).with_template(
        template_for(traits), segments=traits.has_segment_embeddings
    )
    return reader.with_sentinels(8) if traits.architecture == "encoder-decoder" else reader


def pairs() -> list[tuple[str, str]]:
    """Every (objective, family), and the combinations of objectives that a family can be saved with."""
    found: list[tuple[str, str]] = []
    for family in registry.list_names("families"):
        module = registry.find("families", family)
        found += [(name, family) for name in ways(module)]
    return found


def ways(family: ModuleType) -> list[str]:
    """The objectives that a family can be trained by, alone or as its heads are saved together."""
    combined = {heads for heads in combined_names(family.HEADS) if "+" in heads}
    together = [name for heads in sorted(combined) for name in objectives_for_heads(heads)]
    names = (*registry.list_names("objectives"), *together)
    return [name for name in names if parse_objective(name).is_supported_by(family.TRAITS)]


def features(traits: Traits, count: int = 40, objective: str = "causal_lm") -> EncodedRecords:
    """Texts of uneven length, so that rows are packed and the last window is partial."""
    draw = np.random.default_rng(3)
    reader = tokenizer(traits)
    found, keyed = [], []
    for number in range(count):
        text = " ".join(draw.choice(WORDS, draw.integers(2, 5)))
        ids = reader.encode(text).ids[: MAX_LENGTH - 3]
        label = int(draw.integers(2))
        sample = parse_objective(objective).sample(number, np.asarray(ids), label)
        found.append(sample)
        keyed.append(replace(sample, labels={"label": label, "labels": (label, number % 2)}))
    return OrderedRecords(found, EncodedRecords(keyed).fingerprint)


class OrderedRecords(EncodedRecords):
    """Records in the order of a fingerprint that is given, so that new labels leave seeded losses alone."""

    def __init__(self, found: Sequence[Feature], fingerprint: str) -> None:
        super().__init__(found)
        self.fingerprint = fingerprint


def trainer(
    folder: Path,
    kind: str,
    *,
    family: str,
    dropout: bool = True,
    steps: int = 12,
    world: World | None = None,
    options: dict[str, Any] | None = None,
    sampled: int | None = None,
    **settings: Any,
) -> Trainer:
    """``sampled``: estimate the loss from so many words, until three quarters of the run."""
    chosen_objective = parse_objective(kind)
    head = "+".join(chosen_objective.heads)
    traits = registry.find("families", family).TRAITS
    reader = tokenizer(traits)
    shape: dict[str, Any] = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    fields = registry.find("families", family).Config.model_fields
    dropouts = [f for f in fields if "dropout" in f and f != "classifier_dropout"]
    model = Model.create(
        family, shape | dict.fromkeys(dropouts, 0.1 if dropout else 0.0), reader, head,
        max_length=MAX_LENGTH, seed=1, labels=chosen_objective.sample_labels,
    )  # fmt: skip
    chosen = TrainingSettings(**({"batch_tokens": 100, "micro_batch": 2, "evaluations": 4} | settings))
    store = features(traits, objective=kind)
    objective = chosen_objective.build_objective(model.family.TRAITS, reader.specials, options, store)
    if sampled is not None:
        often = 1 / np.arange(1, reader.specials.vocabulary_size + 1)
        settings_of_sampling = SampledSoftmaxSettings(num_sampled=sampled, until=0.75)
        sampler = NegativeSampler(settings_of_sampling, often, chosen.seed)
        objective = SampledSoftmaxObjective(objective, sampler)
    batches = DataLoader(store, objective, model.family.TRAITS, chosen, MAX_LENGTH, world)

    def evaluate(network: nn.Module, step: int) -> list[Score]:
        # Not the loss that is trained on, so that the best checkpoint is not simply the last.
        total = sum(float(p.detach().sum()) for p in network.parameters())
        return [Score("wandering", abs(total) % 1.0, 1, "test")]

    with (world or World()).main_first():
        run = Run.open(folder, chosen)
    return Trainer(
        model_io=model, dataloader=batches, evaluate=evaluate, settings=chosen,
        duration=parse_duration(f"{steps} steps"), run=run, reporter=NullReporter(), world=world,
    )  # fmt: skip


def state(made: Trainer) -> dict[str, torch.Tensor]:
    """Weights and optimiser state as they stand."""
    weights = {f"weight/{n}": p.detach().clone() for n, p in made.network.named_parameters()}
    return weights | made.optimizer.state_tensors()


def losses(folder: Path) -> list[float]:
    """What a run logged, of each of its steps."""
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [row["loss"] for row in rows if row["type"] == "step"]


class Notes(NullReporter):
    """A reporter that keeps what it is told."""

    def __init__(self) -> None:
        self.said: list[str] = []

    def say(self, text: str) -> None:
        self.said.append(text)


def finish(made: Trainer) -> TrainResult:
    return made.train()
