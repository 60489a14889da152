"""Resizing along axes: where an output place lies in the input, and what it is made of there.

Source: ONNX's operator Resize, version 19.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from ..errors import ModelError
from ..graph import Fact
from .base import Array, Linear, Movement
from .parameters import integers, parameter
from .windows import MAX_AXES, Ints, check_countable


@dataclass(frozen=True, eq=False)
class Interpolation(Linear):
    """Along the last axis, `z = W x`: each output place is made of a few places near it.

    Parameters
    ----------
    weight : array (m, k)
        What each of m places takes from each of k.

    Raises
    ------
    ModelError
        The last axis has another size.
    """

    kinds: ClassVar[tuple[str, ...]] = ("Interpolation", "interpolation")

    weight: Array

    def __post_init__(self) -> None:
        object.__setattr__(self, "weight", parameter("weight", self.weight, ndim=2))

    @property
    def has_nonnegative_weights(self) -> bool:
        return bool((self.weight >= 0).all())

    def infer(self, *inputs: Fact) -> Fact:
        (x,) = inputs
        m, k = self.weight.shape
        if x.shape[-1:] != (k,):
            raise ModelError(f"its input has shape {x.shape} per sample; expected a last axis of {k}")
        return Fact((*x.shape[:-1], m), nonnegative=x.nonnegative and self.has_nonnegative_weights)

    def forward(self, *inputs: Array) -> Array:
        (x,) = inputs
        z: Array = x @ self.weight.astype(x.dtype, copy=False).T
        return z

    def vjp(self, inputs: tuple[Array, ...], output: Array, s: Array) -> tuple[Array, ...]:
        return (s @ self.weight.astype(s.dtype, copy=False),)


@dataclass(frozen=True)
class Upsample(Movement):
    """Each element of feature maps becomes a block of copies.

    An element receives the relevance of all of its copies.

    Parameters
    ----------
    factors : tuple of int
        Copies along each spatial axis.
    """

    kinds: ClassVar[tuple[str, ...]] = ("Upsample", "movement")

    factors: Ints

    def __post_init__(self) -> None:
        axes = len(self.factors)
        if not 1 <= axes <= MAX_AXES:
            raise ModelError(f"factors is {self.factors}; expected 1 to {MAX_AXES} numbers")
        object.__setattr__(self, "factors", integers("factors", self.factors, axes, least=1))

    def infer(self, *inputs: Fact) -> Fact:
        (x,) = inputs
        if len(x.shape) != 1 + len(self.factors):
            raise ModelError(
                f"its input has shape {x.shape} per sample; expected channels and {len(self.factors)} axes more"
            )
        sizes = tuple(n * f for n, f in zip(x.shape[1:], self.factors, strict=True))
        check_countable(self.factors, x.shape[1:], sizes)
        return replace(x, shape=(x.shape[0], *sizes))

    def forward(self, *inputs: Array) -> Array:
        (z,) = inputs
        for axis, factor in enumerate(self.factors, 2):
            z = z.repeat(factor, axis)
        return z

    def vjp(self, inputs: tuple[Array, ...], output: Array, s: Array) -> tuple[Array, ...]:
        shape = inputs[0].shape
        pairs = (m for pair in zip(shape[2:], self.factors, strict=True) for m in pair)
        blocks = s.reshape(*shape[:2], *pairs)
        return (blocks.sum(axis=tuple(range(3, blocks.ndim, 2))),)


# --- coordinates ---


@dataclass(frozen=True)
class Axis:
    """How one axis is resized.

    Attributes
    ----------
    source, target : int
        Its sizes before and after.
    scale : float
    single : bool
        Whether the scale was given, in single precision, and is not just the quotient of the sizes.
    start, end : float
        The part of the axis that `tf_crop_and_resize` reads, from 0 to 1.
    """

    source: int
    target: int
    scale: float
    single: bool = False
    start: float = 0.0
    end: float = 1.0

    @property
    def is_whole(self) -> bool:
        """Whether the scale times the size is the new size, with nothing rounded off."""
        return abs(self.scale * self.source - self.target) < 1e-4

    def places(self, mode: str, dtype: type = np.float64) -> Array:
        """Where each output place lies in the input, by ONNX's `coordinate_transformation_mode`."""
        y: Array = np.arange(self.target, dtype=dtype)
        scale, source, target, start, end, half = np.array(
            [self.scale, self.source, self.target, self.start, self.end, 0.5], dtype
        )
        places: Array
        if mode == "asymmetric":
            places = y / scale
        elif mode == "tf_half_pixel_for_nn":
            places = (y + half) / scale
        elif mode == "align_corners":
            places = y * (source - 1) / max(target - 1, 1)
        elif mode == "tf_crop_and_resize":
            places = start * (source - 1) + y * (end - start) * (source - 1) / max(target - 1, 1)
        elif mode == "pytorch_half_pixel" and target == 1:
            places = y
        elif mode in ("half_pixel", "pytorch_half_pixel"):
            places = (y + half) / scale - half
        elif mode == "half_pixel_symmetric":
            places = half * source * (1 - target / (scale * source)) + (y + half) / scale - half
        else:
            raise ModelError(f"coordinate_transformation_mode is {mode!r}, which ONNX does not have")
        return places


# --- nearest ---


def _half_down(x: Array) -> Array:
    low = np.floor(x)
    return np.where(x - low > 0.5, low + 1, low)


def _half_up(x: Array) -> Array:
    low = np.floor(x)
    return np.where(x - low >= 0.5, low + 1, low)


NEAREST: dict[str, Callable[[Array], Array]] = {
    "round_prefer_floor": _half_down,
    "round_prefer_ceil": _half_up,
    "floor": np.floor,
    "ceil": np.ceil,
}
"""ONNX's `nearest_mode`s."""


def nearest(axis: Axis, coordinates: str, rounding: str) -> NDArray[np.intp]:
    """The index that each output place copies; `rounding` "simple" is that of versions before 11."""
    # With a scale of single precision ties fall as runtimes have it, which compute with it as it is.
    places = axis.places(coordinates, np.float32 if axis.single else np.float64)
    if rounding == "simple":
        rounding = "ceil" if axis.scale < 1 else "floor"
    rounded = NEAREST[rounding](places)
    return np.clip(rounded, 0, axis.source - 1).astype(np.intp)


# --- linear and cubic ---


def _hat(x: Array) -> Array:
    y: Array = np.maximum(1 - np.abs(x), 0)
    return y


def _keys(x: Array, a: float) -> Array:
    """Keys' cubic convolution kernel."""
    x = np.abs(x)
    near = ((a + 2) * x - (a + 3)) * x * x + 1
    far = ((a * x - 5 * a) * x + 8 * a) * x - 4 * a
    y: Array = np.where(x <= 1, near, np.where(x < 2, far, 0))
    return y


def matrix(
    axis: Axis, coordinates: str, cubic: float | None = None, antialias: bool = False, exclude: bool = False
) -> Array:
    """What each output place takes from each place of the axis.

    Parameters
    ----------
    axis : Axis
    coordinates : str
        ONNX's `coordinate_transformation_mode`.
    cubic : float or None
        The parameter of a cubic kernel; None for a linear one.
    antialias : bool
        Widen the kernel where the axis shrinks.
    exclude : bool
        Leave out what is beyond the ends, instead of taking the ends for it.

    Returns
    -------
    array (target, source)
        In float64.
    """
    x = axis.places(coordinates)
    before = np.ceil(x) - 1
    stretch = min(axis.scale, 1.0) if antialias else 1.0
    half = math.ceil((1 if cubic is None else 2) / stretch)
    taps = before[:, None] + np.arange(1 - half, half + 1)
    distance = (taps - x[:, None]) * stretch
    weights = _hat(distance) if cubic is None else _keys(distance, cubic)
    if exclude:
        weights = np.where((taps < 0) | (taps >= axis.source), 0, weights)
    if antialias or exclude:
        total = weights.sum(axis=1, keepdims=True)
        weights = weights / np.where(total == 0, 1, total)
    result = np.zeros((axis.target, axis.source))
    columns = np.clip(taps, 0, axis.source - 1).astype(np.intp)
    np.add.at(result, (np.arange(axis.target)[:, None], columns), weights)
    return result
