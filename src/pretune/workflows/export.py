"""A model as a folder for other programs, checked to say the same there."""

from __future__ import annotations

import importlib
import importlib.util
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pretune.arguments import FilePath, check_arguments
from pretune.checkpoint import hub
from pretune.errors import CheckpointError, ConfigError, UsageError, suggestion
from pretune.model.model import Model
from pretune.runtime import atomic_files, device, lock
from pretune.runtime.progress import Reporter, Silent
from pretune.types import Batch, IntArray, Layout, framed

TEXTS = (
    "The quick brown fox jumps over the lazy dog, and 42 others watch.",
    "当事人一方不履行合同义务的，应当承担违约责任。",
    "Mixed 中英文 text, with “quotes”、标点 and a rare 龘.",
)
"""What both sides are asked about, where no texts are given."""
TOLERANCE = 1e-3
"""Of logits of order ten: their sums are rounded in another order in another program."""
CARD = "README.md"


@check_arguments
def export(
    model: Model | FilePath,
    *,
    out: FilePath,
    format: str = "hugging-face",
    texts: Sequence[str] = (),
    overwrite: bool = False,
    reporter: Reporter | None = None,
) -> dict[str, Any]:
    """Write ``model`` to ``out``, and see that what reads it back says the same; whole or not at all.

    Args:
        format: one of ``FORMATS``.
        texts: on which the logits are compared; default: English and Chinese ones.
        overwrite: take a folder that is there: files of the same names are replaced, others stay.

    Returns:
        ``differences``: for each reader the largest difference of two logits. Stock transformers is a reader
        where it is installed.

    Raises:
        CheckpointError: no model there, or what was written says something else.
        UsageError: ``out`` is there already, or the model is not trained.
        ConfigError: there is no such format, or another process writes ``out``.
    """
    if format not in FORMATS:
        raise ConfigError(f"format: there is no {format!r}; {suggestion(format, FORMATS)}")
    reporter, path = reporter or Silent(), Path(out)
    device.prepare()
    loaded = model if isinstance(model, Model) else Model.load(model)
    loaded.needs(loaded.head)
    if loaded.untrained:
        raise UsageError(f"{loaded.path}: its {loaded.head!r} head is not trained; fine-tune it first")
    with lock.held(lock.beside(path), path):
        _check_target(path, overwrite, reporter)
        differences = _written(loaded, path, format, texts or TEXTS)
    if "transformers" not in differences:
        reporter.say("transformers is not installed, so only pretune has read the folder back")
    size = sum(file.stat().st_size for file in path.iterdir())
    return {
        "verb": "export", "format": format, "out": str(path), "head": loaded.head,
        "parameters": loaded.parameters, "bytes": size, "texts": len(texts or TEXTS),
        "differences": differences,
    }  # fmt: skip


def _check_target(path: Path, overwrite: bool, reporter: Reporter) -> None:
    there = path.is_dir() and any(path.iterdir())
    if there and not overwrite:
        raise UsageError(
            f"{path}: is there already; remove it, give another --out, or replace the files of the same "
            "names in it with --overwrite"
        )
    atomic_files.check_target(path, overwrite=overwrite)
    if there:
        reporter.say(f"{path}: is there already: files of the same names are replaced, others stay")


def _written(model: Model, path: Path, format: str, texts: Sequence[str]) -> dict[str, float]:
    differences: dict[str, float] = {}

    def fill(folder: Path) -> None:
        differences.update(FORMATS[format](model, folder, texts))

    atomic_files.write_folder(path, fill, about={"kind": "model", "format": format})
    return differences


def _hugging_face(model: Model, folder: Path, texts: Sequence[str]) -> dict[str, float]:
    """A folder that stock transformers loads; {reader: largest difference}."""
    model.write(folder)
    if model.path is not None and (model.path / CARD).is_file():
        shutil.copyfile(model.path / CARD, folder / CARD)
    ids = [_ids(model, text) for text in texts]
    wanted = [_logits(model, row) for row in ids]
    again = Model.load(folder)
    found = {"pretune": _farthest("pretune", wanted, [_logits(again, row) for row in ids])}
    if importlib.util.find_spec("transformers") is not None:
        stock = _stock(folder, texts, ids)
        found["transformers"] = _farthest("transformers", wanted, stock)
    return found


FORMATS: dict[str, Callable[[Model, Path, Sequence[str]], dict[str, float]]] = {"hugging-face": _hugging_face}
"""Each writes a model into a folder and compares what reads it there."""


def _ids(model: Model, text: str) -> IntArray:
    """As much of a framed text as the model reads."""
    specials = model.tokenizer.specials
    room = model.max_length - sum(map(len, specials.single))
    return framed(specials, (model.tokenizer.encode(text).ids[:room],))[0]


@torch.inference_mode()
def _logits(model: Model, ids: IntArray) -> Tensor:
    """(N, C) at all places that the head reads."""
    batch = Batch(torch.from_numpy(ids)[None], Layout(torch.tensor([len(ids)])))
    logits: Tensor = model.network.eval()(batch, heads=(model.head,)).logits[model.head]
    return logits.float().clone()


def _farthest(reader: str, wanted: Sequence[Tensor], got: Sequence[Tensor]) -> float:
    differences = [float((a - b).abs().max()) for a, b in zip(wanted, got, strict=True)]
    if not max(differences) <= TOLERANCE:  # not a number is no small difference either
        raise CheckpointError(
            f"{reader} reads what was written, but its logits differ by {max(differences):.3g} "
            f"(at most {TOLERANCE:g} is rounding); nothing was kept"
        )
    return max(differences)


def _stock(folder: Path, texts: Sequence[str], ids: Sequence[IntArray]) -> list[Tensor]:
    transformers = importlib.import_module("transformers")
    reader = transformers.AutoTokenizer.from_pretrained(folder)
    for text, row in zip(texts, ids, strict=True):
        told = reader(text, truncation=True, max_length=len(row))["input_ids"]
        if not np.array_equal(told, row):
            raise CheckpointError(f"transformers reads {text!r} as {told}, pretune as {row.tolist()}")
    kind = getattr(transformers, hub.read_config(folder)["architectures"][0])
    network = kind.from_pretrained(folder, dtype=torch.float32).eval()
    return [_stock_logits(network, row) for row in ids]


@torch.inference_mode()
def _stock_logits(network: Any, ids: IntArray) -> Tensor:
    outputs = network(torch.from_numpy(ids)[None])
    if "logits" in outputs:
        logits: Tensor = outputs["logits"].flatten(0, -2)  # (N, C)
        return logits
    return torch.stack((outputs["start_logits"], outputs["end_logits"]), -1).flatten(0, -2)
