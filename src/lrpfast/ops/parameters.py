"""Checks that turn what a caller gives into the fields of an operator."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import ArrayLike

from ..errors import ModelError
from .base import Array


def parameter(name: str, values: ArrayLike, ndim: int | None = None) -> Array:
    """A read-only, C-contiguous array of weights in float32 or float64.

    Half-precision numbers become float32, integers float64. An array that is read-only already is
    referenced; one that its owner could still write to is copied.

    Parameters
    ----------
    name : str
        What the array is called in error messages.
    values : array_like
    ndim : int or None
        Number of axes that the array must have; None for any.

    Raises
    ------
    ModelError
        It holds NaN or infinity, is not numeric, or has another number of axes.
    """
    array = np.asarray(values)
    if array.dtype.name in ("float16", "bfloat16"):
        array = array.astype(np.float32)
    elif array.dtype.kind in "iub":
        array = array.astype(np.float64)
    if array.dtype not in (np.float32, np.float64):
        raise ModelError(f"{name} has dtype {array.dtype}; give real numbers, as float32 or float64")
    if ndim is not None and array.ndim != ndim:
        raise ModelError(f"{name} has shape {array.shape}; expected {ndim} axes")
    check_finite(name, array)
    if array.flags.writeable or not array.flags.c_contiguous:
        array = np.array(array, order="C")
        array.flags.writeable = False
    return array


def check_finite(name: str, array: Array) -> None:
    """Raise `ModelError` if `array` holds NaN or infinity."""
    # Minimum and maximum show both without a temporary as large as the weights.
    if array.size and not (np.isfinite(array.min()) and np.isfinite(array.max())):
        count = array.size - int(np.isfinite(array).sum())
        raise ModelError(
            f"{name} (shape {array.shape}) holds NaN or infinity in {count} of {array.size} places; "
            "repair the weights, training has probably diverged"
        )


def check_broadcast(name: str, shape: tuple[int, ...], sample: tuple[int, ...]) -> None:
    """Raise `ModelError` if an array of `shape` does not broadcast to a sample of shape `sample`."""
    try:
        fits = np.broadcast_shapes(shape, sample) == sample
    except ValueError:
        fits = False
    if not fits:
        raise ModelError(f"{name} has shape {shape}, which does not broadcast to {sample}")


def integers(
    name: str, values: Iterable[int], count: int, default: int | None = None, least: int | None = None
) -> tuple[int, ...]:
    """`count` integers, each at least `least` and of 32 bits; `default` for each if `values` is empty."""
    numbers = tuple(int(value) for value in values)
    if not numbers and default is not None:
        numbers = (default,) * count
    if len(numbers) != count:
        raise ModelError(f"{name} is {numbers}; expected {count} numbers")
    if least is not None and any(number < least for number in numbers):
        raise ModelError(f"{name} is {numbers}; each must be at least {least}")
    if any(abs(number) >= 2**31 for number in numbers):  # more than kernels count up to
        raise ModelError(f"{name} is {numbers}; each must be less than {2**31}")
    return numbers
