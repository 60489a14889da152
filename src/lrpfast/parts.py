"""What rules are made of: parts of arrays, terms, shares and the stabilizer.

A *part* scales the two signs of an array, a *term* multiplies a part of x by a part of w, and a *share*
divides relevance in proportion to a sum of terms.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from .errors import RuleError


@dataclass(frozen=True)
class Part:
    """A part of an array `a`: `positive · max(a, 0) + negative · min(a, 0)`.

    Attributes
    ----------
    positive, negative : float
        Factors of the two signs.
    power : {0, 1, 2}
        What `a` is raised to first: 0 puts ones in its place, 2 squares it (w and b only).
    minus : {"", "low", "high"}
        For `x` only: the rule's bound that is subtracted first.
    """

    positive: float = 1.0
    negative: float = 1.0
    power: Literal[0, 1, 2] = 1
    minus: Literal["", "low", "high"] = ""

    def __post_init__(self) -> None:
        if self.power not in (0, 1, 2) or self.minus not in ("", "low", "high"):
            raise RuleError(
                f"power is {self.power!r} and minus {self.minus!r}; expected 0, 1 or 2, and '', 'low' or 'high'"
            )
        if self.power == 0 and not self.positive == self.negative == 1:
            raise RuleError("power 0 stands for ones; they have no factors, put those on the other part")

    def __str__(self) -> str:
        base = f"(a−{self.minus})" if self.minus else {0: "1", 1: "a", 2: "a²"}[self.power]
        if self.power != 1 or (self.positive == self.negative == 1):
            return base
        names = {(1.0, 0.0): "a⁺", (0.0, 1.0): "a⁻", (1.0, -1.0): "|a|"}
        return names.get((self.positive, self.negative), f"({self.positive:g}a⁺{self.negative:+g}a⁻)")


ALL, POS, NEG, ABS = Part(), Part(1, 0), Part(0, 1), Part(1, -1)
ONE, SQUARE = Part(power=0), Part(power=2)


@dataclass(frozen=True)
class Term:
    """The contributions `part(x_j) · part(w_jk)`."""

    x: Part
    w: Part

    def __post_init__(self) -> None:
        if self.x.power == 2 or self.w.minus:
            raise RuleError(f"the term {self} squares x or shifts w; x is taken whole, shifted or as ones")

    def __str__(self) -> str:
        return f"{str(self.x).replace('a', 'x')}·{str(self.w).replace('a', 'w')}"


@dataclass(frozen=True)
class Share:
    """A share of the relevance, divided in proportion to the sum of some terms.

    Attributes
    ----------
    terms : tuple of Term
        Their sum is the numerator `q_jk`.
    bias : Part or None
        Part of the bias that belongs to the denominator.
    gate : {-1, 0, 1}
        1: only outputs with `z > 0` take part, -1: those with `z < 0`, 0: all.
    scale : float
        How much of the relevance this share hands back.
    """

    terms: tuple[Term, ...]
    bias: Part | None = None
    gate: Literal[-1, 0, 1] = 0
    scale: float = 1.0

    def __post_init__(self) -> None:
        if self.gate not in (-1, 0, 1) or not np.isfinite(self.scale):
            raise RuleError(
                f"gate is {self.gate!r} and scale {self.scale!r}; expected -1, 0 or 1, and a number"
            )
        if self.bias is not None and (self.bias.power == 0 or self.bias.minus):
            raise RuleError(f"the bias' part is {self.bias}; it cannot be shifted or replaced by ones")

    def __str__(self) -> str:
        gate = {1: "[z>0] ", 0: "", -1: "[z<0] "}[self.gate]
        bias = "" if self.bias is None else " + " + str(self.bias).replace("a", "b")
        terms = " + ".join(map(str, self.terms))
        scaled = terms if self.scale == 1 else f"{self.scale:g}·({terms})"
        return f"{gate}{scaled} over the same{bias}"


def check_nonnegative(name: str, value: Any, example: float) -> None:
    """Raise `RuleError` unless `value` is a finite number ≥ 0."""
    real = isinstance(value, (int, float, np.integer, np.floating)) and not isinstance(value, bool)
    if not (real and np.isfinite(value) and value >= 0):
        raise RuleError(f"{name} is {value!r}; expected a finite number ≥ 0, such as {example:g}")


@dataclass(frozen=True)
class Stabilizer:
    """Keeps a denominator away from zero: `stab(z) = z + ε σ(z)`, with `σ(0) = 1`.

    Parameters
    ----------
    epsilon : float, default 1e-6
        ε ≥ 0. With ε = 0, outputs with `z = 0` hand nothing back.
    clip : bool, default False
        `σ(z) · max(|z|, ε)` instead of the sum.
    norm_scale : bool, default False
        Multiply ε by the root mean square of `z` over all axes but the batch.

    Raises
    ------
    RuleError
        ε is negative or not a finite number.
    """

    epsilon: float = 1e-6
    clip: bool = False
    norm_scale: bool = False

    def __post_init__(self) -> None:
        check_nonnegative("epsilon", self.epsilon, 1e-6)

    @classmethod
    def ensure(cls, value: float | Stabilizer) -> Stabilizer:
        """`value` itself if it is a stabilizer, else one with that ε."""
        return value if isinstance(value, Stabilizer) else cls(value)
