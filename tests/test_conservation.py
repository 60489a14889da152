"""Where relevance goes: the ledger closes at every node, and what theory says is conserved is conserved."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import pytest
from small_networks import SMALL_NETWORKS, random_input

import lrpfast
from lrpfast import (
    COMPOSITES,
    AlphaBeta,
    AvgPool2d,
    Builder,
    Composite,
    Conv2d,
    ConvTranspose2d,
    CustomRule,
    Dense,
    Epsilon,
    Explainer,
    Flat,
    Flatten,
    Gamma,
    GlobalAveragePool,
    Gradient,
    MaxPool2d,
    Network,
    Norm,
    Pad,
    Pass,
    ReLU,
    Rule,
    Selector,
    Sequential,
    Stabilizer,
    WSquare,
    Z,
    ZBox,
    ZPlus,
)
from lrpfast.ops import Add

LEDGER = {np.float32: 1e-5, np.float64: 1e-12}
"""The largest share of Σ|R| that may stay unexplained at a node."""

BOX = {"low": -8.0, "high": 8.0}
RELEVANCE = tuple(name for name in COMPOSITES if name not in (
    "gradient", "gradient_x_input", "deconvnet", "guided_backprop", "excitation_backprop"))  # fmt: skip


def preset(name: str, **parameters: Any) -> Composite:
    bounded = "box" in name or "bounded" in name
    return lrpfast.composite(name, **(BOX if bounded else {}), **parameters)


@cache
def small(name: str) -> tuple[Network, np.ndarray]:
    model = SMALL_NETWORKS[name]()
    return lrpfast.load(model), random_input(model, samples=2)


@pytest.mark.parametrize("name", COMPOSITES)
@pytest.mark.parametrize("model", SMALL_NETWORKS)
def test_ledger_closes_at_every_node(model: str, name: str, backend: str) -> None:
    network, x = small(model)
    for dtype, tolerance in LEDGER.items():
        explanation = Explainer(network, preset(name), backend=backend, dtype=dtype)(x)
        graph = network.canonized(dtype).graph
        rows = {row.node: row for row in explanation.conservation}
        assert list(rows) == [node.name for node in reversed(graph.nodes)]
        assert explanation.conservation.worst <= tolerance
        # What arrives at a node is what its readers handed back; the rest of the books follows from that.
        handed = {row.node: row.r_out for row in explanation.conservation}
        for node in graph.nodes:
            readers = graph.consumers[node.output]
            if readers and all(len(reader.inputs) == 1 for reader in readers):
                assert rows[node.name].r_in == pytest.approx(
                    sum(handed[r.name] for r in readers), rel=1e-9, abs=1e-9
                )
        first = rows[graph.nodes[-1].name]
        if preset(name).init == "logit":
            assert first.r_in == pytest.approx(explanation.output.max(axis=1).sum(), rel=1e-6)


# --- the books of one layer, by hand ---

W, B, X = np.array([[1, -1, 0.5], [-0.5, 2, -1.5]]), np.array([-1, 0.5]), np.array([[1.0, 1.0, -2.0]])


def row_of(rule: Rule, layer: Any, x: np.ndarray, r: np.ndarray, backend: str) -> lrpfast.ConservationRow:
    build = Builder(x.shape[1:])
    network = build.network(build(layer, build.input, name="layer"))
    explain = Explainer(network, Composite("test", ((Selector(), rule),)), backend=backend, dtype=np.float64)
    (row,) = explain(x, np.ones(network.output_shape), r).conservation
    return row


def test_books_of_epsilon(backend: str) -> None:
    """z = (-2, 5), its bias (-1, .5); R = (3, 4); stab(z) = (-2.5, 5.5)."""
    row = row_of(Epsilon(0.5), Dense(W, B), X, np.array([[3.0, 4.0]]), backend)
    assert (row.node, row.rule) == ("layer", "Epsilon(epsilon=0.5)")
    assert row.r_in == 7
    assert row.bias == pytest.approx(3 * -1 / -2.5 + 4 * 0.5 / 5.5)
    assert row.stabilizer == pytest.approx(3 * -0.5 / -2.5 + 4 * 0.5 / 5.5)
    assert row.dead == 0
    assert row.r_out == pytest.approx(3 * -1 / -2.5 + 4 * 4.5 / 5.5)
    assert abs(row.unexplained) < 1e-15


def test_books_of_alpha_beta(backend: str) -> None:
    """z⁺ = (1, 5 + .5), z⁻ = (-2 - 1, -.5); nothing to stabilise."""
    row = row_of(AlphaBeta(2, 1, 0.0), Dense(W, B), X, np.array([[3.0, 4.0]]), backend)
    assert row.bias == pytest.approx(2 * 4 * 0.5 / 5.5 - 3 * 1 / 3)
    assert row.r_out == pytest.approx(7 - row.bias)
    assert (row.stabilizer, row.dead) == (0, 0)


def test_books_of_gamma(backend: str) -> None:
    """z = (-2, 5): γ = 1 doubles what is negative of the first, what is positive of the second."""
    row = row_of(Gamma(1.0, 0.0), Dense(W, B), X, np.array([[3.0, 4.0]]), backend)
    assert row.bias == pytest.approx(3 * -2 / (1 - 4 - 2) + 4 * 1 / (-0.5 + 10 + 1))
    assert row.r_out == pytest.approx(7 - row.bias)
    assert (row.stabilizer, row.dead) == (0, 0)


@pytest.mark.parametrize(
    ("rule", "dead"),
    [
        (Z(), 3),
        (Epsilon(), 3),
        (Epsilon(Stabilizer(0.5, clip=True)), 3),
        (Gamma(), 3),
        (Gamma(bias=False), 3),
        (ZPlus(bias=False), 0),
        (AlphaBeta(bias=False), -4),  # the second has no negative contributions to hand −1·4 back
        (WSquare(), 0),
        (Flat(), 0),
    ],
    ids=str,
)
def test_dead_units_are_accounted_for(rule: Rule, dead: float, backend: str) -> None:
    """z = (0, 3): what arrives at the first output meets a denominator of zero or no open gate."""
    layer = Dense(np.array([[1.0, -1.0], [2.0, 1.0]]), np.zeros(2))
    row = row_of(rule, layer, np.array([[1.0, 1.0]]), np.array([[3.0, 4.0]]), backend)
    assert row.dead == pytest.approx(dead, abs=1e-9)
    assert row.r_in == 7
    assert row.r_out == pytest.approx(7 - dead, abs=1e-4)
    assert abs(row.unexplained) < 1e-9


def test_units_without_positive_contributions_are_dead_for_z_plus(backend: str) -> None:
    layer = Dense(np.array([[-1.0, -1.0], [2.0, 1.0]]), np.array([-1.0, -1.0]))
    row = row_of(ZPlus(), layer, np.array([[1.0, 1.0]]), np.array([[3.0, 4.0]]), backend)
    assert (row.r_in, row.dead, row.bias) == (7, 3, 0)
    row = row_of(AlphaBeta(), layer, np.array([[1.0, 1.0]]), np.array([[3.0, 4.0]]), backend)
    assert row.dead == pytest.approx(2 * 3)  # the first has no z⁺; the second's z⁻ is all bias
    assert row.bias == pytest.approx(-3 * 1 / 3 - 4 * 1, abs=1e-4)
    assert abs(row.unexplained) < 1e-12


def test_relevance_on_padding_is_the_paddings(backend: str) -> None:
    """A border of ones cannot be folded away; what it receives is booked as a bias."""
    build = Builder((1, 2, 2))
    value = build(Pad((0, 1, 1, 0, 1, 1), 1.0), build.input, name="pad")
    network = build.network(build(Conv2d(np.ones((1, 1, 3, 3))), value, name="conv"))
    explanation = Explainer(network, Composite("test", (("linear", Flat()),)), backend=backend)(
        np.ones((1, 1, 2, 2)), np.ones(network.output_shape)
    )
    row = {row.node: row for row in explanation.conservation}["pad"]
    assert row.r_in == pytest.approx(36, rel=1e-5)
    assert row.r_out == pytest.approx(16, rel=1e-5)
    assert row.bias == pytest.approx(20, rel=1e-5)
    assert explanation.conservation.worst < 1e-6


# --- what theory says ---


def cnn(bias: str = "none", seed: int = 0, residual: bool = True) -> Network:
    """Convolutions, pooling, a residual Add; biases are absent, or all ≤ 0."""
    rng = np.random.default_rng(seed)

    def b(channels: int) -> Any:
        return None if bias == "none" else -np.abs(rng.normal(0, 0.05, channels))

    def he(*shape: int) -> np.ndarray:
        return rng.normal(0, np.sqrt(2 / np.prod(shape[1:])), shape)

    build = Builder((3, 8, 8))
    a = build(ReLU(), build(Conv2d(he(6, 3, 3, 3), b(6), padding=1), build.input))
    a = build(MaxPool2d(2), a)
    c = build(ReLU(), build(Conv2d(he(6, 2, 3, 3), b(6), padding=1, groups=3), a))
    a = build(Add(), a, c) if residual else c
    a = build(ReLU(), build(ConvTranspose2d(he(6, 4, 2, 2), b(4), stride=2), a))
    a = build(GlobalAveragePool(), build(AvgPool2d(2), a))
    return build.network(build(Dense(he(5, 4), b(5)), build(Flatten(), a)))


def image(n: int = 3, seed: int = 1) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(n, 3, 8, 8))


@pytest.mark.parametrize("name", RELEVANCE)
def test_without_biases_all_of_the_output_arrives_at_the_input(name: str, backend: str) -> None:
    network, x = cnn(), image()
    target = network.predict(x, dtype=np.float64).argmax(axis=1)
    tiny = {} if name.startswith("deep") else {"epsilon": 1e-12}
    explain = Explainer(network, preset(name, stabilizer=1e-12, **tiny), backend=backend, dtype=np.float64)
    explanation = explain(x, target)
    value = explanation.output[np.arange(3), target]
    if "beta" not in name:  # α=2 β=1 loses what finds no inhibitors; the books below say how much
        np.testing.assert_allclose(explanation.relevance.sum(axis=(1, 2, 3)), value, rtol=1e-7)
    books = sum(row.bias + row.stabilizer + row.dead for row in explanation.conservation)
    assert explanation.relevance.sum() + books == pytest.approx(value.sum(), rel=1e-9)
    assert all(row.bias == 0 for row in explanation.conservation)


@pytest.mark.parametrize("rule", [Z(), Epsilon(1e-12), Gamma(stabilizer=1e-12), Gamma(4.0, 1e-12)], ids=str)
def test_signed_rules_conserve_exactly_without_biases(rule: Rule, backend: str) -> None:
    """Nothing can be dead here: z is never exactly 0 where relevance arrives."""
    network, x = cnn(), image()
    composite = Composite(
        "test",
        (("linear", rule), ("sum", Norm(1e-12)), ("average_pool", Norm(1e-12)), ("activation", Pass())),
    )  # fmt: skip
    explanation = Explainer(network, composite, backend=backend, dtype=np.float64)(x)
    np.testing.assert_allclose(
        explanation.relevance.sum(axis=(1, 2, 3)), explanation.output.max(axis=1), rtol=1e-7
    )
    assert max(abs(row.dead) for row in explanation.conservation) < 1e-12


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("bias", ["none", "negative"])
@pytest.mark.parametrize("name", ["deep_taylor", "deep_taylor_bounded"])
def test_deep_taylor_is_positive_and_conserves(name: str, bias: str, seed: int, backend: str) -> None:
    network, x = cnn(bias, seed), np.clip(image(4, seed), -8, 8)
    for dtype, tolerance in ((np.float64, 1e-6), (np.float32, 2e-5)):
        explanation = Explainer(network, preset(name), backend=backend, dtype=dtype)(x)
        value = explanation.output.max(axis=1)
        positive = value > 0
        assert positive.any()
        relevance = explanation.relevance[positive]
        assert relevance.min() >= 0
        assert relevance.max() > 0
        sums = relevance.sum(axis=(1, 2, 3), dtype=np.float64)
        np.testing.assert_allclose(
            sums, value[positive], rtol=tolerance + _stabilized_away(explanation, value)
        )
        assert all(row.bias == 0 for row in explanation.conservation)


def _stabilized_away(explanation: lrpfast.Explanation, value: np.ndarray) -> float:
    """What the stabilisers took, as a share of the smallest output: small, but not rounding."""
    taken = sum(abs(row.stabilizer) + abs(row.dead) for row in explanation.conservation)
    share = taken / value[value > 0].min()
    assert share < 2e-3
    return float(share)


@pytest.mark.parametrize("name", RELEVANCE)
def test_a_residual_network_shares_between_its_branches(name: str, backend: str) -> None:
    """The skip connection doubles nothing: what Add hands back is what arrived."""
    network, x = cnn("negative"), image()
    (add,) = (node for node in network.graph.nodes if isinstance(node.op, Add))
    explain = Explainer(network, preset(name), backend=backend, dtype=np.float64, record="all")
    explanation = explain(x)
    row = {row.node: row for row in explanation.conservation}[add.name]
    assert row.r_out == pytest.approx(row.r_in, rel=1e-4)
    assert row.r_in == pytest.approx(explanation.layers[add.name].sum(), rel=1e-9)


def test_an_identity_branch_receives_its_contribution(backend: str) -> None:
    """a = 3, b = -2: the numbers at which peers disagree (NUMERICS: here as in zennit)."""
    a, b = lrpfast.propagate(
        Norm(0.0), Add(), (np.array([[3.0]]), np.array([[-2.0]])), np.array([[1.0]]), backend=backend
    )
    assert (a.item(), b.item()) == (3, -2)


# --- how it reads ---


def test_the_ledger_is_a_sequence_that_prints_as_a_table() -> None:
    network, x = cnn("negative"), image()
    ledger = Explainer(network, preset("epsilon_plus_flat"))(x).conservation
    lines = str(ledger).splitlines()
    assert lines[0].split() == [
        "node",
        "rule",
        "R",
        "in",
        "R",
        "out",
        "bias",
        "stab.",
        "dead",
        "gain",
        "rest",
    ]
    assert len(lines) == 1 + len(ledger) == 1 + len(network.graph.nodes)
    assert [line.split()[0] for line in lines[1:]] == [row.node for row in ledger]
    assert max(map(len, lines)) <= 80
    assert ledger[0].node == network.graph.nodes[-1].name
    assert list(ledger[1:3]) == [ledger[1], ledger[2]]
    assert ledger == ledger[:]
    assert f"{ledger[0].r_in:.4g}" in lines[1]


def test_long_names_are_shortened_in_the_table() -> None:
    build = Builder((2,))
    name = "backbone/stage_one/" + "block/" * 10 + "dense"
    network = build.network(build(Dense(np.eye(2)), build.input, name=name))
    table = str(Explainer(network, Composite("test", (("linear", Epsilon()),)))(np.ones((1, 2))).conservation)
    assert max(map(len, table.splitlines())) <= 80
    first = table.splitlines()[1].split()[0]
    assert first.startswith("backbone")
    assert first.endswith("dense")


def test_rules_that_promise_nothing_are_marked() -> None:
    network = Sequential(Dense(W, B), ReLU())
    for rule in (Gradient(), CustomRule(lambda op, x, y, r: op.vjp(x, y, r))):
        ledger = Explainer(network, Composite("test", ((Selector(), rule),)))(X).conservation
        assert all(np.isnan(row.unexplained) for row in ledger)
        assert ledger.worst == 0
        assert all(line.endswith("-") for line in str(ledger).splitlines()[1:])


def test_worst_is_the_largest_of_all_rows() -> None:
    rows = [
        lrpfast.ConservationRow(name, "Z()", 1, 1, 0, 0, 0, unexplained)
        for name, unexplained in (("a", 1e-9), ("b", -3e-7), ("c", float("nan")))
    ]
    assert lrpfast.Conservation(rows).worst == 3e-7


def test_box_rule_conserves_whatever_the_bias(backend: str) -> None:
    row = row_of(ZBox(-3, 3), Dense(W, B), X, np.array([[3.0, 4.0]]), backend)
    assert row.bias == 0
    assert row.r_out == pytest.approx(7, rel=1e-5)


def test_sequential_networks_too(backend: str) -> None:
    network = Sequential(Dense(W, B), ReLU(), Dense(W.T))
    explanation = Explainer(network, "epsilon_plus", backend=backend, dtype=np.float64)(X)
    assert explanation.conservation.worst < 1e-12
    assert len(explanation.conservation) == 3
