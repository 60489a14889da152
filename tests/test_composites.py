"""Which node gets which rule."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import lrpfast
from lrpfast import (
    COMPOSITES,
    AlphaBeta,
    AvgPool2d,
    Builder,
    Composite,
    CompositeError,
    Conv2d,
    CustomRule,
    Dense,
    Epsilon,
    Flat,
    Flatten,
    Gamma,
    Gradient,
    MaxPool2d,
    Network,
    Norm,
    Part,
    Pass,
    ReLU,
    ReLU6,
    ReLUDeconvNet,
    ReLUGuidedBackprop,
    Route,
    Rule,
    Selector,
    Share,
    Sigmoid,
    Term,
    WinnerTakeAll,
    WSquare,
    Z,
    ZBox,
    ZPlus,
    composite,
)
from lrpfast.composites import assign
from lrpfast.graph import Fact, Graph, Node
from lrpfast.ops import Add, Affine

RNG = np.random.default_rng(0)


def conv(inputs: int, outputs: int) -> Any:
    return Conv2d(RNG.normal(size=(outputs, inputs, 3, 3)), padding=1)


def dense(inputs: int, outputs: int) -> Any:
    return Dense(RNG.normal(size=(outputs, inputs)))


def small_cnn() -> Network:
    """Of everything that zennit's composites tell apart, one."""
    build = Builder((2, 8, 8))
    scaled = build(Affine(np.float64(2), np.float64(-1)), build.input, name="scale")
    a = build(ReLU(), build(conv(2, 4), scaled, name="features.0"), name="features.1")
    a = build(MaxPool2d(2), a, name="features.2")
    b = build(ReLU6(), build(conv(4, 4), a, name="features.3"), name="features.4")
    a = build(Add(), a, b, name="add")
    a = build(Flatten(), build(AvgPool2d(2), a, name="pool"), name="flatten")
    a = build(ReLU(), build(dense(16, 8), a, name="classifier.0"), name="classifier.1")
    return build.network(build(dense(8, 3), a, name="classifier.2"))


def rules_of(chosen: Composite, network: Network) -> dict[str, Rule]:
    return {name: given.rule for name, given in assign(chosen, network.graph).items()}


def with_defaults(**rules: Rule) -> dict[str, Rule]:
    """Rules of `small_cnn` by kind, spelled out for every node."""
    first = rules.get("first_conv", rules["conv"])
    return {
        "scale": Pass(), "features.0": first, "features.1": Pass(), "features.2": WinnerTakeAll(),
        "features.3": rules["conv"], "features.4": Pass(), "add": Norm(), "pool": Norm(), "flatten": Route(),
        "classifier.0": rules["dense"], "classifier.1": Pass(), "classifier.2": rules["dense"],
    }  # fmt: skip


@pytest.mark.parametrize(
    ("name", "parameters", "expected"),
    [
        ("epsilon_plus", {}, with_defaults(conv=ZPlus(), dense=Epsilon())),
        ("epsilon_plus_flat", {}, with_defaults(first_conv=Flat(), conv=ZPlus(), dense=Epsilon())),
        ("epsilon_alpha2_beta1", {}, with_defaults(conv=AlphaBeta(2, 1), dense=Epsilon())),
        (
            "epsilon_alpha2_beta1_flat", {},
            with_defaults(first_conv=Flat(), conv=AlphaBeta(2, 1), dense=Epsilon()),
        ),
        (
            "epsilon_gamma_box", {"low": -1, "high": 2},
            with_defaults(first_conv=ZBox(-1, 2), conv=Gamma(0.25), dense=Epsilon()),
        ),
        (
            "epsilon_gamma_box", {"low": -1, "high": 2, "gamma": 0.5, "epsilon": 0.1, "bias": False},
            with_defaults(first_conv=ZBox(-1, 2), conv=Gamma(0.5, bias=False), dense=Epsilon(0.1, bias=False)),
        ),
        ("epsilon_plus", {"bias": False}, with_defaults(conv=ZPlus(bias=False), dense=Epsilon(bias=False))),
    ],
)  # fmt: skip
def test_presets_assign_as_zennit_does(
    name: str, parameters: dict[str, Any], expected: dict[str, Rule]
) -> None:
    assert rules_of(composite(name, **parameters), small_cnn()) == expected


def test_deep_taylor_has_a_rule_without_bias_everywhere() -> None:
    plus = ZPlus(bias=False)
    expected = {**with_defaults(conv=plus, dense=plus), "add": plus, "pool": plus}
    first = {"deep_taylor": WSquare(bias=False), "deep_taylor_bounded": ZBox(-1, 1)}
    for name, parameters in (("deep_taylor", {}), ("deep_taylor_bounded", {"low": -1, "high": 1})):
        found = rules_of(composite(name, **parameters), small_cnn())
        assert found == {**expected, "features.0": first[name]}


def test_gradient_presets() -> None:
    nodes = [node.name for node in small_cnn().graph.nodes]
    rectifiers = {"features.1", "features.4", "classifier.1"}
    for name, rule in (
        ("gradient", Gradient()), ("gradient_x_input", Gradient()), ("deconvnet", ReLUDeconvNet()),
        ("guided_backprop", ReLUGuidedBackprop()),
    ):  # fmt: skip
        chosen = composite(name)
        assert chosen.init == "one"
        assert chosen.times_input == (name == "gradient_x_input")
        expected = {node: rule if node in rectifiers else Gradient() for node in nodes}
        assert rules_of(chosen, small_cnn()) == expected


def test_deconvnet_and_guided_backprop_leave_sigmoids_alone() -> None:
    network = lrpfast.Sequential(dense(3, 2), Sigmoid())
    for name in ("deconvnet", "guided_backprop"):
        assert list(rules_of(composite(name), network).values()) == [Gradient(), Gradient()]


def test_excitation_backprop() -> None:
    plus = ZPlus(bias=False)
    chosen = composite("excitation_backprop")
    assert chosen.init == "one"
    expected = with_defaults(conv=plus, dense=plus)
    expected.update(dict.fromkeys(("features.1", "features.4", "classifier.1"), Gradient()))
    assert rules_of(chosen, small_cnn()) == expected


def test_stabilizer_reaches_every_rule_that_has_one() -> None:
    for name in COMPOSITES:
        parameters: dict[str, Any] = {"low": -1, "high": 1} if "box" in name or "bounded" in name else {}
        if "gradient" in name or name in ("deconvnet", "guided_backprop"):
            continue
        found = rules_of(composite(name, stabilizer=0.5, **parameters), small_cnn())
        stabilizers = {rule.stabilizer for rule in found.values() if hasattr(rule, "stabilizer")}
        assert stabilizers == {0.5}


def test_every_preset_covers_a_small_network_and_says_what_it_is() -> None:
    for name, make in COMPOSITES.items():
        parameters = {"low": -1, "high": 1} if "box" in name or "bounded" in name else {}
        chosen = composite(name, **parameters)
        assert chosen.name == make.__name__ == name
        assert chosen.doc
        assert make.__doc__
        assert set(rules_of(chosen, small_cnn())) == {node.name for node in small_cnn().graph.nodes}


# --- selectors ---


@pytest.mark.parametrize(
    ("selector", "selected"),
    [
        (Selector("linear"), ["features.0", "features.3", "classifier.0", "classifier.2"]),
        (Selector("convolution"), ["features.0", "features.3"]),
        (Selector("dense"), ["classifier.0", "classifier.2"]),
        (Selector("Conv"), ["features.0", "features.3"]),
        (Selector("Gemm"), ["classifier.0", "classifier.2"]),
        (Selector("sum"), ["add"]),
        (Selector("Add"), ["add"]),
        (Selector("average_pool"), ["pool"]),
        (Selector("affine"), ["scale"]),
        (Selector("activation"), ["features.1", "features.4", "classifier.1"]),
        (Selector("Clip"), ["features.4"]),
        (Selector("max_pool"), ["features.2"]),
        (Selector("movement"), ["flatten"]),
        (Selector(name="classifier.*"), ["classifier.0", "classifier.1", "classifier.2"]),
        (Selector("linear", "features.?"), ["features.0", "features.3"]),
        (Selector(name="FEATURES.0"), []),
        (Selector("convolution", first=True), ["features.0"]),
        (Selector("dense", first=True), ["classifier.0"]),
        (Selector("linear", first=True), ["features.0"]),
        (Selector("linear", "classifier.*", first=True), []),
        (Selector(first=True), ["scale"]),
    ],
    ids=str,
)
def test_selector(selector: Selector, selected: list[str]) -> None:
    network = small_cnn()
    marker = CustomRule(lambda *_: (), "marker")
    found = rules_of(Composite("test", ((selector, marker), (Selector(), Gradient()))), network)
    assert [name for name, rule in found.items() if rule is marker] == selected


def test_selectors_print_as_words() -> None:
    assert str(Selector()) == "every node"
    assert str(Selector("convolution", first=True)) == "first convolution"
    assert str(Selector("linear", "fc*")) == "linear named fc*"


def test_first_match_wins_and_the_reason_is_told() -> None:
    chosen = Composite(
        "test",
        (
            (Selector(name="features.3"), Z()),
            ("convolution", Flat()),
            ("linear", Z()),
            (Selector(), Gradient()),
        ),
    )
    found = assign(chosen, small_cnn().graph)
    assert found["features.3"].rule == Z()
    assert found["features.3"].reason == "named features.3"
    assert (found["features.0"].rule, found["features.0"].reason) == (Flat(), "convolution")
    assert (found["classifier.0"].rule, found["classifier.0"].reason) == (Z(), "linear")
    assert found["features.2"].rule == Gradient()  # an entry comes before what needs none


def test_first_is_by_path_and_not_by_order_of_registration() -> None:
    """In the order of the nodes "late" comes first, but on a path from the input it comes second."""
    early, late, third = (dense(3, 3) for _ in range(3))
    nodes = (
        Node("early", early, ("x",), "a"),
        Node("relu", ReLU(), ("a",), "b"),
        Node("late", late, ("b",), "c"),
        Node("parallel", third, ("x",), "d"),  # registered last, yet nothing comes before it
        Node("add", Add(), ("c", "d"), "y"),
    )
    for order in (nodes, (nodes[3], *nodes[:3], nodes[4])):
        graph = Graph({"x": Fact((3,))}, order, "y")
        found = assign(composite("epsilon_plus_flat"), graph)
        flat = {name for name, given in found.items() if given.rule == Flat()}
        assert flat == {"early", "parallel"}


def test_first_of_a_kind_counts_that_kind_only() -> None:
    build = Builder((2, 4, 4))
    a = build(dense(4, 4), build.input, name="dense")  # on the last axis
    b = build(conv(2, 2), a, name="conv")
    network = build.network(build(conv(2, 2), b, name="second"))
    found = rules_of(composite("epsilon_gamma_box", low=-1, high=1), network)
    assert found == {"dense": Epsilon(), "conv": ZBox(-1, 1), "second": Gamma()}


def test_a_residual_branch_does_not_hide_the_first_layer() -> None:
    build = Builder((2, 4, 4))
    branch = build(conv(2, 2), build.input, name="branch")
    joined = build(Add(), build.input, branch, name="joined")
    network = build.network(build(conv(2, 2), joined, name="after"))
    found = rules_of(composite("epsilon_plus_flat"), network)
    assert (found["branch"], found["after"]) == (Flat(), ZPlus())


# --- mistakes ---


@pytest.mark.parametrize(
    ("name", "parameters", "words"),
    [
        ("epsilon_pluss", {}, "unknown composite 'epsilon_pluss'; known are epsilon_plus, epsilon_plus_flat"),
        (None, {}, "unknown composite None"),
        (["epsilon_plus"], {}, "unknown composite"),
        ("epsilon_gamma_box", {}, "needs low= and high=, the bounds of the inputs"),
        ("epsilon_gamma_box", {"low": 0}, "needs low= and high="),
        ("deep_taylor_bounded", {"high": 1}, "needs low= and high="),
        ("epsilon_plus", {"low": 0}, "has no parameter 'low'; it takes epsilon, stabilizer, bias"),
        ("gradient", {"epsilon": 1}, "has no parameter 'epsilon'; it takes none"),
        ("epsilon_plus", {"epsilon": -1}, "'epsilon_plus': epsilon is -1; expected a finite number ≥ 0"),
        ("epsilon_gamma_box", {"low": 1, "high": 0}, "low=1 is not below high=0"),
        ("epsilon_gamma_box", {"low": 0, "high": 1, "gamma": "much"}, "gamma is 'much'"),
    ],
)  # fmt: skip
def test_composite_refuses(name: Any, parameters: dict[str, Any], words: str) -> None:
    with pytest.raises(CompositeError, match=words):
        composite(name, **parameters)


def test_composite_returns_a_composite_as_it_is() -> None:
    chosen = Composite("mine", (("linear", Z()),))
    assert composite(chosen) is chosen


@pytest.mark.parametrize(
    ("entries", "words"),
    [
        ((ZPlus(),), r"ZPlus\(.*is not a \(selector, rule\) pair"),
        ((("convolution", ZPlus),), r"is not a \(selector, rule\) pair; write"),
        ((("convolution", "ZPlus"),), r"is not a \(selector, rule\) pair"),
        (((1, ZPlus()),), r"is not a \(selector, rule\) pair"),
        ((("convolution", ZPlus(), 1),), r"is not a \(selector, rule\) pair"),
        ((("conv", ZPlus()),), "no operator is of kind 'conv'; known are .*convolution"),
    ],
)
def test_bad_entries(entries: Any, words: str) -> None:
    with pytest.raises(CompositeError, match=words):
        Composite("mine", entries)


def test_bad_init() -> None:
    with pytest.raises(CompositeError, match="init is 'two'; expected one of logit, one, probability"):
        Composite("mine", (), init="two")


def test_nodes_without_a_rule_are_all_listed() -> None:
    with pytest.raises(CompositeError) as error:
        assign(Composite("mine", (("convolution", ZPlus()), ("activation", Pass()))), small_cnn().graph)
    for name in (
        "scale (Affine)",
        "add (Add)",
        "pool (AveragePool)",
        "classifier.0 (Gemm)",
        "classifier.2 (Gemm)",
    ):
        assert f"{name}: no rule for its kinds" in str(error.value)
    for name in ("features.0", "features.2", "flatten"):
        assert name not in str(error.value)
    assert "composite 'mine' does not cover this network" in str(error.value)


def test_a_composite_that_leaves_a_linear_node_out_is_refused_before_any_work() -> None:
    with pytest.raises(CompositeError, match=r"classifier\.0 \(Gemm\): no rule"):
        lrpfast.Explainer(small_cnn(), Composite("mine", (("convolution", ZPlus()),)))


@pytest.mark.parametrize(
    ("selector", "rule", "words"),
    [
        ("activation", ZPlus(), r"features\.1 \(Relu\): ZPlus\(\) is for linear operators only"),
        ("max_pool", Epsilon(), r"features\.2 \(MaxPool\): Epsilon\(\) is for linear operators only"),
        ("sum", Pass(), r"add \(Add\): Pass\(\) needs one input, of the output's shape"),
        ("average_pool", Pass(), "pool .* needs one input, of the output's shape"),
        ("convolution", Pass(), "features.0 .* needs one input, of the output's shape"),
        ("convolution", WinnerTakeAll(), "is for operators of kind winner only"),
        ("convolution", ReLUGuidedBackprop(), "is for operators of kind activation only"),
        ("sum", ZBox(0, 1), "is for operators with one input"),
        (
            "convolution",
            ZBox(np.zeros((3, 1, 1)), 1),
            r"has low of shape \(3, 1, 1\), which does not broadcast",
        ),
        ("convolution", ZBox(0, np.ones((1, 2, 8, 8))), r"has high of shape \(1, 2, 8, 8\)"),
    ],
)
def test_a_rule_that_does_not_apply(selector: str, rule: Rule, words: str) -> None:
    with pytest.raises(CompositeError, match=words):
        assign(Composite("mine", ((selector, rule), (Selector(), Gradient()))), small_cnn().graph)


def test_only_a_box_has_bounds_to_subtract() -> None:
    class Shifted(lrpfast.SharingRule):
        def shares(self) -> tuple[Share, ...]:
            return (Share((Term(Part(minus="low"), Part()),)),)

    with pytest.raises(
        CompositeError, match=r"features\.0 \(Conv\): Shifted\(\) subtracts bounds from x; only ZBox"
    ):
        assign(Composite("mine", (("convolution", Shifted()), (Selector(), Gradient()))), small_cnn().graph)
