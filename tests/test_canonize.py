"""Canonisation: the same function to rounding, and no more folded than may be."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import lrpfast
from lrpfast import (
    AvgPool2d,
    BatchNorm,
    Builder,
    Conv1d,
    Conv2d,
    Conv3d,
    ConvTranspose2d,
    Dense,
    Flatten,
    MaxPool2d,
    Network,
    Pad,
    ReLU,
    Sequential,
    Softmax,
)
from lrpfast.canonize import Canonized, canonize
from lrpfast.graph import Fact, Graph, Node
from lrpfast.ops import Add, Affine, Conv, Gemm, Identity
from lrpfast.original import digest

RNG = np.random.default_rng(4)


def normal(*shape: int) -> np.ndarray:
    return RNG.normal(size=shape)


def norm(channels: int) -> Any:
    """Batch normalisation of which nothing is trivial."""
    return BatchNorm(
        normal(channels), normal(channels), normal(channels), RNG.uniform(0.5, 2, channels), eps=1e-3
    )


def values(graph: Graph, x: np.ndarray) -> np.ndarray:
    """The graph's output by the operators' own definitions."""
    arrays = dict.fromkeys(graph.inputs, x)
    for node in graph.nodes:
        arrays[node.output] = node.op.forward(*(arrays[name] for name in node.inputs))
    return arrays[graph.output]


def check(network: Network, dtype: Any = np.float64) -> Canonized:
    """That canonisation leaves the function as it is."""
    canonized = canonize(network.graph, dtype)
    x = np.random.default_rng(0).normal(size=(3, *network.input_shape)).astype(dtype)
    before, after = values(network.graph, x), values(canonized.graph, x)
    if canonized.head is not None:
        after = canonized.head.forward(after)
    assert before.dtype == after.dtype == dtype
    tolerance = 1e-12 if dtype == np.float64 else 1e-6
    np.testing.assert_allclose(after, before, rtol=0, atol=tolerance * np.abs(before).max())
    return canonized


def kinds(canonized: Canonized) -> list[str]:
    return [node.op.kinds[0] for node in canonized.graph.nodes]


LINEAR = {
    "dense": (Dense(normal(4, 6), normal(4)), (6,)),
    "dense, no bias": (Dense(normal(4, 6)), (6,)),
    "dense, two axes": (Dense(normal(4, 5), normal(4)), (3, 5)),
    "conv1d": (Conv1d(normal(4, 3, 3), normal(4)), (3, 8)),
    "conv2d": (Conv2d(normal(4, 3, 3, 3), normal(4), padding=1), (3, 5, 5)),
    "conv2d, no bias": (Conv2d(normal(4, 3, 3, 3), stride=2), (3, 6, 5)),
    "conv2d, grouped": (Conv2d(normal(4, 3, 3, 3), normal(4), groups=2), (6, 5, 5)),
    "conv2d, depthwise": (Conv2d(normal(4, 1, 3, 3), normal(4), groups=4), (4, 5, 5)),
    "conv3d": (Conv3d(normal(4, 2, 2, 2, 2), normal(4)), (2, 3, 4, 3)),
    "transposed": (ConvTranspose2d(normal(3, 4, 3, 3), normal(4), stride=2), (3, 4, 4)),
    "transposed, grouped": (ConvTranspose2d(normal(6, 2, 3, 3), normal(4), groups=2, padding=1), (6, 4, 4)),
}


def affine_after(layer: str) -> Any:
    """One number per output channel."""
    op, shape = LINEAR[layer]
    axes = len(shape) - 1
    column = (4,) if isinstance(op, Gemm) else (4, *[1] * axes)
    return Affine(normal(*column), normal(*column))


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("layer", LINEAR)
def test_affine_is_folded_into_the_linear_layer_before_it(layer: str, dtype: Any) -> None:
    op, shape = LINEAR[layer]
    canonized = check(Sequential(op, affine_after(layer), ReLU(), input_shape=shape), dtype)
    assert kinds(canonized) == [op.kinds[0], "Relu"]
    folded = canonized.graph.nodes[0].op
    assert folded.weight.dtype == folded.bias.dtype == dtype
    assert canonized.changes == (f"Affine_1: folded into {op.kinds[0]}_0 before it",)


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("layer", [name for name in LINEAR if "transposed" not in name])
def test_affine_is_folded_into_the_linear_layer_after_it(layer: str, dtype: Any) -> None:
    """Behind an activation, where there is no linear layer before it. Padding would not be shifted."""
    op, shape = LINEAR[layer]
    column = shape[-1:] if isinstance(op, Gemm) else (shape[0], *[1] * (len(shape) - 1))
    padded = isinstance(op, Conv) and any(op.pads)
    for shift in (normal(*column), np.zeros(column)):
        canonized = check(Sequential(ReLU(), Affine(normal(*column), shift), op, input_shape=shape), dtype)
        name = op.kinds[0]
        if padded and shift.any():
            assert kinds(canonized) == ["Relu", "Affine", name]
        else:
            assert kinds(canonized) == ["Relu", name]
            assert canonized.changes == (f"Affine_1: folded into {name}_2 after it",)


def test_affine_is_not_folded_into_a_transposed_convolution_after_it() -> None:
    op, shape = LINEAR["transposed"]
    canonized = check(Sequential(ReLU(), Affine(normal(3, 1, 1), normal(3, 1, 1)), op, input_shape=shape))
    assert kinds(canonized) == ["Relu", "Affine", "ConvTranspose"]


@pytest.mark.parametrize(
    ("layers", "shape"),
    [
        ((Conv2d(normal(4, 3, 3, 3)), norm(4), ReLU()), (3, 6, 6)),
        ((ConvTranspose2d(normal(4, 3, 3, 3), groups=2), norm(6), ReLU()), (4, 6, 6)),
        ((Dense(normal(4, 3)), norm(4), ReLU()), (3,)),
        ((Conv3d(normal(4, 3, 2, 2, 2), normal(4)), norm(4), ReLU()), (3, 3, 3, 3)),
    ],
)
def test_batch_normalisation_is_folded(layers: Sequence[Any], shape: tuple[int, ...]) -> None:
    for dtype in (np.float64, np.float32):
        assert kinds(check(Sequential(*layers, input_shape=shape), dtype)) == [layers[0].kinds[0], "Relu"]


def test_a_chain_of_scales_and_shifts_is_folded() -> None:
    """Mul, Add and batch normalisation, before and after."""
    scale, shift = Affine(normal(4, 1, 1), np.zeros(())), Affine(np.ones(()), normal(4, 1, 1))
    network = Sequential(
        ReLU(), scale, shift, Conv2d(normal(4, 4, 3, 3)), scale, shift, norm(4), ReLU(), input_shape=(4, 6, 6)
    )
    for dtype in (np.float64, np.float32):
        canonized = check(network, dtype)
        assert kinds(canonized) == ["Relu", "Conv", "Relu"]
        assert len(canonized.changes) == 5


def test_preprocessing_at_the_entry_is_merged_but_stays() -> None:
    """(x - mean) / std: folded into the first layer, it would move the zero that contributions count from."""
    minus_mean, by_std = Affine(np.ones(()), normal(3, 1, 1)), Affine(normal(3, 1, 1), np.zeros(()))
    network = Sequential(minus_mean, by_std, Conv2d(normal(4, 3, 3, 3)), norm(4), input_shape=(3, 6, 6))
    canonized = check(network)
    assert kinds(canonized) == ["Affine", "Conv"]
    assert canonized.changes == (
        "Affine_1: folded into Affine_0 before it", "BatchNormalization_3: folded into Conv_2 before it",
    )  # fmt: skip


def test_values_that_vary_within_a_channel_are_not_folded() -> None:
    op, shape = LINEAR["conv2d"]
    canonized = check(Sequential(op, Affine(normal(4, 5, 5), normal(5)), ReLU(), input_shape=shape))
    assert kinds(canonized) == ["Conv", "Affine", "Relu"]
    dense, shape = LINEAR["dense, two axes"]
    canonized = check(Sequential(dense, Affine(normal(3, 1), normal(3, 4)), ReLU(), input_shape=shape))
    assert kinds(canonized) == ["Gemm", "Affine", "Relu"]
    one = check(Sequential(op, Affine(normal(), normal()), ReLU(), input_shape=LINEAR["conv2d"][1]))
    assert kinds(one) == ["Conv", "Relu"]  # one number for all is one per channel


def test_what_others_read_too_is_left_alone() -> None:
    """The convolution's output is also a residual: the normalisation moves on to the next convolution."""
    build = Builder((3, 6, 6))
    a = build(Conv2d(normal(4, 3, 3, 3)), build.input, name="first")
    b = build(norm(4), a, name="norm")
    b = build(Conv2d(normal(4, 4, 1, 1)), b, name="second")
    network = build.network(build(Add(), a, b))
    canonized = check(network)
    assert kinds(canonized) == ["Conv", "Conv", "Add"]
    assert canonized.changes == ("norm: folded into second after it",)

    build = Builder((3, 6, 6))
    a = build(Conv2d(normal(4, 3, 3, 3)), build.input)
    b = build(norm(4), a)
    network = build.network(build(Add(), a, build(ReLU(), b), b))
    assert kinds(check(network)) == ["Conv", "BatchNormalization", "Relu", "Add"]


def test_an_affine_output_of_the_network_is_folded_backwards_only() -> None:
    assert kinds(check(Sequential(Dense(normal(4, 6)), norm(4)))) == ["Gemm"]
    assert kinds(check(Sequential(ReLU(), norm(6), input_shape=(6,)))) == ["Relu", "BatchNormalization"]


def test_identities_are_dropped() -> None:
    network = Sequential(Identity(), Dense(normal(4, 6)), Identity(), ReLU(), Identity(), input_shape=(6,))
    canonized = check(network)
    assert kinds(canonized) == ["Gemm", "Relu"]
    assert canonized.changes == tuple(f"Identity_{i}: dropped, it does nothing" for i in (0, 2, 4))
    assert canonized.graph.inputs == network.graph.inputs
    only = check(Sequential(Identity(), input_shape=(6,)))
    assert kinds(only) == []


def test_a_network_of_identities_can_be_explained() -> None:
    x = np.array([[3.0, -1.0]])
    explanation = lrpfast.explain(Sequential(Identity(), input_shape=(2,)), x)
    np.testing.assert_array_equal(explanation.relevance, [[3, 0]])


@pytest.mark.parametrize(("axis", "shape", "cut"), [
    (-1, (4,), True), (0, (4,), True), (0, (4, 3, 3), True), (-3, (4, 3, 3), True), (-1, (4, 3, 3), False),
    (1, (4, 3, 3), False),
])  # fmt: skip
def test_a_final_softmax_over_the_classes_is_cut_off(axis: int, shape: tuple[int, ...], cut: bool) -> None:
    network = Sequential(ReLU(), Softmax(axis), input_shape=shape)
    canonized = check(network)
    assert (canonized.head is not None) == cut
    assert kinds(canonized) == (["Relu"] if cut else ["Relu", "Softmax"])
    x = normal(2, *shape)
    expected = values(network.graph, x.astype(np.float32))
    np.testing.assert_allclose(network.predict(x), expected, rtol=1e-5)


def test_a_softmax_in_the_middle_stays() -> None:
    network = Sequential(Dense(normal(4, 6)), Softmax(), Dense(normal(2, 4)))
    canonized = check(network)
    assert canonized.head is None
    assert kinds(canonized) == ["Gemm", "Softmax", "Gemm"]


def test_zero_padding_is_left_to_the_convolution() -> None:
    conv = Conv2d(normal(4, 3, 3, 3), normal(4), padding=(1, 0))
    network = Sequential(Pad((0, 1, 2, 0, 0, 1)), conv, ReLU(), input_shape=(3, 5, 5))
    for dtype in (np.float64, np.float32):
        canonized = check(network, dtype)
        assert kinds(canonized) == ["Conv", "Relu"]
        assert canonized.graph.nodes[0].op.pads == (2, 2, 1, 1)
        assert canonized.changes == ("Pad_0: folded into Conv_1 after it",)


@pytest.mark.parametrize(
    "layers",
    [
        (Pad((0, 1, 1, 0, 1, 1), 1.0), Conv2d(normal(4, 3, 3, 3))),  # not zeros
        (Pad((1, 0, 0, 0, 0, 0)), Conv2d(normal(4, 4, 3, 3))),  # channels
        (Pad((0, 1, 1, 0, 1, 1)), MaxPool2d(2)),
        (Pad((0, 1, 1, 0, 1, 1)), AvgPool2d(2)),
        (Pad((0, 1, 1, 0, 1, 1)), ReLU(), Conv2d(normal(4, 3, 3, 3))),
    ],
)
def test_other_padding_stays(layers: Sequence[Any]) -> None:
    assert kinds(check(Sequential(*layers, input_shape=(3, 5, 5))))[0] == "Pad"


def test_padding_that_others_read_too_stays() -> None:
    build = Builder((3, 5, 5))
    a = build(Pad((0, 1, 1, 0, 1, 1)), build.input)
    network = build.network(build(Add(), build(Conv2d(normal(3, 3, 3, 3), padding=1), a), a))
    assert kinds(check(network)) == ["Pad", "Conv", "Add"]


def test_a_shift_before_padding_is_not_moved_behind_it() -> None:
    """Once the padding is the convolution's, the shift before it must not be folded in."""
    network = Sequential(
        ReLU(), norm(3), Pad((0, 1, 1, 0, 1, 1)), Conv2d(normal(4, 3, 3, 3)), input_shape=(3, 5, 5)
    )
    assert kinds(check(network)) == ["Relu", "BatchNormalization", "Conv"]


def test_nodes_that_nothing_needs_are_left_out() -> None:
    nodes = (
        Node("dense", Dense(normal(4, 6)), ("x",), "y"),
        Node("spare", Affine(normal(4), normal(4)), ("y",), "z"),
    )
    network = Network(Graph({"x": Fact((6,))}, nodes, "y"))
    canonized = check(network)
    assert [node.name for node in canonized.graph.nodes] == ["dense"]
    explanation = lrpfast.explain(network, normal(2, 6))
    assert len(explanation.conservation) == 1


def test_the_original_network_is_left_as_it_was() -> None:
    network = Sequential(Dense(normal(4, 6)), norm(4), ReLU())
    before, nodes = network.hash, network.graph.nodes
    canonized = network.canonized()
    assert network.canonized() is canonized
    assert network.graph.nodes is nodes
    assert digest(network.graph) == before


def test_canonization_error_is_rounding() -> None:
    network = Sequential(
        Conv2d(normal(8, 3, 3, 3), normal(8)), norm(8), ReLU(), Conv2d(normal(8, 8, 3, 3)), norm(8), ReLU(),
        Flatten(), Dense(normal(4, 8 * 16)), norm(4), Softmax(), input_shape=(3, 8, 8),
    )  # fmt: skip
    assert 0 < network.canonization_error() < 2e-6
    assert network.canonization_error(dtype=np.float64) < 1e-13
    assert network.canonization_error(normal(2, 3, 8, 8)) < 2e-6


def test_canonization_error_sees_a_network_that_is_not_the_same() -> None:
    """The measure itself: against a canonised network with another weight."""
    network = Sequential(Dense(normal(4, 6)), ReLU())
    other = Sequential(Dense(normal(4, 6)), ReLU())
    network._canonized[np.dtype(np.float32)] = other.canonized()
    assert network.canonization_error() > 0.1


@st.composite
def chains(draw: Any) -> Network:
    """Layers that fold, that do not, and that stand in the way, in any order; with a branch now and then."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    channels = draw(st.integers(1, 2)) * 2
    build = Builder((channels, 6, 5))
    value = earlier = build.input
    for kind in draw(st.lists(st.sampled_from(sorted(CHAIN)), min_size=1, max_size=7)):
        if kind == "add":
            shapes = [build._facts[name].shape for name in (value, earlier)]
            if shapes[0] == shapes[1]:
                value = build(Add(), value, earlier)
        else:
            earlier, value = value, build(CHAIN[kind](rng, channels), value)
    return build.network(value)


CHAIN: dict[str, Any] = {
    "conv": lambda rng, c: Conv2d(rng.normal(size=(c, c, 2, 2)), rng.normal(size=c), padding=1),
    "grouped": lambda rng, c: Conv2d(rng.normal(size=(c, c // 2, 1, 1)), groups=2),
    "transposed": lambda rng, c: ConvTranspose2d(rng.normal(size=(c, c // 2, 2, 2)), groups=2),
    "norm": lambda rng, c: Affine(
        rng.normal(size=(c, 1, 1)), rng.normal(size=(c, 1, 1)), "BatchNormalization"
    ),
    "scale": lambda rng, c: Affine(rng.normal(size=()), np.zeros(())),
    "pad": lambda rng, c: Pad((0, 1, 0, 0, 0, 1)),
    "identity": lambda rng, c: Identity(),
    "relu": lambda rng, c: ReLU(),
    "add": None,
}


@settings(max_examples=150)
@given(network=chains())
def test_any_chain_is_the_same_function_afterwards(network: Network) -> None:
    canonized = check(network)
    assert not any(isinstance(node.op, Identity) for node in canonized.graph.nodes)
    again = canonize(canonized.graph, np.float64)
    assert again.changes == ()
    assert len(again.graph.nodes) == len(canonized.graph.nodes)
