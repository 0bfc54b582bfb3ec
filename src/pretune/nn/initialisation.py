"""The first values of a network's parameters."""

from __future__ import annotations

import torch
from torch import nn

from pretune.nn.norms import RMSNorm


def normal(network: nn.Module, std: float, generator: torch.Generator | None = None) -> None:
    """Matrices and embeddings from N(0, ``std`` ** 2), biases 0, norms 1 (Devlin et al. 2019, as released).

    The same generator state gives the same values; None draws from torch's own.
    """
    for module in network.modules():
        if isinstance(module, nn.Linear | nn.Embedding):
            nn.init.normal_(module.weight, std=std, generator=generator)
        elif isinstance(module, nn.LayerNorm | RMSNorm):
            nn.init.ones_(module.weight)
        if isinstance(module, nn.Linear | nn.LayerNorm) and module.bias is not None:
            nn.init.zeros_(module.bias)
