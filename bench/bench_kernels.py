"""Each kernel on two layers of well-known networks, on one thread, on every compiled backend.

Arrays are as a network has them: half of the inputs and of the relevance is zero, since they come after a
ReLU. `GF/s` counts the operations that the definition spends, zeros included, so skipping those shows as a
higher rate; `GB/s` counts each array once. Which SIMD target runs: the environment variable LRPFAST_TARGET.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import pytest
from numpy.typing import NDArray
from pytest_benchmark.fixture import BenchmarkFixture

from lrpfast import backends
from lrpfast.backends import numpy_

# The third backend, numpy, is the definition: it gives the answers and need not be fast.
COMPILED = tuple(name for name in ("native", "numba") if not backends.available()[name])

OUTPUTS = ("out", "winners", "ledger")

Array = NDArray[Any]
Arguments = dict[str, Any]
Shape = tuple[int, ...]


class Call(NamedTuple):
    """The keyword arguments of a kernel, and how many additions, multiplications and so on it takes."""

    arguments: Arguments
    operations: int


# --- arrays ---

RNG = np.random.default_rng(0)


def normal(*shape: int) -> Array:
    return RNG.standard_normal(shape, dtype=np.float32)


def rectified(*shape: int) -> Array:
    return np.maximum(normal(*shape), 0)


def zeros(*shape: int) -> Array:
    return np.zeros(shape, np.float32)


# --- calls: functions of the kernel's name and of a layer's sizes ---


def linear(kernel: str, x: Shape, w: Array, z: Shape) -> Arguments:
    """A forward pass with bias; or the vjp of the z⁺ rule, the relevance `x ⊙ (w⁺)ᵀ s`."""
    forward = kernel.endswith("forward")
    return {
        "src": rectified(*(x if forward else z)),
        "w": w,
        "src_part": (1.0, 1.0),
        "w_part": (1.0, 1.0) if forward else (1.0, 0.0),
        "bias": normal(z[1]) if forward else None,
        "times": None if forward else rectified(*x),
        "times_part": (1.0, 1.0),
        "out": zeros(*(z if forward else x)),
        "accumulate": False,
    }


def windows(side: int, window: int, stride: int, pad: int) -> tuple[Shape, Shape, Arguments]:
    """Sizes of x and z, and the geometry, for square windows on square pictures."""
    out = (side + 2 * pad - window) // stride + 1
    geometry = {"strides": (1, stride, stride), "pads": (0, pad, pad), "dilations": (1, 1, 1)}
    return (1, side, side), (1, out, out), geometry


def gemm(kernel: str, n: int, k: int, m: int) -> Call:
    return Call(linear(kernel, (n, k), normal(m, k), (n, m)), 2 * n * m * k)


def conv(kernel: str, c: int, m: int, side: int, taps: int, stride: int) -> Call:
    x, z, geometry = windows(side, taps, stride, taps // 2)
    arguments = linear(kernel, (1, c, *x), normal(m, c, 1, taps, taps), (1, m, *z))
    return Call(arguments | geometry | {"groups": 1}, 2 * m * c * taps**2 * int(np.prod(z)))


def depthwise(kernel: str, c: int, side: int, taps: int, stride: int) -> Call:
    x, z, geometry = windows(side, taps, stride, taps // 2)
    arguments = linear(kernel, (1, c, *x), normal(c, 1, 1, taps, taps), (1, c, *z))
    return Call(arguments | geometry, 2 * c * taps**2 * int(np.prod(z)))


def sumpool(kernel: str, c: int, side: int, window: int, stride: int) -> Call:
    x, z, geometry = windows(side, window, stride, 0)
    arguments = linear(kernel, (1, c, *x), np.full(z, 1 / window**2, np.float32), (1, c, *z))
    return Call(arguments | geometry | {"window": (1, window, window)}, c * window**2 * int(np.prod(z)))


def maxpool(kernel: str, c: int, side: int, window: int, stride: int, pad: int) -> Call:
    x, z, geometry = windows(side, window, stride, pad)
    src, size = rectified(1, c, *x), c * int(np.prod(z))
    forward = {"src": src, "window": (1, window, window), **geometry}
    forward |= {"out": zeros(1, c, *z), "winners": np.zeros((1, c, *z), np.int32)}
    if kernel.endswith("forward"):
        return Call(forward, window**2 * size)
    numpy_.maxpool_forward(**forward)
    vjp = {
        "src": normal(1, c, *z),
        "winners": forward["winners"],
        "out": zeros(1, c, *x),
        "accumulate": False,
    }
    return Call(vjp, size)


def clamp(kernel: str, m: int, inner: int) -> Call:
    src = normal(1, m, inner)
    return Call({"src": src, "slope": 1.0, "low": 0.0, "high": 6.0, "out": zeros(*src.shape)}, 2 * src.size)


def collect(kernel: str, m: int, inner: int) -> Call:
    src, times = normal(1, m, inner), rectified(1, m, inner)
    parts = {"src_part": (1.0, 1.0), "times_part": (1.0, 1.0)}
    return Call(
        {"src": src, "times": times, **parts, "out": zeros(*src.shape), "accumulate": True}, 2 * src.size
    )


def divide(kernel: str, m: int, inner: int) -> Call:
    z = rectified(1, m, inner)
    arguments = {
        "z": z, "r": normal(1, m, inner) * (z > 0), "gate_z": None, "gate": 0, "bias": normal(m), "scale": 1.0,
        "epsilon": 1e-6, "clip": False, "norm_scale": False, "out": zeros(*z.shape), "ledger": np.zeros((1, 4)),
    }  # fmt: skip
    return Call(arguments, 3 * z.size)


def sums(kernel: str, m: int, inner: int) -> Call:
    return Call({"src": normal(1, m * inner), "out": np.zeros((1, 2))}, 2 * m * inner)


# --- layers ---

ELEMENTWISE: dict[str, tuple[int, ...]] = {"resnet18_layer1": (64, 56 * 56), "vgg16_conv1": (64, 224 * 224)}

LAYERS: dict[Callable[..., Call], dict[str, tuple[int, ...]]] = {
    gemm: {"vgg16_fc7": (1, 4096, 4096), "resnet50_fc_batch32": (32, 2048, 1000)},
    conv: {"resnet18_layer1": (64, 64, 56, 3, 1), "resnet50_layer3_1x1": (1024, 256, 14, 1, 1)},
    depthwise: {"mobilenet_v2_112": (96, 112, 3, 2), "mobilenet_v2_14": (576, 14, 3, 1)},
    sumpool: {"densenet_transition": (128, 56, 2, 2), "resnet50_head": (2048, 7, 7, 1)},
    maxpool: {"resnet18_stem": (64, 112, 3, 2, 1), "vgg16_pool1": (64, 224, 2, 2, 0)},
    clamp: ELEMENTWISE,
    collect: ELEMENTWISE,
    divide: ELEMENTWISE,
    sums: ELEMENTWISE,
}
"""For each family of kernels the arguments, behind the kernel's name, of the function that makes a call."""


def family_of(kernel: str) -> Callable[..., Call]:
    return next(family for family in LAYERS if kernel.startswith(family.__name__))


CASES = [(kernel, layer) for kernel in backends.KERNELS for layer in LAYERS[family_of(kernel)]]


@pytest.mark.parametrize("backend", COMPILED)
@pytest.mark.parametrize(("kernel", "layer"), CASES)
def test_kernel(
    benchmark: BenchmarkFixture,
    record_property: Callable[[str, object], None],
    kernel: str,
    layer: str,
    backend: str,
) -> None:
    family, module = family_of(kernel), backends.get(backend)
    arguments, operations = family(kernel, *LAYERS[family][layer])
    expected = {key: value.copy() if key in OUTPUTS else value for key, value in arguments.items()}
    getattr(numpy_, kernel)(**expected)

    benchmark.group = f"{kernel} {layer}"
    benchmark.extra_info["backend"] = backends.describe(module)
    with module.limit_threads(1):
        # The call whose answer counts also warms up: Numba compiles here. Later ones add to some outputs.
        getattr(module, kernel)(**arguments)
        answer = {key: arguments[key].copy() for key in OUTPUTS if key in arguments}
        benchmark(getattr(module, kernel), **arguments)
    for key, found in answer.items():
        largest = np.abs(expected[key]).max()
        np.testing.assert_allclose(found, expected[key], rtol=0, atol=1e-5 * largest, err_msg=key)

    if benchmark.stats:  # there are none under --benchmark-disable
        size = sum(value.nbytes for value in arguments.values() if isinstance(value, np.ndarray))
        for unit, count in (("GF/s", operations), ("GB/s", size)):
            rate = count / benchmark.stats.stats.median / 1e9
            benchmark.extra_info[unit] = rate
            record_property(unit, rate)
