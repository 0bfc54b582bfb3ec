"""Work on batches of text in several processes, with the answers in the order of the questions."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from types import TracebackType
from typing import TypeVar

from pretune.data.cleaning.boilerplate import Hashes, line_hashes
from pretune.data.cleaning.cleaner import CleanedBatch, Cleaner, Draft, Knowledge, clean_batch
from pretune.data.cleaning.settings import CleaningSettings
from pretune.errors import DataError

BATCH_BYTES = 1 << 20
BATCH_DOCUMENTS = 4096
_AHEAD = 2
"""Batches that wait for each process; more would only fill memory."""

Batch = Sequence[Draft]
Answer = TypeVar("Answer")
_cleaner: Cleaner | None = None
"""Of this process, where it is a worker."""


def batches(drafts: Iterable[tuple[Draft, int]]) -> Iterator[list[tuple[Draft, int]]]:
    """Drafts with their sizes in batches of about a megabyte: where one ends depends on the drafts alone."""
    batch: list[tuple[Draft, int]] = []
    total = 0
    for draft, size in drafts:
        batch.append((draft, size))
        total += size
        if total >= BATCH_BYTES or len(batch) >= BATCH_DOCUMENTS:
            yield batch
            batch, total = [], 0
    if batch:
        yield batch


class Workers:
    """Processes that clean, or this one where there is to be one; a context manager."""

    def __init__(self, settings: CleaningSettings, knowledge: Knowledge, processes: int) -> None:
        self._cleaner = Cleaner(settings, knowledge)
        self._ahead = processes * _AHEAD
        self._pool: ProcessPoolExecutor | None = None
        if processes > 1:
            self._pool = ProcessPoolExecutor(
                processes,
                mp_context=multiprocessing.get_context("spawn"),  # a fork would copy the parent's threads
                initializer=_begin,
                initargs=(settings, knowledge),
            )

    def __enter__(self) -> Workers:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)

    def cleaned(
        self, given: Iterable[list[tuple[Draft, int]]]
    ) -> Iterator[tuple[list[tuple[Draft, int]], CleanedBatch]]:
        """Each batch with what became of it, in order."""
        if self._pool is None:
            return ((batch, clean_batch(self._cleaner, _drafts(batch))) for batch in given)
        return self._answers(given, _clean)

    def lines(self, given: Iterable[list[tuple[Draft, int]]]) -> Iterator[list[Hashes]]:
        """The hashes of the lines of each document, a batch after the other."""
        if self._pool is None:
            return (_lines(_drafts(batch)) for batch in given)
        return (answer for _, answer in self._answers(given, _lines))

    def _answers(
        self, given: Iterable[list[tuple[Draft, int]]], work: Callable[[Batch], Answer]
    ) -> Iterator[tuple[list[tuple[Draft, int]], Answer]]:
        assert self._pool is not None
        waiting: deque[tuple[list[tuple[Draft, int]], Future[Answer]]] = deque()
        try:
            for batch in given:
                waiting.append((batch, self._pool.submit(work, _drafts(batch))))
                if len(waiting) > self._ahead:
                    asked, answer = waiting.popleft()
                    yield asked, answer.result()
            while waiting:
                asked, answer = waiting.popleft()
                yield asked, answer.result()
        except BrokenProcessPool:
            raise DataError(
                "a process that cleans text has died, perhaps for want of memory; try --processes 1"
            ) from None


def _drafts(batch: list[tuple[Draft, int]]) -> list[Draft]:
    return [draft for draft, _ in batch]


def _begin(settings: CleaningSettings, knowledge: Knowledge) -> None:
    """Prepare this process: the parent alone answers to Ctrl-C, and without it there is nothing to do."""
    global _cleaner
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    _cleaner = Cleaner(settings, knowledge)


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _clean(drafts: Batch) -> CleanedBatch:
    assert _cleaner is not None
    return clean_batch(_cleaner, drafts)


def _lines(drafts: Batch) -> list[Hashes]:
    return [line_hashes(draft.text) for draft in drafts]
