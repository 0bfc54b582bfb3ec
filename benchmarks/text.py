"""One text and one tokenizer for both sides, made once and kept."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

import pretune
from benchmarks.measure import Options
from pretune.data.corpus.build import build_corpus, open_corpus
from pretune.runtime.progress import NullReporter
from pretune.text.tokenizer import Tokenizer

TUNING_WORDS = ("news", "manual", "debian", "doc", "daily")
"""A document whose source names one of these belongs to the corpus that settings are chosen on."""


@dataclass(frozen=True)
class Text:
    """A prepared text that both sides read."""

    prepared: Path
    tokenizer: Path
    label: str
    tokens: int
    vocabulary: int


def source_files(options: Options, language: str) -> tuple[Path, str]:
    """The file of documents, and what to call it in a result."""
    if options.data is not None:
        return options.data / f"pretrain_{language}" / "train.jsonl", f"shared pretrain_{language}"
    shipped = Path(pretune.__file__).parent / "shipped" / f"pretrain_{language}.jsonl"
    return shipped, f"the package's own small {language} text (not the set that the targets speak of)"


def documents(path: Path, characters: int, *, part: str = "all") -> Iterator[str]:
    """Texts in an order that mixes the sources, up to ``characters``; part: all, tuning, reported."""
    with path.open(encoding="utf-8") as lines:
        records = [json.loads(line) for line in lines]
    for_tuning = [is_tuning(str(record.get("source", ""))) for record in records]
    if not any(for_tuning) or all(for_tuning):  # the package's text: of one kind, so halves of it
        for_tuning = [number % 2 == 0 for number in range(len(records))]
    wanted = {"all": (True, False), "tuning": (True,), "reported": (False,)}[part]
    chosen = [record for record, tuning in zip(records, for_tuning, strict=True) if tuning in wanted]
    order = np.random.default_rng(0).permutation(len(chosen))
    for i in order:
        text = chosen[i]["text"]
        yield text
        characters -= len(text)
        if characters <= 0:
            return


def is_tuning(source: str) -> bool:
    """Does a source belong to the corpus that settings are chosen on?"""
    return any(word in source.lower() for word in TUNING_WORDS)


def text(
    options: Options, *, language: str = "en", characters: int = 12_000_000, vocabulary: int = 8192,
    kind: str = "bpe", frame: str = "cls_sep", part: str = "all",
) -> Text:  # fmt: skip
    """Prepare the text where it is not there yet."""
    if options.smoke:
        characters, vocabulary = 400_000, min(vocabulary, 1024)
    path, label = source_files(options, language)
    origin = "shared" if options.data else "shipped"
    name = f"{origin}-{language}-{part}-{characters}-{kind}-{vocabulary}-{frame}"
    folder = options.scratch / name
    prepared = folder / "prepared"
    if not (prepared / "tokenized_corpus.json").exists():
        folder.mkdir(parents=True, exist_ok=True)
        raw = folder / "text.jsonl"
        with raw.open("w", encoding="utf-8") as out:
            out.writelines(
                json.dumps({"text": t}, ensure_ascii=False) + "\n"
                for t in documents(path, characters, part=part)
            )
        trained = folder / "tokenizer"
        if not trained.exists():
            pretune.train_tokenizer(raw, trained, algorithm=kind, vocabulary_size=vocabulary)
        segments = frame == "cls_sep"
        framed = Tokenizer.load(trained).with_template(frame, segments=segments)  # type: ignore[arg-type]
        build_corpus(
            (str(raw),), prepared, tokenizer=framed, vocabulary_size=vocabulary, validation_fraction=0.02,
            validation=(), reporter=NullReporter(),
        )  # fmt: skip
    opened = open_corpus(prepared)
    return Text(
        prepared,
        prepared / "tokenizer",
        label,
        opened.train.num_tokens,
        opened.tokenizer.specials.vocabulary_size,
    )


def blocks(prepared: Path, length: int, *, held: bool = False) -> np.ndarray[Any, Any]:
    """(n, length) ids as run_mlm.py and run_clm.py group them: framed, end to end, cut."""
    opened = open_corpus(prepared)
    before, after = opened.tokenizer.specials.single
    corpus = opened.validation if held else opened.train
    parts = [np.concatenate([before, corpus.document(i), after]).astype(np.int64) for i in range(len(corpus))]
    ids = np.concatenate(parts)
    return ids[: len(ids) // length * length].reshape(-1, length)
