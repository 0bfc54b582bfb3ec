"""Folders of classifiers and of heads of other tasks, as published, and labels as people write them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

import pretune
from pretune.errors import CheckpointError
from pretune.families import gpt_neox, llama
from pretune.model.model import Model
from pretune.runtime.progress import NullReporter
from pretune.tasks import find_task
from pretune.text.training import train_byte_bpe
from pretune.workflows.evaluate import read_labelled
from pretune.workflows.finetune import finetune

TOKENIZER = train_byte_bpe(["The captain saw the harbour. 渔夫看见港口。" * 20], 300).with_template("cls_sep")
TEXTS = ["The captain", "渔夫看见", "saw the harbour and the captain"]
SMALL = {
    "vocab_size": TOKENIZER.vocabulary_size, "hidden_size": 32, "num_hidden_layers": 2,
    "num_attention_heads": 4, "intermediate_size": 48, "max_position_embeddings": 64,
    "pad_token_id": TOKENIZER.specials.pad_id,
}  # fmt: skip


class Heard(NullReporter):
    """A reporter that keeps what it is told."""

    def __init__(self) -> None:
        self.said: list[str] = []

    def say(self, text: str) -> None:
        self.said.append(text)


def published(folder: Path, stem: str, **settings: Any) -> Path:
    """A folder of the stock class ``stem`` with random weights."""
    torch.manual_seed(1)
    cls = getattr(transformers, stem)
    shape = {key: value for key, value in SMALL.items() if stem[:5] != "XLNet" or "position" not in key}
    cls(cls.config_class(**{**shape, **settings})).save_pretrained(folder)
    TOKENIZER.save(folder)
    return folder


def configured(folder: Path, remove: tuple[str, ...], **values: Any) -> Path:
    path = folder / "config.json"
    old = {key: value for key, value in json.loads(path.read_text()).items() if key not in remove}
    path.write_text(json.dumps({**old, **values}))
    return folder


@pytest.mark.parametrize(
    ("count", "said", "labels"),
    [
        (2, {}, ("LABEL_0", "LABEL_1")),
        (4, {"num_labels": 4}, ("LABEL_0", "LABEL_1", "LABEL_2", "LABEL_3")),
        (2, {"id2label": None}, ("LABEL_0", "LABEL_1")),
        (3, {"label2id": {"no": 0, "yes": 2, "perhaps": 1}}, ("no", "perhaps", "yes")),
        (3, {"label2id": {"no": 0, "yes": 2}, "num_labels": 3}, ("LABEL_0", "LABEL_1", "LABEL_2")),
        (2, {"id2label": {"1": "b", "0": "a"}}, ("a", "b")),
        (3, {"id2label": {"1": "b", "0": "a"}, "num_labels": 3}, ("LABEL_0", "LABEL_1", "LABEL_2")),
    ],
)
def test_a_classifier_answers_as_stock_whatever_names_its_classes(
    count: int, said: dict[str, Any], labels: tuple[str, ...], tmp_path: Path
) -> None:
    folder = published(tmp_path / "folder", "BertForSequenceClassification", num_labels=count)
    configured(folder, ("id2label", "label2id"), **said)
    model = pretune.load(folder)
    assert model.labels == labels
    reader = transformers.AutoTokenizer.from_pretrained(folder)
    stock = transformers.AutoModelForSequenceClassification.from_pretrained(
        folder, num_labels=count, ignore_mismatched_sizes=False
    ).eval()
    for text, answer in zip(TEXTS, model.classify(TEXTS), strict=True):
        with torch.no_grad():
            shares = stock(**reader(text, return_tensors="pt")).logits[0].softmax(-1)
        assert answer.value == labels[int(shares.argmax())]
        assert answer.confidence == pytest.approx(float(shares.max()), abs=1e-5)
    if "label2id" not in said:
        assert tuple(transformers.AutoConfig.from_pretrained(folder).id2label.values()) in (
            labels,
            labels[::-1],
        )
    model.save(tmp_path / "saved")
    assert pretune.load(tmp_path / "saved").labels == labels


@pytest.mark.parametrize("count", ["two", 0, -3, 2**40])
def test_a_number_of_classes_that_is_none_is_named(count: Any, tmp_path: Path) -> None:
    folder = published(tmp_path / "folder", "BertForSequenceClassification")
    configured(folder, ("id2label", "label2id"), num_labels=count)
    with pytest.raises(CheckpointError, match=r"num_labels = .*expected a positive number"):
        pretune.load(folder)


BASES = [
    ("BertForTokenClassification", {"num_labels": 2}),
    ("BertForQuestionAnswering", {}),
    ("BertForMultipleChoice", {}),
    ("DistilBertForMultipleChoice", {"dim": 32, "n_layers": 2, "n_heads": 4, "hidden_dim": 48}),
    ("RobertaForTokenClassification", {"num_labels": 2}),
    ("LlamaForTokenClassification", {"num_labels": 2}),
    ("LlamaForQuestionAnswering", {}),
    (
        "ModernBertForTokenClassification",
        {"num_labels": 2, "layer_types": ["full_attention", "sliding_attention"]},
    ),
    ("XLNetForMultipleChoice", {"d_model": 32, "n_layer": 2, "n_head": 4, "d_inner": 48}),
    ("ElectraForTokenClassification", {"num_labels": 2, "embedding_size": 32}),
]


@pytest.mark.parametrize(("stem", "settings"), BASES, ids=[stem for stem, _ in BASES])
def test_the_head_of_another_task_is_left_out_and_that_is_said(
    stem: str, settings: dict[str, Any], tmp_path: Path
) -> None:
    """Its matrix is no classifier of texts, though stock gives it the same name and it has as many rows."""
    folder = published(tmp_path / "folder", stem, **settings)
    tensors = load_file(folder / "model.safetensors")
    for seed in (0, 1):
        model = Model.load(folder, head="classification", labels=("no", "yes"), seed=seed)
        assert stem in model.dropped_head
        fresh = dict(model.network.named_parameters())
        output = [name for name in model.untrained if fresh[name].shape[0] == 2 and fresh[name].ndim == 2]
        assert len(output) == 1, "the map to the classes begins anew"
        assert not any(
            torch.equal(fresh[output[0]], tensor) for tensor in tensors.values() if tensor.ndim == 2
        )
    body = [name for name in fresh if not name.startswith("heads.")]
    assert body
    assert not set(body) & set(model.untrained)


@pytest.mark.slow
def test_fine_tuning_says_which_head_it_leaves_out(tmp_path: Path) -> None:
    data = tmp_path / "train.jsonl"
    rows = [{"text": f"captain {i}" if i % 2 else f"harbour {i}", "label": i % 2} for i in range(40)]
    data.write_text("\n".join(map(json.dumps, rows)))
    for stem, said in (
        ("BertForQuestionAnswering", "the head of BertForQuestionAnswering is left out (qa_outputs.bias"),
        ("BertForSequenceClassification", "with the classes LABEL_0, LABEL_1 is left out (classifier.bias"),
    ):
        folder, heard = published(tmp_path / stem, stem), Heard()
        finetune.finetune(
            folder, train=str(data), out=tmp_path / f"run-{stem}", budget="2 steps", reporter=heard
        )
        assert any(said in line for line in heard.said)
        assert pretune.load(tmp_path / f"run-{stem}").labels == ("0", "1")


def test_a_classifier_of_the_same_classes_keeps_its_head(tmp_path: Path) -> None:
    folder = published(tmp_path / "folder", "BertForSequenceClassification", id2label={0: "no", 1: "yes"})
    model = Model.load(folder, head="classification", labels=("no", "yes"))
    assert not model.dropped_head
    assert not model.untrained


@pytest.mark.parametrize("dtype", [torch.int8, torch.int64, torch.uint8, torch.bool, torch.float8_e4m3fn])
def test_weights_that_are_no_weights_are_refused_by_name(dtype: torch.dtype, tmp_path: Path) -> None:
    folder = published(tmp_path / "folder", "BertForMaskedLM")
    tensors = load_file(folder / "model.safetensors")
    name = "bert.encoder.layer.1.intermediate.dense.weight"
    tensors[name] = tensors[name].to(dtype)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    kind = str(dtype).removeprefix("torch.")
    with pytest.raises(CheckpointError, match=f"{name}: stored as {kind}: that is no weight"):
        pretune.load(folder)


@pytest.mark.parametrize("model_type", ["llama", "qwen3", "mistral", "gpt_neox"])
def test_rotary_positions_of_both_spellings_are_those_of_stock(model_type: str) -> None:
    family = gpt_neox if model_type == "gpt_neox" else llama
    theta = "rotary_emb_base" if model_type == "gpt_neox" else "rope_theta"
    linear = {"rope_type": "linear", "factor": 3.0}
    scalings: list[Any] = [None, {}, {"type": "linear", "factor": 2.0}, {**linear, "rope_theta": 7000.0},
                           {"rope_type": "default"}]  # fmt: skip
    parameters: list[Any] = [None, {"rope_type": "default", "rope_theta": 5e5}, {**linear, "factor": 2.5},
                             {"rope_type": "yarn", "factor": 4.0, "rope_theta": 3e5}]  # fmt: skip
    shape = {"model_type": model_type, "hidden_size": 64, "num_attention_heads": 4, "num_key_value_heads": 4,
             "max_position_embeddings": 128, "intermediate_size": 64}  # fmt: skip
    for scaling in scalings:
        for given in parameters:
            for base in ({}, {theta: 2e4}):
                values = {**shape, **base}
                values |= {} if scaling is None else {"rope_scaling": scaling}
                values |= {} if given is None else {"rope_parameters": given}
                copy = json.loads(json.dumps(values))
                stock = transformers.AutoConfig.for_model(**copy).rope_parameters
                ours = family.Config.from_hugging_face(values)
                assert ours.rope_theta == stock["rope_theta"], values
                kind = "default" if ours.rope_scaling is None else ours.rope_scaling.rope_type
                assert kind == stock["rope_type"], values
                if ours.rope_scaling is not None:
                    assert ours.rope_scaling.factor == stock["factor"], values


@pytest.mark.parametrize("task", ["classification", "multi_label_classification"])
@pytest.mark.parametrize(
    ("labels", "order"),
    [
        ([0, 1, 10, 11, 2], ["0", "1", "2", "10", "11"]),
        (["3", "-1", "20"], ["-1", "3", "20"]),
        (["10.5", "9", "2.25"], ["2.25", "9", "10.5"]),
        (["10", "9", "ten"], ["10", "9", "ten"]),
        (["b", "a", "B"], ["B", "a", "b"]),
    ],
)
def test_classes_that_are_numbers_are_in_the_order_of_numbers(
    task: str, labels: list[Any], order: list[str], tmp_path: Path
) -> None:
    data = tmp_path / "data.jsonl"
    key = "label" if task == "classification" else "labels"
    rows = [{"text": "a", key: one if key == "label" else [one]} for one in labels]
    data.write_text("\n".join(map(json.dumps, rows)))
    records = read_labelled([data], NullReporter(), task)
    assert list(find_task(task)().fit(records).labels) == order


def test_white_space_around_a_label_makes_no_class(tmp_path: Path) -> None:
    data = tmp_path / "data.csv"
    data.write_text("text,label\n" + "one, pos\ntwo,neg\nthree,pos \nfour,\u3000neg\nfive,pos\n")
    heard = Heard()
    records = read_labelled([data], heard)
    assert find_task("classification")().fit(records).labels == ("neg", "pos")
    assert "  3 labels had white space around them, which was taken off" in heard.said
