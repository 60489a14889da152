"""Ends of models: labels are cut to their scores, a final Sigmoid is cut off, two probabilities get two logits."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper
from onnx_models import Array, model_of, node, ones

import lrpfast
from lrpfast import Dense, ModelError, ReLU, Sequential, Sigmoid, Softmax, UnsupportedOperatorError

RNG = np.random.default_rng(11)
W = RNG.standard_normal((5, 3)).astype(np.float32)
V = RNG.standard_normal((5, 1)).astype(np.float32)
B = RNG.standard_normal(1).astype(np.float32)
X = RNG.standard_normal((6, 5)).astype(np.float32)
NAMES = np.array(["cat", "dog", "owl"], object)
DENSE = node("MatMul", "x w", "z")
ML = "ai.onnx.ml"


def ml(op_type: str, inputs: str, outputs: str, **attributes: Any) -> onnx.NodeProto:
    return node(op_type, inputs, outputs, domain=ML, **attributes)


def model(nodes: list[onnx.NodeProto], *outputs: str, **constants: Any) -> onnx.ModelProto:
    made = model_of(nodes, ("n", 5), {"w": W, "v": V, "b": B, **constants}, outputs=outputs)
    made.opset_import.append(helper.make_opsetid(ML, 3))
    for tensor in made.graph.initializer:
        if tensor.data_type == TensorProto.STRING:
            tensor.dims[:] = [len(tensor.string_data)]
    return made


ZIP = {"classlabels_strings": list(NAMES)}
LABELS: dict[str, tuple[list[onnx.NodeProto], tuple[str, ...], str, tuple[str, ...] | None]] = {
    # nodes behind the dense layer, outputs, the array that is explained, labels
    "ArgMax": ([node("ArgMax", "z", "y", axis=1)], ("y",), "z", None),
    "ArgMax of Softmax": (
        [node("Softmax", "z", "p"), node("ArgMax", "p", "i", axis=1, keepdims=0), node("Cast", "i", "y", to=6)],
        ("y",), "p", None,
    ),
    "TopK": ([node("TopK", "z two", "v i", axis=1)], ("v", "i"), "z", None),
    "Gather of names": (
        [node("ArgMax", "z", "i", axis=1, keepdims=0), node("Gather", "names i", "y")], ("y",), "z", tuple(NAMES),
    ),
    "label beside scores": (
        [node("Softmax", "z", "p"), node("ArgMax", "z", "i", axis=1), ml("ArrayFeatureExtractor", "names i", "f"),
         node("Reshape", "f minus", "y")],
        ("y", "p"), "p", tuple(NAMES),
    ),
    "ZipMap": (
        [node("Softmax", "z", "p"), ml("ZipMap", "p", "m", **ZIP), node("ArgMax", "p", "i", axis=1)], ("i", "m"),
        "p", tuple(NAMES),
    ),
    "LabelEncoder": (
        [node("ArgMax", "z", "i", axis=1),
         ml("LabelEncoder", "i", "y", keys_int64s=[2, 0, 1], values_strings=["owl", "cat", "dog"])],
        ("y",), "z", tuple(NAMES),
    ),
    "LabelEncoder, old": (
        [node("ArgMax", "z", "i", axis=1), ml("LabelEncoder", "i", "y", classes_strings=list(NAMES))], ("y",), "z",
        tuple(NAMES),
    ),
    "integers": ([ml("ZipMap", "z", "m", classlabels_int64s=[3, 5, 8])], ("m",), "z", ("3", "5", "8")),
    "more names than scores": ([ml("ZipMap", "z", "m", classlabels_int64s=[3, 5, 8, 9])], ("m",), "z", None),
    "threshold": (
        [node("Sigmoid", "z", "p"), node("Greater", "p half", "g"), node("Cast", "g", "y", to=7)], ("y", "p"), "p",
        None,
    ),
    "Binarizer": ([ml("Binarizer", "z", "y", threshold=0.5)], ("y",), "z", None),
    "Normalizer": (
        [node("Sigmoid", "z", "p"), ml("Normalizer", "p", "q", norm="L1"), ml("ZipMap", "q", "m", **ZIP)], ("m",),
        "p", tuple(NAMES),
    ),
}  # fmt: skip
CONSTANTS = {"two": [2], "names": NAMES, "minus": [-1], "half": 0.5}


@pytest.mark.parametrize(("nodes", "outputs", "scores", "labels"), LABELS.values(), ids=LABELS)
def test_labels_are_cut_to_their_scores(
    nodes: list[onnx.NodeProto], outputs: tuple[str, ...], scores: str, labels: tuple[str, ...] | None
) -> None:
    network = lrpfast.load(model([DENSE, *nodes], *outputs, **CONSTANTS))
    assert network.output == scores
    assert network.labels == labels
    # The same model that gives out the scores alone.
    needed = [DENSE, *(n for n in nodes if n.output[0] == scores)]
    session = onnxruntime.InferenceSession(model(needed, scores).SerializeToString())
    np.testing.assert_allclose(network.predict(X), session.run(None, {"x": X})[0], rtol=1e-5)
    assert network.notes and network.canonized().changes[: len(network.notes)] == network.notes
    explanation = lrpfast.explain(network, X, dtype=np.float64)
    np.testing.assert_array_equal(explanation.target, (X @ W).argmax(axis=1))
    assert explanation.conservation.worst < 1e-11


def test_notes_say_what_was_cut() -> None:
    nodes, outputs, *_ = LABELS["Normalizer"]
    assert lrpfast.load(model([DENSE, *nodes], *outputs)).notes == (
        "m: cut off at ZipMap; explained, and predicted, are its scores 'q'",
        "q: cut off, it divides by a norm; explained, and predicted, is 'p'",
    )
    plain = lrpfast.load(model([DENSE], "z"))
    assert plain.notes == () and plain.labels is None


def test_an_output_that_is_named_overrides() -> None:
    nodes = [DENSE, node("Softmax", "z", "p"), node("ArgMax", "p", "i", axis=1)]
    given = model(nodes, "i", "p")
    assert lrpfast.load(given).output == "p"
    assert lrpfast.load(given, output="z").output == "z"
    label = lrpfast.load(given, output="i")
    assert label.output == "p"
    assert label.notes == ("i: cut off at ArgMax; explained, and predicted, are its scores 'p'",)


AMBIGUOUS: dict[str, tuple[list[onnx.NodeProto], tuple[str, ...]]] = {
    "two scores": ([node("Softmax", "z", "p")], ("z", "p")),
    "scores of something else": ([node("MatMul", "x v", "r"), node("ArgMax", "z", "i", axis=1)], ("i", "r")),
    "labels of two arrays": (
        [node("MatMul", "x v", "r"), node("ArgMax", "z", "i", axis=1), node("ArgMax", "r", "k", axis=1)], ("i", "k"),
    ),
    "smallest": ([node("TopK", "z two", "v i", axis=1, largest=0)], ("v", "i")),
}  # fmt: skip


@pytest.mark.parametrize(("nodes", "outputs"), AMBIGUOUS.values(), ids=AMBIGUOUS)
def test_what_is_not_clear_is_asked_for(nodes: list[onnx.NodeProto], outputs: tuple[str, ...]) -> None:
    with pytest.raises(ModelError, match=rf"2 outputs, {', '.join(outputs)}; say which one is .* output=…"):
        lrpfast.load(model([DENSE, *nodes], *outputs, **CONSTANTS))


def test_an_embedding_is_no_label() -> None:
    """Rows of a table that only the input chooses."""
    table = model_of([node("Gather", "t x")], ("n", 4), {"t": ones(7)}, elem_type=TensorProto.INT64)
    assert lrpfast.load(table).notes == ()


def test_a_label_in_the_middle_is_refused() -> None:
    nodes = [DENSE, node("ArgMax", "z", "i", axis=1), node("Cast", "i", "f", to=1), node("Mul", "f f", "y")]
    with pytest.raises(UnsupportedOperatorError, match="ArgMax"):
        lrpfast.load(model(nodes, "y"))


def test_a_damaged_model_may_go_in_circles() -> None:
    with pytest.raises(ModelError):
        lrpfast.load(model([node("Identity", "a", "y"), node("Identity", "y", "a")], "y"))


# --- sigmoids ---


def sigmoid(z: Array) -> Array:
    return 1 / (1 + np.exp(-z))


@pytest.mark.parametrize("outputs", [1, 4])
def test_a_final_sigmoid_is_cut_off(backend: str, outputs: int) -> None:
    dense = Dense(RNG.standard_normal((outputs, 5)), RNG.standard_normal(outputs))
    network = Sequential(dense, Sigmoid(), input_shape=(5,))
    z = X.astype(np.float64) @ dense.weight.T + dense.bias
    np.testing.assert_allclose(network.predict(X, backend=backend, dtype=np.float64), sigmoid(z), rtol=1e-12)
    explanation = lrpfast.explain(network, X, 0, "epsilon_plus", dtype=np.float64, backend=backend)
    np.testing.assert_allclose(explanation.output, z, rtol=1e-12)
    np.testing.assert_allclose(explanation.probabilities, sigmoid(z), rtol=1e-12)
    # Relevance is that of the logit, negative where the logit is: inputs that raise it have a positive one.
    np.testing.assert_allclose(explanation.relevance, X * dense.weight[0], atol=1e-4)
    sure = lrpfast.explain(
        network, X, 0, "epsilon_plus", init="probability", dtype=np.float64, backend=backend
    )
    factor = (sigmoid(z) / z)[:, :1]
    np.testing.assert_allclose(sure.relevance, X * dense.weight[0] * factor, atol=1e-3 * np.abs(factor).max())


def two_logits(
    order: str = "n s", *rest: onnx.NodeProto, sub: str = "one s", **constants: Any
) -> onnx.ModelProto:
    nodes = [
        node("Relu", "x", "h"), node("MatMul", "h v", "m"), node("Add", "m b", "a"), node("Sigmoid", "a", "s"),
        node("Sub", sub, "n"), node("Concat", order, axis=1), *rest,
    ]  # fmt: skip
    return model(nodes, "y", **{"one": 1.0, **constants})


@pytest.mark.parametrize("order", ["n s", "s n"])
def test_two_probabilities_of_one_logit_get_two_logits(backend: str, order: str) -> None:
    given = two_logits(order)
    network = lrpfast.load(given)
    session = onnxruntime.InferenceSession(given.SerializeToString())
    np.testing.assert_allclose(
        network.predict(X, backend=backend), session.run(None, {"x": X})[0], rtol=1e-5, atol=1e-7
    )
    assert "relevance starts at the logits of both classes" in network.canonized().changes[-1]
    sign = 1 if order == "n s" else -1
    z = np.maximum(X, 0).astype(np.float64) @ V + B
    for target in (0, 1):
        explanation = lrpfast.explain(network, X, target, "epsilon_plus", dtype=np.float64, backend=backend)
        np.testing.assert_allclose(explanation.output, np.hstack([-sign * z, sign * z]), rtol=1e-6)
        np.testing.assert_allclose(explanation.probabilities, sigmoid(explanation.output), rtol=1e-12)
        factor = sign if target == 1 else -sign
        expected = factor * np.maximum(X, 0) * V[:, 0]
        scale = z / (z + 1e-6 * np.sign(z))
        np.testing.assert_allclose(explanation.relevance, expected * scale, atol=1e-7)
        assert explanation.conservation.worst < 1e-11


OTHERWISE = {
    "twice the same": two_logits("s s"),
    "two minus": two_logits(one=2.0),
    "minus one": two_logits(sub="s one"),
    "three": two_logits("n s s"),
}


@pytest.mark.parametrize("given", OTHERWISE.values(), ids=OTHERWISE)
def test_what_only_resembles_two_probabilities_stays(given: onnx.ModelProto) -> None:
    network = lrpfast.load(given)
    canonized = network.canonized()
    assert canonized.head is None and canonized.graph.nodes[-1].op.kinds[0] == "Concat"
    session = onnxruntime.InferenceSession(given.SerializeToString())
    np.testing.assert_allclose(network.predict(X), session.run(None, {"x": X})[0], rtol=1e-5, atol=1e-7)


def test_a_logit_that_is_read_elsewhere_stays_one() -> None:
    given = two_logits("n s", node("Add", "y a", "w2"))
    given.graph.output[0].name = "w2"
    assert lrpfast.load(given).canonized().head is None


def test_a_softmax_still_gives_probabilities() -> None:
    network = Sequential(Dense(W.T), ReLU(), Softmax(), input_shape=(5,))
    explanation = lrpfast.explain(network, X)
    np.testing.assert_allclose(explanation.probabilities, network.predict(X), rtol=1e-6)
