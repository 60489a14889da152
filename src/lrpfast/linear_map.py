"""Linear operators as kernel calls: which kernel, in which view of the arrays, with which weights."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import singledispatch
from typing import Any

import numpy as np

from .backends.numpy_ import part as part_of
from .graph import Fact
from .ops.affine import Affine
from .ops.base import Array, Op
from .ops.conv import Conv, ConvTranspose
from .ops.gemm import Gemm
from .ops.pool import AveragePool, GlobalAveragePool
from .parts import Part


@dataclass(frozen=True, eq=False)
class LinearMap:
    """`z = A x + b` in the layout of a pair of kernels.

    Attributes
    ----------
    forward, vjp : str
        Names of the kernels for `A` and its transpose.
    weight : array
        In the kernels' layout.
    bias : array (channels,) or None
    x_shape, z_shape : tuple of int
        Shapes behind the leading axis, as the kernels see input and output.
    rows : int
        Rows of the leading axis per sample.
    options : mapping
        Strides and the like.
    """

    forward: str
    vjp: str
    weight: Array
    bias: Array | None
    x_shape: tuple[int, ...]
    z_shape: tuple[int, ...]
    rows: int = 1
    options: Mapping[str, Any] = field(default_factory=dict)

    @property
    def share_shape(self) -> tuple[int, int]:
        """Output of one sample as (channels, inner), for the division; rows become channels."""
        channels = self.rows * self.z_shape[0]
        return channels, self.rows * int(np.prod(self.z_shape)) // channels

    def powered_weight(self, power: int) -> Array:
        """The weights, their squares (2), or ones in their places (0)."""
        if power == 1:
            return self.weight
        return np.square(self.weight) if power == 2 else np.ones_like(self.weight)

    def bias_part(self, part: Part | None) -> Array | None:
        """A part of the bias, or None where there is none or all of it is zero."""
        if part is None or self.bias is None:
            return None
        b = np.square(self.bias) if part.power == 2 else self.bias
        b = part_of(b, (part.positive, part.negative))
        return b if b.any() else None

    def per_channel(self, bias: Array | None) -> Array | None:
        """A bias as the division sees it."""
        return None if bias is None else np.tile(bias, self.rows)


def three(values: tuple[int, ...], fill: int) -> tuple[int, int, int]:
    """Up to three numbers, with `fill` for the axes in front that are missing."""
    a, b, c = (fill,) * (3 - len(values)) + tuple(values)
    return a, b, c


def volume(shape: tuple[int, ...]) -> tuple[int, ...]:
    """(channels, …) with ones for the spatial axes that are missing."""
    return (shape[0], *three(shape[1:], 1))


@singledispatch
def linear_map(op: Op, x: Fact, z: Fact, dtype: np.dtype[Any]) -> LinearMap:
    """The kernel calls of a linear operator with one input.

    Parameters
    ----------
    op : Op
    x, z : Fact
        Of its input and output.
    dtype : dtype
        Of weights and bias.
    """
    raise NotImplementedError(type(op).__name__)


def _as(array: Array | None, dtype: np.dtype[Any]) -> Array | None:
    return None if array is None else np.ascontiguousarray(array, dtype)


@linear_map.register
def _(op: Gemm, x: Fact, z: Fact, dtype: np.dtype[Any]) -> LinearMap:
    m, k = op.weight.shape
    weight = np.ascontiguousarray(op.weight, dtype)
    return LinearMap("gemm_forward", "gemm_vjp", weight, _as(op.bias, dtype), (k,), (m,), rows=x.size // k)


def _conv_options(op: Conv | ConvTranspose) -> tuple[Array, dict[str, Any]]:
    spatial = op.weight.ndim - 2
    weight = op.weight.reshape(*op.weight.shape[:2], *three(op.weight.shape[2:], 1))
    options = {
        "strides": three(op.strides, 1),
        "pads": three(op.pads[:spatial], 0),
        "dilations": three(op.dilations, 1),
    }
    return weight, options


@linear_map.register
def _(op: Conv, x: Fact, z: Fact, dtype: np.dtype[Any]) -> LinearMap:
    weight, options = _conv_options(op)
    weight = np.ascontiguousarray(weight, dtype)
    names = ("conv_forward", "conv_vjp")
    if op.groups == weight.shape[0] == x.shape[0]:
        names = ("depthwise_forward", "depthwise_vjp")
    else:
        options["groups"] = op.groups
    return LinearMap(*names, weight, _as(op.bias, dtype), volume(x.shape), volume(z.shape), options=options)


@linear_map.register
def _(op: ConvTranspose, x: Fact, z: Fact, dtype: np.dtype[Any]) -> LinearMap:
    weight, options = _conv_options(op)
    options["groups"] = op.groups
    return LinearMap(
        "conv_vjp", "conv_forward", np.ascontiguousarray(weight, dtype), _as(op.bias, dtype),
        volume(x.shape), volume(z.shape), options=options,
    )  # fmt: skip


def _average_pool(op: AveragePool | GlobalAveragePool, x: Fact, z: Fact, dtype: np.dtype[Any]) -> LinearMap:
    window, strides, pads, dilations = op.geometry(x.shape)
    options = {
        "window": three(window, 1),
        "strides": three(strides, 1),
        "pads": three(pads, 0),
        "dilations": three(dilations, 1),
    }
    weight = np.ascontiguousarray(op.weights(x.shape), dtype).reshape(volume(z.shape)[1:])
    return LinearMap(
        "sumpool_forward", "sumpool_vjp", weight, None, volume(x.shape), volume(z.shape), options=options
    )


linear_map.register(AveragePool, _average_pool)
linear_map.register(GlobalAveragePool, _average_pool)


@linear_map.register
def _(op: Affine, x: Fact, z: Fact, dtype: np.dtype[Any]) -> LinearMap:
    sample = x.shape or (1,)
    scale, shift = (_with_axes(np.asarray(a, dtype), len(sample)) for a in (op.scale, op.shift))
    per_channel = all(a.size == len(a) for a in (scale, shift))
    places = (sample[0], *(1,) * (len(sample) - 1)) if per_channel else sample
    channels = math.prod(places)  # an element each, where scale or shift differ within a channel
    weight = np.broadcast_to(scale, places).reshape(channels, 1, 1, 1, 1)
    bias = np.broadcast_to(shift, places).reshape(channels)
    shape = (channels, 1, 1, x.size // channels)
    ones = {"strides": (1, 1, 1), "pads": (0, 0, 0), "dilations": (1, 1, 1)}
    return LinearMap(
        "depthwise_forward", "depthwise_vjp", np.ascontiguousarray(weight), np.ascontiguousarray(bias),
        shape, shape, options=ones,
    )  # fmt: skip


def _with_axes(a: Array, axes: int) -> Array:
    """`a` with axes of length 1 in front."""
    return a.reshape((1,) * (axes - a.ndim) + a.shape)
