"""What lowering writes a plan with: arrays and their layouts, relevance as it adds up, and calls as steps.

Nothing here knows what an operator is, nor more of a rule than its stabilizer; `lower.py` does.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from .backends.ending import Ending, Quotient
from .graph import Fact, Graph, Node
from .layout import Stored, canonical, homes
from .ledger import PARTS, SUMS
from .linear_map import LinearMap
from .ops.base import Array
from .parts import Share
from .rules import SharingRule
from .shares import Row
from .steps import Delivery, HostCall, KernelCall, Shape, Step, View


class Drafting:
    """The state of one lowering: the steps made so far, and what has been delivered where."""

    def __init__(self, graph: Graph, backend: Any, dtype: np.dtype[Any]) -> None:
        self.graph = graph
        self.backend = backend
        self.dtype = dtype
        self.homes = homes(graph, backend.LANES)
        self.steps: list[Step] = []
        self.names: set[str] = set()
        self.values: dict[str, Stored] = {}  # each value in its home layout
        self.relevance: dict[str, Stored] = {}  # the relevance of each value as it stands
        self.abroad: dict[str, Stored] = {}  # what a node adds to it in another layout
        self.orders: dict[tuple[str, tuple[int, ...], int], Stored] = {}  # copies in other layouts
        self.exact: set[str] = set()  # outputs that are divided by
        self.sums: dict[str, int] = {}  # the number of the sums of an array
        self.ledgers: dict[str, View] = {}  # a node's ledger

    # --- arrays ---

    def fact(self, value: str) -> Fact:
        return self.graph.facts[value]

    def stored(self, name: str, value: str, lanes: int = 1, dtype: str = "") -> Stored:
        """A new array, shaped like `value`."""
        shape = self.fact(value).shape
        return Stored(self.unique(name), shape, canonical(shape, lanes), dtype or self.dtype.name)

    def unique(self, name: str) -> str:
        """The name with as many primes as tell it from others."""
        while name in self.names:
            name += "'"
        self.names.add(name)
        return name

    def ordered(self, source: Stored, lanes: int, node: str = "") -> Stored:
        """The array in a layout of so many lanes, reordered if it is not; once, for all who ask."""
        lanes = canonical(source.shape, lanes)
        if lanes == source.lanes:
            return source
        key = (source.name, source.shape, lanes)
        if key not in self.orders:
            name = self.unique(_in_lanes(source.name, lanes))
            self.orders[key] = Stored(name, source.shape, lanes, source.dtype)
            self.reorder(node, source, Ending(self.orders[key].elements()))
        return self.orders[key]

    def reached(self, value: str) -> Stored:
        """The relevance of a value; zeros where none reaches it, as in the branch that makes a gate."""
        if value not in self.relevance:
            out, _ = self.contribution(value, self.homes[value])
            src = self.values[value].elements()
            arguments = {"src": src, "src_part": (0.0, 0.0), "end": Ending(out.elements())}
            self.steps.append(KernelCall(value, "collect", arguments, form="no relevance reaches it"))
        return self.relevance[value]

    def value(self, name: str, lanes: int, node: Node) -> Stored:
        """A value in a layout of so many lanes."""
        return self.ordered(self.values[name], lanes, node.name)

    def arrived(self, node: Node, lanes: int) -> Stored:
        """The relevance of the node's output."""
        return self.ordered(self.relevance[node.output], lanes, node.name)

    def contribution(self, value: str, lanes: int) -> tuple[Stored, Stored | None]:
        """Where the next contribution to the relevance of `value` goes, and what it is to be added to.

        In another layout than the value's own it is brought home when the node is done.
        """
        lanes = canonical(self.fact(value).shape, lanes)
        at_home = lanes == self.homes[value]
        where = self.relevance if at_home else self.abroad
        before = where.get(value)
        name = relevance_of(value)
        where[value] = self.stored(name if at_home else _in_lanes(name, lanes), value, lanes)
        return where[value], before

    def bring_home(self, node: Node) -> None:
        """Reorder what the node has added to relevance in other layouts."""
        abroad, self.abroad = self.abroad, {}
        for value, found in abroad.items():
            out, plus = self.contribution(value, self.homes[value])
            end = Ending(out.elements(), plus=None if plus is None else plus.elements())
            self.reorder(node.name, found, end)

    def total(self, value: str, node: str) -> int:
        """The sums of the relevance of `value` as it stands: their number."""
        relevance = self.relevance[value]
        if relevance.name not in self.sums:
            self.sums[relevance.name] = len(self.sums)
            arguments = {"src": relevance.flat(), "out": sums_view(relevance.name)}
            self.steps.append(KernelCall(node, "sums", arguments))
        return self.sums[relevance.name]

    def sums_of(self, value: str) -> View:
        """Where the sums of the relevance of `value` as it stands are, once somebody has asked for their number."""
        return sums_view(self.relevance[value].name)

    def ledger(self, node: Node) -> View:
        """Where a node's divisions count what bias, stabilizer and dead units take."""
        if node.name not in self.ledgers:
            name = self.unique(f"ledger({node.name})")
            self.ledgers[node.name] = View(name, (PARTS,), dtype="float64")
        return self.ledgers[node.name]

    # --- calls ---

    def call(self, node: Node, kernel: str, arguments: dict[str, Any], form: str = "") -> None:
        self.steps.append(KernelCall(node.name, kernel, arguments, form=form))

    def product(
        self, node: Node, m: LinearMap, kernel: str, src: View, parts: tuple[Row, Row], end: Ending,
        power: int = 1, form: str = "", exact: bool = True, other_part: Row | None = None,
    ) -> None:  # fmt: skip
        """One product with the layer's matrix or its transpose.

        Only where a result is never divided by need it not be `exact`. Where the ending multiplies by what
        is negative, a convolution takes `other_part` of its weights.
        """
        arguments = {
            "src": src, "w": m.powered_weight(power), **m.arguments(exact, other_part), "src_part": parts[0],
            "w_part": parts[1], "end": end,
        }  # fmt: skip
        self.call(node, kernel, arguments, form)

    def exacted(self, step: Step) -> Step:
        """The step, exact if its result is divided by."""
        if isinstance(step, KernelCall) and "exact" in step.arguments and self.exact & set(step.writes()):
            return replace(step, arguments={**step.arguments, "exact": True})
        return step

    def collect(self, node: Node, src: View, src_part: Row, end: Ending, form: str = "") -> None:
        """An ending alone."""
        self.call(node, "collect", {"src": src, "src_part": src_part, "end": end}, form)

    def reorder(self, node: str, src: Stored, end: Ending) -> None:
        """Another layout."""
        channels = src.shape[0] if src.shape else 1
        arguments = {"src": src.elements(), "channels": channels, "end": end}
        self.steps.append(KernelCall(node, "reorder", arguments))

    def divide(
        self, node: Node, rule: SharingRule, share: Share, z: View | Array, s: View, gate_z: View | None = None,
        bias: Array | None = None, form: str = "",
    ) -> None:  # fmt: skip
        """`s = scale · [gate] · R / stab(z)`."""
        norm_size = self.fact(node.output).size if rule.stab.norm_scale else 0
        end = Ending(s, quotient=self.quotient(node, rule, share, s, gate_z, bias))
        self.call(node, "divide", {"z": z, "norm_size": norm_size, "end": end}, form)

    def quotient(
        self, node: Node, rule: SharingRule, share: Share, s: View, gate_z: View | None, bias: Array | None
    ) -> Quotient:
        """A node's relevance over what the ending computes that writes `s`."""
        r = self.relevance[node.output].elements().like(s)
        return Quotient(
            r, self.ledger(node), float(rule.stab.epsilon), rule.stab.clip, share.scale, share.gate,
            gate_z if share.gate else None, bias,
        )  # fmt: skip

    def host(
        self, node: Node, title: str, function: Any, arrays: tuple[View | Shape, ...], *deliveries: Delivery
    ) -> None:
        self.steps.append(HostCall(node.name, title, function, arrays, deliveries))


def relevance_of(value: str) -> str:
    """Name of the array that holds the relevance of `value`."""
    return f"R({value})"


def _in_lanes(name: str, lanes: int) -> str:
    return f"{name} in {lanes} lanes" if lanes > 1 else f"{name}, plain"


def sums_view(array: str) -> View:
    return View(f"sums of {array}", (SUMS,), dtype="float64")
