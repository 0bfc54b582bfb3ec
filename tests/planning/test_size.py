"""A longer time or more text allows a larger model; what cannot be afforded is not even measured."""

from __future__ import annotations

from collections.abc import Iterator

from pretune.planning import size

PARAMETERS = (400_000, 1_300_000, 3_200_000, 10_600_000, 25_000_000)
SPEEDS = (20_000.0, 9_000.0, 5_000.0, 1_500.0, 700.0)


def trials(drawn: list[size.Shape]) -> Iterator[size.ShapeTrial]:
    for shape, parameters, speed in zip(size.SHAPES, PARAMETERS, SPEEDS, strict=True):
        drawn.append(shape)
        yield size.ShapeTrial(shape, parameters, speed)


def chosen(seconds: float, corpus_tokens: int = 10**9) -> size.Shape:
    return size.choose_shape(trials([]), seconds, corpus_tokens).shape


def test_a_longer_time_never_gives_a_smaller_model() -> None:
    widths = [chosen(minutes * 60).hidden_size for minutes in (0.2, 1, 3, 10, 60, 600, 6000)]
    assert widths == sorted(widths)
    assert widths[0] == size.SHAPES[0].hidden_size
    assert widths[-1] == size.SHAPES[-1].hidden_size


def test_a_model_that_reads_its_own_size_in_text_is_taken() -> None:
    seconds = size.MIN_TOKENS_PER_PARAMETER * PARAMETERS[1] / SPEEDS[1]
    assert chosen(seconds * 1.01) == size.SHAPES[1]
    assert chosen(seconds * 0.99) == size.SHAPES[0]


def test_little_text_bounds_the_size_however_long_the_time() -> None:
    assert chosen(10**7, corpus_tokens=100_000) == size.SHAPES[0]


def test_no_shape_is_tried_beyond_the_first_that_does_not_fit() -> None:
    drawn: list[size.Shape] = []
    size.choose_shape(trials(drawn), 1.0, 10**9)
    assert drawn == list(size.SHAPES[:2])
