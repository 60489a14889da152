r"""Taylor decomposition of one ReLU neuron: where the propagation rules come from.

A neuron computes `f(x) = max(0, wᵀx + b)`. While it is active it is linear, so its Taylor expansion
at a *root point* `a`, where `wᵀa + b = 0`, has nothing beyond the first order:

    f(x) = Σ_j R_j + residual,    R_j = w_j (x_j - a_j),    residual = 0 (up to rounding).

The whole value of the neuron is thus handed to its inputs. What is left to choose is the root, and
each propagation rule is one choice of the line `a = x + t·v` on which the root is looked for:

    t = -f(x) / wᵀv,    R_j = f(x) · w_j v_j / Σ_i w_i v_i.

The bias moves the root along the line (it is part of f) but never enters the denominator: these are
the rules with `bias=False`. With `b ≤ 0` each root lies in the domain named in `DIRECTIONS`, and with
"w2", "z+" and "zB" no relevance is negative. With `b > 0` the root may fall outside the domain: the
expansion is still exact, but its root is no longer an input that the neuron could have seen.

References
----------
G. Montavon, S. Lapuschkin, A. Binder, W. Samek, K.-R. Müller, "Explaining nonlinear classification
decisions with deep Taylor decomposition", Pattern Recognition 65 (2017) 211-222,
doi:10.1016/j.patcog.2016.11.008.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .errors import InputError, NonFiniteError, RuleError

Array = NDArray[np.float64]


@dataclass(frozen=True)
class SearchDirection:
    """A direction in which a root point is looked for, and the rule that follows from it.

    Attributes
    ----------
    rule : str
        The propagation rule, with `bias=False`, that equals the first-order term.
    formula : str
        The direction `v`, up to its length and sign.
    domain : str
        Where the inputs live, and with `b ≤ 0` the root too.
    vector : callable
        `(x, w, low, high) → v`.
    """

    rule: str
    formula: str
    domain: str
    vector: Callable[[Array, Array, Array, Array], Array]


def _towards_the_corner(x: Array, w: Array, low: Array, high: Array) -> Array:
    return np.where(w > 0, low - x, np.where(w < 0, high - x, 0.0))


DIRECTIONS: Mapping[str, SearchDirection] = MappingProxyType(
    {
        "w2": SearchDirection("WSquare", "v = w", "all of ℝⁿ", lambda x, w, low, high: w),
        "z": SearchDirection("Z", "v = x", "the segment from 0 to x", lambda x, w, low, high: x),
        "z+": SearchDirection("ZPlus", "v_j = x_j·1[w_j > 0]", "x ≥ 0", lambda x, w, low, high: x * (w > 0)),
        "zB": SearchDirection(
            "ZBox",
            "v_j = low_j - x_j where w_j > 0, high_j - x_j where w_j < 0",
            "low ≤ x ≤ high, with low ≤ 0 ≤ high",
            _towards_the_corner,
        ),
    }
)
"""The search directions by name: "w2", "z", "z+" and "zB"."""


@dataclass(frozen=True)
class TaylorExpansion:
    """First-order Taylor expansion of one ReLU neuron at a root point.

    Attributes
    ----------
    root : ndarray of float64
        The point `a` on the neuron's hinge, `wᵀa + b = 0`; the input itself if the neuron is off.
    value : float
        `f(x)`.
    first_order : ndarray of float64
        `R_j = w_j (x_j - a_j)`: the relevance of each input. Zero if the neuron is off.
    residual : float
        `f(x) - Σ_j R_j`: what the first order does not explain; rounding only.
    direction : str
        Key of `DIRECTIONS`.
    """

    root: Array
    value: float
    first_order: Array
    residual: float
    direction: str


def decompose(
    x: ArrayLike,
    w: ArrayLike,
    b: float,
    direction: str = "z+",
    low: ArrayLike | None = None,
    high: ArrayLike | None = None,
) -> TaylorExpansion:
    """Expand `f(x) = max(0, wᵀx + b)` at the root on the line through `x` in a search direction.

    =====  ==================================  =====================  =============================
    name   direction `v`                       root, if `b ≤ 0`, in   `R_j / f(x)`
    =====  ==================================  =====================  =============================
    w2     `w`                                 ℝⁿ                     `w_j² / Σ w²`
    z      `x`                                 segment from 0 to x    `x_j w_j / Σ x w`
    z+     `x_j` where `w_j > 0`, else 0       `a ≥ 0`                `x_j w_j⁺ / Σ x w⁺`
    zB     towards `low_j` where `w_j > 0`,    `low ≤ a ≤ high`       `q_j / Σ q`, with
           towards `high_j` where `w_j < 0`                           `q = x w - low w⁺ - high w⁻`
    =====  ==================================  =====================  =============================

    Parameters
    ----------
    x, w : array_like
        Inputs and weights of the neuron, of one shape (any shape; a convolution's patch, say).
    b : float
        Bias.
    direction : str, default "z+"
        Key of `DIRECTIONS`. "z+" needs `x ≥ 0`; "zB" needs `low ≤ x ≤ high` and `low ≤ 0 ≤ high`.
    low, high : array_like, optional
        Bounds of the inputs for "zB", and for it alone: scalars or arrays that broadcast to `x`.

    Returns
    -------
    TaylorExpansion
        In float64. A neuron that is off, `wᵀx + b ≤ 0`, has the root `x` and no relevance.

    Raises
    ------
    InputError
        Shapes do not fit, or `x` lies outside the direction's domain.
    NonFiniteError
        NaN or infinity in an argument.
    RuleError
        Unknown direction, missing or needless bounds, bounds that do not enclose zero, or a neuron
        that is active all along the line, so that there is no root on it.
    """
    if direction not in DIRECTIONS:
        raise RuleError(f"unknown search direction {direction!r}; choose one of {', '.join(DIRECTIONS)}")
    x, w, bias = _vector("x", x), _vector("w", w), _scalar("b", b)
    if x.shape != w.shape:
        raise InputError(
            f"x has shape {x.shape} and w has shape {w.shape}; a neuron has one weight per input"
        )
    low, high = _bounds(direction, low, high, x.shape)
    _check_domain(direction, x, low, high)

    with np.errstate(over="ignore", invalid="ignore"):
        value = max(float((w * x).sum() + bias), 0.0)
    if not np.isfinite(value):
        raise NonFiniteError("wᵀx + b overflows float64; scale the neuron down")
    step = np.zeros_like(x)  # x - a, which stays zero if the neuron is off
    if value > 0:
        v = DIRECTIONS[direction].vector(x, w, low, high)
        step = _length(value, w, v, direction) * v
    first_order = w * step
    residual = value - float(first_order.sum())
    return TaylorExpansion(_frozen(x - step), value, _frozen(first_order), residual, direction)


def _length(value: float, w: Array, v: Array, direction: str) -> float:
    """`f(x) / wᵀv`: how far the root lies from `x`, in lengths of `v`.

    Refused where `wᵀv` is zero within rounding: the line then never meets the hinge.
    """
    terms = w * v
    slope = float(terms.sum())
    rounding = terms.size * np.finfo(np.float64).eps * float(np.abs(terms).sum())
    if abs(slope) <= rounding or not np.isfinite(value / slope):
        raise RuleError(
            f"the neuron has no root in direction {direction!r}, {DIRECTIONS[direction].formula}: f(x) = "
            f"{value:.6g} > 0, but wᵀv = {slope:.6g}, so f does not fall to zero along v (a positive bias "
            "does this); try another direction"
        )
    return value / slope


def _bounds(
    direction: str, low: ArrayLike | None, high: ArrayLike | None, shape: tuple[int, ...]
) -> tuple[Array, Array]:
    """The direction's domain `low ≤ x ≤ high`, in the shape of `x`."""
    if direction != "zB":
        if low is not None or high is not None:
            raise RuleError(f"low and high belong to direction 'zB'; {direction!r} takes no bounds")
        return np.full(shape, 0.0 if direction == "z+" else -np.inf), np.full(shape, np.inf)
    if low is None or high is None:
        raise RuleError("direction 'zB' needs the bounds of the inputs: give low and high")
    ends = []
    for name, end in (("low", low), ("high", high)):
        try:
            ends.append(np.broadcast_to(_finite(name, end), shape))
        except ValueError:
            raise InputError(
                f"{name} has shape {np.shape(end)}, which does not broadcast to x's {shape}"
            ) from None
    if np.any(ends[0] > 0) or np.any(ends[1] < 0):
        raise RuleError(
            f"direction 'zB' needs low ≤ 0 ≤ high everywhere; low reaches {ends[0].max():.6g} and high "
            f"{ends[1].min():.6g}; use bounds that enclose zero"
        )
    return ends[0], ends[1]


def _check_domain(direction: str, x: Array, low: Array, high: Array) -> None:
    outside = np.argwhere((x < low) | (x > high))
    if len(outside):
        j = tuple(int(i) for i in outside[0])
        raise InputError(
            f"direction {direction!r} is for inputs in the domain {DIRECTIONS[direction].domain}, but "
            f"x{list(j)} = {x[j]:.6g} is not in [{low[j]:.6g}, {high[j]:.6g}]; use 'w2' for any input"
        )


def _vector(name: str, values: ArrayLike) -> Array:
    array = _finite(name, values)
    if array.size == 0:
        raise InputError(f"{name} is empty; a neuron needs at least one input")
    return array


def _scalar(name: str, value: ArrayLike) -> float:
    array = _finite(name, value)
    if array.size != 1:
        raise InputError(f"{name} has shape {array.shape}; one neuron has one bias, a number")
    return float(array.reshape(()))


def _finite(name: str, values: ArrayLike) -> Array:
    try:
        array = np.asarray(values)
        if array.dtype.kind not in "biuf":
            raise TypeError
    except (TypeError, ValueError):
        raise InputError(f"{name} is not an array of real numbers: {values!r:.80}") from None
    array = array.astype(np.float64)
    if not np.all(np.isfinite(array)):
        raise NonFiniteError(f"{name} holds NaN or infinity; a Taylor expansion needs finite numbers")
    return array


def _frozen(array: Array) -> Array:
    array.flags.writeable = False
    return array
