"""The first values of a network's parameters."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from torch.overrides import TorchFunctionMode

from pretune.nn.norms import RMSNorm


def init_normal_(network: nn.Module, std: float, generator: torch.Generator | None = None) -> None:
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


_INIT_FUNCTIONS = (
    nn.init.normal_,
    nn.init.kaiming_uniform_,
    nn.init.uniform_,
    nn.init.trunc_normal_,
    torch.Tensor.uniform_,
    torch.Tensor.erfinv_,
)


class _SkipInit(TorchFunctionMode):
    """Leaves out the drawing of values, which on the meta device would import half of torch's compiler."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in _INIT_FUNCTIONS:
            return args[0] if args else kwargs["tensor"]
        return func(*args, **kwargs or {})


@contextmanager
def meta_device() -> Iterator[None]:
    """A network that is made here has shapes and no values: it takes no memory, whatever its sizes."""
    with torch.device("meta"), _SkipInit():
        yield
