"""The errors that pretune raises on purpose: each names the thing, the value and the way out."""

from __future__ import annotations

import difflib
import re
import reprlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

MAX_QUOTED = 80
"""Characters of a value that a message repeats."""
MAX_LINE_LENGTH, MAX_LINES = 1_000, 60
"""Most characters of a line of a message, and most lines: whatever a file holds, its message can be read."""
_UNSAFE = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff]")
_MAX_INT = 10**MAX_QUOTED
"""Larger numbers are not written out: Python refuses to from 4,300 digits on."""


class _BoundedRepr(reprlib.Repr):
    """``repr`` of bounded length and depth, which never writes a large value out first."""

    def __init__(self) -> None:
        super().__init__()
        self.maxlevel, self.maxstring, self.maxother = 4, MAX_QUOTED, MAX_QUOTED

    def repr_int(self, value: int, level: int) -> str:
        """A number as it is written, where that is short."""
        return repr(value) if -_MAX_INT < value < _MAX_INT else f"a number of {value.bit_length()} bits"


def quote(value: Any) -> str:
    """``repr`` of a value from outside, cut to a length that a message can repeat."""
    text = _BoundedRepr().repr(value)
    return text if len(text) <= 2 * MAX_QUOTED else f"{text[:MAX_QUOTED]}...{text[-MAX_QUOTED // 4 :]}"


def shorten(text: str) -> str:
    """``text`` with each line, and their number, bounded, and without what would steer a terminal."""
    lines = text.split("\n", MAX_LINES)
    if len(lines) > MAX_LINES:
        lines[MAX_LINES:] = ["..."]
    cut = (
        line
        if len(line) <= MAX_LINE_LENGTH
        else f"{line[: MAX_LINE_LENGTH // 2]} ... {line[-MAX_LINE_LENGTH // 2 :]}"
        for line in lines
    )
    return _UNSAFE.sub(lambda match: ascii(match[0])[1:-1], "\n".join(cut))


class PretuneError(Exception):
    """Base of every error that a user can cause and mend; the command line prints it and exits.

    ``exit_code`` is what the command line returns: 1 for a failure, 2 for wrong usage.
    """

    exit_code = 1

    def __init__(self, message: str = "") -> None:
        super().__init__(shorten(message))


class UsageError(PretuneError):
    """A wrong argument or combination of arguments."""

    exit_code = 2


class ConfigError(UsageError):
    """A configuration key or value that pretune does not take."""


class DataError(PretuneError):
    """Text or records that cannot be used; names file and line where there is one."""


class ChecksumError(DataError):
    """A file of a prepared text is no longer what pretune wrote; it can be made anew from its source."""

    def __init__(self, path: Path, reason: str) -> None:
        super().__init__(f"{path}: {reason}")
        self.path = path


class CheckpointError(PretuneError):
    """A model folder or checkpoint that is damaged, foreign or unsafe to load."""


class NonFiniteError(PretuneError):
    """A network computes NaN or infinity; who knows its folder names that."""


class UnsupportedError(PretuneError):
    """A combination that a family, objective or task declares it does not have."""


class TrainingError(PretuneError):
    """Training cannot go on: the loss is not finite, or nothing is left to learn from."""


class Interrupted(PretuneError):
    """A signal stopped the run after a checkpoint was saved; the same command goes on."""

    exit_code = 3


class RankError(PretuneError):
    """Of several processes that train together, one failed where the first had not."""


EXTRAS = {"matplotlib": "train", "sklearn": "train", "tensorboard": "train", "trafilatura": "html"}
"""Libraries that only an extra installs: the module that is missed, and the extra that brings it."""


def missing_library(error: ModuleNotFoundError) -> UsageError | None:
    """What to install for a module that is missed; None: it belongs to no extra."""
    module = str(error.name).partition(".")[0]
    extra = EXTRAS.get(module)
    if extra is None:
        return None
    return UsageError(f"this needs the library {module}: run `pip install 'pretune[{extra}]'`")


def suggestion(name: str, known: Iterable[str], parent: str = "") -> str:
    """``did you mean 'x'?`` where a known name is near, and the list of them where none is.

    Near is one that differs by a slip, or else one with all the words of ``name`` and more: ``rate`` and
    ``mask_rate``. ``parent``: the key that all of them stand below, which is shown before the name.
    """
    known, name = list(known), name[:MAX_QUOTED]
    slips = difflib.get_close_matches(name, known, n=1, cutoff=0.8)
    longer = [key for key in known if set(name.split("_")) < set(key.split("_"))]
    near = slips or longer[:1] or difflib.get_close_matches(name, known, n=1, cutoff=0.6)
    prefix = f"{parent}." if parent else ""
    return f"did you mean {prefix + near[0]!r}?" if near else "there are: " + ", ".join(known)
