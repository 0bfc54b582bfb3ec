"""A model asked for what its head cannot do: the refusal says what it can, and how to get the other."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

import pretune
from pretune.errors import UsageError
from pretune.model.capabilities import HEAD_ADVICE, HEAD_USES, HeadUse, check_head, check_use
from pretune.registry import find

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
    assert HEAD_ADVICE["generate"] in said.err
    assert not said.out


@pytest.mark.parametrize(
    ("kind", "asked", "can", "other"),
    [
        ("bert", lambda model: model.generate("a"), FILLS, HEAD_ADVICE["generate"]),
        ("bert", lambda model: next(model.stream("a")), FILLS, HEAD_ADVICE["generate"]),
        ("bert", lambda model: model.classify(["a"]), FILLS, HEAD_ADVICE["answer"]),
        ("llama", lambda model: model.fill("a"), CONTINUES, HEAD_ADVICE["fill"]),
        ("llama", lambda model: model.classify(["a"]), CONTINUES, HEAD_ADVICE["answer"]),
        ("classifier", lambda model: model.fill("a"), ANSWERS, HEAD_ADVICE["fill"]),
        ("classifier", lambda model: model.generate("a"), ANSWERS, HEAD_ADVICE["generate"]),
        ("classifier", lambda model: model.score("a"), ANSWERS, HEAD_ADVICE["fill"]),
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


@pytest.mark.parametrize(
    ("family", "head", "use"),
    [
        ("bert", "masked_lm", "fill"),
        ("xlnet", "permutation_lm", "fill"),
        ("llama", "causal_lm", "generate"),
        ("t5", "causal_lm", "generate"),
        ("bert", "next_sentence", "answer"),
        ("bert", "token_classification", "answer"),
    ],
)
def test_a_fitting_head_is_taken(family: str, head: str, use: HeadUse) -> None:
    module = find("families", family)
    check_head(None, module, head, (head,))
    check_use(None, module, head, (use,))
    check_use(None, module, head, tuple(HEAD_USES))
    others = tuple(other for other in HEAD_USES if other != use)
    with pytest.raises(UsageError, match=f"this model has a '{head}' head"):
        check_use(None, module, head, others)
    with pytest.raises(UsageError, match="needs a 'tagging' one"):
        check_head(None, module, head, ("tagging",))
