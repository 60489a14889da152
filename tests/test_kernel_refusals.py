"""What the native kernels refuse, and in which words: whatever would make them read or write elsewhere."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
import pytest
from conftest import BACKENDS
from kernel_cases import (
    Array,
    Case,
    Maker,
    affine_case,
    collect_case,
    conv_case,
    depthwise_case,
    divide_case,
    fullest,
    gemm_case,
    maxpool_case,
    reorder_case,
    simplest,
    sumpool_case,
    sums_case,
    windows_of,
)

from lrpfast import backends

pytestmark = pytest.mark.skipif("native" not in BACKENDS, reason="the checks are the native backend's")

F32 = np.float32


@cache
def good_case(kernel: str) -> Case:
    """A small call with everything in its ending, in float32."""
    make = Maker(fullest, "quotient")
    plane = windows_of((7, 3, 2, 1, 1, 1), (6, 3, 1, 1, 1, 1))
    family = kernel.partition("_")[0]
    shape = (3, 40, 5)
    case = {
        "gemm": lambda: gemm_case(kernel, make, 3, 6, 7),
        "conv": lambda: conv_case(kernel, Maker(lambda o: o[0] if 16 in o else o[-1], "quotient"), 16, 3, 20, 20,
                                  plane, groups=2),
        "depthwise": lambda: depthwise_case(kernel, make, 16, 3, 33, plane),
        "sumpool": lambda: sumpool_case(kernel, make, 16, 3, 33, plane),
        "maxpool": lambda: maxpool_case(kernel, make, 16, 3, 33, plane),
        "affine": lambda: affine_case(make, 16, shape),
        "collect": lambda: collect_case(make, 16, shape),
        "divide": lambda: divide_case(make, 16, shape),
        "reorder": lambda: reorder_case(make, 16, 8, shape),
        "sums": lambda: sums_case(make, 3, 7),
    }[family]()  # fmt: skip
    if "end" in case.arguments and case.arguments["end"].plus is not None:
        case = case.with_ending(plus=case.arguments["end"].plus.copy())
    return case.in_dtype("float32")


PATHS = [(kernel, path) for kernel in backends.KERNELS for path in good_case(kernel).arrays()]
WRITTEN = [(kernel, path) for kernel, path in PATHS if good_case(kernel).is_output(path)]
PAIRS = [
    (kernel, path, other) for kernel, path in WRITTEN for other in good_case(kernel).arrays() if other != path
]


def call(case: Case) -> None:
    getattr(backends.get("native"), case.kernel)(**case.arguments)


def with_array(case: Case, path: str, change: Callable[[Array], Any]) -> Case:
    return case.changed(lambda at, array: change(array) if at == path else array)


def with_arguments(case: Case, **changes: Any) -> Case:
    return Case(case.kernel, {**case.arguments, **changes})


def refused(case: Case, message: str, error: type[Exception] = ValueError) -> None:
    with pytest.raises(error, match=f"^{case.kernel}: {message}"):
        call(case)


# --- arrays ---


@pytest.mark.parametrize("kernel", backends.KERNELS)
def test_the_good_cases_are_good(kernel: str) -> None:
    call(good_case(kernel).changed(lambda _, array: array.copy()))


@pytest.mark.parametrize(("kernel", "path"), PATHS)
def test_arrays_must_be_arrays(kernel: str, path: str) -> None:
    refused(
        with_array(good_case(kernel), path, Array.tolist),
        f"{path} is .*list.*, expected a numpy array",
        TypeError,
    )


@pytest.mark.parametrize(("kernel", "path"), PATHS)
def test_dtypes_must_be_equal(kernel: str, path: str) -> None:
    for dtype in ("float16", "int64", ">f4"):
        wrong = with_array(good_case(kernel), path, lambda a, dtype=dtype: np.nan_to_num(a).astype(dtype))
        refused(wrong, f"{path} has dtype {dtype}, expected (float32|float64|int32)", TypeError)


@pytest.mark.parametrize(("kernel", "path"), PATHS)
def test_axes_must_be_those_of_the_definition(kernel: str, path: str) -> None:
    refused(with_array(good_case(kernel), path, lambda a: a[..., None]), f"{path} has shape .* expected ")


@pytest.mark.parametrize(("kernel", "path"), PATHS)
def test_sizes_must_fit(kernel: str, path: str) -> None:
    """One sample, filter or row for all of the others; a z for all samples is allowed, so there are two."""

    def first(array: Array) -> Array:
        return array[:2] if path == "z" else array[:, :1].copy() if len(array) == 1 else array[:1]

    refused(with_array(good_case(kernel), path, first), ".*(shape|samples|channels|filters)")


@pytest.mark.parametrize(("kernel", "path"), PATHS)
def test_arrays_must_be_contiguous(kernel: str, path: str) -> None:
    wrong = with_array(good_case(kernel), path, lambda a: np.repeat(a, 2, axis=-1)[..., ::2])
    refused(wrong, f"{path} is not C-contiguous")


@pytest.mark.parametrize(("kernel", "path"), PATHS)
def test_arrays_must_be_aligned(kernel: str, path: str) -> None:
    def shifted(array: Array) -> Array:
        memory = np.zeros(array.nbytes + 1, np.uint8)
        return memory[1:].view(array.dtype).reshape(array.shape)

    refused(with_array(good_case(kernel), path, shifted), f"{path} is not aligned")


@pytest.mark.parametrize(("kernel", "path"), WRITTEN)
def test_outputs_must_be_writeable(kernel: str, path: str) -> None:
    def read_only(array: Array) -> Array:
        array = array.copy()
        array.flags.writeable = False
        return array

    refused(with_array(good_case(kernel), path, read_only), f"{path} is read-only")


@pytest.mark.parametrize(("kernel", "path", "other"), PAIRS)
def test_outputs_must_not_share_memory(kernel: str, path: str, other: str) -> None:
    case = good_case(kernel)
    arrays = case.arrays()
    first, second = arrays[path], arrays[other]
    memory = np.zeros(first.nbytes + second.nbytes, np.uint8)
    start = (first.nbytes - 1) // 8 * 8  # the last bytes of the one are the first of the other
    first = memory[: first.nbytes].view(first.dtype).reshape(first.shape)
    second = memory[start : start + second.nbytes].view(second.dtype).reshape(second.shape)
    overlapping = case.changed(lambda at, array: {path: first, other: second}.get(at, array))
    refused(overlapping, f"({path} and {other}|{other} and {path}) share memory")


def test_results_may_be_added_to_what_is_there() -> None:
    """`plus` may be `out`, but not begin within it."""
    case = good_case("gemm_forward")
    call(case.with_ending(plus=case.arguments["end"].out))
    memory = np.zeros((4, 6), F32)
    refused(case.with_ending(out=memory[:3], plus=memory[1:]), "end.out and end.plus share memory")


@pytest.mark.parametrize("kernel", [kernel for kernel in backends.KERNELS if kernel != "sums"])
def test_axes_must_not_be_empty(kernel: str) -> None:
    path = next(iter(good_case(kernel).arguments))
    refused(
        with_array(good_case(kernel), path, lambda a: a[:, :0]), f"{path} has shape .* with an empty axis"
    )


@pytest.mark.parametrize("kernel", backends.KERNELS)
def test_an_empty_batch_is_no_work(kernel: str) -> None:
    call(good_case(kernel).samples(0, 0))


# --- numbers ---


@pytest.mark.parametrize(
    "kernel", [kernel for kernel in backends.KERNELS if "strides" in good_case(kernel).arguments]
)
def test_geometry(kernel: str) -> None:
    case = good_case(kernel)
    for name, wrong, least in (
        ("strides", (1, 0, 1), 1),
        ("pads", (0, -1, 0), 0),
        ("dilations", (1, 1, 0), 1),
    ):
        message = rf"{name} is \({', '.join(map(str, wrong))}\), expected three numbers of at least {least}"
        refused(with_arguments(case, **{name: wrong}), message)
        refused(
            with_arguments(case, **{name: (1, 1)}), f"{name} is .*, expected three whole numbers", TypeError
        )
        refused(with_arguments(case, **{name: (1, 1, 2**40)}), f"{name} is ")
    if "window" in case.arguments:
        refused(with_arguments(case, window=(1, 0, 1)), "window is .*at least 1")


SMALL: Mapping[str, Any] = {
    "gemm_forward": {
        "src_part is .*expected two numbers": {"src_part": (1.0,)},
        "w_part is None, expected two numbers": {"w_part": None},
        "end is .*NoneType.*, which has no 'out'": {"end": None},
    },
    "conv_forward": {
        "groups is 3, which does not divide w's 40 filters": {"groups": 3},
        "groups is 0, expected at least 1": {"groups": 0},
        "groups is 1.5, expected a whole number": {"groups": 1.5},
        "src has shape .* expected 2 blocks for 20 channels in 16 lanes": {"groups": 1},
        "exact is 'yes', expected True or False": {"exact": "yes"},
        "other_part is .*expected two numbers": {"other_part": (1.0,)},
        "src has shape .*, expected 16 lanes, or one block of fewer": {
            "src": np.zeros((3, 5, 1, 7, 6, 8), F32)
        },
        "src has shape .*, expected 16 lanes": {"src": np.zeros((3, 2, 1, 7, 6, 32), F32)},
    },
    "depthwise_vjp": {
        "w has shape .*": {"w": np.zeros((33, 2, 1, 3, 3), F32)},
    },
    "divide": {"norm_size is -1, expected at least 0": {"norm_size": -1}},
    "reorder": {
        "channels is 0, expected at least 1": {"channels": 0},
        "src has shape .* expected 2 blocks for 32 channels": {"channels": 32},
    },
}


@pytest.mark.parametrize(
    ("kernel", "message"), [(kernel, m) for kernel, wrong in SMALL.items() for m in wrong]
)
def test_numbers_and_shapes(kernel: str, message: str) -> None:
    with pytest.raises((TypeError, ValueError), match=f"^{kernel}: {message}"):
        call(with_arguments(good_case(kernel), **SMALL[kernel][message]))


@pytest.mark.parametrize("kernel", ["sumpool_forward", "maxpool_forward", "depthwise_forward"])
def test_pools_and_depthwise_convolutions_have_all_lanes(kernel: str) -> None:
    def narrow(path: str, array: Array) -> Array:
        return np.ascontiguousarray(array[:, :1, ..., :8]) if array.ndim == 6 else array

    refused(good_case(kernel).changed(narrow), "src has shape .*, expected 16 lanes")


@pytest.mark.parametrize("kernel", [k for k in backends.KERNELS if "end" in good_case(k).arguments])
def test_endings(kernel: str) -> None:
    case = good_case(kernel)
    quotient = case.arguments["end"].quotient
    refused(
        case.with_ending(quotient=replace(quotient, gate=2)), "end.quotient.gate is 2, expected -1, 0 or 1"
    )
    ungated = replace(quotient, gate=1, gate_z=None)
    refused(case.with_ending(quotient=ungated), "end.quotient.gate is 1 but gate_z is None")
    mirrored = replace(quotient, mirrored=np.empty_like(quotient.r))
    refused(
        case.with_ending(quotient=replace(quotient, epsilon="a")), "end.quotient.epsilon is 'a'", TypeError
    )
    refused(case.with_ending(quotient=replace(quotient, r=None)), "end.quotient.r is ", TypeError)
    refused(case.with_ending(times_part=(1, 2, 3)), "end.times_part is .*expected two numbers", TypeError)
    if kernel == "divide":
        refused(case.with_ending(quotient=None), "end.quotient is None, expected a Quotient")
        for name, value in (("bias", np.zeros(40, F32)), ("times", quotient.r), ("plus", quotient.r),
                            ("clamp", (1, 0, 1)), ("quotient", mirrored)):  # fmt: skip
            refused(
                case.with_ending(**{name: value}), f"end.{name}.* is given, expected nothing but a quotient"
            )
        return
    refused(case.with_ending(quotient=mirrored), "end.quotient has a gate and mirrored, expected at most one")
    mirrored = replace(mirrored, gate=0)
    ungated = replace(mirrored, gate_z=None)
    refused(case.with_ending(quotient=ungated), "end.quotient has mirrored, but gate_z is None")
    over_out = replace(mirrored, mirrored=case.arguments["end"].out)
    refused(case.with_ending(quotient=over_out), "end.out and end.quotient.mirrored share memory")
    refused(case.with_ending(clamp=(1.0, 0.0, 1.0)), "end has a clamp and a quotient, expected at most one")
    refused(
        case.with_ending(clamp=(1.0, 0.0), quotient=None), "end.clamp is .*expected three numbers", TypeError
    )
    refused(case.with_ending(plus_factor=None), "end.plus_factor is None, expected a number", TypeError)
    before = np.empty_like(case.arguments["end"].out)
    if "other_part" in case.arguments:
        by_sign = with_arguments(
            case.with_ending(bias=None, kept=None, quotient=mirrored), other_part=(1.0, 0.0)
        )
        refused(by_sign, "end.quotient.mirrored and other_part are given, expected at most one of them")
        by_sign = by_sign.with_ending(quotient=None)
        refused(by_sign.with_ending(times=None), "other_part is given, but end.times is None")
        refused(
            by_sign.with_ending(kept=before),
            "end.kept and other_part are given, expected at most one of them",
        )
        case = with_arguments(case, other_part=None)
    refused(case.with_ending(plus=None, kept=before), "end has kept, but neither plus nor a clamp")
    clamped = case.with_ending(clamp=(1.0, 0.0, 1.0), quotient=None, kept=before)
    call(clamped)
    refused(clamped.with_ending(kept=before[:1]), "end.kept has shape")
    refused(clamped.with_ending(kept=case.arguments["end"].out), ".*share memory")


def test_winners_lie_in_the_plane() -> None:
    case = good_case("maxpool_vjp")
    for index in (-1, 42):
        wrong = with_array(case, "winners", lambda a, index=index: np.full_like(a, index))
        refused(wrong, "winners has an index outside of a plane of end.out, which has 42 elements")


# --- names ---


def test_arguments_have_names() -> None:
    native = backends.get("native")
    src, out = np.ones((2, 5), F32), np.zeros((2, 2))
    native.sums(src, out)
    np.testing.assert_array_equal(out, 5)
    native.sums(out=out, src=2 * src)
    np.testing.assert_array_equal(out, 10)
    for arguments, named, message in (
        ((src,), {}, "the argument 'out' is missing"),
        ((src, out, out), {}, "there are 3 arguments, expected 2"),
        ((src, out), {"src": src}, "the argument 'src' is given twice"),
        ((src, out), {"dtype": 1}, "there is no argument 'dtype'"),
    ):
        with pytest.raises(TypeError, match=f"^sums: {message}"):
            native.sums(*arguments, **named)


def test_a_z_for_all_samples() -> None:
    case = divide_case(Maker(simplest, "quotient"), 16, (3, 40, 5)).in_dtype("float32")
    assert len(case.arguments["z"]) == 1
    call(case)
    wrong = with_array(case, "z", lambda z: np.concatenate([z, z]))
    refused(wrong, "z has 2 samples, expected 1 or those of end.out, 3")
