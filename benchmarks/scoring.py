"""Held-out loss of a saved model inside stock transformers, the same for both sides."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers

from pretune.data.corpus.build import open_corpus

IGNORED = -100
MASKED_SHARE = 0.15
HELD_TOKENS = 100_000


def rows(
    prepared: Path, length: int, tokens: int, *, overlap: int, close: bool
) -> list[np.ndarray[Any, Any]]:
    """Framed held-out documents cut into windows; ``overlap`` 1 lets each token be predicted once."""
    opened = open_corpus(prepared)
    before, after = opened.tokenizer.specials.single
    found: list[np.ndarray[Any, Any]] = []
    left = tokens
    for number in range(len(opened.validation)):
        document = opened.validation.document(number)[:left]
        left -= len(document)
        ids = np.concatenate([before, document, after if close else ()]).astype(np.int64)
        found += [ids[k : k + length] for k in range(0, max(1, len(ids) - overlap), length - overlap)]
        if left <= 0:
            break
    return found


def hidden(row: np.ndarray[Any, Any], specials: set[int], mask: int, rng: np.random.Generator) -> Any:
    """(inputs, labels) with a frozen 15 % of the places hidden behind the mask."""
    open_to_it = ~np.isin(row, list(specials))
    chosen = open_to_it & (rng.random(len(row)) < MASKED_SHARE)
    return np.where(chosen, mask, row), np.where(chosen, row, IGNORED)


def score(config: Mapping[str, Any]) -> dict[str, Any]:
    """Nats a target, the unigram baseline on the same targets; of a causal model bits per byte besides."""
    prepared, length, causal = Path(config["corpus"]), config["length"], config["causal"]
    opened = open_corpus(prepared)
    specials = opened.tokenizer.specials
    kind = transformers.AutoModelForCausalLM if causal else transformers.AutoModelForMaskedLM
    network = kind.from_pretrained(config["model"], dtype=torch.float32).eval()
    rng = np.random.default_rng(20_251_124)
    tokens = config.get("held_tokens", HELD_TOKENS)
    pairs = []
    for row in rows(prepared, length, tokens, overlap=int(causal), close=not causal):
        if causal:
            pairs.append((row, np.concatenate([[IGNORED], row[1:]])))
        else:
            assert specials.mask_id is not None, "an encoder's tokenizer has a mask"
            pairs.append(hidden(row, set(specials.all_ids), specials.mask_id, rng))
    targets = np.concatenate([labels[labels != IGNORED] for _, labels in pairs])
    nats = total_loss(network, pairs, specials.pad_id, causal=causal)
    found = {"nats": nats / len(targets), "targets": len(targets), "unigram": unigram(prepared, targets)}
    if causal:
        size = int(opened.tokenizer.byte_lengths()[targets].sum())
        found["bits per byte"] = nats / math.log(2) / size
    return found


def total_loss(network: Any, pairs: list[Any], pad: int, *, causal: bool) -> float:
    """Summed cross-entropy in nats; rows of one length go together, 16 at once."""
    order = sorted(range(len(pairs)), key=lambda i: -len(pairs[i][0]))
    nats = 0.0
    for start in range(0, len(order), 16):
        group = [pairs[i] for i in order[start : start + 16]]
        width = len(group[0][0])
        ids = torch.tensor(np.stack([np.pad(x, (0, width - len(x)), constant_values=pad) for x, _ in group]))
        labels = torch.tensor(
            np.stack([np.pad(y, (0, width - len(y)), constant_values=IGNORED) for _, y in group])
        )
        seen = torch.tensor(np.stack([np.arange(width) < len(x) for x, _ in group])).long()
        with torch.no_grad():
            logits = network(input_ids=ids, attention_mask=seen).logits.float()
        if causal:
            logits, labels = logits[:, :-1], labels[:, 1:]
        nats += float(torch.nn.functional.cross_entropy(
            logits.flatten(0, 1), labels.flatten(), ignore_index=IGNORED, reduction="sum"
        ))  # fmt: skip
    return nats


def unigram(prepared: Path, targets: np.ndarray[Any, Any]) -> float:
    """Nats a target of a unigram model of the training tokens, each counted once more."""
    opened = open_corpus(prepared)
    counts = np.ones(opened.tokenizer.specials.vocabulary_size)
    for number in range(len(opened.train)):
        counts += np.bincount(opened.train.document(number), minlength=len(counts))
    return float(-np.log(counts / counts.sum())[targets].mean())


SIDES = {"score": score}
