"""How the data of a command are read: as is said, else as what the model learnt from was read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from pretune.data.sources.columns import check_column_names
from pretune.data.sources.read_options import ReadOptions
from pretune.model.model import Model


def text_reading(columns: Mapping[str, str] | None, encoding: str | None) -> ReadOptions:
    """Texts alone, of columns that are named, in an encoding that is given.

    Raises:
        ConfigError: a column of another field, or an unknown encoding.
    """
    given = dict(columns or {})
    check_column_names(given, ("text",), "columns")
    return ReadOptions(given, encoding)


def reading_for_model(
    model: Model, columns: Mapping[str, str] | None, encoding: str | None, fields: Sequence[str]
) -> ReadOptions:
    """Columns that are named here must be there; those that the model knows count where a file has them.

    Raises:
        ConfigError: a column of a field that there is none of, or an unknown encoding.
    """
    given = dict(columns or {})
    check_column_names(given, fields, "columns")
    return ReadOptions(given, encoding, model.metadata.get("columns", {}))
