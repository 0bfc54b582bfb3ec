"""How a user's files are read: which columns are which fields, and in what encoding."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from pretune.data.sources.charsets import check_encoding


@dataclass(frozen=True)
class ReadOptions:
    """What a user says of the files, and what is known from a model.

    Raises:
        ConfigError: Python has no such encoding.
    """

    columns: Mapping[str, str] = field(default_factory=dict)
    """Field to the column that it is read from."""
    encoding: str | None = None
    """Of the files that are neither UTF-8 nor marked otherwise; None: it is recognised."""
    usual: Mapping[str, str] = field(default_factory=dict)
    """Field to the column that a model learnt it from: taken where a file has it."""

    def __post_init__(self) -> None:
        if self.encoding is not None:
            check_encoding(self.encoding)
