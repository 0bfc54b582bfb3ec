"""What the pages say in whole sentences, in English and in Chinese."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

ENGLISH = {
    "minutes": "{n} min",
    "seconds": "{n} s",
    "pretraining_title": "Pretraining {family}",
    "quickstart_title": "From raw text to a tested model",
    "pretraining_subtitle": "{parameters} parameters, {tokens} tokens read in {time}, by the objective {objective}",
    "finetuning_subtitle": "{n} labelled texts, {labels} classes, {time}",
    "finetuning_subtitle_without_labels": "{n} labelled records, {time}",
    "quickstart_subtitle": "Two language models pretrained on English and Chinese text, and a classifier for "
    "each language, in {time} on this machine",
    "beats_bigram": "{name}: held-out loss {loss} nats per token. A bigram model of the same text has {bigram}, "
    "a unigram model {unigram}: the model has learnt more than which token follows which.",
    "beats_unigram": "{name}: held-out loss {loss} nats per token. A unigram model of the same text has {unigram}: "
    "the model has learnt more than how frequent each token is. A bigram model has {bigram}.",
    "beats_nothing": "{name}: held-out loss {loss} nats per token, no better than a unigram model of the same "
    "text ({unigram}). It has learnt little more than token frequencies.",
    "train_longer": " Train longer, or on more text.",
    "went_down": "Starting from {start}, the held-out loss on this text went from {before} to {loss} nats per token.",
    "did_not_go_down": "Starting from {start}, the held-out loss on this text went from {before} to {loss} nats per "
    "token: training did not help.",
    "lower_rate": " Try a lower learning rate or more text.",
    "started_with_new_head": "It starts from {start}, which has no head for this objective: the head began with "
    "random values, and there is no loss before training to compare with.",
    "taught": "It learnt beside a teacher, {name} ({family}, {parameters} parameters), whose chances have a weight of "
    "{weight} in its loss, at temperature {temperature}. What is measured here is the student alone.",
    "teacher": "{name} ({family}, {parameters} parameters; weight {weight}, temperature {temperature})",
    "reads_both_ways": "It learnt to read the beginning of a text both ways, and pretune reads a prompt so; `generate` of "
    "stock transformers reads a prompt from left to right, and writes something else.",
    "sources_changed": "Trained on its sources as they were first read; since then: {files}.",
    "pretraining_helped": "{name}: pretraining helped. Accuracy {pretrained} against {random} from random "
    "weights: {difference} points more (95 % interval {low} to {high}).",
    "pretraining_hurt": "{name}: pretraining did harm. Accuracy {pretrained} against {random} from random "
    "weights: {difference} points (95 % interval {low} to {high}).",
    "pretraining_unclear": "{name}: whether pretraining helped cannot be told from {n} test texts. Accuracy "
    "{pretrained} against {random} from random weights: {difference} points (95 % interval {low} to {high}).",
    "beats_baseline": "{name}: {metric} {value} is above {baseline}, {other}, by {difference} points "
    "(95 % interval {low} to {high}).",
    "below_baseline": "{name}: {metric} {value} is below {baseline}, {other}, by {difference} points "
    "(95 % interval {low} to {high}).",
    "few_labels": " With so few labels ({train}) use the baseline, or start from a model pretrained for longer.",
    "many_labels": " With {train} labels a fine-tuned model should be ahead: train for longer, try another learning "
    "rate, or start from a stronger model.",
    "level_with_baseline": "{name}: {metric} {value} and {baseline}, {other}, cannot be told apart on {n} test "
    "texts (difference {difference} points, 95 % interval {low} to {high}).",
    "overlap": "{count} of the {n} texts that it was scored on stand in the text that it was pretrained on: the "
    "scores may flatter it.",
    "no_overlap": "Of the {n} texts that it was scored on, {judged} are long enough to be looked up in the text "
    "that it was pretrained on; none of them stands there.",
    "curve_note_hidden": " The held-out loss is that of hidden tokens alone; the training loss counts what is easy "
    "to tell, too, and so lies lower.",
    "curve_note": "A causal model that learns must pass the bigram line; a masked one the unigram line. Both "
    "n-gram models are fitted on the training text and scored on exactly the same held-out tokens.",
    "mixture_heading": "The parts of the mixture",
    "mixture_columns": "part|share|text",
    "mixture_note": "Losses on the held-out text of each part, in nats per token; the first part's decides which "
    "checkpoint is kept. The share is that of the tokens read, on average over steps.",
    "scores_note_seeds": "Mean of {seeds} seeds, each a small dot; the interval is a bootstrap over the {n} test "
    "texts, which no setting was chosen on. {train} training labels.",
    "scores_note_one": "One seed; the interval is a bootstrap over the {n} texts.",
    "scored_on_validation": "No test file was given: these are scores on the validation records, which also chose "
    "the checkpoint, so they flatter.",
    "mistakes_note": "Where the model was wrong and most sure of itself. Read them: some labels may be wrong.",
    "samples_note": "From held-out text.",
    "samples_note_small": " A model as small as this one writes grammar before sense.",
    "hidden_word": "The hidden word: {word}",
    "true_target": "The target: {word}",
    "next_heading": "What to try next",
    "next_steps": "Pretrain on your own text: {pretrain}\nFine-tune on your own labels: {finetune}\n"
    "Label new texts: {predict}",
    "intervals_note": "Intervals cover the choice of test texts, not of seeds.",
    "one_text": "a text",
    "two_texts": "a pair of texts",
    "card_name": "{family} fine-tuned with pretune",
}

CHINESE = {
    "minutes": "{n} 分钟",
    "seconds": "{n} 秒",
    "pretraining_title": "预训练 {family}",
    "quickstart_title": "从原始文本到经过检验的模型",
    "pretraining_subtitle": "{parameters} 参数，{time} 内读入 {tokens} 个词元，训练目标 {objective}",
    "finetuning_subtitle": "{n} 条标注文本，{labels} 个类别，用时 {time}",
    "finetuning_subtitle_without_labels": "{n} 条标注数据，用时 {time}",
    "quickstart_subtitle": "在本机用 {time}：中英文混合预训练两个语言模型，并为每种语言训练一个分类器",
    "beats_bigram": "{name}：验证集损失为每词元 {loss} nats。同一文本上，二元模型为 {bigram}，一元模型为 {unigram}，"
    "说明模型学到的不只是词元之间的相邻关系。",
    "beats_unigram": "{name}：验证集损失为每词元 {loss} nats，低于一元模型的 {unigram}，说明模型学到的不只是词频；"
    "二元模型为 {bigram}。",
    "beats_nothing": "{name}：验证集损失为每词元 {loss} nats，未能低于一元模型（{unigram}），"
    "学到的与词频相差无几。",
    "train_longer": "请延长训练或增加文本。",
    "went_down": "从 {start} 继续训练：在本文本上，验证集损失由每词元 {before} nats 降至 {loss}。",
    "did_not_go_down": "从 {start} 继续训练：在本文本上，验证集损失由每词元 {before} nats 变为 {loss}，训练没有带来改善。",
    "lower_rate": "请降低学习率或增加文本。",
    "started_with_new_head": "从 {start} 继续训练，但它没有本训练目标所需的输出头：输出头从随机值开始，因此训练前的损失无从比较。",
    "taught": "训练时有教师模型 {name}（{family}，{parameters} 参数）在旁：其概率在损失中的权重为 {weight}，温度为 "
    "{temperature}。此处测得的只是学生模型。",
    "teacher": "{name}（{family}，{parameters} 参数；权重 {weight}，温度 {temperature}）",
    "reads_both_ways": "训练时文本开头部分双向可见，pretune 读提示时也是如此；原版 transformers 的 `generate` 自左向右读提示，"
    "续写因此不同。",
    "sources_changed": "训练用的是首次读取时的语料；此后文件有变动：{files}。",
    "pretraining_helped": "{name}：预训练有效。准确率 {pretrained}，随机初始化为 {random}，"
    "提高 {difference} 个百分点（95% 置信区间 {low} 至 {high}）。",
    "pretraining_hurt": "{name}：预训练起了反作用。准确率 {pretrained}，随机初始化为 {random}，"
    "相差 {difference} 个百分点（95% 置信区间 {low} 至 {high}）。",
    "pretraining_unclear": "{name}：仅凭 {n} 条测试文本，无法判断预训练是否有效。准确率 {pretrained}，随机初始化为 "
    "{random}，相差 {difference} 个百分点（95% 置信区间 {low} 至 {high}）。",
    "beats_baseline": "{name}：{metric} {value}，高于“{baseline}”的 {other}，领先 {difference} 个百分点"
    "（95% 置信区间 {low} 至 {high}）。",
    "below_baseline": "{name}：{metric} {value}，低于“{baseline}”的 {other}，相差 {difference} 个百分点"
    "（95% 置信区间 {low} 至 {high}）。",
    "few_labels": "标注只有 {train} 条，建议直接用基线，或换用预训练更久的模型。",
    "many_labels": "标注有 {train} 条，微调后的模型本应领先：请延长训练、调整学习率，或换用更强的模型。",
    "level_with_baseline": "{name}：{metric} {value}，与“{baseline}”的 {other} 在 {n} 条测试文本上分不出高下"
    "（相差 {difference} 个百分点，95% 置信区间 {low} 至 {high}）。",
    "overlap": "评测用的 {n} 条文本中，有 {count} 条出现在预训练文本里，分数可能偏高。",
    "no_overlap": "评测用的 {n} 条文本中，有 {judged} 条够长，可与预训练文本比对，均未出现在其中。",
    "curve_note_hidden": "验证集损失只计被隐藏的词元；训练损失还计入容易预测的部分，因此更低。",
    "curve_note": "因果模型应低于二元模型的水平线，掩码模型应低于一元模型的水平线。两个 n 元模型都在训练文本上拟合，"
    "并在完全相同的留出词元上计分。",
    "mixture_heading": "混合训练的各部分",
    "mixture_columns": "部分|份额|文本",
    "mixture_note": "损失在各部分自己的留出文本上计算，单位为每词元 nats；保留哪个检查点由第一部分决定。份额指各步平均读入词元的比例。",
    "scores_note_seeds": "取 {seeds} 个随机种子的均值，小圆点为单个种子；区间由对 {n} 条测试文本的自助法得出，"
    "测试集未参与任何选择。训练标注 {train} 条。",
    "scores_note_one": "单个随机种子；区间由对 {n} 条文本的自助法得出。",
    "scored_on_validation": "未提供测试文件：以下为验证集得分，而检查点正是用验证集挑选的，因此偏乐观。",
    "mistakes_note": "模型最有把握却判错的文本。值得逐条细读：有些可能是标注本身有误。",
    "samples_note": "取自留出文本。",
    "samples_note_small": "这么小的模型，先学会的是语法，而不是意义。",
    "hidden_word": "被遮住的词：{word}",
    "true_target": "给定的目标：{word}",
    "next_heading": "接下来可以试试",
    "next_steps": "用自己的文本预训练：{pretrain}\n用自己的标注微调：{finetune}\n给新文本打标签：{predict}",
    "intervals_note": "区间反映测试文本的抽样误差，不含随机种子的波动。",
    "one_text": "一段文本",
    "two_texts": "一对文本",
    "card_name": "{family}，用 pretune 微调",
}

PHRASES = {"en": ENGLISH, "zh": CHINESE}


def phrase(language: str, key: str, **values: object) -> str:
    """A sentence in ``language``."""
    return PHRASES[language][key].format(**values)


def teacher_values(teacher: Mapping[str, Any]) -> dict[str, str]:
    """What sentences say of a teacher, as a summary names it."""
    figures = {key: f"{teacher[key]:g}" for key in ("weight", "temperature")}
    return {
        "name": teacher["name"], "family": teacher["family"], "parameters": f"{teacher['parameters']:,}", **figures
    }  # fmt: skip
