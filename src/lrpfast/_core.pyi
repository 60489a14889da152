"""The kernels in C++; `backends/numpy_.py` defines them."""

from collections.abc import Iterable, Mapping
from typing import Any

from .backends.ending import Ending
from .backends.numpy_ import Part, Triple
from .ops.base import Array

KERNELS: tuple[str, ...]
LANES: int

class Program:
    """Kernel calls that run in a row, for any number of samples.

    Arguments are checked here, once for all runs.

    Parameters
    ----------
    calls : iterable of (str, mapping)
        Names of kernels, and their arguments by name. Arrays with samples are `View`s, in the arena;
        arrays that are the same for all samples, such as weights, are NumPy's, and are kept.
    """

    def __init__(self, calls: Iterable[tuple[str, Mapping[str, Any]]]) -> None: ...
    @property
    def bytes_per_sample(self) -> int:
        """The size of the smallest arena, for one sample."""

    @property
    def forms(self) -> list[str]:
        """For each call, in words, the form that its kernel has chosen, and why; empty where there is no choice."""

    def run(self, arena: Array, n: int) -> None:
        """Run all calls on the `n` samples in `arena`: bytes, aligned to 64. Several threads may run at once."""

    def profile(self, arena: Array, n: int) -> list[float]:
        """Like `run`; returns the seconds that each call took."""

def targets() -> tuple[str, ...]: ...
def target() -> str: ...
def set_target(name: str) -> None: ...
def get_num_threads() -> int: ...
def set_num_threads(n: int) -> None: ...
def limit_threads(n: int) -> int: ...
def gemm_forward(src: Array, w: Array, src_part: Part, w_part: Part, end: Ending) -> None: ...
def gemm_vjp(src: Array, w: Array, src_part: Part, w_part: Part, end: Ending) -> None: ...
def conv_forward(
    src: Array, w: Array, strides: Triple, pads: Triple, dilations: Triple, groups: int,
    src_part: Part, w_part: Part, other_part: Part | None, exact: bool, end: Ending,
) -> None: ...  # fmt: skip
def conv_vjp(
    src: Array, w: Array, strides: Triple, pads: Triple, dilations: Triple, groups: int,
    src_part: Part, w_part: Part, other_part: Part | None, exact: bool, end: Ending,
) -> None: ...  # fmt: skip
def depthwise_forward(
    src: Array, w: Array, strides: Triple, pads: Triple, dilations: Triple,
    src_part: Part, src_high: float, w_part: Part, end: Ending,
) -> None: ...  # fmt: skip
def depthwise_vjp(
    src: Array, w: Array, strides: Triple, pads: Triple, dilations: Triple,
    src_part: Part, src_high: float, w_part: Part, end: Ending,
) -> None: ...  # fmt: skip
def sumpool_forward(
    src: Array, w: Array, window: Triple, strides: Triple, pads: Triple, dilations: Triple,
    src_part: Part, w_part: Part, end: Ending,
) -> None: ...  # fmt: skip
def sumpool_vjp(
    src: Array, w: Array, window: Triple, strides: Triple, pads: Triple, dilations: Triple,
    src_part: Part, w_part: Part, end: Ending,
) -> None: ...  # fmt: skip
def maxpool_forward(
    src: Array, window: Triple, strides: Triple, pads: Triple, dilations: Triple,
    out: Array, winners: Array,
) -> None: ...  # fmt: skip
def maxpool_vjp(
    src: Array, winners: Array, window: Triple, strides: Triple, pads: Triple, dilations: Triple,
    end: Ending,
) -> None: ...  # fmt: skip
def affine(src: Array, w: Array, src_part: Part, w_part: Part, end: Ending) -> None: ...
def collect(src: Array, src_part: Part, end: Ending) -> None: ...
def divide(z: Array, norm_size: int, end: Ending) -> None: ...
def reorder(src: Array, channels: int, end: Ending) -> None: ...
def sums(src: Array, out: Array) -> None: ...
