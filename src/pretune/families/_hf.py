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
from pretune.families._hf_config import Config, made_of, padding_behind_positions, tiny
from pretune.families._hf_stock import Names, classes_of, default, parts, renamings, stock
from pretune.nn.cache import Cache
from pretune.types import IGNORED, Batch, Layout, Outputs, Traits

PREFIX = "hf:"
"""Such a family is named by it: ``hf:electra``."""
LOGITS = 1 << 27
"""As many are held at once, 512 MiB of them in fp32 and a few copies, however many rows a batch has."""
SAMPLE = 6
"""Tokens of the text on which a network is tried."""


@once
def of(model_type: str) -> ModuleType:
    """The family that wraps the stock classes of a ``model_type`` of config.json.

    Raises:
        UnsupportedError: transformers is not installed, does not have it, or it is of a kind that the
            wrapper does not take.
    """
    classes = classes_of(model_type)
    renamings(model_type)  # refuses what cannot be read
    encoder = "masked_lm" in classes
    exports = {
        "TRAITS": Traits(
            kind="encoder" if encoder else "decoder",
            heads=tuple(classes),
            sentence="first" if encoder else "last",
            packing=False,
            cache=not encoder,
            segments=getattr(default(model_type), "type_vocab_size", 0) > 1,
        ),
        "HF_TYPES": {model_type: classes},
        "WEIGHTS": [Ignore("{body}.embeddings.position_ids"), Names(model_type)],
        "Config": pydantic.create_model("Config", __base__=Config, model_type=(str, model_type)),
        "Network": Network,
    }
    family = ModuleType(f"{__name__.rpartition('.')[0]}.{PREFIX}{model_type}")
    family.__dict__.update(exports, tiny_config=lambda: tiny(family.Config))
    return family


class Part(nn.Module):
    """Some modules and parameters of a stock network under the names that they have there."""

    def __init__(self, whole: nn.Module, names: frozenset[str]) -> None:
        super().__init__()
        for name, module in whole.named_children():
            if name in names:
                self.add_module(name, module)
        for name, parameter in whole.named_parameters(recurse=False):
            if name in names:
                self.register_parameter(name, parameter)


class Network(nn.Module):
    """A stock network with one head, or none, called as ours are."""

    def __init__(self, config: Config, heads: Sequence[str] = ("masked_lm",), num_labels: int = 0) -> None:
        super().__init__()
        self.config = config
        self.traits: Traits = of(config.model_type).TRAITS
        if len(heads) > 1:
            raise UnsupportedError(
                f"{'+'.join(heads)}: a network of transformers has one head at a time; name one of them"
            )
        for name in heads:
            if name not in self.traits.heads:
                has = ", ".join(self.traits.heads)
                raise UnsupportedError(f"{config.model_type} has no head {name!r}; it has: {has}")
            if name == "classification" and num_labels < 1:
                raise ConfigError("num_labels: a classification head needs at least one")
        self.num_labels = num_labels
        behind = padding_behind_positions(config.model_type, config.pad_token_id)
        self.pad = config.pad_token_id if behind is None else behind
        """What marks padding in the stock network; None: the mask alone does."""
        known, whole = parts(config.model_type), self._new(heads)
        # Not as a module of its own: each parameter stands below under the name that `Names` gives it.
        self._whole: tuple[Any] = (whole,)
        self.body = Part(whole.base_model, known.body)
        self.heads = nn.ModuleDict()
        for name in heads:
            self.heads[name] = Part(whole, known.top[name])
            if known.own[name]:
                self.heads[name].add_module("body", Part(whole.base_model, known.own[name]))
        _check_state(config.model_type, whole, set(self.parameters()) if heads else set(whole.parameters()))
        if not next(whole.parameters()).is_meta:
            self._try()
        whole.train()  # as any module that was just made

    @property
    def stock(self) -> Any:
        """The network as transformers has it, with the same parameters."""
        return self._whole[0]

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
            drawn = self._new(tuple(self.heads))
        with torch.no_grad():
            for ours, theirs in zip(self.stock.parameters(), drawn.parameters(), strict=True):
                ours.copy_(theirs)

    def _new(self, heads: Sequence[str]) -> Any:
        """A stock network with values drawn by torch's generator."""
        made = made_of(self.config.model_dump())
        made.use_cache = False
        if self.num_labels:
            made.num_labels = self.num_labels
        classes = classes_of(self.config.model_type)
        name = classes[heads[0]] if heads else next(iter(classes.values()))
        return getattr(stock(), name)(made).eval()

    def forward(
        self,
        batch: Batch,
        heads: Sequence[str] = (),
        targets: Mapping[str, Tensor] | None = None,
        cache: Cache | None = None,
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
        read, places = (batch, None) if cache is None else self._recalled(batch, cache)
        inputs = self._inputs(read)
        if not heads:
            hidden: Tensor = self.stock.base_model(**inputs)[0]  # (B, S, D)
            new = hidden if places is None else hidden.flatten(0, 1)[places].view(*batch.tokens.shape, -1)
            return Outputs(hidden=new, cache=cache)
        name, asked = heads[0], batch.places.get(heads[0])
        if name == "classification":
            logits: Tensor = self.stock(**inputs).logits  # (B, C)
            rows = None if asked is None else asked // batch.tokens.shape[1]
            return Outputs({name: logits if rows is None else logits.index_select(0, rows)}, cache=cache)
        if places is not None:
            asked = places if asked is None else places[asked]
        if targets is None or name not in targets:
            return Outputs({name: self._logits(inputs, asked)}, cache=cache)
        smoothing = batch.smoothing.get(name, 0.0)
        return Outputs(sums={name: self._loss(inputs, asked, targets[name], smoothing)}, cache=cache)

    def _logits(self, inputs: Mapping[str, Tensor], asked: Tensor | None) -> Tensor:
        """(N, V) at the places of the flattened grid; None: at all."""
        logits: Tensor = self.stock(**inputs).logits.flatten(0, 1)  # (B * S, V)
        return logits if asked is None else logits.index_select(0, asked)

    def _loss(
        self, inputs: Mapping[str, Tensor], asked: Tensor | None, targets: Tensor, smoothing: float
    ) -> Tensor:
        """Summed cross-entropy, (), as many rows at a time as fit; training computes those parts twice."""

        def summed(rows: slice) -> Tensor:
            part = {key: value[rows] for key, value in inputs.items()}
            first, size = rows.start * width, part["input_ids"].numel()
            inside = (
                slice(first, first + size) if asked is None else (asked >= first) & (asked < first + size)
            )
            logits = self._logits(part, None if asked is None else asked[inside] - first)
            return F.cross_entropy(
                logits.float(),
                targets[inside],
                reduction="sum",
                ignore_index=IGNORED,
                label_smoothing=smoothing,
            )

        count, width = inputs["input_ids"].shape
        most = max(1, LOGITS // (width * self.config.vocab_size))
        if most >= count:
            return summed(slice(0, count))
        groups = [slice(k, k + most) for k in range(0, count, most)]
        if not torch.is_grad_enabled():
            return torch.stack([summed(rows) for rows in groups]).sum()
        again = [checkpoint(summed, rows, use_reentrant=False) for rows in groups]
        return torch.stack(again).sum()

    def _recalled(self, batch: Batch, cache: Cache) -> tuple[Batch, Tensor]:
        """All tokens up to now as a batch, and where those of ``batch`` lie in its grid, (B * T,)."""
        if not self.traits.cache:
            raise UnsupportedError(
                f"{self.config.model_type} sees both sides of every place: it has no cache"
            )
        rows, width = batch.tokens.shape
        cache.open(batch.layout, width)
        column = batch.tokens[:, None, :, None]  # (B, 1, T, 1)
        held, _ = cache.extend(0, column, column)
        assert cache.lengths is not None, "open has set them"
        size = int(cache.lengths.max())
        tokens = held[:, 0, :size, 0]  # (B, S)
        before = torch.zeros_like(cache.lengths) if batch.layout.cached is None else batch.layout.cached
        inside = before[:, None] + torch.arange(width, device=tokens.device)  # (B, T)
        starts = torch.arange(rows, device=tokens.device)[:, None] * size
        places = starts + inside.clamp(max=size - 1)  # padding behind the longest row reads its last place
        return Batch(tokens, Layout(cache.lengths)), places.flatten()

    def _inputs(self, batch: Batch) -> dict[str, Tensor]:
        """The batch as transformers takes it."""
        layout, width, model_type = batch.layout, batch.tokens.shape[1], self.config.model_type
        if layout.documents is not None or layout.positions is not None:
            raise UnsupportedError(f"{model_type} is read by transformers: one text a row, none beside it")
        if layout.prefix is not None or layout.order is not None:
            raise UnsupportedError(f"{model_type} is read by transformers: no prefix and no permuted order")
        if width > self.config.max_position_embeddings:
            most = self.config.max_position_embeddings
            raise UnsupportedError(f"a row of {width} tokens; this model has {most} positions (cut the text)")
        real = torch.arange(width, device=batch.tokens.device) < layout.lengths[:, None]  # (B, T)
        tokens = self._padded(batch.tokens, real)
        inputs = {"input_ids": tokens, "attention_mask": real.long()}
        if layout.segments is not None and getattr(self.stock.config, "type_vocab_size", 0) > 1:
            inputs["token_type_ids"] = layout.segments
        return inputs

    def _padded(self, tokens: Tensor, real: Tensor) -> Tensor:
        """The grid with the padding that the stock network looks for: it may find a text's end by it."""
        pad = self.pad
        if self.traits.kind == "decoder" and "classification" not in self.heads:
            return tokens  # the mask alone decides
        if pad is None:
            pad = int(tokens[~real][0]) if not bool(real.all()) else -1  # -1: no token, every row is full
            self.stock.config.pad_token_id = pad
        if bool(((tokens == pad) & real).any()):
            raise UnsupportedError(
                f"a text holds the padding token (id {pad}), by which {self.config.model_type} finds where a "
                "text ends; give the tokenizer a pad_token of its own, or take that token out of the text"
            )
        return tokens.masked_fill(~real, pad) if pad >= 0 else tokens

    @torch.no_grad()
    def _try(self) -> None:
        """See that it does what its traits say: padding changes nothing, and a decoder sees no later token.

        Raises:
            UnsupportedError: it does not.
        """
        pad = self.pad
        ids = [id for id in range(4, self.config.vocab_size) if id != pad][:SAMPLE]
        if len(ids) < SAMPLE or self.config.max_position_embeddings <= SAMPLE + 3:
            return  # too small to try anything on
        text = torch.tensor([ids])  # (1, T)
        wide = torch.cat([text, torch.full((1, 3), pad or 0)], 1)
        other = torch.cat([text[:, :-1], text[:, :1]], 1)
        body = self.stock.base_model
        alone = body(input_ids=text, attention_mask=torch.ones_like(text))[0]
        beside = body(input_ids=wide, attention_mask=(torch.arange(SAMPLE + 3) < SAMPLE)[None].long())[0]
        if not torch.allclose(alone, beside[:, :SAMPLE], atol=1e-4, rtol=1e-3):
            raise UnsupportedError(
                f"model_type {self.config.model_type!r}: padding behind a text changes what transformers "
                "computes, so texts of different lengths cannot share a batch; pretune does not take it"
            )
        if self.traits.kind == "encoder":
            return
        changed = body(input_ids=other, attention_mask=torch.ones_like(other))[0]
        if not torch.allclose(alone[:, :-1], changed[:, :-1], atol=1e-4, rtol=1e-3):
            raise UnsupportedError(
                f"model_type {self.config.model_type!r}: its places see later tokens, so it predicts no next "
                "token as pretune trains it"
            )


def _check_state(model_type: str, whole: Any, held: set[nn.Parameter]) -> None:
    """See that all that a network knows are parameters under names of ours, which are trained, kept and read.

    Raises:
        UnsupportedError: it keeps something else.
    """
    named = dict(whole.named_parameters(remove_duplicate=False))
    stray = [name for name, parameter in named.items() if parameter not in held]
    kept = sorted([*stray, *(whole.state_dict().keys() - named.keys())])
    if kept:
        raise UnsupportedError(
            f"model_type {model_type!r}: keeps {kept[0]}, which has no place in pretune's network; "
            "pretune does not take it"
        )
