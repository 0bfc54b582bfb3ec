"""A wrong type or value in Python is an error that names the argument, from every public function."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import pretune
from pretune.arguments import check_arguments
from pretune.errors import PretuneError, UsageError
from pretune.generation.sampling import Sampling
from pretune.generation.sampling_loop import Decoding
from pretune.model.model import Model
from pretune.registry import find
from pretune.text.tokenizer import template_for
from pretune.text.training import train_byte_bpe

FUNCTIONS = [name for name in pretune.__all__ if name not in ("Model", "PretuneError")]
OBJECT = object()
WRONG: dict[str, list[Any]] = {
    "path": [None, 5, OBJECT, "a\0b", "", "x" * 10**5, math.nan],
    "number": [None, -1, 10**30, math.nan, math.inf, "abc", [], OBJECT],
    "text": [None, 5, [], ["a"], OBJECT, b"\xff"],
    "texts": [5, "abc", [None], [5], OBJECT],
}
KINDS = {
    "path": {"path", "model", "data", "out", "sources", "run", "runs", "folder", "corpus", "tokenizers"},
    "number": {"seed", "batch_size", "top_k", "stride", "processes", "sample", "tokens", "max_token_length",
               "minutes", "num_beams", "max_new_tokens", "max_characters", "sentinels"},
    "text": {"text", "prompt"},
    "texts": {"texts", "prompts", "stop", "targets", "labels"},
}  # fmt: skip


def cases(function: Callable[..., Any]) -> Iterator[tuple[str, Any]]:
    """Each argument with the values that its kind must refuse."""
    for name, parameter in inspect.signature(function).parameters.items():
        for kind, names in KINDS.items():
            if name in names:
                absent = parameter.default is None
                yield from ((name, bad) for bad in WRONG[kind] if not (bad is None and absent))


def refused(function: Callable[..., Any], name: str, bad: Any, rest: dict[str, Any]) -> None:
    with pytest.raises(PretuneError) as caught:
        function(**{**rest, name: bad})
    assert name in str(caught.value), f"{name} = {str(bad)[:40]}: {caught.value}"
    assert len(str(caught.value)) < 1200


@pytest.mark.parametrize("name", FUNCTIONS)
def test_each_public_function_names_the_argument(name: str, tmp_path: Path) -> None:
    # What `load` takes, it hands on to this.
    function = Model.load if name == "load" else getattr(pretune, name)
    nowhere, parameters = str(tmp_path / "nowhere"), inspect.signature(function).parameters
    needed = {
        key: [nowhere] if parameter.annotation == "Sequence[FilePath]" else nowhere
        for key, parameter in parameters.items()
        if parameter.default is parameter.empty
    }
    for argument, bad in cases(function):
        if (name, argument) != ("quickstart", "out"):  # the right ones of which would begin a run
            refused(function, argument, bad, needed)
    assert not list(tmp_path.iterdir())


@pytest.fixture(scope="module")
def models() -> dict[str, Model]:
    """Tiny ones with random weights."""
    shape = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    found = {}
    for kind, family, head in (
        ("causal", "llama", "causal_lm"), ("masked", "bert", "masked_lm"),
        ("classifier", "bert", "classification"),
    ):  # fmt: skip
        traits = find("families", family).TRAITS
        tokenizer = train_byte_bpe(["the king sent word"] * 9, 290)
        framed = tokenizer.with_template(template_for(traits), segments=traits.has_segment_embeddings)
        labels = ("a", "b") if kind == "classifier" else ()
        found[kind] = Model.create(family, shape, framed, head, max_length=32, seed=0, labels=labels)
    found["classifier"].metadata["task"] = "classification"
    return found


METHODS: dict[str, tuple[str, dict[str, Any]]] = {
    "classify": ("classifier", {"texts": ["a"]}),
    "fill": ("masked", {"text": "a [MASK]"}),
    "score": ("masked", {"text": "a"}),
    "score_batch": ("causal", {"texts": ["a"]}),
    "generate": ("causal", {"prompt": "a", "max_new_tokens": 1}),
    "generate_batch": ("causal", {"prompts": ["a"], "decoding": Decoding(max_new_tokens=1)}),
    "stream": ("causal", {"prompt": "a", "max_new_tokens": 1}),
    "with_random_weights": ("masked", {"seed": 0}),
}


@pytest.mark.parametrize("name", METHODS)
def test_each_method_names_the_argument(name: str, models: dict[str, Model]) -> None:
    kind, rest = METHODS[name]
    method = getattr(models[kind], name)
    for argument, bad in cases(method):
        refused(method, argument, bad, rest)


def test_a_search_that_no_memory_holds_is_refused(models: dict[str, Model]) -> None:
    with pytest.raises(PretuneError, match="num_beams = 1000000"):
        models["causal"].generate("a", num_beams=10**6)
    with pytest.raises(UsageError, match="top_k = 1000000"):
        models["masked"].fill("a [MASK] [MASK]", top_k=10**6, joint=True)


@pytest.mark.parametrize("temperature", [math.nan, math.inf, -1.0, 1e-30])
def test_a_temperature_that_makes_no_probabilities_is_refused(
    temperature: float, models: dict[str, Model]
) -> None:
    with pytest.raises(PretuneError, match="temperature"):
        models["causal"].generate("a", sampling={"temperature": temperature})  # type: ignore[arg-type]


@pytest.mark.parametrize("labels", ["abc", ("a", "a"), (), ("a", ""), (5, 6)])
def test_classes_need_names_of_their_own(labels: Any, models: dict[str, Model], tmp_path: Path) -> None:
    folder = models["masked"].save(tmp_path / "model")
    with pytest.raises(PretuneError, match=r"labels"):
        pretune.load(folder, head="classification", labels=labels)


def test_a_language_model_reads_no_pair(models: dict[str, Model]) -> None:
    with pytest.raises(UsageError, match="text_pair"):
        models["masked"]("a [MASK]", "b")


def test_what_fits_an_annotation_is_taken(models: dict[str, Model], tmp_path: Path) -> None:
    model = pretune.load(str(models["causal"].save(tmp_path / "model")), seed=np.int64(3))
    greedy = Sampling(temperature=0.0)
    said = model.generate("a", max_new_tokens=2, sampling=greedy)
    assert said == model.generate("a", max_new_tokens=2, sampling=greedy, stop=["\0never"])
    assert model.generate_batch(("a",), Decoding(max_new_tokens=1))


def test_the_function_gets_what_the_annotation_says() -> None:
    @check_arguments
    def taken(numbers: tuple[int, ...], other: object = None) -> Any:
        return numbers, other

    assert taken([np.int64(1), 2]) == ((1, 2), None)
    assert taken((), OBJECT) == ((), OBJECT)
    with pytest.raises(UsageError, match=r"taken: numbers\[1\] = 'x'"):
        taken((1, "x"))
