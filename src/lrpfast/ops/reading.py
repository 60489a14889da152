"""What an ONNX reader sees: one node, with what is known of its inputs. Nothing here imports onnx."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, TypeAlias, TypeVar

import numpy as np
from numpy.typing import NDArray

from ..errors import ModelError
from ..graph import Fact
from ..limits import Budget
from .base import Array, Op
from .parameters import check_finite

Constant = NDArray[Any]
T = TypeVar("T")

MOST_SIZES = 2**16
"""In a list of sizes, indices or axes."""

BATCH = None
"""In a list of sizes: the size of the batch axis."""


class Unsupported(Exception):
    """Raised by a reader: lrpfast has no operator for this form; the text says which form."""


class Varying(NamedTuple):
    """A constant that depends on the batch size: its values for two batch sizes."""

    values: tuple[Constant, Constant]
    batches: tuple[int, int]


@dataclass(frozen=True, eq=False)
class OnnxNode:
    """One node of an ONNX graph.

    Attributes
    ----------
    op_type, name : str
    inputs, outputs : tuple of str
        Names of arrays; empty for an optional one that is left out.
    attributes : mapping
        Numbers, strings, arrays, or sequences of these.
    opset : int
        Version of the operator set.
    operands : tuple of Fact, array, Varying or None
        For each input: what is known of it if it is computed, its value if it is constant.
    batch : int or None
        The batch size that the model declares, if it is a number.
    wanted : int
        Which of the outputs the reader is asked for.
    budget : Budget
        Of the arrays that readers may make besides the model's own.
    """

    op_type: str
    name: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: Mapping[str, Any]
    opset: int
    operands: tuple[Fact | Constant | Varying | None, ...]
    batch: int | None = None
    wanted: int = 0
    budget: Budget = field(default_factory=Budget)

    # --- inputs ---

    def has(self, index: int) -> bool:
        """Whether input `index` is given."""
        return index < len(self.operands) and self.operands[index] is not None

    def is_constant(self, index: int) -> bool:
        """Whether input `index` is given and does not depend on the network's input."""
        return self.has(index) and not isinstance(self.operands[index], Fact)

    def _operand(self, index: int) -> Fact | Constant | Varying:
        operand = self.operands[index] if index < len(self.operands) else None
        if operand is None:
            raise ModelError(f"its input {index} is missing")
        return operand

    def rank(self, index: int) -> int:
        """Number of axes of input `index`, batch included."""
        operand = self._operand(index)
        if isinstance(operand, Fact):
            return 1 + len(operand.shape)
        return (operand.values[0] if isinstance(operand, Varying) else operand).ndim

    def fact(self, index: int) -> Fact:
        """What is known of input `index`, which is computed from the network's input."""
        operand = self._operand(index)
        if not isinstance(operand, Fact):
            raise Unsupported(f"its input {index} ({self.inputs[index]!r}) is a constant")
        return operand

    def constant(self, index: int) -> Constant:
        """Value of input `index`, which is a constant."""
        operand = self._operand(index)
        if isinstance(operand, Fact):
            raise Unsupported(f"its input {index} ({self.inputs[index]!r}) is computed, not a constant")
        if isinstance(operand, Varying):
            raise Unsupported(f"its input {index} ({self.inputs[index]!r}) depends on the batch size")
        if operand.dtype.kind in "OSU":
            raise ModelError(f"its input {index} ({self.inputs[index]!r}) is text; expected numbers")
        return operand

    def weights(self, index: int) -> Array:
        """Value of input `index`, a constant of finite floating-point numbers."""
        return self.floats(index, self.constant(index))

    def floats(self, index: int, array: Constant) -> Array:
        """The value of input `index`, checked to be finite floating-point numbers."""
        if array.dtype.name in ("float16", "bfloat16"):
            array = array.astype(np.float32)
            array.flags.writeable = False
        if array.dtype not in (np.float32, np.float64):
            raise ModelError(f"tensor {self.inputs[index]!r} has dtype {array.dtype}; expected floats")
        check_finite(f"tensor {self.inputs[index]!r}", array)
        return array

    def optional_weights(self, index: int) -> Array | None:
        """As `weights`; None if input `index` is not given."""
        return self.weights(index) if self.has(index) else None

    def scalar(self, index: int, default: float) -> float:
        """The only element of the constant input `index`; `default` if it is not given."""
        if not self.has(index):
            return default
        value = self.constant(index)
        if value.size != 1:
            raise ModelError(f"its input {index} has shape {value.shape}; expected one number")
        return float(value.reshape(-1)[0])

    def whole(self, index: int, default: int) -> int:
        """The only element of the constant input `index`, an integer; `default` if it is not given."""
        value = float(self.scalar(index, default))
        if not value.is_integer():
            raise ModelError(
                f"its input {index} ({self.inputs[index]!r}) is {value}; expected a whole number"
            )
        return int(value)

    def sizes(self, index: int) -> tuple[int | None, ...]:
        """The constant input `index` as a list of integers, `BATCH` where one is the batch size."""
        operand = self._operand(index)
        value = operand.values[0] if isinstance(operand, Varying) else self.constant(index)
        if value.dtype.kind not in "iu" or value.size > MOST_SIZES:
            raise ModelError(
                f"its input {index} ({self.inputs[index]!r}) is {value.size} numbers of dtype {value.dtype}; "
                f"expected at most {MOST_SIZES} integers"
            )
        if not isinstance(operand, Varying):
            return tuple(int(n) for n in value.reshape(-1))
        if operand.values[0].shape != operand.values[1].shape:
            raise Unsupported(f"the length of its input {index} depends on the batch size")
        result: list[int | None] = []
        for pair in zip(*(value.reshape(-1) for value in operand.values), strict=True):
            if pair != operand.batches and pair[0] != pair[1]:
                raise Unsupported(f"its input {index} ({self.inputs[index]!r}) computes with the batch size")
            result.append(BATCH if pair == operand.batches else int(pair[0]))
        return tuple(result)

    def row(self, index: int) -> Constant:
        """The constant input `index` without its first axis, the batch, along which it must be the same."""
        operand, name = self._operand(index), self.inputs[index]
        varies = isinstance(operand, Varying)
        trials = operand.values if isinstance(operand, Varying) else (self.constant(index),)
        for place, value in enumerate(trials):
            allowed = (operand.batches[place],) if isinstance(operand, Varying) else (1, self.batch)
            fits = value.ndim and len(value) in allowed and value[0].shape == trials[0].shape[1:]
            if not fits or not (value == trials[0][:1]).all():
                why = "depends on the batch size" if varies else f"has shape {value.shape}"
                raise Unsupported(
                    f"its input {index} ({name!r}) {why}; expected the same values for each sample of a batch"
                )
        row: Constant = trials[0][0]
        return row

    def shared(self, index: int, rank: int) -> Constant:
        """Value of the constant input `index`; one row of it, if it has a row for each sample and `rank` axes."""
        operand = self._operand(index)
        if isinstance(operand, Varying) and all(value.ndim == rank for value in operand.values):
            return self.row(index)[None]
        return self.constant(index)

    # --- attributes ---

    def integer(self, name: str, default: int) -> int:
        """An integer attribute."""
        return self._attribute(name, int, default)

    def number(self, name: str, default: float) -> float:
        """A floating-point attribute. ONNX has them in float32: its 0.2 is 0.20000000298, as a default too."""
        return self._attribute(name, float, float(np.float32(default)))

    def string(self, name: str, default: str) -> str:
        """A string attribute."""
        return self._attribute(name, str, default)

    def integers(self, name: str) -> tuple[int, ...]:
        """An attribute that lists integers; empty if it is not there."""
        return self._attribute(name, lambda values: tuple(int(n) for n in values), ())

    def _attribute(self, name: str, convert: Callable[[Any], T], default: T) -> T:
        if name not in self.attributes:
            return default
        try:
            return convert(self.attributes[name])
        except (TypeError, ValueError, OverflowError):
            raise ModelError(
                f"its attribute {name} has the unusable value {self.attributes[name]!r}"
            ) from None

    def integers_or_input(self, name: str, index: int, since: int) -> tuple[int | None, ...] | None:
        """Integers that are an attribute before opset `since`, and input `index` from there on."""
        if self.opset < since:
            return self.integers(name) if name in self.attributes else None
        return self.sizes(index) if self.has(index) else None

    # --- axes ---

    def axis(self, axis: int | None, rank: int) -> int:
        """`axis` of an array with `rank` axes, batch included, as an axis of one sample (from 0)."""
        if axis is None or not -rank <= axis < rank:
            raise ModelError(f"axis {axis} is out of range for an array of {rank} axes")
        if axis % rank == 0:
            raise Unsupported("it works on axis 0, the batch")
        return axis % rank - 1

    def axes(self, axes: Sequence[int | None], rank: int) -> tuple[int, ...]:
        """Each of `axes` as by `axis`; none may be there twice."""
        result = tuple(self.axis(axis, rank) for axis in axes)
        if len(set(result)) != len(result):
            raise ModelError(f"axes {tuple(axes)} name an axis twice")
        return result


def refuse_integers(node: OnnxNode) -> None:
    """Raise `Unsupported` if a computed input is of an integer type, in which ONNX would round the result."""
    if any(isinstance(operand, Fact) and operand.integer for operand in node.operands):
        raise Unsupported("it computes with integers, which rounds; cast them to floats first")


class Applied(NamedTuple):
    """An operator applied to inputs of a node, by their numbers, and to what was applied before it."""

    op: Op
    inputs: tuple[int | Applied, ...]


Reading: TypeAlias = "Op | tuple[Op, ...] | Applied"
"""What a node is read as: an operator of its computed inputs, a chain of them, or a tree."""

Reader = Callable[[OnnxNode], Reading]
"""Says what a node is; raises `Unsupported` or `ModelError`."""

R = TypeVar("R", bound=Callable[[OnnxNode], Any])


class Registered(NamedTuple):
    """A reader, and whether it can be asked for outputs beyond the first."""

    read: Reader
    many_outputs: bool


READERS: dict[str, Registered] = {}
"""The reader of each ONNX operator type."""

_FLAT = "it is piecewise constant: it has no gradient, and relevance would pass through what does not respond to it"
REFUSED: dict[str, str] = {
    **dict.fromkeys(("Ceil", "Floor", "Round", "Sign"), _FLAT),
    "Hardmax": f"{_FLAT}; to explain what it chooses from, name that: output=…",
    "ReduceProd": "a product does not say how much of it each factor is",
    "ReverseSequence": "how much of each sample it reverses differs from sample to sample",
    **dict.fromkeys(
        ("Scatter", "ScatterElements", "ScatterND"), "it writes into an array, whole samples at a time"
    ),
    "Mod": "remainders are no function that relevance could pass through",
}
"""Why there is no reader, for some ONNX operator types that one might expect."""


def reads(*op_types: str, many_outputs: bool = False) -> Callable[[R], R]:
    """Register the function below as the reader of `op_types`."""

    def register(read: R) -> R:
        for op_type in op_types:
            READERS[op_type] = Registered(read, many_outputs)
        return read

    return register
