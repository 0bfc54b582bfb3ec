"""A model asked for what its head cannot do: the refusal says what it can, and how to get the other."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

import pretune
from pretune.errors import UsageError
from pretune.model.capabilities import FINETUNE_ADVICE, HEAD_USES, PRETRAIN_ADVICE, check_head

FILLS = "`pretune predict` fills"
CONTINUES = "`pretune generate` continues"
ANSWERS = "`pretune predict` answers"


@pytest.mark.parametrize(
    ("verb", "kind", "can"),
    [
        ("generate", "bert", FILLS),
        ("generate", "classifier", ANSWERS),
        ("score", "classifier", ANSWERS),
    ],
)
def test_the_command_line_names_what_the_model_can(
    verb: str, kind: str, can: str, request: pytest.FixtureRequest, cli: Callable[..., Any]
) -> None:
    folder = request.getfixturevalue(kind) / "model"
    said = cli(verb, folder, "The soldier saw")
    assert said.code == 2
    assert str(folder) in said.err
    assert can in said.err
    assert PRETRAIN_ADVICE["causal_lm"] in said.err
    assert not said.out


@pytest.mark.parametrize(
    ("kind", "asked", "can", "other"),
    [
        ("bert", lambda model: model.generate("a"), FILLS, PRETRAIN_ADVICE["causal_lm"]),
        ("bert", lambda model: next(model.stream("a")), FILLS, PRETRAIN_ADVICE["causal_lm"]),
        ("bert", lambda model: model.classify(["a"]), FILLS, FINETUNE_ADVICE),
        ("llama", lambda model: model.fill("a"), CONTINUES, PRETRAIN_ADVICE["masked_lm"]),
        ("llama", lambda model: model.classify(["a"]), CONTINUES, FINETUNE_ADVICE),
        ("classifier", lambda model: model.fill("a"), ANSWERS, PRETRAIN_ADVICE["masked_lm"]),
        ("classifier", lambda model: model.generate("a"), ANSWERS, PRETRAIN_ADVICE["causal_lm"]),
        ("classifier", lambda model: model.score("a"), ANSWERS, PRETRAIN_ADVICE["masked_lm"]),
    ],
)
def test_python_names_what_the_model_can(
    kind: str, asked: Callable[[Any], Any], can: str, other: str, request: pytest.FixtureRequest
) -> None:
    model = pretune.load(request.getfixturevalue(kind))
    with pytest.raises(UsageError) as refused:
        asked(model)
    assert can in str(refused.value)
    assert other in str(refused.value)


@pytest.mark.parametrize("own", HEAD_USES)
def test_a_fitting_head_is_taken(own: str) -> None:
    check_head(None, own, (own,), ())
    check_head(None, own, tuple(HEAD_USES), ())
    with pytest.raises(UsageError, match="this model has a 'tagging' head"):
        check_head(None, "tagging", tuple(HEAD_USES), ())
