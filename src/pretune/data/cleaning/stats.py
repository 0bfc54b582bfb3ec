"""What came in, what goes out, and why the rest does not: counted as batches pass, kept as JSON."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from pretune.data.cleaning.cleaner import DroppedDocument, KeptDocument, RawDocument

MAX_EXAMPLES = 5
"""Texts that are shown for each reason."""
MAX_SOURCES = 100
"""Sources that are counted by name; the rest together."""


@dataclass(slots=True)
class CleaningStats:
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
    redactions: dict[str, int] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)
    """Processor time of each stage, added up over processes."""

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> CleaningStats:
        """What :meth:`as_dict` gave."""
        return cls(**values)

    def as_dict(self) -> dict[str, Any]:
        """As JSON holds it."""
        return asdict(self)

    def count_input(self, document: RawDocument, size: int) -> None:
        """A document of ``size`` bytes came in."""
        self.documents_in += 1
        self.bytes_in += size
        group = self._source_counts(document.source)
        group["documents_in"] += 1
        group["bytes_in"] += size

    def count_kept(self, document: RawDocument, result: KeptDocument) -> None:
        """A document goes out."""
        self.documents += 1
        self.bytes += result.size
        self.characters += result.characters
        group = self._source_counts(document.source)
        group["documents"] += 1
        group["bytes"] += result.size
        language = self.languages.setdefault(result.language, {"documents": 0, "bytes": 0})
        language["documents"] += 1
        language["bytes"] += result.size
        bucket = str(1 << (result.characters.bit_length() - 1))
        self.lengths[bucket] = self.lengths.get(bucket, 0) + 1

    def count_dropped(self, document: RawDocument, result: DroppedDocument, size: int) -> None:
        """A document of ``size`` bytes goes, and why."""
        group = self.removed.setdefault(result.reason, {"documents": 0, "bytes": 0, "examples": []})
        group["documents"] += 1
        group["bytes"] += size
        if len(group["examples"]) < MAX_EXAMPLES:
            example = {
                "location": document.location,
                "detail": result.detail,
                "language": result.language,
                "text": result.preview,
            }
            group["examples"].append(example)

    def add_seconds(self, stage: str, seconds: float) -> None:
        """Time went into a stage."""
        self.seconds[stage] = self.seconds.get(stage, 0.0) + seconds

    def _source_counts(self, name: str) -> dict[str, int]:
        if name not in self.sources and len(self.sources) >= MAX_SOURCES:
            name = "..."
        empty = {"documents_in": 0, "bytes_in": 0, "documents": 0, "bytes": 0}
        return self.sources.setdefault(name, empty)
