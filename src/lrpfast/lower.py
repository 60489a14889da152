"""Lowering: a graph and the rules of its nodes become a plan of kernel calls.

The only module that knows both rules and kernels. What it knows of signs and zeros decides how many
products a rule costs; every step says in words which form it is.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from . import shares as forms
from .composites import Assignment
from .errors import RuleError
from .graph import Fact, Graph, Node
from .linear_map import LinearMap, linear_map, three, volume
from .ops.activation import Clip, LeakyRelu, Relu, Tanh
from .ops.arithmetic import Add
from .ops.base import Array, Elementwise, Linear, Movement
from .ops.movement import Pad
from .ops.pool import GlobalMaxPool, MaxPool
from .parts import Share
from .plan import (
    Account,
    Delivery,
    HostCall,
    KernelCall,
    New,
    Plan,
    Shape,
    Step,
    View,
    relevance_of,
    with_frees,
)
from .rules import (
    CustomRule,
    Gradient,
    Pass,
    ReLUDeconvNet,
    ReLUGuidedBackprop,
    Rule,
    SharingRule,
)
from .shares import WHOLE


def lower(
    graph: Graph, assigned: Mapping[str, Assignment] | None, backend: Any, dtype: Any = np.float32,
    record: Iterable[str] = (),
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
    """
    return Lowering(graph, backend, np.dtype(dtype)).plan(assigned, tuple(record))


class Lowering:
    """The state of one lowering: steps made so far, and what has been delivered where."""

    def __init__(self, graph: Graph, backend: Any, dtype: np.dtype[Any]) -> None:
        self.graph = graph
        self.backend = backend
        self.dtype = dtype
        self.maps: dict[str, LinearMap] = {}
        self.steps: list[Step] = []
        self.begun = {relevance_of(graph.output)}  # arrays made by the first step that adds to them
        self.sums: dict[str, str] = {}  # for each value, the last sums of its relevance
        self.rules: dict[str, Rule] = {}
        self.vanishing: Mapping[str, bool] = {}

    def plan(self, assigned: Mapping[str, Assignment] | None, record: tuple[str, ...]) -> Plan:
        graph = self.graph
        for node in graph.nodes:
            self.forward(node)
        forward, self.steps = self.steps, []
        accounts: list[Account] = []
        keep = {graph.input, graph.output}
        recorded: dict[str, str] = {}
        if assigned is not None:
            self.rules = {name: assignment.rule for name, assignment in assigned.items()}
            self.vanishing = _vanishing(graph, self.rules)
            self.total(graph.output, "")
            for node in reversed(graph.nodes):
                accounts.append(self.vjp(node, self.rules[node.name]))
            recorded = {n.name: relevance_of(n.output) for n in graph.nodes if n.name in record}
            keep.add(relevance_of(graph.input))
            keep.update(recorded.values())
            for account in accounts:
                keep.update((account.arrived, *(a for a, _ in account.left)))
                keep.update(() if account.ledger is None else (account.ledger,))
        steps = with_frees([*forward, *self.steps], frozenset(keep))
        return Plan(
            graph.input, graph.input_shape, graph.output, graph.output_shape, self.dtype, self.backend,
            steps[: len(forward)], steps[len(forward) :], tuple(accounts), relevance_of(graph.input), recorded,
        )  # fmt: skip

    # --- forward ---

    def fact(self, value: str) -> Fact:
        return self.graph.facts[value]

    def new(self, value: str) -> New:
        return New(value, self.fact(value).shape)

    def forward(self, node: Node) -> None:
        """The node's own computation."""
        op, out = node.op, node.output
        if isinstance(op, (Relu, LeakyRelu, Clip)):
            flat = (self.fact(out).size,)
            slope, low, high = _clamp(op)
            arguments: dict[str, Any] = {
                "src": View(node.inputs[0], flat), "slope": slope, "low": low, "high": high,
                "out": View(out, flat),
            }  # fmt: skip
            self.call(node, "clamp_forward", arguments, self.new(out))
        elif isinstance(op, (MaxPool, GlobalMaxPool)):
            self.maxpool_forward(node, op)
        elif isinstance(op, Add):
            flat = (self.fact(out).size,)
            for i, name in enumerate(node.inputs):
                makes = () if i else (self.new(out),)
                self.collect(node, View(name, flat), WHOLE, None, WHOLE, View(out, flat), *makes)
        elif isinstance(op, Linear):
            m = linear_map(op, self.fact(node.inputs[0]), self.fact(out), self.dtype)
            self.maps[node.name] = m
            x = View(node.inputs[0], m.x_shape, m.rows)
            bias = m.bias if m.bias is not None and m.bias.any() else None
            self.product(
                node, m, m.forward, x, (WHOLE, WHOLE), View(out, m.z_shape, m.rows), self.new(out), bias=bias
            )
        else:
            self.steps.append(
                HostCall(node.name, f"{type(op).__name__}.forward", _alone(op.forward), node.inputs,
                         (Delivery(out),))
            )  # fmt: skip

    def maxpool_forward(self, node: Node, op: MaxPool | GlobalMaxPool) -> None:
        x, z = self.fact(node.inputs[0]).shape, self.fact(node.output).shape
        window, strides, pads, dilations = op.geometry(x)
        arguments = {
            "src": View(node.inputs[0], volume(x)), "window": three(window, 1),
            "strides": three(strides, 1), "pads": three(pads, 0), "dilations": three(dilations, 1),
            "out": View(node.output, volume(z)), "winners": View(winners_of(node), volume(z)),
        }  # fmt: skip
        winners = New(winners_of(node), z, "int32")
        self.call(node, "maxpool_forward", arguments, self.new(node.output), winners)

    # --- the calls ---

    def call(self, node: Node, kernel: str, arguments: dict[str, Any], *makes: New, form: str = "") -> None:
        self.steps.append(KernelCall(node.name, kernel, arguments, makes, form=form))

    def product(
        self, node: Node, m: LinearMap, kernel: str, src: View | Array, parts: tuple[Any, Any], out: View,
        *makes: New, power: int = 1, bias: Array | None = None, times: View | None = None,
        times_part: tuple[float, float] = WHOLE, form: str = "",
    ) -> None:  # fmt: skip
        """One product with the layer's matrix or its transpose; adds to `out` unless it `makes` it."""
        arguments = {
            "src": src, "w": m.powered_weight(power), **m.options, "src_part": parts[0], "w_part": parts[1],
            "bias": bias, "times": times, "times_part": times_part, "out": out, "accumulate": not makes,
        }  # fmt: skip
        self.call(node, kernel, arguments, *makes, form=form)

    def collect(
        self, node: Node, src: View, src_part: tuple[float, float], times: View | None,
        times_part: tuple[float, float], out: View, *makes: New, form: str = "",
    ) -> None:  # fmt: skip
        """Elementwise product; adds to `out` unless it `makes` it."""
        arguments = {
            "src": src, "src_part": src_part, "times": times, "times_part": times_part, "out": out,
            "accumulate": not makes,
        }  # fmt: skip
        self.call(node, "collect", arguments, *makes, form=form)

    def once(self, new: New) -> tuple[New, ...]:
        """`new` the first time it is asked for; later steps find the array there and add to it."""
        if new.name in self.begun:
            return ()
        self.begun.add(new.name)
        return (new,)

    def makes_relevance(self, value: str) -> tuple[New, ...]:
        """The relevance of `value` as a new array, for its first contribution."""
        return self.once(New(relevance_of(value), self.fact(value).shape))

    def divide(
        self, node: Node, rule: SharingRule, share: Share, z: View | Array, shape: tuple[int, ...], s: str,
        bias: Array | None = None, form: str = "",
    ) -> None:  # fmt: skip
        """`s = scale · [gate] · R / stab(z)`, outputs seen as `shape` (channels, inner)."""
        stab = rule.stab
        arguments: dict[str, Any] = {
            "z": z, "r": View(relevance_of(node.output), shape),
            "gate_z": View(node.output, shape) if share.gate else None, "gate": share.gate, "bias": bias,
            "scale": share.scale, "epsilon": float(stab.epsilon), "clip": stab.clip,
            "norm_scale": stab.norm_scale, "out": View(s, shape), "ledger": View(ledger_of(node), (4,)),
        }  # fmt: skip
        ledger = self.once(New(ledger_of(node), (4,), "float64", zero=True))
        self.call(node, "divide", arguments, New(s, self.fact(node.output).shape), *ledger, form=form)

    def total(self, value: str, node: str) -> str:
        """Sum up the relevance of `value` as it stands; returns the name of the sums."""
        name = f"total({value},{node})"
        arguments = {
            "src": View(relevance_of(value), (self.fact(value).size,)),
            "out": View(name, (2,)),
        }
        self.steps.append(KernelCall(node, "sums", arguments, (New(name, (2,), "float64"),)))
        self.sums[value] = name
        return name

    # --- backwards ---

    def vjp(self, node: Node, rule: Rule) -> Account:
        """Hand the relevance of the node's output to its inputs."""
        arrived = self.sums[node.output]
        before = {name: self.sums.get(name) for name in node.inputs}
        if isinstance(rule, SharingRule):
            share = forms.share_sum if isinstance(node.op, Add) else forms.share_linear
            share(self, node, rule)
            self.nothing_left(node)
        elif isinstance(rule, Pass):
            self.pass_on(node)
        elif isinstance(rule, CustomRule):
            self.host_vjp(node, str(rule), _custom(rule, node), keep_values=True)
        elif isinstance(rule, ReLUDeconvNet):
            self.host_vjp(node, str(rule), lambda x, y, r: (np.maximum(r, 0),))
        elif isinstance(rule, ReLUGuidedBackprop):
            self.host_vjp(node, str(rule), _guided(node), keep_values=True)
        elif isinstance(node.op, (MaxPool, GlobalMaxPool)):
            self.maxpool_vjp(node)
        elif isinstance(rule, Gradient) and node.name in self.maps:
            self.gradient(node)
        else:
            values = not isinstance(node.op, (Movement, Linear))
            self.host_vjp(node, f"{type(node.op).__name__}.vjp", _op_vjp(node), keep_values=values)
            if isinstance(node.op, Pad):
                self.padding_ledger(node, node.op)
        left = tuple((self.total(name, node.name), before[name]) for name in dict.fromkeys(node.inputs))
        ledger = ledger_of(node) if ledger_of(node) in self.begun else None
        return Account(node.name, str(rule), rule.conserves, arrived, left, ledger)

    def nothing_left(self, node: Node) -> None:
        """Zeros for inputs to which the signs of x and w leave no term of the rule."""
        for name in dict.fromkeys(node.inputs):
            for new in self.makes_relevance(name):
                flat = (self.fact(name).size,)
                ledger = self.once(New(ledger_of(node), (4,), "float64", zero=True))
                self.collect(
                    node, View(name, flat), (0.0, 0.0), None, WHOLE, View(new.name, flat), new, *ledger,
                    form="the signs of x and w leave nothing of the rule",
                )  # fmt: skip

    def pass_on(self, node: Node) -> None:
        (x,) = node.inputs
        makes = self.makes_relevance(x)
        if makes and len(self.graph.consumers[x]) == 1:
            self.steps.append(
                HostCall(node.name, "alias", lambda r: (r,), (relevance_of(node.output),),
                         (Delivery(relevance_of(x)),))
            )  # fmt: skip
            return
        flat = (self.fact(x).size,)
        r, out = View(relevance_of(node.output), flat), View(relevance_of(x), flat)
        self.collect(node, r, WHOLE, None, WHOLE, out, *makes)

    def maxpool_vjp(self, node: Node) -> None:
        x, z = self.fact(node.inputs[0]).shape, self.fact(node.output).shape
        makes = self.makes_relevance(node.inputs[0])
        arguments = {
            "src": View(relevance_of(node.output), volume(z)),
            "winners": View(winners_of(node), volume(z)),
            "out": View(relevance_of(node.inputs[0]), volume(x)), "accumulate": not makes,
        }  # fmt: skip
        self.call(node, "maxpool_vjp", arguments, *makes)

    def gradient(self, node: Node) -> None:
        m, x = self.maps[node.name], node.inputs[0]
        r = View(relevance_of(node.output), m.z_shape, m.rows)
        out = View(relevance_of(x), m.x_shape, m.rows)
        self.product(node, m, m.vjp, r, (WHOLE, WHOLE), out, *self.makes_relevance(x))

    def host_vjp(self, node: Node, title: str, function: Any, keep_values: bool = False) -> None:
        """A NumPy function `(*inputs, output, r) -> one array per input`."""
        values = (*node.inputs, node.output)
        inputs: tuple[str | Shape, ...] = values
        if not keep_values:
            inputs = tuple(Shape(self.fact(name).shape) for name in values)
        deliveries = []
        for name in node.inputs:
            accumulate = not self.makes_relevance(name)
            private = len(self.graph.consumers[name]) > 1
            deliveries.append(Delivery(relevance_of(name), accumulate, private))
        inputs = (*inputs, relevance_of(node.output))
        self.steps.append(HostCall(node.name, title, function, inputs, tuple(deliveries)))

    def padding_ledger(self, node: Node, pad: Pad) -> None:
        """Relevance that falls on padding is the padding's: a constant's, like a bias'."""
        relevance = relevance_of(node.output)
        axes = tuple(range(1, len(self.fact(node.output).shape) + 1))
        shape = self.fact(node.inputs[0]).shape
        inside = (slice(None), *(slice(a, a + n) for a, n in zip(pad.pads, shape, strict=False)))

        def count(r: Array) -> tuple[Array, ...]:
            border = r.astype(np.float64)
            everything = border.sum(axis=axes)
            border[inside] = 0
            lost = border.sum(axis=axes)
            zero = np.zeros_like(lost)
            return (np.stack([everything, lost, zero, zero], axis=1),)

        self.once(New(ledger_of(node), (4,), "float64"))
        delivery = Delivery(ledger_of(node), dtype="float64")
        self.steps.append(HostCall(node.name, "sums of the padding", count, (relevance,), (delivery,)))


def winners_of(node: Node) -> str:
    """Name of the array that holds a max-pooling's winners."""
    return f"winners({node.name})"


def ledger_of(node: Node) -> str:
    """Name of the array in which a node's divisions count what bias, stabilizer and dead units take."""
    return f"ledger({node.name})"


def _clamp(op: Relu | LeakyRelu | Clip) -> tuple[float, float, float]:
    if isinstance(op, LeakyRelu):
        return op.alpha, -np.inf, np.inf
    return (1.0, op.low, op.high) if isinstance(op, Clip) else (1.0, 0.0, np.inf)


def _alone(function: Any) -> Any:
    return lambda *arrays: (function(*arrays),)


def _op_vjp(node: Node) -> Any:
    return lambda *arrays: node.op.vjp(arrays[:-2], arrays[-2], arrays[-1])


def _guided(node: Node) -> Any:
    return lambda x, y, r: node.op.vjp((x,), y, np.maximum(r, 0))


def _custom(rule: CustomRule, node: Node) -> Any:
    """The user's function: it cannot write to what it gets, and what it returns is checked."""

    def checked(*arrays: Array) -> tuple[Array, ...]:
        arrays = tuple(a.view() for a in arrays)
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


def _vanishing(graph: Graph, rules: Mapping[str, Rule]) -> Mapping[str, bool]:
    """For each value, whether its relevance is known to be zero wherever the value is."""
    known = {graph.output: False}
    for value in reversed([graph.input, *(node.output for node in graph.nodes)]):
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
    if isinstance(node.op, Clip):
        return output_vanishes and node.op.low <= 0 <= node.op.high
    if isinstance(node.op, Elementwise):
        return output_vanishes and isinstance(node.op, (Relu, LeakyRelu, Tanh))
    return output_vanishes and isinstance(node.op, (Movement, MaxPool, GlobalMaxPool))
