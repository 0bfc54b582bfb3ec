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

from pretune.arguments import Count, FilePath, check_arguments
from pretune.data.cleaning.boilerplate import LineCounts
from pretune.data.cleaning.cleaner import CleanedBatch, Draft, Dropped, Kept, Knowledge, read_word_list
from pretune.data.cleaning.contamination import Evaluations
from pretune.data.cleaning.evaluation_files import evaluation_texts
from pretune.data.cleaning.exact_duplicates import ExactDuplicates
from pretune.data.cleaning.near_duplicates import NearDuplicates
from pretune.data.cleaning.settings import CleaningSettings
from pretune.data.cleaning.stats import Tally
from pretune.data.cleaning.workers import Workers, batches
from pretune.data.sources.records import RecordLog, listing, read_records
from pretune.data.sources.text_shards import (
    NOTES,
    PREPARED,
    Memory,
    Note,
    Part,
    PartWriter,
    read_memory,
    read_notes,
    write_memory,
    write_note,
)
from pretune.errors import ConfigError, DataError, Interrupted, PretuneError
from pretune.report import data_page
from pretune.runtime import lock, state_file
from pretune.runtime.atomic_files import write_json
from pretune.runtime.progress import Reporter, Silent, Work, working
from pretune.runtime.run_folder import remove_files
from pretune.runtime.signals import StopRequest
from pretune.workflows.data.folder import (
    NOTE_FILES,
    PrepareSettings,
    clear,
    default_folder,
    finished,
    open_partial,
    resolve,
    versions,
)

_KNOWLEDGE = f"{NOTES}/knowledge.safetensors"


@dataclass(frozen=True)
class PreparedText:
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
    processes: Count = 1,
    reporter: Reporter | None = None,
) -> PreparedText:
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
    reporter = reporter or Silent()
    folder = Path(out) if out else default_folder(resolved)
    asked = {
        "settings": resolved.model_dump(mode="json"),
        "sources": listing(resolved.sources),
        "versions": versions(),
    }
    with lock.held(lock.beside(folder), folder, ConfigError):
        there = finished(folder, asked)
        if there is not None:
            remove_files(folder, NOTE_FILES)
            reporter.say(f"{folder}: this text is prepared")
            return PreparedText(folder, there)
        return PreparedText(folder, _prepared(resolved, folder, asked, processes, reporter))


def _prepared(
    settings: PrepareSettings, folder: Path, asked: Mapping[str, Any], processes: int, reporter: Reporter
) -> dict[str, Any]:
    partial = open_partial(folder, asked, reporter)
    try:
        return _Preparation(settings, partial, processes, reporter).run(asked, folder)
    except Interrupted:
        raise
    except PretuneError:
        if not (partial / "text").exists():  # nothing that would be of use to another try
            clear(partial)
        raise


class _Preparation:
    """One pass over the sources, or two where boilerplate is looked for first."""

    def __init__(self, settings: PrepareSettings, folder: Path, processes: int, reporter: Reporter) -> None:
        self._settings, self._folder, self._reporter = settings, folder, reporter
        self._processes = processes
        self._log = RecordLog()
        self._tally = Tally()
        self._exact = ExactDuplicates()
        self._near = NearDuplicates(settings.cleaning.threshold)
        self._parts: list[Part] = []
        self._records = 0
        self._fresh: list[int] = []  # hashes since the last part
        self._writer: PartWriter | None = None

    def run(self, asked: Mapping[str, Any], folder: Path) -> dict[str, Any]:
        """Write everything, and give the folder its name."""
        began = time.monotonic()
        try:
            with StopRequest() as stop:
                knowledge = self._knowledge(stop)
                self._resume()
                self._write_parts(knowledge, stop)
                self._log.finish()
                if self._log.remarkable:
                    self._reporter.say(f"  {self._log.summary()}")
                return self._finish(asked, folder, time.monotonic() - began)
        except (OSError, SafetensorError) as error:
            raise DataError(f"{self._folder}: the prepared text could not be written: {error}") from error
        finally:
            if self._writer is not None:
                self._writer.close()

    def _knowledge(self, stop: StopRequest) -> Knowledge:
        """What the steps must know: found once, and kept for a restart."""
        cleaning = self._settings.cleaning
        path = self._folder / _KNOWLEDGE
        if not path.exists():
            against = evaluation_texts(cleaning.against, self._settings.encoding)
            runs = Evaluations.of(against).hashes if cleaning.against else None
            recurring = self._recurring(cleaning, stop) if cleaning.boilerplate else frozenset()
            lines = np.sort(np.fromiter(recurring, np.uint64, len(recurring)))
            found = {"recurring": lines, "evaluations": np.zeros(0, np.uint64) if runs is None else runs}
            write_memory(path, found)
        there = read_memory(path)
        return Knowledge(
            frozenset(there["recurring"].tolist()),
            there["evaluations"] if cleaning.against else None,
            read_word_list(cleaning.bad_words),
        )

    def _recurring(self, cleaning: CleaningSettings, stop: StopRequest) -> frozenset[int]:
        """Hashes of the lines that are boilerplate: a first pass over the sources."""
        counts, log = LineCounts(), RecordLog()
        began = time.process_time()
        with Workers(cleaning, Knowledge(), self._processes) as workers, self._work("lines", log) as work:
            for answer in workers.lines(batches(_drafts(self._settings, log))):
                counts.add(answer)
                _advance(work, log)
                _check(stop)
        self._tally.spend("boilerplate", time.process_time() - began)
        return counts.recurring(cleaning.boilerplate or 2)

    def _resume(self) -> None:
        """Take up what finished parts left."""
        near = []
        for note, memory in read_notes(self._folder, self._reporter.say):
            self._parts.append(note.part)
            self._records, self._tally = note.records, Tally.of(note.tally)
            self._exact.remember(memory["exact"])
            near.append(memory["near"])
        if self._parts:
            self._near.restore(np.concatenate(near))
            self._reporter.say(f"  going on after {len(self._parts):,} finished parts")

    def _write_parts(self, knowledge: Knowledge, stop: StopRequest) -> None:
        """Clean, find duplicates and write, part after part."""
        drafts = _drafts(self._settings, self._log)
        with (
            Workers(self._settings.cleaning, knowledge, self._processes) as workers,
            self._work("clean", self._log) as work,
        ):
            for _ in itertools.islice(drafts, self._records):
                pass
            remembered = len(self._near)
            for batch, cleaned in workers.cleaned(_timed(batches(drafts), self._tally)):
                self._take(batch, cleaned)
                if self._writer is not None and self._writer.bytes >= self._settings.part_megabytes * 1e6:
                    remembered = self._finish_part(remembered)
                _advance(work, self._log, f"{self._tally.documents:,} documents")
                _check(stop)
            if self._writer is not None or not self._parts:
                self._finish_part(remembered)

    def _take(self, batch: list[tuple[Draft, int]], cleaned: CleanedBatch) -> None:
        """Write what stays of a batch, and count the rest."""
        self._records += len(batch)
        for stage, seconds in cleaned.seconds.items():
            self._tally.spend(stage, seconds)
        for kind, count in cleaned.redacted.items():
            self._tally.redacted[kind] = self._tally.redacted.get(kind, 0) + count
        again = self._duplicates(cleaned)
        began = time.process_time()
        for (draft, size), item in zip(batch, cleaned.items, strict=True):
            self._tally.enter(draft, size)
            outcome = item
            if isinstance(item, Kept) and (reason := next(again)):
                outcome = Dropped(reason, "", item.language, item.head)
            if isinstance(outcome, Dropped):
                self._tally.remove(draft, outcome, size)
                continue
            if self._writer is None:
                self._writer = PartWriter(self._folder, len(self._parts))
            self._writer.write(outcome.line, outcome.size)
            self._tally.keep(draft, outcome)
        self._tally.spend("write", time.process_time() - began)

    def _duplicates(self, cleaned: CleanedBatch) -> Iterator[str]:
        """For each text that the steps kept, why it goes after all, or nothing."""
        kept = [item for item in cleaned.items if isinstance(item, Kept)]
        if self._settings.cleaning.duplicates == "keep":
            return iter([""] * len(kept))
        began = time.process_time()
        exact = [self._exact.seen_hash(item.hash) for item in kept]
        self._fresh += [item.hash for item, seen in zip(kept, exact, strict=True) if not seen]
        reasons = ["exact_duplicate" if seen else "" for seen in exact]
        looked_up = time.process_time()
        if cleaned.signatures is not None:
            fresh = np.flatnonzero(~np.array(exact, bool))
            near = self._near.seen(cleaned.signatures[fresh])
            for number in fresh[np.array(near, bool)].tolist():
                reasons[number] = "near_duplicate"
        self._tally.spend("exact_duplicates", looked_up - began)
        self._tally.spend("near_duplicates", time.process_time() - looked_up)
        return iter(reasons)

    def _finish_part(self, remembered: int) -> int:
        """End the part that is being written, and note how far the work has come."""
        writer = self._writer or PartWriter(self._folder, len(self._parts))
        part = writer.finish()
        memory: Memory = {"exact": np.array(self._fresh, np.uint64), "near": self._near.since(remembered)}
        write_note(self._folder, len(self._parts), Note(self._records, part, self._tally.as_dict()), memory)
        self._parts.append(part)
        self._writer, self._fresh = None, []
        return len(self._near)

    def _finish(self, asked: Mapping[str, Any], folder: Path, seconds: float) -> dict[str, Any]:
        tally = self._tally
        if not tally.documents:
            reasons = ", ".join(f"{name} {group['documents']:,}" for name, group in tally.removed.items())
            raise DataError(
                f"{', '.join(self._settings.sources)}: nothing is left of {tally.documents_in:,} documents "
                f"({reasons}); try cleaning.rules=off, or look with `pretune data inspect`"
            )
        counted = tally.as_dict()
        timing = {
            "seconds": round(seconds, 2),
            "stages": counted.pop("seconds"),
            "processes": self._processes,
        }
        reading = {
            "summary": self._log.summary(), "bad": self._log.bad, "left_out": self._log.left_out,
            "damaged": self._log.damaged, "examples": self._log.examples, "notes": self._log.notes,
            "encodings": dict(self._log.encodings),
        }  # fmt: skip
        summary = {
            key: counted[key] for key in ("documents_in", "bytes_in", "documents", "bytes", "characters")
        }
        report = {"counts": counted, "timing": timing, "reading": reading}
        write_json(self._folder / "report.json", report)
        data_page.prepared(self._folder, report, self._settings, asked["versions"])
        parts = [asdict(part) for part in self._parts]
        state_file.write(self._folder / PREPARED, {**asked, "summary": summary, "parts": parts})
        if folder.exists():
            folder.rmdir()  # it was found empty
        self._folder.replace(folder)
        remove_files(folder, NOTE_FILES)
        return summary

    def _work(self, name: str, log: RecordLog) -> Any:
        """A stretch of work in megabytes of files."""
        total = sum(size for _, size, _ in listing(self._settings.sources))
        return working(self._reporter, name, max(1, total >> 20))


def _drafts(settings: PrepareSettings, log: RecordLog) -> Iterator[tuple[Draft, int]]:
    """Every text with its size, and which of the sources it is from."""
    known: dict[str, str] = {}
    sources = settings.sources
    for record in read_records(sources, columns=("text",), reading=settings.reading, log=log):
        if record.path not in known:
            if len(known) > 10_000:
                known.clear()
            known[record.path] = next((s for s in sources if record.path.startswith(s)), record.path)
        text = str(record.fields["text"])
        yield Draft(text, record.where, known[record.path]), len(text.encode("utf-8", "replace"))


def _timed(given: Iterator[list[tuple[Draft, int]]], tally: Tally) -> Iterator[list[tuple[Draft, int]]]:
    """The batches, with the time that reading them took."""
    while True:
        began = time.process_time()
        batch = next(given, None)
        tally.spend("read", time.process_time() - began)
        if batch is None:
            return
        yield batch


def _advance(work: Work, log: RecordLog, detail: str = "") -> None:
    work.update(log.bytes_read >> 20, detail)


def _check(stop: StopRequest) -> None:
    if stop.asked:
        raise Interrupted("stopped; the finished parts are kept, run the same command to go on")
