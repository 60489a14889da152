"""Normalisation layers: what they compute, their derivatives, and relevance by their rules written out."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import oracle
import pytest
from onnx_models import Array, evaluate, model_of, node
from test_ops import check_vjp, normal
from test_shapes import expected

import lrpfast
from lrpfast import (
    CompositeError,
    Epsilon,
    Gamma,
    LNRule,
    ModelError,
    Norm,
    Pass,
    Stabilizer,
    WSquare,
    Z,
    ZBox,
    ZPlus,
)
from lrpfast.gain import largest_gain
from lrpfast.graph import Fact, Graph, Node
from lrpfast.onnx_io import load_graph
from lrpfast.ops import LRN, Affine, LpNormalization, Normalization
from lrpfast.ops.normalization import Normalizing

# --- what is read ---

LAYER, RMS, GROUP = "LayerNormalization", "RMSNormalization", "GroupNormalization"
INSTANCE, MVN, LP = "InstanceNormalization", "MeanVarianceNormalization", "LpNormalization"

# name: (operator, sample shape, constants, attributes, opset)
FORMS: dict[str, tuple[str, tuple[int, ...], list[Any], dict[str, Any], int]] = {
    "layer": (LAYER, (4, 6), [normal(6), normal(6)], {}, 17),
    "layer-axis": (LAYER, (3, 4, 6), [normal(4, 6), normal(4, 6)], {"axis": 2, "epsilon": 0.1}, 17),
    "layer-no-bias": (LAYER, (3, 4), [normal(3, 4)], {"axis": -2}, 21),
    "layer-broadcast": (LAYER, (3, 4), [normal(1, 1, 4), normal(1)], {"axis": 1}, 17),
    "rms": (RMS, (4, 6), [normal(6)], {}, 23),
    "rms-axis": (RMS, (3, 4, 6), [normal(4, 6)], {"axis": -2, "epsilon": 0.01}, 23),
    "instance": (INSTANCE, (3, 4, 5), [normal(3), normal(3)], {}, 13),
    "instance-1d": (INSTANCE, (3, 7), [normal(3), normal(3)], {"epsilon": 0.2}, 7),
    "instance-3d": (INSTANCE, (2, 3, 4, 2), [normal(2), normal(2)], {}, 22),
    "group": (GROUP, (6, 4, 5), [normal(6), normal(6)], {"num_groups": 2}, 21),
    "group-per-group": (GROUP, (6, 4, 5), [normal(3), normal(3)], {"num_groups": 3, "epsilon": 0.1}, 18),
    "group-of-all": (GROUP, (4, 5), [normal(4), normal(4)], {"num_groups": 1}, 21),
    "group-of-one": (GROUP, (4, 5), [normal(4), normal(4)], {"num_groups": 4}, 21),
    "mvn": (MVN, (3, 4, 5), [], {"axes": [2, 3]}, 13),
    "mvn-channels": (MVN, (3, 4, 5), [], {"axes": [-1, 1]}, 9),
    "lp": (LP, (3, 4), [], {}, 22),
    "lp-1": (LP, (3, 4), [], {"p": 1, "axis": 1}, 7),
    "lrn": ("LRN", (7, 4, 3), [], {"size": 3}, 13),
    "lrn-even": ("LRN", (7, 4, 3), [], {"size": 4, "alpha": 0.5, "beta": 0.6, "bias": 2.0}, 13),
    "lrn-wide": ("LRN", (3, 4, 3), [], {"size": 11, "alpha": 0.3}, 13),
}  # fmt: skip


def model(form: str) -> onnx.ModelProto:
    op_type, shape, constants, attributes, opset = FORMS[form]
    named = {f"c{k}": value for k, value in enumerate(constants)}
    return model_of([node(op_type, " ".join(["x", *named]), **attributes)], ("n", *shape), named, opset=opset)


@pytest.mark.parametrize("form", FORMS)
def test_form(form: str) -> None:
    x = normal(
        7, *FORMS[form][1], seed=7
    )  # ONNX's reference for LRN takes as many channels as there are samples
    graph = load_graph(model(form))
    y = evaluate(graph, x)
    np.testing.assert_allclose(y, expected(model(form), x), rtol=1e-5, atol=1e-6, strict=True)
    np.testing.assert_allclose(lrpfast.load(model(form)).predict(x), y, rtol=1e-5, atol=1e-6)
    assert graph.nodes[0].op.kinds == (FORMS[form][0], "normalization")


@pytest.mark.parametrize(
    ("last", "constants", "says"),
    [
        (node(MVN, "x"), {}, "take statistics over the batch"),
        (node(LAYER, "x c", axis=0), {"c": normal(4)}, "axis 0, the batch"),
        (node(LP, "x", axis=0), {}, "axis 0, the batch"),
        (
            node("BatchNormalization", "x c c c d", training_mode=1), {"c": normal(3), "d": normal(3) ** 2},
            "the batch's own statistics",
        ),
        (node(LAYER, "x x"), {}, "computed, not a constant"),
    ],
)  # fmt: skip
def test_refused(last: onnx.NodeProto, constants: dict[str, Any], says: str) -> None:
    with pytest.raises(lrpfast.UnsupportedOperatorError, match=says):
        load_graph(model_of([last], ("n", 3, 4), constants, opset=17))


@pytest.mark.parametrize(
    ("last", "constants", "says"),
    [
        (node(LAYER, "x c"), {"c": normal(3)}, r"scale has shape \(3,\)|constant 'c' has shape \(3,\)"),
        (node(INSTANCE, "x c c"), {"c": normal(2)}, r"has shape \(2,\); expected \(3,\)"),
        (node(GROUP, "x c c", num_groups=2), {"c": normal(3)}, "2 groups do not divide the 3 channels"),
        (node(LP, "x", p=3), {}, "p is 3; expected 1 or 2"),
        (node("LRN", "x", size=0), {}, "size is 0"),
    ],
)
def test_models_that_are_wrong(last: onnx.NodeProto, constants: dict[str, Any], says: str) -> None:
    with pytest.raises(ModelError, match=says):
        load_graph(model_of([last], ("n", 3, 4), constants, opset=21))


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: Normalization((0,), -1.0), "epsilon is -1.0"),
        (lambda: Normalization((1,), groups=2), "2 groups over axes"),
        (lambda: Normalization((1, 0)).infer(Fact((2, 3))), "axes of a sample in order"),
        (lambda: Normalization((2,)).infer(Fact((2, 3))), "axes of a sample in order"),
        (lambda: Normalization(()).infer(Fact((2, 3))), "axes of a sample in order"),
        (lambda: LpNormalization((0,), floor=-1), "floor is -1"),
        (lambda: LpNormalization((3,)).infer(Fact((2,))), "axes of a sample in order"),
        (lambda: LRN(3, alpha=np.inf), "alpha inf"),
        (lambda: LRN(3).infer(Fact(())), "no channel axis"),
    ],
)
def test_parameters_that_do_not_fit(make: Callable[[], Any], says: str) -> None:
    with pytest.raises(ModelError, match=says):
        make()


# --- what is computed ---

OPS: dict[str, tuple[Normalizing, tuple[int, ...]]] = {
    "layer": (Normalization((1,)), (3, 5)),
    "layer, two axes": (Normalization((0, 2), 0.5), (3, 4, 5)),
    "rms": (Normalization((1,), 0.1, centred=False), (3, 5)),
    "groups": (Normalization((0, 1), groups=2), (4, 5)),
    "rms of groups": (Normalization((0,), groups=3, centred=False), (6, 2)),
    "outside": (Normalization((0, 1), 0.3, outside=True), (4, 5)),
    "l2": (LpNormalization((1,)), (3, 5)),
    "l2, two axes": (LpNormalization((0, 1)), (3, 5, 2)),
    "l2 with a floor": (LpNormalization((1,), floor=2.0), (3, 5)),
    "l1": (LpNormalization((0,), 1), (6, 2)),
    "lrn": (LRN(3, 0.5, 0.6, 2.0), (6, 2, 3)),
    "lrn, even": (LRN(4, 0.5), (6, 4)),
}


@pytest.fixture(params=OPS)
def case(request: pytest.FixtureRequest) -> tuple[Normalizing, tuple[int, ...]]:
    return OPS[request.param]


def test_derivative_goes_through_the_statistics(case: Any) -> None:
    op, shape = case
    x = normal(3, *shape, seed=1, dtype=np.float64)
    x[1] *= 0.1
    check_vjp(op, (x,))


def test_statistics_are_those_of_the_forward(case: Any) -> None:
    """`z = a x + b`, with a and b that are the same over what is normalised together."""
    op, shape = case
    x = normal(3, *shape, seed=2, dtype=np.float64)
    a, centre = op.statistics(x)
    np.testing.assert_allclose(op.forward(x), a * x - a * (0 if centre is None else centre), atol=1e-14)
    assert op.infer(Fact(shape, nonnegative=True)).nonnegative is (centre is None)
    assert not op.infer(Fact(shape)).nonnegative


def test_written_out() -> None:
    """By the formulas, with loops."""
    x = normal(2, 4, 3, seed=3, dtype=np.float64)
    z = Normalization((0, 1), 0.1, groups=2).forward(x)
    for sample, got in zip(x, z, strict=True):
        for group in (slice(0, 2), slice(2, 4)):
            part = sample[group]
            variance = ((part - part.mean()) ** 2).mean()
            np.testing.assert_allclose(got[group], (part - part.mean()) / np.sqrt(variance + 0.1), rtol=1e-13)
    z = LpNormalization((0,), floor=1.5).forward(x)
    np.testing.assert_allclose(z, x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1.5), rtol=1e-13)
    z = Normalization((1,), 0.1, outside=True).forward(x)
    deviation = x.std(axis=2, keepdims=True)
    np.testing.assert_allclose(z, (x - x.mean(axis=2, keepdims=True)) / (deviation + 0.1), rtol=1e-13)


def test_a_large_mean_costs_no_digits() -> None:
    """The variance is computed in a second pass; that of x² - mean² would be lost in float32."""
    x = normal(2, 4096, seed=4, dtype=np.float64)
    far = (x + 1000).astype(np.float32)
    op = Normalization((0,))
    np.testing.assert_allclose(op.forward(far), op.forward(far.astype(np.float64)), atol=2e-5)
    assert op.forward(far).dtype == np.float32


def test_what_has_no_size_stays_zero() -> None:
    zeros = np.zeros((1, 3))
    for op in (
        LpNormalization((0,)),
        LpNormalization((0,), 1),
        Normalization((0,)),
        Normalization((0,), 1e-9, outside=True),
    ):
        np.testing.assert_array_equal(op.forward(zeros), zeros)
        assert np.isfinite(op.vjp((zeros,), zeros, np.ones((1, 3)))[0]).all()


def test_no_deviation_is_reported() -> None:
    network = lrpfast.Sequential(Normalization((0,), 0.0), input_shape=(3,))
    with pytest.raises(lrpfast.NonFiniteError, match="node 'Normalization_0'"):
        network.predict(np.ones((1, 3)))


# --- relevance ---


def as_dense(op: Normalizing, x: Array) -> oracle.Layer:
    """One sample's layer as a matrix, its statistics constant."""
    a, centre = op.statistics(x)
    a = np.broadcast_to(a, x.shape).reshape(-1)
    b = 0 * a if centre is None else -a * np.broadcast_to(centre, x.shape).reshape(-1)
    return oracle.Layer(np.diag(a), b, np.eye(len(a), dtype=bool))


RULES: dict[str, tuple[Any, Callable[..., Array]]] = {
    "Pass": (Pass(), oracle.passed),
    "Z": (Z(), oracle.z),
    "Epsilon": (Epsilon(0.1), lambda *of: oracle.epsilon(*of, epsilon=0.1)),
    "Epsilon, no bias": (Epsilon(0.1, bias=False), lambda *of: oracle.epsilon(*of, bias=False, epsilon=0.1)),
    "Epsilon, scaled": (
        Epsilon(Stabilizer(0.1, norm_scale=True)),
        lambda *of: oracle.epsilon(*of, epsilon=0.1, norm_scale=True),
    ),
    "Gamma": (Gamma(0.5), lambda *of: oracle.gamma(*of, 0.5)),
    "ZPlus": (ZPlus(), oracle.z_plus),
    "WSquare": (WSquare(), oracle.w_square),
}


@pytest.mark.parametrize("rule", RULES)
def test_rules(case: Any, rule: str) -> None:
    op, shape = case
    x = normal(3, *shape, seed=5, dtype=np.float64)
    r = normal(3, *shape, seed=6, dtype=np.float64)
    made, written_out = RULES[rule]
    found = lrpfast.propagate(made, op, x, r, backend="numpy")
    for k in range(3):
        of = as_dense(op, x[k : k + 1])
        right = written_out(of, x[k].reshape(1, -1), r[k].reshape(1, -1))
        np.testing.assert_allclose(found[k].reshape(1, -1), right, rtol=1e-9, atol=1e-11)


def test_ln_rule(case: Any) -> None:
    """The matrix of `a (x - mean(x))`, a constant, under ε."""
    op, shape = case
    x, r = (normal(1, *shape, seed=seed, dtype=np.float64) for seed in (5, 6))
    a, _ = op.statistics(x)
    units = np.eye(x.size).reshape(-1, *shape)
    columns = np.stack([(a * op.uncentred(unit[None])).reshape(-1) for unit in units], axis=1)
    of = oracle.Layer(columns, np.zeros(x.size), columns != 0)
    np.testing.assert_allclose((columns @ x.reshape(-1)), op.forward(x).reshape(-1), atol=1e-13)
    found = lrpfast.propagate(LNRule(0.1), op, x, r, backend="numpy")
    right = oracle.epsilon(of, x.reshape(1, -1), r.reshape(1, -1), epsilon=0.1)
    np.testing.assert_allclose(found.reshape(1, -1), right, rtol=1e-9, atol=1e-11)


def network(op: Normalizing, shape: tuple[int, ...]) -> lrpfast.Network:
    """A dense layer, the normalisation, gamma and beta behind an activation, and logits."""
    size = int(np.prod(shape))
    return lrpfast.Sequential(
        lrpfast.Dense(normal(size, 7), normal(size)), lrpfast.Reshape(shape), op, lrpfast.Tanh(),
        Affine(normal(*shape), normal(*shape)), lrpfast.ReLU(), lrpfast.Flatten(), lrpfast.Dense(normal(4, size)),
        input_shape=(7,),
    )  # fmt: skip


@pytest.mark.parametrize("rule", [Pass(), Epsilon(), Gamma(), LNRule()], ids=str)
def test_all_relevance_is_accounted_for(case: Any, rule: Any, backend: str) -> None:
    mine = network(*case)
    name = next(n.name for n in mine.graph.nodes if isinstance(n.op, Normalizing))
    base = lrpfast.composite("epsilon_plus")
    composite = lrpfast.Composite("mine", (("normalization", rule), *base.rules))
    x = normal(3, 7, seed=8)
    for dtype, worst in ((np.float64, 1e-11), (np.float32, 1e-4)):
        explanation = lrpfast.explain(
            mine, x, composite=composite, backend=backend, dtype=dtype, on_blowup="ignore"
        )
        (row,) = (row for row in explanation.conservation if row.node == name)
        assert row.rule == str(rule)
        assert explanation.conservation.worst < worst
        took_bias = row.bias != 0
        has_centre = isinstance(case[0], Normalization) and case[0].centred
        assert took_bias is (has_centre and isinstance(rule, (Epsilon, Gamma)))
    assert explanation.manifest["rules"][name] == str(rule)


def test_gains_are_bounded_as_said(case: Any) -> None:
    """The most by which a rule may multiply Σ|R|, held to samples in which much cancels."""
    op, shape = case
    layer = Node("layer", op, ("x",), "z")
    graph = Graph({"x": Fact(shape)}, (layer,), "z")
    x = normal(50, *shape, seed=11, dtype=np.float64)
    x[::2] += 3  # what is left when the mean is taken off is small beside it
    r = normal(50, *shape, seed=12, dtype=np.float64)
    for rule in (Pass(), Epsilon(), Gamma(), ZPlus(), WSquare(), Norm(), LNRule()):
        found = lrpfast.propagate(rule, op, x, r, backend="numpy")
        largest = (np.abs(found).reshape(50, -1).sum(1) / np.abs(r).reshape(50, -1).sum(1)).max()
        most = largest_gain(graph, layer, rule)
        assert largest <= most * (1 + 1e-12)
        assert (largest > 1.5) == (most == np.inf)


def test_presets_pass(case: Any) -> None:
    """The identity rule is every preset's but the gradients'."""
    mine = network(*case)
    name = next(n.name for n in mine.graph.nodes if isinstance(n.op, Normalizing))
    bounds = {"low": -9, "high": 9}
    for preset in lrpfast.COMPOSITES:
        chosen = lrpfast.composite(
            preset, **bounds if preset in ("epsilon_gamma_box", "deep_taylor_bounded") else {}
        )
        explanation = lrpfast.explain(
            mine, normal(1, 7), composite=chosen, backend="numpy", on_blowup="ignore"
        )
        rules = explanation.manifest["rules"]
        gradients = ("gradient", "gradient_x_input", "deconvnet", "guided_backprop")
        assert rules[name] == ("Gradient()" if preset in gradients else "Pass()")


def test_gradients_of_a_network(case: Any) -> None:
    mine = network(*case)
    x, step = normal(1, 7, seed=9, dtype=np.float64), 1e-6
    direction, target = normal(1, 7, seed=10, dtype=np.float64), np.array([1.0, -2, 0.5, 0])
    options: dict[str, Any] = {"backend": "numpy", "dtype": np.float64}
    found = lrpfast.explain(mine, x, target, "gradient", **options).relevance
    ends = [(target * mine.predict(x + k * step * direction, **options)).sum() for k in (1, -1)]
    assert (found * direction).sum() == pytest.approx((ends[0] - ends[1]) / (2 * step), rel=1e-6, abs=1e-8)


def test_rules_that_do_not_apply() -> None:
    x = np.ones((1, 3))
    with pytest.raises(lrpfast.RuleError, match="constant weights only"):
        lrpfast.propagate(ZBox(-1, 1), Normalization((0,)), x, x)
    with pytest.raises(lrpfast.RuleError, match="of kind normalization only"):
        lrpfast.propagate(LNRule(), lrpfast.Dense(np.eye(3)), x, x)
    with pytest.raises(CompositeError, match="no rule for its kinds"):
        lrpfast.explain(
            lrpfast.Sequential(Normalization((0,)), input_shape=(3,)), x,
            composite=lrpfast.Composite("none", (("dense", Epsilon()),)),
        )  # fmt: skip
