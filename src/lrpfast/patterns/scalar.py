"""Functions of one number in pieces: GELU, SiLU, Mish, … are told by the values that they have.

Exporters write `x/2 (1 + erf(x/√2))` with its constants in any place and any order. All of these compute the same
numbers, whatever they look like: so what a few operators make of one array is computed at some hundred points and
compared with functions that have a name. A constant that differs in its fourth digit is told from one that was
rounded to float32.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import lru_cache
from typing import Any

import numpy as np

from ..graph import Graph, Node
from ..ops.activation import Clip, HardSigmoid, LeakyRelu, Relu, Sigmoid, Tanh
from ..ops.affine import Affine
from ..ops.arithmetic import Add
from ..ops.base import Array, Elementwise, Op
from ..ops.extremes import Max, Min
from ..ops.function import Function
from ..ops.product import Div, Mul
from ..ops.smooth import Elu, Gelu, Swish
from .found import Found

MOST_PIECES = 16

_SIZES = np.concatenate([np.linspace(0, 8, 161), np.logspace(-4, 4, 60), [1e6, 1e12, 1e24, 1e36]])
POINTS = np.concatenate([-_SIZES[::-1], _SIZES])
"""Where functions are compared: closely where they bend, and wherever a float32 may lie."""

_FEW = np.flatnonzero(np.abs(POINTS) <= 8)[::29]
"""Places of a few points, whose values tell most functions apart."""


def scalar_functions(graph: Graph) -> Iterator[Found]:
    """The functions that are found in a graph, the largest first."""
    order = {node.name: number for number, node in enumerate(graph.nodes)}
    known = {node.name: op for node in graph.nodes if (op := _of_one_number(node.op)) is not None}
    for root in reversed(graph.nodes):
        if root.name in known:
            found = _found(graph, root, order, known)
            if found is not None:
                yield found


def _found(graph: Graph, root: Node, order: dict[str, int], known: dict[str, Op]) -> Found | None:
    for x, pieces in _cones(graph, root, order, known):
        op = named(_values(x, pieces, known))
        if op is not None and all(
            piece.op != op for piece in pieces
        ):  # ReLU of ReLU is two of them, none in pieces
            return Found(pieces, root, x, (op,))
    return None


def _cones(
    graph: Graph, root: Node, order: dict[str, int], known: dict[str, Op]
) -> Iterator[tuple[str, tuple[Node, ...]]]:
    """Single arrays on which `root` depends through functions of one number, and the pieces between, in order."""
    pieces = [root]
    inputs = set(root.inputs)
    while len(pieces) <= MOST_PIECES:
        if len(inputs) == 1 and len(pieces) > 1:
            yield next(iter(inputs)), tuple(reversed(pieces))
        producers = [graph.producers[name] for name in inputs if name in graph.producers]
        if len(producers) < len(inputs) and len(inputs) == 1:
            return
        if not producers:
            return
        last = max(producers, key=lambda node: order[node.name])
        readers = graph.consumers[last.output]
        whole = graph.facts[last.output].shape == graph.facts[root.output].shape
        inside = all(any(reader is piece for piece in pieces) for reader in readers)
        if not (last.name in known and whole and inside) or last.output == graph.output:
            return
        pieces.append(last)
        inputs.discard(last.output)
        inputs.update(last.inputs)


def _of_one_number(op: Op) -> Op | None:
    """The operator for one number, if each element is a function of those in its place, the same all over."""
    if isinstance(op, Affine):
        scale, shift = op.scale.reshape(-1), op.shift.reshape(-1)
        if (scale == scale[0]).all() and (shift == shift[0]).all():
            return replace(op, scale=scale[0], shift=shift[0])
        return None
    if isinstance(op, (Add, Mul, Div, Max, Min)) or (isinstance(op, Elementwise) and op.uniform):
        return op
    return None


def _values(x: str, pieces: tuple[Node, ...], known: dict[str, Op]) -> Array:
    """What the last of the pieces computes at `POINTS`."""
    arrays = {x: POINTS}
    with np.errstate(all="ignore"):
        for node in pieces:
            arrays[node.output] = known[node.name].forward(*(arrays[name] for name in node.inputs))
    return arrays[pieces[-1].output]


# --- functions with names ---


def named(values: Array) -> Op | None:
    """The function that has these values at `POINTS`; None if it has no name here.

    Where they are not finite, `exp(x)` has overflowed on the way.
    """
    known = np.isfinite(values)
    if not known[np.abs(POINTS) <= 8].all():
        return None
    for make in FUNCTIONS:
        with np.errstate(all="ignore"):
            op = make(values)
            if op is not None and all(_are_close(_at_points(op), values, where) for where in (_FEW, known)):
                return op
    return None


@lru_cache(64)
def _at_points(op: Op) -> Array:
    """The values of a function at `POINTS`."""
    return op.forward(POINTS)


def _are_close(expected: Array, found: Array, where: Any) -> bool:
    return bool((np.abs(expected[where] - found[where]) <= 1e-7 + 1e-6 * np.abs(found[where])).all())


def _at(values: Array, x: float) -> float:
    """A value, at one of `POINTS`."""
    return float(values[int(np.abs(POINTS - x).argmin())])


def _clip(values: Array) -> Op | None:
    low, high = float(values[0]), float(values[-1])
    bounds = (-math.inf if low == POINTS[0] else low, math.inf if high == POINTS[-1] else high)
    return Clip(*bounds) if bounds[0] < bounds[1] and bounds != (-math.inf, math.inf) else None


def _leaky_relu(values: Array) -> Op | None:
    alpha = -_at(values, -1)
    return LeakyRelu(alpha) if alpha not in (0, 1) and _at(values, 1) == 1 else None


def _swish(values: Array) -> Op | None:
    """From `f(1) = 1 / (1 + exp(-alpha))`."""
    gate = _at(values, 1)
    if not 0 < gate < 1 or gate == 0.5:
        return None
    alpha = math.log(gate / (1 - gate))
    return Swish(round(alpha, 6) if abs(alpha - round(alpha, 6)) < 1e-12 else alpha)


def _hard_sigmoid(values: Array) -> Op | None:
    beta = _at(values, 0)
    alpha = (_at(values, 0.05) - beta) / 0.05
    return HardSigmoid(alpha, beta) if 0 < beta < 1 and alpha else None


def _elu(values: Array) -> Op | None:
    alpha = -_at(values, -1e6)
    return Elu(alpha) if 0 < alpha < 1e3 and _at(values, 1) == 1 else None


FUNCTIONS: tuple[Callable[[Array], Op | None], ...] = (
    lambda _: Relu(),
    _clip,
    _leaky_relu,
    lambda _: Gelu(),
    lambda _: Gelu("tanh"),
    _swish,
    lambda _: Function("HardSwish"),
    lambda _: Function("Mish"),
    lambda _: Sigmoid(),
    _hard_sigmoid,
    lambda _: Tanh(),
    lambda _: Function("Softplus"),
    lambda _: Function("Softsign"),
    _elu,
)
"""Each makes a candidate, of values where it has parameters."""
