"""The rules measure what the papers say, and the light ones leave literature and law alone."""

from __future__ import annotations

import random
import re
from collections import Counter
from pathlib import Path

import numpy as np
import orjson
import pytest

import pretune
from pretune.data.cleaning import rules
from pretune.data.cleaning.limits import Limits
from pretune.data.cleaning.steps import Drop
from pretune.data.cleaning.text_stats import TextStats, duplicate_fractions, repeated_ngram_fractions

SHIPPED = Path(pretune.__file__).parent / "shipped"
LIGHT, WEB = (rules.build_quality_filters(preset, Limits(), Limits()) for preset in ("light", "web"))

POEMS = (
    "床前明月光，\n疑是地上霜。\n举头望明月，\n低头思故乡。",
    "枯藤老树昏鸦，\n小桥流水人家，\n古道西风瘦马。\n夕阳西下，\n断肠人在天涯。",
    "采采芣苢，薄言采之。采采芣苢，薄言有之。\n采采芣苢，薄言掇之。采采芣苢，薄言捋之。\n采采芣苢，薄言袺之。采采芣苢，薄言襭之。",
)
STATUTE = (
    "第十二条　有下列情形之一的，处三年以下有期徒刑：\n（一）捕捞、养殖渔船；\n（二）警用车船；\n（三）其他。"
)
DIALOGUE = "“你去吗？”\n“去。”\n“现在？”\n“……”\n“走吧！”\n“好。”"
ENGLISH = (
    "Shall I compare thee to a summer's day?\nThou art more lovely and more temperate:",
    "HAMLET. Words, words, words.\nPOLONIUS. What is the matter, my lord?\nHAMLET. Between who?",
    "Row, row, row your boat,\nGently down the stream.\nMerrily, merrily, merrily,\nLife is but a dream.",
    "§ 12. (1) The authority shall, within 30 days, (a) notify; and (b) publish.",
)


@pytest.mark.parametrize("text", [*POEMS, STATUTE, DIALOGUE])
def test_light_keeps_chinese_poems_statutes_and_dialogue(text: str) -> None:
    assert LIGHT[1].check(text, "zh") == text


@pytest.mark.parametrize("text", ENGLISH)
def test_light_keeps_english_poems_plays_and_clauses(text: str) -> None:
    assert LIGHT[0].check(text, "en") == text


@pytest.mark.parametrize("name", ["pretrain_en", "pretrain_zh"])
def test_light_keeps_the_shipped_books_and_statutes(name: str) -> None:
    with (SHIPPED / f"{name}.jsonl").open("rb") as file:
        texts = [orjson.loads(line)["text"] for line in file]
    judge = LIGHT[name.endswith("zh")]
    dropped = [outcome for text in texts if isinstance(outcome := judge.check(text, name[-2:]), Drop)]
    assert dropped == []


@pytest.mark.parametrize(
    ("text", "language", "rule"),
    [
        ("a�b�c�d�e�f�", "en", "max_broken_character_fraction"),
        ("锟斤拷锟斤拷正文烫烫烫这里有一些字", "zh", "max_broken_character_fraction"),
        ("short text", "en", "min_units"),
        ("|---|---|---| 1 2 3 4 5 6 7 ====", "en", "min_letter_fraction"),
        ("#a #b #c #d #e #f", "en", "max_symbol_ratio"),
        ("aGVsbG8gd29ybGQgdGhpcyBpcyBhIHRlc3Q " * 6, "en", "max_mean_word_length"),
        ("buy it now at our shop\n" * 30, "en", "max_duplicate_line_character_fraction"),
        ("点击这里查看更多精彩内容" * 40, "zh", "max_repeated_10_gram_fraction"),
    ],
)
def test_light_drops_what_is_no_language(text: str, language: str, rule: str) -> None:
    outcome = LIGHT[language == "zh"].check(text, language)
    assert isinstance(outcome, Drop)
    assert outcome.reason == rule


WORDS = (
    "wind",
    "water",
    "stone",
    "light",
    "paper",
    "green",
    "house",
    "river",
    "night",
    "bread",
    "cloud",
    "horse",
)


def prose(seed: int, sentences: int = 12) -> str:
    """Sentences without a word too often: what Gopher's rules let pass."""
    draw = random.Random(seed)
    lines = []
    for number in range(sentences):
        a, b, c, d, e, f, g, h = (draw.choice(WORDS) + chr(97 + draw.randint(0, 25)) * 2 for _ in range(8))
        lines.append(f"The {a} of {b} {c} and {d} {e} have {f} that {g} with {h} {number}.")
    return "\n".join(lines)


@pytest.mark.parametrize(
    ("change", "rule"),
    [
        (lambda text: text, None),
        (lambda text: " ".join(text.split()[:40]), "min_units"),
        (lambda text: text + " lorem ipsum dolor", "max_placeholders"),
        (lambda text: text + " { color: red }", "max_curly_brackets"),
        (lambda text: text.replace(".", ","), "min_sentences"),
        (lambda text: re.sub(r"\b(of|and|have|that|with)\b", "sur", text), "min_stop_words"),
        (lambda text: text.replace(" ", " 1 2 3 "), "min_mean_word_length"),
        (lambda text: text.replace(" ", " #", 40), "max_symbol_ratio"),
        (lambda text: "• " + text.replace("\n", "\n• "), "max_bullet_line_fraction"),
        (lambda text: text.replace(".", "..."), "max_ellipsis_line_fraction"),
        (lambda text: text + "\n" + text.split("\n")[0], None),
        (lambda text: text + ("\n" + text.split("\n")[0]) * 9, "max_duplicate_line_fraction"),
    ],
)  # fmt: skip
def test_web_rules_of_english(change: object, rule: str | None) -> None:
    outcome = WEB[0].check(change(prose(0)), "en")  # type: ignore[operator]
    assert (outcome.reason if isinstance(outcome, Drop) else None) == rule


def test_web_rules_of_chinese_know_their_marks() -> None:
    draw = random.Random(1)
    han = [chr(code) for code in range(0x4E00, 0x9FA5)]
    lines = [
        "在" + "".join(draw.sample(han, 14)) + "的" + "".join(draw.sample(han, 6)) + "。" for _ in range(10)
    ]
    text = "\n".join(lines)
    assert WEB[1].check(text, "zh") == text

    def reason(changed: str) -> str:
        outcome = WEB[1].check(changed, "zh")
        assert isinstance(outcome, Drop)
        return outcome.reason

    assert reason(text.replace("。", "")) == "min_sentences"
    assert reason(text.replace("在", "").replace("的", "")) == "min_stop_words"
    assert reason(text[:80]) == "min_units"
    assert (
        reason("\n".join(f"{a[:6]}\n{a[6:12]}\n{a[12:18]}\n{a[18:]}" for a in lines))
        == "max_short_line_fraction"
    )


def test_limits_of_the_user_come_first() -> None:
    own = rules.build_quality_filters("light", Limits(min_units=100), Limits(min_units=0))
    assert isinstance(own[0].check(prose(0, 3), "en"), Drop)
    assert own[1].check("好", "zh") == "好"
    assert not rules.build_quality_filters("off", Limits(), Limits())[0].has_rules


def test_every_limit_has_its_rule() -> None:
    assert set(rules.RULES) == set(Limits.model_fields)


def brute(units: list[str], n: int) -> tuple[float, float]:
    """Shares of the commonest and of repeated n-grams, straight from their definition."""
    grams = [tuple(units[i : i + n]) for i in range(len(units) - n + 1)]
    total = sum(map(len, units))
    counts = Counter(grams)
    most = max(counts.values(), default=0)
    if most < 2:
        return 0.0, 0.0
    longest = max(sum(map(len, gram)) for gram, count in counts.items() if count == most)
    tops, seen, again = [], set(), set()
    for gram in (g for g, count in counts.items() if count == most and sum(map(len, g)) == longest):
        inside = {i + k for i, g in enumerate(grams) if g == gram for k in range(n)}
        tops.append(sum(len(units[i]) for i in inside) / total)
    for i, gram in enumerate(grams):
        if gram in seen:
            again |= set(range(i, i + n))
        seen.add(gram)
    return max(tops), sum(len(units[i]) for i in again) / total


def test_repeated_ngrams_are_those_of_the_definition() -> None:
    draw = random.Random(3)
    for _ in range(60):
        units = [draw.choice(["a", "bb", "ccc", "d", "ee"]) for _ in range(draw.randint(0, 60))]
        units += units[5 : 5 + draw.randint(0, 30)]
        names = {unit: number + 7 for number, unit in enumerate(sorted(set(units)))}
        hashes = np.array([names[unit] for unit in units], np.uint64)
        lengths = np.array([len(unit) for unit in units], np.int64)
        found = repeated_ngram_fractions(hashes, lengths, 1)
        for n, (top, again) in found.items():
            expected = brute(units, n)
            assert again == pytest.approx(expected[1])
            assert top <= expected[0] + 1e-9  # of equally common and long ones, one or the other
            assert (top > 0) == (expected[0] > 0)
        later = repeated_ngram_fractions(hashes, lengths, 1, min_ngram=5)
        assert all(later[n][1] == pytest.approx(found[n][1]) for n in later)


def test_measures_agree_on_short_texts_and_long_ones() -> None:
    text = "one two three four one two three four five six"
    assert TextStats(text, False).ngram_fractions[4] == pytest.approx((30 / 37, 15 / 37))
    assert TextStats("one two three", False).ngram_fractions[2] == (0.0, 0.0)
    assert duplicate_fractions(["a", "b", "a", "cc"]) == pytest.approx((0.25, 1 / 5))
    assert duplicate_fractions([]) == (0.0, 0.0)


def test_page_lines_and_listed_words() -> None:
    text = "A story.\nPlease enable JavaScript to read on.\n京ICP备12345号-1\n正文。"
    assert rules.remove_page_lines(text) == "A story.\n正文。"
    assert (
        rules.keep_terminated_lines("Menu\nA sentence.\n\n首页\n一句话。\n“引语。”")
        == "A sentence.\n\n一句话。\n“引语。”"
    )
    listed = rules.compile_word_list(["ass", "赌博"])
    assert listed is not None
    assert rules.filter_bad_words("a classic assessment", listed) == "a classic assessment"
    assert rules.filter_bad_words("an Ass.", listed) == Drop("bad_word", "Ass")
    assert rules.filter_bad_words("网络赌博网站", listed) == Drop("bad_word", "赌博")
