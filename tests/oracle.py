"""The rules written out for a dense matrix, in float64: what every rule on every layer is held to.

Whatever a linear layer is, it is a matrix: `matrix` finds it by feeding unit vectors to the layer's
`forward`. On a matrix each rule is a line or two, and says the same as the formula in the literature.
Nothing here knows how the package represents, simplifies or computes its rules.

Shapes: x (n, inputs), w (outputs, inputs), b (outputs,), r (n, outputs); a rule returns (n, inputs).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Layer:
    """A linear layer `z = w x + b` as a matrix.

    Attributes
    ----------
    w : array (outputs, inputs)
    b : array (outputs,)
    connected : array of bool (outputs, inputs)
        Which inputs an output reads, be their weights zero or not.
    """

    w: Array
    b: Array
    connected: NDArray[np.bool_]


def matrix(op: Any, *shapes: tuple[int, ...]) -> Layer:
    """The matrix of a linear operator whose inputs have these shapes per sample."""
    zeros = [np.zeros((1, *shape)) for shape in shapes]
    b = op.forward(*zeros).reshape(-1)
    w = _jacobian(_without_bias(op), shapes)
    return Layer(w, b, _jacobian(_with_ones(op), shapes) != 0)


def _jacobian(op: Any, shapes: tuple[tuple[int, ...], ...]) -> Array:
    sizes = [int(np.prod(shape)) for shape in shapes]
    units = np.split(np.eye(sum(sizes)), np.cumsum(sizes)[:-1], axis=1)
    columns = op.forward(*(u.reshape(-1, *shape) for u, shape in zip(units, shapes, strict=True)))
    return columns.reshape(sum(sizes), -1).T.astype(np.float64)


def _without_bias(op: Any) -> Any:
    if hasattr(op, "bias"):
        return replace(op, bias=None)
    return replace(op, shift=np.zeros_like(op.shift)) if hasattr(op, "shift") else op


def _with_ones(op: Any) -> Any:
    op = _without_bias(op)
    names = [name for name in ("weight", "scale") if hasattr(op, name)]
    return replace(op, **{name: np.ones_like(getattr(op, name)) for name in names})


# --- the stabiliser, and what all rules do with it ---


def stabilized(z: Array, epsilon: float = 1e-6, clip: bool = False, norm_scale: bool = False) -> Array:
    """`z + ε σ(z)` or `σ(z) max(|z|, ε)`, `σ(0) = 1`; ε times the RMS of each sample if `norm_scale`."""
    sign = np.where(z < 0, -1.0, 1.0)
    size = epsilon * (np.sqrt((z**2).mean(axis=1, keepdims=True)) if norm_scale else np.ones((len(z), 1)))
    return sign * np.maximum(np.abs(z), size) if clip else z + sign * size


def shared(q: Array, z: Array, r: Array, **stabilizer: Any) -> Array:
    """`R_j = Σ_k q_kj R_k / stab(z_k)`, with nothing where `stab(z_k)` is zero; q is (n, outputs, inputs)."""
    denominator = stabilized(z, **stabilizer)
    s = np.divide(r, denominator, out=np.zeros_like(r), where=denominator != 0)
    return np.einsum("nkj,nk->nj", q, s)


def _pos(a: Array) -> Array:
    return np.maximum(a, 0)


def _neg(a: Array) -> Array:
    return np.minimum(a, 0)


def _contributions(layer: Layer, x: Array) -> Array:
    return x[:, None, :] * layer.w


# --- the rules ---


def z(layer: Layer, x: Array, r: Array, bias: bool = True) -> Array:
    """LRP-0."""
    return epsilon(layer, x, r, bias, epsilon=0.0)


def epsilon(layer: Layer, x: Array, r: Array, bias: bool = True, **stabilizer: Any) -> Array:
    """LRP-ε, and Norm."""
    xw = _contributions(layer, x)
    return shared(xw, xw.sum(2) + bias * layer.b, r, **stabilizer)


def z_plus(layer: Layer, x: Array, r: Array, bias: bool = True, **stabilizer: Any) -> Array:
    """z⁺ for inputs of any sign."""
    q = _pos(_contributions(layer, x))
    return shared(q, q.sum(2) + bias * _pos(layer.b), r, **stabilizer)


def alpha_beta(
    layer: Layer, x: Array, r: Array, alpha: float, beta: float, bias: bool = True, **stabilizer: Any
) -> Array:
    """LRP-αβ."""
    xw = _contributions(layer, x)
    plus, minus = _pos(xw), _neg(xw)
    activators = shared(plus, plus.sum(2) + bias * _pos(layer.b), r, **stabilizer)
    inhibitors = shared(minus, minus.sum(2) + bias * _neg(layer.b), r, **stabilizer)
    return alpha * activators - beta * inhibitors


def gamma(layer: Layer, x: Array, r: Array, gamma: float, bias: bool = True, **stabilizer: Any) -> Array:
    """LRP-γ, generalised: what has the sign of the output counts 1 + γ times."""
    xw, b = _contributions(layer, x), layer.b
    output = xw.sum(2) + b
    result = np.zeros_like(x)
    for of_sign, gate in ((_pos, output > 0), (_neg, output < 0)):
        q = xw + gamma * of_sign(xw)
        result += shared(q, q.sum(2) + bias * (b + gamma * of_sign(b)), r * gate, **stabilizer)
    return result


def z_box(layer: Layer, x: Array, r: Array, low: Any, high: Any, **stabilizer: Any) -> Array:
    """z^B; `low` and `high` broadcast to x."""
    w = layer.w
    low, high = (np.broadcast_to(bound, x.shape)[:, None, :] for bound in (low, high))
    q = x[:, None, :] * w - low * _pos(w) - high * _neg(w)
    return shared(q, q.sum(2), r, **stabilizer)


def abs_norm(layer: Layer, x: Array, r: Array, **stabilizer: Any) -> Array:
    """In proportion to magnitudes; the bias takes no part."""
    q = np.abs(_contributions(layer, x))
    return shared(q, q.sum(2), r, **stabilizer)


def w_square(layer: Layer, x: Array, r: Array, bias: bool = True, **stabilizer: Any) -> Array:
    """w²."""
    q = np.broadcast_to(layer.w**2, (len(x), *layer.w.shape))
    return shared(q, q.sum(2) + bias * layer.b**2, r, **stabilizer)


def flat(layer: Layer, x: Array, r: Array, **stabilizer: Any) -> Array:
    """Equal shares for all inputs that an output reads."""
    q = np.broadcast_to(layer.connected.astype(np.float64), (len(x), *layer.w.shape))
    return shared(q, q.sum(2), r, **stabilizer)


def gradient(layer: Layer, x: Array, r: Array) -> Array:
    """`Jᵀ r`."""
    return r @ layer.w


def passed(layer: Layer, x: Array, r: Array) -> Array:
    """Relevance as it came."""
    return r.copy()
