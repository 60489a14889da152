"""Graphs in nodes, and weights and modules that are used twice."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnx_models import evaluate, model_of, node

import lrpfast
from lrpfast import ModelError, UnsupportedOperatorError
from lrpfast.onnx_io import load_graph

RNG = np.random.default_rng(4)
W = RNG.standard_normal((4, 4)).astype(np.float32)
X = RNG.standard_normal((3, 4)).astype(np.float32)


def graph(nodes: list[onnx.NodeProto], output: str, **constants: Any) -> onnx.GraphProto:
    tensors = [
        numpy_helper.from_array(np.asarray(value, np.float32), name) for name, value in constants.items()
    ]
    return helper.make_graph(nodes, "branch", [], [helper.make_tensor_value_info(output, 1, None)], tensors)


THEN = graph([node("MatMul", "h k", "a"), node("Relu", "a", "r")], "r", k=W)
ELSE = graph([node("Tanh", "h", "a")], "a")


def choice(then: Any = THEN, otherwise: Any = ELSE, condition: str = "c") -> onnx.NodeProto:
    return node("If", condition, "i", then_branch=then, else_branch=otherwise)


def model(*nodes: onnx.NodeProto, features: int = 4, **constants: Any) -> onnx.ModelProto:
    given = [node("MatMul", "x w", "h"), *nodes, node("Tanh", "i", "y")]
    return model_of(given, ("n", features), {"w": W[:features], "one": 1, **constants})


NESTED = graph([choice(), node("Add", "i k", "b")], "b", k=np.ones(4))
READ: dict[str, onnx.ModelProto] = {
    "then": model(choice(), c=np.array(True)),
    "nested": model(choice(NESTED), c=np.array(True)),
    "twice": model(
        choice(), node("If", "c", "j", then_branch=THEN, else_branch=ELSE), node("Add", "i j", "k"),
        node("Sigmoid", "k", "z"), c=np.array(True),
    ),
    "an array from outside": model(choice(graph([node("Identity", "h", "a")], "a")), c=np.array(True)),
    "as torch exports squeeze": model(
        node("Unsqueeze", "h one", "u"), node("Shape", "u", "s"), node("Gather", "s one", "n"),
        node("Equal", "n one", "c"), choice(graph([node("Squeeze", "u one1", "q")], "q")), one1=[1],
        one=np.array([1]),
    ),
}  # fmt: skip
READ["twice"].graph.output[0].name = "z"


@pytest.mark.parametrize("given", READ.values(), ids=READ)
def test_the_branch_that_is_always_taken_is_read(given: onnx.ModelProto) -> None:
    before = given.SerializeToString()
    found = evaluate(load_graph(given), X.astype(np.float64))
    expected = onnxruntime.InferenceSession(before).run(None, {"x": X})[0]
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)
    assert given.SerializeToString() == before


def test_the_other_branch_need_not_be_understood() -> None:
    given = model(choice(otherwise=graph([node("Det", "h", "a")], "a")), c=np.array(True))
    assert [n.op.kinds[0] for n in load_graph(given).nodes] == ["Gemm", "Gemm", "Relu", "Identity", "Tanh"]


def loop(op_type: str = "Loop", **bodies: Any) -> onnx.NodeProto:
    body = helper.make_graph(
        [node("Identity", "going", "on"), node("Relu", "before", "after")], "body",
        [helper.make_tensor_value_info(name, kind, []) for name, kind in
         (("step", TensorProto.INT64), ("going", TensorProto.BOOL), ("before", 1))],
        [helper.make_tensor_value_info("on", TensorProto.BOOL, []), helper.make_tensor_value_info("after", 1, None)],
    )  # fmt: skip
    return node(op_type, "one c h", "i", body=body)


REFUSED: dict[str, tuple[onnx.ModelProto, str]] = {
    "by the input": (model(choice(condition="h")), "which branch of the If is taken depends on the input"),
    "by something unknown": (model(node("Det", "h", "c"), choice()), r"'Det_1' \(Det\)"),
    "by the batch size": (
        model(node("Shape", "h", "s", end=1), node("Squeeze", "s", "n"), node("Equal", "n one", "c"), choice()),
        "which branch of the If is taken depends on the batch size",
    ),
    "Loop": (model(loop(), c=np.array(True)), r"'Loop_1' \(Loop\): Loop runs a graph of its own"),
    "Scan": (model(loop("Scan"), c=np.array(True)), r"'Scan_1' \(Scan\): Scan runs a graph of its own"),
    "inside": (
        model(choice(graph([node("Relu", "h", "a"), node("Det", "a", "b")], "b")), c=np.array(True)),
        r"node 'If_1/Det_1' \(Det\): lrpfast has no such operator",
    ),
    "Loop inside": (model(choice(graph([loop()], "i")), c=np.array(True)), r"'If_1/Loop_0' \(Loop\): Loop runs"),
}  # fmt: skip


@pytest.mark.parametrize(("given", "says"), REFUSED.values(), ids=REFUSED)
def test_refused(given: onnx.ModelProto, says: str) -> None:
    with pytest.raises(UnsupportedOperatorError, match=says) as caught:
        load_graph(given)
    assert len(caught.value.offenders) == 1


def test_branches_with_other_outputs() -> None:
    with pytest.raises(ModelError, match="its then_branch is missing, or does not have as many outputs"):
        load_graph(model(node("If", "c", "i j", then_branch=THEN, else_branch=ELSE), c=np.array(True)))


def test_weights_that_are_used_twice(backend: str) -> None:
    """One initializer in two nodes: `relu(x w) w`; each use hands relevance back."""
    nodes = [node("MatMul", "x w", "a"), node("Relu", "a", "h"), node("MatMul", "h w", "y")]
    network = lrpfast.load(model_of(nodes, ("n", 4), {"w": W}))
    x, w = X.astype(np.float64), W.astype(np.float64)
    explanation = lrpfast.explain(network, X, 1, "epsilon_plus", dtype=np.float64, backend=backend)
    a = x @ w
    # Both layers are dense, and the rule is Epsilon: z is handed back as it came together.
    through = np.maximum(a, 0) * w[:, 1]
    expected = np.einsum("ni,ij,nj->ni", x, w, through / np.where(a == 0, 1, a))
    np.testing.assert_allclose(explanation.relevance, expected, rtol=1e-4, atol=1e-4)
    assert explanation.conservation.worst < 1e-11
