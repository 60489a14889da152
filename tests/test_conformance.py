"""ONNX's own test cases: no wrong number, and docs/operators.md says what passes."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import conformance
import numpy as np
import onnx
import pytest
from conformance_cases import INAPPLICABLE, PARTLY, PASSED, REFUSED, WRONG, Case, Outcome, floats, run
from conformance_lift import lift
from onnx import helper
from onnx_models import model_of, node, ones

import lrpfast
from lrpfast import ledger
from lrpfast.ops import Tanh

DOCUMENT = Path(__file__).parents[1] / "docs/operators.md"


@pytest.fixture(scope="module")
def outcomes() -> list[Outcome]:
    return conformance.run_all()


def test_no_case_is_wrong(outcomes: list[Outcome]) -> None:
    wrong = [(outcome.case.name, outcome.reasons) for outcome in outcomes if outcome.status == WRONG]
    assert not wrong
    assert len(outcomes) > 1900


def test_the_document_is_up_to_date(outcomes: list[Outcome]) -> None:
    text = DOCUMENT.read_text("utf-8")
    found = conformance.updated(text, outcomes)
    changed = sorted(set(text.splitlines()) ^ set(found.splitlines()))
    assert found == text, f"run `{conformance.COMMAND}` and look at what changed:\n" + "\n".join(changed)


# --- the harness ---

X = np.array([[1, -2, 3], [-4, 5, -6]], np.float32)


def case_of(nodes: list[onnx.NodeProto], outputs: dict[str, Any], **inputs: Any) -> Case:
    """A case of the arrays `inputs`; the first is called "x"."""
    model = model_of(nodes, X.shape, outputs=list(outputs))
    del model.graph.input[:]
    for name, array in inputs.items():
        kind = helper.np_dtype_to_tensor_dtype(array.dtype)
        model.graph.input.append(helper.make_tensor_value_info(name, kind, array.shape))
    return Case("case", nodes[0].op_type, model, inputs, outputs, floats(model.graph.input))


def test_statuses() -> None:
    relu = case_of([node("Relu", "x")], {"y": np.maximum(X, 0)}, x=X)
    assert run(relu).status == PASSED
    assert run(dataclasses.replace(relu, outputs={"y": np.maximum(X, 1e-3)})).status == WRONG
    assert run(case_of([node("Relu", "x")], {"y": X}, x=np.int64(X))).status == INAPPLICABLE
    unknown = run(case_of([node("Mine", "x")], {"y": X}, x=X))
    assert (unknown.status, conformance._reason(unknown)) == (REFUSED, "")
    nodes = [node("Relu", "x"), node("Mine", "x", "z")]
    assert run(case_of(nodes, {"y": np.maximum(X, 0), "z": X}, x=X)).status == PARTLY


def test_other_errors_are_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    def crash(*_: Any, **__: Any) -> None:
        raise IndexError("oops")

    monkeypatch.setattr(lrpfast, "load", crash)
    outcome = run(case_of([node("Relu", "x")], {"y": np.maximum(X, 0)}, x=X))
    assert outcome.status == WRONG
    assert "IndexError: oops" in outcome.reasons[0]


def test_wrong_derivatives_are_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    case = case_of([node("Tanh", "x")], {"y": np.tanh(X)}, x=X)
    assert run(case).status == PASSED
    monkeypatch.setattr(Tanh, "derivative", lambda self, x, y: 1 - y)
    outcome = run(case)
    assert outcome.status == WRONG
    assert "by the gradient" in outcome.reasons[0]


def test_lost_relevance_is_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    def lossy(account: ledger.Account, line: Sequence[float]) -> ledger.ConservationRow:
        return dataclasses.replace(row(account, line), r_out=0.0, unexplained=1e-3)

    row = ledger._row
    monkeypatch.setattr(ledger, "_row", lossy)
    outcome = run(case_of([node("Tanh", "x")], {"y": np.tanh(X)}, x=X))
    assert outcome.status == WRONG
    assert "unexplained relevance" in outcome.reasons[0]


def test_weights_are_constants_in_one_reading_at_least() -> None:
    w = np.arange(12, dtype=np.float32).reshape(3, 4)
    assert run(case_of([node("MatMul", "x w")], {"y": X @ w}, x=X, w=w)).status == PASSED
    reading = case_of([node("Sub", "x w")], {"y": X - X[:1]}, x=X, w=X[:1])
    assert run(reading).status == PASSED
    assert run(dataclasses.replace(reading, outputs={"y": X[:1] - X})).status == WRONG


@pytest.mark.parametrize(
    ("lifted", "inputs"),
    [
        (node("ReduceMean", "x", axes=[0], keepdims=0), {}),
        (node("ReduceMean", "x", axes=[-1], keepdims=0), {}),
        (node("Transpose", "x", perm=[1, 0]), {}),
        (node("Tile", "x repeats"), {"repeats": [2, 1]}),
        (node("Pad", "x pads"), {"pads": [0, 1, 2, 0]}),
        (node("Reshape", "x shape"), {"shape": [3, 2]}),
        (node("Add", "x x"), {}),
    ],
    ids=lambda value: value.op_type if isinstance(value, onnx.NodeProto) else "",
)
def test_lifted_models_work_on_each_sample(lifted: onnx.NodeProto, inputs: dict[str, list[int]]) -> None:
    model = model_of([lifted], X.shape, inputs, opset=17)
    alone = onnx.reference.ReferenceEvaluator(model)
    expected = {"y": alone.run(None, {"x": X})[0]}
    found = lift(model, {"x": X}, expected)
    assert found is not None
    _, batch, outputs = found
    np.testing.assert_array_equal(batch["x"], [X, X[::-1, ::-1]])
    np.testing.assert_array_equal(outputs["y"][0], expected["y"])
    np.testing.assert_array_equal(outputs["y"][1], alone.run(None, {"x": batch["x"][1]})[0])


@pytest.mark.parametrize(
    "mixing",
    [node("ReduceMean", "x", keepdims=0), node("Flatten", "x", axis=0), node("MatMul", "w x")],
    ids=lambda mixing: mixing.op_type,
)
def test_models_that_would_mix_samples_are_not_lifted(mixing: onnx.NodeProto) -> None:
    model = model_of([mixing], X.shape, {"w": ones(4, 1, 2, 2)}, opset=17)
    (y,) = onnx.reference.ReferenceEvaluator(model).run(None, {"x": X})
    assert lift(model, {"x": X}, {"y": y}) is None


def test_reasons_are_grouped() -> None:
    case = case_of([node("Mine", "x")], {"y": X}, x=X)
    lines = ("node 'a' (Relu): axis 12 of (3, 4) in 'b'", "node 'n' (Other): lrpfast has no such operator")
    assert conformance._reason(Outcome(case, REFUSED, lines)) == "needs Other; Relu: axis … of (…) in …"
    assert conformance._reason(Outcome(case, REFUSED, ("the model: node 'x' (Mine): is 1.5",))) == "is …"
