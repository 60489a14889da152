"""Constant folding: nodes all of whose inputs are constants are evaluated when a model is read."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from .limits import Budget
from .onnx_attributes import tensors_of
from .onnx_results import BOUNDS, itemsize, steps
from .ops.reading import Constant, Unsupported, Varying

if TYPE_CHECKING:
    from onnx import NodeProto

BATCHES = (1, 101)
"""Shape arithmetic is evaluated for two batch sizes; what differs depends on the batch size. One is 1, which models
ask for: is there an axis to squeeze?"""

MOST_ELEMENTS = 2**63
"""Of an array, and far beyond all limits. What asks for more may ask for a number that has no end."""

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

    def fold(
        self, node: NodeProto, operands: Sequence[Operand], attributes: dict[str, Any]
    ) -> list[Constant | Varying]:
        """The outputs of a node whose inputs are constants.

        Parameters
        ----------
        node : onnx.NodeProto
        operands : sequence of array, Varying or None
            Its inputs; None for those that are left out.
        attributes : dict

        Raises
        ------
        Unsupported
            It cannot be evaluated, is random, not among what is computed of constants, or another file's.
        ModelError
            It would exceed a limit.
        """
        from onnx import TensorProto

        if node.op_type in RANDOM:
            raise Unsupported("it draws random numbers")
        if any(tensor.data_location == TensorProto.EXTERNAL for tensor in tensors_of(node)):
            raise Unsupported("a tensor among its attributes is in another file")  # which onnx would look for
        if not any(isinstance(operand, Varying) for operand in operands):
            return list(self._evaluate(node, operands, attributes))
        runs = []
        for trial in range(len(BATCHES)):
            values = [
                operand.values[trial] if isinstance(operand, Varying) else operand for operand in operands
            ]
            runs.append(self._evaluate(node, values, attributes))
        return [_merged(first, second) for first, second in zip(*runs, strict=True)]

    def _evaluate(
        self, node: NodeProto, operands: Sequence[Any], attributes: dict[str, Any]
    ) -> list[Constant]:
        """Run ONNX's reference implementation of one node."""
        from onnx import helper
        from onnx.reference import ReferenceEvaluator

        self._admit(node.op_type, attributes, operands)
        feeds = {
            name: operand for name, operand in zip(node.input, operands, strict=True) if operand is not None
        }
        try:
            inputs = [
                helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(array.dtype), array.shape)
                for name, array in feeds.items()
            ]
            outputs = [helper.make_empty_tensor_value_info(name) for name in node.output if name]
            graph = helper.make_graph([node], "fold", inputs, outputs)
            model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", self.opset)])
            values = [np.asarray(value) for value in ReferenceEvaluator(model).run(None, feeds)]
        except Exception as error:  # whatever onnx raises, it is this node that cannot be read
            raise _failed(error) from None
        found = iter(values)
        return [next(found) if name else np.zeros(0) for name in node.output]

    def _admit(self, op_type: str, attributes: dict[str, Any], operands: Sequence[Any]) -> None:
        """Count what a node takes, before it is evaluated."""
        bound = BOUNDS.get(op_type)
        if bound is None:
            raise Unsupported("lrpfast does not compute it of constants")
        if any(operand is not None and operand.dtype.kind in "OSU" for operand in operands):
            raise Unsupported("it computes with texts")  # which a sum or a product makes as long as it likes
        try:
            elements = min(bound(attributes, operands), MOST_ELEMENTS)
            work = steps(op_type, attributes, operands, elements)
        except Exception as error:  # operands and attributes that make no sense do so in every way there is
            raise _failed(error) from None
        self.budget.take(elements * itemsize(op_type, operands), f"one of {elements} elements", work)


def _failed(error: Exception) -> Unsupported:
    return Unsupported(f"it cannot be evaluated ({type(error).__name__}: {error})")


def _merged(first: Constant, second: Constant) -> Constant | Varying:
    """One constant if both trials agree."""
    if first.dtype == second.dtype and first.shape == second.shape and bool(np.all(first == second)):
        return first
    return Varying((first, second), BATCHES)
