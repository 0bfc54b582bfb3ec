"""JSON files of model folders, judged by kind, size and depth before anything is built from them."""

from __future__ import annotations

import json
import stat
from pathlib import Path
from typing import Any

from pretune.errors import CheckpointError

MAX_BYTES = 128 << 20
"""Of a file; the largest published tokenizer.json has 35 MB."""
MAX_DEPTH = 64
"""Objects and lists within each other; published files have less than 12."""


def read_json(path: Path) -> Any:
    """What a JSON file holds.

    Raises:
        CheckpointError: it is missing, no regular file, too large or too deep, or no JSON in UTF-8.
    """
    try:
        check_regular_file(path)
        size = path.stat().st_size
        if size > MAX_BYTES:
            raise CheckpointError(f"{path}: {size:,} bytes, where {MAX_BYTES:,} are the most; fetch it again")
        value = json.loads(path.read_bytes().decode())
    except FileNotFoundError:
        raise CheckpointError(f"{path}: no such file; is this a model folder?") from None
    except RecursionError:
        raise CheckpointError(f"{path}: nested too deeply; fetch it again") from None
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path}: cannot be read as JSON: {error}") from None
    _check_depth(value, path)
    return value


def read_json_object(path: Path) -> dict[str, Any]:
    """As `read_json`, of a file that must hold an object.

    Raises:
        CheckpointError: what `read_json` raises, or it holds another value.
    """
    value = read_json(path)
    if not isinstance(value, dict):
        raise CheckpointError(f"{path}: expected an object, found {type(value).__name__}")
    return value


def check_regular_file(path: Path) -> None:
    """A pipe would be waited for without end, and a device read without end.

    Raises:
        CheckpointError: the path is neither a regular file nor a folder.
        FileNotFoundError: there is nothing.
    """
    mode = path.stat().st_mode
    if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
        raise CheckpointError(f"{path}: is a pipe or a device, and no file; it is not opened")


def check_folder_entries(folder: Path) -> None:
    """No entry of a model folder is a pipe or a device.

    Raises:
        CheckpointError: names the first that is.
    """
    for entry in sorted(folder.iterdir()):
        if entry.exists():  # a link that leads nowhere is missed where it is needed
            check_regular_file(entry)


def _check_depth(value: Any, path: Path) -> None:
    """Without recursion, level by level."""
    level = [value] if isinstance(value, dict | list) else []
    for _ in range(MAX_DEPTH):
        children: list[Any] = []
        for holder in level:
            items = (
                holder.values() if isinstance(holder, dict) else holder if isinstance(holder, list) else ()
            )
            children += [item for item in items if isinstance(item, dict | list)]
        if not children:
            return
        level = children
    raise CheckpointError(f"{path}: nested more than {MAX_DEPTH} levels deep; fetch it again")
