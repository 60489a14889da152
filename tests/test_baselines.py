"""Gradient-type baselines against finite differences and the formulas of their papers."""

from __future__ import annotations

import numpy as np
import pytest
from toy_networks import W1, W2, W3, X, mlp, mlp_values

import lrpfast
from lrpfast import (
    Builder,
    Conv2d,
    Dense,
    Flatten,
    LeakyReLU,
    MaxPool2d,
    Sequential,
    Sigmoid,
    Softmax,
    Tanh,
    explain,
)
from lrpfast.ops import Add


def test_gradient_is_what_finite_differences_say(backend: str) -> None:
    """Smooth activations, and inputs that are far from the kinks of the others."""
    rng = np.random.default_rng(3)
    build = Builder((2, 7, 6))
    a = build(
        Tanh(), build(Conv2d(rng.normal(0, 0.3, (4, 2, 3, 3)), rng.normal(size=4), padding=1), build.input)
    )
    b = build(Sigmoid(), build(Conv2d(rng.normal(0, 0.3, (4, 1, 3, 3)), padding=1, groups=4), a))
    c = build(LeakyReLU(0.2), build(Conv2d(rng.normal(0, 0.3, (4, 4, 1, 1)), rng.normal(size=4)), a))
    a = build(MaxPool2d(2), build(Add(), b, c))
    a = build(Softmax(), build(Dense(rng.normal(0, 0.3, (3, 36)), rng.normal(size=3)), build(Flatten(), a)))
    network = build.network(build(Dense(rng.normal(size=(2, 3))), a))
    x, h = rng.normal(size=(2, 2, 7, 6)), 1e-6
    explanation = explain(network, x, 1, "gradient", backend=backend, dtype=np.float64)
    for place in [(0, 0, 0, 0), (0, 1, 3, 2), (1, 0, 6, 5), (1, 1, 2, 4)]:
        step = np.zeros_like(x)
        step[place] = h
        plus, minus = (network.predict(x + sign * step, dtype=np.float64)[place[0], 1] for sign in (1, -1))
        assert explanation.relevance[place] == pytest.approx((plus - minus) / (2 * h), rel=1e-5, abs=1e-9)


def test_gradient_and_gradient_times_input(backend: str) -> None:
    x, z1, z2, _ = mlp_values(X)
    expected = ((W3[1] * (z2 > 0)) @ W2 * (z1 > 0)) @ W1
    for name, result in (("gradient", expected), ("gradient_x_input", expected * x)):
        explanation = explain(mlp(), X, 1, name, backend=backend, dtype=np.float64)
        np.testing.assert_allclose(explanation.relevance, result, rtol=1e-12, atol=1e-12)


def test_deconvnet(backend: str) -> None:
    r = np.maximum(np.tile(W3[1], (3, 1)), 0) @ W2
    expected = np.maximum(r, 0) @ W1
    explanation = explain(mlp(), X, 1, "deconvnet", backend=backend, dtype=np.float64)
    np.testing.assert_allclose(explanation.relevance, expected, rtol=1e-12, atol=1e-12)


def test_guided_backprop(backend: str) -> None:
    _, z1, z2, _ = mlp_values(X)
    r = (np.maximum(np.tile(W3[1], (3, 1)), 0) * (z2 > 0)) @ W2
    expected = (np.maximum(r, 0) * (z1 > 0)) @ W1
    explanation = explain(mlp(), X, 1, "guided_backprop", backend=backend, dtype=np.float64)
    np.testing.assert_allclose(explanation.relevance, expected, rtol=1e-12, atol=1e-12)


def test_guided_backprop_stops_at_units_that_are_clipped(backend: str) -> None:
    network = Sequential(Dense(np.array([[1.0], [1.0]])), lrpfast.ReLU6(), Dense(np.array([[2.0, 3.0]])))
    for value, expected in ((7.0, 0), (5.0, 5), (-1.0, 0)):
        explanation = explain(network, np.array([[value]]), 0, "guided_backprop", backend=backend)
        assert explanation.relevance.item() == expected


def test_excitation_backprop(backend: str) -> None:
    """Zhang et al. 2018: P(a_j) = Σ_k a_j w⁺_jk P(a_k) / Σ_i a_i w⁺_ik, beginning with probability 1."""
    x, z1, z2, _ = mlp_values(np.abs(X))
    p = np.tile(np.eye(3)[1], (3, 1))
    for a, w in ((np.maximum(z2, 0), W3), (np.maximum(z1, 0), W2), (x, W1)):
        positive = np.maximum(w, 0)
        z = a @ positive.T
        p = a * (np.divide(p, z, out=np.zeros_like(p), where=z > 0) @ positive)
    explanation = explain(mlp(), np.abs(X), 1, "excitation_backprop", backend=backend, dtype=np.float64)
    np.testing.assert_allclose(explanation.relevance, p, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(explanation.relevance.sum(axis=1), 1, rtol=1e-4)
