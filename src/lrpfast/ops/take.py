"""Operators that copy chosen elements: along one axis, or by their numbers in the sample.

Readers of ONNX's Gather, GatherElements, GatherND, Compress and Trilu.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from ..errors import ModelError
from ..graph import Fact
from .base import Array, Movement, Op
from .embedding import Embedding
from .movement import Reshape, Slice
from .reading import OnnxNode, Reading, Unsupported, reads
from .select import Mask

Indices = NDArray[np.intp]
Ints = tuple[int, ...]


def _frozen(indices: Any) -> Indices:
    array = np.array(indices, np.intp)
    array.flags.writeable = False
    return array


def _check(indices: Indices, size: int) -> None:
    if indices.size and not 0 <= indices.min() <= indices.max() < size:
        raise ModelError(f"it reads elements {indices.min()} to {indices.max()} of {size}")


def _sums(s: Array, indices: Indices, size: int, axis: int) -> Array:
    """Along `axis`: what each of `size` elements gets in all from those of `s` that are its copies."""
    result = np.zeros((*s.shape[:axis], size, *s.shape[axis + 1 :]), s.dtype)
    order = np.argsort(indices, kind="stable")
    sources, starts, counts = np.unique(indices[order], return_index=True, return_counts=True)
    ahead = (slice(None),) * axis
    once = counts == 1  # most are: sums cost more than copies
    place: tuple[Any, ...] = (*ahead, sources[once])
    result[place] = s.take(order[starts[once]], axis)
    if not once.all():
        copies = s.take(order[np.repeat(~once, counts)], axis)
        ends = np.cumsum(counts[~once])
        place = (*ahead, sources[~once])
        result[place] = np.add.reduceat(copies, ends - counts[~once], axis)
    return result


@dataclass(frozen=True, eq=False)
class Take(Movement):
    """Along one axis the elements with the given indices, each as often as it is named.

    An element receives the relevance of all of its copies.

    Parameters
    ----------
    axis : int
        Of a sample, from 0.
    indices : array of int (k,)
        From 0 on.

    Raises
    ------
    ModelError
        There is no such axis, an index is out of range, or there is none.
    """

    kinds: ClassVar[tuple[str, ...]] = ("Take", "movement")

    axis: int
    indices: Indices

    def __post_init__(self) -> None:
        object.__setattr__(self, "indices", _frozen(self.indices))
        if self.indices.ndim != 1 or not self.indices.size:
            raise ModelError(f"indices have shape {self.indices.shape}; expected a list of one or more")

    def infer(self, *inputs: Fact) -> Fact:
        (x,) = inputs
        if not 0 <= self.axis < len(x.shape):
            raise ModelError(f"axis is {self.axis}; its input has shape {x.shape} per sample")
        _check(self.indices, x.shape[self.axis])
        return replace(x, shape=(*x.shape[: self.axis], self.indices.size, *x.shape[self.axis + 1 :]))

    def forward(self, *inputs: Array) -> Array:
        return inputs[0].take(self.indices, self.axis + 1)

    def vjp(self, inputs: tuple[Array, ...], output: Array, s: Array) -> tuple[Array, ...]:
        return (_sums(s, self.indices, inputs[0].shape[self.axis + 1], self.axis + 1),)


@dataclass(frozen=True, eq=False)
class Pick(Movement):
    """Any elements of a sample, by their numbers in row-major order, each as often as it is named.

    An element receives the relevance of all of its copies.

    Parameters
    ----------
    indices : array of int
        In the shape of an output sample; from 0 on.

    Raises
    ------
    ModelError
        An index is out of range, or there is none.
    """

    kinds: ClassVar[tuple[str, ...]] = ("Pick", "movement")

    indices: Indices

    def __post_init__(self) -> None:
        object.__setattr__(self, "indices", _frozen(self.indices))
        if not self.indices.size:
            raise ModelError(f"indices have shape {self.indices.shape}; expected one or more")

    def infer(self, *inputs: Fact) -> Fact:
        (x,) = inputs
        _check(self.indices, x.size)
        return replace(x, shape=self.indices.shape)

    def forward(self, *inputs: Array) -> Array:
        (x,) = inputs
        return x.reshape(len(x), -1).take(self.indices, 1)

    def vjp(self, inputs: tuple[Array, ...], output: Array, s: Array) -> tuple[Array, ...]:
        shape = inputs[0].shape
        back = _sums(s.reshape(len(s), -1), self.indices.reshape(-1), math.prod(shape[1:]), 1)
        return (back.reshape(shape),)


# --- ONNX ---


def taken(shape: Ints, axis: int, indices: Indices | Sequence[int]) -> Op:
    """The elements with `indices` along `axis` of a sample of `shape`: a slice if they are in equal steps."""
    places = np.asarray(indices, np.intp)
    step = int(places[1] - places[0]) if len(places) > 1 else 1
    if not step or (np.diff(places) != step).any():
        return Take(axis, places)
    ranges = [range(n) for n in shape]
    ranges[axis] = range(int(places[0]), int(places[0]) + step * len(places), step)
    return sliced(ranges)


def sliced(ranges: list[range]) -> Slice:
    """The elements of `ranges`, one per axis of a sample."""
    return Slice(tuple(r.start for r in ranges), tuple(r.step for r in ranges), tuple(len(r) for r in ranges))


def _from_zero(indices: Any, size: int) -> Indices:
    """Indices that may be negative, counted from the beginning of an axis of `size`."""
    array = np.asarray(indices)
    if array.dtype.kind not in "iu":
        raise ModelError(f"its indices have dtype {array.dtype}; expected integers")
    if not array.size:
        raise Unsupported(f"its indices have shape {array.shape}: its output is empty")
    if array.min() < -size or array.max() >= size:
        shown = array.tolist() if array.size <= 8 else f"from {array.min()} to {array.max()}"
        raise ModelError(f"its indices {shown} are out of range for an axis of {size}")
    return np.where(array < 0, array + size, array).astype(np.intp)


@reads("Gather")
def _read_gather(node: OnnxNode) -> Reading:
    """An embedding, or elements along an axis."""
    if node.is_constant(0):
        if node.integer("axis", 0) != 0:
            raise Unsupported("its indices, which are computed, choose along another axis than the first")
        return Embedding(node.weights(0))
    shape = node.fact(0).shape
    axis = node.axis(node.integer("axis", 0), 1 + len(shape))
    indices = _from_zero(node.constant(1), shape[axis])
    take = taken(shape, axis, indices.reshape(-1))
    if indices.ndim == 1:
        return take
    return take, Reshape((*shape[:axis], *indices.shape, *shape[axis + 1 :]))


@reads("GatherElements")
def _read_gather_elements(node: OnnxNode) -> Pick:
    shape = node.fact(0).shape
    axis = node.axis(node.integer("axis", 0), 1 + len(shape))
    indices = _from_zero(node.row(1), shape[axis])
    if indices.ndim != len(shape):
        raise ModelError(f"its indices have {1 + indices.ndim} axes, its data {1 + len(shape)}")
    places: list[Indices] = list(np.indices(indices.shape, sparse=True))
    places[axis] = indices
    if any(n > m for i, (n, m) in enumerate(zip(indices.shape, shape, strict=True)) if i != axis):
        raise ModelError(f"its indices have shape {indices.shape} per sample, its data {shape}")
    node.budget.take(8 * math.prod(shape), f"indices of shape {shape}")
    return Pick(np.arange(math.prod(shape)).reshape(shape)[tuple(places)])


@reads("GatherND")
def _read_gather_nd(node: OnnxNode) -> Pick:
    shape = node.fact(0).shape
    batch_dims = node.integer("batch_dims", 0)
    if batch_dims < 1:
        raise Unsupported("batch_dims=0: it chooses samples of the batch")
    indices = node.row(1)
    kept, lead = batch_dims - 1, indices.shape[: batch_dims - 1]
    if indices.ndim <= kept or lead != shape[:kept] or indices.shape[-1] > len(shape) - kept:
        raise ModelError(f"its indices have shape {indices.shape} per sample, its data {shape}")
    result = (*indices.shape[:-1], *shape[kept + indices.shape[-1] :])
    node.budget.take(8 * (math.prod(shape) + math.prod(result)), f"indices of shape {shape} and {result}")
    numbers = np.arange(math.prod(shape)).reshape(shape)
    columns = [_from_zero(indices[..., i], shape[kept + i]) for i in range(indices.shape[-1])]
    # The axes of batch_dims go along: each place in them indexes itself.
    own = np.indices((*lead, *(1,) * (indices.ndim - 1 - kept)), sparse=True)[:kept]
    places = (*own, *columns)
    return Pick(numbers[places])


@reads("Compress")
def _read_compress(node: OnnxNode) -> Op:
    shape = node.fact(0).shape
    if "axis" not in node.attributes:
        raise Unsupported("without an axis it chooses among the elements of all samples")
    axis = node.axis(node.integer("axis", 0), 1 + len(shape))
    condition = node.constant(1).reshape(-1)
    if len(condition) > shape[axis]:
        raise ModelError(f"its condition has {len(condition)} elements, its axis {shape[axis]}")
    places = np.flatnonzero(condition)
    if not places.size:
        raise Unsupported("its condition is false everywhere: its output is empty")
    return taken(shape, axis, places)


@reads("Trilu")
def _read_trilu(node: OnnxNode) -> Mask:
    shape = node.fact(0).shape
    if len(shape) < 2:
        raise Unsupported(f"its matrices of a sample of shape {shape} reach across the batch")
    reach = shape[-2] + shape[-1]  # from which on a diagonal is outside of the matrix
    k = min(max(node.whole(1, 0), -reach), reach)
    node.budget.take(3 * math.prod(shape), f"a mask of shape {shape}")
    ones = np.ones(shape, bool)
    kept = np.triu(ones, k) if node.integer("upper", 1) else np.tril(ones, k)
    return Mask(kept, np.zeros(()))
