"""A process of its own that renders chat templates, which are programs of strangers: JSON in, JSON out.

It imports nothing of pretune, and is bounded in time and memory: a template can loop or grow for ever. What
it offers a template is what stock transformers offers.
"""

from __future__ import annotations

import json
import sys
from datetime import datetime
from typing import Any, NoReturn

import jinja2
import jinja2.ext
import jinja2.nodes
import jinja2.parser
import jinja2.sandbox

MAX_CPU_SECONDS = 5
"""Of the processor, at most."""
MAX_MEMORY_BYTES = 1 << 30
"""Bytes of address space, at most."""
MAX_CHARACTERS = 1 << 20
"""Of all that is rendered, at most."""


class GenerationTag(jinja2.ext.Extension):
    """``{% generation %}`` marks what an assistant wrote, for training: here it is text like other."""

    tags = {"generation"}  # noqa: RUF012 (jinja2 reads it from the class)

    def parse(self, parser: jinja2.parser.Parser) -> list[jinja2.nodes.Node]:
        """The statements between the marks."""
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


class Namespace(jinja2.utils.Namespace):
    """One without names that begin with an underscore."""

    def __setitem__(self, name: str, value: Any) -> None:
        if name.startswith("_"):
            raise jinja2.exceptions.SecurityError(f"{name}: no name of a namespace begins so")
        super().__setitem__(name, value)


def raise_exception(message: str) -> NoReturn:
    """What a template calls ``raise_exception``."""
    raise jinja2.exceptions.TemplateError(message)


def to_json(
    value: Any,
    ensure_ascii: bool = False,
    indent: Any = None,
    separators: Any = None,
    sort_keys: bool = False,
) -> str:
    """The filter ``tojson``, which here leaves the signs of HTML as they are."""
    return json.dumps(
        value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys
    )


def strftime_now(form: str) -> str:
    """What a template calls ``strftime_now``."""
    return datetime.now().strftime(form)


def render(template: str, special_tokens: dict[str, str], conversations: list[Any]) -> list[str]:
    """Each conversation as the template writes it, up to where the assistant begins.

    Raises:
        jinja2.exceptions.TemplateError: it is no template, refuses the conversation, or does what it may not.
    """
    environment = jinja2.sandbox.ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[GenerationTag, jinja2.ext.loopcontrols]
    )
    environment.filters["tojson"] = to_json
    environment.globals |= {
        "raise_exception": raise_exception,
        "strftime_now": strftime_now,
        "namespace": Namespace,
    }
    compiled = environment.from_string(template)
    given = {**special_tokens, "tools": None, "documents": None, "add_generation_prompt": True}
    texts: list[str] = []
    for messages in conversations:
        texts.append(compiled.render(messages=messages, **given))
        if sum(map(len, texts)) > MAX_CHARACTERS:
            raise jinja2.exceptions.TemplateError(f"it writes more than {MAX_CHARACTERS:,} characters")
    return texts


def limit_resources() -> None:
    """Take no more time and memory than is given, where the system can hold a process to it."""
    try:
        import resource
    except ImportError:  # Windows: there the caller's clock alone counts
        return
    for limit, value in ((resource.RLIMIT_CPU, MAX_CPU_SECONDS), (resource.RLIMIT_AS, MAX_MEMORY_BYTES)):
        most = resource.getrlimit(limit)[1]
        resource.setrlimit(limit, (value if most < 0 else min(value, most), most))


def main() -> None:
    """Read the task, render, write the texts or the error."""
    limit_resources()
    task = json.load(sys.stdin)
    try:
        answer: dict[str, Any] = {"texts": render(task["template"], task["names"], task["conversations"])}
    except (
        jinja2.exceptions.TemplateError, ArithmeticError, AttributeError, LookupError, MemoryError,
        RecursionError, TypeError, ValueError,
    ) as error:  # fmt: skip
        answer = {"error": f"{type(error).__name__}: {error}"}
    json.dump(answer, sys.stdout)


if __name__ == "__main__":
    main()
