"""Heatmaps as numbers and colours: levels, and the colour maps that show them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal, TypedDict

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .errors import InputError, NonFiniteError

Heat = NDArray[np.float64]
Level = Literal["image", "shared"] | float


@dataclass(frozen=True)
class Colormap:
    """Colours at equal distances, with straight lines between them.

    Attributes
    ----------
    reads : {"signed", "positive", "absolute"}
        What the colours stand for: -1 ... 1 with zero in the middle; 0 ... 1 with negative relevance
        shown as zero; or 0 ... 1 for the magnitude.
    colors : tuple of str
        Hexadecimal RGB, from the lowest value to the highest.
    """

    reads: Literal["signed", "positive", "absolute"]
    colors: tuple[str, ...]

    def strength(self, values: Heat) -> Heat:
        """How far from the neutral colour normalized values are, 0 ... 1."""
        return np.maximum(values, 0) if self.reads == "positive" else np.abs(values)

    def __call__(self, values: Heat) -> NDArray[np.uint8]:
        """Colours (..., 3) of normalized values (...)."""
        position = (values + 1) / 2 if self.reads == "signed" else self.strength(values)
        table = np.array([tuple(bytes.fromhex(color)) for color in self.colors], np.float64)
        stops = np.linspace(0, 1, len(table))
        channels = [np.interp(position, stops, table[:, channel]) for channel in range(3)]
        return np.rint(np.stack(channels, axis=-1)).astype(np.uint8)


def _map(reads: Literal["signed", "positive", "absolute"], colors: str) -> Colormap:
    return Colormap(reads, tuple(colors.split()))


COLORMAPS: Mapping[str, Colormap] = MappingProxyType(
    {
        "seismic": _map("signed", "00004c 0000ff ffffff ff0000 800000"),
        "bwr": _map("signed", "0000ff ffffff ff0000"),
        "soft": _map("signed", "12355b 2f6fae 8dbbe0 f7f7f5 f2a98a c8403c 6d0f26"),
        "coldnhot": _map("signed", "d9ffff 00d8ff 0050ff 000000 ff2800 ffc800 ffffd9"),
        "gray": _map("signed", "000000 808080 ffffff"),
        "hot": _map("positive", "000000 b00000 ff5a00 ffd200 ffffff"),
        "viridis": _map("absolute", "440154 443a83 31688e 21908d 35b779 8fd744 fde725"),
    }
)
"""The colour maps. Signed, negative - zero - positive: "seismic" and "bwr" (blue - white - red), "soft"
(the same, muted), "coldnhot" (cyan - black - yellow), "gray" (black - grey - white). "hot" shows positive
relevance alone, "viridis" its magnitude."""


class LevelOptions(TypedDict, total=False):
    """The keyword arguments of `normalize`, which the other functions pass on."""

    clip: float
    symmetric: bool
    level: Level


def normalize(heat: ArrayLike, clip: float = 99.5, symmetric: bool = True, level: Level = "image") -> Heat:
    """Divide a heatmap by its level and cut it off at -1 and 1. Zero stays zero.

    Parameters
    ----------
    heat : array_like, shape (h, w) or (n, h, w)
        From `heatmap`.
    clip : float, default 99.5
        The level is this percentile of |heat|, in (0, 100], so that a few extreme pixels do not leave
        the others pale. Where that percentile is zero, the largest |heat| is taken.
    symmetric : bool, default True
        One level for both signs. False: one for each, from the positive and from the negative part.
    level : "image", "shared" or float, default "image"
        One level per picture, one for the whole batch, or this number (`clip` is idle then).

    Raises
    ------
    InputError
        `clip` or `level` out of range, or `heat` of another shape.
    NonFiniteError
        NaN or infinity in `heat`.
    """
    heat = as_heat(heat)
    if not 0 < clip <= 100:
        raise InputError(f"clip is {clip!r}; expected a percentile above 0 and up to 100")
    if isinstance(level, str):
        if level not in ("image", "shared"):
            raise InputError(f"level is {level!r}; expected 'image', 'shared' or a positive number")
    elif not 0 < level < np.inf:
        raise InputError(f"level is {level!r}; expected a positive number")
    if symmetric:
        levels = _level(np.abs(heat), clip, level)
    else:
        above, below = (_level(np.maximum(part, 0), clip, level) for part in (heat, -heat))
        levels = np.where(heat > 0, above, below)
    with np.errstate(over="ignore"):
        return np.clip(heat / np.where(levels > 0, levels, 1), -1, 1)


def find_colormap(name: str) -> Colormap:
    """One of `COLORMAPS`."""
    if name not in COLORMAPS:
        raise InputError(f"unknown colour map {name!r}; choose one of {', '.join(COLORMAPS)}")
    return COLORMAPS[name]


def as_heat(heat: ArrayLike) -> Heat:
    """`heat` as numbers, one heatmap or a batch."""
    array = as_numbers("heat", heat)
    if array.ndim not in (2, 3) or array.size == 0:
        raise InputError(f"a heatmap has shape (h, w) or (n, h, w), not {array.shape}; use heatmap() first")
    return array


def as_numbers(name: str, values: ArrayLike) -> Heat:
    """`values` as finite float64 numbers."""
    try:
        array = np.asarray(values)
    except ValueError as error:
        raise InputError(f"{name} is not an array: {error}") from None
    if array.dtype.kind not in "biuf":
        raise InputError(f"{name} has dtype {array.dtype}; expected real numbers")
    if not np.all(np.isfinite(array)):
        raise NonFiniteError(f"{name} holds {np.count_nonzero(~np.isfinite(array))} NaN or infinite values")
    return array.astype(np.float64)


def _level(magnitude: Heat, clip: float, level: Level) -> Heat:
    """The magnitude that is shown in full, of shape (1, 1) or (n, 1, 1); zero if all is zero."""
    if not isinstance(level, str):
        return np.full((1, 1), level, np.float64)
    axes = (-2, -1) if level == "image" else tuple(range(magnitude.ndim))
    percentile = np.percentile(magnitude, clip, axis=axes, keepdims=True)
    return np.where(percentile > 0, percentile, magnitude.max(axis=axes, keepdims=True))
