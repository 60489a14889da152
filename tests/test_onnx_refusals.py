"""What the ONNX reader refuses, and what it says."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from onnx_models import model_of, node, ones

from lrpfast.errors import ModelError, UnsupportedOperatorError
from lrpfast.onnx_io import load_graph


def test_all_offenders_are_listed() -> None:
    nodes = [
        helper.make_node("CumSum", ["x", "one"], ["a"], name="first"),
        node("Relu", "a", "b"),  # behind an offender: no offender itself
        node("Shape", "b", "s"),
        node("Range", "zero s one", "range"),  # would be folded if the shape were known
        helper.make_node("GridSample", ["b", "b"], ["c"], name="grid"),
        node("MatMul", "x x", "d"),
        helper.make_node("Mine", ["d"], ["e"], name="custom", domain="com.example"),
        node("Add", "c e", "f"),
        node("Reshape", "f range"),
    ]
    model = model_of(nodes, ("n", 3), {"zero": 0, "one": 1})
    with pytest.raises(
        UnsupportedOperatorError, match="does not support 4 of the nodes of the model"
    ) as caught:
        load_graph(model)
    offenders = caught.value.offenders
    assert [line.split(":")[0] for line in offenders] == [
        "node 'first' (CumSum)",
        "node 'grid' (GridSample)",
        "node 'MatMul_5' (MatMul)",
        "node 'custom' (Mine)",
    ]
    assert "com.example" in offenders[3]
    assert all(line in str(caught.value) for line in offenders)


IF = node(
    "If", "c", then_branch=helper.make_graph([], "t", [], []), else_branch=helper.make_graph([], "e", [], [])
)
REFUSED: dict[str, tuple[list[onnx.NodeProto], dict[str, Any], str]] = {
    "MatMul-computed": ([node("MatMul", "x x")], {}, "input 1 .'x'. is computed, not a constant"),
    "MatMul-left": ([node("MatMul", "c x")], {"c": ones(2, 2)}, "input 0 .'c'. is a constant"),
    "MatMul-stack": ([node("MatMul", "x c")], {"c": ones(2, 4, 4)}, "expected a matrix"),
    "Gemm-transA": ([node("Gemm", "f c", transA=1)], {"c": ones(12, 4)}, "transA=1"),
    "Gemm-rows": ([node("Gemm", "f c b")], {"c": ones(12, 4), "b": ones(2, 4)}, "a row for each sample"),
    "Add-broadcast": ([node("Add", "x f")], {}, r"shapes \[\(3, 4\), \(12,\)\] per sample; expected equal"),
    "Add-larger": ([node("Add", "x c")], {"c": ones(2, 3, 4)}, "a value for each sample"),
    "Add-wider": ([node("Add", "f c")], {"c": ones(3, 12)}, "a value for each sample"),
    "Add-misfit": ([node("Add", "x c")], {"c": ones(5)}, r"\(5,\), which does not broadcast to \(3, 4\)"),
    "Add-batch": (
        [node("Shape", "x", "s", end=1), node("Cast", "s", "n", to=1), node("Add", "x n")], {},
        "depends on the batch size",
    ),
    "Sub-broadcast": ([node("Sub", "x f")], {}, "expected equal sizes, or 1"),
    "Mul-broadcast": ([node("Mul", "f x")], {}, "expected equal sizes, or 1"),
    "Div-broadcast": ([node("Div", "x f")], {}, "expected equal sizes, or 1"),
    "Concat-constant": ([node("Concat", "x c", axis=1)], {"c": ones(1, 1, 4)}, "is a constant"),
    "Concat-batch": ([node("Concat", "x x", axis=0)], {}, "axis 0, the batch"),
    "Transpose-batch": ([node("Transpose", "x")], {}, "moves axis 0, the batch"),
    "Flatten-batch": ([node("Flatten", "x", axis=2)], {}, "merges the batch"),
    "Squeeze-all": ([node("Squeeze", "x")], {}, "name the axes"),
    "Unsqueeze-batch": ([node("Unsqueeze", "x c")], {"c": [0]}, "axis 0, the batch"),
    "Slice-batch": ([node("Slice", "x s e a")], {"s": [1], "e": [9], "a": [0]}, "axis 0, the batch"),
    "Slice-first-sample": ([node("Slice", "x s e a")], {"s": [0], "e": [1], "a": [0]}, "axis 0, the batch"),
    "Reshape-twice-the-batch": (
        [node("Shape", "x", "s"), node("Mul", "s two", "t"), node("Reshape", "x t")], {"two": [2, 1, 1]},
        "computes with the batch size",
    ),
    "Split-batch": ([node("Split", "x", "y z", axis=0, num_outputs=2)], {}, "axis 0, the batch"),
    "Gather-many": ([node("Gather", "x c", axis=1)], {"c": [0, 2, 1]}, "not in equal steps"),
    "Gather-matrix": ([node("Gather", "x c", axis=1)], {"c": [[0]]}, "one index or a list"),
    "Pad-batch": ([node("Pad", "x c")], {"c": [1, 0, 0, 0, 0, 0]}, "axis 0, the batch"),
    "Pad-mode": ([node("Pad", "x c", mode="reflect")], {"c": [0, 0, 1, 0, 0, 0]}, "'reflect'"),
    "Softmax-batch": ([node("Softmax", "x", axis=0)], {}, "axis 0, the batch"),
    "ReduceMean-batch": ([node("ReduceMean", "x c")], {"c": [0]}, "axis 0, the batch"),
    "ReduceMean-all": ([node("ReduceMean", "x")], {}, "without axes"),
    "Cast-integers": ([node("Cast", "x", to=7)], {}, "casts floats to int64, which rounds"),
    "Dropout-training": ([node("Dropout", "x r t")], {"r": 0.5, "t": np.array(True)}, "training_mode"),
    "Dropout-mask": ([node("Dropout", "x", "a m"), node("Cast", "m", to=1)], {}, "output 1 .'m'. is used"),
    "BatchNormalization-training": (
        [node("BatchNormalization", "x c c c c", training_mode=1)], {"c": ones(3)}, "training_mode=1",
    ),
    "MaxPool-indices": (
        [node("MaxPool", "x", "a i", kernel_shape=[2]), node("Cast", "i", to=1)], {},
        "output 1 .'i'. is used",
    ),
    "ConvTranspose-too-large": (
        [node("ConvTranspose", "x w", strides=[3], auto_pad="SAME_UPPER")], {"w": ones(3, 1, 1)},
        "larger than",
    ),
    "Random": ([node("RandomNormal", "", "r", shape=[3, 4]), node("Add", "x r")], {}, "random"),
    "If": ([IF], {"c": np.array(True)}, "control flow"),
    "Huge": (
        [node("ConstantOfShape", "c", "h"), node("Add", "x h")], {"c": [1, 10**6, 10**6]}, "more than 1 GiB",
    ),
    "Broken": (
        [node("Gather", "c i", "g"), node("Add", "x g")], {"c": ones(1), "i": [5]}, "cannot be evaluated",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("nodes", "constants", "says"), REFUSED.values(), ids=REFUSED)
def test_refused(nodes: list[onnx.NodeProto], constants: dict[str, Any], says: str) -> None:
    model = model_of([node("Flatten", "x", "f"), *nodes], ("n", 3, 4), constants)
    with pytest.raises(UnsupportedOperatorError, match=says) as caught:
        load_graph(model)
    assert len(caught.value.offenders) == 1


INVALID: dict[str, tuple[list[onnx.NodeProto], dict[str, Any], str]] = {
    "Conv-channels": (
        [node("Conv", "x w")], {"w": ones(2, 4, 1)}, r"node 'Conv_0' \(Conv\): its input.*4 channels",
    ),
    "Conv-rank": (
        [node("Conv", "x w", auto_pad="SAME_UPPER")], {"w": ones(2, 3, 1, 1)}, "2 spatial axes, its input 1",
    ),
    "Conv-kernel": ([node("Conv", "x w", kernel_shape=[2])], {"w": ones(2, 3, 1)}, r"kernel_shape is \(2,\)"),
    "Conv-auto-pad": ([node("Conv", "x w", auto_pad="SAME")], {"w": ones(2, 3, 1)}, "auto_pad is 'SAME'"),
    "Conv-nan": (
        [node("Conv", "x w")], {"w": ones(2, 3, 1) * np.nan}, "tensor 'w'.*NaN or infinity in 6 of 6",
    ),
    "BatchNormalization-inf": (
        [node("BatchNormalization", "x g g i g")], {"g": ones(3), "i": np.full(3, np.inf, np.float32)},
        "tensor 'i'",
    ),
    "BatchNormalization-variance": (
        [node("BatchNormalization", "x g g g v")], {"g": ones(3), "v": -ones(3)},
        "variance . epsilon is -0.9",
    ),
    "BatchNormalization-length": (
        [node("BatchNormalization", "x g g g v")], {"g": ones(3), "v": ones(2)}, "lengths",
    ),
    "Gemm-rank": ([node("Gemm", "x w")], {"w": ones(4, 2)}, "expected one axis"),
    "Gemm-bias": (
        [node("Flatten", "x", "f"), node("Gemm", "f w b")], {"w": ones(12, 2), "b": ones(3)}, "'b', its bias",
    ),
    "MatMul": ([node("MatMul", "x w")], {"w": ones(3, 2)}, "last axis of 3 features"),
    "Div-zero": ([node("Div", "x c")], {"c": [1.0, 0.0, 1.0, 1.0]}, "'c', its divisor, holds zeros"),
    "Integers": ([node("Mul", "x c")], {"c": [2]}, "dtype int64"),
    "Slice-empty": ([node("Slice", "x s e a")], {"s": [2], "e": [1], "a": [1]}, "is empty"),
    "Split-sizes": ([node("Split", "x s", "y z", axis=1)], {"s": [1, 1]}, r"parts of sizes \(1, 1\)"),
    "Gather-range": ([node("Gather", "x c", axis=1)], {"c": [3]}, "out of range"),
    "Axis-range": ([node("Softmax", "x", axis=3)], {}, "axis 3 is out of range"),
    "Axis-twice": ([node("Unsqueeze", "x c")], {"c": [1, 1]}, "twice"),
    "Squeeze-size": ([node("Squeeze", "x c")], {"c": [1]}, "must be 1"),
    "Missing": ([node("Add", "x nothing")], {}, "'nothing', which nothing before it writes"),
    "Missing-input": ([node("Conv", "x")], {}, "input 1 is missing"),
    "Twice": (
        [node("Relu", "x", "a"), node("Tanh", "x", "a"), node("Relu", "a")], {},
        "'a', which is written already",
    ),
    "Constant": ([node("Identity", "c")], {"c": ones(3)}, "'y' does not depend on its inputs \\['x'\\]"),
    "Clip-order": ([node("Clip", "x a b")], {"a": 2.0, "b": 1.0}, "low is 2.0 and high 1.0"),
}  # fmt: skip


@pytest.mark.parametrize(("nodes", "constants", "says"), INVALID.values(), ids=INVALID)
def test_invalid(nodes: list[onnx.NodeProto], constants: dict[str, Any], says: str) -> None:
    with pytest.raises(ModelError, match=says) as caught:
        load_graph(model_of(nodes, ("n", 3, 4), constants))
    assert not isinstance(caught.value, UnsupportedOperatorError)
    assert str(caught.value).startswith("the model: ")


def relu_model(**changes: Any) -> onnx.ModelProto:
    return model_of([node("Relu", "x")], ("n", 3), **changes)


def test_declarations_that_are_refused() -> None:
    for opset in (5, onnx.defs.onnx_opset_version() + 1):
        with pytest.raises(ModelError, match=rf"opset {opset}; expected 6 to"):
            load_graph(relu_model(opset=opset))
    with pytest.raises(ModelError, match=r"2 outputs, y, x; say which.*output="):
        load_graph(relu_model(outputs=("y", "x")))
    with pytest.raises(ModelError, match="no output or other array 'z'; its outputs are y"):
        load_graph(relu_model(), output="z")
    with pytest.raises(ModelError, match=r"type BOOL.*real numbers"):
        load_graph(relu_model(elem_type=TensorProto.BOOL))
    two = relu_model()
    two.graph.input.append(helper.make_tensor_value_info("mask", 1, ["n", 3]))
    with pytest.raises(ModelError, match=r"2 inputs; name them: input_shape=\{'x': \(…\), 'mask': \(…\)\}"):
        load_graph(two, (3,))
    with pytest.raises(ModelError, match=r"input_shape names 'z'; its inputs are x, mask"):
        load_graph(two, {"z": (3,)})
    with pytest.raises(ModelError, match=r"\(5\); expected a batch axis"):
        load_graph(model_of([node("Relu", "x")], (5,)))
    foreign = relu_model()
    foreign.opset_import[0].domain = "ai.onnx.ml"
    with pytest.raises(ModelError, match="no opset of the default domain"):
        load_graph(foreign)


def test_initializers_may_be_listed_as_inputs() -> None:
    model = model_of([node("MatMul", "x w")], ("n", 3), {"w": ones(3, 2)})
    model.graph.input.append(helper.make_tensor_value_info("w", 1, [3, 2]))
    assert load_graph(model).output_shape == (2,)
