"""Which encoding some bytes are in, and bytes of any known one as UTF-8."""

from __future__ import annotations

import codecs
import re
import unicodedata
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import charset_normalizer

from pretune.data.sources.charsets import BROKEN_MARK, MARK_ERRORS, is_ascii_compatible, is_western, utf8_hint
from pretune.data.sources.corrupt import CorruptFileError

SAMPLE_BYTES = 1 << 16
"""Read from the first byte that is not ASCII on, to recognise an encoding."""
BROKEN_SHARE = 0.001
"""Of the characters of a text: up to here a few broken ones are damage, beyond it is another encoding."""
MIN_BROKEN, MIN_BROKEN_WESTERN = 3, 2
"""Broken characters from which on a text that no encoding fits is in another one, and not just damaged: any,
and such as are letters with accents in Windows-1252."""
BROKEN_BYTE = b"\xff"
"""What stands in UTF-8 for a character that could not be read in another encoding; never valid."""

_BYTE_ORDER_MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),  # before UTF-16, whose mark it begins with
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_BINARY_SIGNATURE = re.compile(
    rb"%PDF-|PK\x03\x04|\x1f\x8b|\x28\xb5\x2f\xfd|\x89PNG|GIF8|\xff\xd8\xff|\x7fELF|PAR1|\xd0\xcf\x11\xe0|BZh|7z\xbc"
)
"""How files that are no text begin."""
_CONTROL = re.compile(rb"\0+|[\x01-\x08\x0e-\x1a\x1c-\x1f]")
_HAN = re.compile("[㐀-䶿一-鿿]")
_CHINESE = re.compile("[　-〿㐀-䶿一-鿿＀-｠—…‘’“”·《》、。]")
_COMMON_HAN = frozenset(
    "的一是不了在人有我他这个们中来上大为和国地到以说时要就出会可也你对生能而子那得于着下自之年过发后作里用道行所然"
    "家种事成方多经么去法学如都同现当没动面起看定天分还进好小部其些主样理心她本前开但因只从想实日军者意无力它与长把"
    "法条民应关业务公司很书店房酒住服感觉此云春知花水月相君老今清歸三已雨見詩江千萬更明空寒高白秋欲新誰何山無風來為"
    "時們這個說會對過發後裡種經學現當沒動還進樣開從實軍無長與書東門聲處國愛聽讀車馬語話請問覺點頭兒"
)
"""Characters that are frequent in modern or classical Chinese, simplified or traditional."""
_MIN_COMMON_SHARE = 0.15
"""Of all Han in a text."""


@dataclass(frozen=True, slots=True)
class _ChineseCandidate:
    """How the bytes look when they are read in a Chinese encoding."""

    encoding: str
    common_share: float
    """Share of frequent characters among the Han."""
    sample: bytes
    """The lines with Chinese in them, without what is broken or cut off."""


def detect_encoding(sample: bytes) -> str | None:
    """The encoding of a text that begins with ``sample``, as Python names it; None: none that we read.

    A byte order mark decides; then zeros on one side of each pair of bytes (UTF-16); then valid UTF-8.
    GB18030 and Big5 must decode but for a few broken places and give Chinese with its frequent characters
    (which Latin-1, EUC-KR and others do not), and ``charset-normalizer`` must not name another family.
    """
    if (marked := _bom_encoding(sample)) is not None:
        return marked
    if (wide := _detect_utf16(sample)) is not None:
        return wide
    text, broken = _decode(sample, "utf-8")
    if not broken:
        return "utf-8"
    if sum(character > "\x7f" for character in text) >= 5 * broken:
        return "utf-8"  # with some places broken
    found = [chinese for name in ("gb18030", "big5") if (chinese := _try_chinese(sample, name))]
    if not found:
        # Scattered letters with accents, and no character of UTF-8 beside them, are no damage.
        western = broken >= MIN_BROKEN_WESTERN and text.isascii() and is_western(sample)
        return "utf-8" if broken <= BROKEN_SHARE * len(text) and not western else None
    best = max(found, key=lambda chinese: chinese.common_share)
    agree = ("gb", "hz") if best.encoding == "gb18030" else ("big5", "cp950")
    guesses = charset_normalizer.from_bytes(best.sample)
    named = guesses.best()
    if named is not None and named.encoding.startswith(agree):
        return best.encoding
    # On short texts the arbiter finds several equally good, or none; then the characters must be clearer.
    equal = [
        g.encoding for g in guesses if named and (g.chaos, g.coherence) == (named.chaos, named.coherence)
    ]
    undecided = any(name.startswith(agree) for name in equal) or named is None
    clear = best.encoding == "gb18030" and best.common_share >= 2 * _MIN_COMMON_SHARE
    return best.encoding if undecided and clear else None


def _detect_utf16(sample: bytes) -> str | None:
    """UTF-16 by its zeros: half of the bytes of Latin text, some of Chinese (line ends, digits)."""
    zeros = sample.count(0)
    if not zeros or len(sample) < 8:
        return None
    wide = zeros > 0.2 * len(sample)
    if not wide and not _decode(sample, "utf-8")[1]:
        return None
    texts = {name: _decode(sample, name) for name in ("utf-16-le", "utf-16-be")}
    fit = [
        name
        for name, (text, broken) in texts.items()
        if broken + _count_unusual(text) <= 0.01 * len(text)
        and (wide or _common_han_share(text) > 0.5 * _MIN_COMMON_SHARE)
    ]
    if len(fit) == 2:  # Latin text reads as rare Han the other way round
        return fit[0] if sample[1::2].count(0) > sample[0::2].count(0) else fit[1]
    return fit[0] if fit else None


def _count_unusual(text: str) -> int:
    return sum(unicodedata.category(c) in ("Cc", "Cn", "Co", "Cs") and c not in "\t\n\r\f" for c in text)


def _common_han_share(text: str) -> float:
    han = _HAN.findall(text)
    return sum(character in _COMMON_HAN for character in han) / len(han) if han else 0.0


def _try_chinese(sample: bytes, encoding: str) -> _ChineseCandidate | None:
    text, broken = _decode(sample, encoding)
    if broken > max(1, BROKEN_SHARE * 2 * len(text)) or (broken and len(text) < 100):
        return None
    beyond = sum(character > "\x7f" for character in text)
    if len(_HAN.findall(text)) < 4 or len(_CHINESE.findall(text)) < 0.8 * beyond:
        return None
    telling = "\n".join(line for line in text.split("\n") if not line.isascii())
    common = _common_han_share(text)
    return (
        _ChineseCandidate(encoding, common, telling[:4096].encode(encoding))
        if common >= _MIN_COMMON_SHARE
        else None
    )


def _decode(sample: bytes, encoding: str) -> tuple[str, int]:
    """The text, and how many of its characters are broken; one that the sample cuts is none."""
    text = codecs.getincrementaldecoder(encoding)(MARK_ERRORS).decode(sample)
    return text.replace(BROKEN_MARK, ""), text.count(BROKEN_MARK)


EncodingHints = Callable[[], Sequence[str]]
"""The encodings of the files beside one, for a text that is too short to tell its own."""


def no_hints() -> Sequence[str]:
    """The encodings beside a file that stands alone."""
    return ()


def as_utf8(
    blocks: Iterator[bytes],
    on_encoding: Callable[[str], None],
    user_encoding: str | None = None,
    hints: EncodingHints = no_hints,
) -> Iterator[bytes]:
    """The same text in UTF-8, without its byte order mark; ``on_encoding`` is told the encoding once.

    It is recognised at the first byte that is not ASCII; ``user_encoding`` is that of a text that is
    neither UTF-8 nor marked as another. Where a few bytes are no text of it, they stay invalid UTF-8, so
    that who reads can name their place, and the encoding is ``unknown`` where none fits.

    Raises:
        Damage: the bytes are no text, or in an encoding that is not read unasked, or the blocks are damaged.
    """
    first = next(blocks, b"")
    if user_encoding is not None and not is_ascii_compatible(user_encoding) and _bom_encoding(first) is None:
        on_encoding(user_encoding)
        yield from _reencode(_chain(first, blocks, None), user_encoding)
        return
    _check_is_text(first)
    sample, before = first, 0
    while sample.isascii() and b"\0" not in sample:
        before += len(sample)
        if sample:
            yield sample
        if not (sample := next(blocks, b"")):
            on_encoding("utf-8")
            return
    fault = None
    try:
        while len(sample) < SAMPLE_BYTES and (more := next(blocks, b"")):
            sample += more
    except CorruptFileError as damage:
        fault = damage
    start = _sample_start(sample)
    encoding = _choose_encoding(sample[start : start + SAMPLE_BYTES], user_encoding, hints)
    on_encoding(encoding or "unknown")
    if encoding is None:
        _check_known_encoding(sample[start : start + SAMPLE_BYTES], before + start)
    rest = _chain(sample, blocks, fault)
    yield from _reencode(rest, encoding) if encoding not in (None, "utf-8", "utf-8-sig") else _strip_bom(rest)


def _sample_start(sample: bytes) -> int:
    """From where on a sample tells its encoding: a little before the first byte that is not ASCII."""
    start = max(0, _first_non_ascii(sample) - 64) // 4 * 4  # keeps pairs of bytes in step
    return 0 if start < 128 else start


def detect_blocks_encoding(blocks: Iterator[bytes]) -> str | None:
    """The encoding that the first bytes of a text are in; None: they are ASCII, or it is not recognised.

    Raises:
        Damage: the blocks are damaged.
    """
    sample = b""
    while len(sample) < SAMPLE_BYTES and (more := next(blocks, b"")):
        sample += more
    return None if sample.isascii() else detect_encoding(sample[:SAMPLE_BYTES])


def _choose_encoding(sample: bytes, user_encoding: str | None, hints: EncodingHints) -> str | None:
    """The encoding to read by; None: nothing fits."""
    if user_encoding is not None:
        if (marked := _bom_encoding(sample)) is not None:
            return marked
        return user_encoding if _decode(sample, "utf-8")[1] else "utf-8"
    return detect_encoding(sample) or next((name for name in hints() if _may_be_chinese(sample, name)), None)


def _may_be_chinese(sample: bytes, encoding: str) -> bool:
    """Could a short text be in the Chinese encoding of the files beside it?"""
    text, broken = _decode(sample, encoding)
    beyond = sum(character > "\x7f" for character in text)
    return not broken and len(_CHINESE.findall(text)) >= 0.8 * beyond


def _check_known_encoding(sample: bytes, before: int) -> None:
    """Refuse a text in an encoding that no rule recognises; a few broken places are left to who reads."""
    if _decode(sample, "utf-8")[1] < (MIN_BROKEN_WESTERN if is_western(sample) else MIN_BROKEN):
        return
    try:
        sample.decode("utf-8")
    except UnicodeDecodeError as error:
        raise CorruptFileError(f"byte {before + error.start:,} is no UTF-8; {utf8_hint(sample)}") from None


def _bom_encoding(sample: bytes) -> str | None:
    """The encoding that a byte order mark says."""
    return next((encoding for mark, encoding in _BYTE_ORDER_MARKS if sample.startswith(mark)), None)


def _first_non_ascii(sample: bytes) -> int:
    found = re.search(rb"[^\x01-\x7f]", sample)
    return found.start() if found else 0


def _chain(sample: bytes, blocks: Iterator[bytes], error: CorruptFileError | None) -> Iterator[bytes]:
    yield sample
    if error is not None:
        raise error
    yield from blocks


def _strip_bom(blocks: Iterator[bytes]) -> Iterator[bytes]:
    yield next(blocks).removeprefix(codecs.BOM_UTF8)
    yield from blocks


def _reencode(blocks: Iterator[bytes], encoding: str) -> Iterator[bytes]:
    decoder = codecs.getincrementaldecoder(encoding)(MARK_ERRORS)
    for block in blocks:
        yield _encode_utf8(decoder.decode(block))
    yield _encode_utf8(decoder.decode(b"", final=True))


def _encode_utf8(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass").replace(
        BROKEN_MARK.encode("utf-8", "surrogatepass"), BROKEN_BYTE
    )


def _check_is_text(block: bytes) -> None:
    """Refuse what is no text: it begins as another kind of file does, or with many control characters."""
    head = block[:2048]
    if any(head.startswith(mark) for mark, _ in _BYTE_ORDER_MARKS):
        return
    found = _CONTROL.findall(head)
    if (_BINARY_SIGNATURE.match(head) or len(found) > 0.01 * len(head)) and _detect_utf16(head) is None:
        if b"\0" in block:
            raise CorruptFileError(
                f"byte {block.index(0)} is zero: not a UTF-8 text file; convert it to UTF-8, or leave it out"
            )
        control = _CONTROL.search(head)
        where = f"byte {control.start()} is a control character" if control else "it begins as another kind"
        raise CorruptFileError(f"{where}: not a text file; leave it out")
