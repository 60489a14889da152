"""Calls of kernels, drawn at random or given: what the tests of all backends run.

Whatever is open is *chosen* from a few options, the simplest first and the fullest last. Hypothesis chooses
where cases are drawn; `simplest` and `fullest` always choose the same.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
from hypothesis import strategies as st
from numpy.typing import NDArray

from lrpfast.backends import numpy_
from lrpfast.backends.ending import Ending, Quotient

Array = NDArray[Any]
Sizes = tuple[int, ...]
Choose = Callable[[Sequence[Any]], Any]

PARTS = [(1.0, 1.0), (0.0, 0.0), (1.0, 0.0), (0.0, 1.0), (1.0, -1.0), (1.25, 1.0)]
LASTS = ["nothing", "clamp", "quotient"]
CLAMPS = [(1.0, 0.0, np.inf), (1.0, 0.0, 0.5), (0.125, -np.inf, np.inf), (0.5, -0.5, 0.25)]
POSITIVE_CLAMP = (1.0, 0.25, 0.75)  # of plain arrays: lanes without a channel are to stay zero
GARBAGE = 7.0  # what is in outputs before: every element has to be written

OUTPUTS = ("out", "end.out", "end.kept", "end.sums", "end.quotient.ledger", "end.quotient.mirrored")
CONSTANT = ("w", "end.bias", "end.quotient.bias")  # the same for all samples
DOUBLE = ("end.sums", "end.quotient.ledger")  # float64 whatever the dtype of the others


def simplest(options: Sequence[Any]) -> Any:
    return options[0]


def fullest(options: Sequence[Any]) -> Any:
    return options[-1]


# --- a call ---


@dataclass(frozen=True)
class Case:
    """A kernel and its arguments, in float64. An array is known by its path, such as `end.out`."""

    kernel: str
    arguments: Mapping[str, Any]

    def changed(self, change: Callable[[str, Array], Any]) -> Case:
        """The call with each array changed; an array that is there twice still is."""
        changed: dict[int, Any] = {}

        def of(path: str, value: Any) -> Any:
            if isinstance(value, (Ending, Quotient)):
                parts = {f.name: of(f"{path}.{f.name}", getattr(value, f.name)) for f in fields(value)}
                return replace(value, **parts)
            if not isinstance(value, np.ndarray):
                return value
            if id(value) not in changed:
                changed[id(value)] = change(path, value)
            return changed[id(value)]

        return Case(self.kernel, {name: of(name, value) for name, value in self.arguments.items()})

    def arrays(self) -> dict[str, Array]:
        """All arrays, each by the first of its paths."""
        found: dict[str, Array] = {}
        self.changed(lambda path, array: found.setdefault(path, array))
        return found

    def is_output(self, path: str) -> bool:
        return path in OUTPUTS or (path == "winners" and self.kernel == "maxpool_forward")

    def in_dtype(self, dtype: str) -> Case:
        """The call in another dtype."""
        double = (*DOUBLE, "out") if self.kernel == "sums" else DOUBLE
        return self.changed(
            lambda path, a: a.astype(dtype) if a.dtype.kind == "f" and path not in double else a.copy()
        )

    def samples(self, first: int, last: int) -> Case:
        """The same call for some of the samples."""
        shared = (*CONSTANT, "z") if self.kernel == "divide" and len(self.arguments["z"]) == 1 else CONSTANT
        return self.changed(lambda path, a: a if path in shared else a[first:last].copy())

    def run(self, module: Any) -> dict[str, Array]:
        """The outputs of the call on copies of the arrays, of which the inputs cannot be written to."""
        case = self.changed(lambda _, array: array.copy())
        outputs = {path: array for path, array in case.arrays().items() if self.is_output(path)}
        for path, array in case.arrays().items():
            array.flags.writeable = path in outputs
        getattr(module, self.kernel)(**case.arguments)
        return outputs

    def with_ending(self, **changes: Any) -> Case:
        return Case(self.kernel, {**self.arguments, "end": replace(self.arguments["end"], **changes)})


# --- arrays, parts and endings ---


class Maker:
    """Makes arrays, parts and endings for one call.

    Where the call ends in a quotient, numbers are multiples of a power of two so large that no sum is
    rounded: a denominator that is rounded to another sign would change everything.

    Parameters
    ----------
    choose : callable
    last : str, optional
        What the ending does last, one of `LASTS`.
    """

    def __init__(self, choose: Choose, last: str | None = None) -> None:
        self.choose = choose
        self.last = choose(LASTS) if last is None else last
        self.rng = np.random.default_rng(choose(range(1000)))

    def array(self, *shape: int) -> Array:
        """Numbers that float32 can hold, a fifth of them zero."""
        if self.last == "quotient":
            numbers = self.rng.integers(-8, 9, shape) / 8
        else:
            numbers = self.rng.normal(size=shape).astype(np.float32).astype(np.float64)
        return numbers * (self.rng.random(shape) > 0.2)

    def blocked(self, shape: Sizes, lanes: int) -> Array:
        """The same as a blocked array, for `shape` (n, channels, …); plain without lanes."""
        return numpy_.blocked(self.array(*shape), lanes) if lanes else self.array(*shape)

    def part(self) -> tuple[float, float]:
        part: tuple[float, float] = self.choose(PARTS)
        return part

    def bound(self) -> float:
        bound: float = self.choose([np.inf, 0.5, 0.0])
        return bound

    def maybe(self, make: Callable[[], Any]) -> Any:
        return make() if self.choose([False, True]) else None

    def ending(self, shape: Sizes, lanes: int = 0) -> Ending:
        """Any ending for an output of `shape` (n, channels, …)."""
        n, channels = shape[:2]
        clamps = CLAMPS if lanes > 1 else [*CLAMPS, POSITIVE_CLAMP]
        out = np.full_like(self.blocked(shape, lanes), GARBAGE)
        plus = self.choose([None, "another", "out"])
        if plus == "out":
            out[...] = self.blocked(shape, lanes)
        times = self.maybe(lambda: self.blocked(shape, lanes))
        if times is not None and self.last == "quotient":
            times = np.round(2 * times) / 2
        return Ending(
            out,
            bias=self.maybe(lambda: self.array(channels)),
            times=times,
            times_part=self.part(),
            times_high=self.bound(),
            plus=out if plus == "out" else plus and self.blocked(shape, lanes),
            plus_factor=self.choose([1.0, -1.0, 0.5]),
            clamp=self.choose(clamps) if self.last == "clamp" else None,
            kept=self.maybe(lambda: np.full_like(out, GARBAGE)) if plus or self.last == "clamp" else None,
            quotient=self.quotient(shape, lanes) if self.last == "quotient" else None,
            sums=self.maybe(lambda: np.full((n, 2), GARBAGE)),
        )

    def quotient(self, shape: Sizes, lanes: int, may_mirror: bool = True) -> Quotient:
        n, channels = shape[:2]
        gate = self.choose([0, "mirrored", -1, 1] if may_mirror else [0, -1, 1])
        mirrored = gate == "mirrored"
        return Quotient(
            self.blocked(shape, lanes),
            self.rng.normal(size=(n, 4)),
            epsilon=self.choose([0.25, 0.0, 1e-6]),
            clip=self.choose([False, True]),
            scale=self.choose([1.0, -1.0, 2.0]),
            gate=0 if mirrored else gate,
            gate_z=self.blocked(shape, lanes) if gate else None,
            bias=self.maybe(lambda: self.array(channels)),
            mirrored=np.full_like(self.blocked(shape, lanes), GARBAGE) if mirrored else None,
        )

    def linear(self, src: Array, w: Array, out: Sizes, lanes: int = 0, **rest: Any) -> dict[str, Any]:
        """The arguments of a linear kernel."""
        parts = {"src_part": self.part(), "w_part": self.part()}
        return {"src": src, "w": w, **rest, **parts, "end": self.ending(out, lanes)}


# --- windows ---


@dataclass(frozen=True)
class Windows:
    """Sizes of x and z, and what lies between them."""

    x: Sizes
    z: Sizes
    taps: Sizes
    strides: Sizes
    pads: Sizes
    dilations: Sizes

    def geometry(self) -> dict[str, Sizes]:
        return {"strides": self.strides, "pads": self.pads, "dilations": self.dilations}

    def sides(self, kernel: str) -> tuple[Sizes, Sizes]:
        """Sizes of src and out."""
        return (self.x, self.z) if kernel.endswith("forward") else (self.z, self.x)


def windows_of(*axes: Sizes) -> Windows:
    """Windows from, for each axis, (x, taps, stride, pad, pad at the end, dilation)."""
    columns = []
    for x, taps, stride, pad, pad_end, dilation in ((1, 1, 1, 0, 0, 1),) * (3 - len(axes)) + axes:
        reach = (taps - 1) * dilation + 1
        columns.append((x, (x + pad + pad_end - reach) // stride + 1, taps, stride, pad, dilation))
    return Windows(*zip(*columns, strict=True))


def windows(choose: Choose) -> Windows:
    """Any windows over one to three axes."""
    axes = choose([1, 2, 3])
    most = {1: 70, 2: 20, 3: 6}[axes]
    if choose([False] * 5 + [True]):  # global pooling, or a dense layer in disguise
        return windows_of(
            *((size, size, 1, 0, 0, 1) for size in (choose(range(1, most)) for _ in range(axes)))
        )
    found = []
    for _ in range(axes):
        taps, stride, dilation = choose([1, 2, 3, 4, 5]), choose([1, 2, 3]), choose([1, 2, 3])
        reach = (taps - 1) * dilation + 1
        pad, pad_end = choose(range(reach)), choose(range(reach))
        x = choose(range(max(1, reach - pad - pad_end), max(most, reach) + 1))
        found.append((x, taps, stride, pad, pad_end, dilation))
    return windows_of(*found)


# --- the families: one call of given sizes ---


def lanes_for(channels: int, lanes: int, choose: Choose) -> int:
    """All lanes; or fewer, where one block of those holds the channels."""
    narrow = [some for some in (channels, (channels + lanes) // 2) if some < lanes]
    found: int = choose([lanes, *narrow])
    return found


def gemm_case(kernel: str, make: Maker, n: int, m: int, k: int) -> Case:
    x, z = (n, k), (n, m)
    src, out = (x, z) if kernel.endswith("forward") else (z, x)
    return Case(kernel, make.linear(make.array(*src), make.array(m, k), out))


def conv_case(
    kernel: str, make: Maker, lanes: int, n: int, m: int, c: int, window: Windows, groups: int = 1,
    exact: bool = True,
) -> Case:  # fmt: skip
    """`m` filters and `c` channels for each of the groups."""
    of_src, of_out = (c, m) if kernel.endswith("forward") else (m, c)
    src, out = window.sides(kernel)
    src_lanes, out_lanes = (lanes_for(groups * count, lanes, make.choose) for count in (of_src, of_out))
    arguments = make.linear(
        make.blocked((n, groups * of_src, *src), src_lanes), make.array(groups * m, c, *window.taps),
        (n, groups * of_out, *out), out_lanes, **window.geometry(), groups=groups, other_part=None, exact=exact,
    )  # fmt: skip
    case = Case(kernel, arguments)
    by_sign = make.choose(
        [False, True, False]
    )  # neither the simplest nor the fullest case: it excludes a bias
    if arguments["end"].times is None or not by_sign:
        return case
    quotient = case.arguments["end"].quotient
    if quotient is not None and quotient.mirrored is not None:
        quotient = replace(quotient, mirrored=None)
    case = case.with_ending(bias=None, kept=None, quotient=quotient)
    return Case(kernel, {**case.arguments, "other_part": make.part()})


def depthwise_case(kernel: str, make: Maker, lanes: int, n: int, c: int, window: Windows) -> Case:
    src, out = window.sides(kernel)
    w = make.array(c, 1, *window.taps)
    rest = {**window.geometry(), "src_high": make.bound()}
    return Case(kernel, make.linear(make.blocked((n, c, *src), lanes), w, (n, c, *out), lanes, **rest))


def sumpool_case(kernel: str, make: Maker, lanes: int, n: int, c: int, window: Windows) -> Case:
    src, out = window.sides(kernel)
    rest = {"window": window.taps, **window.geometry()}
    w = make.array(*window.z)
    return Case(kernel, make.linear(make.blocked((n, c, *src), lanes), w, (n, c, *out), lanes, **rest))


def maxpool_case(kernel: str, make: Maker, lanes: int, n: int, c: int, window: Windows) -> Case:
    rest = {"window": window.taps, **window.geometry()}
    if kernel.endswith("forward"):
        src = np.round(make.array(n, c, *window.x), 1)  # so that some are equal
        src[make.rng.random(src.shape) < 0.02] = np.nan
        out = np.full_like(numpy_.blocked(np.zeros((n, c, *window.z)), lanes), GARBAGE)
        src = src.astype(np.float32).astype(np.float64)
        outputs = {"out": out, "winners": out.astype(np.int32)}
        return Case(kernel, {"src": numpy_.blocked(src, lanes), **rest, **outputs})
    z = np.empty((n, c, *window.z, 1))
    winners = np.empty(z.shape, np.int32)
    x = make.rng.normal(size=(n, c, *window.x, 1))
    numpy_.maxpool_forward(x, **rest, out=z, winners=winners)
    src = np.where(np.isfinite(z), make.array(*z.shape), 0)  # windows without any input have no winner
    given = {"src": src, "winners": winners}
    arguments = {name: numpy_.blocked(a[..., 0], lanes) for name, a in given.items()}
    return Case(kernel, {**arguments, **rest, "end": make.ending((n, c, *window.x), lanes)})


def affine_case(make: Maker, lanes: int, shape: Sizes) -> Case:
    return Case("affine", make.linear(make.blocked(shape, lanes), make.array(shape[1]), shape, lanes))


def collect_case(make: Maker, lanes: int, shape: Sizes) -> Case:
    end = make.ending(shape, lanes)
    return Case("collect", {"src": make.blocked(shape, lanes), "src_part": make.part(), "end": end})


def divide_case(make: Maker, lanes: int, shape: Sizes) -> Case:
    """Of a maker whose calls end in a quotient."""
    z = make.blocked((make.choose([1, shape[0]]), *shape[1:]), lanes)
    norm_size = make.choose([0, math.prod(shape[1:])])
    end = Ending(np.full_like(make.blocked(shape, lanes), GARBAGE), quotient=make.quotient(shape, lanes, False),
                 sums=make.maybe(lambda: np.zeros((shape[0], 2))))  # fmt: skip
    return Case("divide", {"z": z, "norm_size": norm_size, "end": end})


def reorder_case(make: Maker, src_lanes: int, out_lanes: int, shape: Sizes) -> Case:
    arguments = {"src": make.blocked(shape, src_lanes), "channels": shape[1]}
    return Case("reorder", {**arguments, "end": make.ending(shape, out_lanes)})


def sums_case(make: Maker, n: int, size: int) -> Case:
    return Case("sums", {"src": make.array(n, size), "out": np.full((n, 2), GARBAGE)})


# --- calls of any size ---

CHANNELS = [1, 2, 3, 5, 15, 16, 17, 33]


def any_case(kernel: str, lanes: int, choose: Choose) -> Case:
    """A call of a kernel, for a backend that likes `lanes` best."""
    last = {"divide": "quotient", "maxpool_forward": "nothing", "sums": "nothing"}.get(kernel)
    make = Maker(choose, last)
    n = choose([1, 2, 3])
    if kernel.startswith("gemm"):
        return gemm_case(kernel, make, choose([1, 2, 33, 3, 7]), choose(range(1, 76)), choose(range(1, 76)))
    if kernel in ("affine", "collect", "divide", "reorder"):
        shape = (n, choose([*CHANNELS, 70]), choose([1, 2, 5, 16, 33, 300]))
        few = [shape[1]] if shape[1] < lanes else []
        of_src, of_out = choose([1, lanes, *few]), choose([1, lanes, *few])
        if kernel == "reorder":
            return reorder_case(make, of_src, of_out, shape)
        return {"affine": affine_case, "collect": collect_case, "divide": divide_case}[kernel](
            make, of_src, shape
        )
    if kernel == "sums":
        return sums_case(make, n, choose([1, 7, 16, 100, 4096, 9000]))
    window = windows(choose)
    if kernel.startswith("conv"):
        groups = choose([1, 1, 1, 2, 3])
        m, c = choose(CHANNELS), choose(CHANNELS)
        # Denominators are exact; and only float32 results may be what Winograd's algorithm gives.
        exact = make.last == "quotient" or choose([True, False])
        return conv_case(kernel, make, lanes, n, m, c, window, groups, exact)
    family = {"depthwise": depthwise_case, "sumpool": sumpool_case, "maxpool": maxpool_case}
    return family[kernel.partition("_")[0]](kernel, make, lanes, n, choose(CHANNELS), window)


@st.composite
def any_cases(draw: Callable[[Any], Any], kernel: str, lanes: int) -> Case:
    return any_case(kernel, lanes, lambda options: draw(st.sampled_from(options)))


# --- calls that fill several blocks of work ---


def large_case(kernel: str, lanes: int, choose: Choose) -> Case:
    """Three samples, whose tasks end in odd places."""
    make = Maker(choose, "quotient" if kernel == "divide" else None)
    plane = windows_of((61, 3, 2, 1, 1, 1), (67, 3, 1, 1, 1, 2))
    if kernel.startswith("gemm"):
        return gemm_case(kernel, make, 3, 150, 4500)
    if kernel.startswith("conv"):
        return conv_case(kernel, make, lanes, 3, 70, 20, plane)
    if kernel == "reorder":
        return reorder_case(make, lanes, 1, (3, 65, 811))
    if kernel == "sums":
        return sums_case(make, 3, 70001)
    if kernel in ("affine", "collect", "divide"):
        return {"affine": affine_case, "collect": collect_case, "divide": divide_case}[kernel](
            make, lanes, (3, 65, 811)
        )
    family = {"depthwise": depthwise_case, "sumpool": sumpool_case, "maxpool": maxpool_case}
    return family[kernel.partition("_")[0]](kernel, make, lanes, 3, 35, plane)


def winograd_case(
    kernel: str, choose: Choose, lanes: int, rows: int, columns: int, m: int, c: int, pads: Sizes, n: int = 1
) -> Case:
    """A 3×3 convolution that need not be exact; `pads` of both ends of both axes."""
    make = Maker(choose, "nothing")
    window = windows_of((rows, 3, 1, *pads[:2], 1), (columns, 3, 1, *pads[2:], 1))
    return conv_case(kernel, make, lanes, n, m, c, window, exact=False)
