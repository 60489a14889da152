"""Canonisation: the same function as a graph on which the rules mean what they should.

BatchNormalization and other affine operators are folded into the linear layer before or after them,
zero padding into the convolution after it, identities are dropped, and a final Softmax is cut off.
Folding is computed in float64.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from .graph import Graph, Node, prune
from .ops.affine import Affine
from .ops.base import Array
from .ops.conv import Conv, ConvTranspose
from .ops.gemm import Gemm
from .ops.movement import Identity, Pad
from .ops.softmax import Softmax


@dataclass(frozen=True)
class Canonized:
    """A canonised graph, and what was done to get it.

    Attributes
    ----------
    graph : Graph
    head : Softmax or None
        The Softmax that was cut off the end.
    changes : tuple of str
        One line per change.
    """

    graph: Graph
    head: Softmax | None
    changes: tuple[str, ...]


def canonize(graph: Graph, dtype: Any = np.float32) -> Canonized:
    """Canonise `graph`; what a fold computes is rounded to `dtype`. Nodes that nothing needs are left out."""
    changes: list[str] = []
    graph = _rebuilt(graph, list(graph.nodes), graph.output)
    graph, head = _cut_softmax(_drop_identities(graph, changes), changes)
    while True:
        smaller = _fold_one(graph, np.dtype(dtype), changes)
        if smaller is None:
            return Canonized(graph, head, tuple(changes))
        graph = smaller


def _rebuilt(graph: Graph, nodes: list[Node], output: str) -> Graph:
    return Graph(graph.input, graph.input_shape, prune(output, nodes), output)


def _drop_identities(graph: Graph, changes: list[str]) -> Graph:
    alias: dict[str, str] = {}
    nodes = []
    for node in graph.nodes:
        inputs = tuple(alias.get(name, name) for name in node.inputs)
        if isinstance(node.op, Identity):
            alias[node.output] = inputs[0]
            changes.append(f"{node.name}: dropped, it does nothing")
        else:
            nodes.append(replace(node, inputs=inputs))
    return _rebuilt(graph, nodes, alias.get(graph.output, graph.output)) if alias else graph


def _cut_softmax(graph: Graph, changes: list[str]) -> tuple[Graph, Softmax | None]:
    last = graph.producers.get(graph.output)
    if last is None or not isinstance(last.op, Softmax):
        return graph, None
    if last.op.axis not in (0, -len(graph.output_shape)):
        return graph, None
    nodes = [node for node in graph.nodes if node is not last]
    changes.append(f"{last.name}: cut off; relevance starts at the logits")
    return _rebuilt(graph, nodes, last.inputs[0]), last.op


def _fold_one(graph: Graph, dtype: np.dtype[Any], changes: list[str]) -> Graph | None:
    """Fold the first affine or padding operator that can be; None if there is none."""
    for node in graph.nodes:
        if isinstance(node.op, Pad):
            smaller = _fold_padding(graph, node, node.op, changes)
            if smaller is not None:
                return smaller
        if not isinstance(node.op, Affine):
            continue
        before = graph.producers.get(node.inputs[0])
        if before is not None and len(graph.consumers[before.output]) == 1:
            op = _after(before.op, node.op, graph.facts[node.output].shape, dtype)
            if op is not None:
                changes.append(f"{node.name}: folded into {before.name} before it")
                return _merged(graph, before, node, Node(before.name, op, before.inputs, node.output))
        readers = graph.consumers[node.output]
        # An affine operator on the network's input is its preprocessing: it stays, since folding it
        # would move the zero from which the first layer's contributions are counted.
        if len(readers) == 1 and node.inputs[0] != graph.input and node.output != graph.output:
            (after,) = readers
            op = _before(node.op, after.op, graph.facts[node.output].shape, dtype)
            if op is not None:
                changes.append(f"{node.name}: folded into {after.name} after it")
                return _merged(graph, node, after, Node(after.name, op, node.inputs, after.output))
    return None


def _fold_padding(graph: Graph, node: Node, pad: Pad, changes: list[str]) -> Graph | None:
    """Let the convolution that alone reads a zero-padded array do the padding.

    Padding that a layer does itself is no input of it, so it gets no relevance under the flat rules.
    """
    axes = len(pad.pads) // 2
    readers = graph.consumers[node.output]
    if pad.value != 0 or pad.pads[0] or pad.pads[axes] or len(readers) != 1:
        return None
    (conv,) = readers
    if not isinstance(conv.op, Conv):
        return None
    own = pad.pads[1:axes] + pad.pads[axes + 1 :]
    op = replace(conv.op, pads=tuple(a + b for a, b in zip(conv.op.pads, own, strict=True)))
    changes.append(f"{node.name}: folded into {conv.name} after it")
    return _merged(graph, node, conv, Node(conv.name, op, node.inputs, conv.output))


def _merged(graph: Graph, first: Node, second: Node, merged: Node) -> Graph:
    """The graph with `first` gone and `merged` in the place of `second`."""
    nodes = [merged if node is second else node for node in graph.nodes if node is not first]
    return _rebuilt(graph, nodes, graph.output)


def _per_channel(affine: Affine, shape: tuple[int, ...], axis: int) -> tuple[Array, Array] | None:
    """Scale and shift as one number per channel of `axis`; None if they vary more."""
    channels: list[Array] = []
    for given in (affine.scale, affine.shift):
        value = np.asarray(given, np.float64)
        value = value.reshape((1,) * (len(shape) - value.ndim) + value.shape)
        if value.size != value.shape[axis]:
            return None
        channels.append(np.broadcast_to(value.reshape(-1), (shape[axis],)))
    return channels[0], channels[1]


def _axes(op: Any, shape: tuple[int, ...]) -> int:
    """The axis of a sample's array that holds a linear layer's channels."""
    return len(shape) - 1 if isinstance(op, Gemm) else 0


def _after(op: Any, affine: Affine, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Any:
    """The linear (or affine) operator that is `op`, then `affine`."""
    if isinstance(op, Affine):
        both_scales = np.multiply(affine.scale, op.scale, dtype=np.float64)
        both_shifts = np.multiply(affine.scale, op.shift, dtype=np.float64) + affine.shift
        return replace(op, scale=both_scales.astype(dtype), shift=both_shifts.astype(dtype))
    if not isinstance(op, (Conv, ConvTranspose, Gemm)):
        return None
    channels = _per_channel(affine, shape, _axes(op, shape))
    if channels is None:
        return None
    scale, shift = channels
    weight = op.weight.astype(np.float64)
    if isinstance(op, ConvTranspose):  # (c, m / groups, …): channels come group by group
        grouped = weight.reshape(op.groups, -1, *weight.shape[1:])
        per_group = scale.reshape(op.groups, 1, -1, *[1] * (weight.ndim - 2))
        weight = (grouped * per_group).reshape(weight.shape)
    else:
        weight = weight * scale.reshape(-1, *[1] * (weight.ndim - 1))
    bias = np.zeros(len(scale)) if op.bias is None else op.bias.astype(np.float64)
    return replace(op, weight=weight.astype(dtype), bias=(bias * scale + shift).astype(dtype))


def _before(affine: Affine, op: Any, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Any:
    """The linear operator that is `affine`, then `op`; None where padding makes that inexact."""
    if not isinstance(op, (Conv, Gemm)):
        return None
    channels = _per_channel(affine, shape, _axes(op, shape))
    if channels is None:
        return None
    scale, shift = channels
    if isinstance(op, Conv) and any(op.pads) and shift.any():
        return None
    weight = op.weight.astype(np.float64)
    if isinstance(op, Conv):  # (m, c / groups, …)
        grouped = weight.reshape(op.groups, -1, *weight.shape[1:])
        tail = (1,) * (weight.ndim - 2)
        moved = grouped * shift.reshape(op.groups, 1, -1, *tail)
        added = moved.reshape(weight.shape).sum(axis=tuple(range(1, weight.ndim)))
        weight = (grouped * scale.reshape(op.groups, 1, -1, *tail)).reshape(weight.shape)
    else:
        added = weight @ shift
        weight = weight * scale
    bias = added if op.bias is None else op.bias.astype(np.float64) + added
    return replace(op, weight=weight.astype(dtype), bias=bias.astype(dtype))
