"""Convolution and transposed convolution with 1 to 3 spatial axes (ONNX Conv, ConvTranspose)."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar

import numpy as np

from ..errors import ModelError
from ..graph import Fact
from .base import Array, Linear
from .parameters import integers, parameter
from .reading import OnnxNode, Unsupported, reads
from .windows import MAX_AXES, Ints, Windows, check_countable, read_pads, split_pads


@dataclass(frozen=True, eq=False)
class _Convolution(Linear):
    """What convolutions and their transposes share: the fields and their checks."""

    weight: Array
    bias: Array | None = None
    strides: Ints = ()
    pads: Ints = ()
    dilations: Ints = ()
    groups: int = 1

    def __post_init__(self) -> None:
        object.__setattr__(self, "weight", parameter("weight", self.weight))
        if not 3 <= self.weight.ndim <= 2 + MAX_AXES:
            raise ModelError(
                f"weight has shape {self.weight.shape}; expected two channel axes and 1 to {MAX_AXES} spatial"
            )
        if self.groups < 1 or self.weight.shape[0] % self.groups:
            raise ModelError(
                f"groups is {self.groups}; it must divide the weight's first axis, {self.weight.shape[0]}"
            )
        for name in ("strides", "pads", "dilations"):
            object.__setattr__(self, name, getattr(self.windows, name))
        if self.bias is not None:
            object.__setattr__(self, "bias", parameter("bias", self.bias, ndim=1))
            if self.bias.shape != (self.channels_out,):
                raise ModelError(f"bias has shape {self.bias.shape}; expected ({self.channels_out},)")

    @cached_property
    def windows(self) -> Windows:
        """The geometry."""
        return Windows(self.weight.shape[2:], self.strides, self.pads, self.dilations)

    @property
    def channels_in(self) -> int:
        """Channels of the input."""
        raise NotImplementedError

    @property
    def channels_out(self) -> int:
        """Channels of the output."""
        raise NotImplementedError

    def _check(self, x: Fact) -> None:
        spatial = self.weight.ndim - 2
        if len(x.shape) != 1 + spatial or x.shape[0] != self.channels_in:
            raise ModelError(
                f"its input has shape {x.shape} per sample; expected {self.channels_in} channels "
                f"and {spatial} spatial axes"
            )

    def _add_bias(self, z: Array) -> Array:
        if self.bias is None:
            return z
        return z + self.bias.astype(z.dtype, copy=False).reshape(-1, *[1] * (z.ndim - 2))


@dataclass(frozen=True, eq=False)
class Conv(_Convolution):
    """Convolution: `z[m] = Σ_c Σ_tap w[m, c, tap] · x[c, place · stride + tap · dilation - pad] + b[m]`.

    Parameters
    ----------
    weight : array (m, c / groups, *window)
    bias : array (m,) or None
    strides, dilations : tuple of int, default ones
        One per spatial axis.
    pads : tuple of int, default zeros
        Zeros at the beginning of every spatial axis, then at the end of every axis.
    groups : int, default 1
        Channels are split in so many groups, each convolved alone.

    Raises
    ------
    ModelError
        Shapes or numbers do not fit together.
    """

    kinds: ClassVar[tuple[str, ...]] = ("Conv", "convolution", "linear")

    @property
    def channels_in(self) -> int:
        return int(self.weight.shape[1]) * self.groups

    @property
    def channels_out(self) -> int:
        return int(self.weight.shape[0])

    def infer(self, *inputs: Fact) -> Fact:
        (x,) = inputs
        self._check(x)
        size = self.windows.output_size(x.shape[1:])
        check_countable(self.windows.window, x.shape[1:], size)
        return Fact((self.channels_out, *size))

    def forward(self, *inputs: Array) -> Array:
        (x,) = inputs
        size = self.windows.output_size(x.shape[2:])
        return self._add_bias(_gather(x, self.weight, self.groups, self.windows, size))

    def vjp(self, inputs: tuple[Array, ...], output: Array, s: Array) -> tuple[Array, ...]:
        return (_scatter(s, self.weight, self.groups, self.windows, inputs[0].shape[2:]),)


@dataclass(frozen=True, eq=False)
class ConvTranspose(_Convolution):
    """Transposed convolution: what `Conv` of the same weight does backwards, plus a bias.

    Parameters
    ----------
    weight : array (c, m / groups, *window)
    bias : array (m,) or None
    strides, dilations : tuple of int, default ones
        One per spatial axis.
    pads : tuple of int, default zeros
        Elements cut off the output at the beginning of every spatial axis, then at the end.
    groups : int, default 1
        Channels are split in so many groups, each convolved alone.
    output_padding : tuple of int, default zeros
        Elements appended at the end of every spatial axis before cutting.

    Raises
    ------
    ModelError
        Shapes or numbers do not fit together.
    """

    kinds: ClassVar[tuple[str, ...]] = ("ConvTranspose", "convolution", "linear")

    output_padding: Ints = ()

    def __post_init__(self) -> None:
        super().__post_init__()
        padding = integers("output_padding", self.output_padding, self.weight.ndim - 2, default=0, least=0)
        object.__setattr__(self, "output_padding", padding)

    @property
    def channels_in(self) -> int:
        return int(self.weight.shape[0])

    @property
    def channels_out(self) -> int:
        return int(self.weight.shape[1]) * self.groups

    def output_size(self, size: Ints) -> Ints:
        """Size of the output's spatial axes for an input of `size`."""
        windows = self.windows
        full = windows.extent(size)
        return tuple(
            n + more - begin - end
            for n, more, begin, end in zip(
                full, self.output_padding, windows.pads_begin, windows.pads_end, strict=True
            )
        )

    def infer(self, *inputs: Fact) -> Fact:
        (x,) = inputs
        self._check(x)
        size = self.output_size(x.shape[1:])
        if min(size) < 1:
            raise ModelError(f"its pads {self.pads} cut the whole output away (size {size})")
        check_countable(self.windows.window, x.shape[1:], size)
        return Fact((self.channels_out, *size))

    def forward(self, *inputs: Array) -> Array:
        (x,) = inputs
        size = self.output_size(x.shape[2:])
        return self._add_bias(_scatter(x, self.weight, self.groups, self.windows, size))

    def vjp(self, inputs: tuple[Array, ...], output: Array, s: Array) -> tuple[Array, ...]:
        return (_gather(s, self.weight, self.groups, self.windows, inputs[0].shape[2:]),)


def _gather(x: Array, weight: Array, groups: int, windows: Windows, size: Ints) -> Array:
    """Convolve `x` (n, c, …) with `weight` (m, c / groups, …) into (n, m, *size)."""
    n, m = len(x), weight.shape[0]
    z = np.zeros((n, groups, m // groups, int(np.prod(size))), x.dtype)
    for tap, read in windows.taps(windows.pad(x, size), size):
        z += _tap_matrix(weight, groups, tap, x.dtype) @ read.reshape(n, groups, -1, z.shape[-1])
    return z.reshape(n, m, *size)


def _scatter(z: Array, weight: Array, groups: int, windows: Windows, size: Ints) -> Array:
    """The transpose of `_gather`: `z` (n, m, …) into (n, c, *size)."""
    n, c = len(z), weight.shape[1] * groups
    padded = np.zeros((n, c, *windows.extent(z.shape[2:])), z.dtype)
    columns = z.reshape(n, groups, -1, int(np.prod(z.shape[2:])))
    for tap, written in windows.taps(padded, z.shape[2:]):
        matrix = _tap_matrix(weight, groups, tap, z.dtype)
        written += (matrix.swapaxes(1, 2) @ columns).reshape(written.shape)
    return windows.unpad(padded, size)


def _tap_matrix(weight: Array, groups: int, tap: Ints, dtype: np.dtype[np.floating]) -> Array:
    """The weights of one tap: (groups, m / groups, c / groups)."""
    index: tuple[Any, ...] = (..., *tap)
    matrix = weight[index].reshape(groups, -1, weight.shape[1])
    return np.ascontiguousarray(matrix, dtype)


# --- ONNX ---


def _read_windows(node: OnnxNode, window: Ints) -> Windows:
    stated = node.integers("kernel_shape")
    if stated and stated != window:
        raise ModelError(f"kernel_shape is {stated}, but the weight's is {window}")
    windows = Windows(window, node.integers("strides"), node.integers("pads"), node.integers("dilations"))
    windows.check_rank(node.fact(0).shape[1:])
    return windows


@reads("Conv")
def _read_conv(node: OnnxNode) -> Conv:
    weight, bias = node.weights(1), node.optional_weights(2)
    windows = _read_windows(node, weight.shape[2:])
    pads = read_pads(node, windows)
    return Conv(weight, bias, windows.strides, pads, windows.dilations, node.integer("group", 1))


@reads("ConvTranspose")
def _read_conv_transpose(node: OnnxNode) -> ConvTranspose:
    weight, bias = node.weights(1), node.optional_weights(2)
    windows = _read_windows(node, weight.shape[2:])
    pads, more = _read_transposed_pads(node, windows)
    groups = node.integer("group", 1)
    return ConvTranspose(weight, bias, windows.strides, pads, windows.dilations, groups, more)


def _read_transposed_pads(node: OnnxNode, windows: Windows) -> tuple[Ints, Ints]:
    """`pads` and `output_padding` from the attributes of those names, `auto_pad` and `output_shape`."""
    size = node.fact(0).shape[1:]
    more = integers("output_padding", node.integers("output_padding"), len(size), default=0, least=0)
    mode = node.string("auto_pad", "NOTSET")
    wanted = node.integers("output_shape")
    if wanted:
        wanted = integers("output_shape", wanted, len(size), least=1)
    elif mode in ("SAME_UPPER", "SAME_LOWER"):
        wanted = tuple(n * step for n, step in zip(size, windows.strides, strict=True))
    else:
        return read_pads(node, windows), more
    whole = (n + extra for n, extra in zip(windows.extent(size), more, strict=True))
    totals = tuple(n - target for n, target in zip(whole, wanted, strict=True))
    missing = tuple(max(0, -total) for total in totals)
    stated = bool(node.integers("output_shape"))
    if any(m and not (stated and m < step) for m, step in zip(missing, windows.strides, strict=True)):
        raise Unsupported(f"its output of size {wanted} would be larger than what its windows reach")
    pads = split_pads(tuple(max(0, total) for total in totals), upper=mode == "SAME_UPPER")
    return pads, tuple(a + b for a, b in zip(more, missing, strict=True))
