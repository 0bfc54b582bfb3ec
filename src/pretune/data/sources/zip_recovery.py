"""Members of a zip archive that is cut off: the list at its end is gone, but each has a header of its own."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from pretune.data.sources.compression import BLOCK_BYTES, check_zip_bomb
from pretune.data.sources.corrupt import CorruptFileError, error_reason

_HEADER = struct.Struct("<4s5H3I2H")  # PKWARE APPNOTE 6.3.10, section 4.3.7
_SIGNATURE, _DESCRIPTOR_SIGNATURE = b"PK\3\4", b"PK\7\x08"
_ENCRYPTED, _DATA_DESCRIPTOR_FLAG = 0x1, 0x8
_STORED, _DEFLATED = 0, 8
_IN_EXTRA = 0xFFFFFFFF


@dataclass(frozen=True, slots=True)
class RecoveredMember:
    """A member by its own header."""

    path: Path
    name: str
    flags: int
    method: int
    start: int
    size: int | None
    """Packed bytes; None: it is known only from unpacking."""

    def blocks(self) -> Iterator[bytes]:
        """Its content.

        Raises:
            Damage: it is encrypted, packed by a rare method, broken, or cut off.
        """
        if self.flags & _ENCRYPTED or self.method not in (_STORED, _DEFLATED):
            raise CorruptFileError(
                "it is encrypted or packed by a rare method, in an archive that is cut off"
            )
        if self.method == _STORED and self.size is None:
            raise CorruptFileError("its size stood at the end of the archive, which is cut off")
        try:
            with self.path.open("rb") as file:
                file.seek(self.start)
                yield from _inflate(file) if self.method == _DEFLATED else _read_stored(file, self.size or 0)
        except OSError as error:
            raise CorruptFileError(error_reason(error)) from None


def recover_members(path: Path) -> Iterator[RecoveredMember]:
    """The members up to where the archive is cut or anything else begins.

    Raises:
        Damage: the file cannot be read.
    """
    try:
        with path.open("rb") as file:
            while len(raw := file.read(_HEADER.size)) == _HEADER.size:
                mark, _, flags, method, _, _, _, size, _, name_size, extra_size = _HEADER.unpack(raw)
                if mark != _SIGNATURE:
                    return
                name = file.read(name_size).decode("utf-8" if flags & 0x800 else "cp437", "replace")
                file.seek(extra_size, 1)
                known = None if flags & _DATA_DESCRIPTOR_FLAG or size == _IN_EXTRA else size
                member = RecoveredMember(path, name, flags, method, file.tell(), known)
                yield member
                if not _skip_member(file, member):
                    return
    except OSError as error:
        raise CorruptFileError(error_reason(error)) from None


def _skip_member(file: BinaryIO, member: RecoveredMember) -> bool:
    """Go to the header of the next member; False where its place cannot be known."""
    if member.size is not None:
        file.seek(member.start + member.size)
        return True
    if member.method != _DEFLATED or member.flags & _ENCRYPTED:
        return False
    try:
        for _ in _inflate(file):
            pass
    except CorruptFileError:
        return False
    if member.flags & _DATA_DESCRIPTOR_FLAG:
        mark = file.read(4)
        file.seek(12 if mark == _DESCRIPTOR_SIGNATURE else 8, 1)
    return True


def _read_stored(file: BinaryIO, size: int) -> Iterator[bytes]:
    while size:
        block = file.read(min(BLOCK_BYTES, size))
        if not block:
            raise CorruptFileError("cut off with the archive")
        size -= len(block)
        yield block


def _inflate(file: BinaryIO) -> Iterator[bytes]:
    """Unpack to the end of the data, and leave the file there."""
    decoder, read, written = zlib.decompressobj(wbits=-15), 0, 0
    while not decoder.eof:
        fed = decoder.unconsumed_tail or file.read(BLOCK_BYTES)
        if not fed:
            raise CorruptFileError("cut off with the archive")
        read += 0 if decoder.unconsumed_tail else len(fed)
        try:
            piece = decoder.decompress(fed, BLOCK_BYTES)
        except zlib.error as error:
            raise CorruptFileError(f"broken after {written:,} bytes: {error_reason(error)}") from None
        written += len(piece)
        check_zip_bomb(read, written)
        yield piece
    file.seek(-len(decoder.unused_data), 1)
