"""Normalisation layers and Softmax in pieces, told by what they compute written out as a sum of products.

A form is a function of such a sum: it says which operators compute the same of x, or None.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

import numpy as np

from ..graph import Graph
from ..ops.affine import Affine
from ..ops.arithmetic import Add
from ..ops.base import Array, Op
from ..ops.function import Function
from ..ops.movement import Expand, Reshape, Transpose
from ..ops.normalization import LpNormalization, Normalization
from ..ops.pool import GlobalAveragePool, GlobalMaxPool
from ..ops.power import Pow
from ..ops.product import Div, Mul
from ..ops.softmax import LogSoftmax, Softmax
from .algebra import UNIT, Cone, Factor, Ints, Powers, Terms, X, one
from .found import Found

Numbers = dict[Powers, float]
Form = Callable[[Terms, Ints], "tuple[Op, ...] | None"]


def broken_layers(graph: Graph) -> Iterator[Found]:
    """The layers that are found in a graph."""
    order = {node.name: number for number, node in enumerate(graph.nodes)}
    for x in dict.fromkeys(_read_by_layers(graph)):
        found = _found(Cone(graph, x, order))
        if found is not None:
            yield found


def _read_by_layers(graph: Graph) -> Iterator[str]:
    """What may be the x of a layer: what statistics are taken of, or of the squares or exponentials of which."""
    for node in graph.nodes:
        pools = isinstance(node.op, (GlobalAveragePool, GlobalMaxPool))
        if pools or (isinstance(node.op, Function) and node.op.name == "Exp"):
            *others, name = _origins(graph, node.inputs[0])
            yield from (name, *others)
            maker = graph.producers.get(name)
            if maker is not None and isinstance(maker.op, (Add, Mul, Pow, Function)):
                yield from (origin for each in maker.inputs for origin in _origins(graph, each))


def _origins(graph: Graph, name: str) -> Iterator[str]:
    """An array, and those whose elements it has in other places, up to the first."""
    yield name
    while name in graph.producers and isinstance(graph.producers[name].op, (Expand, Reshape, Transpose)):
        name = graph.producers[name].inputs[0]
        yield name


def _found(cone: Cone) -> Found | None:
    """The smallest layer in a cone."""
    for root in cone.nodes:
        if not (isinstance(root.op, (Add, Mul, Div, Affine)) and cone.lies_like_x(root.output)):
            continue
        terms = cone.terms(root.output)
        pieces = None if terms is None else cone.behind(root)
        if terms is None or pieces is None:
            continue
        for form in FORMS:
            ops = form(terms, cone.shape)
            if ops is not None:
                return Found(pieces, root, cone.x, ops)
    return None


def _near(a: Array | float, b: Array | float) -> bool:
    """Whether two numbers, or arrays, are the same but for the rounding of constants to float32."""
    return bool(np.allclose(a, b, rtol=1e-6, atol=0))


def _elements(axes: Ints, shape: Ints) -> int:
    return math.prod(shape[axis] for axis in axes)


# --- normalisation ---


def normalization(terms: Terms, shape: Ints) -> tuple[Op, ...] | None:
    """`gain · (x - mean) / deviation + shift`, with or without the mean."""
    terms = dict(terms)
    shift = terms.pop(UNIT, np.zeros(()))
    below = {(factor, exponent) for powers in terms for factor, exponent in powers if exponent < 0}
    if len(below) != 1:
        return None
    ((divisor, exponent),) = below
    above = {powers - below: coefficient for powers, coefficient in terms.items() if below <= powers}
    gain = above.pop(one(X), None)
    if gain is None or len(above) + 1 != len(terms) or len(above) > 1:
        return None
    mean = None
    if above:
        ((powers, coefficient),) = above.items()
        mean = _mean_of_x(powers)
        if mean is None or not _near(coefficient, -gain):
            return None
    op, factor = _divided(divisor, exponent, mean, shape) or (None, 1.0)
    if op is None:
        return None
    gain = gain * factor
    if _near(gain, 1) and not shift.any():
        return (op,)
    return op, Affine(gain, shift)


def _mean_of_x(powers: Powers) -> Ints | None:
    """The axes, if a product is the mean of x alone."""
    if len(powers) == 1:
        ((factor, exponent),) = powers
        if exponent == 1 and factor.kind == "mean" and factor.of == {(one(X), 1.0)}:
            return factor.axes
    return None


def _divided(divisor: Factor, exponent: float, mean: Ints | None, shape: Ints) -> tuple[Op, float] | None:
    """The normalisation whose divisor is a factor to some power, and what it is to be multiplied by."""
    floor, inner = 0.0, divisor
    if divisor.kind == "clip" and divisor.bounds[0] > 0 and divisor.bounds[1] == math.inf:
        floor, inner = divisor.bounds[0], Factor("sum", divisor.of)
    numbers: Numbers = dict(inner.of) if inner.kind == "sum" else {one(inner): 1.0}
    epsilon = numbers.pop(UNIT, 0.0)
    if epsilon < 0 or (epsilon and floor):
        return None
    outside = exponent == -1
    if outside and len(numbers) == 1:
        ((powers, coefficient),) = numbers.items()
        if coefficient > 0 and len(powers) == 1:
            ((root, half),) = powers
            if half == 1 and root.kind == "mean" and not (epsilon or mean):
                return _absolute(root, coefficient, floor, shape)
            numbers = {one(root): coefficient**2} if half == 0.5 else {}
    elif exponent != -0.5:
        return None
    else:
        floor = math.sqrt(floor)
    found = _variance(numbers)
    if found is None or found[1] != (mean is not None) or (mean is not None and found[2] != mean):
        return None
    size, centred, axes = found
    if size <= 0:
        return None
    size = 1.0 if _near(size, 1) else size
    epsilon /= math.sqrt(size) if outside else size
    if centred or epsilon:
        if floor:
            return None
        source = _title(axes, centred, shape)
        op: Op = Normalization(axes, epsilon, centred, outside=outside and epsilon > 0, source=source)
        return op, 1 / math.sqrt(size)
    norm = size / _elements(axes, shape)  # times Σ x²
    return LpNormalization(axes, 2, floor / math.sqrt(norm)), 1 / math.sqrt(norm)


def _title(axes: Ints, centred: bool, shape: Ints) -> str:
    """What ONNX calls such a layer, if it has a name for it."""
    if axes[-1] + 1 != len(shape) or axes != tuple(range(axes[0], len(shape))):
        return "Normalization"
    return "LayerNormalization" if centred else "RMSNormalization"


def _absolute(mean: Factor, coefficient: float, floor: float, shape: Ints) -> tuple[Op, float] | None:
    """`x / Σ|x|`."""
    if mean.of != {(one(Factor("abs", frozenset({(one(X), 1.0)}))), 1.0)}:
        return None
    norm = coefficient / _elements(mean.axes, shape)
    return LpNormalization(mean.axes, 1, floor / norm), 1 / norm


_SQUARE = one(X, 2.0)


def _variance(numbers: Numbers) -> tuple[float, bool, Ints] | None:
    """A multiple of a variance, or of the mean of x²: how much, whether it is a variance, and over which axes."""
    if len(numbers) == 1:
        ((powers, size),) = numbers.items()
        if len(powers) != 1:
            return None
        ((factor, exponent),) = powers
        if exponent != 1:
            return None
        if factor.kind == "clip" and factor.bounds == (0, math.inf):  # rounding may have made it negative
            inner = _variance(dict(factor.of))
            return None if inner is None else (size * inner[0], *inner[1:])
        if factor.kind != "mean":
            return None
        if factor.of == {(_SQUARE, 1.0)}:
            return size, False, factor.axes
        return (size, True, factor.axes) if _is_deviation(dict(factor.of), factor.axes) else None
    return _difference_of_means(numbers)


def _is_deviation(numbers: Numbers, axes: Ints) -> bool:
    """Whether a sum is `(x - mean)²`."""
    mean = Factor("mean", frozenset({(one(X), 1.0)}), axes)
    expected = {_SQUARE: 1.0, frozenset({(X, 1.0), (mean, 1.0)}): -2.0, one(mean, 2.0): 1.0}
    return numbers.keys() == expected.keys() and all(_near(numbers[k], expected[k]) for k in expected)


def _difference_of_means(numbers: Numbers) -> tuple[float, bool, Ints] | None:
    """`mean(x²) - mean(x)²`."""
    for powers, size in numbers.items():
        if len(powers) == 1:
            ((factor, exponent),) = powers
            if exponent == 1 and factor.kind == "mean" and factor.of == {(_SQUARE, 1.0)}:
                mean = Factor("mean", frozenset({(one(X), 1.0)}), factor.axes)
                other = numbers.get(one(mean, 2.0))
                matches = len(numbers) == 2 and other is not None and _near(other, -size)
                return (size, True, factor.axes) if matches else None
    return None


# --- Softmax ---


def softmax(terms: Terms, shape: Ints) -> tuple[Op, ...] | None:
    """`exp(x - max) / Σ exp(x - max)`."""
    if len(terms) != 1:
        return None
    ((powers, size),) = terms.items()
    exponents = {exponent: factor for factor, exponent in powers}
    if len(powers) != 2 or set(exponents) != {1.0, -1.0}:
        return None
    above, below = exponents[1.0], exponents[-1.0]
    axis = _is_total(below, above, shape)
    return (Softmax(axis),) if axis is not None and _near(size * shape[axis], 1) else None


def log_softmax(terms: Terms, shape: Ints) -> tuple[Op, ...] | None:
    """`x - max - log Σ exp(x - max)`."""
    logs = [factor for powers in terms for factor, _ in powers if factor.kind == "log"]
    if len(logs) != 1:
        return None
    (log,) = logs
    numbers = {powers: float(c) for powers, c in terms.items() if c.size == 1}
    if numbers.pop(one(log), None) != -1 or len(numbers) + 1 != len(terms) or len(log.of) != 1:
        return None
    ((powers, size),) = log.of
    exponential = Factor("exp", frozenset(numbers.items()))
    if len(powers) != 1:
        return None
    ((total, exponent),) = powers
    axis = _is_total(total, exponential, shape) if exponent == 1 else None
    return (LogSoftmax(axis),) if axis is not None and _near(size / shape[axis], 1) else None


def _is_total(mean: Factor, exponential: Factor, shape: Ints) -> int | None:
    """The axis, if a factor is the mean of `exp(x - max)` along it."""
    if exponential.kind != "exp" or mean.kind != "mean" or mean.of != {(one(exponential), 1.0)}:
        return None
    argument = dict(exponential.of)
    if argument.pop(one(X), None) != 1 or len(mean.axes) != 1:
        return None
    largest = Factor("max", frozenset({(one(X), 1.0)}), mean.axes)
    return mean.axes[0] if argument in ({}, {one(largest): -1.0}) else None


FORMS: tuple[Form, ...] = (normalization, softmax, log_softmax)
