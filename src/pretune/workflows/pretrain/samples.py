"""What a language model writes: masks filled and sentences continued, of text that it has not read."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from pretune.data.corpus.build import TokenizedCorpus
from pretune.data.corpus.token_shards import Corpus
from pretune.errors import UsageError
from pretune.generation.sampling import Sampling
from pretune.model.model import Model
from pretune.text.segmentation import SENTENCE_START
from pretune.text.tokenizer import Tokenizer

GREEDY = Sampling(temperature=0)


@dataclass(frozen=True, slots=True)
class Sample:
    """A prompt, what the model made of it, and what follows the gap that it filled."""

    prompt: str
    output: str
    suffix: str = ""
    alternatives: tuple[tuple[str, float], ...] = ()
    reference: str = ""
    """The word that was hidden, or the target that is to be written."""
    reference_phrase: str = "hidden_word"
    """The phrase that introduces the truth."""


def select_prompts(text: TokenizedCorpus, model: Model, count: int) -> Sequence[str | tuple[str, ...]]:
    """What a model can show itself by, of held-out text: sentences, or sources with their targets."""
    corpus, tokenizer = text.validation, text.tokenizer
    if len(text.columns) == 1:
        return select_sentences(corpus, tokenizer, count, model.max_length)
    chosen = np.unique(np.linspace(0, len(corpus) - 1, count).astype(int)).tolist()
    pairs = [text.split_pair(corpus.document(number)) for number in chosen]
    return [tuple(tokenizer.decode(ids.tolist()).strip() for ids in pair) for pair in pairs]


def select_sentences(corpus: Corpus, tokenizer: Tokenizer, count: int, max_length: int) -> list[str]:
    """Sentences from all over a corpus, neither tiny nor too long for the model."""
    longest = min(40, max_length - 8)  # the frame, and a gap that may be encoded in more tokens than before
    shortest = min(12, longest // 2)
    chosen = np.unique(np.linspace(0, len(corpus) - 1, count).astype(int)).tolist()
    each = -(-count // len(chosen))
    found: list[str] = []
    for number in chosen:
        ids, flags = corpus.document(number), corpus.word_starts(number)
        starts = np.append(np.flatnonzero(flags & SENTENCE_START), len(ids))
        fit = [
            tokenizer.decode(ids[start:end].tolist()).strip()
            for start, end in itertools.pairwise(starts)
            if shortest <= end - start <= longest
        ]
        candidates = [text for text in dict.fromkeys(fit) if "\n" not in text and text not in found]
        found += candidates[:: max(1, len(candidates) // each)][:each]
    return found[:count]


def generate_samples(model: Model, texts: Sequence[str | tuple[str, ...]]) -> list[Sample]:
    """One sample each: what is hidden in the middle filled in, a first half continued, a target written."""
    objective = str(model.metadata.get("objective", model.head)).split("+")[0]
    sampler = SAMPLERS.get(objective, _continue_text)
    found = []
    for text in texts:
        # Encoded anew on both sides of the mask, a sentence may have grown longer than the model reads.
        with contextlib.suppress(UsageError):
            found.append(sampler(model, text) if isinstance(text, str) else sampler(model, *text))
    return found


def _fill_mask(model: Model, text: str) -> Sample:
    """The word (of letters, in one token) nearest to the middle is hidden."""
    tokenizer = model.tokenizer
    ids = tokenizer.encode(text).ids.tolist()
    words = [k for k, token in enumerate(ids) if tokenizer.decode([token]).strip().isalpha()]
    gap = min(words, key=lambda k: abs(k - len(ids) // 2), default=len(ids) // 2)
    before, after = tokenizer.decode(ids[:gap]), tokenizer.decode(ids[gap + 1 :])
    mask = tokenizer.id_to_token(tokenizer.specials.mask_id or 0)
    guesses = model.fill(before + mask + after)[0]
    alternatives = tuple((g.token.strip() or g.token, g.probability) for g in guesses)
    return Sample(before, guesses[0].token, after, alternatives, tokenizer.decode([ids[gap]]).strip())


def _fill_span(model: Model, text: str) -> Sample:
    """The span of tokens in the middle that a sentinel stands for is written."""
    before, hidden, after = _split_middle(model.tokenizer, text)
    marked = before + model.tokenizer.id_to_token(model.tokenizer.specials.sentinel_ids[0]) + after
    return Sample(before, model.generate(marked, max_new_tokens=12, sampling=GREEDY), after, reference=hidden)


def _denoise(model: Model, text: str) -> Sample:
    """The whole sentence is written anew, of one whose middle is masked."""
    before, hidden, after = _split_middle(model.tokenizer, text)
    marked = before + model.tokenizer.id_to_token(model.tokenizer.specials.mask_id or 0) + after
    output = model.generate(marked, max_new_tokens=60, sampling=GREEDY)
    return Sample(f"{marked} → ", output, reference=hidden)


def _split_middle(tokenizer: Tokenizer, text: str) -> tuple[str, str, str]:
    """A text as what stands before its three tokens in the middle, these, and what stands behind."""
    ids = tokenizer.encode(text).ids.tolist()
    start = max(0, len(ids) // 2 - 1)
    slices = (ids[:start], ids[start : start + 3], ids[start + 3 :])
    before, hidden, after = (tokenizer.decode(ids_slice) for ids_slice in slices)
    return before, hidden, after


def _generate_target(model: Model, source: str, target: str) -> Sample:
    """The target of a source, as the model writes it."""
    output = model.generate(source, max_new_tokens=60, sampling=GREEDY, split_special_tokens=True)
    return Sample(f"{source} → ", output, reference=target, reference_phrase="true_target")


def _continue_text(model: Model, text: str) -> Sample:
    tokenizer = model.tokenizer
    ids = tokenizer.encode(text).ids.tolist()
    prompt = tokenizer.decode(ids[: max(4, len(ids) // 2)])
    sampling = Sampling(temperature=0.7, top_k=40, top_p=0.95)
    return Sample(
        prompt, model.generate(prompt, max_new_tokens=40, sampling=sampling, split_special_tokens=True)
    )


SAMPLERS: dict[str, Callable[..., Sample]] = {
    "masked_lm": _fill_mask, "permutation_lm": _fill_mask, "span_corruption": _fill_span, "denoising":
    _denoise,
    "sequence_to_sequence": _generate_target,
}  # fmt: skip
"""How a model shows what it learnt, by the objective that it was pretrained by; others continue a text."""
