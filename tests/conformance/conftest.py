"""`make check` takes one test of each family's outputs and weights; `make test` takes all."""

from __future__ import annotations

from pathlib import Path

import pytest

SMOKE = (
    "test_our_network_says_the_same_in_a_stock_model",
    "test_the_map_of_weights_goes_both_ways",
    "test_padding_changes_nothing",
    "test_a_family_exports_what_the_house_expects",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The rest of this folder is slow: there is much of it, though each takes little."""
    for item in items:
        if Path(__file__).parent in item.path.parents and getattr(item, "originalname", "") not in SMOKE:
            item.add_marker(pytest.mark.slow)
