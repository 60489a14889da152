"""The compiled kernels that are plain loops: `numpy_` says what they compute.

`numba_kernels` says how they are called and why they share nothing with others. None knows of endings:
what they make is finished by `numba_kernels.collect`.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ..ops.base import Array
from .numba_jit import kernel
from .numba_plan import Integers, Spans
from .numpy_ import Triple

ROWS = 6  # those of `numba_kernels`
PIECE = 1 << 13  # elements in an item of sums
LANES = 128  # partial sums that run side by side
DOT = 64  # partial sums of a dot product
CHUNK = 4 * DOT  # terms of a dot product that are taken at once

Doubles = NDArray[np.float64]
Winners = NDArray[np.int32]


@kernel
def take(a: float, positive: float, negative: float) -> float:
    """`positive · max(a, 0) + negative · min(a, 0)`."""
    return a * (positive if a > 0 else negative)


# --- for convolutions ---


@kernel
def pad(
    first: int, last: int, src: Array, src_size: Triple, low: Triple, step: Triple, size: Triple,
    residues: Integers, factors: Array, out: Array,
) -> None:  # fmt: skip
    """The padded and split source of a `Gather`; an item is a channel of a sample."""
    xd, xh, xw = src_size
    ld, lh, lw = size
    positive, negative = factors[0], factors[1]
    parts = len(residues)
    for item in range(first * parts, last * parts):
        plane, p = divmod(item, parts)
        start = low[2] * step[2] + residues[p, 2]  # the column that j = 0 reads
        begin = min(max(0, -(start // step[2])), lw)
        end = max(begin, min(lw, -((start - xw) // step[2])))
        for jd in range(ld):
            d = (jd + low[0]) * step[0] + residues[p, 0]
            for jh in range(lh):
                h = (jh + low[1]) * step[1] + residues[p, 1]
                to = out[((item * ld + jd) * lh + jh) * lw :][:lw]
                if d < 0 or d >= xd or h < 0 or h >= xh:
                    to[:] = 0
                    continue
                to[:begin] = 0
                to[end:] = 0
                row = src[((plane * xd + d) * xh + h) * xw :][:xw]
                if step[2] == 1:
                    some, there = row[start + begin :], to[begin:]
                    for j in range(end - begin):
                        there[j] = take(some[j], positive, negative)
                else:
                    for j in range(begin, end):
                        to[j] = take(row[start + j * step[2]], positive, negative)


@kernel
def pack(
    first: int, last: int, w: Array, groups: int, outs: int, ins: int, steps: Triple,
    phases: Integers, taps: Integers, factors: Array, packed: Array,
) -> None:  # fmt: skip
    """part(w) as `[phase, group, block of outputs, source channel, tap, output]`.

    `w` at `(group, output, source channel)` begins at the sum of these times `steps`. An item is
    a block of outputs of a group; outputs that do not exist are zero.
    """
    blocks = (outs + ROWS - 1) // ROWS
    positive, negative = factors[2], factors[3]
    for item in range(first, last):
        group, block = divmod(item, blocks)
        some = w[group * steps[0] + block * ROWS * steps[1] :]
        there = min(ROWS, outs - block * ROWS)
        for f in range(len(phases)):
            tap_0, n_taps = phases[f, 6], phases[f, 7]
            to = packed[(tap_0 * groups * blocks + n_taps * item) * ins * ROWS :]
            for c in range(ins):
                for t in range(n_taps):
                    at, k = c * steps[2] + taps[tap_0 + t], (c * n_taps + t) * ROWS
                    if there == ROWS:
                        for r in range(ROWS):
                            to[k + r] = take(some[at + r * steps[1]], positive, negative)
                    else:
                        for r in range(ROWS):
                            to[k + r] = take(some[at + r * steps[1]], positive, negative) if r < there else 0


# --- dense ---


@kernel
def gemm_forward(
    first: int, last: int, src: Array, w: Array, n: int, k: int, m: int, factors: Array, out: Array
) -> None:
    """`src` is part(src) with rows filled up with zeros to a multiple of `CHUNK`; an item is a
    row of `w`, read once for all samples."""
    positive, negative = factors[2], factors[3]
    pitch = (k + CHUNK - 1) // CHUNK * CHUNK
    row, lanes = np.empty(CHUNK, out.dtype), np.empty(n * DOT, out.dtype)
    for item in range(first, last):
        lanes[:] = 0
        for begin in range(0, k, CHUNK):
            some = w[item * k + begin :]
            count = min(CHUNK, k - begin)
            for j in range(count):
                row[j] = take(some[j], positive, negative)
            row[count:] = 0
            for i in range(n):
                x, s = src[i * pitch + begin :], lanes[i * DOT :]
                for j in range(DOT):
                    s[j] += (row[j] * x[j] + row[DOT + j] * x[DOT + j]) + (
                        row[2 * DOT + j] * x[2 * DOT + j] + row[3 * DOT + j] * x[3 * DOT + j]
                    )
        for i in range(n):
            s = lanes[i * DOT :]
            half = DOT // 2
            while half > 0:
                for j in range(half):
                    s[j] += s[half + j]
                half //= 2
            out[i * m + item] = s[0]


# --- pooling ---


@kernel
def sumpool_forward(
    first: int, last: int, src: Array, w: Array, x_size: Triple, spans: Spans, dilations: Triple,
    factors: Array, out: Array,
) -> None:  # fmt: skip
    """An item is a channel of a sample. The rows in a window are summed first, then their columns."""
    xd, xh, xw = x_size
    zd, zh, zw = len(spans[0]), len(spans[1]), len(spans[2])
    line = np.empty(xw, out.dtype)
    for item in range(first, last):
        for od in range(zd):
            for oh in range(zh):
                line[:] = 0
                for td in range(spans[0][od, 1]):
                    d = spans[0][od, 0] + td * dilations[0]
                    for th in range(spans[1][oh, 1]):
                        h = spans[1][oh, 0] + th * dilations[1]
                        row = src[((item * xd + d) * xh + h) * xw :]
                        for i in range(xw):
                            line[i] += take(row[i], factors[0], factors[1])
                place = (od * zh + oh) * zw
                to = out[item * zd * zh * zw + place :]
                for ow in range(zw):
                    some = out.dtype.type(0)
                    for tw in range(spans[2][ow, 1]):
                        some += line[spans[2][ow, 0] + tw * dilations[2]]
                    to[ow] = some * take(w[place + ow], factors[2], factors[3])


@kernel
def sumpool_vjp(
    first: int, last: int, src: Array, w: Array, x_size: Triple, spans: Spans, dilations: Triple,
    factors: Array, out: Array,
) -> None:  # fmt: skip
    """An item is a channel of a sample, so that windows that overlap meet in one thread."""
    xd, xh, xw = x_size
    zd, zh, zw = len(spans[0]), len(spans[1]), len(spans[2])
    line = np.empty(xw, out.dtype)
    for item in range(first, last):
        plane = out[item * xd * xh * xw :][: xd * xh * xw]
        plane[:] = 0
        for od in range(zd):
            for oh in range(zh):
                place = (od * zh + oh) * zw
                line[:] = 0
                for ow in range(zw):
                    v = take(src[item * zd * zh * zw + place + ow], factors[0], factors[1])
                    v *= take(w[place + ow], factors[2], factors[3])
                    for tw in range(spans[2][ow, 1]):
                        line[spans[2][ow, 0] + tw * dilations[2]] += v
                for td in range(spans[0][od, 1]):
                    d = spans[0][od, 0] + td * dilations[0]
                    for th in range(spans[1][oh, 1]):
                        h = spans[1][oh, 0] + th * dilations[1]
                        row = plane[(d * xh + h) * xw :]
                        for i in range(xw):
                            row[i] += line[i]


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
    first: int, last: int, src: Array, winners: Winners, x_plane: int, z_plane: int, out: Array
) -> None:
    """An item is a channel of a sample."""
    for item in range(first, last):
        x = out[item * x_plane :][:x_plane]
        x[:] = 0
        for i in range(item * z_plane, (item + 1) * z_plane):
            x[winners[i]] += src[i]


# --- sums ---


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
