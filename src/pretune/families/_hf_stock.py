"""What stock ``transformers`` has of a model type: its classes, its config, the names of its tensors."""

from __future__ import annotations

import importlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache as once
from typing import Any

from pretune.checkpoint.weights import State
from pretune.errors import UnsupportedError, suggestion
from pretune.nn.init import shapes_only

OTHER = "other"
"""Stands for the heads that are not ours."""
LISTS = {
    "masked_lm": "MODEL_FOR_MASKED_LM_MAPPING_NAMES",
    "causal_lm": "MODEL_FOR_CAUSAL_LM_MAPPING_NAMES",
    "classification": "MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES",
}
"""Head to the list of transformers that names its class for each model type."""
OTHER_LISTS = (
    "MODEL_MAPPING_NAMES",
    "MODEL_FOR_PRETRAINING_MAPPING_NAMES",
    "MODEL_FOR_TOKEN_CLASSIFICATION_MAPPING_NAMES",
    "MODEL_FOR_QUESTION_ANSWERING_MAPPING_NAMES",
    "MODEL_FOR_MULTIPLE_CHOICE_MAPPING_NAMES",
    "MODEL_FOR_NEXT_SENTENCE_PREDICTION_MAPPING_NAMES",
)
"""Classes whose heads a folder may hold, and which are left out here."""


@once
def classes_of(model_type: str) -> Mapping[str, str]:
    """Head to the stock class that has it.

    Raises:
        UnsupportedError: transformers is not installed, does not have the model type, or it is of a kind that
            the wrapper does not take.
    """
    lists = stock("models.auto.modeling_auto")
    names = {head: getattr(lists, key).get(model_type) for head, key in LISTS.items()}
    classes = {head: name if isinstance(name, str) else name[0] for head, name in names.items() if name}
    _check_kind(model_type, classes)
    if "masked_lm" in classes:
        classes.pop("causal_lm", None)  # the same layers under a causal mask, for a decoder beside an encoder
    return classes


def stock(module: str = "") -> Any:
    """A module of transformers, which is an optional extra.

    Raises:
        UnsupportedError: it is not installed.
    """
    try:
        return importlib.import_module(f"transformers.{module}".rstrip("."))
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] != "transformers":
            raise
        raise UnsupportedError(
            "an architecture that pretune has no family of its own for is computed by transformers, which is "
            "not installed: pip install 'pretune[hf]'"
        ) from None


def _check_kind(model_type: str, classes: Mapping[str, str]) -> None:
    known = stock("models.auto.configuration_auto").CONFIG_MAPPING_NAMES
    if model_type not in known:
        raise UnsupportedError(
            f"model_type {model_type!r}: neither pretune nor the transformers installed here has it "
            f"(code from a model folder is never run); {suggestion(model_type, known)}"
        )
    if not {"masked_lm", "causal_lm"} & classes.keys():
        raise UnsupportedError(
            f"model_type {model_type!r}: stock transformers has no language model of it: it reads no text"
        )
    usual = default(model_type)
    if getattr(usual, "is_encoder_decoder", False):
        raise UnsupportedError(
            f"model_type {model_type!r} is an encoder-decoder; the wrapper takes encoders and decoders, "
            "and pretune's own families of encoder-decoders are t5 and bart"
        )
    if not isinstance(getattr(usual, "vocab_size", None), int):
        raise UnsupportedError(f"model_type {model_type!r}: has no vocab_size: it is no model of text alone")


@once
def default(model_type: str) -> Any:
    """The stock config of a model type, as it is where nothing is said."""
    return stock().AutoConfig.for_model(model_type)


@dataclass(frozen=True)
class Parts:
    """Where the tensors of a stock class belong, by the first part of their names."""

    prefix: str
    """Of the body's tensors."""
    body: frozenset[str]
    """Parts of the body that every class has."""
    own: Mapping[str, frozenset[str]]
    """Head to the parts of the body that only its class has, such as a pooler."""
    top: Mapping[str, frozenset[str]]
    """Head to the parts beside the body."""


@once
def parts(model_type: str) -> Parts:
    """Found out on stock networks without values."""
    heads = classes_of(model_type)
    lists = stock("models.auto.modeling_auto")
    found = [getattr(lists, key).get(model_type) for key in OTHER_LISTS]
    others = {n for name in found if name for n in ([name] if isinstance(name, str) else name)}
    classes = [*heads.items(), *((OTHER, name) for name in sorted(others - set(heads.values())))]
    prefix = ""
    inner: dict[str, set[str]] = {}
    top: dict[str, set[str]] = {}
    for head, name in classes:
        network = sketch(model_type, name)
        prefix = prefix or network.base_model_prefix
        names = [n for n, _ in network.named_parameters(remove_duplicate=False)]
        within = [n.removeprefix(f"{prefix}.") for n in names if n.startswith(f"{prefix}.")]
        whole = network.base_model is network  # a body without a head has no prefix
        inner[head] = inner.get(head, set()) | {n.split(".")[0] for n in (names if whole else within)}
        beside = {n.split(".")[0] for n in names if not whole} - {prefix}
        top[head] = top.get(head, set()) | beside
    body = set.intersection(*(inner[head] for head in heads))
    return Parts(
        prefix,
        frozenset(body),
        {head: frozenset(names - body) for head, names in inner.items()},
        {head: frozenset(names) for head, names in top.items()},
    )


def sketch(model_type: str, name: str, pad: int | None = None) -> Any:
    """A stock class of the default shape, one layer deep, without values."""
    config = stock().AutoConfig.for_model(model_type)
    if pad is not None and pad < config.vocab_size:
        config.pad_token_id = pad
    config.num_hidden_layers = 1
    with shapes_only():
        return getattr(stock(), name)(config)


@once
def renamings(model_type: str) -> tuple[tuple[Any, ...], tuple[Any, ...]]:
    """What transformers itself renames as it reads a folder, and as it writes one.

    Raises:
        UnsupportedError: it changes the tensors, too, as it does where experts are kept one by one.
    """
    network = sketch(model_type, next(iter(classes_of(model_type).values())))
    loading, mapping = stock("core_model_loading"), stock("conversion_mapping")
    kept = mapping.get_model_conversion_mapping(network, add_legacy=False)
    if not all(isinstance(step, loading.WeightRenaming) for step in kept):
        raise UnsupportedError(
            f"model_type {model_type!r}: its folders keep tensors in another form than transformers computes "
            "with; pretune does not take it"
        )
    back = [step.reverse_transform() for step in kept[::-1] if not isinstance(step, loading.PrefixChange)]
    return tuple(mapping.get_model_conversion_mapping(network)), tuple(back)


def _renamed(name: str, steps: Sequence[Any]) -> str:
    for step in steps:
        name, _ = step.rename_source_key(name)
    return name


@dataclass(frozen=True)
class Names:
    """The names of the stock classes of a model type: those of the body have a prefix, heads have none."""

    model_type: str

    def read(self, theirs: State, ours: State) -> None:
        known, (steps, _) = parts(self.model_type), renamings(self.model_type)
        for name in list(theirs):
            theirs[_renamed(name, steps)] = theirs.pop(name)
        prefixed = any(name.startswith(f"{known.prefix}.") for name in theirs)
        for name in list(theirs):
            within = name.startswith(f"{known.prefix}.")
            place = self._place(known, name.removeprefix(f"{known.prefix}."), within or not prefixed)
            if place is not None:
                ours[place] = theirs.pop(name)

    def write(self, theirs: State, ours: State) -> None:
        prefix, (_, steps) = parts(self.model_type).prefix, renamings(self.model_type)
        for name in list(ours):
            room, _, rest = name.partition(".")
            inside = room == "body"
            if room == "heads":
                rest = rest.partition(".")[2]
                inside = rest.startswith("body.")
                rest = rest.removeprefix("body.")
            theirs[_renamed(f"{prefix}.{rest}" if inside else rest, steps)] = ours.pop(name)

    def _place(self, known: Parts, name: str, inside: bool) -> str | None:
        first = name.split(".")[0]
        if inside and first in known.body:
            return f"body.{name}"
        rooms = known.own if inside else known.top
        head = next((head for head, names in rooms.items() if first in names), None)
        if head is None:
            return None
        return f"heads.{head}.body.{name}" if inside else f"heads.{head}.{name}"
