"""The rules are Taylor expansions: `taylor.decompose` of a neuron equals the rule on a layer of that neuron."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

import lrpfast
from lrpfast import Dense, Rule, WSquare, Z, ZBox, ZPlus
from lrpfast.taylor import DIRECTIONS, decompose

# Multiples of a quarter: sums of products are exact, so that nothing but the formula can differ.
exact = st.integers(-8, 8).map(lambda n: n / 4)
lists = st.integers(1, 8).flatmap(lambda n: st.tuples(*[st.lists(exact, min_size=n, max_size=n)] * 4))


def rule_of(direction: str, low: np.ndarray, high: np.ndarray) -> Rule:
    """The rule that comes from a search direction, with nothing to stabilise."""
    rules: dict[str, Rule] = {
        "w2": WSquare(0.0, bias=False),
        "z": Z(bias=False),
        "z+": ZPlus(0.0, bias=False),
        "zB": ZBox(low, high, 0.0),
    }
    return rules[direction]


@pytest.mark.parametrize("direction", DIRECTIONS)
@settings(max_examples=60)
@given(arrays=lists, b=exact)
def test_first_order_term_is_the_rule(direction: str, arrays: Any, b: float) -> None:
    x, w, low, high = (np.array(values) for values in arrays)
    low, high = -np.abs(low) - 0.25, np.abs(high) + 0.25
    if direction == "z+":
        x = np.abs(x)
    if direction == "zB":
        x = np.clip(x, low, high)
    value = max(0.0, float(x @ w) + b)
    numerators = {
        "w2": w**2, "z": x * w, "z+": x * np.maximum(w, 0),
        "zB": (x - low) * np.maximum(w, 0) + (x - high) * np.minimum(w, 0),
    }  # fmt: skip
    assume(value == 0 or numerators[direction].sum() != 0)  # else the neuron has no root on the line
    bounds = {"low": low, "high": high} if direction == "zB" else {}

    expansion = decompose(x, w, b, direction, **bounds)
    rule = rule_of(direction, low, high)
    got = lrpfast.propagate(rule, Dense(w[None], np.array([b])), x[None], np.array([[value]]))

    scale = max(value, np.abs(expansion.first_order).max())
    np.testing.assert_allclose(got[0], expansion.first_order, rtol=0, atol=1e-12 * scale)
    if value > 0:
        assert got.sum() == pytest.approx(value, rel=1e-12)


def test_every_direction_names_its_rule() -> None:
    for direction, found in DIRECTIONS.items():
        rule = rule_of(direction, np.array([-1.0]), np.array([1.0]))
        assert type(rule).__name__ == found.rule
        assert found.rule in lrpfast.RULES
