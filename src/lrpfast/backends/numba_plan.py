"""What the Numba backend works out about windows before it calls a kernel.

A convolution, or its transpose, is made a sum of shifted rows. Along one axis both gather, for
every output `q · out_step + start`,

    Σ_t w[t] · src[(q + shift_t) · src_step + residue_t]

A convolution has `src_step = stride` and `t · dilation − pad = shift_t · stride + residue_t`. Its
transpose has `src_step = 1` and, for each of the `stride` phases `start` of the output, those taps
for which `start + pad − t · dilation = shift_t · stride`.

So once `src` is padded with zeros and split by residue, each tap reads a contiguous row, and since
all rows have the same pitch, a whole plane of outputs is one run: output `q_d, q_h, q_w` is at
`(q_d · size_h + q_h) · size_w + q_w`, and tap `t` reads the same place, plus an offset of its own.
The few places in between rows are computed in vain.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from .numpy_ import Triple

Integers = NDArray[np.int64]
Spans = tuple[Integers, Integers, Integers]


def triple(values: Iterable[int]) -> Triple:
    """Three integers, one an axis, in the form that compiled code and caches want."""
    d, h, w = values
    return int(d), int(h), int(w)


class Gather(NamedTuple):
    """Where the numbers of a convolution, or its transpose, come from and go to.

    Attributes
    ----------
    low, size, src_step : Triple
        The padded source's element `j` along an axis is `src[(j + low) · src_step + residue]`,
        zero where there is none; `0 ≤ j < size`.
    residues : int64 array (parts, 3)
        The residues by which a channel is split: `parts` padded planes, one after the other.
    out_step : Triple
        Distance of the outputs of a phase.
    phases : int64 array (phases, 8)
        For each phase of the output: the first output along each axis, the numbers of outputs,
        its first tap and its number of taps in `taps`.
    taps : int64 array
        For all phases, the taps' flat indices in the kernel.
    at : int64 array
        For all phases, for all channels of a group, for all taps: offsets in the padded source.
    longest : int
        Length of the longest run: the outputs of a phase with the places in between rows.
    """

    low: Triple
    size: Triple
    src_step: Triple
    residues: Integers
    out_step: Triple
    phases: Integers
    taps: Integers
    at: Integers
    longest: int


class _Tap(NamedTuple):
    number: int
    part: int
    shift: int


class _Axis(NamedTuple):
    residues: list[int]
    phases: list[tuple[int, int, list[_Tap]]]  # first output, how many, taps


@functools.lru_cache(maxsize=1024)
def gather(
    transposed: bool, src_size: Triple, out_size: Triple, kernel: Triple,
    strides: Triple, pads: Triple, dilations: Triple, channels: int,
) -> Gather:  # fmt: skip
    """Plan a convolution, or its transpose, with `channels` source channels a group."""
    axis = _transposed_axis if transposed else _forward_axis
    axes = list(map(axis, out_size, kernel, strides, pads, dilations))
    ranges = [_shifts(a) for a in axes]
    low = triple(r[0] for r in ranges)
    size = triple(max(p[1] for p in a.phases) + r[1] - r[0] for a, r in zip(axes, ranges, strict=True))
    parts = [len(a.residues) for a in axes]

    phases: list[list[int]] = []
    taps: list[int] = []
    offsets: list[list[int]] = []
    for phase in itertools.product(*(a.phases for a in axes)):
        first = len(taps)
        for some in itertools.product(*(p[2] for p in phase)):
            taps.append(int(np.ravel_multi_index([t.number for t in some], kernel)))
            offsets.append([t.part for t in some] + [t.shift - b for t, b in zip(some, low, strict=True)])
        phases.append([*(p[0] for p in phase), *(p[1] for p in phase), first, len(taps) - first])

    plane = int(np.prod(parts) * np.prod(size))
    flat = np.ravel_multi_index(np.array(offsets, np.int64).reshape(-1, 6).T, (*parts, *size))
    pieces = [(np.arange(channels)[:, None] * plane + flat[p[6] : p[6] + p[7]]).ravel() for p in phases]
    longest = max(((p[3] - 1) * size[1] + p[4] - 1) * size[2] + p[5] for p in phases)
    ones = (1, 1, 1)
    return Gather(
        low, size, ones if transposed else strides,
        _frozen(list(itertools.product(*(a.residues for a in axes)))),
        strides if transposed else ones, _frozen(phases), _frozen(taps), _frozen(np.concatenate(pieces)),
        longest,
    )  # fmt: skip


def _forward_axis(out_size: int, kernel: int, stride: int, pad: int, dilation: int) -> _Axis:
    reads = [t * dilation - pad for t in range(kernel)]
    residues = sorted({r % stride for r in reads})
    taps = [_Tap(t, residues.index(r % stride), r // stride) for t, r in enumerate(reads)]
    return _Axis(residues, [(0, out_size, taps)])


def _transposed_axis(out_size: int, kernel: int, stride: int, pad: int, dilation: int) -> _Axis:
    phases = []
    for start in range(min(stride, out_size)):
        reads = [start + pad - t * dilation for t in range(kernel)]
        taps = [_Tap(t, 0, r // stride) for t, r in enumerate(reads) if r % stride == 0]
        phases.append((start, -(-(out_size - start) // stride), taps))
    return _Axis([0], phases)


def _shifts(axis: _Axis) -> tuple[int, int]:
    """The least and the greatest shift; zeros if no output has a tap."""
    shifts = [tap.shift for _, _, taps in axis.phases for tap in taps] or [0]
    return min(shifts), max(shifts)


def _frozen(values: object) -> Integers:
    array = np.array(values, np.int64)
    array.flags.writeable = False
    return array


@functools.lru_cache(maxsize=1024)
def spans(
    x_size: Triple, z_size: Triple, window: Triple, strides: Triple, pads: Triple, dilations: Triple
) -> Spans:
    """For each output along each axis: the first input in its window, and how many there are."""
    d, h, w = map(_axis_spans, x_size, z_size, window, strides, pads, dilations)
    return d, h, w


def _axis_spans(x_size: int, z_size: int, window: int, stride: int, pad: int, dilation: int) -> Integers:
    found = []
    for begin in range(-pad, z_size * stride - pad, stride):
        tap = max(0, -(begin // dilation))
        end = min(window, -((begin - x_size) // dilation))
        found.append((begin + tap * dilation, max(0, end - tap)))
    return _frozen(found)
