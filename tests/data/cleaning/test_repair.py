"""What was misread is mended; what was meant, Chinese marks above all, stays as it is."""

from __future__ import annotations

import ftfy
import pytest

from pretune.data.cleaning.conversion import to_chinese_width, to_half_width, to_simplified, to_traditional
from pretune.data.cleaning.repair import repair

MEANT = (
    "他说：“你好，世界！”（笑）……《红楼梦》、〔一〕；全角ＡＢＣ１２３，ｶﾀｶﾅ。",
    "“Curly” – quotes — and ‘singles’… naïve café, Übergröße, ½ × 3 °C, £5, €6",
    "Ελληνικά, Русский язык, 日本語、한국어",
    "if a < b and b > c: x &= 0xFF; AT&T; fish &chips",
    "\u3000\u3000段首空两格。\n\n第二段\t制表。",
    "豈不爾思？",  # a compatibility character that NFC would replace
    "鐵路銀行鍵盤錢幣的測試，涓涓細流。",
)


@pytest.mark.parametrize("text", MEANT)
def test_what_was_meant_stays(text: str) -> None:
    assert repair(text) == text


@pytest.mark.parametrize(
    ("broken", "mended"),
    [
        ("The MÃ¼nchen cafÃ© costs â‚¬5", "The München café costs €5"),
        ("你好，世界！".encode().decode("latin-1"), "你好，世界！"),
        ("这是我们的家乡，山水很美".encode().decode("gb18030"), "这是我们的家乡，山水很美"),
        ("fish &amp; chips &lt; 5", "fish & chips < 5"),
        ("one\r\ntwo\rthree\x0cfour\u2028five", "one\ntwo\nthree\nfour\nfive"),
        ("a\x00b\x08c\x7fd\ufeffe中\x01", "abcde中"),
        ("\x1b[36mblue\x1b[0m", "blue"),
        ("half \ud83d pair \ud83d\ude00", "half  pair 😀"),
        ("cafe\u0301 e\u0302tre", "café être"),
        ("e\ufb03cient", "efficient"),
    ],
)
def test_what_was_misread_is_mended(broken: str, mended: str) -> None:
    assert repair(broken) == mended
    assert repair(mended) == mended


def test_the_cheap_tests_skip_nothing_that_ftfy_would_mend() -> None:
    plain = ftfy.TextFixerConfig(fix_character_width=False, uncurl_quotes=False, normalization=None)
    sentences = (
        "naïve café “quoted” – dash",
        "Übergröße £5",
        "русский текст",
        "你好，世界！中文",
        "Ελληνικά",
    )
    for sentence in sentences:
        for encoding in ("latin-1", "windows-1252", "windows-1251", "macroman", "cp437"):
            data = sentence.encode("utf-8")
            try:
                broken = data.decode(encoding)
            except UnicodeDecodeError:
                continue
            assert repair(broken) == ftfy.fix_text(broken, plain), (sentence, encoding)


def test_widths_leave_chinese_punctuation() -> None:
    assert to_half_width("ＡＢＣ１２３，。！？（全角）：“”") == "ABC123，。！？（全角）：“”"
    assert to_chinese_width("你好,世界!(对)吗?好.价格3,000.50元 e.g. this, that.") == (
        "你好，世界！（对）吗？好。价格3,000.50元 e.g. this, that."
    )


def test_scripts_convert_by_phrases() -> None:
    assert to_simplified("頭髮乾燥，皇后在後面發現") == "头发干燥，皇后在后面发现"
    assert to_traditional("头发干燥") == "頭髮乾燥"
    assert to_simplified("plain ASCII") == "plain ASCII"
