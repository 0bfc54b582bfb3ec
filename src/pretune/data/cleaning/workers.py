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
from pretune.data.cleaning.cleaner import CleanedBatch, Cleaner, CleanerResources, RawDocument, clean_batch
from pretune.data.cleaning.settings import CleaningSettings
from pretune.errors import DataError

BATCH_BYTES = 1 << 20
BATCH_DOCUMENTS = 4096
_PREFETCH_BATCHES = 2
"""Batches that wait for each process; more would only fill memory."""

DocumentBatch = Sequence[RawDocument]
Result = TypeVar("Result")
_cleaner: Cleaner | None = None
"""Of this process, where it is a worker."""


def iter_batches(documents: Iterable[tuple[RawDocument, int]]) -> Iterator[list[tuple[RawDocument, int]]]:
    """Drafts with their sizes in batches of about a megabyte: where one ends depends on the drafts alone."""
    batch: list[tuple[RawDocument, int]] = []
    total = 0
    for draft, size in documents:
        batch.append((draft, size))
        total += size
        if total >= BATCH_BYTES or len(batch) >= BATCH_DOCUMENTS:
            yield batch
            batch, total = [], 0
    if batch:
        yield batch


class CleaningPool:
    """Processes that clean, or this one where there is to be one; a context manager."""

    def __init__(self, settings: CleaningSettings, resources: CleanerResources, processes: int) -> None:
        self._cleaner = Cleaner(settings, resources)
        self._max_pending = processes * _PREFETCH_BATCHES
        self._pool: ProcessPoolExecutor | None = None
        if processes > 1:
            self._pool = ProcessPoolExecutor(
                processes,
                mp_context=multiprocessing.get_context("spawn"),  # a fork would copy the parent's threads
                initializer=_init_worker,
                initargs=(settings, resources),
            )

    def __enter__(self) -> CleaningPool:
        return self

    def __exit__(
        self, error_type: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)

    def clean(
        self, batches: Iterable[list[tuple[RawDocument, int]]]
    ) -> Iterator[tuple[list[tuple[RawDocument, int]], CleanedBatch]]:
        """Each batch with what became of it, in order."""
        if self._pool is None:
            return ((batch, clean_batch(self._cleaner, _without_sizes(batch))) for batch in batches)
        return self._map_batches(batches, _clean_in_worker)

    def hash_lines(self, batches: Iterable[list[tuple[RawDocument, int]]]) -> Iterator[list[Hashes]]:
        """The hashes of the lines of each document, a batch after the other."""
        if self._pool is None:
            return (_hash_lines(_without_sizes(batch)) for batch in batches)
        return (answer for _, answer in self._map_batches(batches, _hash_lines))

    def _map_batches(
        self, batches: Iterable[list[tuple[RawDocument, int]]], work: Callable[[DocumentBatch], Result]
    ) -> Iterator[tuple[list[tuple[RawDocument, int]], Result]]:
        assert self._pool is not None
        waiting: deque[tuple[list[tuple[RawDocument, int]], Future[Result]]] = deque()
        try:
            for batch in batches:
                waiting.append((batch, self._pool.submit(work, _without_sizes(batch))))
                if len(waiting) > self._max_pending:
                    asked, answer = waiting.popleft()
                    yield asked, answer.result()
            while waiting:
                asked, answer = waiting.popleft()
                yield asked, answer.result()
        except BrokenProcessPool:
            raise DataError(
                "a process that cleans text has died, perhaps for want of memory; try --processes 1"
            ) from None


def _without_sizes(batch: list[tuple[RawDocument, int]]) -> list[RawDocument]:
    return [draft for draft, _ in batch]


def _init_worker(settings: CleaningSettings, resources: CleanerResources) -> None:
    """Prepare this process: the parent alone answers to Ctrl-C, and without it there is nothing to do."""
    global _cleaner
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_exit_with_parent, daemon=True).start()
    _cleaner = Cleaner(settings, resources)


def _exit_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _clean_in_worker(documents: DocumentBatch) -> CleanedBatch:
    assert _cleaner is not None
    return clean_batch(_cleaner, documents)


def _hash_lines(documents: DocumentBatch) -> list[Hashes]:
    return [line_hashes(draft.text) for draft in documents]
