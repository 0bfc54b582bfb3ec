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
_SIGNS = (
    "not enough memory",
    "can't allocate memory",
    "out of memory",
    "bad_alloc",
    "could not create a primitive",  # oneDNN's, where a matrix product cannot have its scratch space
)
"""What a RuntimeError of torch says where memory ran out on a CPU. oneDNN's words have other causes, too:
such an error comes at one row as well, and is said then."""
SHORTER = "shorten max_length, or take a smaller model (see `pretune plan`)"


class Memory:
    """How many rows at once fit one kind of work (``training`` or ``evaluation``) of a run."""

    def __init__(
        self, run: Run, work: str, rows: int, say: Callable[[str], None], *, alone: bool = True
    ) -> None:
        """``rows``: as many as are tried first. ``alone``: False where ranks wait for each other within a
        step, so that one of them cannot begin it anew by itself.
        """
        self.run, self.work, self.most, self.say, self.alone = run, work, rows, say, alone
        self._found: list[tuple[int, int]] = []
        self._read()

    def rows(self, step: int) -> int:
        """Rows at once in ``step``."""
        return min([self.most, *(rows for start, rows in self._found if start <= step)])

    def fitted(
        self, step: int, attempt: Callable[[int], Result], drop: Callable[[], None] | None = None
    ) -> Result:
        """What ``attempt(rows)`` gives, with as many rows at once as fit.

        Args:
            drop: forgets what a failed attempt left behind, such as gradients.

        Raises:
            TrainingError: a single row does not fit.
        """
        while True:
            try:
                return attempt(self.rows(step))
            except (MemoryError, RuntimeError) as error:
                if not ran_out(error):
                    raise
                said = first_line(error)
            if not self.alone:
                raise TrainingError(
                    f"step {step}: {self.rows(step)} rows at once do not fit into the memory of a rank in "
                    f"{self.work} ({said}); set training.micro_batch lower, or train with fewer ranks"
                )
            # Only here: the traceback of an error that is being handled holds on to all that was computed.
            if drop is not None:
                drop()
            _release()
            self._halve(step, said)

    def _halve(self, step: int, said: str) -> None:
        rows = self.rows(step)
        if rows <= 1:
            raise TrainingError(
                f"step {step}: one row does not fit into memory in {self.work} ({said}); {SHORTER}"
            )
        self._found.append((step, rows // 2))
        plan = self.run.plan()
        plan.setdefault("memory", {}).setdefault(device.describe(), {})[self.work] = self._found
        self.run.write_plan(plan)
        self.say(
            f"step {step}: out of memory with {rows} rows at once in {self.work}; going on with {rows // 2}"
        )

    def _read(self) -> None:
        stored: dict[str, Any] = self.run.plan().get("memory", {}).get(device.describe(), {})
        self._found = [(int(step), int(rows)) for step, rows in stored.get(self.work, ())]


def ran_out(error: BaseException) -> bool:
    """Whether an error says that memory ran out: Python's, numpy's, a device's, or torch's on a CPU."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and any(sign in str(error).lower() for sign in _SIGNS)


@contextmanager
def explained(doing: str) -> Iterator[None]:
    """Around what cannot be done in smaller parts: memory that runs out there is a clear error."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if not ran_out(error):
            raise
        raise TrainingError(f"{doing}: out of memory ({first_line(error)}); take a smaller model") from None


def first_line(error: BaseException) -> str:
    """What an error says, without the stack that torch adds."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def _release() -> None:
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
