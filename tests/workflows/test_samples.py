"""An encoder-decoder shows what it learnt: what it makes of a text whose middle is hidden."""

from __future__ import annotations

import pytest

from pretune.generation.settings import Decoding
from pretune.model.model import Model
from pretune.text.training import train_byte_bpe
from pretune.workflows.pretrain.samples import generate_samples

TEXTS = ("The captain saw the harbour, and the fishermen were home.", "渔夫看见港口，船长回家了。")
SHAPE = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}


@pytest.mark.parametrize(("family", "objective"), [("t5", "span_corruption"), ("bart", "denoising")])
def test_the_middle_of_a_text_is_hidden(family: str, objective: str, monkeypatch: pytest.MonkeyPatch) -> None:
    tokenizer = train_byte_bpe(list(TEXTS) * 20, 350).with_template("end").with_sentinels(4)
    model = Model.create(family, SHAPE, tokenizer, "causal_lm", max_length=64, seed=1)
    model.metadata["objective"] = objective
    read: list[str] = []
    monkeypatch.setattr(model, "generate", lambda text, **_: (read.append(text), "written")[1])
    found = generate_samples(model, TEXTS)
    specials = tokenizer.specials
    mark = tokenizer.id_to_token(
        specials.sentinel_ids[0] if objective == "span_corruption" else specials.mask_id or 0
    )
    for text, marked, sample in zip(TEXTS, read, found, strict=True):
        assert marked.count(mark) == 1
        assert sample.reference
        assert marked.replace(mark, sample.reference) == text
        assert sample.output == "written"
        if objective == "span_corruption":
            assert sample.prompt + sample.reference + sample.suffix == text
        else:
            assert sample.prompt == f"{marked} → "


def test_the_marks_of_hidden_text_are_read_as_such() -> None:
    tokenizer = train_byte_bpe(list(TEXTS) * 20, 350).with_template("end").with_sentinels(4)
    model = Model.create("t5", SHAPE, tokenizer, "causal_lm", max_length=64, seed=1)
    decoder = model._build_decoder()
    mark = tokenizer.specials.sentinel_ids[0]
    marked = decoder.build_prompt("The <extra_id_0> saw").source
    assert marked is not None
    assert mark in marked
    assert marked[-1] == tokenizer.specials.eos_id
    plain = decoder.build_prompt("The <|endoftext|> saw", Decoding(split_special_tokens=True)).source
    assert plain is not None
    assert plain.count(tokenizer.specials.eos_id or 0) == 1, (
        "the text of a special token is text where it is literal"
    )
