"""Stretched rotary positions are those of transformers, and a text has its own, whatever lies beside it."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
import transformers
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

from pretune.errors import ConfigError, UnsupportedError
from pretune.families import llama
from pretune.nn import scaled_rope
from pretune.types import Layout

LONGEST = 4096
SCALINGS: dict[str, dict[str, Any]] = {
    "linear": {"rope_type": "linear", "factor": 4.0},
    "dynamic": {"rope_type": "dynamic", "factor": 2.0},
    "llama-3.1": {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
                  "original_max_position_embeddings": 8192},
    "llama-3.2": {"rope_type": "llama3", "factor": 32.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
                  "original_max_position_embeddings": 1024},
    "yarn of qwen2.5": {"type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32768},
    "yarn of a length not told": {"rope_type": "yarn", "factor": 2.0},
    "yarn with betas": {"rope_type": "yarn", "factor": 16.0, "original_max_position_embeddings": 256,
                        "beta_fast": 16.0, "beta_slow": 2.0, "attention_factor": 1.3, "truncate": False},
    "yarn of deepseek": {"rope_type": "yarn", "factor": 40.0, "original_max_position_embeddings": 4096,
                         "mscale": 0.707, "mscale_all_dim": 1.1},
}  # fmt: skip


def config_values(scaling: dict[str, Any]) -> dict[str, Any]:
    return {
        "model_type": "llama", "hidden_size": 256, "num_attention_heads": 4, "rope_theta": 500_000.0,
        "max_position_embeddings": LONGEST, "rope_scaling": dict(scaling),
    }  # fmt: skip


def tables_of(config: Any, layout: Layout, width: int) -> Any:
    device = torch.device("cpu")
    rotation = scaled_rope.RotaryBase(config.head_size, config.rope_theta, LONGEST, device)
    return scaled_rope.build_rotary_tables(layout, width, rotation, config.rope_scaling)


@pytest.mark.parametrize("length", [300, LONGEST, 3 * LONGEST])
@pytest.mark.parametrize("name", SCALINGS)
def test_the_angles_are_those_of_transformers(name: str, length: int) -> None:
    stock = transformers.LlamaConfig(**config_values(SCALINGS[name]))
    kind = stock.rope_parameters["rope_type"]
    turns, magnitude = ROPE_INIT_FUNCTIONS[kind](stock, torch.device("cpu"), seq_len=length)
    places = torch.tensor([0.0, 1.0, 7.0, length - 1.0])
    config = llama.Config.from_hugging_face(config_values(SCALINGS[name]))
    cosines, sines = tables_of(config, Layout(lengths=torch.tensor([length])), length)
    angles = places[:, None] * turns
    found = [table.expand(1, 1, length, 64)[0, 0, places.long()] for table in (cosines, sines)]
    # Angles of thousands of rounds are known to a ten-thousandth in fp32.
    for half, sign in ((slice(0, 32), -1), (slice(32, 64), 1)):
        torch.testing.assert_close(found[0][:, half], angles.cos() * magnitude, atol=2e-3, rtol=1e-3)
        torch.testing.assert_close(found[1][:, half], sign * angles.sin() * magnitude, atol=2e-3, rtol=1e-3)
    for written in (stock.to_dict(), config.to_hugging_face("causal_lm")):
        again = llama.Config.from_hugging_face(written)
        assert (again.rope_theta, again.rope_scaling) == (config.rope_theta, config.rope_scaling)


def test_a_text_has_the_angles_of_its_own_length() -> None:
    """In the dynamic form, beside padding, in a packed row, and with a part of it in a cache."""
    config = llama.Config.from_hugging_face(config_values(SCALINGS["dynamic"]))
    long, short = LONGEST + 500, 100
    width = long + short
    rows = Layout(lengths=torch.tensor([short, long]))
    cosines, sines = tables_of(config, rows, width)
    documents = torch.cat([torch.zeros(short, dtype=torch.long), torch.ones(long, dtype=torch.long)])[None]
    positions = torch.cat([torch.arange(short), torch.arange(long)])[None]
    packed = Layout(lengths=torch.tensor([width]), documents=documents, position_ids=positions)
    in_row = tables_of(config, packed, width)
    for alone, beside in zip((cosines, sines), in_row, strict=True):
        torch.testing.assert_close(beside[0, 0, :short], alone[0, 0, :short])
        torch.testing.assert_close(beside[0, 0, short:], alone[1, 0, :long])
    cached = Layout(lengths=torch.tensor([1]), cache_lengths=torch.tensor([long - 1]))
    torch.testing.assert_close(tables_of(config, cached, 1)[0][0, 0, 0], cosines[1, 0, long - 1])
    plain = llama.Config.from_hugging_face({**config_values({}), "rope_scaling": None})
    torch.testing.assert_close(tables_of(plain, rows, width)[0][0, 0, :short], cosines[0, 0, :short])


def test_yarn_grows_with_the_factor() -> None:
    config = llama.Config.from_hugging_face(config_values(SCALINGS["yarn of qwen2.5"]))
    assert config.rope_scaling is not None
    assert config.rope_scaling.attention_scaling == pytest.approx(0.1 * math.log(4.0) + 1.0)


@pytest.mark.parametrize(
    ("scaling", "error", "named"),
    [
        ({"rope_type": "longrope"}, UnsupportedError, "longrope.*'yarn'"),
        ({"rope_type": "linear"}, ConfigError, "factor"),
        ({"rope_type": "linear", "factor": 0.5}, ConfigError, "factor = 0.5"),
        ({"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 4.0, "high_freq_factor": 4.0},
         ConfigError, "high_freq_factor"),
        ({"rope_type": "yarn", "factor": 2.0, "attention_factor": 0.0}, ConfigError, "attention_factor"),
    ],
)  # fmt: skip
def test_a_wrong_scaling_is_named(scaling: dict[str, Any], error: Any, named: str) -> None:
    with pytest.raises(error, match=named):
        llama.Config.from_hugging_face(config_values(scaling))
