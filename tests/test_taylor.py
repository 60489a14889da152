"""Taylor decomposition of one neuron, against the rules' formulas written out in float64."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from lrpfast.errors import InputError, NonFiniteError, RuleError
from lrpfast.taylor import DIRECTIONS, decompose

# Quarters of moderate size, often zero: products and sums of a few of them are exact in float64, so that
# a comparison fails because of a wrong formula and never because of cancellation.
exact = st.integers(-8, 8).map(lambda n: n / 4)
inputs = st.integers(1, 8).flatmap(lambda n: st.tuples(*[st.lists(exact, min_size=n, max_size=n)] * 4))


def neuron(draw, direction):
    """x (in the direction's domain), w, low and high from four lists of numbers."""
    x, w, low, high = (np.array(values) for values in draw)
    low, high = -np.abs(low), np.abs(high)
    if direction == "z+":
        x = np.abs(x)
    if direction == "zB":
        x = np.clip(x, low, high)
    return x, w, low, high


def rule_numerators(direction, x, w, low, high):
    """q of `R_j = f(x) q_j / Σ q`: the propagation rules with the bias left out."""
    positive, negative = np.maximum(w, 0), np.minimum(w, 0)
    return {
        "w2": w**2,
        "z": x * w,
        "z+": x * positive,
        "zB": x * w - low * positive - high * negative,
    }[direction]


def in_domain(direction, root, x, low, high, slack):
    if direction == "z":  # the segment from 0 to x
        return np.all(root * x >= -slack) and np.all(np.abs(root) <= np.abs(x) + slack)
    if direction == "z+":
        return np.all(root >= -slack)
    if direction == "zB":
        return np.all(root >= low - slack) and np.all(root <= high + slack)
    return np.all(np.isfinite(root))


@pytest.mark.parametrize("direction", DIRECTIONS)
@settings(deadline=None)
@given(draw=inputs, b=exact)
def test_expansion_equals_the_rule_and_ends_on_the_hinge(direction, draw, b):
    x, w, low, high = neuron(draw, direction)
    q = rule_numerators(direction, x, w, low, high)
    f = max(0.0, x @ w + b)
    assume(f == 0 or q.sum() != 0)
    bounds = {"low": low, "high": high} if direction == "zB" else {}

    expansion = decompose(x, w, b, direction, **bounds)

    assert expansion.value == f
    expected = f * q / q.sum() if f > 0 else np.zeros_like(x)
    scale = np.abs(expected).max() + f
    np.testing.assert_allclose(expansion.first_order, expected, rtol=0, atol=1e-12 * scale)
    np.testing.assert_allclose(expansion.first_order, w * (x - expansion.root), rtol=0, atol=1e-12 * scale)
    assert abs(expansion.residual) <= 1e-12 * scale
    if f > 0:
        root_value = expansion.root @ w + b
        assert abs(root_value) <= 1e-12 * (np.abs(expansion.root) @ np.abs(w) + abs(b) + scale)
    else:
        np.testing.assert_array_equal(expansion.root, x)


@pytest.mark.parametrize("direction", DIRECTIONS)
@settings(deadline=None)
@given(draw=inputs, b=exact.map(lambda b: -abs(b)))
def test_without_positive_bias_a_root_exists_in_the_domain(direction, draw, b):
    x, w, low, high = neuron(draw, direction)
    bounds = {"low": low, "high": high} if direction == "zB" else {}

    expansion = decompose(x, w, b, direction, **bounds)

    assert in_domain(direction, expansion.root, x, low, high, slack=1e-12)
    if direction != "z":
        assert np.all(expansion.first_order >= 0)
        np.testing.assert_array_equal(expansion.root[w == 0], x[w == 0])


def test_by_hand():
    # f = 2·1 - 1·1 + .5·4 - 1 = 2; the positive products sum to 4, so the root is x - 2/4 (1, 0, 4).
    expansion = decompose([1, 1, 4], [2, -1, 0.5], -1, "z+")
    np.testing.assert_array_equal(expansion.root, [0.5, 1, 2])
    np.testing.assert_array_equal(expansion.first_order, [1, 0, 1])
    assert (expansion.value, expansion.residual, expansion.direction) == (2, 0, "z+")


def test_positive_bias_may_put_the_root_outside_the_domain():
    expansion = decompose([1.0, 1.0], [1.0, 1.0], 2, "z+")
    np.testing.assert_array_equal(expansion.root, [-1, -1])
    np.testing.assert_array_equal(expansion.first_order, [2, 2])


def test_a_patch_keeps_its_shape_and_scalar_bounds_are_broadcast():
    x, w = np.full((3, 2, 2), 0.5), np.ones((3, 2, 2))
    expansion = decompose(x, w, 0, "zB", low=-1, high=np.ones((2, 2)))
    assert expansion.first_order.shape == expansion.root.shape == (3, 2, 2)
    np.testing.assert_allclose(expansion.first_order, 0.5)


def test_results_are_read_only_and_the_input_is_left_alone():
    x = np.array([1.0, 2.0])
    for b in (1.0, -9.0):
        expansion = decompose(x, [1, 1], b)
        assert not expansion.root.flags.writeable
        assert not expansion.first_order.flags.writeable
    assert x.flags.writeable
    np.testing.assert_array_equal(x, [1, 2])


@pytest.mark.parametrize(
    ("kwargs", "error", "words"),
    [
        ({"direction": "w3"}, RuleError, "unknown search direction 'w3'; choose one of w2, z, z+, zB"),
        ({"x": [1, 2, 3]}, InputError, "x has shape (3,) and w has shape (2,)"),
        ({"x": [], "w": []}, InputError, "x is empty"),
        ({"x": ["a", "b"]}, InputError, "x is not an array of real numbers"),
        ({"w": [1j, 0]}, InputError, "w is not an array of real numbers"),
        ({"x": [[1], [1, 2]]}, InputError, "x is not an array of real numbers"),
        ({"b": [1, 2]}, InputError, "b has shape (2,)"),
        ({"x": [np.nan, 1]}, NonFiniteError, "x holds NaN or infinity"),
        ({"w": [np.inf, 1]}, NonFiniteError, "w holds NaN or infinity"),
        ({"b": np.nan}, NonFiniteError, "b holds NaN or infinity"),
        ({"x": [1e200, 0], "w": [1e200, 0]}, NonFiniteError, "overflows float64"),
        ({"x": [1, -1], "direction": "z+"}, InputError, "x[1] = -1 is not in [0, inf]"),
        ({"low": 0, "high": 1}, RuleError, "'z+' takes no bounds"),
        ({"direction": "zB", "low": 0}, RuleError, "give low and high"),
        ({"direction": "zB", "low": 0.5, "high": 3}, RuleError, "low ≤ 0 ≤ high"),
        ({"direction": "zB", "low": -3, "high": -1}, RuleError, "low ≤ 0 ≤ high"),
        ({"direction": "zB", "low": [0, 0, 0], "high": 1}, InputError, "low has shape (3,)"),
        ({"direction": "zB", "low": np.nan, "high": 1}, NonFiniteError, "low holds NaN"),
        ({"direction": "zB", "low": -1, "high": 1.5}, InputError, "x[1] = 2 is not in [-1, 1.5]"),
        ({"x": [0, 0], "direction": "z", "b": 1}, RuleError, "no root in direction 'z'"),
        ({"w": [-1, -1], "direction": "z+", "b": 9}, RuleError, "no root in direction 'z+'"),
        ({"w": [0, 0], "direction": "w2", "b": 1}, RuleError, "no root in direction 'w2'"),
        # .1 + .2 - .3 is 5.6e-17 in floating point: a slope of pure rounding is no slope.
        ({"x": [0.1, 0.2, -0.3], "w": [1, 1, 1], "direction": "z", "b": 1}, RuleError, "no root"),
        ({"x": [1e-320, 0], "direction": "z", "b": 1}, RuleError, "no root"),
    ],
)
def test_refusals(kwargs, error, words):
    with pytest.raises(error) as caught:
        decompose(**{"x": [1, 2], "w": [1, 1], "b": 0, **kwargs})
    assert words in str(caught.value)
