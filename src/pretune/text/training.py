"""Training a tokenizer from raw text: byte-level BPE for Chinese and English together."""

from __future__ import annotations

import hashlib
import heapq
from collections.abc import Iterable, Iterator

import tokenizers
from tokenizers import Regex, decoders, models, pre_tokenizers, trainers

from pretune.errors import ConfigError, DataError
from pretune.text.tokenizer import Tokenizer, well_formed

SPECIALS = {
    "pad_token": "[PAD]",
    "cls_token": "[CLS]",
    "sep_token": "[SEP]",
    "mask_token": "[MASK]",
    "eos_token": "<|endoftext|>",
    "bos_token": "<|endoftext|>",
}

# Qwen2's published pattern, character for character: other programs know a pattern by its text.
PATTERN = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_CHUNK = 4096  # characters: small beside any sample, so that one long book cannot crowd out the rest


def train_byte_bpe(
    texts: Iterable[str],
    vocabulary_size: int,
    *,
    max_token_length: int = 16,
    max_characters: int = 20_000_000,
) -> Tokenizer:
    """Byte-level BPE that takes any text and gives it back exactly.

    All 256 bytes are in the vocabulary, so nothing is unknown, and there is no normaliser, so nothing is lost
    (Qwen2 applies NFC, which changes text). The pre-tokenisation is Qwen2's: GPT-2's glues digits together
    and is weaker on line ends. A run of Chinese has no spaces, so it is one pre-token up to the next
    punctuation, and unlimited merges would learn whole clauses of a corpus by heart; ``max_token_length``
    (bytes) ends that at five characters and costs English only words that are rare.

    The same texts give the same tokenizer, in any order and on any number of threads.

    Args:
        texts: any amount; lone surrogates count as U+FFFD.
        vocabulary_size: with the specials ``[PAD] [CLS] [SEP] [MASK] <|endoftext|>``. A small text may give
            fewer tokens.
        max_token_length: longest token in bytes.
        max_characters: bounds memory and time: of a larger text those pieces of about 4,096 characters are
            learnt from whose BLAKE2 hashes are the smallest, a sample without order or chance.

    Raises:
        ConfigError: the vocabulary cannot hold the bytes and the special tokens.
        DataError: there is no text.
    """
    special = list(dict.fromkeys(SPECIALS.values()))
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    least = len(alphabet) + len(special)
    if vocabulary_size < least:
        raise ConfigError(
            f"vocabulary_size = {vocabulary_size}: needs at least {least}: 256 bytes and specials"
        )
    if max_token_length < 1:
        raise ConfigError(f"max_token_length = {max_token_length}: must be positive")
    sample = _sample(texts, max_characters)
    if not sample:
        raise DataError("no text to train a tokenizer on")
    backend = tokenizers.Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(PATTERN), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False, trim_offsets=False),
        ]
    )
    backend.decoder = decoders.ByteLevel()
    # The mask takes the space before it along: "the [MASK]" hides " king", which is one token.
    added = [tokenizers.AddedToken(t, lstrip=t == SPECIALS["mask_token"], special=True) for t in special]
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary_size,
        special_tokens=added,
        initial_alphabet=alphabet,
        max_token_length=max_token_length,
        min_frequency=2,
        show_progress=False,
    )
    backend.train_from_iterator(sample, trainer)
    return Tokenizer(backend, {**SPECIALS, "clean_up_tokenization_spaces": False})


def _sample(texts: Iterable[str], max_characters: int) -> list[str]:
    """The pieces with the smallest hashes, as many as ``max_characters`` hold, in the order of hashes."""
    heap: list[tuple[int, str]] = []
    total = 0
    for text in texts:
        for piece in _pieces(well_formed(text)):
            key = int.from_bytes(hashlib.blake2b(piece.encode(), digest_size=8).digest())
            heapq.heappush(heap, (-key, piece))  # a heap of the kept pieces with the largest hash on top
            total += len(piece)
            while total > max_characters and len(heap) > 1:
                total -= len(heapq.heappop(heap)[1])
    return [piece for _, piece in sorted(heap)]


def _pieces(text: str) -> Iterator[str]:
    start = 0
    while start < len(text):
        end = start + _CHUNK
        if end < len(text):  # at a line end or a space where there is one, so that few words are cut
            end = max(text.rfind("\n", start, end), text.rfind(" ", start, end), start + _CHUNK // 2)
        yield text[start:end]
        start = end
