"""In which encodings the files beside a file are: a short text is judged by them."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from pretune.data.sources.corrupt import CorruptFileError
from pretune.data.sources.encodings import detect_blocks_encoding
from pretune.data.sources.input_file import InputFile

_MAX_FILES = 32
"""Files of a folder that are looked at, spread evenly."""
_MIN_FILES = 2
_UTF8_NAMES = ("utf-8", "utf-8-sig", None)


class FolderEncodings:
    """The files of each folder; they are looked at when one among them cannot tell its encoding itself."""

    def __init__(self, paths: Iterable[Path], open_file: Callable[[Path], InputFile | None]) -> None:
        self._open_file = open_file
        self._paths: dict[Path, list[Path]] = {}
        self._encodings: dict[Path, tuple[str, ...]] = {}
        for path in paths:
            self._paths.setdefault(path.parent, []).append(path)

    def encodings(self, path: Path) -> Sequence[str]:
        """What at least half of the files of its folder are in, of those that are not plain ASCII."""
        folder = path.parent
        if folder not in self._encodings:
            self._encodings[folder] = self._detect(self._paths.get(folder, []))
        return self._encodings[folder]

    def _detect(self, paths: Sequence[Path]) -> tuple[str, ...]:
        items = map(self._open_file, paths[:: max(1, len(paths) // _MAX_FILES)])
        return common_encodings(item for item in items if item is not None)


def common_encodings(files: Iterable[InputFile]) -> tuple[str, ...]:
    """What at least half of some texts are in, of those that are not plain ASCII, and that is not UTF-8."""
    found: Counter[str | None] = Counter()
    for item in files:
        try:
            found[detect_blocks_encoding(item.blocks())] += 1
        except CorruptFileError:
            continue
    told = sum(count for encoding, count in found.items() if encoding is not None)
    return tuple(
        encoding
        for encoding, count in found.most_common()
        if encoding not in _UTF8_NAMES and encoding is not None and count >= max(_MIN_FILES, 0.5 * told)
    )


class ArchiveEncodings:
    """The members of an archive, in which encodings most of them are; they are looked at once, when asked."""

    def __init__(self, iter_files: Callable[[], Iterable[InputFile]]) -> None:
        self._iter_files = iter_files
        self._encodings: tuple[str, ...] | None = None

    def encodings(self) -> Sequence[str]:
        """As :meth:`FolderEncodings.encodings`, of the first members."""
        if self._encodings is None:
            self._encodings = common_encodings(itertools.islice(self._iter_files(), _MAX_FILES))
        return self._encodings
