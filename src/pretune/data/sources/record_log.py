"""What a reading of files found: good records, bad ones by name, what was left out, how far it has come."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from pathlib import Path

from pretune.data.sources.unsupported_files import unread_files
from pretune.errors import DataError


class RecordLog:
    """What was read, and what was skipped and why; the first of each are kept by name."""

    EXAMPLES = 10
    NAMES = 1000

    def __init__(self) -> None:
        self.good = 0
        self.bad = 0
        """Bad records; a damaged file is one, and so is each bad line in it."""
        self.files = 0
        self.paths: list[str] = []
        """What was asked for."""
        self.examples: list[str] = []
        """The first bad records, as ``file:line: reason``."""
        self.damaged: list[str] = []
        """Files that could not be read at all or not to their end, as ``file: reason``."""
        self.left_out = 0
        self.skipped: list[str] = []
        """The first files that were left out, as hidden, empty or of another kind."""
        self.unread: Counter[str] = Counter()
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
        self.bad += 1
        if len(self.examples) < self.EXAMPLES:
            self.examples.append(f"{path}:{line}: {reason}" if line else f"{path}: {reason}")

    def reject_file(self, path: Path | str, reason: str) -> None:
        """Count a file that cannot be read, or not to its end."""
        self.bad += 1
        if len(self.damaged) < self.NAMES:
            self.damaged.append(f"{path}: {reason}")

    def leave_out(self, path: Path | str, reason: str, suffix: str | None = None) -> None:
        """Count a file that is not meant to be read; ``suffix``: it is of a kind that is not."""
        self.left_out += 1
        if suffix is not None:
            self.unread[suffix] += 1
        if len(self.skipped) < self.NAMES:
            self.skipped.append(f"{path}: {reason}")

    def note(self, path: Path | str, recognised: str) -> None:
        """Keep what was recognised in a file."""
        if len(self.notes) < self.NAMES:
            self.notes.append(f"{path}: {recognised}")

    def matched(self, path: Path | str, columns: Mapping[str, str], remark: str | None) -> None:
        """Keep the columns of a file, and what is remarkable about them."""
        self.columns = dict(columns)
        if remark is not None:
            self.note(path, remark)

    def recognised(self, path: Path | str, encoding: str) -> None:
        """Count the encoding of a file, and keep its name where it is not UTF-8."""
        name = encoding.removesuffix("-sig")
        self.encodings[name] += 1
        if name not in ("utf-8", "unknown"):
            self.note(path, f"read as {name.upper()}")

    @property
    def remarkable(self) -> bool:
        """Is there anything in the summary that the reader of the run should see?"""
        return bool(self.bad or self.notes or self.unread)

    @property
    def too_many_bad(self) -> bool:
        """Are there more bad records than the larger of 10 and 1 %, or no good one?"""
        return not self.good or self.bad > max(10, 0.01 * (self.good + self.bad))

    def summary(self) -> str:
        """A line for the reader of the run, and below it what was wrong and what was recognised."""
        parts = [f"{self.good:,} records from {self.files:,} files"]
        if self.bad:
            parts.append(f"{self.bad:,} bad ones skipped")
        if self.left_out:
            parts.append(f"{self.left_out:,} other files left out")
        unread = f"\n  {unread_files(self.unread)}" if self.unread else ""
        return "; ".join(parts) + self._named() + _listed(self.notes, len(self.notes)) + unread

    def finish(self) -> None:
        """Judge the whole.

        Raises:
            DataError: no good record, or more bad ones than the larger of 10 and 1 %.
        """
        if not self.too_many_bad:
            return
        if not self.bad:
            raise DataError(f"{', '.join(self.paths) or 'no file'}: no records: there is no text in it")
        raise DataError(f"{self.bad:,} of {self.good + self.bad:,} records cannot be used:{self._named()}")

    def _named(self) -> str:
        return _listed([*self.damaged[: self.EXAMPLES], *self.examples], self.bad)


def _listed(sentences: list[str], count: int) -> str:
    shown = sentences[: RecordLog.EXAMPLES]
    more = [f"and {count - len(shown):,} more"] if count > len(shown) else []
    return "".join(f"\n  {sentence}" for sentence in [*shown, *more])
