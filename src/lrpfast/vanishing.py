"""Where relevance is known to vanish with the value that it belongs to, which makes some rules cheaper."""

from __future__ import annotations

from collections.abc import Mapping

from .graph import Graph, Node
from .layout import keeps_zero
from .ops.base import Elementwise, Movement
from .ops.extremes import Max, Min
from .ops.pool import GlobalMaxPool, MaxPool
from .rules import CustomRule, Gradient, Rule, SharingRule, SignalTakesAll


def vanishing(graph: Graph, rules: Mapping[str, Rule]) -> Mapping[str, bool]:
    """For each value, whether its relevance is known to be zero wherever the value is."""
    known = {graph.output: False}
    for value in reversed([*graph.inputs, *(node.output for node in graph.nodes)]):
        if value == graph.output:
            continue
        known[value] = all(
            _vanishes_through(node, rules[node.name], known[node.output]) for node in graph.consumers[value]
        )
    return known


def _vanishes_through(node: Node, rule: Rule, output_vanishes: bool) -> bool:
    if isinstance(rule, SharingRule):
        return all(t.x.power == 1 and not t.x.minus for share in rule.shares() for t in share.terms)
    if isinstance(rule, (Gradient, CustomRule)):
        return False
    if isinstance(rule, SignalTakesAll):
        return output_vanishes
    if isinstance(node.op, Elementwise):
        return output_vanishes and keeps_zero(node.op)
    return output_vanishes and isinstance(node.op, (Movement, MaxPool, GlobalMaxPool, Max, Min))
