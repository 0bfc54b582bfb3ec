"""Where heads read."""

from __future__ import annotations

import pytest
import torch

from pretune.nn import heads
from pretune.types import Layout


def test_the_mean_of_a_text_leaves_out_padding_and_neighbours() -> None:
    hidden = torch.tensor([[1.0, 3.0, 10.0, 20.0, 99.0]]).unsqueeze(-1)
    alone = heads.document_means(hidden, Layout(lengths=torch.tensor([2])))
    assert alone[0, :2, 0].tolist() == [2, 2]
    packed = Layout(lengths=torch.tensor([4]), documents=torch.tensor([[0, 0, 1, 1, -1]]))
    assert heads.document_means(hidden, packed)[0, :4, 0].tolist() == [2, 2, 15, 15]


@pytest.mark.parametrize("places", [[7, 3, 5, 0, 7], [], [2, 2, 2], [9]])
def test_places_are_gathered_by_row(places: list[int]) -> None:
    found = heads.PositionsByRow.from_positions(torch.tensor(places, dtype=torch.long), 3, 4)
    told = torch.arange(3)[:, None] * 4 + found.positions  # (B, P)
    assert told.flatten()[found.slots].tolist() == places
    assert found.positions.shape[1] == max([1, *(sum(p // 4 == row for p in places) for row in range(3))])
