"""RoBERTa: its positions begin behind the padding's id, in the networks of others and in ours."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

from pretune.checkpoint import weights
from pretune.errors import ConfigError, UnsupportedError
from pretune.families import roberta
from pretune.model.model import Model
from pretune.text.training import train_byte_bpe
from pretune.types import Batch, Layout

SHAPE: dict[str, Any] = {
    "vocab_size": 200, "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2,
    "num_attention_heads": 4, "initializer_range": 0.2, "type_vocab_size": 1,
}  # fmt: skip


@pytest.mark.parametrize("pad", [0, 1, 7])
@torch.no_grad()
def test_positions_begin_behind_the_padding(pad: int) -> None:
    torch.manual_seed(0)
    config = transformers.RobertaConfig(**SHAPE, pad_token_id=pad, max_position_embeddings=30 + pad + 1)
    stock = transformers.RobertaForMaskedLM(config).eval()
    network = roberta.Network(roberta.Config.from_hugging_face(config.to_dict())).eval()
    assert network.config.max_position_embeddings == 30
    assert weights.load_weights(network, stock.state_dict(), roberta.WEIGHTS) == []
    tokens, lengths = torch.randint(8, 200, (2, 30)), torch.tensor([30, 11])
    tokens[1, 11:] = pad
    mask = torch.arange(30) < lengths[:, None]
    found = network(Batch(tokens, Layout(lengths=lengths))).logits["masked_lm"].view(2, 30, -1)
    expected = stock(tokens, attention_mask=mask.long()).logits
    torch.testing.assert_close(found[mask], expected[mask], atol=1e-4, rtol=1e-4)


@torch.no_grad()
def test_a_model_that_is_made_here_counts_from_its_tokenizers_padding(tmp_path: Path) -> None:
    tokenizer = train_byte_bpe(["the king sent word", "人民法院"] * 20, 300).with_template("cls_sep")
    shape = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    model = Model.create("roberta", shape, tokenizer, "masked_lm", max_length=24, seed=1)
    assert model.config.pad_token_id == tokenizer.specials.pad_id
    folder = model.save(tmp_path / "model")
    stock = transformers.AutoModelForMaskedLM.from_pretrained(folder).eval()
    encoded = transformers.AutoTokenizer.from_pretrained(folder)(
        ["the king", "人民法院 sent word"], padding=True, return_tensors="pt"
    )
    mask = encoded["attention_mask"].bool()
    batch = Batch(encoded["input_ids"], Layout(lengths=mask.sum(1)))
    ours = model.network.eval()(batch, heads=("masked_lm",)).logits["masked_lm"].view(*mask.shape, -1)
    theirs = stock(encoded["input_ids"], attention_mask=encoded["attention_mask"]).logits
    torch.testing.assert_close(ours[mask], theirs[mask], atol=1e-4, rtol=1e-4)
    with pytest.raises(ConfigError, match="pad_token_id = 9: the tokenizer's is"):
        Model.create("roberta", shape | {"pad_token_id": 9}, tokenizer, "masked_lm", max_length=24, seed=1)


def test_a_wrong_config_is_named() -> None:
    with pytest.raises(UnsupportedError, match="is_decoder"):
        roberta.Config.from_hugging_face({**SHAPE, "is_decoder": True})
    with pytest.raises(ConfigError, match="max_position_embeddings"):
        roberta.Config.from_hugging_face({**SHAPE, "max_position_embeddings": 2})
    network = roberta.Network(roberta.tiny_config()).eval()
    with pytest.raises(UnsupportedError, match="49 tokens; this model has 48 positions"):
        network(Batch(torch.ones(1, 49, dtype=torch.long), Layout(lengths=torch.tensor([49]))), heads=())
