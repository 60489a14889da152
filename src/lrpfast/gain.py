"""By how much a node can multiply Σ|R|, and scaling down what it hands back beyond a limit.

Where contributions of both signs cancel, a denominator can be as small as you like: 3 and −2.99 make 0.01, and
R = 1 comes out as 300 and −299. Rules whose contributions have one sign hand back no more than arrived.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

import numpy as np

from .graph import Graph, Node
from .layout import Stored
from .ledger import Numbers, scales
from .ops.base import Array
from .ops.normalization import Normalizing
from .parts import Part, Share
from .rules import LNRule, Pass, Route, Rule, SharingRule
from .steps import Delivery

if TYPE_CHECKING:
    from .lower import Lowering

Signs = frozenset[int]

_BOTH: Signs = frozenset({1, -1})
_POSITIVE: Signs = frozenset({1})


# --- what is known when the plan is made ---


def largest_gain(graph: Graph, node: Node, rule: Rule) -> float:
    """The most by which a rule can multiply Σ|R| at a node; ∞ where contributions of both signs may cancel.

    Rules that are no lists of shares hand on what arrives, no more, if they conserve it.
    """
    if isinstance(rule, LNRule):
        return math.inf if isinstance(node.op, Normalizing) and node.op.has_centre else 1.0
    if not isinstance(rule, SharingRule):
        return 1.0
    if isinstance(node.op, Normalizing):  # each output has one contribution, whose sign does not matter
        x, w, biased = _POSITIVE, _POSITIVE, node.op.has_centre
    else:
        x = _POSITIVE if all(graph.facts[name].nonnegative for name in node.inputs) else _BOTH
        w = _POSITIVE if node.op.has_nonnegative_weights else _BOTH
        biased = getattr(node.op, "bias", None) is not None or hasattr(node.op, "shift")
    shares = rule.shares()
    return max(
        sum(_share_gain(share, x, w, biased) for share in shares if share.gate in (0, sign)) for sign in _BOTH
    )


def _share_gain(share: Share, x: Signs, w: Signs, biased: bool) -> float:
    """|scale| if all that makes the denominator has one sign, else ∞."""
    signs = {a * b for term in share.terms for a in _signs(term.x, x) for b in _signs(term.w, w)}
    if biased and share.bias is not None:
        signs |= _signs(share.bias, _BOTH)
    return abs(share.scale) if len(signs - {0}) <= 1 else math.inf


def _signs(part: Part, array: Signs) -> set[int]:
    """The signs that the part of an array with such signs can have."""
    if part.power != 1:
        return {int(np.sign(part.positive))}
    if part.minus:
        array = frozenset({1 if part.minus == "low" else -1})
    factors = {1: part.positive, -1: part.negative}
    return {sign * int(np.sign(factors[sign])) for sign in array}


def explained(graph: Graph, rules: Mapping[str, Rule]) -> frozenset[str]:
    """The node that makes the explained output, and those behind it that merely hand it on."""
    found: set[str] = set()
    value = graph.output
    while value in graph.producers:
        node = graph.producers[value]
        found.add(node.name)
        if not isinstance(rules[node.name], (Pass, Route)) or len(node.inputs) != 1:
            break
        (value,) = node.inputs
    return frozenset(found)


# --- steps ---


def scaled_down(
    lowering: Lowering, node: Node, before: Mapping[str, Stored], limit: float
) -> tuple[int, ...]:
    """Scale down what a node has handed to its inputs, per sample, to `limit` times Σ|R| that arrived.

    Parameters
    ----------
    lowering : Lowering
        Its `relevance` of the node's inputs is the node's contributions, and nothing else.
    node : Node
    before : mapping of value to Stored
        What the contributions are to be added to.
    limit : float

    Returns
    -------
    tuple of int
        For each input, the number of the sums of the contribution as it was.
    """
    names = list(dict.fromkeys(node.inputs))
    numbers = tuple(lowering.total(name, node.name) for name in names)
    sums = [lowering.sums_of(name) for name in (node.output, *names)]
    given = [lowering.relevance.pop(name).elements() for name in names]
    lowering.relevance.update(before)
    places = [lowering.contribution(name, lowering.homes[name]) for name in names]
    deliveries = (Delivery(out.elements(), None if plus is None else plus.elements()) for out, plus in places)
    title = f"at most {limit:g} times Σ|R|"
    lowering.host(node, title, _scaled(len(names), limit), (*sums, *given), *deliveries)
    return numbers


def _scaled(count: int, limit: float) -> Callable[..., tuple[Array, ...]]:
    """A function of the sums of what arrived, those of `count` contributions, and the contributions."""

    def function(arrived: Numbers, *arrays: Array) -> tuple[Array, ...]:
        handed = np.add.reduce([sums[:, 1] for sums in arrays[:count]])
        factors = scales(arrived[:, 1], handed, limit)
        if (factors == 1).all():
            return arrays[count:]
        return tuple(a * factors.astype(a.dtype).reshape(-1, *(1,) * (a.ndim - 1)) for a in arrays[count:])

    return function
