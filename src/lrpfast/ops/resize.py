"""Readers of ONNX's Resize and Upsample."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from ..errors import ModelError
from .base import Array, Op
from .chain import Chain
from .interpolation import NEAREST, Axis, Interpolation, Upsample, matrix, nearest
from .reading import BATCH, OnnxNode, Unsupported, reads
from .take import Indices, taken
from .windows import MAX_AXES, Ints

MODES = ("nearest", "linear", "cubic")


@reads("Upsample")
def _read_upsample(node: OnnxNode) -> tuple[Op, ...]:
    rank = 1 + len(node.fact(0).shape)
    stated = node.attributes.get("scales") if node.opset < 9 else node.constant(1)
    scales = _numbers("scales", () if stated is None else stated, rank)
    return _resized(node, _by_scales(node, dict(enumerate(scales))), "asymmetric", "simple")


@reads("Resize")
def _read_resize(node: OnnxNode) -> tuple[Op, ...]:
    rank = 1 + len(node.fact(0).shape)
    if node.opset < 11:
        scales = _numbers("scales", node.constant(1), rank)
        return _resized(node, _by_scales(node, dict(enumerate(scales))), "asymmetric", "simple")
    axes = [axis % rank if -rank <= axis < rank else axis for axis in node.integers("axes")] or list(
        range(rank)
    )
    if len(set(axes)) != len(axes) or not set(axes) <= set(range(rank)):
        raise ModelError(f"axes is {node.integers('axes')}; expected some of the {rank} axes, each once")
    coordinates = node.string("coordinate_transformation_mode", "half_pixel")
    if _given(node, 2) == _given(node, 3):
        raise ModelError("it needs either scales or sizes")
    if _given(node, 2):
        numbers = _numbers("scales", node.constant(2), len(axes))
        resized = _by_scales(node, dict(zip(axes, numbers, strict=True)))
    else:
        resized = _by_sizes(node, axes)
    if coordinates == "tf_crop_and_resize":
        resized = _cropped(node, axes, resized)
    return _resized(node, resized, coordinates, node.string("nearest_mode", "round_prefer_floor"))


def _given(node: OnnxNode, index: int) -> bool:
    """Whether an input is given and not empty, as optional ones were before they could be left out."""
    return node.has(index) and (len(node.sizes(index)) if index == 3 else node.constant(index).size) > 0


def _numbers(name: str, values: object, count: int) -> list[float]:
    """Positive numbers, one per axis."""
    numbers = np.asarray(values, np.float32).reshape(-1)
    if len(numbers) != count or not (np.isfinite(numbers) & (numbers > 0)).all():
        raise ModelError(f"{name} is {numbers.tolist()}; expected {count} positive numbers")
    return [float(n) for n in numbers]


# --- how each axis of a sample is resized: its number, from 0, to its Axis ---


def _by_scales(node: OnnxNode, scales: Mapping[int, float]) -> dict[int, Axis]:
    shape = node.fact(0).shape
    if scales.get(0, 1) != 1:
        raise Unsupported(f"it resizes axis 0, the batch, by {scales[0]}")
    resized = {}
    for axis, scale in scales.items():
        if axis:
            source = shape[axis - 1]
            if scale * source >= 2**31:
                raise ModelError(
                    f"it resizes axis {axis}, of {source}, by {scale}; expected a size below 2³¹"
                )
            target = int(np.float32(scale) * np.float32(source))
            resized[axis - 1] = _axis(node, source, target, scale, single=True)
    return resized


def _by_sizes(node: OnnxNode, axes: list[int]) -> dict[int, Axis]:
    shape = node.fact(0).shape
    sizes = node.sizes(3)
    if len(sizes) != len(axes):
        raise ModelError(f"sizes is {sizes}; expected {len(axes)} numbers")
    named = dict(zip(axes, sizes, strict=True))
    policy = node.string("keep_aspect_ratio_policy", "stretch")
    if 0 in named and named[0] not in (BATCH, node.batch):
        raise Unsupported(f"it resizes axis 0, the batch, to {named[0]}")
    if any(n is BATCH or n < 1 for axis, n in named.items() if axis):
        raise Unsupported(f"sizes is {sizes}: an axis of the samples gets no size, or the batch's")
    targets = {axis - 1: int(n or 0) for axis, n in named.items() if axis}
    if policy == "stretch":
        return {axis: _axis(node, shape[axis], n, n / shape[axis]) for axis, n in targets.items()}
    choose = {"not_larger": min, "not_smaller": max}.get(policy)
    if choose is None:
        raise ModelError(
            f"keep_aspect_ratio_policy is {policy!r}; expected stretch, not_larger or not_smaller"
        )
    scale = choose([n / shape[axis] for axis, n in targets.items()] + [1.0] * (0 in named))
    if 0 in named and scale != 1:
        raise Unsupported(f"it resizes axis 0, the batch, by {scale}, as all axes; name the others as axes")
    return {axis: _axis(node, shape[axis], int(scale * shape[axis] + 0.5), scale) for axis in targets}


def _axis(node: OnnxNode, source: int, target: int, scale: float, single: bool = False) -> Axis:
    """How an axis is resized, within the limits: what comes of it is computed place by place."""
    if target < 1:
        raise ModelError(f"scale {scale} leaves nothing of an axis of {source}")
    node.budget.take(24 * target, f"what resizes {source} to {target} places")
    return Axis(source, target, scale, single)


def _cropped(node: OnnxNode, axes: list[int], resized: Mapping[int, Axis]) -> dict[int, Axis]:
    """Each axis with its part of `roi`, none of which may reach beyond the input."""
    roi = node.constant(1).astype(np.float64)
    if roi.size != 2 * len(axes) or not np.isfinite(roi).all():
        raise ModelError(
            f"roi has {roi.size} numbers, {roi.tolist()!s:.60}; expected {2 * len(axes)}, finite ones"
        )
    roi = roi.reshape(2, -1)
    cropped = {}
    for place, axis in enumerate(axes):
        start, end = (float(n) for n in roi[:, place])
        if not axis:
            if (start, end) != (0, 1):
                raise Unsupported(f"it crops axis 0, the batch, to {start} … {end}")
            continue
        old = resized[axis - 1]
        new = cropped[axis - 1] = replace(old, start=start, end=end)
        if new.target == 1 < new.source:
            raise Unsupported(
                "it crops to a single element, which onnxruntime and ONNX's reference see elsewhere"
            )
        with np.errstate(over="ignore", invalid="ignore"):
            places = new.places("tf_crop_and_resize")
        if not (places.min() >= 0 and places.max() <= old.source - 1):
            raise Unsupported(f"its roi {start} … {end} of axis {axis} reaches beyond the input")
    return cropped


# --- operators ---


def _resized(node: OnnxNode, resized: Mapping[int, Axis], coordinates: str, rounding: str) -> tuple[Op, ...]:
    mode = node.string("mode", "nearest")
    mode = "linear" if mode == "bilinear" else mode
    if mode not in MODES:
        raise ModelError(f"mode is {mode!r}; expected one of {', '.join(MODES)}")
    x = node.fact(0)
    # A scale of 1 is the identity whatever the coordinates.
    changed = {
        axis: how
        for axis, how in sorted(resized.items())
        if how.scale != 1 or how.target != how.source or (how.start, how.end) != (0, 1)
    }
    if coordinates == "align_corners" and not all(how.is_whole for how in changed.values()):
        # ONNX's reference aligns the corners of a size that is no whole number, onnxruntime those of the output.
        raise Unsupported(
            "align_corners with scales that do not give whole sizes is not well defined; use sizes"
        )
    if mode == "nearest":
        if rounding != "simple" and rounding not in NEAREST:
            raise ModelError(f"nearest_mode is {rounding!r}; expected one of {', '.join(NEAREST)}")
        return _nearest(x.shape, {axis: nearest(how, coordinates, rounding) for axis, how in changed.items()})
    if x.integer:
        raise Unsupported("it interpolates integers, which rounds; cast them to floats first")
    for how in changed.values():  # a matrix in float64, made of a few numbers for each of its places
        node.budget.take(
            8 * how.target * (how.source + 32), f"what resizes {how.source} to {how.target} places"
        )
    cubic = node.number("cubic_coeff_a", -0.75) if mode == "cubic" else None
    options = bool(node.integer("antialias", 0)), bool(node.integer("exclude_outside", 0))
    return _interpolated(
        x.shape, {axis: matrix(how, coordinates, cubic, *options) for axis, how in changed.items()}
    )


def _nearest(shape: Ints, indices: Mapping[int, Indices]) -> tuple[Op, ...]:
    """Copies along each axis; blocks of copies at once if that is all."""
    factors = [1] * len(shape)
    for axis, places in indices.items():
        factor = len(places) // shape[axis]
        if np.array_equal(places, np.arange(shape[axis]).repeat(factor)):
            factors[axis] = factor
    blocks = indices and all(factors[axis] > 1 for axis in indices)
    if blocks and 0 not in indices and len(shape) <= 1 + MAX_AXES:
        return (Upsample(tuple(factors[1:])),)
    chain = Chain(shape)
    for axis, places in indices.items():
        chain.then(taken(chain.shape, axis, places))
    return chain.read()


def _interpolated(shape: Ints, matrices: Mapping[int, Array]) -> tuple[Op, ...]:
    """Axis by axis, each brought to the end for it; copies where each place is made of one."""
    chain = Chain(shape)
    for axis, weight in sorted(matrices.items(), reverse=True):
        if ((weight == 0) | (weight == 1)).all() and (weight.sum(axis=1) == 1).all():
            chain.then(taken(chain.shape, axis, weight.argmax(axis=1)))
            continue
        swap = list(range(len(shape)))
        swap[axis], swap[-1] = swap[-1], swap[axis]
        chain.transposed(tuple(swap)).then(Interpolation(weight)).transposed(tuple(swap))
    return chain.read()
