"""Products and quotients of activations: forward, gradients, gates and rules."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from onnx_models import model_of, node

import lrpfast
from lrpfast import Builder, Conv2d, Halves, Network, Sigmoid, SignalTakesAll
from lrpfast.ops import Div, Mul
from lrpfast.ops.base import Array

RNG = np.random.default_rng(3)
SHAPES = [((4, 3), (4, 3)), ((4, 3), (4, 1)), ((1, 3), (4, 1)), ((2, 5, 6), (2, 1, 1)), ((1, 5), (3, 1))]


def pair(a: tuple[int, ...], b: tuple[int, ...]) -> tuple[Array, Array]:
    return RNG.standard_normal((2, *a)), RNG.uniform(0.5, 2, (2, *b))


@pytest.mark.parametrize(("a", "b"), SHAPES)
@pytest.mark.parametrize("op", [Mul(), Div()], ids=["Mul", "Div"])
def test_vjp_is_the_transposed_jacobian(op: Any, a: tuple[int, ...], b: tuple[int, ...]) -> None:
    x, step = pair(a, b), 1e-6
    z = op.forward(*x)
    s = RNG.standard_normal(z.shape)
    for i, found in enumerate(op.vjp(x, z, s)):
        direction = RNG.standard_normal(x[i].shape)
        ends = [
            op.forward(*(v + (k * step * direction if j == i else 0) for j, v in enumerate(x)))
            for k in (1, -1)
        ]
        slope = (s * (ends[0] - ends[1])).sum() / (2 * step)
        assert (found * direction).sum() == pytest.approx(slope, rel=1e-6, abs=1e-7)


@pytest.mark.parametrize(("a", "b"), SHAPES)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_rules(backend: str, a: tuple[int, ...], b: tuple[int, ...], dtype: Any) -> None:
    x = tuple(v.astype(dtype) for v in pair(a, b))
    r = RNG.standard_normal(Mul().forward(*x).shape).astype(dtype)

    def total(shape: tuple[int, ...]) -> Array:
        axes = tuple(i for i, n in enumerate((2, *shape)) if n == 1)
        return r.sum(axis=axes, keepdims=True) if axes else r

    for op, rule, shares in (
        (Mul(0), SignalTakesAll(), (1, 0)), (Mul(1), SignalTakesAll(), (0, 1)), (Mul(), Halves(), (0.5, 0.5)),
        (Div(), SignalTakesAll(), (1, 0)), (Div(), Halves(), (0.5, 0.5)),
    ):  # fmt: skip
        found = lrpfast.propagate(rule, op, x, r, backend=backend, dtype=dtype)
        for each, share, shape in zip(found, shares, (a, b), strict=True):
            np.testing.assert_allclose(each, share * total(shape), rtol=1e-5, atol=1e-6)


def squeeze_and_excitation(channels: int) -> Network:
    rng = np.random.default_rng(channels)
    build = Builder((3, 6, 6))
    x = build(Conv2d(rng.standard_normal((channels, 3, 3, 3))), build.input, name="conv")
    squeezed = build(lrpfast.GlobalAveragePool(), x)
    gate = build(Sigmoid(), build(Conv2d(rng.standard_normal((channels, channels, 1, 1))), squeezed))
    y = build(Mul(), gate, x, name="mul")
    return build.network(build(lrpfast.GlobalAveragePool(), build(lrpfast.ReLU(), y)))


@pytest.mark.parametrize("channels", [16, 5])
def test_the_signal_of_squeeze_and_excitation_takes_all(backend: str, channels: int) -> None:
    network = squeeze_and_excitation(channels)
    assert network.canonized().changes[-1] == "mul: Sigmoid_3 gates conv, squeeze-and-excitation"
    x = RNG.standard_normal((2, 3, 6, 6))
    expected = [x]
    for n in network.graph.nodes:
        values = dict(zip(["input", *(m.output for m in network.graph.nodes)], expected, strict=False))
        expected.append(n.op.forward(*(values[name] for name in n.inputs)))
    options: dict[str, Any] = {"backend": backend, "dtype": np.float64}
    np.testing.assert_allclose(network.predict(x, **options), expected[-1], rtol=1e-9)
    target = np.ones((channels, 1, 1))
    explanation = lrpfast.explain(network, x, target, "epsilon_plus", record="all", **options)
    np.testing.assert_array_equal(explanation.layers["conv"], explanation.layers["mul"])
    assert not explanation.layers["Sigmoid_3"].any()
    assert explanation.conservation.worst < 1e-11
    assert [row.node for row in explanation.conservation][-2:] == ["mul", "conv"]


def test_gradient_goes_through_both_factors(backend: str) -> None:
    network = squeeze_and_excitation(16)
    x, step = RNG.standard_normal((1, 3, 6, 6)), 1e-6
    target = RNG.standard_normal((16, 1, 1))
    options: dict[str, Any] = {"backend": backend, "dtype": np.float64}
    found = lrpfast.explain(network, x, target, "gradient", **options).relevance
    direction = RNG.standard_normal(x.shape)
    ends = [(target * network.predict(x + k * step * direction, **options)).sum() for k in (1, -1)]
    assert (found * direction).sum() == pytest.approx((ends[0] - ends[1]) / (2 * step), rel=1e-5)


# What gates an array is made of another one: x · sigmoid(x) is SiLU, not a gate.
TURNED = node("Transpose", "x", "t", perm=[0, 1, 3, 2])


@pytest.mark.parametrize(
    ("nodes", "signal"),
    [
        ([TURNED, node("Sigmoid", "t", "g"), node("Mul", "x g")], 0),
        ([TURNED, node("Sigmoid", "t", "g"), node("Mul", "g x")], 1),
        ([node("Softmax", "x", "g"), node("Transpose", "g", "t", perm=[0, 1, 2, 3]), node("Mul", "t x")], 1),
        ([TURNED, node("Sigmoid", "x", "g"), node("Sigmoid", "t", "h"), node("Mul", "h g")], None),
        ([TURNED, node("Tanh", "t", "g"), node("Mul", "x g")], None),
        ([node("GlobalAveragePool", "x", "g"), node("Mul", "g x")], 1),
        ([node("Mul", "x x")], None),
    ],
)
def test_gates_are_found(nodes: Any, signal: int | None) -> None:
    graph = lrpfast.load(model_of(nodes, ("n", 4, 3, 3))).canonized().graph
    assert graph.nodes[-1].op == Mul(signal)
    rules = lrpfast.Explainer(lrpfast.load(model_of(nodes, ("n", 4, 3, 3))), "epsilon_plus")
    x = RNG.standard_normal((1, 4, 3, 3))
    given = rules(x, target=np.ones((4, 3, 3))).manifest["rules"][graph.nodes[-1].name]
    assert given == ("Halves()" if signal is None else "SignalTakesAll()")


def test_signal_takes_all_needs_a_gate() -> None:
    with pytest.raises(lrpfast.RuleError, match="is for operators of kind gating only"):
        x = np.ones((1, 3))
        lrpfast.propagate(SignalTakesAll(), Mul(), (x, x), x)


def test_shapes_that_do_not_fit() -> None:
    with pytest.raises(
        lrpfast.ModelError, match=r"shapes \[\(3,\), \(2,\)\] per sample; expected equal sizes"
    ):
        lrpfast.propagate(Halves(), Mul(), (np.ones((1, 3)), np.ones((1, 2))), np.ones((1, 3)))


def test_division_by_zero_is_reported() -> None:
    network = lrpfast.load(model_of([node("Relu", "x", "h"), node("Div", "x h")], ("n", 3)))
    with pytest.raises(lrpfast.NonFiniteError, match="node 'Div_1'"):
        network.predict([[1.0, -1.0, 2.0]])
