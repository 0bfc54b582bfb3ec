"""Help is instant, and every verb shows an example."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import pretune
from pretune.cli.main import verbs

VERBS = tuple(verbs())
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(Path(pretune.__file__).parents[1])}


def python(*words: str) -> str:
    done = subprocess.run(
        [sys.executable, *words], env=ENVIRONMENT, capture_output=True, text=True, check=True
    )
    return done.stdout


@pytest.mark.alone
def test_help_answers_in_half_a_second() -> None:
    times = []
    for _ in range(5):
        began = time.monotonic()
        out = python("-m", "pretune.cli.main", "--help")
        times.append(time.monotonic() - began)
    assert min(times) < 0.5  # what else the machine does only adds to it
    assert all(verb.NAME in out for verb in VERBS)


@pytest.mark.parametrize("module", ["pretune", "pretune.cli.main", *(f"pretune.cli.{v.NAME}" for v in VERBS)])
def test_no_import_brings_torch(module: str) -> None:
    heavy = "{'torch', 'numpy', 'tokenizers', 'pydantic', 'sklearn', 'matplotlib'}"
    assert python("-c", f"import sys, {module}; print(sorted({heavy} & sys.modules.keys()))").strip() == "[]"


@pytest.mark.parametrize("verb", VERBS, ids=lambda verb: verb.NAME)
def test_every_verb_shows_an_example(verb: Any, cli: Callable[..., Any]) -> None:
    said = cli(verb.NAME, "--help")
    assert said.code == 0
    assert f"pretune {verb.NAME}" in said.out.partition("Example")[2]
    assert "--json" in said.out


def test_public_names_are_found(capsys: pytest.CaptureFixture[str]) -> None:
    assert all(callable(getattr(pretune, name)) for name in pretune.__all__)
    with pytest.raises(AttributeError, match="nothing_such"):
        _ = pretune.nothing_such
