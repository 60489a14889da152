"""Linear operators as kernel calls: which kernel, in which view of the arrays, with which weights."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import singledispatch
from typing import Any

import numpy as np

from .backends import numpy_
from .graph import Fact
from .layout import Stored, blocked, elements, is_per_channel, pools_plainly, three
from .ops.affine import Affine
from .ops.base import Array, Op
from .ops.conv import Conv, ConvTranspose
from .ops.gemm import Gemm
from .ops.interpolation import Interpolation, Upsample
from .ops.pool import AveragePool, GlobalAveragePool
from .parts import Part
from .steps import View


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
    z_elements : tuple of int
        One sample's output as (blocks, inner, lanes), for elementwise kernels.
    x_lanes, z_lanes : int, default 1
        Lanes of input and output.
    x_channels, z_channels : int
        Channels of a row of input and output.
    rows : int, default 1
        Rows of the leading axis per sample.
    options : mapping
        Strides and the like.
    convolves : bool, default False
        Whether the kernels are those of convolutions, which have more arguments than others.
    """

    forward: str
    vjp: str
    weight: Array
    bias: Array | None
    x_shape: tuple[int, ...]
    z_shape: tuple[int, ...]
    z_elements: tuple[int, ...]
    x_channels: int
    z_channels: int
    x_lanes: int = 1
    z_lanes: int = 1
    rows: int = 1
    options: Mapping[str, Any] = field(default_factory=dict)
    convolves: bool = False

    def arguments(self, exact: bool, other_part: Any = None) -> dict[str, Any]:
        """The options as arguments of a kernel; only convolutions take the two."""
        return {**self.options, **({"other_part": other_part, "exact": exact} if self.convolves else {})}

    def x_view(self, x: Stored) -> View:
        return x.view(self.x_shape, self.rows)

    def z_view(self, z: Stored) -> View:
        return z.view(self.z_shape, self.rows)

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
        b = numpy_.part(b, (part.positive, part.negative))
        return b if b.any() else None

    def per_channel(self, bias: Array | None) -> Array | None:
        """A bias as elementwise kernels see it: rows become channels."""
        return None if bias is None else np.tile(bias, self.rows)

    def ones(self, dtype: np.dtype[Any]) -> Array:
        """An input of ones, for one row."""
        if len(self.x_shape) == 1:
            return np.ones((1, *self.x_shape), dtype)
        return numpy_.blocked(np.ones((1, self.x_channels, *self.x_shape[1:-1]), dtype), self.x_lanes)


@singledispatch
def linear_map(op: Op, x: Fact, z: Fact, dtype: np.dtype[Any], lanes: int, home: int) -> LinearMap:
    """The kernel calls of a linear operator with one input.

    Parameters
    ----------
    op : Op
    x, z : Fact
        Of its input and output.
    dtype : dtype
        Of weights and bias.
    lanes : int
        Which the backend likes best.
    home : int
        Lanes of the input's home layout.
    """
    raise NotImplementedError(type(op).__name__)


def _as(array: Array | None, dtype: np.dtype[Any]) -> Array | None:
    return None if array is None else np.ascontiguousarray(array, dtype)


@linear_map.register
def _(op: Gemm, x: Fact, z: Fact, dtype: np.dtype[Any], lanes: int, home: int) -> LinearMap:
    m, k = op.weight.shape
    rows = x.size // k
    return LinearMap(
        "gemm_forward", "gemm_vjp", np.ascontiguousarray(op.weight, dtype), _as(op.bias, dtype), (k,), (m,),
        (rows * m, 1, 1), k, m, rows=rows,
    )  # fmt: skip


@linear_map.register
def _(op: Interpolation, x: Fact, z: Fact, dtype: np.dtype[Any], lanes: int, home: int) -> LinearMap:
    dense: LinearMap = linear_map(Gemm(op.weight), x, z, dtype, lanes, home)
    return dense


def _conv(
    names: tuple[str, str], op: Conv | ConvTranspose, x: Fact, z: Fact, dtype: np.dtype[Any],
    x_lanes: int, z_lanes: int, **options: Any,
) -> LinearMap:  # fmt: skip
    spatial = op.weight.ndim - 2
    weight = op.weight.reshape(*op.weight.shape[:2], *three(op.weight.shape[2:], 1))
    options |= {
        "strides": three(op.strides, 1),
        "pads": three(op.pads[:spatial], 0),
        "dilations": three(op.dilations, 1),
    }
    return LinearMap(
        *names, np.ascontiguousarray(weight, dtype), _as(op.bias, dtype), blocked(x.shape, x_lanes),
        blocked(z.shape, z_lanes), elements(z.shape, z_lanes), x.shape[0], z.shape[0], x_lanes, z_lanes,
        options=options, convolves="groups" in options,
    )  # fmt: skip


def _narrow(x: Fact, lanes: int, home: int) -> int:
    """The lanes in which a convolution reads: of a plain array with few channels, no more than those."""
    return min(lanes, x.shape[0]) if home == 1 else lanes


@linear_map.register
def _(op: Conv, x: Fact, z: Fact, dtype: np.dtype[Any], lanes: int, home: int) -> LinearMap:
    if op.groups == op.weight.shape[0] == x.shape[0]:
        return _conv(("depthwise_forward", "depthwise_vjp"), op, x, z, dtype, lanes, lanes, src_high=math.inf)
    narrow = _narrow(x, lanes, home)
    return _conv(("conv_forward", "conv_vjp"), op, x, z, dtype, narrow, lanes, groups=op.groups)


@linear_map.register
def _(op: ConvTranspose, x: Fact, z: Fact, dtype: np.dtype[Any], lanes: int, home: int) -> LinearMap:
    narrow = _narrow(x, lanes, home)
    return _conv(("conv_vjp", "conv_forward"), op, x, z, dtype, narrow, lanes, groups=op.groups)


def _average_pool(
    op: AveragePool | GlobalAveragePool, x: Fact, z: Fact, dtype: np.dtype[Any], lanes: int, home: int
) -> LinearMap:
    window, strides, pads, dilations = op.geometry(x.shape)
    options = {
        "window": three(window, 1),
        "strides": three(strides, 1),
        "pads": three(pads, 0),
        "dilations": three(dilations, 1),
    }
    weight = np.ascontiguousarray(op.weights(x.shape), dtype).reshape(three(z.shape[1:], 1))
    return LinearMap(
        "sumpool_forward", "sumpool_vjp", weight, None, blocked(x.shape, lanes), blocked(z.shape, lanes),
        elements(z.shape, lanes), x.shape[0], x.shape[0], lanes, lanes, options=options,
    )  # fmt: skip


@linear_map.register
def _(op: Upsample, x: Fact, z: Fact, dtype: np.dtype[Any], lanes: int, home: int) -> LinearMap:
    """What the sum over windows does backwards."""
    window = three(op.factors, 1)
    options = {"window": window, "strides": window, "pads": (0, 0, 0), "dilations": (1, 1, 1)}
    return LinearMap(
        "sumpool_vjp", "sumpool_forward", np.ones(three(x.shape[1:], 1), dtype), None, blocked(x.shape, lanes),
        blocked(z.shape, lanes), elements(z.shape, lanes), x.shape[0], x.shape[0], lanes, lanes, options=options,
    )  # fmt: skip


linear_map.register(AveragePool, _average_pool)


@linear_map.register
def _(op: GlobalAveragePool, x: Fact, z: Fact, dtype: np.dtype[Any], lanes: int, home: int) -> LinearMap:
    """Over a plain array a dense layer of one output a channel, which takes the time of reading it."""
    if not pools_plainly(x.shape, home):
        return _average_pool(op, x, z, dtype, lanes, home)
    places = x.size // x.shape[0]
    weight = np.full((1, places), 1 / places, dtype)
    return LinearMap(
        "gemm_forward", "gemm_vjp", weight, None, (places,), (1,), (x.shape[0], 1, 1), places, 1, rows=x.shape[0]
    )  # fmt: skip


@linear_map.register
def _(op: Affine, x: Fact, z: Fact, dtype: np.dtype[Any], lanes: int, home: int) -> LinearMap:
    sample = x.shape or (1,)
    per_channel = is_per_channel(op, x.shape)
    places = (sample[0], *(1,) * (len(sample) - 1)) if per_channel else sample
    channels = math.prod(places)  # an element each, where scale or shift differ within a channel
    scale, shift = (
        np.ascontiguousarray(np.broadcast_to(np.asarray(a, dtype), places).reshape(channels))
        for a in (op.scale, op.shift)
    )
    home = home if per_channel else 1
    shape = elements((channels, x.size // channels), home)
    return LinearMap("affine", "affine", scale, shift, shape, shape, shape, channels, channels, home, home)
