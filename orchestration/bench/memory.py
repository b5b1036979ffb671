"""The most memory that a piece of work takes, of this process or of the GPU."""

import contextlib
import ctypes
import resource
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch

_STATUS, _CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")
_FORGET_PEAK = "5"  # what Linux calls it


@dataclass
class PeakMemory:
    """What one piece of work took.

    Attributes:
        before_mib: Memory before it, in MiB.
        peak_mib: The most while it ran, in MiB.
    """

    before_mib: float = 0.0
    peak_mib: float = 0.0

    @property
    def added_mib(self) -> float:
        """What it took beside what there was."""
        return self.peak_mib - self.before_mib


@contextlib.contextmanager
def peak_memory() -> Iterator[PeakMemory]:
    """Yields what holds the peak when the block has ended: of the GPU where there is one, else resident."""
    found = PeakMemory()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
        found.before_mib = torch.cuda.memory_allocated() / 2**20
        yield found
        found.peak_mib = torch.cuda.max_memory_allocated() / 2**20
        return
    with contextlib.suppress(OSError, AttributeError):  # glibc keeps what is freed, and it would count here
        ctypes.CDLL(None).malloc_trim(0)
    with contextlib.suppress(OSError):
        _CLEAR.write_text(_FORGET_PEAK)
    found.before_mib = _resident_mib("VmRSS")
    yield found
    found.peak_mib = _resident_mib("VmHWM")


def _resident_mib(name: str) -> float:
    if _STATUS.exists():
        said = dict(line.split(":", 1) for line in _STATUS.read_text().splitlines() if ":" in line)
        return int(said[name].split()[0]) / 1024
    unit = 1 if sys.platform == "darwin" else 1024  # of the process's whole life: Linux alone forgets
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**20
