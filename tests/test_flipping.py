"""The flip test itself, on a function whose answers are known."""

from __future__ import annotations

import numpy as np
from flipping import blocks, flips, mean

W = np.array([4.0, -1, 2, 0, 3, 1])
X = np.array([1.0, 1, 1, 1, 2, 1])
HALF = (1 / 6, 2 / 6, 3 / 6)


def score(x: np.ndarray) -> np.ndarray:
    return x.reshape(len(x), -1) @ W


def test_the_most_relevant_goes_first() -> None:
    found = flips(score, X, W * X, 0, HALF, orders=400)
    np.testing.assert_allclose(found.removed, [0, *HALF])
    np.testing.assert_array_equal(found.relevant, [12, 6, 2, 0])
    np.testing.assert_allclose(found.random, [12, 10, 8, 6], atol=0.3)
    assert found.fall == (6 + 10 + 12) / 3
    np.testing.assert_allclose(found.random_fall, 4, atol=0.3)


def test_units_go_as_a_whole_and_some_never() -> None:
    units = np.array([0, 0, 1, 1, -1, 2])
    found = flips(score, X, W * X, -1, (1 / 3, 2 / 3, 1), units)
    # {4, -1}, then {2, 0}, then {1}; each becomes -1, and 2 · 3 stays.
    np.testing.assert_array_equal(found.relevant, [12, 6, 2, 0])
    assert found.random[-1] == 0


def test_squares_go_through_all_channels() -> None:
    units = blocks((2, 5, 4), 2)
    np.testing.assert_array_equal(units[1], units[0])
    np.testing.assert_array_equal(
        units[0], [[0, 0, 1, 1], [0, 0, 1, 1], [2, 2, 3, 3], [2, 2, 3, 3], [4, 4, 5, 5]]
    )


def test_integers_stay_integers_and_averages_are_by_step() -> None:
    found = [flips(lambda x: x.sum(1) + (x.dtype == np.int64), np.array([3, k]), np.array([1, 2]), 0, (0.5,))
             for k in (1, 5)]  # fmt: skip
    np.testing.assert_array_equal(mean(found).relevant, [7, 4])
