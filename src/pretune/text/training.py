"""Training a tokenizer from raw text, for Chinese and English together: BPE, WordPiece or Unigram."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import tokenizers
from tokenizers import Regex, decoders, models, normalizers, pre_tokenizers, trainers

from pretune.errors import ConfigError, DataError, suggestion
from pretune.text.sample import sample_texts
from pretune.text.tokenizer import Tokenizer
from pretune.text.unigram import learn_pieces

TokenizerAlgorithm = Literal["bpe", "wordpiece", "unigram"]

SPECIAL_TOKENS = {
    "pad_token": "[PAD]",
    "cls_token": "[CLS]",
    "sep_token": "[SEP]",
    "mask_token": "[MASK]",
    "eos_token": "<|endoftext|>",
    "bos_token": "<|endoftext|>",
}
UNK_TOKEN = "[UNK]"

# Qwen2's published pattern, character for character: other programs know a pattern by its text.
BPE_PATTERN = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
# For Unigram: a word with the space before it, a run of Chinese, a digit, a run of marks, white space. No
# piece spans the punctuation of a clause, nor Chinese and other letters.
UNIGRAM_PATTERN = (
    r" ?\p{Han}+| ?(?:(?!\p{Han})[\p{L}\p{M}])+| ?\p{N}| ?[^\s\p{L}\p{M}\p{N}]+|[\r\n]+|[^\S\r\n]+(?!\S)|\s"
)
BYTE_TOKENS = tuple(f"<0x{byte:02X}>" for byte in range(256))
_ASCII = tuple(map(chr, range(0x21, 0x7F)))
_ALPHABET_SHARE = 0.75  # of a WordPiece vocabulary, at most: the rest is for words


@dataclass(frozen=True, slots=True)
class _TrainerOptions:
    """What all three kinds are told."""

    size: int
    max_bytes: int
    lowercase: bool
    strip_accents: bool


def train_tokenizer(
    texts: Iterable[str],
    vocabulary_size: int,
    *,
    algorithm: TokenizerAlgorithm = "bpe",
    max_token_length: int = 16,
    max_characters: int | None = None,
    lowercase: bool = False,
    strip_accents: bool = False,
) -> Tokenizer:
    """A tokenizer learnt from ``texts``: the same one whatever their order and the number of threads.

    ``bpe`` is byte-level BPE: it takes any text and gives it back exactly. All 256 bytes are in the
    vocabulary, so nothing is unknown, and there is no normaliser, so nothing is lost (Qwen2 applies NFC,
    which changes text). The pre-tokenisation is Qwen2's: GPT-2's glues digits together and is weaker on line
    ends.

    ``wordpiece`` is BERT's (Devlin et al. 2019): words are cut at white space, punctuation and around each
    Chinese character, and continued by ``##`` pieces. White space is not kept, and a word with a character
    outside the vocabulary is ``[UNK]``. The characters that are in it are the most frequent ones.

    ``unigram`` is SentencePiece's (Kudo 2018) with spaces written as ``▁`` and no piece across punctuation;
    what has no piece falls back to its bytes, so it takes any text and gives it back exactly too, but for
    the sign ``▁`` itself, which comes back as a space.

    A run of Chinese has no spaces, so for ``bpe`` and ``unigram`` it is one pre-token up to the next
    punctuation, and whole clauses of a corpus would be learnt by heart; ``max_token_length`` ends that at
    five characters and costs English only words that are rare.

    Args:
        texts: any amount; lone surrogates count as U+FFFD.
        vocabulary_size: with the specials ``[PAD] [CLS] [SEP] [MASK] <|endoftext|>``, and ``[UNK]`` for
            ``wordpiece`` and ``unigram``. A small text may give fewer tokens.
        max_token_length: longest token in bytes, of ``bpe`` and ``unigram``.
        max_characters: bounds memory and time (default 20 million; 8 million for ``unigram``): of a larger
            text those pieces of about 4,096 characters are learnt from whose BLAKE2 hashes are the smallest.
        lowercase: of ``wordpiece``: write everything small, as BERT's uncased vocabularies do.
        strip_accents: of ``wordpiece``: write ``é`` as ``e``.

    Raises:
        ConfigError: no such kind, a setting that the kind does not have, or a vocabulary that cannot hold
            the bytes and the special tokens.
        DataError: there is no text.
    """
    train, least, most_characters = _TRAINERS[parse_algorithm(algorithm)]
    if vocabulary_size < least:
        raise ConfigError(
            f"vocabulary_size = {vocabulary_size}: {algorithm} needs at least {least}: "
            f"{_REQUIREMENTS[algorithm]}"
        )
    if max_token_length < 1:
        raise ConfigError(f"max_token_length = {max_token_length}: must be positive")
    if algorithm != "wordpiece" and (lowercase or strip_accents):
        name = "lowercase" if lowercase else "strip_accents"
        raise ConfigError(f"{name} = True: {algorithm} keeps text as it is; wordpiece has this setting")
    sample = sample_texts(texts, max_characters or most_characters)
    if not sample:
        raise DataError("no text to train a tokenizer on")
    return train(sample, _TrainerOptions(vocabulary_size, max_token_length, lowercase, strip_accents))


def parse_algorithm(name: str) -> TokenizerAlgorithm:
    """A kind of tokenizer as it is typed.

    Raises:
        ConfigError: there is no such kind.
    """
    for kind in _TRAINERS:
        if kind == name:
            return kind
    raise ConfigError(f"kind = {name!r}: {suggestion(name, _TRAINERS)}")


def train_byte_bpe(texts: Iterable[str], vocabulary_size: int, *, max_token_length: int = 16) -> Tokenizer:
    """Byte-level BPE by :func:`train_tokenizer`."""
    return train_tokenizer(texts, vocabulary_size, algorithm="bpe", max_token_length=max_token_length)


def _train_bpe(sample: Sequence[str], options: _TrainerOptions) -> Tokenizer:
    backend = tokenizers.Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(BPE_PATTERN), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False, trim_offsets=False),
        ]
    )
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=options.size,
        special_tokens=_to_added_tokens(_special_token_list(), mask_strips_space=True),
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        max_token_length=options.max_bytes,
        min_frequency=2,
        show_progress=False,
    )
    backend.train_from_iterator(sample, trainer)
    return Tokenizer(backend, _tokenizer_settings())


def _train_wordpiece(sample: Sequence[str], options: _TrainerOptions) -> Tokenizer:
    special = _special_token_list(UNK_TOKEN)
    normalizer = normalizers.BertNormalizer(lowercase=options.lowercase, strip_accents=options.strip_accents)
    backend = tokenizers.Tokenizer(models.WordPiece(unk_token=UNK_TOKEN))
    backend.normalizer, backend.pre_tokenizer = normalizer, pre_tokenizers.BertPreTokenizer()
    heads, tails = _word_characters(sample, backend)
    room = max(int((options.size - len(special)) * _ALPHABET_SHARE), 1)
    alphabet, inside = _choose_alphabet(heads, tails, room)
    # The library numbers ## characters as a randomly seeded hash map gives out the words, and breaks ties
    # between merges by number. Handed over as specials they have their numbers before it begins.
    continued = [f"##{c}" for c in inside]
    trainer = trainers.WordPieceTrainer(
        vocab_size=options.size,
        special_tokens=[*special, *continued],
        initial_alphabet=alphabet,
        limit_alphabet=len(alphabet),
        continuing_subword_prefix="##",
        min_frequency=2,
        show_progress=False,
    )
    backend.train_from_iterator(sample, trainer)
    learnt = sorted(backend.get_vocab(with_added_tokens=True).items(), key=lambda item: item[1])
    first = [*special, *alphabet, *continued]
    rest = dict.fromkeys([*first, *(token for token, _ in learnt)])
    vocabulary = {token: id for id, token in enumerate(rest)}
    fresh = tokenizers.Tokenizer(models.WordPiece(vocabulary, unk_token=UNK_TOKEN))
    fresh.normalizer, fresh.pre_tokenizer = normalizer, pre_tokenizers.BertPreTokenizer()
    fresh.decoder = decoders.WordPiece()
    fresh.add_special_tokens(_to_added_tokens(special, mask_strips_space=False))
    names = {"do_lower_case": options.lowercase, "strip_accents": options.strip_accents}
    return Tokenizer(
        fresh, {**_tokenizer_settings(), "unk_token": UNK_TOKEN, **names, "tokenize_chinese_chars": True}
    )


def _word_characters(
    sample: Sequence[str], backend: tokenizers.Tokenizer
) -> tuple[Counter[str], Counter[str]]:
    """How often each character starts a word of ``sample``, and how often it continues one."""
    assert backend.normalizer is not None
    assert backend.pre_tokenizer is not None
    heads, tails = np.zeros(0x110000, np.int64), np.zeros(0x110000, np.int64)
    separator: dict[int, bool] = {}
    for block in _iter_blocks(sample, 1 << 20):
        codes = np.frombuffer(backend.normalizer.normalize_str(f" {block} ").encode("utf-32-le"), np.uint32)
        distinct, index = np.unique(codes, return_inverse=True)
        for code in distinct.tolist():
            if code not in separator:  # asked, so that Unicode is as the library has it
                separator[code] = len(backend.pre_tokenizer.pre_tokenize_str(f"a{chr(code)}a")) > 1
        separates = np.array([separator[code] for code in distinct.tolist()])[index]
        head = np.concatenate([[True], separates[:-1]]) | separates
        heads += np.bincount(codes[head], minlength=len(heads))
        tails += np.bincount(codes[~head], minlength=len(tails))
    return _to_counter(heads), _to_counter(tails)


def _to_counter(counts: np.ndarray[tuple[int], np.dtype[np.int64]]) -> Counter[str]:
    return Counter({chr(c): int(counts[c]) for c in np.flatnonzero(counts).tolist() if not chr(c).isspace()})


def _iter_blocks(texts: Sequence[str], characters: int) -> Iterator[str]:
    block: list[str] = []
    size = 0
    for text in texts:
        block.append(text)
        size += len(text)
        if size >= characters:
            yield "\n".join(block)
            block, size = [], 0
    if block:
        yield "\n".join(block)


def _choose_alphabet(
    starting: Counter[str], continuing: Counter[str], room: int
) -> tuple[list[str], list[str]]:
    """The characters that fit into ``room``, the most frequent ones, and those that continue words as well.

    ASCII comes first where a quarter of the room holds it: novels may lack a digit that a later text has.
    """
    inside = set(continuing)
    first: set[str] = set()
    if 8 * len(_ASCII) <= room:
        first.update(_ASCII)
        inside.update(c for c in _ASCII if c.isalnum())
    counts = starting + continuing
    chosen = []
    for character in sorted(first | set(counts), key=lambda c: (c not in first, -counts[c], c)):
        room -= 2 if character in inside else 1
        if room < 0:
            break
        chosen.append(character)
    return sorted(chosen), sorted(inside.intersection(chosen))


def _train_unigram(sample: Sequence[str], options: _TrainerOptions) -> Tokenizer:
    special = _special_token_list(UNK_TOKEN)
    pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(UNIGRAM_PATTERN), behavior="isolated"),
            pre_tokenizers.Metaspace(prepend_scheme="never", split=False),
        ]
    )
    words: Counter[str] = Counter()
    for text in sample:
        words.update(word for word, _ in pre_tokenizer.pre_tokenize_str(text))
    room = options.size - len(special) - len(BYTE_TOKENS)
    pieces = learn_pieces(words, room, max_bytes=options.max_bytes) if room else []
    # Bytes are spelt like text, but no text is read as one: a pre-token never holds "<" and a letter.
    vocabulary = [*((token, 0.0) for token in (*special, *BYTE_TOKENS)), *pieces]
    backend = tokenizers.Tokenizer(models.Unigram(vocabulary, special.index(UNK_TOKEN), byte_fallback=True))
    backend.pre_tokenizer = pre_tokenizer
    backend.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
    )
    backend.add_special_tokens(_to_added_tokens(special, mask_strips_space=True))
    return Tokenizer(backend, {**_tokenizer_settings(), "unk_token": UNK_TOKEN})


def _special_token_list(*more: str) -> list[str]:
    """The special tokens, which have the first ids; ``[UNK]`` is the second, as in BERT."""
    first, *others = dict.fromkeys(SPECIAL_TOKENS.values())
    return [first, *more, *others]


def _to_added_tokens(
    special_tokens: Sequence[str], *, mask_strips_space: bool
) -> list[tokenizers.AddedToken]:
    """As added tokens; ``mask_strips_space``: the mask takes the space before it, as "the [MASK]" hides
    " king".
    """
    mask = SPECIAL_TOKENS["mask_token"]
    return [
        tokenizers.AddedToken(t, lstrip=mask_strips_space and t == mask, special=True, normalized=False)
        for t in special_tokens
    ]


def _tokenizer_settings() -> dict[str, object]:
    return {**SPECIAL_TOKENS, "clean_up_tokenization_spaces": False}


_TRAINERS: dict[
    TokenizerAlgorithm, tuple[Callable[[Sequence[str], _TrainerOptions], Tokenizer], int, int]
] = {
    "bpe": (_train_bpe, len(BYTE_TOKENS) + len(_special_token_list()), 20_000_000),
    "wordpiece": (_train_wordpiece, 2 * len(_special_token_list(UNK_TOKEN)), 20_000_000),
    "unigram": (_train_unigram, len(BYTE_TOKENS) + len(_special_token_list(UNK_TOKEN)), 8_000_000),
}
"""Kind to (trainer, least vocabulary, characters of a sample)."""
_REQUIREMENTS = {
    "bpe": "256 bytes and specials",
    "wordpiece": "specials and a few characters",
    "unigram": "256 bytes and specials",
}
