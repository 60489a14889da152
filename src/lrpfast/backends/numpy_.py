"""The kernels' definition: plain NumPy, obvious rather than fast.

Every backend offers functions of these names and signatures; this module says what they mean.
They know nothing of rules, networks or nodes.

Conventions
-----------
- Arrays are C-contiguous and of one dtype, float32 or float64. `n` counts samples.
- A *part* is a pair `(positive, negative)` that scales the two signs of an array:
  `part(a) = positive · max(a, 0) + negative · min(a, 0)`. So `(1, 1)` is the array itself,
  `(1, 0)` its positive part and `(1, -1)` its absolute value.
- Kernels of linear operators compute `out (+)= part(times) ⊙ (A · part(src) + bias)`, where `A` is
  the operator's matrix made of `part(w)` (`*_forward`) or its transpose (`*_vjp`). Without
  `times` the factor is 1. With `accumulate` the result is added to `out`, else it replaces `out`.
  `bias` has one value per channel (axis 1) of `out`.
- Convolutions have three spatial axes; ones stand in for axes that a layer does not have. `pads`
  are those at the beginning of each axis; the sizes of `src` and `out` imply those at the end.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np

from ..ops.base import Array

Part = tuple[float, float]
Triple = tuple[int, int, int]

name = "numpy"


@contextmanager
def limit_threads(threads: int | None) -> Iterator[None]:
    """Has no effect here: NumPy's threads are those of its BLAS, which reads OMP_NUM_THREADS."""
    yield


def part(a: Array, which: Part) -> Array:
    """`positive · max(a, 0) + negative · min(a, 0)`."""
    positive, negative = which
    if positive == negative:
        return a if positive == 1 else a * a.dtype.type(positive)
    kind = a.dtype.type
    both: Array = np.maximum(a, 0) * kind(positive) + np.minimum(a, 0) * kind(negative)
    return both


def _store(
    result: Array, bias: Array | None, times: Array | None, times_part: Part, out: Array, accumulate: bool
) -> None:
    """The end that all kernels of linear operators share."""
    if bias is not None:
        result = result + bias.reshape(-1, *[1] * (out.ndim - 2))
    if times is not None:
        result = result * part(times, times_part)
    if accumulate:
        out += result
    else:
        out[...] = result


# --- dense: src (n, k), w (m, k), out (n, m); the vjp the other way round ---


def gemm_forward(
    src: Array, w: Array, src_part: Part, w_part: Part, bias: Array | None,
    times: Array | None, times_part: Part, out: Array, accumulate: bool,
) -> None:  # fmt: skip
    """Dense layer: `out[n, m] = Σ_k src[n, k] · w[m, k]`."""
    _store(part(src, src_part) @ part(w, w_part).T, bias, times, times_part, out, accumulate)


def gemm_vjp(
    src: Array, w: Array, src_part: Part, w_part: Part, bias: Array | None,
    times: Array | None, times_part: Part, out: Array, accumulate: bool,
) -> None:  # fmt: skip
    """Transposed dense layer: `out[n, k] = Σ_m src[n, m] · w[m, k]`."""
    _store(part(src, src_part) @ part(w, w_part), bias, times, times_part, out, accumulate)


# --- convolutions: x (n, c, d, h, w), weight (m, c / groups, kd, kh, kw), z (n, m, od, oh, ow) ---


def _taps(
    x_size: tuple[int, ...], z_size: tuple[int, ...], kernel: tuple[int, ...],
    strides: Triple, pads: Triple, dilations: Triple,
) -> Iterator[tuple[tuple[int, ...], tuple[slice, ...], tuple[slice, ...]]]:  # fmt: skip
    """For each tap of a window: its index, the outputs that it serves, and the inputs it reads."""
    for tap in itertools.product(*(range(k) for k in kernel)):
        z_slices, x_slices = [], []
        for axis in range(3):
            offset = tap[axis] * dilations[axis] - pads[axis]
            step = strides[axis]
            first = max(0, -(offset // step))  # the first output whose tap is at or after index 0
            last = min(z_size[axis] - 1, (x_size[axis] - 1 - offset) // step)
            if last < first:
                break
            z_slices.append(slice(first, last + 1))
            x_slices.append(slice(first * step + offset, last * step + offset + 1, step))
        else:
            yield tap, (slice(None), slice(None), *z_slices), (slice(None), slice(None), *x_slices)


def _at_tap(weight: Array, tap: tuple[int, ...]) -> Array:
    """The weights of one tap: (m, c / groups)."""
    d, h, w = tap
    return weight[:, :, d, h, w]


def conv_forward(
    src: Array, w: Array, strides: Triple, pads: Triple, dilations: Triple, groups: int,
    src_part: Part, w_part: Part, bias: Array | None,
    times: Array | None, times_part: Part, out: Array, accumulate: bool,
) -> None:  # fmt: skip
    """Convolution (ONNX Conv): `src` is x, `out` is z."""
    x, weight = part(src, src_part), part(w, w_part)
    m, c = w.shape[0] // groups, w.shape[1]
    z = np.zeros_like(out)
    for tap, z_at, x_at in _taps(x.shape[2:], out.shape[2:], w.shape[2:], strides, pads, dilations):
        taken = x[x_at]
        for g in range(groups):
            some_w = _at_tap(weight, tap)[g * m : (g + 1) * m]
            some_x = taken[:, g * c : (g + 1) * c]
            flat = some_x.reshape(len(x), c, -1)
            z[z_at][:, g * m : (g + 1) * m] += (some_w @ flat).reshape(len(x), m, *some_x.shape[2:])
    _store(z, bias, times, times_part, out, accumulate)


def conv_vjp(
    src: Array, w: Array, strides: Triple, pads: Triple, dilations: Triple, groups: int,
    src_part: Part, w_part: Part, bias: Array | None,
    times: Array | None, times_part: Part, out: Array, accumulate: bool,
) -> None:  # fmt: skip
    """Transposed convolution (ONNX ConvTranspose): `src` is like z, `out` like x."""
    z, weight = part(src, src_part), part(w, w_part)
    m, c = w.shape[0] // groups, w.shape[1]
    x = np.zeros_like(out)
    for tap, z_at, x_at in _taps(out.shape[2:], z.shape[2:], w.shape[2:], strides, pads, dilations):
        taken = z[z_at]
        for g in range(groups):
            some_w = _at_tap(weight, tap)[g * m : (g + 1) * m]
            some_z = taken[:, g * m : (g + 1) * m]
            flat = some_z.reshape(len(z), m, -1)
            x[x_at][:, g * c : (g + 1) * c] += (some_w.T @ flat).reshape(len(z), c, *some_z.shape[2:])
    _store(x, bias, times, times_part, out, accumulate)


def depthwise_forward(
    src: Array, w: Array, strides: Triple, pads: Triple, dilations: Triple,
    src_part: Part, w_part: Part, bias: Array | None,
    times: Array | None, times_part: Part, out: Array, accumulate: bool,
) -> None:  # fmt: skip
    """Convolution with one filter a channel: w is (c, 1, kd, kh, kw), `src` x, `out` z."""
    x, weight = part(src, src_part), part(w, w_part)
    z = np.zeros_like(out)
    for tap, z_at, x_at in _taps(x.shape[2:], out.shape[2:], w.shape[2:], strides, pads, dilations):
        z[z_at] += x[x_at] * _at_tap(weight, tap).reshape(-1, 1, 1, 1)
    _store(z, bias, times, times_part, out, accumulate)


def depthwise_vjp(
    src: Array, w: Array, strides: Triple, pads: Triple, dilations: Triple,
    src_part: Part, w_part: Part, bias: Array | None,
    times: Array | None, times_part: Part, out: Array, accumulate: bool,
) -> None:  # fmt: skip
    """Transpose of `depthwise_forward`: `src` is like z, `out` like x."""
    z, weight = part(src, src_part), part(w, w_part)
    x = np.zeros_like(out)
    for tap, z_at, x_at in _taps(out.shape[2:], z.shape[2:], w.shape[2:], strides, pads, dilations):
        x[x_at] += z[z_at] * _at_tap(weight, tap).reshape(-1, 1, 1, 1)
    _store(x, bias, times, times_part, out, accumulate)


# --- pooling: x (n, c, d, h, w), z (n, c, od, oh, ow) ---


def sumpool_forward(
    src: Array, w: Array, window: Triple, strides: Triple, pads: Triple, dilations: Triple,
    src_part: Part, w_part: Part, bias: Array | None,
    times: Array | None, times_part: Part, out: Array, accumulate: bool,
) -> None:  # fmt: skip
    """Sum over windows, times a weight per output place: w is (od, oh, ow), `src` x, `out` z."""
    x = part(src, src_part)
    z = np.zeros_like(out)
    for _, z_at, x_at in _taps(x.shape[2:], out.shape[2:], window, strides, pads, dilations):
        z[z_at] += x[x_at]
    _store(z * part(w, w_part), bias, times, times_part, out, accumulate)


def sumpool_vjp(
    src: Array, w: Array, window: Triple, strides: Triple, pads: Triple, dilations: Triple,
    src_part: Part, w_part: Part, bias: Array | None,
    times: Array | None, times_part: Part, out: Array, accumulate: bool,
) -> None:  # fmt: skip
    """Transpose of `sumpool_forward`: `src` is like z, `out` like x."""
    z = part(src, src_part) * part(w, w_part)
    x = np.zeros_like(out)
    for _, z_at, x_at in _taps(out.shape[2:], z.shape[2:], window, strides, pads, dilations):
        x[x_at] += z[z_at]
    _store(x, bias, times, times_part, out, accumulate)


def maxpool_forward(
    src: Array, window: Triple, strides: Triple, pads: Triple, dilations: Triple,
    out: Array, winners: Array,
) -> None:  # fmt: skip
    """Maximum over windows; padding never wins.

    `winners` (int32, shape of `out`) receives the flat index of the winner in its `d · h · w`
    plane. Among equals the first in row-major order wins.
    """
    size = src.shape[2:]
    plane = np.arange(np.prod(size), dtype=np.int32).reshape(1, 1, *size)
    out[...] = -np.inf
    winners[...] = 0
    for _, z_at, x_at in _taps(size, out.shape[2:], window, strides, pads, dilations):
        better = src[x_at] > out[z_at]
        out[z_at] = np.where(better, src[x_at], out[z_at])
        winners[z_at] = np.where(better, plane[x_at], winners[z_at])


def maxpool_vjp(src: Array, winners: Array, out: Array, accumulate: bool) -> None:
    """Give each window's value to its winner: `src` and `winners` like z, `out` like x."""
    if not accumulate:
        out[...] = 0
    rows = src.shape[0] * src.shape[1]
    target = out.reshape(rows, -1)
    places = winners.reshape(rows, -1).astype(np.intp)
    np.add.at(target, (np.arange(rows)[:, None], places), src.reshape(rows, -1))


# --- elementwise ---


def clamp_forward(src: Array, slope: float, low: float, high: float, out: Array) -> None:
    """`min(max(x, low), high)`, negative x scaled by `slope` first: ReLU, LeakyReLU, Clip."""
    kind = src.dtype.type
    scaled = src if slope == 1 else np.where(src < 0, src * kind(slope), src)
    np.clip(scaled, kind(low), kind(high), out=out)


def collect(src: Array, src_part: Part, times: Array | None, times_part: Part, out: Array,
            accumulate: bool) -> None:  # fmt: skip
    """`out (+)= part(src) ⊙ part(times)`; all of one shape."""
    _store(part(src, src_part), None, times, times_part, out, accumulate)


def divide(
    z: Array, r: Array, gate_z: Array | None, gate: int, bias: Array | None, scale: float,
    epsilon: float, clip: bool, norm_scale: bool, out: Array, ledger: Array,
) -> None:  # fmt: skip
    """`out = scale · [gate] · r / stab(z)`, and where that relevance goes.

    Parameters
    ----------
    z : array (n, m, inner) or (1, m, inner)
        Denominators; with one sample, the same for all.
    r : array (n, m, inner)
        Relevance that arrives.
    gate_z : array (n, m, inner) or None
        Where `gate` is 1, only elements with `gate_z > 0` take part; where -1, those with
        `gate_z < 0`; where 0, all (and `gate_z` is not read).
    bias : array (m,) or None
        What of `z` is the bias' part; for the ledger only.
    epsilon, clip, norm_scale
        `stab(z) = z + ε σ(z)`, or with `clip` `σ(z) max(|z|, ε)`, `σ(0) = 1`; with `norm_scale`
        ε is multiplied by the root mean square of each sample of `z`. A `stab(z)` of zero gives 0.
    ledger : float64 array (n, 4)
        To each sample's row are added: Σ scale·r over the elements that take part; what the bias
        takes, Σ out·bias; what the stabiliser takes, Σ out·(stab(z) − z) where z ≠ 0; and what
        meets z = 0.
    """
    kind = z.dtype.type
    eps = np.full((len(z), 1, 1), epsilon, z.dtype)
    if norm_scale:
        eps = eps * np.sqrt(np.mean(z.astype(np.float64) ** 2, axis=(1, 2), keepdims=True)).astype(z.dtype)
    sign = np.where(z < 0, kind(-1), kind(1))
    stabilized = sign * np.maximum(np.abs(z), eps) if clip else z + sign * eps
    part_of = np.ones(r.shape, bool)
    if gate:
        assert gate_z is not None
        part_of = gate_z > 0 if gate > 0 else gate_z < 0
    share = np.where(part_of, r * kind(scale), kind(0))
    np.divide(share, stabilized, out=out, where=np.broadcast_to(stabilized != 0, r.shape))
    out[np.broadcast_to(stabilized == 0, r.shape)] = 0

    s, share = out.astype(np.float64), share.astype(np.float64)
    taken = share - s * z  # what stab(z) − z takes; all of it where z = 0
    zero = np.broadcast_to(z == 0, r.shape)
    ledger[:, 0] += share.sum(axis=(1, 2))
    if bias is not None:
        ledger[:, 1] += (s * bias[:, None]).sum(axis=(1, 2))
    ledger[:, 2] += np.where(zero, 0, s * (stabilized.astype(np.float64) - z)).sum(axis=(1, 2))
    ledger[:, 3] += np.where(zero, taken, 0).sum(axis=(1, 2))


def sums(src: Array, out: Array) -> None:
    """Per sample of `src` (n, size) into `out` (float64, (n, 2)): the sum, and the sum of |src|."""
    out[:, 0] = src.sum(axis=1, dtype=np.float64)
    out[:, 1] = np.abs(src).sum(axis=1, dtype=np.float64)
