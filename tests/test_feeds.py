"""Networks with several inputs, with integer inputs, and with outputs to choose from."""

from __future__ import annotations

import pickle
import re
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnx_models import node

import lrpfast
from lrpfast import Explanation, InputError, ModelError

RNG = np.random.default_rng(5)
W = RNG.standard_normal((6, 5)).astype(np.float32)
V = RNG.standard_normal((4, 5)).astype(np.float32)
X = {"a": RNG.standard_normal((3, 6)).astype(np.float32), "b": RNG.random((3, 4)).astype(np.float32)}


def model(
    nodes: list[onnx.NodeProto], inputs: dict[str, tuple[int, list[Any]]], constants: dict[str, Any],
    outputs: tuple[str, ...] = ("y",),
) -> onnx.ModelProto:  # fmt: skip
    graph = helper.make_graph(
        nodes, "test",
        [helper.make_tensor_value_info(name, kind, shape) for name, (kind, shape) in inputs.items()],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in outputs],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
    )  # fmt: skip
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=10)


def two_inputs() -> onnx.ModelProto:
    nodes = [
        node("MatMul", "a w", "p"), node("Relu", "p", "h"), node("MatMul", "b v", "q"), node("Add", "h q", "y")
    ]  # fmt: skip
    inputs = {"a": (TensorProto.FLOAT, ["n", 6]), "b": (TensorProto.FLOAT, ["n", 4])}
    return model(nodes, inputs, {"w": W, "v": V}, ("y", "h"))


def test_several_inputs_share_the_relevance(backend: str) -> None:
    network = lrpfast.load(two_inputs(), output="y")
    assert {name: fact.shape for name, fact in network.inputs.items()} == {"a": (6,), "b": (4,)}
    expected = np.maximum(X["a"] @ W, 0) + X["b"] @ V
    for given in (X, list(X.values())):
        np.testing.assert_allclose(network.predict(given, backend=backend), expected, rtol=1e-5)
    explanation = lrpfast.explain(network, X, 2, "epsilon_plus", backend=backend, dtype=np.float64)
    # What each summand of output 2 contributes, and what each input to that.
    a, b = (x.astype(np.float64) for x in X.values())
    z = np.maximum(a @ W[:, 2], 0)
    share = z / np.where(z == 0, 1, z)
    np.testing.assert_allclose(explanation.relevance_of("a"), share[:, None] * a * W[:, 2], atol=1e-4)
    np.testing.assert_allclose(explanation.relevance_of("b"), b * V[:, 2], atol=1e-4)
    assert explanation.conservation.worst < 1e-11
    gradient = lrpfast.explain(network, X, 2, "gradient_x_input", backend=backend, dtype=np.float64)
    np.testing.assert_allclose(gradient.relevance_of("b"), b * V[:, 2], rtol=1e-6)


def test_an_input_without_influence_gets_nothing() -> None:
    network = lrpfast.load(two_inputs(), output="h")
    explanation = lrpfast.explain(network, X)
    assert np.abs(explanation.relevance_of("a")).sum() > 0
    np.testing.assert_array_equal(explanation.relevance_of("b"), np.zeros((3, 4)))


def test_explanations_by_input_are_saved(tmp_path: Path) -> None:
    explanation = lrpfast.explain(lrpfast.load(two_inputs(), output="y"), X)
    explanation.save(tmp_path / "e.npz")
    loaded = Explanation.load(tmp_path / "e.npz")
    for name in X:
        np.testing.assert_array_equal(loaded.relevance_of(name), explanation.relevance_of(name))
    assert len(loaded) == 3
    copied = pickle.loads(pickle.dumps(explanation))  # as processes hand it on
    np.testing.assert_array_equal(copied.relevance_of("b"), explanation.relevance_of("b"))
    with pytest.raises(InputError, match="expected one of a, b"):
        explanation.relevance_of()


def test_batches_in_pieces_are_the_same_by_input() -> None:
    explain = lrpfast.Explainer(lrpfast.load(two_inputs(), output="y"), dtype=np.float64)
    pieces = explain(X, max_memory=explain.memory_per_sample + 64)
    for name in X:
        np.testing.assert_allclose(pieces.relevance_of(name), explain(X).relevance_of(name), rtol=1e-9)


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"a": X["a"]}, "missing is b"),
        ({**X, "c": X["a"]}, r"x has arrays for ['a', 'b', 'c']; 'network' takes a (n, 6), b (n, 4)"),
        (X["a"], "has 2 inputs; give x as a mapping of name to array: a (n, 6), b (n, 4)"),
        ({"a": X["a"], "b": X["b"][:2]}, "different numbers of samples: {\"x['a']\": 3, \"x['b']\": 2}"),
        ({"a": X["a"], "b": X["b"][:, :3]}, "x['b'] has shape (3, 3); 'network' takes (n, 4)"),
        ({"a": X["a"][0], "b": X["b"]}, "pass x['a'][None]"),
    ],
)
def test_wrong_feeds(given: Any, says: str) -> None:
    network = lrpfast.load(two_inputs(), output="y")
    for call in (network.predict, lrpfast.Explainer(network)):
        with pytest.raises(InputError, match=re.escape(says)):
            call(given)


def test_an_array_inside_the_model_can_be_the_output() -> None:
    network = lrpfast.load(two_inputs(), output="p")
    np.testing.assert_allclose(network.predict(X), X["a"] @ W, rtol=1e-5)


# --- embeddings ---

TABLE = RNG.standard_normal((9, 5)).astype(np.float32)
U = RNG.standard_normal((20, 3)).astype(np.float32)
TOKENS = np.array([[0, 8, 3, -1], [4, 4, 1, 2]])


def tokens_model(kind: int = TensorProto.INT64) -> onnx.ModelProto:
    nodes = [node("Gather", "table tokens", "e"), node("Flatten", "e", "f"), node("MatMul", "f u")]
    return model(nodes, {"tokens": (kind, ["n", 4])}, {"table": TABLE, "u": U})


@pytest.mark.parametrize("kind", [TensorProto.INT64, TensorProto.INT32])
def test_a_token_receives_what_its_row_does(backend: str, kind: int) -> None:
    network = lrpfast.load(tokens_model(kind))
    ids = TOKENS.astype(helper.tensor_dtype_to_np_dtype(kind))
    session = onnxruntime.InferenceSession(tokens_model(kind).SerializeToString())
    np.testing.assert_allclose(
        network.predict(ids, backend=backend), session.run(None, {"tokens": ids})[0], rtol=1e-5
    )
    options: dict[str, Any] = {"composite": "epsilon_plus", "backend": backend, "dtype": np.float64}
    explanation = lrpfast.explain(network, ids, 1, record=["Gather_0"], **options)
    by_dimension = TABLE[ids].astype(np.float64) * U[:, 1].reshape(4, 5)
    np.testing.assert_allclose(explanation.layers["Gather_0"], by_dimension, atol=1e-4)
    np.testing.assert_allclose(explanation.relevance, by_dimension.sum(axis=-1), atol=1e-4)


@pytest.mark.parametrize(
    ("ids", "says"),
    [
        (TOKENS + 0.5, "holds 0.5; the model takes whole numbers"),
        (TOKENS + 1, "index 9 is out of range for an embedding of 9 rows"),
        (TOKENS - 9, "index -10 is out of range"),
        (TOKENS + 2**25, "holds 33554440; float32 holds whole numbers up to 16777216 exactly"),
    ],
)
def test_wrong_tokens(ids: Any, says: str) -> None:
    with pytest.raises(InputError, match=re.escape(says)):
        lrpfast.explain(lrpfast.load(tokens_model()), ids)


def test_unsigned_inputs_are_not_negative() -> None:
    graph = model([node("Cast", "x", to=1)], {"x": (TensorProto.UINT8, ["n", 3])}, {})
    network = lrpfast.load(graph)
    np.testing.assert_array_equal(network.predict(np.uint8([[1, 2, 255]])), [[1, 2, 255]])
    with pytest.raises(InputError, match=r"holds -1; .* takes numbers ≥ 0"):
        network.predict([[-1, 2, 3]])


def test_gradients_by_an_index_are_refused() -> None:
    with pytest.raises(
        lrpfast.CompositeError, match=r"Gather_0 \(Embedding\): Gradient\(\) has no derivative"
    ):
        lrpfast.Explainer(lrpfast.load(tokens_model()), "gradient")


@pytest.mark.parametrize(
    ("nodes", "says"),
    [
        ([node("Cast", "x", "f", to=1), node("Cast", "f", to=7)], "casts floats to int64, which rounds"),
        ([node("Div", "x two")], "computes with integers, which rounds"),
        ([node("Cast", "x", "f", to=1), node("Gather", "table f")], "computed as floating-point numbers"),
    ],
)
def test_integer_arithmetic_that_rounds_is_refused(nodes: list[onnx.NodeProto], says: str) -> None:
    graph = model(nodes, {"x": (TensorProto.INT64, ["n", 3])}, {"two": np.array(2), "table": TABLE})
    with pytest.raises(ModelError, match=says):
        lrpfast.load(graph)
