"""The text of each part of a pretraining run: prepared apart, tokenized alike."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from pretune.data.corpus.build import TokenizedCorpus, build_corpus, train_shared_tokenizer
from pretune.data.sources.read_options import ReadOptions
from pretune.objectives import ObjectiveSpec
from pretune.runtime.progress import Reporter
from pretune.text.tokenizer import Tokenizer
from pretune.workflows.pretrain.mixture import ComponentSettings
from pretune.workflows.pretrain.settings import PretrainSettings


def build_corpora(
    settings: PretrainSettings,
    folder: Path,
    *,
    tokenizer: Tokenizer | None,
    max_vocabulary_size: int | None,
    reporter: Reporter,
    corrupt_file: Path | None = None,
) -> tuple[TokenizedCorpus, ...]:
    """The text of each part in a folder of its own below ``folder``; without a mixture in ``folder`` itself.

    Without ``tokenizer`` one is trained on the text of all parts together. ``corrupt_file`` is a file that
    was found
    damaged: the part that it belongs to is prepared again.

    Raises:
        DataError: nothing usable in the sources, or too many bad records.
    """
    if settings.mixture and tokenizer is None:
        tokenizer = train_shared_tokenizer(
            [
                (part.corpus, part.validation, kind.columns, ReadOptions(part.columns, settings.encoding))
                for part, kind in zip(settings.components, settings.objective_specs, strict=True)
            ],
            folder,
            vocabulary_size=settings.vocabulary_size,
            validation_fraction=settings.validation_fraction,
            reporter=reporter,
            algorithm=settings.tokenizer_algorithm,
            max_vocabulary_size=max_vocabulary_size,
        )

    def build_component(component: ComponentSettings, spec: ObjectiveSpec) -> TokenizedCorpus:
        if settings.mixture:
            reporter.say(f"  {component.name}: {', '.join(component.corpus)}")
        component_folder = folder / "components" / str(component.name) if settings.mixture else folder
        return build_corpus(
            component.corpus,
            component_folder,
            tokenizer=tokenizer,
            vocabulary_size=settings.vocabulary_size,
            algorithm=settings.tokenizer_algorithm,
            max_vocabulary_size=max_vocabulary_size,
            validation_fraction=settings.validation_fraction,
            validation=component.validation,
            reporter=reporter,
            columns=spec.columns,
            rebuild=corrupt_file is not None and corrupt_file.is_relative_to(component_folder),
            reading=ReadOptions(component.columns, settings.encoding),
        )

    found = tuple(
        build_component(*of) for of in zip(settings.components, settings.objective_specs, strict=True)
    )
    if settings.mixture:
        warn_component_overlap(settings.components, found, reporter)
    return found


def warn_component_overlap(
    components: Sequence[ComponentSettings], corpora: Sequence[TokenizedCorpus], reporter: Reporter
) -> None:
    """Say which held-out documents of one part stand in the training text of another.

    A text falls on the same side of the split in every part, unless a small corpus is cut into pieces or
    validation files are given.
    """
    for component, text in zip(components, corpora, strict=True):
        held = [
            text.tokenizer.decode(ids.tolist())
            for number in range(len(text.validation))
            for ids in text.split_pair(text.validation.document(number))
        ]
        for other, read in zip(components, corpora, strict=True):
            shared = 0 if other is component else len(read.fingerprints.find_overlapping(held))
            if shared:
                reporter.say(
                    f"  mind: {shared} of the {len(held)} held-out documents of {component.name} stand in "
                    "the "
                    f"text that {other.name} trains on, so that its loss there flatters"
                )
