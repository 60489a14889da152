"""How the relevance of a job is spread over its inputs, and how that moved since another job.

An input's array is cut into m regions (`Regions`). With a_j the sum of |R| over region j, a sample has the shares

    p_j = a_j / Σ_i a_i,            which add up to 1,

whatever the scale of its relevance. A job of n samples is described by the mean μ_j of each share and by its
variance s_j² over the samples (`Profile`). Against an earlier job with μ'_j, s'_j² and n',

    moved = ½ Σ_j |μ_j − μ'_j|

is the total variation distance of the two mean distributions: the part of the relevance, from 0 to 1, that lies in
other regions now. Two jobs over different samples of the same kind differ, too: each difference has the standard
error e_j = √(s_j²/n + s'_j²/n'), so that

    chance = ½ √(2/π) Σ_j e_j

is about what `moved` is if nothing changed (the mean of |N(0, e)| is e √(2/π)). Of the regions, the one whose
z_j = (μ_j − μ'_j) / e_j (Welch) is largest is tested, with Bonferroni's correction for having looked at m of them:

    p = min(1, m · erfc(max_j |z_j| / √2)).

The statistic sees where relevance lies, not its sign or its size, and takes samples to be independent.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import InputError
from ..ops.base import Array

_PIECES = {1: 256, 2: 16, 3: 8}
"""Into how many stretches an axis is cut at most, by the number of axes; 4 if there are more."""


@dataclass(frozen=True)
class Regions:
    """The parts of an array: each axis is cut into stretches as equal as can be.

    Attributes
    ----------
    shape : tuple of int
        Of one sample.
    """

    shape: tuple[int, ...]

    @property
    def _cuts(self) -> list[NDArray[np.intp]]:
        """Where the stretches of each axis begin."""
        limit = _PIECES.get(len(self.shape), 4)
        return [np.arange(min(n, limit)) * n // min(n, limit) for n in self.shape]

    def names(self) -> list[str]:
        """The regions as slices, such as ``[0:1, 28:56, 0:28]``, in the order of `shares`."""
        axes = []
        for starts, length in zip(self._cuts, self.shape, strict=True):
            ends = [*starts[1:].tolist(), length]
            axes.append([f"{start}:{end}" for start, end in zip(starts.tolist(), ends, strict=True)])
        return [f"[{', '.join(part)}]" for part in product(*axes)]

    def shares(self, relevance: Array) -> NDArray[np.float64] | None:
        """The share of |R| in each region, in one row; None if there is no relevance."""
        size = np.abs(relevance, dtype=np.float64)
        total = size.sum()
        if not total:
            return None
        for axis, starts in enumerate(self._cuts):
            size = np.add.reduceat(size, starts, axis=axis)
        shares: NDArray[np.float64] = size.ravel() / total
        return shares


@dataclass(frozen=True, eq=False)
class Profile:
    """Sums over samples, from which the distribution of relevance follows.

    Attributes
    ----------
    shape : tuple of int
        Of one sample.
    n : int
        Samples that have relevance.
    total, squares : array (regions,)
        Σ p and Σ p² over the samples.
    """

    shape: tuple[int, ...]
    n: int
    total: NDArray[np.float64]
    squares: NDArray[np.float64]

    @classmethod
    def empty(cls, shape: tuple[int, ...]) -> Profile:
        """Of no samples."""
        nothing = np.zeros(len(Regions(shape).names()))
        return cls(shape, 0, nothing, nothing)

    def __add__(self, other: Profile) -> Profile:
        return Profile(self.shape, self.n + other.n, self.total + other.total, self.squares + other.squares)

    def with_sample(self, relevance: Array) -> Profile:
        """The profile with one more sample."""
        shares = Regions(self.shape).shares(relevance)
        return self if shares is None else self + Profile(self.shape, 1, shares, shares**2)

    @property
    def mean(self) -> NDArray[np.float64]:
        """The mean share of each region."""
        return self.total / max(self.n, 1)

    @property
    def variance(self) -> NDArray[np.float64]:
        """The variance of each region's share over samples; 0 if there are fewer than two."""
        spread = (self.squares - self.n * self.mean**2) / max(self.n - 1, 1)
        return np.maximum(spread, 0) if self.n > 1 else np.zeros_like(spread)

    def as_json(self) -> dict[str, Any]:
        """For files; `from_json` reads it."""
        return {
            "shape": list(self.shape), "samples": self.n, "sum": self.total.tolist(),
            "sum_of_squares": self.squares.tolist(),
        }  # fmt: skip

    @classmethod
    def from_json(cls, described: Mapping[str, Any]) -> Profile:
        """What `as_json` wrote; raises KeyError, TypeError or ValueError if it is something else."""
        shape = tuple(map(int, described["shape"]))
        total, squares = (np.array(described[key], np.float64) for key in ("sum", "sum_of_squares"))
        if total.shape != (len(Regions(shape).names()),) or squares.shape != total.shape:
            raise ValueError(f"{total.size} regions do not fit the shape {shape}")
        return cls(shape, int(described["samples"]), total, squares)


@dataclass(frozen=True)
class Drift:
    """How the distribution of relevance moved; the formulas are the module's.

    Attributes
    ----------
    moved, chance, p : float
    samples, reference_samples : int
    regions : tuple of (str, float, float, float)
        Those that changed most: name, mean share before and now, and z; up to ten.
    """

    moved: float
    chance: float
    p: float
    samples: int
    reference_samples: int
    regions: tuple[tuple[str, float, float, float], ...]

    def as_json(self) -> dict[str, Any]:
        """For reports."""
        keys = ("region", "before", "now", "z")
        return {
            "moved": self.moved, "expected_by_chance": self.chance, "p_value": self.p,
            "samples": self.samples, "reference_samples": self.reference_samples,
            "regions": [dict(zip(keys, region, strict=True)) for region in self.regions],
        }  # fmt: skip


def drift(before: Profile, now: Profile) -> Drift | None:
    """How relevance moved from one job to another; None if one of them has fewer than two samples with relevance.

    Raises
    ------
    InputError
        The shapes of the inputs differ.
    """
    if before.shape != now.shape:
        raise InputError(
            f"the reference is about inputs of shape {before.shape}, this job about {now.shape}; expected a report "
            "of a job with the same inputs"
        )
    if min(before.n, now.n) < 2:
        return None
    change = now.mean - before.mean
    error = np.sqrt(now.variance / now.n + before.variance / before.n)
    certain = np.where(np.abs(change) > 1e-12, np.copysign(np.finfo(np.float64).max, change), 0.0)
    z = np.divide(change, error, out=certain, where=error > 1e-15)
    p = min(1.0, len(z) * math.erfc(float(np.abs(z).max()) / math.sqrt(2)))
    names = Regions(now.shape).names()
    most = np.argsort(-np.abs(change), kind="stable")[:10]
    return Drift(
        float(np.abs(change).sum() / 2),
        float(math.sqrt(2 / math.pi) * error.sum() / 2),
        p,
        now.n,
        before.n,
        tuple((names[j], float(before.mean[j]), float(now.mean[j]), float(z[j])) for j in most),
    )
