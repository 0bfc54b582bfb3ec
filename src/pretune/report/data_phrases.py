# ruff: noqa: E501
"""What the page of prepared text says, in English and in Chinese."""

from __future__ import annotations

ENGLISH = {
    "title": "Prepared text",
    "subtitle": "{documents} of {documents_in} documents kept, {bytes} of {bytes_in} MB",
    "kept": "{share} of the text stays: {documents} documents, {characters} characters.",
    "removed_most": "Most of what goes, goes by {reason}: {documents} documents, {bytes} MB.",
    "bad": "{bad} records or files could not be read; they are listed below.",
    "verdict": "In short",
    "reasons": "What was removed, and why",
    "reason_columns": ("Reason", "Documents", "MB", "Share of the text"),
    "reasons_note": "A document counts under the first step that took it out. Lines, marks and passages that a step "
    "changed within a document that stays are not counted here.",
    "examples": "Examples of {reason}",
    "example_columns": ("Where", "Measured", "Text"),
    "languages": "Languages",
    "language_columns": ("Language", "Documents", "MB"),
    "languages_note": "und: too short, or too mixed, to tell.",
    "sources": "Sources",
    "source_columns": ("Source", "Documents in", "MB in", "Documents", "MB"),
    "lengths": "Lengths of the documents",
    "length_columns": ("Characters", "Documents", "Share"),
    "redacted": "Redacted",
    "redacted_columns": ("Kind", "Number"),
    "stages": "Speed of each stage",
    "stage_columns": ("Stage", "Processor seconds", "MB a second"),
    "stages_note": "Processor time, added up over {processes} processes; MB are those of all the text that came in, "
    "though a later stage sees less of it. From start to end: {seconds} s, {speed} MB a second.",
    "reading": "Reading",
    "damage": "Damage, and what was recognised",
    "settings": "Settings",
    "next": "What to do next",
}

CHINESE = {
    "title": "清洗后的文本",
    "subtitle": "保留 {documents_in} 篇文档中的 {documents} 篇，{bytes_in} MB 中的 {bytes} MB",
    "kept": "文本保留了 {share}：{documents} 篇文档，{characters} 个字符。",
    "removed_most": "删去的文本主要出于“{reason}”：{documents} 篇，{bytes} MB。",
    "bad": "有 {bad} 条记录或文件无法读取，详见下文。",
    "verdict": "概况",
    "reasons": "删去了什么，为什么",
    "reason_columns": ("原因", "文档数", "MB", "占全部文本"),
    "reasons_note": "一篇文档只计入最先将其删去的那一步。保留下来的文档里被改动的行、标点和段落不计在内。",
    "examples": "示例：{reason}",
    "example_columns": ("出处", "测得", "文本"),
    "languages": "语言",
    "language_columns": ("语言", "文档数", "MB"),
    "languages_note": "und：文本太短或语言混杂，无法判断。",
    "sources": "来源",
    "source_columns": ("来源", "输入文档数", "输入 MB", "保留文档数", "保留 MB"),
    "lengths": "文档长度",
    "length_columns": ("字符数", "文档数", "占比"),
    "redacted": "隐去的个人信息",
    "redacted_columns": ("种类", "处数"),
    "stages": "各阶段速度",
    "stage_columns": ("阶段", "CPU 秒", "MB/秒"),
    "stages_note": "CPU 时间为 {processes} 个进程之和；MB 一律按输入的全部文本计，实际上越靠后的阶段处理的文本越少。"
    "全程 {seconds} 秒，每秒 {speed} MB。",
    "reading": "读取",
    "damage": "损坏之处与识别结果",
    "settings": "设置",
    "next": "下一步",
}

REASONS = {
    "en": {
        "exact_duplicate": "exact duplicate", "near_duplicate": "near duplicate", "empty": "nothing left",
        "language": "another language", "contamination": "text of an evaluation set",
        "bad_word": "word on the list", "max_broken_character_fraction": "broken characters", "min_units": "too short",
        "max_units": "too long", "min_letter_fraction": "too few letters", "max_placeholders": "placeholder text",
        "max_curly_brackets": "curly brackets", "min_sentences": "too few sentences", "min_mean_word_length": "words too short",
        "max_mean_word_length": "words too long", "min_alphabetic_fraction": "too few words with letters",
        "min_stop_words": "too few stop words", "max_symbol_ratio": "too many # or ellipses",
        "max_bullet_line_fraction": "too many bullets", "max_ellipsis_line_fraction": "too many lines ending in an ellipsis",
        "min_terminated_line_fraction": "too few lines ending in punctuation", "max_short_line_fraction": "too many short lines",
        "max_duplicate_line_fraction": "repeated lines", "max_duplicate_line_character_fraction": "text in repeated lines",
        "max_duplicate_paragraph_fraction": "repeated paragraphs",
        "max_duplicate_paragraph_character_fraction": "text in repeated paragraphs",
        **{f"max_top_{n}_gram_fraction": f"one {n}-gram everywhere" for n in (2, 3, 4)},
        **{f"max_repeated_{n}_gram_fraction": f"repeated {n}-grams" for n in range(5, 11)},
    },
    "zh": {
        "exact_duplicate": "完全重复", "near_duplicate": "近似重复", "empty": "清洗后为空",
        "language": "其他语言", "contamination": "出现在评测集中", "bad_word": "含词表中的词",
        "max_broken_character_fraction": "乱码", "min_units": "过短", "max_units": "过长", "min_letter_fraction": "文字太少",
        "max_placeholders": "占位文字", "max_curly_brackets": "含花括号", "min_sentences": "句子太少",
        "min_mean_word_length": "平均词长太短", "max_mean_word_length": "平均词长太长", "min_alphabetic_fraction": "汉字或单词占比太低",
        "min_stop_words": "缺少虚词", "max_symbol_ratio": "# 或省略号太多", "max_bullet_line_fraction": "项目符号行太多",
        "max_ellipsis_line_fraction": "以省略号结尾的行太多", "min_terminated_line_fraction": "以标点结尾的行太少",
        "max_short_line_fraction": "短行太多", "max_duplicate_line_fraction": "重复的行", "max_duplicate_line_character_fraction": "重复行所占文字",
        "max_duplicate_paragraph_fraction": "重复的段落", "max_duplicate_paragraph_character_fraction": "重复段落所占文字",
        **{f"max_top_{n}_gram_fraction": f"同一个 {n} 元组过多" for n in (2, 3, 4)},
        **{f"max_repeated_{n}_gram_fraction": f"重复的 {n} 元组" for n in range(5, 11)},
    },
}  # fmt: skip

PHRASES = {"en": ENGLISH, "zh": CHINESE}
