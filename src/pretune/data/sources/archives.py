"""Members of a zip archive, none of which is ever written to disk under its own name."""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path, PurePosixPath

from pretune.data.sources import zip_recovery
from pretune.data.sources.compression import BLOCK_BYTES, check_zip_bomb
from pretune.data.sources.corrupt import CorruptFileError, error_reason
from pretune.data.sources.discovery import is_hidden
from pretune.data.sources.input_file import InputFile
from pretune.data.sources.record_log import RecordLog

_UTF8_FLAG = 0x800
_ENCRYPTED = 0x1
_ZIP_ERRORS = (
    zipfile.BadZipFile,
    zlib.error,
    EOFError,
    NotImplementedError,
    RuntimeError,
    ValueError,
    OSError,
)
"""What ``zipfile`` raises for damage, encryption and methods that it does not know."""


def iter_members(path: Path, archive_name: str, log: RecordLog) -> Iterator[InputFile]:
    """The files in an archive, sorted by name; each is to be read before the next is asked for.

    ``archive_name`` is what errors call the archive. Of one that is cut off, the members that are left come
    in the order in which they lie there.

    Raises:
        Damage: it is no zip archive, or cut off.
    """
    try:
        archive = zipfile.ZipFile(path)
    except _ZIP_ERRORS as error:
        for left in zip_recovery.recover_members(path):
            if not left.name.endswith("/"):
                yield from _build_member(left.name, left.flags, left.blocks, archive_name, log)
        raise CorruptFileError(error_reason(error, "no zip archive, or cut off: ")) from None
    with archive:
        for info in sorted(archive.infolist(), key=lambda one: one.filename):
            if not info.is_dir():
                blocks = partial(_iter_member_blocks, archive, info)
                yield from _build_member(info.filename, info.flag_bits, blocks, archive_name, log)
            log.bytes_read += info.compress_size


def _build_member(
    member: str, flags: int, blocks: Callable[[], Iterator[bytes]], archive_name: str, log: RecordLog
) -> Iterator[InputFile]:
    inner = PurePosixPath(_decode_name(member, flags).replace("\\", "/"))
    name = f"{archive_name}/{inner}"
    if inner.is_absolute() or ".." in inner.parts or ":" in inner.parts[0]:
        log.reject_file(name, "its name leads out of the archive")
    elif any(map(is_hidden, inner.parts)):
        log.skip_file(name, "hidden")
    elif flags & _ENCRYPTED:
        log.reject_file(name, "it is encrypted: unpack the archive first")
    else:
        yield InputFile(name, inner.suffix.lower(), blocks)


def _decode_name(name: str, flags: int) -> str:
    """The name of a member; Windows writes Chinese ones in GBK and does not say so."""
    if flags & _UTF8_FLAG:
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


def _iter_member_blocks(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> Iterator[bytes]:
    written = 0
    try:
        with archive.open(info) as member:
            assert isinstance(member, zipfile.ZipExtFile)
            while block := member.read1(BLOCK_BYTES):
                written += len(block)
                check_zip_bomb(info.compress_size, written)
                yield block
    except _ZIP_ERRORS as error:
        raise CorruptFileError(f"damaged after {written:,} bytes: {error_reason(error)}") from None
