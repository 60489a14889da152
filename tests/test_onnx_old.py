"""Opset 6: broadcasting by attributes, and operators that train unless told otherwise."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from onnx_models import evaluate, model_of, node, ones

from lrpfast.errors import ModelError, UnsupportedOperatorError
from lrpfast.onnx_io import load_graph

RNG = np.random.default_rng(0)
X = RNG.standard_normal((2, 3, 4, 3), np.float32)
C = RNG.uniform(1, 2, 3).astype(np.float32)


@pytest.mark.parametrize(
    ("op_type", "function"), [("Add", np.add), ("Sub", np.subtract), ("Mul", np.multiply), ("Div", np.divide)]
)
@pytest.mark.parametrize("axis", [1, -3, 3, -1, None])
def test_broadcasting(op_type: str, function: Callable[..., Any], axis: int | None) -> None:
    """The axes of the constant begin at `axis`; the channels and the last axis have the same size."""
    attributes = {} if axis is None else {"axis": axis}
    model = model_of([node(op_type, "x c", broadcast=1, **attributes)], ("n", 3, 4, 3), {"c": C}, opset=6)
    expected = function(X, C[:, None, None] if axis in (1, -3) else C)
    np.testing.assert_allclose(evaluate(load_graph(model), X), expected, rtol=1e-6)


def test_constants_broadcast_before_they_are_folded() -> None:
    nodes = [node("Mul", "a c", "s", broadcast=1, axis=0), node("Add", "x s", broadcast=1)]
    model = model_of(nodes, ("n", 3, 4, 3), {"a": ones(3, 4, 3), "c": C}, opset=6)
    np.testing.assert_allclose(evaluate(load_graph(model), X), X + C[:, None, None], rtol=1e-6)


def test_a_computed_array_cannot_get_axes() -> None:
    nodes = [node("Add", "x v", broadcast=1, axis=0)]
    model = model_of(nodes, ("n", 3), opset=6)
    model.graph.input.append(helper.make_tensor_value_info("v", TensorProto.FLOAT, ["n", 1]))
    assert evaluate_two(model, ones(2, 3), ones(2, 1)).tolist() == [[2.0] * 3] * 2
    nodes[0].input[0] = "m"
    nodes.insert(0, node("Unsqueeze", "x", "m", axes=[2]))
    model = model_of(nodes, ("n", 3), opset=6)
    model.graph.input.append(helper.make_tensor_value_info("v", TensorProto.FLOAT, ["n", 3]))
    with pytest.raises(UnsupportedOperatorError, match="broadcasts from axis 0 on, is computed"):
        load_graph(model)


def test_axes_that_are_not_there() -> None:
    for axis in (2, 3, -4, 9):
        model = model_of(
            [node("Add", "x c", broadcast=1, axis=axis)], ("n", 3, 4), {"c": ones(3, 4)}, opset=6
        )
        with pytest.raises(ModelError, match=f"axis is {axis}; its inputs have 3 and 2 axes"):
            load_graph(model)
    nodes = [node("Shape", "x", "s"), node("Mul", "s two", "t", broadcast=1, axis=0), node("Reshape", "x t")]
    with pytest.raises(UnsupportedOperatorError, match="of known sizes"):
        load_graph(model_of(nodes, ("n", 3), {"two": [2]}, opset=6))
    with pytest.raises(UnsupportedOperatorError, match="it broadcasts 1 arrays"):
        load_graph(model_of([node("Add", "x", broadcast=1, axis=0)], ("n", 3), opset=6))


def evaluate_two(model: onnx.ModelProto, *arrays: Any) -> Any:
    """The prediction of a network with several inputs."""
    import lrpfast

    return lrpfast.load(model).predict(arrays)


@pytest.mark.parametrize("op_type", ["Dropout", "BatchNormalization"])
def test_training(op_type: str) -> None:
    constants = {name: ones(3) for name in "gbmv"}
    inputs = "x g b m v" if op_type == "BatchNormalization" else "x"
    model = model_of([node(op_type, inputs, is_test=1)], ("n", 3), constants, opset=6)
    assert load_graph(model).output_shape == (3,)
    for attributes in ({}, {"is_test": 0}):
        model = model_of([node(op_type, inputs, **attributes)], ("n", 3), constants, opset=6)
        with pytest.raises(UnsupportedOperatorError, match="is_test=0"):
            load_graph(model)
