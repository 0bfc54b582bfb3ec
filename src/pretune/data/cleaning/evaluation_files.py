"""The texts of evaluation files, whatever their records are called."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from pretune.data.sources.read_options import ReadOptions
from pretune.data.sources.records import RecordLog, read_records

_DOCUMENTS = (".txt", ".md", ".html", ".htm")


def iter_evaluation_texts(paths: Sequence[str], encoding: str | None = None) -> Iterator[str]:
    """Every text in any field of the evaluation files; ``encoding``: of those that are not UTF-8.

    Raises:
        DataError: they cannot be read.
    """
    log = RecordLog()
    for path in paths:
        plain = Path(path.lower().removesuffix(".gz").removesuffix(".zst")).suffix in _DOCUMENTS
        for record in read_records(
            [path], columns=("text",) if plain else (), read_options=ReadOptions(encoding=encoding), log=log
        ):
            yield from _strings(record.fields)
    log.raise_if_too_many_bad()


def _strings(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for inner in value.values():
            yield from _strings(inner)
    elif isinstance(value, list | tuple):
        for inner in value:
            yield from _strings(inner)
