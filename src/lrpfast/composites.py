"""Composites: which node of a network gets which rule, and why."""

from __future__ import annotations

import fnmatch
import inspect
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from .errors import CompositeError, RuleError
from .graph import Graph, Node
from .ops.base import Array, Linear, Op
from .ops.embedding import Embedding
from .ops.function import FUNCTIONS
from .ops.normalization import Normalizing
from .ops.one_hot import OneHot
from .parts import Stabilizer
from .rules import (
    AbsNorm,
    AlphaBeta,
    Epsilon,
    Flat,
    Gamma,
    Gradient,
    Halves,
    Norm,
    Pass,
    ReLUDeconvNet,
    ReLUGuidedBackprop,
    Route,
    Rule,
    SharingRule,
    SignalTakesAll,
    WinnerTakeAll,
    WSquare,
    ZBox,
    ZPlus,
)

KINDS = {
    "linear": "dense layers and convolutions",
    "dense": "Gemm, MatMul",
    "convolution": "Conv, ConvTranspose",
    "average_pool": "AveragePool, GlobalAveragePool",
    "interpolation": "Resize, Upsample: linear and cubic",
    "sum": "Add, Sum",
    "affine": "BatchNormalization and constants added or multiplied, where they could not be folded",
    "normalization": "LayerNormalization, GroupNormalization, RMSNormalization, LpNormalization, LRN, …",
    "gating": "Mul of a signal and a gate (sigmoid or the like, or one number a channel), Div",
    "product": "Mul of two activations, with or without a gate, Div",
    "activation": "Relu, Gelu, Sigmoid, Softmax, … and other functions of one number, as Exp or Pow",
    "max_pool": "MaxPool, GlobalMaxPool",
    "embedding": "Gather of a table's rows by the network's input, one-hot vectors",
    "winner": "max-pooling, and Max and Min of several activations",
    "movement": "Reshape, Transpose, Concat, …",
}
"""The words that select operators by kind; an operator's own name (`Conv`) selects it too."""

INITS = ("logit", "one", "probability")
"""The words for initial relevance."""

SUMS: Mapping[str, type[Norm | AbsNorm]] = {"norm": Norm, "abs": AbsNorm}
"""The words for how presets share sums, average pooling and interpolation: by contribution, or by its magnitude."""


def _all_kinds(op: type[Op] = Op) -> set[str]:
    return set(op.kinds).union(*map(_all_kinds, op.__subclasses__()))


_NAMES = _all_kinds().union(FUNCTIONS, ["BatchNormalization"])
_KNOWN_KINDS = ("*", *KINDS, *sorted(_NAMES - set(KINDS)))


@dataclass(frozen=True)
class Selector:
    """Selects nodes of a graph.

    Parameters
    ----------
    kind : str, default "*"
        One of `KINDS`, or an operator's name.
    name : str, default "*"
        A glob pattern for the node's name, such as ``"features.*"``.
    first : bool, default False
        Only nodes that no node of the same kind comes before on any path from the input.

    Raises
    ------
    CompositeError
        There is no such kind.
    """

    kind: str = "*"
    name: str = "*"
    first: bool = False

    def __post_init__(self) -> None:
        if self.kind not in _KNOWN_KINDS:
            raise CompositeError(f"no operator is of kind {self.kind!r}; known are {', '.join(_KNOWN_KINDS)}")

    def __str__(self) -> str:
        words = ["first"] if self.first else []
        if self.kind != "*":
            words.append(self.kind)
        if self.name != "*":
            words.append(f"named {self.name}")
        return " ".join(words) or "every node"

    def selects_kind(self, op: Op) -> bool:
        """Whether `op` is of the selector's kind."""
        return self.kind == "*" or self.kind in op.kinds


# What every composite ends with: here relevance has only one way to go.
_IMPLICIT: tuple[tuple[Selector, Rule], ...] = (
    (Selector("winner"), WinnerTakeAll()),
    (Selector("movement"), Route()),
)


@dataclass(frozen=True)
class Composite:
    """An ordered list of (selector, rule); the first selector that fits a node gives its rule.

    Parameters
    ----------
    name : str
        Shown in reports and manifests.
    rules : iterable of (Selector or str, Rule)
        A string is a kind: ``("convolution", ZPlus())``. Max-pooling, Max and Min (`WinnerTakeAll`) and
        movement operators (`Route`) need no entry.
    init : {"logit", "one", "probability"}, default "logit"
        The initial relevance that goes with the composite.
    times_input : bool, default False
        Multiply the result by the input (gradient × input).

    Raises
    ------
    CompositeError
        An entry is not a pair of a selector and a rule, or there is no such kind or `init`.
    """

    name: str
    rules: tuple[tuple[Selector, Rule], ...]
    init: str = "logit"
    times_input: bool = False
    doc: str = field(default="", compare=False)

    def __post_init__(self) -> None:
        if self.init not in INITS:
            raise CompositeError(
                f"composite {self.name!r}: init is {self.init!r}; expected one of {', '.join(INITS)}"
            )
        entries = []
        for entry in self.rules:
            try:
                selector, rule = entry
            except (TypeError, ValueError):
                raise CompositeError(
                    f"composite {self.name!r}: {entry!r} is not a (selector, rule) pair"
                ) from None
            selector = Selector(selector) if isinstance(selector, str) else selector
            if isinstance(rule, type) or not isinstance(rule, Rule) or not isinstance(selector, Selector):
                raise CompositeError(
                    f"composite {self.name!r}: {entry!r} is not a (selector, rule) pair; write, for "
                    'example, ("convolution", ZPlus()) or (Selector(name="fc*"), Epsilon(0.1))'
                )
            entries.append((selector, rule))
        object.__setattr__(self, "rules", tuple(entries))


@dataclass(frozen=True)
class Assignment:
    """The rule of a node, and the selector that gave it."""

    rule: Rule
    reason: str


def assign(composite: Composite, graph: Graph) -> Mapping[str, Assignment]:
    """Give every node of `graph` its rule.

    Raises
    ------
    CompositeError
        Nodes without a rule, or whose rule does not apply to them; all of them are listed.
    """
    entries = composite.rules + _IMPLICIT
    firsts = {s: _first_nodes(graph, s) for s, _ in entries if s.first}
    assigned: dict[str, Assignment] = {}
    offenders = []
    for node in graph.nodes:
        for selector, rule in entries:
            if not (selector.selects_kind(node.op) and fnmatch.fnmatchcase(node.name, selector.name)):
                continue
            if selector.first and node.name not in firsts[selector]:
                continue
            problem = why_not(rule, node, graph)
            if problem:
                offenders.append(f"  {node.name} ({node.op.kinds[0]}): {rule} {problem}")
            assigned[node.name] = Assignment(rule, str(selector))
            break
        else:
            offenders.append(f"  {node.name} ({node.op.kinds[0]}): no rule for its kinds {node.op.kinds[1:]}")
    if offenders:
        raise CompositeError(
            f"composite {composite.name!r} does not cover this network; add a (selector, rule) entry for:\n"
            + "\n".join(offenders)
        )
    return assigned


def _first_nodes(graph: Graph, selector: Selector) -> set[str]:
    """Names of the nodes of the selector's kind that none of that kind comes before."""
    behind: set[str] = set()  # arrays that depend on a node of the kind
    found = set()
    for node in graph.nodes:
        passed = any(name in behind for name in node.inputs)
        mine = selector.selects_kind(node.op)
        if mine and not passed:
            found.add(node.name)
        if mine or passed:
            behind.add(node.output)
    return found


def why_not(rule: Rule, node: Node, graph: Graph) -> str:
    """Why `rule` cannot be used on `node`; empty if it can."""
    family, op = rule.family, node.op
    if family == "linear" and not isinstance(op, (Linear, Normalizing)):
        return "is for linear operators only"
    if family == "same shape":
        shapes = {graph.facts[name].shape for name in (*node.inputs, node.output)}
        if len(node.inputs) != 1 or len(shapes) != 1:
            return "needs one input, of the output's shape"
    if family not in ("linear", "same shape", "any") and family not in op.kinds:
        return f"is for operators of kind {family} only"
    if isinstance(rule, Gradient) and isinstance(op, (Embedding, OneHot)):
        return "has no derivative by an index; give it Route(), and record its output for the gradient there"
    if isinstance(rule, ZBox):
        if isinstance(op, Normalizing):
            return "is for operators with constant weights only"
        if len(node.inputs) != 1:
            return "is for operators with one input"
        shape = graph.facts[node.inputs[0]].shape
        for name, bound in (("low", rule.low), ("high", rule.high)):
            try:
                fits = np.broadcast_shapes(np.shape(bound), shape) == shape
            except ValueError:
                fits = False
            if not fits:
                return (
                    f"has {name} of shape {np.shape(bound)}, which does not broadcast to the input's {shape}"
                )
    elif isinstance(rule, SharingRule) and any(t.x.minus for share in rule.shares() for t in share.terms):
        return "subtracts bounds from x; only ZBox, and what is derived from it, has them"
    return ""


# --- presets ---


def _base(stabilizer: float | Stabilizer, sums: str = "norm") -> tuple[tuple[str, Rule], ...]:
    """What zennit's composites do beside convolutions and dense layers, but for `sums`."""
    if sums not in SUMS:
        raise CompositeError(f"sums is {sums!r}; expected one of {', '.join(SUMS)}")
    return (
        ("sum", SUMS[sums](stabilizer)),
        ("average_pool", SUMS[sums](stabilizer)),
        ("interpolation", SUMS[sums](stabilizer)),
        ("affine", Pass()),
        ("normalization", Pass()),
        ("gating", SignalTakesAll()),
        ("product", Halves()),
        ("activation", Pass()),
    )


def _preset(name: str, doc: str, entries: Iterable[tuple[Any, Rule]], **more: Any) -> Composite:
    return Composite(name, tuple(entries), doc=doc, **more)


def epsilon_plus(
    epsilon: float = 1e-6, stabilizer: float | Stabilizer = 1e-6, bias: bool = True, sums: str = "norm"
) -> Composite:
    """z⁺ for convolutions, ε for dense layers."""
    return _preset(
        "epsilon_plus", "z⁺ for convolutions, ε for dense layers",
        [("convolution", ZPlus(stabilizer, bias)), ("dense", Epsilon(epsilon, bias)),
         *_base(stabilizer, sums)],
    )  # fmt: skip


def epsilon_plus_flat(
    epsilon: float = 1e-6, stabilizer: float | Stabilizer = 1e-6, bias: bool = True, sums: str = "norm"
) -> Composite:
    """As `epsilon_plus`, with equal shares in the first linear layer."""
    first = (Selector("linear", first=True), Flat(stabilizer))
    return _preset(
        "epsilon_plus_flat", "as epsilon_plus, equal shares in the first layer",
        [first, *epsilon_plus(epsilon, stabilizer, bias, sums).rules],
    )  # fmt: skip


def epsilon_alpha2_beta1(
    epsilon: float = 1e-6, stabilizer: float | Stabilizer = 1e-6, bias: bool = True, sums: str = "norm"
) -> Composite:
    """α=2, β=1 for convolutions, ε for dense layers."""
    return _preset(
        "epsilon_alpha2_beta1", "α=2, β=1 for convolutions, ε for dense layers",
        [("convolution", AlphaBeta(2, 1, stabilizer, bias)), ("dense", Epsilon(epsilon, bias)),
         *_base(stabilizer, sums)],
    )  # fmt: skip


def epsilon_alpha2_beta1_flat(
    epsilon: float = 1e-6, stabilizer: float | Stabilizer = 1e-6, bias: bool = True, sums: str = "norm"
) -> Composite:
    """As `epsilon_alpha2_beta1`, with equal shares in the first linear layer."""
    first = (Selector("linear", first=True), Flat(stabilizer))
    return _preset(
        "epsilon_alpha2_beta1_flat", "as epsilon_alpha2_beta1, equal shares in the first layer",
        [first, *epsilon_alpha2_beta1(epsilon, stabilizer, bias, sums).rules],
    )  # fmt: skip


def epsilon_gamma_box(
    low: float | Array, high: float | Array, epsilon: float = 1e-6, gamma: float = 0.25,
    stabilizer: float | Stabilizer = 1e-6, bias: bool = True, sums: str = "norm",
) -> Composite:  # fmt: skip
    """z^B for the first convolution, γ for the others, ε for dense layers."""
    return _preset(
        "epsilon_gamma_box", "z^B for the first convolution, γ for the others, ε for dense layers",
        [(Selector("convolution", first=True), ZBox(low, high, stabilizer)),
         ("convolution", Gamma(gamma, stabilizer, bias)), ("dense", Epsilon(epsilon, bias)),
         *_base(stabilizer, sums)],
    )  # fmt: skip


def _deep_taylor(name: str, doc: str, first: Rule, stabilizer: float | Stabilizer) -> Composite:
    plus = ZPlus(stabilizer, bias=False)
    return _preset(
        name, doc,
        [(Selector("linear", first=True), first), ("linear", plus), ("sum", plus), ("average_pool", plus),
         ("interpolation", plus), *_base(stabilizer)],
    )  # fmt: skip


def deep_taylor(stabilizer: float | Stabilizer = 1e-6) -> Composite:
    """Deep Taylor decomposition for unbounded inputs: z⁺ everywhere, w² at the input, no bias.

    With biases ≤ 0 and a positive target it conserves f(x), and no relevance is negative.
    """
    doc = "deep Taylor decomposition: z⁺, w² at the input"
    return _deep_taylor("deep_taylor", doc, WSquare(stabilizer, bias=False), stabilizer)


def deep_taylor_bounded(
    low: float | Array, high: float | Array, stabilizer: float | Stabilizer = 1e-6
) -> Composite:
    """Deep Taylor decomposition for inputs in a box: z⁺ everywhere, z^B at the input, no bias."""
    doc = "deep Taylor decomposition: z⁺, z^B at the input"
    return _deep_taylor("deep_taylor_bounded", doc, ZBox(low, high, stabilizer), stabilizer)


_RECTIFIERS = ("Relu", "LeakyRelu", "PRelu", "ThresholdedRelu", "Clip")


def _gradient_like(name: str, doc: str, rectifier: Rule, **more: Any) -> Composite:
    entries = [(kind, rectifier) for kind in _RECTIFIERS]
    return _preset(name, doc, [*entries, (Selector(), Gradient())], init="one", **more)


def gradient() -> Composite:
    """The gradient of the target by the input (sensitivity)."""
    return _gradient_like("gradient", "gradient of the target by the input", Gradient())


def gradient_x_input() -> Composite:
    """The gradient times the input."""
    return _gradient_like("gradient_x_input", "gradient × input", Gradient(), times_input=True)


def deconvnet() -> Composite:
    """DeconvNet: the gradient, with rectifiers handing back max(R, 0) wherever they are."""
    return _gradient_like("deconvnet", "DeconvNet", ReLUDeconvNet())


def guided_backprop() -> Composite:
    """Guided backprop: the gradient, of which rectifiers hand back only what is positive."""
    return _gradient_like("guided_backprop", "guided backprop", ReLUGuidedBackprop())


def excitation_backprop(stabilizer: float | Stabilizer = 1e-6, sums: str = "norm") -> Composite:
    """Excitation backprop (Zhang et al. 2018): z⁺ without bias; the target starts with 1."""
    return _preset(
        "excitation_backprop", "excitation backprop: z⁺ without bias",
        [("linear", ZPlus(stabilizer, bias=False)), ("activation", Gradient()),
         *_base(stabilizer, sums)],
        init="one",
    )  # fmt: skip


COMPOSITES: dict[str, Callable[..., Composite]] = {
    preset.__name__: preset
    for preset in (
        epsilon_plus, epsilon_plus_flat, epsilon_alpha2_beta1, epsilon_alpha2_beta1_flat, epsilon_gamma_box,
        deep_taylor, deep_taylor_bounded,
        gradient, gradient_x_input, deconvnet, guided_backprop, excitation_backprop,
    )
}  # fmt: skip
"""The presets by name: functions that make a `Composite`."""


def composite(name: str | Composite, **parameters: Any) -> Composite:
    """Make a preset by name.

    Parameters
    ----------
    name : str or Composite
        A name in `COMPOSITES`; a composite is returned as it is.
    **parameters
        The preset's own, such as ``epsilon``, ``gamma``, ``low`` and ``high``. ``sums="abs"`` shares sums and
        average pooling by magnitude (`AbsNorm`).

    Raises
    ------
    CompositeError
        The name is unknown, a parameter is missing or not the preset's, or its value is invalid.
    """
    if isinstance(name, Composite):
        return name
    if not isinstance(name, str) or name not in COMPOSITES:
        raise CompositeError(f"unknown composite {name!r}; known are {', '.join(COMPOSITES)}")
    accepted = inspect.signature(COMPOSITES[name]).parameters
    unknown = [parameter for parameter in parameters if parameter not in accepted]
    if unknown:
        raise CompositeError(
            f"composite {name!r} has no parameter {unknown[0]!r}; it takes {', '.join(accepted) or 'none'}"
        )
    if {"low", "high"} & set(accepted) - set(parameters):
        raise CompositeError(
            f"composite {name!r} needs low= and high=, the bounds of the inputs; write "
            f"lrpfast.composite({name!r}, low=…, high=…)"
        )
    try:
        return COMPOSITES[name](**parameters)
    except RuleError as error:
        raise CompositeError(f"composite {name!r}: {error}") from error
