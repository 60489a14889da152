"""Windows that slide over spatial axes: their number, their padding, and what each tap of them reads."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from ..errors import ModelError
from .base import Array
from .parameters import integers
from .reading import OnnxNode

MAX_AXES = 3
Ints = tuple[int, ...]

MOST_READS = 2**28
"""Taps times places of an axis: kernels list what each tap reads, 8 bytes for each."""

BOTH = (slice(None), slice(None))
"""Indices of all samples and channels."""


@dataclass(frozen=True)
class Windows:
    """Geometry of a convolution or pooling, one number per spatial axis.

    Parameters
    ----------
    window : tuple of int
        Taps along each axis.
    strides, dilations : tuple of int, default ones
        Steps between windows, and between the taps of a window.
    pads : tuple of int, default zeros
        Padding at the beginning of every axis, then at the end of every axis.
    ceil_mode : bool, default False
        Let a last window hang over the end, unless it would begin in the padding there.
    """

    window: Ints
    strides: Ints = ()
    pads: Ints = ()
    dilations: Ints = ()
    ceil_mode: bool = False

    def __post_init__(self) -> None:
        axes = len(self.window)
        if not 1 <= axes <= MAX_AXES:
            raise ModelError(f"its window has {axes} spatial axes; expected 1 to {MAX_AXES}")
        for name, count, default, least in (
            ("window", axes, None, 1),
            ("strides", axes, 1, 1),
            ("pads", 2 * axes, 0, 0),
            ("dilations", axes, 1, 1),
        ):
            object.__setattr__(self, name, integers(name, getattr(self, name), count, default, least))

    @property
    def span(self) -> Ints:
        """Elements from a window's first tap to its last, inclusive."""
        return tuple((k - 1) * d + 1 for k, d in zip(self.window, self.dilations, strict=True))

    @property
    def pads_begin(self) -> Ints:
        """Padding at the beginning of each axis."""
        return self.pads[: len(self.window)]

    @property
    def pads_end(self) -> Ints:
        """Padding at the end of each axis."""
        return self.pads[len(self.window) :]

    def check_rank(self, size: Ints) -> None:
        """Raise `ModelError` if `size` has more or fewer axes than the window."""
        if len(size) != len(self.window):
            raise ModelError(
                f"its window {self.window} has {len(self.window)} spatial axes, its input {len(size)}"
            )

    def output_size(self, size: Ints) -> Ints:
        """Number of windows along each axis of an input of `size`; `ModelError` if there are none."""
        self.check_rank(size)
        padded = tuple(a + n + b for n, a, b in zip(size, self.pads_begin, self.pads_end, strict=True))
        if any(p < span for p, span in zip(padded, self.span, strict=True)):
            raise ModelError(
                f"its window spans {self.span}, more than the padded input's {padded}; "
                "the input is too small for this network"
            )
        output = []
        for p, span, step, end in zip(padded, self.span, self.strides, self.pads_end, strict=True):
            count = (p - span) // step + 1
            if self.ceil_mode and (p - span) % step and count * step < p - end:
                count += 1
            output.append(count)
        return tuple(output)

    def extent(self, output_size: Ints) -> Ints:
        """Padded elements from the first window's first tap to the last window's last."""
        return tuple(
            (n - 1) * step + span for n, step, span in zip(output_size, self.strides, self.span, strict=True)
        )

    def pad(self, x: Array, output_size: Ints, value: float = 0) -> Array:
        """`x` (n, c, spatial…) padded or cropped to the extent of all windows."""
        padded = np.full((*x.shape[:2], *self.extent(output_size)), value, x.dtype)
        inner, outer = self._overlap(x.shape[2:], padded.shape[2:])
        padded[outer] = x[inner]
        return padded

    def unpad(self, padded: Array, size: Ints) -> Array:
        """The transpose of `pad`: back to (n, c, *size), with zeros where no window reads."""
        x = np.zeros((*padded.shape[:2], *size), padded.dtype)
        inner, outer = self._overlap(size, padded.shape[2:])
        x[inner] = padded[outer]
        return x

    def taps(self, padded: Array, output_size: Ints) -> Iterator[tuple[Ints, Array]]:
        """For each tap in row-major order: its index, and the view (n, c, *output_size) it reads."""
        for tap in itertools.product(*(range(k) for k in self.window)):
            places = tuple(
                slice(t * d, t * d + (n - 1) * step + 1, step)
                for t, d, n, step in zip(tap, self.dilations, output_size, self.strides, strict=True)
            )
            yield tap, padded[BOTH + places]

    def _overlap(self, size: Ints, padded: Ints) -> tuple[tuple[slice, ...], tuple[slice, ...]]:
        """Where input and padded input are the same elements, as indices of each."""
        counts = [max(0, min(n, p - a)) for n, p, a in zip(size, padded, self.pads_begin, strict=True)]
        inner = tuple(slice(count) for count in counts)
        outer = tuple(slice(a, a + count) for a, count in zip(self.pads_begin, counts, strict=True))
        return BOTH + inner, BOTH + outer


def check_countable(window: Ints, size: Ints, output_size: Ints) -> None:
    """Raise `ModelError` if kernels could not list what windows read, or count the places of a feature map."""
    for k, n, m in zip(window, size, output_size, strict=True):
        if k * max(n, m) > MOST_READS:
            raise ModelError(
                f"a window of {k} over {max(n, m)} places; expected a product of at most {MOST_READS}"
            )
    if max(math.prod(size), math.prod(output_size)) >= 2**31:
        raise ModelError(f"its feature maps are of {size} and {output_size}; expected less than 2^31 places")


def same_pads(size: Ints, windows: Windows, upper: bool) -> Ints:
    """Pads with which ⌈size / stride⌉ windows fit (ONNX `auto_pad`); see `split_pads` for `upper`."""
    totals = (
        max(0, (-(-n // step) - 1) * step + span - n)
        for n, step, span in zip(size, windows.strides, windows.span, strict=True)
    )
    return split_pads(tuple(totals), upper)


def split_pads(totals: Ints, upper: bool) -> Ints:
    """Halve each axis' total; of an odd one, the end gets the larger half if `upper`, else the beginning."""
    smaller = tuple(total // 2 for total in totals)
    larger = tuple(total - total // 2 for total in totals)
    return smaller + larger if upper else larger + smaller


def read_pads(node: OnnxNode, windows: Windows) -> Ints:
    """The ONNX attributes `auto_pad` and `pads` as concrete pads, for input 0 of `node`."""
    mode = node.string("auto_pad", "NOTSET")
    if mode == "NOTSET":
        return windows.pads
    if mode == "VALID":
        return (0,) * len(windows.pads)
    if mode in ("SAME_UPPER", "SAME_LOWER"):
        return same_pads(node.fact(0).shape[1:], windows, upper=mode == "SAME_UPPER")
    raise ModelError(f"auto_pad is {mode!r}; expected NOTSET, SAME_UPPER, SAME_LOWER or VALID")
