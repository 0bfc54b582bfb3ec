"""Runs side by side: the settings in which they differ, and their scores where these can be compared."""
# ruff: noqa: E501 (a sentence a line)

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from pretune.arguments import FilePath, check_arguments
from pretune.config import digest
from pretune.errors import ConfigError
from pretune.metrics.statistics import paired_difference
from pretune.report import page as p
from pretune.report.words import words
from pretune.training.log import read_log
from pretune.training.run import Run, environment
from pretune.workflows import pages
from pretune.workflows.runs import baselines_of, changed_settings, config_of, open_run, scores_of, verb_of

PHRASES = {
    "en": {
        "title": "Runs compared",
        "subtitle": "{n} runs",
        "differ": "Settings that differ",
        "alike": "The settings are the same.",
        "refused": "The scores are not compared: {why}.",
        "verbs": "{a} was made by {a_verb!r}, {b} by {b_verb!r}; they have no score in common",
        "unknown": "{a} was begun by no verb that is known here",
        "tokenizer": "a loss per token depends on the tokenizer and the window, and {a} and {b} differ in them",
        "objective": "{a} learns by {a_objective}, {b} by {b_objective}: they predict different tokens",
        "held_out": "{a} and {b} are scored on different held-out text",
        "records": "{a} and {b} are scored on different records",
        "unfinished": "{a} has no predictions yet; finish it first",
        "better": "{a} is better than {b} by {difference} points (95 % interval {low} to {high}, {n} texts)",
        "level": "{a} and {b} cannot be told apart on {n} texts (difference {difference} points, 95 % interval "
        "{low} to {high})",
        "lowest": "{a} has the lowest held-out loss, {loss:.3f}; one seed each says little of differences below "
        "what another seed makes",
    },
    "zh": {
        "title": "运行对比",
        "subtitle": "共 {n} 次运行",
        "differ": "不同的配置",
        "alike": "配置相同。",
        "refused": "分数不作比较：{why}。",
        "verbs": "{a} 由 {a_verb!r} 生成，{b} 由 {b_verb!r} 生成，没有共同的分数",
        "unknown": "无法识别 {a} 由哪个命令生成",
        "tokenizer": "每词元损失取决于分词器和窗口长度，而 {a} 与 {b} 在这一点上不同",
        "objective": "{a} 的训练目标是 {a_objective}，{b} 的是 {b_objective}，预测的词元不同",
        "held_out": "{a} 与 {b} 的验证文本不同",
        "records": "{a} 与 {b} 的评测样本不同",
        "unfinished": "{a} 还没有预测结果，请先完成训练",
        "better": "{a} 优于 {b}，领先 {difference} 个百分点（95% 置信区间 {low} 至 {high}，{n} 条文本）",
        "level": "{a} 与 {b} 在 {n} 条文本上分不出高下（相差 {difference} 个百分点，95% 置信区间 {low} 至 {high}）",
        "lowest": "{a} 的验证集损失最低，为 {loss:.3f}；各只有一个随机种子，小于种子波动的差别说明不了什么",
    },
}

Runs = Mapping[str, Run]


@check_arguments
def compare_runs(
    runs: Sequence[FilePath], *, html: FilePath | None = None, language: Literal["en", "zh"] = "en"
) -> dict[str, Any]:
    """Compare runs: ``settings`` that differ, ``scores`` with their intervals, ``findings``.

    Losses of different tokenizers or held-out text, and scores on different records, are not put side by
    side; ``why`` says so. ``html`` is where a page with the curves over each other goes.

    Raises:
        ConfigError: fewer than two runs, or no run in a folder.
    """
    pages.check_language(language)
    opened = _named([open_run(run) for run in runs])
    configs = {name: config_of(run) for name, run in opened.items()}
    summaries = {name: run.summary() or {} for name, run in opened.items()}
    why = _why_not(language, opened, configs, summaries)
    result: dict[str, Any] = {
        "runs": {name: str(run.folder) for name, run in opened.items()},
        "settings": _differing(configs),
        "comparable": why is None,
        "why": why,
        "scores": {} if why else {name: scores_of(summary) for name, summary in summaries.items()},
        "baselines": {} if why else {name: baselines_of(summary) for name, summary in summaries.items()},
        "findings": [] if why else _findings(language, opened, summaries),
    }
    if html is not None:
        result["html"] = str(_page(Path(html), language, opened, summaries, result))
    return result


def _named(runs: Sequence[Run]) -> dict[str, Run]:
    """The runs by as little of their folders as tells them apart."""
    folders = list(dict.fromkeys(run.folder.resolve() for run in runs))
    if len(folders) < 2:
        raise ConfigError("runs compare: give two runs or more, each another one")
    short = len({folder.name for folder in folders}) == len(folders)
    return {(f.name if short else str(f)): Run(f) for f in folders}


def _differing(configs: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """{setting: {run: value}} of those that are not the same in all; absent: the default."""
    flat = {name: changed_settings(config) for name, config in configs.items()}
    keys = sorted({key for values in flat.values() for key in values})
    table = {key: {name: values.get(key, "default") for name, values in flat.items()} for key in keys}
    return {key: row for key, row in table.items() if len({json.dumps(v) for v in row.values()}) > 1}


def _why_not(language: str, runs: Runs, configs: Any, summaries: Any) -> str | None:
    """Why the scores of these runs cannot be compared, or None where they can."""
    first, *others = runs
    phrases = PHRASES[language]
    for name in runs:
        if not verb_of(configs[name]):
            return phrases["unknown"].format(a=name)
    for other in others:
        a_verb, b_verb = verb_of(configs[first]), verb_of(configs[other])
        if a_verb != b_verb:
            return phrases["verbs"].format(a=first, b=other, a_verb=a_verb, b_verb=b_verb)
        reason = MEASURES[a_verb](phrases, (first, other), runs, configs, summaries)
        if reason is not None:
            return reason
    return None


def _losses(phrases: Any, pair: tuple[str, str], runs: Runs, configs: Any, summaries: Any) -> str | None:
    """Two pretraining runs compare where they predict the same tokens of the same text."""
    a, b = pair
    first, second = configs[a].get("objective"), configs[b].get("objective")
    if first != second:
        return str(phrases["objective"].format(a=a, b=b, a_objective=first, b_objective=second))
    signatures = [summaries[name].get("signature") for name in pair]
    if None not in signatures and signatures[0] != signatures[1]:
        return str(phrases["tokenizer"].format(a=a, b=b))
    texts = [summaries[name].get("held_out") for name in pair]
    if None in texts:  # not finished: the same corpus, cut and tokenized alike, holds out the same
        texts = [_source(runs[name], configs[name]) for name in pair]
    return None if texts[0] == texts[1] else str(phrases["held_out"].format(a=a, b=b))


def _source(run: Run, config: Mapping[str, Any]) -> str:
    keys = ("validation", "held_out", "evaluation_tokens", "max_length")
    return digest([run.plan().get("data", str(run.folder)), {key: config.get(key) for key in keys}])


def _labels(phrases: Any, pair: tuple[str, str], runs: Runs, configs: Any, summaries: Any) -> str | None:
    """Two classifiers compare where they were scored on the same records."""
    for name in pair:
        if not _predictions(runs[name]):
            return str(phrases["unfinished"].format(a=name))
    a, b = ([(row["text"], row["label"]) for row in _predictions(runs[name])] for name in pair)
    return None if a == b else str(phrases["records"].format(a=pair[0], b=pair[1]))


MEASURES = {"pretrain": _losses, "finetune": _labels}
"""What makes two runs of a verb incomparable."""


def _predictions(run: Run) -> list[dict[str, Any]]:
    return read_log(run.folder / "predictions.jsonl")


def _findings(language: str, runs: Runs, summaries: Any) -> list[str]:
    """What the scores say of the runs, the first against each other one where items can be paired."""
    phrases = PHRASES[language]
    losses = {name: summary["loss"] for name, summary in summaries.items() if "loss" in summary}
    if losses:
        best = min(losses, key=lambda name: losses[name])
        return [phrases["lowest"].format(a=best, loss=losses[best])]
    right = {
        name: [row["said"] == row["label"] for row in rows]
        for name, rows in ((name, _predictions(run)) for name, run in runs.items())
        if rows
    }
    first, *others = right
    return [_against(phrases, right, first, other) for other in others]


def _against(phrases: Mapping[str, str], right: Mapping[str, list[bool]], a: str, b: str) -> str:
    found = paired_difference([right[a]], [right[b]])
    if found.mean < 0:
        a, b, found = b, a, paired_difference([right[b]], [right[a]])
    low, high = found.interval
    return phrases["better" if low > 0 else "level"].format(
        a=a,
        b=b,
        n=found.n,
        difference=f"{100 * found.mean:.1f}",
        low=f"{100 * low:.1f}",
        high=f"{100 * high:.1f}",
    )


def _page(path: Path, language: str, runs: Runs, summaries: Any, result: Mapping[str, Any]) -> Path:
    """The comparison as a page: findings, curves over each other, scores, and what differs."""
    text, phrases = words(language), PHRASES[language]
    said = [phrases["refused"].format(why=result["why"])] if result["why"] else result["findings"]
    sections: list[p.Section] = [p.Verdict(text["verdict"], tuple(p.VerdictItem("neutral", s) for s in said))]
    if not result["why"]:
        sections += [_curves(language, runs, summaries), *_score_section(language, result["scores"])]
    names = list(result["runs"])
    rows = tuple((key, *(_cell(row[name]) for name in names)) for key, row in result["settings"].items())
    sections.append(p.Table(phrases["differ"], (text["setting"], *names), rows))
    if not rows:
        sections.append(p.Text(phrases["differ"], (phrases["alike"],)))
    about = environment()
    foot = ((text["made_by"], about["packages"]["pretune"]), (text["date"], about["time"]))
    page = p.Page(
        phrases["title"], phrases["subtitle"].format(n=len(names)), pages.check_language(language),
        tuple(sections), foot,
    )  # fmt: skip
    return p.write(page, path)


def _curves(language: str, runs: Runs, summaries: Any) -> p.Curve:
    """The deciding held-out score of every run over the tokens that it read."""
    text = words(language)
    series: list[p.Series] = []
    levels: tuple[tuple[str, float], ...] = ()
    for name, run in runs.items():
        rows = read_log(run.metrics)
        tokens = {row["step"]: row["tokens"] for row in rows if row["kind"] in ("step", "skipped")}
        checks = [row for row in rows if row["kind"] == "evaluation" and row["step"] in tokens]
        ys = tuple(float(next(iter(c["scores"].values()))) for c in checks)
        series.append(p.Series(name, tuple(float(tokens[c["step"]]) for c in checks), ys))
        summary = summaries[name]
        if "unigram" in summary:
            levels = ((text["unigram"], summary["unigram"]), (text["bigram"], summary["bigram"]))
    label = text["nats_per_token"] if any("loss" in s for s in summaries.values()) else text["accuracy"]
    return p.Curve(text["validation"], tuple(series), levels, text["tokens"], label)


def _score_section(language: str, scores: Mapping[str, Mapping[str, Any]]) -> list[p.Section]:
    """The scores that all runs have, each on one axis."""
    text, sections = words(language), []
    shared = [n for n in next(iter(scores.values()), {}) if all(n in found for found in scores.values())]
    for name in shared:
        rows = []
        for run, found in scores.items():
            low, high = found[name].get("interval") or (None, None)
            rows.append(p.ScoreRow(run, found[name]["value"], low, high))
        sections.append(p.Scores(f"{text['scores']}: {text.get(name, name)}", tuple(rows), name))
    return list(sections)


def _cell(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
