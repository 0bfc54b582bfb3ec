"""In which encodings the files beside a file are: a short text is judged by them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from pretune.data.damage import Damage
from pretune.data.encodings import sampled
from pretune.data.items import Item

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
        found: Counter[str | None] = Counter()
        for path in paths[:: max(1, len(paths) // _ASKED)]:
            if (item := self._item(path)) is None:
                continue
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
