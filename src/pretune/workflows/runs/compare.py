"""Runs side by side: the settings in which they differ, and their scores where these can be compared."""
# ruff: noqa: E501 (a sentence a line)

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from pretune.arguments import FilePath, check_arguments
from pretune.config import digest
from pretune.errors import ConfigError
from pretune.metrics.base import Metric
from pretune.metrics.seeds import seed_difference, seed_std
from pretune.metrics.statistics import PairedDifference, compare
from pretune.report import page as p
from pretune.report.words import translations
from pretune.runtime import atomic_files
from pretune.runtime.metrics_reader import REPEAT_ADVICE, read_metrics
from pretune.runtime.run_folder import Run, describe_environment
from pretune.runtime.state_file import renamed_error
from pretune.tasks import DEFAULT_TASK, find_task
from pretune.types import OutputSpec, Record
from pretune.workflows import run_page
from pretune.workflows.findings import metric_name
from pretune.workflows.runs.groups import RunGroup, group_runs, groups_to_dicts, setting_differences
from pretune.workflows.runs.runs import detect_verb, open_run, read_config, summary_baselines, summary_scores

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
        "tasks": "{a} was fine-tuned for {a_task}, {b} for {b_task}; they have no score in common",
        "records": "{a} and {b} are scored on different records",
        "unfinished": "{a} has no predictions yet; finish it first",
        "better": "{a} is better than {b} by {difference} points of {metric} (95 % interval {low} to {high}, {n} "
        "texts{seeds})",
        "level": "{a} and {b} cannot be told apart on {n} texts (difference {difference} points of {metric}, 95 % "
        "interval {low} to {high}{seeds})",
        "seeds": "; {seeds} seeds, spread {spread}",
        "lowest": "{a} has the lowest validation loss, {loss:.3f}; one seed each says little of differences below "
        "what another seed makes",
        "tie": "{a} have the same validation loss, {loss:.3f}: none is better",
        "lower": "{a} has a lower validation loss than {b}: {first} against {second}, by {difference:.3f} (95 % interval "
        "{low:.3f} to {high:.3f}, over seeds{paired})",
        "level_loss": "{a} and {b} cannot be told apart by their validation losses, {first} and {second} (difference "
        "{difference:.3f}, 95 % interval {low:.3f} to {high:.3f}, over seeds{paired})",
        "paired": ", paired",
        "group": "{a} ({n} seeds)",
        "and": " and ",
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
        "tasks": "{a} 的任务是 {a_task}，{b} 的是 {b_task}，没有共同的分数",
        "records": "{a} 与 {b} 的评测样本不同",
        "unfinished": "{a} 还没有预测结果，请先完成训练",
        "better": "{a} 优于 {b}，{metric}领先 {difference} 个百分点（95% 置信区间 {low} 至 {high}，{n} 条文本{seeds}）",
        "level": "{a} 与 {b} 在 {n} 条文本上分不出高下（{metric}相差 {difference} 个百分点，95% 置信区间 {low} 至 {high}{seeds}）",
        "seeds": "；种子数 {seeds}，标准差 {spread}",
        "tie": "{a} 的验证集损失相同，均为 {loss:.3f}，不分高下",
        "lower": "{a} 的验证集损失低于 {b}：{first} 对 {second}，相差 {difference:.3f}（95% 置信区间 {low:.3f} 至 {high:.3f}，按种子{paired}计算）",
        "level_loss": "按验证集损失，{a} 与 {b} 分不出高下：{first} 与 {second}（相差 {difference:.3f}，95% 置信区间 {low:.3f} 至 {high:.3f}，按种子{paired}计算）",
        "paired": "配对",
        "group": "{a}（{n} 个种子）",
        "and": " 与 ",
        "lowest": "{a} 的验证集损失最低，为 {loss:.3f}；各只有一个随机种子，小于种子波动的差别说明不了什么",
    },
}

Runs = Mapping[str, Run]


@check_arguments
def compare_runs(
    runs: Sequence[FilePath], *, html: FilePath | None = None, language: str = "en"
) -> dict[str, Any]:
    """Compare runs: ``settings`` that differ, ``scores`` with their intervals, ``findings``.

    Runs that differ in their seed alone are one of the ``groups``, with mean and spread, and compared as one.
    Losses of different tokenizers or held-out text, and scores on different records, are not put side by
    side; ``reason`` says so. ``html`` is where a page with the curves over each other goes.

    Raises:
        ConfigError: fewer than two runs, or no run in a folder.
    """
    run_page.check_language(language)
    opened = _name_runs([open_run(run) for run in runs])
    configs = {name: read_config(run) for name, run in opened.items()}
    summaries = {name: run.read_summary() or {} for name, run in opened.items()}
    why = _find_mismatch(language, opened, configs, summaries)
    groups = group_runs(configs)
    result: dict[str, Any] = {
        "runs": {name: str(run.folder) for name, run in opened.items()},
        "settings": setting_differences(configs),
        "comparable": why is None,
        "reason": why,
        "scores": {} if why else {name: summary_scores(summary) for name, summary in summaries.items()},
        "groups": [] if why else groups_to_dicts(groups, summaries),
        "baselines": {} if why else {name: summary_baselines(summary) for name, summary in summaries.items()},
        "findings": [] if why else _findings(language, groups, opened, configs, summaries),
    }
    if html is not None:
        atomic_files.check_file(Path(html), overwrite=p.is_pretune_page(Path(html)))
        result["html"] = str(_write_page(Path(html), language, opened, summaries, result))
    return result


def _name_runs(runs: Sequence[Run]) -> dict[str, Run]:
    """The runs by as little of their folders as tells them apart."""
    folders = list(dict.fromkeys(run.folder.resolve() for run in runs))
    if len(folders) < 2:
        raise ConfigError("runs compare: give two runs or more, each another one")
    short = len({folder.name for folder in folders}) == len(folders)
    return {(f.name if short else str(f)): Run(f) for f in folders}


def _find_mismatch(language: str, runs: Runs, configs: Any, summaries: Any) -> str | None:
    """Why the scores of these runs cannot be compared, or None where they can."""
    first, *others = runs
    phrases = PHRASES[language]
    for name in runs:
        if not detect_verb(configs[name]):
            return phrases["unknown"].format(a=name)
    for other in others:
        a_verb, b_verb = detect_verb(configs[first]), detect_verb(configs[other])
        if a_verb != b_verb:
            return phrases["verbs"].format(a=first, b=other, a_verb=a_verb, b_verb=b_verb)
        reason = MISMATCH_CHECKS[a_verb](phrases, (first, other), runs, configs, summaries)
        if reason is not None:
            return reason
    return None


def _pretraining_mismatch(
    phrases: Any, pair: tuple[str, str], runs: Runs, configs: Any, summaries: Any
) -> str | None:
    """Two pretraining runs compare where they predict the same tokens of the same text."""
    a, b = pair
    first, second = configs[a].get("objective"), configs[b].get("objective")
    if first != second:
        return str(phrases["objective"].format(a=a, b=b, a_objective=first, b_objective=second))
    signatures = [summaries[name].get("signature") for name in pair]
    if None not in signatures and signatures[0] != signatures[1]:
        return str(phrases["tokenizer"].format(a=a, b=b))
    texts = [summaries[name].get("held_out_fingerprint") for name in pair]
    if None in texts:  # not finished: the same corpus, cut and tokenized alike, holds out the same
        texts = [_held_out_digest(runs[name], configs[name]) for name in pair]
    return None if texts[0] == texts[1] else str(phrases["held_out"].format(a=a, b=b))


def _held_out_digest(run: Run, config: Mapping[str, Any]) -> str:
    keys = ("validation", "validation_fraction", "evaluation_tokens", "max_length")
    return digest([run.read_plan().get("data", str(run.folder)), {key: config.get(key) for key in keys}])


def _finetuning_mismatch(
    phrases: Any, pair: tuple[str, str], runs: Runs, configs: Any, summaries: Any
) -> str | None:
    """Two runs of a task compare where they were scored on the same records."""
    a, b = pair
    first, second = (_task_name(configs[name]) for name in pair)
    if first != second:
        return str(phrases["tasks"].format(a=a, b=b, a_task=first, b_task=second))
    for name in pair:
        if not _read_predictions(runs[name]):
            return str(phrases["unfinished"].format(a=name))
    fields = [field.name for field in find_task(first).fields]
    inputs = [
        [[row.get(field) for field in fields] for row in _read_predictions(runs[name])] for name in pair
    ]
    return None if inputs[0] == inputs[1] else str(phrases["records"].format(a=a, b=b))


MISMATCH_CHECKS = {"pretrain": _pretraining_mismatch, "finetune": _finetuning_mismatch}
"""What makes two runs of a verb incomparable."""


def _task_name(config: Mapping[str, Any]) -> str:
    return str(config.get("task", DEFAULT_TASK))


def _read_predictions(run: Run) -> list[dict[str, Any]]:
    path = run.folder / "predictions.jsonl"
    rows = read_metrics(path)
    if rows and "said" in rows[0]:
        raise renamed_error(path, "key 'said' is called 'prediction' now", REPEAT_ADVICE)
    return rows


def _findings(
    language: str, groups: Sequence[RunGroup], runs: Runs, configs: Any, summaries: Any
) -> list[str]:
    """What the scores say of the settings, the first against each other one where items can be paired."""
    phrases = PHRASES[language]
    losses = {name: float(summary["loss"]) for name, summary in summaries.items() if "loss" in summary}
    if losses:
        groups_with_loss = [group for group in groups if losses.keys() >= set(group.runs)]
        return _loss_findings(phrases, groups_with_loss, losses)
    task = find_task(_task_name(next(iter(configs.values()))))(
        OutputSpec(tuple(next(iter(summaries.values()))["labels"]))
    )
    rows = {name: _read_predictions(run) for name, run in runs.items()}
    first_rows = next(iter(rows.values()))
    records = [Record(row, "predictions.jsonl", number) for number, row in enumerate(first_rows, 1)]
    metric = task.metrics(task.language(records))[0]
    references = [task.reference(record) for record in records]
    values = {name: [task.value_from_row(row["prediction"]) for row in found] for name, found in rows.items()}
    first, *others = groups
    return [
        _paired_finding(
            phrases, metric.word(language), partial(_compare_groups, metric, values, references), first, b
        )
        for b in others
    ]


def _compare_groups(
    metric: Metric, values: Mapping[str, Sequence[Any]], references: Sequence[Any], a: RunGroup, b: RunGroup
) -> PairedDifference:
    """How much better one setting is than another by the metric that decides, each averaged over its seeds."""
    first, second = ([values[name] for name in group.runs] for group in (a, b))
    return compare(metric, first, second, references)


def _loss_findings(
    phrases: Mapping[str, str], groups: Sequence[RunGroup], losses: Mapping[str, float]
) -> list[str]:
    """The setting of the lowest loss, where there is one, against each other one."""
    if len(groups) < 2:
        return []
    values = {group: [losses[name] for name in group.runs] for group in groups}
    means = {group: sum(found) / len(found) for group, found in values.items()}
    best, *others = sorted(groups, key=means.__getitem__)
    if any(len(group.runs) < 2 for group in groups):
        tied = [g for g in (best, *others) if f"{means[g]:.3f}" == f"{means[best]:.3f}"]
        names = phrases["and"].join(_group_name(phrases, group) for group in tied)
        return [phrases["lowest" if len(tied) == 1 else "tie"].format(a=names, loss=means[best])]
    sentences = []
    for other in others:
        paired = sorted(best.seeds) == sorted(other.seeds)
        a, b = (_sort_by_seed(group, values[group]) for group in (best, other))
        found = seed_difference(b, a, paired=paired)
        low, high = found.interval
        sentences.append(phrases["lower" if low > 0 else "level_loss"].format(
            a=_group_name(phrases, best), b=_group_name(phrases, other), difference=found.mean, low=low, high=high,
            first=_format_mean(values[best]), second=_format_mean(values[other]), paired=phrases["paired"] if paired else "",
        ))  # fmt: skip
    return sentences


def _sort_by_seed(group: RunGroup, values: Sequence[float]) -> list[float]:
    return [value for _, value in sorted(zip(group.seeds, values, strict=True))]


def _group_name(phrases: Mapping[str, str], group: RunGroup) -> str:
    """What a setting is called: its run, or its first run with the number of seeds."""
    return group.name if len(group.runs) == 1 else phrases["group"].format(a=group.name, n=len(group.runs))


def _format_mean(values: Sequence[float]) -> str:
    """``5.123 ± 0.012``, over seeds."""
    found = seed_std(values)
    return f"{sum(values) / len(values):.3f}" + ("" if found is None else f" ± {found:.3f}")


def _paired_finding(
    phrases: Mapping[str, str],
    metric: str,
    difference: Callable[[RunGroup, RunGroup], PairedDifference],
    a: RunGroup,
    b: RunGroup,
) -> str:
    """Two settings on the same texts, each averaged over its seeds."""
    found = difference(a, b)
    if found.mean < 0:
        a, b, found = b, a, difference(b, a)
    low, high = found.interval
    seeds = ""
    if max(found.seeds) > 1:
        points = ("–" if value is None else f"{100 * value:.1f}" for value in found.seed_std)
        count = phrases["and"].join(map(str, found.seeds))
        seeds = phrases["seeds"].format(seeds=count, spread=phrases["and"].join(points))
    return phrases["better" if low > 0 else "level"].format(
        a=_group_name(phrases, a), b=_group_name(phrases, b), n=found.n, metric=metric, seeds=seeds,
        difference=f"{100 * found.mean:.1f}", low=f"{100 * low:.1f}", high=f"{100 * high:.1f}",
    )  # fmt: skip


def _write_page(path: Path, language: str, runs: Runs, summaries: Any, result: Mapping[str, Any]) -> Path:
    """The comparison as a page: findings, curves over each other, scores, and what differs."""
    text, phrases = translations(language), PHRASES[language]
    sentences = [phrases["refused"].format(why=result["reason"])] if result["reason"] else result["findings"]
    sections: list[p.Section] = [
        p.Verdict(text["verdict"], tuple(p.VerdictItem("neutral", s) for s in sentences))
    ]
    if not result["reason"]:
        sections += [_curves(language, runs, summaries), *_score_section(language, result["scores"])]
    names = list(result["runs"])
    rows = tuple(
        (key, *(_format_setting(row[name]) for name in names)) for key, row in result["settings"].items()
    )
    sections.append(p.Table(phrases["differ"], (text["setting"], *names), rows))
    if not rows:
        sections.append(p.Text(phrases["differ"], (phrases["alike"],)))
    about = describe_environment()
    foot = ((text["made_by"], about["packages"]["pretune"]), (text["date"], about["time"]))
    page = p.Page(
        phrases["title"], phrases["subtitle"].format(n=len(names)), run_page.check_language(language),
        tuple(sections), foot,
    )  # fmt: skip
    return p.write(page, path)


def _curves(language: str, runs: Runs, summaries: Any) -> p.Curve:
    """The deciding held-out score of every run over the tokens that it read."""
    text = translations(language)
    series: list[p.Series] = []
    levels: tuple[tuple[str, float], ...] = ()
    for name, run in runs.items():
        rows = read_metrics(run.metrics_path)
        tokens = {row["step"]: row["tokens"] for row in rows if row["type"] in ("step", "skipped")}
        checks = [row for row in rows if row["type"] == "evaluation" and row["step"] in tokens]
        ys = tuple(float(next(iter(c["scores"].values()))) for c in checks)
        series.append(p.Series(name, tuple(float(tokens[c["step"]]) for c in checks), ys))
        summary = summaries[name]
        if "unigram_loss" in summary:
            levels = ((text["unigram"], summary["unigram_loss"]), (text["bigram"], summary["bigram_loss"]))
    decides = next((name for s in summaries.values() for name in s.get("scores", ())), "loss")
    label = text["nats_per_token"] if decides == "loss" else metric_name(language, decides)
    return p.Curve(text["validation"], tuple(series), levels, text["tokens"], label)


def _score_section(language: str, scores: Mapping[str, Mapping[str, Any]]) -> list[p.Section]:
    """The scores that all runs have, each on one axis."""
    text, sections = translations(language), []
    shared = [n for n in next(iter(scores.values()), {}) if all(n in found for found in scores.values())]
    for name in shared:
        rows = []
        for run, found in scores.items():
            low, high = found[name].get("interval") or (None, None)
            rows.append(p.ScoreRow(run, found[name]["value"], low, high))
        sections.append(p.Scores(f"{text['scores']}: {text.get(name, name)}", tuple(rows), name))
    return list(sections)


def _format_setting(value: Any) -> str:
    """A setting as a person reads it."""
    return (
        "–" if value is None else value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    )
