"""Labelled records for training and scoring: held out from each other, and compared."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import ModuleType

import numpy as np

from pretune.data.corpus.token_shards import split
from pretune.data.sources.text_hash import text_hash
from pretune.runtime.progress import Reporter
from pretune.types import Record

VALIDATION_SHARE = 0.1


def held_out(records: list[Record], kind: ModuleType) -> tuple[list[Record], list[Record]]:
    """(training, validation) records, split by a hash of the first text, so that its pairs stay together.

    A class whose few records would all be held out stays in training.
    """
    hashes = np.array([text_hash(kind.texts(r)[0]) for r in records], np.uint64)
    held = split(hashes, VALIDATION_SHARE, seed=0)
    kept = {label for r, out in zip(records, held, strict=True) if not out for label in kind.classes(r)}
    aside = [out and kept.issuperset(kind.classes(r)) for r, out in zip(records, held, strict=True)]
    return (
        [r for r, out in zip(records, aside, strict=True) if not out],
        [r for r, out in zip(records, aside, strict=True) if out],
    )


def warn_of_shared_texts(
    kind: ModuleType, train: Sequence[Record], scored: Mapping[str, Sequence[Record]], reporter: Reporter
) -> None:
    """Say how many texts of each part that is scored are training texts, too."""
    learnt = {text_hash("".join(kind.texts(r))) for r in train}
    for name, part in scored.items():
        shared = sum(text_hash("".join(kind.texts(r))) in learnt for r in part)
        if shared:
            reporter.say(f"  mind: {shared} of the {len(part)} {name} texts are training texts, too")
