"""The compiled kernels that multiply tiles or end as an `Ending` says; `numpy_` says what they compute.

Each works on items `first … last − 1` of a range that `numba_threads.run` cuts; an item owns its
outputs, and its line of `found`, where it leaves its part of the ledger and the sums. Arrays come
flat, inputs read-only; an array of size 0 stands for an absent one. `factors` holds `src_part` and
`w_part`, four numbers of the arrays' dtype.

Compiled functions use functions and constants of their own file only, because Numba's cache does
not notice when another file changes.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from llvmlite import ir  # type: ignore[import-untyped]
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic
from numpy.typing import NDArray

from ..ops.base import Array
from .numba_jit import kernel
from .numba_plan import Integers
from .numpy_ import Triple

Doubles = NDArray[np.float64]
get_or_insert_function: Any = cgutils.get_or_insert_function

WIDTH = 16  # places in a row that are computed together
ROWS = 6  # rows that share what is loaded of the source: with `WIDTH` as many sums as registers hold
TILE = 256  # outputs in a row, which stay in the innermost cache from the first product to the ending
BLOCK = 128  # terms in a partial sum: short sums of short sums keep float32 accurate
PIECE = 1 << 12  # elements in an item of elementwise work
SIDE = 32  # partial sums of each number of the books
BOOKS = 6  # numbers in the books: the ledger's four, and the two of the sums


class Ends(NamedTuple):
    """An `Ending` and its `Quotient`, for compiled code.

    Attributes
    ----------
    bias, times, plus, r, gate_z, taken, kept, mirrored : array
        As there, flat; `taken` is the quotient's `bias`.
    numbers : array
        The two factors of `times_part`; slope, low and high of the clamp; the quotient's scale; `plus_factor`.
    epsilons : array
        The quotient's ε, one for all or one a sample.
    clamp, quotient, clip, sums : bool
        Whether there is such.
    gate : int
    """

    bias: Array
    times: Array
    plus: Array
    r: Array
    gate_z: Array
    taken: Array
    kept: Array
    mirrored: Array
    numbers: Array
    epsilons: Array
    clamp: bool
    quotient: bool
    clip: bool
    gate: int
    sums: bool


# --- what kernels share ---


@kernel
def take(a: float, positive: float, negative: float) -> float:
    """`positive · max(a, 0) + negative · min(a, 0)`."""
    return a * (positive if a > 0 else negative)


@kernel
def finish(
    raw: Array, count: int, at: int, channel: int, spread: bool, epsilon: float, ends: Ends,
    out: Array, books: Doubles,
) -> None:  # fmt: skip
    """Write `raw[i]`, as the ending says, to `out[at + i]`.

    All belong to the same channel, or if `spread` each to the next one. One short loop for each
    part of the ending: the compiler makes vectors of them, and `raw` stays in the innermost cache.
    """
    numbers = ends.numbers
    if ends.bias.size > 0:
        b = ends.bias[channel:]
        if spread:
            for i in range(count):
                raw[i] += b[i]
        else:
            same = b[0]
            for i in range(count):
                raw[i] += same
    if ends.times.size > 0:
        t, positive, negative = ends.times[at:], numbers[0], numbers[1]
        for i in range(count):
            raw[i] *= take(t[i], positive, negative)
    if ends.kept.size > 0:
        k = ends.kept[at:]
        for i in range(count):
            k[i] = raw[i]
    if ends.mirrored.size > 0:
        g = ends.gate_z[at:]
        for i in range(count):
            raw[i] = -raw[i] if g[i] < 0 else raw[i]
    if ends.plus.size > 0:
        p = ends.plus[at:]
        factor = numbers[6]
        for i in range(count):
            raw[i] += p[i] * factor
    if ends.clamp:
        slope, low, high = numbers[2], numbers[3], numbers[4]
        for i in range(count):
            v = raw[i] * slope if raw[i] < 0 else raw[i]
            v = low if v < low else v  # comparisons that let NaN through
            raw[i] = high if v > high else v
    if ends.quotient:
        divide(raw, count, at, channel, spread, epsilon, ends, books)
    o = out[at:]
    for i in range(count):
        o[i] = raw[i]
    if ends.sums:
        for begin in range(0, count, SIDE):
            some = raw[begin:]
            for i in range(min(SIDE, count - begin)):
                v = np.float64(some[i])
                books[4 * SIDE + i] += v
                books[5 * SIDE + i] += abs(v)


@kernel
def divide(
    raw: Array, count: int, at: int, channel: int, spread: bool, epsilon: float, ends: Ends, books: Doubles,
) -> None:  # fmt: skip
    """The quotient over the denominators `raw`, in their place, and its entries in the books."""
    scale, zero = ends.numbers[5], raw.dtype.type(0)
    stab, share = np.empty(SIDE, raw.dtype), np.empty(SIDE, raw.dtype)
    for begin in range(0, count, SIDE):
        length = min(SIDE, count - begin)
        z, r, gate_z = raw[begin:], ends.r[at + begin :], ends.gate_z[at + begin :]
        for i in range(length):
            share[i] = r[i] * scale
        if ends.gate > 0:
            for i in range(length):
                share[i] = share[i] if gate_z[i] > 0 else zero
        elif ends.gate < 0:
            for i in range(length):
                share[i] = share[i] if gate_z[i] < 0 else zero
        elif ends.mirrored.size > 0:
            for i in range(length):
                share[i] = share[i] if gate_z[i] != 0 else zero
        for i in range(length):
            size = abs(z[i])
            size = (epsilon if size < epsilon else size) if ends.clip else size + epsilon
            stab[i] = -size if z[i] < 0 else size
        for i in range(length):
            whole, v = np.float64(share[i]), np.float64(z[i])
            s = share[i] / stab[i] if stab[i] != 0 else zero
            books[i] += whole
            books[2 * SIDE + i] += 0.0 if v == 0 else np.float64(s) * (np.float64(stab[i]) - v)
            books[3 * SIDE + i] += whole if v == 0 else 0.0
            z[i] = s
        if ends.taken.size > 0:
            b = ends.taken[channel + begin if spread else channel :]
            same = np.float64(b[0])
            if spread:
                for i in range(length):
                    books[SIDE + i] += np.float64(z[i]) * np.float64(b[i])
            else:
                for i in range(length):
                    books[SIDE + i] += np.float64(z[i]) * same
        if ends.mirrored.size > 0:
            m = ends.mirrored[at + begin :]
            for i in range(length):
                m[i] = -z[i] if gate_z[i] < 0 else z[i]
            if ends.bias.size > 0:
                for i in range(length):
                    own = ends.bias[channel + begin + i if spread else channel]
                    books[SIDE + i] += np.float64(m[i]) * np.float64(own)


@kernel
def close(books: Doubles, item: int, found: Doubles) -> None:
    """Leave an item's books in its line of `found`, and clear them for the next."""
    for i in range(min(BOOKS, found.size)):
        found[item * BOOKS + i] = books[i * SIDE : (i + 1) * SIDE].sum()
    books[:] = 0


def _add_products(_: Any, total: Any, w: Any, src: Any, at: Any, count: Any) -> Any:
    """`total[r · TILE + p] += Σ_k w[k · ROWS + r] · src[at[k] + p]` for all rows and `WIDTH` places.

    Made of LLVM's vectors, since a compiler that is given loops does not keep a tile of sums in
    registers. Products are added as the processor does best, with one rounding or two, but always in
    the same way.
    """

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        arrays = zip(signature.args[:4], arguments[:4], strict=True)
        to, w, src, at = (context.make_array(t)(context, builder, a).data for t, a in arrays)
        index, lane = ir.IntType(64), ir.IntType(32)
        number = context.get_data_type(signature.args[0].dtype)
        vector, nbytes = ir.VectorType(number, WIDTH), signature.args[0].dtype.bitwidth // 8
        fused = get_or_insert_function(
            builder.module, ir.FunctionType(vector, [vector] * 3), f"llvm.fmuladd.v{WIDTH}f{8 * nbytes}"
        )
        unknown, first = ir.Constant(vector, ir.Undefined), ir.Constant(ir.VectorType(lane, WIDTH), None)

        def place(array: Any, offset: Any) -> Any:
            return builder.bitcast(builder.gep(array, [offset]), vector.as_pointer())

        before = builder.block
        loop, after = builder.append_basic_block("products"), builder.append_basic_block("after")
        builder.branch(loop)
        builder.position_at_end(loop)
        k = builder.phi(index)
        k.add_incoming(index(0), before)
        sums = [builder.phi(vector) for _ in range(ROWS)]
        x = builder.load(place(src, builder.load(builder.gep(at, [k]))), align=nbytes)
        some_w, more = builder.gep(w, [builder.mul(k, index(ROWS))]), []
        for r, partial in enumerate(sums):
            weight = builder.insert_element(unknown, builder.load(builder.gep(some_w, [index(r)])), lane(0))
            more.append(builder.call(fused, [builder.shuffle_vector(weight, unknown, first), x, partial]))
            partial.add_incoming(ir.Constant(vector, None), before)
            partial.add_incoming(more[r], loop)
        following = builder.add(k, index(1))
        k.add_incoming(following, loop)
        builder.cbranch(builder.icmp_signed("<", following, arguments[4]), loop, after)
        builder.position_at_end(after)
        for r in range(ROWS):
            row = place(to, index(r * TILE))
            builder.store(builder.fadd(builder.load(row, align=nbytes), more[r]), row, align=nbytes)
        return context.get_dummy_value()

    return types.void(total, w, src, at, types.int64), generate


add_products: Any = intrinsic(_add_products)


@kernel
def add_rows(total: Array, width: int, w: Array, count: int, src: Array, at: Integers) -> None:
    """`total[r, p] = Σ_k w[k, r] · src[at[k] + p]`, `width` places and some more of `TILE`."""
    total[:] = 0
    for k in range(0, count, BLOCK):
        some_w, some_at, length = w[ROWS * k :], at[k:], min(BLOCK, count - k)
        for p in range(0, width, WIDTH):
            add_products(total[p:], some_w, src[p:], some_at, length)


# --- convolutions ---


@kernel
def conv(
    first: int, last: int, src: Array, w: Array, at: Integers, phases: Integers, groups: int,
    outs: int, ins: int, channel: int, tiles: int, size: Triple, out_size: Triple, step: Triple,
    ends: Ends, out: Array, found: Doubles,
) -> None:  # fmt: skip
    """Sums of shifted rows: `src` from `pad`, `w` from `pack`.

    `channel` is the size of a padded channel. An item is a sample, a group, a phase, a tile of
    its outputs and a block of output channels, the last running fastest. Outputs that are not next to
    each other (`step`) are written without the ending.
    """
    blocks = (outs + ROWS - 1) // ROWS
    _, lh, lw = size
    plane, apart, epsilon = out_size[0] * out_size[1] * out_size[2], max(step) > 1, ends.epsilons[0]
    total, raw, books = np.empty(ROWS * TILE, out.dtype), np.empty(TILE, out.dtype), np.zeros(BOOKS * SIDE)
    for item in range(first, last):
        rest, block = divmod(item, blocks)
        rest, tile = divmod(rest, tiles)
        rest, f = divmod(rest, len(phases))
        sample, group = divmod(rest, groups)
        qd, qh, qw = phases[f, 3], phases[f, 4], phases[f, 5]
        tap_0, n_taps = phases[f, 6], phases[f, 7]
        run = ((qd - 1) * lh + qh - 1) * lw + qw  # outputs in the phase, with those in between
        begin = tile * TILE
        width = min(TILE, run - begin)

        if width > 0:
            terms = ins * n_taps
            x = src[(sample * groups + group) * ins * channel + begin :]
            v = w[(tap_0 * groups * blocks + n_taps * (group * blocks + block)) * ins * ROWS :]
            a = at[tap_0 * ins : (tap_0 + n_taps) * ins]
            if outs == 1 and terms <= BLOCK:  # one row alone: depthwise convolutions
                total[:TILE] = 0
                for k in range(terms):
                    row = x[a[k] :]
                    for p in range(width):
                        total[p] += v[k * ROWS] * row[p]
            else:
                add_rows(total, width, v, terms, x, a)

        for r in range(min(ROWS, outs - block * ROWS)):
            o = group * outs + block * ROWS + r
            first_place = (sample * groups * outs + o) * plane
            start, p, filled = first_place, 0, 0
            while p < width:  # row by row, without what lies in between
                line, j = divmod(begin + p, lw)
                count = min(lw - j, width - p)
                d, h = divmod(line, lh)
                if h < qh and j < qw:
                    to = (d * step[0] + phases[f, 0]) * out_size[1] + h * step[1] + phases[f, 1]
                    to = first_place + to * out_size[2] + j * step[2] + phases[f, 2]
                    some, length = total[r * TILE + p :], min(count, qw - j)
                    if apart:
                        there = out[to:]
                        for i in range(length):
                            there[i * step[2]] = some[i]
                    else:
                        start, there = to - filled, raw[filled:]
                        for i in range(length):
                            there[i] = some[i]
                        filled += length
                p += count
            if not apart:
                finish(raw, filled, start, o, plane == 1, epsilon, ends, out, books)
        close(books, item, found)


# --- dense ---


@kernel
def gemm_vjp(
    first: int, last: int, src: Array, w: Array, n: int, k: int, m: int, factors: Array, out: Array
) -> None:
    """`src` is part(src) as `[block of samples, m, sample]`; an item is a tile of the columns of `w`,
    read once for all samples."""
    positive, negative = factors[2], factors[3]
    blocks = (n + ROWS - 1) // ROWS
    total = np.empty(blocks * ROWS * TILE, out.dtype)
    panel, at = np.zeros(BLOCK * TILE, out.dtype), TILE * np.arange(BLOCK)
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
                some, to = src[(block * m + begin) * ROWS :], total[block * ROWS * TILE :]
                for p in range(0, width, WIDTH):
                    add_products(to[p:], some, panel[p:], at, count)
        for i in range(n):
            some, to = total[i * TILE :], out[i * k + column :]
            for p in range(width):
                to[p] = some[p]


# --- elementwise ---


@kernel
def collect(
    first: int, last: int, src: Array, w: Array, factors: Array, size: int, row: int,
    ends: Ends, out: Array, found: Doubles,
) -> None:  # fmt: skip
    """`part(src)`, times `part(w)` if there is one, for samples of `size` elements, `row` a channel.

    `src` may be one sample for all. An item is `PIECE` elements of a sample.
    """
    raw, books = np.empty(TILE, out.dtype), np.zeros(BOOKS * SIDE)
    positive, negative = factors[0], factors[1]
    pieces = (size + PIECE - 1) // PIECE
    for item in range(first, last):
        sample, piece = divmod(item, pieces)
        epsilon = ends.epsilons[sample % ends.epsilons.size]
        begin, end = piece * PIECE, min(size, (piece + 1) * PIECE)
        while begin < end:
            channel = begin // row
            count = min(TILE, end - begin if row == 1 else min(end, (channel + 1) * row) - begin)
            x = src[sample % (src.size // size) * size + begin :]
            for i in range(count):
                raw[i] = take(x[i], positive, negative)
            if w.size > 0:
                v = w[channel:]
                if row == 1:
                    for i in range(count):
                        raw[i] *= take(v[i], factors[2], factors[3])
                else:
                    factor = take(v[0], factors[2], factors[3])
                    for i in range(count):
                        raw[i] *= factor
            finish(raw, count, sample * size + begin, channel, row == 1, epsilon, ends, out, books)
            begin += count
        close(books, item, found)
