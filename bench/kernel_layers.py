"""Calls of kernels on layers of well-known networks, with the endings that plans give them.

Arrays are as a network has them: half of the inputs and of the relevance is zero, since they come after a ReLU;
and every array begins at a cache line, as in a plan.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields, is_dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from lrpfast.backends import KERNELS, numpy_
from lrpfast.backends.ending import Ending, Quotient

Array = NDArray[Any]
Arguments = dict[str, Any]
Shape = tuple[int, ...]

WHOLE, POSITIVE = (1.0, 1.0), (1.0, 0.0)
RNG = np.random.default_rng(0)


class Call(NamedTuple):
    """The keyword arguments of a kernel, and how many additions, multiplications and so on it takes."""

    arguments: Arguments
    operations: int


# --- arrays ---


def aligned(array: Array) -> Array:
    """A copy that begins at a cache line."""
    memory = np.empty(array.nbytes + 64, np.uint8)
    start = -memory.ctypes.data % 64
    found = memory[start : start + array.nbytes].view(array.dtype).reshape(array.shape)
    found[...] = array
    return found


def normal(*shape: int) -> Array:
    return aligned(RNG.standard_normal(shape, dtype=np.float32))


def rectified(shape: Shape, lanes: int = 0) -> Array:
    """Of a blocked array, if it has lanes."""
    values = np.maximum(normal(*shape), 0)
    return aligned(numpy_.blocked(values, lanes) if lanes else values)


def zeros(like: Array) -> Array:
    return aligned(np.zeros_like(like))


def arrays_of(value: Any) -> list[Array]:
    """All arrays of a call's arguments, those in endings too."""
    if isinstance(value, np.ndarray):
        return [value]
    if isinstance(value, dict):
        return [array for each in value.values() for array in arrays_of(each)]
    if is_dataclass(value):
        return [array for f in fields(value) for array in arrays_of(getattr(value, f.name))]
    return []


# --- endings ---


def relu(shape: Shape, lanes: int = 0) -> Ending:
    """A layer with bias and the ReLU behind it."""
    return Ending(rectified(shape, lanes), bias=normal(shape[1]), clamp=(1.0, 0.0, np.inf))


def times(shape: Shape, lanes: int = 0) -> Ending:
    """Relevance handed back: times the input, and summed up for the ledger."""
    out = rectified(shape, lanes)
    return Ending(out, times=rectified(shape, lanes), sums=np.zeros((shape[0], 2)))


def divided(shape: Shape, lanes: int = 0) -> Ending:
    """Denominators that the relevance is divided by at once."""
    return Ending(zeros(rectified(shape, lanes)), quotient=quotient(shape, lanes))


def quotient(shape: Shape, lanes: int) -> Quotient:
    return Quotient(rectified(shape, lanes), np.zeros((shape[0], 4)), 1e-6, bias=np.abs(normal(shape[1])))


Make = Callable[..., Ending]
FORWARD: dict[str, tuple[Make, tuple[float, float]]] = {"relu": (relu, WHOLE), "divided": (divided, POSITIVE)}
"""How forward kernels of linear layers end, and the part of the weights that they take: in a prediction, and for
the denominators of the z⁺ rule."""


# --- calls: functions of the kernel's name, its ending, a backend's lanes, and a layer's sizes ---


def linear(kernel: str, ending: str, x: Shape, z: Shape, x_lanes: int = 0, z_lanes: int = 0) -> Arguments:
    """Forward, or the vjp of the z⁺ rule."""
    make, w_part = FORWARD[ending or "relu"] if kernel.endswith("forward") else (times, POSITIVE)
    (src, src_lanes), (out, lanes) = ((x, x_lanes), (z, z_lanes))[:: 1 if kernel.endswith("forward") else -1]
    return {"src": rectified(src, src_lanes), "src_part": WHOLE, "w_part": w_part, "end": make(out, lanes)}


def windows(side: int, window: int, stride: int, pad: int) -> tuple[Shape, Shape, Arguments]:
    """Sizes of x and z, and the geometry, for square windows on square pictures."""
    out = (side + 2 * pad - window) // stride + 1
    geometry = {"strides": (1, stride, stride), "pads": (0, pad, pad), "dilations": (1, 1, 1)}
    return (1, side, side), (1, out, out), geometry


def gemm(kernel: str, ending: str, lanes: int, n: int, k: int, m: int) -> Call:
    return Call(linear(kernel, ending, (n, k), (n, m)) | {"w": normal(m, k)}, 2 * n * m * k)


def conv(kernel: str, ending: str, lanes: int, c: int, m: int, side: int, taps: int, stride: int) -> Call:
    x, z, geometry = windows(side, taps, stride, taps // 2)
    arguments = linear(kernel, ending, (1, c, *x), (1, m, *z), min(c, lanes), lanes)
    rest = {"w": normal(m, c, 1, taps, taps), "groups": 1, "other_part": None, "exact": ending == "divided"}
    return Call(arguments | geometry | rest, 2 * m * c * taps**2 * int(np.prod(z)))


def depthwise(kernel: str, ending: str, lanes: int, c: int, side: int, taps: int, stride: int) -> Call:
    x, z, geometry = windows(side, taps, stride, taps // 2)
    arguments = linear(kernel, ending, (1, c, *x), (1, c, *z), lanes, lanes)
    rest = {"w": normal(c, 1, 1, taps, taps), "src_high": np.inf}
    return Call(arguments | geometry | rest, 2 * c * taps**2 * int(np.prod(z)))


def sumpool(kernel: str, ending: str, lanes: int, c: int, side: int, window: int, stride: int) -> Call:
    x, z, geometry = windows(side, window, stride, 0)
    arguments = linear(kernel, ending, (1, c, *x), (1, c, *z), lanes, lanes)
    rest = {"w": np.full(z, 1 / window**2, np.float32), "window": (1, window, window)}
    return Call(arguments | geometry | rest, c * window**2 * int(np.prod(z)))


def maxpool(
    kernel: str, ending: str, lanes: int, c: int, side: int, window: int, stride: int, pad: int
) -> Call:
    x, z, geometry = windows(side, window, stride, pad)
    out, size = rectified((1, c, *z), lanes), c * int(np.prod(z))
    outputs = {"out": out, "winners": aligned(np.zeros(out.shape, np.int32))}
    forward = {"src": rectified((1, c, *x), lanes), "window": (1, window, window), **geometry, **outputs}
    if kernel.endswith("forward"):
        return Call(forward, window**2 * size)
    numpy_.maxpool_forward(**forward)
    vjp = {"src": rectified((1, c, *z), lanes), "winners": outputs["winners"], "window": (1, window, window)}
    return Call(vjp | geometry | {"end": Ending(rectified((1, c, *x), lanes))}, size)


def affine(kernel: str, ending: str, lanes: int, m: int, inner: int) -> Call:
    shape = (1, m, inner)
    arguments = {"src": rectified(shape, lanes), "w": normal(m), "src_part": WHOLE, "w_part": WHOLE}
    return Call(arguments | {"end": relu(shape, lanes)}, 3 * m * inner)


def collect(kernel: str, ending: str, lanes: int, m: int, inner: int) -> Call:
    """A sum of relevance: adds to what is there."""
    src = rectified((1, m, inner), lanes)
    end = Ending(zeros(src), plus=rectified((1, m, inner), lanes))
    return Call({"src": src, "src_part": WHOLE, "end": end}, m * inner)


def divide(kernel: str, ending: str, lanes: int, m: int, inner: int) -> Call:
    shape = (1, m, inner)
    return Call({"z": rectified(shape, lanes), "norm_size": 0, "end": divided(shape, lanes)}, 3 * m * inner)


def reorder(kernel: str, ending: str, lanes: int, m: int, inner: int) -> Call:
    """To the plain order, as before a dense layer."""
    shape = (1, m, inner)
    arguments = {"src": rectified(shape, lanes), "channels": m, "end": Ending(rectified(shape, 1))}
    return Call(arguments, m * inner)


def sums(kernel: str, ending: str, lanes: int, m: int, inner: int) -> Call:
    return Call({"src": rectified((1, m * inner)), "out": np.zeros((1, 2))}, 2 * m * inner)


# --- layers ---

ELEMENTWISE: dict[str, tuple[int, ...]] = {"resnet18_layer1": (64, 56 * 56), "vgg16_conv1": (64, 224 * 224)}

LAYERS: dict[Callable[..., Call], dict[str, tuple[int, ...]]] = {
    gemm: {"vgg16_fc7": (1, 4096, 4096), "resnet50_fc_batch256": (256, 2048, 1000)},
    conv: {
        "resnet18_layer1": (64, 64, 56, 3, 1), "vgg16_conv5": (512, 512, 14, 3, 1),
        "resnet50_layer1_1x1": (64, 256, 56, 1, 1), "resnet50_layer3_1x1": (1024, 256, 14, 1, 1),
        "resnet18_layer2_strided": (64, 128, 56, 3, 2), "resnet50_layer4_strided": (512, 512, 14, 3, 2),
        "vgg16_conv1": (3, 64, 224, 3, 1), "resnet18_stem": (3, 64, 224, 7, 2),
    },
    depthwise: {
        "mobilenet_v2_14": (576, 14, 3, 1), "mobilenet_v2_112_strided": (96, 112, 3, 2),
        "efficientnet_28_5x5": (240, 28, 5, 1), "efficientnet_56_5x5_strided": (144, 56, 5, 2),
    },
    sumpool: {"densenet121_transition": (128, 56, 2, 2), "resnet50_head": (2048, 7, 7, 1)},
    maxpool: {"resnet18_stem": (64, 112, 3, 2, 1), "vgg16_pool1": (64, 224, 2, 2, 0)},
    affine: {"densenet121_block1": (256, 56 * 56), "densenet121_block4": (1024, 7 * 7)},
    collect: ELEMENTWISE,
    divide: ELEMENTWISE,
    reorder: {"vgg16_flatten": (512, 7 * 7), "resnet18_layer1": (64, 56 * 56)},
    sums: ELEMENTWISE,
}  # fmt: skip
"""For each family of kernels its layers: the sizes that the function which makes a call takes."""


def family_of(kernel: str) -> Callable[..., Call]:
    return next(family for family in LAYERS if kernel.startswith(family.__name__))


def endings_of(kernel: str) -> tuple[str, ...]:
    """What tells two calls of a kernel apart, if there are two."""
    return tuple(FORWARD) if kernel in ("gemm_forward", "conv_forward", "depthwise_forward") else ("",)


CALLS = [
    (kernel, layer, ending)
    for kernel in KERNELS
    for layer in LAYERS[family_of(kernel)]
    for ending in endings_of(kernel)
]


def make_call(kernel: str, layer: str, ending: str, lanes: int) -> Call:
    """One of `CALLS` in arrays with so many lanes."""
    family = family_of(kernel)
    return family(kernel, ending, lanes, *LAYERS[family][layer])
