"""Affine operators behind a layer's reshaped or transposed output, brought in front, where they can be folded.

A bias behind a reshape is the layer's own all the same, as with dense layers of several axes, or with convolutions
between transposes: rules are to see it.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from .graph import Graph, Node
from .ops.affine import Affine
from .ops.base import Array
from .ops.conv import Conv, ConvTranspose
from .ops.gemm import Gemm
from .ops.movement import Reshape, Transpose


def with_affine_in_front(graph: Graph, changes: list[str]) -> Graph:
    """The graph with affine operators moved up to linear layers where they fit; a line for each in `changes`."""
    place = 0
    while place < len(graph.nodes):
        moved = _moved_up(graph, graph.nodes[place])
        if moved is not None:
            changes.append(f"{graph.nodes[place].name}: moved up to the layer before it")
            graph = Graph(graph.inputs, moved, graph.output)
        place += moved is None  # the one in its place is next
    return graph


def _moved_up(graph: Graph, node: Node) -> tuple[Node, ...] | None:
    """The graph's nodes with an affine one brought in front of what moves a layer's output; None if it stays."""
    if not isinstance(node.op, Affine):
        return None
    movers: list[Node] = []
    before = graph.producers.get(node.inputs[0])
    while before is not None and graph.consumers[before.output] == (movers[-1] if movers else node,):
        if not isinstance(before.op, (Reshape, Transpose)):
            break
        movers.append(before)
        before = graph.producers.get(before.inputs[0])
    else:
        return None
    layer: Node | None = before
    while layer is not None and isinstance(layer.op, Affine):  # one that has been moved up before
        layer = graph.producers.get(layer.inputs[0])
    if not movers or layer is None or not isinstance(layer.op, (Conv, ConvTranspose, Gemm)):
        return None
    axis = len(graph.facts[before.output].shape) - 1 if isinstance(layer.op, Gemm) else 0
    scale, shift = (
        _pulled_back(graph, node, movers, array, axis) for array in (node.op.scale, node.op.shift)
    )
    if scale is None or shift is None:
        return None
    between = f"{node.output} before {movers[-1].name}"
    chain = [Node(node.name, replace(node.op, scale=scale, shift=shift), (before.output,), between)]
    for mover in reversed(movers):
        chain.append(replace(mover, inputs=(chain[-1].output,)))
    chain[-1] = replace(chain[-1], output=node.output)
    old = [*reversed(movers), node]
    new = dict(zip((n.name for n in old), chain, strict=True))
    return tuple(new[n.name] if n in old else n for n in graph.nodes)


def _pulled_back(graph: Graph, node: Node, movers: list[Node], array: Array, axis: int) -> Array | None:
    """Scale or shift as the layer's output would have it, one number a channel of `axis`; None if it has more."""
    value: Array = np.broadcast_to(array, graph.facts[node.output].shape)
    for mover in movers:
        if isinstance(mover.op, Transpose):
            value = value.transpose(np.argsort(mover.op.perm))
        else:
            value = value.reshape(graph.facts[mover.inputs[0]].shape)
    channels = np.moveaxis(value, axis, 0).reshape(value.shape[axis], -1)
    if not (channels == channels[:, :1]).all():
        return None
    return np.array(channels[:, 0]).reshape([-1 if i == axis else 1 for i in range(value.ndim)])
