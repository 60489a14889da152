"""Readers of the ONNX operators that become `Reshape`: Reshape, Flatten, Squeeze, Unsqueeze."""

from __future__ import annotations

import math

from ..errors import ModelError
from .movement import Reshape
from .reading import BATCH, OnnxNode, Unsupported, reads


@reads("Reshape")
def _read_reshape(node: OnnxNode) -> Reshape:
    x = node.fact(0)
    target = node.sizes(1)
    if not target:
        raise Unsupported("it reshapes to a scalar")
    copies = not node.integer("allowzero", 0)
    source = (BATCH, *x.shape)
    copied = [source[i] if n == 0 and copies and i < len(source) else n for i, n in enumerate(target)]
    first, rest = copied[0], copied[1:]
    if BATCH in rest or 0 in copied:
        raise Unsupported(f"its target {_shown(target)} does not keep axis 0 as the batch")
    sizes = [n for n in rest if n is not None]
    known = math.prod(n for n in sizes if n != -1)
    if -1 in sizes and sizes.count(-1) == 1 and first != -1 and x.size % known == 0:
        sizes[sizes.index(-1)] = x.size // known
    keeps = first in (BATCH, -1) or first == node.batch
    if not keeps or math.prod(sizes) != x.size or min(sizes, default=1) < 1:
        raise Unsupported(
            f"its target {_shown(target)} does not keep axis 0 as the batch, with samples of shape {x.shape}"
        )
    return Reshape(tuple(sizes))


def _shown(sizes: tuple[int | None, ...]) -> str:
    return "(" + ", ".join("batch" if n is BATCH else str(n) for n in sizes) + ")"


@reads("Flatten")
def _read_flatten(node: OnnxNode) -> Reshape:
    shape = node.fact(0).shape
    rank = 1 + len(shape)
    axis = node.integer("axis", 1)
    axis = axis + rank if axis < 0 else axis
    if not 0 <= axis <= rank:
        raise ModelError(f"axis {axis} is out of range for an array of {rank} axes")
    if axis == 0 or math.prod(shape[: axis - 1]) != 1:
        raise Unsupported(f"axis {axis} merges the batch with other axes; use axis 1")
    return Reshape((math.prod(shape[axis - 1 :]),))


@reads("Squeeze")
def _read_squeeze(node: OnnxNode) -> Reshape:
    shape = node.fact(0).shape
    given = node.integers_or_input("axes", 1, since=13)
    if given is None and (node.batch or 1) == 1:
        raise Unsupported("without axes it would also drop the batch axis of a single sample; name the axes")
    axes = (
        tuple(i for i, n in enumerate(shape) if n == 1) if given is None else node.axes(given, 1 + len(shape))
    )
    if any(shape[axis] != 1 for axis in axes):
        raise ModelError(f"it squeezes axes {given} of samples of shape {shape}; their sizes must be 1")
    return Reshape(tuple(n for axis, n in enumerate(shape) if axis not in axes))


@reads("Unsqueeze")
def _read_unsqueeze(node: OnnxNode) -> Reshape:
    shape = node.fact(0).shape
    given = node.integers_or_input("axes", 1, since=13)
    if given is None:
        raise ModelError("its axes are missing")
    rank = 1 + len(shape) + len(given)
    axes = set(node.axes(given, rank))
    sizes = iter(shape)
    return Reshape(tuple(1 if axis in axes else next(sizes) for axis in range(rank - 1)))
