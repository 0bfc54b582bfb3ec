"""In which encodings the files beside a file are: a short text is judged by them."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from pretune.data.sources.corrupt import Damage
from pretune.data.sources.encodings import sampled
from pretune.data.sources.input_file import Item

_ASKED = 32
"""Files of a folder that are looked at, spread evenly."""
_AGREEING = 2
_UNICODE = ("utf-8", "utf-8-sig", None)


class Neighbours:
    """The files of each folder; they are looked at when one among them cannot tell its encoding itself."""

    def __init__(self, paths: Iterable[Path], item: Callable[[Path], Item | None]) -> None:
        self._item = item
        self._paths: dict[Path, list[Path]] = {}
        self._known: dict[Path, tuple[str, ...]] = {}
        for path in paths:
            self._paths.setdefault(path.parent, []).append(path)

    def encodings(self, path: Path) -> Sequence[str]:
        """What at least half of the files of its folder are in, of those that are not plain ASCII."""
        folder = path.parent
        if folder not in self._known:
            self._known[folder] = self._looked_up(self._paths.get(folder, []))
        return self._known[folder]

    def _looked_up(self, paths: Sequence[Path]) -> tuple[str, ...]:
        items = map(self._item, paths[:: max(1, len(paths) // _ASKED)])
        return agreed(item for item in items if item is not None)


def agreed(items: Iterable[Item]) -> tuple[str, ...]:
    """What at least half of some texts are in, of those that are not plain ASCII, and that is not UTF-8."""
    found: Counter[str | None] = Counter()
    for item in items:
        try:
            found[sampled(item.blocks())] += 1
        except Damage:
            continue
    told = sum(count for encoding, count in found.items() if encoding is not None)
    return tuple(
        encoding
        for encoding, count in found.most_common()
        if encoding not in _UNICODE and encoding is not None and count >= max(_AGREEING, 0.5 * told)
    )


class Members:
    """The members of an archive, in which encodings most of them are; they are looked at once, when asked."""

    def __init__(self, items: Callable[[], Iterable[Item]]) -> None:
        self._items = items
        self._known: tuple[str, ...] | None = None

    def encodings(self) -> Sequence[str]:
        """As :meth:`Neighbours.encodings`, of the first members."""
        if self._known is None:
            self._known = agreed(itertools.islice(self._items(), _ASKED))
        return self._known
