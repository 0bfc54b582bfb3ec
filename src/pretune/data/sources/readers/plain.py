"""Plain text and Markdown: a document a file, a long one in pieces."""

from __future__ import annotations

import re
from collections.abc import Iterator

from pretune.data.sources.charsets import utf8_hint
from pretune.data.sources.columns import ColumnSpec
from pretune.data.sources.encodings import BROKEN_SHARE
from pretune.data.sources.input_file import InputFile, TextFile
from pretune.data.sources.readers.checks import check_text_only
from pretune.data.sources.record_log import RecordLog
from pretune.types import Record

PIECE_BYTES = 1 << 20
_ZEROS = re.compile("\0+")


def read(input_file: InputFile, columns: ColumnSpec, log: RecordLog) -> Iterator[Record]:
    """The text, cut at paragraph or line ends into pieces of about 1 MiB.

    Characters that are broken become U+FFFD; a piece with more than 0.1 % of them is a bad record.

    Raises:
        DataError: other columns than the text are wanted.
        Damage: the file is damaged.
    """
    check_text_only(input_file.name, columns)
    source = TextFile(input_file, log)
    offset, rest, at_end = 0, b"", False
    while not at_end:
        block = source.read(PIECE_BYTES)
        at_end = not block
        data = rest + block
        cut = len(data) if at_end else _find_piece_end(data)
        piece, rest = data[:cut], data[cut:]
        text = _decode(piece, input_file.name, offset, log)
        offset += len(piece)
        if text.strip():
            log.num_good += 1
            yield Record({"text": text}, input_file.name, 0)
    source.raise_if_corrupt()


def _find_piece_end(data: bytes) -> int:
    """Where to end a piece: at the last paragraph, else line, else character end."""
    if len(data) < PIECE_BYTES:
        return 0  # read on: more may follow
    half = len(data) // 2
    for end in (b"\n\n", b"\n", b" ", "。".encode()):
        at = data.rfind(end, half)
        if at >= 0:
            return at + len(end)
    at = len(data)
    while at > len(data) - 4 and data[at - 1] & 0xC0 == 0x80:
        at -= 1
    return at - 1


def _decode(piece: bytes, name: str, offset: int, log: RecordLog) -> str:
    """The text of a piece; empty where it is beyond repair."""
    try:
        text, first = piece.decode("utf-8"), -1
    except UnicodeDecodeError as error:
        text, first = piece.decode("utf-8", "replace"), error.start
    broken = text.count("�") if first >= 0 else 0  # a genuine U+FFFD beside broken ones counts too
    if "\0" in text:
        text, zeros = _ZEROS.subn("�", text)
        first = min(piece.index(b"\0"), first) if first >= 0 else piece.index(b"\0")
        broken += zeros
    if broken > BROKEN_SHARE * len(text):
        zero = piece[first] == 0
        fault, hint = ("zero", "leave the file out") if zero else ("no UTF-8", utf8_hint(piece))
        share = f" ({broken:,} broken characters in {len(text):,})" if broken > 1 else ""
        log.reject(name, 0, f"byte {offset + first} is {fault}; {hint}{share}")
        return ""
    if broken:
        log.add_note(name, f"{broken:,} broken characters replaced, the first at byte {offset + first:,}")
    return text
