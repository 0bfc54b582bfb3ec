"""A network whose logits are no numbers says nothing, and must not look as if it did."""

from __future__ import annotations

from torch import Tensor

from pretune.errors import NonFiniteError


def check_finite(logits: Tensor) -> Tensor:
    """Logits (..., C), each row of which is a distribution: a class of probability 0 (-inf) is allowed.

    Raises:
        NonFiniteError: a row holds NaN or infinity, or nothing but -inf.
    """
    if not bool(logits.amax(-1).isfinite().all()):  # amax hands NaN on
        raise NonFiniteError("its logits are NaN or infinite")
    return logits
