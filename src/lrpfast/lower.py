"""Lowering: a graph and the rules of its nodes become a plan of kernel calls.

The only module that knows both rules and kernels. What it knows of signs and zeros decides how many
products a rule costs; every step says in words which form it is.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np

from . import gain
from . import shares as forms
from .arena import laid_out
from .backends.ending import WHOLE, Ending
from .clamping import clamped_by_readers
from .composites import Assignment
from .drafting import Drafting, relevance_of, sums_view
from .errors import RuleError
from .fuse import fused
from .graph import Graph, Node
from .hoist import hoisted
from .layout import Stored, blocked, elements, follows, pools_plainly, three
from .ledger import Account, Books
from .linear_map import LinearMap, linear_map
from .normalized import share_deviations, share_normalized
from .ops.activation import Clip, LeakyRelu, Relu
from .ops.arithmetic import Add
from .ops.base import Array, Linear, Movement, summed
from .ops.interpolation import Upsample
from .ops.movement import Identity, Pad, Reshape
from .ops.normalization import Normalizing
from .ops.pool import GlobalMaxPool, MaxPool
from .ops.product import Mul
from .ops.select import Mask
from .plan import Plan
from .rules import (
    CustomRule,
    Gradient,
    Halves,
    LNRule,
    Pass,
    ReLUDeconvNet,
    ReLUGuidedBackprop,
    Route,
    Rule,
    SharingRule,
    SignalTakesAll,
)
from .steps import Back, Delivery, Draft, Shape, View
from .vanishing import vanishing


def lower(
    graph: Graph, assigned: Mapping[str, Assignment] | None, backend: Any, dtype: Any = np.float32,
    record: Iterable[str] = (), *, fuse: bool = True, limit: float = math.inf, spare: bool = True,
) -> Plan:  # fmt: skip
    """Make the plan.

    Parameters
    ----------
    graph : Graph
    assigned : mapping of node name to Assignment, or None
        The rules; None for a plan that only predicts.
    backend : module
        The kernels.
    dtype : float32 or float64
    record : iterable of str
        Names of the nodes whose outputs' relevance is to be kept.
    fuse : bool, default True
        Let steps end in others where they can.
    limit : float, default ∞
        What a node hands back is scaled down to so many times Σ|R| that arrived, sample by sample, if its rule
        promises conservation.
    spare : bool, default True
        But for the node that makes the output.
    """
    rules = () if assigned is None else (assigned,)
    return Lowering(graph, backend, np.dtype(dtype), limit, spare).plan(rules, tuple(record), fuse)


def lower_kept(
    graph: Graph, assigned: Sequence[Mapping[str, Assignment]], backend: Any, dtype: Any = np.float32,
    record: Iterable[str] = (), *, fuse: bool = True, limit: float = math.inf,
) -> Plan:  # fmt: skip
    """Make a plan that can pass relevance back any number of times after one forward pass.

    It takes more memory than the plan for a single explanation. Parameters are those of `lower`, but for:

    Parameters
    ----------
    assigned : sequence of mapping of node name to Assignment
        The rules of each pass back.
    """
    return Lowering(graph, backend, np.dtype(dtype), limit).plan(assigned, tuple(record), fuse, keep=True)


class Lowering(Drafting):
    """Lowers nodes one after the other: forward, and their rules back."""

    def __init__(
        self, graph: Graph, backend: Any, dtype: np.dtype[Any], limit: float = math.inf, spare: bool = True
    ) -> None:
        super().__init__(graph, backend, dtype)
        self.limit = limit
        self.spare = spare
        self.maps: dict[str, LinearMap] = {}
        self.winners: dict[str, Stored] = {}  # which of a max-pooling's inputs won
        self.rules: dict[str, Rule] = {}
        self.explained: frozenset[str] = frozenset()  # nodes that make the output
        self.vanishing: Mapping[str, bool] = {}

    # Weights beyond float32 become infinite, and predictions with them, which are refused.
    @np.errstate(over="ignore", invalid="ignore")
    def plan(
        self,
        assigned: Sequence[Mapping[str, Assignment]],
        record: tuple[str, ...],
        fuse: bool,
        keep: bool = False,
    ) -> Plan:
        graph = self.graph
        for name in graph.inputs:
            self.values[name] = self.stored(name, name)
        inputs = tuple(self.values[name].host() for name in graph.inputs)
        for node in graph.nodes:
            self.forward(node)
        output = self.ordered(self.values[graph.output], 1).host()
        forward = self.steps
        backs = tuple(self.back(rules, record) for rules in assigned)
        draft = Draft(tuple(map(self.exacted, forward)), inputs, output, backs)
        if keep:
            draft = hoisted(draft)
        draft, nbytes = laid_out(clamped_by_readers(fused(draft)) if fuse else draft)
        return Plan(**vars(draft), dtype=self.dtype, backend=self.backend, bytes_per_sample=nbytes)

    def back(self, assigned: Mapping[str, Assignment], record: tuple[str, ...]) -> Back:
        """A pass back under some rules."""
        graph = self.graph
        self.rules = {name: assignment.rule for name, assignment in assigned.items()}
        self.explained = gain.explained(graph, self.rules) if self.spare else frozenset()
        self.vanishing = vanishing(graph, self.rules)
        self.steps, self.relevance, self.sums, self.ledgers = [], {}, {}, {}
        start = self.stored(relevance_of(graph.output), graph.output)
        self.relevance[graph.output] = self.ordered(start, self.homes[graph.output])
        accounts = tuple(
            self.vjp(node, self.rules[node.name])
            for node in reversed(graph.nodes)
            if node.output in self.relevance
        )
        relevance = tuple(self.reached(name).host() for name in graph.inputs)
        recorded = {
            node.name: self.ordered(self.reached(node.output), 1, node.name).host()
            for node in graph.nodes
            if node.name in record
        }
        books = Books(accounts, len(self.ledgers), len(self.sums))
        numbers = *self.ledgers.values(), *map(sums_view, self.sums)
        return Back(tuple(self.steps), start.host(), relevance, recorded, books, numbers)

    # --- forward ---

    def forward(self, node: Node) -> None:
        """The node's own computation."""
        op, home = node.op, self.homes[node.output]
        if isinstance(op, (Identity, Reshape)):
            x = self.value(node.inputs[0], home, node)
            self.values[node.output] = replace(x, shape=self.fact(node.output).shape)
        elif isinstance(op, (Relu, LeakyRelu, Clip)):
            x, y = self.value(node.inputs[0], home, node), self.stored(node.output, node.output, home)
            self.values[node.output] = y
            self.collect(node, x.elements(), WHOLE, Ending(y.elements(), clamp=_clamp(op)))
        elif self.is_pooled(node):
            self.maxpool_forward(node, op)
        elif isinstance(op, Add):
            z, *others = (self.value(name, home, node) for name in node.inputs)
            for x in others:
                before, z = z, self.stored(node.output, node.output, home)
                self.collect(node, x.elements(), WHOLE, Ending(z.elements(), plus=before.elements()))
            self.values[node.output] = z
        elif isinstance(op, (Linear, Upsample)):
            self.linear_forward(node, op)
        elif isinstance(op, Mul) and len({self.fact(name).shape for name in node.inputs}) == 1:
            a, b = (self.value(name, home, node) for name in node.inputs)
            self.values[node.output] = z = self.stored(node.output, node.output, home)
            self.collect(node, a.elements(), WHOLE, Ending(z.elements(), times=b.elements()))
        else:
            inputs = tuple(self.value(name, home, node).host(home) for name in node.inputs)
            self.values[node.output] = z = self.stored(node.output, node.output, home)
            self.host(node, f"{op.kinds[0]}.forward", _alone(op.forward), inputs, Delivery(z.host()))

    def linear_forward(self, node: Node, op: Linear | Upsample) -> None:
        x, z = self.fact(node.inputs[0]), self.fact(node.output)
        m = linear_map(op, x, z, self.dtype, self.backend.LANES, self.homes[node.inputs[0]])
        self.maps[node.name] = m
        src = self.value(node.inputs[0], m.x_lanes, node)
        self.values[node.output] = out = self.stored(node.output, node.output, m.z_lanes)
        bias = m.bias if m.bias is not None and m.bias.any() else None
        end = Ending(m.z_view(out), bias)
        self.product(node, m, m.forward, m.x_view(src), (WHOLE, WHOLE), end, exact=False)

    def is_pooled(self, node: Node) -> bool:
        """Whether the operator goes by the kernels of max-pooling."""
        if isinstance(node.op, GlobalMaxPool):
            value = node.inputs[0]
            return self.backend.LANES == 1 or not pools_plainly(self.fact(value).shape, self.homes[value])
        return isinstance(node.op, MaxPool)

    def maxpool_forward(self, node: Node, op: Any) -> None:
        lanes = self.backend.LANES
        x = self.value(node.inputs[0], lanes, node)
        self.values[node.output] = z = self.stored(node.output, node.output, lanes)
        self.winners[node.name] = winners = self.stored(f"winners({node.name})", node.output, lanes, "int32")
        shape = blocked(z.shape, lanes)
        arguments = {
            "src": x.view(blocked(x.shape, lanes)), **_windows(op, x.shape), "out": z.view(shape),
            "winners": winners.view(shape),
        }  # fmt: skip
        self.call(node, "maxpool_forward", arguments)

    # --- backwards ---

    def vjp(self, node: Node, rule: Rule) -> Account:
        """Hand the relevance of the node's output to its inputs."""
        arrived = self.total(node.output, node.name)
        names = tuple(dict.fromkeys(node.inputs))
        before = {name: self.total(name, node.name) for name in names if name in self.relevance}
        most = self.largest_gain(node, rule)
        limit = self.limit if most > self.limit else math.inf
        aside = {name: self.relevance.pop(name) for name in before} if limit < math.inf else {}
        self.hand_back(node, rule)
        self.bring_home(node)
        clipped = gain.scaled_down(self, node, aside, limit) if limit < math.inf else ()
        left = tuple(
            (self.total(name, node.name), before.get(name)) for name in names if name in self.relevance
        )
        if clipped:
            handed: tuple[tuple[int, int | None], ...] = tuple((number, None) for number in clipped)
        else:
            handed = ((arrived, None),) if self.hands_on_all(node, rule) else left
        ledger = list(self.ledgers).index(node.name) if node.name in self.ledgers else None
        return Account(
            node.name, str(rule), rule.conserves, arrived, left, ledger, handed, limit,
            node.name in self.explained, most,
        )  # fmt: skip

    def largest_gain(self, node: Node, rule: Rule) -> float:
        """The most by which the node may multiply Σ|R|; 0 where that is no blow-up."""
        if not rule.conserves or node.name in self.explained:
            return 0.0
        return gain.largest_gain(self.graph, node, rule)

    def hands_on_all(self, node: Node, rule: Rule) -> bool:
        """Whether the node hands on just what arrives, so that its magnitudes are known wherever it goes."""
        return len(node.inputs) == 1 and isinstance(rule, Pass)

    def hand_back(self, node: Node, rule: Rule) -> None:
        """The steps of the rule."""
        if isinstance(rule, SharingRule):
            self.ledger(node)
            self.share(node, rule)
            self.nothing_left(node)
        elif isinstance(rule, LNRule):
            share_deviations(self, node, rule)
        elif isinstance(rule, CustomRule):
            self.host_vjp(node, str(rule), _custom(rule, node), keep_values=True)
        elif isinstance(rule, ReLUDeconvNet):
            self.host_vjp(node, str(rule), lambda x, y, r: (np.maximum(r, 0),))
        elif isinstance(rule, ReLUGuidedBackprop):
            self.host_vjp(node, str(rule), _guided(node), keep_values=True)
        elif isinstance(rule, SignalTakesAll):
            self.signal_takes_all(node, node.op)
        elif isinstance(rule, Halves):
            self.host_vjp(node, "halves", _halves)
        elif isinstance(rule, Pass) or isinstance(node.op, (Add, Identity, Reshape)):
            self.pass_on(node, node.inputs)
        elif self.is_pooled(node):
            self.maxpool_vjp(node, node.op)
        elif isinstance(rule, (Gradient, Route)) and node.name in self.maps:
            self.gradient(node)
        else:
            values = not isinstance(node.op, (Movement, Linear))
            self.host_vjp(node, f"{node.op.kinds[0]}.vjp", _op_vjp(node), keep_values=values)
            if isinstance(node.op, (Mask, Pad)):
                self.constants_ledger(node, node.op)

    def share(self, node: Node, rule: SharingRule) -> None:
        """A sharing rule on whatever is linear, or taken for that."""
        if isinstance(node.op, Normalizing):
            share_normalized(self, node, rule)
        elif isinstance(node.op, Add):
            forms.share_sum(self, node, rule)
        else:
            forms.share_linear(self, node, rule)

    def nothing_left(self, node: Node) -> None:
        """Zeros for inputs to which the signs of x and w leave no term of the rule."""
        for name in dict.fromkeys(node.inputs):
            if name not in self.relevance and name not in self.abroad:
                out, _ = self.contribution(name, self.homes[name])
                self.collect(
                    node, self.values[name].elements(), (0.0, 0.0), Ending(out.elements()),
                    form="the signs of x and w leave nothing of the rule",
                )  # fmt: skip

    def signal_takes_all(self, node: Node, op: Any) -> None:
        """All relevance to the signal, summed where the gate was the larger array; none reaches the gate."""
        signal = node.inputs[op.signal]
        if self.fact(signal).shape == self.fact(node.output).shape:
            self.pass_on(node, (signal,))
            return
        out, plus = self.contribution(signal, 1)
        delivery = Delivery(out.host(), None if plus is None else plus.host())
        function = _alone(partial(summed, shape=self.fact(signal).shape))
        self.host(node, "sum of the signal's copies", function, (self.arrived(node, 1).host(),), delivery)

    def pass_on(self, node: Node, names: Sequence[str]) -> None:
        """All relevance to every input named; the first to give an input any has nothing to compute."""
        for name in names:
            home = self.homes[name]
            if isinstance(node.op, Reshape):
                plain = replace(self.arrived(node, 1), shape=self.fact(name).shape)
                r = self.ordered(plain, home, node.name)
            else:
                r = self.arrived(node, home)
            if name not in self.relevance:
                self.relevance[name] = r
                continue
            out, plus = self.contribution(name, home)
            assert plus is not None
            self.collect(node, r.elements(), WHOLE, Ending(out.elements(), plus=plus.elements()))

    def maxpool_vjp(self, node: Node, op: Any) -> None:
        lanes = self.backend.LANES
        r, winners = self.arrived(node, lanes), self.winners[node.name]
        out, plus = self.contribution(node.inputs[0], lanes)
        z, x = blocked(r.shape, lanes), blocked(out.shape, lanes)
        arguments = {
            "src": r.view(z), "winners": winners.view(z), **_windows(op, out.shape),
            "end": Ending(out.view(x), plus=None if plus is None else plus.view(x)),
        }  # fmt: skip
        self.call(node, "maxpool_vjp", arguments)

    def gradient(self, node: Node) -> None:
        m = self.maps[node.name]
        r = self.arrived(node, m.z_lanes)
        self.product(node, m, m.vjp, m.z_view(r), (WHOLE, WHOLE), self.handed(m, node.inputs[0]), exact=False)

    def handed(self, m: LinearMap, value: str, **more: Any) -> Ending:
        """The ending of a product that contributes to the relevance of a layer's input."""
        out, plus = self.contribution(value, m.x_lanes)
        return Ending(m.x_view(out), plus=None if plus is None else m.x_view(plus), **more)

    def host_vjp(self, node: Node, title: str, function: Any, keep_values: bool = False) -> None:
        """A NumPy function `(*inputs, output, r) -> one array per input`."""
        lanes = self.homes[node.output] if follows(node, self.graph, self.backend.LANES) else 1
        names = (*node.inputs, node.output)
        shapes = (self.fact(name).shape for name in names)
        arrays: tuple[View | Shape, ...] = tuple(
            Shape(s if lanes == 1 else elements(s, lanes)) for s in shapes
        )
        if keep_values:
            arrays = tuple(self.value(name, lanes, node).host(lanes) for name in names)
        arrays = (*arrays, self.arrived(node, lanes).host(lanes))
        places = [self.contribution(name, lanes) for name in node.inputs]
        deliveries = (
            Delivery(out.host(lanes), None if plus is None else plus.host(lanes)) for out, plus in places
        )
        self.host(node, title, function, arrays, *deliveries)

    def constants_ledger(self, node: Node, op: Mask | Pad) -> None:
        """Relevance that falls on padding, or on what fills a mask, is a constant's, like a bias'."""
        constants = op.constants(self.fact(node.output).shape)

        def count(r: Array) -> tuple[Array, ...]:
            everything = r.reshape(len(r), -1).sum(axis=1, dtype=np.float64)
            lost = r[:, constants].sum(axis=1, dtype=np.float64)
            zero = np.zeros_like(lost)
            return (np.stack([everything, lost, zero, zero], axis=1),)

        relevance = self.arrived(node, 1).host()
        self.host(node, "sums of what falls on constants", count, (relevance,), Delivery(self.ledger(node)))


def _clamp(op: Relu | LeakyRelu | Clip) -> tuple[float, float, float]:
    if isinstance(op, LeakyRelu):
        return op.alpha, -np.inf, np.inf
    return (1.0, op.low, op.high) if isinstance(op, Clip) else (1.0, 0.0, np.inf)


def _windows(op: MaxPool | GlobalMaxPool, x: tuple[int, ...]) -> dict[str, tuple[int, int, int]]:
    """The windows of a pool over samples of shape `x`, as kernels are told of them."""
    window, strides, pads, dilations = op.geometry(x)
    return {
        "window": three(window, 1), "strides": three(strides, 1), "pads": three(pads, 0),
        "dilations": three(dilations, 1),
    }  # fmt: skip


def _alone(function: Any) -> Any:
    return lambda *arrays: (function(*arrays),)


def _op_vjp(node: Node) -> Any:
    return lambda *arrays: node.op.vjp(arrays[:-2], arrays[-2], arrays[-1])


def _halves(a: Array, b: Array, z: Array, r: Array) -> tuple[Array, ...]:
    return tuple(summed(r, x.shape[1:]) / 2 for x in (a, b))


def _guided(node: Node) -> Any:
    return lambda x, y, r: node.op.vjp((x,), y, np.maximum(r, 0))


def _custom(rule: CustomRule, node: Node) -> Any:
    """The user's function: it cannot write to what it gets but may keep it; what it returns is checked."""

    def checked(*arrays: Array) -> tuple[Array, ...]:
        arrays = tuple(a.copy() for a in arrays)
        for a in arrays:
            a.setflags(write=False)
        inputs, (output, r) = arrays[:-2], arrays[-2:]
        result = rule.function(node.op, inputs, output, r)
        shapes = [x.shape for x in inputs]
        if not isinstance(result, tuple) or [np.shape(a) for a in result] != shapes:
            got = [np.shape(a) for a in result] if isinstance(result, tuple) else type(result).__name__
            raise RuleError(
                f"{rule} returned {got} for node {node.name!r}; expected a tuple with one array for each "
                f"input, of shape {', '.join(map(str, shapes))}"
            )
        return result

    return checked
