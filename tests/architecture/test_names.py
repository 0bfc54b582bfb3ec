"""Names are the words that engineers of the field search for: words that are none stand in no name.

Names here are those of functions, classes, fields, attributes, parameters and constants, taken apart at
underscores and capitals. Local variables are left alone.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[2] / "src" / "pretune"
WORDS = frozenset(
    [
        "accepted",
        "acquired",
        "adjusted",
        "adopt",
        "adopted",
        "agree",
        "agreed",
        "alike",
        "alone",
        "anew",
        "apart",
        "arm",
        "arms",
        "aside",
        "asked",
        "asks",
        "begun",
        "beside",
        "beyond",
        "blind",
        "carried",
        "chances",
        "concluded",
        "corrected",
        "cutting",
        "damaged",
        "decided",
        "deepest",
        "described",
        "distils",
        "doing",
        "elsewhere",
        "explained",
        "farthest",
        "fitted",
        "folded",
        "framed",
        "grave",
        "gravest",
        "gravity",
        "growing",
        "grown",
        "gunzipped",
        "headed",
        "heard",
        "hiding",
        "holds",
        "hopeless",
        "infilled",
        "instead",
        "joints",
        "judge",
        "judged",
        "judges",
        "keeper",
        "kind",
        "kinds",
        "knowledge",
        "lead",
        "learnt",
        "least",
        "listening",
        "lives",
        "magnitude",
        "marked",
        "mended",
        "misfit",
        "moot",
        "neighbours",
        "orthogonalised",
        "outline",
        "pace",
        "packs",
        "parts",
        "perhaps",
        "permuted",
        "places",
        "pretrains",
        "ran",
        "reach",
        "reaches",
        "recalled",
        "recoded",
        "refusals",
        "rehearse",
        "remarkable",
        "renumbered",
        "reopened",
        "rivals",
        "rooms",
        "salvage",
        "scorings",
        "settle",
        "settled",
        "shortened",
        "sightings",
        "singly",
        "sketch",
        "somewhere",
        "sought",
        "spaced",
        "speaks",
        "spool",
        "spooled",
        "stretch",
        "stretches",
        "suits",
        "surely",
        "survey",
        "survived",
        "tally",
        "taught",
        "telling",
        "tokenised",
        "told",
        "tried",
        "truth",
        "tuned",
        "tunes",
        "turned",
        "turns",
        "unfit",
        "unlearnt",
        "unmarked",
        "unmixed",
        "wanted",
        "watched",
        "weighs",
        "wherefrom",
        "widened",
        "widest",
        "wobble",
        "worth",
    ]
)


def names(tree: ast.AST) -> Iterator[str]:
    """Every name that is more than a local variable's."""
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            yield node.name
        elif isinstance(node, ast.arg):
            yield node.arg
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
            yield node.attr
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            yield node.target.id
        elif isinstance(node, ast.Assign):
            yield from (t.id for t in node.targets if isinstance(t, ast.Name) and t.id.isupper())


def words(name: str) -> set[str]:
    return {word.lower() for word in re.findall(r"[A-Z]+(?![a-z])|[A-Z]?[a-z0-9]+", name)}


@pytest.mark.parametrize("path", sorted(SOURCE.rglob("*.py")), ids=lambda path: str(path.relative_to(SOURCE)))
def test_names_are_the_words_of_the_field(path: Path) -> None:
    found = {name: words(name) & WORDS for name in names(ast.parse(path.read_text(encoding="utf-8")))}
    assert {name: sorted(there) for name, there in found.items() if there} == {}


def test_a_name_is_taken_apart() -> None:
    assert words("_whole_of") == {"whole", "of"}
    assert words("StepBatches") == {"step", "batches"}
    assert words("MAX_LINES") == {"max", "lines"}
