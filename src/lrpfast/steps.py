"""The steps of a plan: kernel calls and host calls, and the views by which they see its arrays.

Every array is written by one step and never changed afterwards, but for the ledgers, to which divisions
add. A sum of several contributions is a chain of arrays; memory layout lets them share their place.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .backends.ending import Ending, Quotient
from .ledger import Books
from .ops.base import Array

Memory = NDArray[np.uint8]


@dataclass(frozen=True)
class View:
    """An array of the plan, seen in the shape that a kernel wants.

    Attributes
    ----------
    array : str
        Name of the array.
    shape : tuple of int
        Shape behind the leading axis.
    rows : int
        Rows of the leading axis per sample.
    dtype : str
        Name of the dtype: ``float32``, ``float64`` or ``int32``.
    offset : int
        Where the array begins in the arena, in bytes per sample: with n samples at byte `offset * n`.
        -1 before memory is laid out.
    """

    array: str
    shape: tuple[int, ...]
    rows: int = 1
    dtype: str = "float32"
    offset: int = -1

    def __str__(self) -> str:
        return self.array

    @property
    def nbytes(self) -> int:
        """Bytes per sample."""
        return self.rows * math.prod(self.shape) * np.dtype(self.dtype).itemsize

    def like(self, other: View) -> View:
        """The same memory in the other's shape."""
        return replace(self, shape=other.shape, rows=other.rows)

    def of(self, arena: Memory, n: int) -> Array:
        """The array itself, for `n` samples."""
        start = self.offset * n
        memory = arena[start : start + self.nbytes * n].view(self.dtype)
        return memory.reshape(n * self.rows, *self.shape)


_PARTS = {kind: tuple(f.name for f in fields(kind)) for kind in (Ending, Quotient)}  # lowering asks often


def views(value: Any) -> Iterator[View]:
    """All views in an argument of a kernel."""
    if isinstance(value, View):
        yield value
    elif type(value) in _PARTS:
        for name in _PARTS[type(value)]:
            yield from views(getattr(value, name))


def mapped(value: Any, change: Callable[[View], Any]) -> Any:
    """An argument of a kernel with each view changed."""
    if isinstance(value, View):
        return change(value)
    if type(value) in _PARTS:
        return type(value)(*(mapped(getattr(value, name), change) for name in _PARTS[type(value)]))
    return value


@dataclass(frozen=True)
class Step:
    """Base of the two kinds of steps.

    Attributes
    ----------
    node : str
        The node that the step works for.
    form : str
        In words: which form was chosen, and why.
    """

    node: str
    form: str = field(default="", kw_only=True)

    def outputs(self) -> tuple[View, ...]:
        """The arrays made."""
        raise NotImplementedError

    def inputs(self) -> tuple[View, ...]:
        """The arrays read or added to, once per time they are read."""
        raise NotImplementedError

    def replaced(self) -> tuple[tuple[View, View], ...]:
        """Pairs of an array made and one that it may take the place of, if nothing else reads that."""
        raise NotImplementedError

    def moved(self, change: Callable[[View], View]) -> Step:
        """The step with each view changed."""
        raise NotImplementedError

    def label(self) -> str:
        """What runs, as shown by ``lrpfast inspect --stage plan``."""
        raise NotImplementedError

    def reads(self) -> tuple[str, ...]:
        """Names of the arrays read or added to."""
        return tuple(dict.fromkeys(view.array for view in self.inputs()))

    def writes(self) -> tuple[str, ...]:
        """Names of the arrays made."""
        return tuple(view.array for view in self.outputs())


@dataclass(frozen=True)
class KernelCall(Step):
    """A kernel and its arguments: views, constants, numbers, and an `Ending` of them."""

    kernel: str
    arguments: Mapping[str, Any]

    @property
    def end(self) -> Ending | None:
        return self.arguments.get("end")

    def outputs(self) -> tuple[View, ...]:
        if self.end is not None:
            quotient = self.end.quotient
            mirrored = None if quotient is None else quotient.mirrored
            made: tuple[Any, ...] = (self.end.out, self.end.kept, mirrored, self.end.sums)
        else:
            made = (self.arguments["out"], self.arguments.get("winners"))
        return tuple(view for view in made if view is not None)

    def inputs(self) -> tuple[View, ...]:
        made = self.writes()
        return tuple(v for value in self.arguments.values() for v in views(value) if v.array not in made)

    def replaced(self) -> tuple[tuple[View, View], ...]:
        end = self.end
        if end is None:
            return ()
        r = None if end.quotient is None else end.quotient.r
        read = (r, end.plus, end.times)
        return tuple((end.out, view) for view in read if view is not None)

    def moved(self, change: Callable[[View], View]) -> KernelCall:
        arguments = {key: mapped(value, change) for key, value in self.arguments.items()}
        return replace(self, arguments=arguments)

    def ending(self, note: str, **changes: Any) -> KernelCall:
        """The call with another ending, and a word about it."""
        assert self.end is not None
        arguments = {**self.arguments, "end": replace(self.end, **changes)}
        return replace(self, arguments=arguments, form="; ".join(filter(None, (self.form, note))))

    def label(self) -> str:
        return self.kernel


@dataclass(frozen=True)
class Shape:
    """Stands for an array of which only the shape is needed; costs no memory."""

    shape: tuple[int, ...]


@dataclass(frozen=True)
class Delivery:
    """Where a result of a host call is copied to, and what is added to it."""

    out: View
    plus: View | None = None


@dataclass(frozen=True)
class HostCall(Step):
    """A NumPy function of whole arrays, for what needs no kernel.

    Attributes
    ----------
    function : callable
        Takes `arrays`, returns one array for each of `deliveries`. It must not keep its arguments: their
        memory is used again.
    arrays : tuple of View or Shape
    deliveries : tuple of Delivery
    """

    title: str
    function: Callable[..., tuple[Array, ...]]
    arrays: tuple[View | Shape, ...]
    deliveries: tuple[Delivery, ...]

    def outputs(self) -> tuple[View, ...]:
        return tuple(d.out for d in self.deliveries)

    def inputs(self) -> tuple[View, ...]:
        given = tuple(a for a in self.arrays if isinstance(a, View))
        return given + tuple(d.plus for d in self.deliveries if d.plus is not None)

    def replaced(self) -> tuple[tuple[View, View], ...]:
        return tuple((d.out, d.plus) for d in self.deliveries if d.plus is not None)

    def moved(self, change: Callable[[View], View]) -> HostCall:
        deliveries = tuple(
            Delivery(change(d.out), None if d.plus is None else change(d.plus)) for d in self.deliveries
        )
        arrays = tuple(change(a) if isinstance(a, View) else a for a in self.arrays)
        return replace(self, arrays=arrays, deliveries=deliveries)

    def label(self) -> str:
        return self.title


@dataclass(frozen=True)
class Back:
    """A pass back: the relevance of the output becomes that of the input.

    Attributes
    ----------
    steps : tuple of Step
    initial : View
        Relevance of the output.
    relevance : tuple of View
        Relevance of each input.
    recorded : mapping of node name to View
        Relevance that was asked for.
    books : Books
        The ledger.
    numbers : tuple of View
        What the ledger is settled from; they lie one behind the other.
    """

    steps: tuple[Step, ...]
    initial: View
    relevance: tuple[View, ...]
    recorded: Mapping[str, View]
    books: Books
    numbers: tuple[View, ...]

    def results(self) -> tuple[View, ...]:
        """What is read at the end."""
        return *self.relevance, *self.recorded.values()


@dataclass(frozen=True)
class Draft:
    """What a plan does: a forward pass, passes back, and the arrays by which it is reached from outside.

    Attributes
    ----------
    forward : tuple of Step
    inputs : tuple of View
    output : View
    backs : tuple of Back
        None for a plan that only predicts.
    keeps : bool, default False
        Whether each pass back may be run any number of times after a forward pass, in any order; else
        there is one, which may destroy what it reads.
    """

    forward: tuple[Step, ...]
    inputs: tuple[View, ...]
    output: View
    backs: tuple[Back, ...]
    keeps: bool = field(default=False, kw_only=True)

    @property
    def vjp(self) -> tuple[Step, ...]:
        """The steps of the passes back."""
        return tuple(step for back in self.backs for step in back.steps)
