"""The kernels' definition: plain NumPy, obvious rather than fast.

Every backend offers functions of these names and signatures; this module says what they mean.
They know nothing of rules, networks or nodes.

Conventions
-----------
- Arrays are C-contiguous and of one dtype, float32 or float64. `n` counts samples.
- Convolutions and pooling work on *blocked* arrays (n, blocks, d, h, w, lanes): channel c lies in block
  `c // lanes` at lane `c % lanes`, so that the channels of one place lie together. With one lane that is
  (n, channels, d, h, w). Lanes beyond the last channel hold zeros, and kernels keep them so.
  `src` and `out` may have different numbers of lanes. There are three spatial axes; ones stand in for
  axes that a layer does not have. `pads` are those at the beginning of each axis; the sizes of `src`
  and `out` imply those at the end. `LANES` is how many lanes a backend likes best.
- A *part* is a pair `(positive, negative)` that scales the two signs of an array:
  `part(a) = positive · max(a, 0) + negative · min(a, 0)`. So `(1, 1)` is the array itself,
  `(1, 0)` its positive part and `(1, -1)` its absolute value.
- Kernels of linear operators compute `A · part(src)`, where `A` is the operator's matrix made of
  `part(w)` (`*_forward`) or its transpose (`*_vjp`); an `Ending` says what becomes of the result.
- A convolution may have an `other_part` of its weights, for results that `end.times` multiplies by a number
  that is not positive; then its ending has neither `bias` nor `kept`.
- A convolution that is to be `exact` makes no zero out of a difference of rounded numbers: outputs all of
  whose products are zero are zero. Without it a backend may use Winograd's algorithm in float32.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..ops.base import Array
from .ending import Ending, Quotient

Part = tuple[float, float]
Triple = tuple[int, int, int]

name = "numpy"
LANES = 1


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


def bounded(a: Array, high: float) -> Array:
    """`min(a, high)`."""
    return a if high == np.inf else np.minimum(a, a.dtype.type(high))


# --- blocked arrays ---


def plain(a: Array, channels: int) -> Array:
    """A blocked array (n, blocks, ..., lanes) as (n, channels, ...)."""
    together = np.moveaxis(a, -1, 2)
    return together.reshape(a.shape[0], -1, *a.shape[2:-1])[:, :channels]


def blocked(a: NDArray[Any], lanes: int) -> NDArray[Any]:
    """(n, channels, ...) as (n, blocks, ..., lanes), zeros beyond the last channel."""
    n, channels = a.shape[:2]
    blocks = -(-channels // lanes)
    full = np.zeros((n, blocks * lanes, *a.shape[2:]), a.dtype)
    full[:, :channels] = a
    return np.ascontiguousarray(np.moveaxis(full.reshape(n, blocks, lanes, *a.shape[2:]), 2, -1))


def per_channel(values: Array, out: Array) -> Array:
    """A value per channel in the place of its lane; `out` is (n, channels) or (n, blocks, ..., lanes)."""
    if out.ndim == 2:
        return values
    return blocked(values.reshape(1, -1, *[1] * (out.ndim - 3)), out.shape[-1])


# --- endings ---


def finish(result: Array, end: Ending) -> None:
    """Write `result`, shaped like `end.out`, as the ending says."""
    value = result
    if end.bias is not None:
        value = value + per_channel(end.bias, end.out)
    if end.times is not None:
        value = value * part(bounded(end.times, end.times_high), end.times_part)
    if end.kept is not None:
        end.kept[...] = value
    if end.quotient is not None and end.quotient.mirrored is not None:
        value = np.where(end.quotient.gate_z < 0, -value, value)
    if end.plus is not None:
        value = end.plus * value.dtype.type(end.plus_factor) + value
    if end.clamp is not None:
        value = clamped(value, *end.clamp)
    if end.quotient is not None:
        eps = np.asarray(end.quotient.epsilon, value.dtype)
        value = quotient(value, eps, end.quotient, end.bias)
    end.out[...] = value
    if end.sums is not None:
        sums(end.out.reshape(len(end.out), -1), end.sums)


def clamped(x: Array, slope: float, low: float, high: float) -> Array:
    """`min(max(x, low), high)`, negative x scaled by `slope` first."""
    kind = x.dtype.type
    scaled = x if slope == 1 else np.where(x < 0, x * kind(slope), x)
    return np.clip(scaled, kind(low), kind(high))


def quotient(z: Array, epsilon: Array, of: Quotient, own_bias: Array | None = None) -> Array:
    """`of.r` over the denominators `z`, and the entries in the ledger; see `Quotient`.

    `own_bias` is the ending's, of which the ledger hears where denominators are mirrored.
    """
    kind = z.dtype.type
    sign = np.where(z < 0, kind(-1), kind(1))
    stabilized = sign * np.maximum(np.abs(z), epsilon) if of.clip else z + sign * epsilon
    takes_part = np.ones(of.r.shape, bool)
    if of.gate:
        takes_part = of.gate_z > 0 if of.gate > 0 else of.gate_z < 0
    elif of.mirrored is not None:
        takes_part = of.gate_z != 0
    share = np.where(takes_part, of.r * kind(of.scale), kind(0))
    alive = np.broadcast_to(stabilized != 0, share.shape)
    s: Array = np.divide(share, stabilized, out=np.zeros_like(share), where=alive)

    axes = tuple(range(1, share.ndim))
    s64, share64 = s.astype(np.float64), share.astype(np.float64)
    zero = np.broadcast_to(z == 0, share.shape)
    of.ledger[:, 0] += share64.sum(axis=axes)
    if of.bias is not None:
        of.ledger[:, 1] += (s64 * per_channel(of.bias, of.r)).sum(axis=axes)
    of.ledger[:, 2] += np.where(zero, 0, s64 * (stabilized.astype(np.float64) - z)).sum(axis=axes)
    of.ledger[:, 3] += np.where(zero, share64, 0).sum(axis=axes)
    if of.mirrored is not None:
        of.mirrored[...] = np.where(of.gate_z < 0, -s, s)
        if own_bias is not None:
            of.ledger[:, 1] += (of.mirrored.astype(np.float64) * per_channel(own_bias, of.r)).sum(axis=axes)
    return s


# --- dense: src (n, k), w (m, k), out (n, m); the vjp the other way round ---


def gemm_forward(src: Array, w: Array, src_part: Part, w_part: Part, end: Ending) -> None:
    """Dense layer: `result[n, m] = Σ_k src[n, k] · w[m, k]`."""
    finish(part(src, src_part) @ part(w, w_part).T, end)


def gemm_vjp(src: Array, w: Array, src_part: Part, w_part: Part, end: Ending) -> None:
    """Transposed dense layer: `result[n, k] = Σ_m src[n, m] · w[m, k]`."""
    finish(part(src, src_part) @ part(w, w_part), end)


# --- convolutions: x has c channels, w is (m, c / groups, kd, kh, kw), z has m channels ---


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
    src_part: Part, w_part: Part, other_part: Part | None, exact: bool, end: Ending,
) -> None:  # fmt: skip
    """Convolution (ONNX Conv): `src` is x, `out` is z."""
    m, c = w.shape[0] // groups, w.shape[1]
    x = part(plain(src, c * groups), src_part)

    def product(weight: Array) -> Array:
        z = np.zeros((len(x), len(w), *end.out.shape[2:5]), src.dtype)
        for tap, z_at, x_at in _taps(x.shape[2:], z.shape[2:], w.shape[2:], strides, pads, dilations):
            taken = x[x_at]
            for g in range(groups):
                some_w = _at_tap(weight, tap)[g * m : (g + 1) * m]
                some_x = taken[:, g * c : (g + 1) * c]
                flat = some_x.reshape(len(x), c, -1)
                z[z_at][:, g * m : (g + 1) * m] += (some_w @ flat).reshape(len(x), m, *some_x.shape[2:])
        return blocked(z, end.out.shape[-1])

    finish(_by_sign(product, w, w_part, other_part, end), end)


def conv_vjp(
    src: Array, w: Array, strides: Triple, pads: Triple, dilations: Triple, groups: int,
    src_part: Part, w_part: Part, other_part: Part | None, exact: bool, end: Ending,
) -> None:  # fmt: skip
    """Transposed convolution (ONNX ConvTranspose): `src` is like z, `out` like x."""
    m, c = w.shape[0] // groups, w.shape[1]
    z = part(plain(src, len(w)), src_part)

    def product(weight: Array) -> Array:
        x = np.zeros((len(z), c * groups, *end.out.shape[2:5]), src.dtype)
        for tap, z_at, x_at in _taps(x.shape[2:], z.shape[2:], w.shape[2:], strides, pads, dilations):
            taken = z[z_at]
            for g in range(groups):
                some_w = _at_tap(weight, tap)[g * m : (g + 1) * m]
                some_z = taken[:, g * m : (g + 1) * m]
                flat = some_z.reshape(len(z), m, -1)
                x[x_at][:, g * c : (g + 1) * c] += (some_w.T @ flat).reshape(len(z), c, *some_z.shape[2:])
        return blocked(x, end.out.shape[-1])

    finish(_by_sign(product, w, w_part, other_part, end), end)


def _by_sign(
    product: Callable[[Array], Array], w: Array, w_part: Part, other_part: Part | None, end: Ending
) -> Array:
    """The product with `part(w, w_part)`; but with the other part where `end.times` is not positive."""
    result = product(part(w, w_part))
    if other_part is None:
        return result
    return np.where(end.times > 0, result, product(part(w, other_part)))


def depthwise_forward(
    src: Array, w: Array, strides: Triple, pads: Triple, dilations: Triple,
    src_part: Part, src_high: float, w_part: Part, end: Ending,
) -> None:  # fmt: skip
    """Convolution with one filter a channel: w is (c, 1, kd, kh, kw), `src` x, `out` z.

    It reads `min(src, src_high)`; so does its transpose.
    """
    x, weight = part(plain(bounded(src, src_high), len(w)), src_part), part(w, w_part)
    z = np.zeros((*x.shape[:2], *end.out.shape[2:5]), src.dtype)
    for tap, z_at, x_at in _taps(x.shape[2:], z.shape[2:], w.shape[2:], strides, pads, dilations):
        z[z_at] += x[x_at] * _at_tap(weight, tap).reshape(-1, 1, 1, 1)
    finish(blocked(z, end.out.shape[-1]), end)


def depthwise_vjp(
    src: Array, w: Array, strides: Triple, pads: Triple, dilations: Triple,
    src_part: Part, src_high: float, w_part: Part, end: Ending,
) -> None:  # fmt: skip
    """Transpose of `depthwise_forward`: `src` is like z, `out` like x."""
    z, weight = part(plain(bounded(src, src_high), len(w)), src_part), part(w, w_part)
    x = np.zeros((*z.shape[:2], *end.out.shape[2:5]), src.dtype)
    for tap, z_at, x_at in _taps(x.shape[2:], z.shape[2:], w.shape[2:], strides, pads, dilations):
        x[x_at] += z[z_at] * _at_tap(weight, tap).reshape(-1, 1, 1, 1)
    finish(blocked(x, end.out.shape[-1]), end)


# --- pooling: src and out have the same lanes, all of them channels like any other ---


def sumpool_forward(
    src: Array, w: Array, window: Triple, strides: Triple, pads: Triple, dilations: Triple,
    src_part: Part, w_part: Part, end: Ending,
) -> None:  # fmt: skip
    """Sum over windows, times a weight per output place: w is (od, oh, ow), `src` x, `out` z."""
    lanes = src.shape[-1]
    x = part(plain(src, src.shape[1] * lanes), src_part)
    z = np.zeros((*x.shape[:2], *end.out.shape[2:5]), src.dtype)
    for _, z_at, x_at in _taps(x.shape[2:], z.shape[2:], window, strides, pads, dilations):
        z[z_at] += x[x_at]
    finish(blocked(z * part(w, w_part), lanes), end)


def sumpool_vjp(
    src: Array, w: Array, window: Triple, strides: Triple, pads: Triple, dilations: Triple,
    src_part: Part, w_part: Part, end: Ending,
) -> None:  # fmt: skip
    """Transpose of `sumpool_forward`: `src` is like z, `out` like x."""
    lanes = src.shape[-1]
    z = part(plain(src, src.shape[1] * lanes), src_part) * part(w, w_part)
    x = np.zeros((*z.shape[:2], *end.out.shape[2:5]), src.dtype)
    for _, z_at, x_at in _taps(x.shape[2:], z.shape[2:], window, strides, pads, dilations):
        x[x_at] += z[z_at]
    finish(blocked(x, lanes), end)


def maxpool_forward(
    src: Array, window: Triple, strides: Triple, pads: Triple, dilations: Triple,
    out: Array, winners: Array,
) -> None:  # fmt: skip
    """Maximum over windows; padding never wins.

    `winners` (int32, shape of `out`) receives the flat index of the winner in its `d · h · w`
    plane. Among equals the first in row-major order wins.
    """
    size, lanes = src.shape[2:5], src.shape[-1]
    x = plain(src, src.shape[1] * lanes)
    plane = np.arange(np.prod(size), dtype=np.int32).reshape(1, 1, *size)
    z = np.full((*x.shape[:2], *out.shape[2:5]), -np.inf, src.dtype)
    best = np.zeros(z.shape, np.int32)
    for _, z_at, x_at in _taps(size, z.shape[2:], window, strides, pads, dilations):
        better = x[x_at] > z[z_at]
        z[z_at] = np.where(better, x[x_at], z[z_at])
        best[z_at] = np.where(better, plane[x_at], best[z_at])
    out[...] = blocked(z, lanes)
    winners[...] = blocked(best, lanes)


def maxpool_vjp(
    src: Array, winners: Array, window: Triple, strides: Triple, pads: Triple, dilations: Triple,
    end: Ending,
) -> None:  # fmt: skip
    """Give each window's value to its winner: `src` and `winners` like z, `out` like x."""
    n, blocks, *size, lanes = end.out.shape
    rows = n * blocks * lanes
    places = plain(winners, blocks * lanes).reshape(rows, -1).astype(np.intp)
    x = np.zeros((rows, int(np.prod(size))), src.dtype)
    np.add.at(x, (np.arange(rows)[:, None], places), plain(src, blocks * lanes).reshape(rows, -1))
    finish(blocked(x.reshape(n, blocks * lanes, *size), lanes), end)


# --- elementwise: arrays are (n, blocks, inner, lanes) ---


def affine(src: Array, w: Array, src_part: Part, w_part: Part, end: Ending) -> None:
    """A factor per channel: w is (channels,). Its own transpose, but for the ending."""
    finish(part(src, src_part) * per_channel(part(w, w_part), src), end)


def collect(src: Array, src_part: Part, end: Ending) -> None:
    """Nothing but the ending: `part(src)` is the result."""
    finish(part(src, src_part), end)


def divide(z: Array, norm_size: int, end: Ending) -> None:
    """The quotient of the ending alone, for what an ending cannot know; it has nothing else but `sums`, and is
    not mirrored.

    `z` may have one sample for all of `out`. With `norm_size` ε is multiplied by the root mean square of
    each sample of `z`, which has that many elements (lanes beyond the last channel are none).
    """
    assert end.quotient is not None
    epsilon = np.full((len(z), 1, 1, 1), end.quotient.epsilon, z.dtype)
    if norm_size:
        squares = np.square(z.astype(np.float64)).sum(axis=(1, 2, 3), keepdims=True)
        epsilon = epsilon * np.sqrt(squares / norm_size).astype(z.dtype)
    end.out[...] = quotient(z, epsilon, end.quotient)
    if end.sums is not None:
        sums(end.out.reshape(len(end.out), -1), end.sums)


# --- order ---


def reorder(src: Array, channels: int, end: Ending) -> None:
    """Change the number of lanes: `src` (n, blocks, inner, lanes), `out` the same with other lanes."""
    finish(blocked(plain(src, channels), end.out.shape[-1]), end)


def sums(src: Array, out: Array) -> None:
    """Per sample of `src` (n, size) into `out` (float64, (n, 2)): the sum, and the sum of |src|."""
    out[:, 0] = src.sum(axis=1, dtype=np.float64)
    out[:, 1] = np.abs(src).sum(axis=1, dtype=np.float64)
