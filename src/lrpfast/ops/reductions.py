"""Readers of the ONNX operators that reduce axes, as pooling over them, and of norms over windows.

Sums and means share relevance by contribution, `R_j = x_j / Σ x · R`; the largest or smallest element takes all. A
norm is a chain: each element is raised to a power, which relevance passes, then summed.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar, NamedTuple

import numpy as np

from ..errors import ModelError
from ..graph import Fact
from .affine import ZERO, Affine
from .base import Array, Elementwise, Op
from .chain import Chain
from .function import Function
from .pool import GlobalAveragePool, GlobalMaxPool, read_average_pool
from .power import Pow
from .reading import OnnxNode, Unsupported, reads, refuse_integers
from .windows import MAX_AXES

Reduce = Callable[[Chain, Sequence[int], bool], Chain]
"""Appends a reduction over some axes of a sample, which are kept with size 1 if so asked."""


@dataclass(frozen=True)
class Opposite(Elementwise):
    """`-x`, through which relevance passes: on both sides of a maximum it makes a minimum.

    Unlike a factor it is folded into no layer, whose weights keep their signs, which the rules see.
    """

    kinds: ClassVar[tuple[str, ...]] = ("Opposite", "activation")

    @property
    def is_whole(self) -> bool:
        return True

    def is_nonnegative(self, x: Fact) -> bool:
        return False

    def value(self, x: Array) -> Array:
        return np.negative(x)

    def derivative(self, x: Array, y: Array) -> Array:
        return np.full_like(x, -1)


def reduced(chain: Chain, axes: Sequence[int], pool: Op, keepdims: bool) -> Chain:
    """Append a pool over some axes: they are brought to the end for it, and dropped if asked."""
    shape = chain.shape
    kept = tuple(axis for axis in range(len(shape)) if axis not in axes)
    gone = tuple(sorted(axes))
    if not gone:
        return chain
    sizes = tuple(shape[axis] for axis in gone)
    if len(gone) > MAX_AXES:
        sizes = (math.prod(sizes),)
    chain.transposed((*kept, *gone))
    chain.reshaped((math.prod(shape[axis] for axis in kept), *sizes)).then(pool)
    if keepdims:
        return chain.reshaped(tuple(1 if axis in gone else n for axis, n in enumerate(shape)))
    return chain.reshaped(tuple(shape[axis] for axis in kept))


def mean(chain: Chain, axes: Sequence[int], keepdims: bool = False) -> Chain:
    """Append the mean over some axes."""
    return reduced(chain, axes, GlobalAveragePool(), keepdims)


def total(chain: Chain, axes: Sequence[int], keepdims: bool = False) -> Chain:
    """Append the sum over some axes: their mean, as often as they have elements."""
    count = math.prod(chain.shape[axis] for axis in axes)
    return mean(chain, axes, keepdims).then(*([Affine(np.float64(count), ZERO)] if count != 1 else []))


def largest(chain: Chain, axes: Sequence[int], keepdims: bool = False) -> Chain:
    """Append the maximum over some axes."""
    return reduced(chain, axes, GlobalMaxPool(), keepdims)


def _axes(node: OnnxNode, since: int) -> list[int]:
    """The axes of a sample that a node reduces; none if it does nothing."""
    rank = 1 + len(node.fact(0).shape)
    given = node.integers_or_input("axes", 1, since)
    if given:
        return sorted(node.axes(given, rank))
    if node.integer("noop_with_empty_axes", 0):
        return []
    if node.batch == 1 and node.integer("keepdims", 1):
        return list(range(rank - 1))  # the batch axis of the one sample is kept, too
    raise Unsupported("without axes it reduces the batch as well; name the axes")


class Steps(NamedTuple):
    """A reduction: what is done to each element, to all of them, and to the result."""

    before: tuple[Op, ...]
    reduce: Reduce
    after: tuple[Op, ...]
    since: int = 18


SQUARE = Pow(np.float64(2))

REDUCTIONS: dict[str, Steps] = {
    "ReduceMean": Steps((), mean, ()),
    "ReduceSum": Steps((), total, (), since=13),
    "ReduceMax": Steps((), largest, ()),
    "ReduceMin": Steps((Opposite(),), largest, (Opposite(),)),
    "ReduceL1": Steps((Function("Abs"),), total, ()),
    "ReduceL2": Steps((SQUARE,), total, (Function("Sqrt"),)),
    "ReduceSumSquare": Steps((SQUARE,), total, ()),
    "ReduceLogSum": Steps((), total, (Function("Log"),)),
    "ReduceLogSumExp": Steps((Function("Exp"),), total, (Function("Log"),)),
}
"""By their ONNX names; `since` is the opset from which on their axes are an input."""


@reads(*REDUCTIONS)
def _read_reduction(node: OnnxNode) -> tuple[Op, ...]:
    before, reduce, after, since = REDUCTIONS[node.op_type]
    if reduce is not largest:
        refuse_integers(node)  # they are added up by way of their mean
    chain = Chain(node.fact(0).shape).then(*before)
    return reduce(chain, _axes(node, since), bool(node.integer("keepdims", 1))).then(*after).read()


@reads("GlobalAveragePool")
def _read_global_average_pool(node: OnnxNode) -> tuple[Op, ...]:
    return mean(Chain(node.fact(0).shape), _spatial(node), keepdims=True).read()


@reads("GlobalMaxPool")
def _read_global_max_pool(node: OnnxNode) -> tuple[Op, ...]:
    return largest(Chain(node.fact(0).shape), _spatial(node), keepdims=True).read()


@reads("GlobalLpPool")
def _read_global_norm(node: OnnxNode) -> tuple[Op, ...]:
    before, after = _powers(node)
    chain = Chain(node.fact(0).shape).then(*before)
    return total(chain, _spatial(node), keepdims=True).then(*after).read()


@reads("LpPool")
def _read_norm(node: OnnxNode) -> tuple[Op, ...]:
    """The mean over a window is a sum, times the number of its elements."""
    before, after = _powers(node)
    pool = replace(read_average_pool(node), count_include_pad=True)
    count = 1 / pool.weights(node.fact(0).shape)
    factor = count.flat[0] if (count == count.flat[0]).all() else count[None]
    return *before, pool, Affine(factor, ZERO), *after


def _powers(node: OnnxNode) -> tuple[tuple[Op, ...], tuple[Op, ...]]:
    """What a p-norm does to each element, and to their sum."""
    refuse_integers(node)
    p = node.integer("p", 2)
    if p < 1:
        raise ModelError(f"p is {p}; expected 1 or more")
    if p == 1:
        return (Function("Abs"),), ()
    if p == 2:
        return (SQUARE,), (Function("Sqrt"),)
    return (Function("Abs"), Pow(np.float64(p))), (Pow(np.float64(1 / p)),)


def _spatial(node: OnnxNode) -> tuple[int, ...]:
    shape = node.fact(0).shape
    if len(shape) < 2:
        raise ModelError(f"its input has shape {shape} per sample; expected channels, and 1 axis or more")
    return tuple(range(1, len(shape)))
