"""The native backend's programs: many calls in a row, on any number of samples in one arena."""

from __future__ import annotations

import gc
import threading
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from conftest import BACKENDS
from kernel_cases import CONSTANT, Array, Case, any_case, fullest, large_case, simplest
from kernel_runs import NATIVE, running
from test_kernel_refusals import good_case

import lrpfast
from lrpfast import ReLU, backends
from lrpfast.backends.ending import Ending
from lrpfast.composites import assign
from lrpfast.lower import lower
from lrpfast.steps import View

pytestmark = pytest.mark.skipif("native" not in BACKENDS, reason="only the native backend has programs")

WHOLE = (1.0, 1.0)
ALIGNMENT = 64


class Layout:
    """Arrays as views of an arena, one behind the other."""

    def __init__(self) -> None:
        self.bytes_per_sample = 0
        self.views: dict[str, View] = {}

    def view(self, name: str, shape: tuple[int, ...], dtype: str = "float32", rows: int = 1) -> View:
        view = View(name, shape, rows, dtype, self.bytes_per_sample)
        self.bytes_per_sample += -(-view.nbytes // ALIGNMENT) * ALIGNMENT
        self.views[name] = view
        return view

    def placed(self, case: Case) -> dict[str, Any]:
        """The arguments of the call, with views for its arrays; those for all samples stay."""
        shared = (*CONSTANT, "z") if is_shared_z(case) else CONSTANT

        def place(path: str, a: Array) -> Any:
            return a if path in shared else self.view(path, a.shape[1:], a.dtype.name)

        return dict(case.changed(place).arguments)


def is_shared_z(case: Case) -> bool:
    return case.kernel == "divide" and len(case.arguments["z"]) == 1


def arena_of(n: int, bytes_per_sample: int) -> Array:
    """Memory for n samples, aligned as programs want it."""
    size = n * bytes_per_sample
    memory = np.full(size + ALIGNMENT, 255, np.uint8)
    start = -memory.ctypes.data % ALIGNMENT
    return memory[start : start + size]


def filled(layout: Layout, case: Case, n: int) -> Array:
    """An arena with the first n samples of the call's arrays."""
    arena = arena_of(n, layout.bytes_per_sample)
    for path, array in case.arrays().items():
        if path in layout.views:
            layout.views[path].of(arena, n)[...] = array[:n]
    return arena


def program(*calls: tuple[str, Any]) -> Any:
    return backends.get("native").Program(calls)


# --- the same results ---


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("choose", [simplest, fullest])
@pytest.mark.parametrize("kernel", backends.KERNELS)
@pytest.mark.parametrize("runner", NATIVE)
def test_a_program_of_one_call_is_the_call(runner: str, kernel: str, choose: Any, dtype: str) -> None:
    """To the bit, for any number of samples."""
    with running(runner) as module:
        case = large_case(kernel, module.LANES, choose).in_dtype(dtype)
        layout = Layout()
        run = module.Program([(kernel, layout.placed(case))])
        assert run.bytes_per_sample <= layout.bytes_per_sample
        for n in (1, 3):
            expected = case.samples(0, n).run(module)
            arena = filled(layout, case, n)
            run.run(arena, n)
            for path, value in expected.items():
                np.testing.assert_array_equal(layout.views[path].of(arena, n), value, err_msg=path)


@pytest.mark.skipif(len(NATIVE) < 2, reason="this machine has one SIMD target")
@pytest.mark.parametrize("kernel", ["conv_forward", "gemm_vjp"])
def test_a_program_keeps_the_target_that_it_was_made_for(kernel: str) -> None:
    """Its weights are packed for that."""
    layout = Layout()
    with running(NATIVE[-1]) as module:
        case = large_case(kernel, module.LANES, simplest).in_dtype("float32")
        run = module.Program([(kernel, layout.placed(case))])
        expected = case.run(module)["end.out"]
    with running(NATIVE[0]):
        arena = filled(layout, case, 3)
        run.run(arena, 3)
    np.testing.assert_array_equal(layout.views["end.out"].of(arena, 3), expected)


@pytest.fixture
def chain() -> tuple[Layout, Any, Callable[[Array], dict[str, Array]]]:
    """Two rows a sample through a dense layer, a ReLU and sums; the layout, the calls, and what they give."""
    rng = np.random.default_rng(0)
    w, bias = rng.normal(size=(5, 7)).astype(np.float32), rng.normal(size=5).astype(np.float32)
    layout = Layout()
    x, z = layout.view("x", (7,), rows=2), layout.view("z", (5,), rows=2)
    y, sums = layout.view("y", (2, 5, 1)), layout.view("sums", (2,), "float64")
    seen = View("z", (2, 5, 1), offset=z.offset)
    calls = [
        ("gemm_forward", {"src": x, "w": w, "src_part": WHOLE, "w_part": WHOLE, "end": Ending(z, bias=bias)}),
        ("collect", {"src": seen, "src_part": WHOLE, "end": Ending(y, clamp=(1.0, 0.0, np.inf))}),
        ("sums", {"src": View("y", (10,), offset=y.offset), "out": sums}),
    ]

    def expected(given: Array) -> dict[str, Array]:
        product = given @ w.T + bias
        positive = np.maximum(product, 0)
        return {"z": product, "y": positive.reshape(-1, 2, 5, 1), "sums": positive.reshape(-1, 10).sum(1)}

    return layout, calls, expected


def test_calls_see_the_results_of_those_before(chain: Any) -> None:
    layout, calls, expected = chain
    run = program(*calls)
    calls.clear()
    gc.collect()  # weights and biases are the program's from now on
    for n in (1, 2, 5, 1):
        arena = arena_of(n, layout.bytes_per_sample)
        x = np.random.default_rng(n).normal(size=(2 * n, 7)).astype(np.float32)
        layout.views["x"].of(arena, n)[...] = x
        run.run(arena, n)
        for name, value in expected(x).items():
            found = layout.views[name].of(arena, n)
            found = found[:, 0] if name == "sums" else found
            np.testing.assert_allclose(found, value, rtol=1e-5, atol=1e-5, err_msg=name)
        np.testing.assert_array_equal(layout.views["x"].of(arena, n), x)


def test_the_smallest_arena_ends_with_the_last_array(chain: Any) -> None:
    layout, calls, _ = chain
    assert program(*calls).bytes_per_sample == layout.views["sums"].offset + 16
    assert program().bytes_per_sample == 0
    program().run(arena_of(1, 64), 1)


def test_calls_may_come_from_an_iterator(chain: Any) -> None:
    _, calls, _ = chain

    def one_by_one() -> Iterator[tuple[str, Any]]:
        yield from calls

    assert backends.get("native").Program(one_by_one()).bytes_per_sample > 0


def test_a_profile_runs_and_times_every_call(chain: Any) -> None:
    layout, calls, _ = chain
    run, n = program(*calls), 3
    arenas = []
    for method in (run.run, run.profile):
        arena = arena_of(n, layout.bytes_per_sample)
        layout.views["x"].of(arena, n)[...] = np.arange(42).reshape(6, 7)
        seconds = method(arena, n)
        arenas.append(layout.views["sums"].of(arena, n).tobytes())
    assert len(seconds) == 3
    assert all(isinstance(value, float) and value >= 0 for value in seconds)
    assert arenas[0] == arenas[1]


def test_several_threads_may_run_one_program() -> None:
    case = large_case("conv_forward", 16, fullest).in_dtype("float32")
    layout = Layout()
    run = program((case.kernel, layout.placed(case)))
    expected = {path: value.tobytes() for path, value in case.run(backends.get("native")).items()}
    wrong: list[str] = []

    def work() -> None:
        for _ in range(5):
            arena = filled(layout, case, 3)
            run.run(arena, 3)
            found = {path: layout.views[path].of(arena, 3).tobytes() for path in expected}
            wrong.extend(path for path in expected if found[path] != expected[path])
        finished.append(True)

    finished: list[bool] = []
    workers = [threading.Thread(target=work) for _ in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert (wrong, finished) == ([], [True] * 4)


def test_programs_of_any_calls() -> None:
    """Whatever a call is, in a program it is the same; with arguments drawn at random."""
    native = backends.get("native")
    rng = np.random.default_rng(5)
    for kernel in backends.KERNELS:
        for _ in range(10):
            drawn = any_case(kernel, native.LANES, lambda options: options[rng.integers(len(options))])
            case = drawn.in_dtype("float32")
            n = len(case.arguments["end"].out if "end" in case.arguments else case.arguments["out"])
            if kernel == "divide" and n == 1:
                continue  # one z for one sample is an array for all
            layout = Layout()
            run = program((kernel, layout.placed(case)))
            arena = filled(layout, case, n)
            run.run(arena, n)
            for path, value in case.run(native).items():
                np.testing.assert_array_equal(
                    layout.views[path].of(arena, n), value, err_msg=f"{kernel} {path}"
                )


# --- what is refused ---


def refused(calls: Any, message: str, error: type[Exception] = ValueError) -> None:
    with pytest.raises(error, match=f"^Program: {message}"):
        backends.get("native").Program(calls)


def test_calls_are_a_name_and_a_dict() -> None:
    refused(
        [("sums", {}, 1)], "call 0 is .*, expected a kernel's name and a dict of its arguments", TypeError
    )
    refused(["sums"], "call 0 is 'sums'", TypeError)
    refused([("softmax", {})], "call 0, softmax: there is no such kernel, expected one of: gemm_forward, ")
    refused([("sums", {"src": 1})], "call 0, sums: the argument 'out' is missing", TypeError)
    with pytest.raises(TypeError):
        backends.get("native").Program(3)


def test_the_call_at_fault_is_named(chain: Any) -> None:
    _, calls, _ = chain
    name, arguments = calls[2]
    refused([*calls[:2], (name, {**arguments, "x": 1})], "call 2, sums: there is no argument 'x'", TypeError)


@pytest.mark.parametrize("kernel", backends.KERNELS)
def test_samples_are_views_and_weights_are_arrays(kernel: str) -> None:
    case = good_case(kernel)
    arguments = Layout().placed(case)
    label = f"call 0, {kernel}: "
    program((kernel, arguments))  # is a good one
    first = next(iter(arguments))
    if kernel != "divide":
        wrong = {**arguments, first: case.arguments[first][:1]}
        message = f"{label}{first} is a numpy array, expected a View: a Program runs on any number of samples"
        refused([(kernel, wrong)], message, TypeError)
    refused(
        [(kernel, {**arguments, first: [1.0]})],
        f"{label}{first} is .*, expected a numpy array or a View",
        TypeError,
    )
    if "w" in arguments:
        w = View("w", case.arguments["w"].shape[1:], case.arguments["w"].shape[0], offset=2**20)
        message = f"{label}w is a View, expected a numpy array: the same for all samples"
        refused([(kernel, {**arguments, "w": w})], message, TypeError)


def test_views_have_places_shapes_and_dtypes() -> None:
    out = View("out", (2,), dtype="float64", offset=64)
    for changes, message, error in (
        (
            {"offset": -1},
            "src is View 'x', which has no place in the arena yet: its offset is -1",
            ValueError,
        ),
        ({"offset": 2}, "src is not aligned", ValueError),
        ({"shape": (3, 2)}, r"src has shape \(1, 3, 2\), expected 2 axes", ValueError),
        ({"shape": (0,)}, r"src has shape \(1, 0\) with an empty axis", ValueError),
        ({"rows": 0}, "src.rows is 0, expected at least 1", ValueError),
        ({"rows": 2}, "out has shape", ValueError),
        ({"dtype": "int32"}, "src has dtype int32, expected float32 or float64", TypeError),
    ):
        src = View(**{"array": "x", "shape": (3,), "offset": 0, **changes})
        refused([("sums", {"src": src, "out": out})], f"call 0, sums: {message}", error)


def test_views_that_are_written_to_lie_apart() -> None:
    src = View("x", (3,), offset=0)
    for offset in (0, 8):
        out = View("out", (2,), dtype="float64", offset=offset)
        refused([("sums", {"src": src, "out": out})], "call 0, sums: out and src share memory")
    assert program(("sums", {"src": src, "out": View("out", (2,), dtype="float64", offset=16)}))


def test_arenas_are_checked_at_every_run(chain: Any) -> None:
    layout, calls, _ = chain
    run = program(*calls)
    size = layout.bytes_per_sample
    good = arena_of(2, size)
    fixed = good.copy()
    fixed.flags.writeable = False
    for arena, n, message in (
        (good, 0, "n is 0, expected at least 1"),
        (
            good,
            3,
            f"the arena has {2 * size} bytes, expected at least {run.bytes_per_sample} for each of 3 samples",
        ),
        (good.view(np.int8), 2, "the arena has dtype int8, expected uint8"),
        (arena_of(4, size)[::2], 2, "the arena is not C-contiguous"),
        (arena_of(3, size)[32:], 2, "the arena is not aligned to 64 bytes"),
        (fixed, 1, "the arena is read-only"),
    ):
        for method in (run.run, run.profile):
            with pytest.raises(ValueError, match=f"^Program: {message}"):
                method(arena, n)
    run.run(good, 2)


def test_plans_tell_the_forms_that_kernels_have_chosen() -> None:
    def conv(m: int, c: int, side: int, **rest: int) -> lrpfast.Op:
        return lrpfast.Conv2d(np.ones((m, c, side, side)), np.zeros(m), **rest)

    network = lrpfast.Sequential(
        conv(32, 3, 3, padding=1), ReLU(), conv(32, 32, 3, padding=1), ReLU(), conv(32, 32, 3, stride=2), ReLU(),
        conv(8, 32, 1), lrpfast.Flatten(), input_shape=(3, 28, 28),
    )  # fmt: skip
    composite = lrpfast.composite("epsilon_plus")
    plan = lower(network.graph, assign(composite, network.graph), backends.get("native"))
    found: dict[str, list[str]] = {}
    for step, form in zip((*plan.forward, *plan.vjp), plan.forms(), strict=True):
        if step.label().startswith("conv"):
            found.setdefault(step.node, []).append(form.split("; ")[-1].split(",")[0])
    assert list(found.values()) == [
        ["by rows of windows"] * 2 + ["by columns of windows"],
        ["by Winograd's F(4×4"] * 3,
        ["in tiles"] * 3,
        ["in tiles"] * 3,
    ]
    assert any("strides" in form for form in plan.forms())


def test_packed_weights_are_shared_only_where_panels_are_equal() -> None:
    """A transpose has one sum for each residue of its output: of few outputs there are fewer."""
    w = np.random.default_rng(0).normal(size=(16, 16, 1, 1, 3)).astype(np.float32)
    kept = []
    for size in (2, 9):  # with strides of 4: two residues, and four
        places = 1 if size == 2 else 3
        s = np.random.default_rng(size).normal(size=(1, 1, 1, 1, places, 16)).astype(np.float32)
        rest = {
            "w": w, "strides": (1, 1, 4), "pads": (0, 0, 1), "dilations": (1, 1, 1), "groups": 1,
            "src_part": WHOLE, "w_part": WHOLE, "other_part": None, "exact": True,
        }  # fmt: skip
        out = np.empty((1, 1, 1, 1, size, 16), np.float32)
        backends.get("native").conv_vjp(src=s, end=Ending(out), **rest)
        layout = Layout()
        src, to = layout.view("s", s.shape[1:]), layout.view("x", out.shape[1:])
        kept.append(program(("conv_vjp", {"src": src, "end": Ending(to), **rest})))
        arena = arena_of(1, layout.bytes_per_sample)
        src.of(arena, 1)[...] = s
        kept[-1].run(arena, 1)
        np.testing.assert_array_equal(to.of(arena, 1), out)
