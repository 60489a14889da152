"""Constant folding: nodes all of whose inputs are constants are evaluated when a model is read."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from .ops.reading import Constant, Unsupported, Varying

if TYPE_CHECKING:
    from onnx import NodeProto

BATCHES = (1, 101)
"""Shape arithmetic is evaluated for two batch sizes; what differs depends on the batch size. One is 1, which models
ask for: is there an axis to squeeze?"""

MAX_BYTES = 2**30
"""A larger folded constant is refused: such a file is broken or malicious."""

RANDOM = frozenset(
    ("Bernoulli", "Multinomial", "RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike")
)

Operand = Constant | Varying | None


def shape_of(shape: tuple[int, ...], attributes: dict[str, Any]) -> Constant | Varying:
    """What ONNX's Shape gives for an array with samples of `shape`."""
    part = slice(attributes.get("start", 0), attributes.get("end"))
    first, second = (np.array((n, *shape)[part], np.int64) for n in BATCHES)
    return _merged(first, second)


def size_of(shape: tuple[int, ...]) -> Constant | Varying:
    """What ONNX's Size gives for an array with samples of `shape`."""
    first, second = (np.array(n * math.prod(shape), np.int64) for n in BATCHES)
    return _merged(first, second)


def fold(node: NodeProto, operands: Sequence[Operand], opset: int) -> list[Constant | Varying]:
    """The outputs of a node whose inputs are constants.

    Parameters
    ----------
    node : onnx.NodeProto
    operands : sequence of array, Varying or None
        Its inputs; None for those that are left out.
    opset : int

    Raises
    ------
    Unsupported
        It cannot be evaluated, is random, or its result would be too large.
    """
    if node.op_type in RANDOM:
        raise Unsupported("it draws random numbers")
    if not any(isinstance(operand, Varying) for operand in operands):
        return list(_evaluate(node, operands, opset))
    runs = []
    for trial in range(len(BATCHES)):
        values = [operand.values[trial] if isinstance(operand, Varying) else operand for operand in operands]
        runs.append(_evaluate(node, values, opset))
    return [_merged(first, second) for first, second in zip(*runs, strict=True)]


def _merged(first: Constant, second: Constant) -> Constant | Varying:
    """One constant if both trials agree."""
    if first.dtype == second.dtype and first.shape == second.shape and bool(np.all(first == second)):
        return first
    return Varying((first, second), BATCHES)


def _evaluate(node: NodeProto, operands: Sequence[Any], opset: int) -> list[Constant]:
    """Run ONNX's reference implementation of one node."""
    from onnx import helper
    from onnx.reference import ReferenceEvaluator

    feeds = {name: operand for name, operand in zip(node.input, operands, strict=True) if operand is not None}
    inputs = [
        helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(array.dtype), array.shape)
        for name, array in feeds.items()
    ]
    outputs = [helper.make_empty_tensor_value_info(name) for name in node.output if name]
    graph = helper.make_graph([node], "fold", inputs, outputs)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)])
    try:
        _check_size(node, feeds, {info.name: info.type for info in inputs}, opset)
        values = [np.asarray(value) for value in ReferenceEvaluator(model).run(None, feeds)]
    except Unsupported:
        raise
    except Exception as error:  # whatever onnx raises, it is this node that cannot be read
        raise Unsupported(f"it cannot be evaluated ({type(error).__name__}: {error})") from None
    found = iter(values)
    return [next(found) if name else np.zeros(0) for name in node.output]


def _check_size(node: NodeProto, feeds: dict[str, Constant], types: dict[str, Any], opset: int) -> None:
    """Refuse a node whose outputs would be too large, before it is evaluated."""
    from onnx import defs, helper, numpy_helper, shape_inference

    # Sizes can depend on the values of small inputs: shapes, repeats, limits.
    data = {name: numpy_helper.from_array(array) for name, array in feeds.items() if array.size <= 64}
    opsets = [helper.make_opsetid("", opset)]
    schema = defs.get_schema(node.op_type, opset)
    inferred = shape_inference.infer_node_outputs(schema, node, types, data, opset_imports=opsets)
    for output in inferred.values():
        tensor = output.tensor_type
        sizes = [dim.dim_value for dim in tensor.shape.dim]
        itemsize = np.dtype(helper.tensor_dtype_to_np_dtype(tensor.elem_type)).itemsize
        if math.prod(sizes) * itemsize > MAX_BYTES:
            raise Unsupported(f"it makes a constant of shape {tuple(sizes)}, more than {MAX_BYTES >> 30} GiB")
