"""Indices of embeddings without the step that makes negative ones positive, which they do not need.

Keras looks rows up by `where(i < 0, i + rows, i)`, as ONNX's Gather does by itself.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from .ops.reading import Constant

if TYPE_CHECKING:
    from onnx import GraphProto, NodeProto, TensorProto


def with_plain_indices(graph: GraphProto, read: Callable[[TensorProto], Constant]) -> Sequence[NodeProto]:
    """The graph's nodes; those that look rows up by such a step read what comes before it.

    Parameters
    ----------
    graph : onnx.GraphProto
        Not changed.
    read : callable
        Gives the value of one of the graph's tensors.
    """
    producers = {output: node for node in graph.node for output in node.output}
    tensors = {tensor.name: tensor for tensor in graph.initializer}

    def number(name: str) -> float | None:
        tensor = tensors.get(name)
        if tensor is None or any(n != 1 for n in tensor.dims):
            return None
        value = read(tensor)
        return float(value.reshape(-1)[0]) if value.dtype.kind in "fiu" else None

    def operator(name: str, op_type: str, count: int) -> list[str]:
        """What the node of this type that makes an array reads; nothing if another one does."""
        node = producers.get(name)
        fits = node is not None and node.op_type == op_type and len(node.input) == count
        return list(node.input) if node is not None and fits else [""] * count

    def plain(node: NodeProto) -> NodeProto:
        if node.op_type != "Gather" or len(node.input) != 2 or node.input[0] not in tensors:
            return node
        table = tensors[node.input[0]]
        condition, moved, index = operator(node.input[1], "Where", 3)
        compared, zero = operator(condition, "Less", 2)
        added, rows = operator(moved, "Add", 2)
        if not index or not index == compared == added or number(zero) != 0:
            return node
        if (
            not table.dims
            or number(rows) != table.dims[0]
            or any(a.name == "axis" and a.i for a in node.attribute)
        ):
            return node
        copy = type(node)()
        copy.CopyFrom(node)
        copy.input[1] = index
        return copy

    return [plain(node) for node in graph.node]
