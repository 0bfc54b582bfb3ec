"""Mends what went wrong with the encoding of a text, and nothing that was meant.

The repairs are ftfy's (Speer 2019) but for three of its defaults, which turn ，。！？“” into ASCII and
replace Chinese characters by look-alikes: widths, quotes and composed characters of Chinese stay. A cheap
test comes before each: most text needs none of them, and ftfy reads 3 MB a second.
"""

from __future__ import annotations

import re
import unicodedata

import ftfy
from ftfy import fixes
from ftfy.badness import is_bad

_CONFIG = ftfy.TextFixerConfig(
    fix_character_width=False, uncurl_quotes=False, normalization=None, unescape_html=False, explain=False
)
_CONTROLS = bytes(code for code in [*range(9), 11, *range(14, 32), 127])
_ENTITY = re.compile(r"&#?\w{1,24};")
_LINE_ENDS = re.compile("\r\n?|\x85|\u2028|\u2029|\x0c")
_INVISIBLE = re.compile("[\x00-\x08\x0b\x0e-\x1f\x7f-\x84\x86-\x9f\ufeff\u206a-\u206f\ufff9-\ufffc]")
_LIGATURES = re.compile("[\ufb00-\ufb06]")
_COMBINED = re.compile(r"[A-Za-z\u00c0-\u024f\u0370-\u052f\u1e00-\u1fff][\u0300-\u036f]+")
_SURROGATES = re.compile("[\ud800-\udfff]")
_LONE_SURROGATE = re.compile("[\ud800-\udbff](?![\udc00-\udfff])|(?<![\ud800-\udbff])[\udc00-\udfff]")
# Text misread by a one-byte encoding holds letters of it, by one of the two-byte ones box drawing or kana
# of half width. Typographic marks and Chinese are none of these.
_MOJIBAKE = re.compile("[\x80-\u052f\u2500-\u25a0\uff61-\uff9f]")
# UTF-8 read as GBK: what becomes of 的 ， 。 and of the first byte of common characters.
_GBK_MOJIBAKE = re.compile("[鐨锛銆浣鏄鍜鍦涓]")


def repair(text: str) -> str:
    """The text with encoding faults mended, line ends even, control characters and half pairs gone."""
    if text.isascii():
        return _repair_ascii(text)
    if _SURROGATES.search(text):
        text = fixes.fix_surrogates(_LONE_SURROGATE.sub("", text))
    text = _LINE_ENDS.sub("\n", text)
    if "&" in text and _ENTITY.search(text) and "<" not in text:
        text = fixes.unescape_html(text)
    if _MOJIBAKE.search(text):
        text = "\n".join(_repair_single_byte_mojibake(line) for line in text.split("\n"))
    if _GBK_MOJIBAKE.search(text):
        text = "\n".join(_repair_gbk_mojibake(line) for line in text.split("\n"))
    if _LIGATURES.search(text):
        text = fixes.fix_latin_ligatures(text)
    text = _INVISIBLE.sub("", text)
    return _COMBINED.sub(lambda match: unicodedata.normalize("NFC", match[0]), text)


def _repair_ascii(text: str) -> str:
    if "&" in text and _ENTITY.search(text) and "<" not in text:
        text = fixes.unescape_html(text)
        if not text.isascii():
            return repair(text)
    if "\x1b" in text:
        text = fixes.remove_terminal_escapes(text)
    if "\r" in text or "\x0c" in text:
        text = _LINE_ENDS.sub("\n", text)
    data = text.encode("ascii")
    clean = data.translate(None, _CONTROLS)
    return text if len(clean) == len(data) else clean.decode("ascii")


def _repair_single_byte_mojibake(line: str) -> str:
    """UTF-8 that was read as latin-1, Windows-1252 and their kind, once or several times."""
    return ftfy.fix_text_segment(line, _CONFIG) if _MOJIBAKE.search(line) and is_bad(line) else line


def _repair_gbk_mojibake(line: str) -> str:
    """UTF-8 that was read as GBK, as 浣犲ソ for 你好: what fits both whole, by no chance, was misread."""
    if not _GBK_MOJIBAKE.search(line):
        return line
    try:
        return line.encode("gb18030").decode("utf-8")
    except UnicodeError:
        return line
