"""The model card of what a run made."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from pretune.data.corpus.build import TokenizedCorpus
from pretune.model.capabilities import PREFIX_OBJECTIVES
from pretune.objectives import parse_objective
from pretune.registry import find
from pretune.report.card import Card, CardScore, DataSource, model_card
from pretune.report.phrases import phrase, teacher_values
from pretune.report.words import translations
from pretune.tasks import find_task
from pretune.types import Score
from pretune.workflows.findings import severe_findings


def pretraining_card(settings: Any, corpora: Sequence[TokenizedCorpus], summary: dict[str, Any]) -> str:
    """README.md of a pretrained model."""
    baselines = [("unigram", summary["unigram_loss"]), ("bigram", summary["bigram_loss"])]
    limits = ["Trained on no more than the text named above; it repeats its errors and prejudices."]
    if settings.start_from:
        limits = [
            "Starts from a model that was trained on other text, which is not named here; it repeats the "
            "errors and prejudices of both."
        ]
        if not summary["new_heads"]:
            baselines.insert(0, ("the model it starts from", summary["initial_scores"]["loss"]))
    if (
        settings.objective in PREFIX_OBJECTIVES
        and find("families", settings.family).TRAITS.architecture == "decoder"
    ):
        limits.append(phrase(settings.language, "reads_both_ways"))
    changed = [sentence for text in corpora for sentence in text.source_changes]
    if changed:
        file_names = [Path(sentence.partition(": ")[0]).name for sentence in changed]
        limits.append(phrase(settings.language, "sources_changed", files=", ".join(file_names)))
    loss = Score("loss", summary["loss"], summary["num_targets"], summary["signature"], "lower")
    sources = dict.fromkeys(Path(source).name for text in corpora for source in text.sources)
    card = Card(
        name=f"{summary['family']} pretrained with pretune",
        summary=f"A {summary['family']} language model, pretrained by {_objective_phrase(summary)}.",
        head=_head(settings),
        family=str(summary["family"]),
        parameters=int(summary["parameters"]),
        base_model=Path(settings.start_from).name if settings.start_from else "",
        teacher=_teacher(summary, settings.language),
        sources=tuple(map(DataSource, sources)),
        settings=_settings(summary, settings),
        scores=(
            CardScore("held-out text", loss, tuple(baselines)),
            *_component_scores(summary),
            *_accuracy_scores(summary),
        ),
        limits=tuple(limits),
        warnings=_warnings(summary),
        language=settings.language,
    )
    return model_card(card)


def _teacher(summary: dict[str, Any], language: str) -> str:
    """Whom a distilled model learnt from."""
    return phrase(language, "teacher", **teacher_values(summary["teacher"])) if "teacher" in summary else ""


def _head(settings: Any) -> str:
    """The head that the model is used through."""
    if find("families", settings.family).TRAITS.architecture == "encoder-decoder":
        return "sequence_to_sequence"
    return parse_objective(settings.objective).heads[0]


def _objective_phrase(summary: dict[str, Any]) -> str:
    """The objective, or those of a mixture with their shares."""
    components = summary.get("mixture", {})
    shares = ", ".join(
        f"{component['objective']} ({100 * component['share']:.3g} %)" for component in components.values()
    )
    return f"a mixture of {shares}" if components else str(summary["objective"])


def _component_scores(summary: dict[str, Any]) -> Iterator[CardScore]:
    """The losses of a mixture's parts but for the first."""
    for name, component in list(summary.get("mixture", {}).items())[1:]:
        loss = Score(
            f"loss/{name}", component["loss"], component["num_targets"], component["signature"], "lower"
        )
        yield CardScore(
            "held-out text",
            loss,
            (("unigram", component["unigram_loss"]), ("bigram", component["bigram_loss"])),
        )


def _accuracy_scores(summary: dict[str, Any]) -> Iterator[CardScore]:
    """Of heads that choose among classes, beside the share of the most frequent one."""
    for name in (key for key in summary if key.endswith("_accuracy")):
        score = Score(name, summary[name], summary[f"{name}_n"], summary["signature"])
        yield CardScore(
            "held-out text", score, (("majority", summary[name.replace("accuracy", "majority")]),)
        )


def finetuning_card(settings: Any, summary: dict[str, Any]) -> str:
    """README.md of a fine-tuned model."""
    scores = []
    for name, score in summary["scores"].items():
        low_high = score["interval"]
        value = Score(
            name, score["value"], score["n"], score["signature"], score["direction"],
            tuple(low_high) if low_high else None,
        )  # fmt: skip
        baselines = tuple((b, row[name]["value"]) for b, row in summary["baselines"].items())
        scores.append(CardScore(translations(settings.language)[summary["split"]], value, baselines))
    language, task = settings.language, find_task(settings.task)
    words = task.phrases[language]
    what = phrase(language, "two_texts" if summary["pairs"] else "one_text")
    comma = "、" if language == "zh" else ", "
    card = Card(
        name=phrase(language, "card_name", family=summary["family"]),
        summary=words.description.format(text=what, labels=comma.join(summary["labels"])),
        head=str(summary["head"]),
        family=str(summary["family"]),
        parameters=int(summary["parameters"]),
        base_model="" if settings.random_init else Path(settings.model).name,
        teacher=_teacher(summary, settings.language),
        sources=tuple(DataSource(Path(s).name) for s in settings.train),
        settings=_settings(summary, settings),
        scores=tuple(scores),
        limits=(words.limits.format(n=f"{summary['num_train']:,}"),),
        warnings=_warnings(summary),
        example=words.example,
        example_pair=words.example_pair if summary["pairs"] else "",
        multi_label=task.labels_are_independent,
        language=settings.language,
    )
    return model_card(card)


def _warnings(summary: dict[str, Any]) -> tuple[str, ...]:
    """What makes the model useless, as its verdicts say it."""
    return tuple(item.text for item in severe_findings(summary))


def _settings(summary: dict[str, Any], settings: Any) -> tuple[tuple[str, str], ...]:
    training = settings.training
    examples = summary.get("batch_examples", training.batch_examples)
    size = f"{training.batch_tokens} tokens" if training.batch_tokens else f"{examples} examples"
    options = {**getattr(settings, "task_options", {}), **summary.get("task_options", {})}
    return (
        ("steps", str(summary["steps"])),
        ("step size", size),
        ("optimizer", f"{training.optimizer.name}, learning rate {training.optimizer.learning_rate:g}"),
        ("schedule", training.schedule.name),
        ("seed", str(training.seed)),
        ("budget", settings.budget),
        *((key, str(value)) for key, value in options.items()),
    )
