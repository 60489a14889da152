"""No argument of a binding, whatever it is, ends the process: it is refused by name, or it is fine.

Bindings and their arguments are taken from the stub, and the arguments' parts from calls that are good. A binding
that is new is tested here before anybody thinks of it; sanitizers see the same calls (`make sanitize`).
"""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Iterator
from dataclasses import fields, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import BACKENDS
from kernel_cases import Case
from test_kernel_refusals import call, good_case
from test_programs import Layout, arena_of

import lrpfast
from lrpfast import backends
from lrpfast.backends.ending import Ending, Quotient
from lrpfast.steps import View

pytestmark = pytest.mark.skipif("native" not in BACKENDS, reason="the checks are the native backend's")

STUB = ast.parse((Path(lrpfast.__file__).parent / "_core.pyi").read_text())
FUNCTIONS = {f.name: [a.arg for a in f.args.args] for f in STUB.body if isinstance(f, ast.FunctionDef)}
METHODS = {
    f.name: [a.arg for a in f.args.args[1:]]
    for c in STUB.body
    if isinstance(c, ast.ClassDef)
    for f in c.body
    if isinstance(f, ast.FunctionDef)
}
OTHERS = {
    "targets": (),
    "target": (),
    "set_target": ("baseline",),
    "get_num_threads": (),
    "set_num_threads": (1,),
    "limit_threads": (0,),
}
"""Good arguments of what is no kernel."""

NONSENSE = [
    None, object(), "text", b"bytes", 1j, [], [[]], {}, {"out": 1}, (1.0,), (1, 2, 3, 4), float("nan"), -1, 2**31,
    2**40, 2**62, 2**63 - 1, 2**63, -(2**63), 2**100, 10**400, np.zeros(0, np.float32), np.zeros((), np.float32),
    np.zeros((0,) * 6, np.float32), np.zeros(3, object), np.zeros(3, [("a", "f4")]), np.zeros((1, 1), "U3"),
    np.ma.masked, Ellipsis, Ending, View("x", (2**40, 2**40), offset=0), Ending(None), Quotient(None, None, 0.0),
]  # fmt: skip
"""Values that are wrong for nearly every argument; what they are not wrong for has to do with them what it does."""


def core() -> Any:
    from lrpfast import _core

    return _core


def native() -> Any:
    return backends.get("native")


# --- the parts of arguments ---


def leaves(value: Any, path: str) -> Iterator[tuple[str, Any]]:
    """An argument, and all that it is made of, each with its path."""
    yield path, value
    if isinstance(value, (Ending, Quotient)):
        for f in fields(value):
            yield from leaves(getattr(value, f.name), f"{path}.{f.name}")


def put(value: Any, path: list[str], new: Any) -> Any:
    """An argument with the part at `path` replaced."""
    if not path:
        return new
    return replace(value, **{path[0]: put(getattr(value, path[0]), path[1:], new)})


def with_part(case: Case, path: str, new: Any) -> Case:
    name, *rest = path.split(".")
    return Case(case.kernel, {**case.arguments, name: put(case.arguments[name], rest, new)})


def parts_of(case: Case) -> dict[str, Any]:
    return {path: part for name, value in case.arguments.items() for path, part in leaves(value, name)}


def placed(kernel: str) -> tuple[Layout, Case]:
    """The good call with views of an arena."""
    layout = Layout()
    return layout, Case(kernel, layout.placed(fresh(kernel)))


@cache
def fresh(kernel: str) -> Case:
    """The good call, whose results are arrays of its own."""
    return good_case(kernel).changed(lambda _, array: array.copy())


PARTS = {
    (kernel, path): part for kernel in backends.KERNELS for path, part in parts_of(fresh(kernel)).items()
}
ARRAYS = [at for at, part in PARTS.items() if isinstance(part, np.ndarray)]
NUMBERS = [(kernel, path) for (kernel, path), part in PARTS.items()
           if "part" not in path and isinstance(part, (int, tuple))]  # fmt: skip
VIEWS = [(kernel, path) for kernel in backends.KERNELS
         for path, part in parts_of(placed(kernel)[1]).items() if isinstance(part, View)]  # fmt: skip


def numbers_near(value: Any, wrong: int) -> Iterator[Any]:
    """A number, or a tuple in which each in turn is another."""
    if isinstance(value, tuple):
        yield from ((*value[:i], wrong, *value[i + 1 :]) for i in range(len(value)))
    else:
        yield wrong


def is_fine_or_refused(act: Callable[[], Any], names: str = "") -> None:
    """Whether it comes back at all is what is tested; and an error says whose."""
    try:
        act()
    except (TypeError, ValueError, MemoryError) as error:
        assert re.search(names, str(error)), f"{names} is not in: {error}"


# --- the list is complete ---


def test_the_stub_knows_every_binding() -> None:
    module = core()
    public = {name for name in vars(module) if not name.startswith("_")}
    classes = {c.name for c in STUB.body if isinstance(c, ast.ClassDef)}
    assert public == {*FUNCTIONS, *classes, "KERNELS", "LANES"}
    assert classes == {"Program"}
    methods = {name for name in vars(module.Program) if not name.startswith("_") and name != "pybind11_abi"}
    assert methods | {"__init__"} == {n for n in METHODS if not n.startswith("_pybind")}
    assert set(FUNCTIONS) == {*module.KERNELS, *OTHERS}


@pytest.mark.parametrize("kernel", backends.KERNELS)
def test_the_good_calls_have_all_arguments_of_the_stub(kernel: str) -> None:
    assert set(good_case(kernel).arguments) == set(FUNCTIONS[kernel])
    signature = getattr(core(), kernel).__doc__
    assert f"{kernel}({', '.join(FUNCTIONS[kernel])}): see" in signature
    if "end" in FUNCTIONS[kernel]:
        parts = {path for at, path in PARTS if at == kernel}
        assert {f"end.{f.name}" for f in fields(Ending)} <= parts
        assert {f"end.quotient.{f.name}" for f in fields(Quotient)} <= parts


# --- kernels ---


@pytest.mark.parametrize(("kernel", "path"), PARTS)
def test_nonsense_is_refused_by_name(kernel: str, path: str) -> None:
    last = path.rsplit(".", 1)[-1]
    for value in NONSENSE:
        is_fine_or_refused(lambda v=value: call(with_part(fresh(kernel), path, v)), f"^{kernel}: .*")  # type: ignore[misc]
    with pytest.raises((TypeError, ValueError), match=rf"^{kernel}: .*\b{last}\b"):
        call(with_part(fresh(kernel), path, object()))


@pytest.mark.parametrize(("kernel", "path"), NUMBERS)
def test_sizes_do_not_overflow(kernel: str, path: str) -> None:
    for wrong in (0, -1, 2**31 - 1, 2**31, 2**32, 2**32 + 1, 2**60, 2**63 - 1, 2**63, 2**64):
        for numbers in numbers_near(PARTS[kernel, path], wrong):
            is_fine_or_refused(lambda v=numbers: call(with_part(fresh(kernel), path, v)), f"^{kernel}: .*")  # type: ignore[misc]


@pytest.mark.parametrize("kernel", [k for k in backends.KERNELS if "window" in FUNCTIONS[k]])
def test_windows_without_end(kernel: str) -> None:
    for window in ((2**31 - 1,) * 3, (1, 2**16, 2**16), (1, 1, 2**31 - 1)):
        with pytest.raises(ValueError, match=f"^{kernel}: .*(places|window)"):
            call(with_part(fresh(kernel), "window", window))


@pytest.mark.parametrize(("kernel", "path"), ARRAYS)
def test_empty_arrays(kernel: str, path: str) -> None:
    """Along any axis: an array alone must not be empty where the others are not."""
    array = PARTS[kernel, path]
    for axis in range(array.ndim):
        shape = (*array.shape[:axis], 0, *array.shape[axis + 1 :])
        with pytest.raises(ValueError, match=f"^{kernel}: "):
            call(with_part(fresh(kernel), path, np.zeros(shape, array.dtype)))


def test_gates_are_not_cut_off() -> None:
    """2**32 is 0 as a C int."""
    with pytest.raises(ValueError, match=r"end\.quotient\.gate is 4294967296, expected -1, 0 or 1"):
        call(with_part(fresh("collect"), "end.quotient.gate", 2**32))


class Fleeting:
    """An ending whose arrays are new whenever they are asked for, and which counts that."""

    def __init__(self, end: Ending) -> None:
        self._end = end
        self.asked: dict[str, int] = {}

    def __getattr__(self, name: str) -> Any:
        self.asked[name] = self.asked.get(name, 0) + 1
        value = getattr(self._end, name)
        return value.copy() if isinstance(value, np.ndarray) else value


@pytest.mark.parametrize("kernel", [k for k in backends.KERNELS if "end" in FUNCTIONS[k]])
def test_what_was_checked_is_what_is_used(kernel: str) -> None:
    end = Fleeting(replace(fresh(kernel).arguments["end"], plus=None, kept=None))
    call(with_part(fresh(kernel), "end", end))
    arrays = [name for name in end.asked if isinstance(getattr(end._end, name), np.ndarray)]
    # Once by hasattr, and once for the array itself.
    assert arrays and all(end.asked[name] == 2 for name in arrays)


# --- programs ---


def made(case: Case) -> Any:
    return core().Program([(case.kernel, dict(case.arguments))])


@pytest.mark.parametrize(("kernel", "path"), PARTS)
def test_nonsense_in_programs(kernel: str, path: str) -> None:
    _, case = placed(kernel)
    for value in NONSENSE:
        is_fine_or_refused(lambda v=value: made(with_part(case, path, v)), f"^Program: call 0, {kernel}: ")  # type: ignore[misc]


@pytest.mark.parametrize(("kernel", "path"), VIEWS)
def test_views_that_are_wrong(kernel: str, path: str) -> None:
    _, case = placed(kernel)
    view = parts_of(case)[path]
    for changes in (
        {"shape": (2**40, *view.shape[1:])}, {"shape": (2**62,) * len(view.shape)}, {"shape": (-1, *view.shape[1:])},
        {"shape": (-2,) * len(view.shape)}, {"shape": (0, *view.shape[1:])}, {"shape": None}, {"shape": "ab"},
        {"rows": 0}, {"rows": -1}, {"rows": 2**62}, {"rows": None}, {"rows": 2**100}, {"rows": 0.5},
        {"offset": -1}, {"offset": 2**63 - 1}, {"offset": 2**63}, {"offset": None}, {"offset": "0"},
        {"offset": view.offset + 1}, {"dtype": "float16"}, {"dtype": "no dtype"}, {"dtype": object()}, {"dtype": "O"},
    ):  # fmt: skip
        with pytest.raises((TypeError, ValueError), match=f"^Program: call 0, {kernel}: "):
            made(with_part(case, path, replace(view, **changes)))


def test_a_view_is_asked_for_all_of_it() -> None:
    class Place:
        offset = 0

    _, case = placed("sums")
    with pytest.raises(TypeError, match=r"src is .*Place.*, which has no 'rows'"):
        made(with_part(case, "src", Place()))


def test_programs_that_are_none() -> None:
    program = core().Program
    _, case = placed("sums")
    for value in [*NONSENSE, 1, [1], ["sums"], [("sums",)], [("sums", 1)], [(1, {})], [("sums", {})], [("", {})],
                  [("sums", {1: 2})], [("sums", dict(case.arguments, more=1))]]:  # fmt: skip
        is_fine_or_refused(lambda v=value: program(v))  # type: ignore[misc]
    is_fine_or_refused(program)
    is_fine_or_refused(lambda: program.__new__(program).run(np.zeros(64, np.uint8), 1))
    is_fine_or_refused(lambda: program.__new__(program).bytes_per_sample)

    class Mine(program):  # type: ignore[misc, valid-type]
        def __init__(self) -> None:
            pass

    is_fine_or_refused(lambda: Mine().run(np.zeros(64, np.uint8), 1))


@pytest.mark.parametrize("method", ["run", "profile"])
def test_arenas_that_are_none(method: str) -> None:
    _, case = placed("collect")
    program = made(case)
    run = getattr(program, method)
    good = arena_of(3, program.bytes_per_sample)
    read_only = good.copy()
    read_only.flags.writeable = False
    for arena in [*NONSENSE, good[:-1], good[1:], good[::-1], good[::2], read_only, good.view(np.int8), []]:
        with pytest.raises((TypeError, ValueError)):
            run(arena, 3)
    for n in [*NONSENSE, 0, 4, 2**60, 2**63 - 1]:
        with pytest.raises((TypeError, ValueError)):
            run(good, n)
    run(good, 3)


def test_the_target_may_change_while_a_program_is_made() -> None:
    """Weights are packed for the target on which they will be used."""
    kernels = native()
    layout, case = placed("conv_forward")
    before = kernels.target()

    def calls() -> Iterator[Any]:
        for name in kernels.targets():
            kernels.set_target(name)
            yield case.kernel, dict(case.arguments)

    try:
        program = core().Program(calls())
        kernels.set_target(before)
        alone = made(case)
    finally:
        kernels.set_target(before)
    found = []
    for run in (program, alone):
        arena = arena_of(3, layout.bytes_per_sample)
        arena[:] = 0
        for path, array in fresh("conv_forward").arrays().items():
            if path in layout.views:
                layout.views[path].of(arena, 3)[...] = array
        run.run(arena, 3)
        found.append(layout.views["end.out"].of(arena, 3).tobytes())
    assert found[0] == found[1]


# --- the others ---


@pytest.mark.parametrize("name", OTHERS)
def test_other_bindings(name: str) -> None:
    function, good = getattr(core(), name), OTHERS[name]
    kernels, threads = native(), core().get_num_threads()
    before = kernels.target()
    try:
        assert len(good) == len(FUNCTIONS[name])
        function(*good)
        with pytest.raises(TypeError):
            function(*good, 1)
        for value in NONSENSE if good else ():
            is_fine_or_refused(lambda v=value: function(v))  # type: ignore[misc]
    finally:
        kernels.set_target(before)
        kernels.set_num_threads(threads)
        core().limit_threads(0)
