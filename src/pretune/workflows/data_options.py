"""How the data of a command are read: as is said, else as what the model learnt from was read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from pretune.data.sources.columns import check_names
from pretune.data.sources.read_options import Reading
from pretune.model.model import Model


def text_reading(columns: Mapping[str, str] | None, encoding: str | None) -> Reading:
    """Texts alone, of columns that are named, in an encoding that is given.

    Raises:
        ConfigError: a column of another field, or an unknown encoding.
    """
    given = dict(columns or {})
    check_names(given, ("text",), "columns")
    return Reading(given, encoding)


def reading_of(
    model: Model, columns: Mapping[str, str] | None, encoding: str | None, fields: Sequence[str]
) -> Reading:
    """Columns that are named here must be there; those that the model knows count where a file has them.

    Raises:
        ConfigError: a column of a field that there is none of, or an unknown encoding.
    """
    given = dict(columns or {})
    check_names(given, fields, "columns")
    return Reading(given, encoding, model.about.get("columns", {}))
