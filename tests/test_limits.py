"""Limits of what files may ask for: each is named with its value, and can be raised."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper
from onnx_models import model_of, node

import lrpfast
from lrpfast import Limits
from lrpfast.errors import InputError, ModelError
from lrpfast.onnx_io import Names
from lrpfast.tables import read_table

WEIGHTS = {"w": np.ones((64, 64), np.float32)}


def chain() -> onnx.ModelProto:
    """Three nodes, 16 KiB of weights, a constant of 16 KiB that is computed, 160 elements for a sample."""
    nodes = [node("Relu", "x", "a"), node("Mul", "w two", "v"), node("MatMul", "a v")]
    return model_of(nodes, ("n", 64), WEIGHTS | {"two": 2.0})


def _values(name: str) -> list[onnx.ValueInfoProto]:
    return [helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None)]


def branches(depth: int) -> onnx.ModelProto:
    """An If in an If in an If."""
    inner = helper.make_graph([helper.make_node("Relu", ["x"], ["z"])], "g", [], _values("z"))
    for i in range(depth):
        chosen = helper.make_node("If", ["c"], [f"z{i}"], then_branch=inner, else_branch=inner)
        inner = helper.make_graph([chosen], "g", [], _values(f"z{i}"))
    model = model_of(
        [helper.make_node("Identity", [f"z{depth - 1}"], ["y"])], ("n", 4), {"c": np.array(True)}
    )
    model.graph.node.insert(0, inner.node[0])
    return model


CASES: dict[str, tuple[Any, dict[str, int]]] = {
    "nodes": (chain, {"nodes": 2}),
    "weights": (chain, {"weights": 16_000}),
    "folded": (chain, {"folded": 16_000}),
    "steps": (chain, {"steps": 8_000}),
    "elements": (chain, {"elements": 191}),
    "ends": (lambda: model_of([node("Add", "x x")], ("n", 4), outputs=("y", "x")), {"ends": 1}),
    "depth": (lambda: branches(4), {"depth": 3}),
}


@pytest.mark.parametrize("name", CASES)
def test_what_exceeds_a_limit_is_refused(name: str) -> None:
    make, limits = CASES[name]
    model = make().SerializeToString()
    output = {"output": "y"} if name == "ends" else {}
    lrpfast.load(model, **output)
    with pytest.raises(ModelError, match="more than the limit of") as caught:
        lrpfast.load(model, limits=Limits(**limits), **output)
    raised = re.search(rf"limits=lrpfast\.Limits\({name}=(\d+)\)", str(caught.value))
    assert raised is not None  # what the message says is what helps
    enough = {name: 10 * int(raised[1])}
    assert lrpfast.load(model, limits=Limits(**enough), **output).output_shape


def test_structure_is_what_big_tensors_are_not(tmp_path: Path) -> None:
    model = chain()
    model.doc_string = "x" * 100_000
    path = tmp_path / "model.onnx"
    path.write_bytes(model.SerializeToString())
    lrpfast.load(path, limits=Limits(structure=101_000))  # with 16 KiB of weights besides
    for source in (path, path.read_bytes()):
        with pytest.raises(
            ModelError, match=r"few of which are data of big tensors.*limits=lrpfast\.Limits\(structure="
        ):
            lrpfast.load(source, limits=Limits(structure=99_000))


@pytest.mark.parametrize("field", ["float_data", "double_data", "raw_data", "Constant"])
def test_big_tensors_stay_in_the_file_however_they_are_written(field: str, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    w = rng.standard_normal((64, 64)).astype(np.float64 if field == "double_data" else np.float32)
    kind = helper.np_dtype_to_tensor_dtype(w.dtype)
    raw = field in ("raw_data", "Constant")
    tensor = helper.make_tensor("w", kind, w.shape, w.tobytes() if raw else w.reshape(-1), raw=raw)
    model = model_of([node("MatMul", "x w")], ("n", 64))
    if field == "Constant":
        model.graph.node.insert(0, helper.make_node("Constant", [], ["w"], value=tensor))
    else:
        model.graph.initializer.append(tensor)
    x = rng.standard_normal((2, 64))
    network = lrpfast.load(model.SerializeToString(), limits=Limits(structure=1000))
    np.testing.assert_allclose(network.predict(x, dtype=np.float64), x @ w, rtol=1e-12)


def test_limits_of_the_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("LRPFAST_LIMITS", "nodes=2, text=10")
    with pytest.raises(ModelError, match=r"limit of 2;.*LRPFAST_LIMITS=nodes=3"):
        lrpfast.load(chain())
    lrpfast.load(chain(), limits=Limits())
    (tmp_path / "a.csv").write_text("1,2,3,4,5,6")
    with pytest.raises(InputError, match="11 bytes, more than the limit of 10 bytes"):
        read_table(tmp_path / "a.csv")
    for wrong in ("nodes", "nodes=-1", "node=3", "nodes=2;text=3"):
        monkeypatch.setenv("LRPFAST_LIMITS", wrong)
        with pytest.raises(InputError, match="sets no limit; expected NAME=NUMBER"):
            lrpfast.load(chain())


@pytest.mark.parametrize("value", [0, -1, 1.5, True, "1"])
def test_limits_are_whole_numbers(value: Any) -> None:
    with pytest.raises(InputError, match="the limit nodes is"):
        Limits(nodes=value)


def test_names_of_many_nodes_are_found_in_linear_time() -> None:
    """By trying one number after the other these would be some 10¹⁰ steps, which is hours."""
    names = Names(["same_2"])
    assert [names.fresh("same") for _ in range(3)] == ["same", "same_3", "same_4"]
    for _ in range(150_000):
        last = names.fresh("same")
    assert last == "same_150004"
