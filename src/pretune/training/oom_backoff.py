"""Out of memory: fewer rows at once, by a choice that the run keeps.

A micro-batch changes memory and speed, not what is learnt: where a step does not fit, it is begun anew with
half as many rows at once. What fits stands in the plan under the machine that it was found on, with the step
from which it holds, so that a resume cuts each step as it was cut. Evaluation has a choice of its own.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import torch

from pretune.errors import TrainingError
from pretune.runtime import device
from pretune.runtime.run_folder import Run

Result = TypeVar("Result")
_OOM_MESSAGES = (
    "not enough memory",
    "can't allocate memory",
    "out of memory",
    "bad_alloc",
    "could not create a primitive",  # oneDNN's, where a matrix product cannot have its scratch space
)
"""What a RuntimeError of torch says where memory ran out on a CPU. oneDNN's words have other causes, too:
such an error comes at one row as well, and is said then."""
OOM_ADVICE = "shorten max_length, or take a smaller model (see `pretune plan`)"


class OOMBackoff:
    """How many rows at once fit one kind of work (``training`` or ``evaluation``) of a run."""

    def __init__(
        self, run: Run, phase: str, max_rows: int, say: Callable[[str], None], *, single_process: bool = True
    ) -> None:
        """``max_rows``: as many as are tried first. ``single_process``: False where ranks wait for each
        other within a step, so that one of them cannot begin it anew by itself.
        """
        self.run, self.phase, self.max_rows, self.say, self.single_process = (
            run,
            phase,
            max_rows,
            say,
            single_process,
        )
        self._limits: list[tuple[int, int]] = []
        self._load_limits()

    def rows(self, step: int) -> int:
        """Rows at once in ``step``."""
        return min([self.max_rows, *(rows for start, rows in self._limits if start <= step)])

    def run_with_backoff(
        self, step: int, attempt: Callable[[int], Result], clean_up: Callable[[], None] | None = None
    ) -> Result:
        """What ``attempt(rows)`` gives, with as many rows at once as fit.

        Args:
            clean_up: forgets what a failed attempt left behind, such as gradients.

        Raises:
            TrainingError: a single row does not fit.
        """
        while True:
            try:
                return attempt(self.rows(step))
            except (MemoryError, RuntimeError) as error:
                if not is_out_of_memory(error):
                    raise
                reason = first_line(error)
            if not self.single_process:
                raise TrainingError(
                    f"step {step}: {self.rows(step)} rows at once do not fit into the memory of a rank in "
                    f"{self.phase} ({reason}); set training.micro_batch lower, or train with fewer ranks"
                )
            # Only here: the traceback of an error that is being handled holds on to all that was computed.
            if clean_up is not None:
                clean_up()
            _free_memory()
            self._halve(step, reason)

    def _halve(self, step: int, reason: str) -> None:
        rows = self.rows(step)
        if rows <= 1:
            raise TrainingError(
                f"step {step}: one row does not fit into memory in {self.phase} ({reason}); {OOM_ADVICE}"
            )
        self._limits.append((step, rows // 2))
        plan = self.run.read_plan()
        plan.setdefault("micro_batch_limits", {}).setdefault(device.describe(), {})[self.phase] = self._limits
        self.run.write_plan(plan)
        self.say(
            f"step {step}: out of memory with {rows} rows at once in {self.phase}; going on with {rows // 2}"
        )

    def _load_limits(self) -> None:
        stored: dict[str, Any] = self.run.read_plan().get("micro_batch_limits", {}).get(device.describe(), {})
        self._limits = [(int(step), int(rows)) for step, rows in stored.get(self.phase, ())]


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory ran out: Python's, numpy's, a device's, or torch's on a CPU."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and any(message in str(error).lower() for message in _OOM_MESSAGES)


@contextmanager
def explain_out_of_memory(activity: str) -> Iterator[None]:
    """Around what cannot be done in smaller parts: memory that runs out there is a clear error."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        raise TrainingError(
            f"{activity}: out of memory ({first_line(error)}); take a smaller model"
        ) from None


def first_line(error: BaseException) -> str:
    """What an error says, without the stack that torch adds."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def _free_memory() -> None:
    gc.collect()
    device.release_memory()
