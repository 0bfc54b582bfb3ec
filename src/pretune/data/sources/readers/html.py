"""Web pages: their main text, without menus and footers."""

from __future__ import annotations

import logging
import re
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from types import FrameType

import trafilatura

from pretune.data.sources.columns import ColumnSpec
from pretune.data.sources.corrupt import CorruptFileError
from pretune.data.sources.input_file import InputFile
from pretune.data.sources.readers.checks import check_text_only
from pretune.data.sources.record_log import RecordLog
from pretune.types import Record

MAX_PAGE_BYTES = 16 << 20
MAX_PAGE_SECONDS = 10.0
_LONGEST_TITLE = 300
_META_CHARSET = re.compile(rb"<meta[^>]{0,200}charset\s*=\s*[\"']?\s*([A-Za-z0-9_:-]+)", re.IGNORECASE)
_WHATWG_ENCODINGS = {"gb2312": "gb18030", "gbk": "gb18030", "x-gbk": "gb18030", "big5": "big5hkscs",
          "iso-8859-1": "windows-1252", "latin-1": "windows-1252", "ascii": "windows-1252"}  # fmt: skip
"""What browsers read under a declared name (WHATWG Encoding Standard)."""


logging.getLogger("trafilatura").addHandler(logging.NullHandler())  # our log says what it says


class _TimeLimitExceeded(BaseException):
    """A page took too long; no Exception, since the extraction catches those."""


def read(input_file: InputFile, columns: ColumnSpec, log: RecordLog) -> Iterator[Record]:
    """The main text of the page, one record, its title as the first line where the text lacks it.

    The encoding is that of the byte order mark, else the declared one, else what is recognised.

    Raises:
        DataError: other columns than the text are wanted.
        Damage: the file is damaged, too large, or takes too long; a cut page is read as far as it goes.
    """
    check_text_only(input_file.name, columns)
    data, damage = _read_page(input_file)
    page = _decode_page(data, input_file, log)
    with _time_limit(MAX_PAGE_SECONDS, input_file.name):
        text = _main_text(page)
    if text:
        log.num_good += 1
        yield Record({"text": text}, input_file.name, 0)
    elif damage is None:
        log.reject(input_file.name, 0, "the page holds no main text")
    if damage is not None:
        raise damage


def _read_page(input_file: InputFile) -> tuple[bytes, CorruptFileError | None]:
    data = bytearray()
    try:
        for block in input_file.blocks():
            data += block
            if len(data) > MAX_PAGE_BYTES:
                raise CorruptFileError(f"the page is larger than {MAX_PAGE_BYTES >> 20} MiB")
    except CorruptFileError as damage:
        if len(data) > MAX_PAGE_BYTES:
            raise
        return bytes(data), damage
    return bytes(data), None


def _decode_page(data: bytes, input_file: InputFile, log: RecordLog) -> str:
    declared = _META_CHARSET.search(data, 0, 4096)
    marked = data.startswith((b"\xef\xbb\xbf", b"\xff\xfe", b"\xfe\xff"))
    if declared is not None and not marked:
        name = declared.group(1).decode("ascii").lower()
        encoding = _WHATWG_ENCODINGS.get(name, name)
        try:
            text = data.decode(encoding)
        except (LookupError, UnicodeDecodeError):
            pass  # the page says what it is not: look at the bytes
        else:
            log.count_encoding(input_file.name, encoding)
            return text
    whole = replace(input_file, blocks=lambda: iter((data,)))
    return b"".join(whole.iter_utf8(log)).decode("utf-8", "replace")


def _main_text(page: str) -> str:
    found = trafilatura.bare_extraction(page, with_metadata=True, include_comments=False)
    assert not isinstance(found, dict)
    if found is None or not found.text:
        return ""
    text, title = str(found.text).strip(), " ".join(str(found.title or "").split())
    sensible = 0 < len(title) <= _LONGEST_TITLE and title not in text[: len(title) + 200]
    return f"{title}\n{text}" if sensible and text else text


@contextmanager
def _time_limit(seconds: float, name: str) -> Iterator[None]:
    """End what takes too long, in time of this process, so that a busy machine changes nothing.

    Only the main thread can; elsewhere the size of the page bounds the time.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(number: int, frame: FrameType | None) -> None:
        raise _TimeLimitExceeded

    before = signal.signal(signal.SIGVTALRM, stop)
    signal.setitimer(signal.ITIMER_VIRTUAL, seconds)
    try:
        yield
    except _TimeLimitExceeded:
        raise CorruptFileError(f"the page takes longer than {seconds:g} seconds") from None
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        signal.signal(signal.SIGVTALRM, before)
