"""The weights of a head belong to it: saved, read back, and never taken for those of another head."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

import pretune
from pretune import registry
from pretune.errors import UsageError
from pretune.model.model import Model
from pretune.nn.heads import Head
from pretune.text.training import train_byte_bpe
from pretune.types import OutputSpec

TOKENIZER = train_byte_bpe(["The captain saw the harbour. 渔夫看见港口。" * 20], 300).with_template("cls_sep")
SHAPE = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
FAMILIES = ("bert", "distilbert", "roberta", "modernbert", "xlnet", "gpt2", "llama", "hf:electra")


def make(family: str, head: str, seed: int = 0) -> Model:
    shape = {**SHAPE, "intermediate_size": 48} if family.startswith("hf:") else SHAPE
    model = Model.create(family, shape, TOKENIZER, head, max_length=32, seed=seed, labels=("no", "yes"))
    with torch.no_grad():  # a bias of zeros would not tell what was loaded
        for parameter in model.network.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    return model


def tuned_heads(family: str) -> dict[str, Head]:
    table: dict[str, Head] = registry.find("families", family).HEADS
    return {name: head for name, head in table.items() if not head.is_pretrained}


def pairs() -> Iterator[Any]:
    for family in FAMILIES:
        heads = list(tuned_heads(family))
        for old in heads:
            yield from (
                pytest.param(family, old, new, id=f"{family}-{old}-{new}") for new in heads if old != new
            )


@pytest.mark.parametrize(("family", "old", "new"), list(pairs()))
def test_no_tensor_of_another_head_is_loaded(family: str, old: str, new: str, tmp_path: Path) -> None:
    """Stock calls a text classifier's, a tagger's and a chooser's map ``classifier`` alike."""
    made = make(family, old)
    folder = made.save(tmp_path / "model")
    other = Model.load(folder, head=new, labels=("no", "yes"), seed=3)
    assert not any(name.startswith("heads.") for name in other.untrained if f".{new}." not in name)
    own = [name for name, _ in other.network.named_parameters() if name.startswith(f"heads.{new}.")]
    shared = set(own) - set(other.untrained)
    before = [p for name, p in made.network.named_parameters() if name.startswith("heads.")]
    outputs = 1 if tuned_heads(family)[new].type == "choice" else 2
    assert any(other.network.get_parameter(name).shape[0] == outputs for name in other.untrained)
    for name in own:
        parameter = other.network.get_parameter(name)
        if name not in shared and parameter.any():
            assert not any(torch.equal(parameter, p) for p in before), name
    assert made.family.HEADS[old].stock in other.dropped_head or family.startswith("hf:")
    assert other.dropped_head


@pytest.mark.parametrize(
    ("family", "head"), [(family, head) for family in FAMILIES for head in tuned_heads(family)]
)
def test_a_head_is_saved_and_read_back(family: str, head: str, tmp_path: Path) -> None:
    made = make(family, head)
    folder = made.save(tmp_path / "model")
    again = pretune.load(folder)
    assert again.head == head
    assert again.labels == (("no", "yes") if tuned_heads(family)[head].is_labeled else ())
    assert not again.untrained
    assert not again.dropped_head
    for name, parameter in made.network.named_parameters():
        assert torch.equal(parameter, again.network.get_parameter(name)), name


def test_outputs_may_say_more_than_labels(tmp_path: Path) -> None:
    outputs = OutputSpec(("O", "B-PER"), config_fields={"tagging_scheme": "IOB2"})
    model = Model.create(
        "bert", SHAPE, TOKENIZER, "token_classification", max_length=32, seed=0, outputs=outputs
    )
    folder = model.save(tmp_path / "model")
    assert '"tagging_scheme": "IOB2"' in (folder / "config.json").read_text()
    assert pretune.load(folder).labels == ("O", "B-PER")


def test_labels_are_refused_twice_and_ignored_where_there_are_none() -> None:
    with pytest.raises(UsageError, match="2 times"):
        Model.create(
            "bert", SHAPE, TOKENIZER, "token_classification", max_length=32, seed=0, labels=("a", "a")
        )
    assert make("bert", "masked_lm").labels == ()
