"""How the relevance of a job is spread over its inputs, and how that moved since another job.

An input's array (or each of several) is cut into regions (`Regions`), m in all. With a_j the sum of |R| over region
j, a sample has the shares

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
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import product
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import InputError
from ..ops.base import Array
from .inputs import Shapes, as_json, by_name, from_json

_PIECES = {1: 256, 2: 16, 3: 8}
"""Into how many stretches an axis is cut at most, by the number of axes; 4 if there are more."""


@dataclass(frozen=True)
class Regions:
    """The parts of the inputs: each axis is cut into stretches as equal as can be.

    Attributes
    ----------
    shapes : tuple of int, or mapping of name to tuple of int
        Of one sample.
    """

    shapes: Shapes

    @cached_property
    def _cuts(self) -> dict[str, list[NDArray[np.intp]]]:
        """Where the stretches of each axis of each input begin."""
        found = {}
        for name, shape in by_name(self.shapes).items():
            limit = _PIECES.get(len(shape), 4)
            found[name] = [np.arange(min(n, limit)) * n // min(n, limit) for n in shape]
        return found

    def names(self) -> list[str]:
        """The regions as slices, such as ``[0:1, 28:56, 0:28]``, in the order of `sums`; of several inputs each
        behind its name."""
        names = []
        for name, shape in by_name(self.shapes).items():
            axes = []
            for starts, length in zip(self._cuts[name], shape, strict=True):
                ends = [*starts[1:].tolist(), length]
                axes.append([f"{start}:{end}" for start, end in zip(starts.tolist(), ends, strict=True)])
            names += [f"{name}[{', '.join(part)}]" for part in product(*axes)]
        return names

    def sums(self, relevance: Sequence[Array]) -> NDArray[np.float64]:
        """The sum of |R| over each region, in one row.

        Parameters
        ----------
        relevance : sequence of arrays
            Of each input.
        """
        return np.concatenate(
            [_summed(r, cuts) for r, cuts in zip(relevance, self._cuts.values(), strict=True)]
        )


def _summed(relevance: Array, cuts: Sequence[NDArray[np.intp]]) -> NDArray[np.float64]:
    size = np.abs(relevance)
    for axis, starts in enumerate(cuts):
        if len(starts) < size.shape[axis]:
            size = np.add.reduceat(size, starts, axis=axis, dtype=np.float64)
    return size.ravel().astype(np.float64, copy=False)


@dataclass(frozen=True, eq=False)
class Profile:
    """Sums over samples, from which the distribution of relevance follows.

    Attributes
    ----------
    shapes : tuple of int, or mapping of name to tuple of int
        Of one sample.
    n : int
        Samples that have relevance.
    total, squares : array (regions,)
        Σ p and Σ p² over the samples.
    """

    shapes: Shapes
    n: int
    total: NDArray[np.float64]
    squares: NDArray[np.float64]

    @classmethod
    def empty(cls, shapes: Shapes) -> Profile:
        """Of no samples."""
        nothing = np.zeros(len(Regions(shapes).names()))
        return cls(shapes, 0, nothing, nothing)

    def __add__(self, other: Profile) -> Profile:
        return Profile(self.shapes, self.n + other.n, self.total + other.total, self.squares + other.squares)

    def with_sums(self, sums: NDArray[np.float64]) -> Profile:
        """The profile with one more sample, which has these `Regions.sums`; without relevance it does not count."""
        size = sums.sum()
        if not size:
            return self
        shares = sums / size
        return self + Profile(self.shapes, 1, shares, shares**2)

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
            "shape": as_json(self.shapes), "samples": self.n, "sum": self.total.tolist(),
            "sum_of_squares": self.squares.tolist(),
        }  # fmt: skip

    @classmethod
    def from_json(cls, described: Mapping[str, Any]) -> Profile:
        """What `as_json` wrote; raises KeyError, TypeError or ValueError if it is something else."""
        shapes = from_json(described["shape"])
        total, squares = (np.array(described[key], np.float64) for key in ("sum", "sum_of_squares"))
        if total.shape != (len(Regions(shapes).names()),) or squares.shape != total.shape:
            raise ValueError(f"{total.size} regions do not fit the shape {shapes}")
        return cls(shapes, int(described["samples"]), total, squares)


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
    if before.shapes != now.shapes:
        raise InputError(
            f"the reference is about inputs of shape {before.shapes}, this job about {now.shapes}; expected a report "
            "of a job with the same inputs"
        )
    if min(before.n, now.n) < 2:
        return None
    change = now.mean - before.mean
    error = np.sqrt(now.variance / now.n + before.variance / before.n)
    certain = np.where(np.abs(change) > 1e-12, np.copysign(np.finfo(np.float64).max, change), 0.0)
    z = np.divide(change, error, out=certain, where=error > 1e-15)
    p = min(1.0, len(z) * math.erfc(float(np.abs(z).max()) / math.sqrt(2)))
    names = Regions(now.shapes).names()
    most = np.argsort(-np.abs(change), kind="stable")[:10]
    return Drift(
        float(np.abs(change).sum() / 2),
        float(math.sqrt(2 / math.pi) * error.sum() / 2),
        p,
        now.n,
        before.n,
        tuple((names[j], float(before.mean[j]), float(now.mean[j]), float(z[j])) for j in most),
    )
