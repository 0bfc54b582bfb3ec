"""What only some verbs need is an extra: the others do without it, and a verb that misses it names it."""

from __future__ import annotations

import os
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import pretune
from pretune.errors import EXTRAS, missing_library

ROOT = Path(__file__).parents[2]
NAMES = {"sklearn": "scikit-learn"}
"""Module to what pip calls it, where the two differ."""


def run(script: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """A script in a process in which the libraries of the extras cannot be imported."""
    blocked = f"import sys; sys.modules.update(dict.fromkeys({list(EXTRAS)!r}))\n"
    environment = {**os.environ, "PYTHONPATH": str(Path(pretune.__file__).parents[1])}
    return subprocess.run(
        [sys.executable, "-c", blocked + script], cwd=folder, env=environment, capture_output=True, text=True
    )


def test_the_extras_are_those_of_the_package() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    for module, extra in EXTRAS.items():
        name = NAMES.get(module, module)
        assert any(wanted.startswith(name) for wanted in project["optional-dependencies"][extra])
        assert not any(wanted.startswith(name) for wanted in project["dependencies"])


def test_a_missing_module_of_no_extra_stays_what_it_is() -> None:
    assert missing_library(ModuleNotFoundError("no", name="nothing.below")) is None
    told = missing_library(ModuleNotFoundError("no", name="sklearn.linear_model"))
    assert str(told) == "this needs the library sklearn: run `pip install 'pretune[train]'`"


@pytest.mark.slow
def test_who_uses_models_needs_no_extra_and_a_page_names_its_own(tmp_path: Path) -> None:
    (tmp_path / "a.html").write_text("<html><body><p>A page.</p></body></html>")
    script = """
import pretune.workflows.predict.predict, pretune.workflows.evaluate, pretune.workflows.score
import pretune.workflows.generate, pretune.workflows.export, pretune.workflows.tokenizer
import pretune.workflows.data.inspect
import pretune
for call in (lambda: pretune.inspect_data("a.html"), lambda: pretune.finetune):
    try:
        call()
    except pretune.PretuneError as error:
        print(error)
"""
    done = run(script, tmp_path)
    assert done.stderr == ""
    assert "trafilatura: run `pip install 'pretune[html]'`" in done.stdout.splitlines()[0]
    assert "run `pip install 'pretune[train]'`" in done.stdout.splitlines()[1]


@pytest.mark.slow
def test_a_verb_that_misses_a_library_names_its_extra(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("A text.")
    script = """
from pretune.cli.main import main
sys.argv = ["pretune", "pretrain", "a.txt"]
main()
"""
    done = run(script, tmp_path)
    assert done.returncode == 2
    assert "pip install 'pretune[train]'" in done.stderr
    assert "Traceback" not in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["a.txt"]
