"""What a model of each head can be asked, and the refusal of what it cannot, with the way out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Literal

from pretune.errors import UsageError
from pretune.nn.heads import Head

HeadUse = Literal["fill", "generate", "answer"]
"""What a head is used for: it fills masks, of which both sides are known; it continues a text; or fine-tuning
taught it to answer."""
HEAD_USES: Mapping[HeadUse, str] = {
    "fill": "`pretune predict` fills the masks of a text with it (in Python: fill)",
    "generate": "`pretune generate` continues a text with it (in Python: generate)",
    "answer": "`pretune predict` answers with it (in Python: predict)",
}
HEAD_NAMES: Mapping[HeadUse, str] = {
    "fill": "'masked_lm' or 'permutation_lm'",
    "generate": "'causal_lm'",
    "answer": "fine-tuned",
}
"""What a refusal calls the heads that are used so."""
HEAD_ADVICE: Mapping[HeadUse, str] = {
    "fill": "`pretune pretrain --family modernbert` makes a model that fills masks; "
    "`pretune pretrain --family xlnet` makes one that reads in permuted order",
    "generate": "`pretune pretrain --family llama` makes a model that continues texts",
    "answer": "`pretune finetune` puts such a head on a model",
}
"""How to get one."""
PREFIX_OBJECTIVES = ("prefix_lm",)
"""Objectives by which a decoder learns to read the beginning of a text both ways."""


def head_use(family: ModuleType, head: str) -> HeadUse:
    """What a head of a family is used for."""
    table: Mapping[str, Head] = family.HEADS
    if table[head].type != "vocabulary":
        return "answer"
    return "fill" if family.TRAITS.architecture == "encoder" else "generate"


def check_trained(path: Path | None, family: ModuleType, head: str, untrained: Sequence[str]) -> None:
    """See that a folder had the weights of a head that only pretraining trains.

    Raises:
        UsageError: it had not.
    """
    table: Mapping[str, Head] = family.HEADS
    if untrained and path is not None and table[head].is_pretrained:
        raise UsageError(
            f"{path}: has no weights of a {head!r} head, so it can only be fine-tuned: "
            f"pretune finetune {path} --train ..."
        )


def check_use(path: Path | None, family: ModuleType, head: str, uses: Sequence[HeadUse]) -> None:
    """See that a head can be used in one of these ways.

    Raises:
        UsageError: it cannot.
    """
    use = head_use(family, head)
    if use not in uses:
        required = " or ".join(HEAD_NAMES[one] for one in uses)
        raise _wrong_head_error(path, head, use, required, uses)


def check_head(path: Path | None, family: ModuleType, head: str, required_heads: Sequence[str]) -> None:
    """See that a head is one of those that a task names.

    Raises:
        UsageError: it is not.
    """
    if head not in required_heads:
        required = " or ".join(repr(one) for one in required_heads)
        raise _wrong_head_error(path, head, head_use(family, head), required, ("answer",))


def _wrong_head_error(
    path: Path | None, head: str, use: HeadUse, required: str, uses: Sequence[HeadUse]
) -> UsageError:
    where = "this model" if path is None else f"{path}:"
    return UsageError(
        f"{where} has a {head!r} head, and this needs a {required} one. {HEAD_USES[use]}; "
        + "; ".join(HEAD_ADVICE[one] for one in uses)
    )


def no_task_error(path: Path | None, family: ModuleType, head: str) -> UsageError:
    """The refusal of a question for a task, put to a model that was fine-tuned for none."""
    where = "this model" if path is None else f"{path}:"
    return UsageError(
        f"{where} has a {head!r} head, but no task that pretune has. {HEAD_USES[head_use(family, head)]}; "
        f"{HEAD_ADVICE['answer']}, for a task such as classification"
    )


def no_score_error(path: Path | None) -> UsageError:
    """The refusal to score a text with an encoder-decoder."""
    where = "this model" if path is None else f"{path}:"
    return UsageError(
        f"{where} is an encoder-decoder, which gives a text a probability only beside a source, and a score "
        "has none; a decoder (llama, gpt2) or an encoder (bert, modernbert) scores a text by itself"
    )
