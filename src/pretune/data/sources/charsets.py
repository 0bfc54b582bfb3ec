"""Encodings by name: whether Python has one, and which some bytes that are no UTF-8 are probably in."""

from __future__ import annotations

import codecs

import charset_normalizer

from pretune.errors import ConfigError

MARK_ERRORS = "pretune-marking"
"""The error handler under which a broken character becomes :data:`BROKEN_MARK`."""
BROKEN_MARK = "\udcff"
"""Unlike U+FFFD, which people do write, no text decodes to it."""
_COMMON = [
    "cp1252", "cp1250", "cp1251", "koi8_r", "cp1253", "cp1255", "cp1256", "cp932", "euc_jp", "cp949",
    "gb18030", "big5",
]  # fmt: skip
"""Encodings that text files are really found in, besides UTF-8 and UTF-16."""
_EAST_ASIAN = ("cp932", "euc_jp", "cp949", "gb18030", "big5")
_MIN_EAST_ASIAN_BYTES = 12
"""Fewer of them read as some Han characters in most East Asian encodings."""
_NAMES = {"cp949": "euc-kr", "cp932": "shift_jis", "koi8_r": "koi8-r"}
_ASCII = "".join(map(chr, range(32, 127))) + "\t\n +AGE- ~{VPND~} \x1b$B"
"""Text that a codec in which ASCII stands for itself leaves alone; UTF-7, HZ and ISO 2022 do not."""
_WESTERN = "‘’‚“”„–—…•€«»¿¡°·§£©®™´ªº½¼¾×"
_SAMPLE_BYTES = 1 << 14


def check_encoding(name: str) -> None:
    """See that Python can read text in an encoding.

    Raises:
        ConfigError: it cannot.
    """
    try:
        b"a".decode(name, "ignore")  # refuses what is no encoding of text, as base64
        codecs.getincrementaldecoder(name)(MARK_ERRORS).decode(b"abcd", True)
    except (LookupError, ValueError):
        raise ConfigError(
            f"encoding = {name[:60]!r}: Python reads no text in it; there are cp1252, latin-1, gb18030, "
            "big5, shift_jis, euc-kr, cp1251, koi8-r, utf-16 and more"
        ) from None


def is_ascii_compatible(name: str) -> bool:
    """Do the bytes of ASCII stand for themselves in an encoding?"""
    return _ASCII.encode("ascii").decode(name, "replace") == _ASCII


def guess_encoding(sample: bytes) -> str | None:
    """The encoding that bytes are probably in that are no UTF-8, as Python names it; None: no idea.

    Nothing is ever read by this guess alone: encodings of one byte a character take any bytes. A Western text
    is mostly equally good in several; then it is the one that most files are in, Windows-1252, of which
    Latin-1 is a part.
    """
    sample = sample[:_SAMPLE_BYTES]
    guesses = charset_normalizer.from_bytes(sample, cp_isolation=_COMMON)
    best = guesses.best()
    if best is None or best.encoding in ("cp1250", "cp1252", "cp1253", "cp1256"):
        rivals = [g for g in guesses if g.encoding == "cp1252" or "cp1252" in g.could_be_from_charset]
        worse = best is not None and not any(
            g.chaos <= best.chaos and g.coherence >= best.coherence for g in rivals
        )
        if is_western(sample) and not worse:
            return "cp1252"
    beyond = sum(byte > 0x7F for byte in sample)
    if best is None or (best.encoding in _EAST_ASIAN and beyond < _MIN_EAST_ASIAN_BYTES):
        return None
    return _NAMES.get(best.encoding, best.encoding)


def is_western(sample: bytes) -> bool:
    """Does it read as Windows-1252: letters with accents, a few among plain ones, and marks of print?"""
    try:
        text = sample.decode("cp1252")
    except UnicodeDecodeError:
        return False
    beyond = [character for character in text if character > "\x7f"]
    letters = sum(character.isalpha() for character in text)
    capitals = sum(character.isupper() for character in beyond)
    return (
        0 < len(beyond) <= 0.4 * letters
        and capitals <= 0.5 * len(beyond)
        and all(character in _WESTERN or character == "\xa0" or character.isalpha() for character in beyond)
    )


def display_name(encoding: str) -> str:
    """An encoding as `iconv` and people call it."""
    return encoding.upper().replace("_", "-")


def utf8_hint(sample: bytes) -> str:
    """What to do about bytes that are no UTF-8."""
    guess = guess_encoding(sample)
    if guess is None:
        return (
            "convert it, for example with `iconv -f GB18030 -t UTF-8`, name its encoding with --encoding, "
            "or leave it out"
        )
    name = display_name(guess)
    also = " (Windows-1252, or Latin-1)" if guess == "cp1252" else ""
    return (
        f"convert it from {name}{also}, which it seems to be in, with `iconv -f {name} -t UTF-8`, "
        f"or give --encoding {guess}"
    )


def _mark(error: UnicodeError) -> tuple[str, int]:
    assert isinstance(error, UnicodeDecodeError)
    return BROKEN_MARK, error.end


codecs.register_error(MARK_ERRORS, _mark)
