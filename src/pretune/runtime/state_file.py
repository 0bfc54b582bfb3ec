"""State files: JSON that says where a piece of work stands, with a checksum and a form that are verified.

A flipped digit is still JSON: without a checksum, a run would go on with another plan and nobody would know.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pydantic

from pretune.errors import CheckpointError
from pretune.runtime import atomic_files

CHECKSUM = "sha256"
"""The key of the checksum, beside the content."""
_SHOWN = 200


class Form(pydantic.BaseModel):
    """Base of the forms of state files: what is declared has its type, other keys are let through."""

    model_config = pydantic.ConfigDict(extra="allow", strict=True)


def write(path: Path, content: Mapping[str, Any]) -> None:
    """Write ``content`` with its checksum, whole or not at all."""
    plain = json.loads(json.dumps(content, ensure_ascii=False))
    atomic_files.write_json(path, {**plain, CHECKSUM: checksum(plain)})


def read(path: Path, way_out: str, form: type[pydantic.BaseModel] | None = None) -> dict[str, Any] | None:
    """The content of a file that :func:`write` wrote; None where there is none.

    Args:
        way_out: what to do about a damaged one, as an error says it.

    Raises:
        CheckpointError: its content is not what was written, or not of the form; names the file.
    """
    found = read_any(path, way_out)
    if found is None:
        return None
    kept = found.pop(CHECKSUM, None)
    if kept is None:
        raise damaged(path, "it has no checksum (sha256)", way_out)
    if kept != checksum(found):
        raise damaged(path, "its content changed after it was written (SHA-256 differs)", way_out)
    if form is not None:
        check(path, found, form, way_out)
    return found


def read_any(path: Path, way_out: str) -> dict[str, Any] | None:
    """The object in a JSON file, whoever wrote it; None where there is none.

    Raises:
        CheckpointError: it is no JSON object; names the file.
    """
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, RecursionError) as error:
        raise damaged(path, str(error) or "too deep", way_out) from None
    if not isinstance(found, dict):
        raise damaged(path, "expected an object", way_out)
    return found


def check(path: Path, content: Any, form: type[pydantic.BaseModel], way_out: str) -> None:
    """See that ``content``, read from ``path``, is of a form.

    Raises:
        CheckpointError: names the file and the first key that is not.
    """
    try:
        form.model_validate(content)
    except pydantic.ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(map(str, first["loc"])) or "content"
        given = "" if first["type"] == "missing" else f" = {str(first['input'])[:50]!r}"
        raise damaged(path, f"{where}{given}: {first['msg']}", way_out) from None


def checksum(content: Mapping[str, Any]) -> str:
    """SHA-256 (hex) of what JSON can hold."""
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def damaged(path: Path, why: str, way_out: str) -> CheckpointError:
    """The error of a file that cannot be believed."""
    return CheckpointError(f"{path}: damaged: {why[:_SHOWN]}; {way_out}")
