"""What a model of each head can be asked, and the refusal of what it cannot, with the way out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import ModuleType

from pretune.errors import UsageError
from pretune.nn.heads import Head

HEAD_USES = {
    "masked_lm": "`pretune predict` fills the masks of a text with it (in Python: fill)",
    "permutation_lm": "`pretune predict` fills the masks of a text with it (in Python: fill)",
    "causal_lm": "`pretune generate` continues a text with it (in Python: generate)",
}
MASK_HEADS = ("masked_lm", "permutation_lm")
"""Heads that say what stands at a place of which both sides are known."""
PREFIX_OBJECTIVES = ("prefix_lm",)
"""Objectives by which a decoder learns to read the beginning of a text both ways."""
TASK_USE = "`pretune predict` answers with it (in Python: predict)"
"""What a fine-tuned head is good for."""
PRETRAIN_ADVICE = {
    "masked_lm": "`pretune pretrain --family modernbert` makes a model that fills masks",
    "permutation_lm": "`pretune pretrain --family xlnet` makes one that reads in permuted order",
    "causal_lm": "`pretune pretrain --family llama` makes a model that continues texts",
}
FINETUNE_ADVICE = "`pretune finetune` puts such a head on a model"


def writes_text(family: ModuleType, heads: str) -> bool:
    """Has it a head that predicts the next token?"""
    table: Mapping[str, Head] = family.HEADS
    is_vocabulary = any(table[name].type == "vocabulary" for name in heads.split("+") if name in table)
    return is_vocabulary and family.TRAITS.architecture != "encoder"


def check_head(
    path: Path | None, model_head: str, required_heads: Sequence[str], untrained: Sequence[str]
) -> None:
    """See that a model with the head ``model_head`` can be used as one of the ``required_heads``.

    Raises:
        UsageError: it cannot, or the head has parameters that were never trained.
    """
    where = "this model" if path is None else f"{path}:"
    if untrained and path is not None:
        raise UsageError(
            f"{where} has no weights of a {model_head!r} head, so it can only be fine-tuned: "
            f"pretune finetune {path} --train ..."
        )
    if model_head not in required_heads:
        heads = " or ".join(repr(head) for head in required_heads)
        ways = "; ".join(PRETRAIN_ADVICE.get(head, FINETUNE_ADVICE) for head in required_heads)
        raise UsageError(
            f"{where} has a {model_head!r} head, and this needs a {heads} one. "
            f"{HEAD_USES.get(model_head, TASK_USE)}; {ways}"
        )


def no_task_error(path: Path | None, head: str) -> UsageError:
    """The refusal of a question for a task, put to a model that was fine-tuned for none."""
    where = "this model" if path is None else f"{path}:"
    return UsageError(
        f"{where} has a {head!r} head, but no task that pretune has. {HEAD_USES.get(head, TASK_USE)}; "
        f"{FINETUNE_ADVICE}, for a task such as classification"
    )


def no_score_error(path: Path | None) -> UsageError:
    """The refusal to score a text with an encoder-decoder."""
    where = "this model" if path is None else f"{path}:"
    return UsageError(
        f"{where} is an encoder-decoder, which gives a text a probability only beside a source, and a score "
        "has none; a decoder (llama, gpt2) or an encoder (bert, modernbert) scores a text by itself"
    )
