"""State files: JSON that says where a piece of work stands, with a checksum and a form that are verified.

A flipped digit is still JSON: without a checksum, a run would go on with another plan and nobody would know.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import pydantic

from pretune.errors import CheckpointError
from pretune.runtime import atomic_files

CHECKSUM_KEY = "sha256"
"""The key of the checksum, beside the content."""
RENAMED_KEYS_PAGE = "docs/renamed-keys.md"
"""What each key, option and file was called before, and what to do with a file that has the old name."""
_MAX_REASON = 200


class RenamedKeyError(ValueError):
    """A file has a key that has another name now."""


class StateSchema(pydantic.BaseModel):
    """Base of the forms of state files: what is declared has its type, other keys are let through."""

    model_config = pydantic.ConfigDict(extra="allow", strict=True)
    old_keys: ClassVar[Mapping[str, str]] = {}
    """What a key was called before -> its name now."""

    @pydantic.model_validator(mode="before")
    @classmethod
    def _reject_old_keys(cls, values: Any) -> Any:
        for old, new in cls.old_keys.items() if isinstance(values, Mapping) else ():
            if old in values:
                raise RenamedKeyError(f"key {old!r} is called {new!r} now")
        return values


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
        raise corrupt_error(path, "it has no checksum (sha256)", advice)
    if expected != checksum(content):
        raise corrupt_error(path, "its content changed after it was written (SHA-256 differs)", advice)
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
        raise corrupt_error(path, str(error) or "too deep", advice) from None
    if not isinstance(content, dict):
        raise corrupt_error(path, "expected an object", advice)
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
        renamed = first.get("ctx", {}).get("error")
        if isinstance(renamed, RenamedKeyError):
            raise renamed_error(path, str(renamed), advice) from None
        where = ".".join(map(str, first["loc"])) or "content"
        given = "" if first["type"] == "missing" else f" = {str(first['input'])[:50]!r}"
        raise corrupt_error(path, f"{where}{given}: {first['msg']}", advice) from None


def checksum(content: Mapping[str, Any]) -> str:
    """SHA-256 (hex) of what JSON can hold."""
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def corrupt_error(path: Path, reason: str, advice: str) -> CheckpointError:
    """The error of a file that cannot be believed."""
    return CheckpointError(f"{path}: damaged: {reason[:_MAX_REASON]}; {advice}")


def renamed_error(path: Path, reason: str, advice: str) -> CheckpointError:
    """The error of a file that an earlier version wrote, with other names of keys."""
    return CheckpointError(
        f"{path}: {reason}: an earlier version wrote it ({RENAMED_KEYS_PAGE} has all names); {advice}"
    )
