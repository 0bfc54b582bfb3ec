"""Learning-rate schedules: pure functions of the step."""

from __future__ import annotations

import math

from pretune.training.settings import ScheduleSettings


def factor(step: float, total: int, settings: ScheduleSettings) -> float:
    """Share of the peak learning rate at ``step`` (0-based) of ``total``: linear warm-up, then cosine.

    After a correction of the length, ``step`` is a place between steps (``budget.Course.place``).
    """
    warmup = settings.warmup if settings.warmup >= 1 else settings.warmup * total
    if step < warmup:
        return (step + 1) / (math.ceil(warmup) + 1)
    progress = min(1.0, (step - warmup) / max(1.0, total - warmup))
    return settings.final + (1 - settings.final) * 0.5 * (1 + math.cos(math.pi * progress))
