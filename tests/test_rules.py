"""Every rule on every linear layer, on every backend, against the formula on the layer's matrix."""

from __future__ import annotations

from typing import Any

import numpy as np
import oracle
import pytest
from cases import LAYERS, RULES, STABILIZED_RULES, Case, fits, flatten, inputs, quarters, relevance
from conftest import BACKENDS
from hypothesis import given, settings
from hypothesis import strategies as st

import lrpfast
from lrpfast import (
    AlphaBeta,
    Builder,
    Composite,
    Dense,
    Epsilon,
    Explainer,
    Gamma,
    Pass,
    ReLU,
    Selector,
    WSquare,
    ZBox,
    ZPlus,
)
from lrpfast.ops import Add, AveragePool, Conv, ConvTranspose

TOLERANCE = {np.float64: 1e-12, np.float32: 1e-5}
"""Largest error, as a share of the largest relevance."""


def assert_close(got: Any, expected: Any, dtype: type, arrived: Any = 0.0) -> None:
    """Relevance that arrives counts too: what two outputs hand to one input may cancel there."""
    got, expected = np.asarray(got).reshape(-1), np.asarray(expected).reshape(-1)
    assert got.dtype == dtype
    largest = max(np.abs(expected).max(), np.abs(arrived).max())
    np.testing.assert_allclose(got, expected, rtol=0, atol=TOLERANCE[dtype] * largest)


def check_alone(rule: Any, function: Any, case: Case, seed: int, backend: str, n: int = 2) -> None:
    """The layer alone, its inputs of either sign."""
    layer, x = case.layer, inputs(case, seed, n)
    r = relevance(layer, flatten(x), seed)
    expected = function(layer, flatten(x), r)
    output_shape = case.op.forward(*x).shape
    for dtype in (np.float64, np.float32):
        several = len(x) > 1
        got = lrpfast.propagate(
            rule, case.op, x if several else x[0], r.reshape(output_shape), backend=backend, dtype=dtype
        )
        assert_close(flatten(got if several else (got,)).astype(dtype), expected, dtype, r)


def check_after_relu(rule: Any, function: Any, case: Case, seed: int, backend: str, n: int = 2) -> None:
    """The layer behind a ReLU, where its inputs are known to be ≥ 0."""
    (shape,) = case.shapes
    layer, (x,) = case.layer, inputs(case, seed, n)
    r = relevance(layer, flatten((np.maximum(x, 0),)), seed)
    expected = function(layer, flatten((np.maximum(x, 0),)), r)
    build = Builder(shape)
    network = build.network(build(case.op, build(ReLU(), build.input, name="relu"), name="layer"))
    composite = Composite("test", ((Selector("Relu"), Pass()), (Selector(name="layer"), rule)))
    for dtype in (np.float64, np.float32):
        explain = Explainer(network, composite, backend=backend, dtype=dtype)
        ones = np.ones(network.output_shape)
        got = explain(x, target=ones, init=r.reshape(n, *network.output_shape))
        assert_close(got.relevance, expected, dtype, r)


def every(layers: Any, rules: Any) -> list[tuple[str, str]]:
    return [(layer, rule) for layer in layers for rule in rules if fits(LAYERS[layer], rules[rule][0])]


@pytest.mark.parametrize(("layer", "rule"), every(LAYERS, RULES))
def test_rule_on_layer(layer: str, rule: str, backend: str) -> None:
    case = LAYERS[layer]
    check_alone(*RULES[rule], case, 0, backend)
    if len(case.shapes) == 1:
        check_after_relu(*RULES[rule], case, 1, backend)


SHAPES = ("dense", "dense, two axes", "conv2d, padded", "conv3d, depthwise", "average pool 2d", "sum of two")
"""One layer for each way in which outputs are laid out."""


@pytest.mark.parametrize(("layer", "rule"), every(SHAPES, STABILIZED_RULES))
def test_stabilizer_on_layer(layer: str, rule: str, backend: str) -> None:
    case = LAYERS[layer]
    check_alone(*STABILIZED_RULES[rule], case, 0, backend)
    if len(case.shapes) == 1:
        check_after_relu(*STABILIZED_RULES[rule], case, 1, backend)


# --- layers of any geometry ---


@st.composite
def windows(draw: Any, transposed: bool = False) -> tuple[dict[str, Any], tuple[int, ...]]:
    """Kernel, strides, pads and dilations for 1 to 3 axes, and the size of an input that they fit."""
    axes = draw(st.integers(1, 3))
    small = 3 if axes < 3 else 2
    each = lambda least, most: draw(st.tuples(*[st.integers(least, most)] * axes))  # noqa: E731
    kernel, strides, dilations = each(1, small), each(1, small), each(1, 2)
    pads = each(0, 2) + each(0, 2)
    span = [(k - 1) * d + 1 for k, d in zip(kernel, dilations, strict=True)]
    extra = each(0, 3)
    if transposed:
        size = tuple(1 + e + -(-max(0, a + b - s + 1) // stride) for e, a, b, s, stride in zip(
            extra, pads[:axes], pads[axes:], span, strides, strict=True))  # fmt: skip
    else:
        size = tuple(max(1, s - a - b) + e for s, a, b, e in zip(
            span, pads[:axes], pads[axes:], extra, strict=True))  # fmt: skip
    return {"kernel": kernel, "strides": strides, "pads": pads, "dilations": dilations}, size


@st.composite
def convolutions(draw: Any, transposed: bool = False) -> Case:
    geometry, size = draw(windows(transposed))
    groups, into, out_of = draw(st.integers(1, 3)), draw(st.integers(1, 3)), draw(st.integers(1, 3))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    bias = quarters(rng, groups * out_of) if draw(st.booleans()) else None
    kernel = geometry.pop("kernel")
    if transposed:
        weight = quarters(rng, groups * into, out_of, *kernel)
        op: Any = ConvTranspose(weight, bias, **geometry, groups=groups)
    else:
        op = Conv(quarters(rng, groups * out_of, into, *kernel), bias, **geometry, groups=groups)
    return Case(op, ((groups * into, *size),))


@st.composite
def denses(draw: Any) -> Case:
    inside, outside = draw(st.integers(1, 20)), draw(st.integers(1, 20))
    axes = draw(st.lists(st.integers(1, 4), max_size=2))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    bias = quarters(rng, outside) if draw(st.booleans()) else None
    return Case(Dense(quarters(rng, outside, inside), bias), ((*axes, inside),))


@st.composite
def average_pools(draw: Any) -> Case:
    geometry, size = draw(windows())
    window, channels = geometry.pop("kernel"), draw(st.integers(1, 3))
    # A window must hold an element that is not padding.
    geometry["pads"] = tuple(min(p, k - 1) for p, k in zip(geometry["pads"], window * 2, strict=True))
    geometry["dilations"] = ()
    size = tuple(max(n, k) for n, k in zip(size, window, strict=True))
    op = AveragePool(window, **geometry, count_include_pad=draw(st.booleans()))
    return Case(op, ((channels, *size),))


@pytest.mark.parametrize("family", ["dense", "convolution", "transposed convolution", "average pool"])
@settings(max_examples=60)
@given(data=st.data())
def test_rules_on_layers_of_any_geometry(family: str, data: Any) -> None:
    cases = {
        "dense": denses(),
        "convolution": convolutions(),
        "transposed convolution": convolutions(transposed=True),
        "average pool": average_pools(),
    }
    case = data.draw(cases[family])
    rule = data.draw(st.sampled_from(sorted(RULES | STABILIZED_RULES)))
    rule, function = (RULES | STABILIZED_RULES)[rule]
    seed, n = data.draw(st.integers(0, 2**32 - 1)), data.draw(st.integers(1, 3))
    for backend in BACKENDS:
        check_alone(rule, function, case, seed, backend, n)
        check_after_relu(rule, function, case, seed, backend, n)


# --- numbers that round ---


@pytest.mark.parametrize("layer", ["dense", "conv2d", "conv2d, depthwise twofold", "transposed conv2d"])
@pytest.mark.parametrize("rule", [Epsilon(), ZPlus(), AlphaBeta(), Gamma(), ZBox(-2, 2), WSquare()], ids=str)
def test_float32_with_numbers_that_round(layer: str, rule: Any, backend: str) -> None:
    """Within 1e-5, save where z is within 1e-4 of what it is the sum of: no relevance is laid there."""
    case, (_, function) = LAYERS[layer], RULES[str(rule)]
    rng = np.random.default_rng(3)
    parameters = {
        name: (getattr(case.op, name) + rng.normal(0, 0.1, getattr(case.op, name).shape)).astype(np.float32)
        for name in ("weight", "bias")
    }
    case = Case(oracle.replace(case.op, **parameters), case.shapes)
    x = np.clip(rng.normal(size=(4, *case.shapes[0])), -2, 2).astype(np.float32)
    matrix, flat_x = case.layer, flatten((x,))
    magnitude = np.abs(flat_x) @ np.abs(matrix.w).T + np.abs(matrix.b)
    clear = np.abs(flat_x @ matrix.w.T + matrix.b) > 0.02 * magnitude
    assert clear.mean() > 0.8
    r = rng.normal(size=clear.shape).astype(np.float32) * clear
    shape = case.op.forward(x).shape
    got = lrpfast.propagate(rule, case.op, x, r.reshape(shape).astype(np.float32), backend=backend)
    assert_close(got, function(matrix, flat_x, r.astype(np.float64)), np.float32)


# --- what the table of layers cannot show ---


@pytest.mark.parametrize("layer", ["dense", "dense, two axes", "conv2d, padded", "average pool 2d"])
def test_box_with_bounds_for_each_input(layer: str, backend: str) -> None:
    case, rng = LAYERS[layer], np.random.default_rng(5)
    (shape,) = case.shapes
    low, high = -2 - np.abs(quarters(rng, *shape)), 2 + np.abs(quarters(rng, *shape))
    bounds = {"low": low.reshape(-1), "high": high.reshape(-1)}
    function = lambda layer, x, r: oracle.z_box(layer, x, r, **bounds)  # noqa: E731
    check_alone(ZBox(low, high), function, case, 0, backend)
    check_after_relu(ZBox(low, high), function, case, 0, backend)


def test_box_with_bounds_for_each_channel(backend: str) -> None:
    case = LAYERS["conv2d, padded"]
    low, high = np.array([-2.0, -3.0]).reshape(2, 1, 1), np.array([2.0, 4.0]).reshape(2, 1, 1)
    full = {
        name: np.broadcast_to(a, case.shapes[0]).reshape(-1) for name, a in (("low", low), ("high", high))
    }
    function = lambda layer, x, r: oracle.z_box(layer, x, r, **full)  # noqa: E731
    check_alone(ZBox(low, high), function, case, 0, backend)


SUM_RULES = [rule for rule in RULES if fits(LAYERS["sum of two"], RULES[rule][0])]


@pytest.mark.parametrize("rule", SUM_RULES)
@pytest.mark.parametrize("count", [2, 3])
def test_sum_of_inputs_that_are_not_negative(rule: str, count: int, backend: str) -> None:
    case = Case(Add(), ((5,),) * count)
    x = tuple(np.abs(a) for a in inputs(case, 0))
    layer = case.layer
    r = relevance(layer, flatten(x), 0)
    expected = RULES[rule][1](layer, flatten(x), r)
    # ReLUs of slices of the input, so that the signs are known.
    build = Builder((5 * count,))
    pieces = [
        build(ReLU(), build(lrpfast.ops.Slice((5 * i,), (1,), (5,)), build.input), name=f"relu{i}")
        for i in range(count)
    ]
    network = build.network(build(Add(), *pieces, name="layer"))
    composite = Composite("test", (("activation", Pass()), (Selector(name="layer"), RULES[rule][0])))
    for dtype in (np.float64, np.float32):
        explain = Explainer(network, composite, backend=backend, dtype=dtype)
        assert_close(explain(flatten(x), np.ones(5), r).relevance, expected, dtype)


@pytest.mark.parametrize("rule", SUM_RULES)
def test_an_array_added_to_itself(rule: str, backend: str) -> None:
    rng = np.random.default_rng(0)
    x = quarters(rng, 2, 5)
    layer = oracle.matrix(Add(), (5,), (5,))
    both = np.concatenate([x, x], axis=1)
    r = relevance(layer, both, 0)
    expected = RULES[rule][1](layer, both, r)
    build = Builder((5,))
    network = build.network(build(Add(), build.input, build.input, name="layer"))
    explain = Explainer(
        network, Composite("test", (("sum", RULES[rule][0]),)), backend=backend, dtype=np.float64
    )
    assert_close(explain(x, np.ones(5), r).relevance, expected[:, :5] + expected[:, 5:], np.float64)


@pytest.mark.parametrize("layer", ["affine per channel", "affine per element", "affine of a vector"])
def test_pass_on_layers_that_keep_their_shape(layer: str, backend: str) -> None:
    check_alone(Pass(), oracle.passed, LAYERS[layer], 0, backend)
    check_after_relu(Pass(), oracle.passed, LAYERS[layer], 0, backend)
