"""What came in, what goes out, and why the rest does not: counted as batches pass, kept as JSON."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from pretune.data.cleaning.cleaner import Draft, Dropped, Kept

EXAMPLES = 5
"""Texts that are shown for each reason."""
SOURCES = 100
"""Sources that are counted by name; the rest together."""


@dataclass(slots=True)
class Tally:
    """Counts of documents and bytes of UTF-8; a group is a name with its counts."""

    documents_in: int = 0
    bytes_in: int = 0
    documents: int = 0
    bytes: int = 0
    characters: int = 0
    removed: dict[str, dict[str, Any]] = field(default_factory=dict)
    """Reason to documents, bytes and examples."""
    languages: dict[str, dict[str, int]] = field(default_factory=dict)
    sources: dict[str, dict[str, int]] = field(default_factory=dict)
    lengths: dict[str, int] = field(default_factory=dict)
    """Documents that go out, by the power of two (a string, for JSON) below their number of characters."""
    redacted: dict[str, int] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)
    """Processor time of each stage, added up over processes."""

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> Tally:
        """What :meth:`as_dict` gave."""
        return cls(**values)

    def as_dict(self) -> dict[str, Any]:
        """As JSON holds it."""
        return asdict(self)

    def enter(self, draft: Draft, size: int) -> None:
        """A document of ``size`` bytes came in."""
        self.documents_in += 1
        self.bytes_in += size
        group = self._source(draft.source)
        group["documents_in"] += 1
        group["bytes_in"] += size

    def keep(self, draft: Draft, item: Kept) -> None:
        """A document goes out."""
        self.documents += 1
        self.bytes += item.size
        self.characters += item.characters
        group = self._source(draft.source)
        group["documents"] += 1
        group["bytes"] += item.size
        language = self.languages.setdefault(item.language, {"documents": 0, "bytes": 0})
        language["documents"] += 1
        language["bytes"] += item.size
        bucket = str(1 << (item.characters.bit_length() - 1))
        self.lengths[bucket] = self.lengths.get(bucket, 0) + 1

    def remove(self, draft: Draft, item: Dropped, size: int) -> None:
        """A document of ``size`` bytes goes, and why."""
        group = self.removed.setdefault(item.reason, {"documents": 0, "bytes": 0, "examples": []})
        group["documents"] += 1
        group["bytes"] += size
        if len(group["examples"]) < EXAMPLES:
            example = {
                "where": draft.where,
                "detail": item.detail,
                "language": item.language,
                "text": item.head,
            }
            group["examples"].append(example)

    def spend(self, stage: str, seconds: float) -> None:
        """Time went into a stage."""
        self.seconds[stage] = self.seconds.get(stage, 0.0) + seconds

    def _source(self, name: str) -> dict[str, int]:
        if name not in self.sources and len(self.sources) >= SOURCES:
            name = "..."
        empty = {"documents_in": 0, "bytes_in": 0, "documents": 0, "bytes": 0}
        return self.sources.setdefault(name, empty)
