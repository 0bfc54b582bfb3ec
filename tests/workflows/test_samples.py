"""An encoder-decoder shows what it learnt: what it makes of a text whose middle is hidden."""

from __future__ import annotations

import pytest

from pretune.generation.settings import Decoding
from pretune.model.model import Model
from pretune.text.training import train_byte_bpe
from pretune.workflows.pretrain.samples import samples

TEXTS = ("The captain saw the harbour, and the fishermen were home.", "渔夫看见港口，船长回家了。")
SHAPE = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}


@pytest.mark.parametrize(("family", "objective"), [("t5", "span_corruption"), ("bart", "denoising")])
def test_the_middle_of_a_text_is_hidden(family: str, objective: str, monkeypatch: pytest.MonkeyPatch) -> None:
    tokenizer = train_byte_bpe(list(TEXTS) * 20, 350).with_frame("end").with_sentinels(4)
    model = Model.create(family, SHAPE, tokenizer, "causal_lm", max_length=64, seed=1)
    model.about["objective"] = objective
    read: list[str] = []
    monkeypatch.setattr(model, "generate", lambda text, **_: (read.append(text), "written")[1])
    found = samples(model, TEXTS)
    specials = tokenizer.specials
    mark = tokenizer.token(specials.sentinels[0] if objective == "span_corruption" else specials.mask or 0)
    for text, marked, sample in zip(TEXTS, read, found, strict=True):
        assert marked.count(mark) == 1
        assert sample.truth
        assert marked.replace(mark, sample.truth) == text
        assert sample.output == "written"
        if objective == "span_corruption":
            assert sample.prompt + sample.truth + sample.rest == text
        else:
            assert sample.prompt == f"{marked} → "


def test_the_marks_of_hidden_text_are_read_as_such() -> None:
    tokenizer = train_byte_bpe(list(TEXTS) * 20, 350).with_frame("end").with_sentinels(4)
    model = Model.create("t5", SHAPE, tokenizer, "causal_lm", max_length=64, seed=1)
    decoder = model._decoder()
    mark = tokenizer.specials.sentinels[0]
    marked = decoder.prompt("The <extra_id_0> saw").source
    assert marked is not None
    assert mark in marked
    assert marked[-1] == tokenizer.specials.end
    plain = decoder.prompt("The <|endoftext|> saw", Decoding(literal=True)).source
    assert plain is not None
    assert plain.count(tokenizer.specials.end or 0) == 1, (
        "the text of a special token is text where it is literal"
    )
