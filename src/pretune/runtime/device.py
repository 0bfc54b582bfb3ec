"""The one place that chooses the device, and sets the machine up for it."""

from __future__ import annotations

import ctypes
import os
import sys
from contextlib import suppress

import torch
from torch import nn


def configure() -> None:
    """Flush denormals, which cost a CPU up to 2.5 times, keep freed memory, and use the cores that are ours.

    ``OMP_NUM_THREADS`` is obeyed where it is set.
    """
    torch.set_flush_denormal(True)
    _keep_freed_memory()
    if "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(max(1, len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 1))


def _keep_freed_memory() -> None:
    """Let glibc use freed memory again, which it gives back from 32 MiB on: a step's tensors are the next's.

    Without, the system zeroes some 100 MB of pages in each step, which took a tenth of it. Another C library
    has nothing of the kind, or other numbers.
    """
    if sys.platform != "linux" or "MALLOC_MMAP_THRESHOLD_" in os.environ:
        return
    with suppress(OSError, AttributeError):
        library = ctypes.CDLL(None)
        if hasattr(library, "gnu_get_libc_version"):
            library.mallopt(_MMAP_THRESHOLD, _INT_MAX)
            library.mallopt(_TRIM_THRESHOLD, _INT_MAX)


_TRIM_THRESHOLD, _MMAP_THRESHOLD, _INT_MAX = -1, -3, 2**31 - 1
"""Of glibc's malloc.h, and the most that its ``int`` takes."""


def choose_device(local_rank: int = 0, world_size: int = 1) -> torch.device:
    """Where a rank trains: the GPU of its number on its machine, if each rank there has one.

    A process alone trains on the CPU.
    """
    if world_size > 1 and local_rank < torch.cuda.device_count():
        return torch.device("cuda", local_rank)
    return torch.device("cpu")


def select(device: torch.device) -> None:
    """Make it the device of what follows in this process, where that is a choice."""
    if device.type == "cuda":
        torch.cuda.set_device(device)


def collective_backend(device: torch.device) -> str:
    """How the tensors of each type of device travel between ranks."""
    return "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo"


def release_memory() -> None:
    """Give cached memory of a GPU back to it, for another attempt."""
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def network_device(network: nn.Module) -> torch.device:
    """Where a network's weights lie: what it reads must lie there, too."""
    return next(network.parameters()).device


def total_memory() -> int:
    """Bytes of main memory; 0 where the system does not say."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):
        return 0


def describe(processes: int = 1, device: str = "cpu") -> str:
    """Device, threads and processes: what a choice made by measurement holds for."""
    number = "1 process" if processes == 1 else f"{processes} processes"
    return f"{device}, {torch.get_num_threads()} threads, {number}"
