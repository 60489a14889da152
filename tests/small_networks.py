"""Small networks of each kind as ONNX models: seeded, made in milliseconds, without torch.

>>> model = small_cnn()
>>> x = random_input(model, samples=2)
>>> y = onnxruntime_forward(model, x)

`SMALL_NETWORKS` names them all.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

OPSET = 15


class Builder:
    """Collects nodes and seeded parameters; arrays are known by their names, the input is `"x"`."""

    def __init__(self, name: str, *input_shape: int) -> None:
        self.name = name
        self.input_shape = input_shape
        self.nodes: list[onnx.NodeProto] = []
        self.parameters: list[onnx.TensorProto] = []
        self.rng = np.random.default_rng(sum(name.encode()))

    def constant(self, array: Any, dtype: type = np.float32) -> str:
        """Add a parameter; returns its name."""
        name = f"p{len(self.parameters)}"
        self.parameters.append(numpy_helper.from_array(np.asarray(array, dtype), name))
        return name

    def add(self, op: str, *inputs: str, **attributes: Any) -> str:
        """Add a node; returns the name of its output."""
        return self.add_several(1, op, *inputs, **attributes)[0]

    def add_several(self, outputs: int, op: str, *inputs: str, **attributes: Any) -> list[str]:
        """Add a node with several outputs; returns their names."""
        name = f"{op.lower()}_{len(self.nodes)}"
        names = [f"{name}_out{k}" for k in range(outputs)]
        self.nodes.append(helper.make_node(op, inputs, names, name, **attributes))
        return names

    def weight(self, *shape: int, fan_in: int) -> str:
        """He-initialised weights."""
        return self.constant(self.rng.normal(0, np.sqrt(2 / fan_in), shape))

    def bias(self, size: int) -> str:
        """Biases of either sign."""
        return self.constant(self.rng.normal(0, 0.2, size))

    def conv(self, x: str, inputs: int, outputs: int, *kernel: int, group: int = 1, **attributes: Any) -> str:
        """Convolution with bias."""
        fan_in = inputs // group * int(np.prod(kernel))
        w = self.weight(outputs, inputs // group, *kernel, fan_in=fan_in)
        return self.add("Conv", x, w, self.bias(outputs), group=group, **attributes)

    def batch_norm(self, x: str, channels: int, gain: float = 1.0) -> str:
        """Batch normalization of which nothing is trivial: not scale, shift, mean, variance or epsilon."""
        uniform, normal = self.rng.uniform, self.rng.normal
        scale, shift = gain * uniform(0.5, 1.5, channels), gain * normal(0, 0.3, channels)
        mean, variance = normal(0, 0.3, channels), uniform(0.5, 2, channels)
        parameters = [self.constant(p) for p in (scale, shift, mean, variance)]
        return self.add("BatchNormalization", x, *parameters, epsilon=1e-3)

    def dense(self, x: str, inputs: int, outputs: int) -> str:
        """Dense layer, its weights (outputs, inputs) as torch has them."""
        w = self.weight(outputs, inputs, fan_in=inputs)
        return self.add("Gemm", x, w, self.bias(outputs), transB=1)

    def model(self, output: str, classes: int) -> onnx.ModelProto:
        """The checked model with `output` (n, classes) as its output; n is symbolic."""
        float32 = TensorProto.FLOAT
        graph = helper.make_graph(
            self.nodes,
            self.name,
            [helper.make_tensor_value_info("x", float32, ["n", *self.input_shape])],
            [helper.make_tensor_value_info(output, float32, ["n", classes])],
            self.parameters,
        )
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=8)
        onnx.checker.check_model(model, full_check=True)
        return model


def mlp() -> onnx.ModelProto:
    """(8,) to 5: a dense layer in each of its three spellings, and a Softmax."""
    b = Builder("mlp", 8)
    x = b.add("Relu", b.dense("x", 8, 16))
    x = b.add("Gemm", x, b.weight(16, 12, fan_in=16), b.bias(12), alpha=0.5, beta=2.0)
    x = b.add("Relu", x)
    x = b.add("MatMul", x, b.weight(12, 5, fan_in=12))
    x = b.add("Add", x, b.bias(5))
    return b.model(b.add("Softmax", x, axis=-1), 5)


def small_cnn() -> onnx.ModelProto:
    """(3, 16, 16) to 10: batch normalization, max-pooling, a residual Add, global pooling, Softmax."""
    b = Builder("small_cnn", 3, 16, 16)
    x = b.conv("x", 3, 8, 3, 3, pads=[1, 1, 1, 1])
    x = b.add("Relu", b.batch_norm(x, 8))
    skip = b.add("MaxPool", x, kernel_shape=[2, 2], strides=[2, 2])
    x = b.conv(skip, 8, 8, 3, 3, pads=[1, 1, 1, 1])
    x = b.add("Relu", b.batch_norm(x, 8))
    x = b.add("Add", skip, x)
    x = b.add("Flatten", b.add("GlobalAveragePool", x))
    return b.model(b.add("Softmax", b.dense(x, 8, 10)), 10)


def nhwc_cnn() -> onnx.ModelProto:
    """(12, 12, 3) to 4: channels last, with a Transpose at the entry and one before the reshaping."""
    b = Builder("nhwc_cnn", 12, 12, 3)
    x = b.add("Transpose", "x", perm=[0, 3, 1, 2])
    x = b.add("Relu", b.conv(x, 3, 6, 3, 3, strides=[2, 2], auto_pad="SAME_UPPER"))
    x = b.add("AveragePool", x, kernel_shape=[2, 2], strides=[2, 2])
    x = b.add("Transpose", x, perm=[0, 2, 3, 1])
    x = b.add("Reshape", x, b.constant([-1, 54], np.int64))
    x = b.add("MatMul", x, b.weight(54, 4, fan_in=54))
    return b.model(b.add("Add", x, b.bias(4)), 4)


def cnn_1d() -> onnx.ModelProto:
    """(2, 40) to 3: stride, dilation and uneven pads along one axis; LeakyRelu, Tanh."""
    b = Builder("cnn_1d", 2, 40)
    x = b.add("LeakyRelu", b.conv("x", 2, 6, 5, strides=[2], pads=[2, 1]), alpha=0.1)
    x = b.add("MaxPool", x, kernel_shape=[3], strides=[2], pads=[1, 1])
    x = b.add("Tanh", b.conv(x, 6, 8, 3, dilations=[2]))
    x = b.add("Flatten", b.add("GlobalMaxPool", x))
    return b.model(b.dense(x, 8, 3), 3)


def cnn_3d() -> onnx.ModelProto:
    """(1, 8, 9, 10) to 3: volumes of three different lengths."""
    b = Builder("cnn_3d", 1, 8, 9, 10)
    x = b.add("Relu", b.conv("x", 1, 4, 3, 3, 3, pads=[1] * 6))
    x = b.add("MaxPool", x, kernel_shape=[2, 2, 2], strides=[2, 2, 2])
    x = b.add("Relu", b.conv(x, 4, 6, 2, 3, 3, strides=[2, 1, 1]))
    x = b.add("AveragePool", x, kernel_shape=[1, 2, 2])
    return b.model(b.dense(b.add("Flatten", x), 6 * 2 * 1 * 2, 3), 3)


def depthwise_cnn() -> onnx.ModelProto:
    """(3, 20, 20) to 7: depthwise separable blocks with a Clip to 0…6 that is reached, as in MobileNet."""
    b = Builder("depthwise_cnn", 3, 20, 20)
    low = b.add("Constant", value=numpy_helper.from_array(np.array(0, np.float32)))
    high = b.add("Constant", value=numpy_helper.from_array(np.array(6, np.float32)))

    def clip(x: str, channels: int) -> str:
        return b.add("Clip", b.batch_norm(x, channels, gain=3), low, high)

    x = clip(b.conv("x", 3, 8, 3, 3, strides=[2, 2], auto_pad="SAME_UPPER"), 8)
    for inputs, outputs, stride in ((8, 12, 1), (12, 12, 2)):
        depthwise = b.conv(x, inputs, inputs, 3, 3, group=inputs, strides=[stride] * 2, pads=[1] * 4)
        x = clip(b.conv(clip(depthwise, inputs), inputs, outputs, 1, 1), outputs)
    x = b.batch_norm(b.conv(x, 12, 12, 1, 1), 12)
    x = b.add("Reshape", b.add("GlobalAveragePool", x), b.constant([0, -1], np.int64))
    return b.model(b.dense(x, 12, 7), 7)


def transposed_cnn() -> onnx.ModelProto:
    """(4, 9, 9) to 5: grouped, dilated and transposed convolution, average pooling that counts its pads."""
    b = Builder("transposed_cnn", 4, 9, 9)
    x = b.add("Relu", b.conv("x", 4, 8, 3, 3, group=2, strides=[2, 2], dilations=[2, 1], pads=[2, 1, 2, 1]))
    w = b.weight(8, 3, 3, 3, fan_in=4 * 9)
    up = {"strides": [2, 2], "pads": [1, 0, 1, 0], "output_padding": [1, 0]}
    x = b.add("ConvTranspose", x, w, b.bias(6), group=2, **up)
    x = b.add("Relu", b.batch_norm(x, 6))
    pool = {"kernel_shape": [3, 3], "strides": [2, 2], "pads": [1, 1, 1, 1]}
    x = b.add("AveragePool", x, count_include_pad=1, **pool)
    x = b.add("AveragePool", x, count_include_pad=0, **pool)
    return b.model(b.dense(b.add("Flatten", x), 6 * 3 * 3, 5), 5)


def branches() -> onnx.ModelProto:
    """(3, 10, 10) to 6: constants at the entry, Split, Slice, Pad, Concat, Sum, and nodes that do nothing."""
    b = Builder("branches", 3, 10, 10)
    x = b.add("Sub", "x", b.constant(np.reshape([0.1, 0.2, 0.3], (1, 3, 1, 1))))
    x = b.add("Div", x, b.constant(np.reshape([0.8, 0.9, 1.1], (1, 3, 1, 1))))
    x = b.add("Relu", b.conv(x, 3, 8, 3, 3))
    left, right = b.add_several(2, "Split", x, b.constant([3, 5], np.int64), axis=1)
    left = b.add("Relu", b.conv(left, 3, 4, 3, 3))
    begin, end, axes = (b.constant(k, np.int64) for k in ([0, 1], [99, -1], [2, 3]))
    right = b.add("Slice", right, begin, end, axes)
    right = b.add("MaxPool", right, kernel_shape=[3, 3])
    pads = b.constant([0, 0, 0, 1, 0, 0, 0, 1], np.int64)
    right = b.add("Identity", b.add("Pad", right, pads))
    joined = b.add("Concat", left, right, axis=1)
    x = b.add("Sum", joined, b.conv(joined, 9, 9, 1, 1), b.add("Relu", b.conv(joined, 9, 9, 1, 1)))
    x = b.add("GlobalAveragePool", b.add("Dropout", x))
    x = b.add("Squeeze", x, b.constant([2, 3], np.int64))
    x = b.add("Mul", b.dense(x, 9, 6), b.constant(0.25))
    return b.model(b.add("Sigmoid", x), 6)


SMALL_NETWORKS: dict[str, Callable[[], onnx.ModelProto]] = {
    make.__name__: make
    for make in (mlp, small_cnn, nhwc_cnn, cnn_1d, cnn_3d, depthwise_cnn, transposed_cnn, branches)
}


def random_input(model: onnx.ModelProto, samples: int = 3, seed: int = 0) -> NDArray[np.float32]:
    """Normally distributed input of the shape that `model` reads."""
    shape = [d.dim_value for d in model.graph.input[0].type.tensor_type.shape.dim][1:]
    return np.random.default_rng(seed).normal(size=(samples, *shape)).astype(np.float32)


def onnxruntime_forward(model: onnx.ModelProto | str | bytes, x: NDArray[np.float32]) -> NDArray[np.float32]:
    """The first output that onnxruntime computes, on one thread, of a model or a file (path or bytes)."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    source = model.SerializeToString() if isinstance(model, onnx.ModelProto) else model
    session = onnxruntime.InferenceSession(source, options, providers=["CPUExecutionProvider"])
    result: NDArray[np.float32] = session.run(None, {session.get_inputs()[0].name: x})[0]
    return result
