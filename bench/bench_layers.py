"""One layer with each rule: forward and back, as a plan runs it, on one thread.

The rules differ in how many products with the layer's matrix they take.
"""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
from pytest_benchmark.fixture import BenchmarkFixture

import lrpfast
from lrpfast import (
    AlphaBeta,
    Composite,
    Conv2d,
    Dense,
    Epsilon,
    Explainer,
    Flat,
    Gamma,
    Gradient,
    Network,
    Rule,
    Sequential,
    WSquare,
    ZBox,
    ZPlus,
)

RULES = (
    Gradient(), Epsilon(0.25), ZPlus(), AlphaBeta(2, 1), Gamma(0.25), ZBox(-5.0, 5.0), WSquare(), Flat(),
)  # fmt: skip


@cache
def layer(name: str) -> Network:
    """One layer of a well-known network."""
    rng = np.random.default_rng(0)
    if name == "vgg16_fc7":
        return Sequential(Dense(rng.normal(size=(4096, 4096)) / 64, rng.normal(size=4096)))
    conv = Conv2d(rng.normal(size=(64, 64, 3, 3)) / 24, rng.normal(size=64), padding=1)
    return Sequential(conv, input_shape=(64, 56, 56))


@pytest.mark.parametrize("name", ["resnet18_layer1", "vgg16_fc7"])
@pytest.mark.parametrize("rule", RULES, ids=lambda rule: type(rule).__name__)
def test_rule(benchmark: BenchmarkFixture, name: str, rule: Rule) -> None:
    network = layer(name)
    composite = Composite("one rule", (("linear", rule),))
    rng = np.random.default_rng(1)
    x = np.clip(rng.normal(size=(1, *network.input_shape)), -5, 5).astype(np.float32)
    everything = np.ones(network.output_shape, np.float32)
    relevance = np.maximum(rng.normal(size=(1, *network.output_shape)), 0).astype(np.float32)

    benchmark.group = name
    explainer = Explainer(network, composite, threads=1)
    explanation = benchmark(explainer, x, everything, relevance)
    (row,) = explanation.conservation
    assert row.r_in == pytest.approx(relevance.sum(dtype=np.float64))
    total, size = (a.sum(dtype=np.float64) for a in (explanation.relevance, np.abs(explanation.relevance)))
    assert row.r_out == pytest.approx(total, abs=1e-6 * size)
    if rule.conserves:
        assert explanation.conservation.worst < 1e-5
    else:
        transposed = lrpfast.propagate(rule, network.graph.nodes[0].op, x, relevance, backend="numpy")
        scale = np.abs(transposed).max()
        np.testing.assert_allclose(explanation.relevance, transposed, rtol=0, atol=1e-5 * scale)
