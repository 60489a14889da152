"""The Numba backend: the kernels of `numpy_`, compiled for this processor when first called.

Names, signatures and meaning are those of `numpy_`. What is here prepares the arguments: it checks
that sizes fit (compiled code would not notice), flattens arrays, replaces absent ones by empty
ones, and cuts the work into items for `numba_threads.run`. A convolution finishes its outputs while
they are in the cache; other kernels leave their ending to `collect`.

Blocked arrays have one lane. Results do not depend on the number of threads, nor on a sample's place
in a batch or its size.
"""

from __future__ import annotations

from math import prod

import numpy as np

from ..errors import InputError
from ..ops.base import Array
from . import numba_arrange as arrange
from . import numba_kernels as kernels
from .ending import Ending, Quotient
from .numba_plan import Spans, gather, spans, triple
from .numba_threads import limit_threads, run, set_num_threads
from .numpy_ import Part, Triple, part

__all__ = [
    "LANES", "affine", "collect", "conv_forward", "conv_vjp", "depthwise_forward", "depthwise_vjp", "divide",
    "gemm_forward", "gemm_vjp", "limit_threads", "maxpool_forward", "maxpool_vjp", "name", "reorder",
    "set_num_threads", "sumpool_forward", "sumpool_vjp", "sums",
]  # fmt: skip

name = "numba"
LANES = 1

_PADDED = 1 << 24  # elements of padded source held at once: samples are taken in groups
_NO_QUOTIENT = Quotient(None, None, 0.0)


# --- arguments ---


def _require(fits: bool, kernel: str, **arrays: Array | None) -> None:
    if not fits:
        found = ", ".join(f"{k} {a.dtype} {a.shape}" for k, a in arrays.items() if a is not None)
        raise InputError(
            f"{kernel}: arrays do not fit each other, have more than one lane, or are not C-contiguous: {found}"
        )


def _input(a: Array | None, like: Array) -> Array:
    """`a`, flat and read-only (so that one compiled version serves all); empty if absent."""
    flat = np.empty(0, like.dtype) if a is None else a.reshape(-1)
    flat.flags.writeable = False
    return flat


def _numbers(values: tuple[float, ...], like: Array) -> Array:
    return _input(np.array(values, like.dtype), like)


class _Finish:
    """An ending for compiled code: checked, flat, and with room for what the items count.

    Attributes
    ----------
    ends : Ends
    out : array
        Flat.
    trivial : bool
        Whether the result is written just as it is.
    """

    def __init__(
        self, kernel: str, fits: bool, end: Ending, epsilons: Array | None = None, **arrays: Array
    ) -> None:
        out, q = end.out, end.quotient or _NO_QUOTIENT
        like = {"times": end.times, "plus": end.plus, "r": q.r, "gate_z": q.gate_z if q.gate else None}
        channels = {"bias": end.bias, "the quotient's bias": q.bias}
        books = {"ledger": (q.ledger, 4), "sums": (end.sums, 2)}
        fits = (
            fits
            and out.flags.c_contiguous
            and (out.ndim == 2 or out.shape[-1] == 1)
            and all(a.dtype == out.dtype for a in arrays.values())
            and all(a is None or (a.dtype, a.shape) == (out.dtype, out.shape) for a in like.values())
            and all(a is None or (a.dtype, a.shape) == (out.dtype, out.shape[1:2]) for a in channels.values())
            and all(a is None or (a.dtype, a.shape) == (np.float64, (len(out), k)) for a, k in books.values())
            and (q.gate == 0 or q.gate_z is not None)
            and (end.quotient is None or (q.r is not None and q.ledger is not None))
        )
        found = {key: a for key, (a, _) in books.items()}
        _require(fits, kernel, **arrays, out=out, **like, **channels, **found)
        self.end, self.out = end, out.reshape(-1)
        self.counts = end.quotient is not None or end.sums is not None
        self.trivial = not self.counts and all(a is None for a in (end.bias, end.times, end.plus, end.clamp))
        self.ends = kernels.Ends(
            *(_input(a, out) for a in (end.bias, *like.values(), q.bias)),
            _numbers((*end.times_part, *(end.clamp or (1, 0, 0)), q.scale), out),
            _numbers((q.epsilon,), out) if epsilons is None else _input(epsilons, out),
            end.clamp is not None, end.quotient is not None, bool(q.clip), int(q.gate), end.sums is not None,
        )  # fmt: skip

    def room(self, items: int) -> Array:
        """For what so many items count; none if there is nothing to count."""
        return np.empty(items * kernels.BOOKS if self.counts else 0)

    def book(self, found: Array, first: int, samples: int) -> None:
        """Enter what the items of some samples have counted."""
        if self.counts:
            total = found.reshape(samples, -1, kernels.BOOKS).sum(axis=1)
            if self.end.quotient is not None:
                self.end.quotient.ledger[first : first + samples] += total[:, :4]
            if self.end.sums is not None:
                self.end.sums[first : first + samples] = total[:, 4:]

    def some(self, first: int, samples: int) -> tuple[kernels.Ends, Array]:
        """The ending and the output of some samples."""
        size = self.out.size // len(self.end.out)

        def cut(a: Array) -> Array:
            return a[first * size : (first + samples) * size]

        e = self.ends
        arrays = {"times": cut(e.times), "plus": cut(e.plus), "r": cut(e.r), "gate_z": cut(e.gate_z)}
        return e._replace(**arrays), cut(self.out)


def _collect(
    src: Array, finish: _Finish, src_part: Part = (1, 1), w: Array | None = None, w_part: Part = (1, 1)
) -> None:
    """`part(src)`, times `part(w)` for each channel, and the ending."""
    out, n = finish.end.out, len(finish.end.out)
    size = prod(out.shape[1:])
    ends, flat_w = finish.ends, _input(w, out)
    alike = ends.bias.size == ends.taken.size == flat_w.size == 0  # channels make no difference
    row = size if alike else prod(out.shape[2:])
    items = n * -(-size // kernels.PIECE)
    found = finish.room(items)
    run(
        kernels.collect, items, out.size, _input(src, out), flat_w, _numbers((*src_part, *w_part), out), size, row,
        ends, finish.out, found,
    )  # fmt: skip
    finish.book(found, 0, n)


class _Raw:
    """Where a kernel without an ending of its own leaves its result."""

    def __init__(self, finish: _Finish) -> None:
        self.finish = finish
        self.array = finish.out if finish.trivial else np.empty_like(finish.out)

    def done(self) -> None:
        if not self.finish.trivial:
            _collect(self.array, self.finish)


# --- dense ---


def gemm_forward(src: Array, w: Array, src_part: Part, w_part: Part, end: Ending) -> None:
    """Dense layer: `result[n, m] = Σ_k src[n, k] · w[m, k]`."""
    out = end.out
    fits = src.ndim == w.ndim == 2 and out.shape == (len(src), len(w)) and src.shape[1] == w.shape[1]
    raw = _Raw(_Finish("gemm_forward", fits, end, src=src, w=w))
    (n, m), k = out.shape, src.shape[1]
    filled = np.zeros((n, -(-k // kernels.CHUNK) * kernels.CHUNK), out.dtype)
    filled[:, :k] = part(src, src_part)
    factors = _numbers((*src_part, *w_part), out)
    run(
        kernels.gemm_forward, m, n * m * k // 8,
        _input(filled, out), _input(w, out), n, k, m, factors, raw.array,
    )  # fmt: skip
    raw.done()


def gemm_vjp(src: Array, w: Array, src_part: Part, w_part: Part, end: Ending) -> None:
    """Transposed dense layer: `result[n, k] = Σ_m src[n, m] · w[m, k]`."""
    out = end.out
    fits = src.ndim == w.ndim == 2 and src.shape == (len(out), len(w)) and out.shape[1:] == w.shape[1:]
    raw = _Raw(_Finish("gemm_vjp", fits, end, src=src, w=w))
    (n, k), m = out.shape, len(w)
    blocks = -(-n // kernels.ROWS)
    filled = np.zeros((blocks * kernels.ROWS, m), out.dtype)
    filled[:n] = part(src, src_part)
    packed = filled.reshape(blocks, kernels.ROWS, m).transpose(0, 2, 1)
    factors = _numbers((*src_part, *w_part), out)
    run(
        kernels.gemm_vjp, -(-k // kernels.TILE), n * m * k // 8,
        _input(packed, out), _input(w, out), n, k, m, factors, raw.array,
    )  # fmt: skip
    raw.done()


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
        and src.shape[-1] == 1
        and src.shape[:2] == (len(out), ins * groups)
        and out.shape[1] == outs * groups
    )
    finish = _Finish(kernel, fits, end, src=src, w=w)
    n, src_size, out_size, window = (
        len(out),
        *(triple(a) for a in (src.shape[2:5], out.shape[2:5], w.shape[2:])),
    )
    taps = prod(window)
    if src_size == out_size and taps == prod(strides) == 1:
        src_size = out_size = (1, 1, prod(out_size))  # places do not meet, so a plane is as good as a row
    plan = gather(
        transposed, src_size, out_size, window, triple(strides), triple(pads), triple(dilations), ins
    )
    contiguous = plan.out_step == (1, 1, 1)
    raw = None if contiguous else _Raw(finish)
    if raw is not None:
        finish = _Finish(kernel, True, Ending(raw.array.reshape(out.shape)))
    factors = _numbers((*src_part, *w_part), out)

    blocks = -(-outs // kernels.ROWS)
    packed = np.empty(groups * blocks * kernels.ROWS * ins * len(plan.taps), out.dtype)
    steps = (outs * ins * taps, taps, outs * taps) if transposed else (outs * ins * taps, ins * taps, taps)
    run(
        arrange.pack, groups * blocks, packed.size,
        _input(w, out), groups, outs, ins, steps, plan.phases, plan.taps, factors, packed,
    )  # fmt: skip

    planes, channel, work = groups * ins, len(plan.residues) * prod(plan.size), src.size * outs * taps // 32
    tiles = -(-plan.longest // kernels.TILE)
    at_once = max(1, _PADDED // (planes * channel))
    for first in range(0, n, at_once):
        samples = min(at_once, n - first)
        ends, some_out = finish.some(first, samples)
        padded = np.empty(
            samples * planes * channel + kernels.WIDTH, out.dtype
        )  # rows are read to full vectors
        padded[-kernels.WIDTH :] = 0
        run(
            arrange.pad, samples * planes, padded.size,
            _input(src[first : first + samples], out), src_size, plan.low, plan.src_step, plan.size, plan.residues,
            factors, padded,
        )  # fmt: skip
        items = samples * groups * len(plan.phases) * tiles * blocks
        found = finish.room(items)
        run(
            kernels.conv, items, work * samples // n,
            _input(padded, out), _input(packed, out), plan.at, plan.phases, groups, outs, ins, channel,
            tiles, plan.size, out_size, plan.out_step, ends, some_out, found,
        )  # fmt: skip
        finish.book(found, first, samples)
    if raw is not None:
        raw.done()


def conv_forward(
    src: Array, w: Array, strides: Triple, pads: Triple, dilations: Triple, groups: int,
    src_part: Part, w_part: Part, exact: bool, end: Ending,
) -> None:  # fmt: skip
    """Convolution (ONNX Conv): `src` is x, `out` is z. Always exact."""
    _conv("conv_forward", False, src, w, strides, pads, dilations, groups, src_part, w_part, end)


def conv_vjp(
    src: Array, w: Array, strides: Triple, pads: Triple, dilations: Triple, groups: int,
    src_part: Part, w_part: Part, exact: bool, end: Ending,
) -> None:  # fmt: skip
    """Transposed convolution (ONNX ConvTranspose): `src` is like z, `out` like x. Always exact."""
    _conv("conv_vjp", True, src, w, strides, pads, dilations, groups, src_part, w_part, end)


def depthwise_forward(
    src: Array, w: Array, strides: Triple, pads: Triple, dilations: Triple,
    src_part: Part, w_part: Part, end: Ending,
) -> None:  # fmt: skip
    """Convolution with one filter a channel: w is (c, 1, kd, kh, kw), `src` x, `out` z."""
    _conv("depthwise_forward", False, src, w, strides, pads, dilations, len(w), src_part, w_part, end)


def depthwise_vjp(
    src: Array, w: Array, strides: Triple, pads: Triple, dilations: Triple,
    src_part: Part, w_part: Part, end: Ending,
) -> None:  # fmt: skip
    """Transpose of `depthwise_forward`: `src` is like z, `out` like x."""
    _conv("depthwise_vjp", True, src, w, strides, pads, dilations, len(w), src_part, w_part, end)


# --- pooling ---


def sumpool_forward(
    src: Array, w: Array, window: Triple, strides: Triple, pads: Triple, dilations: Triple,
    src_part: Part, w_part: Part, end: Ending,
) -> None:  # fmt: skip
    """Sum over windows, times a weight per output place: w is (od, oh, ow), `src` x, `out` z."""
    out = end.out
    raw = _Raw(_Finish("sumpool_forward", _pools(src, out) and w.shape == out.shape[2:5], end, src=src, w=w))
    run(
        arrange.sumpool_forward, prod(out.shape[:2]), out.size * prod(window),
        _input(src, out), _input(w, out), *_windows(src, out, window, strides, pads, dilations),
        _numbers((*src_part, *w_part), out), raw.array,
    )  # fmt: skip
    raw.done()


def sumpool_vjp(
    src: Array, w: Array, window: Triple, strides: Triple, pads: Triple, dilations: Triple,
    src_part: Part, w_part: Part, end: Ending,
) -> None:  # fmt: skip
    """Transpose of `sumpool_forward`: `src` is like z, `out` like x."""
    out = end.out
    raw = _Raw(_Finish("sumpool_vjp", _pools(src, out) and w.shape == src.shape[2:5], end, src=src, w=w))
    run(
        arrange.sumpool_vjp, prod(out.shape[:2]), src.size * prod(window),
        _input(src, out), _input(w, out), *_windows(out, src, window, strides, pads, dilations),
        _numbers((*src_part, *w_part), out), raw.array,
    )  # fmt: skip
    raw.done()


def maxpool_forward(
    src: Array, window: Triple, strides: Triple, pads: Triple, dilations: Triple,
    out: Array, winners: Array,
) -> None:  # fmt: skip
    """Maximum over windows; padding never wins. Among equals the first in row-major order wins."""
    fits = _pools(src, out) and winners.shape == out.shape and winners.dtype == np.int32
    _Finish("maxpool_forward", fits and winners.flags.c_contiguous, Ending(out), src=src)
    run(
        arrange.maxpool_forward, prod(out.shape[:2]), out.size * prod(window),
        _input(src, out), *_windows(src, out, window, strides, pads, dilations),
        out.reshape(-1), winners.reshape(-1),
    )  # fmt: skip


def maxpool_vjp(
    src: Array, winners: Array, window: Triple, strides: Triple, pads: Triple, dilations: Triple,
    end: Ending,
) -> None:  # fmt: skip
    """Give each window's value to its winner: `src` and `winners` like z, `out` like x."""
    out = end.out
    fits = _pools(src, out) and winners.shape == src.shape and winners.dtype == np.int32
    raw = _Raw(_Finish("maxpool_vjp", fits, end, src=src))
    run(
        arrange.maxpool_vjp, prod(out.shape[:2]), out.size + src.size,
        _input(src, out), _input(winners, out), prod(out.shape[2:]), prod(src.shape[2:]), raw.array,
    )  # fmt: skip
    raw.done()


def _pools(src: Array, out: Array) -> bool:
    return src.ndim == out.ndim == 6 and src.shape[:2] == out.shape[:2] and src.shape[-1] == 1


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
    _collect(src, _Finish("affine", fits, end, src=src, w=w), src_part, w, w_part)


def collect(src: Array, src_part: Part, end: Ending) -> None:
    """Nothing but the ending: `part(src)` is the result."""
    _collect(src, _Finish("collect", src.shape == end.out.shape, end, src=src), src_part)


def divide(z: Array, norm_size: int, end: Ending) -> None:
    """The quotient of the ending alone; `z` may have one sample for all. See `numpy_.divide`."""
    shape = end.out.shape
    fits = z.shape in (shape, (1, *shape[1:])) and end.quotient is not None
    _require(fits, "divide", z=z, out=end.out)
    assert end.quotient is not None
    epsilons = np.full(len(z), end.quotient.epsilon, z.dtype)
    if norm_size:
        epsilons *= np.sqrt(_sums(z)[:, 2] / norm_size).astype(z.dtype)
    _collect(z, _Finish("divide", fits, end, epsilons, z=z))


# --- order ---


def reorder(src: Array, channels: int, end: Ending) -> None:
    """Change the number of lanes; here all arrays have one, and what remains is the ending."""
    fits = src.shape == end.out.shape and channels == src.shape[1]
    _collect(src, _Finish("reorder", fits, end, src=src))


def sums(src: Array, out: Array) -> None:
    """Per sample of `src` (n, size) into `out` (float64, (n, 2)): the sum, and the sum of |src|."""
    _require(src.ndim == 2 and out.shape == (len(src), 2), "sums", src=src, out=out)
    out[...] = _sums(src)[:, :2]


def _sums(src: Array) -> Array:
    """Per sample the sums of x, |x| and x², in float64: (n, 3)."""
    n, size = len(src), prod(src.shape[1:])
    pieces = -(-size // arrange.PIECE)
    found = np.empty((n, pieces, 3))
    run(arrange.sums, n * pieces, src.size // 2, _input(src, src), size, found.reshape(-1))
    total: Array = found.sum(axis=1)
    return total
