"""A JSON file: a list of objects, read object by object in bounded memory, or objects one after another."""

from __future__ import annotations

from collections.abc import Iterator

from pretune.data.sources.columns import Columns
from pretune.data.sources.input_file import Item
from pretune.data.sources.readers import json_lines
from pretune.data.sources.readers.json_values import read_values, shape_of
from pretune.data.sources.record_log import RecordLog
from pretune.types import Record


def read(item: Item, columns: Columns, log: RecordLog) -> Iterator[Record]:
    """The objects of the list, or of the lines where the file is really JSON lines.

    A Record's line is the place of its object in the file, from 1.

    Raises:
        DataError: the file holds no objects, or the first object lacks a column.
        Damage: the file is damaged, or no JSON from some object on.
    """
    shape = shape_of(item)
    if shape == "lines" and json_lines.begins_with_object(item):
        yield from json_lines.read_lines(item, columns, log)
    else:
        yield from read_values(item, columns, log, bare=shape == "objects")
