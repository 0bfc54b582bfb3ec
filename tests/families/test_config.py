"""Configs refuse what their family does not compute, and say what to do."""

from __future__ import annotations

from typing import Any

import pytest

from pretune import config as settings
from pretune.errors import ConfigError, UnsupportedError
from pretune.families import bert, find_family, gpt2, gpt_neox, llama, modernbert, xlnet


@pytest.mark.parametrize(
    ("family", "values", "named"),
    [
        (bert, {"position_embedding_type": "relative_key"}, "relative_key"),
        (bert, {"is_decoder": True}, "is_decoder"),
        (llama, {"rope_scaling": {"rope_type": "longrope", "factor": 8.0}}, "longrope"),
        (llama, {"rope_scaling": {"type": "mrope", "mrope_section": [1, 2]}}, "mrope"),
        (llama, {"partial_rotary_factor": 0.5}, "partial_rotary_factor"),
        (llama, {"model_type": "mamba"}, "mamba"),
        (gpt2, {"add_cross_attention": True}, "add_cross_attention"),
        (gpt_neox, {"rope_scaling": {"type": "longrope", "factor": 2.0}}, "longrope.*gpt_neox"),
        (modernbert, {"rope_scaling": {"rope_type": "longrope", "factor": 2.0}}, "longrope.*modernbert"),
        (xlnet, {"attn_type": "uni"}, "attn_type"),
        (xlnet, {"bi_data": True}, "bi_data"),
        (xlnet, {"summary_type": "mean"}, "summary_type"),
    ],
)
def test_a_foreign_config_is_refused_by_name(family: Any, values: dict[str, Any], named: str) -> None:
    with pytest.raises(UnsupportedError, match=named):
        family.Config.from_hugging_face(values)


@pytest.mark.parametrize(
    ("family", "values", "named"),
    [
        (bert, {"hidden_size": 100, "num_attention_heads": 3}, "no multiple of 3 heads"),
        (bert, {"hidden_act": "gleu"}, "gelu_new"),
        (llama, {"num_attention_heads": 4, "num_key_value_heads": 3}, "num_key_value_heads"),
        (llama, {"head_dim": 7}, "odd"),
        (llama, {"mlp_bias": True}, "mlp_bias"),
        (gpt2, {"hidden_size": 100, "num_attention_heads": 3}, "no multiple of 3 heads"),
        (xlnet, {"hidden_size": 100, "num_attention_heads": 3}, "no multiple of 3 heads"),
        (xlnet, {"hidden_size": 15, "num_attention_heads": 3}, "odd"),
        (gpt_neox, {"hidden_size": 100, "num_attention_heads": 3}, "no multiple of 3 heads"),
        (gpt_neox, {"partial_rotary_factor": 0.05}, "partial_rotary_factor turns 3 dimensions"),
        (
            gpt_neox,
            {
                "hidden_size": 16,
                "partial_rotary_factor": 0.5,
                "rope_scaling": {"rope_type": "linear", "factor": 2.0},
            },
            "turns 2 dimensions",
        ),
        (modernbert, {"layer_types": ["full_attention"]}, "layer_types has 1 entries, not 4"),
        (modernbert, {"classifier_pooling": "max"}, "classifier_pooling"),
        (llama, {"hiden_size": 64}, "did you mean 'hidden_size'"),
    ],
)
def test_a_wrong_value_is_named(family: Any, values: dict[str, Any], named: str) -> None:
    with pytest.raises(ConfigError, match=named):
        settings.build_settings(family.Config, values)


@pytest.mark.parametrize(
    ("values", "theta"),
    [
        ({}, 10_000.0),
        ({"rope_theta": 5e5}, 5e5),
        ({"rope_theta": 5e5, "rope_scaling": None}, 5e5),
        ({"rope_parameters": {"rope_type": "default", "rope_theta": 1e6}}, 1e6),
    ],
)
def test_the_base_of_the_positions_is_read_in_both_forms(values: dict[str, Any], theta: float) -> None:
    assert llama.Config.from_hugging_face(values).rope_theta == theta


def test_a_missing_key_means_what_it_means_to_transformers() -> None:
    assert bert.Config.from_hugging_face({}).hidden_dropout_prob == 0.1
    assert gpt2.Config.from_hugging_face({}).residual_dropout == 0.1
    assert gpt_neox.Config.from_hugging_face({}).rotary_size == 24
    assert modernbert.Config.from_hugging_face({}).inner_size == 1152
    assert llama.Config.from_hugging_face({"model_type": "qwen3"}).head_size == 128
    assert not llama.Config.from_hugging_face({}).tie_word_embeddings


def test_an_unknown_model_type_names_those_that_are_read() -> None:
    assert find_family("qwen3") is llama
    with pytest.raises(UnsupportedError, match="did you mean 'bart'"):
        find_family("bart-ish")
    with pytest.raises(UnsupportedError, match=r"bert.*xlnet"):
        find_family("unheard-of")
