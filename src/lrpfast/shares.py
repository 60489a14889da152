"""How sharing rules become products: the forms, from the cheapest to the plain one.

- Terms that signs rule out are dropped: with `x ≥ 0` known, z⁺ is one product and not two.
- A denominator is the layer's own output where the terms are all of `x w`; it is computed once for
  all samples where it does not depend on `x`; else it costs a product per term.
- Gamma's two gates, whose coefficients mirror each other, share three products instead of eight.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from .backends import numpy_
from .backends.ending import WHOLE, Ending
from .errors import InputError
from .graph import Node
from .layout import Stored
from .linear_map import LinearMap
from .ops.activation import Clip, Relu
from .ops.base import Array
from .parts import ABS, ALL, NEG, POS, Part, Share, Term
from .rules import CustomRule, SharingRule, ZBox
from .steps import Delivery, View

if TYPE_CHECKING:
    from .lower import Lowering

Row = tuple[float, float]

_A_FEW = 4.0
"""How many times its share of the output a unit may hand back, for errors still to be small."""


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

    Both are `half · x w ± tilt · |x||w|`, `half = (a + b)/2`, `tilt = (a − b)/2`, the sign that of z, and so are
    the parts of the bias.
    """

    half: float
    tilt: float


def mirror(shares: tuple[Share, ...]) -> Mirror | None:
    """Whether the shares mirror each other."""
    if len(shares) != 2 or (shares[0].gate, shares[1].gate) != (1, -1):
        return None
    one, two = (mirrored_table(share.terms) for share in shares)
    if one is None or two != Mirror(one.half, -one.tilt):
        return None
    fits = one.half >= one.tilt >= 0 and _mirrors(shares[0].bias, shares[1].bias, one.half)
    return one if fits else None


def _mirrors(one: Part | None, two: Part | None, half: float) -> bool:
    """Whether two parts of the bias are `half · b` plus and minus the same."""
    if one is None or two is None:
        return one is two
    return one.power == two.power == 1 and pair(one) == pair(two)[::-1] and sum(pair(one)) / 2 == half


def mirrored_table(terms: tuple[Term, ...]) -> Mirror | None:
    """The terms as parts of x w and |x||w|, if they treat positive contributions alike, and negative ones."""
    rows = table(terms)
    if rows is None or rows[1] != rows[0][::-1]:
        return None
    a, b = rows[0]
    return Mirror((a + b) / 2, (a - b) / 2)


# --- shares of a layer with one input ---


def share_linear(lowering: Lowering, node: Node, rule: SharingRule) -> None:
    """Emit the steps of a sharing rule on a linear operator with one input."""
    sharing = _LinearShare(lowering, node, rule)
    shares = rule.shares()
    alive = any(share.gate for share in shares) and sharing.rectified is not None
    mirrored = mirror(shares)
    if mirrored and not rule.stab.norm_scale and not (alive and sharing.x_nonnegative):
        sharing.mirrored(shares[0], mirrored)
        return
    for share in shares:
        if not (alive and share.gate < 0):
            sharing.plain(share, "only the living side: no relevance arrives where z ≤ 0" if alive else "")


def rectified(lowering: Lowering, node: Node) -> Node | None:
    """A ReLU of the node's output if no relevance arrives where that is ≤ 0: only ReLUs read it.

    Where a ReLU's value is 0 its relevance must vanish, and its own rule must not invent any. If there is
    a choice it is one without a bound above, whose output is the node's own where relevance arrives.
    """
    readers = lowering.graph.consumers[node.output]
    dead_below_zero = bool(readers) and all(
        (isinstance(r.op, Relu) or (isinstance(r.op, Clip) and r.op.low == 0))
        and lowering.vanishing[r.output]
        and not isinstance(lowering.rules[r.name], CustomRule)
        for r in readers
    )
    return max(readers, key=_bound) if dead_below_zero else None


def _bound(node: Node) -> float:
    return node.op.high if isinstance(node.op, Clip) else np.inf


def _output(lowering: Lowering, node: Node, rule: SharingRule, relu: Node | None) -> tuple[Stored, str]:
    """A node's output, or that of a ReLU behind it: where relevance arrives they are the same."""
    if relu is None or _bound(relu) < np.inf or rule.stab.norm_scale:
        return lowering.values[node.output], "denominator is the layer's output"
    return lowering.values[relu.output], f"denominator is the output of {relu.name}"


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


def _grows(part: Part) -> bool:
    """Whether the part of an array is nowhere less than the array."""
    return part.power == 1 and part.positive >= 1 >= part.negative


class _LinearShare:
    """The steps of one node."""

    def __init__(self, lowering: Lowering, node: Node, rule: SharingRule) -> None:
        self.to = lowering
        self.node = node
        self.rule = rule
        self.m: LinearMap = lowering.maps[node.name]
        self.x = node.inputs[0]
        self.x_nonnegative = lowering.fact(self.x).nonnegative
        self.z = lowering.values[node.output]
        self.rectified = rectified(lowering, node)
        self.shifts: dict[str, Stored] = {}

    def source(self, part: Part) -> tuple[View | None, Row]:
        """The array behind a part of x, and the part as a pair; no array for ones."""
        if part.power == 0:
            return None, WHOLE
        x = self.shifted(part.minus) if part.minus else self.to.values[self.x]
        return self.m.x_view(self.to.ordered(x, self.m.x_lanes, self.node.name)), pair(part)

    def shifted(self, bound: str) -> Stored:
        """The array `x − low` or `x − high`, made at its first use."""
        assert isinstance(self.rule, ZBox)
        if bound not in self.shifts:
            self.shifts[bound] = out = self.to.stored(f"{self.x}-{bound}({self.node.name})", self.x)
            function = _distance(self.rule, bound, self.node.name, self.to.dtype)
            x = self.to.value(self.x, 1, self.node).host()
            self.to.host(self.node, f"x - {bound}", function, (x,), Delivery(out.host()))
        return self.shifts[bound]

    def like_z(self, name: str) -> Stored:
        """A new array that lies like the layer's output."""
        return self.to.stored(f"{name}({self.node.name})", self.node.output, self.m.z_lanes)

    def elements(self, z: Stored) -> View:
        """An array like z for elementwise kernels."""
        return z.view(self.m.z_elements)

    def plain(self, share: Share, note: str = "") -> None:
        """A denominator, a division, and one transposed product per term."""
        terms = simplify(share.terms, self.x_nonnegative, self.node.op.has_nonnegative_weights)
        bias = self.m.bias_part(share.bias)
        tame = self.is_tame(share, terms)
        denominator, form = self.denominator(share, terms, bias, tame)
        if denominator is None:
            return
        s = self.divide(denominator, share, bias, "; ".join(filter(None, (form, note))))
        if self.m.convolves and [(term.x, term.w.power) for term in terms] == [(POS, 1), (NEG, 1)]:
            self.back_by_sign(s, terms, exact=not tame)
            return
        for term in terms:
            times, times_part = self.source(term.x)
            self.back(s, term.w, times, times_part, str(term), exact=not tame)

    def back_by_sign(self, s: Stored, terms: tuple[Term, ...], exact: bool) -> None:
        """The same as `back` twice, for parts of x that do not meet: each input needs one product only."""
        m = self.m
        positive, negative = terms
        times, _ = self.source(ALL)
        end = self.to.handed(m, self.x, times=times)
        form = f"{positive} where x > 0, {negative} where x < 0"
        parts = WHOLE, pair(positive.w)
        self.to.product(
            self.node, m, m.vjp, m.z_view(s), parts, end, form=form, exact=exact, other_part=pair(negative.w)
        )

    def is_tame(self, share: Share, terms: tuple[Term, ...]) -> bool:
        """Whether the denominator is nowhere less than the output that a ReLU lets through.

        Relevance over it is then no more than relevance over that output (or a few times as much: α of the
        rule AlphaBeta), so that one small denominator does not drown its neighbours' relevance in rounding
        errors.
        """
        if self.rectified is None or share.gate < 0 or not 0 < share.scale <= _A_FEW:
            return False
        rows = table(terms)
        bias = self.m.bias
        biased = bias is None or bool((bias <= 0).all()) or (share.bias is not None and _grows(share.bias))
        if rows is None or not biased:
            return False
        (a, b), (c, d) = rows  # of positive, and of negative, contributions: no less, and no more, than all
        return (a == b == c == d == 1) or (a >= 1 >= b and (self.x_nonnegative or d >= 1 >= c))

    def denominator(
        self, share: Share, terms: tuple[Term, ...], bias: Array | None, tame: bool
    ) -> tuple[Stored | Array | None, str]:
        """What to divide by, and the form in words."""
        m = self.m
        if not terms:  # the signs leave nothing but the bias
            return (None, "") if bias is None else (self.bias_alone(bias), "bias alone")
        if terms == (Term(ALL, ALL),) and (m.bias is None or not m.bias.any() or share.bias == ALL):
            return self.output()
        if all(term.x.power == 0 for term in terms):
            return self.constant(terms, bias), "denominator computed once"
        mixed = mirrored_table(terms) if len(terms) > 1 else None
        if tame and mixed is not None and not self.rule.stab.norm_scale:
            form = f"denominator is {mixed.half:g}·x·w{mixed.tilt:+g}·|x||w|, from the output and one product"
            return self.mixed(mixed, share.bias), form
        z: Stored | None = None
        for term in terms:
            x, x_part = self.source(term.x)
            assert x is not None
            before, z = z, self.like_z("z")
            end = Ending(
                m.z_view(z), None if before else bias, plus=None if before is None else m.z_view(before)
            )
            parts = x_part, pair(term.w)
            self.to.product(self.node, m, m.forward, x, parts, end, term.w.power, str(term), exact=not tame)
        return z, f"denominator in {len(terms)} product{'s'[: len(terms) > 1]}"

    def mixed(self, pattern: Mirror, bias: Part | None) -> Stored:
        """`half · x w + tilt · |x||w| + part(bias)`: one product, since x w is the layer's output but for its bias.

        To be used where that is tame only: nothing then cancels, as the sum of the positive contributions is no
        less than that of the negative ones wherever relevance arrives.
        """
        m, z = self.m, self.like_z("z")
        x, _ = self.source(ALL)
        assert x is not None
        shift = self.shift(pattern.half, m.bias, m.bias_part(bias))
        end = Ending(m.z_view(z), shift, plus=m.z_view(self.z), plus_factor=pattern.half)
        parts = (pattern.tilt, -pattern.tilt), pair(ABS)
        self.to.product(self.node, m, m.forward, x, parts, end, form="|x|·|w|", exact=False)
        return z

    def output(self) -> tuple[Stored, str]:
        """The layer's output as a denominator."""
        z, form = _output(self.to, self.node, self.rule, self.rectified)
        if z is self.z:
            self.to.exact.add(z.name)
        return z, form

    def bias_alone(self, bias: Array) -> Array:
        """The bias as a denominator, for one sample that serves all."""
        z = np.empty((1, *self.m.z_elements), self.to.dtype)
        bias_per_channel = self.m.per_channel(bias)
        assert bias_per_channel is not None
        z[...] = numpy_.per_channel(bias_per_channel, z)
        return z

    def constant(self, terms: tuple[Term, ...], bias: Array | None) -> Array:
        """The denominator where x takes no part, for one sample that serves all."""
        m = self.m
        z = np.zeros((1, *m.z_shape), self.to.dtype)
        for term in terms:
            getattr(self.to.backend, m.forward)(
                src=m.ones(self.to.dtype), w=m.powered_weight(term.w.power), **m.arguments(True),
                src_part=WHOLE, w_part=pair(term.w), end=Ending(z, bias, plus=z),
            )  # fmt: skip
            bias = None
        return np.tile(z.reshape(1, -1), (1, m.rows)).reshape(1, *m.z_elements)

    def divide(self, z: Stored | Array, share: Share, bias: Array | None, form: str) -> Stored:
        """Relevance over a denominator."""
        s = self.like_z("s")
        self.to.divide(
            self.node, self.rule, share, self.elements(z) if isinstance(z, Stored) else z, self.elements(s),
            self.elements(self.gate()), self.m.per_channel(bias), form,
        )  # fmt: skip
        return s

    def gate(self) -> Stored:
        """What has the sign of z wherever relevance arrives."""
        return self.z if self.rectified is None else self.to.values[self.rectified.output]

    def back(
        self, s: Stored, w: Part, times: View | None, times_part: Row, form: str, exact: bool = True
    ) -> None:
        """Add `part(x) ⊙ part(w)ᵀ s` to the relevance of the input."""
        m = self.m
        end = self.to.handed(m, self.x, times=times, times_part=times_part)
        self.to.product(self.node, m, m.vjp, m.z_view(s), (WHOLE, pair(w)), end, w.power, form, exact)

    def mirrored(self, share: Share, pattern: Mirror) -> None:
        """Both gates from the layer's output (or x·w) and one product of magnitudes, back through two."""
        m, node, to = self.m, self.node, self.to
        half, tilt = pattern.half, pattern.tilt
        x, _ = self.source(ALL)
        assert x is not None
        xw, own, bias = self.z, m.bias, m.bias_part(share.bias)
        if own is not None and own.any() and bias is None:
            # z − b would lose the digits by which a large b exceeds x·w.
            xw, own = self.like_z("xw"), None
            to.product(node, m, m.forward, x, (WHOLE, WHOLE), Ending(m.z_view(xw)), form="x·w")
        to.exact.add(xw.name)
        u, s, signed = self.like_z("u"), self.like_z("s"), self.like_z("±s")
        magnitudes = (tilt, -tilt), pair(ABS)
        to.product(node, m, m.forward, x, magnitudes, Ending(m.z_view(u)), form="|x|·|w|")
        counted = None if bias is None or own is None else own * to.dtype.type(half)
        quotient = to.quotient(
            node, self.rule, replace(share, gate=0), self.elements(s), None, m.per_channel(counted)
        )
        quotient = replace(quotient, gate_z=self.elements(self.z), mirrored=self.elements(signed))
        shift = m.per_channel(self.shift(half, own, bias))
        end = Ending(self.elements(s), shift, plus=self.elements(xw), plus_factor=half, quotient=quotient)
        source = "the output" if xw is self.z else "x·w"
        words = f"{half:g}·x·w±{tilt:g}·|x||w|, the sign that of z, from {source} and one product"
        to.collect(node, self.elements(u), WHOLE, end, f"denominator is {words}")
        self.back(s, Part(half, half), x, WHOLE, "x·w")
        self.back(signed, Part(tilt, -tilt), x, pair(ABS), "|x|·|w|")

    def shift(self, half: float, own: Array | None, bias: Array | None) -> Array | None:
        """`bias − half · own` per channel."""
        if own is None:
            return bias
        shifted: Array = (0 if bias is None else bias) - self.to.dtype.type(half) * own
        return shifted


# --- shares of Add ---


def share_sum(lowering: Lowering, node: Node, rule: SharingRule) -> None:
    """Emit the steps of a sharing rule on Add: a linear layer whose weights are ones."""
    home = lowering.homes[node.output]
    inputs = [lowering.value(name, home, node) for name in node.inputs]
    nonnegative = all(lowering.fact(name).nonnegative for name in node.inputs)
    for share in rule.shares():
        terms = simplify(share.terms, nonnegative, True)
        if not terms:
            continue
        z, form = _sum_denominator(lowering, node, rule, inputs, terms)
        s = lowering.stored(f"s({node.name})", node.output, home).elements()
        lowering.divide(node, rule, share, z, s, lowering.values[node.output].elements(), form=form)
        for name, x in zip(node.inputs, inputs, strict=True):
            for term in terms:
                out, plus = lowering.contribution(name, home)
                end = Ending(
                    out.elements(),
                    times=None if term.x.power == 0 else x.elements(),
                    times_part=WHOLE if term.x.power == 0 else pair(term.x),
                    plus=None if plus is None else plus.elements(),
                )
                w = term.w.positive  # part(w) of a weight that is 1
                lowering.collect(node, s, (w, w), end, form=str(term))


def _sum_denominator(
    lowering: Lowering, node: Node, rule: SharingRule, inputs: list[Stored], terms: tuple[Term, ...]
) -> tuple[View | Array, str]:
    own = lowering.values[node.output]
    if terms == (Term(ALL, ALL),):
        output, form = _output(lowering, node, rule, rectified(lowering, node))
        return output.elements(), form
    if all(term.x.power == 0 for term in terms):
        count = len(inputs) * sum(term.w.positive for term in terms)
        return np.full((1, *own.elements().shape), count, lowering.dtype), "denominator computed once"
    z: Stored | None = None
    for x in inputs:
        for term in terms:
            part = (term.x.positive * term.w.positive, term.x.negative * term.w.positive)
            before, z = z, lowering.stored(f"z({node.name})", node.output, own.lanes)
            plus = None if before is None else before.elements()
            lowering.collect(node, x.elements(), part, Ending(z.elements(), plus=plus))
    assert z is not None
    return z.elements(), "denominator from parts of the inputs"
