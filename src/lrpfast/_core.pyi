"""The kernels in C++; `backends/numpy_.py` defines them."""

from .backends.numpy_ import Part, Triple
from .ops.base import Array

KERNELS: tuple[str, ...]

def targets() -> tuple[str, ...]: ...
def target() -> str: ...
def set_target(name: str) -> None: ...
def get_num_threads() -> int: ...
def set_num_threads(n: int) -> None: ...
def limit_threads(n: int) -> int: ...
def gemm_forward(
    src: Array, w: Array, src_part: Part, w_part: Part, bias: Array | None,
    times: Array | None, times_part: Part, out: Array, accumulate: bool,
) -> None: ...  # fmt: skip
def gemm_vjp(
    src: Array, w: Array, src_part: Part, w_part: Part, bias: Array | None,
    times: Array | None, times_part: Part, out: Array, accumulate: bool,
) -> None: ...  # fmt: skip
def conv_forward(
    src: Array, w: Array, strides: Triple, pads: Triple, dilations: Triple, groups: int,
    src_part: Part, w_part: Part, bias: Array | None,
    times: Array | None, times_part: Part, out: Array, accumulate: bool,
) -> None: ...  # fmt: skip
def conv_vjp(
    src: Array, w: Array, strides: Triple, pads: Triple, dilations: Triple, groups: int,
    src_part: Part, w_part: Part, bias: Array | None,
    times: Array | None, times_part: Part, out: Array, accumulate: bool,
) -> None: ...  # fmt: skip
def depthwise_forward(
    src: Array, w: Array, strides: Triple, pads: Triple, dilations: Triple,
    src_part: Part, w_part: Part, bias: Array | None,
    times: Array | None, times_part: Part, out: Array, accumulate: bool,
) -> None: ...  # fmt: skip
def depthwise_vjp(
    src: Array, w: Array, strides: Triple, pads: Triple, dilations: Triple,
    src_part: Part, w_part: Part, bias: Array | None,
    times: Array | None, times_part: Part, out: Array, accumulate: bool,
) -> None: ...  # fmt: skip
def sumpool_forward(
    src: Array, w: Array, window: Triple, strides: Triple, pads: Triple, dilations: Triple,
    src_part: Part, w_part: Part, bias: Array | None,
    times: Array | None, times_part: Part, out: Array, accumulate: bool,
) -> None: ...  # fmt: skip
def sumpool_vjp(
    src: Array, w: Array, window: Triple, strides: Triple, pads: Triple, dilations: Triple,
    src_part: Part, w_part: Part, bias: Array | None,
    times: Array | None, times_part: Part, out: Array, accumulate: bool,
) -> None: ...  # fmt: skip
def maxpool_forward(
    src: Array, window: Triple, strides: Triple, pads: Triple, dilations: Triple,
    out: Array, winners: Array,
) -> None: ...  # fmt: skip
def maxpool_vjp(src: Array, winners: Array, out: Array, accumulate: bool) -> None: ...
def clamp_forward(src: Array, slope: float, low: float, high: float, out: Array) -> None: ...
def collect(
    src: Array, src_part: Part, times: Array | None, times_part: Part, out: Array, accumulate: bool
) -> None: ...
def divide(
    z: Array, r: Array, gate_z: Array | None, gate: int, bias: Array | None, scale: float,
    epsilon: float, clip: bool, norm_scale: bool, out: Array, ledger: Array,
) -> None: ...  # fmt: skip
def sums(src: Array, out: Array) -> None: ...
