"""How arrays lie in memory: plainly, or in blocks of as many channels as a kernel has lanes.

A value has one *home layout*, told by its number of lanes; a step that wants another gets a copy in that
other order. With one lane, blocked arrays are plain ones.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from .graph import Graph, Node
from .ops.affine import Affine
from .ops.arithmetic import Add
from .ops.base import Elementwise
from .ops.conv import Conv, ConvTranspose
from .ops.extremes import Max, Min
from .ops.interpolation import Upsample
from .ops.movement import Identity
from .ops.pool import AveragePool, GlobalAveragePool, GlobalMaxPool, MaxPool
from .ops.product import Div, Mul
from .steps import View

Ints = tuple[int, ...]

LONG = 128
"""Longer windows are not for the kernels of windows."""

BLOCKED = (Conv, ConvTranspose, AveragePool, MaxPool, Upsample)
"""Operators whose kernels want blocked arrays. Pools over whole maps take what they find."""


def three(values: Ints, fill: int) -> tuple[int, int, int]:
    """Up to three numbers, with `fill` for the axes in front that are missing."""
    a, b, c = (fill,) * (3 - len(values)) + tuple(values)
    return a, b, c


def canonical(shape: Ints, lanes: int) -> int:
    """`lanes`, or 1 where a sample of `shape` lies in memory just as it does plainly."""
    same = math.prod(shape[1:]) == 1 and _channels(shape) % lanes == 0
    return 1 if same else lanes


def blocked(shape: Ints, lanes: int) -> Ints:
    """(blocks, d, h, w, lanes) for a sample of `shape` (channels, spatial…)."""
    return -(-shape[0] // lanes), *three(shape[1:], 1), lanes


def elements(shape: Ints, lanes: int) -> Ints:
    """(blocks, inner, lanes) for a sample of `shape` (channels, …)."""
    return -(-_channels(shape) // lanes), math.prod(shape[1:]), lanes


def _channels(shape: Ints) -> int:
    return shape[0] if shape else 1


@dataclass(frozen=True)
class Stored:
    """An array of a plan: its name, the shape of one sample, and how it lies in memory.

    Attributes
    ----------
    name : str
    shape : tuple of int
    lanes : int
        As `canonical` has it.
    dtype : str
    """

    name: str
    shape: Ints
    lanes: int
    dtype: str

    def view(self, shape: Ints, rows: int = 1) -> View:
        return View(self.name, shape, rows, self.dtype)

    def host(self, lanes: int = 1) -> View:
        """As NumPy functions see it: like a sample; among arrays in lanes, as its elements in as many."""
        lanes = max(lanes, self.lanes)
        return self.view(self.shape if lanes == 1 else elements(self.shape, lanes))

    def elements(self) -> View:
        """As elementwise kernels see it."""
        return self.view(elements(self.shape, self.lanes))

    def flat(self) -> View:
        return self.view((math.prod(elements(self.shape, self.lanes)),))


def homes(graph: Graph, lanes: int) -> Mapping[str, int]:
    """The lanes of each value's home layout, for a backend that likes `lanes` best."""
    found = dict.fromkeys(graph.inputs, 1)
    for node in graph.nodes:
        shape = graph.facts[node.output].shape
        home = 1
        if isinstance(node.op, (GlobalAveragePool, GlobalMaxPool)):
            value = node.inputs[0]
            home = 1 if pools_plainly(graph.facts[value].shape, found[value]) else lanes
        elif isinstance(node.op, BLOCKED):
            home = lanes
        elif follows(node, graph, lanes):
            home = max(found[name] for name in node.inputs)
        found[node.output] = canonical(shape, home)
    return found


def pools_plainly(shape: Ints, home: int) -> bool:
    """Whether a pool over whole maps, samples of `shape` in a layout of `home` lanes, wants a plain array.

    The way back of the kernels for windows takes the square of a window's length.
    """
    return home == 1 or max(shape[1:], default=1) > LONG


def follows(node: Node, graph: Graph, lanes: int) -> bool:
    """Whether the operator works on any layout; lanes beyond the last channel must remain zero."""
    op, shape = node.op, graph.facts[node.output].shape
    if isinstance(op, Elementwise) and op.uniform:
        return _channels(shape) % lanes == 0 or keeps_zero(op)
    if isinstance(op, Affine):
        return is_per_channel(op, shape)
    if isinstance(op, (Mul, Div)):
        one_each = (shape[0], *(1,) * (len(shape) - 1)) if shape else ()
        filled = isinstance(op, Mul) or _channels(shape) % lanes == 0
        return filled and all(graph.facts[name].shape in (shape, one_each) for name in node.inputs)
    return isinstance(op, (Add, Identity, Max, Min))


def keeps_zero(op: Elementwise) -> bool:
    """Whether elements that are 0 remain so, their derivative being a number."""
    if not op.uniform:
        return False
    zero = np.zeros(1)
    output = op.forward(zero)
    (slope,) = op.vjp((zero,), output, np.ones(1))
    return bool(output == 0 and np.isfinite(slope))


def is_per_channel(op: Affine, shape: Ints) -> bool:
    """Whether scale and shift are the same all over each channel."""
    axes = max(len(shape), 1)
    arrays = (np.asarray(a) for a in (op.scale, op.shift))
    return all((a.ndim < axes and a.size == 1) or (a.ndim == axes and a.size == len(a)) for a in arrays)
