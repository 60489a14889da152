"""Deep Taylor decomposition does what it was made for: two digits, of which one is to be found.

After Montavon et al. 2017, Sec. 4 and 5. Networks are trained under b ≤ 0; relevance is then conserved, never
negative, and lies on the digit that was found. Sensitivity is not, and gradient × input not either.
"""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
from digit_pairs import HIGH, LOW, RULES, Pictures, train, trained_detector, unseen_pictures

import lrpfast
from lrpfast import Composite
from lrpfast.taylor import decompose

pytestmark = pytest.mark.networks

LAYERS = (1, 2)


@cache
def found(layers: int) -> tuple[Pictures, np.ndarray]:
    """Pictures in which a network finds what it should, and the evidence f that it finds."""
    pictures = unseen_pictures(600)
    f = trained_detector(layers).predict(pictures.x, dtype=np.float64)[:, 0]
    seen = pictures.wanted & (f > 0.5)
    assert seen.sum() > 200
    return pictures[seen], f[seen]


@cache
def relevance(layers: int, composite: Composite | str) -> np.ndarray:
    x = found(layers)[0].x
    return lrpfast.explain(trained_detector(layers), x, 0, composite=composite, dtype=np.float64).relevance


@pytest.mark.parametrize("layers", LAYERS)
def test_networks_find_digits_and_have_no_positive_bias(layers: int) -> None:
    biases = train(layers)[1::2]
    assert len(biases) == layers
    assert all(b.max() <= 0 and b.min() < 0 for b in biases)
    pictures = unseen_pictures(600)
    f = trained_detector(layers).predict(pictures.x)[:, 0]
    assert ((f > 0.5) == pictures.wanted).mean() > 0.85
    assert f.min() >= 0


@pytest.mark.parametrize("layers", LAYERS)
@pytest.mark.parametrize("rule", RULES)
def test_relevance_is_conserved_positive_and_on_the_digit(rule: str, layers: int) -> None:
    pictures, f = found(layers)
    r = relevance(layers, RULES[rule])
    np.testing.assert_allclose(r.sum(1), f, rtol=1e-8)
    assert r.min() >= 0
    assert pictures.beside(r).mean() < 0.3


@pytest.mark.parametrize("layers", LAYERS)
def test_sensitivity_is_not(layers: int) -> None:
    pictures, f = found(layers)
    gradient = relevance(layers, "gradient")
    assert gradient.min() < -0.1
    sensitivity = gradient**2
    assert np.abs(sensitivity.sum(1) / f - 1).mean() > 0.3
    assert np.corrcoef(sensitivity.sum(1), f)[0, 1] < 0.8

    product = relevance(layers, "gradient_x_input")
    assert -np.minimum(product, 0).sum() > 0.1 * np.abs(product).sum()
    assert np.abs(product.sum(1) - f).max() > 0.1
    best = max(pictures.beside(relevance(layers, rule)).mean() for rule in RULES.values())
    assert pictures.beside(product).mean() > best


@pytest.mark.parametrize(("rule", "box"), [("w2", {}), ("z+", {}), ("zB", {"low": LOW, "high": HIGH})])
def test_one_layer_is_the_sum_of_its_neurons_expansions(rule: str, box: dict[str, float]) -> None:
    w, b = train(1)
    x = found(1)[0].x[:5]
    expected = [sum(decompose(x_i, w_j, b_j, rule, **box).first_order for w_j, b_j in zip(w, b, strict=True))
                for x_i in x]  # fmt: skip
    np.testing.assert_allclose(relevance(1, RULES[rule])[:5], expected, rtol=1e-8, atol=1e-12)
