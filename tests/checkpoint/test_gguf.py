"""GGUF files: what llama.cpp's own writer wrote is the model that it was made of."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

import pretune
from pretune.checkpoint import gguf as packed
from pretune.errors import CheckpointError
from pretune.text.training import train_byte_bpe
from pretune.types import Batch, Layout

LAYERS = 2


def written(path: Path, kind: str) -> Any:
    """A small Qwen2 as a GGUF file; returns the stock model."""
    gguf = pytest.importorskip("gguf")
    reader = train_byte_bpe(["the king sent word to the city", "人民法院应当依法审理案件"] * 20, 300)
    described = reader.to_dict()["model"]
    tokens = sorted(described["vocab"], key=described["vocab"].get)
    tokens += [token for token in ("<|endoftext|>",) if token not in tokens]
    torch.manual_seed(0)
    config = transformers.Qwen2Config(
        vocab_size=len(tokens), hidden_size=64, intermediate_size=96, num_hidden_layers=LAYERS,
        num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=64, initializer_range=0.2,
        tie_word_embeddings=False, use_sliding_window=False,
    )  # fmt: skip
    stock = transformers.Qwen2ForCausalLM(config).eval()
    writer = gguf.GGUFWriter(path, "qwen2")
    writer.add_context_length(64)
    writer.add_embedding_length(64)
    writer.add_feed_forward_length(96)
    writer.add_block_count(LAYERS)
    writer.add_head_count(4)
    writer.add_head_count_kv(2)
    writer.add_rope_freq_base(config.rope_parameters["rope_theta"])
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("qwen2")
    writer.add_token_list(tokens)
    writer.add_token_types([1] * len(tokens))
    writer.add_token_merges([m if isinstance(m, str) else " ".join(m) for m in described["merges"]])
    writer.add_eos_token_id(tokens.index("<|endoftext|>"))
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.QWEN2, LAYERS)
    for name, tensor in stock.state_dict().items():
        stem, _, leaf = name.rpartition(".")
        values, type_ = tensor.numpy(), gguf.GGMLQuantizationType[kind if tensor.ndim == 2 else "F32"]
        writer.add_tensor(
            f"{names.get_name(stem)}.{leaf}", gguf.quants.quantize(values, type_), raw_dtype=type_
        )
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return stock


@pytest.mark.parametrize(("kind", "error"), [("F32", 1e-5), ("Q8_0", 0.05)])
@torch.no_grad()
def test_a_gguf_file_is_the_model_that_it_was_made_of(
    kind: str, error: float, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    stock = written(tmp_path / "model.gguf", kind)
    capfd.readouterr()
    model = pretune.load(tmp_path / "model.gguf")
    assert capfd.readouterr() == ("", "")  # no bars of the library's own
    assert model.family.__name__.endswith(".llama")
    ids = model.tokenizer.encode("the king 人民法院").ids
    assert model.tokenizer.decode(ids) == "the king 人民法院"
    tokens = torch.from_numpy(ids)[None]
    batch = Batch(tokens, Layout(torch.tensor([len(ids)])))
    ours = model.network(batch, heads=("causal_lm",)).logits["causal_lm"]
    theirs = stock(tokens).logits[0]
    assert (ours - theirs).norm() < error * theirs.norm()
    assert pretune.load(tmp_path).fingerprint == model.fingerprint  # its folder means the only file in it


def test_a_damaged_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.gguf").write_bytes(b"no model")
    with pytest.raises(CheckpointError, match=r"a\.gguf: does not begin as a GGUF file does"):
        pretune.load(tmp_path / "a.gguf")
    (tmp_path / "b.gguf").write_bytes(b"GGUF")
    with pytest.raises(CheckpointError, match="holds 2 GGUF files"):
        packed.find_gguf_file(tmp_path)
