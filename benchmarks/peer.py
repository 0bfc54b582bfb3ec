"""The peer's sides: stock models in stock ``Trainer``, as run_mlm.py, run_clm.py, run_glue.py use it."""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers

from benchmarks import text
from benchmarks.measure import full, peak_memory, reported
from pretune.data.corpus.build import open_corpus


class Blocks(torch.utils.data.Dataset[dict[str, Any]]):
    """Rows of ids, each of the same length."""

    def __init__(self, rows: np.ndarray[Any, Any], *, labelled: bool) -> None:
        self.rows, self.labelled = rows, labelled

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> dict[str, Any]:
        row = self.rows[index]
        return {"input_ids": row, "labels": row} if self.labelled else {"input_ids": row}


class Watch(transformers.TrainerCallback):
    """Notes when each step ended, and ends training when the window is full."""

    def __init__(self, warm: float = 0.0, seconds: float | None = None) -> None:
        self.warm, self.seconds = warm, seconds
        self.marks: list[tuple[float, int]] = []

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> Any:
        """A step ended."""
        self.marks.append((time.perf_counter(), state.global_step))
        if self.seconds is not None and full(self.marks, self.warm, self.seconds):
            control.should_training_stop = True
        return control


SIZES = {"layers": 4, "width": 256, "heads": 4}


def model(config: Mapping[str, Any], vocabulary: int, length: int) -> Any:
    """The stock model of a name, at a size, with random weights."""
    size, dropout = SIZES | config.get("size", {}), config.get("dropout")
    drops = {} if dropout is None else {"dropout": dropout}
    torch.manual_seed(config.get("seed", 0))
    made = MODELS[config["family"]](vocabulary, length, size, drops.get("dropout"))
    kind = (
        transformers.AutoModelForCausalLM if config["family"] in CAUSAL else transformers.AutoModelForMaskedLM
    )
    return kind.from_config(made, attn_implementation=config.get("attention", "sdpa"))


def _bert(vocabulary: int, length: int, size: Mapping[str, int], dropout: float | None) -> Any:
    rate = 0.1 if dropout is None else dropout
    return transformers.BertConfig(
        vocab_size=vocabulary, hidden_size=size["width"], num_hidden_layers=size["layers"],
        num_attention_heads=size["heads"], intermediate_size=4 * size["width"], hidden_dropout_prob=rate,
        attention_probs_dropout_prob=rate, max_position_embeddings=max(length, 512),
    )  # fmt: skip


def _modernbert(vocabulary: int, length: int, size: Mapping[str, int], dropout: float | None) -> Any:
    rate = 0.0 if dropout is None else dropout
    return transformers.ModernBertConfig(
        vocab_size=vocabulary, hidden_size=size["width"], num_hidden_layers=size["layers"],
        num_attention_heads=size["heads"], intermediate_size=_gated(size["width"]), embedding_dropout=rate,
        mlp_dropout=rate, attention_dropout=rate, max_position_embeddings=max(length, 512),
        pad_token_id=0, bos_token_id=None, eos_token_id=None, cls_token_id=None, sep_token_id=None,
    )  # fmt: skip


def _gpt2(vocabulary: int, length: int, size: Mapping[str, int], dropout: float | None) -> Any:
    rate = 0.1 if dropout is None else dropout
    return transformers.GPT2Config(
        vocab_size=vocabulary, n_embd=size["width"], n_layer=size["layers"], n_head=size["heads"],
        n_positions=length, resid_pdrop=rate, embd_pdrop=rate, attn_pdrop=rate,
        bos_token_id=None, eos_token_id=None,
    )  # fmt: skip


def _llama(vocabulary: int, length: int, size: Mapping[str, int], dropout: float | None) -> Any:
    return transformers.LlamaConfig(
        vocab_size=vocabulary, hidden_size=size["width"], num_hidden_layers=size["layers"],
        num_attention_heads=size["heads"], intermediate_size=_gated(size["width"]), tie_word_embeddings=True,
        attention_dropout=dropout or 0.0, max_position_embeddings=length,
        bos_token_id=None, eos_token_id=None, pad_token_id=None,
    )  # fmt: skip


def _gated(width: int) -> int:
    """8/3 of the width, in multiples of 32: as many parameters as four times without a gate."""
    return round(8 * width / 3 / 32) * 32


MODELS = {"bert": _bert, "modernbert": _modernbert, "gpt2": _gpt2, "llama": _llama}
CAUSAL = ("gpt2", "llama")


def arguments(config: Mapping[str, Any], out: str) -> transformers.TrainingArguments:
    """Trainer's settings; what a config leaves out is the stock default."""
    return transformers.TrainingArguments(
        output_dir=out, use_cpu=True, report_to=[], save_strategy="no", disable_tqdm=True,
        per_device_train_batch_size=config.get("batch", 8), per_device_eval_batch_size=config.get("batch", 8),
        dataloader_num_workers=config.get("workers", 0), torch_compile=config.get("compile", False),
        seed=config.get("seed", 0), **config.get("arguments", {}),
    )  # fmt: skip


def trainer(config: Mapping[str, Any], out: str, watch: Watch) -> transformers.Trainer:
    """Model, data and collator of a config, in a Trainer."""
    torch.set_flush_denormal(config.get("flush", False))
    prepared, length = Path(config["corpus"]), config["length"]
    reader = transformers.AutoTokenizer.from_pretrained(prepared / "tokenizer")
    causal = config["family"] in CAUSAL
    collator: Any = transformers.default_data_collator
    if not causal:
        collator = transformers.DataCollatorForLanguageModeling(
            reader, mlm_probability=config.get("masked", 0.15)
        )
    vocabulary = open_corpus(prepared).tokenizer.specials.vocabulary_size
    return transformers.Trainer(
        model=model(config, vocabulary, length), args=arguments(config, out), data_collator=collator,
        train_dataset=Blocks(text.blocks(prepared, length), labelled=causal), callbacks=[watch],
    )  # fmt: skip


def rate(config: Mapping[str, Any]) -> dict[str, Any]:
    """Tokens a second of training, from step to step."""
    watch = Watch(config["warm"], config["seconds"])
    with tempfile.TemporaryDirectory() as out:
        config = {**config, "arguments": {"max_steps": 100_000, **config.get("arguments", {})}}
        trainer(config, out, watch).train()
    per_step = config.get("batch", 8) * config["length"]
    marks = [(at, step * per_step) for at, step in watch.marks]
    return reported(marks, config["warm"])


def complete(config: Mapping[str, Any]) -> dict[str, Any]:
    """A complete run of so many tokens: wall-clock from model to saved weights, one evaluation included."""
    began, busy = time.perf_counter(), time.process_time()
    steps = max(1, round(config["tokens"] / (config.get("batch", 8) * config["length"])))
    settings = {
        "max_steps": steps, "learning_rate": config["learning_rate"], "lr_scheduler_type": "cosine",
        "warmup_steps": max(1, round(0.06 * steps)), "weight_decay": 0.01, **config.get("arguments", {}),
    }  # fmt: skip
    with tempfile.TemporaryDirectory() as out:
        side = trainer({**config, "arguments": settings}, out, Watch())
        side.train()
        held = Blocks(text.blocks(Path(config["corpus"]), config["length"], held=True), labelled=True)
        side.evaluate(held)
        side.save_model(config["out"])
    reader = transformers.AutoTokenizer.from_pretrained(Path(config["corpus"]) / "tokenizer")
    reader.save_pretrained(config["out"])
    tokens = steps * config.get("batch", 8) * config["length"]
    return {"seconds": time.perf_counter() - began, "model": config["out"], "steps": steps,
            "processor seconds": time.process_time() - busy, "tokens": tokens,
            "peak bytes": peak_memory()}  # fmt: skip


class Labelled(torch.utils.data.Dataset[dict[str, Any]]):
    """Encoded records of a classification set."""

    def __init__(self, path: str, reader: Any, labels: list[str], padding: str | bool, limit: int) -> None:
        records = read(path)[:limit]
        pairs = [r["text_pair"] for r in records] if "text_pair" in records[0] else None
        encoded = reader(
            [r["text"] for r in records], pairs, truncation=True, max_length=128, padding=padding
        )
        self.rows = [
            {key: encoded[key][i] for key in encoded} | {"labels": labels.index(str(r["label"]))}
            for i, r in enumerate(records)
        ]

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return self.rows[index]


def read(path: str) -> list[dict[str, Any]]:
    """The records of a JSON lines file."""
    with Path(path).open(encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]


def finetuned(config: Mapping[str, Any]) -> dict[str, Any]:
    """Training and evaluating a classifier: examples a second, over both, reading and encoding included."""
    torch.set_flush_denormal(config.get("flush", False))
    began = time.perf_counter()
    reader = transformers.AutoTokenizer.from_pretrained(config["model"])
    labels = sorted({str(r["label"]) for r in read(config["train"])})
    padding = "max_length" if config["padding"] == "max_length" else False
    network = transformers.AutoModelForSequenceClassification.from_pretrained(
        config["model"], num_labels=len(labels)
    )
    train, held = (
        Labelled(config[name], reader, labels, padding, limit=10**9) for name in ("train", "validation")
    )
    with tempfile.TemporaryDirectory() as out:
        side = transformers.Trainer(
            model=network, args=arguments(config, out), train_dataset=train, eval_dataset=held,
            data_collator=transformers.DataCollatorWithPadding(reader),
            compute_metrics=accuracy,
        )  # fmt: skip
        side.train()
        scores = [row["eval_accuracy"] for row in side.state.log_history if "eval_accuracy" in row]
    seconds = time.perf_counter() - began
    return {"examples a second": config["examples"] / seconds, "seconds": seconds,
            "scores": {"accuracy": scores}, "peak bytes": peak_memory()}  # fmt: skip


def classified(config: Mapping[str, Any]) -> dict[str, Any]:
    """A classifier trained as run_glue.py does at its defaults, and what it says of the test records."""
    began, busy = time.perf_counter(), time.process_time()
    reader = transformers.AutoTokenizer.from_pretrained(config["model"])
    labels = sorted({str(r["label"]) for r in read(config["train"])})
    padding = "max_length" if config["padding"] == "max_length" else False
    transformers.set_seed(config["seed"])
    network = transformers.AutoModelForSequenceClassification.from_pretrained(
        config["model"], num_labels=len(labels)
    )
    train, test = (Labelled(config[name], reader, labels, padding, limit=10**9) for name in ("train", "test"))
    with tempfile.TemporaryDirectory() as out:
        side = transformers.Trainer(
            model=network, args=arguments(config, out), train_dataset=train,
            data_collator=transformers.DataCollatorWithPadding(reader),
        )  # fmt: skip
        side.train()
        said = np.argmax(side.predict(test).predictions, -1)
    true = [str(r["label"]) for r in read(config["test"])]
    return judged([labels[i] for i in said], true) | {
        "seconds": time.perf_counter() - began, "processor seconds": time.process_time() - busy,
    }  # fmt: skip


def judged(said: list[str], true: list[str]) -> dict[str, Any]:
    """Whether each answer is right, and macro F1."""
    from sklearn.metrics import f1_score

    return {
        "right": [int(a == b) for a, b in zip(said, true, strict=True)],
        "macro_f1": float(f1_score(true, said, average="macro", zero_division=0)),
    }


def accuracy(found: Any) -> dict[str, float]:
    """Share of right labels, as run_glue.py counts it."""
    return {"accuracy": float((np.argmax(found.predictions, -1) == found.label_ids).mean())}


SIDES = {"rate": rate, "complete": complete, "finetuned": finetuned, "classified": classified}
