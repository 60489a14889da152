"""Layers of whole operators: GroupNormalization between reshapes, embeddings, the logarithm of a Softmax."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

import numpy as np

from ..graph import Graph, Node
from ..ops.affine import Affine
from ..ops.base import Array, Op
from ..ops.embedding import Embedding
from ..ops.function import Function
from ..ops.gemm import Gemm
from ..ops.movement import Reshape
from ..ops.normalization import Normalization
from ..ops.one_hot import OneHot
from ..ops.softmax import LogSoftmax, Softmax
from .found import Found, alone

Chain = tuple[Node, ...]


def joined_layers(graph: Graph) -> Iterator[Found]:
    """The layers that are found in a graph."""
    for node in graph.nodes:
        for form in FORMS:
            found = form(graph, node)
            if found is not None:
                yield found


def _chain(graph: Graph, first: Node, *kinds: type[Op]) -> Chain | None:
    """`first` and the nodes behind it, each the only reader of the one before, with operators of these kinds.

    Affine operators may stand between the last two of them.
    """
    nodes = [first]
    for kind in kinds:
        after = alone(graph, nodes[-1])
        while after is not None and kind is kinds[-1] and isinstance(after.op, Affine) and kind is not Affine:
            nodes.append(after)
            after = alone(graph, after)
        if after is None or not isinstance(after.op, kind):
            return None
        nodes.append(after)
    return tuple(nodes)


def group_normalization(graph: Graph, node: Node) -> Found | None:
    """Reshape to groups, normalise each, Reshape back, as torch exports it."""
    chain = _chain(graph, node, Normalization, Reshape) if isinstance(node.op, Reshape) else None
    if chain is None:
        return None
    norm = chain[1].op
    assert isinstance(norm, Normalization)
    x, grouped = graph.facts[node.inputs[0]].shape, graph.facts[node.output].shape
    back = graph.facts[chain[-1].output].shape
    whole = norm.groups == 1 and norm.axes == tuple(range(1, len(grouped)))
    if not whole or back != x or len(x) < 2 or x[0] % grouped[0]:
        return None
    ops: list[Op] = [replace(norm, axes=tuple(range(len(x))), groups=grouped[0], source="GroupNormalization")]
    for each in chain[2:-1]:
        assert isinstance(each.op, Affine)
        scale, shift = (_of_groups(values, grouped, x) for values in (each.op.scale, each.op.shift))
        if scale is None or shift is None:
            return None
        ops.append(replace(each.op, scale=scale, shift=shift))
    return Found(chain, chain[-1], node.inputs[0], tuple(ops))


def _of_groups(values: Array, grouped: tuple[int, ...], x: tuple[int, ...]) -> Array | None:
    """A number per group as a number per channel of x; None if there are more."""
    if values.size == 1:
        return values.reshape(())
    if values.shape != (grouped[0], *[1] * (len(grouped) - 1)):
        return None
    return np.repeat(values.reshape(-1), x[0] // grouped[0]).reshape(-1, *[1] * (len(x) - 1))


def embedding(graph: Graph, node: Node) -> Found | None:
    """One-hot vectors times a matrix: its rows."""
    chain = _chain(graph, node, Gemm) if isinstance(node.op, OneHot) else None
    if chain is None:
        return None
    one_hot, gemm = node.op, chain[1].op
    assert isinstance(one_hot, OneHot) and isinstance(gemm, Gemm)
    ops: tuple[Op, ...] = (Embedding(gemm.weight.T, one_hot.wraps, open=True),)
    if gemm.bias is not None:
        ops = (*ops, Affine(np.ones(()), gemm.bias))
    return Found(chain, chain[-1], node.inputs[0], ops)


def logarithm_of_softmax(graph: Graph, node: Node) -> Found | None:
    """LogSoftmax."""
    chain = _chain(graph, node, Function) if isinstance(node.op, Softmax) else None
    if chain is None or chain[1].op != Function("Log"):
        return None
    assert isinstance(node.op, Softmax)
    return Found(chain, chain[1], node.inputs[0], (LogSoftmax(node.op.axis),))


FORMS: tuple[Callable[[Graph, Node], Found | None], ...] = (
    group_normalization,
    embedding,
    logarithm_of_softmax,
)
