"""Chat templates: a conversation as the text that an instruct model was trained on."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping, Sequence

from pretune.errors import CheckpointError, UsageError
from pretune.text import chat_process

Message = Mapping[str, str]
"""``role`` and ``content``."""

TIMEOUT_SECONDS = 30.0
"""Seconds until a template is given up, its process not having had the time that it may take."""
MAX_ERROR_CHARACTERS = 300
"""Characters of a template's error that are shown."""


def render_prompts(
    template: str | None, special_tokens: Mapping[str, str], prompts: Sequence[str]
) -> list[str]:
    """Each prompt as what a user says first.

    Raises:
        UsageError: there is no template.
        CheckpointError: see `render`.
    """
    if template is None:
        raise UsageError("this model has no chat template: leave chat out, and give the prompt as it is")
    whole = [prompt.encode("utf-8", "replace").decode() for prompt in prompts]  # a lone surrogate is no text
    return apply_chat_template(
        template, special_tokens, [[{"role": "user", "content": prompt}] for prompt in whole]
    )


def apply_chat_template(
    template: str, special_tokens: Mapping[str, str], conversations: Sequence[Sequence[Message]]
) -> list[str]:
    """Each conversation as the template writes it, up to where the assistant begins.

    The template is a program out of a model folder. It runs in Jinja's sandbox, in a process of its own that
    is bounded in time, memory and output.

    Args:
        special_tokens: the special tokens that a template may name, such as ``bos_token``.

    Raises:
        CheckpointError: the template is wrong, refuses the conversation, or does not end.
    """
    task = {
        "template": template,
        "names": dict(special_tokens),
        "conversations": [list(one) for one in conversations],
    }
    command = [sys.executable, "-P", chat_process.__file__]
    try:
        ended = subprocess.run(
            command, input=json.dumps(task), capture_output=True, text=True, encoding="utf-8",
            timeout=TIMEOUT_SECONDS,
            check=False,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        raise CheckpointError(
            f"chat template: took more than {TIMEOUT_SECONDS:.0f} s and was stopped"
        ) from None
    if ended.returncode:
        raise CheckpointError(
            f"chat template: its process took more than {chat_process.MAX_CPU_SECONDS} s or "
            f"{chat_process.MAX_MEMORY_BYTES >> 20} MiB and was stopped (exit status {ended.returncode})"
        )
    answer = json.loads(ended.stdout)
    if "error" in answer:
        raise CheckpointError(f"chat template: {answer['error'][:MAX_ERROR_CHARACTERS]}")
    return list(answer["texts"])
