"""A model that computes NaN or infinity: it is named, with the weights that are to blame."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from torch import nn

from pretune.errors import CheckpointError, NonFiniteError


@contextmanager
def explain_non_finite(path: Path | None, network: nn.Module) -> Iterator[None]:
    """Within, a network whose logits are no numbers is an error that names its folder.

    Raises:
        CheckpointError: its logits are NaN or infinite.
    """
    try:
        yield
    except NonFiniteError as error:
        where = "this model" if path is None else str(path)
        bad = [name for name, weight in network.named_parameters() if not bool(weight.isfinite().all())]
        cause = f"{bad[0]} holds NaN or infinity" if bad else "its weights are too large"
        raise CheckpointError(
            f"{where}: the model is broken: {error} ({cause}), so it has no answer. A training that diverged "
            "leaves such weights, and so does a conversion to half precision: take an earlier checkpoint, or "
            "fetch or save the model again"
        ) from None
