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
from .numba_plan import gather, spans
from .numba_threads import limit_threads, run
from .numpy_ import Part, Triple, part

__all__ = [
    "clamp_forward", "collect", "conv_forward", "conv_vjp", "depthwise_forward", "depthwise_vjp", "divide",
    "gemm_forward", "gemm_vjp", "limit_threads", "maxpool_forward", "maxpool_vjp", "name",
    "sumpool_forward", "sumpool_vjp", "sums",
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
    n, src_size, out_size, taps = len(out), src.shape[2:], out.shape[2:], prod(w.shape[2:])
    plan = gather(
        transposed, src_size, out_size, w.shape[2:], tuple(strides), tuple(pads), tuple(dilations), ins
    )

    blocks = -(-outs // linear.ROWS)
    packed = np.empty(groups * blocks * linear.ROWS * ins * len(plan.taps), out.dtype)
    steps = (outs * ins * taps, taps, outs * taps) if transposed else (outs * ins * taps, ins * taps, taps)
    run(linear.pack, groups * blocks, packed.size, flat_w, groups, outs, ins, steps, plan.phases, plan.taps,
        factors, packed)  # fmt: skip
    packed.flags.writeable = False

    channel = len(plan.residues) * prod(plan.size)
    at_once = max(1, _PADDED // (groups * ins * channel))
    for first in range(0, n, at_once):
        some = slice(first, first + at_once)
