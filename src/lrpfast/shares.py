"""How sharing rules become products: the forms, from the cheapest to the plain one.

- Terms that signs rule out are dropped: with `x ≥ 0` known, z⁺ is one product and not two.
- A denominator is the layer's own output where the terms are all of `x w`; it is computed once for
  all samples where it does not depend on `x`; else it costs a product per term.
- Gamma's two gates, whose coefficients mirror each other, share three products instead of eight.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from .errors import InputError
from .graph import Node
from .linear_map import LinearMap
from .ops.activation import Clip, Relu
from .ops.base import Array
from .ops.pool import AveragePool, GlobalAveragePool
from .parts import ABS, ALL, NEG, POS, Part, Share, Term
from .plan import Delivery, HostCall, New, View, relevance_of
from .rules import CustomRule, SharingRule, ZBox

if TYPE_CHECKING:
    from .lower import Lowering

WHOLE = (1.0, 1.0)
Row = tuple[float, float]


def pair(part: Part) -> Row:
    """A part as the kernels take it."""
    return part.positive, part.negative


# --- simplification ---


def table(terms: tuple[Term, ...]) -> tuple[Row, Row] | None:
    """Coefficients of `[x⁺, x⁻] × [w⁺, w⁻]`; None if the terms are not of that form."""
    rows = np.zeros((2, 2))
    for term in terms:
        if term.x.power != 1 or term.x.minus or term.w.power != 1:
            return None
        rows += np.outer(pair(term.x), pair(term.w))
    return (float(rows[0, 0]), float(rows[0, 1])), (float(rows[1, 0]), float(rows[1, 1]))


def simplify(terms: tuple[Term, ...], x_nonnegative: bool, w_nonnegative: bool) -> tuple[Term, ...]:
    """The same contributions in as few terms as the signs allow."""
    rows = table(terms)
    if rows is None:
        return tuple(t for t in terms if not (w_nonnegative and t.w.power == 1 and t.w.positive == 0))
    positive, negative = rows
    if w_nonnegative:
        positive, negative = (positive[0], positive[0]), (negative[0], negative[0])
    if x_nonnegative or positive == negative:
        found = [(ALL, positive)]
    elif positive == (-negative[0], -negative[1]):
        found = [(ABS, positive)]
    else:
        found = [(POS, positive), (NEG, negative)]
    return tuple(Term(x, Part(*row)) for x, row in found if any(row))


@dataclass(frozen=True)
class Mirror:
    """Two gated shares with tables [[a, b], [b, a]] and [[b, a], [a, b]], as Gamma has them.

    Both are `half · x w ± tilt · |x||w|`, `half = (a + b)/2`, `tilt = (a − b)/2`, the sign that of z.
    """

    half: float
    tilt: float


def mirror(shares: tuple[Share, ...]) -> Mirror | None:
    """Whether the shares mirror each other."""
    if len(shares) != 2 or (shares[0].gate, shares[1].gate) != (1, -1):
        return None
    one, two = table(shares[0].terms), table(shares[1].terms)
    if one is None or two is None or one[1] != one[0][::-1] or two != one[::-1]:
        return None
    a, b = one[0]
    return Mirror((a + b) / 2, (a - b) / 2) if a >= b >= 0 else None


# --- shares of a layer with one input ---


def share_linear(lowering: Lowering, node: Node, rule: SharingRule) -> None:
    """Emit the steps of a sharing rule on a linear operator with one input."""
    sharing = _LinearShare(lowering, node, rule)
    shares = rule.shares()
    alive = any(share.gate for share in shares) and dead_below_zero(lowering, node)
    mirrored = mirror(shares)
    if mirrored and not (alive and sharing.x_nonnegative):
        sharing.mirrored(shares, mirrored)
        return
    for i, share in enumerate(shares):
        if not (alive and share.gate < 0):
            sharing.plain(i, share, "only the living side: no relevance arrives where z ≤ 0" if alive else "")


def dead_below_zero(lowering: Lowering, node: Node) -> bool:
    """Whether no relevance arrives where the node's output is ≤ 0: only ReLUs read it.

    Where a ReLU's value is 0 its relevance must vanish, and its own rule must not invent any.
    """
    readers = lowering.graph.consumers[node.output]
    return bool(readers) and all(
        (isinstance(r.op, Relu) or (isinstance(r.op, Clip) and r.op.low == 0))
        and lowering.vanishing[r.output]
        and not isinstance(lowering.rules[r.name], CustomRule)
        for r in readers
    )


def _distance(
    rule: ZBox, bound: str, node: str, dtype: np.dtype[Any]
) -> Callable[[Array], tuple[Array, ...]]:
    """`x − bound` as a function; it refuses inputs outside of the box, for which the rule means nothing."""
    value = np.asarray(rule.low if bound == "low" else rule.high, dtype)
    slack = 1e-5 * float(np.max(np.asarray(rule.high) - np.asarray(rule.low)))  # for bounds that were rounded

    def function(x: Array) -> tuple[Array, ...]:
        distance = x - value
        beyond = -distance if bound == "low" else distance
        if beyond.max() > slack:
            extreme = x.min() if bound == "low" else x.max()
            raise InputError(
                f"node {node!r} reads {extreme:g}, by {beyond.max():g} beyond the {bound}= of its rule ZBox; "
                "give bounds that hold for all inputs"
            )
        return (distance,)

    return function


class _LinearShare:
    """The steps of one node."""

    def __init__(self, lowering: Lowering, node: Node, rule: SharingRule) -> None:
        self.to = lowering
        self.node = node
        self.rule = rule
        self.m: LinearMap = lowering.maps[node.name]
        self.x = node.inputs[0]
        self.x_nonnegative = lowering.fact(self.x).nonnegative

    def source(self, part: Part) -> tuple[View | None, Row]:
        """The array behind a part of x, and the part as a pair; no array for ones."""
        if part.power == 0:
            return None, WHOLE
        name = self.shifted(part.minus) if part.minus else self.x
        return View(name, self.m.x_shape, self.m.rows), pair(part)

    def shifted(self, bound: str) -> str:
        """The array `x − low` or `x − high`, made at its first use."""
        assert isinstance(self.rule, ZBox)
        name = f"{self.x}-{bound}({self.node.name})"
        if self.to.once(New(name, self.to.fact(self.x).shape)):
            function = _distance(self.rule, bound, self.node.name, self.to.dtype)
            self.to.steps.append(
                HostCall(self.node.name, f"x - {bound}", function, (self.x,), (Delivery(name),))
            )
        return name

    def z_view(self, name: str) -> View:
        return View(name, self.m.z_shape, self.m.rows)

    def plain(self, i: int, share: Share, note: str = "") -> None:
        """A denominator, a division, and one transposed product per term."""
        terms = simplify(
            share.terms, self.x_nonnegative, isinstance(self.node.op, (AveragePool, GlobalAveragePool))
        )
        bias = self.m.bias_part(share.bias)
        denominator, form = self.denominator(i, share, terms, bias)
        if denominator is None:
            return
        s = f"s({self.node.name},{i})"
        self.divide(denominator, share, bias, s, form="; ".join(filter(None, (form, note))))
        for term in terms:
            times, times_part = self.source(term.x)
            self.back(s, term.w, times, times_part, form=str(term))

    def denominator(
        self, i: int, share: Share, terms: tuple[Term, ...], bias: Array | None
    ) -> tuple[View | Array | None, str]:
        """What to divide by, as (n or 1, channels, inner), and the form in words."""
        m, shape = self.m, self.m.share_shape
        if not terms:  # the signs leave nothing but the bias
            if bias is None:
                return None, ""
            per_channel = m.per_channel(bias)
            assert per_channel is not None
            full = np.broadcast_to(per_channel[:, None], shape)
            return np.ascontiguousarray(full, self.to.dtype)[None], "bias alone"
        if terms == (Term(ALL, ALL),):
            whole = m.bias is None or not m.bias.any() or (share.bias == ALL)
            if whole:
                return View(self.node.output, shape), "denominator is the layer's output"
        if all(term.x.power == 0 for term in terms):
            return self.constant(terms, bias), "denominator computed once"
        name = f"z({self.node.name},{i})"
        made: tuple[New, ...] = (New(name, self.to.fact(self.node.output).shape),)
        for term in terms:
            x, x_part = self.source(term.x)
            assert x is not None
            self.to.product(
                self.node, m, m.forward, x, (x_part, pair(term.w)), self.z_view(name), *made,
                power=term.w.power, bias=bias if made else None, form=str(term),
            )  # fmt: skip
            made = ()
        return View(name, shape), f"denominator in {len(terms)} product{'s'[: len(terms) > 1]}"

    def constant(self, terms: tuple[Term, ...], bias: Array | None) -> Array:
        """The denominator where x takes no part: one for all samples."""
        m = self.m
        ones = np.ones((1, *m.x_shape), self.to.dtype)
        z = np.zeros((1, *m.z_shape), self.to.dtype)
        for term in terms:
            getattr(self.to.backend, m.forward)(
                src=ones, w=m.powered_weight(term.w.power), **m.options, src_part=WHOLE, w_part=pair(term.w),
                bias=bias, times=None, times_part=WHOLE, out=z, accumulate=True,
            )  # fmt: skip
            bias = None
        return np.tile(z.reshape(1, m.z_shape[0], -1), (1, m.rows, 1)).reshape(1, *m.share_shape)

    def divide(self, z: View | Array, share: Share, bias: Array | None, s: str, form: str) -> None:
        bias = self.m.per_channel(bias)
        self.to.divide(self.node, self.rule, share, z, self.m.share_shape, s, bias, form)

    def back(self, s: str, w: Part, times: View | None, times_part: Row, form: str) -> None:
        """Add `part(x) ⊙ part(w)ᵀ s` to the relevance of the input."""
        out = View(relevance_of(self.x), self.m.x_shape, self.m.rows)
        self.to.product(
            self.node, self.m, self.m.vjp, self.z_view(s), (WHOLE, pair(w)), out,
            *self.to.makes_relevance(self.x), power=w.power, times=times, times_part=times_part, form=form,
        )  # fmt: skip

    def mirrored(self, shares: tuple[Share, ...], pattern: Mirror) -> None:
        """Both gates from the layer's output (or x·w) and one product of magnitudes, back through two."""
        m, node, to = self.m, self.node, self.to
        half, tilt = pattern.half, pattern.tilt
        u, both, difference = (f"{name}({node.name})" for name in ("u", "s", "d"))
        shape = to.fact(node.output).shape
        x = View(self.x, m.x_shape, m.rows)
        to.product(
            node, m, m.forward, x, (pair(ABS), pair(ABS)), self.z_view(u), New(u, shape), form="|x|·|w|"
        )
        flat = (to.fact(node.output).size,)
        xw, own = node.output, m.bias
        if own is not None and own.any() and any(share.bias is None for share in shares):
            # z − b would lose the digits by which a large b exceeds x·w.
            xw, own = f"xw({node.name})", None
            to.product(node, m, m.forward, x, (WHOLE, WHOLE), self.z_view(xw), New(xw, shape), form="x·w")
        quotients = []
        for share, sign in zip(shares, (1.0, -1.0), strict=True):
            z, s = f"z({node.name},{share.gate})", f"s({node.name},{share.gate})"
            bias = m.bias_part(share.bias)
            self.scaled(xw, half, own, bias, z)
            to.collect(node, View(u, flat), (sign * tilt, sign * tilt), None, WHOLE, View(z, flat))
            source = "the output" if xw == node.output else "x·w"
            form = f"{half:g}·x·w{sign * tilt:+g}·|x||w| from {source} and |x|·|w|"
            self.divide(View(z, m.share_shape), share, bias, s, form)
            quotients.append(View(s, flat))
        plus, minus = quotients
        to.collect(node, plus, WHOLE, None, WHOLE, View(both, flat), New(both, shape))
        to.collect(node, minus, WHOLE, None, WHOLE, View(both, flat))
        to.collect(node, plus, WHOLE, None, WHOLE, View(difference, flat), New(difference, shape))
        to.collect(node, minus, (-1.0, -1.0), None, WHOLE, View(difference, flat))
        self.back(both, Part(half, half), x, WHOLE, "x·w")
        self.back(difference, Part(tilt, -tilt), x, pair(ABS), "|x|·|w|")

    def scaled(self, name: str, factor: float, own: Array | None, bias: Array | None, out: str) -> None:
        """`factor · (a − own) + bias` per channel of an array, as a 1×1 depthwise layer."""
        channels, inner = self.m.share_shape
        kind = self.to.dtype.type
        b = np.zeros(self.m.z_shape[0], kind) if own is None else -kind(factor) * own
        if bias is not None:
            b = b + bias
        shape = (channels, 1, 1, inner)
        arguments = {
            "src": View(name, shape), "w": np.full((channels, 1, 1, 1, 1), factor, kind),
            "strides": (1, 1, 1), "pads": (0, 0, 0), "dilations": (1, 1, 1),
            "src_part": WHOLE, "w_part": WHOLE, "bias": self.m.per_channel(b), "times": None,
            "times_part": WHOLE, "out": View(out, shape), "accumulate": False,
        }  # fmt: skip
        new = New(out, self.to.fact(self.node.output).shape)
        self.to.call(self.node, "depthwise_forward", arguments, new)


# --- shares of Add ---


def share_sum(lowering: Lowering, node: Node, rule: SharingRule) -> None:
    """Emit the steps of a sharing rule on Add: a linear layer whose weights are ones."""
    flat = (lowering.fact(node.output).size,)
    nonnegative = all(lowering.fact(name).nonnegative for name in node.inputs)
    for i, share in enumerate(rule.shares()):
        terms = simplify(share.terms, nonnegative, True)
        if not terms:
            continue
        z, form = _sum_denominator(lowering, node, terms, i)
        s = f"s({node.name},{i})"
        lowering.divide(node, rule, share, z, (1, *flat), s, form=form)
        for x in node.inputs:
            for term in terms:
                times = None if term.x.power == 0 else View(x, flat)
                w = term.w.positive  # part(w) of a weight that is 1
                lowering.collect(
                    node, View(s, flat), (w, w), times, pair(term.x), View(relevance_of(x), flat),
                    *lowering.makes_relevance(x), form=str(term),
                )  # fmt: skip


def _sum_denominator(
    lowering: Lowering, node: Node, terms: tuple[Term, ...], i: int
) -> tuple[View | Array, str]:
    shape = lowering.fact(node.output).shape
    flat = (lowering.fact(node.output).size,)
    if terms == (Term(ALL, ALL),):
        return View(node.output, (1, *flat)), "denominator is the layer's output"
    if all(term.x.power == 0 for term in terms):
        count = len(node.inputs) * sum(term.w.positive for term in terms)
        return np.full((1, 1, *flat), count, lowering.dtype), "denominator computed once"
    name = f"z({node.name},{i})"
    for x in node.inputs:
        for term in terms:
            part = (term.x.positive * term.w.positive, term.x.negative * term.w.positive)
            new = lowering.once(New(name, shape))
            lowering.collect(node, View(x, flat), part, None, WHOLE, View(name, flat), *new)
    return View(name, (1, *flat)), "denominator from parts of the inputs"
