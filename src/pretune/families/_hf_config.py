"""The config of any stock model, every key under its standard name."""

from __future__ import annotations

import dataclasses
import importlib
import inspect
from collections.abc import Mapping
from functools import cache as once
from typing import Any, Self

import pydantic

from pretune import config as settings
from pretune.checkpoint import hub
from pretune.errors import ConfigError, UnsupportedError, quote, suggestion
from pretune.families._hf_stock import default_config, import_transformers, meta_network, stock_classes
from pretune.types import OutputSpec, SpecialTokens

IGNORED_KEYS = frozenset({
    "architectures", "dtype", "torch_dtype", "transformers_version", "_name_or_path", "_commit_hash",
    "_attn_implementation", "attn_implementation", "id2label", "label2id", "num_labels", "problem_type",
    "output_hidden_states", "output_attentions", "return_dict", "use_cache", "auto_map", "bos_token_id",
    "eos_token_id", "decoder_start_token_id", "sep_token_id", "cls_token_id", "model_type",
})  # fmt: skip
"""Keys of a config.json that do not change the network."""
DEFAULT_MAX_LENGTH = 2048
"""Tokens that a network reads at once whose config sets no limit."""
MAX_LAYERS = 10_000
"""Layers that a config may ask for: stock configs write out a list of them before anything is checked."""
CONFIG_ERRORS = (
    ValueError,
    TypeError,
    AttributeError,
    LookupError,
    ArithmeticError,
    RuntimeError,
    AssertionError,
)
"""What the config classes of transformers raise over values that they cannot use."""
TINY_SETTINGS = {
    "vocab_size": 96, "hidden_size": 32, "embedding_size": 16, "intermediate_size": 64, "ffn_dim": 64,
    "num_hidden_layers": 2, "num_attention_heads": 4, "max_position_embeddings": 48, "pad_token_id": 0,
}  # fmt: skip


class Config(settings.Settings):
    """A stock config, every key under its standard name (``hidden_size`` for GPT-2's ``n_embd``)."""

    model_config = pydantic.ConfigDict(extra="allow")

    model_type: str
    vocab_size: pydantic.PositiveInt
    num_hidden_layers: pydantic.PositiveInt
    max_position_embeddings: pydantic.PositiveInt
    """Tokens that it reads at once."""
    pad_token_id: pydantic.NonNegativeInt | None = None
    tie_word_embeddings: bool = True

    @pydantic.model_validator(mode="before")
    @classmethod
    def _fill_defaults(cls, values: Any) -> Any:
        """What was not said is as in a stock config."""
        given = {"model_type": cls.model_fields["model_type"].default, **values}
        known = _known_keys(given["model_type"])
        unknown = [key for key in given if key not in known]
        if unknown:
            raise ValueError(f"there is no key {unknown[0]!r}; {suggestion(unknown[0], sorted(known))}")
        standard = _to_standard_keys(build_stock_config(given))
        if (
            _max_positions(default_config(given["model_type"])) is None
        ):  # it reads any length; this is what it is used with
            standard |= {key: v for key, v in given.items() if key == "max_position_embeddings"}
        return standard

    @classmethod
    def from_hugging_face(cls, values: Mapping[str, Any]) -> Self:
        """The config of a config.json; what does not change the network is passed over.

        Raises:
            UnsupportedError: it asks for something that the wrapper does not compute.
            ConfigError: a value is wrong.
        """
        for key in ("is_decoder", "add_cross_attention", "quantization_config"):
            if values.get(key):
                raise UnsupportedError(f"config.json: {key} is set; the wrapper has no use for it")
        model_type = str(cls.model_fields["model_type"].default)
        shape_values = {key: value for key, value in values.items() if key not in IGNORED_KEYS}
        _check_keys(shape_values, default_config(model_type))
        try:
            standard = _to_standard_keys(
                build_stock_config({**shape_values, "model_type": model_type}, add_position_offset=False)
            )
        except ValueError as error:
            raise ConfigError(f"config.json: {error}") from None
        known = _known_keys(model_type)
        return settings.build_settings(
            cls, {k: v for k, v in standard.items() if k in known}, where="config.json"
        )

    def to_hugging_face(
        self, head: str, *, outputs: OutputSpec | None = None, specials: SpecialTokens | None = None
    ) -> dict[str, Any]:
        """The config.json with which stock transformers loads this network with ``head``."""
        stock_config = build_stock_config(self.model_dump())
        values = {key: value for key, value in stock_config.to_dict().items() if key not in IGNORED_KEYS}
        name = stock_classes(self.model_type)[head]
        values |= {"model_type": self.model_type, "architectures": [name], "dtype": "float32"}
        if specials is not None:
            pad = specials.pad_id if self.pad_token_id is None else self.pad_token_id
            values |= {"pad_token_id": pad, "bos_token_id": specials.bos_id, "eos_token_id": specials.eos_id}
        return values | hub.output_config(outputs)


def _check_keys(values: Mapping[str, Any], stock_config: Any) -> None:
    """A key becomes an attribute of the stock config: one that is a method there would replace it.

    Raises:
        ConfigError: names such a key.
    """
    fields, config_class = {field.name for field in dataclasses.fields(stock_config)}, type(stock_config)
    for key in values:
        attribute = inspect.getattr_static(config_class, key, None)
        if key.startswith("__") or not (
            attribute is None or key in fields or isinstance(attribute, property)
        ):
            raise ConfigError(f"config.json: {quote(key)} is a part of its stock class and no setting")


@once
def _known_keys(model_type: str) -> frozenset[str]:
    """The keys that a config of this type has, under both of their names."""
    stock_config = default_config(model_type)
    names = stock_config.attribute_map
    return frozenset({*stock_config.to_dict(), *names, *names.values(), *Config.model_fields})


@once
def position_padding_id(model_type: str, pad_id: int | None) -> int | None:
    """The id behind which positions begin (RoBERTa's way): it marks padding wherever it stands."""
    network = meta_network(model_type, next(iter(stock_classes(model_type).values())), pad_id)
    tables = [m for n, m in network.named_modules() if n.endswith("position_embeddings")]
    found = [getattr(table, "padding_idx", None) for table in tables]
    return next((id for id in found if id is not None), None)


def build_stock_config(values: Mapping[str, Any], *, add_position_offset: bool = True) -> Any:
    """A stock config of keys under either name.

    Args:
        add_position_offset: ``max_position_embeddings`` counts tokens, not the rows of a table.

    Raises:
        ValueError: transformers refuses a value.
    """
    model_type = values["model_type"]
    names = default_config(model_type).attribute_map
    ignored = (
        IGNORED_KEYS
        if _max_positions(default_config(model_type))
        else IGNORED_KEYS | {"max_position_embeddings"}
    )
    native = {names.get(key, key): value for key, value in values.items() if key not in ignored}
    depth = native.get(names.get("num_hidden_layers", "num_hidden_layers"))
    if isinstance(depth, int) and depth > MAX_LAYERS:
        raise ValueError(f"num_hidden_layers = {depth}: more than {MAX_LAYERS} layers")
    errors = importlib.import_module("huggingface_hub.errors")
    try:
        config = import_transformers().AutoConfig.for_model(model_type, **native)
    # What it raises over a wrong value depends on where it first computes with it.
    except (*CONFIG_ERRORS, errors.StrictDataclassError) as error:
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        raise ValueError(f"refused by transformers: {lines[-1] if lines else error}") from None
    if add_position_offset and native.get(names.get("max_position_embeddings", "max_position_embeddings")):
        config.max_position_embeddings += _position_offset(config)
    return config


def _position_offset(config: Any) -> int:
    """Rows of a table of positions that no token reads."""
    id = position_padding_id(config.model_type, getattr(config, "pad_token_id", None))
    return 0 if id is None else id + 1


def _max_positions(config: Any) -> int | None:
    """Rows of its table of positions; None: it has none."""
    rows = getattr(config, "max_position_embeddings", None)
    return rows if isinstance(rows, int) and rows > 0 else None


def _to_standard_keys(config: Any) -> dict[str, Any]:
    """The keys of a stock config under their standard names."""
    names = config.attribute_map.items()
    standard = {native: name for name, native in names if native not in Config.model_fields}
    values = {standard.get(key, key): v for key, v in config.to_dict().items() if key not in IGNORED_KEYS}
    limit = _max_positions(config)
    return values | {
        "model_type": config.model_type,
        "num_hidden_layers": config.num_hidden_layers,
        "max_position_embeddings": DEFAULT_MAX_LENGTH if limit is None else limit - _position_offset(config),
    }


def build_tiny_config(config_class: type[Config]) -> Config:
    """A shape for tests."""
    known = _known_keys(str(config_class.model_fields["model_type"].default))
    return settings.build_settings(
        config_class, {key: value for key, value in TINY_SETTINGS.items() if key in known}
    )
