"""The native kernels promise the same bits for any number of threads, size of the batch and place in it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from kernel_cases import Case, Choose, Maker, fullest, gemm_case, large_case, simplest, winograd_case
from kernel_runs import NATIVE, running

from lrpfast import backends


@pytest.fixture(autouse=True)
def threads_as_before() -> Iterator[None]:
    before = backends.get_num_threads()
    yield
    backends.set_num_threads(before)


def assert_independent(case: Case, module: Any) -> None:
    """The same bits on one thread and on several, and for some of the three samples."""
    backends.set_num_threads(1)
    expected = case.run(module)
    for threads in (2, 3):
        backends.set_num_threads(threads)
        for path, value in case.run(module).items():
            np.testing.assert_array_equal(value, expected[path], err_msg=f"{path}, {threads} threads")
        for first, last in ((0, 1), (1, 3), (2, 3)):
            for path, value in case.samples(first, last).run(module).items():
                np.testing.assert_array_equal(
                    value, expected[path][first:last], err_msg=f"{path}, {first}-{last}"
                )


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("choose", [simplest, fullest])
@pytest.mark.parametrize("kernel", backends.KERNELS)
@pytest.mark.parametrize("runner", NATIVE)
def test_bits_depend_neither_on_threads_nor_on_the_batch(
    runner: str, kernel: str, choose: Choose, dtype: str
) -> None:
    with running(runner) as module:
        assert_independent(large_case(kernel, module.LANES, choose).in_dtype(dtype), module)


@pytest.mark.parametrize("size", [(9, 9), (30, 37)])
@pytest.mark.parametrize("kernel", ["conv_forward", "conv_vjp"])
@pytest.mark.parametrize("runner", NATIVE)
def test_neither_do_those_of_winograds_algorithm(runner: str, kernel: str, size: tuple[int, int]) -> None:
    with running(runner) as module:
        case = winograd_case(kernel, simplest, module.LANES, *size, 48, 40, (1, 1, 1, 1), n=3)
        case = case.with_ending(sums=np.zeros((3, 2)), plus=case.arguments["end"].out)
        assert_independent(case.in_dtype("float32"), module)


@pytest.mark.parametrize("kernel", ["gemm_forward", "gemm_vjp"])
@pytest.mark.parametrize("runner", NATIVE)
def test_dense_bits_do_not_depend_on_tiles_of_samples(runner: str, kernel: str) -> None:
    case = gemm_case(kernel, Maker(simplest, "nothing"), 41, 37, 53).in_dtype("float32")
    case.arguments["src"][np.random.default_rng(3).random(case.arguments["src"].shape) < 0.6] = 0
    with running(runner) as module:
        together = case.run(module)["end.out"]
        for i in range(len(together)):
            alone = case.samples(i, i + 1).run(module)["end.out"]
            np.testing.assert_array_equal(alone, together[i : i + 1])
