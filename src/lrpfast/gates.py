"""Which factor of a product is the signal and which the gate, found from where the factors come from."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from .graph import Graph, Node
from .ops.base import Movement, Op
from .ops.movement import Pad
from .ops.pool import GlobalAveragePool
from .ops.product import Mul
from .ops.select import Mask


def with_gates(graph: Graph) -> tuple[tuple[Node, ...], list[str]]:
    """The graph's nodes with `Mul.signal` set where it is known, and a line for each.

    A factor is a gate if its operator makes gates (`Op.is_gate`: Sigmoid and what else is bounded by 0 and 1,
    perhaps moved about since) and the other one's does not. If that does not tell them apart, it is a gate if it
    has one number for several of the other factor's.
    """
    nodes, found = [], []
    for node in graph.nodes:
        if isinstance(node.op, Mul) and node.op.signal is None:
            gate = _gate(graph, node)
            if gate is not None:
                node = replace(node, op=replace(node.op, signal=1 - gate))
                found.append(_line(graph, node, gate))
        nodes.append(node)
    return tuple(nodes), found


def _gate(graph: Graph, node: Node) -> int | None:
    """The number of the factor that is a gate; None if both may be the signal."""
    whole = graph.facts[node.output].shape
    for marks in (
        [_is_bounded(graph, name) for name in node.inputs],
        [graph.facts[name].shape != whole for name in node.inputs],
    ):
        if marks[0] != marks[1]:
            return marks.index(True)
    return None


def _line(graph: Graph, node: Node, gate: int) -> str:
    """What was found, in words."""
    factor, signal = node.inputs[gate], node.inputs[1 - gate]
    squeezed = graph.facts[factor].shape != graph.facts[signal].shape and _is_pooled_from(
        graph, factor, signal
    )
    return f"{node.name}: {factor} gates {signal}{', squeeze-and-excitation' if squeezed else ''}"


def _is_pooled_from(graph: Graph, name: str, source: str) -> bool:
    """Whether an array depends on another through global pooling."""
    waiting, seen = [(name, False)], set()
    while waiting:
        name, pooled = waiting.pop()
        if name == source and pooled:
            return True
        node = graph.producers.get(name)
        if node is not None and (name, pooled) not in seen:
            seen.add((name, pooled))
            pooled = pooled or isinstance(node.op, GlobalAveragePool)
            waiting += [(each, pooled) for each in node.inputs]
    return False


def _keeps_bounds(op: Op) -> bool:
    """Whether numbers between 0 and 1 are moved about, and joined by no others."""
    added = op.value if isinstance(op, Pad) else op.fill if isinstance(op, Mask) else 0.0
    return isinstance(op, Movement) and bool(np.all((added >= 0) & (added <= 1)))


def _is_bounded(graph: Graph, name: str) -> bool:
    """Whether an array is known to be between 0 and 1."""
    node = graph.producers.get(name)
    while node is not None and len(node.inputs) == 1 and _keeps_bounds(node.op):
        node = graph.producers.get(node.inputs[0])
    return node is not None and node.op.is_gate
