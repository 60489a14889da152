"""Layers in pieces: found in all their forms, the same function afterwards, and nothing else is taken for one."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx.reference import ReferenceEvaluator
from onnx_models import Array, evaluate
from programs import model

import lrpfast
from lrpfast.canonize import Canonized, canonize
from lrpfast.onnx_io import load_graph
from lrpfast.ops import (
    Clip,
    Embedding,
    Gelu,
    Gemm,
    LeakyRelu,
    LpNormalization,
    Normalization,
    Swish,
)

onnxruntime.set_default_logger_severity(4)
RNG = np.random.default_rng(12)


def normal(*shape: int) -> Array:
    return RNG.standard_normal(shape)


class Pattern(NamedTuple):
    """A program, and the operators that are to be left of it; a last one with ! is the head that is cut off."""

    program: str
    left: str
    shape: tuple[int, ...] = (4, 6)
    constants: dict[str, Any] | None = None

    def model(self, program: str = "", **how: Any) -> onnx.ModelProto:
        return model(program or self.program, self.shape, self.constants, **how)


def kinds(canonized: Canonized) -> str:
    names = [node.op.kinds[0] for node in canonized.graph.nodes]
    head = [] if canonized.head is None else [canonized.head.kinds[0] + "!"]
    return " ".join(names + head)


def values(canonized: Canonized, x: Array) -> Array:
    y = evaluate(canonized.graph, x) if canonized.graph.nodes else x
    return y if canonized.head is None else canonized.head.forward(y)


def samples(shape: tuple[int, ...], integers: bool = False) -> Array:
    """Samples of several sizes: where ε counts, and where it does not."""
    if integers:
        return RNG.integers(0, 5, (6, *shape)).astype(np.float64)
    sizes = np.array([3.0, 1.0, 0.1, 1e-2, 1e-3, 1.0]).reshape(-1, *[1] * len(shape))
    return normal(6, *shape) * sizes + sizes * normal(6, *[1] * len(shape))


def check(made: onnx.ModelProto, tolerance: float = 1e-12) -> Canonized:
    """That canonisation leaves the function as it is, and what ONNX's reference computes."""
    graph = load_graph(made)
    canonized = canonize(graph, np.float64)
    (fact,) = graph.inputs.values()
    x = samples(fact.shape, fact.integer)
    before, after = evaluate(graph, x), values(canonized, x)
    scale = np.abs(before).max(axis=tuple(range(1, before.ndim)), keepdims=True) + 1e-300
    assert (np.abs(after - before) / scale).max() < tolerance
    given = x.astype(np.int64) if fact.integer else x
    (reference,) = ReferenceEvaluator(made).run(None, {"x": given})
    assert (np.abs(after - reference) / scale).max() < 2e-6  # its error function is one of float32
    return canonized


ERF = "e = Erf(a); p = Add(e, 1.0); "
ROOT2, WIDTH = 1.4142135623730951, 0.7978845608028654
LAYER = "m = ReduceMean(x, axes=[-1]); d = Sub(x, m); q = {square}; v = ReduceMean(q, axes=[-1]); e = Add(v, 1e-5); "
DEVIATION = LAYER.format(square="Pow(d, 2.0)") + "s = Sqrt(e); "

SCALARS: dict[str, Pattern] = {
    "gelu": Pattern(f"a = Div(x, {ROOT2}); {ERF} m = Mul(x, p); y = Mul(m, 0.5)", "Gelu"),
    "gelu, half first": Pattern(f"h = Mul(0.5, x); a = Mul(x, {1 / ROOT2}); {ERF} y = Mul(p, h)", "Gelu"),
    "gelu, half inside": Pattern(f"a = Mul({1 / ROOT2}, x); {ERF} q = Mul(p, 0.5); y = Mul(x, q)", "Gelu"),
    "gelu, by a quotient": Pattern(f"a = Div(x, {ROOT2}); {ERF} m = Mul(x, p); y = Div(m, 2.0)", "Gelu"),
    "gelu tanh": Pattern(
        f"c = Pow(x, 3.0); k = Mul(c, 0.044715); s = Add(x, k); u = Mul(s, {WIDTH}); t = Tanh(u); p = Add(1.0, t); "
        "h = Mul(x, 0.5); y = Mul(h, p)", "Gelu",
    ),
    "gelu tanh, products": Pattern(
        f"m = Mul(0.044715, x); n = Mul(x, m); k = Mul(x, n); a = Add(x, k); u = Mul({WIDTH}, a); h = Tanh(u); "
        "k1 = Add(1.0, h); l = Mul(0.5, k1); y = Mul(x, l)", "Gelu",
    ),
    "gelu tanh, squares": Pattern(
        f"q = Mul(x, x); k = Mul(q, 0.044715); o = Add(k, 1.0); a = Mul(x, o); u = Mul(a, {WIDTH}); h = Tanh(u); "
        "g = Mul(h, 0.5); f = Add(g, 0.5); y = Mul(f, x)", "Gelu",
    ),
    "silu": Pattern("s = Sigmoid(x); y = Mul(x, s)", "Swish"),
    "silu, turned": Pattern("s = Sigmoid(x); y = Mul(s, x)", "Swish"),
    "silu, by a quotient": Pattern("n = Neg(x); e = Exp(n); p = Add(e, 1.0); y = Div(x, p)", "Swish"),
    "swish": Pattern("b = Mul(x, 1.702); s = Sigmoid(b); y = Mul(x, s)", "Swish"),
    "hard swish": Pattern("a = Add(x, 3.0); c = Clip(a, 0.0, 6.0); m = Mul(x, c); y = Div(m, 6.0)", "HardSwish"),
    "hard swish, gate": Pattern("h = HardSigmoid(x, alpha=0.16666667, beta=0.5); y = Mul(x, h)", "HardSwish"),
    "hard swish, half": Pattern(
        "a = Add(x, 3.0); b = Max(a, 0.0); c = Min(b, 6.0); m = Mul(c, 0.16666666666666666); y = Mul(x, m)",
        "HardSwish",
    ),
    "hard sigmoid": Pattern("a = Add(x, 3.0); c = Clip(a, 0.0, 6.0); y = Div(c, 6.0)", "HardSigmoid"),
    "mish": Pattern("p = Softplus(x); t = Tanh(p); y = Mul(x, t)", "Mish"),
    "mish, to the last": Pattern(
        "e = Exp(x); o = Add(1.0, e); p = Log(o); t = Tanh(p); y = Mul(t, x)", "Mish"
    ),
    "softplus": Pattern("e = Exp(x); o = Add(e, 1.0); y = Log(o)", "Softplus"),
    "sigmoid": Pattern("n = Neg(x); e = Exp(n); o = Add(1.0, e); y = Reciprocal(o)", "Sigmoid!"),
    "tanh": Pattern("a = Mul(x, 2.0); s = Sigmoid(a); d = Mul(s, 2.0); y = Sub(d, 1.0)", "Tanh"),
    "relu6": Pattern("m = Max(x, 0.0); y = Min(m, 6.0)", "Clip"),
    "relu6, turned": Pattern("m = Min(6.0, x); y = Max(0.0, m)", "Clip"),
    "leaky relu": Pattern("a = Mul(x, 0.125); y = Max(x, a)", "LeakyRelu"),
    "softsign": Pattern("a = Abs(x); o = Add(a, 1.0); y = Div(x, o)", "Softsign"),
}  # fmt: skip

LAYERS: dict[str, Pattern] = {
    "torch": Pattern(
        DEVIATION + "z = Div(d, s); g = Mul(z, gamma); y = Add(g, beta)", "LayerNormalization Affine",
        constants={"gamma": normal(6), "beta": normal(6)},
    ),
    "torch, no affine": Pattern(DEVIATION + "y = Div(d, s)", "LayerNormalization"),
    "product": Pattern(DEVIATION + "r = Reciprocal(s); y = Mul(r, d)", "LayerNormalization"),
    "power": Pattern(LAYER.format(square="Mul(d, d)") + "r = Pow(e, -0.5); y = Mul(d, r)", "LayerNormalization"),
    "its own difference": Pattern(
        "m = ReduceMean(x, axes=[2]); d = Sub(x, m); k = ReduceMean(x, axes=[2]); f = Sub(x, k); q = Mul(f, f); "
        "v = ReduceMean(q, axes=[2]); e = Add(1e-5, v); s = Sqrt(e); y = Div(d, s)", "LayerNormalization",
    ),
    "two axes": Pattern(
        "m = ReduceMean(x, axes=[1, 2]); d = Sub(x, m); q = Pow(d, 2.0); v = ReduceMean(q, axes=[1, 2]); "
        "e = Add(v, 1e-5); s = Sqrt(e); y = Div(d, s)", "LayerNormalization",
    ),
    "gamma first": Pattern(
        DEVIATION + "r = Reciprocal(s); g = Mul(r, gamma); z = Mul(d, g); y = Add(z, beta)",
        "LayerNormalization Affine", constants={"gamma": normal(1, 1, 6), "beta": normal(6)},
    ),
    "keras": Pattern(
        DEVIATION + "r = Reciprocal(s); g = Mul(r, gamma); a = Mul(x, g); b = Mul(m, g); c = Sub(beta, b); "
        "y = Add(a, c)", "LayerNormalization Affine", constants={"gamma": normal(6), "beta": normal(6)},
    ),
    "flax": Pattern(
        "s = ReduceSum(x, [1], keepdims=0); q = Mul(x, x); t = ReduceSum(q, [1], keepdims=0); e2 = Mul(t, 0.25); "
        "mu = Mul(s, 0.25); mm = Mul(mu, mu); v = Sub(e2, mm); v0 = Max(0.0, v); v1 = Reshape(v0, [-1, 1, 6]); "
        "v3 = Add(v1, 1e-6); r = Sqrt(v3); i = Reciprocal(r); g = Mul(i, gamma); mu1 = Reshape(mu, [-1, 1, 6]); "
        "d = Sub(x, mu1); y0 = Mul(d, g); y = Add(y0, beta)", "Normalization Affine",
        constants={"gamma": normal(1, 4, 1), "beta": normal(1, 4, 1)},
    ),
    "difference of means": Pattern(
        "m = ReduceMean(x, axes=[2]); q = Pow(x, 2.0); n = ReduceMean(q, axes=[2]); k = Pow(m, 2.0); v = Sub(n, k); "
        "e = Add(v, 1e-3); s = Sqrt(e); d = Sub(x, m); y = Div(d, s)", "LayerNormalization",
    ),
    "instance": Pattern(
        "m = GlobalAveragePool(x); d = Sub(x, m); q = Mul(d, d); v = GlobalAveragePool(q); e = Add(v, 1e-5); "
        "s = Sqrt(e); y = Div(d, s)", "LayerNormalization", (3, 4, 5),
    ),
    "channels": Pattern(
        "m = ReduceMean(x, axes=[1]); d = Sub(x, m); q = Pow(d, 2.0); v = ReduceMean(q, axes=[1]); "
        "e = Add(v, 1e-6); s = Sqrt(e); z = Div(d, s); g = Mul(z, gamma); y = Add(g, beta)",
        "Normalization Affine", (3, 4, 5), {"gamma": normal(3, 1, 1), "beta": normal(3, 1, 1)},
    ),
    "epsilon outside": Pattern(
        "m = ReduceMean(x, axes=[2]); d = Sub(x, m); q = Mul(d, d); v = ReduceMean(q, axes=[2]); s = Sqrt(v); "
        "o = Add(s, 0.01); y = Div(d, o)", "LayerNormalization",
    ),
    "unbiased": Pattern(
        "m = ReduceMean(x, axes=[2]); d = Sub(x, m); q = Mul(d, d); t = ReduceSum(q, [2]); v = Div(t, 5.0); "
        "s = Sqrt(v); o = Add(s, 1e-6); y = Div(d, o)", "LayerNormalization Affine",
    ),
    "rms": Pattern(
        "q = Pow(x, 2.0); v = ReduceMean(q, axes=[-1]); e = Add(v, 1e-6); s = Sqrt(e); r = Div(1.0, s); "
        "z = Mul(x, r); y = Mul(gamma, z)", "RMSNormalization Affine", constants={"gamma": normal(6)},
    ),
    "rms, by a quotient": Pattern(
        "q = Mul(x, x); v = ReduceMean(q, axes=[-1]); e = Add(v, 1e-6); s = Sqrt(e); y = Div(x, s)",
        "RMSNormalization",
    ),
    "l2": Pattern("n = ReduceL2(x, axes=[2]); y = Div(x, n)", "LpNormalization"),
    "l2 with a floor": Pattern("n = ReduceL2(x, axes=[2]); c = Clip(n, 0.5); y = Div(x, c)", "LpNormalization"),
    "l2, keras": Pattern(
        "q = Mul(x, x); t = ReduceSum(q, [2]); c = Max(t, 0.25); s = Sqrt(c); r = Reciprocal(s); y = Mul(x, r)",
        "LpNormalization",
    ),
    "l1": Pattern("n = ReduceL1(x, axes=[1]); c = Max(n, 1e-3); y = Div(x, c)", "LpNormalization"),
    "softmax": Pattern(
        "m = ReduceMax(x, axes=[2]); d = Sub(x, m); e = Exp(d); t = ReduceSum(e, [2]); y = Div(e, t)", "Softmax"
    ),
    "softmax, head": Pattern(
        "m = ReduceMax(x, axes=[1], keepdims=0); i = Max(-1e999, m); r = Reshape(i, [-1, 1]); d = Sub(x, r); "
        "e = Exp(d); t = ReduceSum(e, [1], keepdims=0); u = Reshape(t, [-1, 1]); y = Div(e, u)", "Softmax!", (7,),
    ),
    "softmax, no maximum": Pattern("e = Exp(x); t = ReduceSum(e, [1]); r = Reciprocal(t); y = Mul(r, e)", "Softmax!"),
    "log softmax": Pattern(
        "m = ReduceMax(x, axes=[2]); d = Sub(x, m); e = Exp(d); t = ReduceSum(e, [2]); l = Log(t); y = Sub(d, l)",
        "LogSoftmax",
    ),
    "log softmax, a final one": Pattern("n = ReduceLogSumExp(x, axes=[1]); y = Sub(x, n)", "LogSoftmax!", (7,)),
    "log of softmax": Pattern("s = Softmax(x, axis=2); y = Log(s)", "LogSoftmax"),
}  # fmt: skip

JOINED: dict[str, Pattern] = {
    "group": Pattern(
        "r = Reshape(x, [0, 2, -1]); i = InstanceNormalization(r, one, zero); b = Reshape(i, [0, 4, 3, 5]); "
        "g = Mul(b, gamma); y = Add(g, beta)", "GroupNormalization Affine", (4, 3, 5),
        {"one": np.ones(2), "zero": np.zeros(2), "gamma": normal(4, 1, 1), "beta": normal(4, 1, 1)},
    ),
    "group, scaled": Pattern(
        "r = Reshape(x, [0, 2, -1]); i = InstanceNormalization(r, a, b); y = Reshape(i, [0, 4, 15])",
        "GroupNormalization Affine", (4, 15), {"a": normal(2), "b": normal(2)},
    ),
    "layer 2d": Pattern(
        "t = Transpose(x, perm=[0, 2, 3, 1]); l = LayerNormalization(t, gamma, beta, epsilon=1e-6); "
        "y = Transpose(l, perm=[0, 3, 1, 2])", "LayerNormalization Affine", (3, 4, 5),
        {"gamma": normal(3), "beta": normal(3)},
    ),
    "layer 2d, two axes": Pattern(
        "t = Transpose(x, perm=[0, 3, 1, 2]); l = LayerNormalization(t, gamma, axis=-2); "
        "y = Transpose(l, perm=[0, 2, 3, 1])", "LayerNormalization Affine", (3, 4, 5), {"gamma": normal(3, 4)},
    ),
}  # fmt: skip

INDICES: dict[str, Pattern] = {
    "equal": Pattern(
        "u = Unsqueeze(x, [2]); e = Equal(u, range); c = Cast(e, to=11); m = MatMul(c, w); y = Add(m, b)",
        "Embedding Affine", (6,), {"range": np.arange(5), "w": normal(5, 3), "b": normal(1, 1, 3)},
    ),
    "equal, turned": Pattern(
        "u = Reshape(x, [-1, 6, 1]); e = Equal(range, u); c = Cast(e, to=11); y = MatMul(c, w)",
        "Embedding", (6,), {"range": np.arange(4).reshape(1, 1, 4), "w": normal(4, 3)},
    ),
    "one-hot": Pattern(
        "h = OneHot(x, 5, on); y = MatMul(h, w)", "Embedding", (6,), {"on": np.array([0.0, 1]), "w": normal(5, 3)}
    ),
    "one-hot, axis and values": Pattern(
        "y = OneHot(x, 5, on, axis=1)", "OneHot Affine Transpose", (6,), {"on": np.array([-1.0, 2])}
    ),
}  # fmt: skip

ALL = {**SCALARS, **LAYERS, **JOINED}


@pytest.mark.parametrize("name", ALL)
def test_found(name: str) -> None:
    pattern = ALL[name]
    tolerance = 1e-7 if "alpha=" in pattern.program else 1e-12  # attributes are of float32
    assert kinds(check(pattern.model(), tolerance)) == pattern.left


@pytest.mark.parametrize("name", SCALARS.keys() | LAYERS.keys())
def test_constants_may_be_rounded_to_float32(name: str) -> None:
    pattern = ALL[name]
    assert kinds(check(pattern.model(rounded=True), 2e-6)) == pattern.left


@pytest.mark.parametrize("name", ALL)
def test_in_single_precision(name: str) -> None:
    """As exported: float32 throughout, held to onnxruntime."""
    made = ALL[name].model(dtype=np.float32)
    network = lrpfast.load(made)
    x = (normal(3, *ALL[name].shape) * 2).astype(np.float32)
    session = onnxruntime.InferenceSession(made.SerializeToString(), providers=["CPUExecutionProvider"])
    np.testing.assert_allclose(network.predict(x), session.run(None, {"x": x})[0], rtol=2e-5, atol=2e-5)
    assert kinds(network.canonized()) == ALL[name].left
    assert network.canonization_error(dtype=np.float64) < 1e-6


@pytest.mark.parametrize("name", ALL)
def test_pieces_that_others_read_too_stay(name: str) -> None:
    """Each value on the way, read once more: then x is read by no layer, and the function is still the same."""
    pattern = ALL[name]
    shape = load_graph(pattern.model()).facts
    lines = pattern.program.split("; ")
    for line in lines[:-1]:
        value = line.split(" = ")[0].strip()
        if shape.get(value) is None or shape[value].shape != shape["y"].shape:
            continue
        program = (
            "; ".join(lines).replace("y = ", "last = ") + f"; other = Softsign({value}); y = Add(last, other)"
        )
        canonized = check(pattern.model(program), 1e-7)
        root = f"{lines[-1].split(' = ')[1].split('(')[0]}_{len(lines) - 1}"
        whole = [n for n in canonized.graph.nodes if n.name.startswith(root) and n.inputs == ("x",)]
        assert (
            value in {n.output for n in canonized.graph.nodes} and not whole
        )  # d / √mean(d²) is a layer, too


def test_names_and_changes() -> None:
    """The new node has the name of the last piece, and a line says what was found."""
    canonized = check(SCALARS["gelu"].model())
    assert [(node.name, node.inputs, node.output) for node in canonized.graph.nodes] == [
        ("Mul_4", ("x",), "y")
    ]
    assert canonized.changes == ("Mul_4: found to be Gelu, in 5 pieces",)
    canonized = check(LAYERS["keras"].model())
    assert [node.name for node in canonized.graph.nodes] == ["Add_11/LayerNormalization", "Add_11"]


def test_parameters() -> None:
    """Axes, ε and the like are those that were written."""

    def first(of: str | Pattern) -> Any:
        return check((ALL[of] if isinstance(of, str) else of).model()).graph.nodes[0].op

    assert first("gelu") == Gelu() and first("gelu tanh") == Gelu("tanh")
    assert first("silu") == Swish() and first("swish") == Swish(1.702)
    assert first("relu6") == Clip(0, 6) and first("leaky relu") == LeakyRelu(0.125)
    assert first("hard sigmoid").beta == 0.5
    assert first("torch") == Normalization((1,), 1e-5, source="LayerNormalization")
    assert first("two axes") == Normalization((0, 1), 1e-5, source="LayerNormalization")
    assert first("flax") == Normalization((0,), 1e-6)
    assert first("rms") == Normalization((1,), 1e-6, centred=False, source="RMSNormalization")
    assert first("epsilon outside") == Normalization((1,), 0.01, outside=True, source="LayerNormalization")
    assert first("l2 with a floor").floor == pytest.approx(0.5, rel=1e-15)
    assert first("l2, keras").floor == pytest.approx(0.5, rel=1e-15)
    assert first("l1") == LpNormalization((0,), 1, first("l1").floor)
    assert first("l1").floor == pytest.approx(1e-3, rel=1e-15)
    assert first("group").groups == 2 and first("group").axes == (0, 1, 2)
    assert first("layer 2d").axes == (0,)


# --- what is no such layer ---

GATE = "t = Transpose(x, perm=[0, 2, 1]); "
NEAR: dict[str, Pattern] = {
    "gelu, 1/√2": Pattern(f"a = Mul(x, 0.7075); {ERF} m = Mul(x, p); y = Mul(m, 0.5)", ""),
    "gelu, one": Pattern(f"a = Div(x, {ROOT2}); e = Erf(a); p = Add(e, 1.001); m = Mul(x, p); y = Mul(m, 0.5)", ""),
    "gelu, half": Pattern(f"a = Div(x, {ROOT2}); {ERF} m = Mul(x, p); y = Mul(m, 0.501)", ""),
    "gelu, another factor": Pattern(
        f"a = Div(x, {ROOT2}); {ERF} r = Relu(x); m = Mul(r, p); y = Mul(m, 0.5)", ""
    ),
    "gelu tanh, cubic": Pattern(SCALARS["gelu tanh"].program.replace("0.044715", "0.0448"), ""),
    "gelu tanh, width": Pattern(SCALARS["gelu tanh"].program.replace(str(WIDTH), "0.798"), ""),
    "gelu tanh, square": Pattern(SCALARS["gelu tanh"].program.replace("3.0", "2.0"), ""),
    "silu, shifted": Pattern("s = Sigmoid(x); h = Add(s, 0.001); y = Mul(x, h)", ""),
    "silu of another": Pattern("r = Relu(x); s = Sigmoid(r); y = Mul(x, s)", ""),
    "hard swish": Pattern("a = Add(x, 3.0); c = Clip(a, 0.0, 6.01); m = Mul(x, c); y = Div(m, 6.0)", ""),
    "mish": Pattern("b = Mul(x, 1.01); p = Softplus(b); t = Tanh(p); y = Mul(x, t)", ""),
    "softplus": Pattern("e = Exp(x); o = Add(e, 1.001); y = Log(o)", ""),
    "relu6 that is cut far out": Pattern("s = Sigmoid(x); m = Mul(x, s); y = Clip(m, -1000.0, 100000.0)", "", (3,)),
    "not all of the mean": Pattern(
        "m = ReduceMean(x, axes=[2]); f = Mul(m, 0.999); d = Sub(x, f); q = Mul(d, d); v = ReduceMean(q, axes=[2]); "
        "e = Add(v, 1e-5); s = Sqrt(e); g = Sub(x, m); y = Div(g, s)", "",
    ),
    "one statistic too many": Pattern(
        "m = ReduceMean(x, axes=[2]); k = ReduceMax(x, axes=[2]); a = Add(x, m); b = Add(a, k); q = Mul(x, x); "
        "v = ReduceMean(q, axes=[2]); e = Add(v, 1e-5); s = Sqrt(e); y = Div(b, s)", "",
    ),
    "no square": Pattern(LAYER.format(square="Pow(d, 4.0)") + "s = Sqrt(e); y = Div(d, s)", ""),
    "no root": Pattern(LAYER.format(square="Mul(d, d)") + "y = Div(d, e)", ""),
    "means turned": Pattern(
        "m = ReduceMean(x, axes=[1], keepdims=0); r = Reshape(m, [-1, 5, 1]); d = Sub(x, r); q = Mul(d, d); "
        "v = ReduceMean(q, axes=[2]); e = Add(v, 1e-5); s = Sqrt(e); y = Mul(x, s)", "", (5, 5),
    ),
    "variances turned": Pattern(
        "m = ReduceMean(x, axes=[2]); d = Sub(x, m); q = Mul(d, d); v = ReduceMean(q, axes=[2], keepdims=0); "
        "e = Add(v, 1e-5); s = Sqrt(e); r = Reshape(s, [-1, 1, 5]); y = Mul(d, r)", "", (5, 5),
    ),
    "another numerator": Pattern(DEVIATION + "r = Relu(d); y = Div(r, s)", ""),
    "epsilon below zero": Pattern(DEVIATION.replace("1e-5", "-1e-9") + "y = Div(d, s)", ""),
    "softmax over another axis": Pattern("e = Exp(x); t = ReduceSum(e, [1]); f = Add(t, 0.001); y = Div(e, f)", ""),
    "softmax of two": Pattern("e = Exp(x); t = ReduceSum(e, [1, 2]); y = Div(e, t)", ""),
    "softmax, maximum once": Pattern(
        "m = ReduceMax(x, axes=[2]); d = Sub(x, m); e = Exp(d); f = Exp(x); t = ReduceSum(f, [2]); y = Div(e, t)", ""
    ),
    "softmax, twice": Pattern("e = Exp(x); t = ReduceSum(e, [2]); u = Mul(t, 1.001); y = Div(e, u)", ""),
    "log softmax": Pattern("e = Exp(x); t = ReduceSum(e, [2]); l = Log(t); k = Mul(l, 1.001); y = Sub(x, k)", ""),
    "l2 of another": Pattern("r = Relu(x); n = ReduceL2(r, axes=[2]); y = Mul(x, n)", ""),
}  # fmt: skip


@pytest.mark.parametrize("name", NEAR)
def test_near_misses(name: str) -> None:
    canonized = check(NEAR[name].model())
    last = canonized.graph.nodes[-1]
    assert not any(change.startswith(f"{last.name}: found") for change in canonized.changes)


def test_a_part_may_be_a_layer() -> None:
    """`d / √mean(d²)`, whatever d is: here with a mean over another axis."""
    made = model(
        "m = ReduceMean(x, axes=[1]); d = Sub(x, m); q = Mul(d, d); v = ReduceMean(q, axes=[2]); e = Add(v, 1e-5); "
        "s = Sqrt(e); y = Div(d, s)", (4, 6),
    )  # fmt: skip
    last = check(made).graph.nodes[-1]
    assert last.op == Normalization((1,), 1e-5, centred=False, source="RMSNormalization")


def test_a_function_of_two_arrays_is_none() -> None:
    made = model(GATE + "s = Sigmoid(t); y = Mul(x, s)", (3, 3))
    assert kinds(check(made)) == "Sigmoid Transpose Mul"


def test_values_that_are_put_out_stay() -> None:
    """The end of the network in the middle of a layer."""
    for name in ("silu", "torch, no affine", "softmax"):
        made = ALL[name].model()
        inner = ALL[name].program.split("; ")[-2].split(" = ")[0]
        graph = load_graph(made, output=inner)
        assert not any("found" in change for change in canonize(graph, np.float64).changes)


# --- indices ---


@pytest.mark.parametrize("name", INDICES)
def test_one_hot(name: str) -> None:
    pattern = INDICES[name]
    canonized = check(pattern.model(integers=True))
    found = [k for k in kinds(canonized).split() if k != "Reshape"]
    assert " ".join(found) == pattern.left


def test_indices_from_outside_have_rows_of_zeros() -> None:
    x = np.array([[0, 3, -1, 7, -6, 4]], np.float64)
    for name, right in (
        ("equal, turned", [0, 3, None, None, None, None]),
        ("one-hot", [0, 3, 4, None, None, 4]),
    ):
        pattern = INDICES[name]
        assert pattern.constants is not None
        w = pattern.constants["w"]
        graph = load_graph(pattern.model(integers=True))
        (embedding,) = [n.op for n in canonize(graph, np.float64).graph.nodes if isinstance(n.op, Embedding)]
        rows = np.array([0 * w[0] if k is None else w[k] for k in right])
        np.testing.assert_array_equal(embedding.forward(x)[0], rows)
        np.testing.assert_allclose(evaluate(graph, x)[0], rows)


def test_relevance_of_indices(backend: str) -> None:
    """An index receives what its row does; a one-hot vector that stays hands back what all of it has."""
    network = lrpfast.load(
        model(
            "h = OneHot(x, 5, on); f = Flatten(h); y = MatMul(f, w)", (6,),
            {"on": np.array([0.0, 1]), "w": normal(30, 3)}, integers=True,
        )
    )  # fmt: skip
    x = samples((6,), integers=True)
    options: dict[str, Any] = {"backend": backend, "dtype": np.float64, "on_blowup": "ignore"}
    explanation = lrpfast.explain(network, x, 1, "epsilon_plus", **options)
    w = network.graph.nodes[-1].op
    assert isinstance(w, Gemm)
    chosen = w.weight[1].reshape(6, 5)[np.arange(6), x.astype(int)]
    np.testing.assert_allclose(explanation.relevance, chosen, rtol=1e-4)
    assert explanation.conservation.worst < 1e-11
    with pytest.raises(lrpfast.CompositeError, match="no derivative by an index"):
        lrpfast.explain(network, x, 1, "gradient", backend=backend)


@pytest.mark.parametrize(
    ("program", "constants"),
    [
        ("u = Unsqueeze(x, [2]); e = Equal(u, range); y = Cast(e, to=11)", {"range": np.arange(1, 5)}),
        ("u = Unsqueeze(x, [2]); e = Equal(u, range); y = Cast(e, to=11)", {"range": np.array([0, 2, 1])}),
        ("e = Equal(x, 3); y = Cast(e, to=11)", {}),
    ],
)
def test_other_comparisons_are_refused(program: str, constants: dict[str, Any]) -> None:
    with pytest.raises(
        lrpfast.UnsupportedOperatorError, match="only indices and the range of all they can be"
    ):
        load_graph(model(program, (6,), constants, integers=True))


# --- what else exporters do ---


def test_biases_behind_a_layer_are_folded() -> None:
    """Behind a squeezed or turned convolution, and behind MatMul."""
    conv = "u = Unsqueeze(x, [3]); c = Conv(u, w, kernel_shape=[3, 1]); s = Squeeze(c, [3]); "
    constants = {"w": normal(5, 4, 3, 1), "b": normal(1, 5, 1), "last": normal(5)}
    squeezed = model(conv + "y = Add(s, b)", (4, 6), constants)
    assert kinds(check(squeezed)) == "Reshape Conv Reshape"
    turned = model(
        conv + "t = Transpose(s, perm=[0, 2, 1]); g = Mul(t, last); y = Add(g, last)", (4, 6), constants
    )
    assert kinds(check(turned)) == "Reshape Conv Reshape Transpose"
    once = model(
        "c = Conv(x, w, kernel_shape=[3, 1]); t = Transpose(c, perm=[0, 3, 2, 1]); y = Add(t, last)",
        (4, 6, 2),
        constants,
    )
    assert kinds(check(once)) == "Conv Transpose"
    dense = model(
        "m = MatMul(x, w); g = Mul(m, b); y = Add(g, b)", (4, 6), {"w": normal(6, 3), "b": normal(3)}
    )
    assert kinds(check(dense)) == "Gemm"
    several = model(
        "m = MatMul(x, w); r = Reshape(m, [0, 2, 6]); y = Add(r, b)",
        (4, 6),
        {"w": normal(6, 3), "b": normal(6)},
    )
    assert kinds(check(several)) == "Gemm Reshape Affine"


def test_batch_normalization_by_hand_is_folded() -> None:
    made = model(
        "c = Conv(x, w); m = Mul(c, g); a = Add(m, b); y = Relu(a)", (3, 5, 5),
        {"w": normal(4, 3, 3, 3), "g": normal(1, 4, 1, 1), "b": normal(4, 1, 1)},
    )  # fmt: skip
    assert kinds(check(made)) == "Conv Relu"


def test_operators_that_do_nothing_are_dropped() -> None:
    made = model(
        "a = Reshape(x, [0, 4, 6]); b = Expand(a, [1, 4, 1]); c = Slice(b, [0], [99], [1]); d = Mul(c, 1.0); "
        "e = Transpose(d, perm=[0, 1, 2]); f = Max(e, -1e999); g = Add(f, 0.0); y = Relu(g)", (4, 6),
    )  # fmt: skip
    assert kinds(check(made)) == "Relu"


def test_constants_larger_than_what_they_meet() -> None:
    """An array of one number a row meets one of a number a column."""
    for op in ("Add", "Sub", "Mul", "Div", "Max"):
        made = model(f"m = ReduceMean(x, axes=[1]); y = {op}(m, c)", (4, 6), {"c": normal(4, 1)})
        check(made)
        check(model(f"m = ReduceMean(x, axes=[1]); y = {op}(c, m)", (4, 6), {"c": normal(1, 4, 1)}), 1e-11)


def test_patterns_between_layers_are_explained(backend: str) -> None:
    """A network of them: the ledger closes, and the pieces have the rules of the whole."""
    made = model(
        "h = MatMul(x, w); " + DEVIATION.replace("(x", "(h") + "z = Div(d, s); g = Mul(z, gamma); "
        f"b = Add(g, gamma); a = Div(b, {ROOT2}); q2 = Erf(a); p = Add(q2, 1.0); o = Mul(b, p); f = Mul(o, 0.5); "
        "l = MatMul(f, k); r = ReduceMean(l, axes=[1], keepdims=0); m2 = ReduceMax(r, axes=[1]); d2 = Sub(r, m2); "
        "e2 = Exp(d2); t2 = ReduceSum(e2, [1]); y = Div(e2, t2)", (4, 5),
        {"w": normal(5, 6), "gamma": normal(6), "k": normal(6, 3)},
    )  # fmt: skip
    network = lrpfast.load(made)
    assert "LayerNormalization" in kinds(network.canonized()) and "Gelu" in kinds(network.canonized())
    x = normal(3, 4, 5)
    options: dict[str, Any] = {"backend": backend, "dtype": np.float64, "on_blowup": "ignore"}
    explanation = lrpfast.explain(network, x, composite="epsilon_plus", **options)
    assert explanation.conservation.worst < 1e-11
    given = set(explanation.manifest["rules"].values())
    assert "SignalTakesAll()" not in given and "Halves()" not in given
    np.testing.assert_allclose(network.predict(x, dtype=np.float64).sum(axis=1), 1, rtol=1e-12)
