"""Transposes are moved towards the output, past what does not mind them, and cancel each other.

Frameworks with channels last surround each convolution by two transposes, with its bias, its normalisation and
its activation outside. Inside, these can be folded into the convolution.
"""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

from .graph import Graph, Node, prune
from .ops.affine import Affine
from .ops.arithmetic import Add
from .ops.base import Array, Elementwise, Op
from .ops.movement import Concat, Pad, Transpose
from .ops.normalization import LpNormalization, Normalization


class _Turned(NamedTuple):
    """An array as a transpose of another one."""

    source: str
    perm: tuple[int, ...]


def with_transposes_late(graph: Graph, changes: list[str]) -> Graph:
    """The same function with transposes behind affine operators, normalisation, activations, padding, sums and
    concatenations.

    Parameters
    ----------
    graph : Graph
    changes : list of str
        Gets a line if anything is moved.
    """
    before = _transposes(graph)
    if not before:
        return graph
    moved = _Moving(graph).graph_after()
    if moved.nodes != graph.nodes:
        changes.append(f"transposes moved towards the output: {_transposes(moved)} of {before} are left")
    return moved


def _transposes(graph: Graph) -> int:
    return sum(isinstance(node.op, Transpose) for node in graph.nodes)


class _Moving:
    """A walk along a graph's nodes that knows which arrays are transposes of which."""

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.nodes: list[Node] = []
        self.turned: dict[str, _Turned] = {}
        self.alias: dict[str, str] = {}  # arrays that are transposed back to what they were
        self.taken = {*graph.facts, *(node.name for node in graph.nodes)}

    def graph_after(self) -> Graph:
        for node in self.graph.nodes:
            self.visit(replace(node, inputs=tuple(self.alias.get(name, name) for name in node.inputs)))
        output = self.alias.get(self.graph.output, self.graph.output)
        return Graph(self.graph.inputs, prune(output, self.nodes), output)

    def visit(self, node: Node) -> None:
        turned = [self.turned.get(name) for name in node.inputs]
        if isinstance(node.op, Transpose):
            source, before = turned[0] or (node.inputs[0], tuple(range(len(node.op.perm))))
            self.turn(node.name, source, tuple(before[axis] for axis in node.op.perm), node.output)
            return
        perms = {None if each is None else each.perm for each in turned}
        perm = perms.pop() if len(perms) == 1 else None
        op = None if perm is None else _inside(node.op, perm)
        if perm is None or op is None:
            self.nodes.append(node)
            return
        inner = self.fresh(f"{node.output}/inside")
        self.nodes.append(Node(node.name, op, tuple(each.source for each in turned if each), inner))
        self.turn(self.fresh(f"{node.name}/Transpose"), inner, perm, node.output)

    def turn(self, name: str, source: str, perm: tuple[int, ...], output: str) -> None:
        """Let `output` be `source`, transposed."""
        if perm == tuple(sorted(perm)):
            self.alias[output] = source
            return
        self.turned[output] = _Turned(source, perm)
        self.nodes.append(Node(name, Transpose(perm), (source,), output))

    def fresh(self, name: str) -> str:
        while name in self.taken:
            name += "_"
        self.taken.add(name)
        return name


def _inside(op: Op, perm: tuple[int, ...]) -> Op | None:
    """What `op` is on arrays that are not transposed yet; None if it is nothing simple."""
    inverse = tuple(perm.index(axis) for axis in range(len(perm)))
    if isinstance(op, Affine):
        return replace(op, scale=_turned_back(op.scale, inverse), shift=_turned_back(op.shift, inverse))
    if isinstance(op, Pad):
        begins, ends = op.pads[: len(perm)], op.pads[len(perm) :]
        return replace(op, pads=tuple(part[axis] for part in (begins, ends) for axis in inverse))
    if isinstance(op, Concat):
        return Concat(perm[op.axis])
    if isinstance(op, LpNormalization) or (isinstance(op, Normalization) and op.groups == 1):
        return replace(op, axes=tuple(sorted(perm[axis] for axis in op.axes)))
    return op if isinstance(op, Add) or (isinstance(op, Elementwise) and op.uniform) else None


def _turned_back(values: Array, inverse: tuple[int, ...]) -> Array:
    """Parameters that broadcast to transposed samples, for samples that are not."""
    turned: Array = values.reshape((1,) * (len(inverse) - values.ndim) + values.shape).transpose(inverse)
    return turned
