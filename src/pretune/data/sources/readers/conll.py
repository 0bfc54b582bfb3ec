"""CoNLL: a word a line with its tag in the last column, an empty line after each sentence.

As in CoNLL-2003 (Tjong Kim Sang and De Meulder 2003): columns are separated by spaces or one tab, the word
comes first, and what stands between word and tag is left out. A file of one column holds words without tags.
"""

from __future__ import annotations

from collections.abc import Iterator

from pretune.data.sources.columns import ColumnSpec
from pretune.data.sources.input_file import InputFile, TextFile
from pretune.data.sources.readers.json_values import ObjectRecords
from pretune.data.sources.record_log import RecordLog
from pretune.types import Record

DOCUMENT_START = "-DOCSTART-"


def read(input_file: InputFile, columns: ColumnSpec, log: RecordLog) -> Iterator[Record]:
    """A record a sentence: ``tokens``, and ``tags`` where the lines have them.

    Raises:
        DataError: the task needs other fields.
        CorruptFileError: the file is damaged.
    """
    records = ObjectRecords(input_file.name, columns, log)
    for number, rows in _iter_sentences(input_file, log):
        widths = {len(row) for row in rows}
        if len(widths) > 1:
            log.reject(
                input_file.name, number, f"lines of {min(widths)} and of {max(widths)} columns in a sentence"
            )
            continue
        fields = {"tokens": [row[0] for row in rows]}
        if widths != {1}:
            fields["tags"] = [row[-1] for row in rows]
        yield from records.iter_records(number, fields)
    records.finish()


def _iter_sentences(input_file: InputFile, log: RecordLog) -> Iterator[tuple[int, list[list[str]]]]:
    """(number of the first line, columns of each line) of each sentence."""
    start, rows = 0, list[list[str]]()
    for number, line in TextFile(input_file, log).iter_lines():
        text = line.decode("utf-8", "replace").rstrip("\r\n")
        # A word may hold a space only where tabs separate columns, as in CoNLL-U.
        row = text.split("\t") if "\t" in text else text.split()
        is_comment = text.startswith("# ") and len(row) != (len(rows[0]) if rows else 2)
        if is_comment or (row and row[0] == DOCUMENT_START):
            continue
        if not text.strip():
            if rows:
                yield start, rows
            rows = []
            continue
        start = number if not rows else start
        rows.append(row)
    if rows:
        yield start, rows
