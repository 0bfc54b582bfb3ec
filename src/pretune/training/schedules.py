"""Learning-rate schedules: pure functions of the step.

``factor(s, T)`` with W steps of warm-up is what transformers' schedule of that name gives at s + 1 of T + 1
with W + 1: no step is made at a learning rate of 0, neither the first nor the last.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from pretune.training.settings import ScheduleSettings


def lr_factor(step: float, total: int, settings: ScheduleSettings) -> float:
    """Share of the peak learning rate at ``step`` (0-based) of ``total``: linear warm-up, then the shape.

    After a correction of the length, ``step`` is a place between steps (``budget.StepBudget.schedule_step``).
    """
    warmup = settings.warmup if settings.warmup >= 1 else settings.warmup * total
    if step < warmup:
        return (step + 1) / (math.ceil(warmup) + 1)
    return SCHEDULES[settings.name](step, total, warmup, settings)


ScheduleFunction = Callable[[float, int, float, ScheduleSettings], float]


def _progress(step: float, total: int, start: float) -> float:
    return min(1.0, (step - start) / max(1.0, total - start))


def _cosine(step: float, total: int, warmup: float, settings: ScheduleSettings) -> float:
    progress = _progress(step, total, warmup)
    return settings.final_factor + (1 - settings.final_factor) * 0.5 * (1 + math.cos(math.pi * progress))


def _linear(step: float, total: int, warmup: float, settings: ScheduleSettings) -> float:
    return settings.final_factor + (1 - settings.final_factor) * (1 - _progress(step, total, warmup))


def _wsd(step: float, total: int, warmup: float, settings: ScheduleSettings) -> float:
    start = max(warmup, total - settings.decay * total)
    progress = _progress(step, total, start) if step > start else 0.0
    decayed = math.sqrt(progress) if settings.decay_shape == "1-sqrt" else progress
    return settings.final_factor + (1 - settings.final_factor) * (1 - decayed)


def _inverse_sqrt(step: float, total: int, warmup: float, settings: ScheduleSettings) -> float:
    return math.sqrt((math.ceil(warmup) + 1) / (step + 1))


def _constant(step: float, total: int, warmup: float, settings: ScheduleSettings) -> float:
    return 1.0


SCHEDULES: dict[str, ScheduleFunction] = {
    "cosine": _cosine,
    "linear": _linear,
    "wsd": _wsd,
    "inverse_sqrt": _inverse_sqrt,
    "constant": _constant,
}
"""By the name in the settings; each from the end of the warm-up on."""
