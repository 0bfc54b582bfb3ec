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

CHECKSUM_KEY = "sha256"
"""The key of the checksum, beside the content."""
_MAX_REASON = 200


class StateSchema(pydantic.BaseModel):
    """Base of the forms of state files: what is declared has its type, other keys are let through."""

    model_config = pydantic.ConfigDict(extra="allow", strict=True)


def write(path: Path, content: Mapping[str, Any]) -> None:
    """Write ``content`` with its checksum, whole or not at all."""
    plain = json.loads(json.dumps(content, ensure_ascii=False))
    atomic_files.write_json(path, {**plain, CHECKSUM_KEY: checksum(plain)})


def read(path: Path, advice: str, schema: type[pydantic.BaseModel] | None = None) -> dict[str, Any] | None:
    """The content of a file that :func:`write` wrote; None where there is none.

    Args:
        advice: what to do about a damaged one, as an error says it.

    Raises:
        CheckpointError: its content is not what was written, or not of the form; names the file.
    """
    content = read_unverified(path, advice)
    if content is None:
        return None
    expected = content.pop(CHECKSUM_KEY, None)
    if expected is None:
        raise damaged_error(path, "it has no checksum (sha256)", advice)
    if expected != checksum(content):
        raise damaged_error(path, "its content changed after it was written (SHA-256 differs)", advice)
    if schema is not None:
        check_schema(path, content, schema, advice)
    return content


def read_unverified(path: Path, advice: str) -> dict[str, Any] | None:
    """The object in a JSON file, whoever wrote it; None where there is none.

    Raises:
        CheckpointError: it is no JSON object; names the file.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, RecursionError) as error:
        raise damaged_error(path, str(error) or "too deep", advice) from None
    if not isinstance(content, dict):
        raise damaged_error(path, "expected an object", advice)
    return content


def check_schema(path: Path, content: Any, schema: type[pydantic.BaseModel], advice: str) -> None:
    """See that ``content``, read from ``path``, is of a form.

    Raises:
        CheckpointError: names the file and the first key that is not.
    """
    try:
        schema.model_validate(content)
    except pydantic.ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(map(str, first["loc"])) or "content"
        given = "" if first["type"] == "missing" else f" = {str(first['input'])[:50]!r}"
        raise damaged_error(path, f"{where}{given}: {first['msg']}", advice) from None


def checksum(content: Mapping[str, Any]) -> str:
    """SHA-256 (hex) of what JSON can hold."""
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def damaged_error(path: Path, reason: str, advice: str) -> CheckpointError:
    """The error of a file that cannot be believed."""
    return CheckpointError(f"{path}: damaged: {reason[:_MAX_REASON]}; {advice}")
