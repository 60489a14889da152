"""Operators that move, reduce, interpolate and contract: read in every form, and what becomes of relevance in them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto
from onnx.reference import ReferenceEvaluator
from onnx_models import Array, evaluate, model_of, node
from shape_forms import FORMS, Form, f32, normal
from small_networks import onnxruntime_forward
from test_ops import check_vjps

import lrpfast
from lrpfast import Composite, Norm, Selector, ZPlus
from lrpfast.composites import assign
from lrpfast.onnx_io import load_graph
from lrpfast.ops import Gemm, GlobalAveragePool, GlobalMaxPool, Interpolation, Mask, Op, Upsample

onnxruntime.set_default_logger_severity(4)


def expected(model: onnx.ModelProto, x: Array) -> Array:
    """What onnxruntime computes, or ONNX's reference where onnxruntime has no such form."""
    errors = onnxruntime.capi.onnxruntime_pybind11_state
    try:
        return onnxruntime_forward(model, x)
    except (errors.NotImplemented, errors.Fail, errors.InvalidArgument, errors.RuntimeException):
        y: Array = ReferenceEvaluator(model).run(None, {"x": x})[0]
        return y


def ops(model: onnx.ModelProto) -> list[Op]:
    return [n.op for n in load_graph(model).nodes]


def relevance(
    model: onnx.ModelProto, x: Array, r: Array, backend: str, composite: Any = "epsilon_plus"
) -> Array:
    """What `r` at the output is at the input, in float64; the books must close."""
    network = lrpfast.load(model)
    explain = lrpfast.Explainer(network, composite, backend=backend, dtype=np.float64, on_blowup="ignore")
    explanation = explain(x, np.ones(network.output_shape), r)
    assert explanation.conservation.worst < 1e-11
    return explanation.relevance


# --- every form ---


@pytest.mark.parametrize("name", FORMS)
def test_form(name: str) -> None:
    """The definitions compute what others do; each vjp is that of its forward."""
    form = FORMS[name]
    graph = load_graph(form.model)
    y = evaluate(graph, form.x)
    np.testing.assert_allclose(y, expected(form.model, form.x), rtol=3e-5, atol=3e-5, strict=True)
    check_vjps(graph, form.x.astype(np.float64))


@pytest.mark.parametrize("name", FORMS)
def test_engine(name: str, backend: str) -> None:
    """Backends compute what the definitions say, and the books of relevance close at every node."""
    form = FORMS[name]
    network = lrpfast.load(form.model)
    y = evaluate(network.graph, form.x.astype(np.float64))
    np.testing.assert_allclose(network.predict(form.x, backend=backend), y, rtol=2e-5, atol=2e-5)
    r = np.random.default_rng(1).uniform(0.5, 2, y.shape)
    relevance(form.model, form.x, r, backend)


@pytest.mark.parametrize("name", ["GlobalMaxPool", "GlobalAveragePool"])
def test_more_axes_than_a_pool_has(name: str) -> None:
    """onnxruntime has at most three; NumPy tells what is right."""
    form = Form(name, (2, 3, 2, 3, 2))
    y = (
        form.x.max(axis=(2, 3, 4, 5), keepdims=True)
        if "Max" in name
        else form.x.mean((2, 3, 4, 5), keepdims=True)
    )
    np.testing.assert_allclose(evaluate(load_graph(form.model), form.x), y, rtol=1e-6)


COORDINATES = ("half_pixel", "pytorch_half_pixel", "align_corners", "asymmetric")
ROUNDINGS = ("round_prefer_floor", "round_prefer_ceil", "floor", "ceil")


@pytest.mark.parametrize("coordinates", COORDINATES)
def test_sizes_and_scales(coordinates: str) -> None:
    """Small axes of all sizes: each place is made of the places that onnxruntime, or the reference, makes it of."""
    modes: list[dict[str, Any]] = [{"mode": "nearest", "nearest_mode": rounding} for rounding in ROUNDINGS]
    modes += [{"mode": mode} for mode in ("linear", "cubic")]
    modes += [{"mode": mode, "antialias": 1} for mode in ("linear", "cubic")]
    for n in (1, 2, 3, 5, 6, 10):
        scales = [
            (None, f32(1, 1, 1, s)) for s in (0.5, 0.6, 1.7, 2.5, 3) if int(np.float32(s) * np.float32(n))
        ]
        for constants in [*((None, None, [3, 1, 1, m]) for m in (2, 3, 6, 7)), *scales]:
            if coordinates == "align_corners" and constants[1] is not None and n * constants[1][3] % 1:
                continue  # refused
            for mode in modes:
                attributes = {**mode, "coordinate_transformation_mode": coordinates}
                form = Form("Resize", (1, 1, n), constants, attributes, opset=19, batch=3)
                y = evaluate(load_graph(form.model), form.x)
                ort = onnxruntime_forward(form.model, form.x)
                if not np.allclose(y, ort, rtol=1e-4, atol=1e-5):
                    # Where a place lies just between two, onnxruntime's rounding may choose the other.
                    (exact,) = ReferenceEvaluator(form.model).run(None, {"x": form.x})
                    assert "nearest_mode" in mode
                    np.testing.assert_array_equal(y, exact)


# --- what forms become ---


def test_reductions_of_feature_maps_are_global_pools() -> None:
    for name, pool in (("ReduceMean", GlobalAveragePool()), ("ReduceMax", GlobalMaxPool())):
        assert ops(Form(name, (3, 4, 5), ([2, 3],)).model) == [pool]
        assert ops(Form(f"Global{'Average' if 'Mean' in name else 'Max'}Pool", (3, 4, 5)).model) == [pool]


def test_copies_in_blocks_stay_in_the_kernels_layout() -> None:
    assert ops(Form("Resize", (3, 4, 5), (None, f32(1, 1, 2, 3))).model) == [Upsample((2, 3))]
    network = lrpfast.load(Form("Resize", (3, 4, 5), (None, f32(1, 1, 2, 3))).model)
    plan, _ = network._plan(lrpfast.backends.get("numpy"), np.dtype(np.float32))
    assert "sumpool_vjp" in next(step.label() for step in plan.forward)


def test_dense_layers_are_dense_and_interpolations_are_no_layers() -> None:
    (grouped,) = (op for op in ops(FORMS["MatMul-stack"].model) if "dense" in op.kinds)
    assert grouped.kinds == ("GroupedGemm", "dense", "linear")
    nodes = [node("Resize", "x - s", "a", mode="linear"), node("MatMul", "a w")]
    graph = load_graph(model_of(nodes, ("n", 2, 3), {"s": f32(1, 1, 2), "w": normal(6, 4)}))
    rules = Composite(
        "test", ((Selector("linear", first=True), ZPlus()), (Selector("interpolation"), Norm()))
    )
    assert [a.rule for a in assign(rules, graph).values()] == [Norm(), ZPlus()]


# --- rules ---


def by_contribution(
    parts: Callable[[Array], Array], axes: tuple[int, ...]
) -> Callable[[Array, Array], Array]:
    def rule(x: Array, r: Array) -> Array:
        q = parts(x)
        return q / q.sum(axis=axes, keepdims=True) * r

    return rule


def winner(sign: int) -> Callable[[Array, Array], Array]:
    def rule(x: Array, r: Array) -> Array:
        return np.where(sign * x == (sign * x).max(axis=(1, 3), keepdims=True), r, 0.0)

    return rule


@pytest.mark.parametrize(
    ("name", "rule"),
    [
        ("ReduceSum", by_contribution(lambda x: x, (1, 3))),
        ("ReduceMean", by_contribution(lambda x: x, (1, 3))),
        ("ReduceL1", by_contribution(np.abs, (1, 3))),
        ("ReduceL2", by_contribution(np.square, (1, 3))),
        ("ReduceSumSquare", by_contribution(np.square, (1, 3))),
        ("ReduceLogSumExp", by_contribution(np.exp, (1, 3))),
        ("ReduceMax", winner(1)),
        ("ReduceMin", winner(-1)),
    ],
)
def test_relevance_of_reductions(name: str, rule: Callable[[Array, Array], Array], backend: str) -> None:
    model = Form(name, (3, 4, 5), ([1, 3],)).model
    x = normal(2, 3, 4, 5).astype(np.float64) + 1.5 * (name in ("ReduceSum", "ReduceMean"))
    r = normal(2, 1, 4, 1, seed=5).astype(np.float64)
    composite = lrpfast.composite("epsilon_plus", stabilizer=0.0)
    np.testing.assert_allclose(relevance(model, x, r, backend, composite), rule(x, r), rtol=1e-9, atol=1e-12)


def test_relevance_of_norms_over_windows(backend: str) -> None:
    """|x|³ / Σ|x|³ in each window."""
    attributes = {"kernel_shape": [2], "strides": [1], "p": 3}
    x, r = normal(2, 3, 6).astype(np.float64), normal(2, 3, 5, seed=4).astype(np.float64)
    q = np.abs(x) ** 3
    s = r / (q[..., 1:] + q[..., :-1])
    shares = np.zeros_like(x)
    shares[..., 1:] += q[..., 1:] * s
    shares[..., :-1] += q[..., :-1] * s
    composite = lrpfast.composite("epsilon_plus", stabilizer=0.0)
    model = Form("LpPool", (3, 6), (), attributes, opset=18).model
    np.testing.assert_allclose(relevance(model, x, r, backend, composite), shares, rtol=1e-9)


@pytest.mark.parametrize("mode", ["linear", "cubic"])
def test_relevance_of_interpolation(mode: str, backend: str) -> None:
    """By contribution through both axes at once: x_j W_kj / z_k, W from single ones."""
    form = Form("Resize", (1, 3, 4), (None, None, [5, 7]), {"mode": mode, "axes": [2, 3]}, opset=18)
    ones = np.eye(12, dtype=np.float32).reshape(12, 1, 3, 4)
    w = onnxruntime_forward(form.model, ones).reshape(12, 35).astype(np.float64)
    x = np.abs(normal(2, 1, 3, 4).astype(np.float64)) + 1
    r = normal(2, 1, 5, 7, seed=5).astype(np.float64)
    z = x.reshape(2, 12) @ w
    by_hand = x.reshape(2, 12) * ((r.reshape(2, 35) / z) @ w.T)
    composite = lrpfast.composite("epsilon_plus", stabilizer=0.0)
    found = relevance(form.model, x, r, backend, composite)
    np.testing.assert_allclose(found.reshape(2, 12), by_hand, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", ["Gather-any", "Pad-reflect", "Tile", "Expand", "GatherND", "Resize-11"])
def test_copies_hand_back_to_their_source(name: str, backend: str) -> None:
    """Every element receives the relevance of all of its copies: those that hold its number."""
    form = FORMS[name]
    numbers = np.arange(form.x[0].size, dtype=np.float32).reshape(1, *form.shape)
    sources = expected(form.model, np.repeat(numbers, 3, axis=0)).astype(int)
    r = normal(*sources.shape).astype(np.float64)
    back = [
        np.bincount(i.ravel(), q.ravel(), minlength=numbers.size) for i, q in zip(sources, r, strict=True)
    ]
    found = relevance(form.model, form.x, r, backend)
    np.testing.assert_allclose(found.reshape(3, -1), back, atol=1e-12)


def test_relevance_of_a_mask_is_lost_to_its_constants(backend: str) -> None:
    r = normal(3, 3, 3).astype(np.float64)
    found = relevance(Form("Trilu", (3, 3)).model, normal(3, 3, 3), r, backend)
    np.testing.assert_allclose(found, np.triu(r))


# --- constants that depend on the batch size ---


def check(nodes: Sequence[onnx.NodeProto], shape: tuple[int, ...], constants: dict[str, Any]) -> list[Op]:
    model = model_of(nodes, ("n", *shape), constants)
    for n in (1, 4):
        x = normal(n, *shape)
        np.testing.assert_allclose(
            lrpfast.load(model).predict(x), onnxruntime_forward(model, x), rtol=1e-5, atol=1e-6
        )
    return ops(model)


def test_expand_to_the_own_shape() -> None:
    """tf2onnx writes Expand where nothing is to be done."""
    nodes = [
        node("Shape", "x", "n", start=0, end=1),
        node("Concat", "n rest", "s", axis=0),
        node("Expand", "x s", "e"),
        node("Relu", "e"),
    ]
    names = [type(op).__name__ for op in check(nodes, (3, 1), {"rest": [3, 1]})]
    assert names == ["Identity", "Relu"]
    assert [type(op).__name__ for op in check(nodes, (3, 1), {"rest": [1, 5]})] == ["Expand", "Relu"]


def test_expand_as_torch_writes_it() -> None:
    """−1 for what stays, by ConstantOfShape, Mul, Equal and Where."""
    nodes = [
        node("Shape", "x", "s"),
        node("Shape", "s", "rank"),
        node(
            "ConstantOfShape",
            "rank",
            "ones",
            value=onnx.helper.make_tensor("one", TensorProto.INT64, [1], [1]),
        ),
        node("Mul", "ones minus", "unknown"),
        node("Equal", "target unknown", "same"),
        node("Where", "same ones target", "t"),
        node("Expand", "x t"),
    ]
    check(nodes, (3, 1), {"minus": -1, "target": [-1, 3, 4]})


def test_a_token_in_front() -> None:
    """A class token, expanded to the batch and joined to the others, and an embedding of places by Range."""
    nodes = [
        node("Shape", "x", "n", start=0, end=1),
        node("Concat", "n rest", "s", axis=0),
        node("Expand", "token s", "tokens"),
        node("Concat", "tokens x tokens", "all", axis=1),
        node("Shape", "all", "count", start=1, end=2),
        node("Squeeze", "count zero", "length"),
        node("Range", "o length i", "places"),
        node("Gather", "table places", "embedded"),
        node("Add", "all embedded"),
    ]
    constants = {
        "rest": [1, 4], "token": normal(1, 1, 4), "zero": [0], "o": 0, "i": 1,
        "table": normal(9, 4),
    }  # fmt: skip
    kinds = [type(op).__name__ for op in check(nodes, (5, 4), constants)]
    assert kinds == ["Pad", "Mask", "Affine"]


def test_constants_between_computed_arrays(backend: str) -> None:
    """In a model of a declared batch they have so many rows, all alike."""
    nodes = [node("Relu", "x", "a"), node("Concat", "c x d a c", axis=2)]
    constants = {"c": np.repeat(normal(1, 3, 1), 2, axis=0), "d": np.repeat(normal(1, 3, 2), 2, axis=0)}
    model = model_of(nodes, (2, 3, 4), constants)
    x, r = normal(2, 3, 4), normal(2, 3, 12).astype(np.float64)
    y = onnxruntime_forward(model, x)
    np.testing.assert_array_equal(lrpfast.load(model).predict(x, backend=backend), y)
    assert sum(isinstance(op, Mask) for op in ops(model)) == 2
    found = relevance(model, x, r, backend)
    np.testing.assert_allclose(found, r[:, :, 1:5] + r[:, :, 7:11], rtol=1e-12)


def test_arithmetic_with_constants_of_the_batch() -> None:
    nodes = [
        node("Shape", "x", "s"),
        node(
            "ConstantOfShape", "s", "ones", value=onnx.helper.make_tensor("v", TensorProto.FLOAT, [1], [1.5])
        ),
        node("Sub", "ones x"),
    ]
    check(nodes, (3, 4), {})


def test_weights_expanded_to_the_batch() -> None:
    nodes = [
        node("Shape", "x", "n", start=0, end=1),
        node("Concat", "n rest", "s", axis=0),
        node("Expand", "w s", "weights"),
        node("MatMul", "x weights", "a"),
        node("Einsum", "a weights", equation="bij,bkj->bik"),
    ]
    assert [type(op) for op in check(nodes, (3, 4), {"rest": [4, 5], "w": normal(4, 5)})] == [Gemm, Gemm]


def test_slice_of_the_whole_batch() -> None:
    nodes = [
        node("Shape", "x", "n", start=0, end=1),
        node("Concat", "n rest", "ends", axis=0),
        node("Slice", "x starts ends"),
    ]
    check(nodes, (3, 4), {"rest": [2, 4], "starts": [0, 1, 0]})


# --- several operators ---


@pytest.mark.parametrize("name", ["GlobalAveragePool", "GlobalMaxPool"])
@pytest.mark.parametrize("shape", [(3, 40), (3, 300), (3, 5, 6)])
def test_pools_over_short_and_long_maps(name: str, shape: tuple[int, ...], backend: str) -> None:
    """Behind a layer whose output lies in blocks: long maps go another way than short ones."""
    nodes = [node("Conv", "x w", "a"), node("Relu", "a", "b"), node(name, "b")]
    model = model_of(nodes, ("n", *shape), {"w": normal(20, 3, *(3,) * (len(shape) - 1))})
    x = normal(2, *shape)
    y = lrpfast.load(model).predict(x, backend=backend)
    np.testing.assert_allclose(y, onnxruntime_forward(model, x), rtol=1e-4, atol=1e-5)
    found = relevance(model, x, y.astype(np.float64), backend)
    np.testing.assert_allclose(
        found, relevance(model, x, y.astype(np.float64), "numpy"), rtol=1e-9, atol=1e-12
    )


@pytest.mark.parametrize("mode", ["nearest", "linear"])
def test_upsampling_between_convolutions(mode: str, backend: str) -> None:
    """As in a decoder: predictions are right, and relevance is conserved but for biases."""
    nodes = [
        node("Conv", "x v", "a", pads=[1] * 4),
        node("Relu", "a", "b"),
        node("Resize", "b - s", "c", mode=mode),
        node("Conv", "c w", "d", pads=[1] * 4),
        node("ReduceSum", "d axes", keepdims=0),
    ]
    constants = {"v": normal(20, 3, 3, 3), "w": normal(4, 20, 3, 3), "s": f32(1, 1, 2, 2), "axes": [2, 3]}
    model = model_of(nodes, ("n", 3, 6, 5), constants)
    x = np.abs(normal(2, 3, 6, 5))
    network = lrpfast.load(model)
    np.testing.assert_allclose(
        network.predict(x, backend=backend), onnxruntime_forward(model, x), rtol=1e-4, atol=1e-4
    )
    found = relevance(model, x, np.ones((2, 4)), backend)
    np.testing.assert_allclose(found.sum(axis=(1, 2, 3)), 4, rtol=1e-4)


def test_bias_behind_a_reshaped_layer_is_the_layers() -> None:
    """Dense layers of several axes come as MatMul, Reshape, Add: the bias belongs into the layer."""
    nodes = [node("Einsum", "x w", "h", equation="btd,dhk->bhtk"), node("Add", "h c")]
    model = model_of(nodes, ("n", 3, 4), {"w": normal(4, 2, 5), "c": normal(2, 1, 5)})
    network = lrpfast.load(model)
    (layer,) = (n.op for n in network.canonized(np.float64).graph.nodes if isinstance(n.op, Gemm))
    assert layer.bias is not None
    x = normal(2, 3, 4)
    np.testing.assert_allclose(network.predict(x), onnxruntime_forward(model, x), rtol=1e-5, atol=1e-5)


def test_interpolation_is_not_folded_into() -> None:
    nodes = [node("Mul", "x c", "a"), node("Resize", "a - s", mode="linear")]
    network = lrpfast.load(model_of(nodes, ("n", 2, 3), {"c": np.float32(2), "s": f32(1, 1, 2)}))
    kinds = [n.op.kinds[-1] for n in network.canonized().graph.nodes]
    assert kinds == ["affine", "interpolation"]
    assert isinstance(network.graph.nodes[1].op, Interpolation)
