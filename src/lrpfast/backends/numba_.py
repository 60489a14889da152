"""The Numba backend: the kernels of `numpy_`, compiled for this processor when first called.

Names, signatures and meaning are those of `numpy_`. What is here prepares the arguments: it checks
that sizes fit (compiled code would not notice), flattens arrays, replaces absent ones by empty
ones, and cuts the work into items for `numba_threads.run`. A convolution finishes its outputs while
they are in the cache; other kernels leave their ending to `collect`.

Blocked arrays have one lane. Results do not depend on the number of threads, nor on a sample's place
in a batch or its size.
"""

from __future__ import annotations

from dataclasses import replace
from math import prod

import numpy as np

from ..ops.base import Array
from . import numba_kernels as kernels
from . import numba_plain as plain
from .ending import Ending
from .numba_ending import Finish, flat, numbers, require
from .numba_plan import Spans, gather, spans, triple
from .numba_threads import limit_threads, run, set_num_threads
from .numpy_ import Part, Triple, bounded, part

__all__ = [
    "LANES", "affine", "collect", "conv_forward", "conv_vjp", "depthwise_forward", "depthwise_vjp", "divide",
    "gemm_forward", "gemm_vjp", "limit_threads", "maxpool_forward", "maxpool_vjp", "name", "reorder",
    "set_num_threads", "sumpool_forward", "sumpool_vjp", "sums",
]  # fmt: skip

name = "numba"
LANES = 1

_MANY = 32  # samples, for which it pays to transpose the weights
_PADDED = 1 << 24  # elements of padded source held at once: samples are taken in groups


# --- dense ---


def gemm_forward(src: Array, w: Array, src_part: Part, w_part: Part, end: Ending) -> None:
    """Dense layer: `result[n, m] = Σ_k src[n, k] · w[m, k]`."""
    out = end.out
    fits = src.ndim == w.ndim == 2 and out.shape == (len(src), len(w)) and src.shape[1] == w.shape[1]
    finish = Finish("gemm_forward", fits, end, src=src, w=w)
    raw = finish.raw()
    (n, m), k = out.shape, src.shape[1]
    if n >= _MANY:
        _multiply(src, np.ascontiguousarray(w.T), src_part, w_part, raw)
        finish.apply(raw)
        return
    filled = np.zeros((n, -(-k // plain.CHUNK) * plain.CHUNK), out.dtype)
    filled[:, :k] = part(src, src_part)
    factors = numbers((*src_part, *w_part), out)
    run(
        plain.gemm_forward, m, n * m * k // 8,
        flat(filled, out), flat(w, out), n, k, m, factors, raw,
    )  # fmt: skip
    finish.apply(raw)


def gemm_vjp(src: Array, w: Array, src_part: Part, w_part: Part, end: Ending) -> None:
    """Transposed dense layer: `result[n, k] = Σ_m src[n, m] · w[m, k]`."""
    out = end.out
    fits = src.ndim == w.ndim == 2 and src.shape == (len(out), len(w)) and out.shape[1:] == w.shape[1:]
    finish = Finish("gemm_vjp", fits, end, src=src, w=w)
    raw = finish.raw()
    _multiply(src, w, src_part, w_part, raw)
    finish.apply(raw)


def _multiply(src: Array, w: Array, src_part: Part, w_part: Part, out: Array) -> None:
    """`part(src) @ part(w)` into `out`, flat."""
    (n, m), k = src.shape, w.shape[1]
    blocks = -(-n // kernels.ROWS)
    filled = np.zeros((blocks * kernels.ROWS, m), out.dtype)
    filled[:n] = part(src, src_part)
    packed = filled.reshape(blocks, kernels.ROWS, m).transpose(0, 2, 1)
    factors = numbers((*src_part, *w_part), out)
    run(
        kernels.gemm_vjp, -(-k // kernels.TILE), n * m * k // 8,
        flat(packed, out), flat(w, out), n, k, m, factors, out,
    )  # fmt: skip


# --- convolutions ---


def _conv(
    kernel: str, transposed: bool, src: Array, w: Array, strides: Triple, pads: Triple,
    dilations: Triple, groups: int, src_part: Part, w_part: Part, end: Ending,
) -> None:  # fmt: skip
    out = end.out
    m, c = w.shape[0] // groups, w.shape[1]
    outs, ins = (c, m) if transposed else (m, c)
    fits = (
        src.ndim == out.ndim == 6
        and w.ndim == 5
        and m * groups == len(w)
        and src.shape[:2] == (len(out), ins * groups)
        and out.shape[1] == outs * groups
    )
    finish = Finish(kernel, fits, end, src=src, w=w)
    src_size, out_size, window = triple(src.shape[2:5]), triple(out.shape[2:5]), triple(w.shape[2:])
    n, taps = len(out), prod(window)
    if src_size == out_size and taps == prod(strides) == 1 and not any(pads):
        src_size = out_size = (1, 1, prod(out_size))  # places do not meet, so a plane is as good as a row
    plan = gather(
        transposed, src_size, out_size, window, triple(strides), triple(pads), triple(dilations), ins
    )
    apart = max(plan.out_step) > 1  # outputs of a phase are not next to each other: they are finished later
    raw = finish.raw() if apart else finish.out
    now = Finish(kernel, True, Ending(raw.reshape(out.shape))) if apart else finish
    factors = numbers((*src_part, *w_part), out)

    blocks = -(-outs // kernels.ROWS)
    packed = np.empty(groups * blocks * kernels.ROWS * ins * len(plan.taps), out.dtype)
    steps = (outs * ins * taps, taps, outs * taps) if transposed else (outs * ins * taps, ins * taps, taps)
    run(
        plain.pack, groups * blocks, packed.size,
        flat(w, out), groups, outs, ins, steps, plan.phases, plan.taps, factors, packed,
    )  # fmt: skip

    planes, channel, work = groups * ins, len(plan.residues) * prod(plan.size), src.size * outs * taps // 32
    tiles = -(-plan.longest // kernels.TILE)
    at_once = max(1, _PADDED // (planes * channel))
    for first in range(0, n, at_once):
        samples = min(at_once, n - first)
        ends, some_out = now.some(first, samples)
        padded = np.empty(samples * planes * channel + kernels.WIDTH, out.dtype)  # read in whole vectors
        padded[-kernels.WIDTH :] = 0
        run(
            plain.pad, samples * planes, padded.size,
            flat(src[first : first + samples], out), src_size, plan.low, plan.src_step, plan.size, plan.residues,
            factors, padded,
        )  # fmt: skip
        items = samples * groups * len(plan.phases) * tiles * blocks
        found = now.room(items)
        run(
            kernels.conv, items, work * samples // n,
            flat(padded, out), flat(packed, out), plan.at, plan.phases, groups, outs, ins, channel,
            tiles, plan.size, out_size, plan.out_step, ends, some_out, found,
        )  # fmt: skip
        now.book(found, first, samples)
    finish.apply(raw)


def conv_forward(
    src: Array, w: Array, strides: Triple, pads: Triple, dilations: Triple, groups: int,
    src_part: Part, w_part: Part, other_part: Part | None, exact: bool, end: Ending,
) -> None:  # fmt: skip
    """Convolution (ONNX Conv): `src` is x, `out` is z. Always exact."""
    geometry = strides, pads, dilations, groups
    for part_of_w, some in _by_sign(w_part, other_part, end):
        _conv("conv_forward", False, src, w, *geometry, src_part, part_of_w, some)


def conv_vjp(
    src: Array, w: Array, strides: Triple, pads: Triple, dilations: Triple, groups: int,
    src_part: Part, w_part: Part, other_part: Part | None, exact: bool, end: Ending,
) -> None:  # fmt: skip
    """Transposed convolution (ONNX ConvTranspose): `src` is like z, `out` like x. Always exact."""
    geometry = strides, pads, dilations, groups
    for part_of_w, some in _by_sign(w_part, other_part, end):
        _conv("conv_vjp", True, src, w, *geometry, src_part, part_of_w, some)


def _by_sign(w_part: Part, other_part: Part | None, end: Ending) -> list[tuple[Part, Ending]]:
    """A product as one, or as one for each sign of what multiplies it."""
    if other_part is None:
        return [(w_part, end)]
    positive, negative = end.times_part
    first = Ending(
        np.empty_like(end.out),
        times=end.times,
        times_part=(positive, 0.0),
        times_high=end.times_high,
        plus=end.plus,
        plus_factor=end.plus_factor,
    )
    second = replace(end, times_part=(0.0, negative), plus=first.out, plus_factor=1.0)
    return [(w_part, first), (other_part, second)]


def depthwise_forward(
    src: Array, w: Array, strides: Triple, pads: Triple, dilations: Triple,
    src_part: Part, src_high: float, w_part: Part, end: Ending,
) -> None:  # fmt: skip
    """Convolution with one filter a channel: w is (c, 1, kd, kh, kw), `src` x, `out` z."""
    src = bounded(src, src_high)
    _conv("depthwise_forward", False, src, w, strides, pads, dilations, len(w), src_part, w_part, end)


def depthwise_vjp(
    src: Array, w: Array, strides: Triple, pads: Triple, dilations: Triple,
    src_part: Part, src_high: float, w_part: Part, end: Ending,
) -> None:  # fmt: skip
    """Transpose of `depthwise_forward`: `src` is like z, `out` like x."""
    src = bounded(src, src_high)
    _conv("depthwise_vjp", True, src, w, strides, pads, dilations, len(w), src_part, w_part, end)


# --- pooling ---


def _sumpool(
    forward: bool, src: Array, w: Array, window: Triple, strides: Triple, pads: Triple, dilations: Triple,
    src_part: Part, w_part: Part, end: Ending,
) -> None:  # fmt: skip
    kernel, compiled = "sumpool_vjp", plain.sumpool_vjp
    x, z = end.out, src
    if forward:
        kernel, compiled = "sumpool_forward", plain.sumpool_forward
        x, z = z, x
    finish = Finish(kernel, _pools(x, z) and w.shape == z.shape[2:5], end, src=src, w=w)
    raw = finish.raw()
    run(
        compiled, prod(x.shape[:2]), z.size * prod(window),
        flat(src, raw), flat(w, raw), *_windows(x, z, window, strides, pads, dilations),
        numbers((*src_part, *w_part), raw), raw,
    )  # fmt: skip
    finish.apply(raw)


def sumpool_forward(
    src: Array, w: Array, window: Triple, strides: Triple, pads: Triple, dilations: Triple,
    src_part: Part, w_part: Part, end: Ending,
) -> None:  # fmt: skip
    """Sum over windows, times a weight per output place: w is (od, oh, ow), `src` x, `out` z."""
    _sumpool(True, src, w, window, strides, pads, dilations, src_part, w_part, end)


def sumpool_vjp(
    src: Array, w: Array, window: Triple, strides: Triple, pads: Triple, dilations: Triple,
    src_part: Part, w_part: Part, end: Ending,
) -> None:  # fmt: skip
    """Transpose of `sumpool_forward`: `src` is like z, `out` like x."""
    _sumpool(False, src, w, window, strides, pads, dilations, src_part, w_part, end)


def maxpool_forward(
    src: Array, window: Triple, strides: Triple, pads: Triple, dilations: Triple,
    out: Array, winners: Array,
) -> None:  # fmt: skip
    """Maximum over windows; padding never wins. Among equals the first in row-major order wins."""
    fits = _pools(src, out) and winners.shape == out.shape and winners.dtype == np.int32
    Finish("maxpool_forward", fits and winners.flags.c_contiguous, Ending(out), src=src)
    run(
        plain.maxpool_forward, prod(out.shape[:2]), out.size * prod(window),
        flat(src, out), *_windows(src, out, window, strides, pads, dilations),
        out.reshape(-1), winners.reshape(-1),
    )  # fmt: skip


def maxpool_vjp(
    src: Array, winners: Array, window: Triple, strides: Triple, pads: Triple, dilations: Triple,
    end: Ending,
) -> None:  # fmt: skip
    """Give each window's value to its winner: `src` and `winners` like z, `out` like x."""
    out = end.out
    fits = _pools(src, out) and winners.shape == src.shape and winners.dtype == np.int32
    finish = Finish("maxpool_vjp", fits, end, src=src)
    raw = finish.raw()
    run(
        plain.maxpool_vjp, prod(out.shape[:2]), out.size + src.size,
        flat(src, out), flat(winners, out), prod(out.shape[2:]), prod(src.shape[2:]), raw,
    )  # fmt: skip
    finish.apply(raw)


def _pools(src: Array, out: Array) -> bool:
    return src.ndim == out.ndim == 6 and src.shape[:2] == out.shape[:2]


def _windows(
    x: Array, z: Array, window: Triple, strides: Triple, pads: Triple, dilations: Triple
) -> tuple[Triple, Spans, Triple]:
    """The arguments that describe windows to the pooling kernels: x_size, spans, dilations."""
    x_size, z_size, dilations = triple(x.shape[2:5]), triple(z.shape[2:5]), triple(dilations)
    found = spans(x_size, z_size, triple(window), triple(strides), triple(pads), dilations)
    return x_size, found, dilations


# --- elementwise ---


def affine(src: Array, w: Array, src_part: Part, w_part: Part, end: Ending) -> None:
    """A factor per channel: w is (channels,). Its own transpose, but for the ending."""
    fits = src.shape == end.out.shape and w.shape == src.shape[1:2]
    Finish("affine", fits, end, src=src, w=w).apply(src, src_part, w, w_part)


def collect(src: Array, src_part: Part, end: Ending) -> None:
    """Nothing but the ending: `part(src)` is the result."""
    Finish("collect", src.shape == end.out.shape, end, src=src).apply(src, src_part)


def divide(z: Array, norm_size: int, end: Ending) -> None:
    """The quotient of the ending alone; `z` may have one sample for all. See `numpy_.divide`."""
    shape = end.out.shape
    fits = z.shape in (shape, (1, *shape[1:])) and end.quotient is not None
    require(fits, "divide", z=z, out=end.out)
    assert end.quotient is not None
    epsilons = np.full(len(z), end.quotient.epsilon, z.dtype)
    if norm_size:
        epsilons *= np.sqrt(_sums(z)[:, 2] / norm_size).astype(z.dtype)
    Finish("divide", fits, end, epsilons, z=z).apply(z)


# --- order ---


def reorder(src: Array, channels: int, end: Ending) -> None:
    """Change the number of lanes; here all arrays have one, and what remains is the ending."""
    fits = src.shape == end.out.shape and channels == src.shape[1]
    Finish("reorder", fits, end, src=src).apply(src)


def sums(src: Array, out: Array) -> None:
    """Per sample of `src` (n, size) into `out` (float64, (n, 2)): the sum, and the sum of |src|."""
    require(src.ndim == 2 and out.shape == (len(src), 2), "sums", src=src, out=out)
    out[...] = _sums(src)[:, :2]


def _sums(src: Array) -> Array:
    """Per sample the sums of x, |x| and x², in float64: (n, 3)."""
    n, size = len(src), prod(src.shape[1:])
    pieces = -(-size // plain.PIECE)
    found = np.empty((n, pieces, 3))
    run(plain.sums, n * pieces, src.size // 2, flat(src, src), size, found.reshape(-1))
    total: Array = found.sum(axis=1)
    return total
