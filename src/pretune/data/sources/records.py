"""Records from a user's files, one at a time, with every bad one counted and named."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path, PurePath

from pretune.data.sources import hub_datasets, stdin
from pretune.data.sources.archives import iter_members
from pretune.data.sources.columns import ColumnSpec, Field, build_column_spec
from pretune.data.sources.compression import file_blocks, gunzip, unzstd
from pretune.data.sources.corrupt import CorruptFileError
from pretune.data.sources.discovery import SkipReason, find_files
from pretune.data.sources.encodings import EncodingHints
from pretune.data.sources.folder_encodings import ArchiveEncodings, FolderEncodings
from pretune.data.sources.input_file import InputFile
from pretune.data.sources.read_options import ReadOptions
from pretune.data.sources.record_log import RecordLog
from pretune.data.sources.text_shards import check_shard_file
from pretune.data.sources.unsupported_files import conversion_hint
from pretune.errors import DataError
from pretune.registry import load_module
from pretune.types import Record

__all__ = ["RecordLog", "read_records", "source_identities"]

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
    ".conll": "conll",
    ".bio": "conll",
    ".iob": "conll",
    ".iob2": "conll",
}
"""Suffix to module of ``readers``; a module is imported when a file needs it, since some take a second."""
_DOCUMENT_SUFFIXES = (".txt", ".md", ".html", ".htm")
"""Kinds without columns: beside labelled records they are read-me files."""
_TEXT_SUFFIXES = (
    ".txt",
    ".md",
    ".jsonl",
    ".ndjson",
    ".json",
    ".csv",
    ".tsv",
    ".conll",
    ".bio",
    ".iob",
    ".iob2",
)
"""Kinds whose text may be in any encoding, without saying so."""
_DECOMPRESSORS: dict[str, Callable[[Iterator[bytes]], Iterator[bytes]]] = {".gz": gunzip, ".zst": unzstd}
_ARCHIVE_SUFFIX = ".zip"


@dataclass(frozen=True, slots=True)
class _Source:
    """One file or set to read."""

    name: str
    path: Path | None
    """None: a set of the library ``datasets``."""


def read_texts(
    paths: Iterable[str | Path],
    *,
    read_options: ReadOptions | None = None,
    say: Callable[[str], None] | None = None,
) -> Iterator[str]:
    """The texts of :func:`read_records`; a bad record is passed over, and at the end ``say`` is told of it.

    Raises:
        DataError: no good one is left, or too many are bad.
    """
    log = RecordLog()
    for record in read_records(paths, read_options=read_options, log=log):
        yield str(record.fields["text"])
    log.raise_if_too_many_bad()
    if say is not None and log.has_notes:
        say(f"  {log.summary()}")


def read_records(
    paths: Iterable[str | Path],
    *,
    columns: Sequence[str | Field] = ("text",),
    read_options: ReadOptions | None = None,
    log: RecordLog,
    raise_if_only: bool = True,
) -> Iterator[Record]:
    """Every record of files, folders, patterns (``texts/**/*.txt``), ``-`` and ``datasets:NAME``.

    ``.txt`` and ``.md`` are one document a file, cut at paragraph or line ends into pieces of about 1 MiB;
    ``.html`` gives its main text; ``.jsonl``, ``.json``, ``.csv``, ``.tsv`` and ``.parquet`` a record an
    object or row. Each may be packed as ``.gz`` or ``.zst``, or lie in a ``.zip``. A folder is read sorted,
    with what is below it. Text is UTF-8, UTF-16, GB18030 or Big5, or what ``read_options`` says. ``columns``
    are the fields that a record must have (of a name alone: as text that is not empty), from the columns
    that ``read_options`` names or that are called so, or nearly; other fields come along.

    A file that cannot be read, or not to its end, goes to ``log`` as a bad record does, and the rest is read;
    call ``log.finish()`` at the end. Unless it may ``raise_exception``, the only file goes there, too.

    Raises:
        DataError: a path leads nowhere or is of another kind, or the only file cannot be read at all.
    """
    asked = [str(path) for path in paths]
    log.paths += asked
    read_options = read_options or ReadOptions()
    column_spec = build_column_spec(columns, read_options.columns, read_options.usual)
    jobs = _list_sources(asked, column_spec, log)
    neighbours = FolderEncodings([job.path for job in jobs if job.path is not None], _text_input_file)
    log.bytes_total += sum(_size(job.path) for job in jobs if job.path is not None)
    is_only = raise_if_only and len(jobs) == 1 and not log.num_bad
    for job in jobs:
        if job.path is None:
            log.num_files += 1
            yield from _log_corruption(hub_datasets.read(job.name, column_spec, log), job.name, log, is_only)
            continue
        after = log.bytes_read + _size(job.path)
        look = _ReadContext(column_spec, log, read_options.encoding, partial(neighbours.encodings, job.path))
        read = _read_archive if job.path.suffix.lower() == _ARCHIVE_SUFFIX else _read_file
        yield from _log_corruption(read(job, job.path, look), job.name, log, is_only)
        log.bytes_read = after


def list_files(
    paths: Iterable[str | Path], columns: tuple[str, ...] = ("text",)
) -> list[tuple[str, int, int]]:
    """(file, size, time of its last change) of what :func:`read_records` will read, in its order.

    Standard input is named by its content. A ``datasets`` name has no files here.

    Raises:
        DataError: as :func:`read_records`.
    """
    found = []
    for job in _list_sources([str(path) for path in paths], build_column_spec(columns, {}, {}), RecordLog()):
        if job.path is None:
            continue
        try:
            about = job.path.stat()
        except OSError:
            continue  # it vanished; reading it will say so
        piped = job.name == stdin.NAME
        name, changed = (source_identities(["-"])[0], 0) if piped else (str(job.path), about.st_mtime_ns)
        found.append((name, about.st_size, changed))
    return found


def source_identities(paths: Iterable[str | Path]) -> list[str]:
    """What tells one reading from another: the names, and for standard input its content."""
    return [
        f"{path}{stdin.read_stdin(sys.stdin.buffer).digest}" if str(path) == "-" else str(path)
        for path in paths
    ]


def _list_sources(paths: list[str], columns: ColumnSpec, log: RecordLog) -> list[_Source]:
    jobs: dict[str, _Source] = {}  # by where it really lies: a file that is named twice is read once
    for name in paths:
        if name.startswith(hub_datasets.PREFIX):
            jobs.setdefault(name, _Source(name, None))
        elif name == "-":
            jobs.setdefault(name, _Source(stdin.NAME, stdin.read_stdin(sys.stdin.buffer).path))
        else:
            for path in find_files(name, partial(_skip_reason, columns), ", ".join(sorted(_READERS)), log):
                jobs.setdefault(os.path.realpath(path), _Source(str(path), path))
    return list(jobs.values())


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0  # it vanished; reading it will say so


def _log_corruption(records: Iterator[Record], name: str, log: RecordLog, is_only: bool) -> Iterator[Record]:
    """The records up to damage, which goes to the log; if there is nothing else to read, it is an error."""
    before = log.num_good
    try:
        yield from records
    except CorruptFileError as damage:
        if is_only and log.num_good == before:
            raise DataError(f"{name}: {damage}") from None
        log.reject_file(name, str(damage))
    except DataError as error:
        if is_only:
            raise
        log.reject_file(name, str(error).removeprefix(f"{name}: "))


@dataclass(frozen=True)
class _ReadContext:
    """What is looked for in a file, and where what is found goes."""

    columns: ColumnSpec
    log: RecordLog
    encoding: str | None
    encoding_hints: EncodingHints

    def read_file(self, input_file: InputFile) -> Iterator[Record]:
        """Those of an item."""
        told = replace(input_file, encoding=self.encoding, encoding_hints=self.encoding_hints)
        return _load_reader(input_file.suffix)(told, self.columns, self.log)


def _read_file(source: _Source, path: Path, context: _ReadContext) -> Iterator[Record]:
    context.log.num_files += 1
    check_shard_file(path)
    if os.path.exists(path) and not _size(path):
        raise CorruptFileError("the file is empty")
    yield from context.read_file(_input_file(source.name, path, context.log))


def _text_input_file(path: Path) -> InputFile | None:
    """A file of text as it is read, apart from all counts; None: it is of another kind."""
    return _input_file(str(path), path, RecordLog()) if _inner_suffix(path.name) in _TEXT_SUFFIXES else None


def _input_file(name: str, path: Path, log: RecordLog) -> InputFile:
    blocks, kind = partial(file_blocks, path, log), _inner_suffix(path.name)
    if path.suffix.lower() in _DECOMPRESSORS:
        return InputFile(name, kind, _decompress(blocks, _DECOMPRESSORS[path.suffix.lower()]))
    return InputFile(name, kind, blocks, path)


def _decompress(
    blocks: Callable[[], Iterator[bytes]], decompress: Callable[[Iterator[bytes]], Iterator[bytes]]
) -> Callable[[], Iterator[bytes]]:
    return lambda: decompress(blocks())


def _read_archive(source: _Source, path: Path, context: _ReadContext) -> Iterator[Record]:
    log = context.log
    found = log.num_files, log.num_bad
    context = replace(
        context, encoding_hints=ArchiveEncodings(partial(_iter_text_members, path, source.name)).encodings
    )
    for item in iter_members(path, source.name, log):
        name = PurePath(item.name).name
        if PurePath(name).suffix.lower() in (_ARCHIVE_SUFFIX, *_DECOMPRESSORS):
            log.reject_file(item.name, "packed within an archive: unpack it first")
        elif (unfit := _skip_reason(context.columns, name)) is not None:
            log.skip_file(item.name, unfit.reason, unfit.suffix)
        else:
            log.num_files += 1
            yield from _log_corruption(context.read_file(item), item.name, log, is_only=False)
    if found == (log.num_files, log.num_bad):
        raise CorruptFileError(f"the archive holds no {', '.join(sorted(_READERS))} file")


def _iter_text_members(path: Path, name: str) -> Iterator[InputFile]:
    """The members of an archive whose text may be in any encoding, up to where it is damaged."""
    try:
        yield from (item for item in iter_members(path, name, RecordLog()) if item.suffix in _TEXT_SUFFIXES)
    except CorruptFileError:
        return


def _inner_suffix(name: str) -> str:
    """The suffix of a file, or of what is packed in it."""
    path = PurePath(name.lower())
    return PurePath(path.stem).suffix if path.suffix in _DECOMPRESSORS else path.suffix


def _skip_reason(columns: ColumnSpec, name: str) -> SkipReason | None:
    """Why a file of this name cannot be read; None: it can."""
    kind = _inner_suffix(name)
    if kind in _DOCUMENT_SUFFIXES and not columns.is_document:
        return SkipReason(f"plain text has only the field 'text', not {columns.required_names()}", None)
    if kind in _READERS or PurePath(name).suffix.lower() == _ARCHIVE_SUFFIX:
        return None
    known, way = ", ".join(sorted(_READERS)), conversion_hint(kind)
    return SkipReason(
        f"{''.join(PurePath(name).suffixes[-2:]) or 'no suffix'}: a file must be one of {known}, "
        f"or one of them packed as .gz, .zst or .zip{f'; {way}' if way else ''}",
        kind,
    )


def _load_reader(suffix: str) -> Callable[[InputFile, ColumnSpec, RecordLog], Iterator[Record]]:
    module = load_module(f"pretune.data.sources.readers.{_READERS[suffix]}")
    read: Callable[[InputFile, ColumnSpec, RecordLog], Iterator[Record]] = module.read
    return read
