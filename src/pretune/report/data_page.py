"""The page of a prepared text: what stays, what goes and why, and how fast it went."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from pretune.config import Settings, to_yaml
from pretune.report import page as p
from pretune.report.data_phrases import PHRASES, REASONS

Language = Literal["en", "zh"]
Groups = Mapping[str, Mapping[str, Any]]


PAGES: dict[str, Language] = {"report.html": "en", "report.zh.html": "zh"}


def write_pages(
    folder: Path, report: Mapping[str, Any], settings: Settings, versions: Mapping[str, str]
) -> None:
    """Write the pages of a preparation from what ``report.json`` holds."""
    for name, language in PAGES.items():
        p.write(_page(folder, report, settings, versions, language), folder / name)


def _page(
    folder: Path,
    report: Mapping[str, Any],
    settings: Settings,
    versions: Mapping[str, str],
    language: Language,
) -> p.Page:
    say, counts, timing = PHRASES[language], report["counts"], report["timing"]
    sections: tuple[p.Section, ...] = (
        p.Verdict(str(say["verdict"]), tuple(_findings(report, language))),
        _reasons(counts, language),
        *_examples(counts["removed"], language),
        _table(say, "languages", _rows_by_size(counts["languages"])),
        _table(say, "sources", _sources(counts["sources"])),
        _table(say, "lengths", _lengths(counts["lengths"], counts["documents"])),
        _table(say, "redacted", tuple((tag, f"{n:,}") for tag, n in counts["redactions"].items())),
        _stages(counts, timing, language),
        _reading(report["reading"], language),
        p.Text(str(say["settings"]), tuple(to_yaml(settings).splitlines())),
        p.Command(str(say["next"]), f"pretune pretrain {folder.name.removesuffix('.partial')}"),
    )
    title, subtitle = str(say["title"]), str(say["subtitle"])
    subtitle = subtitle.format(
        documents=f"{counts['documents']:,}", documents_in=f"{counts['documents_in']:,}",
        bytes=_format_megabytes(counts["bytes"]), bytes_in=_format_megabytes(counts["bytes_in"]),
    )  # fmt: skip
    return p.Page(title, subtitle, language, sections, tuple(versions.items()))


def reason_name(reason: str, language: Language) -> str:
    """A rule or step as a reader calls it."""
    return REASONS[language].get(reason, reason)


def _findings(report: Mapping[str, Any], language: Language) -> list[p.VerdictItem]:
    say, counts = PHRASES[language], report["counts"]
    share = f"{100 * counts['bytes'] / max(1, counts['bytes_in']):.1f}%"
    kept = str(say["kept"]).format(
        share=share, documents=f"{counts['documents']:,}", characters=f"{counts['characters']:,}"
    )
    found = [p.VerdictItem("neutral", kept)]
    if counts["removed"]:
        reason, most = max(counts["removed"].items(), key=lambda pair: pair[1]["bytes"])
        sentence = str(say["removed_most"]).format(
            reason=reason_name(reason, language), documents=f"{most['documents']:,}",
            bytes=_format_megabytes(most["bytes"]),
        )  # fmt: skip
        found.append(p.VerdictItem("neutral", sentence))
    if report["reading"]["bad"]:
        found.append(p.VerdictItem("bad", str(say["bad"]).format(bad=f"{report['reading']['bad']:,}")))
    return found


def _reasons(counts: Mapping[str, Any], language: Language) -> p.Table:
    removed = sorted(counts["removed"].items(), key=lambda pair: -pair[1]["bytes"])
    rows = tuple(
        (
            reason_name(reason, language),
            f"{group['documents']:,}",
            _format_megabytes(group["bytes"]),
            f"{100 * group['bytes'] / max(1, counts['bytes_in']):.2f}%",
        )
        for reason, group in removed
    )
    return _table(PHRASES[language], "reasons", rows)


def _examples(removed: Groups, language: Language) -> list[p.Table]:
    say = PHRASES[language]
    return [
        p.Table(
            str(say["examples"]).format(reason=reason_name(reason, language)),
            tuple(say["example_columns"]),
            tuple((e["location"], e["detail"], e["text"]) for e in group["examples"]),
        )
        for reason, group in removed.items()
    ]


def _rows_by_size(groups: Groups) -> tuple[tuple[str, ...], ...]:
    ordered = sorted(groups.items(), key=lambda pair: -pair[1]["bytes"])
    return tuple(
        (name, f"{group['documents']:,}", _format_megabytes(group["bytes"])) for name, group in ordered
    )


def _sources(groups: Groups) -> tuple[tuple[str, ...], ...]:
    return tuple(
        (
            name,
            f"{g['documents_in']:,}",
            _format_megabytes(g["bytes_in"]),
            f"{g['documents']:,}",
            _format_megabytes(g["bytes"]),
        )
        for name, g in groups.items()
    )


def _lengths(lengths: Mapping[str, int], documents: int) -> tuple[tuple[str, ...], ...]:
    return tuple(
        (f"{int(low):,} – {2 * int(low) - 1:,}", f"{count:,}", f"{100 * count / max(1, documents):.1f}%")
        for low, count in sorted(lengths.items(), key=lambda pair: int(pair[0]))
    )


def _stages(counts: Mapping[str, Any], timing: Mapping[str, Any], language: Language) -> p.Table:
    size = counts["bytes_in"] / 1e6
    rows = tuple(
        (stage, f"{seconds:.2f}", f"{size / seconds:,.1f}" if seconds else "–")
        for stage, seconds in timing["stages"].items()
    )
    note = str(PHRASES[language]["stages_note"]).format(
        processes=timing["processes"], seconds=f"{timing['seconds']:.1f}",
        speed=f"{size / max(1e-9, timing['seconds']):.1f}",
    )  # fmt: skip
    return _table(PHRASES[language], "stages", rows, note)


def _reading(reading: Mapping[str, Any], language: Language) -> p.Text:
    lines = [
        reading["summary"].splitlines()[0],
        *reading["corrupt_files"],
        *reading["examples"],
        *reading["notes"][:20],
    ]
    heading = "damage" if len(lines) > 1 else "reading"
    return p.Text(str(PHRASES[language][heading]), tuple(lines))


_HEADER_KEYS = {
    "reasons": "reason_columns", "languages": "language_columns", "sources": "source_columns",
    "lengths": "length_columns", "redacted": "redacted_columns", "stages": "stage_columns",
}  # fmt: skip


def _table(
    phrases: Mapping[str, Any], name: str, rows: tuple[tuple[str, ...], ...], note: str = ""
) -> p.Table:
    header = tuple(phrases[_HEADER_KEYS[name]])
    return p.Table(str(phrases[name]), header, rows, note or str(phrases.get(f"{name}_note", "")))


def _format_megabytes(size: int) -> str:
    return f"{size / 1e6:,.2f}" if size < 1e8 else f"{size / 1e6:,.0f}"
