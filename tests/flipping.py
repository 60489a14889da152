"""Flip tests: what relevance says of inputs must show when they are taken away.

Inputs are removed step by step, those with the most relevance first, and the score of the class is read after each
step; it has to fall faster than if as many were removed at random (Samek et al. 2017, "Evaluating the visualization
of what a deep neural network has learned", IEEE TNNLS 28).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

import lrpfast

Array = NDArray[Any]
Score = Callable[[Array], Array]


@dataclass(frozen=True)
class Flips:
    """Scores after inputs were removed.

    Attributes
    ----------
    removed : array of float (steps,)
        The share of inputs that was removed; it begins with 0.
    relevant : array (steps,)
        The score after the most relevant ones were.
    random : array (steps,)
        The mean score after as many in random orders.
    """

    removed: Array
    relevant: Array
    random: Array

    @property
    def fall(self) -> float:
        """How far the score falls, on average over all steps (AOPC), most relevant inputs first."""
        return float((self.relevant[0] - self.relevant[1:]).mean())

    @property
    def random_fall(self) -> float:
        """The same for random orders."""
        return float((self.random[0] - self.random[1:]).mean())


def flips(
    score: Score,
    x: Array,
    relevance: Array,
    blank: float,
    removed: Sequence[float],
    units: Array | None = None,
    orders: int = 5,
    seed: int = 0,
) -> Flips:
    """Remove the inputs of one sample.

    Parameters
    ----------
    score : callable
        The scores (n,) of samples (n, …).
    x, relevance : array
        The sample and the relevance of its inputs, of one shape, without a batch axis.
    blank : float
        What stands in the place of inputs that were removed.
    removed : sequence of float
        Shares of inputs to be removed.
    units : array of int, shape of x, optional
        The unit that each input belongs to; a unit is removed as a whole. Inputs with -1 stay. Default: each input
        is a unit.
    orders : int, default 5
        How many random orders are averaged.
    seed : int, default 0
    """
    units = np.arange(x.size).reshape(x.shape) if units is None else units
    names, inverse = np.unique(units, return_inverse=True)
    inverse = inverse.reshape(x.shape)
    total = np.bincount(inverse.ravel(), relevance.ravel().astype(float))
    total[names < 0] = -np.inf
    count = int((names >= 0).sum())
    shares = np.array([0, *removed], float)
    limits = np.round(shares * count).astype(int)

    def scores(order: Array) -> Array:
        rank = np.full(len(names), len(names))
        rank[order] = np.arange(len(order))
        return score(
            np.stack([np.where(rank[inverse] < limit, blank, x).astype(x.dtype) for limit in limits])
        )

    relevant = scores(np.argsort(-total, kind="stable")[:count])
    rng, free = np.random.default_rng(seed), np.flatnonzero(names >= 0)
    return Flips(shares, relevant, np.mean([scores(rng.permutation(free)) for _ in range(orders)], axis=0))


def mean(several: Iterable[Flips]) -> Flips:
    """The averages over samples with the same steps."""
    listed = list(several)
    return Flips(
        *(np.mean([getattr(f, name) for f in listed], axis=0) for name in ("removed", "relevant", "random"))
    )


def blocks(shape: tuple[int, int, int], size: int) -> Array:
    """Units of pictures (channels, height, width): squares of `size` pixels, in all channels at once."""
    _, height, width = shape
    rows, columns = np.arange(height) // size, np.arange(width) // size
    return np.broadcast_to(rows[:, None] * (columns[-1] + 1) + columns, shape)


def probability(network: lrpfast.Network, target: int) -> Score:
    """The probability of a class as a score; the network may end in logits or in probabilities."""

    def score(x: Array) -> Array:
        output = network.predict(x).astype(float)
        if output.min() < 0 or np.abs(output.sum(1) - 1).max() > 1e-3:
            output = np.exp(output - output.max(1, keepdims=True))
            output /= output.sum(1, keepdims=True)
        return output[:, target]

    return score
