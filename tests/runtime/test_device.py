"""What setting the machine up for training changes."""

from __future__ import annotations

import subprocess
import sys

import pytest

FAULTS = """
import resource, torch
from pretune.runtime import device
if {prepared}:
    device.configure()
def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for n in range(61):
    torch.ones(16 * 2**20)  # 64 MiB, freed at once
    if n == 0:
        before = faults()
print(faults() - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="it is glibc that gives memory back")
def test_freed_memory_is_used_again() -> None:
    """Sixty times 64 MiB cost new pages a few times only, until a hole is wide enough for the alignment."""
    found = {}
    for prepared in (False, True):
        script = FAULTS.format(prepared=prepared)
        done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
        found[prepared] = int(done.stdout)
    if found[False] < 60 * 64 * 2**20 // 4096:
        pytest.skip("this C library keeps freed memory by itself, or its pages are huge")
    assert found[True] < found[False] / 2
