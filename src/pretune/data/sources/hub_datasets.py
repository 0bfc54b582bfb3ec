"""Data sets of the ``datasets`` library, streamed from the hub or from a folder that it saved."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from pretune.data.sources.columns import ColumnSpec
from pretune.data.sources.corrupt import CorruptFileError, error_reason
from pretune.data.sources.readers.checks import check_record, match_columns
from pretune.data.sources.record_log import RecordLog
from pretune.errors import DataError
from pretune.types import Record

PREFIX = "datasets:"
_SAVED = ("dataset_dict.json", "state.json")
"""Files of a folder that the library's ``save_to_disk`` wrote."""


def read(name: str, columns: ColumnSpec, log: RecordLog) -> Iterator[Record]:
    """The rows of ``datasets:NAME[:CONFIG][:SPLIT]``; without a split it is ``train``, or the only one.

    A Record's line is its row, from 1.

    Raises:
        DataError: the library is not installed, or there is no such set, configuration, split or column.
        Damage: the rows cannot be read on.
    """
    library = _import_datasets(name)
    faults = (OSError, ValueError, RuntimeError, KeyError, library.exceptions.DatasetsError)
    try:
        rows = iter(_load_split(name, library))
    except faults as error:
        raise DataError(f"{name}: cannot be loaded: {error_reason(error)}") from None
    number, match = 0, None
    while True:
        try:
            fields: Mapping[str, Any] | None = next(rows, None)
        except faults as error:
            raise CorruptFileError(f"cannot be read on after row {number:,}: {error_reason(error)}") from None
        if fields is None:
            return
        number += 1
        match = match or match_columns(name, columns, list(fields), log)
        yield from check_record(fields, name, number, match, log)


def _import_datasets(name: str) -> Any:
    try:
        import datasets
    except ImportError:
        raise DataError(
            f"{name}: needs the library datasets: run `pip install 'pretune[datasets]'`, "
            "or give the files of the set"
        ) from None
    return datasets


def _load_split(name: str, library: Any) -> Any:
    place, *rest = name.removeprefix(PREFIX).split(":")
    if not place or len(rest) > 2:
        raise DataError(f"{name}: write datasets:NAME, datasets:NAME:SPLIT or datasets:NAME:CONFIG:SPLIT")
    saved = any((Path(place) / file).is_file() for file in _SAVED)
    if saved:
        data = library.load_from_disk(place)
    else:
        named = len(rest) == 2 or (rest and rest[0] in library.get_dataset_config_names(place))
        config = rest.pop(0) if named else None
        data = library.load_dataset(place, config, streaming=True)
    if not isinstance(data, dict):
        return data
    split = rest[-1] if rest else "train" if "train" in data else next(iter(data)) if len(data) == 1 else ""
    if split not in data:
        raise DataError(f"{name}: no split {split!r}; there are: {', '.join(data)}")
    return data[split]
