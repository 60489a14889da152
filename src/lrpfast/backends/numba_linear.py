"""The compiled kernels of linear operators, for the Numba backend; `numpy_` says what they compute.

Each works on items `first … last − 1` of a range that `numba_threads.run` cuts; an item owns its
outputs. Arrays come flat, inputs read-only; an array of size 0 stands for an absent one.
`factors` holds `src_part`, `w_part` and `times_part`, six numbers of the arrays' dtype.

Compiled functions use functions and constants of their own file only, because Numba's cache does
not notice when another file changes.
"""

from __future__ import annotations

import numpy as np

from ..ops.base import Array
from .numba_jit import kernel
from .numba_plan import Integers, Spans
from .numpy_ import Triple

ROWS = 4  # outputs that share what is loaded of the source
TILE = 256  # outputs in a row: 8 rows of a source and 4 of outputs fit into 32 KiB
BLOCK = 128  # terms in a partial sum: short sums of short sums keep float32 accurate
LANES = 64  # partial sums of a dot product
CHUNK = 4 * LANES  # terms of a dot product that are taken at once
PIECE = 1 << 12  # elements in an item of `collect`


# --- the ends that kernels share ---


@kernel
def take(a: float, positive: float, negative: float) -> float:
    """`positive · max(a, 0) + negative · min(a, 0)`."""
    return a * (positive if a > 0 else negative)


@kernel
def store(
    result: Array, count: int, bias: float, times: Array, factors: Array, accumulate: bool,
    out: Array, at: int, step: int,
) -> None:  # fmt: skip
    """`out[at + i · step] (+)= part(times[at + i · step]) · (result[i] + bias)`."""
    positive, negative = factors[4], factors[5]
    has_times = times.size > 0
    o, t = out[at:], times[at:]
    if step == 1:  # a loop of its own, for the compiler to vectorise
        for i in range(count):
            v = result[i] + bias
            if has_times:
                v = v * take(t[i], positive, negative)
            o[i] = o[i] + v if accumulate else v
    else:
        for i in range(count):
            v = result[i] + bias
            if has_times:
                v = v * take(t[i * step], positive, negative)
            o[i * step] = o[i * step] + v if accumulate else v


@kernel
def add_rows(acc: Array, width: int, w: Array, count: int, src: Array, at: Integers) -> None:
    """`acc[r, p] = Σ_k w[k, r] · src[at[k] + p]`: 4 rows of `TILE`, `width` of them used.

    Eight sources at a time, so that `acc` is read and written but once for 64 operations a place.
    """
    for p in range(ROWS * TILE):
        acc[p] = 0
    eights = count - count % 8
    for k in range(0, eights, 8):
        a, v = at[k : k + 8], w[ROWS * k : ROWS * (k + 8)]
        b0, b1, b2, b3 = src[a[0] :], src[a[1] :], src[a[2] :], src[a[3] :]
        b4, b5, b6, b7 = src[a[4] :], src[a[5] :], src[a[6] :], src[a[7] :]
        for p in range(width):
            x0, x1, x2, x3, x4, x5, x6, x7 = b0[p], b1[p], b2[p], b3[p], b4[p], b5[p], b6[p], b7[p]
            acc[p] += ((v[0] * x0 + v[4] * x1) + (v[8] * x2 + v[12] * x3)) + (
                (v[16] * x4 + v[20] * x5) + (v[24] * x6 + v[28] * x7)
            )
            acc[TILE + p] += ((v[1] * x0 + v[5] * x1) + (v[9] * x2 + v[13] * x3)) + (
                (v[17] * x4 + v[21] * x5) + (v[25] * x6 + v[29] * x7)
            )
            acc[2 * TILE + p] += ((v[2] * x0 + v[6] * x1) + (v[10] * x2 + v[14] * x3)) + (
                (v[18] * x4 + v[22] * x5) + (v[26] * x6 + v[30] * x7)
            )
            acc[3 * TILE + p] += ((v[3] * x0 + v[7] * x1) + (v[11] * x2 + v[15] * x3)) + (
                (v[19] * x4 + v[23] * x5) + (v[27] * x6 + v[31] * x7)
            )
    for k in range(eights, count):
        b, v = src[at[k] :], w[ROWS * k : ROWS * (k + 1)]
        for p in range(width):
            acc[p] += v[0] * b[p]
            acc[TILE + p] += v[1] * b[p]
            acc[2 * TILE + p] += v[2] * b[p]
            acc[3 * TILE + p] += v[3] * b[p]


# --- convolutions ---


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
    """part(w) as `[phase, group, block of 4 outputs, source channel, tap, output]`.

    `w` at `(group, output, source channel)` begins at the sum of these times `steps`. An item is
    a block of 4 outputs of a group; outputs that do not exist are zero.
    """
    blocks = (outs + ROWS - 1) // ROWS
    positive, negative = factors[2], factors[3]
    for item in range(first, last):
        group, block = divmod(item, blocks)
        for f in range(len(phases)):
            tap_0, n_taps = phases[f, 6], phases[f, 7]
            to = packed[(tap_0 * groups * blocks + n_taps * item) * ins * ROWS :]
            for r in range(ROWS):
                o = block * ROWS + r
                for c in range(ins):
                    some = w[group * steps[0] + o * steps[1] + c * steps[2] :]
                    for t in range(n_taps):
                        k = (c * n_taps + t) * ROWS + r
                        if o < outs:
                            to[k] = take(some[taps[tap_0 + t]], positive, negative)
                        else:
                            to[k] = 0


@kernel
def conv(
    first: int, last: int, src: Array, w: Array, at: Integers, phases: Integers, groups: int,
    outs: int, ins: int, channel: int, tiles: int, size: Triple, out_size: Triple, step: Triple,
    bias: Array, times: Array, factors: Array, accumulate: bool, out: Array,
) -> None:  # fmt: skip
    """Sums of shifted rows: `src` from `pad`, `w` from `pack`.

    `channel` is the size of a padded channel. An item is a sample, a group, a phase, a tile of
    its outputs and a block of 4 output channels, the last running fastest.
    """
    blocks = (outs + ROWS - 1) // ROWS
    _, lh, lw = size
    acc, total = np.empty(ROWS * TILE, out.dtype), np.empty(ROWS * TILE, out.dtype)
    for item in range(first, last):
        rest, block = divmod(item, blocks)
        rest, tile = divmod(rest, tiles)
        rest, f = divmod(rest, len(phases))
        sample, group = divmod(rest, groups)
        qd, qh, qw = phases[f, 3], phases[f, 4], phases[f, 5]
        tap_0, n_taps = phases[f, 6], phases[f, 7]
        run = ((qd - 1) * lh + qh - 1) * lw + qw  # outputs in the phase, with those in between
        begin = tile * TILE
        if begin >= run:
            continue
        width = min(TILE, run - begin)

        terms = ins * n_taps
        x = src[(sample * groups + group) * ins * channel + begin :]
        v = w[(tap_0 * groups * blocks + n_taps * (group * blocks + block)) * ins * ROWS :]
        a = at[tap_0 * ins : (tap_0 + n_taps) * ins]
        total[:] = 0
        for k in range(0, terms, BLOCK):
            add_rows(acc, width, v[ROWS * k :], min(BLOCK, terms - k), x, a[k:])
            for p in range(ROWS * TILE):
                total[p] += acc[p]

        for r in range(min(ROWS, outs - block * ROWS)):
            o = group * outs + block * ROWS + r
            b = bias[o] if bias.size > 0 else out.dtype.type(0)
            plane = (sample * groups * outs + o) * out_size[0]
            p = 0
            while p < width:
                row, j = divmod(begin + p, lw)
                count = min(lw - j, width - p)
                d, h = divmod(row, lh)
                if h < qh and j < qw:
                    to = (plane + d * step[0] + phases[f, 0]) * out_size[1] + h * step[1] + phases[f, 1]
                    to = to * out_size[2] + j * step[2] + phases[f, 2]
                    some = total[r * TILE + p :]
                    store(some, min(count, qw - j), b, times, factors, accumulate, out, to, step[2])
                p += count


# --- dense ---


@kernel
def gemm_forward(
    first: int, last: int, src: Array, w: Array, n: int, k: int, m: int,
    bias: Array, times: Array, factors: Array, accumulate: bool, out: Array,
) -> None:  # fmt: skip
    """`src` is part(src) with rows filled up with zeros to a multiple of `CHUNK`; an item is a
    row of `w`, read once for all samples."""
    positive, negative = factors[2], factors[3]
    pitch = (k + CHUNK - 1) // CHUNK * CHUNK
    row, lanes = np.empty(CHUNK, out.dtype), np.empty(n * LANES, out.dtype)
    for item in range(first, last):
        lanes[:] = 0
        for begin in range(0, k, CHUNK):
            some = w[item * k + begin :]
            count = min(CHUNK, k - begin)
            for j in range(count):
                row[j] = take(some[j], positive, negative)
            row[count:] = 0
            for i in range(n):
                x, s = src[i * pitch + begin :], lanes[i * LANES :]
                for j in range(LANES):
                    s[j] += (row[j] * x[j] + row[LANES + j] * x[LANES + j]) + (
                        row[2 * LANES + j] * x[2 * LANES + j] + row[3 * LANES + j] * x[3 * LANES + j]
                    )
        b = bias[item] if bias.size > 0 else out.dtype.type(0)
        for i in range(n):
            s = lanes[i * LANES :]
            half = LANES // 2
            while half > 0:
                for j in range(half):
                    s[j] += s[half + j]
                half //= 2
            store(s, 1, b, times, factors, accumulate, out, i * m + item, 1)


@kernel
def gemm_vjp(
    first: int, last: int, src: Array, w: Array, n: int, k: int, m: int,
    bias: Array, times: Array, factors: Array, accumulate: bool, out: Array,
) -> None:  # fmt: skip
    """`src` is part(src) as `[block of 4 samples, m, sample]`; an item is a tile of the columns of `w`,
    read once for all samples."""
    positive, negative = factors[2], factors[3]
    blocks = (n + ROWS - 1) // ROWS
    acc, total = np.empty(ROWS * TILE, out.dtype), np.empty(blocks * ROWS * TILE, out.dtype)
    panel, at = np.empty(BLOCK * TILE, out.dtype), TILE * np.arange(BLOCK)
    for item in range(first, last):
        column = item * TILE
        width = min(TILE, k - column)
        total[:] = 0
        for begin in range(0, m, BLOCK):
            count = min(BLOCK, m - begin)
            for i in range(count):
                some, to = w[(begin + i) * k + column :], panel[i * TILE :]
                for p in range(width):
                    to[p] = take(some[p], positive, negative)
            for block in range(blocks):
                add_rows(acc, width, src[(block * m + begin) * ROWS :], count, panel, at)
                sums_ = total[block * ROWS * TILE :]
                for p in range(ROWS * TILE):
                    sums_[p] += acc[p]
        for i in range(n):
            some = total[i * TILE :]
            if bias.size > 0:
                b = bias[column:]
                for p in range(width):
                    some[p] += b[p]
            store(some, width, out.dtype.type(0), times, factors, accumulate, out, i * k + column, 1)


# --- pooling ---


@kernel
def sumpool_forward(
    first: int, last: int, src: Array, w: Array, x_size: Triple, spans: Spans, dilations: Triple,
    channels: int, bias: Array, times: Array, factors: Array, accumulate: bool, out: Array,
) -> None:  # fmt: skip
    """An item is a channel of a sample. The rows in a window are summed first, then their columns."""
    xd, xh, xw = x_size
    zd, zh, zw = len(spans[0]), len(spans[1]), len(spans[2])
    line, total = np.empty(xw, out.dtype), np.empty(zw, out.dtype)
    for item in range(first, last):
        b = bias[item % channels] if bias.size > 0 else out.dtype.type(0)
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
                for ow in range(zw):
                    some = out.dtype.type(0)
                    for tw in range(spans[2][ow, 1]):
                        some += line[spans[2][ow, 0] + tw * dilations[2]]
                    total[ow] = some * take(w[place + ow], factors[2], factors[3])
                store(total, zw, b, times, factors, accumulate, out, item * zd * zh * zw + place, 1)


@kernel
def sumpool_vjp(
    first: int, last: int, src: Array, w: Array, x_size: Triple, spans: Spans, dilations: Triple,
    channels: int, bias: Array, times: Array, factors: Array, accumulate: bool, out: Array,
) -> None:  # fmt: skip
    """An item is a channel of a sample, so that windows that overlap meet in one thread."""
    xd, xh, xw = x_size
    zd, zh, zw = len(spans[0]), len(spans[1]), len(spans[2])
    line, total = np.empty(xw, out.dtype), np.empty(xd * xh * xw, out.dtype)
    for item in range(first, last):
        total[:] = 0
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
                        row = total[(d * xh + h) * xw :]
                        for i in range(xw):
                            row[i] += line[i]
        b = bias[item % channels] if bias.size > 0 else out.dtype.type(0)
        store(total, total.size, b, times, factors, accumulate, out, item * total.size, 1)


# --- elementwise ---


@kernel
def collect(
    first: int, last: int, src: Array, times: Array, factors: Array, accumulate: bool, out: Array
) -> None:
    """An item is `PIECE` elements."""
    some = np.empty(PIECE, out.dtype)
    for begin in range(first * PIECE, min(last * PIECE, src.size), PIECE):
        x = src[begin : begin + PIECE]
        for i in range(x.size):
            some[i] = take(x[i], factors[0], factors[1])
        store(some, x.size, out.dtype.type(0), times, factors, accumulate, out, begin, 1)
