"""GGUF files, as llama.cpp keeps models: dequantised by transformers into a folder like any other."""

from __future__ import annotations

import importlib
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache as once
from functools import partial
from pathlib import Path
from typing import Any

from pretune.checkpoint import hub
from pretune.checkpoint.gguf_header import read_header
from pretune.errors import CheckpointError, UnsupportedError
from pretune.runtime.json_files import check_regular_file

SUFFIX = ".gguf"
MAGIC = b"GGUF"

_TEMPORARY_FOLDERS: list[Any] = []
"""Temporary folders, which go with the process."""


def find_gguf_file(path: Path) -> Path | None:
    """The GGUF file that a path means: itself, or the only one in a folder; None: it means no such file.

    Raises:
        CheckpointError: a folder holds several.
    """
    if path.exists() and not path.is_dir():
        check_regular_file(path)
        return path if path.suffix == SUFFIX else None
    files = sorted(path.glob(f"*{SUFFIX}"))
    if len(files) > 1:
        names = ", ".join(file.name for file in files[:5])
        raise CheckpointError(f"{path}: holds {len(files)} GGUF files ({names}); give one of them")
    return files[0] if files else None


def unpack(file: Path) -> Path:
    """A folder with the model of a GGUF file in float32, made once a process and removed at its end.

    Raises:
        UnsupportedError: transformers or gguf is not installed, or knows no such architecture.
        CheckpointError: the file is damaged, or lacks tensors.
    """
    return _unpack(file.resolve(), file.stat().st_mtime_ns)


@once
def _unpack(file: Path, modified_ns: int) -> Path:
    with file.open("rb") as stream:
        if stream.read(4) != MAGIC:
            raise CheckpointError(f"{file}: does not begin as a GGUF file does; fetch it again")
    read_header(file)
    transformers = _import_optional("transformers")
    gguf, gguf_utils = (
        _import_optional("gguf"),
        importlib.import_module("transformers.modeling_gguf_pytorch_utils"),
    )
    temporary_folder = tempfile.TemporaryDirectory(prefix="pretune-gguf-")
    _TEMPORARY_FOLDERS.append(temporary_folder)
    folder, source = Path(temporary_folder.name), {"gguf_file": file.name, "local_files_only": True}
    try:
        # It opens the file for config, weights and tokenizer; a large vocabulary takes ten seconds to parse.
        parsed_once = _patch(gguf, "GGUFReader", once(gguf.GGUFReader))
        # It draws bars where there is no terminal, too.
        silent = _patch(gguf_utils, "tqdm", partial(gguf_utils.tqdm, disable=True))
        with parsed_once, silent, _disable_progress_bars(transformers.utils.logging):
            model, loaded = transformers.AutoModelForCausalLM.from_pretrained(
                file.parent, **source, dtype="float32", output_loading_info=True
            )
            tokenizer = transformers.AutoTokenizer.from_pretrained(file.parent, **source)
    # What the libraries raise over a damaged file depends on the byte that is wrong: tokenizers raises plain
    # Exception, or panics, which is no Exception and has no class to be caught by.
    except BaseException as error:
        if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
            raise
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise CheckpointError(f"{file}: cannot be read as GGUF: {reason}") from None
    if loaded["missing_keys"]:
        raise CheckpointError(f"{file}: has no weights for {', '.join(sorted(loaded['missing_keys'])[:5])}")
    values = {key: value for key, value in model.config.to_dict().items() if key != "quantization_config"}
    values |= {"architectures": [type(model).__name__], "dtype": "float32"}
    hub.write_model(folder, values, {name: p.detach() for name, p in model.named_parameters()})
    tokenizer.save_pretrained(folder)
    return folder


@contextmanager
def _disable_progress_bars(logging: Any) -> Iterator[None]:
    """With the setting for the other bars of transformers off."""
    enabled = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if enabled:
            logging.enable_progress_bar()


@contextmanager
def _patch(module: Any, name: str, value: Any) -> Iterator[None]:
    """With ``value`` under the name of a function or class of another library."""
    original = getattr(module, name)
    setattr(module, name, value)
    try:
        yield
    finally:
        setattr(module, name, original)


def _import_optional(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name != name:
            raise
        raise UnsupportedError(
            f"GGUF files are read with {name}, which is not installed: pip install 'pretune[hf]'"
        ) from None
