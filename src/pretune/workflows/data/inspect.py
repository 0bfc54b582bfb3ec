"""Say what is in raw text before anything is done to it."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from pretune.arguments import FilePath, Positive, check_arguments
from pretune.data.cleaning.cleaner import HEAD
from pretune.data.cleaning.exact_duplicates import ExactDuplicates
from pretune.data.cleaning.language import detect
from pretune.data.cleaning.limits import Limits
from pretune.data.cleaning.near_duplicates import NearDuplicates, grams, signatures
from pretune.data.cleaning.repair import repair
from pretune.data.cleaning.rules import UNSPACED, judges
from pretune.data.cleaning.steps import Drop
from pretune.data.sources.columns import check_names
from pretune.data.sources.read_options import Reading
from pretune.data.sources.records import RecordLog, listing, read_records
from pretune.data.sources.unsupported_files import unread_files
from pretune.errors import ConfigError
from pretune.runtime.progress import Reporter, Silent, working
from pretune.types import Record

QUANTILES = (0.0, 0.05, 0.25, 0.5, 0.75, 0.95, 1.0)
PRESETS = ("light", "web")
SHOWN = 5
_BATCH = 512


@check_arguments
def inspect_data(
    sources: FilePath | Sequence[FilePath],
    *,
    sample: Positive = 32.0,
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
    reporter = reporter or Silent()
    size = sum(size for _, size, _ in listing(named))
    every = max(1, -(-size // int(sample * 1e6)))
    began = time.monotonic()
    check_names(columns or {}, ("text",), "columns")
    reading = Reading(columns or {}, encoding)
    log, found = RecordLog(), _Inspection()
    with working(reporter, "read", max(1, size >> 20)) as work:
        for number, record in enumerate(read_records(named, reading=reading, log=log, refuse=False)):
            text = str(record.fields["text"])
            found.count(text)
            if number % every == 0:
                found.judge(text, record)
            work.update(log.bytes_read >> 20)
    reading_found = {
        "files": log.files, "encodings": dict(log.encodings), "bad": log.bad, "refused": log.too_many_bad,
        "left_out": log.left_out, "unread": dict(log.unread), "damaged": log.damaged,
        "examples": log.examples, "notes": log.notes,
    }  # fmt: skip
    return {**found.result(every), "reading": reading_found, "seconds": round(time.monotonic() - began, 2)}


class _Inspection:
    """What is known of the documents so far."""

    def __init__(self) -> None:
        self._lengths: list[int] = []
        self._bytes = self._duplicates = 0
        self._exact = ExactDuplicates()
        self._judged = self._judged_bytes = self._repaired = self._near_duplicates = 0
        self._languages: Counter[str] = Counter()
        self._near = NearDuplicates()
        self._waiting: list[Any] = []
        self._verdicts: dict[str, Counter[str]] = {preset: Counter() for preset in PRESETS}
        self._examples: dict[str, dict[str, str]] = {preset: {} for preset in PRESETS}
        self._judges = {preset: judges(preset, Limits(), Limits()) for preset in PRESETS}
        self._samples: list[tuple[Record, str]] = []

    def count(self, text: str) -> None:
        """What is asked of every document."""
        self._lengths.append(len(text))
        self._bytes += len(text.encode("utf-8", "replace"))
        self._duplicates += self._exact.seen(text)

    def judge(self, text: str, record: Record) -> None:
        """What is asked of the sample."""
        mended = repair(text)
        self._repaired += mended != text
        language = detect(mended)
        self._judged += 1
        self._judged_bytes += len(mended.encode())
        self._languages[language] += 1
        characters = language in UNSPACED
        for preset in PRESETS:
            outcome = self._judges[preset][characters].judge(mended, language)
            if isinstance(outcome, Drop):
                self._verdicts[preset][outcome.reason] += 1
                self._examples[preset].setdefault(outcome.reason, f"{record.where}: {outcome.detail}")
        self._waiting.append(grams(mended, characters=characters))
        if len(self._waiting) >= _BATCH:
            self._look_up()
        if self._judged & (self._judged - 1) == 0:  # the first, second, fourth, eighth ...
            self._samples = [*self._samples, (record, mended.strip()[:HEAD])][-SHOWN:]

    def result(self, every: int) -> dict[str, Any]:
        """All that is known."""
        self._look_up()
        documents = len(self._lengths)
        quantiles = np.quantile(self._lengths or [0], QUANTILES, method="nearest")
        judged = max(1, self._judged)
        return {
            "documents": documents,
            "characters": sum(self._lengths),
            "bytes": self._bytes,
            "lengths": {f"{q:g}": int(v) for q, v in zip(QUANTILES, quantiles, strict=True)},
            "exact_duplicates": self._duplicates,
            "sample": {"every": every, "documents": self._judged, "bytes": self._judged_bytes},
            "languages": dict(self._languages.most_common()),
            "near_duplicates": self._near_duplicates,
            "to_repair": self._repaired,
            "rules": {
                preset: {
                    "kept": 1 - sum(reasons.values()) / judged,
                    "reasons": dict(reasons.most_common()),
                    "examples": self._examples[preset],
                }
                for preset, reasons in self._verdicts.items()
            },
            "samples": [{"where": record.where, "text": head} for record, head in self._samples],
        }

    def _look_up(self) -> None:
        self._near_duplicates += sum(self._near.seen(signatures(self._waiting)))
        self._waiting = []


def lines(found: Mapping[str, Any]) -> list[str]:
    """What :func:`inspect_data` found, for a person."""
    reading, sample, judged = found["reading"], found["sample"], found["sample"]["documents"]
    encodings = ", ".join(f"{name} {count:,}" for name, count in reading["encodings"].items())
    said = [
        f"{found['documents']:,} documents in {reading['files']:,} files, "
        f"{found['characters']:,} characters, {found['bytes'] / 1e6:,.1f} MB",
        *([f"encodings:       {encodings}"] if encodings else []),
        "characters each: " + ", ".join(f"{_percent(q)} {v:,}" for q, v in found["lengths"].items()),
        f"duplicates:      {_counted(found['exact_duplicates'], found['documents'])} exact",
    ]
    if sample["every"] > 1:
        said.append(
            f"what follows is of every {sample['every']:,}th document: "
            f"{judged:,}, {sample['bytes'] / 1e6:,.1f} MB"
        )
    shown = ", ".join(f"{name} {_share(count, judged)}" for name, count in found["languages"].items())
    said += [
        f"languages:       {shown}",
        f"near duplicates: {_counted(found['near_duplicates'], judged)}, exact ones among them",
        f"to be repaired:  {found['to_repair']:,}",
    ]
    for preset, verdict in found["rules"].items():
        said.append(f"rules={preset} would keep {100 * verdict['kept']:.1f}%")
        said += [
            f"  {_share(count, judged)} {reason} ({verdict['examples'][reason]})"
            for reason, count in verdict["reasons"].items()
        ]
    said += [f"sample {s['where']}: {' '.join(s['text'].split())}" for s in found["samples"]]
    if reading["bad"]:
        refused = "; the other verbs refuse so many" if reading["refused"] else ""
        said.append(f"{reading['bad']:,} bad records or files{refused}:")
        said += [f"  {name}" for name in [*reading["damaged"][:SHOWN], *reading["examples"][:SHOWN]]]
    if reading["unread"]:
        said.append(unread_files(reading["unread"]))
    said += [f"note: {note}" for note in reading["notes"][:SHOWN]]
    return said


def _percent(quantile: str) -> str:
    names = {"0": "shortest", "0.5": "median", "1": "longest"}
    return names.get(quantile, f"{100 * float(quantile):g}%")


def _counted(count: int, of: int) -> str:
    return f"{count:,} ({_share(count, of)})"


def _share(count: int, of: int) -> str:
    return f"{100 * count / max(1, of):.1f}%"
