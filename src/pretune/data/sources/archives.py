"""Members of a zip archive, none of which is ever written to disk under its own name."""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path, PurePosixPath

from pretune.data.sources import zip_recovery
from pretune.data.sources.compression import BLOCK_BYTES, refuse_bomb
from pretune.data.sources.corrupt import Damage, told
from pretune.data.sources.discovery import is_hidden
from pretune.data.sources.input_file import Item
from pretune.data.sources.record_log import RecordLog

_SAYS_UTF8 = 0x800
_ENCRYPTED = 0x1
_FAULTS = (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError, ValueError, OSError)
"""What ``zipfile`` raises for damage, encryption and methods that it does not know."""


def members(path: Path, said: str, log: RecordLog) -> Iterator[Item]:
    """The files in an archive, sorted by name; each is to be read before the next is asked for.

    ``said`` is what errors call the archive. Of one that is cut off, the members that are left come in the
    order in which they lie there.

    Raises:
        Damage: it is no zip archive, or cut off.
    """
    try:
        archive = zipfile.ZipFile(path)
    except _FAULTS as error:
        for left in zip_recovery.found(path):
            if not left.name.endswith("/"):
                yield from _item(left.name, left.flags, left.blocks, said, log)
        raise Damage(told(error, "no zip archive, or cut off: ")) from None
    with archive:
        for info in sorted(archive.infolist(), key=lambda one: one.filename):
            if not info.is_dir():
                blocks = partial(_blocks, archive, info)
                yield from _item(info.filename, info.flag_bits, blocks, said, log)
            log.bytes_read += info.compress_size


def _item(
    member: str, flags: int, blocks: Callable[[], Iterator[bytes]], said: str, log: RecordLog
) -> Iterator[Item]:
    inner = PurePosixPath(_readable(member, flags).replace("\\", "/"))
    name = f"{said}/{inner}"
    if inner.is_absolute() or ".." in inner.parts or ":" in inner.parts[0]:
        log.reject_file(name, "its name leads out of the archive")
    elif any(map(is_hidden, inner.parts)):
        log.leave_out(name, "hidden")
    elif flags & _ENCRYPTED:
        log.reject_file(name, "it is encrypted: unpack the archive first")
    else:
        yield Item(name, inner.suffix.lower(), blocks)


def _readable(name: str, flags: int) -> str:
    """The name of a member; Windows writes Chinese ones in GBK and does not say so."""
    if flags & _SAYS_UTF8:
        return name
    try:
        raw = name.encode("cp437")
    except UnicodeEncodeError:
        return name
    for encoding in ("utf-8", "gb18030"):
        try:
            return raw.decode(encoding)
        except UnicodeDecodeError:
            continue
    return name


def _blocks(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> Iterator[bytes]:
    written = 0
    try:
        with archive.open(info) as member:
            assert isinstance(member, zipfile.ZipExtFile)
            while block := member.read1(BLOCK_BYTES):
                written += len(block)
                refuse_bomb(info.compress_size, written)
                yield block
    except _FAULTS as error:
        raise Damage(f"damaged after {written:,} bytes: {told(error)}") from None
