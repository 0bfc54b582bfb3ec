"""pretune: raw text in, a Transformer language model out.

The public names are loaded when first used, so that ``import pretune`` does not import torch.
"""

from __future__ import annotations

import importlib
from importlib import metadata
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pretune.errors import PretuneError as PretuneError
    from pretune.model import Model as Model
    from pretune.workflows.evaluate import evaluate as evaluate
    from pretune.workflows.finetune import finetune as finetune
    from pretune.workflows.predict import predict as predict
    from pretune.workflows.pretrain import pretrain as pretrain
    from pretune.workflows.quickstart import quickstart as quickstart
    from pretune.workflows.tokenizer import inspect_tokenizers as inspect_tokenizers
    from pretune.workflows.tokenizer import train_tokenizer as train_tokenizer

_HOMES = {
    "Model": "pretune.model",
    "PretuneError": "pretune.errors",
    "evaluate": "pretune.workflows.evaluate",
    "finetune": "pretune.workflows.finetune",
    "predict": "pretune.workflows.predict",
    "pretrain": "pretune.workflows.pretrain",
    "quickstart": "pretune.workflows.quickstart",
    "inspect_tokenizers": "pretune.workflows.tokenizer",
    "train_tokenizer": "pretune.workflows.tokenizer",
}

__all__ = [
    "Model", "PretuneError", "evaluate", "finetune", "inspect_tokenizers", "load", "predict", "pretrain",
    "quickstart", "train_tokenizer",
]  # fmt: skip


def load(path: Any, **options: Any) -> Model:
    """Read a model folder: a run of ours, or a Hugging Face folder of a family that pretune has."""
    from pretune.model import Model

    return Model.load(path, **options)


def __getattr__(name: str) -> Any:
    if name == "__version__":
        try:
            return metadata.version("pretune")
        except metadata.PackageNotFoundError:
            return "unknown"
    if name in _HOMES:
        return getattr(importlib.import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'pretune' has no attribute {name!r}")
