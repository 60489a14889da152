"""All kernels of all backends against their definition, computed in float64."""

from __future__ import annotations

import inspect
from dataclasses import replace

import numpy as np
import pytest
from conftest import BACKENDS
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from kernel_cases import (
    PARTS,
    Array,
    Case,
    Maker,
    Windows,
    any_case,
    any_cases,
    conv_case,
    depthwise_case,
    fullest,
    gemm_case,
    large_case,
    simplest,
    windows_of,
    winograd_case,
)
from kernel_runs import RUNNERS, assert_close, assert_defined, beyond, running

from lrpfast import backends
from lrpfast.backends import numpy_

QUIET = settings(max_examples=25, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
CONVOLUTIONS = ("conv_forward", "conv_vjp")
DTYPES = ("float32", "float64")


@pytest.mark.parametrize("name", BACKENDS)
def test_a_backend_has_exactly_the_kernels_that_are_defined(name: str) -> None:
    functions = {key: value for key, value in vars(numpy_).items() if inspect.isfunction(value)}
    defined = {
        key
        for key, value in functions.items()
        if {"end", "out"} & set(inspect.signature(value).parameters) and not key.startswith("_")
    } - {"finish", "per_channel"}
    assert defined == set(backends.KERNELS)
    module = backends.get(name)
    assert all(callable(getattr(module, kernel)) for kernel in defined)
    assert set(getattr(module, "KERNELS", defined)) == defined
    assert module.LANES >= 1


@pytest.mark.parametrize("kernel", backends.KERNELS)
@pytest.mark.parametrize("runner", RUNNERS)
def test_kernel_equals_its_definition(runner: str, kernel: str) -> None:
    with running(runner) as module:

        @QUIET
        @given(case=any_cases(kernel, module.LANES), dtype=st.sampled_from(DTYPES))
        def check(case: Case, dtype: str) -> None:
            assert_defined(case, module, dtype)

        check()


@pytest.mark.parametrize("choose", [simplest, fullest])
@pytest.mark.parametrize("kernel", backends.KERNELS)
@pytest.mark.parametrize("runner", RUNNERS)
def test_many_blocks_of_work_equal_the_definition(runner: str, kernel: str, choose: object) -> None:
    with running(runner) as module:
        assert_defined(large_case(kernel, module.LANES, choose), module, "float32")


def test_cases_end_in_whatever_there_is() -> None:
    """The fullest of all cases has an ending with everything that excludes nothing else."""
    end = any_case("conv_forward", 16, fullest).arguments["end"]
    assert end.plus is end.out and end.quotient is not None
    assert all(a is not None for a in (end.bias, end.times, end.sums, end.quotient.bias, end.quotient.gate_z))
    end = any_case("conv_forward", 16, simplest).arguments["end"]
    assert [end.bias, end.times, end.plus, end.clamp, end.quotient, end.sums] == [None] * 6


@pytest.mark.parametrize("kernel", CONVOLUTIONS)
@pytest.mark.parametrize("runner", RUNNERS)
def test_one_tap_with_strides_is_not_pointwise(runner: str, kernel: str) -> None:
    """Padding at the end can make planes equally large though the outputs do not read their own places."""
    for x, z, strides in (((1, 4, 2), (1, 2, 4), (1, 2, 1)), ((1, 1, 4), (1, 1, 4), (1, 1, 2))):
        window = Windows(x, z, (1, 1, 1), strides, (0, 0, 0), (1, 1, 1))
        with running(runner) as module:
            case = conv_case(kernel, Maker(simplest, "nothing"), module.LANES, 2, 16, 16, window)
            assert_defined(case, module, "float32")


@pytest.mark.parametrize("runner", RUNNERS)
def test_windows_that_lie_in_the_padding(runner: str) -> None:
    """Back to an image of one row, of which no window's row is."""
    window = windows_of((1, 1, 2, 1, 1, 1), (5, 3, 1, 1, 1, 1))
    with running(runner) as module:
        few_lanes = Maker(lambda options: options[options[0] == 16 and len(options) > 1], "nothing")
        case = conv_case("conv_vjp", few_lanes, module.LANES, 2, 16, 3, window)
        assert case.arguments["end"].out.shape[-1] < 16
        assert_defined(case, module, "float32")


@pytest.mark.parametrize("other_part", [None, (0.0, 1.0)])
@pytest.mark.parametrize("runner", RUNNERS)
def test_lines_that_evict_one_another(runner: str, other_part: tuple[float, float] | None) -> None:
    """Rows of weights that are a power of two apart, more than a cache has places for: they are read in pieces."""
    window = windows_of((3, 1, 1, 0, 0, 1), (9, 1, 1, 0, 0, 1))
    with running(runner) as module:
        case = conv_case("conv_vjp", Maker(simplest, "nothing"), module.LANES, 1, 600, 256, window)
        times = np.round(np.random.default_rng(1).normal(size=case.arguments["end"].out.shape))
        case = case.with_ending(times=times)
        case = Case(case.kernel, {**case.arguments, "other_part": other_part})
        assert_defined(case, module, "float32")


@pytest.mark.parametrize("kernel", ["depthwise_forward", "depthwise_vjp"])
@pytest.mark.parametrize("runner", RUNNERS)
def test_depthwise_rows_of_all_kinds(runner: str, kernel: str) -> None:
    """Few and many windows a row, near one another and apart, at the border and within."""
    with running(runner) as module:
        for taps in range(1, 9):
            for stride, dilation in ((1, 1), (2, 1), (3, 1), (1, 2), (2, 2)):
                reach = (taps - 1) * dilation + 1
                for width in (1, 5, 6, 7, 13, 30):
                    if width + 2 * (reach // 2) >= reach:
                        row = (width, taps, stride, reach // 2, reach // 2, dilation)
                        window = windows_of((4, min(taps, 3), 1, 1, 1, 1), row)
                        case = depthwise_case(kernel, Maker(fullest, "clamp"), module.LANES, 1, 17, window)
                        assert_defined(case, module, "float32")


# --- convolutions that may round, and those that must not ---


@pytest.mark.parametrize("kernel", CONVOLUTIONS)
@pytest.mark.parametrize("runner", RUNNERS)
def test_planes_for_winograd(runner: str, kernel: str) -> None:
    """3×3 convolutions of all sizes; rounding errors are those of the largest output."""
    pads = st.tuples(*[st.integers(0, 2)] * 4)
    channels = st.sampled_from([16, 17, 32, 40])

    with running(runner) as module:

        @QUIET
        @given(
            data=st.data(),
            rows=st.integers(4, 60),
            columns=st.integers(4, 60),
            m=channels,
            c=channels,
            pads=pads,
        )
        def check(
            data: st.DataObject, rows: int, columns: int, m: int, c: int, pads: tuple[int, ...]
        ) -> None:
            case = winograd_case(
                kernel,
                lambda options: data.draw(st.sampled_from(options)),
                module.LANES,
                rows,
                columns,
                m,
                c,
                pads,
            )
            assert_defined(case, module, "float32")

        check()


@pytest.mark.parametrize("kernel", CONVOLUTIONS)
@pytest.mark.parametrize("runner", RUNNERS)
def test_exact_convolutions_make_no_zero_out_of_differences(runner: str, kernel: str) -> None:
    """Where all products are zero the result is; even if numbers a thousand times as large are not far."""
    with running(runner) as module:
        case = winograd_case(kernel, simplest, module.LANES, 30, 37, 32, 48, (1, 1, 1, 1), n=2)
        arguments = {**case.arguments, "exact": True}
        src = 1000 * case.arguments["src"]
        src[:, :, :, 5:19, 3:23] = 0
        src[1, :, :, :, 20:] = 0
        case = Case(kernel, {**arguments, "src": src}).in_dtype("float32")
        sizes = Case(kernel, {**arguments, "src": np.abs(src), "w": np.abs(arguments["w"])}).run(numpy_)
        zero = sizes["end.out"] == 0
        assert 0.1 < zero.mean() < 0.9
        found = case.run(module)["end.out"]
        assert not found[zero].any()
        assert found[~zero].all()


@pytest.mark.parametrize("exact", [True, False])
@pytest.mark.parametrize("kernel", ["gemm_forward", "gemm_vjp", *CONVOLUTIONS])
@pytest.mark.parametrize("runner", RUNNERS)
def test_long_float32_sums_are_accurate(runner: str, kernel: str, exact: bool) -> None:
    """Of 4608 products each, all of one sign, where rounding errors are worst."""
    make = Maker(simplest, "nothing")
    of_src, of_out = 512, 16
    m, c = (of_out, of_src) if kernel.endswith("forward") else (of_src, of_out)
    with running(runner) as module:
        if kernel.startswith("gemm"):
            case = gemm_case(kernel, make, 2, m * (1 if m == of_out else 9), c * (1 if c == of_out else 9))
        else:
            plane = windows_of((16, 3, 1, 1, 1, 1), (16, 3, 1, 1, 1, 1))
            case = conv_case(kernel, make, module.LANES, 1, m, c, plane, exact=exact)
        case = case.changed(lambda path, a: np.abs(a) if path in ("src", "w") else a)
        expected = case.run(numpy_)["end.out"]
        found = case.in_dtype("float32").run(module)["end.out"]
    assert np.max(np.abs(found - expected)) <= 5e-6 * np.max(expected)


# --- numbers that are none ---


def with_nan(case: Case, path: str) -> Case:
    """The call with NaN in the middle of the array's first sample, among channels that are there."""

    def spoilt(at: str, array: Array) -> Array:
        if at != path:
            return array
        array = array.copy()
        middle = (0, 0, *(size // 2 for size in array.shape[2:-1]), 0)
        array[middle[: array.ndim]] = np.nan
        return array

    return case.changed(spoilt)


@pytest.mark.parametrize("part", PARTS)
@pytest.mark.parametrize(
    "kernel", [k for k in backends.KERNELS if k not in ("maxpool_forward", "divide", "sums")]
)
@pytest.mark.parametrize("runner", RUNNERS)
def test_nan_in_the_source_reaches_the_result(runner: str, kernel: str, part: tuple[float, float]) -> None:
    """So that relevance that is not finite is found, whatever part of it a rule takes; and no other sample."""
    with running(runner) as module:
        case = with_nan(large_case(kernel, module.LANES, simplest).samples(0, 2), "src")
        if "src_part" in case.arguments:
            case = Case(kernel, {**case.arguments, "src_part": part})
        expected = case.run(numpy_)
        found = case.in_dtype("float32").run(module)
        assert np.isnan(expected["end.out"][0]).any() and not np.isnan(expected["end.out"][1]).any()
        if expected["end.out"].ndim > 2:  # lanes that nobody reads may hold NaN if others do
            found["end.out"][beyond(case, found["end.out"])] = 0
        assert_close(found, expected, case, "float32")


@pytest.mark.parametrize("path", ["end.times", "end.plus", "end.quotient.r"])
@pytest.mark.parametrize(
    "kernel", ["gemm_forward", "conv_forward", "depthwise_vjp", "sumpool_vjp", "collect"]
)
@pytest.mark.parametrize("runner", RUNNERS)
def test_nan_in_an_ending_reaches_the_result(runner: str, kernel: str, path: str) -> None:
    with running(runner) as module:
        case = large_case(kernel, module.LANES, fullest).samples(0, 1)
        end = case.arguments["end"]
        quotient = replace(end.quotient, gate=0, gate_z=None) if path == "end.quotient.r" else None
        case = case.with_ending(plus=end.plus.copy(), quotient=quotient, sums=np.zeros((1, 2)))
        case = with_nan(case, path)
        expected = case.run(numpy_)
        assert np.isnan(expected["end.out"]).sum() == 1 and np.isnan(expected["end.sums"]).all()
        assert_close(case.in_dtype("float32").run(module), expected, case, "float32")


@pytest.mark.parametrize("runner", RUNNERS)
def test_clamps_keep_nan_and_infinity(runner: str) -> None:
    src = np.array([np.nan, np.inf, -np.inf, -1.0, -0.0, 0.5, 2.0]).reshape(1, 1, 7, 1)
    with running(runner) as module:
        for clamp in ((1.0, 0.0, np.inf), (1.0, 0.0, 1.0), (0.5, -np.inf, np.inf)):
            make = Maker(simplest, "nothing")
            end = replace(make.ending((1, 1, 7), 1), clamp=clamp)
            case = Case("collect", {"src": src, "src_part": (1.0, 1.0), "end": end})
            expected = case.run(numpy_)["end.out"]
            np.testing.assert_array_equal(case.in_dtype("float32").run(module)["end.out"], expected)
