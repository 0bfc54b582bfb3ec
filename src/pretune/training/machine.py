"""The one place that sets the machine up for training."""

from __future__ import annotations

import os

import torch


def prepare() -> None:
    """Flush denormals, which cost a CPU up to 2.5 times, and use the cores that this process may use.

    ``OMP_NUM_THREADS`` is obeyed where it is set.
    """
    torch.set_flush_denormal(True)
    if "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(max(1, len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 1))


def memory() -> int:
    """Bytes of main memory; 0 where the system does not say."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):
        return 0


def describe(processes: int = 1, device: str = "cpu") -> str:
    """Device, threads and processes: what a choice made by measurement holds for."""
    number = "1 process" if processes == 1 else f"{processes} processes"
    return f"{device}, {torch.get_num_threads()} threads, {number}"
