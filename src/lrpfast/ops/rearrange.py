"""Readers of the ONNX operators that repeat axes or move blocks into channels and back.

Expand, Tile, DepthToSpace and SpaceToDepth become Reshape, Expand and Transpose.
"""

from __future__ import annotations

from ..errors import ModelError
from .base import Op
from .movement import Expand, Identity, Reshape, Transpose
from .reading import BATCH, OnnxNode, Unsupported, reads

Ints = tuple[int, ...]


@reads("Expand")
def _read_expand(node: OnnxNode) -> Op:
    shape = node.fact(0).shape
    target = node.sizes(1)
    rank = 1 + len(shape)
    if len(target) > rank:
        raise Unsupported(
            f"its target has {len(target)} axes, its input {rank}: the batch would not be in front"
        )
    if len(target) == rank:
        first, target = target[0], target[1:]
        if first not in (1, BATCH, node.batch):
            raise Unsupported(f"it expands axis 0, the batch, to {first}")
    result = list(shape)
    for axis, n in enumerate(target, len(shape) - len(target)):
        if n is BATCH:
            raise Unsupported("it expands an axis of the samples to the batch size")
        if n != 1 and shape[axis] not in (1, n):
            raise ModelError(f"samples of shape {shape} do not expand to {target}")
        result[axis] = max(n, shape[axis])
    return Identity() if tuple(result) == shape else Expand(tuple(result))


@reads("Tile")
def _read_tile(node: OnnxNode) -> Op | tuple[Op, ...]:
    """Each repeated axis gets one of copies in front, then the two become one."""
    shape = node.fact(0).shape
    repeats = node.sizes(1)
    if len(repeats) != 1 + len(shape):
        raise ModelError(f"repeats is {repeats}; expected {1 + len(shape)} numbers")
    if BATCH in repeats[1:]:
        raise Unsupported("it repeats an axis of the samples as often as there are samples")
    if repeats[0] != 1:
        raise Unsupported("it repeats axis 0, the batch")
    times = tuple(n or 0 for n in repeats[1:])
    if min(times, default=1) < 1:
        raise Unsupported(f"its repeats {times} leave nothing of a sample")
    if set(times) <= {1}:
        return Identity()
    split, whole, merged = [], [], []
    for n, r in zip(shape, times, strict=True):
        split += [n] if r == 1 else [1, n]
        whole += [n] if r == 1 else [r, n]
        merged.append(n * r)
    return Reshape(tuple(split)), Expand(tuple(whole)), Reshape(tuple(merged))


def _feature_maps(node: OnnxNode) -> tuple[int, Ints]:
    """The block size, and the shape (c, h, w) of a sample."""
    shape = node.fact(0).shape
    block = node.integer("blocksize", 0)
    if len(shape) != 3 or block < 1:
        raise ModelError(
            f"blocksize is {block}, its input {shape} per sample; expected channels, height, width"
        )
    return block, shape


def _mode(node: OnnxNode) -> str:
    """Whether a block's places are the outer (DCR) or the inner (CRD) part of a channel's number."""
    mode = node.string("mode", "DCR")
    if mode not in ("DCR", "CRD"):
        raise ModelError(f"mode is {mode!r}; expected DCR or CRD")
    return mode


@reads("DepthToSpace")
def _read_depth_to_space(node: OnnxNode) -> tuple[Op, ...]:
    b, (c, h, w) = _feature_maps(node)
    if c % (b * b):
        raise ModelError(f"its {c} channels are no multiple of blocksize², {b * b}")
    inner = c // (b * b)
    result = Reshape((inner, h * b, w * b))
    if _mode(node) == "DCR":
        return Reshape((b, b, inner, h, w)), Transpose((2, 3, 0, 4, 1)), result
    return Reshape((inner, b, b, h, w)), Transpose((0, 3, 1, 4, 2)), result


@reads("SpaceToDepth")
def _read_space_to_depth(node: OnnxNode) -> tuple[Op, ...]:
    b, (c, h, w) = _feature_maps(node)
    if h % b or w % b:
        raise ModelError(f"its feature maps of {h} x {w} are no multiple of blocksize {b}")
    split = Reshape((c, h // b, b, w // b, b))
    channels = (2, 4, 0) if _mode(node) == "DCR" else (0, 2, 4)
    return split, Transpose((*channels, 1, 3)), Reshape((c * b * b, h // b, w // b))
