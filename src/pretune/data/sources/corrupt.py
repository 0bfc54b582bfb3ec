"""How a file that ends before its end is told from one that is whole."""

from __future__ import annotations

import os


class CorruptFileError(Exception):
    """A file cannot be read on from here; what came before is good, and the reason is a sentence."""


def error_reason(error: BaseException, prefix: str = "") -> str:
    """What another library's error says, in one line: the system's reason, or its own after ``prefix``."""
    if isinstance(error, OSError) and error.errno:
        return f"cannot be read: {os.strerror(error.errno)}"
    return prefix + str(error).partition("\n")[0].strip().rstrip(".")
