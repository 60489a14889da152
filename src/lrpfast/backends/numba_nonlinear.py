"""The compiled kernels that are not linear operators, for the Numba backend.

`numpy_` says what they compute; `numba_linear` says how they are called and why they share nothing.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ..ops.base import Array
from .numba_jit import kernel
from .numba_plan import Spans
from .numpy_ import Triple

PIECE = 1 << 13  # elements in an item of elementwise work
LANES = 128  # partial sums that run side by side

Doubles = NDArray[np.float64]
Winners = NDArray[np.int32]


@kernel
def maxpool_forward(
    first: int, last: int, src: Array, x_size: Triple, spans: Spans, dilations: Triple,
    out: Array, winners: Winners,
) -> None:  # fmt: skip
    """An item is a channel of a sample."""
    xd, xh, xw = x_size
    zd, zh, zw = len(spans[0]), len(spans[1]), len(spans[2])
    for item in range(first, last):
        plane = src[item * xd * xh * xw :][: xd * xh * xw]
        for od in range(zd):
            for oh in range(zh):
                z = ((item * zd + od) * zh + oh) * zw
                best, winner = out[z : z + zw], winners[z : z + zw]
                best[:] = -np.inf
                winner[:] = 0
                for td in range(spans[0][od, 1]):
                    d = spans[0][od, 0] + td * dilations[0]
                    for th in range(spans[1][oh, 1]):
                        row = (d * xh + spans[1][oh, 0] + th * dilations[1]) * xw
                        line = plane[row:]
                        for ow in range(zw):
                            b, w, at = best[ow], winner[ow], spans[2][ow, 0]
                            for _ in range(spans[2][ow, 1]):
                                better = line[at] > b  # selected without a branch, which would miss
                                b = line[at] if better else b
                                w = np.int32(row + at) if better else w
                                at += dilations[2]
                            best[ow], winner[ow] = b, w


@kernel
def maxpool_vjp(
    first: int, last: int, src: Array, winners: Winners, x_plane: int, z_plane: int,
    accumulate: bool, out: Array,
) -> None:  # fmt: skip
    """An item is a channel of a sample."""
    for item in range(first, last):
        x = out[item * x_plane :][:x_plane]
        if not accumulate:
            x[:] = 0
        for i in range(item * z_plane, (item + 1) * z_plane):
            x[winners[i]] += src[i]


@kernel
def clamp(first: int, last: int, src: Array, limits: Array, out: Array) -> None:
    """`limits` holds slope, low and high; an item is `PIECE` elements."""
    slope, low, high = limits[0], limits[1], limits[2]
    x, y = src[first * PIECE : last * PIECE], out[first * PIECE : last * PIECE]
    for i in range(x.size):
        v = x[i] * slope if x[i] < 0 else x[i]
        v = low if v < low else v  # comparisons that let NaN through
        y[i] = high if v > high else v


@kernel
def sums(first: int, last: int, src: Array, size: int, out: Doubles) -> None:
    """Per piece the sums of x, |x| and x². An item is `PIECE` elements of a sample's `size`."""
    pieces = (size + PIECE - 1) // PIECE
    lanes = np.empty(3 * LANES, np.float64)
    for item in range(first, last):
        sample, piece = divmod(item, pieces)
        x = src[sample * size : (sample + 1) * size][piece * PIECE : (piece + 1) * PIECE]
        lanes[:] = 0
        for begin in range(0, x.size, LANES):
            some = x[begin:]
            for i in range(min(LANES, some.size)):
                v = np.float64(some[i])
                lanes[i] += v
                lanes[LANES + i] += abs(v)
                lanes[2 * LANES + i] += v * v
        for kind in range(3):
            out[item * 3 + kind] = lanes[kind * LANES : (kind + 1) * LANES].sum()


@kernel
def divide(
    first: int, last: int, z: Array, r: Array, gate_z: Array, gate: int, bias: Array, scale: Array,
    epsilons: Array, clip: bool, rows: int, row: int, out: Array, ledger: Doubles,
) -> None:  # fmt: skip
    """A sample is `rows` rows of `row` elements; an item is some whole rows, as many as fit in
    `PIECE` but at least one. `epsilons` has one value per sample of `z`. `bias` has one value a
    row, or, if there is one row, one an element. The item's ledger goes into `ledger`.
    """
    group = max(1, PIECE // row)
    groups = (rows + group - 1) // group
    share, stab, some_bias = np.empty(LANES, z.dtype), np.empty(LANES, z.dtype), np.zeros(LANES, z.dtype)
    lanes = np.empty(4 * LANES, np.float64)
    for item in range(first, last):
        sample, g = divmod(item, groups)
        sample_of_z = sample if epsilons.size > 1 else 0
        epsilon = epsilons[sample_of_z]
        lanes[:] = 0
        for line in range(g * group, min(rows, (g + 1) * group)):
            for begin in range(0, row, LANES):
                count = min(LANES, row - begin)
                here = (sample * rows + line) * row + begin
                some_z, some_r = z[(sample_of_z * rows + line) * row + begin :], r[here:]
                some_gate, to = gate_z[here:], out[here:]
                for i in range(count):
                    size = abs(some_z[i])
                    size = (epsilon if size < epsilon else size) if clip else size + epsilon
                    stab[i] = -size if some_z[i] < 0 else size
                    if gate == 0 or (some_gate[i] > 0 if gate > 0 else some_gate[i] < 0):
                        share[i] = some_r[i] * scale[0]
                    else:
                        share[i] = 0
                for i in range(count):
                    to[i] = share[i] / stab[i] if stab[i] != 0 else z.dtype.type(0)
                if bias.size > 0:
                    for i in range(count):
                        some_bias[i] = bias[line if bias.size == rows else begin + i]
                for i in range(count):
                    s, v, all_of_it = np.float64(to[i]), np.float64(some_z[i]), np.float64(share[i])
                    lanes[i] += all_of_it
                    lanes[LANES + i] += s * some_bias[i]
                    lanes[2 * LANES + i] += 0.0 if v == 0 else s * (stab[i] - v)
                    lanes[3 * LANES + i] += all_of_it - s * v if v == 0 else 0.0
        for kind in range(4):
            ledger[item * 4 + kind] = lanes[kind * LANES : (kind + 1) * LANES].sum()
