"""The processes that train one model together, as ``torchrun`` starts them; a world of one talks to nobody.

Rank 0 leads: it alone speaks, writes files and decides by the clock. What the others must know of it goes
as JSON (nothing is pickled), over gloo, between main memories; only tensors of weights and gradients travel
between devices. All ranks see the same files.
"""

from __future__ import annotations

import atexit
import gc
import importlib
import json
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist

from pretune.errors import ConfigError, PretuneError, RankError
from pretune.runtime import device

T = TypeVar("T")
TIMEOUT = timedelta(days=7)
"""How long a rank waits for another that prepares data; one that has died is torchrun's to notice."""
BUCKET_SIZE = 1 << 24
"""Numbers that are summed over the ranks at once: 64 MiB in fp32."""


class OtherRankError(PretuneError):
    """Another rank ended, and has said why."""


@dataclass(frozen=True, slots=True)
class World:
    """All ranks, and which of them this process is."""

    rank: int = 0
    world_size: int = 1
    local_rank: int = 0
    """Which process of its own machine this is."""

    @classmethod
    @contextmanager
    def init_process_group(cls) -> Iterator[World]:
        """The world that the environment says; within, its ranks can talk to each other.

        Raises:
            ConfigError: torchrun's variables are incomplete or say what cannot be.
        """
        world = cls.from_environment(os.environ)
        if world.world_size == 1 or dist.is_initialized():
            yield world
            return
        device.select(world.device)
        # gloo's threads end with the last reference to the group. One that lets go of its last tensor only
        # while the interpreter ends aborts the process, though its run is done and written.
        atexit.register(gc.collect)
        # Its functions keep, as a default, the group that exists when they are first imported, for good.
        importlib.import_module("torch.distributed.nn.functional")
        dist.init_process_group(world.backend, timeout=TIMEOUT)
        try:
            yield world
        finally:
            dist.destroy_process_group()
            gc.collect()

    @classmethod
    def from_environment(cls, environment: Mapping[str, str]) -> World:
        """As torchrun's variables say; without them, a world of one."""
        if "WORLD_SIZE" not in environment:
            return cls()
        names = ("RANK", "WORLD_SIZE", "LOCAL_RANK")
        try:
            rank, size, local = (int(environment[name]) for name in names)
        except (KeyError, ValueError) as error:
            raise ConfigError(
                f"{', '.join(names)}: {error}: set all of them to numbers as torchrun does, or none"
            ) from None
        if not 0 <= rank < size:
            raise ConfigError(f"RANK = {rank}, WORLD_SIZE = {size}: a rank lies below the size of its world")
        return cls(rank, size, local)

    @property
    def is_main(self) -> bool:
        """Does this process lead?"""
        return self.rank == 0

    @property
    def device(self) -> torch.device:
        """Where this rank trains."""
        return device.choose_device(self.local_rank, self.world_size)

    @property
    def backend(self) -> str:
        """How the tensors of each kind of device travel."""
        return device.collective_backend(self.device)

    # -- tensors --------------------------------------------------------------------------------

    def all_reduce_(self, tensors: list[torch.Tensor]) -> None:
        """Each tensor becomes its sum over the ranks, in place; small ones travel together."""
        if self.world_size == 1:
            return
        for bucket in _buckets(tensors):
            flat = torch.cat([tensor.reshape(-1) for tensor in bucket])
            with _raise_other_rank_error():
                dist.all_reduce(flat)
            totals = torch.split(flat, [tensor.numel() for tensor in bucket])
            for tensor, total in zip(bucket, totals, strict=True):
                tensor.copy_(total.view_as(tensor))

    def broadcast_(self, tensors: list[torch.Tensor]) -> None:
        """Each tensor becomes rank 0's."""
        for tensor in tensors if self.world_size > 1 else ():
            with _raise_other_rank_error():
                dist.broadcast(tensor, src=0)

    # -- plain values ---------------------------------------------------------------------------

    def any_rank(self, flag: bool) -> bool:
        """True everywhere if it is anywhere."""
        return bool(self.sum_counts({"flag": int(flag)})["flag"])

    def sum_counts(self, counts: Mapping[str, int]) -> dict[str, int]:
        """The sum over the ranks of each count; a rank may lack a name that others have."""
        total: dict[str, int] = {}
        for counts_of_rank in self.all_gather(dict(counts)):
            for name, count in counts_of_rank.items():
                total[name] = total.get(name, 0) + count
        return total

    def sum_values(self, values: Mapping[str, float]) -> dict[str, float]:
        """The sum over the ranks of each value, of names that all ranks have, in the order of the ranks."""
        gathered = self.all_gather(dict(values))
        return {name: sum(rank[name] for rank in gathered) for name in values}

    def all_gather(self, value: T) -> list[T]:
        """The JSON value of each rank, in their order, on all of them."""
        if self.world_size == 1:
            return [value]
        content = _encode(value)
        lengths = [torch.zeros(1, dtype=torch.int64) for _ in range(self.world_size)]
        with _raise_other_rank_error():
            dist.all_gather(lengths, torch.tensor([len(content)]))
            max_length = max(int(length) for length in lengths)
            padded = torch.zeros(max_length, dtype=torch.uint8)
            padded[: len(content)] = content
            gathered = [torch.zeros_like(padded) for _ in range(self.world_size)]
            dist.all_gather(gathered, padded)
        return [_decode(f[: int(length)]) for f, length in zip(gathered, lengths, strict=True)]

    def broadcast(self, value: T) -> T:
        """Rank 0's JSON value, on all ranks."""
        if self.world_size == 1:
            return value
        content = _encode(value) if self.is_main else torch.zeros(0, dtype=torch.uint8)
        length = torch.tensor([len(content)])
        with _raise_other_rank_error():
            dist.broadcast(length, src=0)
            content = content if self.is_main else torch.zeros(int(length), dtype=torch.uint8)
            dist.broadcast(content, src=0)
        received: T = _decode(content)
        return received

    # -- taking turns ---------------------------------------------------------------------------

    @contextmanager
    def main_first(self) -> Iterator[None]:
        """Rank 0 does what stands within, then the others, and waits for them.

        Where it fails, they end without a word. It waits, as what it undoes later they must not do again.

        Raises:
            OtherRankError: rank 0 failed.
            RankError: it did not, but this rank did.
        """
        if self.is_main:
            failed = True
            try:
                yield
                failed = False
            finally:
                self.broadcast(failed)
            self.all_gather(True)
            return
        if self.broadcast(True):
            raise OtherRankError("rank 0 failed, and has said why")
        try:
            yield
        except PretuneError as error:
            raise RankError(f"rank {self.rank}, where rank 0 had no difficulty: {error}") from error
        finally:
            self.all_gather(True)

    def on_main(self, work: Callable[[], T]) -> T:
        """What ``work`` gives, a JSON value, on all ranks; rank 0 alone does it.

        Raises:
            OtherRankError: rank 0 failed.
        """
        if self.world_size == 1:
            return work()
        results: list[T] = []
        try:
            if self.is_main:
                results.append(work())
        finally:
            results = self.broadcast(results)
        if not results:
            raise OtherRankError("rank 0 failed, and has said why")
        return results[0]


@contextmanager
def _raise_other_rank_error() -> Iterator[None]:
    """A rank that ended has said why itself: those that were waiting for it need not."""
    try:
        yield
    except RuntimeError as error:
        raise OtherRankError(
            "another rank has ended and says why; the same command goes on from the last checkpoint"
        ) from error


def _buckets(tensors: list[torch.Tensor]) -> Iterator[list[torch.Tensor]]:
    """The tensors in order, of one type and up to :data:`BUCKET_SIZE` numbers together."""
    bucket: list[torch.Tensor] = []
    num_elements = 0
    for tensor in tensors:
        if bucket and (num_elements + tensor.numel() > BUCKET_SIZE or tensor.dtype != bucket[0].dtype):
            yield bucket
            bucket, num_elements = [], 0
        bucket.append(tensor)
        num_elements += tensor.numel()
    if bucket:
        yield bucket


def _encode(value: Any) -> torch.Tensor:
    return torch.frombuffer(bytearray(json.dumps(value).encode()), dtype=torch.uint8)


def _decode(content: torch.Tensor) -> Any:
    return json.loads(content.numpy().tobytes())
