"""Two probabilities made of one logit become Sigmoids of two logits, so that these can be explained.

Models that decide between two classes often compute one logit `z` and return `1 - σ(z)` and `σ(z)`. Since
`1 - σ(z) = σ(-z)`, that is the Sigmoid of the dense layer with both `z` and `-z` as its outputs.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from .graph import Graph, Node, prune
from .ops.activation import Sigmoid
from .ops.affine import Affine
from .ops.gemm import Gemm
from .ops.movement import Concat


def with_two_logits(graph: Graph, changes: list[str]) -> tuple[Graph, Sigmoid | None]:
    """The graph that ends in both logits, and the Sigmoid that was cut off; the graph itself if there is one end.

    Parameters
    ----------
    graph : Graph
        Canonised but for this.
    changes : list of str
        Gets a line if something is changed.
    """
    last = graph.producers.get(graph.output)
    if last is None or not isinstance(last.op, Concat) or graph.output_shape != (2,):
        return graph, None
    found = [_signed(graph, name) for name in last.inputs]
    gates, signs = [gate for gate, _ in found], [sign for _, sign in found]
    gate = gates[0]
    if gate is None or gates != [gate, gate] or sorted(signs) != [-1, 1]:
        return graph, None
    dense = graph.producers.get(gate.inputs[0])
    if dense is None or not isinstance(dense.op, Gemm) or graph.consumers[dense.output] != (gate,):
        return graph, None
    logits = Node(dense.name, _with_signs(dense.op, signs), dense.inputs, last.output)
    nodes = [logits if node is dense else node for node in graph.nodes if node is not last]
    changes.append(f"{last.name}: cut off with {gate.name}; relevance starts at the logits of both classes")
    return Graph(graph.inputs, prune(last.output, nodes), last.output), Sigmoid()


def _signed(graph: Graph, name: str) -> tuple[Node | None, int]:
    """The Sigmoid that an array is the result of, and 1; or one minus that, and -1."""
    node = graph.producers.get(name)
    if node is not None and isinstance(node.op, Sigmoid):
        return node, 1
    if (
        node is not None
        and isinstance(node.op, Affine)
        and (node.op.scale == -1).all()
        and (node.op.shift == 1).all()
    ):
        before, sign = _signed(graph, node.inputs[0])
        return before, -sign
    return None, 0


def _with_signs(op: Gemm, signs: Sequence[int]) -> Gemm:
    """The dense layer with its only output several times, each with a sign."""
    factors = np.array(signs, op.weight.dtype)
    return Gemm(
        factors[:, None] * op.weight, None if op.bias is None else factors.astype(op.bias.dtype) * op.bias
    )
