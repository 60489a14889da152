"""Nodes that hold graphs of their own: which arrays those read, and the nodes of a branch in place of an If."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, NamedTuple

from .errors import ModelError

if TYPE_CHECKING:
    from onnx import GraphProto, NodeProto, TensorProto


class Branch(NamedTuple):
    """What stands for an If whose condition is known.

    Attributes
    ----------
    nodes : list of onnx.NodeProto
        They write the outputs of the If.
    tensors : mapping of str to onnx.TensorProto
        Constants of the branch, by name.
    """

    nodes: list[NodeProto]
    tensors: Mapping[str, TensorProto]


def graphs(node: NodeProto) -> list[GraphProto]:
    """The graphs that a node holds."""
    found = [attribute.g for attribute in node.attribute if attribute.HasField("g")]
    return found + [graph for attribute in node.attribute for graph in attribute.graphs]


def reads(node: NodeProto) -> Iterator[str]:
    """The arrays that a node reads, those that only its graphs read included."""
    yield from node.input
    for graph in graphs(node):
        own = _own(graph)
        for name in [
            *(value.name for value in graph.output),
            *(n for inner in graph.node for n in reads(inner)),
        ]:
            if name not in own:
                yield name


def branch_of(node: NodeProto, condition: bool, title: str) -> Branch:
    """The branch that an If takes.

    Parameters
    ----------
    node : onnx.NodeProto
    condition : bool
    title : str
        What the names of the branch's nodes and arrays begin with; no others of the model's do.

    Raises
    ------
    ModelError
        There is no such branch, or it has another number of outputs.
    """
    from onnx import helper

    wanted = "then_branch" if condition else "else_branch"
    graph = next((attribute.g for attribute in node.attribute if attribute.name == wanted), None)
    if graph is None or len(graph.output) != len(node.output):
        raise ModelError(f"its {wanted} is missing, or does not have as many outputs as the If")
    names = {name: f"{title}/{name}" for name in _own(graph) if name}
    nodes = []
    for index, inner in enumerate(graph.node):
        nodes.append(_renamed(inner, lambda name: names.get(name, name)))
        nodes[-1].name = f"{title}/{inner.name or f'{inner.op_type}_{index}'}"
    for value, output in zip(graph.output, node.output, strict=True):
        nodes.append(
            helper.make_node("Identity", [names.get(value.name, value.name)], [output], f"{title}/{output}")
        )
    return Branch(nodes, {names[tensor.name]: tensor for tensor in graph.initializer})


def _own(graph: GraphProto) -> set[str]:
    """The arrays that a graph has itself."""
    declared = {value.name for value in graph.input} | {tensor.name for tensor in graph.initializer}
    return declared | {output for node in graph.node for output in node.output}


def _renamed(node: NodeProto, new: Callable[[str], str]) -> NodeProto:
    """A copy of a node, and of the graphs in it, that calls arrays by new names."""
    from onnx import NodeProto

    copy = NodeProto()
    copy.CopyFrom(node)
    copy.input[:] = map(new, node.input)
    copy.output[:] = map(new, node.output)
    for graph in graphs(copy):
        outer = _but(_own(graph), new)
        for inner in graph.node:
            inner.CopyFrom(_renamed(inner, outer))
        for value in graph.output:
            value.name = outer(value.name)
    return copy


def _but(own: set[str], new: Callable[[str], str]) -> Callable[[str], str]:
    """`new`, but for names of a graph's own."""
    return lambda name: name if name in own else new(name)
