"""What a process holds while it works: memory, open files and threads, as Linux tells."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

PAGE = os.sysconf("SC_PAGE_SIZE")


def resident(pid: int | str = "self") -> int:
    """Bytes of memory that a process has; 0 if it is gone."""
    try:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * PAGE
    except (OSError, IndexError):
        return 0


def held() -> tuple[int, int]:
    """Open files, and threads, of this process."""
    return len(os.listdir("/proc/self/fd")), len(os.listdir("/proc/self/task"))


@dataclass
class Watch:
    """Memory of a process as its work goes on.

    Attributes
    ----------
    warm : float
        Share of the work after which memory is to be flat: what is done before fills caches.
    """

    warm: float = 0.3
    samples: list[tuple[float, int]] = field(default_factory=list)  # (how much is done, bytes)
    _start: float = field(default_factory=time.monotonic)

    def look(self, done: float, pid: int | str = "self") -> None:
        """Take a sample, if the process is still there."""
        if memory := resident(pid):
            self.samples.append((done, memory))

    @property
    def seconds(self) -> float:
        """Since the watch began."""
        return time.monotonic() - self._start

    def flat(self) -> Flat:
        """What the samples say."""
        most = max(done for done, _ in self.samples)
        later = [(done, memory) for done, memory in self.samples if done >= self.warm * most]
        if len(later) < 5:
            raise ValueError(f"there are {len(later)} samples after warming up; expected 5 at least")
        return Flat.of(later)


@dataclass(frozen=True)
class Flat:
    """Memory after warming up.

    Attributes
    ----------
    first, last : float
        Median of the first fifth of the samples, and of the last, in bytes.
    slope : float
        Bytes per unit of work, by least squares.
    """

    first: float
    last: float
    slope: float

    @classmethod
    def of(cls, samples: Sequence[tuple[float, int]]) -> Flat:
        done, memory = np.array(samples, dtype=float).T
        fifth = max(1, len(memory) // 5)
        slope = np.polyfit(done - done.mean(), memory, 1)[0]
        return cls(float(np.median(memory[:fifth])), float(np.median(memory[-fifth:])), float(slope))
