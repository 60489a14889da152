"""Operators: forward against onnxruntime, vjp against differences, facts and errors."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from onnx import helper
from onnx_models import Array, evaluate, model_of, node
from small_networks import onnxruntime_forward

from lrpfast.errors import ModelError
from lrpfast.graph import Fact, Graph
from lrpfast.onnx_io import load_graph
from lrpfast.ops import (
    Add,
    Affine,
    AveragePool,
    Clip,
    Concat,
    Conv,
    ConvTranspose,
    Gemm,
    GlobalAveragePool,
    GlobalMaxPool,
    Identity,
    LeakyRelu,
    Linear,
    MaxPool,
    Movement,
    Op,
    Pad,
    Relu,
    Reshape,
    Sigmoid,
    Slice,
    Softmax,
    Tanh,
    Transpose,
)

onnxruntime.set_default_logger_severity(4)


def normal(*shape: int, seed: int = 0, dtype: type = np.float32) -> Array:
    return np.random.default_rng(seed).standard_normal(shape).astype(dtype)


def check_model(model: onnx.ModelProto, x: Array) -> Graph:
    """Our forward is onnxruntime's, in float32; each node's vjp is that of its forward, in float64."""
    graph = load_graph(model)
    y = evaluate(graph, x)
    assert y.dtype == x.dtype
    np.testing.assert_allclose(y, onnxruntime_forward(model, x), rtol=2e-5, atol=2e-5, strict=True)
    check_vjps(graph, x.astype(np.float64))
    return graph


def check_vjps(graph: Graph, x: Array) -> None:
    values = dict.fromkeys(graph.inputs, x)
    for n in graph.nodes:
        inputs = tuple(values[name] for name in n.inputs)
        values[n.output] = n.op.forward(*inputs)
        check_vjp(n.op, inputs)


def check_vjp(op: Op, inputs: tuple[Array, ...]) -> None:
    """⟨Jv, u⟩ = ⟨v, Jᵀu⟩, with Jv from differences (which are exact where the operator is linear)."""
    y = op.forward(*inputs)
    assert y.dtype == np.float64
    exact = isinstance(op, (Linear, Movement))
    v = [normal(*x.shape, seed=k, dtype=np.float64) for k, x in enumerate(inputs)]
    u = normal(*y.shape, seed=99, dtype=np.float64)
    h = 1.0 if exact else 1e-6
    ahead, behind = (
        op.forward(*(x + sign * h * d for x, d in zip(inputs, v, strict=True))) for sign in (1, -1)
    )
    back = op.vjp(inputs, y, u)
    assert [b.shape for b in back] == [x.shape for x in inputs]
    terms = [d * b for d, b in zip(v, back, strict=True)]
    left, right = ((ahead - behind) * u).sum() / (2 * h), sum(t.sum() for t in terms)
    scale = sum(np.abs(t).sum() for t in terms) + 1e-12
    assert abs(left - right) <= (1e-13 if exact else 1e-7) * scale * max(1, np.abs(y).max())
    if exact:
        # The engine does not keep the arrays of linear operators: only their shapes may matter.
        blanks = tuple(np.broadcast_to(np.nan, a.shape) for a in (*inputs, y))
        for one, other in zip(back, op.vjp(blanks[:-1], blanks[-1], u), strict=True):
            np.testing.assert_array_equal(one, other)


# --- every form of every operator that is read from ONNX ---

# name: (operator, sample shape, constants in the order of the inputs, attributes)
# `None` as a constant leaves an optional input out.
FORMS: dict[str, tuple[str, tuple[int, ...], list[Any], dict[str, Any]]] = {
    "Gemm": ("Gemm", (5,), [normal(5, 4)], {}),
    "Gemm-transB": ("Gemm", (5,), [normal(4, 5), normal(4)], {"transB": 1}),
    "Gemm-scaled": ("Gemm", (5,), [normal(5, 4), normal(1, 4)], {"alpha": 0.3, "beta": -2.0}),
    "Gemm-scalar-bias": ("Gemm", (5,), [normal(5, 4), normal()], {}),
    "MatMul": ("MatMul", (5,), [normal(5, 4)], {}),
    "MatMul-3d": ("MatMul", (3, 2, 5), [normal(5, 4)], {}),
    "MatMul-stack-of-one": ("MatMul", (3, 2, 5), [normal(1, 1, 5, 4)], {}),
    "MatMul-vector": ("MatMul", (3, 5), [normal(5)], {}),
    "Conv1d": ("Conv", (4, 9), [normal(6, 4, 3), normal(6)], {"strides": [2], "pads": [2, 0]}),
    "Conv2d-grouped": (
        "Conv", (4, 7, 8), [normal(6, 2, 3, 2)], {"group": 2, "dilations": [2, 1], "kernel_shape": [3, 2]},
    ),
    "Conv3d-depthwise": (
        "Conv", (3, 4, 5, 6), [normal(6, 1, 2, 3, 3), normal(6)], {"group": 3, "pads": [0, 1, 2, 1, 0, 1]},
    ),
    "Conv-same-upper": (
        "Conv", (2, 7, 8), [normal(3, 2, 4, 3)], {"auto_pad": "SAME_UPPER", "strides": [2, 3]},
    ),
    "Conv-same-lower": ("Conv", (2, 7, 8), [normal(3, 2, 4, 2)], {"auto_pad": "SAME_LOWER"}),
    "Conv-valid": ("Conv", (2, 7, 8), [normal(3, 2, 4, 3)], {"auto_pad": "VALID"}),
    "Conv-window-in-padding": ("Conv", (2, 3), [normal(3, 2, 2)], {"pads": [4, 5], "strides": [2]}),
    "Conv-only-padding": ("Conv", (2, 3), [normal(3, 2, 2), normal(3)], {"pads": [4, 5], "strides": [11]}),
    "ConvTranspose1d": ("ConvTranspose", (4, 5), [normal(4, 3, 3), normal(3)], {"strides": [2]}),
    "ConvTranspose2d": (
        "ConvTranspose", (4, 5, 3), [normal(4, 3, 3, 2), normal(6)],
        {"group": 2, "strides": [2, 3], "pads": [1, 0, 2, 1], "output_padding": [1, 2], "dilations": [1, 2]},
    ),
    "ConvTranspose3d": ("ConvTranspose", (2, 2, 3, 2), [normal(2, 1, 2, 2, 3)], {"dilations": [2, 1, 1]}),
    "ConvTranspose-output-shape": (
        "ConvTranspose", (1, 3, 3), [normal(1, 2, 3, 3)], {"strides": [2, 3], "output_shape": [6, 8]},
    ),
    "ConvTranspose-output-shape-larger": (
        "ConvTranspose", (1, 3), [normal(1, 2, 3)], {"strides": [2], "output_shape": [8]},
    ),
    "ConvTranspose-output-shape-upper": (
        "ConvTranspose", (1, 3), [normal(1, 2, 3)],
        {"strides": [2], "output_shape": [6], "auto_pad": "SAME_UPPER"},
    ),
    "ConvTranspose-same-upper": (
        "ConvTranspose", (1, 3, 4), [normal(1, 2, 3, 4)], {"strides": [2, 1], "auto_pad": "SAME_UPPER"},
    ),
    "ConvTranspose-same-lower": (
        "ConvTranspose", (1, 3, 4), [normal(1, 2, 3, 4)], {"strides": [2, 1], "auto_pad": "SAME_LOWER"},
    ),
    "ConvTranspose-valid": (
        "ConvTranspose", (1, 3), [normal(1, 2, 3)], {"strides": [2], "auto_pad": "VALID"},
    ),
    "AveragePool": ("AveragePool", (2, 6, 7), [], {"kernel_shape": [2, 3], "strides": [2, 2]}),
    "AveragePool-same": ("AveragePool", (2, 6, 7), [], {"kernel_shape": [3, 2], "auto_pad": "SAME_LOWER"}),
    "AveragePool-pads": ("AveragePool", (2, 7), [], {"kernel_shape": [3], "pads": [2, 1]}),
    "AveragePool-pads-count": (
        "AveragePool", (2, 7), [], {"kernel_shape": [3], "pads": [2, 1], "count_include_pad": 1},
    ),
    "AveragePool-dilated": (
        "AveragePool", (2, 7, 8), [],
        {"kernel_shape": [3, 2], "pads": [1, 0, 1, 1], "dilations": [2, 3], "count_include_pad": 1},
    ),
    "MaxPool1d": ("MaxPool", (2, 7), [], {"kernel_shape": [3], "pads": [2, 1], "strides": [2]}),
    "MaxPool3d": ("MaxPool", (2, 4, 5, 6), [], {"kernel_shape": [2, 3, 2], "dilations": [1, 2, 3]}),
    "MaxPool-same": ("MaxPool", (2, 6, 7), [], {"kernel_shape": [3, 2], "auto_pad": "SAME_UPPER"}),
    "MaxPool-ceil": ("MaxPool", (2, 6, 7), [], {"kernel_shape": [3, 2], "strides": [2, 2], "ceil_mode": 1}),
    "GlobalAveragePool": ("GlobalAveragePool", (3, 4, 5), [], {}),
    "GlobalMaxPool": ("GlobalMaxPool", (3, 4, 5, 2), [], {}),
    "ReduceMean": ("ReduceMean", (3, 4, 5), [[2, 3]], {"keepdims": 1}),
    "ReduceMean-drop": ("ReduceMean", (3, 4, 5), [[-1, -2]], {"keepdims": 0}),
    "ReduceMean-channels-last": ("ReduceMean", (4, 5, 3), [[1, 2]], {"keepdims": 0}),
    "ReduceMean-one-axis": ("ReduceMean", (4, 5, 3), [[2]], {"keepdims": 1}),
    "ReduceMean-everything": ("ReduceMean", (4, 5, 3), [[1, 2, 3]], {"keepdims": 0}),
    "Relu": ("Relu", (3, 4), [], {}),
    "LeakyRelu": ("LeakyRelu", (3, 4), [], {"alpha": 0.2}),
    "LeakyRelu-default": ("LeakyRelu", (3, 4), [], {}),
    "Clip": ("Clip", (30,), [np.float32(-0.5), np.float32(0.7)], {}),
    "Clip-high": ("Clip", (30,), [None, np.float32(0.7)], {}),
    "Clip-none": ("Clip", (30,), [], {}),
    "Sigmoid": ("Sigmoid", (3, 4), [], {}),
    "Tanh": ("Tanh", (3, 4), [], {}),
    "Softmax": ("Softmax", (3, 4), [], {}),
    "Softmax-axis": ("Softmax", (3, 4), [], {"axis": 1}),
    "BatchNormalization": (
        "BatchNormalization", (3, 4), [normal(3), normal(3), normal(3), normal(3) ** 2], {"epsilon": 0.01},
    ),
    "BatchNormalization-flat": (
        "BatchNormalization", (3,), [normal(3), normal(3), normal(3), normal(3) ** 2], {},
    ),
    "Add-constant": ("Add", (3, 4), [normal(1, 3, 1)], {}),
    "Sum-constants": ("Sum", (3, 4), [normal(4), normal(3, 1)], {}),
    "Sum-one": ("Sum", (3, 4), [], {}),
    "Sub-constant": ("Sub", (3, 4), [normal(3, 1)], {}),
    "Mul-constant": ("Mul", (3, 4), [np.float32(0.4)], {}),
    "Div-constant": ("Div", (3, 4), [normal(3, 1)], {}),
    "Identity": ("Identity", (3, 4), [], {}),
    "Cast": ("Cast", (3, 4), [], {"to": 1}),
    "Dropout": ("Dropout", (3, 4), [np.float32(0.5), np.array(False)], {}),
    "Flatten": ("Flatten", (3, 4), [], {}),
    "Flatten-negative": ("Flatten", (3, 4), [], {"axis": -2}),
    "Flatten-later": ("Flatten", (1, 4, 5), [], {"axis": 2}),
    "Reshape": ("Reshape", (3, 4), [[0, 2, 6]], {}),
    "Reshape-infer": ("Reshape", (3, 4), [[0, 2, -1]], {}),
    "Reshape-copy": ("Reshape", (3, 4, 5), [[-1, 3, 0, 5]], {}),
    "Squeeze": ("Squeeze", (3, 1, 4, 1), [[2, -1]], {}),
    "Unsqueeze": ("Unsqueeze", (3, 4), [[-1, 2]], {}),
    "Transpose": ("Transpose", (3, 4, 5), [], {"perm": [0, 3, 1, 2]}),
    "Slice": ("Slice", (6, 7), [[1], [5], [1]], {}),
    "Slice-all-axes": ("Slice", (6, 7), [[0, 2, -3], [2**31 - 1, 99, -1]], {}),
    "Slice-steps": ("Slice", (6, 7), [[-1, 1], [-(2**31), 7], [1, 2], [-2, 3]], {}),
    "Gather-one": ("Gather", (6, 7), [np.int64(-2)], {"axis": 1}),
    "Gather-run": ("Gather", (6, 7), [[2, 1, 0]], {"axis": 1}),
    "Pad": ("Pad", (3, 4), [[0, 1, 0, 0, 0, 2]], {}),
    "Pad-value": ("Pad", (3, 4), [[1, 0, 2, 1], np.float32(0.5), [1, 2]], {}),
    "Pad-cut": ("Pad", (3, 4), [[0, 1, -1, 0, 0, -2]], {}),
    "Pad-only-cut": ("Pad", (3, 4), [[0, 0, -1, 0, -1, 0]], {}),
}  # fmt: skip


@pytest.mark.parametrize(("op_type", "shape", "constants", "attributes"), FORMS.values(), ids=FORMS)
def test_form(op_type: str, shape: tuple[int, ...], constants: list[Any], attributes: dict[str, Any]) -> None:
    named = {f"c{k}": value for k, value in enumerate(constants) if value is not None}
    inputs = " ".join(["x", *("-" if c is None else f"c{k}" for k, c in enumerate(constants))])
    model = model_of([node(op_type, inputs, **attributes)], ("n", *shape), named)
    check_model(model, normal(3, *shape, seed=7))


def test_constant_may_come_first() -> None:
    """`c - x`, `c + x` and `c · x`."""
    for op_type in ("Sub", "Add", "Mul"):
        check_model(model_of([node(op_type, "c x")], ("n", 3, 4), {"c": normal(3, 1)}), normal(2, 3, 4))


def test_several_inputs() -> None:
    branches = [node("Relu", "x", "a"), node("Tanh", "x", "b")]
    for last in (
        node("Add", "a b"),
        node("Sum", "a b x c"),
        node("Add", "a a"),
        node("Concat", "a x b", axis=2),
    ):
        check_model(model_of([*branches, last], ("n", 3, 4), {"c": normal(3, 1)}), normal(2, 3, 4))


@pytest.mark.parametrize(
    ("opset", "attributes", "constants"),
    [
        (11, {"split": [1, 4], "axis": -1}, {}),
        (13, {"axis": 2}, {"c": [1, 4]}),
        (18, {"axis": 2, "num_outputs": 2}, {}),
    ],
)
def test_split(opset: int, attributes: dict[str, Any], constants: dict[str, Any]) -> None:
    split = node("Split", " ".join(["x", *constants]), "a b", **attributes)
    nodes = [split, node("Relu", "b", "r"), node("Concat", "r a", axis=2)]
    graph = check_model(model_of(nodes, ("n", 3, 5), constants, opset=opset), normal(2, 3, 5))
    assert [n.name for n in graph.nodes[:2]] == ["Split_0/0", "Split_0/1"]
    only = check_model(
        model_of([split, node("Relu", "b")], ("n", 3, 5), constants, opset=opset), normal(2, 3, 5)
    )
    assert [n.name for n in only.nodes] == ["Split_0", "Relu_1"]


OLD_FORMS = {
    "Softmax-flattens": (node("Softmax", "x"), 12),
    "Softmax-last-axis": (node("Softmax", "x", axis=3), 12),
    "Softmax-middle": (node("Softmax", "x", axis=2), 7),
    "Clip": (node("Clip", "x", min=-0.1, max=0.3), 7),
    "Clip-open": (node("Clip", "x", max=0.3), 10),
    "Squeeze": (node("Squeeze", "x", axes=[2]), 7),
    "Unsqueeze": (node("Unsqueeze", "x", axes=[1, 5]), 11),
    "Slice": (node("Slice", "x", starts=[1, 0], ends=[3, -1], axes=[1, 3]), 7),
    "Pad": (node("Pad", "x", pads=[0, 0, 0, 1, 0, 0, 0, 2], value=0.5), 9),
    "Dropout": (node("Dropout", "x"), 7),
    "Dropout-ratio": (node("Dropout", "x", ratio=0.3), 10),
    "ReduceMean": (node("ReduceMean", "x", axes=[2, 3], keepdims=0), 11),
    "MaxPool": (node("MaxPool", "x", kernel_shape=[1, 2]), 7),
    "AveragePool": (node("AveragePool", "x", kernel_shape=[1, 2], pads=[0, 1, 0, 0], count_include_pad=1), 7),
    "Flatten": (node("Flatten", "x"), 7),
}


@pytest.mark.parametrize(("old", "opset"), OLD_FORMS.values(), ids=OLD_FORMS)
def test_old_form(old: onnx.NodeProto, opset: int) -> None:
    check_model(model_of([old], ("n", 3, 1, 4), opset=opset), normal(2, 3, 1, 4))


# --- geometries ---


@st.composite
def geometries(draw: st.DrawFn, pool: bool = False) -> tuple[tuple[int, ...], dict[str, Any]]:
    """Spatial sizes, and attributes of a convolution or pooling over them."""
    axes = draw(st.integers(1, 3))
    each = st.lists(st.integers(1, 3), min_size=axes, max_size=axes)
    window, dilations = draw(each), draw(each)
    most = min(window) - 1 if pool else 2
    pads = draw(st.lists(st.integers(0, most), min_size=2 * axes, max_size=2 * axes))
    spans = [(k - 1) * d + 1 for k, d in zip(window, dilations, strict=True)]
    sizes = tuple(max(1, span + draw(st.integers(-1, 4))) for span in spans)
    assume(all(n + pads[i] + pads[i + axes] >= spans[i] for i, n in enumerate(sizes)))
    return sizes, {"kernel_shape": window, "strides": draw(each), "dilations": dilations, "pads": pads}


@given(geometries(), st.integers(1, 3), st.integers(1, 2), st.integers(1, 2), st.booleans())
def test_conv(geometry: Any, groups: int, inputs: int, outputs: int, bias: bool) -> None:
    sizes, attributes = geometry
    weight = normal(groups * outputs, inputs, *attributes["kernel_shape"])
    constants = {"w": weight, **({"b": normal(groups * outputs)} if bias else {})}
    conv = node("Conv", " ".join(["x", *constants]), group=groups, **attributes)
    check_model(
        model_of([conv], ("n", groups * inputs, *sizes), constants), normal(2, groups * inputs, *sizes)
    )


@given(geometries(), st.integers(1, 3), st.integers(1, 2), st.integers(1, 2), st.data())
def test_conv_transpose(geometry: Any, groups: int, inputs: int, outputs: int, data: st.DataObject) -> None:
    sizes, attributes = geometry
    more = [data.draw(st.integers(0, step - 1)) for step in attributes["strides"]]
    op = ConvTranspose(
        normal(groups * inputs, outputs, *attributes["kernel_shape"]), normal(groups * outputs),
        attributes["strides"], attributes["pads"], attributes["dilations"], groups, more,
    )  # fmt: skip
    assume(min(op.output_size(sizes)) >= 1)
    transposed = node("ConvTranspose", "x w b", group=groups, output_padding=more, **attributes)
    model = model_of([transposed], ("n", groups * inputs, *sizes), {"w": op.weight, "b": op.bias})
    check_model(model, normal(2, groups * inputs, *sizes))


@given(geometries(pool=True), st.booleans(), st.booleans())
def test_pools(geometry: Any, ceil: bool, count: bool) -> None:
    sizes, attributes = geometry
    shape = ("n", 2, *sizes)
    x = normal(2, 2, *sizes)
    check_model(model_of([node("MaxPool", "x", ceil_mode=ceil, **attributes)], shape), x)
    average = node("AveragePool", "x", ceil_mode=ceil, count_include_pad=count, **attributes)
    check_model(model_of([average], shape), x)


@pytest.mark.parametrize("count", [False, True])
def test_average_pool_hangs_over_the_end_as_in_torch(count: bool) -> None:
    """Torch says what a window of ceil_mode has beyond the padding: nothing that counts."""
    import torch

    x = normal(2, 3, 7, 8)
    expected = torch.nn.functional.avg_pool2d(
        torch.from_numpy(x), 3, 2, 1, ceil_mode=True, count_include_pad=count
    )
    op = AveragePool((3, 3), (2, 2), (1,) * 4, ceil_mode=True, count_include_pad=count)
    np.testing.assert_allclose(op.forward(x), expected.numpy(), atol=1e-6)
    weights = op.weights((3, 7, 8))
    assert weights.shape == expected.shape[2:]
    assert weights[0, -1] == pytest.approx(1 / 6 if count else 1 / 2)


def test_pools_say_what_they_read() -> None:
    op = MaxPool((3, 2), (2, 1), (1, 0, 0, 1))
    assert op.geometry((4, 9, 9)) == ((3, 2), (2, 1), (1, 0), (1, 1))
    assert GlobalMaxPool().geometry((4, 9, 8)) == ((9, 8), (1, 1), (0, 0), (1, 1))
    assert GlobalAveragePool().weights((4, 2, 3, 4)) == pytest.approx(np.full((1, 1, 1), 1 / 24))


def test_first_of_equal_winners_takes_all() -> None:
    x = np.zeros((1, 1, 3, 3))
    for op in (MaxPool((3, 3)), GlobalMaxPool()):
        (back,) = op.vjp((x,), op.forward(x), np.ones((1, 1, 1, 1)))
        assert back[0, 0].tolist() == [[1, 0, 0], [0, 0, 0], [0, 0, 0]]


# --- values ---


def test_parameters_are_frozen() -> None:
    mine = normal(4, 5)
    op = Gemm(mine)
    mine[:] = 0
    assert op.weight.any()
    with pytest.raises(ValueError, match="read-only"):
        op.weight[0, 0] = 1
    assert Gemm(op.weight).weight is op.weight
    assert Gemm(mine.astype(np.float64)).weight.dtype == np.float64
    assert Gemm(mine.astype(np.float16)).weight.dtype == np.float32
    assert Gemm([[1, 2], [3, 4]]).weight.dtype == np.float64


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_results_have_the_dtype_of_activations(dtype: type) -> None:
    ops: list[Op] = [
        Conv(normal(4, 2, 3, 3, dtype=np.float64), normal(4)), ConvTranspose(normal(2, 4, 3, 3), normal(4)),
        Gemm(normal(4, 6), normal(4, dtype=np.float64)), Affine(normal(2, 1, 1, dtype=np.float64), 1.5),
        AveragePool((2, 2)), GlobalAveragePool(), MaxPool((2, 2)), GlobalMaxPool(), Relu(), LeakyRelu(0.1),
        Clip(0, 6), Sigmoid(), Tanh(), Softmax(0), Identity(), Reshape((72,)), Transpose((2, 0, 1)),
        Slice((0, 1, 2), (1, 1, 1), (1, 2, 3)), Pad((0, 1, 2, 0, 0, 1), 0.5), Add(), Concat(1),
    ]  # fmt: skip
    x = normal(2, 2, 6, 6, dtype=dtype)
    for op in ops:
        inputs = (x, x) if isinstance(op, (Add, Concat)) else (x,)
        y = op.forward(*inputs)
        assert y.dtype == dtype, op
        assert y.shape[1:] == op.infer(*(Fact(a.shape[1:]) for a in inputs)).shape, op
        assert all(back.dtype == dtype for back in op.vjp(inputs, y, y)), op


def test_sigmoid_and_softmax_do_not_overflow() -> None:
    x = np.array([[-1e4, 0, 1e4]], np.float32)
    with np.errstate(all="raise", under="ignore"):
        np.testing.assert_array_equal(Sigmoid().forward(x), [[0, 0.5, 1]])
        np.testing.assert_array_equal(Softmax().forward(x), [[0, 0, 1]])


ANY, NONNEGATIVE = Fact((2, 4, 4)), Fact((2, 4, 4), nonnegative=True)


@pytest.mark.parametrize(
    ("op", "always", "kept"),
    [
        (Relu(), True, True),
        (Sigmoid(), True, True),
        (Softmax(0), True, True),
        (Clip(0, 6), True, True),
        (Clip(-1, 6), False, True),
        (Clip(-2, -1), False, False),
        (LeakyRelu(0.1), False, True),
        (LeakyRelu(-0.1), True, True),
        (Tanh(), False, True),
        (MaxPool((2, 2)), False, True),
        (AveragePool((2, 2)), False, True),
        (GlobalAveragePool(), False, True),
        (Affine(np.float32(2), np.float32(0)), False, True),
        (Affine(np.float32(2), np.float32(-1)), False, False),
        (Affine(np.float32(-2), np.float32(0)), False, False),
        (Reshape((32,)), False, True),
        (Transpose((1, 0, 2)), False, True),
        (Slice((0, 0, 0), (1, 1, 1), (1, 1, 1)), False, True),
        (Pad((1,) * 6), False, True),
        (Pad((1,) * 6, -1.0), False, False),
        (Conv(np.ones((1, 2, 1, 1), np.float32)), False, False),
        (Gemm(np.ones((3, 4), np.float32)), False, False),
    ],
    ids=str,
)
def test_nonnegative(op: Op, always: bool, kept: bool) -> None:
    assert op.infer(ANY).nonnegative is always
    assert op.infer(NONNEGATIVE).nonnegative is kept
    for fact, claim in ((ANY, always), (NONNEGATIVE, kept)):
        x = normal(2, *fact.shape)
        y = op.forward(np.abs(x) if fact.nonnegative else x)
        assert not claim or y.min() >= 0


def test_nonnegative_of_several() -> None:
    for op in (Add(), Concat(0)):
        assert op.infer(NONNEGATIVE, NONNEGATIVE).nonnegative
        assert not op.infer(NONNEGATIVE, ANY).nonnegative


# --- errors ---


@pytest.mark.parametrize(
    ("op", "shapes", "says"),
    [
        (Gemm(normal(4, 5)), [(6,)], r"\(6,\).*last axis of 5"),
        (Conv(normal(4, 3, 3, 3)), [(2, 9, 9)], r"\(2, 9, 9\).*3 channels"),
        (Conv(normal(4, 3, 3, 3)), [(3, 9)], "2 spatial axes"),
        (Conv(normal(4, 3, 3, 3)), [(3, 2, 9)], r"spans \(3, 3\).*\(2, 9\).*too small"),
        (ConvTranspose(normal(3, 2, 2), pads=(4, 4)), [(3, 5)], "cut the whole output"),
        (MaxPool((3, 3)), [(3, 9)], r"\(3, 3\).*spatial axes"),
        (MaxPool((2,), pads=(2, 0)), [(3, 9)], "without any element"),
        (AveragePool((2, 2)), [(3,)], "channels"),
        (GlobalAveragePool(), [(3,)], "channels"),
        (Affine(normal(3, 1), normal(3)), [(3, 4)], r"shift has shape \(3,\).*\(3, 4\)"),
        (Affine(normal(3, 4), normal(3, 4)), [(1, 4)], "scale"),
        (Add(), [(3,), (4,)], r"\(3,\), \(4,\)"),
        (Concat(0), [(3, 4), (3, 5)], "axis 0 only"),
        (Concat(2), [(3, 4)], "axis is 2"),
        (Softmax(1), [(3,)], "axis is 1"),
        (Reshape((5,)), [(2, 3)], r"\(2, 3\).*\(5,\)"),
        (Transpose((0, 0)), [(2, 3)], "perm"),
        (Slice((0,), (1,), (4,)), [(3,)], "elements 0 to 3"),
        (Slice((0,), (1,), (3,)), [(3, 3)], "1 axes"),
        (Pad((1, 1)), [(3, 3)], "expected 4 numbers"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Op) else None,
)
def test_shapes_that_do_not_fit(op: Op, shapes: list[tuple[int, ...]], says: str) -> None:
    with pytest.raises(ModelError, match=says):
        op.infer(*(Fact(shape) for shape in shapes))


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: Gemm(np.array([[np.nan, 1], [2, -np.inf]])), "weight .* NaN or infinity in 2 of 4"),
        (lambda: Gemm(normal(3)), "2 axes"),
        (lambda: Gemm(normal(3, 4), normal(4)), "bias has 4 elements; expected 3"),
        (lambda: Gemm(np.array([["a"]])), "dtype"),
        (lambda: Conv(normal(3, 4)), "spatial"),
        (lambda: Conv(normal(3, 4, 3), normal(4)), r"bias has shape \(4,\); expected \(3,\)"),
        (lambda: Conv(normal(3, 4, 3), groups=2), "groups is 2"),
        (lambda: Conv(normal(3, 4, 3), strides=(0,)), r"strides is \(0,\); each must be at least 1"),
        (lambda: Conv(normal(3, 4, 3), pads=(1,)), "pads is .*2 numbers"),
        (lambda: Conv(normal(3, 4, 3), pads=(-1, 0)), "pads is .*at least 0"),
        (lambda: ConvTranspose(normal(3, 4, 3), output_padding=(-1,)), "output_padding"),
        (lambda: MaxPool((2, 2, 2, 2)), "4 spatial axes"),
        (lambda: Clip(2, 1), "low is 2 and high 1"),
        (lambda: Clip(np.nan, 1), "low is nan"),
        (lambda: LeakyRelu(np.inf), "alpha is inf"),
        (lambda: Pad((-1, 0)), "pads"),
        (lambda: Pad((1, 0), np.nan), "value is nan"),
        (lambda: Slice((0,), (0,), (1,)), "steps"),
        (lambda: Reshape((2, 0)), "shape"),
        (lambda: Affine(np.inf, 0.0), "scale"),
    ],
)  # fmt: skip
def test_parameters_that_do_not_fit(make: Any, says: str) -> None:
    with pytest.raises(ModelError, match=says):
        make()


def test_kinds() -> None:
    """The words by which composites select."""
    assert Conv(normal(1, 1, 1)).kinds == ("Conv", "convolution", "linear")
    assert Affine(1.0, 0.0).kinds == ("Affine", "affine")
    assert Affine(1.0, 0.0, "BatchNormalization").kinds == ("BatchNormalization", "affine")
    model = model_of(
        [helper.make_node("BatchNormalization", ["x", *"abcd"], ["y"])],
        ("n", 2),
        {k: [1.0, 2.0] for k in "abcd"},
    )
    (bn,) = load_graph(model).nodes
    assert bn.op.kinds == ("BatchNormalization", "affine")
