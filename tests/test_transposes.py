"""Transposes are moved to where they cancel: the same function, and networks with channels last like others."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx_models import evaluate

import lrpfast
from lrpfast import Network
from lrpfast.canonize import canonize
from lrpfast.graph import Fact, Graph, Node
from lrpfast.ops import Add, Affine, Concat, Conv, Gemm, LeakyRelu, MaxPool, Op, Pad, Relu, Reshape, Transpose
from lrpfast.transposes import with_transposes_late

RNG = np.random.default_rng(8)
LAST, FIRST = (1, 2, 0), (2, 0, 1)  # to channels last, and back


def normal(*shape: int) -> np.ndarray:
    return RNG.standard_normal(shape)


def graph_of(shape: tuple[int, ...], *steps: tuple[Op, str, str]) -> Graph:
    """Nodes called by their outputs; each reads the arrays in a string."""
    nodes = tuple(Node(output, op, tuple(inputs.split()), output) for op, inputs, output in steps)
    return Graph({"x": Fact(shape)}, nodes, nodes[-1].output)


def kinds(graph: Graph) -> list[str]:
    return [node.op.kinds[0] for node in graph.nodes]


W, B, V = normal(4, 3, 3, 3), normal(4), normal(5, 4, 3, 3)
SCALE, SHIFT = normal(4), normal(4)


def channels_last() -> Graph:
    """Convolution, bias, activation, normalisation, padding, a residual sum and a concatenation, as Keras has them."""
    return graph_of(
        (6, 6, 3),
        (Transpose(FIRST), "x", "t"), (Conv(W, pads=(1, 1, 1, 1)), "t", "c"), (Transpose(LAST), "c", "l"),
        (Affine(np.ones(1), B), "l", "b"), (Relu(), "b", "r"), (Affine(SCALE, SHIFT), "r", "n"),
        (Transpose(FIRST), "n", "u"), (Conv(np.repeat(V[:4], 1, 0), pads=(1, 1, 1, 1)), "u", "d"),
        (Transpose(LAST), "d", "e"), (Add(), "e n", "s"), (Transpose(FIRST), "s", "v"),
        (MaxPool((2, 2), (2, 2)), "v", "p"), (Transpose(LAST), "p", "q"), (Concat(2), "q q", "k"),
        (Pad((0, 1, 0, 1, 0, 0), 0.0), "k", "z"), (Transpose(FIRST), "z", "w"),
        (Conv(np.concatenate([V, V], 1)), "w", "f"), (LeakyRelu(0.1), "f", "o"),
    )  # fmt: skip


def channels_first() -> Graph:
    column = (4, 1, 1)
    return graph_of(
        (3, 6, 6),
        (Conv(W, B, pads=(1, 1, 1, 1)), "x", "c"), (Relu(), "c", "r"),
        (Affine(SCALE.reshape(column), SHIFT.reshape(column)), "r", "n"),
        (Conv(V[:4], pads=(1, 1, 1, 1)), "n", "d"), (Add(), "d n", "s"), (MaxPool((2, 2), (2, 2)), "s", "p"),
        (Concat(0), "p p", "k"), (Pad((0, 0, 1, 0, 1, 0), 0.0), "k", "z"),
        (Conv(np.concatenate([V, V], 1)), "z", "f"), (LeakyRelu(0.1), "f", "o"),
    )  # fmt: skip


def test_a_network_with_channels_last_becomes_one_with_channels_first() -> None:
    last, first = canonize(channels_last(), np.float64), canonize(channels_first(), np.float64)
    assert kinds(last.graph) == ["Transpose", *kinds(first.graph)]
    assert "transposes moved towards the output: 1 of 7 are left" in last.changes
    x = normal(2, 6, 6, 3)
    np.testing.assert_allclose(evaluate(last.graph, x), evaluate(channels_last(), x), rtol=1e-10)


@pytest.mark.parametrize("composite", ["epsilon_plus", "epsilon_gamma_box", "epsilon_alpha2_beta1_flat"])
def test_and_is_explained_like_it(backend: str, composite: str) -> None:
    chosen = lrpfast.composite(composite, low=-4.0, high=4.0) if "box" in composite else composite
    x = normal(2, 6, 6, 3).clip(-4, 4)
    target = normal(5, 2, 2)
    found, expected = (
        lrpfast.explain(Network(graph), array, target, chosen, dtype=np.float64, backend=backend)
        for graph, array in ((channels_last(), x), (channels_first(), x.transpose(0, 3, 1, 2)))
    )
    np.testing.assert_allclose(
        found.relevance, expected.relevance.transpose(0, 2, 3, 1), rtol=1e-9, atol=1e-12
    )


def test_an_affine_operator_on_the_input_is_preprocessing_on_either_side() -> None:
    graph = graph_of(
        (4, 4, 3), (Transpose(FIRST), "x", "t"), (Affine(normal(3, 1, 1), normal(3, 1, 1)), "t", "a"),
        (Conv(W), "a", "y"),
    )  # fmt: skip
    assert kinds(canonize(graph, np.float64).graph) == ["Affine", "Transpose", "Conv"]


def test_nothing_is_done_without_need() -> None:
    changes: list[str] = []
    shuffle = graph_of(
        (4, 3, 3), (Reshape((2, 2, 3, 3)), "x", "a"), (Transpose((1, 0, 2, 3)), "a", "b"),
        (Reshape((4, 3, 3)), "b", "y"),
    )  # fmt: skip
    assert with_transposes_late(shuffle, changes) == shuffle
    assert changes == []


def test_a_model_of_nothing_but_transposes() -> None:
    graph = graph_of((2, 3, 4), (Transpose(LAST), "x", "a"), (Transpose(FIRST), "a", "y"))
    assert kinds(with_transposes_late(graph, [])) == []
    assert with_transposes_late(graph, []).output == "x"


PERMS = st.permutations(range(3)).map(tuple)
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("transpose"), PERMS), st.tuples(st.just("affine"), st.integers(0, 3)),
        st.tuples(st.just("relu"), st.just(0)), st.tuples(st.just("pad"), st.integers(0, 2)),
        st.tuples(st.just("double"), st.integers(0, 2)), st.tuples(st.just("sum"), st.just(0)),
    ),
    max_size=8,
)  # fmt: skip


@given(STEPS)
@settings(max_examples=60)
def test_any_chain_is_the_same_function(steps: list[tuple[str, object]]) -> None:
    rng = np.random.default_rng(0)
    shape, name, nodes = (2, 3, 4), "x", []

    def append(op: Op, *inputs: str) -> None:
        nonlocal name, shape
        shape = op.infer(*(Fact(shape) for _ in inputs)).shape
        name = f"a{len(nodes)}"
        nodes.append(Node(name, op, inputs, name))

    for kind, how in steps:
        if kind == "transpose":
            append(Transpose(how), name)  # type: ignore[arg-type]
        elif kind == "affine":
            ranks = {0: (), 1: shape[2:], 2: (1, shape[1], 1), 3: shape}
            append(Affine(rng.normal(size=ranks[how]), rng.normal(size=(1,))), name)  # type: ignore[index]
        elif kind == "relu":
            append(Relu(), name)
        elif kind == "pad":
            pads = [0] * 6
            pads[how] = pads[3 + (how + 1) % 3] = 1  # type: ignore[index, operator]
            append(Pad(tuple(pads), 0.5), name)
        elif kind == "double":
            append(Concat(how), name, name)  # type: ignore[arg-type]
        else:
            append(Add(), name, name)
    if not nodes:
        return
    graph = Graph({"x": Fact((2, 3, 4))}, tuple(nodes), name)
    moved = with_transposes_late(graph, [])
    x = rng.normal(size=(2, 2, 3, 4))
    np.testing.assert_array_equal(evaluate(moved, x), evaluate(graph, x))
    assert kinds(moved).count("Transpose") <= 1


def test_dense_layers_are_left_alone() -> None:
    graph = graph_of(
        (2, 5, 3), (Transpose((0, 2, 1)), "x", "t"), (Gemm(normal(4, 5)), "t", "g"), (Transpose((0, 2, 1)), "g", "y")
    )  # fmt: skip
    assert kinds(with_transposes_late(graph, [])) == ["Transpose", "Gemm", "Transpose"]
