"""Prints functions beyond a screen (60 lines) and files beyond 400: often two things in one."""

from __future__ import annotations

import ast
from pathlib import Path

SOURCE = Path(__file__).parents[2] / "src" / "pretune"


def main() -> None:
    for path in sorted(SOURCE.rglob("*.py")):
        text = path.read_text(encoding="utf-8")
        lines = text.count("\n")
        if lines > 400:
            print(f"{path.relative_to(SOURCE)}: {lines} lines")
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef):
                length = (node.end_lineno or node.lineno) - node.lineno + 1
                if length > 60:
                    print(f"{path.relative_to(SOURCE)}:{node.lineno} {node.name}: {length} lines")


if __name__ == "__main__":
    main()
