"""Give a model more tokens for a text, before it is trained on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pretune.arguments import Count, FilePath, check_arguments
from pretune.data.sources import read_texts
from pretune.errors import DataError
from pretune.model import Model
from pretune.model.growing import grown
from pretune.text.extension import extended
from pretune.text.sample import sample_texts
from pretune.training import machine
from pretune.training.progress import Reporter, Silent

_MEASURED_CHARACTERS = 2_000_000
_SHOWN = 12


@dataclass(frozen=True)
class ExtendedVocabulary:
    """A model on disk with more tokens, and what they save."""

    folder: Path
    tokens: tuple[str, ...]
    """The new ones, as text, in the order in which they were made."""
    vocabulary_size: int
    before: float
    """Tokens a hundred characters of the text."""
    after: float

    def summary(self) -> dict[str, Any]:
        """What stands in the JSON object of the command line."""
        return {
            "folder": str(self.folder),
            "new_tokens": len(self.tokens),
            "vocabulary_size": self.vocabulary_size,
            "tokens_per_100_characters": {"before": self.before, "after": self.after},
            "examples": list(self.tokens[:_SHOWN]),
        }


@check_arguments
def extend_vocabulary(
    model: Model | FilePath,
    sources: FilePath | Sequence[FilePath],
    *,
    out: FilePath,
    tokens: Count = 1000,
    max_token_length: Count = 16,
    reporter: Reporter | None = None,
) -> ExtendedVocabulary:
    """Find up to ``tokens`` new tokens in ``sources``, and write the model that knows them to ``out``.

    Each new token starts from the mean of the pieces that wrote it before, in the embeddings and in the head;
    ``pretrain`` with ``start_from`` then teaches the model to use them.

    Args:
        out: the folder; must be empty or not there.
        max_token_length: longest new token, in bytes.

    Raises:
        CheckpointError: no model is there.
        UnsupportedError: its tokenizer is of a kind that cannot be extended.
        DataError: text that cannot be used or has no more tokens to give, or ``out`` is there already.
    """
    folder, heard = Path(out), reporter or Silent()
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise DataError(f"{folder}: is there already; remove it or choose another folder")
    machine.prepare()
    before = model if isinstance(model, Model) else Model.load(model)
    paths = [sources] if isinstance(sources, str | Path) else list(sources)
    heard.say(f"looking for {tokens:,} tokens to add to {before.tokenizer.vocabulary_size:,}")
    found = extended(before.tokenizer, read_texts(paths), tokens, max_token_length=max_token_length)
    if not found.pieces:
        raise DataError("no two neighbouring tokens of the text occur twice: there is nothing to add")
    after = grown(before, found)
    sample = sample_texts(read_texts(paths), _MEASURED_CHARACTERS)
    characters = sum(map(len, sample))
    rates = [
        round(100 * sum(len(encoded.ids) for encoded in tokenizer.encode_batch(sample)) / characters, 2)
        for tokenizer in (before.tokenizer, after.tokenizer)
    ]
    after.save(folder)
    words = tuple(after.tokenizer.decode([id]) for id in found.pieces)
    return ExtendedVocabulary(folder, words, after.tokenizer.vocabulary_size, *rates)


def lines(found: ExtendedVocabulary) -> list[str]:
    """What the command line says of it."""
    shown = "  ".join(repr(token) for token in found.tokens[:_SHOWN])
    return [
        f"{len(found.tokens):,} new tokens, {found.vocabulary_size:,} together: {shown} ...",
        f"tokens a hundred characters of this text: {found.before:.1f} before, {found.after:.1f} now",
        f"model: {found.folder}",
    ]
