"""All kernels of all backends against their definition, computed in float64."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lrpfast import backends
from lrpfast.backends import numpy_

Case = dict[str, Any]
Draw = Callable[[Any], Any]

PARTS = [(1.0, 1.0), (1.0, 0.0), (0.0, 1.0), (1.0, -1.0), (1.25, 1.0), (0.0, 0.0)]
F32 = np.float32
OUTPUTS = ("out", "winners", "ledger")
BATCHED = ("src", "times", "out", "winners", "z", "r", "gate_z", "ledger")


def _runners() -> list[str]:
    """Each backend that can run, and the native one once for every SIMD target of this machine."""
    names = [name for name, reason in backends.available().items() if not reason]
    targets = backends.get("native").targets() if "native" in names else ()
    return [f"native {target}" for target in targets] + [name for name in names if name != "native"]


RUNNERS = _runners()
NATIVE = [runner for runner in RUNNERS if runner.startswith("native")]


@contextmanager
def running(runner: str) -> Any:
    """The backend's module, with its SIMD target set."""
    name, _, target = runner.partition(" ")
    module = backends.get(name)
    before = module.target() if target else ""
    if target:
        module.set_target(target)
    try:
        yield module
    finally:
        if target:
            module.set_target(before)


# --- cases: the keyword arguments of one call ---


def _array(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray[Any, Any]:
    """Normal numbers that float32 can hold, a fifth of them zero."""
    values = rng.normal(size=shape) * (rng.random(shape) > 0.2)
    return values.astype(np.float32).astype(np.float64)


def _linear(draw: Draw, src: tuple[int, ...], w: tuple[int, ...], out: tuple[int, ...]) -> Case:
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    part = st.sampled_from(PARTS)
    return {
        "src": _array(rng, src),
        "w": _array(rng, w),
        "src_part": draw(part),
        "w_part": draw(part),
        "bias": _array(rng, out[1:2]) if draw(st.booleans()) else None,
        "times": _array(rng, out) if draw(st.booleans()) else None,
        "times_part": draw(part),
        "out": _array(rng, out),
        "accumulate": draw(st.booleans()),
    }


@st.composite
def gemm(draw: Draw, kernel: str) -> Case:
    n, m, k = draw(st.integers(1, 6)), draw(st.integers(1, 75)), draw(st.integers(1, 75))
    x, z = (n, k), (n, m)
    return _linear(draw, x, (m, k), z) if kernel.endswith("forward") else _linear(draw, z, (m, k), x)


@st.composite
def windows(draw: Draw) -> tuple[tuple[int, ...], tuple[int, ...], dict[str, tuple[int, ...]]]:
    """Sizes of x and z, and kernel, strides, pads and dilations, for one to three axes."""
    axes = draw(st.integers(1, 3))
    most = {1: 70, 2: 20, 3: 6}[axes]
    one_window = draw(st.integers(0, 5)) == 0  # global pooling, or a dense layer in disguise
    columns = []
    for axis in range(3):
        if axis < 3 - axes:
            columns.append((1, 1, 1, 1, 0, 1))
            continue
        if one_window:
            size = draw(st.integers(1, most))
            columns.append((size, 1, size, 1, 0, 1))
            continue
        kernel, stride, dilation = draw(st.integers(1, 4)), draw(st.integers(1, 3)), draw(st.integers(1, 3))
        reach = (kernel - 1) * dilation + 1
        pad, pad_end = draw(st.integers(0, reach - 1)), draw(st.integers(0, reach - 1))
        x = draw(st.integers(max(1, reach - pad - pad_end), most))
        columns.append((x, (x + pad + pad_end - reach) // stride + 1, kernel, stride, pad, dilation))
    x, z, kernel, strides, pads, dilations = zip(*columns, strict=True)
    return x, z, {"kernel": kernel, "strides": strides, "pads": pads, "dilations": dilations}


@st.composite
def conv(draw: Draw, kernel: str) -> Case:
    x_size, z_size, rest = draw(windows())
    taps = rest.pop("kernel")
    n, groups = draw(st.integers(1, 3)), draw(st.sampled_from([1, 1, 2, 3]))
    m, c = draw(st.integers(1, 9)), draw(st.integers(1, 5))
    x, z = (n, c * groups, *x_size), (n, m * groups, *z_size)
    src, out = (x, z) if kernel.endswith("forward") else (z, x)
    return _linear(draw, src, (m * groups, c, *taps), out) | rest | {"groups": groups}


@st.composite
def depthwise(draw: Draw, kernel: str) -> Case:
    x_size, z_size, rest = draw(windows())
    taps = rest.pop("kernel")
    n, c = draw(st.integers(1, 3)), draw(st.integers(1, 5))
    x, z = (n, c, *x_size), (n, c, *z_size)
    src, out = (x, z) if kernel.endswith("forward") else (z, x)
    return _linear(draw, src, (c, 1, *taps), out) | rest


@st.composite
def sumpool(draw: Draw, kernel: str) -> Case:
    x_size, z_size, rest = draw(windows())
    n, c = draw(st.integers(1, 3)), draw(st.integers(1, 5))
    x, z = (n, c, *x_size), (n, c, *z_size)
    src, out = (x, z) if kernel.endswith("forward") else (z, x)
    return _linear(draw, src, z_size, out) | {"window": rest.pop("kernel")} | rest


@st.composite
def maxpool(draw: Draw, kernel: str) -> Case:
    x_size, z_size, rest = draw(windows())
    n, c = draw(st.integers(1, 3)), draw(st.integers(1, 5))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    x, z = (n, c, *x_size), (n, c, *z_size)
    if kernel.endswith("forward"):
        src = np.round(_array(rng, x), 1)  # so that some are equal
        src[rng.random(x) < 0.02] = np.nan
        outputs = {"out": np.zeros(z), "winners": np.zeros(z, np.int32)}
        return (
            {"src": src.astype(np.float32).astype(np.float64), "window": rest.pop("kernel")} | rest | outputs
        )
    winners = rng.integers(0, np.prod(x_size), z).astype(np.int32)
    return {
        "src": _array(rng, z), "winners": winners, "out": _array(rng, x), "accumulate": draw(st.booleans())
    }  # fmt: skip


@st.composite
def clamp(draw: Draw, kernel: str) -> Case:
    shape = tuple(draw(st.lists(st.integers(1, 40), min_size=1, max_size=3)))
    src = _array(np.random.default_rng(draw(st.integers(0, 2**32))), shape)
    src.flat[0] = draw(st.sampled_from([0.5, np.nan, np.inf]))
    low, high = draw(st.sampled_from([(0.0, np.inf), (0.0, 0.5), (-np.inf, np.inf), (-0.5, 0.25)]))
    return {
        "src": src,
        "slope": draw(st.sampled_from([1.0, 0.125])),
        "low": low,
        "high": high,
        "out": src + 1,
    }


@st.composite
def collect(draw: Draw, kernel: str) -> Case:
    shape = tuple(draw(st.lists(st.integers(1, 40), min_size=1, max_size=3)))
    drawn = _linear(draw, shape, (1,), shape)
    return {key: drawn[key] for key in ("src", "src_part", "times", "times_part", "out", "accumulate")}


@st.composite
def divide(draw: Draw, kernel: str) -> Case:
    n, m, inner = draw(st.integers(1, 4)), draw(st.integers(1, 70)), draw(st.sampled_from([1, 1, 5, 16, 33]))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    z = _array(rng, (draw(st.sampled_from([1, n])), m, inner))
    return {
        "z": z + np.sign(z) / 4,  # some are zero, the others not close to it
        "r": _array(rng, (n, m, inner)),
        "gate_z": _array(rng, (n, m, inner)),
        "gate": draw(st.sampled_from([-1, 0, 1])),
        "bias": _array(rng, (m,)) if draw(st.booleans()) else None,
        "scale": draw(st.sampled_from([1.0, 2.0, -1.0])),
        "epsilon": draw(st.sampled_from([0.0, 1e-6, 0.25])),
        "clip": draw(st.booleans()),
        "norm_scale": draw(st.booleans()),
        "out": _array(rng, (n, m, inner)),
        "ledger": _array(rng, (n, 4)),
    }


@st.composite
def sums(draw: Draw, kernel: str) -> Case:
    n, size = draw(st.integers(1, 4)), draw(st.integers(1, 9000))
    return {"src": _array(np.random.default_rng(size), (n, size)), "out": np.zeros((n, 2))}


FAMILIES = [gemm, conv, depthwise, sumpool, maxpool, clamp, collect, divide, sums]
CASES = {kernel: next(f for f in FAMILIES if kernel.startswith(f.__name__)) for kernel in backends.KERNELS}


# --- running them ---


def in_dtype(case: Case, dtype: str) -> Case:
    """A copy of the case; what is float64 whatever the dtype stays so."""
    fixed = ("ledger", "out") if "size" in case or set(case) == {"src", "out"} else ("ledger",)
    return {
        key: value.astype(dtype if value.dtype.kind == "f" and key not in fixed else value.dtype)
        if isinstance(value, np.ndarray)
        else value
        for key, value in case.items()
    }


def run(module: Any, kernel: str, case: Case) -> dict[str, np.ndarray[Any, Any]]:
    """The outputs of a call on copies of the case's arrays."""
    copies = {key: value.copy() if isinstance(value, np.ndarray) else value for key, value in case.items()}
    for key, value in copies.items():
        if isinstance(value, np.ndarray) and key not in OUTPUTS:
            value.flags.writeable = False
    getattr(module, kernel)(**copies)
    return {key: copies[key] for key in OUTPUTS if key in copies}


def assert_close(found: Case, expected: Case, dtype: str) -> None:
    tolerance = 5e-6 if dtype == "float32" else 1e-13
    for key, value in expected.items():
        finite = value[np.isfinite(value)]
        largest = max(1.0, float(np.max(np.abs(finite), initial=0)))
        np.testing.assert_allclose(found[key], value, rtol=0, atol=tolerance * largest, err_msg=key)


@pytest.mark.parametrize("kernel", backends.KERNELS)
@pytest.mark.parametrize("runner", RUNNERS)
def test_kernel_equals_its_definition(runner: str, kernel: str) -> None:
    @settings(max_examples=25, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
    @given(case=CASES[kernel](kernel), dtype=st.sampled_from(["float32", "float64"]))
    def check(case: Case, dtype: str) -> None:
        expected = run(numpy_, kernel, case)
        assert_close(run(module, kernel, in_dtype(case, dtype)), expected, dtype)

    with running(runner) as module:
        check()


# --- cases that fill several blocks of work ---


def _drawn(values: list[Any]) -> Draw:
    """Stands in for hypothesis where a case is given: answers with `values`, in order."""
    remaining = iter(values)
    return lambda strategy: next(remaining)


def large_case(kernel: str) -> Case:
    """Three samples, with blocks of work that end in odd places."""
    rng = np.random.default_rng(7)
    linear = _drawn([7, (1.25, 1.0), (1.0, 0.5), True, True, (1.0, 0.5), True])
    window = {"strides": (1, 2, 1), "pads": (0, 1, 1), "dilations": (1, 1, 2)}
    x, z, back = (1, 61, 67), (1, 31, 65), kernel.endswith("vjp")
    if kernel.startswith("gemm"):
        shapes = [(3, 4500), (150, 4500), (3, 150)]
        return _linear(linear, *(shapes[::-1] if back else shapes))
    if kernel.startswith("conv"):
        shapes = [(3, 20, *x), (140, 20, 1, 3, 3), (3, 140, *z)]
        return _linear(linear, *(shapes[::-1] if back else shapes)) | window | {"groups": 1}
    if kernel.startswith("depthwise"):
        shapes = [(3, 5, *x), (5, 1, 1, 3, 3), (3, 5, *z)]
        return _linear(linear, *(shapes[::-1] if back else shapes)) | window
    if kernel.startswith("sumpool"):
        shapes = [(3, 5, *x), z, (3, 5, *z)]
        return _linear(linear, *(shapes[::-1] if back else shapes)) | window | {"window": (1, 3, 3)}
    if kernel == "maxpool_forward":
        outputs = {"out": np.zeros((3, 5, *z)), "winners": np.zeros((3, 5, *z), np.int32)}
        return {"src": _array(rng, (3, 5, *x)), "window": (1, 3, 3)} | window | outputs
    if kernel == "maxpool_vjp":
        winners = rng.integers(0, 61 * 67, (3, 5, *z)).astype(np.int32)
        return {
            "src": _array(rng, (3, 5, *z)),
            "winners": winners,
            "out": _array(rng, (3, 5, *x)),
            "accumulate": True,
        }
    if kernel == "clamp_forward":
        return {
            "src": _array(rng, (3, 16001)),
            "slope": 0.25,
            "low": -0.2,
            "high": 0.7,
            "out": np.zeros((3, 16001)),
        }
    if kernel == "collect":
        drawn = _linear(linear, (3, 16001), (1,), (3, 16001))
        return {key: drawn[key] for key in ("src", "src_part", "times", "times_part", "out", "accumulate")}
    if kernel == "divide":
        shape = (3, 65, 131)
        return divide_case(rng, shape)
    return {"src": _array(rng, (3, 9001)), "out": np.zeros((3, 2))}


def divide_case(rng: np.random.Generator, shape: tuple[int, int, int]) -> Case:
    z = _array(rng, shape)
    return {
        "z": z + np.sign(z) / 4, "r": _array(rng, shape), "gate_z": _array(rng, shape), "gate": 1,
        "bias": _array(rng, shape[1:2]), "scale": 2.0, "epsilon": 0.25, "clip": False, "norm_scale": True,
        "out": np.zeros(shape), "ledger": np.zeros((shape[0], 4)),
    }  # fmt: skip


@pytest.mark.parametrize("kernel", backends.KERNELS)
@pytest.mark.parametrize("runner", RUNNERS)
def test_many_blocks_equal_the_definition(runner: str, kernel: str) -> None:
    case = large_case(kernel)
    with running(runner) as module:
        assert_close(run(module, kernel, in_dtype(case, "float32")), run(numpy_, kernel, case), "float32")


def samples(case: Case, first: int, last: int) -> Case:
    """The same call for some of the samples."""
    return {
        key: value[first:last].copy() if key in BATCHED and isinstance(value, np.ndarray) else value
        for key, value in case.items()
    }


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("kernel", backends.KERNELS)
@pytest.mark.parametrize("runner", NATIVE)
def test_bits_depend_neither_on_threads_nor_on_the_batch(runner: str, kernel: str, dtype: str) -> None:
    case = in_dtype(large_case(kernel), dtype)
    threads = backends.get_num_threads()
    try:
        with running(runner) as module:
            backends.set_num_threads(1)
            expected = run(module, kernel, case)
            for count in (2, 3):
                backends.set_num_threads(count)
                for key, value in run(module, kernel, case).items():
                    np.testing.assert_array_equal(value, expected[key], err_msg=f"{key}, {count} threads")
                for first, last in ((0, 1), (1, 3), (2, 3)):
                    for key, value in run(module, kernel, samples(case, first, last)).items():
                        np.testing.assert_array_equal(
                            value, expected[key][first:last], err_msg=f"{key}, samples {first}-{last}"
                        )
    finally:
        backends.set_num_threads(threads)


@pytest.mark.parametrize("runner", NATIVE)
@pytest.mark.parametrize("kernel", ["gemm_forward", "gemm_vjp"])
def test_dense_bits_do_not_depend_on_tiles_of_samples(runner: str, kernel: str) -> None:
    rng = np.random.default_rng(3)
    w = _array(rng, (37, 53)).astype(np.float32)
    shape = (41, 53) if kernel == "gemm_forward" else (41, 37)
    case = _linear(
        _drawn([5, (1.0, 1.0), (1.0, 0.0), False, False, (1.0, 1.0), False]),
        shape,
        w.shape,
        (41, 90 - shape[1]),
    )
    case = in_dtype(case, "float32")
    case["src"][rng.random(shape) < 0.6] = 0
    with running(runner) as module:
        together = run(module, kernel, case)["out"]
        for i in range(len(together)):
            np.testing.assert_array_equal(
                run(module, kernel, samples(case, i, i + 1))["out"], together[i : i + 1]
            )


# --- accuracy on real sizes ---


@pytest.mark.parametrize("runner", RUNNERS)
@pytest.mark.parametrize("kernel", ["gemm_forward", "gemm_vjp", "conv_forward", "conv_vjp"])
def test_long_float32_sums_are_accurate(runner: str, kernel: str) -> None:
    """Of 4608 products each, all of one sign, where rounding errors are worst."""
    rng = np.random.default_rng(1)
    if kernel.startswith("gemm"):
        x, w, z, rest = (2, 4608), (512, 4608), (2, 512), {}
        if kernel == "gemm_vjp":
            x, w, z = (2, 512), (4608, 512), (2, 4608)
    else:
        x, w, z = (1, 512, 1, 6, 6), (16, 512, 1, 3, 3), (1, 16, 1, 6, 6)
        rest = {"strides": (1, 1, 1), "pads": (0, 1, 1), "dilations": (1, 1, 1), "groups": 1}
        if kernel == "conv_vjp":
            x, w, z = (1, 16, 1, 6, 6), (512, 16, 1, 3, 3), (1, 512, 1, 6, 6)
    src, out = (x, z) if kernel.endswith("forward") else (z, x)
    case: Case = {
        "src": rng.random(src, F32), "w": rng.random(w, F32), "src_part": (1, 1), "w_part": (1, 1), "bias": None,
        "times": None, "times_part": (1, 1), "out": np.zeros(out, F32), "accumulate": False,
    } | rest  # fmt: skip
    expected = run(numpy_, kernel, in_dtype(case, "float64"))["out"]
    with running(runner) as module:
        found = run(module, kernel, case)["out"]
    assert np.max(np.abs(found - expected)) <= 5e-6 * np.max(np.abs(expected))


# --- the one list, and the checks of arguments ---


@pytest.mark.parametrize("name", [name for name, why in backends.available().items() if not why])
def test_a_backend_has_exactly_the_kernels_that_are_defined(name: str) -> None:
    public = {key: value for key, value in vars(numpy_).items() if not key.startswith("_")}
    functions = {key: value for key, value in public.items() if inspect.isfunction(value)}
    defined = {key for key, value in functions.items() if "out" in inspect.signature(value).parameters}
    assert defined == set(backends.KERNELS) == set(CASES)
    module = backends.get(name)
    assert all(callable(getattr(module, kernel)) for kernel in defined)
    assert set(getattr(module, "KERNELS", defined)) == defined


def _gemm_call(**changes: Any) -> Case:
    case: Case = {
        "src": np.ones((2, 5), F32), "w": np.ones((3, 5), F32), "src_part": (1, 1), "w_part": (1, 1),
        "bias": np.ones(3, F32), "times": None, "times_part": (1, 1), "out": np.zeros((2, 3), F32), "accumulate": False,
    }  # fmt: skip
    return case | changes


def _read_only(array: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    array.flags.writeable = False
    return array


SHARED = np.zeros((3, 5), F32)
WRONG_GEMM = {
    "src .*list.*expected a numpy array": {"src": [[1.0] * 5] * 2},
    "src has dtype int64, expected float32 or float64": {"src": np.ones((2, 5), np.int64)},
    "src has dtype float16": {"src": np.ones((2, 5), np.float16)},
    r"src has shape \(5,\), expected 2 axes": {"src": np.ones(5, F32)},
    "w has dtype float64, expected float32": {"w": np.ones((3, 5))},
    r"src has shape \(2, 4\), expected \(2, 5\)": {"src": np.ones((2, 4), F32)},
    "w is not C-contiguous": {"w": np.ones((5, 3), F32).T},
    "w has shape .* empty axis": {"w": np.ones((3, 0), F32)},
    r"bias has shape \(2,\), expected \(3,\)": {"bias": np.ones(2, F32)},
    r"times has shape \(2, 2\), expected \(2, 3\)": {"times": np.ones((2, 2), F32)},
    r"out has shape \(3, 3\), expected \(2, 3\)": {"out": np.zeros((3, 3), F32)},
    "out is read-only": {"out": _read_only(np.zeros((2, 3), F32))},
    "out is not aligned": {"out": np.frombuffer(bytearray(25), np.uint8)[1:].view(F32).reshape(2, 3)},
    "out and w share memory": {"w": SHARED, "out": SHARED.reshape(-1)[:6].reshape(2, 3)},
}


@pytest.mark.skipif(not NATIVE, reason="the checks are the native backend's")
@pytest.mark.parametrize("message", WRONG_GEMM)
def test_wrong_arrays_are_refused(message: str) -> None:
    with pytest.raises((TypeError, ValueError), match="gemm_forward: " + message):
        backends.get("native").gemm_forward(**_gemm_call(**WRONG_GEMM[message]))


def _conv_call(**changes: Any) -> Case:
    case: Case = {
        "src": np.ones((2, 4, 1, 6, 6), F32), "w": np.ones((6, 2, 1, 3, 3), F32), "strides": (1, 1, 1),
        "pads": (0, 1, 1), "dilations": (1, 1, 1), "groups": 2, "src_part": (1, 1), "w_part": (1, 1), "bias": None,
        "times": None, "times_part": (1, 1), "out": np.zeros((2, 6, 1, 6, 6), F32), "accumulate": False,
    }  # fmt: skip
    return case | changes


WRONG_CONV = {
    r"strides is \(1, 0, 1\), expected three numbers of at least 1": {"strides": (1, 0, 1)},
    "pads is .* at least 0": {"pads": (0, -1, 0)},
    "dilations is": {"dilations": (1, 1, 0)},
    "groups is 4, which does not divide w's 6 filters": {"groups": 4},
    "does not lead from 4 to 6 channels": {"groups": 1},
    "differ in axis 0": {"out": np.zeros((1, 6, 1, 6, 6), F32)},
    "out has shape .* expected 5 axes": {"out": np.zeros((2, 6, 6, 6), F32)},
}


@pytest.mark.skipif(not NATIVE, reason="the checks are the native backend's")
@pytest.mark.parametrize("message", WRONG_CONV)
def test_wrong_geometry_is_refused(message: str) -> None:
    with pytest.raises(ValueError, match="conv_forward: .*" + message):
        backends.get("native").conv_forward(**_conv_call(**WRONG_CONV[message]))


@pytest.mark.skipif(not NATIVE, reason="the checks are the native backend's")
def test_indices_and_gates_are_checked() -> None:
    native = backends.get("native")
    src, out = np.ones((1, 1, 4), F32), np.zeros((1, 1, 8), F32)
    for index in (-1, 8):
        winners = np.full((1, 1, 4), index, np.int32)
        with pytest.raises(ValueError, match=r"maxpool_vjp: winners has an index outside .* 8 elements"):
            native.maxpool_vjp(src, winners, out, False)
    z = np.ones((1, 3, 1), F32)
    with pytest.raises(ValueError, match="divide: gate is 1 but gate_z is None"):
        native.divide(z, z, None, 1, None, 1.0, 0.0, False, False, z.copy(), np.zeros((1, 4)))
    with pytest.raises(ValueError, match="divide: z has 2 samples, expected 1 or r's 3"):
        native.divide(
            np.ones((2, 3, 1), F32), np.ones((3, 3, 1), F32), None, 0, None, 1.0, 0.0, False, False,
            np.ones((3, 3, 1), F32), np.zeros((3, 4)),
        )  # fmt: skip


@pytest.mark.parametrize("runner", NATIVE)
def test_an_empty_batch_is_no_work(runner: str) -> None:
    with running(runner) as module:
        module.gemm_forward(**_gemm_call(src=np.ones((0, 5), F32), out=np.ones((0, 3), F32)))
        module.conv_forward(
            **_conv_call(src=np.ones((0, 4, 1, 6, 6), F32), out=np.ones((0, 6, 1, 6, 6), F32))
        )
