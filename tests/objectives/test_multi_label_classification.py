"""Several labels a text: the loss of stock transformers, and class weights as scikit-learn has them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
import transformers
from sklearn.utils.class_weight import compute_class_weight

from pretune import registry
from pretune.data.corpus.windows import EncodedRecords
from pretune.data.order import training_rng
from pretune.errors import ConfigError
from pretune.families import bert, weight_operations
from pretune.objectives import classification, multi_label_classification
from pretune.types import Batch, Feature, Outputs, OutputSpec, SpecialTokens

SPECIALS = SpecialTokens(
    vocabulary_size=64, pad_id=0, eos_id=2, all_ids=(0, 1, 2), single=((1,), (2,)), pair=((1,), (2,), (2,))
)
LABELS = [(1, 0, 1), (0, 0, 0), (0, 1, 0), (1, 0, 0)]
CLASSES = [0, 0, 0, 1, 2]


def store(labels: list[Any], key: str) -> EncodedRecords:
    return EncodedRecords([Feature(i, 0, (np.arange(5, 8 + i),), {key: v}) for i, v in enumerate(labels)])


class Fixed:
    """A network that always says the same."""

    def __init__(self, logits: torch.Tensor) -> None:
        self.logits = logits

    def __call__(self, batch: Batch, heads: Any = (), targets: Any = None, loss: Any = None) -> Outputs:
        return Outputs(logits={"classification": self.logits})


def mean_loss(objective: Any, network: Any, features: EncodedRecords) -> torch.Tensor:
    examples = [objective.build(features[i], training_rng(0, 0, i)) for i in range(len(features))]
    batch = objective.collate([[e] for e in examples])
    (loss,) = objective.loss(network, batch)
    value, weight = loss.terms["classification"]
    return torch.as_tensor(value * weight / batch.counts["classification"])


@pytest.mark.parametrize("weighted", [False, True])
def test_the_loss_is_the_mean_over_texts_and_labels(weighted: bool) -> None:
    options = multi_label_classification.Options(class_weights="balanced" if weighted else None)
    features = store(LABELS, "labels")
    objective = multi_label_classification.Objective(bert.TRAITS, SPECIALS, options, features)
    logits = torch.randn(4, 3, generator=torch.Generator().manual_seed(0))
    weights = torch.tensor([1.0, 3.0, 3.0]) if weighted else None  # of 4 texts 2, 1 and 1 have the label
    expected = torch.nn.BCEWithLogitsLoss(pos_weight=weights)(logits, torch.tensor(LABELS).float())
    torch.testing.assert_close(mean_loss(objective, Fixed(logits), features), expected)


def test_balanced_class_weights_are_those_of_scikit_learn() -> None:
    features = store(CLASSES, "label")
    options = classification.Options(class_weights="balanced")
    objective = classification.Objective(bert.TRAITS, SPECIALS, options, features)
    expected = compute_class_weight("balanced", classes=np.arange(3), y=np.array(CLASSES))
    assert objective.class_weights is not None
    np.testing.assert_allclose(objective.class_weights, expected, rtol=1e-6)
    logits = torch.randn(5, 3, generator=torch.Generator().manual_seed(0))
    truth = torch.tensor(CLASSES)
    # over all the training features the weights add up to their number, which stock divides by
    stock = torch.nn.CrossEntropyLoss(weight=torch.tensor(expected, dtype=torch.float32))(logits, truth)
    torch.testing.assert_close(mean_loss(objective, Fixed(logits), features), stock)


@pytest.mark.parametrize("kind", [classification, multi_label_classification])
def test_balanced_weights_need_training_records(kind: Any) -> None:
    with pytest.raises(ConfigError, match="class_weights"):
        kind.Objective(bert.TRAITS, SPECIALS, kind.Options(class_weights="balanced"))


CLASSIFIERS = [
    name
    for name in registry.list_names("families")
    if "classification" in registry.find("families", name).TRAITS.heads
]


@pytest.mark.parametrize("family_name", CLASSIFIERS)
def test_the_loss_is_that_of_stock_for_the_same_weights(family_name: str, tmp_path: Any) -> None:
    from pretune.checkpoint import hub, weights

    family = registry.find("families", family_name)
    torch.manual_seed(0)
    config = family.tiny_config().model_copy(update={"vocab_size": 64})
    network = family.Network(config, heads=("classification",), num_labels=3).eval()
    saved = config.to_hugging_face("classification", outputs=OutputSpec(("a", "b", "c")), specials=SPECIALS)
    saved |= {"problem_type": "multi_label_classification"}
    hub.write_model(
        tmp_path,
        saved,
        weights.export_weights(network, weight_operations(family, config, ("classification",))),
    )
    stock = transformers.AutoModelForSequenceClassification.from_pretrained(tmp_path).eval()
    assert stock.config.problem_type == "multi_label_classification"
    features = store(LABELS, "labels")
    objective = multi_label_classification.Objective(family.TRAITS, SPECIALS)
    examples = [objective.build(features[i], training_rng(0, 0, i)) for i in range(len(features))]
    batch = objective.collate([[e] for e in examples])
    width = batch.tokens.shape[1]
    tokens = batch.tokens if batch.source_tokens is None else batch.source_tokens
    mask = torch.arange(width) < batch.layout.lengths[:, None]
    if (
        family.TRAITS.supports_permutation
    ):  # stock XLNet reads the last place of the row, and is padded to the left
        shifts = (width - batch.layout.lengths).tolist()
        tokens, mask = (
            torch.stack([row.roll(shift) for row, shift in zip(grid, shifts, strict=True)])
            for grid in (tokens, mask)
        )
    with torch.inference_mode():
        theirs = stock(input_ids=tokens, attention_mask=mask.long(), labels=torch.tensor(LABELS).float())
        ours = mean_loss(objective, network, features)
        logits = network(batch, heads=("classification",)).logits["classification"]
    torch.testing.assert_close(logits, theirs.logits, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(ours, theirs.loss, atol=1e-5, rtol=1e-5)
