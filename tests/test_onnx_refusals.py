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
    "MatMul-stack": ([node("MatMul", "x c")], {"c": ones(2, 4, 4)}, "'c' has values for each sample"),
    "MatMul-batch": ([node("MatMul", "c f")], {"c": ones(2, 5)}, "does not keep axis 0 as the batch"),
    "MatMul-wider": ([node("MatMul", "f c")], {"c": ones(3, 12, 4)}, "does not keep axis 0 as the batch"),
    "Einsum-computed": ([node("Einsum", "x x", equation="bij,bjk->bik")], {}, "2 of its operands are computed"),
    "Einsum-batch": ([node("Einsum", "x", equation="bij->ibj")], {}, "does not keep axis 0 as the batch"),
    "Einsum-sum": ([node("Einsum", "x", equation="bij->ij")], {}, "does not keep axis 0 as the batch"),
    "Einsum-ellipsis": ([node("Einsum", "x", equation="b...i->bi")], {}, "sums over what an ellipsis stands for"),
    "Einsum-samples": (
        [node("Einsum", "x c", equation="bij,bi->bj")], {"c": ones(2, 3)}, "'c' has values for each sample",
    ),
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
    "Concat-samples": (
        [node("Concat", "x c", axis=1)], {"c": ones(2, 1, 4)}, "shape .2, 1, 4.; expected the same values",
    ),
    "Concat-varies": (
        [
            node("Shape", "x", "n", start=0, end=1), node("Squeeze", "n zero", "count"),
            node("Range", "o count i", "r"), node("Reshape", "r s", "c"), node("Cast", "c", "d", to=1),
            node("Concat", "x d", axis=2),
        ],
        {"s": [-1, 1, 1], "o": 0, "i": 1, "zero": [0]}, "'d'. depends on the batch size",
    ),
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
    "Gather-batch": ([node("Gather", "x c")], {"c": [0, 2, 1]}, "axis 0, the batch"),
    "Gather-nothing": ([node("Gather", "x c", axis=1)], {"c": np.zeros(0, np.int64)}, "its output is empty"),
    "GatherElements-batch": ([node("GatherElements", "f c")], {"c": [[0]]}, "axis 0, the batch"),
    "GatherElements-samples": (
        [node("GatherElements", "f c", axis=1)], {"c": [[0], [1]]}, "shape .2, 1.; expected the same values",
    ),
    "GatherND-batch": ([node("GatherND", "x c")], {"c": [[0]]}, "chooses samples of the batch"),
    "Compress-flat": ([node("Compress", "x c")], {"c": np.array([True])}, "without an axis"),
    "Compress-batch": ([node("Compress", "x c", axis=0)], {"c": np.array([True])}, "axis 0, the batch"),
    "Compress-nothing": (
        [node("Compress", "x c", axis=1)], {"c": np.array([False])}, "its output is empty",
    ),
    "Trilu-batch": ([node("Trilu", "f")], {}, "reach across the batch"),
    "ReverseSequence": (
        [node("ReverseSequence", "x c", time_axis=1, batch_axis=0)], {"c": [1, 2]}, "differs from sample to sample",
    ),
    "ScatterND": ([node("ScatterND", "x i u")], {"i": [[0]], "u": ones(1, 3, 4)}, "whole samples"),
    "ReduceProd": ([node("ReduceProd", "x c")], {"c": [1]}, "how much of it each factor is"),
    "Expand-batch": ([node("Expand", "x c")], {"c": [5, 1, 1]}, "expands axis 0, the batch, to 5"),
    "Expand-in-front": ([node("Expand", "x c")], {"c": [2, 1, 1, 1]}, "batch would not be in front"),
    "Expand-to-the-batch": (
        [node("Shape", "x", "n", start=0, end=1), node("Reshape", "f s", "g"), node("Expand", "g n")],
        {"s": [0, 12, 1]}, "to the batch size",
    ),
    "Tile-batch": ([node("Tile", "x c")], {"c": [2, 1, 1]}, "repeats axis 0, the batch"),
    "Resize-batch": (
        [node("Resize", "x - c", mode="linear")], {"c": np.array([2, 1, 1], np.float32)}, "axis 0, the batch, by 2",
    ),
    "Resize-batch-size": ([node("Resize", "x - - c")], {"c": [2, 3, 4]}, "axis 0, the batch, to 2"),
    "Resize-align-corners": (
        [node("Resize", "x - c", mode="linear", coordinate_transformation_mode="align_corners")],
        {"c": np.array([1, 1, 1.3], np.float32)}, "not well defined",
    ),
    "Resize-crop-outside": (
        [node("Resize", "x r - c", mode="linear", coordinate_transformation_mode="tf_crop_and_resize", axes=[2])],
        {"r": np.array([-0.5, 1], np.float32), "c": [4]}, "reaches beyond the input",
    ),
    "Resize-crop-one": (
        [node("Resize", "x r - c", mode="linear", coordinate_transformation_mode="tf_crop_and_resize", axes=[2])],
        {"r": np.array([0, 1], np.float32), "c": [1]}, "crops to a single element",
    ),
    "Resize-all-axes-alike": (
        [node("Resize", "x - - c", keep_aspect_ratio_policy="not_smaller")], {"c": [-1, 6, 8]}, "axis 0, the batch",
    ),
    "Pad-batch": ([node("Pad", "x c")], {"c": [1, 0, 0, 0, 0, 0]}, "axis 0, the batch"),
    "Pad-reflect": (
        [node("Pad", "x c", mode="reflect")], {"c": [0, 3, 0, 0, 0, 0]}, "reflects 3 elements of an axis of 3",
    ),
    "Softmax-batch": ([node("Softmax", "x", axis=0)], {}, "axis 0, the batch"),
    "ReduceMean-batch": ([node("ReduceMean", "x c")], {"c": [0]}, "axis 0, the batch"),
    "ReduceMean-all": ([node("ReduceMean", "x")], {}, "without axes"),
    "ReduceL2-all": ([node("ReduceL2", "x", keepdims=0)], {}, "without axes"),
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
    "MatMul": ([node("MatMul", "x w")], {"w": ones(3, 2)}, "3 elements in one of its inputs and 4"),
    "Einsum-letters": ([node("Einsum", "x", equation="bi->b")], {}, "'bi' for an operand of 3 axes"),
    "Einsum-operands": ([node("Einsum", "x", equation="bij,j->b")], {}, "expected letters for 1 operands"),
    "Einsum-unknown": ([node("Einsum", "x", equation="bij->bk")], {}, "in none of its inputs"),
    "Pad-all": ([node("Pad", "x c")], {"c": [0, -2, 0, 0, -1, 0]}, "leave nothing"),
    "Pad-mode": ([node("Pad", "x c", mode="mirror")], {"c": [0, 0, 1, 0, 0, 0]}, "mode is 'mirror'"),
    "Resize-both": (
        [node("Resize", "x - s z")], {"s": np.ones(3, np.float32), "z": [1, 3, 4]}, "either scales or sizes",
    ),
    "Resize-mode": ([node("Resize", "x - s", mode="area")], {"s": np.ones(3, np.float32)}, "mode is 'area'"),
    "DepthToSpace": ([node("DepthToSpace", "x", blocksize=2)], {}, r"\(3, 4\) per sample; expected channels"),
    "Compress-long": (
        [node("Compress", "x c", axis=1)], {"c": np.ones(4, bool)}, "condition has 4 elements, its axis 3",
    ),
    "GatherElements-shape": (
        [node("GatherElements", "x c", axis=1)], {"c": [[[0] * 5]]}, r"indices have shape \(1, 5\) per sample",
    ),
    "GatherND-shape": (
        [node("GatherND", "x c", batch_dims=2)], {"c": [[[0], [0]]]}, r"shape \(2, 1\) per sample, its data \(3, 4\)",
    ),
    "LpPool-p": ([node("LpPool", "x", kernel_shape=[2], p=0)], {}, "p is 0"),
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
    "If": ([IF], {"c": np.array(True)}, "its then_branch is missing"),
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
