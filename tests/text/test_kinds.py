"""Each kind of tokenizer is what its field calls so: stock transformers agrees, and it is deterministic."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tokenizers
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import models, normalizers, pre_tokenizers, trainers
from transformers import AutoTokenizer, BertTokenizerFast, PreTrainedTokenizerFast

from pretune.errors import ConfigError
from pretune.text.segmentation import WORD_START, find_word_starts
from pretune.text.tokenizer import Tokenizer, replace_surrogates
from pretune.text.training import train_tokenizer
from pretune.text.unigram import learn_pieces

KINDS: tuple[Any, ...] = ("bpe", "wordpiece", "unigram")
ENGLISH = (
    "The ferry left the harbour before sunrise. Nobody on the pier had noticed the fog rolling in from the "
    "west, and the captain didn't say a word. She counted 3.14 miles, then 1,000 more; it wasn't enough!\n"
    "The fishermen were understandably disappointed when the ferries were leaving without the captain.\n"
)
CHINESE = (
    "清晨的渡船在日出之前离开了港口。码头上没有人注意到从西边涌来的大雾，船长一句话也没有说。\n"
    "她数了数里程，还是不够！渔夫们看见渡船离开港口，都很失望；船长没有注意到码头上的渔夫们。\n"
)
TEXTS = [
    ENGLISH,
    CHINESE,
    "mixed 中英文 text, e.g. 渡船 ferry <|endoftext|> [MASK] [UNK] end",
    "清晨的渡船離開了港口，船長沒有說話。臺灣、香港",
    "naïve café 😀👩‍👩‍👧 \r\n\t x é",
    "1234567890 3.14159 ２０２６年１１月 10% $5",
    "def ferry(x):\n    return {x: 'captain'}  # <0x41> ▁ ##s",
    "𠮷野家 龘靐齉",
    " ",
    "",
]


def train(kind: Any, size: int = 900, **options: Any) -> Tokenizer:
    return train_tokenizer([ENGLISH * 4, CHINESE * 4], size, algorithm=kind, **options)


@pytest.fixture(scope="module", params=KINDS)
def trained(request: pytest.FixtureRequest) -> tuple[str, Tokenizer]:
    return request.param, train(request.param)


@pytest.mark.parametrize("frame", ["cls_sep", "start"])
def test_stock_transformers_reads_the_same_ids_and_specials(
    trained: tuple[str, Tokenizer], frame: Any, tmp_path: Path
) -> None:
    tokenizer = trained[1].with_template(frame, segments=frame == "cls_sep")
    tokenizer.save(tmp_path)
    for stock in (AutoTokenizer.from_pretrained(tmp_path), PreTrainedTokenizerFast.from_pretrained(tmp_path)):
        for text in TEXTS:
            ours = tokenizer.encode(text, parse_specials=True).ids
            assert stock(text, add_special_tokens=False)["input_ids"] == ours.tolist(), text
            framed, segments = tokenizer.add_special_tokens(ours, ours[:3])
            pair = stock.decode(ours[:3])
            if pair and stock(pair, add_special_tokens=False)["input_ids"] == ours[:3].tolist():
                theirs = stock(text, pair)
                assert theirs["input_ids"] == framed.tolist()
                assert "token_type_ids" not in theirs or theirs["token_type_ids"] == segments.tolist()
        assert stock.mask_token_id == tokenizer.specials.mask_id
        assert stock.pad_token_id == tokenizer.specials.pad_id
        assert stock.eos_token_id == tokenizer.specials.eos_id
    again = Tokenizer.load(tmp_path)
    assert again.fingerprint == tokenizer.fingerprint


@pytest.mark.parametrize(("lowercase", "strip"), [(False, False), (True, True), (True, False)])
def test_wordpiece_is_berts_own(lowercase: bool, strip: bool, tmp_path: Path) -> None:
    tokenizer = train("wordpiece", lowercase=lowercase, strip_accents=strip)
    tokenizer.save(tmp_path)
    stock = BertTokenizerFast(
        str(tmp_path / "vocab.txt"),
        eos_token="<|endoftext|>",
        do_lower_case=lowercase,
        strip_accents=strip,
        tokenize_chinese_chars=True,
    )
    for text in TEXTS:
        ours = tokenizer.encode(text, parse_specials=True).ids.tolist()
        assert stock(text, add_special_tokens=False)["input_ids"] == ours, text
    (tmp_path / "tokenizer.json").unlink()  # vocab.txt alone says the same
    old = Tokenizer.load(tmp_path)
    assert [old.encode(t).ids.tolist() for t in TEXTS] == [tokenizer.encode(t).ids.tolist() for t in TEXTS]


def test_wordpiece_learns_what_the_library_learns() -> None:
    texts = [f"{word} " * (7 + 3 * i) for i, word in enumerate(sorted(set(ENGLISH.split())))] + [CHINESE]
    ours = train_tokenizer(texts, 450, algorithm="wordpiece")
    found = {ours.id_to_token(i) for i in range(ours.vocabulary_size)} - {
        ours.id_to_token(i) for i in ours.specials.all_ids
    }
    merges = {token for token in found if len(token.removeprefix("##")) > 1}
    backend = tokenizers.Tokenizer(models.WordPiece(unk_token="[UNK]"))
    backend.normalizer = normalizers.BertNormalizer(lowercase=False)
    backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    characters = {c for c in ENGLISH + CHINESE if not c.isspace()}
    needed = len(characters) + len({t for t in found if len(t) == 3 and t[:2] == "##" and t[2] in characters})
    for size in range(needed, 450):  # theirs has no ASCII that the text lacks: as many merges, then
        trainer = trainers.WordPieceTrainer(vocab_size=size, min_frequency=2, show_progress=False)
        backend.train_from_iterator(texts, trainer)
        theirs = {token for token in backend.get_vocab() if len(token.removeprefix("##")) > 1}
        if len(theirs) >= len(merges):
            break
    assert len(theirs) == len(merges) > 50
    # The two pairs of a word of three parts are equally frequent; theirs takes either, from run to run, so
    # the steps to a word differ while the text is cut into as many tokens.
    assert len(merges & theirs) >= 0.6 * len(merges)
    sizes = [sum(len(e.ids) for e in t.encode_batch(texts)) for t in (ours, Tokenizer(backend))]
    assert sizes[0] == pytest.approx(sizes[1], rel=0.03)


@pytest.mark.parametrize("kind", ["bpe", "unigram"])
@settings(max_examples=150, deadline=None)
@given(text=st.text(alphabet=st.characters(exclude_characters="▁") | st.sampled_from("the渡船。 \n<0x41>")))
def test_what_keeps_text_gives_back_any(kind: str, text: str) -> None:
    tokenizer = KEEPING[kind]
    ids = tokenizer.encode(text).ids
    assert tokenizer.decode(ids) == replace_surrogates(text)
    assert not set(ids.tolist()) & set(tokenizer.specials.all_ids)
    assert tokenizer.byte_lengths()[ids].sum() == len(replace_surrogates(text).encode())


KEEPING = {kind: train(kind) for kind in ("bpe", "unigram")}


@pytest.mark.parametrize("kind", KINDS)
def test_the_same_texts_give_the_same_tokenizer_in_every_process(kind: Any) -> None:
    texts = [f"{line} {i % 7} 第{i % 5}行" for i, line in enumerate((ENGLISH + CHINESE).splitlines() * 8)]
    here = train_tokenizer(texts, 700, algorithm=kind).fingerprint
    shuffled = texts[:]
    random.Random(0).shuffle(shuffled)
    assert train_tokenizer(shuffled, 700, algorithm=kind).fingerprint == here
    code = (
        "import sys, json; from pretune.text.training import train_tokenizer;"
        f"print(train_tokenizer(json.load(sys.stdin), 700, algorithm={kind!r}).fingerprint)"
    )
    for parallel in ("true", "false"):
        environment = {**os.environ, "TOKENIZERS_PARALLELISM": parallel}
        found = subprocess.run(
            [sys.executable, "-c", code],
            input=json.dumps(shuffled), env=environment, capture_output=True, text=True, check=True,
        )  # fmt: skip
        assert found.stdout.strip() == here


@pytest.mark.parametrize("kind", ["bpe", "unigram"])
@settings(max_examples=100, deadline=None)
@given(text=st.text() | st.text(alphabet="渡船a é😀 \n▁"))
def test_offsets_are_the_librarys(kind: str, text: str) -> None:
    tokenizer = KEEPING[kind]
    found, theirs = tokenizer.encode(text), tokenizer._backend.encode(text, add_special_tokens=False)
    if kind == "bpe":
        assert found.offsets.tolist() == [list(pair) for pair in theirs.offsets]
    else:  # which tells of the bytes of several characters only where they lie together
        for (low, high), (least, most) in zip(found.offsets.tolist(), theirs.offsets, strict=True):
            assert least <= low < high <= most


def test_no_piece_spans_the_punctuation_of_a_clause_or_is_too_long() -> None:
    clause = "从西边涌来的大雾笼罩着整个港口"
    tokenizer = train_tokenizer([f"他们看见{clause}，于是{clause}。" * 50], 600, algorithm="unigram")
    pieces = [tokenizer.decode([i]) for i in range(tokenizer.vocabulary_size)]
    assert not [p for p in pieces if len(p) > 1 and set(p) & set("，。")]
    assert 3 <= max(len(p) for p in pieces if p[:1] in clause) <= 5
    longer = train_tokenizer([f"他们看见{clause}。" * 50], 600, algorithm="unigram", max_token_length=24)
    assert max(len(longer.decode([i])) for i in range(longer.vocabulary_size)) <= 13


def test_a_run_without_spaces_is_no_trouble() -> None:
    draw = random.Random(0)
    run = "".join(draw.choice("ACGT") for _ in range(200_000))
    tokenizer = train_tokenizer([run], 400, algorithm="unigram")
    assert tokenizer.decode(tokenizer.encode(run[:5000]).ids) == run[:5000]
    assert len(tokenizer.encode(run[:5000]).ids) < 2500


def test_unigram_finds_the_pieces_that_made_the_text() -> None:
    """A text drawn from a known model is cut as it was made, mostly: what maximum likelihood promises."""
    draw = random.Random(1)
    made = ["ba", "dule", "kimo", "ra", "tesu", "wo"]
    words: dict[str, int] = {}
    for _ in range(3000):
        word = "".join(draw.choices(made, (8, 5, 4, 3, 2, 1), k=draw.randint(1, 3)))
        words[word] = words.get(word, 0) + 1
    pieces = dict(learn_pieces(words, 60, max_bytes=16))
    assert set(made) <= set(pieces)
    assert pieces["ba"] > pieces["tesu"] > pieces["s"]
    assert 0.9 < sum(np.exp(list(pieces.values()))) < 1.1


@pytest.mark.parametrize("kind", KINDS)
def test_words_start_where_a_reader_sees_them(kind: Any) -> None:
    tokenizer = train(kind, 1200)
    text = "The fishermen didn't, naïve 天安门 3.14 学生们走进教室。😀 end"
    encoded = tokenizer.encode(text)
    flags = find_word_starts(text, encoded.offsets)
    parts, at = [], -1
    for (low, high), flag in zip(encoded.offsets.tolist(), flags.tolist(), strict=True):
        if flag & WORD_START:
            parts.append("")
            at = low
        parts[-1] += text[max(low, at) : high]
        at = max(at, high)
    found = [word.strip() for word in parts if word.strip()]
    assert found == [
        "The",
        "fishermen",
        "didn't",
        ",",
        "naïve",
        "天安门",
        "3.14",
        "学生",
        "们",
        "走进",
        "教室",
        "。",
        "😀",
        "end",
    ]


def test_the_alphabet_of_wordpiece_is_bounded_and_has_digits() -> None:
    rare = "".join(chr(0x4E00 + i) for i in range(3000))
    tokenizer = train_tokenizer([ENGLISH * 20 + CHINESE * 20 + rare], 1200, algorithm="wordpiece")
    assert tokenizer.vocabulary_size <= 1200
    known = sum(tokenizer.token_to_id(c) is not None for c in rare)
    assert known < 900
    assert tokenizer.specials.unk_id not in tokenizer.encode("7 8 9 渡船 ~ @").ids
    assert tokenizer.token_to_id("##船") is None, "Chinese characters stand alone"


def test_wrong_use_says_why() -> None:
    with pytest.raises(ConfigError, match="did you mean 'unigram'"):
        train_tokenizer(["a"], 900, algorithm="unigrm")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="unigram needs at least 262"):
        train_tokenizer(["a"], 100, algorithm="unigram")
    with pytest.raises(ConfigError, match="lowercase = True: bpe"):
        train_tokenizer(["a"], 900, lowercase=True)
