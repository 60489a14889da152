"""How kernels end: what happens to a result before it is written.

An ending does what would otherwise be passes over memory of their own.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

WHOLE = (1.0, 1.0)


@dataclass(frozen=True)
class Quotient:
    """Relevance over the result as its denominator: `s = scale · [gate] · r / stab(z)`.

    Or over one of two denominators that mirror each other, as the sign of `gate_z` has it: with `mirrored` the
    result and the ending's `bias` change their sign where `gate_z < 0`, before `plus` is added.

    Arrays are shaped like `out`, but for `ledger` and `bias`. In a plan they are the names of arrays.

    Attributes
    ----------
    r : array
        Relevance that arrives.
    ledger : float64 array (n, 4)
        To each sample's row are added: Σ scale·r over the elements that take part; what the bias
        takes, Σ s·bias, and with `mirrored` Σ mirrored·(the ending's bias) too; what the stabiliser takes,
        Σ s·(stab(z) − z) where z ≠ 0; and what meets z = 0.
    epsilon : float
    clip : bool, default False
        `stab(z) = z + ε σ(z)`, or with `clip` `σ(z) max(|z|, ε)`, `σ(0) = 1`. A `stab(z)` of zero gives 0.
    scale : float, default 1
    gate : {-1, 0, 1}, default 0
        Where 1, only elements with `gate_z > 0` take part; where -1, those with `gate_z < 0`.
    gate_z : array or None
        Not read where `gate` is 0 and there is no `mirrored`.
    bias : array (channels,) or None
        What of `z` is the bias' part; for the ledger only.
    mirrored : array or None
        Receives `s` times the sign of `gate_z`; where that is 0, elements take no part. Excludes a `gate`.
    """

    r: Any
    ledger: Any
    epsilon: float
    clip: bool = False
    scale: float = 1.0
    gate: int = 0
    gate_z: Any = None
    bias: Any = None
    mirrored: Any = None


@dataclass(frozen=True)
class Ending:
    """`out = f(part(min(times, times_high)) ⊙ (result + bias) + plus_factor · plus)`, with `f` nothing, a clamp,
    or a quotient.

    Arrays are shaped like `out`, but for `bias` and `sums`. In a plan they are the names of arrays.

    Attributes
    ----------
    out : array
        May be one of the arrays that the ending reads (`times`, `plus`, the quotient's `r` and `gate_z`).
    bias : array (channels,) or None
    times : array or None
    times_part : pair of float, default (1, 1)
    times_high : float, default inf
        At least 0.
    plus : array or None
    plus_factor : float, default 1
    clamp : (slope, low, high) or None
        `min(max(v, low), high)`, negative v scaled by `slope` first: ReLU, LeakyReLU, Clip.
    kept : array or None
        Receives the value as it is before `plus` and the clamp, of which there has to be one.
    quotient : Quotient or None
        Excludes `clamp`.
    sums : float64 array (n, 2) or None
        Receives, per sample, the sum of what is written to `out`, and the sum of its magnitudes.
    """

    out: Any
    bias: Any = None
    times: Any = None
    times_part: tuple[float, float] = WHOLE
    times_high: float = math.inf
    plus: Any = None
    plus_factor: float = 1.0
    clamp: tuple[float, float, float] | None = None
    kept: Any = None
    quotient: Quotient | None = None
    sums: Any = None
