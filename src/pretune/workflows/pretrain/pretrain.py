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
from pretune.data.corpus.build import is_prepared, open_prepared
from pretune.data.sources.read_options import Reading
from pretune.data.sources.records import RecordLog, read_records
from pretune.errors import CheckpointError, ChecksumError, DataError, UnsupportedError
from pretune.model.build import sketch
from pretune.registry import find
from pretune.runtime import atomic_files, state_file
from pretune.runtime.distributed import World
from pretune.runtime.metrics_reader import read_log
from pretune.runtime.progress import Reporter, Silent
from pretune.runtime.run_folder import Run, environment
from pretune.text.tokenizer import Tokenizer
from pretune.training.duration import parse_length
from pretune.training.train_state import Outcome
from pretune.training.trainer import Trainer
from pretune.types import Traits
from pretune.workflows import cards, run_page, verdicts
from pretune.workflows.prediction_findings import Final, Origin, of_samples
from pretune.workflows.pretrain.components import Pretraining
from pretune.workflows.pretrain.continue_from import tokenizer_of
from pretune.workflows.pretrain.corpora import prepare_parts
from pretune.workflows.pretrain.mixture import heads_of
from pretune.workflows.pretrain.samples import Sample, material, samples
from pretune.workflows.pretrain.settings import ASSUMED, shape
from pretune.workflows.pretrain.settings import PretrainSettings as PretrainSettings
from pretune.workflows.pretrain.settings import resolve as resolve
from pretune.workflows.run_lifecycle import RunResult, carried_out

AFTER = {"model, samples and report": 3.0}
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
    started: float | None = None,
) -> RunResult:
    """Pretrain a model; the same call goes on where a stopped one ended.

    The keywords are the settings most often given; ``settings`` takes all of them (see
    :class:`PretrainSettings`). ``changes`` is the ``plan.json`` of a run whose steps and changes in mid-run
    are to be made again. ``started`` is the ``time.monotonic()`` that a budget in minutes runs from.

    Raises:
        ConfigError: a setting that pretune does not take, or a run folder of other settings.
        DataError: text that cannot be used.
        Interrupted: a signal came; a checkpoint is saved and the same call goes on.
    """
    started = time.monotonic() if started is None else started
    given = {
        "corpus": _paths(corpus),
        "family": family, "budget": budget, "max_length": max_length, "model": model, "training": training,
        "language": language, "columns": columns, "encoding": encoding,
        "start_from": None if start_from is None else str(start_from),
        "tokenizer": None if tokenizer is None else str(tokenizer),
    }  # fmt: skip
    resolved = resolve(settings, {k: v for k, v in given.items() if v is not None})
    work = partial(_pretrained, resolved, started)
    texts = [source for part in resolved.parts for source in part.corpus]
    return carried_out(work, "pretrain", resolved, texts, out=out, changes=changes, reporter=reporter)


def _paths(paths: FilePath | Sequence[FilePath] | None) -> list[str] | None:
    if paths is None:
        return None
    return [str(path) for path in ([paths] if isinstance(paths, str | Path) else paths)]


def _pretrained(
    resolved: PretrainSettings, started: float, run: Run, world: World, reporter: Reporter
) -> Mapping[str, Any]:
    data = run.folder / "data"
    try:
        return _trained(resolved, started, run, world, reporter)
    except ChecksumError as error:
        if world.size > 1 or not error.path.is_relative_to(data):
            where = error.path.parent.parent
            raise DataError(
                f"{error}; prepare the text again: remove {where}, and repeat its command"
            ) from None
        reporter.say(f"  {error}; the text is prepared anew")
        damaged = error.path
    # Only here: the traceback of an error that is being handled holds on to all that was read.
    return _trained(resolved, started, run, world, reporter, anew=damaged)


def _trained(
    resolved: PretrainSettings,
    started: float,
    run: Run,
    world: World,
    reporter: Reporter,
    anew: Path | None = None,
) -> Mapping[str, Any]:
    length = parse_length(resolved.budget)
    with world.in_turn(), run.starting():
        tokenizer_given = _given_tokenizer(resolved)
        _check_tokenizer(resolved, tokenizer_given)
        prepared = prepare_parts(
            resolved,
            run.folder / "data",
            tokenizer=tokenizer_given,
            largest_vocabulary=_largest_vocabulary(resolved) if resolved.vocabulary_size == "auto" else None,
            reporter=reporter,
            anew=anew,
        )
        seconds = length.seconds_left(started, sum(AFTER.values()))
        pretraining = Pretraining(resolved, prepared, run, seconds, reporter, world)
    _say_levels(resolved, pretraining, reporter)
    before = _loss_before(run, pretraining, reporter, world) if resolved.start_from else None
    outcome = Trainer(
        keeper=pretraining.model,
        objective=pretraining.objective,
        batches=pretraining.batches,
        evaluate=pretraining.evaluate,
        settings=resolved.training,
        length=length,
        run=run,
        reporter=reporter,
        started=started,
        evaluation_tokens=sum(held.tokens for held in pretraining.held_out.values()),
        after=lambda evaluation: AFTER,
        name=resolved.family,
        levels={"unigram": pretraining.first.unigram, "bigram": pretraining.first.bigram},
        beside=pretraining.levels_in_training(),
        world=world,
    ).train()
    return world.lead(lambda: _concluded(run, resolved, pretraining, outcome, before, reporter))


def _say_levels(resolved: PretrainSettings, parts: Pretraining, reporter: Reporter) -> None:
    """How large the model is, and what n-gram models make of the held-out text of each part."""
    reporter.say(f"  {resolved.family}, {parts.model.parameters:,} parameters")
    for (name, held), kind in zip(parts.held_out.items(), resolved.kinds, strict=True):
        of = f" of {name}" if resolved.mixture else ""
        reporter.say(
            f"  on the held-out text{of} a unigram model has {held.unigram:.2f} nats, a bigram model "
            f"{held.bigram:.2f}"
        )
        if kind.scores_hidden_only:
            reporter.say(
                f"  held-out text{of} is scored at its hidden tokens alone; training counts easier ones, too"
            )


def _concluded(
    run: Run,
    resolved: PretrainSettings,
    pretraining: Pretraining,
    outcome: Outcome,
    before: Mapping[str, float] | None,
    reporter: Reporter,
) -> dict[str, Any]:
    """Everything that is written once training has ended; the summary."""
    length, model = parse_length(resolved.budget), pretraining.model
    began = time.monotonic()
    shown = samples(model, material(pretraining.prepared[0], model, 6))
    summary = pretraining.summary(outcome, before)
    summary["seconds"] += time.monotonic() - began
    final = Final(of_samples(shown, model.tokenizer), summary["loss"] < summary["unigram"], Origin())
    summary |= verdicts.concluded(
        run, outcome, resolved.training.patience, resolved.language, reporter, final
    )
    if length.unit == "seconds":
        summary["budget_seconds"] = length.amount
    changed = [sentence for text in pretraining.prepared for sentence in text.changed]
    if changed:
        summary["sources_changed"] = changed
    return _finish(run, resolved, pretraining, summary, shown)


def _given_tokenizer(settings: PretrainSettings) -> Tokenizer | None:
    if settings.start_from:
        return tokenizer_of(settings.start_from)
    return Tokenizer.load(Path(settings.tokenizer)) if settings.tokenizer else None


def _loss_before(run: Run, parts: Pretraining, reporter: Reporter, world: World) -> dict[str, float]:
    """The held-out scores of the checkpoint as it was, measured once and kept in the run."""
    path = run.folder / "before.json"
    kept: dict[str, float] | None = world.lead(lambda: _read_before(path, reporter))
    if kept is not None:
        return kept
    scores = {score.name: score.value for score in parts.evaluate(parts.model.network, 0)}
    reporter.say("  before: " + ", ".join(f"{name} {value:.3f}" for name, value in scores.items()))
    world.lead(lambda: state_file.write(path, scores))
    return scores


class _Before(pydantic.RootModel[dict[str, float]]):
    """The form of before.json: score to value."""


def _read_before(path: Path, reporter: Reporter) -> dict[str, float] | None:
    try:
        return state_file.read(path, "it is measured again", _Before)
    except CheckpointError as error:
        reporter.say(f"  {error}")
        return None


def _check_tokenizer(settings: PretrainSettings, tokenizer: Tokenizer | None) -> None:
    """A tokenizer that the objective cannot use is refused before the text is tokenized."""
    if tokenizer is None:
        return
    traits: Traits = find("families", settings.family).TRAITS
    try:
        for kind in settings.kinds:
            kind.make(traits, tokenizer.specials)
    except UnsupportedError as error:
        raise UnsupportedError(f"{settings.start_from or settings.tokenizer}: {error}") from None


def _parameters(settings: PretrainSettings, **size: int) -> int:
    """How many parameters the model will have, without making it."""
    heads = heads_of(settings.kinds)
    config = shape(settings).model_copy(update=size)
    network = sketch(find("families", settings.family), config, "+".join(heads), ())
    return sum(p.numel() for p in network.parameters())


def _largest_vocabulary(settings: PretrainSettings) -> int:
    """Tokens whose embeddings are half of the parameters: more would make the model mostly a table."""
    once, twice = (_parameters(settings, vocab_size=size) for size in (ASSUMED, 2 * ASSUMED))
    return (2 * once - twice) * ASSUMED // (twice - once)


def rehearse(settings: PretrainSettings, reporter: Reporter | None = None) -> dict[str, Any]:
    """Check settings and sources, and say what would be done; nothing is written, no text is tokenized.

    What was skipped and what was recognised goes to ``reporter``.
    """
    told = reporter or Silent()
    sizes = {
        str(part.name): {
            "corpus": ", ".join(part.corpus),
            **_size(part.corpus, kind.columns, Reading(part.columns, settings.encoding), told),
        }
        for part, kind in zip(settings.parts, settings.kinds, strict=True)
    }
    text = {"mixture": sizes} if settings.mixture else sizes[str(settings.objective)]
    return {
        **text,
        "family": settings.family,
        **({} if settings.mixture else {"objective": settings.objective}),
        "parameters": _parameters(settings),
        "length": str(parse_length(settings.budget)),
    }


def _size(
    corpus: tuple[str, ...], columns: tuple[str, ...], reading: Reading, reporter: Reporter
) -> dict[str, int]:
    """How much text there is."""
    if is_prepared(corpus):
        prepared = open_prepared(Path(corpus[0]))
        return {"documents": len(prepared.train), "tokens": prepared.train.tokens}
    log = RecordLog()
    records = read_records(corpus, columns=columns, reading=reading, log=log)
    characters = sum(len(str(r.fields[column])) for r in records for column in columns)
    log.finish()
    if log.remarkable:
        reporter.say(f"  {log.summary()}")
    return {"documents": log.good, "characters": characters, "bad": log.bad, "left_out": log.left_out}


def _finish(
    run: Run,
    settings: PretrainSettings,
    parts: Pretraining,
    summary: dict[str, Any],
    shown: Sequence[Sample],
) -> dict[str, Any]:
    """Write model, card and report; the summary comes last, its time up to here."""
    trained = time.monotonic()

    def fill(folder: Path) -> None:
        parts.model.write(folder)
        card = cards.pretrained(settings, parts.prepared, summary)
        (folder / "README.md").write_text(card, encoding="utf-8")

    atomic_files.write_folder(run.model, fill, about={"kind": "model"})
    run_page.pretraining(
        run.folder / "report.html", settings, summary, read_log(run.metrics), shown,
        environment(), language=settings.language,
    )  # fmt: skip
    summary |= {"seconds": round(summary["seconds"] + time.monotonic() - trained, 1)}
    run.finish(summary)
    return summary
