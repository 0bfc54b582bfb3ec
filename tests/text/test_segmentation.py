"""Words and sentences start where a reader says they do."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pretune.text.segmentation import SENTENCE_START, WORD_START, find_word_starts
from pretune.text.training import train_byte_bpe

BYTES = train_byte_bpe(["a"], 261)


def characters(text: str) -> np.ndarray:
    """One token a character."""
    at = np.arange(len(text))
    return np.stack([at, at + 1], 1)


def split(text: str, bit: int) -> list[str]:
    cuts = np.flatnonzero(find_word_starts(text, characters(text)) & bit).tolist()
    return [text[a:b] for a, b in zip(cuts, [*cuts[1:], len(text)], strict=True)]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("我爱北京天安门。", "我|爱|北京|天安门|。"),
        ("Don't pay $3.14, naïve Bob_2!", "Don't| |pay| |$|3.14|,| |naïve| |Bob_2|!"),
        ("用Python写程序 OK", "用|Python|写|程序| |OK"),
        ("a\n\nb...", "a|\n\n|b|.|.|."),
    ],
)
def test_words(text: str, words: str) -> None:
    assert split(text, WORD_START) == words.split("|")


@pytest.mark.parametrize(
    ("text", "sentences"),
    [
        ("他来了。“你好！”她说？走吧……好", "他来了。|“你好！”|她说？|走吧……|好"),
        ("Mr. Smith paid 3.14 to J. R. Wu. He left!", "Mr. Smith paid 3.14 to J. R. Wu. |He left!"),
        ('"Really?" he asked. (Yes.) "No."', '"Really?" he asked. |(Yes.) |"No."'),
        ("See fig. 3, e.g. this, vs. that. Done", "See fig. 3, e.g. this, vs. that. |Done"),
        ("A title\n\nwrapped by\nhand here\nNew line", "A title\n\n|wrapped by\nhand here\n|New line"),
        ("a != b at www.x.org is ok", "a != b at www.x.org is ok"),
        ("真的?是!好", "真的?|是!|好"),
    ],
)
def test_sentences(text: str, sentences: str) -> None:
    assert split(text, SENTENCE_START) == sentences.split("|")


def test_a_token_takes_its_first_visible_character() -> None:
    text = "the ferry 北京天安门"
    spans = np.array([[0, 3], [3, 7], [7, 9], [9, 11], [11, 13], [13, 15]])
    #                 the     " fer"  "ry"    " 北"    京天     安门
    assert (find_word_starts(text, spans) & WORD_START).tolist() == [1, 1, 0, 1, 0, 0]


def test_of_the_bytes_of_a_character_only_the_first_starts_a_word() -> None:
    encoded = BYTES.encode("天安门 a")
    assert (find_word_starts("天安门 a", encoded.offsets) & WORD_START).tolist() == [
        1,
        0,
        0,
        0,
        0,
        0,
        0,
        0,
        0,
        1,
        1,
    ]


@settings(max_examples=200, deadline=None)
@given(text=st.text(alphabet=st.characters(exclude_categories=[]) | st.sampled_from("北京。“”.\n !?a1'")))
def test_any_text_is_segmented(text: str) -> None:
    offsets = BYTES.encode(text).offsets
    flags = find_word_starts(text, offsets)
    assert flags.shape == (len(offsets),)
    if text.strip():
        assert (flags & SENTENCE_START).any()
    if text:
        assert flags[0] & WORD_START


def test_nothing_has_no_flags() -> None:
    assert find_word_starts("", np.zeros((0, 2), np.int64)).shape == (0,)
