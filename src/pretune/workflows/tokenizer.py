"""Train a tokenizer on raw text, and see what tokenizers do to a text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from pretune.arguments import FilePath, NonNegativeInt, PositiveInt, check_arguments
from pretune.data.sources.read_options import ReadOptions
from pretune.data.sources.records import read_texts
from pretune.errors import ConfigError, DataError
from pretune.runtime import atomic_files, lock
from pretune.runtime.progress import NullReporter, Reporter
from pretune.text.inspection import (
    Inspection,
    describe_tokens,
    format_remarks,
    format_table,
    inspect_tokenizer,
)
from pretune.text.sample import sample_texts
from pretune.text.tokenizer import Tokenizer
from pretune.text.training import TokenizerAlgorithm, parse_algorithm
from pretune.text.training import train_tokenizer as train
from pretune.text.vocabulary_size import Advice, advise_vocabulary_size
from pretune.workflows.data_options import text_reading

AUTO: Literal["auto"] = "auto"
_MEASURED_CHARACTERS = 2_000_000


@dataclass(frozen=True)
class TrainedTokenizer:
    """A tokenizer on disk, and what it does to a sample of the text that it was trained on."""

    folder: Path
    tokenizer: Tokenizer
    algorithm: str
    inspection: Inspection
    advice: Advice | None
    """How the size was chosen, where it was ``auto``."""

    def summary(self) -> dict[str, Any]:
        """What stands in the JSON object of the command line."""
        return {
            "folder": str(self.folder),
            "algorithm": self.algorithm,
            "vocabulary_size": self.tokenizer.vocabulary_size,
            "fingerprint": self.tokenizer.fingerprint,
            "advice": None if self.advice is None else asdict(self.advice),
            "inspection": asdict(self.inspection),
        }


@check_arguments
def train_tokenizer(
    sources: FilePath | Sequence[FilePath],
    out: FilePath,
    *,
    algorithm: str = "bpe",
    vocabulary_size: PositiveInt | Literal["auto"] = 8192,
    max_token_length: PositiveInt = 16,
    lowercase: bool = False,
    strip_accents: bool = False,
    sentinels: NonNegativeInt = 0,
    columns: Mapping[str, str] | None = None,
    encoding: str | None = None,
    reporter: Reporter | None = None,
) -> TrainedTokenizer:
    """Train a tokenizer on the text of files and folders and save it as a folder that `transformers` loads.

    Args:
        out: the folder; must be empty or not there.
        vocabulary_size: ``auto`` measures what more tokens would save (:func:`advise_vocabulary_size`).
        sentinels: so many tokens ``<extra_id_0>`` ... for hidden spans come on top of it, as
            span corruption wants them (T5 has 100).
        columns: the column of the text where it is not called so, as ``{"text": "article"}``.
        encoding: of files that are neither UTF-8 nor marked otherwise; None: it is recognised.

    Raises:
        ConfigError: a setting that the kind does not take, or another process writes ``out``.
        DataError: text that cannot be used, or ``out`` is there already.
    """
    if sentinels < 0:
        raise ConfigError(f"sentinels = {sentinels}: must not be negative")
    folder, progress_reporter, parsed_type = (
        Path(out),
        reporter or NullReporter(),
        parse_algorithm(algorithm),
    )
    with lock.acquire(lock.lock_path(folder), folder, DataError):
        return _train(
            [sources] if isinstance(sources, str | Path) else list(sources), folder, parsed_type,
            vocabulary_size,
            max_token_length=max_token_length, lowercase=lowercase, strip_accents=strip_accents,
            sentinels=sentinels, reading=text_reading(columns, encoding), reporter=progress_reporter,
        )  # fmt: skip


def _train(
    paths: Sequence[str | Path],
    folder: Path,
    algorithm: TokenizerAlgorithm,
    vocabulary_size: int | Literal["auto"],
    *,
    max_token_length: int,
    lowercase: bool,
    strip_accents: bool,
    sentinels: int,
    reading: ReadOptions,
    reporter: Reporter,
) -> TrainedTokenizer:
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise DataError(f"{folder}: is there already; remove it or choose another folder")
    advice = None
    if vocabulary_size == AUTO:
        reporter.say("measuring what size of vocabulary the text wants")
        advice = advise_vocabulary_size(read_texts(paths, read_options=reading))
        reporter.say(f"  {advice.vocabulary_size:,} tokens: {advice.reason}")
    size = vocabulary_size if advice is None else advice.vocabulary_size
    assert isinstance(size, int)
    reporter.say(f"training a {algorithm} tokenizer of {size:,} tokens")
    tokenizer = train(
        read_texts(paths, read_options=reading, say=reporter.say), size, algorithm=algorithm,
        max_token_length=max_token_length, lowercase=lowercase, strip_accents=strip_accents,
    ).with_sentinels(sentinels)  # fmt: skip
    inspection = inspect_tokenizer(
        tokenizer, sample_texts(read_texts(paths, read_options=reading), _MEASURED_CHARACTERS)
    )
    atomic_files.write_folder(folder, tokenizer.save, metadata={"type": "tokenizer"})
    return TrainedTokenizer(folder, tokenizer, algorithm, inspection, advice)


@check_arguments
def inspect_tokenizers(
    tokenizers: Sequence[FilePath],
    data: Sequence[FilePath],
    *,
    max_characters: PositiveInt = _MEASURED_CHARACTERS,
    columns: Mapping[str, str] | None = None,
    encoding: str | None = None,
    reporter: Reporter | None = None,
) -> dict[str, Inspection]:
    """What each tokenizer (a ``tokenizer.json``, or a folder with one) does to the same text.

    Args:
        max_characters: of a larger text a fixed sample is read.
        columns: as in :func:`train_tokenizer`.
        encoding: as there.

    Raises:
        CheckpointError: no tokenizer is there.
        DataError: text that cannot be used.
    """
    if not tokenizers:
        raise ConfigError("inspect: no tokenizer given: name a tokenizer.json or a folder with one")
    loaded = [Tokenizer.load(path) for path in tokenizers]
    texts = read_texts(
        data, read_options=text_reading(columns, encoding), say=(reporter or NullReporter()).say
    )
    sample = sample_texts(texts, max_characters)
    return {str(path): inspect_tokenizer(item, sample) for path, item in zip(tokenizers, loaded, strict=True)}


def show_tokens(tokenizers: Sequence[str | Path], text: str) -> dict[str, list[dict[str, Any]]]:
    """The tokens of ``text`` by each tokenizer, with where words and sentences start.

    Raises:
        CheckpointError: no tokenizer is there.
    """
    return {str(path): describe_tokens(Tokenizer.load(path), text) for path in tokenizers}


def inspection_lines(inspections: dict[str, Inspection]) -> list[str]:
    """An aligned table, and remarks on each tokenizer."""
    lines = format_table(list(inspections.items()))
    for name, inspection in inspections.items():
        lines += ["", *format_remarks(name, inspection)]
    return lines


def token_lines(tokens_by_tokenizer: dict[str, list[dict[str, Any]]]) -> list[str]:
    """The tokens of a text, words apart by ``|`` and their further tokens by ``·``, and the ids below."""
    lines = []
    for name, tokens in tokens_by_tokenizer.items():
        text = "".join(
            ("|" if token["word_start"] else "·") + _escape_whitespace(token["text"]) for token in tokens
        )
        lines += [
            f"{name}: {len(tokens)} tokens, {sum(token['word_start'] for token in tokens)} words",
            f"  {text}|",
            "  " + " ".join(str(token["id"]) for token in tokens),
        ]
    return lines


def parse_vocabulary_size(text: str) -> int | Literal["auto"]:
    """A vocabulary size as it is typed.

    Raises:
        ConfigError: neither a number nor ``auto``.
    """
    if text == AUTO:
        return AUTO
    if not text.isdecimal():
        raise ConfigError(f"vocabulary_size = {text!r}: give a number of tokens, or auto")
    return int(text)


def _escape_whitespace(text: str) -> str:
    return text.replace("\n", "\\n").replace("\t", "\\t").replace("\r", "\\r")
