"""Where contributions cancel: gains in the ledger, the policy for them, and the rule that cannot blow up."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from cases import LAYERS, RULES, Case, fits, flatten, inputs, relevance
from click.testing import CliRunner, Result
from conftest import BACKENDS
from hypothesis import given, settings
from networks import HIGH, LOW, network
from onnx_models import model_of
from onnx_models import node as onnx_node
from test_plans import composites, handed_back, networks, seeds
from toy_networks import IMAGES, cnn

import lrpfast
from lrpfast import (
    AbsNorm,
    AvgPool2d,
    BlowUpError,
    BlowUpWarning,
    Builder,
    Composite,
    CompositeError,
    Conservation,
    ConservationRow,
    Dense,
    Epsilon,
    Explainer,
    Flatten,
    Gradient,
    InputError,
    Network,
    Norm,
    Pass,
    ReLU,
    Selector,
    ZPlus,
)
from lrpfast.cli import main
from lrpfast.composites import assign
from lrpfast.gain import largest_gain
from lrpfast.graph import Fact, Graph, Node
from lrpfast.ops import Add, Affine

X = np.array([[1.0], [2.0]])
PLAIN = (("linear", Epsilon(0.0)), ("activation", Pass()))
EXACT = Composite("exact", (("sum", Norm(0.0)), *PLAIN))
BOUNDED = Composite("bounded", (("sum", AbsNorm(0.0)), *PLAIN))
ONE: dict[str, Any] = {"target": 0, "init": "one"}


def cancelling(second: float = -2.99) -> Network:
    """3 x − 2.99 x, and a layer behind that."""
    build = Builder((1,))
    a = build(Dense(np.array([[3.0]])), build.input, name="three")
    b = build(Dense(np.array([[second]])), build.input, name="other")
    total = build(ReLU(), build(Add(), a, b, name="add"))
    return build.network(build(Dense(np.array([[2.0]])), total, name="head"))


def rows(explanation: lrpfast.Explanation) -> dict[str, ConservationRow]:
    return {row.node: row for row in explanation.conservation}


# --- the ledger ---


def test_gain_of_a_sum_that_cancels(backend: str) -> None:
    explain = Explainer(cancelling(), EXACT, backend=backend, dtype=np.float64, on_blowup="ignore")
    explanation = explain(X, **ONE)
    found = rows(explanation)
    assert found["add"].gain == pytest.approx((3 + 2.99) / 0.01)
    assert found["add"].r_out == pytest.approx(2)  # of two samples; the gain is that of the worst
    assert found["three"].gain == pytest.approx(1)
    assert [row.node for row in explanation.conservation.blowups()] == ["add"]
    assert [row.node for row in explanation.conservation.blowups(600)] == []
    assert "599" in str(explanation.conservation.blowups()).splitlines()[1]
    with pytest.raises(InputError, match=r"blowup is 0.5; expected a finite number ≥ 1"):
        explanation.conservation.blowups(0.5)


def test_gain_is_that_of_the_worst_sample(backend: str) -> None:
    """z = x − 1 at 2 and 1.01: gains 3 and 201."""
    build = Builder((1,))
    value = build(Dense(np.array([[1.0], [-1.0]]), np.array([0.0, 2.0])), build.input)
    value = build(Dense(np.array([[1.0, 1.0]]), np.array([-1.0])), build(ReLU(), value), name="sum")
    one = build.network(build(Dense(np.array([[1.0]])), value, name="head"))
    explain = Explainer(one, EXACT, backend=backend, dtype=np.float64, on_blowup="ignore")
    singles = [rows(explain(np.array([[x]]), **ONE))["sum"].gain for x in (0.5, 1.5)]
    assert rows(explain(np.array([[0.5], [1.5]]), **ONE))["sum"].gain == max(singles)


def test_later_contributions_count_with_a_lower_bound(backend: str) -> None:
    """Two layers read x: the one that comes last in the network hands it back first."""
    build = Builder((2,))
    first = build(Dense(np.array([[1.0, -0.5]])), build.input, name="first")
    second = build(Dense(np.array([[1.0, 1.0]])), build.input, name="second")
    both = build.network(build(Dense(np.array([[1.0]])), build(Add(), first, second), name="head"))
    explain = Explainer(both, EXACT, backend=backend, dtype=np.float64)
    found = rows(explain(np.array([[1.0, 1.0]]), **ONE))
    # z = 2.5 of .5 and 2; R(first) = .2 goes back as .4 and −.2, R(second) = .8 as .4 and .4
    assert found["second"].gain == pytest.approx(1)
    assert found["first"].gain == pytest.approx(1, rel=1e-5)  # of 3: from .4, .4 to .8, .2
    assert found["first"].gain < 1


def test_a_node_that_merely_hands_on_has_a_gain_of_one_wherever_it_goes() -> None:
    for row in lrpfast.explain(cnn(), IMAGES, on_blowup="ignore").conservation:
        assert row.gain == 1 or row.rule != "Pass()"


def test_rules_that_promise_nothing_blow_nothing_up() -> None:
    composite = Composite("test", ((Selector(), Gradient()),))
    explanation = lrpfast.explain(cancelling(), X, 0, composite, "one", on_blowup="error")
    assert max(row.gain for row in explanation.conservation) == pytest.approx(3)
    assert len(explanation.conservation.blowups(1)) == 0


def test_the_prediction_may_be_a_sum_that_cancels() -> None:
    """A logit near zero: the node that makes the output is spared, and so is what only hands it on."""
    build = Builder((2,))
    value = build(Dense(np.array([[3.0, -2.99]])), build.input, name="head")
    for end in (value, build(Flatten(), build(ReLU(), value))):
        explain = Explainer(build.network(end), EXACT, on_blowup="error", dtype=np.float64)
        found = rows(explain(np.ones((1, 2)), 0))
        assert found["head"].gain == pytest.approx(599)
        assert found["head"].explained
        assert len(explain(np.ones((1, 2)), 0).conservation.blowups()) == 0
        clipped = Explainer(build.network(end), EXACT, on_blowup="clip", dtype=np.float64)(np.ones((1, 2)), 0)
        np.testing.assert_allclose(clipped.relevance, [[3, -2.99]])


def test_rows_that_were_saved_without_gains_are_read() -> None:
    row = ConservationRow("a", "Z()", 1, 1, 0, 0, 0, 0.0)
    assert np.isnan(row.gain)
    assert not row.blows_up(1)
    assert "nan" in str(Conservation([row]))


def test_the_table_says_what_was_clipped() -> None:
    explanation = lrpfast.explain(cancelling(), X, 0, EXACT, "one", on_blowup="clip", dtype=np.float64)
    head, *lines = str(explanation.conservation).splitlines()
    assert head.split()[-3:] == ["clipped", "gain", "rest"]
    (line,) = (line for line in lines if line.startswith("add "))
    assert line.split()[:-1] == ["add", "Norm(…=0.0)", "2", "0.0334", "0", "0", "0", "1.967", "10"]
    assert max(map(len, (head, *lines))) <= 80


# --- warn, error, ignore ---


def test_a_warning_names_nodes_gains_and_cures(backend: str) -> None:
    with pytest.warns(BlowUpWarning) as caught:
        lrpfast.explain(cancelling(), X, 0, EXACT, "one", backend=backend)
    (one,) = caught
    assert one.filename == __file__
    message = str(one.message)
    assert "a node multiplies the relevance" in message
    assert "\n  add: 599 times, under Norm(stabilizer=0.0)\n" in message
    for cure in ('sums="abs"', "larger epsilon", 'on_blowup="clip"'):
        assert cure in message


def test_one_warning_a_call() -> None:
    explain = Explainer(cancelling(), EXACT)
    calls: list[Any] = [
        lambda: explain.several(X, [0, 0, None], "one"),
        lambda: lrpfast.compare(cancelling(), X, [EXACT, EXACT], 0, "one"),
        lambda: explain(X, max_memory=explain._prepared(explain.network).plan.nbytes(1)),
        lambda: explain.profile(X),
        lambda: lrpfast.propagate(
            Norm(0.0), Add(), (np.array([[3.0]]), np.array([[-2.99]])), np.array([[1.0]]), on_blowup="warn"
        ),
    ]
    for call in calls:
        with pytest.warns(BlowUpWarning, match="599 times") as caught:
            call()
        assert len(caught) == 1
        assert caught[0].filename == __file__


def test_an_error_names_all_nodes() -> None:
    explain = Explainer(cancelling(), EXACT, on_blowup="error", blowup=598)
    for call in (lambda: explain(X), lambda: explain.several(X, [0]), lambda: explain.profile(X)):
        with pytest.raises(BlowUpError, match=r"add: 599 times, under Norm") as caught:
            call()
        assert caught.value.offenders == ("add: 599 times, under Norm(stabilizer=0.0)",)
    assert Explainer(cancelling(), EXACT, on_blowup="error", blowup=600)(X).relevance.shape == X.shape
    with pytest.raises(BlowUpError):
        lrpfast.compare(cancelling(), X, ["gradient", EXACT], on_blowup="error")


def test_a_gain_that_is_bounded_may_be_too_much(backend: str) -> None:
    """α = 2 and β = 1 make 2 and −1 of R = 1: three times Σ|R|, and never more."""
    given: Any = (
        lrpfast.AlphaBeta(2, 1, 0.0),
        Dense(np.array([[2.0, -1.0]])),
        np.ones((1, 2)),
        np.ones((1, 1)),
    )
    found = lrpfast.propagate(*given, backend=backend, on_blowup="error", blowup=3)
    np.testing.assert_allclose(found, [[2, -1]])
    with pytest.raises(BlowUpError, match=r"layer: 3 times, under AlphaBeta"):
        lrpfast.propagate(*given, backend=backend, on_blowup="error", blowup=2.9)
    found = lrpfast.propagate(*given, backend=backend, on_blowup="clip", blowup=1.5)
    np.testing.assert_allclose(found, [[1, -0.5]])


def test_policies_that_only_look_change_no_bit(backend: str) -> None:
    found = [
        Explainer(cnn(), "epsilon_plus", backend=backend, on_blowup=policy, blowup=1e6)(IMAGES)
        for policy in ("ignore", "warn", "error")
    ]
    plans = [
        Explainer(cnn(), "epsilon_plus", backend=backend, on_blowup=policy)._prepared(cnn()).plan
        for policy in ("ignore", "warn")
    ]
    assert [step.label() for step in plans[0].vjp] == [step.label() for step in plans[1].vjp]
    for other in found[1:]:
        assert other.relevance.tobytes() == found[0].relevance.tobytes()
        assert other.conservation == found[0].conservation


def test_the_manifest_says_the_policy() -> None:
    explanation = lrpfast.explain(cancelling(), X, composite=EXACT, on_blowup="clip", blowup=20)
    assert (explanation.manifest["on_blowup"], explanation.manifest["blowup"]) == ("clip", 20.0)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"on_blowup": "warning"}, "on_blowup is 'warning'; expected one of warn, clip, error, ignore"),
        ({"on_blowup": None}, "on_blowup is None"),
        ({"blowup": 0.99}, "blowup is 0.99; expected a finite number ≥ 1, such as 10"),
        ({"blowup": float("nan")}, "blowup is nan"),
        ({"blowup": float("inf")}, "blowup is inf"),
        ({"blowup": True}, "blowup is True"),
        ({"blowup": "10"}, "blowup is '10'"),
        ({"blowup": None}, "blowup is None"),
    ],
)
def test_policies_are_checked(options: dict[str, Any], words: str) -> None:
    calls: tuple[Any, ...] = (
        lambda: Explainer(cancelling(), **options),
        lambda: lrpfast.compare(cancelling(), X, ["epsilon_plus"], **options),
        lambda: lrpfast.propagate(Norm(), Dense(np.eye(1)), X, X, **options),
    )
    for call in calls:
        with pytest.raises(InputError, match=words):
            call()


# --- clip ---


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_clipping_scales_a_node_down(dtype: Any, backend: str) -> None:
    """Of 300 and −299 that R = 1 becomes, Σ|R| = 10 is left, in the same proportion."""
    options: dict[str, Any] = {"backend": backend, "dtype": dtype, "on_blowup": "clip", "record": "all"}
    explanation = Explainer(cancelling(), EXACT, **options)(X, **ONE)
    three, other = (explanation.layers[name] for name in ("three", "other"))
    np.testing.assert_allclose(three / other, 3 / -2.99, rtol=1e-4)
    np.testing.assert_allclose(np.abs(three) + np.abs(other), 10, rtol=1e-5)
    row = rows(explanation)["add"]
    assert row.gain == 10
    assert row.clipped == pytest.approx(row.r_in - row.r_out, rel=1e-5)
    assert row.clipped == pytest.approx(2 * (1 - 10 / 599), rel=1e-3)
    assert explanation.conservation.worst < (1e-5 if dtype is np.float32 else 1e-12)
    assert len(explanation.conservation.blowups()) == 0


def test_one_layer_is_clipped_too(backend: str) -> None:
    given = np.array([[3.0], [3.0]]), np.array([[-2.99], [2.0]])
    found = lrpfast.propagate(Norm(0.0), Add(), given, np.ones((2, 1)), backend=backend, on_blowup="clip")
    np.testing.assert_allclose(np.concatenate(found, axis=1), [[30 / 5.99, -29.9 / 5.99], [0.6, 0.4]])


def clipped(
    graph: Graph, composite: Composite, x: np.ndarray, initial: np.ndarray, limit: float
) -> tuple[dict[str, Any], dict[str, float], dict[str, float]]:
    """Node by node: the relevance of every array, each node's gain, and what was taken from it."""
    rules = {name: found.rule for name, found in assign(composite, graph).items()}
    values = dict.fromkeys(graph.inputs, x)
    for node in graph.nodes:
        values[node.output] = node.op.forward(*(values[name] for name in node.inputs))
    r: dict[str, Any] = {name: np.zeros_like(value) for name, value in values.items()}
    r[graph.output] = initial
    gains, taken = {}, {}
    for node in reversed(graph.nodes):
        given = tuple(values[name] for name in node.inputs)
        back = list(handed_back(node.op, rules[node.name], given, values[node.output], r[node.output]))
        merged = {
            name: sum(b for n, b in zip(node.inputs, back, strict=True) if n == name) for name in node.inputs
        }
        size = sum(np.abs(flatten((piece,))).sum(axis=1) for piece in merged.values())
        arrived = np.abs(flatten((r[node.output],))).sum(axis=1)
        factor = np.ones(len(x))
        if rules[node.name].conserves and node is not graph.nodes[-1]:
            factor = np.minimum(1, np.divide(limit * arrived, size, out=np.ones_like(size), where=size > 0))
        for name, piece in merged.items():
            r[name] = r[name] + piece * factor.reshape(-1, *(1,) * (piece.ndim - 1))
        gains[node.name] = float(np.divide(size * factor, arrived, out=0 * size, where=arrived > 0).max())
        everything = sum(flatten((piece,)).sum(axis=1) for piece in merged.values())
        taken[node.name] = float(((1 - factor) * everything).sum())
    return r, gains, taken


@settings(max_examples=40)
@given(network=networks(), composite=composites(), seed=seeds)
def test_any_network_is_clipped(network: Network, composite: Composite, seed: int) -> None:
    x = np.clip(np.random.default_rng(seed).normal(size=(3, 2, 5, 5)), -6, 6)
    graph = network.canonized(np.float64).graph
    options: dict[str, Any] = {"dtype": np.float64, "record": "all", "on_blowup": "clip", "blowup": 1.5}
    for backend in BACKENDS:
        explainer = Explainer(network, composite, backend=backend, **options)
        explanation = explainer(x, 1)
        initial = np.eye(3)[explanation.target] * explanation.output
        expected, gains, taken = clipped(graph, composite, x, initial, 1.5)
        found = {node.output: explanation.layers[node.name] for node in graph.nodes}
        found[next(iter(graph.inputs))] = explanation.relevance
        scale = max(np.abs(r).max() for r in expected.values()) or 1
        for name, r in found.items():
            np.testing.assert_allclose(r, expected[name], rtol=0, atol=1e-8 * scale, err_msg=name)
        assert explanation.conservation.worst < 1e-10
        for row in explanation.conservation:
            assert row.gain <= gains[row.node] * (1 + 1e-8) + 1e-8
            assert row.clipped == pytest.approx(taken[row.node], rel=1e-7, abs=1e-8 * scale)
        alone = [explainer(x[i : i + 1], 1).relevance for i in range(3)]
        if backend == "native":
            assert np.concatenate(alone).tobytes() == explanation.relevance.tobytes()
        (several,) = explainer.several(x, [1])
        (compared,) = lrpfast.compare(network, x, [composite], 1, backend=backend, **options)
        pieces = explainer(x, 1, max_memory=explainer._prepared(network).plan.nbytes(2))
        for other in (several, compared, pieces):
            np.testing.assert_allclose(other.relevance, explanation.relevance, rtol=0, atol=1e-8 * scale)
            assert other.manifest == explanation.manifest


def test_what_cannot_blow_up_is_left_alone() -> None:
    plain, careful = (
        Explainer(cnn(), lrpfast.composite("epsilon_plus", sums="abs"), on_blowup=policy)
        ._prepared(cnn())
        .plan
        for policy in ("ignore", "clip")
    )
    assert [step.label() for step in plain.vjp] == [step.label() for step in careful.vjp]
    inhibiting = Explainer(cnn(), "epsilon_alpha2_beta1", on_blowup="clip", blowup=2)._prepared(cnn()).plan
    assert any(step.label() == "at most 2 times Σ|R|" for step in inhibiting.vjp)


# --- what is known beforehand ---


@pytest.mark.parametrize("nonnegative", [True, False])
@pytest.mark.parametrize("layer", LAYERS)
def test_no_rule_exceeds_its_largest_gain(layer: str, nonnegative: bool) -> None:
    case: Case = LAYERS[layer]
    facts = {f"x{i}": Fact(shape, nonnegative=nonnegative) for i, shape in enumerate(case.shapes)}
    node = Node("layer", lrpfast.layers.resolve(case.op, *facts.values()), tuple(facts), "z")
    x = flatten(tuple(np.abs(a) if nonnegative else a for a in inputs(case, 3, 10)))
    r = relevance(case.layer, x, 4)
    arrived = np.abs(r).sum(axis=1)
    bounded = 0
    for rule, formula in RULES.values():
        if fits(case, rule) and rule.conserves:
            bound = largest_gain(Graph(facts, (node,), "z"), node, rule)
            handed = np.abs(formula(case.layer, x, r)).sum(axis=1)
            assert bound == np.inf or (handed <= bound * arrived + 1e-9).all(), rule
            bounded += bound < np.inf
    assert bounded >= 8


@pytest.mark.parametrize(
    ("rule", "op", "nonnegative", "expected"),
    [
        ("Epsilon()", Dense(np.eye(2)), True, np.inf),
        ("Norm()", Add(), True, 1),
        ("Norm()", Add(), False, np.inf),
        ("Norm()", AvgPool2d(2), True, 1),
        ("Norm()", AvgPool2d(2), False, np.inf),
        ("Norm()", Affine(np.float64(1), np.float64(-1)), True, np.inf),
        ("AbsNorm()", Add(), False, 1),
        ("AbsNorm()", Dense(np.eye(2), np.ones(2)), False, 1),
        ("ZPlus()", Dense(np.eye(2), np.ones(2)), False, 1),
        ("AlphaBeta()", Dense(np.eye(2), np.ones(2)), False, 3),
        ("AlphaBeta(alpha=1.5, beta=0.5)", Dense(np.eye(2)), False, 2),
        ("Gamma()", Dense(np.eye(2)), True, np.inf),
        ("ZBox(low=-2.0, high=2.0)", Dense(np.eye(2)), False, 1),
        ("WSquare()", Dense(np.eye(2), np.ones(2)), False, 1),
        ("Flat()", Dense(np.eye(2)), False, 1),
    ],
)
def test_largest_gains(rule: str, op: Any, nonnegative: bool, expected: float) -> None:
    shape = (1, 2, 2) if "average_pool" in op.kinds else (2,)
    fact = Fact(shape, nonnegative=nonnegative)
    node = Node("layer", op, ("x",), "z")
    assert largest_gain(Graph({"x": fact}, (), "x"), node, RULES[rule][0]) == expected


# --- the rule that cannot blow up ---


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_residual_sum_is_shared_by_magnitude(dtype: Any, backend: str) -> None:
    """a = 3, b = −2, R = 1: .6 and .4, as in autoLRP."""
    given = np.array([[3.0]], dtype), np.array([[-2.0]], dtype)
    a, b = lrpfast.propagate(AbsNorm(0.0), Add(), given, np.ones((1, 1), dtype), backend=backend)
    np.testing.assert_allclose((a.item(), b.item()), (0.6, 0.4), rtol=1e-6)


def test_average_pooling_is_shared_by_magnitude(backend: str) -> None:
    x = np.array([[[[3.0, -2.0], [0.0, 5.0]]]])
    found = lrpfast.propagate(AbsNorm(0.0), AvgPool2d(2), x, np.ones((1, 1, 1, 1)), backend=backend)
    np.testing.assert_allclose(found, [[[[0.3, 0.2], [0, 0.5]]]])


def test_by_magnitude_nothing_blows_up(backend: str) -> None:
    options: dict[str, Any] = {"backend": backend, "dtype": np.float64, "on_blowup": "error", "record": "all"}
    for second in (-2.99, -2.999999):
        explanation = Explainer(cancelling(second), BOUNDED, **options)(X, **ONE)
        assert rows(explanation)["add"].gain == pytest.approx(1)
        assert explanation.relevance.sum() == pytest.approx(2)
        np.testing.assert_allclose(explanation.layers["three"], 3 / (3 - second))


@pytest.mark.parametrize("name", [name for name in lrpfast.COMPOSITES if name.startswith("e")])
def test_presets_share_sums_by_magnitude_if_asked(name: str) -> None:
    box = {"low": LOW, "high": HIGH} if "box" in name else {}
    plain, by_magnitude = (
        lrpfast.composite(name, stabilizer=0.5, sums=sums, **box) for sums in ("norm", "abs")
    )
    assert plain == lrpfast.composite(name, stabilizer=0.5, **box)
    changed = {
        s.kind: (a, b) for (s, a), (_, b) in zip(plain.rules, by_magnitude.rules, strict=True) if a != b
    }
    assert changed == dict.fromkeys(("sum", "average_pool", "interpolation"), (Norm(0.5), AbsNorm(0.5)))
    with pytest.raises(CompositeError, match=r"sums is 'max'; expected one of norm, abs"):
        lrpfast.composite(name, sums="max", **box)


def test_presets_that_cannot_blow_up_take_no_choice() -> None:
    assert ("sum", ZPlus(bias=False)) in [
        (s.kind, rule) for s, rule in lrpfast.composite("deep_taylor").rules
    ]
    with pytest.raises(CompositeError, match="has no parameter 'sums'"):
        lrpfast.composite("deep_taylor", sums="abs")


# --- the command line ---


@pytest.fixture
def cli(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """`lrpfast explain` for two samples of a network whose sum cancels."""
    monkeypatch.chdir(tmp_path)
    weights = {"three": 3.0, "other": -2.99, "last": 2.0}
    nodes = [
        *(onnx_node("MatMul", f"x {name}", name[0], name=name) for name in ("three", "other")),
        onnx_node("Add", "t o", "a", name="add"), onnx_node("Relu", "a", "r"),
        onnx_node("MatMul", "r last", name="head"),
    ]  # fmt: skip
    arrays = {name: np.array([[w]], np.float32) for name, w in weights.items()}
    onnx.save(model_of(nodes, ["n", 1], arrays), "model.onnx")
    np.save("x.npy", X.astype(np.float32))

    def call(*arguments: str) -> Result:
        return CliRunner().invoke(main, ["explain", "model.onnx", "x.npy", *arguments])

    return call


def test_the_command_line_notes_blow_ups_once(cli: Any) -> None:
    result = cli("-o", "r.npy")
    assert result.exit_code == 0
    assert result.stderr.count("add: 599 times, under Norm()") == 1
    for cure in ("-p sums=abs", "--on-blowup clip"):
        assert cure in result.stderr
    for quiet in (
        ("--on-blowup", "ignore"),
        ("-p", "sums=abs"),
        ("--blowup", "1000"),
        ("--on-blowup", "clip"),
    ):
        assert cli("-o", "r.npy", *quiet).stderr == ""


def test_the_command_line_clips_and_refuses(cli: Any) -> None:
    result = cli("--json", "--on-blowup", "clip", "--blowup", "20")
    document = json.loads(result.stdout)
    assert (document["on_blowup"], document["blowup"]) == ("clip", 20)
    for found in document["results"]:
        (row,) = found["blowups"]
        assert (row["node"], row["rule"], row["gain"]) == ("add", "Norm()", 20)
        assert row["clipped"] == pytest.approx(found["target"]["score"] * (1 - 20 / 599), rel=1e-3)
    assert [len(found["blowups"]) for found in json.loads(cli("--json").stdout)["results"]] == [1, 1]
    refused = cli("--json", "--on-blowup", "error")
    assert refused.exit_code == 1
    assert "add: 599 times, under Norm()" in refused.stderr
    assert "hint: -p sums=abs" in refused.stderr


# --- healthy networks ---


@pytest.mark.networks
@pytest.mark.parametrize("name", ["resnet18", "mobilenet_v2", "efficientnet_lite0", "mlp"])
def test_healthy_networks_are_silent(name: str) -> None:
    net = network(name)
    loaded, x = lrpfast.load(net.path), net.pictures(2)
    presets = [n for n in lrpfast.COMPOSITES if n.startswith("epsilon")]
    box = {"low": LOW, "high": HIGH}
    chosen = [lrpfast.composite(n, **(box if "box" in n else {})) for n in presets]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for target in (None, 3):
            for explanation in lrpfast.compare(loaded, x, chosen, target):
                assert max(row.gain for row in explanation.conservation if not row.explained) < 3.001
