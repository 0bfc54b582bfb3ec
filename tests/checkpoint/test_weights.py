"""Every operation goes both ways, and what no operation knows is named."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from pretune.checkpoint.weights import (
    Alias,
    Default,
    Duplicate,
    Ignore,
    Operation,
    Prefix,
    Rename,
    RenameGroup,
    Split,
    Squeeze,
    Tie,
    Transpose,
    from_hugging_face,
    load_weights,
    to_hugging_face,
)
from pretune.errors import CheckpointError

OPS: list[Operation] = [
    Alias(r"^h\.", "model.h."),
    Ignore("model.h.{}.mask"),
    Rename("layers.{}.map.{leaf}", "model.h.{}.c_fc.{leaf}"),
    Transpose("layers.{}.map.weight"),
    Split(("layers.{}.query", "layers.{}.key"), "model.h.{}.qk", dim=1),
    Tie("head.bias", copy="head.copy"),
    Rename("head.bias", "head.bias"),
]


def theirs() -> dict[str, Tensor]:
    layers = {
        f"model.h.{n}.{name}": torch.randn(shape)
        for n in (0, 11)
        for name, shape in (("c_fc.weight", (2, 3)), ("c_fc.bias", (3,)), ("qk", (2, 6)))
    }
    bias = torch.randn(4)
    return {**layers, "head.bias": bias, "head.copy": bias}


def test_there_and_back() -> None:
    state = theirs()
    ours = from_hugging_face(state, OPS)
    assert ours["layers.11.map.weight"].shape == (3, 2)
    assert torch.equal(ours["layers.0.key"], state["model.h.0.qk"][:, 3:])
    back = to_hugging_face(ours, OPS)
    assert back.keys() == state.keys()
    assert all(torch.equal(back[name], state[name]) for name in state)


def test_a_body_stands_under_a_prefix_where_its_head_is_there() -> None:
    ops: list[Operation] = [
        Prefix("transformer.", head="classifier."),
        Rename("body", "body"),
        Rename("lm", "lm_head"),
        Rename("classes.{leaf}", "classifier.{leaf}"),
    ]
    one = torch.ones(1)
    for state, theirs in (
        ({"body": one, "lm": one}, {"body", "lm_head"}),
        ({"body": one, "classes.bias": one}, {"transformer.body", "classifier.bias"}),
    ):
        written = to_hugging_face(state, ops)
        assert written.keys() == theirs
        assert from_hugging_face(written, ops) == state


def test_other_names_and_buffers_are_taken() -> None:
    state = theirs()
    bare = {name.removeprefix("model."): tensor for name, tensor in state.items()}
    bare["h.3.mask"] = torch.ones(1)
    del bare["head.bias"]  # the copy is enough
    assert from_hugging_face(bare, OPS).keys() == from_hugging_face(state, OPS).keys()


def test_a_stranger_is_named_both_ways() -> None:
    with pytest.raises(CheckpointError, match=r"model\.h\.x\.c_fc\.weight"):
        from_hugging_face({"model.h.x.c_fc.weight": torch.ones(1)}, OPS)
    with pytest.raises(CheckpointError, match="adapter"):
        to_hugging_face({"adapter": torch.ones(1)}, OPS)


class Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(4, 2)
        self.heads = nn.ModuleDict({"lm": nn.Linear(2, 4, bias=False)})
        self.heads["lm"].weight = self.embedding.weight


TIED: list[Operation] = [Rename("embedding.weight", "wte"), Rename("heads.lm.weight", "lm_head")]


def test_a_tied_tensor_may_stand_twice_if_it_is_the_same() -> None:
    tensor = torch.randn(4, 2)
    for state in ({"wte": tensor}, {"lm_head": tensor}, {"wte": tensor, "lm_head": tensor}):
        network = Tied()
        assert load_weights(network, state, TIED) == []
        assert torch.equal(network.embedding.weight, tensor)
    with pytest.raises(CheckpointError, match="tie_word_embeddings"):
        load_weights(Tied(), {"wte": tensor, "lm_head": tensor + 1}, TIED)


def test_what_a_tensor_is_called_may_depend_on_others() -> None:
    ops: list[Operation] = [
        Rename("layers.{}.up", "h.{}.wi"),
        RenameGroup(("layers.{}.gate", "layers.{}.up"), ("h.{}.wi_0", "h.{}.wi_1")),
    ]
    plain, gated = torch.zeros(1), (torch.ones(1), torch.full((1,), 2.0))
    state = {"h.0.wi": plain, "h.12.wi_0": gated[0], "h.12.wi_1": gated[1]}
    ours = from_hugging_face(state, ops)
    assert ours == {"layers.0.up": plain, "layers.12.gate": gated[0], "layers.12.up": gated[1]}
    assert to_hugging_face(ours, ops) == state
    with pytest.raises(CheckpointError, match=r"h\.12\.wi_0"):
        from_hugging_face({"h.12.wi_0": gated[0]}, ops)


def test_a_tensor_that_may_be_left_out_is_made_of_another() -> None:
    ops: list[Operation] = [
        Default("bias", source="word", make=lambda word: torch.zeros(len(word))),
        Rename("word", "word"),
        Rename("bias", "bias"),
    ]
    word, bias = torch.ones(3, 2), torch.ones(3)
    assert torch.equal(from_hugging_face({"word": word}, ops)["bias"], torch.zeros(3))
    assert torch.equal(from_hugging_face({"word": word, "bias": bias}, ops)["bias"], bias)
    assert to_hugging_face({"word": word, "bias": bias}, ops) == {"word": word, "bias": bias}
    assert from_hugging_face({}, ops) == {}


def test_a_tensor_that_is_there_twice_must_be_the_same() -> None:
    ops: list[Operation] = [Duplicate("again", source="word"), Rename("word", "word")]
    word = torch.ones(3, 2)
    for state in ({"word": word, "again": word.clone()}, {"word": word}, {"again": word}):
        assert torch.equal(from_hugging_face(state, ops)["word"], word)
    with pytest.raises(CheckpointError, match="again differs from word"):
        from_hugging_face({"word": word, "again": word + 1}, ops)
    assert to_hugging_face({"word": word}, ops) == {"word": word}


def test_a_matrix_of_one_row_is_a_vector_of_ours() -> None:
    ops: list[Operation] = [Rename("bias", "final_bias"), Squeeze("bias")]
    ours = from_hugging_face({"final_bias": torch.arange(3.0)[None]}, ops)
    assert torch.equal(ours["bias"], torch.arange(3.0))
    assert to_hugging_face(ours, ops)["final_bias"].shape == (1, 3)
