"""A module imports only from layers below its own; packages of one layer do not import each other."""

from __future__ import annotations

import ast
from collections.abc import Sequence
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[2] / "src" / "pretune"

LAYERS: list[tuple[str, ...]] = [
    ("errors",),
    ("types",),
    ("config",),
    ("arguments", "registry"),
    ("runtime",),
    ("nn", "text", "checkpoint"),
    ("data/sources",),
    ("data/cleaning",),
    ("data/corpus",),
    ("data", "metrics"),
    ("families", "generation", "baselines"),
    ("objectives", "tasks"),
    ("training", "inference"),
    ("model",),
    ("evaluation", "report"),
    ("explain", "audit", "compress", "planning", "serve"),
    ("workflows",),
    ("cli",),
]
"""Packages, or their folders where these have an order of their own, from the lowest layer to the highest."""
LAYER = {package: number for number, packages in enumerate(LAYERS) for package in packages}
MODULES = sorted(SOURCE.rglob("*.py"))


def package_of(parts: Sequence[str]) -> str:
    """The longest of the names in `LAYERS` that a module stands under."""
    names = [part.removesuffix(".py") for part in parts]
    return next(("/".join(names[:n]) for n in (2, 1) if "/".join(names[:n]) in LAYER), names[0])


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


def test_every_package_has_a_layer() -> None:
    packages = {path.relative_to(SOURCE).parts[0].removesuffix(".py") for path in MODULES}
    assert packages - {"__init__", "__main__"} <= {name.split("/")[0] for name in LAYER}


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(SOURCE)))
def test_imports_go_down(path: Path) -> None:
    package = package_of(path.relative_to(SOURCE).parts)
    if package in ("__init__", "__main__"):
        return  # the public names stand above all layers
    wrong = []
    for line, name in imported(path):
        other = package_of(name.split("."))
        if other == package or other not in LAYER:
            continue  # its own package, or a name of the public face, such as __version__
        if LAYER[other] >= LAYER[package]:
            wrong.append(f"line {line}: {package} imports {other}")
    assert not wrong
