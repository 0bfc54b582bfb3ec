"""The statistics of the benchmarks, and what each of them says of itself."""

from __future__ import annotations

import importlib
from pathlib import Path

import pytest

measure = importlib.import_module("benchmarks.measure")
main = importlib.import_module("benchmarks.__main__")


def test_ratios_go_pair_by_pair() -> None:
    # A machine that is half as fast in the second pair is so for both sides.
    found = measure.ratios([20.0, 10.0, 24.0], [10.0, 5.0, 8.0])
    assert (found.median, found.low, found.high, found.n) == (2.0, 2.0, 3.0, 3)


def test_pairs_that_do_not_match_are_refused() -> None:
    with pytest.raises(ValueError, match="zip"):
        measure.ratios([1.0, 2.0], [1.0])


def test_quartiles_of_five() -> None:
    assert measure.spread([5.0, 1.0, 4.0, 2.0, 3.0]).quartiles == (2.0, 4.0)


def test_a_window_leaves_the_warm_up_out() -> None:
    marks = [(0.0, 0), (5.0, 10), (6.0, 110), (7.0, 210)]
    assert measure.window(marks, warm=5.0) == 100.0


def test_a_window_without_steps_is_refused() -> None:
    with pytest.raises(ValueError, match="do not fill"):
        measure.window([(0.0, 0), (1.0, 10)], warm=5.0)


def test_a_window_wants_time_and_steps() -> None:
    few = [(0.0, 0), (50.0, 1)]
    many = [(float(second), second) for second in range(12)]
    assert not measure.full(few, warm=1.0, seconds=10.0)
    assert measure.full(many, warm=1.0, seconds=9.0)
    assert not measure.full(many, warm=1.0, seconds=10.0)


def test_every_file_of_the_folder_says_what_it_is_and_needs() -> None:
    wanted = {
        "masked", "masked-recipes", "causal", "finetune", "finetune-defaults", "peak", "profile", "memory",
        "loading", "growth",
        "time-to-loss", "generation", "checkpoints",
    }  # fmt: skip
    assert set(main.names()) == wanted
    for path in main.CELLS.glob("[a-z]*.py"):
        source = path.read_text(encoding="utf-8")
        assert "\nABOUT = " in source, path
        assert "\nNEEDS = " in source, path
        assert "\ndef run(options: Options) -> dict[str, Any]:" in source, path


def test_words_left_empty_are_not_given() -> None:
    name, options = main.parsed(["masked", "--data", "", "--pairs", "", "--smoke", ""])
    assert (name, options.data, options.pairs, options.smoke) == ("masked", None, 10, False)


def test_options_are_read(tmp_path: Path) -> None:
    _, options = main.parsed(["masked", "--data", str(tmp_path), "--pairs", "3", "--seconds", "1.5"])
    assert (options.data, options.pairs, options.seconds) == (tmp_path.resolve(), 3, 1.5)


def test_a_whole_run_takes_the_time_of_both_its_stretches() -> None:
    """Half of the tokens at 100 a second and half at 50: two thirds of 100."""
    assert measure.whole_run([100.0], [50.0], 0.5) == pytest.approx([200 / 3])
    assert measure.whole_run([100.0, 80.0], [50.0, 80.0], 1.0) == [100.0, 80.0]
