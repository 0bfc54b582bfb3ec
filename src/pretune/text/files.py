"""The files of a tokenizer: ``tokenizer.json``, or what older programs wrote instead."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import tokenizers

from pretune.errors import CheckpointError
from pretune.runtime.json_files import read_json_object
from pretune.text.limits import MAX_VOCABULARY_CHARACTERS

TOKENIZER_CONFIG, SPECIAL_TOKENS_MAP, CHAT_TEMPLATE = (
    "tokenizer_config.json",
    "special_tokens_map.json",
    "chat_template.jinja",
)
VOCABULARY = "vocab.txt"
ADDED_TOKENS = "added_tokens.json"

# The names that tokenizers give to a role where no config says which token has it.
SPECIAL_TOKEN_NAMES = {
    "pad_token": ("[PAD]", "<pad>", "<|pad|>", "<|padding|>", "<|finetune_right_pad_id|>"),
    "eos_token": ("<|endoftext|>", "</s>", "<|end_of_text|>", "<eos>", "[EOS]", "<|im_end|>"),
    "bos_token": ("<s>", "<|begin_of_text|>", "<bos>", "[BOS]", "<|startoftext|>"),
    "unk_token": ("[UNK]", "<unk>", "<|unk|>"),
    "mask_token": ("[MASK]", "<mask>", "<|mask|>"),
    "cls_token": ("[CLS]", "<cls>"),
    "sep_token": ("[SEP]", "<sep>"),
}


@contextmanager
def rust_errors(what: str) -> Iterator[None]:
    """Turn what Rust raises into a CheckpointError: plain Exception, or a panic, which is none."""
    try:
        yield
    except (CheckpointError, KeyboardInterrupt, SystemExit, GeneratorExit, MemoryError):
        raise
    except BaseException as error:  # a Rust panic is no Exception, and has no class to be caught by
        if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
            raise
        raise CheckpointError(f"{what}: not a tokenizer that can be used: {error}") from None


def check_file_size(path: Path) -> None:
    """A list of tokens or merges is no longer than any published one by far.

    Raises:
        CheckpointError: it is.
    """
    if path.is_file() and path.stat().st_size > MAX_VOCABULARY_CHARACTERS:
        raise CheckpointError(f"{path}: larger than {MAX_VOCABULARY_CHARACTERS:,} bytes; fetch it again")


def read_object(path: Path) -> dict[str, Any]:
    """The JSON object in a file; empty where there is no file."""
    if not path.is_file():
        return {}
    return read_json_object(path)


def write_object(path: Path, value: Mapping[str, Any]) -> None:
    """Write a JSON object as people read it."""
    path.write_text(json.dumps(value, ensure_ascii=False, indent=2) + "\n", encoding="utf-8")


def write_vocabulary(path: Path, backend: tokenizers.Tokenizer) -> None:
    """Write ``vocab.txt``: the token of each id on its line, where no token holds a line end."""
    tokens = {id: token for token, id in backend.get_vocab(with_added_tokens=True).items()}
    lines = [tokens.get(id, f"[unused{id}]") for id in range(1 + max(tokens, default=-1))]
    if not any(mark in token for token in lines for mark in "\r\n"):
        path.write_text("".join(f"{token}\n" for token in lines), encoding="utf-8", newline="\n")
