"""What the pages and the help print can be typed: every command parses, every link leads somewhere."""

from __future__ import annotations

import ast
import inspect
import re
import shlex
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import pytest
import typer
import yaml

import pretune
from pretune.cli.main import app, verbs
from pretune.cli.shared import merge_settings, split_arguments
from pretune.config import build_settings
from pretune.objectives import parse_objective
from pretune.registry import find
from pretune.training.duration import parse_duration
from pretune.workflows.data import folder
from pretune.workflows.finetune import finetune as finetuning
from pretune.workflows.pretrain import pretrain as pretraining
from pretune.workflows.quickstart import quickstart as starting

ROOT = Path(__file__).resolve().parents[2]
READMES = (ROOT / "README.md", ROOT / "README.zh-CN.md")
PAGES = (*READMES, *sorted((ROOT / "docs").rglob("*.md")))
VERBS = {verb.NAME: verb for verb in verbs()}
GROUP = typer.main.get_command(app)
_FENCE = re.compile(r"^```(\w+)[^\n]*\n(.*?)^```", re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"\]\(([^)\s]+)\)")
_FIGURE = re.compile(r"[+-]?[\d?][\d?.,]*")


@dataclass(frozen=True)
class Command:
    """A ``pretune ...`` line, with the settings file that its page shows before it."""

    where: str
    words: tuple[str, ...]
    settings: str = ""
    standard_input: str = ""
    """The file that the line redirects into it."""

    @property
    def verb(self) -> str:
        return self.words[1] if len(self.words) > 1 else ""


def commands_of(script: str, where: str, settings: str = "") -> Iterator[Command]:
    for line in script.replace("\\\n", " ").splitlines():
        words = shlex.split(line, comments=True)
        while words and re.fullmatch(r"[A-Z_]+=\S*", words[0]):  # OMP_NUM_THREADS=2 pretune ...
            del words[0]
        if words and words[0] == "torchrun":
            del words[: words.index("pretune")]
        if words and words[0] == "pretune":
            end = next((i for i, word in enumerate(words) if word in (">", "<", "|", "&&")), len(words))
            given = words[words.index("<") + 1] if "<" in words else ""
            yield Command(where, tuple(words[:end]), settings, given)


def commands_on(page: Path) -> Iterator[Command]:
    settings = ""
    for kind, body in _FENCE.findall(page.read_text(encoding="utf-8")):
        settings = body if kind == "yaml" else settings
        if kind == "bash":
            yield from commands_of(body, str(page.relative_to(ROOT)), settings)


def commands_in_help() -> Iterator[Command]:
    for name, verb in VERBS.items():
        yield from commands_of(verb.HELP, f"pretune {name} --help")


COMMANDS = [*(c for page in PAGES for c in commands_on(page)), *commands_in_help()]


def resolve(command: Command, options: dict[str, Any], model: Callable[[], Path]) -> None:
    """The settings of a command that has them, read as its verb reads them, down to model and objective.

    ``model`` gives the model that stands for the one a page fine-tunes: its defaults are read off it.
    """
    if command.verb == "data":
        if "rules" in options:  # `inspect` takes no settings
            cleaning = {key: options[key] for key in ("rules", "deduplicate", "decontaminate")}
            folder.resolve(VERBS["data"].gathered(options["words"], options["config"], cleaning), {})
        return
    paths, assignments = split_arguments(options["words"] or [])
    kept = ("family", "budget", "tokenizer", "language", "task", "train", "validation", "test")
    values = {key: options[key] for key in kept if options.get(key) is not None}
    if command.verb == "pretrain":
        values |= {"corpus": paths} if paths else {}
    elif paths:
        values["model"] = str(model())
    if options["config"]:
        assert command.settings, "--config stands behind a yaml block with the file"
        values = yaml.safe_load(command.settings) | values
    values = merge_settings(None, values, assignments)
    if command.verb == "finetune":
        resolved = finetuning.resolve(values | {"model": str(model())}, {})
        assert resolved.budget == values.get("budget", finetuning.AUTO)
        return
    settings = pretraining.resolve(values, {})
    parse_duration(settings.budget)
    build_settings(find("families", settings.family).Config, settings.model, where="model")
    parse_objective(str(settings.objective)).check_options(settings.objective_options, "objective")


def test_there_are_commands_to_check() -> None:
    assert {command.verb for command in COMMANDS} >= set(VERBS)
    assert {c.verb for c in commands_in_help()} == set(VERBS), "each verb's help shows it in use"


@pytest.mark.parametrize("command", COMMANDS, ids=lambda c: f"{c.where}: {' '.join(c.words[1:])}")
def test_a_printed_command_parses(command: Command, request: pytest.FixtureRequest) -> None:
    assert isinstance(GROUP, click.Group | typer.core.TyperGroup)
    if command.verb.startswith("-"):
        known = {name for parameter in GROUP.params for name in parameter.opts} | {"--help", "-h"}
        assert command.verb in known
        return
    assert command.verb in VERBS, f"there is no verb {command.verb!r}"
    verb = GROUP.commands[command.verb]
    words = [word for word in command.words[2:] if word not in ("--help", "-h")]
    if len(words) < len(command.words) - 2:
        return
    if isinstance(verb, click.Group | typer.core.TyperGroup):  # `data prepare`: the verb within the group
        assert words, f"{command.verb}: one of {', '.join(verb.commands)}"
        assert words[0] in verb.commands, f"there is no verb {command.verb} {words[0]!r}"
        verb, words = verb.commands[words[0]], words[1:]
    with verb.make_context(command.verb, list(words)) as context:
        if command.verb in ("pretrain", "finetune"):
            resolve(command, context.params, lambda: request.getfixturevalue("bert"))


@pytest.mark.parametrize("page", PAGES, ids=lambda p: str(p.relative_to(ROOT)))
def test_a_relative_link_leads_to_a_file(page: Path) -> None:
    text = re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    links = [link.partition("#")[0] for link in _LINK.findall(text)]
    lost = [k for k in links if k and "://" not in k and not (page.parent / k).exists()]
    assert lost == []


@pytest.mark.parametrize("page", PAGES, ids=lambda p: str(p.relative_to(ROOT)))
def test_python_on_a_page_calls_what_there_is(page: Path) -> None:
    for kind, body in _FENCE.findall(page.read_text(encoding="utf-8")):
        if kind != "python" or "import " not in body:  # the house's plan shows signatures, not programs
            continue
        for node in ast.walk(ast.parse(body)):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("pretune"):
                module = __import__(str(node.module), fromlist=["_"])
                assert [a.name for a in node.names if not hasattr(module, a.name)] == []
            if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)):
                continue
            owner = node.func.value
            if isinstance(owner, ast.Name) and owner.id == "pretune":
                function = getattr(pretune, node.func.attr)
                given = {k.arg for k in node.keywords if k.arg}
                known = set(inspect.signature(function).parameters)
                assert given <= known or node.func.attr == "load", f"{node.func.attr}: {given - known}"


def test_both_readmes_show_the_same_commands() -> None:
    english, chinese = ([c.verb for c in commands_on(page)] for page in READMES)
    assert sorted(english) == sorted(chinese)
    assert set(english) >= set(VERBS)


@pytest.mark.parametrize("page", READMES, ids=lambda p: p.name)
def test_the_readme_shows_the_closing_words_of_the_quickstart(page: Path) -> None:
    found = re.search(
        r"<!-- quickstart-output -->\s*```text\n(.*?)^```\s*<!-- /quickstart-output -->",
        page.read_text(encoding="utf-8"),
        re.MULTILINE | re.DOTALL,
    )
    assert found, "the block between quickstart-output marks"
    shown = [_FIGURE.sub("#", line).split() for line in found[1].splitlines()]
    assert shown == [_FIGURE.sub("#", line).split() for line in starting.summary_lines(_result())]


def _result() -> pretraining.RunResult:
    """A finished quickstart, as far as its closing words read it."""
    figures = {"loss": 1.0, "unigram_loss": 1.0, "bigram_loss": 1.0, "tokens": 1000, "seconds": 1.0}
    seeds = [{"seed": 0, "accuracy": 0.5}]
    classified = {
        "num_train": 300, "majority": 0.1, "tfidf": 0.5, "random": seeds, "pretrained": seeds,
        "difference": {"mean": 0.1, "interval": [0.0, 0.2]},
    }  # fmt: skip
    summary = {
        "pretraining": {
            "masked": {"family": starting.MASKED_SETTINGS["family"], **figures},
            "causal": {"family": "llama", **figures},
        },
        "classification": {"zh": classified, "en": classified},
    }
    return pretraining.RunResult(Path("runs/quickstart"), summary)
