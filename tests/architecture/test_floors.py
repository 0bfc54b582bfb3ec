"""A module imports only from floors below its own; rooms on one floor do not import each other."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[2] / "src" / "pretune"

FLOORS: list[tuple[str, ...]] = [
    ("errors",),
    ("types",),
    ("config",),
    ("arguments", "json_files"),
    ("registry",),
    ("nn", "text", "checkpoint"),
    ("families", "data", "metrics"),
    ("objectives", "tasks", "generation"),
    ("training", "prediction"),
    ("model",),
    ("evaluation", "explain", "audit", "compress", "planning", "serve", "report"),
    ("workflows",),
    ("cli",),
]
FLOOR = {room: number for number, rooms in enumerate(FLOORS) for room in rooms}
MODULES = sorted(SOURCE.rglob("*.py"))


def room_of(parts: tuple[str, ...]) -> str:
    return parts[0].removesuffix(".py") if parts else "__init__"


def imported(path: Path) -> list[tuple[int, str]]:
    """(line, dotted name below ``pretune``) of every import of our own, relative ones resolved."""
    package = ("pretune", *path.relative_to(SOURCE).parts[:-1])
    found = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            targets = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = ".".join(package[: len(package) - node.level + 1]) if node.level else ""
            stem = ".".join(part for part in (base, node.module or "") if part)
            # `from pretune import config` imports the module `pretune.config`
            targets = [f"{stem}.{alias.name}" for alias in node.names]
        else:
            continue
        found += [(node.lineno, name[len("pretune.") :]) for name in targets if name.startswith("pretune.")]
    return found


def test_every_room_has_a_floor() -> None:
    rooms = {room_of(path.relative_to(SOURCE).parts) for path in MODULES} - {"__init__", "__main__"}
    assert rooms <= FLOOR.keys()


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(SOURCE)))
def test_imports_go_down(path: Path) -> None:
    parts = path.relative_to(SOURCE).parts
    room = room_of(parts)
    if room in ("__init__", "__main__"):
        return  # the public face stands above all floors
    wrong = []
    for line, name in imported(path):
        other = name.split(".")[0]
        if other == room and len(parts) > 1:
            continue
        if other not in FLOOR:
            continue  # a name of the public face, such as __version__
        if FLOOR[other] >= FLOOR[room]:
            wrong.append(f"line {line}: {room} imports {other}")
    assert not wrong
