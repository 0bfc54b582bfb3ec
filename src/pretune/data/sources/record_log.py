"""What a reading of files found: good records, bad ones by name, what was left out, how far it has come."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from pathlib import Path

from pretune.data.sources.unsupported_files import describe_unsupported
from pretune.errors import DataError


class RecordLog:
    """What was read, and what was skipped and why; the first of each are kept by name."""

    MAX_EXAMPLES = 10
    MAX_NAMES = 1000

    def __init__(self) -> None:
        self.num_good = 0
        self.num_bad = 0
        """Bad records; a damaged file is one, and so is each bad line in it."""
        self.num_files = 0
        self.paths: list[str] = []
        """What was asked for."""
        self.examples: list[str] = []
        """The first bad records, as ``file:line: reason``."""
        self.corrupt_files: list[str] = []
        """Files that could not be read at all or not to their end, as ``file: reason``."""
        self.num_skipped = 0
        self.skipped_files: list[str] = []
        """The first files that were left out, as hidden, empty or of another kind."""
        self.unsupported: Counter[str] = Counter()
        """Of these, files of kinds that are not read, by suffix."""
        self.notes: list[str] = []
        """What was recognised in a file: an encoding other than UTF-8, a delimiter other than the comma."""
        self.columns: dict[str, str] = {}
        """Field to the column that it was read from, in the latest file with columns."""
        self.encodings: Counter[str] = Counter()
        """Files by encoding; one of ASCII alone counts as UTF-8."""
        self.bytes_read = 0
        """Bytes of the files as they lie on disk, up to ``bytes_total``."""
        self.bytes_total = 0
        """0 where it is not known."""

    def reject(self, path: Path | str, line: int, reason: str) -> None:
        """Count a bad record."""
        self.num_bad += 1
        if len(self.examples) < self.MAX_EXAMPLES:
            self.examples.append(f"{path}:{line}: {reason}" if line else f"{path}: {reason}")

    def reject_file(self, path: Path | str, reason: str) -> None:
        """Count a file that cannot be read, or not to its end."""
        self.num_bad += 1
        if len(self.corrupt_files) < self.MAX_NAMES:
            self.corrupt_files.append(f"{path}: {reason}")

    def skip_file(self, path: Path | str, reason: str, suffix: str | None = None) -> None:
        """Count a file that is not meant to be read; ``suffix``: it is of a kind that is not."""
        self.num_skipped += 1
        if suffix is not None:
            self.unsupported[suffix] += 1
        if len(self.skipped_files) < self.MAX_NAMES:
            self.skipped_files.append(f"{path}: {reason}")

    def add_note(self, path: Path | str, note: str) -> None:
        """Keep what was recognised in a file."""
        if len(self.notes) < self.MAX_NAMES:
            self.notes.append(f"{path}: {note}")

    def record_columns(self, path: Path | str, columns: Mapping[str, str], note: str | None) -> None:
        """Keep the columns of a file, and what is remarkable about them."""
        self.columns = dict(columns)
        if note is not None:
            self.add_note(path, note)

    def count_encoding(self, path: Path | str, encoding: str) -> None:
        """Count the encoding of a file, and keep its name where it is not UTF-8."""
        name = encoding.removesuffix("-sig")
        self.encodings[name] += 1
        if name not in ("utf-8", "unknown"):
            self.add_note(path, f"read as {name.upper()}")

    @property
    def has_notes(self) -> bool:
        """Is there anything in the summary that the reader of the run should see?"""
        return bool(self.num_bad or self.notes or self.unsupported)

    @property
    def has_too_many_bad(self) -> bool:
        """Are there more bad records than the larger of 10 and 1 %, or no good one?"""
        return not self.num_good or self.num_bad > max(10, 0.01 * (self.num_good + self.num_bad))

    def summary(self) -> str:
        """A line for the reader of the run, and below it what was wrong and what was recognised."""
        parts = [f"{self.num_good:,} records from {self.num_files:,} files"]
        if self.num_bad:
            parts.append(f"{self.num_bad:,} bad ones skipped")
        if self.num_skipped:
            parts.append(f"{self.num_skipped:,} other files left out")
        unread = f"\n  {describe_unsupported(self.unsupported)}" if self.unsupported else ""
        return "; ".join(parts) + self._list_bad() + _format_list(self.notes, len(self.notes)) + unread

    def raise_if_too_many_bad(self) -> None:
        """Judge the whole.

        Raises:
            DataError: no good record, or more bad ones than the larger of 10 and 1 %.
        """
        if not self.has_too_many_bad:
            return
        if not self.num_bad:
            raise DataError(f"{', '.join(self.paths) or 'no file'}: no records: there is no text in it")
        raise DataError(
            f"{self.num_bad:,} of {self.num_good + self.num_bad:,} records cannot be used:{self._list_bad()}"
        )

    def _list_bad(self) -> str:
        return _format_list([*self.corrupt_files[: self.MAX_EXAMPLES], *self.examples], self.num_bad)


def _format_list(sentences: list[str], count: int) -> str:
    shown = sentences[: RecordLog.MAX_EXAMPLES]
    more = [f"and {count - len(shown):,} more"] if count > len(shown) else []
    return "".join(f"\n  {sentence}" for sentence in [*shown, *more])
