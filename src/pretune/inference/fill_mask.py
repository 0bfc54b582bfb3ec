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
from pretune.inference.batching import logits_of
from pretune.objectives.masked_lm import HEAD
from pretune.text.streaming import TextStream
from pretune.text.tokenizer import Tokenizer, well_formed
from pretune.types import BoolArray, IntArray, framed

TOP_K = 5
MOST_PIECES = 4
"""Tokens of the longest word that ``whole_words`` looks for."""
WIDEST = 1024
"""Fillings that a joint search follows at most: each holds a row of logits over the vocabulary."""
BEAM = 16
"""Fillings that are followed at once, where more than one token is looked for."""


@dataclass(frozen=True, slots=True)
class Filled:
    """A token (or several) for a mask, with its probability, and the whole text."""

    token: str
    """As it stands in the text; one that brings its space along begins with it."""
    probability: float
    """Of several tokens: a token, that is, the geometric mean. Of a joint filling: of all masks together."""
    text: str
    ids: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Gaps:
    """A text with its masks found."""

    text: str
    ids: IntArray
    """(T,) without the frame"""
    places: tuple[int, ...]
    """Of the masks in ``ids``."""
    spans: tuple[tuple[int, int], ...]
    """Characters [start, end) of each mask."""


@dataclass(frozen=True)
class Masks:
    """A masked network with its tokenizer, asked about chosen places."""

    network: nn.Module
    tokenizer: Tokenizer
    max_length: int
    head: str = HEAD

    def read(self, text: str) -> Gaps:
        """Find the masks of a text.

        Raises:
            UsageError: there is none, or the text is too long.
        """
        specials, text = self.tokenizer.specials, well_formed(text)
        encoded = self.tokenizer.encode(text, parse_specials=True)
        places = np.flatnonzero(encoded.ids == specials.mask)
        if specials.mask is None or not len(places):
            mask = None if specials.mask is None else self.tokenizer.token(specials.mask)
            raise UsageError(f"the text holds no {mask}: put one where a token is to be filled in")
        self._check_length(encoded.ids)
        spans = tuple((int(start), int(end)) for start, end in encoded.offsets[places])
        return Gaps(text, encoded.ids, tuple(places.tolist()), spans)

    def logs(self, rows: Sequence[tuple[IntArray, Sequence[int]]]) -> list[Tensor]:
        """Log-probabilities (n, V) of all tokens at the places of each row of ids; -inf for special ones."""
        specials = self.tokenizer.specials
        shift = len(specials.single[0])
        for ids, _ in rows:
            self._check_length(ids)
        framed_rows = [(framed(specials, (ids,))[0], np.array(places) + shift) for ids, places in rows]
        found = logits_of(self.network, self.head, framed_rows, specials)
        return [self._of_tokens(logits.log_softmax(-1)) for logits in found]

    def chain(
        self, ids: IntArray, places: Sequence[int], width: int, allowed: Sequence[Tensor | None]
    ) -> list[tuple[float, tuple[int, ...]]]:
        """The likeliest fillings of masked places, left to right, each place seen with those before it.

        Args:
            allowed: for each place (V,) 0 for tokens that may stand there, -inf for others; None: all may.

        Returns:
            (log-probability, tokens), best first, ``width`` at most.
        """
        beams: list[tuple[float, tuple[int, ...]]] = [(0.0, ())]
        for number, place in enumerate(places):
            rows = []
            for _, chosen in beams:
                row = ids.copy()
                row[list(places[:number])] = chosen
                rows.append((row, (place,)))
            sums = torch.cat(self.logs(rows)) + torch.tensor([log for log, _ in beams])[:, None]  # (K, V)
            if (allow := allowed[number]) is not None:
                sums = sums + F.pad(allow, (0, sums.shape[1] - len(allow)), value=-torch.inf)
            values, flat = sums.flatten().topk(min(width, sums.numel()))
            beams = [
                (value, (*beams[where // sums.shape[1]][1], where % sums.shape[1]))
                for value, where in zip(values.tolist(), flat.tolist(), strict=True)
                if value > -math.inf
            ]
        return beams

    def written(self, gaps: Gaps, number: int, ids: Sequence[int], row: IntArray) -> tuple[str, str]:
        """The text of a filling of mask ``number``, and the whole text with it.

        Args:
            row: the ids before and after the mask are taken from it.
        """
        start, end = gaps.spans[number]
        left, right = gaps.text[:start], gaps.text[end:]
        if self.tokenizer.spaces_in_tokens:
            stream = TextStream(self.tokenizer, row[: gaps.places[number]][-8:].tolist())
            word = "".join(map(stream.push, ids)) + stream.end()
            return word, left + word + right
        word = self.tokenizer.decode(list(ids))
        if word.startswith("##"):
            return word, left.rstrip() + word.removeprefix("##") + right
        eaten = gaps.text[start:end]  # a mask may take the space before it along
        return word, left + eaten[: len(eaten) - len(eaten.lstrip())] + word + right

    @cached_property
    def spaced(self) -> BoolArray:
        """(V,) does a token begin with a space?"""
        found = np.zeros(self.tokenizer.vocabulary_size, bool)
        for id in range(len(found)):
            found[id] = self.tokenizer.token(id)[:1] == "▁" or self.tokenizer.decode([id])[:1] == " "
        return found

    @cached_property
    def continuing(self) -> BoolArray:
        """(V,) may a token stand within a word, behind its first?"""
        tokenizer = self.tokenizer
        inside = np.zeros(tokenizer.vocabulary_size, bool)
        for id in range(tokenizer.vocabulary_size):
            token = tokenizer.token(id)
            if tokenizer.spaces_in_tokens:  # half a character is U+FFFD; "▁" and "Ġ" are spaces
                text = tokenizer.decode([id]).replace("\ufffd", "x")
                inside[id] = text.isalnum() and not token.startswith("▁")
            else:
                inside[id] = token.startswith("##")
        return inside

    def _of_tokens(self, logs: Tensor) -> Tensor:
        specials = self.tokenizer.specials
        logs[:, list(specials.all)] = -torch.inf
        logs[:, specials.vocabulary_size :] = -torch.inf  # a network may be wider than its vocabulary
        return logs

    def _check_length(self, ids: IntArray) -> None:
        size = len(ids) + sum(map(len, self.tokenizer.specials.single))
        if size > self.max_length:
            raise UsageError(f"the text is {size} tokens long, the model reads {self.max_length}")


def fill(
    masks: Masks,
    text: str,
    top_k: int | None = None,
    *,
    targets: Sequence[str] = (),
    joint: bool = False,
    whole_words: bool = False,
) -> list[list[Filled]]:
    """For each mask in ``text``, what may stand there, best first: see `Model.fill`."""
    if (bool(targets) + joint + whole_words) > 1:
        raise UsageError("targets, joint and whole_words exclude each other; give one of them")
    if top_k is not None and not 1 <= top_k <= (WIDEST if joint else top_k):
        raise UsageError(f"top_k = {top_k}: must be 1 or more" + f", and {WIDEST} at most for joint" * joint)
    gaps = masks.read(text)
    count = top_k or (len(targets) if targets else TOP_K)
    if joint:
        return _jointly(masks, gaps, count)
    if targets:
        return [_targets(masks, gaps, number, targets)[:count] for number in range(len(gaps.places))]
    if whole_words:
        return [_words(masks, gaps, number)[:count] for number in range(len(gaps.places))]
    return _singly(masks, gaps, count)


def _singly(masks: Masks, gaps: Gaps, count: int) -> list[list[Filled]]:
    """One token a mask, the other masks left as they are."""
    logs = masks.logs([(gaps.ids, gaps.places)])[0]  # (n, V)
    most = logs.shape[1] - len(masks.tokenizer.specials.all)
    shares, best = logs.exp().topk(min(count, most), -1)
    return [
        [_filled(masks, gaps, number, (id,), share) for id, share in zip(ids, row, strict=True)]
        for number, (ids, row) in enumerate(zip(best.tolist(), shares.tolist(), strict=True))
    ]


def _filled(masks: Masks, gaps: Gaps, number: int, ids: tuple[int, ...], share: float) -> Filled:
    word, whole = masks.written(gaps, number, ids, gaps.ids)
    return Filled(word, share, whole, ids)


def _jointly(masks: Masks, gaps: Gaps, count: int) -> list[list[Filled]]:
    """Guess i of each mask belongs to filling i of the text."""
    beams = masks.chain(gaps.ids, gaps.places, max(count, BEAM), [None] * len(gaps.places))[:count]
    found: list[list[Filled]] = [[] for _ in gaps.places]
    for log, chosen in beams:
        row = gaps.ids.copy()
        row[list(gaps.places)] = chosen
        words: list[str] = [""] * len(chosen)
        whole = gaps
        for number in reversed(range(len(chosen))):  # from the right, so that the spans on the left stay
            words[number], text = masks.written(whole, number, (chosen[number],), row)
            whole = Gaps(text, gaps.ids, gaps.places, gaps.spans)
        for number, word in enumerate(words):
            found[number].append(Filled(word, math.exp(log), whole.text, (chosen[number],)))
    return found


def _targets(masks: Masks, gaps: Gaps, number: int, targets: Sequence[str]) -> list[Filled]:
    found = []
    for target in dict.fromkeys(map(well_formed, targets)):
        ids = _target_ids(masks.tokenizer, gaps, number, target)
        row, places = _widened(gaps, number, len(ids), masks)
        allowed: list[Tensor | None] = [_only(masks, [id]) for id in ids]
        chain = masks.chain(row, places, 1, allowed)
        log = chain[0][0] if chain else -math.inf
        found.append(_filled(masks, gaps, number, ids, math.exp(log / len(ids))))
    return sorted(found, key=lambda guess: -guess.probability)


def _target_ids(tokenizer: Tokenizer, gaps: Gaps, number: int, target: str) -> tuple[int, ...]:
    """The tokens of a target where it stands in the text.

    Raises:
        UsageError: the vocabulary has no tokens for it.
    """
    known = tokenizer.id(target)
    if known is not None and not tokenizer.spaces_in_tokens:
        return (known,)
    start, end = gaps.spans[number]
    eaten = gaps.text[start:end]
    space = eaten[: len(eaten) - len(eaten.lstrip())]
    whole = tokenizer.encode(
        gaps.text[:start] + space + target.strip() + gaps.text[end:], parse_specials=True
    )
    place, rest = gaps.places[number], len(gaps.ids) - gaps.places[number] - 1
    ids = whole.ids[place : len(whole.ids) - rest]
    alike = np.array_equal(whole.ids[:place], gaps.ids[:place]) and np.array_equal(
        whole.ids[len(whole.ids) - rest :], gaps.ids[place + 1 :]
    )
    if not alike:  # it would melt with its neighbours
        ids = tokenizer.encode(space + target.strip()).ids
    if not target.strip() or not len(ids) or tokenizer.specials.unknown in ids.tolist():
        raise UsageError(f"target {quote(target)}: the vocabulary has no tokens for it; leave it out")
    return tuple(ids.tolist())


def _words(masks: Masks, gaps: Gaps, number: int) -> list[Filled]:
    """Words of one to ``MOST_PIECES`` tokens, compared by their probability a token.

    Each token is seen with those of its word before it, none behind it, so that a long word does not give
    itself away (Kauf and Ivanova 2023). Words that the tokenizer would cut otherwise are no candidates.
    """
    later = _open(masks.continuing)
    start, end = gaps.spans[number]
    first = ~masks.continuing
    if masks.tokenizer.spaces_in_tokens:  # a mask that took a space along stands for a token that brings it
        spaced = gaps.text[start:end][:1].isspace()
        first = masks.spaced == spaced if start else first | True
    found: dict[tuple[int, ...], Filled] = {}
    for pieces in range(1, MOST_PIECES + 1):
        row, places = _widened(gaps, number, pieces, masks)
        allowed = [_open(first), *[later] * (pieces - 1)]
        for log, ids in masks.chain(row, places, 4 * BEAM, allowed):
            guess = _filled(masks, gaps, number, ids, math.exp(log / pieces))
            if _is_word(masks.tokenizer, gaps, number, guess):
                found[ids] = guess
    return sorted(found.values(), key=lambda guess: -guess.probability)


def _is_word(tokenizer: Tokenizer, gaps: Gaps, number: int, guess: Filled) -> bool:
    word = guess.token.strip(" ")
    if (
        len(word.split()) != 1
        or word != word.strip()
        or "\ufffd" in word
        or (len(guess.ids) > 1 and not word.isalnum())
    ):
        return False
    expected = [*gaps.ids[: gaps.places[number]].tolist(), *guess.ids]
    ids = tokenizer.encode(guess.text, parse_specials=True).ids
    # Not what follows: some vocabularies begin anew behind a special token, and so behind the mask.
    return bool(np.array_equal(ids[: len(expected)], expected))


def _widened(gaps: Gaps, number: int, pieces: int, masks: Masks) -> tuple[IntArray, list[int]]:
    """The ids with mask ``number`` repeated, and where its masks are."""
    place = gaps.places[number]
    row = np.concatenate([gaps.ids[:place], np.repeat(gaps.ids[place], pieces), gaps.ids[place + 1 :]])
    return row, list(range(place, place + pieces))


def _open(allowed: BoolArray) -> Tensor:
    return torch.where(torch.from_numpy(allowed), 0.0, -torch.inf)


def _only(masks: Masks, ids: Sequence[int]) -> Tensor:
    allowed = torch.full((masks.tokenizer.vocabulary_size,), -torch.inf)
    allowed[list(ids)] = 0.0
    return allowed
