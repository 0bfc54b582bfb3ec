"""pretune: raw text in, a Transformer language model out.

The public names are loaded when first used, so that ``import pretune`` does not import torch.
"""

from __future__ import annotations

from importlib import metadata
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pretune.errors import PretuneError as PretuneError
    from pretune.model.model import Model as Model
    from pretune.workflows.data.inspect import inspect_data as inspect_data
    from pretune.workflows.data.prepare import prepare_data as prepare_data
    from pretune.workflows.evaluate import evaluate as evaluate
    from pretune.workflows.export import export as export
    from pretune.workflows.extend import extend_vocabulary as extend_vocabulary
    from pretune.workflows.finetune.finetune import finetune as finetune
    from pretune.workflows.predict.predict import predict as predict
    from pretune.workflows.pretrain.pretrain import pretrain as pretrain
    from pretune.workflows.quickstart.quickstart import quickstart as quickstart
    from pretune.workflows.runs.compare import compare_runs as compare_runs
    from pretune.workflows.runs.runs import adjust_run as adjust_run
    from pretune.workflows.runs.runs import list_runs as list_runs
    from pretune.workflows.runs.runs import show_run as show_run
    from pretune.workflows.tokenizer import inspect_tokenizers as inspect_tokenizers
    from pretune.workflows.tokenizer import train_tokenizer as train_tokenizer

_HOMES = {
    "Model": "pretune.model.model",
    "PretuneError": "pretune.errors",
    "adjust_run": "pretune.workflows.runs.runs",
    "compare_runs": "pretune.workflows.runs.compare",
    "evaluate": "pretune.workflows.evaluate",
    "export": "pretune.workflows.export",
    "extend_vocabulary": "pretune.workflows.extend",
    "finetune": "pretune.workflows.finetune.finetune",
    "inspect_data": "pretune.workflows.data.inspect",
    "inspect_tokenizers": "pretune.workflows.tokenizer",
    "list_runs": "pretune.workflows.runs.runs",
    "predict": "pretune.workflows.predict.predict",
    "prepare_data": "pretune.workflows.data.prepare",
    "pretrain": "pretune.workflows.pretrain.pretrain",
    "quickstart": "pretune.workflows.quickstart.quickstart",
    "show_run": "pretune.workflows.runs.runs",
    "train_tokenizer": "pretune.workflows.tokenizer",
}

__all__ = [
    "Model", "PretuneError", "adjust_run", "compare_runs", "evaluate", "export", "extend_vocabulary",
    "finetune", "inspect_data", "inspect_tokenizers", "list_runs", "load", "predict", "prepare_data",
    "pretrain", "quickstart", "show_run", "train_tokenizer",
]  # fmt: skip


def load(path: Any, **options: Any) -> Model:
    """Read a model folder: a run of ours, or a Hugging Face folder of a family that pretune has."""
    from pretune.model.model import Model

    return Model.load(path, **options)


def __getattr__(name: str) -> Any:
    if name == "__version__":
        try:
            return metadata.version("pretune")
        except metadata.PackageNotFoundError:
            return "unknown"
    if name in _HOMES:
        from pretune.registry import load_module as load_module

        return getattr(load_module(_HOMES[name]), name)
    raise AttributeError(f"module 'pretune' has no attribute {name!r}")
