"""The plan: a flat list of steps, the memory that they work in, and the loop that runs them.

A plan is immutable, knows its backend and dtype, and holds for any number of samples; it may be run
by many threads at once, since each run has a workspace of its own.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from itertools import groupby, pairwise
from typing import Any, NamedTuple

import numpy as np

from .arena import ALIGNMENT
from .errors import InputError
from .ledger import Books, ConservationRow, Numbers
from .memory import LESS_AT_ONCE, MORE_MEMORY, accounted, in_words, reserve
from .ops.base import Array
from .steps import Back, Draft, HostCall, KernelCall, Memory, Shape, Step, View, mapped

KEPT_WORKSPACES = 4
KEPT_BYTES = 2**30  # of a workspace that is kept for the next run; larger ones are given back


@dataclass(frozen=True, eq=False)
class Plan(Draft):
    """The steps for one network, rules, dtype and backend, laid out in memory.

    Attributes
    ----------
    dtype : dtype
    backend : module
    bytes_per_sample : int
        Memory that a run takes.
    """

    dtype: np.dtype[Any] = field(kw_only=True)
    backend: Any = field(kw_only=True)
    bytes_per_sample: int = field(kw_only=True)
    _passes: tuple[list[Any], ...] = field(init=False, repr=False)
    _free: list[Workspace] = field(init=False, repr=False, default_factory=list)
    _lock: Any = field(init=False, repr=False, default_factory=threading.Lock)

    def __post_init__(self) -> None:
        passes = self.forward, *(back.steps for back in self.backs)
        with accounted("packing the weights", MORE_MEMORY):
            programs = tuple(_programs(steps, self.backend) for steps in passes)
        object.__setattr__(self, "_passes", programs)

    def forms(self) -> list[str]:
        """In words, how each step is computed: the form that was lowered to, and the kernel's own."""
        kernels = [form for programs in self._passes for p in programs for form in getattr(p, "forms", [""])]
        return [
            "; ".join(filter(None, (step.form, form)))
            for step, form in zip((*self.forward, *self.vjp), kernels, strict=True)
        ]

    def nbytes(self, n: int) -> int:
        """Memory that a run with `n` samples takes."""
        return n * self.bytes_per_sample + ALIGNMENT

    def pieces(self, n: int, limit: int | None) -> list[slice]:
        """`n` samples in as few pieces as take no more than `limit` bytes each, the larger ones first.

        Raises
        ------
        InputError
            Not even one sample fits.
        """
        if limit is None or self.nbytes(n) <= limit:
            return [slice(0, n)]
        if self.nbytes(1) > limit:
            raise InputError(
                f"max_memory is {in_words(limit)}, but one sample takes {in_words(self.nbytes(1))}; give at least "
                "so much, record less, or take a smaller network or input"
            )
        count = -(-n // ((limit - ALIGNMENT) // self.bytes_per_sample))
        size, larger = divmod(n, count)
        starts = [i * size + min(i, larger) for i in range(count + 1)]
        return [slice(start, end) for start, end in pairwise(starts)]

    def workspace(self, n: int) -> Lease:
        """Memory for a run with `n` samples, for the time of a `with`; what it holds is lost at the end."""
        return Lease(self, n)

    @contextmanager
    def timed_workspace(self, n: int) -> Iterator[TimedWorkspace]:
        """A workspace that takes the time of each step."""
        with self.workspace(n) as workspace:
            yield TimedWorkspace(self, n, workspace.memory)

    def take(self, n: int) -> Workspace:
        """A workspace of nobody else's; raises `OutOfMemoryError` if there is no memory for it."""
        with self._lock:
            for i, workspace in enumerate(self._free):
                if workspace.n == n:
                    return self._free.pop(i)
            memory = self._free.pop().memory if self._free else np.empty(0, np.uint8)
        needed = self.nbytes(n)
        if memory.nbytes < needed:
            del memory  # or both would be there at once
            memory = reserve(needed, f"a run of {n} sample{'s' * (n > 1)}", LESS_AT_ONCE)
        return Workspace(self, n, memory)

    def give_back(self, workspace: Workspace) -> None:
        """Keep a workspace for the next run, if it is not too large."""
        with self._lock:
            if len(self._free) < KEPT_WORKSPACES and workspace.memory.nbytes <= KEPT_BYTES:
                self._free.append(workspace)


class Lease:
    """A workspace for the time of a `with`; a class, since that costs less per run than a generator."""

    def __init__(self, plan: Plan, n: int) -> None:
        self._plan = plan
        self._n = n

    def __enter__(self) -> Workspace:
        self._workspace = self._plan.take(self._n)
        self._quiet = np.errstate(
            over="ignore", invalid="ignore"
        )  # infinity and NaN are looked for afterwards
        self._quiet.__enter__()
        return self._workspace

    def __exit__(self, *error: Any) -> None:
        self._quiet.__exit__(*error)
        self._plan.give_back(self._workspace)


class Workspace:
    """The memory of one run at a time, and the plan's steps bound to it.

    Parameters
    ----------
    plan : Plan
    n : int
        Samples.
    memory : array of uint8
    """

    def __init__(self, plan: Plan, n: int, memory: Memory) -> None:
        self.n = n
        self.memory = memory
        start = -memory.ctypes.data % ALIGNMENT
        arena = memory[start : start + n * plan.bytes_per_sample]
        self._forward, *backs = (
            [self._bound(step, plan, arena, n) for step in steps] for steps in plan._passes
        )
        place = partial(View.of, arena=arena, n=n)
        self._inputs, self._output = tuple(map(place, plan.inputs)), place(plan.output)
        self._backs = [
            _BoundBack(
                calls,
                place(back.initial),
                tuple(map(place, back.relevance)),
                {name: place(view) for name, view in back.recorded.items()},
                back.books,
                _numbers(back, arena, n),
            )
            for calls, back in zip(backs, plan.backs, strict=True)
        ]

    def forward(self, *inputs: Array) -> Array:
        """Run the network on its inputs, each with a batch axis of `n`; returns its output."""
        for place, x in zip(self._inputs, inputs, strict=True):
            place[...] = x
        self._run(self._forward)
        output: Array = self._output.copy()
        return output

    def vjp(self, initial: Array, which: int = 0) -> tuple[Array, ...]:
        """Hand back the relevance `initial` of the output, after `forward`; returns that of each input.

        `which` of the plan's passes back is to be run. Only a plan that `keeps` runs more than one.
        """
        self._last = back = self._backs[which]
        back.initial[...] = initial
        back.numbers[...] = 0
        self._run(back.calls)
        return tuple(relevance.copy() for relevance in back.relevance)

    def recorded(self) -> dict[str, Array]:
        """The relevance that was asked for, after `vjp`."""
        return {name: array.copy() for name, array in self._last.recorded.items()}

    def numbers(self) -> Numbers:
        """What the conservation ledger is settled from, after `vjp`."""
        numbers: Numbers = self._last.numbers.copy()
        return numbers

    def settle(self) -> tuple[ConservationRow, ...]:
        """The conservation ledger, after `vjp`; raises `NonFiniteError` if relevance is not finite."""
        return self._last.books.settled(self.numbers(), self.n)()

    def _bound(self, step: Any, plan: Plan, arena: Memory, n: int) -> Callable[[], Any]:
        return _bound(step, plan, arena, n)

    def _run(self, calls: Sequence[Callable[[], Any]]) -> None:
        for call in calls:
            call()


class _BoundBack(NamedTuple):
    """A pass back with its arrays in place."""

    calls: list[Callable[[], Any]]
    initial: Array
    relevance: tuple[Array, ...]
    recorded: Mapping[str, Array]
    books: Books
    numbers: Numbers


def _numbers(back: Back, arena: Memory, n: int) -> Numbers:
    """All numbers of the ledger, one behind the other."""
    start = back.numbers[0].offset * n if back.numbers else 0
    numbers: Numbers = arena[start : start + back.books.nbytes * n].view(np.float64)
    return numbers


class TimedWorkspace(Workspace):
    """A workspace that takes the time of each step; for one run.

    Parameters
    ----------
    plan : Plan
    n : int
    memory : array of uint8
    """

    def __init__(self, plan: Plan, n: int, memory: Memory) -> None:
        super().__init__(plan, n, memory)
        self._steps = (*plan.forward, *plan.vjp)
        self._seconds: list[float] = []

    def times(self) -> list[tuple[Step, float]]:
        """The steps in the order in which they ran, each with its seconds; after `vjp`."""
        return list(zip(self._steps, self._seconds, strict=True))

    def _bound(self, step: Any, plan: Plan, arena: Memory, n: int) -> Callable[[], list[float]]:
        if isinstance(step, Step):
            return partial(_seconds, _bound(step, plan, arena, n))
        return partial(step.profile, arena, n)

    def _run(self, calls: Sequence[Callable[[], Any]]) -> None:
        for call in calls:
            self._seconds += call()


def _seconds(call: Callable[[], object]) -> list[float]:
    """Run one step; how long it took, in the form in which programs say it of theirs."""
    before = time.perf_counter()
    call()
    return [time.perf_counter() - before]


def _programs(steps: Sequence[Step], backend: Any) -> list[Any]:
    """The steps, kernel calls in a row as one program where the backend can run them as such."""
    if not hasattr(backend, "Program"):
        return list(steps)
    found: list[Any] = []
    for is_kernel, some in groupby(steps, lambda step: isinstance(step, KernelCall)):
        if is_kernel:
            found.append(backend.Program([(s.kernel, s.arguments) for s in some]))  # type: ignore[attr-defined]
        else:
            found += some
    return found


def _bound(step: Any, plan: Plan, arena: Memory, n: int) -> Callable[[], object]:
    """A step of `_programs` as a function without arguments."""
    if isinstance(step, KernelCall):
        arguments = {key: mapped(value, lambda v: v.of(arena, n)) for key, value in step.arguments.items()}
        return partial(getattr(plan.backend, step.kernel), **arguments)
    if isinstance(step, HostCall):
        return _bound_host(step, plan, arena, n)
    return partial(step.run, arena, n)


def _bound_host(step: HostCall, plan: Plan, arena: Memory, n: int) -> Callable[[], None]:
    arrays = [
        np.broadcast_to(np.zeros((), plan.dtype), (n, *a.shape)) if isinstance(a, Shape) else a.of(arena, n)
        for a in step.arrays
    ]
    outs = [d.out.of(arena, n) for d in step.deliveries]
    plus = [None if d.plus is None else d.plus.of(arena, n) for d in step.deliveries]

    def run() -> None:
        for result, before, out in zip(step.function(*arrays), plus, outs, strict=True):
            if before is None:
                out[...] = result
            else:
                np.add(before, result, out=out)

    return run
