"""A JSON file: a list of objects, read object by object in bounded memory, or objects one after another."""

from __future__ import annotations

from collections.abc import Iterator

from pretune.data.sources.columns import ColumnSpec
from pretune.data.sources.input_file import InputFile
from pretune.data.sources.readers import json_lines
from pretune.data.sources.readers.json_values import detect_json_format, read_values
from pretune.data.sources.record_log import RecordLog
from pretune.types import Record


def read(input_file: InputFile, columns: ColumnSpec, log: RecordLog) -> Iterator[Record]:
    """The objects of the list, or of the lines where the file is really JSON lines.

    A Record's line is the place of its object in the file, from 1.

    Raises:
        DataError: the file holds no objects, or the first object lacks a column.
        Damage: the file is damaged, or no JSON from some object on.
    """
    shape = detect_json_format(input_file)
    if shape == "lines" and json_lines.first_line_is_object(input_file):
        yield from json_lines.read_lines(input_file, columns, log)
    else:
        yield from read_values(input_file, columns, log, concatenated=shape == "objects")
