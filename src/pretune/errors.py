"""The errors that pretune raises on purpose: each names the thing, the value and the way out."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from pathlib import Path


class PretuneError(Exception):
    """Base of every error that a user can cause and mend; the command line prints it and exits.

    ``exit_code`` is what the command line returns: 1 for a failure, 2 for wrong usage.
    """

    exit_code = 1


class UsageError(PretuneError):
    """A wrong argument or combination of arguments."""

    exit_code = 2


class ConfigError(UsageError):
    """A configuration key or value that pretune does not take."""


class DataError(PretuneError):
    """Text or records that cannot be used; names file and line where there is one."""


class ChecksumError(DataError):
    """A file of a prepared text is no longer what pretune wrote; it can be made anew from its source."""

    def __init__(self, path: Path, why: str) -> None:
        super().__init__(f"{path}: {why}")
        self.path = path


class CheckpointError(PretuneError):
    """A model folder or checkpoint that is damaged, foreign or unsafe to load."""


class NotFiniteError(PretuneError):
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


def suggestion(name: str, known: Iterable[str]) -> str:
    """``did you mean 'x'?`` where a known name is near, and the list of them where none is."""
    known = list(known)
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.6)
    return f"did you mean {near[0]!r}?" if near else "there are: " + ", ".join(known)
