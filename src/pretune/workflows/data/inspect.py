"""Say what is in raw text before anything is done to it."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from pretune.arguments import FilePath, PositiveFloat, check_arguments
from pretune.data.cleaning.cleaner import PREVIEW_CHARACTERS
from pretune.data.cleaning.exact_duplicates import ExactDuplicates
from pretune.data.cleaning.language import detect_language
from pretune.data.cleaning.limits import Limits
from pretune.data.cleaning.near_duplicates import NearDuplicates, shingle_hashes, signatures
from pretune.data.cleaning.repair import repair
from pretune.data.cleaning.rules import UNSPACED_LANGUAGES, build_quality_filters
from pretune.data.cleaning.steps import Drop
from pretune.data.sources.columns import check_column_names
from pretune.data.sources.read_options import ReadOptions
from pretune.data.sources.records import RecordLog, list_files, read_records
from pretune.data.sources.unsupported_files import describe_unsupported
from pretune.errors import ConfigError
from pretune.runtime.progress import NullReporter, Reporter, track_progress
from pretune.types import Record

QUANTILES = (0.0, 0.05, 0.25, 0.5, 0.75, 0.95, 1.0)
PRESETS = ("light", "web")
MAX_SHOWN = 5
_BATCH_SIZE = 512


@check_arguments
def inspect_data(
    sources: FilePath | Sequence[FilePath],
    *,
    sample: PositiveFloat = 32.0,
    columns: Mapping[str, str] | None = None,
    encoding: str | None = None,
    reporter: Reporter | None = None,
) -> dict[str, Any]:
    """Read all text, judge an even sample of at most about ``sample`` megabytes of it, say what was found.

    However much of it is bad, that is reported, too. ``columns`` names the column of the text, as
    ``{"text": "article"}``, ``encoding`` that of files that are neither UTF-8 nor marked otherwise.

    Counts, lengths and exact duplicates are of all documents; languages, near duplicates, repairs and the
    verdicts of the rules of the sample, every n-th document.

    Raises:
        ConfigError: no sources, another field than the text, or an unknown encoding.
        DataError: a source that is not there, or a folder without any file of text.
    """
    named = [str(s) for s in ([sources] if isinstance(sources, str | Path) else sources)]
    if not named:
        raise ConfigError("no SOURCES: give files or folders of text")
    reporter = reporter or NullReporter()
    size = sum(size for _, size, _ in list_files(named))
    every = max(1, -(-size // int(sample * 1e6)))
    began = time.monotonic()
    check_column_names(columns or {}, ("text",), "columns")
    reading = ReadOptions(columns or {}, encoding)
    log, found = RecordLog(), _Inspection()
    with track_progress(reporter, "read", max(1, size >> 20)) as work:
        for number, record in enumerate(
            read_records(named, read_options=reading, log=log, raise_if_only=False)
        ):
            text = str(record.fields["text"])
            found.add_document(text)
            if number % every == 0:
                found.add_sample(text, record)
            work.update(log.bytes_read >> 20)
    reading_found = {
        "files": log.num_files, "encodings": dict(log.encodings), "bad": log.num_bad,
        "too_many_bad": log.has_too_many_bad,
        "skipped": log.num_skipped, "unsupported": dict(log.unsupported), "corrupt_files": log.corrupt_files,
        "examples": log.examples, "notes": log.notes,
    }  # fmt: skip
    return {**found.result(every), "reading": reading_found, "seconds": round(time.monotonic() - began, 2)}


class _Inspection:
    """What is known of the documents so far."""

    def __init__(self) -> None:
        self._lengths: list[int] = []
        self._bytes = self._num_exact_duplicates = 0
        self._exact = ExactDuplicates()
        self._num_sampled = self._sampled_bytes = self._num_repaired = self._num_near_duplicates = 0
        self._languages: Counter[str] = Counter()
        self._near = NearDuplicates()
        self._pending_ngrams: list[Any] = []
        self._removal_reasons: dict[str, Counter[str]] = {preset: Counter() for preset in PRESETS}
        self._examples: dict[str, dict[str, str]] = {preset: {} for preset in PRESETS}
        self._rule_checkers = {
            preset: build_quality_filters(preset, Limits(), Limits()) for preset in PRESETS
        }
        self._samples: list[tuple[Record, str]] = []

    def add_document(self, text: str) -> None:
        """What is asked of every document."""
        self._lengths.append(len(text))
        self._bytes += len(text.encode("utf-8", "replace"))
        self._num_exact_duplicates += self._exact.is_duplicate(text)

    def add_sample(self, text: str, record: Record) -> None:
        """What is asked of the sample."""
        repaired_text = repair(text)
        self._num_repaired += repaired_text != text
        language = detect_language(repaired_text)
        self._num_sampled += 1
        self._sampled_bytes += len(repaired_text.encode())
        self._languages[language] += 1
        characters = language in UNSPACED_LANGUAGES
        for preset in PRESETS:
            outcome = self._rule_checkers[preset][characters].check(repaired_text, language)
            if isinstance(outcome, Drop):
                self._removal_reasons[preset][outcome.reason] += 1
                self._examples[preset].setdefault(outcome.reason, f"{record.location}: {outcome.detail}")
        self._pending_ngrams.append(shingle_hashes(repaired_text, characters=characters))
        if len(self._pending_ngrams) >= _BATCH_SIZE:
            self._count_near_duplicates()
        if self._num_sampled & (self._num_sampled - 1) == 0:  # the first, second, fourth, eighth ...
            self._samples = [*self._samples, (record, repaired_text.strip()[:PREVIEW_CHARACTERS])][
                -MAX_SHOWN:
            ]

    def result(self, sample_interval: int) -> dict[str, Any]:
        """All that is known."""
        self._count_near_duplicates()
        documents = len(self._lengths)
        quantiles = np.quantile(self._lengths or [0], QUANTILES, method="nearest")
        num_sampled = max(1, self._num_sampled)
        return {
            "documents": documents,
            "characters": sum(self._lengths),
            "bytes": self._bytes,
            "lengths": {f"{q:g}": int(v) for q, v in zip(QUANTILES, quantiles, strict=True)},
            "exact_duplicates": self._num_exact_duplicates,
            "sample": {
                "interval": sample_interval,
                "documents": self._num_sampled,
                "bytes": self._sampled_bytes,
            },
            "languages": dict(self._languages.most_common()),
            "near_duplicates": self._num_near_duplicates,
            "needs_repair": self._num_repaired,
            "rules": {
                preset: {
                    "kept": 1 - sum(reasons.values()) / num_sampled,
                    "reasons": dict(reasons.most_common()),
                    "examples": self._examples[preset],
                }
                for preset, reasons in self._removal_reasons.items()
            },
            "samples": [{"location": record.location, "text": head} for record, head in self._samples],
        }

    def _count_near_duplicates(self) -> None:
        self._num_near_duplicates += sum(self._near.find_duplicates(signatures(self._pending_ngrams)))
        self._pending_ngrams = []


def inspection_lines(inspection: Mapping[str, Any]) -> list[str]:
    """What :func:`inspect_data` found, for a person."""
    reading, sample, num_sampled = (
        inspection["reading"],
        inspection["sample"],
        inspection["sample"]["documents"],
    )
    encodings = ", ".join(f"{name} {count:,}" for name, count in reading["encodings"].items())
    lines = [
        f"{inspection['documents']:,} documents in {reading['files']:,} files, "
        f"{inspection['characters']:,} characters, {inspection['bytes'] / 1e6:,.1f} MB",
        *([f"encodings:       {encodings}"] if encodings else []),
        "characters each: "
        + ", ".join(f"{_quantile_name(q)} {v:,}" for q, v in inspection["lengths"].items()),
        f"duplicates:      {_format_count(inspection['exact_duplicates'], inspection['documents'])} exact",
    ]
    if sample["interval"] > 1:
        lines.append(
            f"what follows is of every {sample['interval']:,}th document: "
            f"{num_sampled:,}, {sample['bytes'] / 1e6:,.1f} MB"
        )
    shown = ", ".join(
        f"{name} {_format_share(count, num_sampled)}" for name, count in inspection["languages"].items()
    )
    lines += [
        f"languages:       {shown}",
        f"near duplicates: {_format_count(inspection['near_duplicates'], num_sampled)}, exact ones among "
        "them",
        f"to be repaired:  {inspection['needs_repair']:,}",
    ]
    for preset, verdict in inspection["rules"].items():
        lines.append(f"rules={preset} would keep {100 * verdict['kept']:.1f}%")
        lines += [
            f"  {_format_share(count, num_sampled)} {reason} ({verdict['examples'][reason]})"
            for reason, count in verdict["reasons"].items()
        ]
    lines += [f"sample {s['location']}: {' '.join(s['text'].split())}" for s in inspection["samples"]]
    if reading["bad"]:
        refused = "; the other verbs refuse so many" if reading["too_many_bad"] else ""
        lines.append(f"{reading['bad']:,} bad records or files{refused}:")
        lines += [
            f"  {name}" for name in [*reading["corrupt_files"][:MAX_SHOWN], *reading["examples"][:MAX_SHOWN]]
        ]
    if reading["unsupported"]:
        lines.append(describe_unsupported(reading["unsupported"]))
    lines += [f"note: {note}" for note in reading["notes"][:MAX_SHOWN]]
    return lines


def _quantile_name(quantile: str) -> str:
    names = {"0": "shortest", "0.5": "median", "1": "longest"}
    return names.get(quantile, f"{100 * float(quantile):g}%")


def _format_count(count: int, total: int) -> str:
    return f"{count:,} ({_format_share(count, total)})"


def _format_share(count: int, total: int) -> str:
    return f"{100 * count / max(1, total):.1f}%"
