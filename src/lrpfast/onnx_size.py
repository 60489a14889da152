"""How large a model is, told before anything is done with it; and its functions written out."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from .errors import ModelError
from .limits import Limits
from .onnx_branches import graphs

if TYPE_CHECKING:
    from onnx import FunctionProto, GraphProto, ModelProto, NodeProto

Key = tuple[str, str, str]
"""What a call names a function by: domain, name, overload."""


def check_graph(graph: GraphProto, limits: Limits) -> None:
    """Check counts, depth and names of a graph and of those in its nodes.

    Raises
    ------
    ModelError
        It exceeds a limit, or has names that are not UTF-8.
    """
    limits.check("ends", len(graph.input), "it has inputs")
    limits.check("ends", len(graph.output), "it has outputs")
    waiting, count, depth = [graph], 0, 0
    while waiting:
        limits.check("depth", depth, "its graphs lie within one another")
        count += sum(len(each.node) for each in waiting)
        limits.check("nodes", count, "it has nodes")
        waiting = [inner for each in waiting for inner in _checked(each)]
        depth += 1


def _checked(graph: GraphProto) -> list[GraphProto]:
    """The graphs in a graph's nodes; raises `ModelError` if a name is not text: protobuf then gives bytes."""
    inner: list[GraphProto] = []
    names: list[str] = [tensor.name for tensor in graph.initializer]
    for node in graph.node:
        names += (node.name, node.op_type, node.domain)
        names += node.input
        names += node.output
        for attribute in node.attribute:
            names.append(attribute.name)
            if attribute.HasField("g"):
                inner.append(attribute.g)
            inner += attribute.graphs
    for values in (graph.input, graph.output):
        names += [value.name for value in values]
        names += [dim.dim_param for value in values for dim in value.type.tensor_type.shape.dim]
    try:
        "".join(names)  # the fastest way to see whether all are text
    except TypeError:
        name = next(each for each in names if not isinstance(each, str))
        raise ModelError(f"the name {name!r} in it is not UTF-8; the file is damaged") from None
    return inner


def without_functions(model: ModelProto, limits: Limits) -> ModelProto:
    """The model with calls of its own functions replaced by their bodies.

    Raises
    ------
    ModelError
        That would be more than the limits allow; functions call one another in a circle, or cannot be written out.
    """
    if not model.functions:
        return model
    from onnx import checker, inliner

    _Calls(model, limits).size(model.graph.node)
    try:
        return inliner.inline_local_functions(model)
    except (RuntimeError, checker.ValidationError) as error:
        raise ModelError(f"its functions cannot be written out: {error}") from None


class _Calls:
    """How many nodes, and bytes, calls of functions become: as many as two to the power of their number, in bad cases.

    Parameters
    ----------
    model : onnx.ModelProto
    limits : Limits
    """

    def __init__(self, model: ModelProto, limits: Limits) -> None:
        self.functions = {(each.domain, each.name, _overload(each)): each for each in model.functions}
        self.limits = limits
        self.known: dict[Key, tuple[int, int]] = {}
        self.open: list[Key] = []

    def size(self, nodes: Iterable[NodeProto]) -> tuple[int, int]:
        """Nodes, and bytes of them, that some nodes become."""
        count = nbytes = 0
        for node in nodes:
            parts = [self.size(graph.node) for graph in graphs(node)]
            key = (node.domain, node.op_type, _overload(node))
            parts.append(self.size_of(key) if key in self.functions else (1, node.ByteSize()))
            count += sum(part[0] for part in parts)
            nbytes += sum(part[1] for part in parts)
            self.limits.check("nodes", count, "it has nodes, those of its functions at each call included")
            self.limits.check("structure", nbytes, "its nodes, those of its functions at each call included")
        return count, nbytes

    def size_of(self, key: Key) -> tuple[int, int]:
        """What one call becomes."""
        if key in self.open:
            raise ModelError(f"its function {key[1]!r} calls itself")
        if key not in self.known:
            self.open.append(key)
            self.limits.check("depth", len(self.open), "its functions call one another")
            self.known[key] = self.size(self.functions[key].node)
            self.open.pop()
        return self.known[key]


def _overload(thing: NodeProto | FunctionProto) -> str:
    """Which of the functions of one name it is; before onnx 1.16 there was one of each."""
    return str(getattr(thing, "overload", ""))
