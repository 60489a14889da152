"""How rules are lowered: which form is chosen, how many products it costs, and that it says the same.

The plain form of each rule is the formula of `oracle`; `test_rules` holds layers alone and behind a ReLU
to it. Here the forms are looked for by their words, and the ones that need more of a network are run.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import oracle
import pytest
from cases import LAYERS, Case, flatten, inputs, quarters, relevance

import lrpfast
from lrpfast import (
    AlphaBeta,
    AvgPool2d,
    Builder,
    Composite,
    Concat,
    Conv2d,
    CustomRule,
    Dense,
    Epsilon,
    Explainer,
    Flat,
    Flatten,
    Gamma,
    GlobalAveragePool,
    Gradient,
    LeakyReLU,
    MaxPool2d,
    Norm,
    Pad,
    Part,
    Pass,
    ReLU,
    ReLU6,
    Reshape,
    Rule,
    Selector,
    Share,
    SharingRule,
    Sigmoid,
    Softmax,
    Tanh,
    Term,
    Transpose,
    WSquare,
    Z,
    ZBox,
    ZPlus,
    backends,
)
from lrpfast.composites import assign
from lrpfast.lower import lower
from lrpfast.network import Network
from lrpfast.ops import Add, Affine, Clip
from lrpfast.plan import Plan
from lrpfast.steps import KernelCall


def network_of(case: Case, before: Any = None, after: Any = None) -> Network:
    """The layer as a network, behind `before` and followed by `after`."""
    build = Builder(case.shapes[0])
    value = build.input if before is None else build(before, build.input, name="before")
    value = build(case.op, value, name="layer")
    return build.network(value if after is None else build(after, value, name="after"))


def planned(network: Network, rule: Rule) -> Plan:
    entries = ((Selector(name="layer"), rule), ("activation", Pass()))
    return lower(network.graph, assign(Composite("test", entries), network.graph), backends.get("numpy"))


def forms(plan: Plan) -> str:
    """The words of the layer's steps, one line each."""
    return "\n".join(step.form for step in plan.vjp if step.node == "layer")


def products(plan: Plan, case: Case) -> tuple[int, int]:
    """Products with the layer's matrix and with its transpose, beyond the layer's own forward pass."""
    own = next(
        s for s in plan.forward if s.node == "layer" and isinstance(s, KernelCall) and "w" in s.arguments
    )
    transposed = {"forward": "vjp", "vjp": "forward"}
    kind, direction = own.kernel.rsplit("_", 1)
    counts = {"forward": 0, "vjp": 0}
    for step in plan.vjp:
        if step.node == "layer" and isinstance(step, KernelCall) and step.kernel.startswith(f"{kind}_"):
            by_sign = step.arguments.get("other_part") is not None
            counts[step.kernel.removeprefix(f"{kind}_")] += 2 if by_sign else 1
    return counts[direction], counts[transposed[direction]]


CACHED, ONCE = "denominator is the layer's output", "denominator computed once"


@pytest.mark.parametrize(
    "layer", ["dense", "conv2d", "conv2d, grouped", "conv3d, depthwise", "transposed conv2d"]
)
@pytest.mark.parametrize(
    ("rule", "before", "cost", "words"),
    [
        (Z(), None, (0, 1), CACHED),
        (Epsilon(), None, (0, 1), CACHED),
        (Norm(), None, (0, 1), CACHED),
        (Epsilon(bias=False), None, (1, 1), "denominator in 1 product"),
        (WSquare(), None, (0, 1), ONCE),
        (WSquare(bias=False), None, (0, 1), ONCE),
        (Flat(), None, (0, 1), ONCE),
        (ZPlus(), None, (2, 2), "denominator in 2 products"),
        (ZPlus(), ReLU(), (1, 1), "denominator in 1 product"),
        (ZPlus(), ReLU6(), (1, 1), "denominator in 1 product"),
        (ZPlus(), LeakyReLU(), (2, 2), "denominator in 2 products"),
        (AlphaBeta(), None, (4, 4), "denominator in 2 products"),
        (AlphaBeta(), ReLU(), (2, 2), "denominator in 1 product"),
        (AlphaBeta(1, 0), ReLU(), (1, 1), "denominator in 1 product"),
        (Gamma(), None, (1, 2), "the sign that of z, from the output and one product; then divided"),
        (Gamma(), ReLU(), (1, 2), "the sign that of z, from the output and one product; then divided"),
        (Gamma(bias=False), None, (2, 2), "the sign that of z, from x·w and one product; then divided"),
        (ZBox(-2, 2), None, (2, 2), "denominator in 2 products"),
        (ZBox(-2, 2), ReLU(), (2, 2), "denominator in 2 products"),
    ],
    ids=str,
)
def test_cost_of_a_rule(layer: str, rule: Rule, before: Any, cost: tuple[int, int], words: str) -> None:
    plan = planned(network_of(LAYERS[layer], before), rule)
    assert products(plan, LAYERS[layer]) == cost
    assert words in forms(plan)


@pytest.mark.parametrize(
    ("rule", "before", "cost", "words"),
    [
        (Norm(), None, (0, 1), CACHED),
        (Epsilon(bias=False), None, (0, 1), CACHED),  # there is no bias
        (ZPlus(), ReLU(), (0, 1), CACHED),  # neither x nor w is ever negative
        (ZPlus(), None, (1, 1), "denominator in 1 product"),
        (AlphaBeta(), ReLU(), (0, 1), CACHED),
        (AlphaBeta(), None, (2, 2), "denominator in 1 product"),
        (Flat(), None, (0, 1), ONCE),
    ],
    ids=str,
)
def test_weights_of_average_pooling_are_known_to_be_positive(
    rule: Rule, before: Any, cost: tuple[int, int], words: str
) -> None:
    case = LAYERS["average pool 2d"]
    plan = planned(network_of(case, before), rule)
    assert products(plan, case) == cost
    assert words in forms(plan)


@pytest.mark.parametrize(
    ("rule", "words"),
    [
        (Norm(), CACHED),
        (Flat(), ONCE),
        (WSquare(), ONCE),
        (ZPlus(), "denominator from parts of the inputs"),
        (AlphaBeta(), "denominator from parts of the inputs"),
        (Gamma(), "denominator from parts of the inputs"),
    ],
    ids=str,
)
def test_forms_of_a_sum(rule: Rule, words: str) -> None:
    build = Builder((3,))
    network = build.network(build(Add(), build.input, build(Tanh(), build.input), name="layer"))
    assert words in forms(planned(network, rule))


def test_sum_of_what_is_not_negative_is_its_own_denominator() -> None:
    build = Builder((3,))
    a = build(ReLU(), build.input)
    network = build.network(build(Add(), a, a, name="layer"))
    for rule in (ZPlus(), AlphaBeta(1, 0)):
        assert CACHED in forms(planned(network, rule))


@pytest.mark.parametrize(
    ("before", "nonnegative"),
    [
        ((ReLU(), MaxPool2d(2)), True),
        ((ReLU(), AvgPool2d(2)), True),
        ((ReLU(), GlobalAveragePool()), True),
        ((ReLU(), Pad((0, 1, 1, 0, 0, 0))), True),
        ((ReLU(), Pad((0, 1, 1, 0, 0, 0), -1.0)), False),
        ((ReLU(), Transpose((1, 0, 2))), True),
        ((ReLU(), Affine(np.ones(()), np.ones(()))), True),
        ((ReLU(), Affine(np.ones(()), -np.ones(()))), False),
        ((ReLU(), Conv2d(np.ones((2, 2, 1, 1)))), False),
        ((Sigmoid(),), True),
        ((Softmax(),), True),
        ((ReLU6(),), True),
        ((Clip(0.0, np.inf),), True),
        ((Clip(-1.0, 1.0),), False),
        ((Tanh(),), False),
        ((ReLU(), Tanh()), True),
        ((LeakyReLU(),), False),
        ((), False),
    ],
)
def test_signs_are_carried_along(before: tuple[Any, ...], nonnegative: bool) -> None:
    build = Builder((2, 4, 4))
    value = build.input
    for layer in (*before, Flatten()):
        value = build(layer, value)
    size = build.network(value).output_shape[0]
    network = build.network(build(Dense(quarters(np.random.default_rng(0), 3, size)), value, name="layer"))
    composite = Composite("test", ((Selector(name="layer"), ZPlus()), (Selector(), Gradient())))
    plan = lower(network.graph, assign(composite, network.graph), backends.get("numpy"))
    assert ("denominator in 1 product" in forms(plan)) == nonnegative


@pytest.mark.parametrize("other", [ReLU(), Tanh()])
def test_signs_of_branches_are_joined(other: Any) -> None:
    build = Builder((3,))
    branches = build(ReLU(), build.input), build(other, build.input)
    for joined in (build(Add(), *branches), build(Concat(0), *branches)):
        size = build.network(joined).output_shape[0]
        network = build.network(build(Dense(np.ones((2, size))), joined, name=f"layer of {joined}"))
        composite = Composite("test", ((Selector(name="layer*"), ZPlus()), (Selector(), Gradient())))
        plan = lower(network.graph, assign(composite, network.graph), backends.get("numpy"))
        words = "\n".join(step.form for step in plan.vjp if step.node.startswith("layer"))
        assert ("denominator in 1 product" in words) == (other == ReLU())


# --- only the living side ---


@dataclass(frozen=True)
class Around:
    """What reads the layer's output, up to the network's own output."""

    activation: Any
    activation_rule: Rule
    next_rule: Rule
    alive: bool
    skip: bool = False
    then: tuple[Any, ...] = ()  # between the activation and the next layer


def _twice(op: Any, inputs: Any, output: Any, r: Any) -> Any:
    """Not what an activation's rule should be: it invents relevance at dead units."""
    return (r + 1,)


NEIGHBOURS = {
    "ReLU": Around(ReLU(), Pass(), Epsilon(), alive=True),
    "ReLU6": Around(ReLU6(), Pass(), Epsilon(), alive=True),
    "ReLU, z⁺ next": Around(ReLU(), Pass(), ZPlus(), alive=True),
    "ReLU, γ next": Around(ReLU(), Pass(), Gamma(), alive=True),
    "LeakyReLU": Around(LeakyReLU(0.5), Pass(), Epsilon(), alive=False),
    "Tanh": Around(Tanh(), Pass(), Epsilon(), alive=False),
    "flat next": Around(ReLU(), Pass(), Flat(), alive=False),
    "w² next": Around(ReLU(), Pass(), WSquare(), alive=False),
    "box next": Around(ReLU(), Pass(), ZBox(-1, 8), alive=False),
    "custom rule": Around(ReLU(), CustomRule(_twice), Epsilon(), alive=False),
    "skip": Around(ReLU(), Pass(), Epsilon(), alive=False, skip=True),
    "ReLU, Tanh": Around(ReLU(), Pass(), Epsilon(), alive=True, then=(Tanh(),)),
    "ReLU, Reshape": Around(ReLU(), Pass(), Epsilon(), alive=True, then=(Reshape((5,)),)),
    "ReLU, Clip from 0": Around(ReLU(), Pass(), Epsilon(), alive=True, then=(ReLU6(),)),
    "ReLU, Clip from 1": Around(ReLU(), Pass(), Epsilon(), alive=False, then=(Clip(1.0, 6.0),)),
    "ReLU, Sigmoid": Around(ReLU(), Pass(), Epsilon(), alive=False, then=(Sigmoid(),)),
    "ReLU, shift": Around(
        ReLU(), Pass(), Epsilon(), alive=False, then=(Affine(np.ones(()), np.ones(())), Tanh())
    ),
}

ORACLES = {
    "Epsilon": oracle.epsilon, "ZPlus": oracle.z_plus, "Flat": oracle.flat, "WSquare": oracle.w_square,
    "Gamma": lambda layer, x, r: oracle.gamma(layer, x, r, 0.25),
    "ZBox": lambda layer, x, r: oracle.z_box(layer, x, r, -1, 8),
}  # fmt: skip


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("nonnegative", [True, False])
@pytest.mark.parametrize("around", NEIGHBOURS)
def test_gamma_between_neighbours(around: str, nonnegative: bool, bias: bool, backend: str) -> None:
    """Gamma drops the share for z < 0 where no relevance arrives there, and only there."""
    near, rng = NEIGHBOURS[around], np.random.default_rng(2)
    case, last = LAYERS["dense"], Dense(quarters(rng, 4, 5), quarters(rng, 4))
    build = Builder(case.shapes[0])
    first = build(ReLU() if nonnegative else LeakyReLU(0.5), build.input, name="first")
    z = build(case.op, first, name="layer")
    y = build(near.activation, z, name="activation")
    if near.skip:
        y = build(Add(), y, z, name="sum")
    for i, op in enumerate(near.then):
        y = build(op, y, name=f"then{i}")
    network = build.network(build(last, y, name="last"))
    rule = Gamma(bias=bias)
    composite = Composite(
        "test",
        (
            (Selector(name="layer"), rule), (Selector(name="last"), near.next_rule), (Selector(name="first"), Pass()),
            (Selector(name="activation"), near.activation_rule), ("sum", Norm()), ("activation", Pass()),
            ("affine", Pass()),
        ),
    )  # fmt: skip
    plan = lower(network.graph, assign(composite, network.graph), backends.get(backend))
    living = "only the living side" in forms(plan)
    assert living == (near.alive and nonnegative)
    assert products(plan, case) == ((1, 1) if living else (1, 2) if bias else (2, 2))

    x = quarters(rng, 3, *case.shapes[0])
    a = np.where(x > 0, x, 0 * x if nonnegative else 0.5 * x)
    layer, top = case.layer, oracle.matrix(last, (5,))
    hidden = a @ layer.w.T + layer.b
    active = near.activation.forward(hidden)
    before_last = active + hidden if near.skip else active
    for op in near.then:
        before_last = op.forward(before_last)
    r = relevance(top, before_last, 0)
    r_hidden = ORACLES[type(near.next_rule).__name__](top, before_last, r)
    if near.skip:
        share = r_hidden / oracle.stabilized(before_last)
        r_hidden = active * share + hidden * share
    if isinstance(near.activation_rule, CustomRule):
        r_hidden = r_hidden + 1
    assert (r_hidden[hidden <= 0] != 0).any() != near.alive
    expected = oracle.gamma(layer, a, r_hidden, 0.25, bias)
    for dtype, tolerance in ((np.float64, 1e-12), (np.float32, 1e-5)):
        explain = Explainer(network, composite, backend=backend, dtype=dtype)
        got = explain(x, np.ones(4), r).relevance
        np.testing.assert_allclose(got, expected, rtol=0, atol=tolerance * np.abs(expected).max())


@pytest.mark.parametrize("rule", [Gamma(), Gamma(bias=False)], ids=str)
def test_gamma_keeps_its_digits_under_a_large_bias(rule: Gamma, backend: str) -> None:
    """Where b is 1000 times as large as what x·w adds to it, z − b would be wrong by 4e-5."""
    rng = np.random.default_rng(0)
    w, b, x = rng.normal(size=(32, 64)), np.full(32, 1000.0), rng.normal(size=(8, 64))
    w, x = w.astype(np.float32), x.astype(np.float32)
    layer = oracle.matrix(Dense(w, b), (64,))
    xw = x[:, None, :] * layer.w
    q = np.abs(xw.sum(2) + 0.25 * np.maximum(xw, 0).sum(2))
    r = rng.normal(size=(8, 32)).astype(np.float32) * (q > 0.1 * np.abs(xw).sum(2))
    expected = oracle.gamma(layer, x.astype(np.float64), r.astype(np.float64), 0.25, rule.bias)
    got = lrpfast.propagate(rule, Dense(w, b), x, r, backend=backend)
    np.testing.assert_allclose(got, expected, rtol=0, atol=2e-6 * np.abs(expected).max())


# --- rules of one's own ---


@dataclass(frozen=True)
class Magnitudes(SharingRule):
    """`q = |x||w|`, which is one product in |x|."""

    def shares(self) -> tuple[Share, ...]:
        magnitude = Part(1, -1)
        return (Share((Term(magnitude, magnitude),), magnitude),)


@dataclass(frozen=True)
class Inhibitors(SharingRule):
    """Negative inputs only: nothing is left of it where x ≥ 0, unless the bias is in the denominator."""

    bias: bool = False

    def shares(self) -> tuple[Share, ...]:
        return (Share((Term(Part(0, 1), Part()),), Part() if self.bias else None),)


def test_magnitudes_are_one_product(backend: str) -> None:
    case = LAYERS["conv2d, padded"]
    plan = planned(network_of(case), Magnitudes())
    assert products(plan, case) == (1, 1)
    x = inputs(case, 0)
    layer = case.layer
    r = relevance(layer, flatten(x), 0)
    q = np.abs(flatten(x)[:, None, :] * layer.w)
    expected = oracle.shared(q, q.sum(2) + np.abs(layer.b), r)
    composite = Composite("test", ((Selector(name="layer"), Magnitudes()),))
    network = network_of(case)
    explain = Explainer(network, composite, backend=backend, dtype=np.float64)
    got = explain(x[0], np.ones(network.output_shape), r.reshape(2, *network.output_shape)).relevance
    np.testing.assert_allclose(flatten((got,)), expected, rtol=0, atol=1e-12 * np.abs(expected).max())


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("layer", ["dense", "conv2d", "average pool 2d"])
def test_a_rule_of_which_nothing_is_left(layer: str, bias: bool, backend: str) -> None:
    case = LAYERS[layer]
    network = network_of(case, before=ReLU())
    composite = Composite("test", ((Selector(name="layer"), Inhibitors(bias)), ("activation", Pass())))
    x, ones = inputs(case, 0)[0], np.ones(network.output_shape)
    explanation = Explainer(network, composite, backend=backend)(x, ones)
    np.testing.assert_array_equal(explanation.relevance, 0)
    row = explanation.conservation[0]
    assert row.node == "layer"
    assert row.r_in != 0
    assert row.bias + row.stabilizer + row.dead == pytest.approx(row.r_in)
    assert explanation.conservation.worst < 1e-6


def test_a_sum_of_which_nothing_is_left(backend: str) -> None:
    build = Builder((4,))
    a = build(ReLU(), build.input)
    network = build.network(build(Add(), a, a, name="layer"))
    composite = Composite("test", (("sum", Inhibitors()), ("activation", Pass())))
    explanation = Explainer(network, composite, backend=backend)(np.ones((2, 4)), np.ones(4))
    np.testing.assert_array_equal(explanation.relevance, 0)
    assert explanation.conservation[0].dead == pytest.approx(16)
