"""The main job on text that pretune ships: from raw text to a tested model, in minutes.

Stages: one bilingual tokenizer; a small BERT (masked) and a small Llama (causal) pretrained on English and
Chinese together; for each language a classifier fine-tuned from the pretrained BERT and from a random one,
three seeds each, beside its baselines; samples; a report. Each stage is a run of its own below the run's
folder, so a stopped quickstart goes on where it was. The settings were chosen on validation data, with equal
numbers of trials for both kinds of start (docs/lab-notes.md); the test sets decide nothing.
"""

from __future__ import annotations

import importlib.resources
import itertools
import shutil
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

from pretune.arguments import FilePath, PositiveFloat, check_arguments
from pretune.baselines.tfidf import majority, tfidf
from pretune.config import digest
from pretune.data.corpus.build import TokenizedCorpus, build_corpus
from pretune.errors import ConfigError
from pretune.evaluation.mistakes import confident_mistakes
from pretune.metrics.accuracy import ACCURACY
from pretune.metrics.statistics import mean_interval, paired_difference, score
from pretune.model.model import Model
from pretune.runtime import device, run_lock, state_file
from pretune.runtime.metrics_reader import read_metrics
from pretune.runtime.progress import NullReporter, Reporter, TerminalReporter
from pretune.runtime.run_folder import INITIAL_FILES, RUN_FILES, describe_environment, remove_files
from pretune.types import Prediction
from pretune.workflows import run_page
from pretune.workflows.evaluate import read_labelled
from pretune.workflows.findings import severe_findings, severe_findings_of_run
from pretune.workflows.finetune.finetune import finetune
from pretune.workflows.pretrain.pretrain import pretrain
from pretune.workflows.pretrain.samples import Sample, generate_samples, select_sentences
from pretune.workflows.quickstart.comparison import ClassifierComparison
from pretune.workflows.run_lifecycle import RunResult

LANGUAGES = ("zh", "en")
PLAN_FILE = "quickstart.json"
SEEDS = (0, 1, 2)
VOCABULARY_SIZE = 4096
OTHER_STAGES_SECONDS = 115.0
"""Seconds of five minutes, on two cores, that all but pretraining takes, with a margin."""
TIME_SHARES = {"masked": 0.53, "causal": 1.0}
"""Of the time that is left for pretraining when each begins."""

MASKED_SETTINGS: dict[str, Any] = {
    "family": "modernbert",
    "model": {"hidden_size": 128, "num_hidden_layers": 2, "num_attention_heads": 2},
    "max_length": 64,
    "training": {
        "batch_tokens": 1024,
        "optimizer": {
            "name": "muon",
            "learning_rate": 2e-3,
            "muon_learning_rate": 0.01,
            "betas": (0.9, 0.995),
            "weight_decay": 0.1,
        },
        "schedule": {"warmup": 0.1},
    },
}
CAUSAL_SETTINGS: dict[str, Any] = {
    "family": "llama",
    "model": {"hidden_size": 128, "num_hidden_layers": 2, "num_attention_heads": 2},
    "max_length": 128,
    "training": {
        "batch_tokens": 1024,
        "optimizer": {
            "name": "muon",
            "learning_rate": 1e-2,
            "muon_learning_rate": 0.03,
            "betas": (0.9, 0.995),
            "weight_decay": 0.1,
        },
    },
}
FINETUNE_SETTINGS: dict[str, Any] = {
    "baselines": False,
    "budget": "8 epochs",
    "task_options": {"long_texts": "truncate"},
    "model_settings": {"embedding_dropout": 0.1, "mlp_dropout": 0.1},
}
LEARNING_RATES = {"pretrained": 2e-3, "random": 3e-3}
"""The best on validation records: of six from pretrained weights, of three from random ones."""


@dataclass(frozen=True)
class _SeedResults:
    """The test predictions of one start (pretrained or random), a row a seed."""

    accuracies: list[dict[str, Any]]
    correct: np.ndarray[tuple[int, int], np.dtype[np.bool_]]
    """(seeds, n)"""
    predictions: list[Prediction]
    """Of the first seed."""


@check_arguments
def quickstart(
    *,
    out: FilePath = "runs/quickstart",
    minutes: PositiveFloat = 5.0,
    start_time: float | None = None,
    quiet: bool = False,
) -> RunResult:
    """Run the main job within ``minutes``; begins anew where pretune or the shipped text has changed.

    Raises:
        Interrupted: a signal came; the same call goes on.
    """
    start_time = time.monotonic() if start_time is None else start_time
    reporter: Reporter = NullReporter() if quiet else TerminalReporter(deadline=start_time + 60 * minutes)
    device.configure()
    folder = Path(out)
    with run_lock.lock_run(folder):
        return _run_stages(folder, minutes, start_time, reporter)


def _run_stages(folder: Path, minutes: float, start_time: float, reporter: Reporter) -> RunResult:
    plan = _prepare_folder(folder, minutes)
    finished = folder / "summary.json"
    if finished.exists():
        reporter.say(f"{folder}: this run is complete; remove the folder to run it again")
        return RunResult(folder, state_file.read(finished, "remove it and run the command again") or {})

    texts = folder / "texts"
    reporter.say("1/5 text: one tokenizer for English and Chinese, shards of tokens")
    corpus = build_corpus(
        tuple(str(texts / f"pretrain_{language}.jsonl") for language in LANGUAGES),
        folder / "data",
        tokenizer=None, vocabulary_size=VOCABULARY_SIZE, validation_fraction=0.05, validation=(),
        reporter=reporter,
    )  # fmt: skip
    runs = {}
    for number, (name, settings) in enumerate(
        {"masked": MASKED_SETTINGS, "causal": CAUSAL_SETTINGS}.items(), 2
    ):
        if name not in plan:  # decided here, so that what ran over before is taken off
            seconds_left = start_time + 60 * minutes - time.monotonic() - OTHER_STAGES_SECONDS * minutes / 5
            plan[name] = round(max(20.0, seconds_left * TIME_SHARES[name]))
            state_file.write(folder / PLAN_FILE, plan)
        reporter.say(f"{number}/5 pretraining: {settings['family']} ({name}), {plan[name]} s")
        runs[name] = pretrain(
            settings,
            corpus=str(folder / "data"),
            budget=f"{plan[name]}s",
            out=folder / name,
            reporter=reporter,
        )
    reporter.say(
        "4/5 fine-tuning: a classifier a language, from pretrained and from random weights, three seeds"
    )
    seed_results = {
        (language, start): _finetune_seeds(folder, language, start, reporter)
        for language in LANGUAGES
        for start in LEARNING_RATES
    }
    reporter.say("5/5 baselines, samples, report")
    report = _Report(folder, corpus, runs, seed_results)
    summary = report.summary() | {"seconds": round(time.monotonic() - start_time, 1)}
    for language in ("en", "zh"):
        report.write(folder / ("report.html" if language == "en" else "report.zh.html"), language, summary)
    state_file.write(finished, summary)
    return RunResult(folder, summary)


def summary_lines(result: RunResult) -> list[str]:
    """What the command line says at the end: the figures, and what to try next."""
    lines = []
    for name, row in result.summary["pretraining"].items():
        lines.append(
            f"{row['family']:6} {name}: held-out loss {row['loss']:.2f} nats a token "
            f"(unigram {row['unigram_loss']:.2f}, bigram {row['bigram_loss']:.2f}), "
            f"{row['tokens']:,} tokens in {row['seconds']:.0f} s"
        )
    for language, row in result.summary["classification"].items():
        means = {start: np.mean([r["accuracy"] for r in row[start]]) for start in LEARNING_RATES}
        low, high = row["difference"]["interval"]
        lines.append(
            f"{language} classifier, {row['num_train']} labels: majority {row['majority']:.3f}, "
            f"TF-IDF {row['tfidf']:.3f}, random {means['random']:.3f}, pretrained {means['pretrained']:.3f} "
            f"(difference {row['difference']['mean']:+.3f}, 95 % {low:+.3f} to {high:+.3f})"
        )
    folder = result.folder
    return [
        *(f"! {item.text}" for item in severe_findings(result.summary)),
        *lines,
        f"report: {folder / 'report.html'} (English), {folder / 'report.zh.html'} (Chinese)",
        "try next:",
        f'  pretune predict {folder}/masked --text "In the beginning God created the [MASK] and the earth."',
        f'  pretune predict {folder}/causal --text "And it came to pass"',
        f'  pretune predict {folder}/classify-zh-pretrained-0 --text "人民法院审理行政案件，不适用调解。"',
        "  pretune pretrain YOUR_FOLDER --budget 30min     (your own .txt or .jsonl text)",
    ]


def _prepare_folder(folder: Path, minutes: float) -> dict[str, Any]:
    """The plan of the run in ``folder``, which is emptied first if it is another version's."""
    shipped = importlib.resources.files("pretune") / "shipped"
    with importlib.resources.as_file(shipped) as source:
        files = sorted(p for p in source.rglob("*") if p.suffix in (".jsonl", ".md"))
        content = digest([[str(p.relative_to(source)), p.read_text(encoding="utf-8")] for p in files])
        identity = {"version": metadata.version("pretune"), "texts": content, "minutes": minutes}
        marker = folder / PLAN_FILE
        plan = state_file.read(marker, f"remove {folder} and run the command again") or {}
        if plan and identity.items() <= plan.items():
            return plan
        if not plan and any(path.name != run_lock.LOCK_FILE for path in folder.iterdir()):
            raise ConfigError(
                f"{folder}: holds files but no quickstart; give an empty or new folder with --out"
            )
        _clear_folder(folder)
        for path in files:
            target = folder / "texts" / path.relative_to(source)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, target)
    state_file.write(marker, identity)
    return identity


def _clear_folder(folder: Path) -> None:
    """Remove what an earlier quickstart made, and nothing else that may lie there."""
    classifiers = [f"classify-{language}-{start}-{seed}" for language, start, seed in _iter_classifiers()]
    for name in ("masked", "causal", *classifiers):
        remove_files(folder / name, RUN_FILES)
    remove_files(
        folder, (*INITIAL_FILES, "texts/*.jsonl", "texts/*.md", "report*.html", "summary.json", PLAN_FILE)
    )
    for name in ("masked", "causal", *classifiers):
        with suppress(OSError):  # it is not there, or holds something of the user's
            (folder / name).rmdir()


def _iter_classifiers() -> Iterator[tuple[str, str, int]]:
    return itertools.product(LANGUAGES, LEARNING_RATES, SEEDS)


def _finetune_seeds(folder: Path, language: str, start: str, reporter: Reporter) -> _SeedResults:
    """Fine-tune ``start`` with each seed, and read the test predictions that the runs wrote."""
    texts = folder / "texts" / f"topic_{language}"
    accuracies, correct = [], []
    predictions: list[Prediction] = []
    for seed in SEEDS:
        run = finetune(
            folder / "masked",
            settings={**FINETUNE_SETTINGS, "random_init": start == "random", "language": language},
            train=texts / "train.jsonl", validation=texts / "validation.jsonl", test=texts / "test.jsonl",
            training={"evaluations": 2, "seed": seed, "optimizer": {"learning_rate": LEARNING_RATES[start]}},
            out=folder / f"classify-{language}-{start}-{seed}", reporter=NullReporter(),
        )  # fmt: skip
        score = run.summary["scores"]["accuracy"]
        reporter.say(f"  {language}, {start}, seed {seed}: accuracy {score['value']:.3f}")
        accuracies.append(
            {
                "seed": seed, "accuracy": score["value"], "interval": score["interval"],
                "verdicts": [row for row in run.summary["verdicts"] if row["type"] == "constant_prediction"],
            }
        )  # fmt: skip
        rows = read_metrics(run.folder / "predictions.jsonl")
        correct.append([row["prediction"] == row["label"] for row in rows])
        if seed == SEEDS[0]:
            predictions = [Prediction(i, row["prediction"], row["confidence"]) for i, row in enumerate(rows)]
    return _SeedResults(accuracies, np.array(correct), predictions)


class _Report:
    """Everything that the runs left, brought together."""

    def __init__(
        self,
        folder: Path,
        corpus: TokenizedCorpus,
        runs: Mapping[str, RunResult],
        seed_results: Mapping[tuple[str, str], _SeedResults],
    ) -> None:
        self.folder, self.runs, self.seed_results = folder, runs, seed_results
        self.classification = {language: self._compare_classifiers(language) for language in LANGUAGES}
        self.samples = {name: _generate_samples(run.model, corpus) for name, run in runs.items()}

    def summary(self) -> dict[str, Any]:
        """What summary.json holds."""
        kept = (
            "family",
            "parameters",
            "tokens",
            "seconds",
            "loss",
            "unigram_loss",
            "bigram_loss",
            "bits_per_byte",
            "steps",
        )
        return {
            "verb": "quickstart",
            "pretraining": {
                name: {key: run.summary[key] for key in kept if key in run.summary}
                for name, run in self.runs.items()
            },
            "classification": {language: found.summary() for language, found in self.classification.items()},
            "verdicts": self._severe_verdicts(),
        }

    def _severe_verdicts(self) -> list[dict[str, Any]]:
        """What makes one of the models useless, with its name."""
        named = {name: run.summary["verdicts"] for name, run in self.runs.items()}
        for (language, start), arm in self.seed_results.items():
            for row in arm.accuracies:
                named[f"{language} classifier, {start}, seed {row['seed']}"] = row["verdicts"]
        return [
            {**row, "text": item.text}
            for name, rows in named.items()
            for row in rows
            for item in severe_findings_of_run("en", name, [row])
        ]

    def write(self, path: Path, language: str, summary: Mapping[str, Any]) -> None:
        """The page in one language."""
        logs = {name: read_metrics(run.folder / "metrics.jsonl") for name, run in self.runs.items()}
        run_page.write_quickstart_page(
            path, summary, {name: run.summary for name, run in self.runs.items()}, logs,
            self.classification, self.samples, describe_environment(), language=language,
        )  # fmt: skip

    def _compare_classifiers(self, language: str) -> ClassifierComparison:
        texts = self.folder / "texts" / f"topic_{language}"
        train, test = (
            read_labelled((texts / f"{split}.jsonl",), NullReporter()) for split in ("train", "test")
        )
        truth = [str(r.fields["label"]) for r in test]
        train_labels = [str(r.fields["label"]) for r in train]
        test_texts = [str(r.fields["text"]) for r in test]
        baselines = {
            "majority": majority(train_labels, test_texts),
            "tfidf": tfidf([str(r.fields["text"]) for r in train], train_labels, test_texts, seed=0),
        }
        correct = {
            name: np.array([[p == t for p, t in zip(b.predictions, truth, strict=True)]])
            for name, b in baselines.items()
        }
        pretrained, random = self.seed_results[language, "pretrained"], self.seed_results[language, "random"]
        return ClassifierComparison(
            train=len(train),
            test=len(test),
            baseline_scores={
                name: score(ACCURACY, list(b.predictions), truth) for name, b in baselines.items()
            },
            accuracies={"pretrained": pretrained.accuracies, "random": random.accuracies},
            intervals={
                "pretrained": mean_interval(pretrained.correct.mean(0)),
                "random": mean_interval(random.correct.mean(0)),
            },
            difference=paired_difference(pretrained.correct, random.correct),
            baseline_differences={
                name: paired_difference(pretrained.correct, row) for name, row in correct.items()
            },
            mistakes=confident_mistakes(test, pretrained.predictions, truth, k=4),
        )


def _generate_samples(path: Path, corpus: TokenizedCorpus) -> list[Sample]:
    """Two samples in each language, of held-out sentences."""
    model = Model.load(path)
    found = select_sentences(corpus.validation, corpus.tokenizer, 40, model.max_length)
    chinese = [text for text in found if any("\u4e00" <= c <= "\u9fff" for c in text)]
    english = [text for text in found if text not in chinese]
    return generate_samples(model, [*english[:2], *chinese[:2]])
