"""Element-wise operators: forward against ONNX's reference, derivatives against differences, signs, layouts, rules."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx.reference import ReferenceEvaluator
from onnx_models import Array, evaluate, model_of, node
from test_layouts import check_same
from test_ops import check_vjp, check_vjps

import lrpfast
from lrpfast import Conv2d, Network, Sequential
from lrpfast.errors import ModelError, UnsupportedOperatorError
from lrpfast.graph import Fact
from lrpfast.onnx_io import load_graph
from lrpfast.ops import (
    FUNCTIONS,
    Affine,
    Bound,
    Celu,
    Clip,
    Elementwise,
    Elu,
    Function,
    Gelu,
    HardSigmoid,
    Identity,
    LeakyRelu,
    LogSoftmax,
    Mask,
    Max,
    Min,
    Mul,
    Op,
    Pow,
    PRelu,
    Relu,
    Selu,
    Shrink,
    Sigmoid,
    Swish,
    Tanh,
    ThresholdedRelu,
    Where,
)
from lrpfast.ops.special import erf

onnxruntime.set_default_logger_severity(4)

RNG = np.random.default_rng(12)
SAMPLE = (3, 4)
C = RNG.normal(size=SAMPLE).astype(np.float32)
CHANNEL = RNG.normal(size=(3, 1)).astype(np.float32)
CONDITION = RNG.random(SAMPLE) < 0.5
NORMAL, POSITIVE, SMALL, LARGE = (-4.0, 4.0), (0.1, 3.0), (-0.95, 0.95), (1.1, 4.0)

# name: (operator, inputs besides x, attributes, range of x); "x" among the inputs says that x is not the first
FORMS: dict[str, tuple[str, list[Any], dict[str, Any], tuple[float, float]]] = {
    "Elu": ("Elu", [], {}, NORMAL),
    "Elu-alpha": ("Elu", [], {"alpha": 0.3}, NORMAL),
    "Selu": ("Selu", [], {}, NORMAL),
    "Selu-other": ("Selu", [], {"alpha": 2.0, "gamma": 0.5}, NORMAL),
    "Celu": ("Celu", [], {}, NORMAL),
    "Celu-alpha": ("Celu", [], {"alpha": 1.7}, NORMAL),
    "HardSigmoid": ("HardSigmoid", [], {}, NORMAL),
    "HardSigmoid-other": ("HardSigmoid", [], {"alpha": 1 / 6, "beta": 0.3}, NORMAL),
    "Gelu": ("Gelu", [], {}, NORMAL),
    "Gelu-none": ("Gelu", [], {"approximate": "none"}, NORMAL),
    "Gelu-tanh": ("Gelu", [], {"approximate": "tanh"}, NORMAL),
    "Swish": ("Swish", [], {}, NORMAL),
    "Swish-alpha": ("Swish", [], {"alpha": 1.702}, NORMAL),
    "ThresholdedRelu": ("ThresholdedRelu", [], {}, NORMAL),
    "ThresholdedRelu-alpha": ("ThresholdedRelu", [], {"alpha": -0.5}, NORMAL),
    "Shrink": ("Shrink", [], {}, NORMAL),
    "Shrink-soft": ("Shrink", [], {"lambd": 0.7, "bias": 0.4}, NORMAL),
    "Shrink-overlapping": ("Shrink", [], {"lambd": -0.7, "bias": 0.4}, NORMAL),
    "PRelu": ("PRelu", [CHANNEL], {}, NORMAL),
    "PRelu-elements": ("PRelu", [C], {}, NORMAL),
    "PRelu-one": ("PRelu", [np.float32([0.2])], {}, NORMAL),
    **{name: (name, [], {}, NORMAL) for name in FUNCTIONS},
    **{name: (name, [], {}, POSITIVE) for name in ("Log", "Sqrt", "Reciprocal")},
    **{name: (name, [], {}, SMALL) for name in ("Tan", "Asin", "Acos", "Atanh")},
    "Acosh": ("Acosh", [], {}, LARGE),
    "Neg": ("Neg", [], {}, NORMAL),
    "Pow": ("Pow", [np.float32(2)], {}, NORMAL),
    "Pow-integer": ("Pow", [np.int64(3)], {}, NORMAL),
    "Pow-zero": ("Pow", [np.float32(0)], {}, NORMAL),
    "Pow-root": ("Pow", [np.float32(0.5)], {}, POSITIVE),
    "Pow-elements": ("Pow", [C], {}, POSITIVE),
    "Max": ("Max", [np.float32(0)], {}, NORMAL),
    "Max-number": ("Max", [np.float32([0.5])], {}, NORMAL),
    "Max-array": ("Max", ["x", CHANNEL], {}, NORMAL),
    "Max-first": ("Max", [C, "x", CHANNEL], {}, NORMAL),
    "Max-one": ("Max", [], {}, NORMAL),
    "Min": ("Min", [np.float32(0.5)], {}, NORMAL),
    "Min-array": ("Min", [C[None]], {}, NORMAL),
    "Mean": ("Mean", [C, CHANNEL], {}, NORMAL),
    "Mean-one": ("Mean", [], {}, NORMAL),
    "Div-first": ("Div", [CHANNEL, "x"], {}, POSITIVE),
    "Where": ("Where", [CONDITION, "x", C], {}, NORMAL),
    "Where-second": ("Where", [CONDITION[:1], C, "x"], {}, NORMAL),
    "Where-infinite": ("Where", [C > 0, "x", np.where(C > 0, np.inf, C).astype(np.float32)], {}, NORMAL),
    "Where-batch-axis": ("Where", [CONDITION[None], "x", np.float32(0.5)], {}, NORMAL),
    "LogSoftmax": ("LogSoftmax", [], {}, NORMAL),
    "LogSoftmax-axis": ("LogSoftmax", [], {"axis": 1}, NORMAL),
}

NEWEST = onnx.defs.onnx_opset_version()
HISTORY: dict[str, list[int]] = {}
for _schema in onnx.defs.get_all_schemas_with_history():
    if not _schema.domain:
        HISTORY.setdefault(_schema.name, []).append(_schema.since_version)


KNOWN = {name: form for name, form in FORMS.items() if form[0] in HISTORY}  # to the installed onnx


def opsets(op_type: str) -> list[int]:
    """An opset for each version of an operator that lrpfast can meet: the first that has it."""
    versions = sorted(HISTORY[op_type])
    reached = [v for v in versions if v <= 7][-1:]
    return [*(max(v, 7) for v in reached), *(v for v in versions if v > 7)]


VERSIONS = [
    pytest.param(form, opset, id=f"{name}-{opset}")
    for name, form in KNOWN.items()
    for opset in opsets(form[0])
]


def model(form: Any, opset: int) -> onnx.ModelProto:
    op_type, inputs, attributes, _ = form
    inputs = inputs if any(isinstance(c, str) for c in inputs) else ["x", *inputs]
    constants = {f"c{k}": c for k, c in enumerate(inputs) if not isinstance(c, str)}
    names = " ".join(c if isinstance(c, str) else f"c{k}" for k, c in enumerate(inputs))
    return model_of([node(op_type, names, **attributes)], ("n", *SAMPLE), constants, opset=opset)


def numbers(form: Any, dtype: Any, seed: int = 0) -> Array:
    return np.random.default_rng(seed).uniform(*form[3], (2, *SAMPLE)).astype(dtype)


def by_onnxruntime(of: onnx.ModelProto, x: Array) -> Array:
    session = onnxruntime.InferenceSession(of.SerializeToString(), providers=["CPUExecutionProvider"])
    found: Array = session.run(None, {"x": x})[0]
    return found


@pytest.mark.parametrize(("form", "opset"), VERSIONS)
def test_forward_is_the_reference(form: Any, opset: int) -> None:
    """As ONNX's own evaluator has it, in every version of the operator."""
    graph = load_graph(model(form, opset))
    x = numbers(form, np.float32)
    if form[0] == "LogSoftmax" and opset < 13:  # the evaluator does not know that it flattened then
        expected = by_onnxruntime(model(form, opset), x)
    else:
        expected = ReferenceEvaluator(model(form, opset)).run(None, {"x": x})[0]
    y = evaluate(graph, x)
    assert y.dtype == np.float32
    np.testing.assert_allclose(y, expected, rtol=2e-6, atol=2e-6, strict=True)


_ERF = np.vectorize(math.erf, otypes=[float])
EXACT: dict[str, Any] = {  # where the evaluator rounds to float32 on its way
    "Erf": _ERF,
    "Gelu": lambda x: x / 2 * (1 + _ERF(x / math.sqrt(2))),
    "Gelu-none": lambda x: x / 2 * (1 + _ERF(x / math.sqrt(2))),
    "Gelu-tanh": lambda x: x / 2 * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))),
    "HardSwish": lambda x: x * np.clip(x / 6 + 0.5, 0, 1),
}


@pytest.mark.parametrize("name", KNOWN)
def test_forward_in_double_precision(name: str) -> None:
    op_type, inputs, attributes, span = FORMS[name]
    doubled = [c.astype(np.float64) if getattr(c, "dtype", None) == np.float32 else c for c in inputs]
    double = model((op_type, doubled, attributes, span), opsets(op_type)[-1])
    x = numbers(FORMS[name], np.float64)
    expected = EXACT[name](x) if name in EXACT else ReferenceEvaluator(double).run(None, {"x": x})[0]
    y = evaluate(load_graph(double), x)
    assert y.dtype == np.float64
    np.testing.assert_allclose(y, expected, rtol=1e-12, atol=1e-14, strict=True)


@pytest.mark.parametrize("form", KNOWN.values(), ids=KNOWN)
def test_derivative_is_that_of_the_forward(form: Any) -> None:
    check_vjps(load_graph(model(form, opsets(form[0])[-1])), numbers(form, np.float64, seed=1))


IN_ONNXRUNTIME = {name: form for name, form in KNOWN.items() if opsets(form[0])[0] <= 21}


@pytest.mark.parametrize("form", IN_ONNXRUNTIME.values(), ids=IN_ONNXRUNTIME)
def test_networks_predict_as_onnxruntime(form: Any, backend: str) -> None:
    x = numbers(form, np.float32)
    y = lrpfast.load(model(form, 21)).predict(x, backend=backend)
    np.testing.assert_allclose(y, by_onnxruntime(model(form, 21), x), rtol=2e-5, atol=2e-6)


def test_erf_is_accurate() -> None:
    x = np.concatenate([np.linspace(-7, 7, 20001), np.logspace(-300, 3, 500), [1, np.nextafter(1, 0), 0]])
    expected = _ERF(x)
    np.testing.assert_allclose(erf(x), expected, rtol=4e-16, atol=0)
    single = x.astype(np.float32)
    expected = _ERF(single.astype(np.float64))
    np.testing.assert_allclose(erf(single), expected, rtol=4e-7, atol=1e-45)
    for dtype in (np.float32, np.float64):
        found = erf(np.array([np.inf, -np.inf, np.nan, -0.0], dtype))
        np.testing.assert_array_equal(found, np.array([1, -1, np.nan, -0.0], dtype), strict=True)
        assert np.signbit(found[3])


# --- what is known of signs, and extremes ---

OPS: dict[str, Elementwise] = {
    str(op): op
    for op in (
        Relu(), LeakyRelu(), LeakyRelu(-0.5), LeakyRelu(0.0), Clip(), Clip(0.0, 6.0), Clip(-1.0, 1.0),
        Clip(0.25, 0.5), Clip(-2.0, -1.0), Clip(high=0.0), ThresholdedRelu(), ThresholdedRelu(-1.0),
        ThresholdedRelu(0.0),
        Shrink(), Shrink(1.0, 0.5), Shrink(0.5, 1.0), Shrink(1.0, 1.0), Shrink(1.0, -1.0),
        HardSigmoid(), HardSigmoid(-0.5, 2.0),
        Sigmoid(), Tanh(), Elu(), Elu(-0.5), Elu(0.0), Selu(), Selu(1.0, -1.0), Selu(-1.0, 1.0),
        Selu(-1.0, -1.0), Celu(), Celu(0.25), Celu(-2.0), Swish(), Swish(-2.0), Swish(0.0), Gelu(), Gelu("tanh"),
        *map(Function, FUNCTIONS),
    )
}  # fmt: skip
OPS |= {
    f"{type(op).__name__}{k}": op
    for k, op in enumerate(
        (
            *(Pow(np.float64(p)) for p in (2, 3, 0, 1, 0.5, -1, -2)), Pow(np.float32([2, 4])), Pow(np.float32([2, 3])),
            *(PRelu(np.array(slopes)) for slopes in ([0.5], [0.5, 0.25], [-0.5, 0], [-0.5, 0.5])),
            *(Bound(np.array(b), upper) for b in ([0.5, 1], [-1, 1], [0, 0]) for upper in (False, True)),
        )
    )
}  # fmt: skip

EXTREMES = np.concatenate(
    [np.linspace(-8, 8, 1601), np.logspace(-30, 4, 300), -np.logspace(-30, 4, 300), [0.0, -0.0, 1, -1]]
)
PAIRS = np.repeat(EXTREMES[:, None], 2, axis=1)  # samples of shape (2,)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("op", OPS.values(), ids=OPS)
def test_signs_are_known_exactly_and_nothing_warns(op: Elementwise, dtype: Any) -> None:
    """A claim holds on all numbers, and where there is none some output is negative."""
    for nonnegative in (False, True):
        x = (np.abs(PAIRS) if nonnegative else PAIRS).astype(dtype)
        fact = op.infer(Fact((2,), nonnegative=nonnegative))
        y = op.forward(x)
        assert y.dtype == dtype and fact.shape == (2,)
        with np.errstate(invalid="ignore"):
            assert fact.nonnegative == (not (y < 0).any())
            if op.is_gate:
                assert fact.nonnegative and y.max() <= 1
        (back,) = op.vjp((x,), y, np.ones_like(x))
        assert back.dtype == dtype and back.shape == x.shape
        # Numbers in, numbers out: but for poles, what overflows, and what is outside of a function's domain.
        limited = {
            "Log",
            "Sqrt",
            "Reciprocal",
            "Asin",
            "Acos",
            "Acosh",
            "Atanh",
            "Exp",
            "Sinh",
            "Cosh",
            "Pow",
            "Celu",
            "Swish",
        }
        if op.kinds[0] not in limited:
            assert np.isfinite(y).all() and np.isfinite(back).all()


def test_integers_stay_integers_where_they_do() -> None:
    whole = Fact((2,), integer=True)
    for op in (Relu(), Clip(0.0, 6.0), Clip(), Function("Abs"), Pow(np.float64(2)), Bound(np.array([1, 2]))):
        assert op.infer(whole).integer
        assert not op.infer(Fact((2,))).integer
    for op in (Clip(0.5, 6.0), Sigmoid(), Function("Sqrt"), Pow(np.float64(-1)), Bound(np.array([0.5]))):
        assert not op.infer(whole).integer


def test_parameters_are_checked() -> None:
    for make, says in (
        (lambda: Elu(math.nan), "alpha is nan"), (lambda: Selu(1.0, math.inf), "gamma is inf"),
        (lambda: Celu(0.0), "alpha is 0; expected another"), (lambda: Gelu("erf"), "expected 'none' or 'tanh'"),
        (lambda: Function("Gelu"), "no function is called 'Gelu'"), (lambda: Shrink(bias=math.inf), "bias is inf"),
        (lambda: HardSigmoid(beta=math.nan), "beta is nan"),
        (lambda: PRelu(np.array([np.inf])), "slope.*holds NaN or inf"),
        (lambda: PRelu(np.ones(3)).infer(Fact((2,))), r"slope has shape \(3,\), which does not broadcast"),
        (lambda: Pow(np.ones(3)).infer(Fact((2,))), "exponent has shape"),
        (lambda: Bound(np.ones(3)).infer(Fact((2,))), "bound has shape"),
        (lambda: Where(np.ones(3)).infer(Fact((2,)), Fact((2,))), "mask has shape"),
        (lambda: Mask(np.ones(2), np.ones(3)).infer(Fact((2,))), "fill has shape"),
        (lambda: LogSoftmax(2).infer(Fact((2,))), "axis is 2"),
    ):  # fmt: skip
        with pytest.raises(ModelError, match=says):
            make()


# --- derivatives at kinks, powers of zero ---


def test_derivatives_at_kinks() -> None:
    zero = np.zeros((1, 1))
    for op, at, slope in (
        (Elu(0.5), 0, 1), (Selu(2.0, 3.0), 0, 3), (Celu(0.5), 0, 1), (LeakyRelu(0.5), 0, 1),
        (PRelu(np.array([0.5])), 0, 1),
        (ThresholdedRelu(1.0), 1, 0), (Shrink(1.0), 1, 0), (Shrink(1.0), -1, 0), (HardSigmoid(0.25), 2, 0),
        (HardSigmoid(0.25), -2, 0), (Function("HardSwish"), 3, 1), (Function("HardSwish"), -3, 0),
        (Function("Abs"), 0, 0), (Bound(np.array([1.0])), 1, 0), (Pow(np.float64(0)), 0, 0), (Pow(np.float64(1)), 0, 1),
        (Pow(np.float64(2)), 0, 0),
    ):  # fmt: skip
        x = zero + at
        assert op.vjp((x,), op.forward(x), zero + 1)[0] == slope, (op, at)


def test_powers_of_elements() -> None:
    op = Pow(np.array([0.0, 1.0, 2.0, -1.0]))
    x = np.array([[0.0, 0.0, 0.0, 2.0], [-3.0, -3.0, -3.0, -2.0]])
    y = op.forward(x)
    np.testing.assert_array_equal(y, [[1, 0, 0, 0.5], [1, -3, 9, -0.5]])
    np.testing.assert_array_equal(op.vjp((x,), y, np.ones_like(x))[0], [[0, 1, 0, -0.25], [0, 1, -6, -0.25]])


# --- Max and Min ---


@pytest.mark.parametrize(("op", "choose"), [(Max(), np.max), (Min(), np.min)])
def test_the_first_winner_takes_all(op: Op, choose: Any, backend: str) -> None:
    x = tuple(RNG.integers(-2, 3, (3, 5, 4)).astype(np.float64) for _ in range(3))  # with many ties
    r = RNG.normal(size=(3, 5, 4))
    stack = np.stack(x)
    z = choose(stack, axis=0)
    np.testing.assert_array_equal(op.forward(*x), z)
    first = (stack == z).argmax(axis=0)
    expected = [np.where(first == k, r, 0) for k in range(3)]
    np.testing.assert_array_equal(op.vjp(x, z, r), expected)
    for rule in (lrpfast.WinnerTakeAll(), lrpfast.Gradient()):
        found = lrpfast.propagate(rule, op, x, r, backend=backend, dtype=np.float64)
        np.testing.assert_array_equal(found, expected)
    check_vjp(op, tuple(RNG.normal(size=(2, 5)) for _ in range(3)))
    with pytest.raises(lrpfast.ModelError, match="different shapes"):
        op.infer(Fact((2,)), Fact((3,)))


def test_what_is_known_of_extremes() -> None:
    plus, any_, whole = Fact((2,), nonnegative=True), Fact((2,)), Fact((2,), integer=True)
    assert Max().infer(plus, any_).nonnegative and not Max().infer(any_, any_).nonnegative
    assert Min().infer(plus, plus).nonnegative and not Min().infer(plus, any_).nonnegative
    assert Max().infer(whole, whole).integer and not Min().infer(whole, any_).integer


def read(*nodes: onnx.NodeProto, **constants: Any) -> list[Op]:
    return [n.op for n in load_graph(model_of(nodes, ("n", 3, 4), constants, opset=NEWEST)).nodes]


def test_extremes_become_what_kernels_have() -> None:
    assert read(node("Max", "x c"), c=0.0) == [Relu()]
    assert read(node("Max", "c x"), c=0.5) == [Clip(low=0.5)]
    assert read(node("Min", "x c d"), c=6.0, d=[7.0]) == [Clip(high=6.0)]
    assert read(node("Max", "x")) == [Identity()]
    assert read(node("Mean", "x")) == [Identity()]
    assert read(node("PRelu", "x c"), c=[0.5]) == [LeakyRelu(0.5)]
    assert [type(op) for op in read(node("Max", "x c"), c=CHANNEL)] == [Bound]
    assert [type(op) for op in read(node("Neg", "x"))] == [Affine]
    assert [op.kinds[0] for op in read(node("Div", "c x"), c=2.0)] == ["Reciprocal", "Affine"]


BRANCHES = [node("Tanh", "x", "a"), node("Sigmoid", "x", "b"), node("ReduceMean", "x i", "m", keepdims=1)]


@pytest.mark.parametrize(
    "last",
    [
        node("Max", "a b"), node("Min", "a b x"), node("Max", "a m c"), node("Max", "m a"), node("Max", "a a"),
        node("Min", "a d b"), node("Mean", "a b m"), node("Mean", "a d b c"), node("Where", "k a b"),
        node("Where", "k m b"), node("Where", "k a m"), node("SwiGLU", "a x"), node("SwiGLU", "a x", alpha=0.5),
    ],
    ids=lambda n: f"{n.op_type}-{'-'.join(n.input)}",
)  # fmt: skip
def test_several_activations(last: onnx.NodeProto, backend: str) -> None:
    """Against ONNX's evaluator; gradients against differences; relevance is conserved."""
    constants = {"c": CHANNEL, "d": np.float32(0.1), "k": CONDITION, "i": [2]}
    made = model_of([*BRANCHES, last], ("n", *SAMPLE), constants, opset=NEWEST)
    network = lrpfast.load(made)
    x = RNG.normal(size=(2, *SAMPLE))
    expected = ReferenceEvaluator(made).run(None, {"x": x.astype(np.float32)})[0]
    np.testing.assert_allclose(network.predict(x, backend=backend), expected, rtol=1e-5, atol=1e-6)
    check_gradient(network, x, backend)
    if last.op_type != "Mean":  # a constant summand keeps its share
        explanation = lrpfast.explain(
            network, x, np.ones(SAMPLE), "epsilon_plus", backend=backend, dtype=np.float64
        )
        assert explanation.conservation.worst < 1e-11
        np.testing.assert_allclose(explanation.relevance.sum(), explanation.output.sum(), rtol=1e-4)


def check_gradient(network: Network, x: Array, backend: str) -> None:
    """By the composite "gradient", against differences in a random direction."""
    options: dict[str, Any] = {"backend": backend, "dtype": np.float64}
    rng, step = np.random.default_rng(0), 1e-6
    target = rng.normal(size=network.output_shape)
    found = lrpfast.explain(network, x, target, "gradient", **options).relevance
    direction = rng.normal(size=x.shape)
    ends = [(target * network.predict(x + k * step * direction, **options)).sum() for k in (1, -1)]
    scale = np.abs(found * direction).sum()
    assert abs((found * direction).sum() - (ends[0] - ends[1]) / (2 * step)) < 1e-6 * scale


# --- Where ---


def test_a_mask_hands_back_what_it_lets_through(backend: str) -> None:
    op = Mask(CONDITION, C)
    x, r = RNG.normal(size=(2, *SAMPLE)), RNG.normal(size=(2, *SAMPLE))
    (found,) = (lrpfast.propagate(lrpfast.Route(), op, x, r, backend=backend, dtype=np.float64),)
    np.testing.assert_array_equal(found, np.where(CONDITION, r, 0))
    assert op.infer(Fact(SAMPLE, nonnegative=True)).nonnegative == (C.min() >= 0)
    assert Mask(CONDITION, np.abs(C)).infer(Fact(SAMPLE, nonnegative=True)).nonnegative
    assert not Mask(CONDITION, np.abs(C)).infer(Fact(SAMPLE)).nonnegative


def test_relevance_of_what_fills_a_mask_is_a_constants(backend: str) -> None:
    nodes = [node("Where", "k x c", "h"), node("Flatten", "h", "f"), node("Gemm", "f w")]
    constants = {"k": CONDITION, "c": C, "w": RNG.normal(size=(12, 3)).astype(np.float32)}
    network = lrpfast.load(model_of(nodes, ("n", *SAMPLE), constants))
    x = RNG.normal(size=(2, *SAMPLE))
    found = lrpfast.explain(network, x, 1, "epsilon_plus", backend=backend, dtype=np.float64, record="all")
    (row,) = [row for row in found.conservation if row.node == "Where_0"]
    lost = (found.layers["Where_0"] * ~CONDITION).sum(axis=(1, 2))
    np.testing.assert_allclose(row.bias, lost.sum(), rtol=1e-9)
    np.testing.assert_array_equal(found.relevance[:, ~CONDITION], 0)
    assert found.conservation.worst < 1e-11


# --- whole networks, and layouts ---

BEFORE = {
    **dict.fromkeys(("Log", "Sqrt", "Reciprocal", "Pow"), "Abs"),
    **dict.fromkeys(("Asin", "Acos", "Atanh"), "Softsign"),
    "Acosh": "Cosh",
}
"""What brings numbers into a function's domain; all but Cosh leave zeros as they are."""

IMAGES = RNG.uniform(0.1, 1, (2, 2, 5, 4))


def between_convolutions(op: Op, channels: int) -> Network:
    """`op` behind a convolution, whose blocked output has lanes of padding unless channels fill them."""
    rng = np.random.default_rng(channels)
    before = BEFORE.get(op.kinds[0])
    w, b = rng.normal(size=(channels, 2, 3, 3)) / 4, rng.normal(size=channels) / 4
    if before:  # poles and kinks are not to be near
        w, b = abs(w), abs(b) + 0.2
    return Sequential(
        Conv2d(w, b, padding=1),
        *([Function(before)] if before else []),
        op,
        Conv2d(rng.normal(size=(3, channels, 3, 3)), rng.normal(size=3)),
        input_shape=(2, 5, 4),
    )


SPATIAL: list[Op] = [
    *map(Function, FUNCTIONS), Elu(), Selu(), Celu(0.5), Gelu(), Gelu("tanh"), Swish(), HardSigmoid(), Shrink(),
    ThresholdedRelu(0.1), Sigmoid(), Tanh(), Clip(0.25, 1.0), Pow(np.float64(0.5)), Pow(np.full((1, 1), 2.0)),
    PRelu(np.float64(0.2)), PRelu(RNG.normal(size=(16, 1, 1))), Bound(RNG.normal(size=(16, 1, 1))),
    Mask(np.eye(5, 4), 0.5), LogSoftmax(0),
]  # fmt: skip


def of_channels(op: Any, channels: int) -> Any:
    """`op` with so many of its parameters."""
    for name in ("slope", "bound"):
        if np.ndim(getattr(op, name, 0)) == 3:
            return dataclasses.replace(op, **{name: getattr(op, name)[:channels]})
    return op


@pytest.mark.parametrize("op", SPATIAL, ids=lambda op: str(op)[:40])
def test_any_layout(op: Op) -> None:
    """Nothing leaks into the lanes beyond the last channel, nor out of them."""
    network = between_convolutions(of_channels(op, 5), 5)
    for composite in ("epsilon_plus", "gradient"):
        check_same(network.canonized(np.float64).graph, lrpfast.composite(composite), IMAGES)


@pytest.mark.parametrize("channels", [5, 16])
@pytest.mark.parametrize("op", SPATIAL, ids=lambda op: str(op)[:40])
def test_gradients_of_networks(op: Op, channels: int, backend: str) -> None:
    check_gradient(between_convolutions(of_channels(op, channels), channels), IMAGES, backend)


def test_extremes_work_on_any_layout() -> None:
    for channels, op in ((5, Max()), (16, Min())):
        build = lrpfast.Builder((2, 5, 4))
        a, b = (build(Conv2d(RNG.normal(size=(channels, 2, 3, 3))), build.input) for _ in range(2))
        network = build.network(build(Conv2d(RNG.normal(size=(3, channels, 2, 2))), build(op, a, b)))
        for composite in ("epsilon_plus", "gradient"):
            check_same(network.graph, lrpfast.composite(composite), IMAGES - 0.5)


@pytest.mark.parametrize(
    "op", [op for op in SPATIAL if "activation" in op.kinds], ids=lambda op: str(op)[:40]
)
def test_relevance_passes(op: Any, backend: str) -> None:
    x, r = RNG.uniform(1, 2, (2, 16, 5, 4)), RNG.normal(size=(2, 16, 5, 4))
    np.testing.assert_array_equal(
        lrpfast.propagate(lrpfast.Pass(), op, x, r, backend=backend, dtype=np.float64), r
    )
    assert "Pass()" in {
        str(rule) for s, rule in lrpfast.composite("epsilon_plus").rules if s.selects_kind(op)
    }


@pytest.mark.parametrize(("fill", "signal"), [(0.0, 0), (1.0, 0), (-0.5, None), (1.5, None)])
def test_a_masked_gate_is_one_if_its_constants_are_bounded(fill: float, signal: int | None) -> None:
    gate = [node("Sigmoid", "x", "g"), node("Where", "k g c", "m"), node("Mul", "x m")]
    constants = {"k": CONDITION, "c": np.float32(fill)}
    network = lrpfast.load(model_of(gate, ("n", *SAMPLE), constants))
    assert network.canonized().graph.nodes[-1].op == Mul(signal)


def test_guided_backprop_knows_the_rectifiers() -> None:
    x = np.array([[-1.0, 0.5, 2.0]])
    for op, expected in ((PRelu(np.array([0.5, 0.5, 0.5])), [0, 1, 1]), (ThresholdedRelu(1.0), [0, 0, 1])):
        found = lrpfast.explain(
            Sequential(op, input_shape=(3,)), x, np.ones(3) * [-1, 1, 1], "guided_backprop"
        )
        np.testing.assert_array_equal(found.relevance, [expected])


# --- LogSoftmax at the end ---


@pytest.mark.parametrize(("opset", "axis"), [(7, 1), (11, 1), (13, -1), (21, 1)])
def test_relevance_starts_before_a_final_log_softmax(backend: str, opset: int, axis: int) -> None:
    w = RNG.normal(size=(4, 3)).astype(np.float32)
    made = model_of(
        [node("MatMul", "x w", "h"), node("LogSoftmax", "h", axis=axis)], ("n", 4), {"w": w}, opset=opset
    )
    network = lrpfast.load(made)
    x = RNG.normal(size=(2, 4)).astype(np.float32)
    assert isinstance(network.canonized().head, LogSoftmax)
    np.testing.assert_allclose(network.predict(x, backend=backend), by_onnxruntime(made, x), rtol=1e-5)
    explanation = lrpfast.explain(
        network, x, 2, lrpfast.Composite("z", [("dense", lrpfast.Z())]), backend=backend
    )
    np.testing.assert_allclose(explanation.output, x @ w, atol=1e-5)
    np.testing.assert_allclose(explanation.relevance, x * w[:, 2], atol=1e-5)


# --- what is refused ---


@pytest.mark.parametrize(
    ("nodes", "says"),
    [
        ([node("Floor", "x")], r"\(Floor\): it is piecewise constant"),
        ([node("Sign", "x")], r"\(Sign\): it is piecewise constant"),
        ([node("Hardmax", "x")], "name that: output=…"),
        ([node("Mod", "x c", fmod=1)], "remainders"),
        ([node("Round", "x", "z"), node("Ceil", "z", "y")], r"(?s)Round\): it is piecewise.*Ceil\): it is piecewise"),
        ([node("Pow", "x x")], "exponent is computed"),
        ([node("Pow", "c x")], "exponent is computed"),
        ([node("SwiGLU", "x c")], "input 1 .'c'. is a constant"),
        ([node("Where", "x x c")], "input 0 .'x'. is computed"),
        ([node("Where", "k x i")], "NaN or infinity in the place"),
        ([node("Max", "x f")], "shapes"),
        ([node("Max", "x l")], "a value for each sample"),
        ([node("PRelu", "x l")], "a value for each sample"),
        ([node("Where", "k5 x c")], r"\(5,\), which does not broadcast"),
    ],
    ids=lambda value: value[0].op_type if isinstance(value, list) else "",
)  # fmt: skip
def test_refused(nodes: list[onnx.NodeProto], says: str) -> None:
    constants = {
        "c": 2.0,
        "k": CONDITION,
        "i": np.float32(np.inf),
        "l": np.ones((2, 3, 4), np.float32),
        "k5": np.ones(5, bool),
    }
    made = model_of(
        [node("Flatten", "x", "f"), *nodes], ("n", *SAMPLE), constants, outputs=(nodes[-1].output[0],)
    )
    with pytest.raises(UnsupportedOperatorError, match=says):
        load_graph(made)


@pytest.mark.parametrize(
    "last", [node("Shrink", "x"), node("Pow", "x c"), node("PRelu", "x d"), node("Div", "d x")]
)
def test_integers_that_would_round_are_refused(last: onnx.NodeProto) -> None:
    constants = {"c": 0.5, "d": np.int64([2, 3, 4])}
    made = model_of([last, node("Cast", "y", "z", to=1)], ("n", 3), constants, elem_type=7, outputs=("z",))
    with pytest.raises(UnsupportedOperatorError, match="computes with integers, which rounds"):
        load_graph(made)


# --- layers ---


def test_layers_have_the_parameters_that_torch_gives_them() -> None:
    assert lrpfast.ELU(0.5) == Elu(0.5) and lrpfast.CELU(0.5) == Celu(0.5) and lrpfast.SELU() == Selu()
    assert (
        lrpfast.GELU() == Gelu("none")
        and lrpfast.GELU("tanh") == Gelu("tanh")
        and lrpfast.SiLU() == Swish(1.0)
    )
    assert lrpfast.Hardsigmoid() == HardSigmoid(1 / 6, 0.5) and lrpfast.LogSoftmax is LogSoftmax
    for layer, name in (
        ("Mish", "Mish"),
        ("Softplus", "Softplus"),
        ("Softsign", "Softsign"),
        ("Hardswish", "HardSwish"),
    ):
        assert getattr(lrpfast, layer)() == Function(name)
    x = RNG.normal(size=(2, 3, 4, 4))
    slopes = [0.5, -1.0, 2.0]
    network = Sequential(lrpfast.PReLU(slopes), input_shape=(3, 4, 4))
    expected = np.where(x < 0, x * np.reshape(slopes, (3, 1, 1)), x)
    np.testing.assert_allclose(network.predict(x, dtype=np.float64), expected, rtol=1e-15)
    (one,) = Sequential(lrpfast.PReLU(0.5), input_shape=(3, 4, 4)).graph.nodes
    assert one.op == LeakyRelu(0.5)
    with pytest.raises(ModelError, match=r"PReLU got a weight of shape \(3, 1, 1\)"):
        Sequential(lrpfast.PReLU(np.ones((3, 1, 1))), input_shape=(3, 4, 4))


def test_functions_are_selected_by_their_names() -> None:
    rules = [("Mish", lrpfast.Gradient()), ("activation", lrpfast.Pass()), ("linear", lrpfast.Epsilon())]
    network = Sequential(lrpfast.Mish(), lrpfast.Softplus(), lrpfast.Mish(), input_shape=(3,))
    found = lrpfast.explain(network, np.ones((1, 3)), 0, lrpfast.Composite("mine", rules))
    assert [*found.manifest["rules"].values()] == ["Gradient()", "Pass()", "Gradient()"]
