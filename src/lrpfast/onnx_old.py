"""Opset 6 as 7 says it: broadcasting by attributes, and operators that train unless told otherwise."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from .errors import ModelError
from .graph import Fact
from .ops.reading import Unsupported

if TYPE_CHECKING:
    from onnx import NodeProto

SINCE = 7
"""The opset from which on arrays broadcast as NumPy's do."""

_TRAINING = ("BatchNormalization", "Dropout")


def modernized(node: NodeProto, operands: Sequence[Any]) -> tuple[NodeProto, tuple[Any, ...]]:
    """A node of opset 6, and its operands, as they would be in opset 7.

    Before opset 7 the second operand of arithmetic may broadcast where `broadcast=1` says so: its axes are the
    last ones of the first operand, or those from `axis` on. PRelu's slopes are one for each channel, axis 1.

    Raises
    ------
    Unsupported
        The node is for training, or an array that would need axes of size 1 behind its own is computed.
    ModelError
        There are not so many axes.
    """
    from onnx import NodeProto

    attributes = {attribute.name: attribute.i for attribute in node.attribute}
    if node.op_type in _TRAINING and not attributes.get("is_test", 0):
        raise Unsupported("it is for training (is_test=0 before opset 7); export the model for inference")
    axis = attributes.get("axis") if attributes.get("broadcast") else 1 if node.op_type == "PRelu" else None
    if "broadcast" not in attributes and axis is None:
        return node, tuple(operands)
    renewed = NodeProto()
    renewed.CopyFrom(node)
    del renewed.attribute[:]
    renewed.attribute.extend(a for a in node.attribute if a.name not in ("broadcast", "axis"))
    return renewed, tuple(operands) if axis is None else _aligned(node, operands, axis)


def _aligned(node: NodeProto, operands: Sequence[Any], axis: int) -> tuple[Any, ...]:
    """Two operands, the second with axes of size 1 behind its own, which are those of the first from `axis` on."""
    if len(operands) != 2 or not all(isinstance(operand, (Fact, np.ndarray)) for operand in operands):
        raise Unsupported(
            f"it broadcasts {len(operands)} arrays from axis {axis} on; expected two of known sizes"
        )
    first, second = operands
    rank, taken = (1 + len(x.shape) if isinstance(x, Fact) else x.ndim for x in operands)
    if not taken or (node.op_type == "PRelu" and (taken > 1 or second.size == 1)):
        return first, second
    start = axis + rank if axis < 0 else axis
    if not 0 <= start <= rank - taken:
        raise ModelError(f"axis is {axis}; its inputs have {rank} and {taken} axes")
    behind = rank - taken - start
    if not behind:
        return first, second
    if isinstance(second, Fact):
        raise Unsupported(
            f"its input 1 ({node.input[1]!r}), which broadcasts from axis {axis} on, is computed"
        )
    return first, second.reshape(*second.shape, *(1,) * behind)
