"""Networks described by hand: layers under the names that deep-learning users know."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from .errors import ModelError
from .graph import Fact, Graph, Node, checked_shape, infer, prune
from .network import Network
from .ops.activation import Clip, HardSigmoid, LeakyRelu, PRelu, Relu, Sigmoid, Tanh
from .ops.affine import batch_normalization
from .ops.arithmetic import Add
from .ops.base import Op
from .ops.conv import Conv, ConvTranspose
from .ops.function import Function
from .ops.gemm import Gemm
from .ops.movement import Concat, Pad, Reshape, Transpose
from .ops.pool import AveragePool, GlobalAveragePool, GlobalMaxPool, MaxPool
from .ops.smooth import Celu, Elu, Gelu, Selu, Swish
from .ops.softmax import LogSoftmax, Softmax

Size = int | tuple[int, ...]


@dataclass(frozen=True)
class Deferred:
    """A layer that needs to see its input's shape before it is an operator."""

    name: str
    make: Callable[[Fact], Op]


Layer = Op | Deferred


def resolve(layer: Layer, *facts: Fact) -> Op:
    """The operator that a layer is, given its inputs."""
    if isinstance(layer, Deferred):
        return layer.make(facts[0])
    if not isinstance(layer, Op):
        raise ModelError(f"{layer!r} is not a layer; use lrpfast.Dense, lrpfast.Conv2d, lrpfast.ReLU, …")
    return layer


def _each(value: Size, axes: int, name: str) -> tuple[int, ...]:
    """A whole number for every spatial axis."""
    values = tuple(value) if isinstance(value, (tuple, list)) else (value,) * axes
    if len(values) != axes or not all(isinstance(v, (int, np.integer)) for v in values):
        raise ModelError(f"{name} is {value!r}; expected a whole number, or {axes} of them")
    return tuple(int(v) for v in values)


def _weight(weight: Any, ndim: int, layer: str) -> Any:
    weight = np.asarray(weight)
    if weight.ndim != ndim:
        raise ModelError(f"{layer} got a weight of shape {weight.shape}; expected {ndim} axes")
    return weight


def _conv(axes: int) -> Callable[..., Conv]:
    def conv(
        weight: Any,
        bias: Any = None,
        stride: Size = 1,
        padding: Size = 0,
        dilation: Size = 1,
        groups: int = 1,
    ) -> Conv:
        weight = _weight(weight, axes + 2, f"Conv{axes}d")
        pads = _each(padding, axes, "padding")
        return Conv(
            weight,
            bias,
            _each(stride, axes, "stride"),
            pads + pads,
            _each(dilation, axes, "dilation"),
            groups,
        )

    conv.__name__ = conv.__qualname__ = f"Conv{axes}d"
    conv.__doc__ = f"""Convolution over {axes} spatial ax{"is" if axes == 1 else "es"}.

    Parameters
    ----------
    weight : array (out_channels, in_channels / groups, {", ".join("k" * axes)})
    bias : array (out_channels,), optional
    stride, padding, dilation : int or tuple of int, default 1, 0 and 1
        Padding is zeros at both ends.
    groups : int, default 1
    """
    return conv


def _conv_transpose(axes: int) -> Callable[..., ConvTranspose]:
    def conv_transpose(
        weight: Any, bias: Any = None, stride: Size = 1, padding: Size = 0, output_padding: Size = 0,
        groups: int = 1, dilation: Size = 1,
    ) -> ConvTranspose:  # fmt: skip
        weight = _weight(weight, axes + 2, f"ConvTranspose{axes}d")
        pads = _each(padding, axes, "padding")
        return ConvTranspose(
            weight, bias, _each(stride, axes, "stride"), pads + pads, _each(dilation, axes, "dilation"), groups,
            _each(output_padding, axes, "output_padding"),
        )  # fmt: skip

    conv_transpose.__name__ = conv_transpose.__qualname__ = f"ConvTranspose{axes}d"
    conv_transpose.__doc__ = f"""Transposed convolution over {axes} spatial ax{"is" if axes == 1 else "es"}.

    Parameters
    ----------
    weight : array (in_channels, out_channels / groups, {", ".join("k" * axes)})
    bias : array (out_channels,), optional
    stride, padding, output_padding, dilation : int or tuple of int, default 1, 0, 0 and 1
    groups : int, default 1
    """
    return conv_transpose


def _pool(kind: str, axes: int) -> Callable[..., Op]:
    def pool(
        window: Size, stride: Size | None = None, padding: Size = 0, ceil_mode: bool = False,
        count_include_pad: bool = True,
    ) -> Op:  # fmt: skip
        size = _each(window, axes, "window")
        strides = size if stride is None else _each(stride, axes, "stride")
        pads = _each(padding, axes, "padding") * 2
        ones = (1,) * axes
        if kind == "Max":
            return MaxPool(size, strides, pads, ones, ceil_mode)
        return AveragePool(size, strides, pads, ones, ceil_mode, count_include_pad)

    pool.__name__ = pool.__qualname__ = f"{kind}Pool{axes}d"
    pool.__doc__ = f"""{"Maximum" if kind == "Max" else "Average"} over windows of {axes} spatial axes.

    Parameters
    ----------
    window : int or tuple of int
    stride : int or tuple of int, optional
        Default: the window.
    padding : int or tuple of int, default 0
    ceil_mode : bool, default False
        Keep windows that reach over the end.
    count_include_pad : bool, default True
        Averages only: padding counts.
    """
    return pool


Conv1d, Conv2d, Conv3d = _conv(1), _conv(2), _conv(3)
ConvTranspose1d, ConvTranspose2d, ConvTranspose3d = (_conv_transpose(axes) for axes in (1, 2, 3))
MaxPool1d, MaxPool2d, MaxPool3d = (_pool("Max", axes) for axes in (1, 2, 3))
AvgPool1d, AvgPool2d, AvgPool3d = (_pool("Avg", axes) for axes in (1, 2, 3))


def Dense(weight: Any, bias: Any = None) -> Gemm:
    """Dense layer `y = W x + b` on the last axis.

    Parameters
    ----------
    weight : array (out_features, in_features)
    bias : array (out_features,), optional
    """
    return Gemm(_weight(weight, 2, "Dense"), bias)


def ReLU() -> Relu:
    """`max(x, 0)`."""
    return Relu()


def ReLU6() -> Clip:
    """`min(max(x, 0), 6)`."""
    return Clip(0.0, 6.0)


def LeakyReLU(negative_slope: float = 0.01) -> LeakyRelu:
    """`x` where positive, else `negative_slope · x`."""
    return LeakyRelu(negative_slope)


def PReLU(weight: Any) -> Deferred:
    """`x` where positive, else `weight · x`.

    Parameters
    ----------
    weight : float or array (channels,)
        One number, or one for each channel (axis 1).
    """

    def make(fact: Fact) -> Op:
        slope = np.asarray(weight)
        if slope.size == 1:
            return LeakyRelu(float(slope.reshape(-1)[0]))
        if slope.ndim != 1:
            raise ModelError(f"PReLU got a weight of shape {slope.shape}; expected one axis, of channels")
        return PRelu(slope.reshape(-1, *(1,) * (len(fact.shape) - 1)))

    return Deferred("PRelu", make)


def ELU(alpha: float = 1.0) -> Elu:
    """`x` where positive, else `alpha · (exp(x) − 1)`."""
    return Elu(alpha)


def SELU() -> Selu:
    """1.0507 times an ELU with alpha 1.6733."""
    return Selu()


def CELU(alpha: float = 1.0) -> Celu:
    """`x` where positive, else `alpha · (exp(x / alpha) − 1)`."""
    return Celu(alpha)


def GELU(approximate: str = "none") -> Gelu:
    """`x Φ(x)`, Φ the distribution of a normal variable, or its approximation by "tanh"."""
    return Gelu(approximate)


def SiLU() -> Swish:
    """`x / (1 + exp(−x))`, also known as Swish."""
    return Swish()


def Mish() -> Function:
    """`x · tanh(log(1 + exp(x)))`."""
    return Function("Mish")


def Softplus() -> Function:
    """`log(1 + exp(x))`."""
    return Function("Softplus")


def Softsign() -> Function:
    """`x / (1 + |x|)`."""
    return Function("Softsign")


def Hardswish() -> Function:
    """`x · min(max(x / 6 + 1/2, 0), 1)`."""
    return Function("HardSwish")


def Hardsigmoid() -> HardSigmoid:
    """`min(max(x / 6 + 1/2, 0), 1)`."""
    return HardSigmoid(1 / 6, 0.5)


def Flatten() -> Deferred:
    """Everything behind the batch axis in one axis."""
    return Deferred("Flatten", lambda fact: Reshape((fact.size,)))


def BatchNorm(gamma: Any, beta: Any, mean: Any, var: Any, eps: float = 1e-5) -> Deferred:
    """Batch normalisation as in inference: `γ (x − mean) / √(var + eps) + β` per channel (axis 1).

    Parameters
    ----------
    gamma, beta, mean, var : array (channels,)
    eps : float, default 1e-5
    """

    def make(fact: Fact) -> Op:
        return batch_normalization(gamma, beta, mean, var, eps, len(fact.shape) - 1)

    return Deferred("BatchNormalization", make)


class Builder:
    """Describes a network with branches, layer by layer.

    Parameters
    ----------
    input_shape : tuple of int
        Of one sample, without the batch axis.

    Examples
    --------
    >>> build = Builder((8, 32, 32))
    >>> w = np.zeros((8, 8, 3, 3), np.float32)
    >>> a = build(ReLU(), build(Conv2d(w, padding=1), build.input))
    >>> network = build.network(build(Add(), a, build.input))
    >>> network.output_shape
    (8, 32, 32)
    """

    def __init__(self, input_shape: tuple[int, ...]) -> None:
        self.input = "input"
        self.input_shape = checked_shape(tuple(int(n) for n in input_shape))
        self._nodes: list[Node] = []
        self._facts = {self.input: Fact(self.input_shape)}

    def __call__(self, layer: Layer, *inputs: str, name: str | None = None) -> str:
        """Apply a layer to arrays; returns the name of its output.

        Parameters
        ----------
        layer : layer
        *inputs : str
            `builder.input`, or what earlier calls returned.
        name : str, optional
            Of the node; default: the operator and a number.
        """
        unknown = [i for i in inputs if i not in self._facts]
        if unknown or not inputs:
            raise ModelError(
                f"a layer reads {unknown or 'nothing'}; known arrays are {', '.join(self._facts)}"
            )
        facts = [self._facts[i] for i in inputs]
        op = resolve(layer, *facts)
        name = name or f"{op.kinds[0]}_{len(self._nodes)}"
        if name in self._facts:
            raise ModelError(f"node name {name!r} is used twice; give each node its own name")
        try:
            self._facts[name] = infer(op, *facts)
        except ModelError as error:
            raise ModelError(f"node {name!r} ({op.kinds[0]}): {error}") from None
        self._nodes.append(Node(name, op, inputs, name))
        return name

    def network(self, output: str, name: str = "network") -> Network:
        """The network that ends in `output`."""
        return Network(Graph({self.input: Fact(self.input_shape)}, prune(output, self._nodes), output), name)


def Sequential(*layers: Layer, input_shape: tuple[int, ...] | None = None, name: str = "network") -> Network:
    """A network of layers, one after the other.

    Parameters
    ----------
    *layers : layer
    input_shape : tuple of int, optional
        Of one sample. Default: what the first layer demands if that is a dense layer, else what the
        first array shows.

    Examples
    --------
    >>> w = np.ones((2, 3), np.float32)
    >>> Sequential(Dense(w), ReLU()).output_shape
    (2,)
    """
    if not layers:
        raise ModelError("Sequential got no layers; give at least one")

    def graph(shape: tuple[int, ...]) -> Graph:
        build = Builder(shape)
        value = build.input
        for layer in layers:
            value = build(layer, value)
        return build.network(value).graph

    if input_shape is None and isinstance(layers[0], Gemm):
        input_shape = (layers[0].weight.shape[1],)
    for layer in layers:
        if not isinstance(layer, (Op, Deferred)):
            resolve(layer)
    return Network(graph if input_shape is None else graph(tuple(input_shape)), name)


__all__ = [
    "CELU",
    "ELU",
    "GELU",
    "SELU",
    "Add",
    "AvgPool1d",
    "AvgPool2d",
    "AvgPool3d",
    "BatchNorm",
    "Builder",
    "Concat",
    "Conv1d",
    "Conv2d",
    "Conv3d",
    "ConvTranspose1d",
    "ConvTranspose2d",
    "ConvTranspose3d",
    "Dense",
    "Flatten",
    "GlobalAveragePool",
    "GlobalMaxPool",
    "Hardsigmoid",
    "Hardswish",
    "LeakyReLU",
    "LogSoftmax",
    "MaxPool1d",
    "MaxPool2d",
    "MaxPool3d",
    "Mish",
    "PReLU",
    "Pad",
    "ReLU",
    "ReLU6",
    "Reshape",
    "Sequential",
    "SiLU",
    "Sigmoid",
    "Softmax",
    "Softplus",
    "Softsign",
    "Tanh",
    "Transpose",
]  # fmt: skip
