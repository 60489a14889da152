"""What an explanation is asked for: which output, and how much relevance it is to hand back."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .canonize import Head
from .composites import INITS
from .errors import InputError
from .feeds import as_array
from .ops.activation import Sigmoid
from .ops.base import Array


@dataclass(frozen=True)
class Largest:
    """A target: of each sample the largest output, or the one that so many are larger than."""

    rank: int = 0

    def __str__(self) -> str:
        return f"the output of rank {self.rank}"


@dataclass(frozen=True, eq=False)
class Question:
    """A target and an initial relevance that fit a batch; made by `ask`.

    Attributes
    ----------
    target : Largest, array of int (n,), or array of weights, shape of the output
        The output that each sample's relevance comes from, or the weights of all.
    init : {"logit", "one", "probability"} or array, shape of the output
        What the weights are multiplied by.
    """

    target: Largest | NDArray[np.int64] | Array
    init: str | Array

    def some(self, piece: slice) -> Question:
        """The question about some of the samples."""
        target = self.target if isinstance(self.target, Largest) else self.target[piece]
        return Question(target, self.init if isinstance(self.init, str) else self.init[piece])

    def initial(self, output: Array, probabilities: Array | None) -> tuple[NDArray[Any], Array]:
        """The target as it is reported, and the initial relevance."""
        target: NDArray[Any] | Largest = self.target
        if isinstance(target, Largest):
            flat = output.reshape(len(output), -1)
            order = np.argsort(-flat, axis=1, kind="stable") if target.rank else flat.argmax(axis=1)[:, None]
            target = order[:, target.rank]
        weights = target
        if weights.dtype.kind == "i":
            weights = np.zeros(output.shape, output.dtype)
            weights.reshape(len(output), -1)[np.arange(len(output)), target] = 1
        return target, weights * self._size(output, probabilities)

    def _size(self, output: Array, probabilities: Array | None) -> Array:
        if not isinstance(self.init, str):
            return self.init
        if self.init == "probability":
            assert probabilities is not None
            return probabilities
        return output if self.init == "logit" else np.ones_like(output)


def ask(
    target: Any, init: Any, n: int, shape: tuple[int, ...], dtype: np.dtype[Any], head: Head | None = None
) -> Question:
    """The question about `n` samples whose outputs have a `shape`, and a `head` that makes them probabilities.

    Raises
    ------
    InputError
        `target` or `init` does not fit them.
    """
    return Question(_target(target, n, shape, dtype), _init(init, n, shape, head))


def _target(
    target: Any, n: int, shape: tuple[int, ...], dtype: np.dtype[Any]
) -> Largest | NDArray[np.int64] | Array:
    size = math.prod(shape)
    is_vector = size == max(shape, default=1)
    if target is None or isinstance(target, Largest):
        if not is_vector:
            raise InputError(
                f"the output has shape {(n, *shape)}, so there is no largest class; give target= as an array of "
                "output weights (ones where you want to know why)"
            )
        return target or Largest()
    given = as_array("target", target)
    is_index = given.dtype.kind in "iu" and given.ndim <= 1
    if is_index and is_vector and given.shape in ((), (n,)):
        indices = np.broadcast_to(given, (n,)).astype(np.int64)
        wrong = indices[(indices < -size) | (indices >= size)]
        if len(wrong):
            raise InputError(f"target is {int(wrong[0])}; the network has {size} outputs, 0 to {size - 1}")
        return indices % size
    if not is_index and given.shape in (shape, (n, *shape)):
        if not np.isfinite(given).all():
            raise InputError("target holds NaN or infinity; expected finite output weights")
        return np.broadcast_to(given.astype(dtype), (n, *shape))
    raise InputError(
        f"target is {described(target)}; expected None, an index below {size}, one index for each of the {n} "
        f"samples, or output weights, as floats, of shape {shape} or {(n, *shape)}"
    )


def _init(init: Any, n: int, shape: tuple[int, ...], head: Head | None) -> str | Array:
    if isinstance(init, str):
        if init not in INITS:
            raise InputError(f"init is {init!r}; expected one of {', '.join(INITS)}, or an array")
        if init == "probability" and not has_classes(shape, head):
            raise InputError(
                'init="probability" needs class scores of shape (n, classes); the output has '
                f"{(n, *shape)}; give another init="
            )
        return init
    given = as_array("init", init)
    if not np.isfinite(given).all():
        raise InputError("init holds NaN or infinity; expected finite numbers")
    if given.shape == (n, *shape):
        return given
    if given.shape in ((), (n,)):
        return np.broadcast_to(given.reshape(-1, *[1] * len(shape)), (n, *shape))
    raise InputError(f"init has shape {given.shape}; expected ({n},) or the output's {(n, *shape)}")


def has_classes(shape: tuple[int, ...], head: Head | None) -> bool:
    """Whether outputs of this shape per sample are scores of classes: at least two, or one behind a Sigmoid."""
    return len(shape) == 1 and (shape[0] >= 2 or isinstance(head, Sigmoid))


def described(value: Any) -> Any:
    """A target or an initial relevance, for manifests and messages."""
    if value is None or isinstance(value, (str, int, float)):
        return value
    if isinstance(value, Largest):
        return str(value)
    array = np.asarray(value)
    return array.tolist() if array.size <= 16 else f"array of shape {array.shape}"
