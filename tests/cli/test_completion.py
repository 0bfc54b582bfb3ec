"""The shell is told how a half-typed command may go on."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import pretune
from pretune.cli.main import verbs
from pretune.registry import list_names

PROGRAM = "import sys; sys.argv[0] = 'pretune'; from pretune.cli.main import main; main()"


def completed(typed: str, shell: str = "bash") -> list[str]:
    """What a shell is offered for the last word of ``sanitize_texts``; it asks by these environment
    variables.
    """
    words = typed.split(" ")
    asked = {"COMP_WORDS": typed, "COMP_CWORD": str(len(words) - 1), "_TYPER_COMPLETE_ARGS": typed,
             "_TYPER_COMPLETE_FISH_ACTION": "get-args"}  # fmt: skip
    environment = {
        **os.environ, **asked, "PYTHONPATH": str(Path(pretune.__file__).parents[1]),
        "_PRETUNE_COMPLETE": f"complete_{shell}",
    }  # fmt: skip
    said = subprocess.run([sys.executable, "-c", PROGRAM], env=environment, capture_output=True, text=True)
    assert said.stderr == ""
    return said.stdout.split()


def test_verbs_are_completed() -> None:
    assert completed("pretune gen") == ["generate"]
    assert set(completed("pretune ")) >= {verb.NAME for verb in verbs()}


@pytest.mark.parametrize(
    ("typed", "wanted"),
    [
        ("pretune pretrain --family ", list_names("families")),
        (
            "pretune pretrain --family ber",
            [name for name in list_names("families") if name.startswith("ber")],
        ),
        ("pretune finetune runs/a --task class", [n for n in list_names("tasks") if n.startswith("class")]),
        ("pretune generate runs/a --num-r", ["--num-return-sequences"]),
    ],
)
def test_options_and_the_names_that_they_take_are_completed(typed: str, wanted: list[str]) -> None:
    assert wanted
    assert completed(typed) == wanted


def test_other_shells_are_answered_too() -> None:
    assert "generate" in "".join(completed("pretune gen", "zsh"))
    assert "generate" in completed("pretune gen", "fish")
