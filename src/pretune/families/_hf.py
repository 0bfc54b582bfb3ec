"""Any other architecture, as stock ``transformers`` computes it: `of` makes a family of a ``model_type``."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cache as once
from types import ModuleType
from typing import Any, Self

import pydantic
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from pretune.checkpoint.weights import Ignore
from pretune.errors import ConfigError, UnsupportedError
from pretune.families._hf_config import Config, build_stock_config, build_tiny_config, position_padding_id
from pretune.families._hf_stock import (
    HEAD_TYPES,
    StockNames,
    default_config,
    import_transformers,
    stock_classes,
    tensor_groups,
    weight_renamings,
)
from pretune.nn.cache import KVCache
from pretune.nn.heads import Head, HeadModule, HeadType, Pooling
from pretune.types import IGNORE_INDEX, Batch, Layout, LossOptions, Outputs, Traits

HF_PREFIX = "hf:"
"""Such a family is named by it: ``hf:electra``."""
MAX_LOGITS = 1 << 27
"""As many are held at once, 512 MiB of them in fp32 and a few copies, however many rows a batch has."""
PROBE_LENGTH = 6
"""Tokens of the text on which a network is tried."""


@once
def build_family(model_type: str) -> ModuleType:
    """The family that wraps the stock classes of a ``model_type`` of config.json.

    Raises:
        UnsupportedError: transformers is not installed, does not have it, or it is of a kind that the
            wrapper does not take.
    """
    classes = stock_classes(model_type)
    weight_renamings(model_type)  # refuses what cannot be read
    encoder = "masked_lm" in classes
    exports = {
        "TRAITS": Traits(
            architecture="encoder" if encoder else "decoder",
            heads=tuple(classes),
            pooling="first" if encoder else "last",
            supports_packing=False,
            supports_cache=not encoder,
            has_segment_embeddings=getattr(default_config(model_type), "type_vocab_size", 0) > 1,
        ),
        "MODEL_TYPES": {model_type: ""},
        "HEADS": build_heads(model_type),
        "WEIGHTS": [Ignore("{body}.embeddings.position_ids"), StockNames(model_type)],
        "Config": pydantic.create_model("Config", __base__=Config, model_type=(str, model_type)),
        "Network": Network,
    }
    family = ModuleType(f"{__name__.rpartition('.')[0]}.{HF_PREFIX}{model_type}")
    family.__dict__.update(exports, tiny_config=lambda: build_tiny_config(family.Config))
    return family


FIXED_OUTPUTS: Mapping[HeadType, int] = {"span": 2, "choice": 1}


def build_heads(model_type: str) -> dict[str, Head]:
    """The heads that the stock classes of a model type have."""
    groups, classes, heads = tensor_groups(model_type), stock_classes(model_type), {}
    text_position: Pooling = "first" if "masked_lm" in classes else "last"
    for name, class_name in classes.items():
        head_type = HEAD_TYPES[name]
        is_pretrained = head_type == "vocabulary"
        own = () if is_pretrained else groups.parameters_by_head[name]
        reads: Pooling = text_position if head_type in ("sequence", "choice") else "all"
        heads[name] = Head(
            head_type, class_name, _no_module, reads, {parameter: parameter for parameter in own},
            num_outputs=FIXED_OUTPUTS.get(head_type), is_pretrained=is_pretrained,
        )  # fmt: skip
    return heads


def _no_module(network: Any, num_outputs: int) -> HeadModule:
    raise AssertionError("transformers makes the body and the head of this network together")


class ModuleSubset(nn.Module):
    """Some modules and parameters of a stock network under the names that they have there."""

    def __init__(self, network: nn.Module, names: frozenset[str]) -> None:
        super().__init__()
        for name, module in network.named_children():
            if name in names:
                self.add_module(name, module)
        for name, parameter in network.named_parameters(recurse=False):
            if name in names:
                self.register_parameter(name, parameter)


class Network(nn.Module):
    """A stock network with one head, or none, called as ours are."""

    def __init__(self, config: Config, heads: Sequence[str] = ("masked_lm",), num_labels: int = 0) -> None:
        super().__init__()
        self.config = config
        family = build_family(config.model_type)
        self.traits: Traits = family.TRAITS
        self.head_table: Mapping[str, Head] = family.HEADS
        if len(heads) > 1:
            raise UnsupportedError(
                f"{'+'.join(heads)}: a network of transformers has one head at a time; name one of them"
            )
        for name in heads:
            if name not in self.traits.heads:
                has = ", ".join(self.traits.heads)
                raise UnsupportedError(f"{config.model_type} has no head {name!r}; it has: {has}")
            if self.head_table[name].is_labeled and num_labels < 1:
                raise ConfigError(f"num_labels: a {name} head needs at least one")
        self.num_labels = num_labels if any(self.head_table[name].is_labeled for name in heads) else 0
        padding_id = position_padding_id(config.model_type, config.pad_token_id)
        self.pad_id = config.pad_token_id if padding_id is None else padding_id
        """What marks padding in the stock network; None: the mask alone does."""
        groups, stock_network = tensor_groups(config.model_type), self._build_stock(heads)
        # Not as a module of its own: each parameter stands below under the name that `StockNames` gives it.
        self._stock: tuple[Any] = (stock_network,)
        self.body = ModuleSubset(stock_network.base_model, groups.body)
        self.heads = nn.ModuleDict()
        for name in heads:
            self.heads[name] = ModuleSubset(stock_network, groups.modules_by_head[name])
            if groups.body_by_head[name]:
                self.heads[name].add_module(
                    "body", ModuleSubset(stock_network.base_model, groups.body_by_head[name])
                )
        _check_parameters(
            config.model_type,
            stock_network,
            set(self.parameters()) if heads else set(stock_network.parameters()),
        )
        if not next(stock_network.parameters()).is_meta:
            self._check_traits()
        stock_network.train()  # as any module that was just made

    @property
    def stock(self) -> Any:
        """The network as transformers has it, with the same parameters."""
        return self._stock[0]

    def train(self, mode: bool = True) -> Self:
        """As of any module; the stock network looks at its own flag, too."""
        self.stock.train(mode)
        return super().train(mode)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        self.stock._apply(fn)  # buffers that stand outside the parts move, too
        moved: Self = super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        return moved

    def reset_parameters(self, generator: torch.Generator | None = None) -> None:
        """Draw first values as the stock class does."""
        with torch.random.fork_rng(devices=[], enabled=generator is not None):
            if generator is not None:
                torch.manual_seed(int(torch.randint(2**62, (), generator=generator)))
            drawn = self._build_stock(tuple(self.heads))
        with torch.no_grad():
            for ours, theirs in zip(self.stock.parameters(), drawn.parameters(), strict=True):
                ours.copy_(theirs)

    def _build_stock(self, heads: Sequence[str]) -> Any:
        """A stock network with values drawn by torch's generator."""
        config = build_stock_config(self.config.model_dump())
        config.use_cache = False
        if self.num_labels:
            config.num_labels = self.num_labels
        classes = stock_classes(self.config.model_type)
        name = classes[heads[0]] if heads else next(iter(classes.values()))
        return getattr(import_transformers(), name)(config).eval()

    def forward(
        self,
        batch: Batch,
        heads: Sequence[str] = (),
        targets: Mapping[str, Tensor] | None = None,
        loss: LossOptions | None = None,
        cache: KVCache | None = None,
    ) -> Outputs:
        """What the head says at its places, or, without one, the hidden states of the batch.

        A cache keeps the tokens, and all of them are read anew: right, though no faster than without.

        Raises:
            UnsupportedError: a head that the network was not built with, the cache of an encoder, texts that
                share a row, too long a row, or padding inside a text.
        """
        for name in heads:
            if name not in self.heads:
                raise UnsupportedError(
                    f"the network has no head {name!r}; it was built with: {', '.join(self.heads)}"
                )
        full_batch, positions = (batch, None) if cache is None else self._with_cached_tokens(batch, cache)
        inputs = self._stock_inputs(full_batch)
        if not heads:
            hidden: Tensor = self.stock.base_model(**inputs)[0]  # (B, S, D)
            new = (
                hidden if positions is None else hidden.flatten(0, 1)[positions].view(*batch.tokens.shape, -1)
            )
            return Outputs(hidden=new, cache=cache)
        name, head_positions = heads[0], batch.positions.get(heads[0])
        if self.head_table[name].type in ("sequence", "choice"):
            logits = self._text_logits(inputs, self.head_table[name].type)  # (B, C)
            rows = None if head_positions is None else head_positions // batch.tokens.shape[1]
            return Outputs({name: logits if rows is None else logits.index_select(0, rows)}, cache=cache)
        if positions is not None:
            head_positions = positions if head_positions is None else positions[head_positions]
        if targets is None or name not in targets:
            return Outputs({name: self._logits(inputs, head_positions)}, cache=cache)
        options = loss or LossOptions()
        nll = self._nll(inputs, head_positions, targets[name], options.label_smoothing)  # (N,)
        return Outputs(sums={name: nll.sum()}, nll={name: nll} if options.per_position else {}, cache=cache)

    def _text_logits(self, inputs: Mapping[str, Tensor], head_type: HeadType) -> Tensor:
        """(B, C), one row a text."""
        if head_type == "choice":  # stock takes the choices of an example as an axis of their own
            inputs = {key: value[:, None] for key, value in inputs.items()}
        logits: Tensor = self.stock(**inputs).logits
        return logits

    def _logits(self, inputs: Mapping[str, Tensor], positions: Tensor | None) -> Tensor:
        """(N, C) at the positions of the flattened grid; None: at all."""
        outputs = self.stock(**inputs)
        if any(self.head_table[name].type == "span" for name in self.heads):
            logits = torch.stack([outputs.start_logits, outputs.end_logits], -1).flatten(0, 1)  # (B * S, 2)
        else:
            logits = outputs.logits.flatten(0, 1)  # (B * S, C)
        return logits if positions is None else logits.index_select(0, positions)

    def _nll(
        self, inputs: Mapping[str, Tensor], positions: Tensor | None, targets: Tensor, label_smoothing: float
    ) -> Tensor:
        """Cross-entropy of each target, (N,), as many rows at a time as fit; training computes all twice."""
        count, width = inputs["input_ids"].shape
        if positions is None:
            positions = torch.arange(count * width, device=targets.device)  # (N,)

        def chunk_nll(rows: slice) -> Tensor:
            chunk = {key: value[rows] for key, value in inputs.items()}
            inside = chunks_of == rows.start // max_rows
            return F.cross_entropy(
                self._logits(chunk, positions[inside] - rows.start * width).float(),
                targets[inside],
                reduction="none",
                ignore_index=IGNORE_INDEX,
                label_smoothing=label_smoothing,
            )

        max_rows = max(1, MAX_LOGITS // (width * self.config.vocab_size))
        chunks_of = positions // (width * max_rows)  # (N,) the chunk that each position lies in
        chunks = [slice(k, k + max_rows) for k in range(0, count, max_rows)]
        if len(chunks) == 1:
            return chunk_nll(chunks[0])
        if torch.is_grad_enabled():
            found = [checkpoint(chunk_nll, rows, use_reentrant=False) for rows in chunks]
        else:
            found = [chunk_nll(rows) for rows in chunks]
        order = chunks_of.argsort(stable=True)
        return torch.cat(found)[order.argsort()]

    def _with_cached_tokens(self, batch: Batch, cache: KVCache) -> tuple[Batch, Tensor]:
        """All tokens up to now as a batch, and where those of ``batch`` lie in its grid, (B * T,)."""
        if not self.traits.supports_cache:
            raise UnsupportedError(
                f"{self.config.model_type} sees both sides of every place: it has no cache"
            )
        rows, width = batch.tokens.shape
        cache.prepare(batch.layout, width)
        column = batch.tokens[:, None, :, None]  # (B, 1, T, 1)
        cached_tokens, _ = cache.extend(0, column, column)
        assert cache.lengths is not None, "open has set them"
        size = int(cache.lengths.max())
        tokens = cached_tokens[:, 0, :size, 0]  # (B, S)
        before = (
            torch.zeros_like(cache.lengths)
            if batch.layout.cache_lengths is None
            else batch.layout.cache_lengths
        )
        inside = before[:, None] + torch.arange(width, device=tokens.device)  # (B, T)
        starts = torch.arange(rows, device=tokens.device)[:, None] * size
        positions = starts + inside.clamp(max=size - 1)  # padding behind the longest row reads its last place
        return Batch(tokens, Layout(cache.lengths)), positions.flatten()

    def _stock_inputs(self, batch: Batch) -> dict[str, Tensor]:
        """The batch as transformers takes it."""
        layout, width, model_type = batch.layout, batch.tokens.shape[1], self.config.model_type
        if layout.documents is not None or layout.position_ids is not None:
            raise UnsupportedError(f"{model_type} is read by transformers: one text a row, none beside it")
        if layout.prefix_lengths is not None or layout.order is not None:
            raise UnsupportedError(f"{model_type} is read by transformers: no prefix and no permuted order")
        if width > self.config.max_position_embeddings:
            max_length = self.config.max_position_embeddings
            raise UnsupportedError(
                f"a row of {width} tokens; this model has {max_length} positions (cut the text)"
            )
        token_mask = torch.arange(width, device=batch.tokens.device) < layout.lengths[:, None]  # (B, T)
        tokens = self._fill_padding(batch.tokens, token_mask)
        inputs = {"input_ids": tokens, "attention_mask": token_mask.long()}
        if layout.segments is not None and getattr(self.stock.config, "type_vocab_size", 0) > 1:
            inputs["token_type_ids"] = layout.segments
        return inputs

    def _fill_padding(self, tokens: Tensor, token_mask: Tensor) -> Tensor:
        """The grid with the padding that the stock network looks for: it may find a text's end by it."""
        pad_id = self.pad_id
        is_text_head = any(self.head_table[name].reads != "all" for name in self.heads)
        if self.traits.architecture == "decoder" and not is_text_head:
            return tokens  # the mask alone decides
        if pad_id is None:
            pad_id = (
                int(tokens[~token_mask][0]) if not bool(token_mask.all()) else -1
            )  # -1: no token, every row is full
            self.stock.config.pad_token_id = pad_id
        if bool(((tokens == pad_id) & token_mask).any()):
            raise UnsupportedError(
                f"a text holds the padding token (id {pad_id}), by which {self.config.model_type} finds "
                "where a "
                "text ends; give the tokenizer a pad_token of its own, or take that token out of the text"
            )
        return tokens.masked_fill(~token_mask, pad_id) if pad_id >= 0 else tokens

    @torch.no_grad()
    def _check_traits(self) -> None:
        """See that it does what its traits say: padding changes nothing, and a decoder sees no later token.

        Raises:
            UnsupportedError: it does not.
        """
        pad_id = self.pad_id
        ids = [id for id in range(4, self.config.vocab_size) if id != pad_id][:PROBE_LENGTH]
        if len(ids) < PROBE_LENGTH or self.config.max_position_embeddings <= PROBE_LENGTH + 3:
            return  # too small to try anything on
        text = torch.tensor([ids])  # (1, T)
        padded_text = torch.cat([text, torch.full((1, 3), pad_id or 0)], 1)
        changed_text = torch.cat([text[:, :-1], text[:, :1]], 1)
        body = self.stock.base_model
        hidden = body(input_ids=text, attention_mask=torch.ones_like(text))[0]
        padded_hidden = body(
            input_ids=padded_text, attention_mask=(torch.arange(PROBE_LENGTH + 3) < PROBE_LENGTH)[None].long()
        )[0]
        if not torch.allclose(hidden, padded_hidden[:, :PROBE_LENGTH], atol=1e-4, rtol=1e-3):
            raise UnsupportedError(
                f"model_type {self.config.model_type!r}: padding behind a text changes what transformers "
                "computes, so texts of different lengths cannot share a batch; pretune does not take it"
            )
        if self.traits.architecture == "encoder":
            return
        changed = body(input_ids=changed_text, attention_mask=torch.ones_like(changed_text))[0]
        if not torch.allclose(hidden[:, :-1], changed[:, :-1], atol=1e-4, rtol=1e-3):
            raise UnsupportedError(
                f"model_type {self.config.model_type!r}: its places see later tokens, so it predicts no next "
                "token as pretune trains it"
            )


def _check_parameters(model_type: str, network: Any, parameters: set[nn.Parameter]) -> None:
    """See that all that a network knows are parameters under names of ours, which are trained, kept and read.

    Raises:
        UnsupportedError: it keeps something else.
    """
    by_name = dict(network.named_parameters(remove_duplicate=False))
    stray = [name for name, parameter in by_name.items() if parameter not in parameters]
    unknown = sorted([*stray, *(network.state_dict().keys() - by_name.keys())])
    if unknown:
        raise UnsupportedError(
            f"model_type {model_type!r}: keeps {unknown[0]}, which has no place in pretune's network; "
            "pretune does not take it"
        )
