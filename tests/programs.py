"""ONNX models written as lines of Python: `m = ReduceMean(x, axes=[2]); y = Sub(x, m)`.

Numbers and lists of them are constants, keywords attributes.
"""

from __future__ import annotations

import ast
from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

Constants = Mapping[str, Any]


def model(
    program: str, shape: tuple[int, ...], constants: Constants | None = None, *, opset: int = 17,
    dtype: type = np.float64, rounded: bool = False, integers: bool = False,
) -> onnx.ModelProto:  # fmt: skip
    """The model from x (n, *shape) to y, of floats of `dtype`.

    Parameters
    ----------
    rounded : bool
        Round all constants to float32.
    integers : bool
        Let x be of integers.
    """
    tensors: list[onnx.TensorProto] = []

    def add(value: Any, name: str = "") -> str:
        array = np.asarray(value)
        if array.dtype.kind == "f":
            array = array.astype(np.float32).astype(dtype) if rounded else array.astype(dtype)
        name = name or f"c{len(tensors)}"
        tensors.append(numpy_helper.from_array(array, name))
        return name

    for name, value in (constants or {}).items():
        add(value, name)
    nodes = []
    for line in ast.parse(program).body:
        assert isinstance(line, ast.Assign) and isinstance(line.value, ast.Call)
        call, (target,) = line.value, line.targets
        inputs = [a.id if isinstance(a, ast.Name) else add(ast.literal_eval(a)) for a in call.args]
        attributes = {str(k.arg): ast.literal_eval(k.value) for k in call.keywords}
        nodes.append(helper.make_node(ast.unparse(call.func), inputs, [ast.unparse(target)], **attributes))
    real = helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
    graph = helper.make_graph(
        nodes,
        "program",
        [helper.make_tensor_value_info("x", TensorProto.INT64 if integers else real, ["n", *shape])],
        [helper.make_tensor_value_info("y", real, None)],
        tensors,
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=10)
