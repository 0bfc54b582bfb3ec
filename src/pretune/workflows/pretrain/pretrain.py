"""Pretrain a language model on raw text, from random weights or from a checkpoint.

Text is prepared (:mod:`corpus`), cut into windows as the objective asks, and trained on; the held-out loss
is measured beside a unigram and a bigram model of the same text, on exactly the same targets.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pydantic

from pretune.arguments import FilePath, check_arguments
from pretune.data.corpus.build import is_tokenized_corpus, open_corpus
from pretune.data.sources.read_options import ReadOptions
from pretune.data.sources.records import RecordLog, read_records
from pretune.errors import CheckpointError, ChecksumError, DataError, UnsupportedError
from pretune.model.build import meta_network
from pretune.registry import find
from pretune.runtime import atomic_files, state_file
from pretune.runtime.distributed import World
from pretune.runtime.metrics_reader import read_metrics
from pretune.runtime.progress import NullReporter, Reporter
from pretune.runtime.run_folder import Run, describe_environment
from pretune.text.tokenizer import Tokenizer
from pretune.training.duration import parse_duration
from pretune.training.train_state import TrainResult
from pretune.training.trainer import Trainer
from pretune.types import OutputSpec, Traits
from pretune.workflows import cards, run_page, verdicts
from pretune.workflows.prediction_findings import DiagnosisContext, FinalPredictions, diagnose_samples
from pretune.workflows.pretrain.components import PretrainSetup
from pretune.workflows.pretrain.continue_from import start_tokenizer
from pretune.workflows.pretrain.corpora import build_corpora
from pretune.workflows.pretrain.mixture import merge_heads
from pretune.workflows.pretrain.samples import Sample, generate_samples, select_prompts
from pretune.workflows.pretrain.settings import ASSUMED_VOCABULARY_SIZE, family_config
from pretune.workflows.pretrain.settings import PretrainSettings as PretrainSettings
from pretune.workflows.pretrain.settings import resolve as resolve
from pretune.workflows.run_lifecycle import RunResult, start_or_resume

SECONDS_AFTER_TRAINING = {"model, samples and report": 3.0}
"""Seconds of a length in minutes that remain after training."""


@check_arguments
def pretrain(
    settings: PretrainSettings | Mapping[str, Any] | None = None,
    *,
    corpus: FilePath | Sequence[FilePath] | None = None,
    start_from: FilePath | None = None,
    family: str | None = None,
    budget: str | None = None,
    tokenizer: FilePath | None = None,
    max_length: int | None = None,
    columns: Mapping[str, str] | None = None,
    encoding: str | None = None,
    model: Mapping[str, Any] | None = None,
    training: Mapping[str, Any] | None = None,
    language: str | None = None,
    out: FilePath | None = None,
    changes: FilePath | None = None,
    reporter: Reporter | None = None,
    start_time: float | None = None,
) -> RunResult:
    """Pretrain a model; the same call goes on where a stopped one ended.

    The keywords are the settings most often given; ``settings`` takes all of them (see
    :class:`PretrainSettings`). ``changes`` is the ``plan.json`` of a run whose steps and changes in mid-run
    are to be made again. ``start_time`` is the ``time.monotonic()`` that a budget in minutes runs from.

    Raises:
        ConfigError: a setting that pretune does not take, or a run folder of other settings.
        DataError: text that cannot be used.
        Interrupted: a signal came; a checkpoint is saved and the same call goes on.
    """
    start_time = time.monotonic() if start_time is None else start_time
    given = {
        "corpus": _to_paths(corpus),
        "family": family, "budget": budget, "max_length": max_length, "model": model, "training": training,
        "language": language, "columns": columns, "encoding": encoding,
        "start_from": None if start_from is None else str(start_from),
        "tokenizer": None if tokenizer is None else str(tokenizer),
    }  # fmt: skip
    resolved = resolve(settings, {k: v for k, v in given.items() if v is not None})
    work = partial(_train_with_repair, resolved, start_time)
    texts = [source for component in resolved.components for source in component.corpus]
    return start_or_resume(work, "pretrain", resolved, texts, out=out, changes=changes, reporter=reporter)


def _to_paths(paths: FilePath | Sequence[FilePath] | None) -> list[str] | None:
    if paths is None:
        return None
    return [str(path) for path in ([paths] if isinstance(paths, str | Path) else paths)]


def _train_with_repair(
    settings: PretrainSettings, start_time: float, run: Run, world: World, reporter: Reporter
) -> Mapping[str, Any]:
    data = run.folder / "data"
    try:
        return _train(settings, start_time, run, world, reporter)
    except ChecksumError as error:
        if world.world_size > 1 or not error.path.is_relative_to(data):
            where = error.path.parent.parent
            raise DataError(
                f"{error}; prepare the text again: remove {where}, and repeat its command"
            ) from None
        reporter.say(f"  {error}; the text is prepared anew")
        damaged = error.path
    # Only here: the traceback of an error that is being handled holds on to all that was read.
    return _train(settings, start_time, run, world, reporter, corrupt_file=damaged)


def _train(
    settings: PretrainSettings,
    start_time: float,
    run: Run,
    world: World,
    reporter: Reporter,
    corrupt_file: Path | None = None,
) -> Mapping[str, Any]:
    length = parse_duration(settings.budget)
    with world.main_first(), run.discard_on_error():
        tokenizer_given = _load_tokenizer(settings)
        _check_tokenizer(settings, tokenizer_given)
        corpora = build_corpora(
            settings,
            run.folder / "data",
            tokenizer=tokenizer_given,
            max_vocabulary_size=_max_vocabulary_size(settings)
            if settings.vocabulary_size == "auto"
            else None,
            reporter=reporter,
            corrupt_file=corrupt_file,
        )
        seconds = length.seconds_left(start_time, sum(SECONDS_AFTER_TRAINING.values()))
        setup = PretrainSetup(settings, corpora, run, seconds, reporter, world)
    _report_reference_losses(settings, setup, reporter)
    before = _initial_scores(run, setup, reporter, world) if settings.start_from else None
    result = Trainer(
        model_io=setup.model,
        dataloader=setup.dataloader,
        evaluate=setup.evaluate,
        settings=settings.training,
        duration=length,
        run=run,
        reporter=reporter,
        start_time=start_time,
        evaluation_tokens=sum(held.num_tokens for held in setup.held_out.values()),
        post_training_seconds=lambda evaluation: SECONDS_AFTER_TRAINING,
        name=settings.family,
        reference_losses={
            "unigram": setup.primary_held_out.unigram_loss,
            "bigram": setup.primary_held_out.bigram_loss,
        },
        train_reference_losses=setup.training_reference_losses(),
        world=world,
    ).train()
    return world.on_main(lambda: _finish_run(run, settings, setup, result, before, reporter))


def _report_reference_losses(settings: PretrainSettings, setup: PretrainSetup, reporter: Reporter) -> None:
    """How large the model is, and what n-gram models make of the held-out text of each part."""
    reporter.say(f"  {settings.family}, {setup.model.num_parameters:,} parameters")
    for (name, held), spec in zip(setup.held_out.items(), settings.objective_specs, strict=True):
        of = f" of {name}" if settings.mixture else ""
        reporter.say(
            f"  on the held-out text{of} a unigram model has {held.unigram_loss:.2f} nats, a bigram model "
            f"{held.bigram_loss:.2f}"
        )
        if spec.evaluates_hidden_only:
            reporter.say(
                f"  held-out text{of} is scored at its hidden tokens alone; training counts easier ones, too"
            )


def _finish_run(
    run: Run,
    settings: PretrainSettings,
    setup: PretrainSetup,
    result: TrainResult,
    initial_scores: Mapping[str, float] | None,
    reporter: Reporter,
) -> dict[str, Any]:
    """Everything that is written once training has ended; the summary."""
    length, model = parse_duration(settings.budget), setup.model
    began = time.monotonic()
    shown = generate_samples(model, select_prompts(setup.corpora[0], model, 6))
    summary = setup.summary(result, initial_scores)
    summary["seconds"] += time.monotonic() - began
    final = FinalPredictions(
        diagnose_samples(shown, model.tokenizer),
        summary["loss"] < summary["unigram_loss"],
        DiagnosisContext(),
    )
    summary |= verdicts.conclude_run(
        run, result, settings.training.patience, settings.language, reporter, final
    )
    if length.unit == "seconds":
        summary["budget_seconds"] = length.amount
    changed = [sentence for text in setup.corpora for sentence in text.source_changes]
    if changed:
        summary["source_changes"] = changed
    return _write_outputs(run, settings, setup, summary, shown)


def _load_tokenizer(settings: PretrainSettings) -> Tokenizer | None:
    if settings.start_from:
        return start_tokenizer(settings.start_from)
    return Tokenizer.load(Path(settings.tokenizer)) if settings.tokenizer else None


def _initial_scores(run: Run, setup: PretrainSetup, reporter: Reporter, world: World) -> dict[str, float]:
    """The held-out scores of the checkpoint as it was, measured once and kept in the run."""
    path = run.folder / "initial_scores.json"
    stored: dict[str, float] | None = world.on_main(lambda: _read_initial_scores(path, reporter))
    if stored is not None:
        return stored
    scores = {score.name: score.value for score in setup.evaluate(setup.model.network, 0)}
    reporter.say("  before: " + ", ".join(f"{name} {value:.3f}" for name, value in scores.items()))
    world.on_main(lambda: state_file.write(path, scores))
    return scores


class _InitialScoresFile(pydantic.RootModel[dict[str, float]]):
    """The form of initial_scores.json: score to value."""


def _read_initial_scores(path: Path, reporter: Reporter) -> dict[str, float] | None:
    try:
        return state_file.read(path, "it is measured again", _InitialScoresFile)
    except CheckpointError as error:
        reporter.say(f"  {error}")
        return None


def _check_tokenizer(settings: PretrainSettings, tokenizer: Tokenizer | None) -> None:
    """A tokenizer that the objective cannot use is refused before the text is tokenized."""
    if tokenizer is None:
        return
    traits: Traits = find("families", settings.family).TRAITS
    try:
        for spec in settings.objective_specs:
            spec.build_objective(traits, tokenizer.specials)
    except UnsupportedError as error:
        raise UnsupportedError(f"{settings.start_from or settings.tokenizer}: {error}") from None


def _count_parameters(settings: PretrainSettings, **size: int) -> int:
    """How many parameters the model will have, without making it."""
    heads = merge_heads(settings.objective_specs)
    config = family_config(settings).model_copy(update=size)
    network = meta_network(find("families", settings.family), config, "+".join(heads), OutputSpec())
    return sum(p.numel() for p in network.parameters())


def _max_vocabulary_size(settings: PretrainSettings) -> int:
    """Tokens whose embeddings are half of the parameters: more would make the model mostly a table."""
    once, twice = (
        _count_parameters(settings, vocab_size=size)
        for size in (ASSUMED_VOCABULARY_SIZE, 2 * ASSUMED_VOCABULARY_SIZE)
    )
    return (2 * once - twice) * ASSUMED_VOCABULARY_SIZE // (twice - once)


def dry_run(settings: PretrainSettings, reporter: Reporter | None = None) -> dict[str, Any]:
    """Check settings and sources, and say what would be done; nothing is written, no text is tokenized.

    What was skipped and what was recognised goes to ``reporter``.
    """
    dry_run_reporter = reporter or NullReporter()
    sizes = {
        str(component.name): {
            "corpus": ", ".join(component.corpus),
            **_count_text(
                component.corpus,
                spec.columns,
                ReadOptions(component.columns, settings.encoding),
                dry_run_reporter,
            ),
        }
        for component, spec in zip(settings.components, settings.objective_specs, strict=True)
    }
    text = {"mixture": sizes} if settings.mixture else sizes[str(settings.objective)]
    return {
        **text,
        "family": settings.family,
        **({} if settings.mixture else {"objective": settings.objective}),
        "parameters": _count_parameters(settings),
        "length": str(parse_duration(settings.budget)),
    }


def _count_text(
    corpus: tuple[str, ...], columns: tuple[str, ...], reading: ReadOptions, reporter: Reporter
) -> dict[str, int]:
    """How much text there is."""
    if is_tokenized_corpus(corpus):
        tokenized = open_corpus(Path(corpus[0]))
        return {"documents": len(tokenized.train), "tokens": tokenized.train.num_tokens}
    log = RecordLog()
    records = read_records(corpus, columns=columns, read_options=reading, log=log)
    characters = sum(len(str(r.fields[column])) for r in records for column in columns)
    log.raise_if_too_many_bad()
    if log.has_notes:
        reporter.say(f"  {log.summary()}")
    return {
        "documents": log.num_good,
        "characters": characters,
        "bad": log.num_bad,
        "skipped": log.num_skipped,
    }


def _write_outputs(
    run: Run,
    settings: PretrainSettings,
    setup: PretrainSetup,
    summary: dict[str, Any],
    samples: Sequence[Sample],
) -> dict[str, Any]:
    """Write model, card and report; the summary comes last, its time up to here."""
    trained = time.monotonic()

    def fill(folder: Path) -> None:
        setup.model.write(folder)
        card = cards.pretraining_card(settings, setup.corpora, summary)
        (folder / "README.md").write_text(card, encoding="utf-8")

    atomic_files.write_folder(run.model_path, fill, metadata={"type": "model"})
    run_page.write_pretraining_page(
        run.folder / "report.html", settings, summary, read_metrics(run.metrics_path), samples,
        describe_environment(), language=settings.language,
    )  # fmt: skip
    summary |= {"seconds": round(summary["seconds"] + time.monotonic() - trained, 1)}
    run.finish(summary)
    return summary
