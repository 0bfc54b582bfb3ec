"""The verdicts on a run's curves in whole sentences, in English and in Chinese, each with its numbers."""
# ruff: noqa: E501 (a sentence a line)

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from pretune.report.diagnostics import ANNEALED_LR, Finding, FindingType, Rows, diagnose, sort_by_severity
from pretune.report.sections import VerdictItem
from pretune.runtime.metrics_reader import read_metrics
from pretune.runtime.progress import Reporter
from pretune.runtime.run_folder import Run
from pretune.training.step_timer import pluralize
from pretune.training.train_state import TrainResult
from pretune.workflows.prediction_findings import RATE_FACTOR, FinalPredictions, add_cause

ENGLISH = {
    "constant_prediction_text": "One answer for every text: {value} is predicted for {count} of the {n} {split}, "
    "though {other_share:.0%} of them are something else, so the scores say nothing of what the texts hold.{advice}",
    "constant_prediction_gap": "One answer for every text: {value} for each of {n} hidden words.{advice}",
    "constant_prediction_repetition": "One token again and again: each of {n} samples is {value}, repeated.{advice}",
    "constant_prediction_empty": "Empty outputs: each of {n} samples ends before its first token.{advice}",
    "few_steps": " The run made {steps} steps, too few to learn from: give it some hundreds (--budget).",
    "few_effective_steps": " In only {effective} of {steps} steps was the learning rate above a tenth of its peak, too few to "
    "learn from: give it some hundreds (--budget, training.schedule).",
    "learning_rate_high": " The learning rate ({learning_rate:.2g}) is most likely too high for this model: try {suggested_learning_rate:.2g}.",
    "learning_rate_low": " The learning rate ({learning_rate:.2g}) is most likely too low for this model: try {suggested_learning_rate:.2g}.",
    "threshold": " No label reaches the threshold ({threshold}): let the validation records choose it "
    "(task_options.threshold=validation), and train for longer (now {steps} steps).",
    "imbalance": " {largest_share:.0%} of them are of one class: weigh the rare ones "
    "(objective_options.class_weights=balanced), or give more records of them.",
    "not_learning": " Train for longer (now {steps} steps); if that does not help, lower the learning rate (now "
    "{learning_rate:.2g}), and check that the labels can be told from the texts.",
    "not_learning_text": " Train for longer (now {steps} steps), or on more text.",
    "class_never_predicted": "Never predicted: {count} of {classes} classes. Of the {n} {split}, so many are of "
    "them: {names}.",
    "too_short": "{steps} steps are too few to say anything about the curve ({min_steps} are the least).",
    "too_short_bad": "The run made {steps} steps, too few to learn from: its scores are no better than those of a "
    "model that ignores the text. Give it some hundreds (--budget).",
    "diverged": "Training diverged: the training loss fell to {low:.3f} at step {at} and rose to {end:.3f} by step "
    "{step}. Try a lower learning rate ({lower:.2g} in place of {learning_rate:.2g}) or a longer warm-up.",
    "no_learning": "The training loss did not move: {start:.3f} at the beginning, {end:.3f} at the end. The "
    "learning rate ({learning_rate:.2g}) is far too low or far too high{ratio}, or the text cannot be learnt.",
    "learning_rate_far_too_low": "The training loss did not move: {start:.3f} at the beginning, {end:.3f} at the end. The "
    "learning rate ({learning_rate:.2g}) is far too low{ratio}. Try ten times as much.",
    "learning_rate_too_high": "The learning rate ({learning_rate:.2g}) is too high: the validation loss ({end:.3f}) has not passed a "
    "unigram model's ({unigram:.3f}){ratio}. Try {lower:.2g}.",
    "overfitted": "Over-fitting: the validation {name} was best at step {at} ({best:.3f}) and was {end:.3f} at step "
    "{step}, while the training loss fell from {training_at_best:.3f} to {training_at_end:.3f}. The best checkpoint was "
    "kept; use more text, fewer steps, dropout or weight decay, or stop early (training.patience).",
    "undertrained": "Has not begun to learn: at its best the validation {name} was {best:.3f} in {step} steps, where a "
    "unigram model, which knows only how often each token occurs, reaches {unigram:.3f} and a bigram model "
    "{bigram:.3f}. The run was most likely too short: give it more steps (--budget).",
    "undertrained_long": "Has not begun to learn: at its best the validation {name} was {best:.3f} in {step} steps, where "
    "a unigram model, which knows only how often each token occurs, reaches {unigram:.3f} and a bigram model "
    "{bigram:.3f}. So many steps should be enough: change the learning rate (now {learning_rate:.2g}), or look at the text "
    "(pretune data inspect).",
    "spikes": "The training loss jumped {count} times, by {jump:.2f} at step {step}, and came back. If that costs "
    "quality, lower the learning rate ({learning_rate:.2g}) or training.clip.",
    "spike": "The training loss jumped once, by {jump:.2f} at step {step}, and came back.",
    "learning_rate_too_low": "The learning rate ({learning_rate:.2g}) may be too low: the training loss fell by {second:.3f} in the "
    "second half of the run, nearly as much as in the first ({first:.3f}){ratio}. Try {higher:.2g}.",
    "still_improving": "Still learning at the end: from step {since} to step {step} the validation {name} went from "
    "{from:.3f} to {end:.3f}. A longer run would most likely do better.",
    "plateau": "Levelled off: since step {since} of {step} the validation {name} has stayed within {tolerance:.3f} of "
    "{end:.3f}. More steps of the same will add little; a larger model or more text may.",
    "dead_units": "{dead_share:.0%} of the feed-forward units of {layer} say nothing at any token of step {step}. A lower "
    "learning rate or a smaller model would waste less.",
    "stopped_early": "Stopped early at step {step} of {planned_steps}: {patience} evaluations in a row were no better. "
    "The learning rate was still at {share:.0%} of its peak, so the weights have not had the quiet end that "
    "a schedule gives; a shorter run of the whole schedule may end a little better.",
    "stopped_early_low": "Stopped early at step {step} of {planned_steps}: {patience} evaluations in a row were no better. "
    "The learning rate was down at {share:.0%} of its peak.",
    "ratio": ", and an update changes weights by {ratio:.1e} of their size, where 1e-4 to 1e-2 is usual",
}

CHINESE = {
    "constant_prediction_text": "对所有文本只给出一个答案：{n} 条{split}中有 {count} 条被预测为 {value}，"
    "而其中 {other_share:.0%} 并非如此，得分因此与文本内容无关。{advice}",
    "constant_prediction_gap": "对所有文本只给出一个答案：{n} 处被遮住的词全部预测为 {value}。{advice}",
    "constant_prediction_repetition": "只会重复一个词元：{n} 个示例全是 {value} 的重复。{advice}",
    "constant_prediction_empty": "输出为空：{n} 个示例都在第一个词元之前就结束了。{advice}",
    "few_steps": "训练只有 {steps} 步，学不到东西：请增加到数百步（--budget）。",
    "few_effective_steps": "训练共 {steps} 步，其中学习率高于峰值十分之一的只有 {effective} 步，学不到东西："
    "请增加到数百步（--budget、training.schedule）。",
    "learning_rate_high": "学习率（{learning_rate:.2g}）对该模型很可能过高：可试 {suggested_learning_rate:.2g}。",
    "learning_rate_low": "学习率（{learning_rate:.2g}）对该模型很可能过低：可试 {suggested_learning_rate:.2g}。",
    "threshold": "没有一个标签达到阈值（{threshold}）：请用验证集选取阈值（task_options.threshold=validation），"
    "并延长训练（目前 {steps} 步）。",
    "imbalance": "其中 {largest_share:.0%} 属于同一类：请提高稀有类别的权重（objective_options.class_weights=balanced），"
    "或补充这些类别的数据。",
    "not_learning": "请延长训练（目前 {steps} 步）；若仍无改善，请降低学习率（目前 {learning_rate:.2g}），并检查标签能否从文本中看出。",
    "not_learning_text": "请延长训练（目前 {steps} 步），或增加文本。",
    "class_never_predicted": "{classes} 个类别中有 {count} 个从未被预测。它们在 {n} 条{split}中所占比例：{names}。",
    "too_short_bad": "训练只有 {steps} 步，学不到东西：得分不高于完全不看文本的模型。请增加到数百步（--budget）。",
    "too_short": "只有 {steps} 步，太少，无法判断曲线（至少需要 {min_steps} 步）。",
    "diverged": "训练发散：训练损失在第 {at} 步降到 {low:.3f}，到第 {step} 步又升至 {end:.3f}。"
    "请降低学习率（由 {learning_rate:.2g} 降到 {lower:.2g}），或延长预热。",
    "no_learning": "训练损失没有变化：开始为 {start:.3f}，结束为 {end:.3f}。学习率（{learning_rate:.2g}）过低或过高{ratio}，或者文本本身无法学习。",
    "learning_rate_far_too_low": "训练损失没有变化：开始为 {start:.3f}，结束为 {end:.3f}。学习率（{learning_rate:.2g}）过低{ratio}。可试其十倍。",
    "learning_rate_too_high": "学习率（{learning_rate:.2g}）过高：验证集损失（{end:.3f}）未能低于一元模型（{unigram:.3f}）{ratio}。可试 {lower:.2g}。",
    "overfitted": "过拟合：验证集{name}在第 {at} 步最佳（{best:.3f}），到第 {step} 步为 {end:.3f}，"
    "而训练损失从 {training_at_best:.3f} 降到 {training_at_end:.3f}。已保留最佳检查点；"
    "可增加文本、减少步数、使用 dropout 或权重衰减，或提前停止（training.patience）。",
    "undertrained": "尚未开始学习：{step} 步之内，验证集{name}最低为 {best:.3f}，而只知道各词元频率的一元模型"
    "可达 {unigram:.3f}，二元模型可达 {bigram:.3f}。训练步数很可能不足：请增加步数（--budget）。",
    "undertrained_long": "尚未开始学习：{step} 步之内，验证集{name}最低为 {best:.3f}，而只知道各词元频率的一元模型"
    "可达 {unigram:.3f}，二元模型可达 {bigram:.3f}。步数应已足够：请调整学习率（目前 {learning_rate:.2g}），或检查文本（pretune data inspect）。",
    "spikes": "训练损失出现 {count} 次尖峰，最大一次在第 {step} 步，升高 {jump:.2f}，随后恢复。"
    "若影响效果，可降低学习率（{learning_rate:.2g}）或 training.clip。",
    "spike": "训练损失出现一次尖峰：第 {step} 步升高 {jump:.2f}，随后恢复。",
    "learning_rate_too_low": "学习率（{learning_rate:.2g}）可能过低：后半程训练损失下降 {second:.3f}，与前半程（{first:.3f}）相差不多{ratio}。"
    "可试 {higher:.2g}。",
    "still_improving": "结束时仍在进步：从第 {since} 步到第 {step} 步，验证集{name}由 {from:.3f} 变为 {end:.3f}。"
    "延长训练很可能更好。",
    "plateau": "已趋平：从第 {since} 步（共 {step} 步）起，验证集{name}与 {end:.3f} 的差距始终不超过 {tolerance:.3f}。"
    "继续训练收效甚微；可尝试更大的模型或更多文本。",
    "dead_units": "{layer} 的前馈层有 {dead_share:.0%} 的单元在第 {step} 步对所有词元都没有输出。"
    "降低学习率或缩小模型可减少浪费。",
    "stopped_early": "在第 {step} 步（计划 {planned_steps} 步）提前停止：连续 {patience} 次评测没有改进。"
    "此时学习率仍为峰值的 {share:.0%}，权重没有经历学习率降下来的收尾阶段；缩短总步数、走完整个学习率计划，结果可能略好。",
    "stopped_early_low": "在第 {step} 步（计划 {planned_steps} 步）提前停止：连续 {patience} 次评测没有改进。"
    "此时学习率已降到峰值的 {share:.0%}。",
    "ratio": "，每次更新只改变权重大小的 {ratio:.1e}（通常在 1e-4 到 1e-2 之间）",
}

PHRASES = {"en": ENGLISH, "zh": CHINESE}
METRIC_NAMES = {
    "en": {"macro_f1": "macro F1"},
    "zh": {"loss": "损失", "accuracy": "准确率", "macro_f1": "宏平均 F1"},
}
SPLIT_NAMES = {
    "en": {"test": "test texts", "validation": "validation texts", "": "texts"},
    "zh": {"test": "测试文本", "validation": "验证文本", "": "文本"},
}
MANY_STEPS = 2000
"""From here on a model that has not begun to learn was not simply stopped too early."""


def diagnose_run(
    rows: Rows,
    result: TrainResult | None = None,
    patience: int | None = None,
    final: FinalPredictions | None = None,
) -> tuple[Finding, ...]:
    """What the curves of a run and its predictions say, and why it ended where it ended early."""
    found = diagnose(rows)
    if result is not None and result.stop_reason == "patience":
        share = result.last_lr_factor
        finding_type: FindingType = "stopped_early" if share > ANNEALED_LR else "stopped_early_low"
        figures = {
            "step": result.steps, "planned_steps": result.planned_steps, "patience": patience or 0, "share": share,
        }  # fmt: skip
        found = (Finding(finding_type, "neutral", figures), *found)
    if final is None:
        return found
    if not final.beats_trivial_baseline:
        found = tuple(replace(f, status="bad") if f.type == "too_short" else f for f in found)
    return sort_by_severity((*add_cause(final.findings, found, rows, final.context), *found))


def conclude_run(
    run: Run,
    result: TrainResult,
    patience: int | None,
    language: str,
    reporter: Reporter,
    final: FinalPredictions | None = None,
) -> dict[str, Any]:
    """Why a run ended, what its curves say and how it was changed, for its summary; said on the way.

    ``final``: what the finished model's predictions show.
    """
    found = diagnose_run(read_metrics(run.metrics_path), result, patience, final)
    for finding in found:
        reporter.say(f"  {describe_finding(language, finding)}")
    warnings = [few_steps_warning(language, result)] if result.min_budget else []
    changes = [change for change in run.read_plan().get("changes", ()) if "values" in change]
    return {
        **result.stop_summary(),
        "verdicts": findings_to_dicts(language, found),
        "warnings": warnings,
        **({"changes": changes} if changes else {}),
    }


FEW_STEPS_WARNING = {
    "en": "only {steps}: too few for a model to learn much from; give --budget {budget} or more",
    "zh": "只训练了 {steps}，模型几乎学不到东西；请至少使用 --budget {budget}",
}


def few_steps_warning(language: str, result: TrainResult) -> dict[str, Any]:
    """The warning that a run made fewer steps than a model needs to learn anything, with the way out."""
    steps = pluralize(result.steps, "step") if language == "en" else f"{result.steps:,} 步"
    text = FEW_STEPS_WARNING[language].format(steps=steps, budget=result.min_budget)
    return {"type": "few_steps", "text": text, "steps": result.steps, "budget": result.min_budget}


def describe_finding(language: str, finding: Finding) -> str:
    """A finding in words."""
    phrases, figures = PHRASES[language], dict(finding.evidence)
    if "learning_rate" in figures:
        rate = float(figures["learning_rate"])
        figures |= {"lower": rate / RATE_FACTOR, "higher": rate * RATE_FACTOR}
    if "name" in figures:
        figures["name"] = METRIC_NAMES[language].get(str(figures["name"]), figures["name"])
    if "split" in figures:
        figures["split"] = SPLIT_NAMES[language][str(figures["split"])]
    figures["ratio"] = phrases["ratio"].format(ratio=figures["ratio"]) if "ratio" in figures else ""
    cause = figures.get("cause")
    figures["advice"] = phrases[str(cause)].format(**figures) if cause else ""
    return phrases[_phrase_key(finding)].format(**figures)


def _phrase_key(finding: Finding) -> str:
    """The key of the sentence that fits the case."""
    figures = finding.evidence
    fits = {
        "spikes": ("spike", figures.get("count") == 1),
        "too_short": ("too_short_bad", finding.status == "bad"),
        "undertrained": ("undertrained_long", float(figures.get("step", 0)) >= MANY_STEPS),
        "constant_prediction": (f"constant_prediction_{figures.get('subject')}", True),
    }
    key, suits = fits.get(finding.type, ("", False))
    return key if suits else finding.type


def verdict_items(language: str, findings: Sequence[Finding]) -> tuple[VerdictItem, ...]:
    """The findings as a page shows them."""
    return tuple(VerdictItem(finding.status, describe_finding(language, finding)) for finding in findings)


def findings_to_dicts(language: str, findings: Sequence[Finding]) -> list[dict[str, Any]]:
    """The findings as summary.json holds them, with their numbers."""
    return [
        {
            "type": f.type,
            "status": f.status,
            "text": describe_finding(language, f),
            "evidence": _round_figures(f.evidence),
        }
        for f in findings
    ]


def _round_figures(figures: Mapping[str, Any]) -> dict[str, Any]:
    return {k: float(f"{v:.6g}") if isinstance(v, float) else v for k, v in figures.items()}
