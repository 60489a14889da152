"""Constant folding: nodes all of whose inputs are constants are evaluated when a model is read."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from .limits import Budget
from .ops.reading import Constant, Unsupported, Varying

if TYPE_CHECKING:
    from onnx import NodeProto

BATCHES = (1, 101)
"""Shape arithmetic is evaluated for two batch sizes; what differs depends on the batch size. One is 1, which models
ask for: is there an axis to squeeze?"""

RANDOM = frozenset(
    ("Bernoulli", "Multinomial", "RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike")
)

SMALLER = frozenset(("Compress", "NonMaxSuppression", "NonZero", "Unique"))
"""Operators whose results are as large as their values say, but hardly larger than what they read."""

PRODUCTS = frozenset(("Conv", "ConvInteger", "ConvTranspose", "DeformConv", "Einsum", "QLinearConv"))
"""Operators that may multiply each element of one input with each of the others."""

LOOPS = frozenset(
    ("AffineGrid", "AveragePool", "Col2Im", "GatherND", "GridSample", "LRN", "LpPool", "MaxPool", "MaxRoiPool",
     "MaxUnpool", "MelWeightMatrix", "NonMaxSuppression", "Resize", "ReverseSequence", "RoiAlign", "STFT",
     "ScatterElements", "ScatterND", "TensorScatter", "TfIdfVectorizer", "Upsample")
)  # fmt: skip
"""Operators that onnx's reference evaluates element by element."""

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


class Folding:
    """Evaluates nodes of a model, as long as that is within the limits.

    Parameters
    ----------
    opset : int
    budget : Budget
    """

    def __init__(self, opset: int, budget: Budget) -> None:
        self.opset = opset
        self.budget = budget

    def fold(self, node: NodeProto, operands: Sequence[Operand]) -> list[Constant | Varying]:
        """The outputs of a node whose inputs are constants.

        Parameters
        ----------
        node : onnx.NodeProto
        operands : sequence of array, Varying or None
            Its inputs; None for those that are left out.

        Raises
        ------
        Unsupported
            It cannot be evaluated, is random, or nobody knows how large its result would be.
        ModelError
            It would exceed a limit.
        """
        if node.op_type in RANDOM:
            raise Unsupported("it draws random numbers")
        if not any(isinstance(operand, Varying) for operand in operands):
            return list(self._evaluate(node, operands))
        runs = []
        for trial in range(len(BATCHES)):
            values = [
                operand.values[trial] if isinstance(operand, Varying) else operand for operand in operands
            ]
            runs.append(self._evaluate(node, values))
        return [_merged(first, second) for first, second in zip(*runs, strict=True)]

    def _evaluate(self, node: NodeProto, operands: Sequence[Any]) -> list[Constant]:
        """Run ONNX's reference implementation of one node."""
        from onnx import helper
        from onnx.reference import ReferenceEvaluator

        feeds = {
            name: operand for name, operand in zip(node.input, operands, strict=True) if operand is not None
        }
        try:
            inputs = [
                helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(array.dtype), array.shape)
                for name, array in feeds.items()
            ]
            _check_axes(node, operands)
            sizes = _sizes(node, feeds, {info.name: info.type for info in inputs}, self.opset)
        except Exception as error:  # whatever onnx raises, it is this node that cannot be read
            raise _failed(error) from None
        self._admit(node, [operand for operand in operands if operand is not None], sizes)
        outputs = [helper.make_empty_tensor_value_info(name) for name in node.output if name]
        graph = helper.make_graph([node], "fold", inputs, outputs)
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", self.opset)])
        try:
            values = [np.asarray(value) for value in ReferenceEvaluator(model).run(None, feeds)]
        except Exception as error:  # as above
            raise _failed(error) from None
        found = iter(values)
        return [next(found) if name else np.zeros(0) for name in node.output]

    def _admit(self, node: NodeProto, inputs: Sequence[Constant], sizes: Sequence[_Size] | None) -> None:
        """Count what a node takes, before it is evaluated."""
        if sizes is None:
            if node.op_type not in SMALLER:
                raise Unsupported("the size of its result cannot be told before it is evaluated")
            sizes = [_Size(array.shape * 2, 8) for array in inputs]
        shapes = ", ".join(str(size.shape) for size in sizes)
        steps = _steps(node, inputs, sum(math.prod(size.shape) for size in sizes))
        self.budget.take(sum(size.nbytes for size in sizes), f"those of shape {shapes}", steps)


class _Size(NamedTuple):
    """Of an array."""

    shape: tuple[int, ...]
    itemsize: int

    @property
    def nbytes(self) -> int:
        return math.prod(self.shape) * self.itemsize


def _failed(error: Exception) -> Unsupported:
    return Unsupported(f"it cannot be evaluated ({type(error).__name__}: {error})")


def _merged(first: Constant, second: Constant) -> Constant | Varying:
    """One constant if both trials agree."""
    if first.dtype == second.dtype and first.shape == second.shape and bool(np.all(first == second)):
        return first
    return Varying((first, second), BATCHES)


def _check_axes(node: NodeProto, operands: Sequence[Any]) -> None:
    """Raise `ValueError` for axes that the first input does not have: onnx's inference writes wherever they point."""
    rank = 0 if not operands or operands[0] is None else operands[0].ndim
    for attribute in node.attribute:
        if attribute.name in ("axis", "axes"):
            axes = (attribute.i, *attribute.ints)
            rank += len(axes) if node.op_type in ("OneHot", "Unsqueeze") else 0  # of the result
            if not all(-rank <= axis <= rank for axis in axes):
                raise ValueError(f"{attribute.name} is {axes}; its input has {rank} axes")


def _sizes(
    node: NodeProto, feeds: dict[str, Constant], types: dict[str, Any], opset: int
) -> list[_Size] | None:
    """How large the outputs of a node will be; None if that cannot be told."""
    from onnx import defs, helper, numpy_helper, shape_inference

    # Sizes can depend on the values of small inputs: shapes, repeats, limits.
    data = {name: numpy_helper.from_array(array) for name, array in feeds.items() if array.size <= 64}
    opsets = [helper.make_opsetid("", opset)]
    schema = defs.get_schema(node.op_type, opset)
    inferred = shape_inference.infer_node_outputs(schema, node, types, data, opset_imports=opsets)
    found = []
    for output in inferred.values():
        tensor = output.tensor_type
        dims = list(tensor.shape.dim)
        if not tensor.HasField("shape") or not all(dim.HasField("dim_value") for dim in dims):
            return None
        itemsize = np.dtype(helper.tensor_dtype_to_np_dtype(tensor.elem_type)).itemsize
        found.append(_Size(tuple(dim.dim_value for dim in dims), itemsize))
    return found if len(found) == sum(map(bool, node.output)) else None


def _steps(node: NodeProto, inputs: Sequence[Constant], written: int) -> int:
    """About how long a node takes."""
    sizes = [array.size for array in inputs]
    if node.op_type in PRODUCTS:
        return math.prod(sizes)
    if node.op_type in ("Gemm", "MatMul") and len(inputs) > 1:
        return sizes[0] * max(inputs[1].shape, default=1)
    total = sum(sizes) + written
    return 10_000 * total if node.op_type in LOOPS else total
