"""What callers feed a network with: one array, or one for each of its inputs by name.

Inside, inputs are tuples of arrays in the graph's order.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

import numpy as np

from .errors import InputError, NonFiniteError
from .graph import Fact
from .ops.base import Array

Arrays = tuple[Array, ...]
Facts = Mapping[str, Fact]
Value = TypeVar("Value")


def as_array(name: str, value: Any) -> Array:
    """`value` as an array of real numbers; messages call it `name`."""
    try:
        array = np.asarray(value)
    except ValueError:  # lists of unequal lengths
        array = np.asarray(None)
    if array.dtype.kind not in "fiub":
        raise InputError(
            f"{name} is {value!r:.60} (dtype {array.dtype}); expected an array of real numbers, such as "
            "float32, with rows of one length"
        )
    return array


def as_finite(name: str, array: Array, dtype: np.dtype[Any]) -> Array:
    """`array`, C-contiguous and of `dtype`; raises `NonFiniteError` if it holds NaN or infinity."""
    if array.dtype == dtype:
        array = np.ascontiguousarray(array)
    else:
        with np.errstate(over="ignore"):
            array = np.ascontiguousarray(array, dtype)
    finite = np.isfinite(array)
    if not finite.all():
        wrong = ~finite
        where = tuple(int(i) for i in np.argwhere(wrong)[0])
        raise NonFiniteError(
            f"{name} holds {array[where]} at index {where} ({int(wrong.sum())} such values in all); "
            f"expected finite {dtype} numbers: clean or replace them first"
        )
    return array


def check_feed(network: str, facts: Facts, given: Any, dtype: np.dtype[Any]) -> Arrays:
    """The arrays that a network is fed with, contiguous and of `dtype`, their shapes and values checked.

    Parameters
    ----------
    network : str
        What messages call the network.
    facts : mapping of input name to Fact
    given : array (n, …); for several inputs a mapping of name to array, or a sequence of arrays in order
    dtype : float32 or float64

    Raises
    ------
    InputError
        An array is missing, unknown, or of another shape or number of samples; an integer is not one.
    NonFiniteError
        NaN or infinity.
    """
    named = _named(network, facts, given)
    arrays = tuple(
        _checked(network, _title(name, facts), fact, named[name], dtype) for name, fact in facts.items()
    )
    counts = {_title(name, facts): len(array) for name, array in zip(facts, arrays, strict=True)}
    if len(set(counts.values())) != 1:
        raise InputError(f"the inputs have different numbers of samples: {counts}; expected one batch size")
    return arrays


def like_given(facts: Facts, values: tuple[Value, ...]) -> Value | Mapping[str, Value]:
    """Arrays, or what else each input has, in the form in which inputs are given: one, or a mapping by name."""
    if len(values) == 1:
        return values[0]
    return dict(zip(facts, values, strict=True))


def _named(network: str, facts: Facts, given: Any) -> Mapping[str, Any]:
    names = list(facts)
    if isinstance(given, Mapping):
        missing = [name for name in names if name not in given]
        unknown = [name for name in given if name not in facts]
        if missing or unknown:
            raise InputError(
                f"x has arrays for {list(given)}; {network!r} takes {_shapes(facts)}"
                + (f"; missing is {', '.join(missing)}" if missing else "")
            )
        return given
    if len(names) == 1:
        return {names[0]: given}
    if not isinstance(given, Sequence) or isinstance(given, str) or len(given) != len(names):
        raise InputError(
            f"{network!r} has {len(names)} inputs; give x as a mapping of name to array: {_shapes(facts)}"
        )
    return dict(zip(names, given, strict=True))


def _title(name: str, facts: Facts) -> str:
    return "x" if len(facts) == 1 else f"x[{name!r}]"


def _shapes(facts: Facts) -> str:
    return ", ".join(f"{name} {_batch(fact.shape)}" for name, fact in facts.items())


def _batch(shape: tuple[int, ...]) -> str:
    return f"({', '.join(['n', *map(str, shape)])})"


def _checked(network: str, title: str, fact: Fact, given: Any, dtype: np.dtype[Any]) -> Array:
    array, shape = as_array(title, given), fact.shape
    if array.shape == shape:
        raise InputError(
            f"{title} has shape {array.shape}, one sample without a batch axis; expected {_batch(shape)}: "
            f"pass {title}[None]"
        )
    if array.shape[1:] != shape or array.ndim != len(shape) + 1:
        raise InputError(f"{title} has shape {array.shape}; {network!r} takes {_batch(shape)}")
    if not len(array):
        raise InputError(f"{title} has shape {array.shape}: no samples; expected at least one")
    whole, array = array, as_finite(title, array, dtype)
    if fact.integer:
        _check_integers(title, whole, array)
    if fact.nonnegative and array.min() < 0:
        raise InputError(f"{title} holds {array.min():g}; {network!r} takes numbers ≥ 0 there")
    return array


def _check_integers(title: str, given: Array, array: Array) -> None:
    """Refuse what is not a whole number, or what `array`, as floats, no longer tells from its neighbours."""
    limit = 2 ** (np.finfo(array.dtype).nmant + 1)
    if given.dtype.kind == "f" and (given != np.rint(given)).any():
        wrong = given[given != np.rint(given)][0]
        raise InputError(f"{title} holds {wrong:g}; the model takes whole numbers there, such as token ids")
    if np.abs(array).max() > limit:
        raise InputError(
            f"{title} holds {int(np.abs(array).max())}; {array.dtype} holds whole numbers up to {limit} exactly: "
            "compute with dtype float64"
        )
