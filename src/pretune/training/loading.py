"""Builds the batches of the next steps while a step is computed."""

from __future__ import annotations

import time
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import Self

from pretune.training.steps import Batches
from pretune.types import Batch


class Prefetched:
    """Batches that are built ahead, in a thread beside the caller's; the same ones as without.

    A step's batches are a function of its number, so that nothing is lost when ahead is thrown away: at a
    stop, or where another step than the next is asked for. One thread builds them all, in order: a store may
    keep state between its reads. To be closed, best by ``with``.
    """

    def __init__(self, batches: Batches, ahead: int) -> None:
        """``ahead``: how many steps are built before they are asked for; 0: none, and there is no thread."""
        self.batches, self.ahead = batches, ahead
        self.steps_per_epoch, self.tokens_per_step = batches.steps_per_epoch, batches.tokens_per_step
        self.fingerprint = batches.fingerprint
        self.waited = 0.0
        """Seconds that the caller has waited for batches."""
        self._coming: deque[tuple[int, Future[list[Batch]]]] = deque()
        self._thread = ThreadPoolExecutor(1, "batches") if ahead else None

    def __call__(self, step: int) -> list[Batch]:
        """The micro-batches of ``step``; an error in building them is raised here."""
        began = time.monotonic()
        try:
            return self.batches(step) if self._thread is None else self._next(self._thread, step)
        finally:
            self.waited += time.monotonic() - began

    def close(self) -> None:
        """Throw away what was built ahead and end the thread, once it has built what it is at."""
        if self._thread is not None:
            self._thread.shutdown(wait=True, cancel_futures=True)
        self._coming.clear()
        self._thread = None  # whoever asks again is served without one

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _next(self, thread: ThreadPoolExecutor, step: int) -> list[Batch]:
        if not self._coming or self._coming[0][0] != step:
            self._forget()
            self._coming.append((step, thread.submit(self.batches, step)))
        _, asked = self._coming.popleft()
        last = self._coming[-1][0] if self._coming else step
        for coming in range(last + 1, step + 1 + self.ahead):
            self._coming.append((coming, thread.submit(self.batches, coming)))
        return asked.result()

    def _forget(self) -> None:
        for _, coming in self._coming:
            coming.cancel()
        self._coming.clear()
