"""What a few operators compute of one array, as a sum of products: how broken-up layers are recognised.

An exporter writes a normalisation as a dozen operators, in a dozen orders: a quotient, or a product with a reciprocal,
or with a power; gamma before or after; the variance by its definition, or as the difference of two means. Written
out as a sum of products they are all alike:

    LayerNormalization    gamma x v^(-1/2) - gamma mean(x) v^(-1/2) + beta,    v = mean(x² - 2 x mean(x) + mean(x)²) + ε
    Softmax               exp(x - max(x)) · (n mean(exp(x - max(x))))^(-1)

`Cone` holds the operators that depend on one array alone, and checks that values meet those of the right places
where they are broadcast; `Cone.terms` writes out any of them.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np

from ..graph import Graph, Node
from ..ops.activation import Clip, Relu
from ..ops.affine import Affine
from ..ops.arithmetic import Add
from ..ops.base import Array
from ..ops.function import Function
from ..ops.movement import Expand, Reshape, Transpose
from ..ops.pool import GlobalAveragePool, GlobalMaxPool
from ..ops.power import Pow
from ..ops.product import Div, Mul

Ints = tuple[int, ...]
Place = tuple[Ints, ...]
"""For each axis of an array, the axes of x along which its values differ."""


class Opaque(Exception):
    """What cannot be written as a sum of products of few things."""


@dataclass(frozen=True)
class Factor:
    """What products are made of: x itself, or a function of a sum.

    Attributes
    ----------
    kind : str
        "x"; "mean" and "max" over `axes` of x; "exp", "log", "abs"; "clip" between `bounds`; "sum", the sum itself,
        where it stands under a root or a line.
    of : frozenset of (Powers, float)
        The sum, with a coefficient for each product.
    axes : tuple of int
    bounds : pair of float
    """

    kind: str
    of: frozenset[tuple[Powers, float]] = frozenset()
    axes: Ints = ()
    bounds: tuple[float, float] = (-math.inf, math.inf)


Powers: TypeAlias = "frozenset[tuple[Factor, float]]"
"""A product: factors and their exponents."""

Terms: TypeAlias = "dict[Powers, Array]"
"""A sum: products and their coefficients, which are arrays that broadcast to a sample of x, or numbers."""

UNIT: Powers = frozenset()
"""The product of nothing: its coefficient is the constant of a sum."""

X = Factor("x")

_MOST_TERMS = 16


def one(factor: Factor, exponent: float = 1.0) -> Powers:
    """A power as a product."""
    return frozenset({(factor, exponent)})


def added(a: Terms, b: Terms) -> Terms:
    """The sum of two sums."""
    total = dict(a)
    for powers, coefficient in b.items():
        total[powers] = total[powers] + coefficient if powers in total else coefficient
    return {powers: c for powers, c in total.items() if np.any(c)}


def times(a: Terms, b: Terms) -> Terms:
    """The product of two sums, written out."""
    if len(a) * len(b) > _MOST_TERMS:
        raise Opaque
    total: Terms = {}
    for p, c in a.items():
        for q, d in b.items():
            exponents = dict(p)
            for factor, exponent in q:
                exponents[factor] = exponents.get(factor, 0.0) + exponent
            product = frozenset((f, e) for f, e in exponents.items() if e)
            total = added(total, {product: c * d})
    return total


def raised(a: Terms, exponent: float) -> Terms:
    """A sum to some power: written out if it is one product, or the power 2 or 3; else it becomes a factor."""
    if len(a) == 1:
        ((powers, coefficient),) = a.items()
        # √(x²) is |x|, so a root is taken of single factors only.
        simple = len(powers) <= 1 and all(abs(e) == 1 for _, e in powers) and np.all(coefficient > 0)
        if exponent == round(exponent) or simple:
            with np.errstate(divide="ignore"):
                return {frozenset((f, e * exponent) for f, e in powers): np.power(coefficient, exponent)}
    if exponent in (1, 2, 3):
        return a if exponent == 1 else times(a, raised(a, exponent - 1))
    return {one(Factor("sum", frozen(a)), exponent): np.ones(())}


def frozen(a: Terms) -> frozenset[tuple[Powers, float]]:
    """A sum as the argument of a function; `Opaque` if a coefficient is not one number."""
    if any(c.size != 1 for c in a.values()):
        raise Opaque
    return frozenset((powers, float(c.reshape(-1)[0])) for powers, c in a.items())


_EXPONENTS = {"Sqrt": 0.5, "Reciprocal": -1.0}
_KINDS = {"Exp": "exp", "Log": "log", "Abs": "abs"}


class Cone:
    """The operators that depend on the array `x` alone, as far as they can be written out.

    Attributes
    ----------
    x : str
    shape : tuple of int
        Of a sample of x.
    nodes : tuple of Node
        In their order.
    """

    LIMIT = 48
    """More operators than that belong to no layer."""

    def __init__(self, graph: Graph, x: str, places: Mapping[str, int]) -> None:
        self.graph = graph
        self.x = x
        self.shape = graph.facts[x].shape
        self._places: dict[str, Place] = {
            x: tuple((axis,) if n > 1 else () for axis, n in enumerate(self.shape))
        }
        self._terms: dict[str, Terms | None] = {x: {one(X): np.ones(())}}
        self.nodes = tuple(self._grown(places))

    def _grown(self, order: Mapping[str, int]) -> Iterator[Node]:
        """The nodes, in the order of their numbers in `order`."""
        waiting = {order[node.name]: node for node in self.graph.consumers[self.x]}
        for _ in range(self.LIMIT):
            if not waiting:
                return
            node = waiting.pop(min(waiting))
            place = self._place(node) if all(name in self._places for name in node.inputs) else None
            if place is None:
                continue
            self._places[node.output] = place
            yield node
            waiting |= {order[after.name]: after for after in self.graph.consumers[node.output]}

    def behind(self, root: Node) -> tuple[Node, ...] | None:
        """The nodes between x and `root`, and that; None if others read what they compute."""
        inside: dict[str, Node] = {root.name: root}
        waiting = [root]
        while waiting:
            for name in waiting.pop().inputs:
                node = self.graph.producers.get(name)
                if name != self.x and node is not None and node.name not in inside:
                    inside[node.name] = node
                    waiting.append(node)
        for node in inside.values():
            readers = self.graph.consumers[node.output]
            leaves = node.output == self.graph.output or any(r.name not in inside for r in readers)
            if node is not root and leaves:
                return None
        return tuple(inside.values())

    # --- places ---

    def lies_like_x(self, name: str) -> bool:
        """Whether the values of an array lie where those of x do that they are computed from."""
        return self.graph.facts[name].shape == self.shape and self._places[name] == self._places[self.x]

    def _place(self, node: Node) -> Place | None:
        """Where the values of a node's output belong in x; None if that cannot be told, or for other operators."""
        op, places = node.op, [self._places[name] for name in node.inputs]
        shape = self.graph.facts[node.inputs[0]].shape
        if isinstance(op, (Pow, Relu, Clip, Function, Expand)):
            return places[0]
        if isinstance(op, Affine):
            return self._varied(places[0], op)
        if isinstance(op, (Add, Mul, Div)):
            return _met(places)
        if isinstance(op, Transpose):
            return tuple(places[0][axis] for axis in op.perm)
        if not self._is_plain(places[0], shape):
            return None  # an axis of copies: neither a mean over it nor another shape is one of x
        if isinstance(op, Reshape):
            return self._regrouped(places[0], op.shape)
        if isinstance(op, (GlobalAveragePool, GlobalMaxPool)):
            return (places[0][0], *(() for _ in shape[1:]))
        return None

    def _varied(self, place: Place, op: Affine) -> Place | None:
        """The place of what an affine operator computes, whose parameters may vary along more axes than its input."""
        result = list(place)
        for values in (op.scale, op.shift):
            if _is_one_number(values):
                continue
            if len(place) != len(self.shape):
                return None
            for axis, n in enumerate(values.shape, len(place) - values.ndim):
                if n != 1 and (n != self.shape[axis] or place[axis] not in ((), (axis,))):
                    return None
                result[axis] = result[axis] if n == 1 else (axis,)
        return tuple(result)

    def _is_plain(self, place: Place, shape: Ints) -> bool:
        return all(n == math.prod(self.shape[a] for a in axes) for n, axes in zip(shape, place, strict=True))

    def _regrouped(self, place: Place, shape: Ints) -> Place | None:
        """The axes of x in another shape; None if one of them would be cut."""
        left = [axis for axes in place for axis in axes]
        groups = []
        for n in shape:
            group: list[int] = []
            while math.prod(self.shape[axis] for axis in group) < n and left:
                group.append(left.pop(0))
            if math.prod(self.shape[axis] for axis in group) != n:
                return None
            groups.append(tuple(group))
        return tuple(groups)

    # --- values ---

    def terms(self, name: str) -> Terms | None:
        """An array as a sum of products; None if it cannot be written so."""
        if name not in self._terms:
            node = self.graph.producers[name]
            inputs = [self.terms(each) for each in node.inputs]
            self._terms[name] = None
            if all(terms is not None for terms in inputs):
                with contextlib.suppress(Opaque):
                    self._terms[name] = self._written(node, [terms for terms in inputs if terms is not None])
        return self._terms[name]

    def _written(self, node: Node, inputs: list[Terms]) -> Terms:
        op, (first, *others) = node.op, inputs
        if isinstance(op, (Expand, Reshape, Transpose)):
            return first
        if isinstance(op, Affine):
            scale, shift = (self._coefficient(a) for a in (op.scale, op.shift))
            return added(times(first, {UNIT: scale}), {UNIT: shift})
        if isinstance(op, Add):
            for other in others:
                first = added(first, other)
            return first
        if isinstance(op, (Mul, Div)):
            return times(first, others[0] if isinstance(op, Mul) else raised(others[0], -1))
        if isinstance(op, Pow) and op.exponent.size == 1:
            return raised(first, float(op.exponent.reshape(-1)[0]))
        if isinstance(op, Function) and op.name in _EXPONENTS:
            return raised(first, _EXPONENTS[op.name])
        return self._applied(node, first)

    def _applied(self, node: Node, argument: Terms) -> Terms:
        """A function of a sum."""
        op, of = node.op, frozen(argument)
        if isinstance(op, Function) and op.name in _KINDS:
            return {one(Factor(_KINDS[op.name], of)): np.ones(())}
        if isinstance(op, (Relu, Clip)):
            bounds = (op.low, op.high) if isinstance(op, Clip) else (0.0, math.inf)
            return {one(Factor("clip", of, bounds=bounds)): np.ones(())}
        if isinstance(op, (GlobalAveragePool, GlobalMaxPool)):
            place = self._places[node.inputs[0]]
            axes = tuple(sorted(axis for axes in place[1:] for axis in axes))
            if isinstance(op, GlobalMaxPool):
                return {one(Factor("max", of, axes)): np.ones(())}
            factor: Array = np.ones(())
            if len(argument) == 1:  # the mean of 2 x is twice the mean of x
                ((powers, factor),) = argument.items()
                of = frozenset({(powers, 1.0)})
            return {one(Factor("mean", of, axes)): factor}
        raise Opaque

    def _coefficient(self, values: Array) -> Array:
        """A parameter of an affine operator, as it meets x."""
        values = np.asarray(values, np.float64)
        if _is_one_number(values):
            return values.reshape(-1)[:1].reshape(())
        return values.reshape((1,) * (len(self.shape) - values.ndim) + values.shape)


def _is_one_number(values: Array) -> bool:
    return bool((values == values.reshape(-1)[0]).all())


def _met(places: list[Place]) -> Place | None:
    """The places of arrays that are broadcast against each other; None if some meet elsewhere than in x."""
    result = []
    for axes in zip(*places, strict=True):
        known = {each for each in axes if each}
        if len(known) > 1:
            return None
        result.append(known.pop() if known else ())
    return tuple(result)
