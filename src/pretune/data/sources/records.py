"""Records from a user's files, one at a time, with every bad one counted and named."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path, PurePath

from pretune.data.sources import hub_datasets, stdin
from pretune.data.sources.archives import members
from pretune.data.sources.columns import Columns, Field, wanted
from pretune.data.sources.compression import file_blocks, gunzipped, unzstd
from pretune.data.sources.corrupt import Damage
from pretune.data.sources.discovery import Unfit, find
from pretune.data.sources.encodings import Beside
from pretune.data.sources.folder_encodings import Members, Neighbours
from pretune.data.sources.input_file import Item
from pretune.data.sources.read_options import Reading
from pretune.data.sources.record_log import RecordLog
from pretune.data.sources.text_shards import check_text
from pretune.data.sources.unsupported_files import way_out
from pretune.errors import DataError
from pretune.registry import load
from pretune.types import Record

__all__ = ["RecordLog", "identities", "read_records"]

_READERS = {
    ".txt": "plain",
    ".md": "plain",
    ".html": "html",
    ".htm": "html",
    ".jsonl": "json_lines",
    ".ndjson": "json_lines",
    ".json": "json_list",
    ".csv": "separated",
    ".tsv": "separated",
    ".parquet": "parquet",
}
"""Suffix to module of ``readers``; a module is imported when a file needs it, since some take a second."""
_DOCUMENTS = (".txt", ".md", ".html", ".htm")
"""Kinds without columns: beside labelled records they are read-me files."""
_IN_ENCODINGS = (".txt", ".md", ".jsonl", ".ndjson", ".json", ".csv", ".tsv")
"""Kinds whose text may be in any encoding, without saying so."""
_UNPACKERS: dict[str, Callable[[Iterator[bytes]], Iterator[bytes]]] = {".gz": gunzipped, ".zst": unzstd}
_ARCHIVE = ".zip"


@dataclass(frozen=True, slots=True)
class _Job:
    """One file or set to read."""

    name: str
    path: Path | None
    """None: a set of the library ``datasets``."""


def read_texts(
    paths: Iterable[str | Path], *, reading: Reading | None = None, say: Callable[[str], None] | None = None
) -> Iterator[str]:
    """The texts of :func:`read_records`; a bad record is passed over, and at the end ``say`` is told of it.

    Raises:
        DataError: no good one is left, or too many are bad.
    """
    log = RecordLog()
    for record in read_records(paths, reading=reading, log=log):
        yield str(record.fields["text"])
    log.finish()
    if say is not None and log.remarkable:
        say(f"  {log.summary()}")


def read_records(
    paths: Iterable[str | Path],
    *,
    columns: Sequence[str | Field] = ("text",),
    reading: Reading | None = None,
    log: RecordLog,
    refuse: bool = True,
) -> Iterator[Record]:
    """Every record of files, folders, patterns (``texts/**/*.txt``), ``-`` and ``datasets:NAME``.

    ``.txt`` and ``.md`` are one document a file, cut at paragraph or line ends into pieces of about 1 MiB;
    ``.html`` gives its main text; ``.jsonl``, ``.json``, ``.csv``, ``.tsv`` and ``.parquet`` a record an
    object or row. Each may be packed as ``.gz`` or ``.zst``, or lie in a ``.zip``. A folder is read sorted,
    with what is below it. Text is UTF-8, UTF-16, GB18030 or Big5, or what ``reading`` says. ``columns``
    are the fields that a record must have (of a name alone: as text that is not empty), from the columns
    that ``reading`` names or that are called so, or nearly; other fields come along.

    A file that cannot be read, or not to its end, goes to ``log`` as a bad record does, and the rest is read;
    call ``log.finish()`` at the end. Unless it may ``refuse``, the only file goes there, too.

    Raises:
        DataError: a path leads nowhere or is of another kind, or the only file cannot be read at all.
    """
    asked = [str(path) for path in paths]
    log.paths += asked
    reading = reading or Reading()
    sought = wanted(columns, reading.columns, reading.usual)
    jobs = _jobs(asked, sought, log)
    neighbours = Neighbours([job.path for job in jobs if job.path is not None], _plain_item)
    log.bytes_total += sum(_size(job.path) for job in jobs if job.path is not None)
    alone = refuse and len(jobs) == 1 and not log.bad
    for job in jobs:
        if job.path is None:
            log.files += 1
            yield from _survived(hub_datasets.read(job.name, sought, log), job.name, log, alone)
            continue
        after = log.bytes_read + _size(job.path)
        look = _Look(sought, log, reading.encoding, partial(neighbours.encodings, job.path))
        read = _archive if job.path.suffix.lower() == _ARCHIVE else _file
        yield from _survived(read(job, job.path, look), job.name, log, alone)
        log.bytes_read = after


def listing(paths: Iterable[str | Path], columns: tuple[str, ...] = ("text",)) -> list[tuple[str, int, int]]:
    """(file, size, time of its last change) of what :func:`read_records` will read, in its order.

    Standard input is named by its content. A ``datasets`` name has no files here.

    Raises:
        DataError: as :func:`read_records`.
    """
    found = []
    for job in _jobs([str(path) for path in paths], wanted(columns, {}, {}), RecordLog()):
        if job.path is None:
            continue
        try:
            about = job.path.stat()
        except OSError:
            continue  # it vanished; reading it will say so
        piped = job.name == stdin.NAME
        name, changed = (identities(["-"])[0], 0) if piped else (str(job.path), about.st_mtime_ns)
        found.append((name, about.st_size, changed))
    return found


def identities(paths: Iterable[str | Path]) -> list[str]:
    """What tells one reading from another: the names, and for standard input its content."""
    return [
        f"{path}{stdin.spooled(sys.stdin.buffer).digest}" if str(path) == "-" else str(path) for path in paths
    ]


def _jobs(asked: list[str], columns: Columns, log: RecordLog) -> list[_Job]:
    jobs: dict[str, _Job] = {}  # by where it really lies: a file that is named twice is read once
    for name in asked:
        if name.startswith(hub_datasets.PREFIX):
            jobs.setdefault(name, _Job(name, None))
        elif name == "-":
            jobs.setdefault(name, _Job(stdin.NAME, stdin.spooled(sys.stdin.buffer).path))
        else:
            for path in find(name, partial(_misfit, columns), ", ".join(sorted(_READERS)), log):
                jobs.setdefault(os.path.realpath(path), _Job(str(path), path))
    return list(jobs.values())


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0  # it vanished; reading it will say so


def _survived(records: Iterator[Record], name: str, log: RecordLog, alone: bool) -> Iterator[Record]:
    """The records up to damage, which goes to the log; if there is nothing else to read, it is an error."""
    before = log.good
    try:
        yield from records
    except Damage as damage:
        if alone and log.good == before:
            raise DataError(f"{name}: {damage}") from None
        log.reject_file(name, str(damage))
    except DataError as error:
        if alone:
            raise
        log.reject_file(name, str(error).removeprefix(f"{name}: "))


@dataclass(frozen=True)
class _Look:
    """What is looked for in a file, and where what is found goes."""

    columns: Columns
    log: RecordLog
    encoding: str | None
    beside: Beside

    def records(self, item: Item) -> Iterator[Record]:
        """Those of an item."""
        told = replace(item, encoding=self.encoding, beside=self.beside)
        return _reader(item.suffix)(told, self.columns, self.log)


def _file(job: _Job, path: Path, look: _Look) -> Iterator[Record]:
    look.log.files += 1
    check_text(path)
    if os.path.exists(path) and not _size(path):
        raise Damage("the file is empty")
    yield from look.records(_item(job.name, path, look.log))


def _plain_item(path: Path) -> Item | None:
    """A file of text as it is read, apart from all counts; None: it is of another kind."""
    return _item(str(path), path, RecordLog()) if _kind(path.name) in _IN_ENCODINGS else None


def _item(name: str, path: Path, log: RecordLog) -> Item:
    blocks, kind = partial(file_blocks, path, log), _kind(path.name)
    if path.suffix.lower() in _UNPACKERS:
        return Item(name, kind, _unpacked(blocks, _UNPACKERS[path.suffix.lower()]))
    return Item(name, kind, blocks, path)


def _unpacked(
    blocks: Callable[[], Iterator[bytes]], unpack: Callable[[Iterator[bytes]], Iterator[bytes]]
) -> Callable[[], Iterator[bytes]]:
    return lambda: unpack(blocks())


def _archive(job: _Job, path: Path, look: _Look) -> Iterator[Record]:
    log = look.log
    found = log.files, log.bad
    look = replace(look, beside=Members(partial(_texts_of, path, job.name)).encodings)
    for item in members(path, job.name, log):
        name = PurePath(item.name).name
        if PurePath(name).suffix.lower() in (_ARCHIVE, *_UNPACKERS):
            log.reject_file(item.name, "packed within an archive: unpack it first")
        elif (unfit := _misfit(look.columns, name)) is not None:
            log.leave_out(item.name, unfit.reason, unfit.kind)
        else:
            log.files += 1
            yield from _survived(look.records(item), item.name, log, alone=False)
    if found == (log.files, log.bad):
        raise Damage(f"the archive holds no {', '.join(sorted(_READERS))} file")


def _texts_of(path: Path, name: str) -> Iterator[Item]:
    """The members of an archive whose text may be in any encoding, up to where it is damaged."""
    try:
        yield from (item for item in members(path, name, RecordLog()) if item.suffix in _IN_ENCODINGS)
    except Damage:
        return


def _kind(name: str) -> str:
    """The suffix of a file, or of what is packed in it."""
    path = PurePath(name.lower())
    return PurePath(path.stem).suffix if path.suffix in _UNPACKERS else path.suffix


def _misfit(columns: Columns, name: str) -> Unfit | None:
    """Why a file of this name cannot be read; None: it can."""
    kind = _kind(name)
    if kind in _DOCUMENTS and not columns.document:
        return Unfit(f"plain text has only the field 'text', not {columns.needed()}", None)
    if kind in _READERS or PurePath(name).suffix.lower() == _ARCHIVE:
        return None
    known, way = ", ".join(sorted(_READERS)), way_out(kind)
    return Unfit(
        f"{''.join(PurePath(name).suffixes[-2:]) or 'no suffix'}: a file must be one of {known}, "
        f"or one of them packed as .gz, .zst or .zip{f'; {way}' if way else ''}",
        kind,
    )


def _reader(kind: str) -> Callable[[Item, Columns, RecordLog], Iterator[Record]]:
    module = load(f"pretune.data.sources.readers.{_READERS[kind]}")
    read: Callable[[Item, Columns, RecordLog], Iterator[Record]] = module.read
    return read
