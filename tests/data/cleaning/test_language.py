"""English and Chinese are told from each other and from their neighbours, also in short and mixed text."""

from __future__ import annotations

import pytest

from pretune.data.cleaning.language import UNKNOWN, detect_language


@pytest.mark.parametrize(
    ("text", "language"),
    [
        ("床前明月光", "zh"),
        ("好", "zh"),
        ("我们用 PyTorch 和 Transformer 训练 BERT 模型", "zh"),
        ("頭髮乾燥，皇后在後面", "zh"),
        ("吾輩は猫である。名前はまだ無い。", "ja"),
        ("한국어는 한글로 쓴다. 대한민국의 공용어이다.", "ko"),
        (
            "The ship left the harbour before sunrise, and the men on it were glad of the wind that came.",
            "en",
        ),
        ("Der Hund läuft schnell durch den Wald und sucht seinen Herrn, der nicht gekommen ist.", "de"),
        ("Le bateau a quitté le port avant le lever du soleil, et les hommes étaient contents.", "fr"),
        ("De hond is van de man die in het huis woont en was van zijn broer geweest.", "nl"),
        ("Корабль покинул гавань до восхода солнца, и люди на нём были рады.", "ru"),
        (
            "The word 中文 means Chinese, and the rest of this sentence is in English, as anyone can see.",
            "en",
        ),
        ("12345 67890", UNKNOWN),
        ("", UNKNOWN),
    ],
)
def test_languages(text: str, language: str) -> None:
    assert detect_language(text) == language


def test_a_long_text_is_judged_by_its_middle() -> None:
    masthead = "Project Gutenberg licence in English, to be found at the end of the book. " * 20
    assert detect_language(masthead + "渡船在日出之前离开了港口。" * 2000) == "zh"
