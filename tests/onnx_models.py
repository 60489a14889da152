"""ONNX models of a few nodes, and graphs run by their operators' own definitions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from lrpfast.graph import Graph

Array = NDArray[Any]
OPSET = 21


def model_of(
    nodes: Sequence[onnx.NodeProto],
    input_shape: Sequence[int | str | None] | None,
    constants: Mapping[str, Any] | None = None,
    *,
    opset: int = OPSET,
    elem_type: int = TensorProto.FLOAT,
    outputs: Sequence[str] = ("y",),
) -> onnx.ModelProto:
    """A model from "x" to "y", unchecked; `input_shape` has the batch in front, None is an unknown rank.

    Constants keep their dtype; Python numbers become float32 or int64.
    """
    tensors = [numpy_helper.from_array(_array(value), name) for name, value in (constants or {}).items()]
    graph = helper.make_graph(
        list(nodes),
        "test",
        [helper.make_tensor_value_info("x", elem_type, input_shape)],
        [helper.make_tensor_value_info(name, elem_type, None) for name in outputs],
        tensors,
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=10)


def _array(value: Any) -> Array:
    array = np.asarray(value)
    if isinstance(value, (np.ndarray, np.generic)):
        return array
    return array.astype(np.float32 if array.dtype.kind == "f" else np.int64)


def node(op_type: str, inputs: str, outputs: str = "y", **attributes: Any) -> onnx.NodeProto:
    """A node; names of arrays are given in one string, `-` stands for one that is left out."""
    names = ["" if name == "-" else name for name in inputs.split()]
    return helper.make_node(op_type, names, outputs.split(), **attributes)


def ones(*shape: int) -> Array:
    """Ones in float32."""
    return np.ones(shape, np.float32)


def evaluate(graph: Graph, x: Array) -> Array:
    """The output of a graph, each node run by its operator's `forward`."""
    values = dict.fromkeys(graph.inputs, x)
    for n in graph.nodes:
        values[n.output] = n.op.forward(*(values[name] for name in n.inputs))
        assert values[n.output].shape == (len(x), *graph.facts[n.output].shape)
    return values[graph.output]
