"""The ONNX reader: whole networks against onnxruntime, shape arithmetic, precisions, opsets."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnx_models import evaluate, model_of, node, ones
from small_networks import SMALL_NETWORKS, onnxruntime_forward, random_input

from lrpfast.errors import ModelError, UnsupportedOperatorError
from lrpfast.graph import Graph
from lrpfast.onnx_io import load_graph
from lrpfast.ops import OPERATORS, READERS, Conv, Gemm, GlobalAveragePool, Reshape

onnxruntime.set_default_logger_severity(4)


def check(graph: Graph, model: Any, x: Any) -> None:
    expected = onnxruntime_forward(model, x)
    atol = 1e-5 * np.abs(expected).max()
    np.testing.assert_allclose(evaluate(graph, x), expected, rtol=1e-4, atol=atol)


def test_operators_are_listed() -> None:
    asked = """Conv ConvTranspose Gemm MatMul BatchNormalization Relu LeakyRelu Clip Sigmoid Tanh Softmax
    MaxPool AveragePool GlobalAveragePool GlobalMaxPool Add Sum Sub Mul Div Concat Flatten Reshape Transpose
    Squeeze Unsqueeze Identity Dropout Pad Slice Split Constant ConstantOfShape Cast Shape ReduceMean
    Gather"""
    assert set(asked.split()) <= set(OPERATORS)
    assert list(OPERATORS) == sorted(OPERATORS)


# --- whole networks ---


@pytest.mark.parametrize("make", SMALL_NETWORKS.values(), ids=SMALL_NETWORKS)
def test_small_network(make: Callable[[], onnx.ModelProto]) -> None:
    model = make()
    check(load_graph(model), model, random_input(model))


def export(module: Any, shape: tuple[int, ...], path: Path, **options: Any) -> None:
    import torch

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(module.eval(), (torch.zeros(2, *shape),), path, input_names=["input"], **options)


OLDER = {"dynamo": False, "dynamic_axes": {"input": {0: "n"}}}


def torchvision_model(name: str) -> Any:
    import torch
    import torchvision

    torch.manual_seed(0)
    more = (
        {"aux_logits": False, "init_weights": False, "transform_input": True} if name == "googlenet" else {}
    )
    module = torchvision.models.get_model(name, weights=None, num_classes=7, **more)
    if name.startswith("vgg"):  # a small head, for inputs of 64 x 64
        module.avgpool = torch.nn.Identity()
        module.classifier[0] = torch.nn.Linear(512 * 2 * 2, 4096)
    for part in module.modules():
        if isinstance(part, torch.nn.BatchNorm2d):
            for tensor, low, high in ((part.running_mean, -0.2, 0.2), (part.running_var, 0.5, 2)):
                torch.nn.init.uniform_(tensor, low, high)
    return module


@pytest.mark.networks
@pytest.mark.parametrize(
    "name", ["resnet18", "mobilenet_v2", "vgg11_bn", "densenet121", "squeezenet1_1", "googlenet"]
)
def test_torchvision(name: str, tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    export(torchvision_model(name), (3, 64, 64), path, **OLDER)
    x = np.random.default_rng(0).standard_normal((3, 3, 64, 64)).astype(np.float32)
    check(load_graph(path), str(path), x)


@pytest.mark.networks
@pytest.mark.parametrize("name", ["resnet18", "squeezenet1_1"])
def test_torch_newer_exporter(name: str, tmp_path: Path) -> None:
    """It folds BatchNormalization, writes ReduceMean for pooling, and weights to a file of their own."""
    import torch

    path = tmp_path / "model.onnx"
    dynamic = {"dynamic_shapes": ({0: torch.export.Dim("n")},)}
    export(torchvision_model(name), (3, 64, 64), path, dynamo=True, verbose=False, **dynamic)
    assert (tmp_path / "model.onnx.data").exists()
    x = np.random.default_rng(0).standard_normal((3, 3, 64, 64)).astype(np.float32)
    check(load_graph(path), str(path), x)


# --- shape arithmetic ---


def flattening(target: str) -> list[onnx.NodeProto]:
    """Torch's `x.view(x.size(0), …)`: Shape, Gather, Unsqueeze, Concat, Reshape."""
    return [
        node("Relu", "x", "r"),
        node("Shape", "r", "shape"),
        node("Gather", "shape zero", "batch", axis=0),
        node("Unsqueeze", "batch axes", "first"),
        node("Concat", f"first {target}", "target", axis=0),
        node("Reshape", "r target"),
    ]


@pytest.mark.parametrize("batch", ["n", 1, 5, None])
def test_flattening_by_shape_arithmetic(batch: Any) -> None:
    constants = {"zero": 0, "axes": [0], "rest": [-1], "twelve": [12], "six": [6]}
    for target in ("rest", "twelve"):
        model = model_of(flattening(target), (batch, 3, 4), constants)
        graph = load_graph(model)
        assert [type(n.op).__name__ for n in graph.nodes] == ["Relu", "Reshape"]
        assert graph.output_shape == (12,)
    with pytest.raises(UnsupportedOperatorError, match=r"target \(batch, 6\) does not keep axis 0"):
        load_graph(model_of(flattening("six"), (batch, 3, 4), constants))


@pytest.mark.parametrize(
    ("batch", "target"),
    [("n", [0, 12]), ("n", [-1, 12]), ("n", [-1, 4, 3]), (1, [1, -1]), (4, [4, 2, -1]), (4, [0, -1])],
)
def test_reshape_that_keeps_the_batch(batch: Any, target: list[int]) -> None:
    graph = load_graph(model_of([node("Reshape", "x t")], (batch, 3, 4), {"t": target}))
    assert evaluate(graph, ones(5, 3, 4)).shape[0] == 5


@pytest.mark.parametrize(
    ("batch", "target"),
    [("n", [1, -1]), (4, [1, -1]), ("n", [-1, 6]), ("n", [3, -1]), ("n", [12, -1]), ("n", [-1])],
)
def test_reshape_that_mixes_samples(batch: Any, target: list[int]) -> None:
    with pytest.raises(UnsupportedOperatorError, match="does not keep axis 0 as the batch"):
        load_graph(model_of([node("Reshape", "x t")], (batch, 3, 4), {"t": target}))


def test_shape_of_spatial_axes_is_plain_arithmetic() -> None:
    """Half of the height by Shape, Div, Slice; the batch does not enter."""
    nodes = [
        node("Shape", "x", "s", start=2, end=3),
        node("Div", "s two", "half"),
        node("Cast", "half", "end", to=TensorProto.INT64),
        node("Slice", "x zero end two"),
    ]
    model = model_of(nodes, ("n", 3, 6, 5), {"two": [2], "zero": [0]})
    check(load_graph(model), model, np.random.default_rng(0).random((2, 3, 6, 5), np.float32))


def test_constants_fold_to_weights() -> None:
    """A weight that is stored transposed and in half precision; a bias made of zeros."""
    w = np.random.default_rng(0).random((4, 3), np.float32).astype(np.float16)
    nodes = [
        node("Cast", "w", "w32", to=TensorProto.FLOAT),
        node("Transpose", "w32", "wt", perm=[1, 0]),
        node("Constant", "", "size", value_ints=[4]),
        node("ConstantOfShape", "size", "b", value=numpy_helper.from_array(np.array([0.5], np.float32))),
        node("Gemm", "x wt b"),
    ]
    model = model_of(nodes, ("n", 3), {"w": w})
    graph = load_graph(model)
    assert len(graph.nodes) == 1
    check(graph, model, ones(2, 3))


@pytest.mark.parametrize("dtype", [np.float16, np.float64])
def test_other_precisions(dtype: type) -> None:
    w = np.random.default_rng(0).random((3, 4)).astype(dtype)
    model = model_of(
        [node("MatMul", "x w")],
        ("n", 3),
        {"w": w},
        elem_type=helper.np_dtype_to_tensor_dtype(np.dtype(dtype)),
    )
    (gemm,) = (n.op for n in load_graph(model).nodes)
    assert isinstance(gemm, Gemm)
    np.testing.assert_array_equal(gemm.weight, w.T, strict=dtype is np.float64)


def test_bfloat16_weights() -> None:
    import ml_dtypes

    w = np.array([[0.5, -3.0]], ml_dtypes.bfloat16)
    (gemm,) = (
        n.op for n in load_graph(model_of([node("MatMul", "x w")], ("n", 1), {"w": w}, elem_type=16)).nodes
    )
    assert isinstance(gemm, Gemm)
    assert gemm.weight.dtype == np.float32
    assert gemm.weight.tolist() == [[0.5], [-3.0]]


def test_batch_normalization_is_folded_in_float64() -> None:
    rng = np.random.default_rng(0)
    gamma, beta, mean, var = (rng.uniform(0.5, 2, 3).astype(np.float32) for _ in range(4))
    model = model_of(
        [node("BatchNormalization", "x g b m v", epsilon=1e-3)],
        ("n", 3, 2),
        {"g": gamma, "b": beta, "m": mean, "v": var},
    )
    graph = load_graph(model)
    x = rng.standard_normal((2, 3, 2))
    g, b, m, v = (a.astype(np.float64)[:, None] for a in (gamma, beta, mean, var))
    expected = (x - m) / np.sqrt(v + np.float64(np.float32(1e-3))) * g + b
    np.testing.assert_allclose(evaluate(graph, x), expected, rtol=1e-14)


@pytest.mark.parametrize("opset", [7, 8, 9, 10, 11, 12, 13, 15, 18, 19, 21, onnx.defs.onnx_opset_version()])
def test_opsets(opset: int) -> None:
    rng = np.random.default_rng(0)
    constants = {"w": rng.standard_normal((4, 3, 3, 3)).astype(np.float32), "d": ones(16, 5)}
    constants |= {name: ones(4) for name in "gbmv"}
    nodes = [
        node("Conv", "x w", "c", pads=[1, 1, 1, 1]),
        node("BatchNormalization", "c g b m v", "n"),
        node("Relu", "n", "r"),
        node("MaxPool", "r", "p", kernel_shape=[2, 2], strides=[2, 2]),
        node("Flatten", "p", "f"),
        node("MatMul", "f d", "z"),
        node("Softmax", "z", axis=1),
    ]
    model = model_of(nodes, ("n", 3, 4, 4), constants, opset=opset)
    graph = load_graph(model)
    assert len(graph.nodes) == 7
    if opset <= 21:  # what this onnxruntime is sure to have
        check(graph, model, rng.standard_normal((2, 3, 4, 4)).astype(np.float32))


def test_functions_of_the_model_are_inlined() -> None:
    body = [node("Relu", "a", "b"), node("Add", "a b", "c")]
    function = helper.make_function("mine", "Twice", ["a"], ["c"], body, [helper.make_opsetid("", 21)])
    call = helper.make_node("Twice", ["x"], ["y"], domain="mine")
    model = model_of([call], ("n", 3))
    model.functions.append(function)
    model.opset_import.append(helper.make_opsetid("mine", 1))
    graph = load_graph(model)
    np.testing.assert_array_equal(evaluate(graph, np.array([[1, -2, 3]], np.float32)), [[2, -2, 6]])


def test_dead_nodes_do_not_matter() -> None:
    nodes = [node("Einsum", "x", "dead", equation="ab->a"), node("Relu", "x")]
    assert len(load_graph(model_of(nodes, ("n", 3))).nodes) == 1
    nodes = [node("Tanh", "x", "t"), node("Shape", "t", "s"), node("Reshape", "x s")]
    assert [n.name for n in load_graph(model_of(nodes, ("n", 3))).nodes] == ["Reshape_2"]


def test_optional_arrays_have_no_name() -> None:
    """An empty name among the outputs of one node is not the input of another."""
    nodes = [
        helper.make_node("Dropout", ["x"], ["a", ""]),
        helper.make_node("Clip", ["a", "", "high"], ["b"]),
        helper.make_node("Unique", ["c"], ["u", "i", "", ""], axis=0),
        helper.make_node("Gather", ["b", "i"], ["y"], axis=1),
    ]
    graph = load_graph(model_of(nodes, ("n", 3), {"high": 0.5, "c": [5, 6, 7]}))
    np.testing.assert_array_equal(evaluate(graph, ones(1, 3)), [[0.5] * 3])
    nodes[0].op_type = "Dropin"
    with pytest.raises(UnsupportedOperatorError) as caught:
        load_graph(model_of(nodes, ("n", 3), {"high": 0.5, "c": [5, 6, 7]}))
    assert len(caught.value.offenders) == 1


def test_names() -> None:
    nodes = [
        helper.make_node("Relu", ["x"], ["a"], name="act"),
        helper.make_node("Relu", ["a"], ["b"], name="act"),
        helper.make_node("Relu", ["b"], ["c"]),
        helper.make_node("ReduceMean", ["c", "axes"], ["y"], name="mean", keepdims=0),
    ]
    graph = load_graph(model_of(nodes, ("n", 3, 4, 4), {"axes": [2, 3]}))
    assert [n.name for n in graph.nodes] == [
        "act",
        "act_2",
        "Relu_2",
        "mean/GlobalAveragePool",
        "mean/Reshape",
    ]
    assert [type(n.op) for n in graph.nodes[-2:]] == [GlobalAveragePool, Reshape]
    assert list(graph.inputs) == ["x"]
    assert graph.output == "y"


# --- the input's shape ---


def test_open_shape_needs_input_shape() -> None:
    model = model_of([node("GlobalAveragePool", "x")], ("n", 3, "h", "w"))
    with pytest.raises(ModelError, match=r"\(n, 3, h, w\).*input_shape=\(3, …, …\)"):
        load_graph(model)
    assert load_graph(model, (3, 5, 6)).inputs["x"].shape == (3, 5, 6)
    assert load_graph(model, {"x": (3, 5, 6)}).inputs["x"].shape == (3, 5, 6)
    with pytest.raises(ModelError, match=r"input_shape=\(4, 5, 6\) does not fit"):
        load_graph(model, (4, 5, 6))
    with pytest.raises(ModelError, match="does not fit"):
        load_graph(model, (1, 3, 5, 6))
    for bad in ((3, 0, 5), (), "abc", (3, -1, 5)):
        with pytest.raises(ModelError, match="expected the sizes of one sample"):
            load_graph(model, bad)  # type: ignore[arg-type]


def test_unknown_rank_needs_input_shape() -> None:
    model = model_of([node("Relu", "x")], None)
    with pytest.raises(ModelError, match=r"has no shape.*input_shape="):
        load_graph(model)
    assert load_graph(model, (3, 4)).output_shape == (3, 4)


def test_readers_do_not_import_onnx() -> None:
    import subprocess
    import sys

    code = "import sys, lrpfast.onnx_io; assert 'onnx' not in sys.modules, sorted(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_every_reader_is_tested() -> None:
    """Each operator that has a reader is in one of the tables of forms."""
    import shape_forms
    import test_classical
    import test_elementwise
    import test_normalization
    import test_ops

    tables: tuple[Any, ...] = (
        test_ops.FORMS, test_elementwise.FORMS, shape_forms.FORMS, test_normalization.FORMS, test_classical.FORMS,
    )  # fmt: skip
    forms = {form[0] for table in tables for form in table.values()}
    forms |= {"Split", "Concat", "SwiGLU", "Equal", "OneHot"}
    assert set(READERS) == forms
    assert Conv in {type(n.op) for n in load_graph(SMALL_NETWORKS["small_cnn"]()).nodes}
