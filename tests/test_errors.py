"""Messages repeat what they were handed, cut to a length that can be read."""

from __future__ import annotations

import pickle

import pytest

from pretune.errors import MAX_LINE_LENGTH, MAX_LINES, DataError, PretuneError, quote


@pytest.mark.parametrize("value", ["a", "it's", 5, None, 1.5, ["a", 1], {"a": (1, 2)}, -3, True, b"x"])
def test_a_short_value_is_quoted_as_python_writes_it(value: object) -> None:
    assert quote(value) == repr(value)


LONG: dict[str, object] = {
    "text": "x" * 10**6,
    "texts": ["x" * 1000] * 1000,
    "tree": {"k" * 500: {"v": ["w" * 500] * 99}},
    "number": 10**5000,
    "negative number": -(10**5000),
    "bytes": b"y" * 10**6,
}


@pytest.mark.parametrize("kind", LONG)
def test_a_long_value_is_cut(kind: str) -> None:
    assert len(quote(LONG[kind])) < 200


def test_a_deep_value_is_cut() -> None:
    deep: list[object] = []
    for _ in range(100_000):
        deep = [deep]
    assert len(quote(deep)) < 200


def test_no_message_is_longer_than_can_be_read() -> None:
    assert len(str(DataError("a" * 10**6))) <= MAX_LINE_LENGTH + 10
    assert str(DataError("\n".join("abc"))) == "a\nb\nc"
    many = str(DataError("\n" * 10**5))
    assert many.count("\n") == MAX_LINES
    kept = str(DataError("start " + "x" * 10**6 + " end"))
    assert kept.startswith("start ")
    assert kept.endswith(" end")


def test_a_message_steers_no_terminal_and_can_be_written() -> None:
    said = str(DataError("a\x1b[31m\x00\ud800\t人\n"))
    assert said == "a\\x1b[31m\\x00\\ud800\t人\n"
    said.encode()


def test_an_error_travels_between_processes() -> None:
    error = pickle.loads(pickle.dumps(DataError("x" * 10**5)))
    assert isinstance(error, PretuneError)
    assert len(str(error)) <= MAX_LINE_LENGTH + 10
