"""The Numba backend: the kernels of `numpy_`, compiled for this processor when first called.

Names, signatures and meaning are those of `numpy_`. What is here prepares the arguments: it checks
that sizes fit (compiled code would not notice), flattens arrays, replaces absent ones by empty
ones, and cuts the work into items for `numba_threads.run`.

Results do not depend on the number of threads, nor on a sample's place in a batch or its size.
"""

from __future__ import annotations

from math import prod

import numpy as np

from ..errors import InputError
from ..ops.base import Array
from . import numba_linear as linear
from . import numba_nonlinear as nonlinear
from .numba_plan import Spans, gather, spans, triple
from .numba_threads import limit_threads, run, set_num_threads
from .numpy_ import Part, Triple, part

__all__ = [
    "clamp_forward", "collect", "conv_forward", "conv_vjp", "depthwise_forward", "depthwise_vjp", "divide",
    "gemm_forward", "gemm_vjp", "limit_threads", "maxpool_forward", "maxpool_vjp", "name",
    "set_num_threads", "sumpool_forward", "sumpool_vjp", "sums",
]  # fmt: skip

name = "numba"

_PADDED = 1 << 24  # elements of padded source held at once: samples are taken in groups


# --- arguments ---


def _require(fits: bool, kernel: str, **arrays: Array | None) -> None:
    if not fits:
        found = ", ".join(f"{k} {a.dtype} {a.shape}" for k, a in arrays.items() if a is not None)
        raise InputError(f"{kernel}: arrays do not fit each other, or are not C-contiguous: {found}")


def _input(a: Array | None, like: Array) -> Array:
    """`a`, flat and read-only (so that one compiled version serves all); empty if absent."""
    flat = np.empty(0, like.dtype) if a is None else a.reshape(-1)
    flat.flags.writeable = False
    return flat


def _linear(
    kernel: str, fits: bool, src: Array, w: Array, src_part: Part, w_part: Part, bias: Array | None,
    times: Array | None, times_part: Part, out: Array, accumulate: bool,
) -> tuple[Array, Array, tuple[Array, Array, Array, bool, Array]]:  # fmt: skip
    """Check the arrays that all kernels of linear operators have, and bring them into their form.

    Returns `src`, `w` and the arguments that come last: bias, times, factors, accumulate, out.
    """
    fits = (
        fits
        and src.dtype == w.dtype == out.dtype
        and out.flags.c_contiguous
        and (bias is None or (bias.dtype == out.dtype and bias.shape == out.shape[1:2]))
        and (times is None or (times.dtype == out.dtype and times.shape == out.shape))
    )
    _require(fits, kernel, src=src, w=w, bias=bias, times=times, out=out)
    factors = _input(np.array([*src_part, *w_part, *times_part], out.dtype), out)
    ends = (_input(bias, out), _input(times, out), factors, bool(accumulate), out.reshape(-1))
    return _input(src, out), _input(w, out), ends


# --- dense ---


def gemm_forward(
    src: Array, w: Array, src_part: Part, w_part: Part, bias: Array | None,
    times: Array | None, times_part: Part, out: Array, accumulate: bool,
) -> None:  # fmt: skip
    """Dense layer: `out[n, m] = Σ_k src[n, k] · w[m, k]`."""
    fits = src.ndim == w.ndim == 2 and out.shape == (len(src), len(w)) and src.shape[1] == w.shape[1]
    _, flat_w, ends = _linear(
        "gemm_forward", fits, src, w, src_part, w_part, bias, times, times_part, out, accumulate
    )
    (n, m), k = out.shape, src.shape[1]
    filled = np.zeros((n, -(-k // linear.CHUNK) * linear.CHUNK), out.dtype)
    filled[:, :k] = part(src, src_part)
    run(linear.gemm_forward, m, n * m * k // 8, _input(filled, out), flat_w, n, k, m, *ends)


def gemm_vjp(
    src: Array, w: Array, src_part: Part, w_part: Part, bias: Array | None,
    times: Array | None, times_part: Part, out: Array, accumulate: bool,
) -> None:  # fmt: skip
    """Transposed dense layer: `out[n, k] = Σ_m src[n, m] · w[m, k]`."""
    fits = src.ndim == w.ndim == 2 and src.shape == (len(out), len(w)) and out.shape[1:] == w.shape[1:]
    _, flat_w, ends = _linear(
        "gemm_vjp", fits, src, w, src_part, w_part, bias, times, times_part, out, accumulate
    )
    (n, k), m = out.shape, len(w)
    blocks = -(-n // linear.ROWS)
    filled = np.zeros((blocks * linear.ROWS, m), out.dtype)
    filled[:n] = part(src, src_part)
    packed = filled.reshape(blocks, linear.ROWS, m).transpose(0, 2, 1)
    tiles = -(-k // linear.TILE)
    run(linear.gemm_vjp, tiles, n * m * k // 8, _input(packed, out), flat_w, n, k, m, *ends)


# --- convolutions ---


def _conv(
    kernel: str, transposed: bool, src: Array, w: Array, strides: Triple, pads: Triple,
    dilations: Triple, groups: int, src_part: Part, w_part: Part, bias: Array | None,
    times: Array | None, times_part: Part, out: Array, accumulate: bool,
) -> None:  # fmt: skip
    m, c = w.shape[0] // groups, w.shape[1]
    outs, ins = (c, m) if transposed else (m, c)
    fits = (
        src.ndim == w.ndim == out.ndim == 5
        and m * groups == len(w)
        and src.shape[:2] == (len(out), ins * groups)
        and out.shape[1] == outs * groups
    )
    flat_src, flat_w, (flat_bias, flat_times, factors, accumulate, flat_out) = _linear(
        kernel, fits, src, w, src_part, w_part, bias, times, times_part, out, accumulate
    )
    n, src_size, out_size, window = len(out), *(triple(a.shape[2:]) for a in (src, out, w))
    taps = prod(window)
    plan = gather(
        transposed, src_size, out_size, window, triple(strides), triple(pads), triple(dilations), ins
    )

    blocks = -(-outs // linear.ROWS)
    packed = np.empty(groups * blocks * linear.ROWS * ins * len(plan.taps), out.dtype)
    steps = (outs * ins * taps, taps, outs * taps) if transposed else (outs * ins * taps, ins * taps, taps)
    run(
        linear.pack, groups * blocks, packed.size,
        flat_w, groups, outs, ins, steps, plan.phases, plan.taps, factors, packed,
    )  # fmt: skip

    planes, channel, work = groups * ins, len(plan.residues) * prod(plan.size), src.size * outs * taps // 16
    tiles = -(-plan.longest // linear.TILE)
    at_once = max(1, _PADDED // (planes * channel))
    for first in range(0, n, at_once):
        some = min(at_once, n - first)
        here = [a[first * (a.size // n) :][: some * (a.size // n)] for a in (flat_src, flat_times, flat_out)]
        padded = np.empty(some * planes * channel, out.dtype)
        run(
            linear.pad, some * planes, padded.size,
            here[0], src_size, plan.low, plan.src_step, plan.size, plan.residues, factors, padded,
        )  # fmt: skip
        run(
            linear.conv, some * groups * len(plan.phases) * tiles * blocks, work * some // n,
            _input(padded, out), _input(packed, out), plan.at, plan.phases, groups, outs, ins, channel,
            tiles, plan.size, out_size, plan.out_step,
            flat_bias, here[1], factors, accumulate, here[2],
        )  # fmt: skip


def conv_forward(
    src: Array, w: Array, strides: Triple, pads: Triple, dilations: Triple, groups: int,
    src_part: Part, w_part: Part, bias: Array | None,
    times: Array | None, times_part: Part, out: Array, accumulate: bool,
) -> None:  # fmt: skip
    """Convolution (ONNX Conv): `src` is x, `out` is z."""
    _conv(
        "conv_forward", False, src, w, strides, pads, dilations, groups,
        src_part, w_part, bias, times, times_part, out, accumulate,
    )  # fmt: skip


def conv_vjp(
    src: Array, w: Array, strides: Triple, pads: Triple, dilations: Triple, groups: int,
    src_part: Part, w_part: Part, bias: Array | None,
    times: Array | None, times_part: Part, out: Array, accumulate: bool,
) -> None:  # fmt: skip
    """Transposed convolution (ONNX ConvTranspose): `src` is like z, `out` like x."""
    _conv(
        "conv_vjp", True, src, w, strides, pads, dilations, groups,
        src_part, w_part, bias, times, times_part, out, accumulate,
    )  # fmt: skip


def depthwise_forward(
    src: Array, w: Array, strides: Triple, pads: Triple, dilations: Triple,
    src_part: Part, w_part: Part, bias: Array | None,
    times: Array | None, times_part: Part, out: Array, accumulate: bool,
) -> None:  # fmt: skip
    """Convolution with one filter a channel: w is (c, 1, kd, kh, kw), `src` x, `out` z."""
    _conv(
        "depthwise_forward", False, src, w, strides, pads, dilations, len(w),
        src_part, w_part, bias, times, times_part, out, accumulate,
    )  # fmt: skip


def depthwise_vjp(
    src: Array, w: Array, strides: Triple, pads: Triple, dilations: Triple,
    src_part: Part, w_part: Part, bias: Array | None,
    times: Array | None, times_part: Part, out: Array, accumulate: bool,
) -> None:  # fmt: skip
    """Transpose of `depthwise_forward`: `src` is like z, `out` like x."""
    _conv(
        "depthwise_vjp", True, src, w, strides, pads, dilations, len(w),
        src_part, w_part, bias, times, times_part, out, accumulate,
    )  # fmt: skip


# --- pooling ---


def sumpool_forward(
    src: Array, w: Array, window: Triple, strides: Triple, pads: Triple, dilations: Triple,
    src_part: Part, w_part: Part, bias: Array | None,
    times: Array | None, times_part: Part, out: Array, accumulate: bool,
) -> None:  # fmt: skip
    """Sum over windows, times a weight per output place: w is (od, oh, ow), `src` x, `out` z."""
    fits = src.ndim == out.ndim == 5 and src.shape[:2] == out.shape[:2] and w.shape == out.shape[2:]
    flat_src, flat_w, ends = _linear(
        "sumpool_forward", fits, src, w, src_part, w_part, bias, times, times_part, out, accumulate
    )
    windows = _windows(src, out, window, strides, pads, dilations)
    planes, work = prod(out.shape[:2]), out.size * prod(window)
    run(linear.sumpool_forward, planes, work, flat_src, flat_w, *windows, out.shape[1], *ends)


def sumpool_vjp(
    src: Array, w: Array, window: Triple, strides: Triple, pads: Triple, dilations: Triple,
    src_part: Part, w_part: Part, bias: Array | None,
    times: Array | None, times_part: Part, out: Array, accumulate: bool,
) -> None:  # fmt: skip
    """Transpose of `sumpool_forward`: `src` is like z, `out` like x."""
    fits = src.ndim == out.ndim == 5 and src.shape[:2] == out.shape[:2] and w.shape == src.shape[2:]
    flat_src, flat_w, ends = _linear(
        "sumpool_vjp", fits, src, w, src_part, w_part, bias, times, times_part, out, accumulate
    )
    windows = _windows(out, src, window, strides, pads, dilations)
    planes, work = prod(out.shape[:2]), src.size * prod(window)
    run(linear.sumpool_vjp, planes, work, flat_src, flat_w, *windows, out.shape[1], *ends)


def maxpool_forward(
    src: Array, window: Triple, strides: Triple, pads: Triple, dilations: Triple,
    out: Array, winners: Array,
) -> None:  # fmt: skip
    """Maximum over windows; padding never wins. Among equals the first in row-major order wins."""
    fits = src.ndim == out.ndim == 5 and src.shape[:2] == out.shape[:2] and winners.shape == out.shape
    fits = fits and src.dtype == out.dtype and winners.dtype == np.int32
    fits = fits and out.flags.c_contiguous and winners.flags.c_contiguous
    _require(fits, "maxpool_forward", src=src, out=out, winners=winners)
    windows = _windows(src, out, window, strides, pads, dilations)
    run(
        nonlinear.maxpool_forward, prod(out.shape[:2]), out.size * prod(window),
        _input(src, out), *windows, out.reshape(-1), winners.reshape(-1),
    )  # fmt: skip


def maxpool_vjp(src: Array, winners: Array, out: Array, accumulate: bool) -> None:
    """Give each window's value to its winner: `src` and `winners` like z, `out` like x."""
    fits = src.shape == winners.shape and src.shape[:2] == out.shape[:2] and out.flags.c_contiguous
    fits = fits and src.dtype == out.dtype and winners.dtype == np.int32
    _require(fits, "maxpool_vjp", src=src, winners=winners, out=out)
    planes = prod(out.shape[:2])
    run(
        nonlinear.maxpool_vjp, planes, out.size + src.size,
        _input(src, out), _input(winners, out), prod(out.shape[2:]), prod(src.shape[2:]),
        bool(accumulate), out.reshape(-1),
    )  # fmt: skip


def _windows(
    x: Array, z: Array, window: Triple, strides: Triple, pads: Triple, dilations: Triple
) -> tuple[Triple, Spans, Triple]:
    """The arguments that describe windows to the pooling kernels: x_size, spans, dilations."""
    x_size, z_size, dilations = triple(x.shape[2:]), triple(z.shape[2:]), triple(dilations)
    found = spans(x_size, z_size, triple(window), triple(strides), triple(pads), dilations)
    return x_size, found, dilations


# --- elementwise ---


def clamp_forward(src: Array, slope: float, low: float, high: float, out: Array) -> None:
    """`min(max(x, low), high)`, negative x scaled by `slope` first: ReLU, LeakyReLU, Clip."""
    fits = src.shape == out.shape and src.dtype == out.dtype and out.flags.c_contiguous
    _require(fits, "clamp_forward", src=src, out=out)
    limits = _input(np.array([slope, low, high], out.dtype), out)
    items = -(-out.size // nonlinear.PIECE)
    run(nonlinear.clamp, items, out.size // 2, _input(src, out), limits, out.reshape(-1))


def collect(
    src: Array, src_part: Part, times: Array | None, times_part: Part, out: Array, accumulate: bool
) -> None:
    """`out (+)= part(src) ⊙ part(times)`; all of one shape."""
    fits, no_w = src.shape == out.shape, np.empty(0, out.dtype)
    flat_src, _, (_, *ends) = _linear(
        "collect", fits, src, no_w, src_part, (1, 1), None, times, times_part, out, accumulate
    )
    run(linear.collect, -(-out.size // linear.PIECE), out.size, flat_src, *ends)


def divide(
    z: Array, r: Array, gate_z: Array | None, gate: int, bias: Array | None, scale: float,
    epsilon: float, clip: bool, norm_scale: bool, out: Array, ledger: Array,
) -> None:  # fmt: skip
    """`out = scale · [gate] · r / stab(z)`, and where that relevance goes: see `numpy_.divide`."""
    fits = (
        r.ndim == 3
        and z.shape in (r.shape, (1, *r.shape[1:]))
        and z.dtype == r.dtype == out.dtype
        and out.shape == r.shape
        and out.flags.c_contiguous
        and (gate == 0 or (gate_z is not None and gate_z.dtype == r.dtype and gate_z.shape == r.shape))
        and (bias is None or (bias.dtype == r.dtype and bias.shape == r.shape[1:2]))
        and ledger.shape == (len(r), 4)
    )
    _require(fits, "divide", z=z, r=r, gate_z=gate_z, bias=bias, out=out, ledger=ledger)
    n, m, inner = r.shape
    epsilons = np.full(len(z), epsilon, z.dtype)
    if norm_scale:
        epsilons *= np.sqrt(_sums(z)[:, 2] / (m * inner)).astype(z.dtype)
    rows, row = (1, m) if inner == 1 else (m, inner)
    parts = -(-rows // max(1, nonlinear.PIECE // row))
    found = np.empty((n, parts, 4))
    run(
        nonlinear.divide, n * parts, 2 * r.size,
        _input(z, out), _input(r, out), _input(r if gate == 0 else gate_z, out), int(gate), _input(bias, out),
        _input(np.array([scale], z.dtype), out), _input(epsilons, out), bool(clip), rows, row,
        out.reshape(-1), found.reshape(-1),
    )  # fmt: skip
    ledger += found.sum(axis=1)


def sums(src: Array, out: Array) -> None:
    """Per sample of `src` (n, size) into `out` (float64, (n, 2)): the sum, and the sum of |src|."""
    _require(src.ndim == 2 and out.shape == (len(src), 2), "sums", src=src, out=out)
    out[...] = _sums(src)[:, :2]


def _sums(src: Array) -> Array:
    """Per sample the sums of x, |x| and x², in float64: (n, 3)."""
    n, size = len(src), prod(src.shape[1:])
    pieces = -(-size // nonlinear.PIECE)
    found = np.empty((n, pieces, 3))
    run(nonlinear.sums, n * pieces, src.size // 2, _input(src, src), size, found.reshape(-1))
    total: Array = found.sum(axis=1)
    return total
