"""What stock ``transformers`` has of a model type: its classes, its config, the names of its tensors."""

from __future__ import annotations

import importlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache as once
from typing import Any

from pretune.checkpoint.weights import StateDict
from pretune.errors import UnsupportedError, suggestion
from pretune.nn.heads import HeadType
from pretune.nn.init import meta_device

OTHER_HEADS = "other"
"""Stands for the heads that are not ours."""
HEAD_TYPES: Mapping[str, HeadType] = {
    "masked_lm": "vocabulary",
    "causal_lm": "vocabulary",
    "classification": "sequence",
    "token_classification": "token",
    "question_answering": "span",
    "multiple_choice": "choice",
}
MODEL_MAPPINGS = {
    "masked_lm": "MODEL_FOR_MASKED_LM_MAPPING_NAMES",
    "causal_lm": "MODEL_FOR_CAUSAL_LM_MAPPING_NAMES",
    "classification": "MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES",
    "token_classification": "MODEL_FOR_TOKEN_CLASSIFICATION_MAPPING_NAMES",
    "question_answering": "MODEL_FOR_QUESTION_ANSWERING_MAPPING_NAMES",
    "multiple_choice": "MODEL_FOR_MULTIPLE_CHOICE_MAPPING_NAMES",
}
"""Head to the list of transformers that names its class for each model type."""
OTHER_MODEL_MAPPINGS = (
    "MODEL_MAPPING_NAMES",
    "MODEL_FOR_PRETRAINING_MAPPING_NAMES",
    "MODEL_FOR_NEXT_SENTENCE_PREDICTION_MAPPING_NAMES",
)
"""Classes whose heads a folder may hold, and which are left out here."""


@once
def stock_classes(model_type: str) -> Mapping[str, str]:
    """Head to the stock class that has it.

    Raises:
        UnsupportedError: transformers is not installed, does not have the model type, or it is of a kind that
            the wrapper does not take.
    """
    lists = import_transformers("models.auto.modeling_auto")
    names = {head: getattr(lists, key).get(model_type) for head, key in MODEL_MAPPINGS.items()}
    classes = {head: name if isinstance(name, str) else name[0] for head, name in names.items() if name}
    _check_supported(model_type, classes)
    if "masked_lm" in classes:
        classes.pop("causal_lm", None)  # the same layers under a causal mask, for a decoder beside an encoder
    return classes


def import_transformers(module: str = "") -> Any:
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


def _check_supported(model_type: str, classes: Mapping[str, str]) -> None:
    known = import_transformers("models.auto.configuration_auto").CONFIG_MAPPING_NAMES
    if model_type not in known:
        raise UnsupportedError(
            f"model_type {model_type!r}: neither pretune nor the transformers installed here has it "
            f"(code from a model folder is never run); {suggestion(model_type, known)}"
        )
    if not {"masked_lm", "causal_lm"} & classes.keys():
        raise UnsupportedError(
            f"model_type {model_type!r}: stock transformers has no language model of it: it reads no text"
        )
    config = default_config(model_type)
    if getattr(config, "is_encoder_decoder", False):
        raise UnsupportedError(
            f"model_type {model_type!r} is an encoder-decoder; the wrapper takes encoders and decoders, "
            "and pretune's own families of encoder-decoders are t5 and bart"
        )
    if not isinstance(getattr(config, "vocab_size", None), int):
        raise UnsupportedError(f"model_type {model_type!r}: has no vocab_size: it is no model of text alone")


@once
def default_config(model_type: str) -> Any:
    """The stock config of a model type, as it is where nothing is said."""
    return import_transformers().AutoConfig.for_model(model_type)


@dataclass(frozen=True)
class TensorGroups:
    """Where the tensors of a stock class belong, by the first part of their names."""

    prefix: str
    """Of the body's tensors."""
    body: frozenset[str]
    """Parts of the body that every class has."""
    body_by_head: Mapping[str, frozenset[str]]
    """Head to the parts of the body that only its class has, such as a pooler."""
    modules_by_head: Mapping[str, frozenset[str]]
    """Head to the parts beside the body."""
    parameters_by_head: Mapping[str, tuple[str, ...]]
    """Head to the names of all parameters of these."""


@once
def tensor_groups(model_type: str) -> TensorGroups:
    """Found out on stock networks without values."""
    heads = stock_classes(model_type)
    lists = import_transformers("models.auto.modeling_auto")
    found = [getattr(lists, key).get(model_type) for key in OTHER_MODEL_MAPPINGS]
    others = {n for name in found if name for n in ([name] if isinstance(name, str) else name)}
    classes = [*heads.items(), *((OTHER_HEADS, name) for name in sorted(others - set(heads.values())))]
    prefix = ""
    inner: dict[str, set[str]] = {}
    modules_by_head: dict[str, set[str]] = {}
    parameters: dict[str, tuple[str, ...]] = {}
    for head, name in classes:
        network = meta_network(model_type, name)
        prefix = prefix or network.base_model_prefix
        names = [n for n, _ in network.named_parameters(remove_duplicate=False)]
        within = [n.removeprefix(f"{prefix}.") for n in names if n.startswith(f"{prefix}.")]
        is_bare_body = network.base_model is network  # a body without a head has no prefix
        inner[head] = inner.get(head, set()) | {n.split(".")[0] for n in (names if is_bare_body else within)}
        outside = () if is_bare_body else tuple(n for n in names if n.split(".")[0] != prefix)
        modules_by_head[head] = modules_by_head.get(head, set()) | {n.split(".")[0] for n in outside}
        parameters[head] = outside
    body = set.intersection(*(inner[head] for head in heads))
    return TensorGroups(
        prefix,
        frozenset(body),
        {head: frozenset(names - body) for head, names in inner.items()},
        {head: frozenset(names) for head, names in modules_by_head.items()},
        parameters,
    )


def meta_network(model_type: str, name: str, pad_id: int | None = None) -> Any:
    """A stock class of the default shape, one layer deep, without values."""
    config = import_transformers().AutoConfig.for_model(model_type)
    if pad_id is not None and pad_id < config.vocab_size:
        config.pad_token_id = pad_id
    config.num_hidden_layers = 1
    with meta_device():
        return getattr(import_transformers(), name)(config)


@once
def weight_renamings(model_type: str) -> tuple[tuple[Any, ...], tuple[Any, ...]]:
    """What transformers itself renames as it reads a folder, and as it writes one.

    Raises:
        UnsupportedError: it changes the tensors, too, as it does where experts are kept one by one.
    """
    network = meta_network(model_type, next(iter(stock_classes(model_type).values())))
    loading, mapping = import_transformers("core_model_loading"), import_transformers("conversion_mapping")
    conversions = mapping.get_model_conversion_mapping(network, add_legacy=False)
    if not all(isinstance(step, loading.WeightRenaming) for step in conversions):
        raise UnsupportedError(
            f"model_type {model_type!r}: its folders keep tensors in another form than transformers computes "
            "with; pretune does not take it"
        )
    reverse_conversions = [
        step.reverse_transform() for step in conversions[::-1] if not isinstance(step, loading.PrefixChange)
    ]
    return tuple(mapping.get_model_conversion_mapping(network)), tuple(reverse_conversions)


def _rename(name: str, steps: Sequence[Any]) -> str:
    for step in steps:
        name, _ = step.rename_source_key(name)
    return name


@dataclass(frozen=True)
class StockNames:
    """The names of the stock classes of a model type: those of the body have a prefix, heads have none.

    The tensors of fine-tuned heads are left to the operations of these heads.
    """

    model_type: str

    def read(self, theirs: StateDict, ours: StateDict) -> None:
        groups, (steps, _) = tensor_groups(self.model_type), weight_renamings(self.model_type)
        for name in list(theirs):
            theirs[_rename(name, steps)] = theirs.pop(name)
        prefixed = any(name.startswith(f"{groups.prefix}.") for name in theirs)
        for name in list(theirs):
            in_body = name.startswith(f"{groups.prefix}.")
            our_names = self._our_names(
                groups, name.removeprefix(f"{groups.prefix}."), in_body or not prefixed
            )
            if our_names:
                ours |= dict.fromkeys(our_names, theirs.pop(name))

    def write(self, theirs: StateDict, ours: StateDict) -> None:
        prefix, (_, steps) = tensor_groups(self.model_type).prefix, weight_renamings(self.model_type)
        for name in list(theirs):
            theirs[_rename(name, steps)] = theirs.pop(name)
        for name in list(ours):
            group, _, rest = name.partition(".")
            in_body = group == "body"
            if group == "heads":
                rest = rest.partition(".")[2]
                in_body = rest.startswith("body.")
                rest = rest.removeprefix("body.")
            theirs[_rename(f"{prefix}.{rest}" if in_body else rest, steps)] = ours.pop(name)

    def _our_names(self, groups: TensorGroups, name: str, in_body: bool) -> list[str]:
        """Under every head that has it: a part of the body, such as a pooler, may be several heads' own."""
        first = name.split(".")[0]
        if in_body and first in groups.body:
            return [f"body.{name}"]
        if in_body:
            return [
                f"heads.{head}.body.{name}" for head, names in groups.body_by_head.items() if first in names
            ]
        claimed = [head for head, names in groups.modules_by_head.items() if first in names]
        pretrained = [head for head in claimed if HEAD_TYPES.get(head) == "vocabulary"]
        if not pretrained and claimed != [OTHER_HEADS]:
            return []
        return [f"heads.{(pretrained or claimed)[0]}.{name}"]
