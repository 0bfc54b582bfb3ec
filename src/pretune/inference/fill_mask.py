"""What a masked model puts into the gaps of a text."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pretune.errors import UsageError, quote
from pretune.inference.batching import iter_logits
from pretune.objectives.masked_lm import HEAD
from pretune.text.streaming import DecodeStream
from pretune.text.tokenizer import Tokenizer, replace_surrogates
from pretune.types import BoolArray, IntArray, add_special_tokens

DEFAULT_TOP_K = 5
MAX_WORD_TOKENS = 4
"""Tokens of the longest word that ``whole_words`` looks for."""
MAX_BEAM_SIZE = 1024
"""Fillings that a joint search follows at most: each holds a row of logits over the vocabulary."""
BEAM_SIZE = 16
"""Fillings that are followed at once, where more than one token is looked for."""


@dataclass(frozen=True, slots=True)
class MaskPrediction:
    """A token (or several) for a mask, with its probability, and the whole text."""

    token: str
    """As it stands in the text; one that brings its space along begins with it."""
    probability: float
    """Of several tokens: a token, that is, the geometric mean. Of a joint filling: of all masks together."""
    text: str
    ids: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class MaskedText:
    """A text with its masks found."""

    text: str
    ids: IntArray
    """(T,) without the frame"""
    mask_positions: tuple[int, ...]
    """Of the masks in ``ids``."""
    mask_spans: tuple[tuple[int, int], ...]
    """Characters [start, end) of each mask."""


@dataclass(frozen=True)
class MaskFiller:
    """A masked network with its tokenizer, asked about chosen places."""

    network: nn.Module
    tokenizer: Tokenizer
    max_length: int
    head: str = HEAD

    def find_masks(self, text: str) -> MaskedText:
        """Find the masks of a text.

        Raises:
            UsageError: there is none, or the text is too long.
        """
        specials, text = self.tokenizer.specials, replace_surrogates(text)
        encoded = self.tokenizer.encode(text, parse_specials=True)
        mask_positions = np.flatnonzero(encoded.ids == specials.mask_id)
        if specials.mask_id is None or not len(mask_positions):
            mask = None if specials.mask_id is None else self.tokenizer.id_to_token(specials.mask_id)
            raise UsageError(f"the text holds no {mask}: put one where a token is to be filled in")
        self._check_length(encoded.ids)
        spans = tuple((int(start), int(end)) for start, end in encoded.offsets[mask_positions])
        return MaskedText(text, encoded.ids, tuple(mask_positions.tolist()), spans)

    def log_probabilities(self, rows: Sequence[tuple[IntArray, Sequence[int]]]) -> list[Tensor]:
        """Log-probabilities (n, V) of all tokens at the places of each row of ids; -inf for special ones."""
        specials = self.tokenizer.specials
        shift = len(specials.single[0])
        for ids, _ in rows:
            self._check_length(ids)
        model_rows = [
            (add_special_tokens(specials, (ids,))[0], np.array(positions) + shift) for ids, positions in rows
        ]
        found = iter_logits(self.network, self.head, model_rows, specials)
        return [self._exclude_special_tokens(logits.log_softmax(-1)) for logits in found]

    def beam_search(
        self, ids: IntArray, mask_positions: Sequence[int], beam_size: int, allowed: Sequence[Tensor | None]
    ) -> list[tuple[float, tuple[int, ...]]]:
        """The likeliest fillings of masked places, left to right, each place seen with those before it.

        Args:
            allowed: for each place (V,) 0 for tokens that may stand there, -inf for others; None: all may.

        Returns:
            (log-probability, tokens), best first, ``beam_size`` at most.
        """
        beams: list[tuple[float, tuple[int, ...]]] = [(0.0, ())]
        for number, mask_position in enumerate(mask_positions):
            rows = []
            for _, chosen in beams:
                row = ids.copy()
                row[list(mask_positions[:number])] = chosen
                rows.append((row, (mask_position,)))
            sums = (
                torch.cat(self.log_probabilities(rows)) + torch.tensor([log for log, _ in beams])[:, None]
            )  # (K, V)
            if (allow := allowed[number]) is not None:
                sums = sums + F.pad(allow, (0, sums.shape[1] - len(allow)), value=-torch.inf)
            values, flat = sums.flatten().topk(min(beam_size, sums.numel()))
            beams = [
                (value, (*beams[index // sums.shape[1]][1], index % sums.shape[1]))
                for value, index in zip(values.tolist(), flat.tolist(), strict=True)
                if value > -math.inf
            ]
        return beams

    def render(
        self, masked_text: MaskedText, mask_index: int, ids: Sequence[int], row: IntArray
    ) -> tuple[str, str]:
        """The text of a filling of mask ``mask_index``, and the whole text with it.

        Args:
            row: the ids before and after the mask are taken from it.
        """
        start, end = masked_text.mask_spans[mask_index]
        left, right = masked_text.text[:start], masked_text.text[end:]
        if self.tokenizer.has_spaces_in_tokens:
            stream = DecodeStream(self.tokenizer, row[: masked_text.mask_positions[mask_index]][-8:].tolist())
            word = "".join(map(stream.push, ids)) + stream.flush()
            return word, left + word + right
        word = self.tokenizer.decode(list(ids))
        if word.startswith("##"):
            return word, left.rstrip() + word.removeprefix("##") + right
        mask_span_text = masked_text.text[start:end]  # a mask may take the space before it along
        return word, left + mask_span_text[
            : len(mask_span_text) - len(mask_span_text.lstrip())
        ] + word + right

    @cached_property
    def starts_with_space(self) -> BoolArray:
        """(V,) does a token begin with a space?"""
        flags = np.zeros(self.tokenizer.vocabulary_size, bool)
        for id in range(len(flags)):
            flags[id] = self.tokenizer.id_to_token(id)[:1] == "▁" or self.tokenizer.decode([id])[:1] == " "
        return flags

    @cached_property
    def continues_word(self) -> BoolArray:
        """(V,) may a token stand within a word, behind its first?"""
        tokenizer = self.tokenizer
        flags = np.zeros(tokenizer.vocabulary_size, bool)
        for id in range(tokenizer.vocabulary_size):
            token = tokenizer.id_to_token(id)
            if tokenizer.has_spaces_in_tokens:  # half a character is U+FFFD; "▁" and "Ġ" are spaces
                text = tokenizer.decode([id]).replace("\ufffd", "x")
                flags[id] = text.isalnum() and not token.startswith("▁")
            else:
                flags[id] = token.startswith("##")
        return flags

    def _exclude_special_tokens(self, log_probabilities: Tensor) -> Tensor:
        specials = self.tokenizer.specials
        log_probabilities[:, list(specials.all_ids)] = -torch.inf
        log_probabilities[
            :, specials.vocabulary_size :
        ] = -torch.inf  # a network may be wider than its vocabulary
        return log_probabilities

    def _check_length(self, ids: IntArray) -> None:
        size = len(ids) + sum(map(len, self.tokenizer.specials.single))
        if size > self.max_length:
            raise UsageError(f"the text is {size} tokens long, the model reads {self.max_length}")


def fill_masks(
    filler: MaskFiller,
    text: str,
    top_k: int | None = None,
    *,
    targets: Sequence[str] = (),
    joint: bool = False,
    whole_words: bool = False,
) -> list[list[MaskPrediction]]:
    """For each mask in ``text``, what may stand there, best first: see `Model.fill`."""
    if (bool(targets) + joint + whole_words) > 1:
        raise UsageError("targets, joint and whole_words exclude each other; give one of them")
    if top_k is not None and not 1 <= top_k <= (MAX_BEAM_SIZE if joint else top_k):
        raise UsageError(
            f"top_k = {top_k}: must be 1 or more" + f", and {MAX_BEAM_SIZE} at most for joint" * joint
        )
    masked_text = filler.find_masks(text)
    count = top_k or (len(targets) if targets else DEFAULT_TOP_K)
    if joint:
        return _fill_jointly(filler, masked_text, count)
    if targets:
        return [
            _score_targets(filler, masked_text, number, targets)[:count]
            for number in range(len(masked_text.mask_positions))
        ]
    if whole_words:
        return [
            _fill_whole_words(filler, masked_text, number)[:count]
            for number in range(len(masked_text.mask_positions))
        ]
    return _fill_independently(filler, masked_text, count)


def _fill_independently(
    filler: MaskFiller, masked_text: MaskedText, count: int
) -> list[list[MaskPrediction]]:
    """One token a mask, the other masks left as they are."""
    log_probabilities = filler.log_probabilities([(masked_text.ids, masked_text.mask_positions)])[0]  # (n, V)
    num_allowed = log_probabilities.shape[1] - len(filler.tokenizer.specials.all_ids)
    probabilities, best = log_probabilities.exp().topk(min(count, num_allowed), -1)
    return [
        [
            _build_prediction(filler, masked_text, number, (id,), probability)
            for id, probability in zip(ids, row, strict=True)
        ]
        for number, (ids, row) in enumerate(zip(best.tolist(), probabilities.tolist(), strict=True))
    ]


def _build_prediction(
    filler: MaskFiller, masked_text: MaskedText, mask_index: int, ids: tuple[int, ...], probability: float
) -> MaskPrediction:
    word, whole = filler.render(masked_text, mask_index, ids, masked_text.ids)
    return MaskPrediction(word, probability, whole, ids)


def _fill_jointly(filler: MaskFiller, masked_text: MaskedText, count: int) -> list[list[MaskPrediction]]:
    """Guess i of each mask belongs to filling i of the text."""
    beams = filler.beam_search(
        masked_text.ids,
        masked_text.mask_positions,
        max(count, BEAM_SIZE),
        [None] * len(masked_text.mask_positions),
    )[:count]
    found: list[list[MaskPrediction]] = [[] for _ in masked_text.mask_positions]
    for log, chosen in beams:
        row = masked_text.ids.copy()
        row[list(masked_text.mask_positions)] = chosen
        words: list[str] = [""] * len(chosen)
        partly_filled = masked_text
        for number in reversed(range(len(chosen))):  # from the right, so that the spans on the left stay
            words[number], text = filler.render(partly_filled, number, (chosen[number],), row)
            partly_filled = MaskedText(
                text, masked_text.ids, masked_text.mask_positions, masked_text.mask_spans
            )
        for number, word in enumerate(words):
            found[number].append(MaskPrediction(word, math.exp(log), partly_filled.text, (chosen[number],)))
    return found


def _score_targets(
    filler: MaskFiller, masked_text: MaskedText, mask_index: int, targets: Sequence[str]
) -> list[MaskPrediction]:
    found = []
    for target in dict.fromkeys(map(replace_surrogates, targets)):
        ids = _target_ids(filler.tokenizer, masked_text, mask_index, target)
        row, positions = _repeat_mask(masked_text, mask_index, len(ids), filler)
        allowed: list[Tensor | None] = [_allow_only(filler, [id]) for id in ids]
        beams = filler.beam_search(row, positions, 1, allowed)
        log = beams[0][0] if beams else -math.inf
        found.append(_build_prediction(filler, masked_text, mask_index, ids, math.exp(log / len(ids))))
    return sorted(found, key=lambda guess: -guess.probability)


def _target_ids(
    tokenizer: Tokenizer, masked_text: MaskedText, mask_index: int, target: str
) -> tuple[int, ...]:
    """The tokens of a target where it stands in the text.

    Raises:
        UsageError: the vocabulary has no tokens for it.
    """
    known = tokenizer.token_to_id(target)
    if known is not None and not tokenizer.has_spaces_in_tokens:
        return (known,)
    start, end = masked_text.mask_spans[mask_index]
    mask_span_text = masked_text.text[start:end]
    space = mask_span_text[: len(mask_span_text) - len(mask_span_text.lstrip())]
    encoded = tokenizer.encode(
        masked_text.text[:start] + space + target.strip() + masked_text.text[end:], parse_specials=True
    )
    position, rest = (
        masked_text.mask_positions[mask_index],
        len(masked_text.ids) - masked_text.mask_positions[mask_index] - 1,
    )
    ids = encoded.ids[position : len(encoded.ids) - rest]
    same_neighbours = np.array_equal(encoded.ids[:position], masked_text.ids[:position]) and np.array_equal(
        encoded.ids[len(encoded.ids) - rest :], masked_text.ids[position + 1 :]
    )
    if not same_neighbours:  # it would melt with its neighbours
        ids = tokenizer.encode(space + target.strip()).ids
    if not target.strip() or not len(ids) or tokenizer.specials.unk_id in ids.tolist():
        raise UsageError(f"target {quote(target)}: the vocabulary has no tokens for it; leave it out")
    return tuple(ids.tolist())


def _fill_whole_words(filler: MaskFiller, masked_text: MaskedText, mask_index: int) -> list[MaskPrediction]:
    """Words of one to ``MAX_WORD_TOKENS`` tokens, compared by their probability a token.

    Each token is seen with those of its word before it, none behind it, so that a long word does not give
    itself away (Kauf and Ivanova 2023). Words that the tokenizer would cut otherwise are no candidates.
    """
    later = _to_additive_mask(filler.continues_word)
    start, end = masked_text.mask_spans[mask_index]
    first = ~filler.continues_word
    if (
        filler.tokenizer.has_spaces_in_tokens
    ):  # a mask that took a space along stands for a token that brings it
        spaced = masked_text.text[start:end][:1].isspace()
        first = filler.starts_with_space == spaced if start else first | True
    found: dict[tuple[int, ...], MaskPrediction] = {}
    for num_tokens in range(1, MAX_WORD_TOKENS + 1):
        row, positions = _repeat_mask(masked_text, mask_index, num_tokens, filler)
        allowed = [_to_additive_mask(first), *[later] * (num_tokens - 1)]
        for log, ids in filler.beam_search(row, positions, 4 * BEAM_SIZE, allowed):
            prediction = _build_prediction(filler, masked_text, mask_index, ids, math.exp(log / num_tokens))
            if _is_word(filler.tokenizer, masked_text, mask_index, prediction):
                found[ids] = prediction
    return sorted(found.values(), key=lambda guess: -guess.probability)


def _is_word(
    tokenizer: Tokenizer, masked_text: MaskedText, mask_index: int, prediction: MaskPrediction
) -> bool:
    word = prediction.token.strip(" ")
    if (
        len(word.split()) != 1
        or word != word.strip()
        or "\ufffd" in word
        or (len(prediction.ids) > 1 and not word.isalnum())
    ):
        return False
    expected = [*masked_text.ids[: masked_text.mask_positions[mask_index]].tolist(), *prediction.ids]
    ids = tokenizer.encode(prediction.text, parse_specials=True).ids
    # Not what follows: some vocabularies begin anew behind a special token, and so behind the mask.
    return bool(np.array_equal(ids[: len(expected)], expected))


def _repeat_mask(
    masked_text: MaskedText, mask_index: int, num_tokens: int, filler: MaskFiller
) -> tuple[IntArray, list[int]]:
    """The ids with mask ``number`` repeated, and where its masks are."""
    position = masked_text.mask_positions[mask_index]
    row = np.concatenate(
        [
            masked_text.ids[:position],
            np.repeat(masked_text.ids[position], num_tokens),
            masked_text.ids[position + 1 :],
        ]
    )
    return row, list(range(position, position + num_tokens))


def _to_additive_mask(allowed: BoolArray) -> Tensor:
    return torch.where(torch.from_numpy(allowed), 0.0, -torch.inf)


def _allow_only(filler: MaskFiller, ids: Sequence[int]) -> Tensor:
    additive_mask = torch.full((filler.tokenizer.vocabulary_size,), -torch.inf)
    additive_mask[list(ids)] = 0.0
    return additive_mask
