"""How many operations a training step takes, and how many this machine could make."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Mapping
from itertools import count
from pathlib import Path
from typing import Any

import torch

from benchmarks.measure import timed
from pretune.data.corpus.build import open_corpus
from pretune.runtime import device
from pretune.runtime.distributed import World
from pretune.runtime.progress import NullReporter
from pretune.runtime.run_folder import Run
from pretune.training.gradients import mean_loss
from pretune.workflows.pretrain.components import PretrainSetup
from pretune.workflows.pretrain.settings import resolve

SHAPES = ((4096, 384, 384), (4096, 384, 1024), (4096, 1024, 384), (4096, 384, 8192), (1024, 1024, 1024),
          (2048, 2048, 2048), (4096, 4096, 4096))  # fmt: skip
"""(m, k, n) of (m, k) @ (k, n); those of a model 384 wide among them."""
FORMULA = (
    "per token, forward + backward: 6 x matmul parameters of the layers, + 6 x those of the head x share of "
    "places where it is computed, + 12 x layers x length x width (half if causal)"
)


def operations_per_token(
    *, layers: int, width: int, length: int, body: int, head: int, share: float, causal: bool
) -> float:
    """``FORMULA``: ``body`` and ``head`` count matmul parameters, ``share`` the head's places a token."""
    attention = 12 * layers * length * width * (0.5 if causal else 1.0)
    return 6 * body + 6 * head * share + attention


def matmul_parameters(network: torch.nn.Module) -> tuple[int, int]:
    """(of the layers, of the heads): weights of linear maps; an embedding that is looked up is none."""
    body = head = 0
    for name, module in network.named_modules():
        if isinstance(module, torch.nn.Linear):
            if name.startswith("heads."):
                head += module.weight.numel()
            else:
                body += module.weight.numel()
    return body, head


def peak(config: Mapping[str, Any]) -> dict[str, Any]:
    """The best fp32 rate of a matrix product over several shapes, in operations a second."""
    device.configure()
    rates = {}
    for m, k, n in SHAPES:
        a, b, out = torch.randn(m, k), torch.randn(k, n), torch.empty(m, n)

        def product(a: torch.Tensor = a, b: torch.Tensor = b, out: torch.Tensor = out) -> None:
            torch.mm(a, b, out=out)

        # The fastest of several stretches: the peak is what the machine can do, undisturbed.
        calls = max(timed(product, config["seconds"] / len(SHAPES) / 4) for _ in range(4))
        rates[f"{m}x{k}x{n}"] = 2 * m * k * n * calls
    return {"operations a second": max(rates.values()), "shapes": rates}


def parts(config: Mapping[str, Any], folder: Path) -> PretrainSetup:
    """Model, objective and batches of a pretraining run over prepared text."""
    settings = resolve(config["settings"], {})
    prepared = open_corpus(Path(settings.corpus[0]))
    return PretrainSetup(settings, [prepared], Run(folder), None, NullReporter(), World())


def gradients(config: Mapping[str, Any]) -> dict[str, Any]:
    """Tokens a second of forward and backward alone, and the operations that a token takes."""
    device.configure()
    with tempfile.TemporaryDirectory() as scratch:
        made = parts(config, Path(scratch) / "run")
    network = made.model.network.train()
    steps = [made.dataloader(step) for step in range(8)]
    tokens = sum(part.num_tokens for parts in steps for part in parts) / len(steps)
    targets = sum(sum(part.batch.counts.values()) for parts in steps for part in parts) / len(steps)
    numbers = count()

    def backward() -> None:
        for part in steps[next(numbers) % len(steps)]:
            for loss in part.objective.loss(network, part.batch):
                mean_loss(loss, part, part.counts()).backward()
        network.zero_grad(set_to_none=True)

    rate = timed(backward, config["seconds"]) * tokens
    body, head = matmul_parameters(network)
    shape = made.model.config
    operations = operations_per_token(
        layers=shape.num_hidden_layers, width=shape.hidden_size, length=config["settings"]["max_length"],
        body=body, head=head, share=targets / tokens, causal=config["causal"],
    )  # fmt: skip
    return {"tokens a second": rate, "operations a token": operations, "matmul parameters": [body, head],
            "head's share of places": targets / tokens}  # fmt: skip


def loading(config: Mapping[str, Any]) -> dict[str, Any]:
    """Seconds that the batches of a step take to build, where nothing else runs."""
    device.configure()
    with tempfile.TemporaryDirectory() as scratch:
        made = parts(config, Path(scratch) / "run")
    numbers = count()
    steps = timed(lambda: made.dataloader(next(numbers)), config["seconds"])
    return {"seconds a step": 1 / steps, "tokens a step": made.dataloader.tokens_per_step}


def tokenizing(config: Mapping[str, Any]) -> dict[str, Any]:
    """Bytes a second of ours and of ``tokenizers``' own encode_batch, in turns, on the same documents."""
    import tokenizers

    from benchmarks.text import documents
    from pretune.text.tokenizer import Tokenizer

    texts = list(documents(Path(config["source"]), config["characters"]))
    size = sum(len(t.encode()) for t in texts)
    ours = Tokenizer.load(config["tokenizer"])
    theirs = tokenizers.Tokenizer.from_file(str(Path(config["tokenizer"]) / "tokenizer.json"))
    rates: dict[str, list[float]] = {"ours": [], "theirs": []}
    for number in range(config["pairs"] + 1):
        for name, encode in (("ours", ours.encode_batch), ("theirs", theirs.encode_batch)):
            began = time.perf_counter()
            encode(texts)
            if number:
                rates[name].append(size / (time.perf_counter() - began))
    return {"bytes a second": rates}


SIDES = {"peak": peak, "gradients": gradients, "loading": loading, "tokenizing": tokenizing}
