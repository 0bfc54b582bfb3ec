"""How long to train: steps, tokens, epochs, or minutes of wall-clock time, as one word."""

from __future__ import annotations

import math
import re
import time
from dataclasses import dataclass
from typing import Literal

from pretune.errors import ConfigError

Unit = Literal["seconds", "steps", "tokens", "epochs"]
_PATTERN = re.compile(r"\s*([0-9][0-9_,]*\.?[0-9]*(?:e[0-9]+)?)\s*([kmb]?)\s*([a-z]*)\s*", re.IGNORECASE)
_FACTORS = {"": 1, "k": 1e3, "m": 1e6, "b": 1e9}
_UNITS: dict[str, tuple[Unit, float]] = {
    "s": ("seconds", 1), "sec": ("seconds", 1), "second": ("seconds", 1),
    "min": ("seconds", 60), "minute": ("seconds", 60),
    "h": ("seconds", 3600), "hour": ("seconds", 3600), "day": ("seconds", 86_400),
    "step": ("steps", 1), "token": ("tokens", 1), "epoch": ("epochs", 1),
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Duration:
    """An amount of training; ``seconds`` are wall-clock, from the start of the command."""

    amount: float
    unit: Unit

    def __str__(self) -> str:
        if self.unit == "seconds":
            return f"{self.amount / 60:g} min" if self.amount >= 60 else f"{self.amount:g} s"
        return f"{self.amount:,.0f} {self.unit}" if self.unit != "epochs" else f"{self.amount:g} epochs"

    def seconds_left(self, start_time: float, reserved_seconds: float) -> float | None:
        """Seconds until ``reserved_seconds`` before the end of a time that runs from ``start_time``; None for
        no time.
        """
        if self.unit != "seconds":
            return None
        return start_time + self.amount - reserved_seconds - time.monotonic()

    def to_steps(self, steps_per_epoch: float, tokens_per_step: float) -> int:
        """Number of optimiser steps; not for ``seconds``, which need a measurement.

        ``tokens_per_step`` is the size of a step in tokens, for a length in tokens.
        """
        if self.unit == "steps":
            return max(1, round(self.amount))
        if self.unit == "tokens":
            return max(1, math.ceil(self.amount / tokens_per_step))
        if self.unit == "epochs":
            return max(1, math.ceil(self.amount * steps_per_epoch - 1e-9))
        raise ValueError("the steps of a length in seconds must be measured")


def parse_duration(text: str) -> Duration:
    """Read ``30min``, ``90 s``, ``2h``, ``2000 steps``, ``5M tokens`` or ``3 epochs``.

    Raises:
        ConfigError: anything else.
    """
    match = _PATTERN.fullmatch(str(text))
    if match:
        number, factor, word = match.groups()
        if factor and not word and factor.lower() == "m":
            raise ConfigError(f"budget {text!r}: say '{number}min' or '{number}M tokens'")
        # "3min" is read as 3, "m", "in": the factor belongs to the word
        for unit, scale in ((word, factor), (factor + word, "")):
            name = unit.lower()
            name = name if name in _UNITS else name.removesuffix("s")
            if name in _UNITS:
                canonical_unit, seconds = _UNITS[name]
                amount = float(number.replace(",", "").replace("_", "")) * _FACTORS[scale.lower()] * seconds
                if 0 < amount < math.inf:
                    return Duration(amount, canonical_unit)
    raise ConfigError(
        f"budget {text!r}: give a time, steps, tokens or epochs, such as "
        "30min, 2h, 2000 steps, 5M tokens or 3 epochs"
    )
