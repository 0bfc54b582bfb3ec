"""Bytes out of files, gzip and Zstandard, a block at a time; what comes before damage is kept."""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from pathlib import Path

import zstandard

from pretune.data.sources.corrupt import CorruptFileError, error_reason
from pretune.data.sources.record_log import RecordLog

BLOCK_BYTES = 1 << 18
_INPUT_BYTES = 1 << 12
"""Compressed bytes handed to Zstandard at once: even a bomb (1 to 32,768) stays below 128 MiB."""
_BOMB_RATIO = 250
_BOMB_BYTES = 256 << 20
"""Text is compressed 3 to 30 times; what expands more than the ratio, from this size on, is no text."""


def file_blocks(path: Path, log: RecordLog) -> Iterator[bytes]:
    """The bytes of a file, counted as they are read.

    Raises:
        Damage: it cannot be read, or not on.
    """
    try:
        with path.open("rb") as file:
            while block := file.read(BLOCK_BYTES):
                log.bytes_read += len(block)
                yield block
    except OSError as error:
        raise CorruptFileError(error_reason(error)) from None


def gunzip(blocks: Iterator[bytes]) -> Iterator[bytes]:
    """What gzip packed, of one member or several.

    Raises:
        Damage: no gzip, cut off, or broken.
    """
    read = written = 0
    decoder = zlib.decompressobj(wbits=31)
    for block in blocks:
        read += len(block)
        while block:
            if decoder.eof:
                block = block.lstrip(b"\0")  # tape blocks are padded with zeros
                if not block:
                    break
                decoder = zlib.decompressobj(wbits=31)
            try:
                piece = decoder.decompress(block, BLOCK_BYTES)
            except zlib.error as error:
                raise CorruptFileError(
                    f"the gzip data are broken before byte {read:,}: {_zlib_reason(error)}"
                ) from None
            if piece:
                written += len(piece)
                yield piece
            check_zip_bomb(read, written)
            block = decoder.unconsumed_tail or decoder.unused_data
    while piece := decoder.flush(BLOCK_BYTES) if read and not decoder.eof else b"":
        yield piece
    if not decoder.eof:
        raise CorruptFileError(f"cut off: the gzip data end at byte {read:,} before their end")


def _zlib_reason(error: zlib.error) -> str:
    return str(error).rpartition(": ")[2]


def unzstd(blocks: Iterator[bytes]) -> Iterator[bytes]:
    """What Zstandard packed, of one frame or several.

    Raises:
        Damage: no Zstandard, cut off, or broken.
    """
    read = written = 0
    is_complete = False
    decoder = zstandard.ZstdDecompressor().decompressobj()
    for block in blocks:
        for start in range(0, len(block), _INPUT_BYTES):
            chunk = block[start : start + _INPUT_BYTES]
            read += len(chunk)
            while chunk:
                if decoder.eof:
                    decoder = zstandard.ZstdDecompressor().decompressobj()
                try:
                    piece = decoder.decompress(chunk)
                except zstandard.ZstdError as error:
                    raise CorruptFileError(
                        f"the Zstandard data are broken before byte {read:,}: {error}"
                    ) from None
                if piece:
                    written += len(piece)
                    yield piece
                is_complete, chunk = decoder.eof, decoder.unused_data if decoder.eof else b""
            check_zip_bomb(read, written)
    if not is_complete:
        raise CorruptFileError(f"cut off: the Zstandard data end at byte {read:,} before their end")


def check_zip_bomb(read: int, num_written: int) -> None:
    """Stop at what fills a disk or a night from a small file.

    Raises:
        Damage: it expands beyond what text does.
    """
    if num_written > _BOMB_BYTES and num_written > _BOMB_RATIO * read:
        raise CorruptFileError(
            f"{read:,} bytes expand to more than {num_written:,}: no text is packed so tightly"
        )
