"""Clean raw text into a folder that pretraining reads.

Workers take the steps that look at one text alone; this process reads, finds duplicates and writes, all in
the order of the input. So the result does not depend on how many workers there are. Whatever is finished
survives a stop: the same call goes on after the last whole part.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError

from pretune.arguments import FilePath, PositiveInt, check_arguments
from pretune.data.cleaning.boilerplate import LineCounts
from pretune.data.cleaning.cleaner import (
    CleanedBatch,
    CleanerResources,
    DroppedDocument,
    KeptDocument,
    RawDocument,
    read_word_list,
)
from pretune.data.cleaning.contamination import ContaminationIndex
from pretune.data.cleaning.evaluation_files import iter_evaluation_texts
from pretune.data.cleaning.exact_duplicates import ExactDuplicates
from pretune.data.cleaning.near_duplicates import NearDuplicates
from pretune.data.cleaning.settings import CleaningSettings
from pretune.data.cleaning.stats import CleaningStats
from pretune.data.cleaning.workers import CleaningPool, iter_batches
from pretune.data.sources.records import RecordLog, list_files, read_records
from pretune.data.sources.text_shards import (
    MANIFEST,
    PROGRESS_FOLDER,
    Arrays,
    Shard,
    ShardProgress,
    ShardWriter,
    read_arrays,
    read_progress,
    write_arrays,
    write_progress,
)
from pretune.errors import ConfigError, DataError, Interrupted, PretuneError
from pretune.report import data_page
from pretune.runtime import lock, state_file
from pretune.runtime.atomic_files import write_json
from pretune.runtime.progress import NullReporter, ProgressBar, Reporter, track_progress
from pretune.runtime.run_folder import remove_files
from pretune.runtime.signals import StopRequest
from pretune.workflows.data.folder import (
    RESUME_FILES,
    PrepareSettings,
    default_folder,
    load_finished,
    open_partial,
    package_versions,
    remove_partial,
    resolve,
)

_RESOURCES_FILE = f"{PROGRESS_FOLDER}/resources.safetensors"


@dataclass(frozen=True)
class CleanedText:
    """What a preparation leaves behind."""

    folder: Path
    summary: Mapping[str, Any]

    @property
    def text(self) -> Path:
        """The folder of the parts."""
        return self.folder / "text"

    @property
    def report(self) -> Path:
        """The page that shows what was removed and why."""
        return self.folder / "report.html"


@check_arguments
def prepare_data(
    settings: PrepareSettings | Mapping[str, Any] | None = None,
    *,
    sources: FilePath | Sequence[FilePath] | None = None,
    cleaning: Mapping[str, Any] | None = None,
    out: FilePath | None = None,
    processes: PositiveInt = 1,
    reporter: Reporter | None = None,
) -> CleanedText:
    """Clean text into ``out``; the same call goes on where a stopped one ended.

    ``settings`` takes all of :class:`PrepareSettings`, of which ``cleaning`` are those of
    :class:`~pretune.data.cleaning.settings.CleaningSettings`. More than one process wants a main module that
    can be imported (``if __name__ == "__main__":``), as everywhere in Python.

    Raises:
        ConfigError: a setting that pretune does not take, a folder of other settings or with other files, or
            another process prepares text there.
        DataError: text that cannot be used.
        Interrupted: a signal came; the finished parts are kept.
    """
    named = [sources] if isinstance(sources, str | Path) else sources
    given = {"sources": None if named is None else [str(s) for s in named], "cleaning": cleaning}
    resolved = resolve(settings, {key: value for key, value in given.items() if value is not None})
    reporter = reporter or NullReporter()
    folder = Path(out) if out else default_folder(resolved)
    request = {
        "settings": resolved.model_dump(mode="json"),
        "sources": list_files(resolved.sources),
        "versions": package_versions(),
    }
    with lock.acquire(lock.lock_path(folder), folder, ConfigError):
        summary = load_finished(folder, request)
        if summary is not None:
            remove_files(folder, RESUME_FILES)
            reporter.say(f"{folder}: this text is prepared")
            return CleanedText(folder, summary)
        return CleanedText(folder, _run_cleaning(resolved, folder, request, processes, reporter))


def _run_cleaning(
    settings: PrepareSettings, folder: Path, request: Mapping[str, Any], processes: int, reporter: Reporter
) -> dict[str, Any]:
    partial = open_partial(folder, request, reporter)
    try:
        return _CleaningRun(settings, partial, processes, reporter).run(request, folder)
    except Interrupted:
        raise
    except PretuneError:
        if not (partial / "text").exists():  # nothing that would be of use to another try
            remove_partial(partial)
        raise


class _CleaningRun:
    """One pass over the sources, or two where boilerplate is looked for first."""

    def __init__(self, settings: PrepareSettings, folder: Path, processes: int, reporter: Reporter) -> None:
        self._settings, self._folder, self._reporter = settings, folder, reporter
        self._processes = processes
        self._log = RecordLog()
        self._stats = CleaningStats()
        self._exact = ExactDuplicates()
        self._near = NearDuplicates(settings.cleaning.near_duplicate_threshold)
        self._shards: list[Shard] = []
        self._num_records = 0
        self._new_hashes: list[int] = []  # hashes since the last part
        self._writer: ShardWriter | None = None

    def run(self, request: Mapping[str, Any], folder: Path) -> dict[str, Any]:
        """Write everything, and give the folder its name."""
        began = time.monotonic()
        try:
            with StopRequest() as stop:
                knowledge = self._load_resources(stop)
                self._resume()
                self._write_shards(knowledge, stop)
                self._log.raise_if_too_many_bad()
                if self._log.has_notes:
                    self._reporter.say(f"  {self._log.summary()}")
                return self._write_summary(request, folder, time.monotonic() - began)
        except (OSError, SafetensorError) as error:
            raise DataError(f"{self._folder}: the prepared text could not be written: {error}") from error
        finally:
            if self._writer is not None:
                self._writer.close()

    def _load_resources(self, stop: StopRequest) -> CleanerResources:
        """What the steps must know: found once, and kept for a restart."""
        cleaning = self._settings.cleaning
        path = self._folder / _RESOURCES_FILE
        if not path.exists():
            against = iter_evaluation_texts(cleaning.decontaminate, self._settings.encoding)
            runs = ContaminationIndex.from_texts(against).hashes if cleaning.decontaminate else None
            recurring = (
                self._find_boilerplate(cleaning, stop) if cleaning.boilerplate_min_documents else frozenset()
            )
            lines = np.sort(np.fromiter(recurring, np.uint64, len(recurring)))
            found = {"recurring": lines, "evaluations": np.zeros(0, np.uint64) if runs is None else runs}
            write_arrays(path, found)
        there = read_arrays(path)
        return CleanerResources(
            frozenset(there["recurring"].tolist()),
            there["evaluations"] if cleaning.decontaminate else None,
            read_word_list(cleaning.bad_words),
        )

    def _find_boilerplate(self, cleaning: CleaningSettings, stop: StopRequest) -> frozenset[int]:
        """Hashes of the lines that are boilerplate: a first pass over the sources."""
        counts, log = LineCounts(), RecordLog()
        began = time.process_time()
        with (
            CleaningPool(cleaning, CleanerResources(), self._processes) as workers,
            self._start_work("lines", log) as work,
        ):
            for answer in workers.hash_lines(iter_batches(_iter_drafts(self._settings, log))):
                counts.add(answer)
                _update_progress(work, log)
                _raise_if_stopped(stop)
        self._stats.add_seconds("boilerplate", time.process_time() - began)
        return counts.frequent_lines(cleaning.boilerplate_min_documents or 2)

    def _resume(self) -> None:
        """Take up what finished parts left."""
        near = []
        for note, memory in read_progress(self._folder, self._reporter.say):
            self._shards.append(note.shard)
            self._num_records, self._stats = note.records, CleaningStats.from_dict(note.stats)
            self._exact.add_hashes(memory["exact"])
            near.append(memory["near"])
        if self._shards:
            self._near.restore(np.concatenate(near))
            self._reporter.say(f"  going on after {len(self._shards):,} finished parts")

    def _write_shards(self, resources: CleanerResources, stop: StopRequest) -> None:
        """Clean, find duplicates and write, part after part."""
        drafts = _iter_drafts(self._settings, self._log)
        with (
            CleaningPool(self._settings.cleaning, resources, self._processes) as workers,
            self._start_work("clean", self._log) as work,
        ):
            for _ in itertools.islice(drafts, self._num_records):
                pass
            remembered = len(self._near)
            for batch, cleaned in workers.clean(_time_batches(iter_batches(drafts), self._stats)):
                self._write_batch(batch, cleaned)
                if self._writer is not None and self._writer.bytes >= self._settings.shard_megabytes * 1e6:
                    remembered = self._finish_shard(remembered)
                _update_progress(work, self._log, f"{self._stats.documents:,} documents")
                _raise_if_stopped(stop)
            if self._writer is not None or not self._shards:
                self._finish_shard(remembered)

    def _write_batch(self, batch: list[tuple[RawDocument, int]], cleaned: CleanedBatch) -> None:
        """Write what stays of a batch, and count the rest."""
        self._num_records += len(batch)
        for stage, seconds in cleaned.seconds.items():
            self._stats.add_seconds(stage, seconds)
        for tag, count in cleaned.redacted.items():
            self._stats.redactions[tag] = self._stats.redactions.get(tag, 0) + count
        duplicate_reasons = self._duplicate_reasons(cleaned)
        began = time.process_time()
        for (draft, size), item in zip(batch, cleaned.items, strict=True):
            self._stats.count_input(draft, size)
            outcome = item
            if isinstance(item, KeptDocument) and (reason := next(duplicate_reasons)):
                outcome = DroppedDocument(reason, "", item.language, item.preview)
            if isinstance(outcome, DroppedDocument):
                self._stats.count_dropped(draft, outcome, size)
                continue
            if self._writer is None:
                self._writer = ShardWriter(self._folder, len(self._shards))
            self._writer.write(outcome.line, outcome.size)
            self._stats.count_kept(draft, outcome)
        self._stats.add_seconds("write", time.process_time() - began)

    def _duplicate_reasons(self, cleaned: CleanedBatch) -> Iterator[str]:
        """For each text that the steps kept, why it goes after all, or nothing."""
        kept = [item for item in cleaned.items if isinstance(item, KeptDocument)]
        if self._settings.cleaning.deduplicate == "off":
            return iter([""] * len(kept))
        began = time.process_time()
        exact = [self._exact.is_duplicate_hash(item.hash) for item in kept]
        self._new_hashes += [item.hash for item, seen in zip(kept, exact, strict=True) if not seen]
        reasons = ["exact_duplicate" if seen else "" for seen in exact]
        looked_up = time.process_time()
        if cleaned.signatures is not None:
            fresh = np.flatnonzero(~np.array(exact, bool))
            near = self._near.find_duplicates(cleaned.signatures[fresh])
            for number in fresh[np.array(near, bool)].tolist():
                reasons[number] = "near_duplicate"
        self._stats.add_seconds("exact_duplicates", looked_up - began)
        self._stats.add_seconds("near_duplicates", time.process_time() - looked_up)
        return iter(reasons)

    def _finish_shard(self, num_signatures: int) -> int:
        """End the part that is being written, and note how far the work has come."""
        writer = self._writer or ShardWriter(self._folder, len(self._shards))
        shard = writer.finish()
        memory: Arrays = {
            "exact": np.array(self._new_hashes, np.uint64),
            "near": self._near.signatures_since(num_signatures),
        }
        write_progress(
            self._folder,
            len(self._shards),
            ShardProgress(self._num_records, shard, self._stats.as_dict()),
            memory,
        )
        self._shards.append(shard)
        self._writer, self._new_hashes = None, []
        return len(self._near)

    def _write_summary(self, request: Mapping[str, Any], folder: Path, seconds: float) -> dict[str, Any]:
        stats = self._stats
        if not stats.documents:
            reasons = ", ".join(f"{name} {group['documents']:,}" for name, group in stats.removed.items())
            raise DataError(
                f"{', '.join(self._settings.sources)}: nothing is left of {stats.documents_in:,} documents "
                f"({reasons}); try cleaning.rules=off, or look with `pretune data inspect`"
            )
        counted = stats.as_dict()
        timing = {
            "seconds": round(seconds, 2),
            "stages": counted.pop("seconds"),
            "processes": self._processes,
        }
        reading = {
            "summary": self._log.summary(), "bad": self._log.num_bad, "skipped": self._log.num_skipped,
            "corrupt_files": self._log.corrupt_files, "examples": self._log.examples,
            "notes": self._log.notes, "encodings": dict(self._log.encodings),
        }  # fmt: skip
        summary = {
            key: counted[key] for key in ("documents_in", "bytes_in", "documents", "bytes", "characters")
        }
        report = {"counts": counted, "timing": timing, "reading": reading}
        write_json(self._folder / "report.json", report)
        data_page.write_pages(self._folder, report, self._settings, request["versions"])
        shards = [asdict(shard) for shard in self._shards]
        state_file.write(self._folder / MANIFEST, {**request, "summary": summary, "shards": shards})
        if folder.exists():
            folder.rmdir()  # it was found empty
        self._folder.replace(folder)
        remove_files(folder, RESUME_FILES)
        return summary

    def _start_work(self, name: str, log: RecordLog) -> Any:
        """A stretch of work in megabytes of files."""
        total = sum(size for _, size, _ in list_files(self._settings.sources))
        return track_progress(self._reporter, name, max(1, total >> 20))


def _iter_drafts(settings: PrepareSettings, log: RecordLog) -> Iterator[tuple[RawDocument, int]]:
    """Every text with its size, and which of the sources it is from."""
    known: dict[str, str] = {}
    sources = settings.sources
    for record in read_records(sources, columns=("text",), read_options=settings.reading, log=log):
        if record.path not in known:
            if len(known) > 10_000:
                known.clear()
            known[record.path] = next((s for s in sources if record.path.startswith(s)), record.path)
        text = str(record.fields["text"])
        yield RawDocument(text, record.location, known[record.path]), len(text.encode("utf-8", "replace"))


def _time_batches(
    stream: Iterator[list[tuple[RawDocument, int]]], stats: CleaningStats
) -> Iterator[list[tuple[RawDocument, int]]]:
    """The batches, with the time that reading them took."""
    while True:
        began = time.process_time()
        batch = next(stream, None)
        stats.add_seconds("read", time.process_time() - began)
        if batch is None:
            return
        yield batch


def _update_progress(work: ProgressBar, log: RecordLog, detail: str = "") -> None:
    work.update(log.bytes_read >> 20, detail)


def _raise_if_stopped(stop: StopRequest) -> None:
    if stop.should_stop:
        raise Interrupted("stopped; the finished parts are kept, run the same command to go on")
