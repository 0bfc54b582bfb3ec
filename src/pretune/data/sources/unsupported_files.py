"""Kinds of files that hold text and are not read, with the tool that turns them into one that is."""

from __future__ import annotations

from collections.abc import Mapping

_PANDOC = "pandoc FILE -t plain -o FILE.txt"
_OFFICE = "libreoffice --headless --convert-to txt:Text FILE"
CONVERTERS = {
    ".docx": _PANDOC, ".odt": _PANDOC, ".epub": _PANDOC, ".rtf": _PANDOC, ".tex": _PANDOC, ".rst": _PANDOC,
    ".org": _PANDOC, ".fb2": _PANDOC, ".ipynb": _PANDOC, ".pdf": "pdftotext FILE FILE.txt",
    ".doc": _OFFICE, ".wps": _OFFICE, ".ppt": _OFFICE, ".pptx": _OFFICE,
    ".odp": _OFFICE, ".xls": "libreoffice --headless --convert-to csv FILE",
    ".xlsx": "libreoffice --headless --convert-to csv FILE",
    ".ods": "libreoffice --headless --convert-to csv FILE",
    ".mobi": "ebook-convert FILE FILE.txt", ".azw3": "ebook-convert FILE FILE.txt",
    ".djvu": "djvutxt FILE FILE.txt", ".ps": "ps2ascii FILE FILE.txt", ".xml": "write its text to .jsonl",
    ".mhtml": "save the page as .html", ".log": "name it .txt", ".text": "name it .txt",
    ".yaml": "write its records to .jsonl", ".yml": "write its records to .jsonl",
    ".arrow": "give the folder as datasets:FOLDER", ".avro": "write its records to .parquet",
    ".bz2": "bunzip2 FILE", ".xz": "unxz FILE", ".tar": "tar -xf FILE", ".tgz": "tar -xf FILE",
    ".7z": "7z x FILE", ".rar": "unrar x FILE", ".lz4": "unlz4 FILE",
}  # fmt: skip
"""Suffix to a command line, or to what to do."""
_MAX_LISTED = 12


def conversion_hint(suffix: str) -> str:
    """How a file of this kind can be used after all; empty where nothing is known."""
    tool = CONVERTERS.get(suffix.lower())
    if tool is None:
        return ""
    return f"convert it first: `{tool}`" if "FILE" in tool else tool


def describe_unsupported(counts: Mapping[str, int]) -> str:
    """The files that were not read, counted by suffix, those that hold text first, with their tools."""
    ranked = sorted(counts.items(), key=lambda item: (item[0] not in CONVERTERS, -item[1], item[0]))
    shown = [
        f"{count:,} {suffix or 'without a suffix'}" + _converter_note(suffix)
        for suffix, count in ranked[:_MAX_LISTED]
    ]
    if len(ranked) > _MAX_LISTED:
        shown.append(
            f"{sum(count for _, count in ranked[_MAX_LISTED:]):,} of {len(ranked) - _MAX_LISTED:,} other "
            "kinds"
        )
    return f"not read: {', '.join(shown)}"


def _converter_note(suffix: str) -> str:
    tool = CONVERTERS.get(suffix)
    return f" ({tool})" if tool is not None else ""
