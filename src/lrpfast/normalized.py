"""Relevance through normalisation layers by contribution: `z = a · x + b`, a and b statistics held constant.

Each output has one input. The terms of a sharing rule are elementwise then, part(x_j) · part(a_j) over their sum
and part(b_j); NumPy computes them.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from .backends import numpy_
from .backends.ending import Quotient
from .graph import Node
from .ledger import PARTS
from .ops.base import Array
from .ops.normalization import Normalizing
from .parts import Part, Share, Stabilizer
from .rules import LNRule, SharingRule
from .steps import Delivery

if TYPE_CHECKING:
    from .lower import Lowering

Contribute = Callable[[Array, Array, Array], tuple[Array, ...]]


def share_normalized(lowering: Lowering, node: Node, rule: SharingRule) -> None:
    """Emit a sharing rule on a normalisation layer."""
    assert isinstance(node.op, Normalizing)
    _emit(lowering, node, rule, partial(_shared, node.op, rule))


def share_deviations(lowering: Lowering, node: Node, rule: LNRule) -> None:
    """Emit `LNRule`."""
    assert isinstance(node.op, Normalizing)
    _emit(lowering, node, rule, partial(_deviations, node.op, rule))


def _emit(lowering: Lowering, node: Node, rule: SharingRule | LNRule, function: Contribute) -> None:
    x, z = (lowering.value(name, 1, node).host() for name in (node.inputs[0], node.output))
    out, plus = lowering.contribution(node.inputs[0], 1)
    deliveries = (
        Delivery(out.host(), None if plus is None else plus.host()),
        Delivery(lowering.ledger(node)),
    )
    lowering.host(node, str(rule), function, (x, z, lowering.arrived(node, 1).host()), *deliveries)


def _shared(op: Normalizing, rule: SharingRule, x: Array, z: Array, r: Array) -> tuple[Array, ...]:
    """Relevance of the input, and the ledger."""
    a, centre = op.statistics(x)
    w = np.broadcast_to(a, x.shape)
    b = np.zeros_like(x) if centre is None else -centre * w
    ledger = np.zeros((len(x), PARTS))
    back = np.zeros_like(x)
    for share in rule.shares():
        q = np.zeros_like(x)
        for term in share.terms:
            q += _part(x, term.x) * _part(w, term.w)
        bias = np.zeros_like(x) if share.bias is None else _part(b, share.bias)
        back += q * _divided(rule.stab, share, r, q + bias, z, bias, ledger)
    return back, ledger


def _deviations(op: Normalizing, rule: LNRule, x: Array, z: Array, r: Array) -> tuple[Array, ...]:
    a, _ = op.statistics(x)
    ledger = np.zeros((len(x), PARTS))
    s = _divided(rule.stab, Share(()), r, z, z, np.zeros_like(z), ledger)
    return x * a * op.uncentred(s), ledger


def _part(values: Array, part: Part) -> Array:
    powers = {0: np.ones_like(values), 1: values, 2: np.square(values)}
    return numpy_.part(powers[part.power], (part.positive, part.negative))


def _divided(
    stab: Stabilizer, share: Share, r: Array, denominator: Array, z: Array, bias: Array, ledger: Array
) -> Array:
    """`s = scale · [gate] · r / stab(denominator)`; counts in the ledger."""
    shape = r.shape
    r, denominator, z, bias = (np.ascontiguousarray(a).reshape(len(a), -1) for a in (r, denominator, z, bias))
    epsilon = np.full((len(r), 1), stab.epsilon, r.dtype)
    if stab.norm_scale:
        squares = np.square(denominator, dtype=np.float64).mean(axis=1, keepdims=True)
        epsilon = epsilon * np.sqrt(squares).astype(r.dtype)
    # Of rows, each element is a channel; the bias has a number for each, here of each sample.
    of = Quotient(r, ledger, float(stab.epsilon), stab.clip, share.scale, share.gate, z, bias)
    return numpy_.quotient(denominator, epsilon, of).reshape(shape)
