"""Networks described by hand."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import lrpfast
from lrpfast import (
    AvgPool1d,
    AvgPool2d,
    AvgPool3d,
    BatchNorm,
    Builder,
    Concat,
    Conv1d,
    Conv2d,
    Conv3d,
    ConvTranspose1d,
    ConvTranspose2d,
    ConvTranspose3d,
    Dense,
    Flatten,
    GlobalAveragePool,
    GlobalMaxPool,
    LeakyReLU,
    MaxPool1d,
    MaxPool2d,
    MaxPool3d,
    ModelError,
    Pad,
    ReLU,
    ReLU6,
    Reshape,
    Sequential,
    Sigmoid,
    Softmax,
    Tanh,
    Transpose,
    layers,
)
from lrpfast.ops import Add, AveragePool, Clip, Conv, ConvTranspose, Gemm, LeakyRelu, MaxPool, Relu


def ones(*shape: int) -> np.ndarray:
    return np.ones(shape, np.float32)


def test_every_name_is_there_and_documented() -> None:
    for name in layers.__all__:
        layer = getattr(layers, name)
        assert getattr(lrpfast, name) is layer
        assert layer.__doc__


@pytest.mark.parametrize(
    ("layer", "input_shape", "output_shape"),
    [
        (Dense(ones(5, 3), ones(5)), (3,), (5,)),
        (Dense(ones(5, 3)), (7, 3), (7, 5)),
        (Conv1d(ones(4, 2, 3)), (2, 8), (4, 6)),
        (Conv1d(ones(4, 2, 3), ones(4), 2, 1, 2), (2, 8), (4, 3)),
        (Conv2d(ones(4, 2, 3, 5)), (2, 8, 9), (4, 6, 5)),
        (Conv2d(ones(4, 2, 3, 5), padding=(1, 2), stride=(2, 1)), (2, 8, 9), (4, 4, 9)),
        (Conv2d(ones(4, 1, 3, 3), groups=2), (2, 8, 9), (4, 6, 7)),
        (Conv3d(ones(4, 2, 1, 2, 3)), (2, 3, 4, 5), (4, 3, 3, 3)),
        (ConvTranspose1d(ones(2, 4, 3), stride=2), (2, 5), (4, 11)),
        (ConvTranspose2d(ones(2, 4, 3, 3), ones(4), 2, 1, 1), (2, 5, 6), (4, 10, 12)),
        (ConvTranspose2d(ones(2, 4, 3, 3), groups=2, dilation=2), (2, 5, 6), (8, 9, 10)),
        (ConvTranspose3d(ones(2, 4, 1, 2, 3)), (2, 3, 3, 3), (4, 3, 4, 5)),
        (MaxPool1d(2), (3, 9), (3, 4)),
        (MaxPool2d(2, ceil_mode=True), (3, 9, 8), (3, 5, 4)),
        (MaxPool2d((3, 2), 1, (1, 0)), (3, 9, 8), (3, 9, 7)),
        (MaxPool3d(2), (3, 4, 6, 8), (3, 2, 3, 4)),
        (AvgPool1d(3, 2), (3, 9), (3, 4)),
        (AvgPool2d(2), (3, 9, 8), (3, 4, 4)),
        (AvgPool3d((1, 2, 2)), (3, 4, 6, 8), (3, 4, 3, 4)),
        (GlobalAveragePool(), (3, 4, 6), (3, 1, 1)),
        (GlobalMaxPool(), (3, 4, 6), (3, 1, 1)),
        (BatchNorm(ones(3), ones(3), ones(3), ones(3)), (3, 4, 6), (3, 4, 6)),
        (Flatten(), (3, 4, 6), (72,)),
        (Reshape((6, 12)), (3, 4, 6), (6, 12)),
        (Transpose((2, 0, 1)), (3, 4, 6), (6, 3, 4)),
        (Pad((0, 1, 0, 0, 0, 2)), (3, 4, 6), (3, 5, 8)),
        (ReLU(), (3, 4), (3, 4)),
        (ReLU6(), (3, 4), (3, 4)),
        (LeakyReLU(0.1), (3, 4), (3, 4)),
        (Sigmoid(), (3, 4), (3, 4)),
        (Tanh(), (3, 4), (3, 4)),
        (Softmax(), (3, 4), (3, 4)),
    ],
)
def test_shapes(layer: Any, input_shape: tuple[int, ...], output_shape: tuple[int, ...]) -> None:
    network = Sequential(layer, input_shape=input_shape)
    assert network.input_shape == input_shape
    assert network.output_shape == output_shape
    assert network.predict(np.ones((2, *input_shape))).shape == (2, *output_shape)


def test_layers_are_operators_with_their_attributes() -> None:
    assert isinstance(Dense(ones(5, 3)), Gemm)
    conv = Conv2d(ones(4, 1, 3, 3), ones(4), stride=2, padding=(1, 0), dilation=(1, 2), groups=2)
    assert isinstance(conv, Conv)
    assert (conv.strides, conv.pads, conv.dilations, conv.groups) == ((2, 2), (1, 0, 1, 0), (1, 2), 2)
    transposed = ConvTranspose2d(ones(2, 4, 3, 3), stride=2, padding=1, output_padding=(1, 0), groups=2)
    assert isinstance(transposed, ConvTranspose)
    assert (transposed.pads, transposed.output_padding, transposed.groups) == ((1, 1, 1, 1), (1, 0), 2)
    assert MaxPool2d(3, 2, 1, True) == MaxPool((3, 3), (2, 2), (1, 1, 1, 1), ceil_mode=True)
    assert AvgPool2d(3) == AveragePool((3, 3), (3, 3), count_include_pad=True)
    assert not AvgPool2d(3, count_include_pad=False).count_include_pad
    assert (ReLU(), ReLU6(), LeakyReLU()) == (Relu(), Clip(0, 6), LeakyRelu(0.01))


def test_batch_normalisation_is_what_it_says() -> None:
    rng = np.random.default_rng(0)
    gamma, beta, mean = rng.normal(size=(3, 4))
    var = rng.uniform(0.5, 2, 4)
    x = rng.normal(size=(2, 4, 3, 3))
    network = Sequential(BatchNorm(gamma, beta, mean, var, eps=1e-3), input_shape=(4, 3, 3))
    g, b, m, v = (a.reshape(4, 1, 1) for a in (gamma, beta, mean, var))
    expected = g * (x - m) / np.sqrt(v + 1e-3) + b
    np.testing.assert_allclose(network.predict(x, dtype=np.float64), expected, rtol=1e-12, atol=1e-12)
    vector = Sequential(BatchNorm(gamma, beta, mean, var, eps=1e-3), input_shape=(4,))
    expected = gamma * (x[:, :, 0, 0] - mean) / np.sqrt(var + 1e-3) + beta
    np.testing.assert_allclose(vector.predict(x[:, :, 0, 0], dtype=np.float64), expected, rtol=1e-12)


# --- Sequential ---


def test_sequential_takes_its_shape_from_a_dense_layer() -> None:
    network = Sequential(Dense(ones(5, 3)), ReLU(), name="tiny")
    assert (network.name, network.is_bound, network.input_shape, network.output_shape) == (
        "tiny",
        True,
        (3,),
        (5,),
    )
    assert [node.name for node in network.graph.nodes] == ["Gemm_0", "Relu_1"]
    rows = Sequential(Dense(ones(5, 3)), input_shape=(7, 3))  # unless it is told another
    assert rows.output_shape == (7, 5)


def test_sequential_fits_several_shapes_until_it_is_bound() -> None:
    network = Sequential(Conv2d(ones(4, 2, 3, 3)), GlobalAveragePool(), Flatten(), Dense(ones(3, 4)))
    assert not network.is_bound
    assert repr(network) == "<Network 'network': its shape comes with its input>"
    assert network.predict(np.ones((1, 2, 5, 5))).shape == (1, 3)
    assert network.predict(np.ones((1, 2, 8, 6))).shape == (1, 3)
    bound = network.at((2, 5, 5))
    assert (bound.is_bound, bound.input_shape, bound.output_shape) == (True, (2, 5, 5), (3,))
    assert network.at((2, 5, 5)) is bound
    assert bound.at((9, 9, 9)) is bound  # its shape is fixed
    with pytest.raises(ModelError, match=r"give input_shape=, or call \.at"):
        _ = network.hash


def test_the_readme_network() -> None:
    w, w2 = np.full((4, 1, 3, 3), 0.1, np.float32), ones(3, 64)
    network = Sequential(Conv2d(w, ones(4), padding=1), ReLU(), MaxPool2d(2), Flatten(), Dense(w2, ones(3)))
    explanation = lrpfast.explain(network, np.ones((1, 1, 8, 8)))
    assert explanation.relevance.shape == (1, 1, 8, 8)


# --- Builder ---


def test_branches() -> None:
    build = Builder((2, 4, 4))
    left = build(Conv2d(ones(2, 2, 1, 1)), build.input, name="left")
    right = build(ReLU(), build.input)
    total = build(Add(), left, right, build.input, name="total")
    joined = build(Concat(0), total, build.input)
    network = build.network(joined, name="branches")
    assert (left, right, joined) == ("left", "Relu_1", "Concat_3")
    assert network.name == "branches"
    assert network.output_shape == (4, 4, 4)
    x = np.random.default_rng(0).normal(size=(2, 2, 4, 4))
    summed = x.sum(axis=1, keepdims=True) + np.maximum(x, 0) + x
    np.testing.assert_allclose(
        network.predict(x, dtype=np.float64), np.concatenate([summed, x], 1), rtol=1e-12
    )


def test_one_builder_can_end_in_several_networks() -> None:
    build = Builder((3,))
    a = build(Dense(ones(4, 3)), build.input)
    b = build(Dense(ones(2, 4)), build(ReLU(), a))
    assert [node.name for node in build.network(a).graph.nodes] == ["Gemm_0"]
    assert build.network(b).output_shape == (2,)
    assert len(build.network(b).graph.nodes) == 3


# --- mistakes ---


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: Sequential(), "Sequential got no layers"),
        (lambda: Sequential(Dense), "is not a layer; use lrpfast.Dense"),
        (lambda: Sequential(Conv2d(ones(1, 1, 3, 3)), "relu"), "'relu' is not a layer"),
        (lambda: Sequential(ReLU, input_shape=(3,)), "is not a layer"),
        (lambda: Dense(ones(5)), r"Dense got a weight of shape \(5,\); expected 2 axes"),
        (lambda: Dense(ones(5, 3), ones(3)), "bias has 3 elements; expected 5"),
        (lambda: Conv2d(ones(4, 2, 3)), r"Conv2d got a weight of shape \(4, 2, 3\); expected 4 axes"),
        (lambda: ConvTranspose3d(ones(4, 2, 3)), "ConvTranspose3d got a weight of shape"),
        (
            lambda: Conv2d(ones(4, 2, 3, 3), stride=(1, 1, 1)),
            r"stride is \(1, 1, 1\); expected a whole number, or 2",
        ),
        (
            lambda: Conv1d(ones(4, 2, 3), padding=(1, 1)),
            r"padding is \(1, 1\); expected a whole number, or 1",
        ),
        (lambda: Conv2d(ones(4, 2, 3, 3), stride=0), "strides"),
        (lambda: Conv2d(ones(4, 2, 3, 3), padding=-1), "pads"),
        (lambda: Conv2d(ones(4, 2, 3, 3), stride=1.5), "stride is 1.5; expected a whole number"),
        (lambda: Conv2d(ones(4, 2, 3, 3), stride="2"), "stride is '2'; expected a whole number"),
        (lambda: Conv2d(ones(4, 2, 3, 3), dilation=(1.0, 1.0)), r"dilation is \(1.0, 1.0\)"),
        (lambda: Conv2d(ones(4, 2, 3, 3), groups=3), "groups is 3"),
        (lambda: Conv2d(ones(4, 2, 3, 3), ones(5)), r"bias has shape \(5,\)"),
        (lambda: MaxPool2d((2, 2, 2)), r"window is \(2, 2, 2\); expected a whole number, or 2"),
        (lambda: MaxPool2d(0), "window"),
        (lambda: Dense([["a", "b"]]), "weight has dtype"),
        (lambda: Dense(np.full((2, 2), np.nan)), "weight .* holds NaN or infinity"),
        (lambda: LeakyReLU(float("nan")), "alpha is nan"),
        (
            lambda: Sequential(BatchNorm(ones(3), ones(3), ones(3), -ones(3)), input_shape=(3,)),
            r"variance \+ epsilon is -0.99999 in a channel",
        ),
        (
            lambda: Sequential(BatchNorm(ones(3), ones(3), ones(4), ones(3)), input_shape=(3,)),
            "different lengths",
        ),
        (
            lambda: Sequential(BatchNorm(*[ones(3)] * 4), input_shape=(4,)),
            r"shape \(3,\), which does not broadcast",
        ),
        (
            lambda: Sequential(Dense(ones(5, 3)), Dense(ones(2, 4))),
            r"node 'Gemm_1' \(Gemm\): .*last axis of 4",
        ),
        (lambda: Sequential(Conv2d(ones(4, 2, 3, 3)), input_shape=(2, 2, 2)), "too small for this network"),
        (lambda: Builder((3,))(ReLU()), r"a layer reads nothing; known arrays are input"),
        (lambda: Builder((3,))(ReLU(), "x"), r"a layer reads \['x'\]; known arrays are input"),
        (lambda: Builder((3,)).network("y"), "'y'"),
        (
            lambda: Builder((3,))(ReLU(), "input", "input"),
            r"node 'Relu_0' \(Relu\): it takes one array, but reads 2",
        ),
        (lambda: Builder((3,))(Dense(ones(2, 3)), "input", "input"), "it takes one array, but reads 2"),
        (lambda: Builder((0,)), r"input_shape is \(0,\); expected sizes ≥ 1"),
        (lambda: Sequential(ReLU(), input_shape=(-1, 3)), "input_shape"),
    ],
)
def test_mistakes(make: Any, words: str) -> None:
    with pytest.raises(ModelError, match=words):
        make()


def test_names_are_used_once() -> None:
    build = Builder((3,))
    a = build(ReLU(), build.input, name="relu")
    for name in ("relu", "input"):
        with pytest.raises(ModelError, match=f"node name '{name}' is used twice"):
            build(ReLU(), a, name=name)
