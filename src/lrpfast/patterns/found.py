"""A layer in pieces, and a graph in which it is whole."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from ..graph import Graph, Node, prune
from ..ops.base import Op


@dataclass(frozen=True)
class Found:
    """A layer that was broken up.

    Attributes
    ----------
    pieces : tuple of Node
        What it was made of.
    root : Node
        The piece whose output is the layer's.
    x : str
        The array that the layer reads.
    ops : tuple of Op
        What it is: operators, one after the other.
    """

    pieces: tuple[Node, ...]
    root: Node
    x: str
    ops: tuple[Op, ...]

    @property
    def change(self) -> str:
        """A line for the list of changes."""
        return f"{self.root.name}: found to be {self.ops[0].kinds[0]}, in {len(self.pieces)} pieces"


def made_whole(graph: Graph, found: Iterable[Found], changes: list[str]) -> Graph:
    """The graph with layers in the place of their pieces; of layers that share a piece, the first is taken.

    The last operator of a layer takes the name of its last piece.
    """
    gone: set[str] = set()
    layers: dict[str, Found] = {}
    for each in found:
        names = {piece.name for piece in each.pieces}
        if not names & gone:
            gone |= names
            layers[each.root.name] = each
            changes.append(each.change)
    if not layers:
        return graph
    taken = {*graph.facts, *(node.name for node in graph.nodes)}
    nodes: list[Node] = []
    for node in graph.nodes:
        if node.name in layers:
            nodes += _chain(layers[node.name], taken)
        elif node.name not in gone:
            nodes.append(node)
    return Graph(graph.inputs, prune(graph.output, nodes), graph.output)


def _chain(layer: Found, taken: set[str]) -> list[Node]:
    nodes, value = [], layer.x
    for op in layer.ops[:-1]:
        name = f"{layer.root.name}/{op.kinds[0]}"
        while name in taken:
            name += "'"
        taken.add(name)
        nodes.append(Node(name, op, (value,), name))
        value = name
    return [*nodes, Node(layer.root.name, layer.ops[-1], (value,), layer.root.output)]


def alone(graph: Graph, node: Node) -> Node | None:
    """The only reader of a node's output; None if there is another, or the output is the graph's."""
    readers = graph.consumers[node.output]
    return readers[0] if len(readers) == 1 and node.output != graph.output else None
