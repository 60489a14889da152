"""Canonisation: the same function as a graph on which the rules mean what they should.

Identities are dropped, layers that an exporter broke up are found again (`patterns`), and a final Softmax,
LogSoftmax or Sigmoid is cut off. Affine operators are brought to the layers that they belong to, transposes moved to
where they cancel. Then BatchNormalization and other affine operators are folded into the linear layer before or after
them, zero padding into the convolution after it, and products are told which factor is their gate. Folding is computed
in float64.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

import numpy as np

from .advance import with_affine_in_front
from .gates import with_gates
from .graph import Fact, Graph, Node, prune
from .ops.activation import Clip, Sigmoid
from .ops.affine import Affine
from .ops.base import Array, Movement, Op
from .ops.conv import Conv, ConvTranspose
from .ops.gemm import Gemm
from .ops.movement import Expand, Identity, Pad, Reshape, Slice, Transpose
from .ops.normalization import Normalizing
from .ops.softmax import LogSoftmax, Softmax
from .patterns import find_patterns
from .transposes import with_transposes_late
from .two_logits import with_two_logits

Head: TypeAlias = Softmax | LogSoftmax | Sigmoid


@dataclass(frozen=True)
class Canonized:
    """A canonised graph, and what was done to get it.

    Attributes
    ----------
    graph : Graph
    head : Softmax, LogSoftmax, Sigmoid or None
        What was cut off the end: the operator that makes probabilities of logits.
    changes : tuple of str
        One line per change.
    """

    graph: Graph
    head: Head | None
    changes: tuple[str, ...]


@np.errstate(over="ignore", invalid="ignore")  # operators refuse parameters that are not finite
def canonize(graph: Graph, dtype: Any = np.float32) -> Canonized:
    """Canonise `graph`; what a fold computes is rounded to `dtype`. Nodes that nothing needs are left out."""
    changes: list[str] = []
    graph = _drop_identities(_rebuilt(graph, graph.nodes, graph.output), changes)
    graph, head = _cut_softmax(find_patterns(graph, changes), changes)
    graph = with_affine_in_front(graph, changes)
    graph = with_transposes_late(graph, changes)
    folding = _Folding(graph, np.dtype(dtype), changes)
    while folding.fold_one():
        pass
    nodes, gates = with_gates(_rebuilt(graph, folding.nodes, graph.output))
    graph, both = with_two_logits(_rebuilt(graph, nodes, graph.output), changes)
    return Canonized(graph, head or both, (*changes, *gates))


def _rebuilt(graph: Graph, nodes: Iterable[Node], output: str) -> Graph:
    return Graph(graph.inputs, prune(output, nodes), output)


def _drop_identities(graph: Graph, changes: list[str]) -> Graph:
    alias: dict[str, str] = {}
    nodes = []
    for node in graph.nodes:
        inputs = tuple(alias.get(name, name) for name in node.inputs)
        if _does_nothing(node.op, graph.facts[node.inputs[0]], graph.facts[node.output]):
            alias[node.output] = inputs[0]
            changes.append(f"{node.name}: dropped, it does nothing")
        else:
            nodes.append(replace(node, inputs=inputs))
    return _rebuilt(graph, nodes, alias.get(graph.output, graph.output)) if alias else graph


def _does_nothing(op: Op, x: Fact, z: Fact) -> bool:
    """Whether the output of an operator is its first input."""
    if isinstance(op, Identity):
        return True
    if x.shape != z.shape:
        return False
    if isinstance(op, Affine):
        return bool((op.scale == 1).all() and not op.shift.any())
    if isinstance(op, Clip):
        return op.low == -math.inf and op.high == math.inf
    if isinstance(op, Transpose):
        return op.perm == tuple(range(len(op.perm)))
    if isinstance(op, Slice):
        return min(op.steps, default=1) > 0
    return isinstance(op, (Reshape, Expand))


def _cut_softmax(graph: Graph, changes: list[str]) -> tuple[Graph, Head | None]:
    """Without the operator that makes probabilities: a Sigmoid, or a Softmax of the first axis."""
    last = graph.producers.get(graph.output)
    if last is None or not isinstance(last.op, (Softmax, LogSoftmax, Sigmoid)):
        return graph, None
    if not isinstance(last.op, Sigmoid) and last.op.axis not in (0, -len(graph.output_shape)):
        return graph, None
    nodes = [node for node in graph.nodes if node is not last]
    changes.append(f"{last.name}: cut off; relevance starts at the logits")
    return _rebuilt(graph, nodes, last.inputs[0]), last.op


class _Folding:
    """A graph's nodes while they are folded into one another. The arrays that remain are the graph's own."""

    def __init__(self, graph: Graph, dtype: np.dtype[Any], changes: list[str]) -> None:
        self.graph = graph
        self.dtype = dtype
        self.changes = changes
        self.nodes = list(graph.nodes)
        self.producers = dict(graph.producers)
        self.consumers = dict(graph.consumers)

    def shape(self, array: str) -> tuple[int, ...]:
        return self.graph.facts[array].shape

    def fold_one(self) -> bool:
        """Fold the first affine or padding operator that can be; False if there is none."""
        for node in self.nodes:
            if isinstance(node.op, Affine):
                if self.fold_back(node, node.op) or self.fold_on(node, node.op):
                    return True
            elif isinstance(node.op, Pad) and self.fold_padding(node, node.op):
                return True
        return False

    def fold_back(self, node: Node, affine: Affine) -> bool:
        """Fold into the operator before it, if nothing else reads that one's output."""
        before = self.producers.get(node.inputs[0])
        if before is None or len(self.consumers[before.output]) != 1:
            return False
        op = _after(before.op, affine, self.shape(node.output), self.dtype)
        if op is None:
            return False
        self.changes.append(f"{node.name}: folded into {before.name} before it")
        self.merge(before, node, Node(before.name, op, before.inputs, node.output))
        return True

    def fold_on(self, node: Node, affine: Affine) -> bool:
        """Fold into the operator after it, if that alone reads it."""
        readers = self.consumers[node.output]
        # An affine operator on the network's input is its preprocessing: it stays, since folding it
        # would move the zero from which the first layer's contributions are counted.
        if len(readers) != 1 or node.inputs[0] in self.graph.inputs or node.output == self.graph.output:
            return False
        if self.is_of_normalization(node):
            return False
        (after,) = readers
        op = _before(affine, after.op, self.shape(node.output), self.dtype)
        if op is None:
            return False
        self.changes.append(f"{node.name}: folded into {after.name} after it")
        self.merge(node, after, Node(after.name, op, node.inputs, after.output))
        return True

    def is_of_normalization(self, node: Node) -> bool:
        """Whether an affine operator holds the γ and β of a normalisation, whose rule passes relevance through both."""
        before = self.producers.get(node.inputs[0])
        while before is not None and isinstance(before.op, Movement) and len(before.inputs) == 1:
            before = self.producers.get(before.inputs[0])
        return before is not None and isinstance(before.op, Normalizing)

    def fold_padding(self, node: Node, pad: Pad) -> bool:
        """Let the convolution that alone reads a zero-padded array do the padding.

        Padding that a layer does itself is no input of it, so it gets no relevance under the flat rules.
        """
        axes = len(pad.pads) // 2
        readers = self.consumers[node.output]
        if pad.value != 0 or pad.pads[0] or pad.pads[axes] or len(readers) != 1:
            return False
        (conv,) = readers
        if not isinstance(conv.op, Conv):
            return False
        own = pad.pads[1:axes] + pad.pads[axes + 1 :]
        op = replace(conv.op, pads=tuple(a + b for a, b in zip(conv.op.pads, own, strict=True)))
        self.changes.append(f"{node.name}: folded into {conv.name} after it")
        self.merge(node, conv, Node(conv.name, op, node.inputs, conv.output))
        return True

    def merge(self, first: Node, second: Node, merged: Node) -> None:
        """Take `first` out and put `merged` in the place of `second`."""
        self.nodes.remove(first)
        self.nodes[self.nodes.index(second)] = merged
        del self.producers[first.output], self.consumers[first.output]
        self.producers[merged.output] = merged
        for name in merged.inputs:
            readers = self.consumers[name]
            self.consumers[name] = tuple(merged if node in (first, second) else node for node in readers)


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
    weight: Array
    factors: Array
    if isinstance(op, ConvTranspose):  # (c, m / groups, …): channels come group by group
        weight = op.weight.reshape(op.groups, -1, len(scale) // op.groups, math.prod(op.weight.shape[2:]))
        factors = scale.reshape(op.groups, 1, -1, 1)
    else:
        weight, factors = op.weight.reshape(len(scale), -1), scale.reshape(-1, 1)
    bias = shift if op.bias is None else op.bias * scale + shift
    return _replaced(op, _scaled(weight, factors, dtype), bias.astype(dtype))


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
    groups = op.groups if isinstance(op, Conv) else 1
    weight = op.weight.reshape(groups, -1, len(scale) // groups, math.prod(op.weight.shape[2:]))
    factors, shifts = scale.reshape(groups, 1, -1, 1), shift.reshape(groups, -1)
    added = np.einsum("gmct,gc->gm", weight, shifts, dtype=np.float64, casting="same_kind").reshape(-1)
    bias = added if op.bias is None else op.bias + added
    return _replaced(op, _scaled(weight, factors, dtype), bias.astype(dtype))


def _scaled(weight: Array, factors: Array, dtype: np.dtype[Any]) -> Array:
    """`weight · factors`, computed in float64 and rounded to `dtype`."""
    # Given a place for the result, NumPy converts piece by piece: no doubles in as many places as weights.
    result = np.empty(weight.shape, dtype)
    return np.multiply(weight, factors, out=result, dtype=np.float64, casting="same_kind")


def _replaced(op: Any, weight: Array, bias: Array) -> Any:
    """The operator with other weights, given in any shape."""
    for array in (weight, bias):
        array.flags.writeable = False  # so that the operator need not copy it
    return replace(op, weight=weight.reshape(op.weight.shape), bias=bias)
