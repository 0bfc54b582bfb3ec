"""Examples into the rows of a grid, packed one after another or side by side."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import torch

from pretune.errors import ConfigError
from pretune.types import IGNORE_INDEX, Batch, Example, IntArray, Layout, Row


def pack(bounds: Sequence[int] | IntArray, capacity: int) -> list[list[int]]:
    """Indices into rows of ``capacity`` places: first fit, longest first, ties by index.

    First-fit decreasing needs at most 11/9 of the fewest rows possible, plus one (Johnson 1973).

    Raises:
        ConfigError: an example alone is longer than a row.
    """
    sizes = np.asarray(bounds, np.int64)
    if not len(sizes):
        return []
    if sizes.max() > capacity:
        i = int(sizes.argmax())
        raise ConfigError(f"example {i} needs {sizes[i]} places, a row has {capacity}")
    # A tree of the most room below each node finds the first row that fits in log n.
    leaves = 1 << (len(sizes) - 1).bit_length()
    room = [capacity] * (2 * leaves)
    rows: list[list[int]] = []
    for i in np.argsort(-sizes, kind="stable").tolist():
        size, node = int(sizes[i]), 1
        while node < leaves:
            node *= 2
            if room[node] < size:
                node += 1
        if node - leaves == len(rows):
            rows.append([])
        rows[node - leaves].append(i)
        room[node] -= size
        while node > 1:
            node //= 2
            room[node] = max(room[2 * node], room[2 * node + 1])
    return rows


def pack_tight(bounds: Sequence[int] | IntArray, capacity: int) -> list[list[int]]:
    """`pack` into rows of ``capacity`` places or of fewer, whichever grid costs a network least.

    Raises:
        ConfigError: an example alone is longer than a row.
    """
    sizes = np.asarray(bounds, np.int64)
    longest = int(sizes.max(initial=1))
    found = [pack(sizes, capacity)]
    found += [pack(sizes, size) for size in (4 * longest, 2 * longest, longest) if size < capacity]

    def cost(rows: list[list[int]]) -> int:
        width = max((int(sizes[row].sum()) for row in rows), default=0)
        return len(rows) * width * (_ATTENTION_CROSSOVER_WIDTH + width)

    return min(found, key=cost)


_ATTENTION_CROSSOVER_WIDTH = 768
"""Width of a row at which its attention costs as much as everything else, of a model some hundred wide."""


def group_by_length(lengths: Sequence[int] | IntArray, batch_size: int) -> list[list[int]]:
    """Indices in batches of ``batch_size`` with similar lengths, longest first, ties by index."""
    order = np.argsort(-np.asarray(lengths, np.int64), kind="stable").tolist()
    return [order[i : i + batch_size] for i in range(0, len(order), batch_size)]


def collate(
    groups: Sequence[Sequence[Example]],
    *,
    pad_id: int,
    heads: Sequence[str],
    pad_to_multiple_of: int = 1,
    segments: bool = False,
    packed: bool = True,
) -> Batch:
    """The batch in which the examples of each group lie one after another in one row of the grid.

    Positions are flattened and targets concatenated in the order in which the rows of the examples lie in the
    grid. ``documents`` and ``position_ids`` are there only if a row of the grid holds more than one sequence.
    ``example`` and ``row`` are those of the positions of the first head. ``source_tokens`` are there if the
    rows have sources, which lie in a grid of their own, row by row as the targets do; ``prefix_lengths`` are
    there if the rows have a prefix.

    Args:
        groups: the examples of each row.
        pad_id: fills up the grid.
        heads: the heads whose positions and targets are taken.
        pad_to_multiple_of: T (and S) is rounded up to a multiple of it.
        segments: put the rows' segments into the layout.
        packed: False gives each row of an example a grid row of its own, for models that cannot be packed.
    """
    examples = [(example, n) for n, members in enumerate(groups) for example in members]
    rows = [row for example, _ in examples for row in example.rows]
    widths = [len(example.rows) for example, _ in examples]
    example_of_row = np.repeat(np.arange(len(examples)), widths)
    row_in_example = np.concatenate([_EMPTY, *(np.arange(width) for width in widths)])
    counts = [len(row.positions.get(heads[0], _EMPTY)) for row in rows] if heads else []
    grid_rows = np.arange(len(rows)) if not packed else np.repeat([n for _, n in examples], widths)
    grid_rows = np.asarray(grid_rows, np.int64)
    count = len(groups) if packed else len(rows)
    grid = _Grid.from_sizes([len(row.tokens) for row in rows], grid_rows, count, pad_to_multiple_of)

    targets_by_head = {head: [row.targets[head] for row in rows if head in row.targets] for head in heads}
    targets = {head: _concat_targets(parts) for head, parts in targets_by_head.items() if parts}
    sources = [row.source_tokens for row in rows if row.source_tokens is not None]
    assert len(sources) in (0, len(rows)), "all rows have a source, or none has"
    source = (
        _Grid.from_sizes([len(s) for s in sources], grid_rows, count, pad_to_multiple_of) if sources else None
    )
    return Batch(
        tokens=grid.fill([row.tokens for row in rows], pad_id),
        layout=replace(
            grid.layout(_row_segments(rows) if segments else None),
            prefix_lengths=_row_prefixes(rows, grid_rows),
            order=_row_orders(rows, grid),
        ),
        positions={
            head: torch.from_numpy(grid.flatten_positions([row.positions.get(head, _EMPTY) for row in rows]))
            for head in heads
        },
        targets=targets,
        counts={head: _count_targets(found) for head, found in targets.items()},
        example=torch.from_numpy(np.repeat(example_of_row, counts)) if heads else None,
        row=torch.from_numpy(np.repeat(row_in_example, counts)) if heads else None,
        source_tokens=source.fill(sources, pad_id) if source else None,
        source_layout=source.layout(None) if source else None,
    )


_EMPTY: IntArray = np.zeros(0, np.int64)


@dataclass(frozen=True, slots=True)
class _Grid:
    """Where sequences lie in a (B, T) grid."""

    shape: tuple[int, int]
    sizes: IntArray
    """(R,) tokens of each sequence."""
    grid_rows: IntArray
    """(R,) grid row of each, ascending."""
    starts: IntArray
    """(R,) flat index of the first token of each."""
    positions: IntArray
    """(tokens,) position of each token in its sequence."""

    @classmethod
    def from_sizes(
        cls, sizes: Sequence[int], grid_rows: IntArray, num_rows: int, pad_to_multiple_of: int
    ) -> _Grid:
        size = np.array(sizes, np.int64)
        before = np.cumsum(size) - size  # tokens before each sequence, in all rows
        used = np.bincount(grid_rows, size, num_rows).astype(np.int64)
        longest = max(int(used.max(initial=0)), 1)
        width = -(-longest // pad_to_multiple_of) * pad_to_multiple_of
        columns = before - (np.cumsum(used) - used)[grid_rows]
        inside = np.arange(int(size.sum())) - np.repeat(before, size)
        return cls((num_rows, width), size, grid_rows, grid_rows * width + columns, inside)

    @property
    def flat_indices(self) -> IntArray:
        """(tokens,) flat index of each token."""
        return np.repeat(self.starts, self.sizes) + self.positions

    def fill(self, values: Sequence[IntArray], fill_value: int) -> torch.Tensor:
        """(B, T) with each sequence's values at its place."""
        return self._to_grid(np.concatenate(values) if values else _EMPTY, fill_value)

    def flatten_positions(self, positions: Sequence[IntArray]) -> IntArray:
        """(N,) flat indices of places that are given within their sequences."""
        counts = [len(p) for p in positions]
        joined = np.concatenate(positions) if positions else _EMPTY
        return (joined + np.repeat(self.starts, counts)).astype(np.int64)

    def layout(self, segments: list[IntArray] | None) -> Layout:
        used = np.bincount(self.grid_rows, self.sizes, self.shape[0]).astype(np.int64)
        documents = positions = None
        held = np.bincount(self.grid_rows, minlength=self.shape[0])
        if held.max(initial=0) > 1:
            numbers = np.arange(len(self.grid_rows)) - (np.cumsum(held) - held)[self.grid_rows]
            documents = self._to_grid(np.repeat(numbers, self.sizes), -1)
            positions = self._to_grid(self.positions, 0)
        return Layout(
            lengths=torch.from_numpy(used),
            documents=documents,
            position_ids=positions,
            segments=self.fill(segments, 0) if segments is not None else None,
        )

    def _to_grid(self, values: IntArray, fill_value: int) -> torch.Tensor:
        grid = np.full(self.shape[0] * self.shape[1], fill_value, np.int64)
        grid[self.flat_indices] = values
        return torch.from_numpy(grid.reshape(self.shape))  # (B, T)


def _concat_targets(values: Sequence[npt.NDArray[np.generic]]) -> torch.Tensor:
    joined = np.concatenate(values)
    if np.issubdtype(joined.dtype, np.floating):
        return torch.from_numpy(joined.astype(np.float32))  # (N,) or (N, C)
    return torch.from_numpy(joined.astype(np.int64))  # (N,)


def _count_targets(targets: torch.Tensor) -> int:
    return len(targets) if targets.is_floating_point() else int((targets != IGNORE_INDEX).sum())


def _row_segments(rows: Sequence[Row]) -> list[IntArray] | None:
    if all(row.segments is None for row in rows):
        return None
    return [np.zeros(len(r.tokens), np.int64) if r.segments is None else r.segments for r in rows]


def _row_prefixes(rows: Sequence[Row], grid_rows: IntArray) -> torch.Tensor | None:
    known = [row.prefix_length for row in rows if row.prefix_length is not None]
    if not known:
        return None
    alone = len(known) == len(rows) == len(np.unique(grid_rows))
    assert alone, "all rows have a prefix, or none has, and rows with one are not packed"
    return torch.tensor(known)  # (B,)


def _row_orders(rows: Sequence[Row], grid: _Grid) -> torch.Tensor | None:
    if all(row.order is None for row in rows):
        return None
    visible = [np.full(len(r.tokens), -1, np.int64) if r.order is None else r.order for r in rows]
    return grid.fill(visible, -1)  # (B, T)
