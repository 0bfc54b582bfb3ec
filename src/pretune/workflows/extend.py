"""Give a model more tokens for a text, before it is trained on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pretune.arguments import FilePath, PositiveInt, check_arguments
from pretune.data.sources.records import read_texts
from pretune.errors import DataError
from pretune.model.model import Model
from pretune.model.resize_embeddings import resize_token_embeddings
from pretune.runtime import atomic_files, device, lock
from pretune.runtime.progress import NullReporter, Reporter
from pretune.text.sample import sample_texts
from pretune.text.vocabulary_extension import extend_tokenizer
from pretune.workflows.data_options import text_reading

_MEASURED_CHARACTERS = 2_000_000
_MAX_SHOWN = 12


@dataclass(frozen=True)
class ExtendedVocabulary:
    """A model on disk with more tokens, and what they save."""

    folder: Path
    new_tokens: tuple[str, ...]
    """The new ones, as text, in the order in which they were made."""
    vocabulary_size: int
    rate_before: float
    """Tokens a hundred characters of the text."""
    rate_after: float

    def summary(self) -> dict[str, Any]:
        """What stands in the JSON object of the command line."""
        return {
            "folder": str(self.folder),
            "new_tokens": len(self.new_tokens),
            "vocabulary_size": self.vocabulary_size,
            "tokens_per_100_characters": {"before": self.rate_before, "after": self.rate_after},
            "examples": list(self.new_tokens[:_MAX_SHOWN]),
        }


@check_arguments
def extend_vocabulary(
    model: Model | FilePath,
    sources: FilePath | Sequence[FilePath],
    *,
    out: FilePath,
    tokens: PositiveInt = 1000,
    max_token_length: PositiveInt = 16,
    columns: Mapping[str, str] | None = None,
    encoding: str | None = None,
    reporter: Reporter | None = None,
) -> ExtendedVocabulary:
    """Find up to ``tokens`` new tokens in ``sources``, and write the model that knows them to ``out``.

    Each new token starts from the mean of the pieces that wrote it before, in the embeddings and in the head;
    ``pretrain`` with ``start_from`` then teaches the model to use them.

    Args:
        out: the folder; must be empty or not there.
        max_token_length: longest new token, in bytes.
        columns: the column of the text where it is not called so, as ``{"text": "article"}``.
        encoding: of files that are neither UTF-8 nor marked otherwise; None: it is recognised.

    Raises:
        CheckpointError: no model is there.
        UnsupportedError: its tokenizer is of a kind that cannot be extended.
        DataError: text that cannot be used or has no more tokens to give, or ``out`` is there already.
    """
    folder, progress_reporter = Path(out), reporter or NullReporter()
    reading = text_reading(columns, encoding)
    device.configure()
    paths = [sources] if isinstance(sources, str | Path) else list(sources)
    with lock.acquire(lock.lock_path(folder), folder, DataError):
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise DataError(f"{folder}: is there already; remove it or choose another folder")
        before = model if isinstance(model, Model) else Model.load(model)
        progress_reporter.say(f"looking for {tokens:,} tokens to add to {before.tokenizer.vocabulary_size:,}")
        texts = read_texts(paths, read_options=reading, say=progress_reporter.say)
        found = extend_tokenizer(before.tokenizer, texts, tokens, max_token_length=max_token_length)
        if not found.pieces:
            raise DataError("no two neighbouring tokens of the text occur twice: there is nothing to add")
        after = resize_token_embeddings(before, found)
        sample = sample_texts(read_texts(paths, read_options=reading), _MEASURED_CHARACTERS)
        atomic_files.write_folder(folder, after.write, metadata={"type": "model"})
    characters = sum(map(len, sample))
    rates = [
        round(100 * sum(len(encoded.ids) for encoded in tokenizer.encode_batch(sample)) / characters, 2)
        for tokenizer in (before.tokenizer, after.tokenizer)
    ]
    words = tuple(after.tokenizer.decode([id]) for id in found.pieces)
    return ExtendedVocabulary(folder, words, after.tokenizer.vocabulary_size, *rates)


def summary_lines(result: ExtendedVocabulary) -> list[str]:
    """What the command line says of it."""
    shown = "  ".join(repr(token) for token in result.new_tokens[:_MAX_SHOWN])
    return [
        f"{len(result.new_tokens):,} new tokens, {result.vocabulary_size:,} together: {shown} ...",
        f"tokens a hundred characters of this text: {result.rate_before:.1f} before, "
        f"{result.rate_after:.1f} now",
        f"model: {result.folder}",
    ]
