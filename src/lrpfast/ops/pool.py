"""Average and maximum pooling over windows or over whole feature maps."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import reduce
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from ..errors import ModelError
from ..graph import Fact
from .base import Array, Linear, Op
from .reading import OnnxNode, reads
from .windows import MAX_AXES, Ints, Windows, check_countable, read_pads

Geometry = tuple[Ints, Ints, Ints, Ints]
Counts = NDArray[np.integer]


class _Pool(Op):
    """What all pools share: the windows they lay over a sample of a given shape."""

    keeps_integers: ClassVar[bool] = False

    def windows(self, shape: Ints) -> Windows:
        """The windows over a sample of `shape` (c, spatial…)."""
        raise NotImplementedError

    def geometry(self, shape: Ints) -> Geometry:
        """Window, strides, pads at the beginning, dilations for a sample of `shape` (c, spatial…)."""
        windows = self.windows(shape)
        return windows.window, windows.strides, windows.pads_begin, windows.dilations

    def infer(self, *inputs: Fact) -> Fact:
        (x,) = inputs
        if not 2 <= len(x.shape) <= 1 + MAX_AXES:
            raise ModelError(
                f"its input has shape {x.shape} per sample; expected channels, and 1 to {MAX_AXES} axes more"
            )
        windows = self.windows(x.shape)
        size = windows.output_size(x.shape[1:])
        if any(0 in counts for counts in _elements(windows, x.shape[1:], size)):
            raise ModelError(
                f"pads {windows.pads} leave windows of {windows.window} without any element of its input"
            )
        return Fact((x.shape[0], *size), x.nonnegative, self.keeps_integers and x.integer)


class _Whole(_Pool):
    """Pools with one window over all of the feature map."""

    def windows(self, shape: Ints) -> Windows:
        return Windows(shape[1:])


@dataclass(frozen=True)
class _Windowed(_Pool):
    """Pools with windows of a fixed size."""

    window: Ints
    strides: Ints = ()
    pads: Ints = ()
    dilations: Ints = ()
    ceil_mode: bool = False

    def __post_init__(self) -> None:
        windows = self.windows(())
        for name in ("window", "strides", "pads", "dilations"):
            object.__setattr__(self, name, getattr(windows, name))

    def windows(self, shape: Ints) -> Windows:
        return Windows(self.window, self.strides, self.pads, self.dilations, self.ceil_mode)

    def infer(self, *inputs: Fact) -> Fact:
        found = super().infer(*inputs)
        check_countable(self.window, inputs[0].shape[1:], found.shape[1:])
        return found


def _elements(windows: Windows, size: Ints, output_size: Ints, padding: bool = False) -> list[Counts]:
    """How many elements (of padding too, if so asked) the windows hold, along each axis."""
    counts: list[Counts] = []
    for axis, (n, count) in enumerate(zip(size, output_size, strict=True)):
        low, high = (-windows.pads_begin[axis], n + windows.pads_end[axis]) if padding else (0, n)
        first = np.arange(count) * windows.strides[axis] - windows.pads_begin[axis]
        # The taps before index i are those with first + tap * dilation < i.
        before = [
            np.clip(-((first - i) // windows.dilations[axis]), 0, windows.window[axis]) for i in (low, high)
        ]
        counts.append(before[1] - before[0])
    return counts


# --- average ---


@dataclass(frozen=True)
class AveragePool(_Windowed, Linear):
    """Mean over windows.

    Parameters
    ----------
    window : tuple of int
        One number per spatial axis.
    strides, dilations : tuple of int, default ones
    pads : tuple of int, default zeros
        Padding at the beginning of every spatial axis, then at the end of every axis.
    ceil_mode : bool, default False
        Let a last window hang over the end, unless it would begin in the padding there.
    count_include_pad : bool, default False
        Count padding as zeros, instead of leaving it out of the mean. What a window of `ceil_mode`
        has beyond the padding never counts.

    Raises
    ------
    ModelError
        Numbers that do not fit together, or a window that holds padding only.
    """

    kinds: ClassVar[tuple[str, ...]] = ("AveragePool", "average_pool")

    count_include_pad: bool = False

    @property
    def has_nonnegative_weights(self) -> bool:
        return True

    def weights(self, shape: Ints) -> Array:
        """1 / (elements that count) for each output place, for a sample of `shape` (c, spatial…)."""
        windows = self.windows(shape)
        size = windows.output_size(shape[1:])
        return 1.0 / reduce(
            np.multiply.outer, _elements(windows, shape[1:], size, padding=self.count_include_pad)
        )

    def forward(self, *inputs: Array) -> Array:
        (x,) = inputs
        windows, weights = self.windows(x.shape[1:]), self.weights(x.shape[1:])
        z = np.zeros((*x.shape[:2], *weights.shape), x.dtype)
        for _, read in windows.taps(windows.pad(x, weights.shape), weights.shape):
            z += read
        return z * weights.astype(x.dtype)

    def vjp(self, inputs: tuple[Array, ...], output: Array, s: Array) -> tuple[Array, ...]:
        shape = inputs[0].shape[1:]
        windows, weights = self.windows(shape), self.weights(shape)
        s = s * weights.astype(s.dtype)
        padded = np.zeros((*s.shape[:2], *windows.extent(weights.shape)), s.dtype)
        for _, written in windows.taps(padded, weights.shape):
            written += s
        return (windows.unpad(padded, shape[1:]),)


@dataclass(frozen=True)
class GlobalAveragePool(_Whole, Linear):
    """Mean over all spatial axes, which are kept with size 1."""

    kinds: ClassVar[tuple[str, ...]] = ("GlobalAveragePool", "average_pool")

    @property
    def has_nonnegative_weights(self) -> bool:
        return True

    def weights(self, shape: Ints) -> Array:
        """1 / (elements that count) for each output place, for a sample of `shape` (c, spatial…)."""
        return np.full((1,) * (len(shape) - 1), 1.0 / math.prod(shape[1:]))

    def forward(self, *inputs: Array) -> Array:
        (x,) = inputs
        z: Array = x.mean(axis=tuple(range(2, x.ndim)), keepdims=True)
        return z

    def vjp(self, inputs: tuple[Array, ...], output: Array, s: Array) -> tuple[Array, ...]:
        shape = inputs[0].shape
        return (np.broadcast_to(s * s.dtype.type(1.0 / math.prod(shape[2:])), shape).copy(),)


# --- maximum ---


@dataclass(frozen=True)
class MaxPool(_Windowed):
    """Maximum over windows; padding never wins. In `vjp` the first winner in row-major order takes all.

    Parameters
    ----------
    window : tuple of int
        One number per spatial axis.
    strides, dilations : tuple of int, default ones
    pads : tuple of int, default zeros
        Padding at the beginning of every spatial axis, then at the end of every axis.
    ceil_mode : bool, default False
        Let a last window hang over the end, unless it would begin in the padding there.

    Raises
    ------
    ModelError
        Numbers that do not fit together, or a window that holds padding only.
    """

    kinds: ClassVar[tuple[str, ...]] = ("MaxPool", "max_pool", "winner")
    keeps_integers: ClassVar[bool] = True

    def forward(self, *inputs: Array) -> Array:
        (x,) = inputs
        windows = self.windows(x.shape[1:])
        size = windows.output_size(x.shape[2:])
        z = np.full((*x.shape[:2], *size), -np.inf, x.dtype)
        for _, read in windows.taps(windows.pad(x, size, -np.inf), size):
            np.maximum(z, read, out=z)
        return z

    def vjp(self, inputs: tuple[Array, ...], output: Array, s: Array) -> tuple[Array, ...]:
        (x,) = inputs
        windows, size = self.windows(x.shape[1:]), output.shape[2:]
        padded = np.zeros((*x.shape[:2], *windows.extent(size)), s.dtype)
        given = np.zeros(output.shape, bool)
        reading = windows.taps(windows.pad(x, size, -np.inf), size)
        for (_, read), (_, written) in zip(reading, windows.taps(padded, size), strict=True):
            wins = (read == output) & ~given
            written += np.where(wins, s, 0)
            given |= wins
        return (windows.unpad(padded, x.shape[2:]),)


@dataclass(frozen=True)
class GlobalMaxPool(_Whole):
    """Maximum over all spatial axes, which are kept with size 1. In `vjp` the first winner takes all."""

    kinds: ClassVar[tuple[str, ...]] = ("GlobalMaxPool", "max_pool", "winner")
    keeps_integers: ClassVar[bool] = True

    def forward(self, *inputs: Array) -> Array:
        (x,) = inputs
        z: Array = x.max(axis=tuple(range(2, x.ndim)), keepdims=True)
        return z

    def vjp(self, inputs: tuple[Array, ...], output: Array, s: Array) -> tuple[Array, ...]:
        (x,) = inputs
        planes = x.reshape(*x.shape[:2], -1)
        result = np.zeros(planes.shape, s.dtype)
        winners = planes.argmax(axis=-1, keepdims=True)
        np.put_along_axis(result, winners, s.reshape(*s.shape[:2], 1), axis=-1)
        return (result.reshape(x.shape),)


# --- ONNX ---


def _read_windows(node: OnnxNode) -> Windows:
    window = node.integers("kernel_shape")
    ceil_mode = bool(node.integer("ceil_mode", 0))
    windows = Windows(
        window, node.integers("strides"), node.integers("pads"), node.integers("dilations"), ceil_mode
    )
    size = node.fact(0).shape[1:]
    windows.check_rank(size)
    reached = max(n + sum(windows.pads[axis :: len(size)]) for axis, n in enumerate(size))
    node.budget.take(32 * reached, f"what {reached} windows hold")
    return windows


@reads("MaxPool")
def _read_max_pool(node: OnnxNode) -> MaxPool:
    windows = _read_windows(node)
    pads = read_pads(node, windows)
    return MaxPool(windows.window, windows.strides, pads, windows.dilations, windows.ceil_mode)


@reads("AveragePool")
def read_average_pool(node: OnnxNode) -> AveragePool:
    windows = _read_windows(node)
    pads = read_pads(node, windows)
    include = bool(node.integer("count_include_pad", 0))
    return AveragePool(windows.window, windows.strides, pads, windows.dilations, windows.ceil_mode, include)
