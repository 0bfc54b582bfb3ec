"""What every metric does besides its formula: check what it was handed, and sign its score."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import metadata
from typing import Any

from pretune.errors import DataError


def check_aligned(name: str, predictions: Sequence[Any], references: Sequence[Any]) -> None:
    """Refuse lists that do not pair up one to one.

    Raises:
        DataError: the lengths differ, or both are empty.
    """
    if len(predictions) != len(references):
        raise DataError(f"{name}: {len(predictions)} predictions for {len(references)} references")
    if not references:
        raise DataError(f"{name}: nothing to score, there is no reference")


def signature(name: str, n: int, **settings: str | int) -> str:
    """``accuracy|n=1000|bootstrap=2000,seed=0,percentile|pretune=0.1.0``: all that a value depends on."""
    try:
        version = metadata.version("pretune")
    except metadata.PackageNotFoundError:
        version = "unknown"
    fields = {"n": n, **settings, "pretune": version}
    return "|".join([name, *(f"{key}={value}" for key, value in fields.items())])
