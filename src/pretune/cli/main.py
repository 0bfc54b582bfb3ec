"""``pretune``: the command line. Heavy rooms are imported by the verb that needs them, so help is instant."""

from __future__ import annotations

import contextlib
import importlib
import io
import os
import pkgutil
import shlex
import signal
import sys
from collections.abc import Iterator
from types import ModuleType
from typing import Annotated

import typer

from pretune import cli
from pretune.errors import Interrupted, PretuneError, RankError, UsageError, missing_library

VERB_ORDER = (
    "quickstart", "plan", "data", "tokenizer", "pretrain", "finetune", "evaluate", "predict", "generate",
    "chat", "score", "explain", "audit", "compress", "export", "serve", "runs",
)  # fmt: skip
"""In which order help lists the verbs that are there."""
DISTRIBUTED_VERBS = ("pretrain", "finetune")
"""What several processes can do together, as torchrun starts them."""


def verbs() -> list[ModuleType]:
    """The modules of this folder that are a verb: they have a NAME, HELP, and ``run`` or an ``app`` of verbs."""
    names = [m.name for m in pkgutil.iter_modules(cli.__path__) if m.name in VERB_ORDER]
    return [importlib.import_module(f"pretune.cli.{name}") for name in sorted(names, key=VERB_ORDER.index)]


class VerbGroup(typer.core.TyperGroup):
    """Lists groups of verbs among the verbs, all in :data:`VERB_ORDER`."""

    def list_commands(self, ctx: typer.Context) -> list[str]:  # type: ignore[override]
        """The names in the order in which help shows them."""
        return sorted(self.commands, key=VERB_ORDER.index)


app = typer.Typer(
    name="pretune",
    cls=VerbGroup,
    help="Raw text in, a Transformer language model out.\n\nNew here? Run: pretune quickstart",
    no_args_is_help=True,
    add_completion=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
for verb in verbs():
    if hasattr(verb, "app"):
        app.add_typer(verb.app, name=verb.NAME, help=verb.HELP)
    else:
        app.command(name=verb.NAME, help=verb.HELP)(verb.run)


def _print_version(value: bool) -> None:
    if value:
        from importlib import metadata

        typer.echo(f"pretune {metadata.version('pretune')}")
        raise typer.Exit


@app.callback()
def options(
    context: typer.Context,
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Options that come before the verb."""
    verb = context.invoked_subcommand
    if _world_size() > 1 and verb not in DISTRIBUTED_VERBS:
        raise UsageError(f"{verb}: is done by one process; start it without torchrun")


def _command_line() -> str:
    """What was typed, as it can be typed again."""
    return shlex.join(["pretune", *sys.argv[1:]])


def _world_size() -> int:
    """How many processes torchrun started, without importing torch; 1 where it did not start this one."""
    number = os.environ.get("WORLD_SIZE", "1")
    return int(number) if number.isdecimal() else 1


def _is_silent_rank() -> bool:
    """Does another process speak for this one?"""
    return _world_size() > 1 and os.environ.get("RANK") != "0"


@contextlib.contextmanager
def _silence() -> Iterator[None]:
    """Within, Python says nothing."""
    with (
        open(os.devnull, "w", encoding="utf-8", errors="replace") as nowhere,
        contextlib.redirect_stdout(nowhere),
        contextlib.redirect_stderr(nowhere),
    ):
        yield


def _escape_unencodable() -> None:
    """Write a character that the encoding of the terminal lacks (gbk, cp1252 ...) as its escape."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def main() -> None:
    """Run; exit codes: 0 done, 1 failed, 2 wrong usage, 3 stopped with a checkpoint saved."""
    _escape_unencodable()
    try:
        with _silence() if _is_silent_rank() else contextlib.nullcontext():
            app(standalone_mode=True)
    except PretuneError as error:
        if _is_silent_rank() and not isinstance(error, RankError):
            sys.exit(error.exit_code)
        again = f":\n  {_command_line()}" if isinstance(error, Interrupted) else ""
        print(f"pretune: {error}{again}", file=sys.stderr)
        sys.exit(error.exit_code)
    except SystemExit as ended:
        # Typer's word for KeyboardInterrupt, which it says without one.
        if ended.code == 128 + signal.SIGINT and not _is_silent_rank():
            print(
                f"pretune: stopped; what was finished is kept, run the same command to go on:\n  {_command_line()}",
                file=sys.stderr,
            )
        raise
    except ModuleNotFoundError as error:
        missing = missing_library(error)
        if missing is None:
            raise
        print(f"pretune: {missing}", file=sys.stderr)
        sys.exit(missing.exit_code)
    except BrokenPipeError:  # the reader of our output has gone, as with `| head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except OSError as error:  # a full disk or a file that may not be read, where no room has said it better
        print(f"pretune: {error}", file=sys.stderr)
        sys.exit(1)


if __name__ == "__main__":
    main()
