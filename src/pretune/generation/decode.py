"""The loop that draws tokens, one after another, keys and values kept in a cache."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import nn

from pretune.generation.sampling import Sampling, draw
from pretune.nn.cache import Cache
from pretune.types import Batch, Layout, Specials

HEAD = "causal_lm"


@torch.inference_mode()
def continuation(
    network: nn.Module,
    prompt: Sequence[int],
    specials: Specials,
    sampling: Sampling,
    generator: torch.Generator | None,
    *,
    max_new_tokens: int,
    max_length: int,
) -> Iterator[int]:
    """Tokens that continue ``prompt``, as they are drawn, until the model ends the text.

    Where the text outgrows ``max_length`` its beginning is forgotten: the later half of what the model
    can read is read anew, so a long text costs one extra pass each half length.
    """
    text = list(prompt)[-max_length:]
    cache = Cache()
    logits = _read(network, text, cache)
    for _ in range(max_new_tokens):
        token = int(draw(logits, sampling, generator))
        if token == specials.end:
            return
        yield token
        text.append(token)
        if len(text) > max_length:
            text = text[-(max_length // 2) :]
            cache = Cache()
            logits = _read(network, text, cache)
        else:
            logits = _read(network, [token], cache)


def _read(network: nn.Module, tokens: Sequence[int], cache: Cache) -> torch.Tensor:
    """Logits of the token after ``tokens``, (1, V)."""
    layout = Layout(torch.tensor([len(tokens)]), cached=cache.lengths)
    last = torch.tensor([len(tokens) - 1])
    batch = Batch(torch.tensor([list(tokens)]), layout, places={HEAD: last})
    logits: torch.Tensor = network(batch, heads=(HEAD,), cache=cache).logits[HEAD]
    return logits
