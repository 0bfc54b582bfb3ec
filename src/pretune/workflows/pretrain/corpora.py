"""The text of each part of a pretraining run: prepared apart, tokenized alike."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from pretune.data.corpus.build import Prepared, prepare, shared_tokenizer
from pretune.data.sources.read_options import Reading
from pretune.objectives import Kind
from pretune.runtime.progress import Reporter
from pretune.text.tokenizer import Tokenizer
from pretune.workflows.pretrain.mixture import PartSettings
from pretune.workflows.pretrain.settings import PretrainSettings


def prepare_parts(
    settings: PretrainSettings,
    folder: Path,
    *,
    tokenizer: Tokenizer | None,
    largest_vocabulary: int | None,
    reporter: Reporter,
    anew: Path | None = None,
) -> tuple[Prepared, ...]:
    """The text of each part in a folder of its own below ``folder``; without a mixture in ``folder`` itself.

    Without ``tokenizer`` one is trained on the text of all parts together. ``anew`` is a file that was found
    damaged: the part that it belongs to is prepared again.

    Raises:
        DataError: nothing usable in the sources, or too many bad records.
    """
    if settings.mixture and tokenizer is None:
        tokenizer = shared_tokenizer(
            [
                (part.corpus, part.validation, kind.columns, Reading(part.columns, settings.encoding))
                for part, kind in zip(settings.parts, settings.kinds, strict=True)
            ],
            folder,
            vocabulary_size=settings.vocabulary_size,
            held_out=settings.held_out,
            reporter=reporter,
            tokenizer_kind=settings.tokenizer_kind,
            largest_vocabulary=largest_vocabulary,
        )

    def prepared(part: PartSettings, kind: Kind) -> Prepared:
        if settings.mixture:
            reporter.say(f"  {part.name}: {', '.join(part.corpus)}")
        place = folder / "parts" / str(part.name) if settings.mixture else folder
        return prepare(
            part.corpus,
            place,
            tokenizer=tokenizer,
            vocabulary_size=settings.vocabulary_size,
            tokenizer_kind=settings.tokenizer_kind,
            largest_vocabulary=largest_vocabulary,
            held_out=settings.held_out,
            validation=part.validation,
            reporter=reporter,
            columns=kind.columns,
            anew=anew is not None and anew.is_relative_to(place),
            reading=Reading(part.columns, settings.encoding),
        )

    found = tuple(prepared(*of) for of in zip(settings.parts, settings.kinds, strict=True))
    if settings.mixture:
        warn_of_shared(settings.parts, found, reporter)
    return found


def warn_of_shared(parts: Sequence[PartSettings], texts: Sequence[Prepared], reporter: Reporter) -> None:
    """Say which held-out documents of one part stand in the training text of another.

    A text falls on the same side of the split in every part, unless a small corpus is cut into pieces or
    validation files are given.
    """
    for part, text in zip(parts, texts, strict=True):
        held = [
            text.tokenizer.decode(ids.tolist())
            for number in range(len(text.validation))
            for ids in text.parts_of(text.validation.document(number))
        ]
        for other, read in zip(parts, texts, strict=True):
            shared = 0 if other is part else len(read.fingerprints.overlap(held))
            if shared:
                reporter.say(
                    f"  mind: {shared} of the {len(held)} held-out documents of {part.name} stand in the "
                    f"text that {other.name} trains on, so that its loss there flatters"
                )
