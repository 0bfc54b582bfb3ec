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
from pretune.runtime.progress import NullReporter, Reporter
from pretune.types import Batch, IntArray, Layout, add_special_tokens

PROBE_TEXTS = (
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
    reporter, path = reporter or NullReporter(), Path(out)
    device.configure()
    loaded = model if isinstance(model, Model) else Model.load(model)
    loaded.require_head(loaded.head)
    if loaded.untrained:
        raise UsageError(f"{loaded.path}: its {loaded.head!r} head is not trained; fine-tune it first")
    with lock.acquire(lock.lock_path(path), path):
        _check_target(path, overwrite, reporter)
        differences = _write_folder(loaded, path, format, texts or PROBE_TEXTS)
    if "transformers" not in differences:
        reporter.say("transformers is not installed, so only pretune has read the folder back")
    size = sum(file.stat().st_size for file in path.iterdir())
    return {
        "verb": "export", "format": format, "out": str(path), "head": loaded.head,
        "parameters": loaded.num_parameters, "bytes": size, "texts": len(texts or PROBE_TEXTS),
        "differences": differences,
    }  # fmt: skip


def _check_target(path: Path, overwrite: bool, reporter: Reporter) -> None:
    exists = path.is_dir() and any(path.iterdir())
    if exists and not overwrite:
        raise UsageError(
            f"{path}: is there already; remove it, give another --out, or replace the files of the same "
            "names in it with --overwrite"
        )
    atomic_files.check_target(path, overwrite=overwrite)
    if exists:
        reporter.say(f"{path}: is there already: files of the same names are replaced, others stay")


def _write_folder(model: Model, path: Path, format: str, texts: Sequence[str]) -> dict[str, float]:
    differences: dict[str, float] = {}

    def fill(folder: Path) -> None:
        differences.update(FORMATS[format](model, folder, texts))

    atomic_files.write_folder(path, fill, metadata={"type": "model", "format": format})
    return differences


def _export_hugging_face(model: Model, folder: Path, texts: Sequence[str]) -> dict[str, float]:
    """A folder that stock transformers loads; {reader: largest difference}."""
    model.write(folder)
    if model.path is not None and (model.path / CARD).is_file():
        shutil.copyfile(model.path / CARD, folder / CARD)
    ids = [_encode(model, text) for text in texts]
    expected = [_logits(model, row) for row in ids]
    reloaded = Model.load(folder)
    found = {"pretune": _max_difference("pretune", expected, [_logits(reloaded, row) for row in ids])}
    if importlib.util.find_spec("transformers") is not None:
        stock = _transformers_logits(folder, texts, ids)
        found["transformers"] = _max_difference("transformers", expected, stock)
    return found


FORMATS: dict[str, Callable[[Model, Path, Sequence[str]], dict[str, float]]] = {
    "hugging-face": _export_hugging_face
}
"""Each writes a model into a folder and compares what reads it there."""


def _encode(model: Model, text: str) -> IntArray:
    """As much of a framed text as the model reads."""
    specials = model.tokenizer.specials
    room = model.max_length - sum(map(len, specials.single))
    return add_special_tokens(specials, (model.tokenizer.encode(text).ids[:room],))[0]


@torch.inference_mode()
def _logits(model: Model, ids: IntArray) -> Tensor:
    """(N, C) at all places that the head reads."""
    batch = Batch(torch.from_numpy(ids)[None], Layout(torch.tensor([len(ids)])))
    logits: Tensor = model.network.eval()(batch, heads=(model.head,)).logits[model.head]
    return logits.float().clone()


def _max_difference(reader: str, expected: Sequence[Tensor], actual: Sequence[Tensor]) -> float:
    differences = [float((a - b).abs().max()) for a, b in zip(expected, actual, strict=True)]
    if not max(differences) <= TOLERANCE:  # not a number is no small difference either
        raise CheckpointError(
            f"{reader} reads what was written, but its logits differ by {max(differences):.3g} "
            f"(at most {TOLERANCE:g} is rounding); nothing was kept"
        )
    return max(differences)


def _transformers_logits(folder: Path, texts: Sequence[str], ids: Sequence[IntArray]) -> list[Tensor]:
    transformers = importlib.import_module("transformers")
    reader = transformers.AutoTokenizer.from_pretrained(folder)
    for text, row in zip(texts, ids, strict=True):
        ids_by_transformers = reader(text, truncation=True, max_length=len(row))["input_ids"]
        if not np.array_equal(ids_by_transformers, row):
            raise CheckpointError(
                f"transformers reads {text!r} as {ids_by_transformers}, pretune as {row.tolist()}"
            )
    model_class = getattr(transformers, hub.read_config(folder)["architectures"][0])
    network = model_class.from_pretrained(folder, dtype=torch.float32).eval()
    return [_transformers_forward(network, row) for row in ids]


@torch.inference_mode()
def _transformers_forward(network: Any, ids: IntArray) -> Tensor:
    outputs = network(torch.from_numpy(ids)[None])
    if "logits" in outputs:
        logits: Tensor = outputs["logits"].flatten(0, -2)  # (N, C)
        return logits
    return torch.stack((outputs["start_logits"], outputs["end_logits"]), -1).flatten(0, -2)
