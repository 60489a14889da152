"""The kernels in C++: the definitions' names and signatures, run by `lrpfast._core`.

The SIMD target is the best that the CPU has; the environment variable ``LRPFAST_TARGET`` or
`set_target` chooses another. On one target the results are the same bits for any number of
threads, any size of the batch and any place in it.

The arrays of convolutions have 16 lanes, or one block of fewer; those of depthwise convolutions and of
pooling have 16. `Program` runs many calls in a row.
"""

from __future__ import annotations

import os

from .. import _core
from .._core import (
    KERNELS,
    LANES,
    Program,
    affine,
    collect,
    conv_forward,
    conv_vjp,
    depthwise_forward,
    depthwise_vjp,
    divide,
    gemm_forward,
    gemm_vjp,
    maxpool_forward,
    maxpool_vjp,
    reorder,
    set_num_threads,
    sumpool_forward,
    sumpool_vjp,
    sums,
    target,
    targets,
)
from ..errors import BackendError

__all__ = [
    "KERNELS", "LANES", "Program", "affine", "collect", "conv_forward", "conv_vjp", "depthwise_forward",
    "depthwise_vjp", "divide", "gemm_forward", "gemm_vjp", "limit_threads", "maxpool_forward", "maxpool_vjp",
    "name", "reorder", "set_num_threads", "set_target", "sumpool_forward", "sumpool_vjp", "sums", "target",
    "targets",
]  # fmt: skip

name = "native"


def set_target(which: str) -> None:
    """Run the kernels that were compiled for the SIMD target `which`, one of `targets()`.

    Plans keep the target that they were made for, so it must not change while another thread makes one.

    Raises
    ------
    BackendError
        If this CPU or this build does not have it.
    """
    try:
        _core.set_target(which)
    except ValueError as error:
        raise BackendError(str(error)) from None


class limit_threads:
    """In a `with`: let the calling thread's kernels use at most `threads` threads; None sets no limit.

    The limit of `set_num_threads` holds besides. A class, since that costs less per run than a generator.

    Raises
    ------
    ValueError
        If `threads` is less than 1.
    """

    def __init__(self, threads: int | None) -> None:
        if threads is not None and threads < 1:
            raise ValueError(
                f"limit_threads: threads is {threads}, expected at least 1, or None for no limit"
            )
        self._threads = threads or 0

    def __enter__(self) -> None:
        self._before = _core.limit_threads(self._threads)

    def __exit__(self, *error: object) -> None:
        _core.limit_threads(self._before)


if os.environ.get("LRPFAST_TARGET"):
    try:
        set_target(os.environ["LRPFAST_TARGET"])
    except BackendError as error:
        raise BackendError(f"LRPFAST_TARGET: {error}") from None
