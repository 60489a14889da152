"""What is checked of explanations wherever a test case can be loaded: derivatives, and conservation."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

import numpy as np
from numpy.typing import NDArray

import lrpfast
from lrpfast.errors import LrpfastError

Array = NDArray[Any]
STEP = 1e-6


def check_relevance(network: lrpfast.Network, inputs: Mapping[str, Array]) -> None:
    """Assert that explanations in float64 are right, where there are rules for all nodes.

    The gradient must be the derivative, by central differences in one random direction; the ledger of
    "epsilon_plus" must leave nothing unexplained. Inputs are moved away from ties and kinks.
    """
    rng = np.random.default_rng(0)
    near = {
        name: array if array.dtype.kind in "iu" else array + rng.uniform(0.01, 0.1, array.shape)
        for name, array in inputs.items()
    }
    weights = rng.standard_normal((len(next(iter(near.values()))), *network.output_shape))
    with (
        suppress(LrpfastError),
        warnings.catch_warnings(),
    ):  # an index has no derivative, the function no values
        warnings.simplefilter("ignore")
        _check_gradient(network, near, weights, rng)
        _check_ledger(network, near, weights)


def _check_gradient(
    network: lrpfast.Network, inputs: Mapping[str, Array], weights: Array, rng: np.random.Generator
) -> None:
    if network.canonized(np.float64).head is not None:
        return  # it is explained without its last Softmax
    found = lrpfast.explain(network, inputs, weights, composite="gradient", dtype=np.float64, backend="numpy")
    gradient = (
        found.relevance if isinstance(found.relevance, Mapping) else {next(iter(inputs)): found.relevance}
    )
    direction = {
        name: np.zeros_like(array) if array.dtype.kind in "iu" else rng.standard_normal(array.shape)
        for name, array in inputs.items()
    }
    ahead, behind = (
        weights
        * network.predict(
            {name: array + sign * STEP * direction[name] for name, array in inputs.items()},
            dtype=np.float64,
            backend="numpy",
        )
        for sign in (1, -1)
    )
    expected = _sums(ahead - behind) / (2 * STEP)
    slopes = [gradient[name] * direction[name] for name in inputs]
    given = sum(_sums(slope) for slope in slopes)
    size = sum(_sums(np.abs(slope)) for slope in slopes) + np.abs(expected)
    fits = np.abs(given - expected) <= 1e-5 * size + 1e-7 * _sums(np.abs(ahead))
    assert fits.all(), f"the derivative is {expected}, by the gradient {given}"


def _check_ledger(network: lrpfast.Network, inputs: Mapping[str, Array], weights: Array) -> None:
    found = lrpfast.explain(
        network, inputs, weights, composite="epsilon_plus", dtype=np.float64, backend="numpy"
    )
    ledger = found.conservation
    largest = max((abs(number) for row in ledger for number in (row.r_in, row.r_out)), default=0.0)
    for row in ledger:
        lost = abs(row.r_in - row.r_out - row.bias - row.stabilizer - row.dead)
        # Where large relevance of both signs cancels, its rounding is no small share of what is left.
        fits = np.isnan(row.unexplained) or abs(row.unexplained) < 1e-9 or lost < 1e-12 * largest
        assert fits, f"unexplained relevance:\n{ledger}"


def _sums(array: Array) -> Array:
    """The sum of each sample."""
    return array.reshape(len(array), -1).sum(axis=1)
