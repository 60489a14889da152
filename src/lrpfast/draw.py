"""Charts of relevance: signals as coloured curves, tables as bars (needs matplotlib, the extra ``plot``).

`signal` and `bars` make a `Chart`, which is saved as a picture or a drawing, or handed on as an image.
"""

from __future__ import annotations

import io
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .colors import Heat, as_numbers, find_colormap, normalize
from .errors import InputError, OutputError
from .extras import need
from .files import whole_file

if TYPE_CHECKING:
    from PIL.Image import Image

__all__ = ["SUFFIXES", "Chart", "bars", "signal"]

SUFFIXES = (".png", ".jpg", ".jpeg", ".svg", ".pdf")
"""What `Chart.save` writes."""

MAX_PANELS = 32
"""Signals with more channels are refused: nobody could read them."""

PURPOSE = "drawing charts"
GREY = "#606060"


@dataclass(frozen=True, eq=False)
class Chart:
    """A finished drawing.

    Attributes
    ----------
    figure : matplotlib.figure.Figure
        Belongs to no window and to no `pyplot`; titles and the like can be added to it.
    """

    figure: Any

    def save(self, path: str | os.PathLike[str], dpi: int = 120) -> None:
        """Write a file in one of `SUFFIXES`, whole or not at all; the same chart makes the same bytes.

        Raises
        ------
        OutputError
            Another suffix, or the file cannot be written.
        """
        path = Path(path)
        suffix = path.suffix.lower()
        if suffix not in SUFFIXES:
            raise OutputError(
                f"cannot write {str(path)!r}: {path.suffix!r} is no format for charts; use {' '.join(SUFFIXES)}"
            )
        drawn = self._bytes(suffix[1:], dpi)
        with whole_file(path) as file:
            file.write(drawn)

    def image(self, dpi: int = 120) -> Image:
        """The chart as a picture in RGB."""
        from PIL import Image

        return Image.open(io.BytesIO(self._bytes("png", dpi))).convert("RGB")

    def _repr_png_(self) -> bytes:
        return self._bytes("png", 120)

    def _bytes(self, kind: str, dpi: int) -> bytes:
        matplotlib = need("matplotlib", "plot", PURPOSE)
        undated = {"svg": {"Date": None}, "pdf": {"CreationDate": None}}.get(kind)
        buffer = io.BytesIO()
        with matplotlib.rc_context({"svg.hashsalt": "lrpfast"}):
            self.figure.savefig(buffer, format=kind, dpi=dpi, metadata=undated)
        return buffer.getvalue()


def signal(
    x: ArrayLike,
    relevance: ArrayLike,
    names: Sequence[str] | None = None,
    *,
    cmap: str = "soft",
    level: float | None = None,
    title: str = "",
    width: float = 9.0,
) -> Chart:
    """Draw a signal as a curve that has the colours of its relevance, and is the bolder the stronger it is.

    Parameters
    ----------
    x : array_like (length,) or (channels, length)
        One sample of the network's input.
    relevance : array_like
        Of the same shape. All channels share one scale of colours.
    names : sequence of str, optional
        Of the channels, each of which gets a panel of its own.
    cmap : str, default "soft"
        Name in `lrpfast.colors.COLORMAPS`.
    level : float, optional
        The |relevance| in full colour. Default: the largest.
    title : str, optional
    width : float, default 9
        In inches.

    Raises
    ------
    InputError
        Shapes or names do not fit, or there are more than `MAX_PANELS` channels.
    NonFiniteError
        NaN or infinity.
    MissingPackageError
        matplotlib is not installed.
    """
    curves, values = (np.atleast_2d(as_numbers(*a)) for a in (("x", x), ("relevance", relevance)))
    if curves.shape != values.shape or curves.ndim != 2 or not curves.size:
        raise InputError(
            f"x has shape {np.shape(x)} and relevance {np.shape(relevance)}; expected one shape for both, (length,) "
            "or (channels, length), of one sample"
        )
    if len(curves) > MAX_PANELS:
        raise InputError(f"there are {len(curves)} channels; at most {MAX_PANELS} can be drawn: choose some")
    labels = _names("channel", names, len(curves))
    figure = _figure(width, 0.9 + max(1.1, 3.2 / len(curves)) * len(curves), title)
    colormap = find_colormap(cmap)
    full = float(np.abs(values).max()) if level is None else level
    shown = normalize(values, clip=100, level="image" if level is None else level)
    panels = figure.subplots(len(curves), 1, sharex=True, squeeze=False)[:, 0]
    for k, axes in enumerate(panels):
        _coloured_curve(axes, curves[k], colormap(shown[k]) / 255, colormap.strength(shown[k]))
        if names is not None or len(curves) > 1:
            _plainly(axes.set_ylabel(labels[k]))
    panels[-1].set_xlabel("position")
    _colour_bar(figure, panels, colormap, full)
    return Chart(figure)


def bars(
    relevance: ArrayLike,
    names: Sequence[str] | None = None,
    values: ArrayLike | None = None,
    k: int = 20,
    *,
    title: str = "",
    width: float = 7.0,
) -> Chart:
    """Draw the relevance of a table's features as bars, the strongest on top.

    Parameters
    ----------
    relevance : array_like (features,)
    names : sequence of str, optional
        Of the features. Default: ``feature 0`` and so on.
    values : array_like (features,), optional
        What the features were: stands behind their names.
    k : int, default 20
        How many features are shown; the sum of all others is one more bar, so that nothing is hidden.
    title : str, optional
    width : float, default 7
        In inches.

    Raises
    ------
    InputError
        Shapes or names do not fit, or `k` is no positive whole number.
    NonFiniteError
        NaN or infinity.
    MissingPackageError
        matplotlib is not installed.
    """
    numbers = as_numbers("relevance", relevance)
    if numbers.ndim != 1 or not numbers.size:
        raise InputError(f"relevance has shape {numbers.shape}; expected (features,), those of one sample")
    if not isinstance(k, (int, np.integer)) or k < 1:
        raise InputError(f"k is {k!r}; expected a positive whole number")
    labels = [_shortened(name) for name in _names("feature", names, len(numbers))]
    if values is not None:
        given = as_numbers("values", values)
        if given.shape != numbers.shape:
            raise InputError(f"values has shape {given.shape}; expected {numbers.shape}, one per feature")
        labels = [f"{label} = {value:.4g}" for label, value in zip(labels, given, strict=True)]
    order = np.argsort(-np.abs(numbers), kind="stable")
    rows = [(labels[i], float(numbers[i])) for i in order[:k]]
    rest = order[k:]
    if len(rest):
        rows.append((f"{len(rest)} other{'s' * (len(rest) > 1)}, in sum", float(numbers[rest].sum())))
    figure = _figure(width, 1.0 + 0.3 * len(rows), title)
    _draw_bars(figure.subplots(), rows, others=bool(len(rest)))
    return Chart(figure)


def check_available() -> None:
    """Raise `MissingPackageError` if charts cannot be drawn here."""
    need("matplotlib", "plot", PURPOSE)


def _names(kind: str, names: Sequence[str] | None, count: int) -> list[str]:
    """One name for each of them."""
    if names is None:
        return [f"{kind} {i}" for i in range(count)]
    found = [str(name) for name in names]
    if len(found) != count or isinstance(names, str):
        raise InputError(f"there are {len(found)} names, but {count} {kind}s; expected one for each")
    return found


def _figure(width: float, height: float, title: str) -> Any:
    """A figure of its own: `pyplot` and its state are left alone, and nothing needs a display."""
    figures = need("matplotlib.figure", "plot", PURPOSE)
    backend = need("matplotlib.backends.backend_agg", "plot", PURPOSE)
    figure = figures.Figure(figsize=(width, height), layout="constrained", facecolor="white")
    backend.FigureCanvasAgg(figure)
    if title:
        _plainly(figure.suptitle(title, fontsize="medium"))
    return figure


def _plainly(text: Any) -> None:
    """Dollar signs in a text are no formulas."""
    text.set_parse_math(False)


def _coloured_curve(axes: Any, y: Heat, colors: NDArray[np.float64], strength: Heat) -> None:
    """A thin grey curve, and over it a piece for each point in its colour, up to the middle of its neighbours."""
    lines = need("matplotlib.collections", "plot", PURPOSE)
    points = np.column_stack([np.arange(len(y)), y])
    middle = (points[1:] + points[:-1]) / 2
    before, after = np.vstack([points[:1], middle]), np.vstack([middle, points[-1:]])
    axes.plot(*points.T, color="#909090", linewidth=0.9, marker="." if len(y) == 1 else None)
    pieces = lines.LineCollection(
        np.stack([before, points, after], axis=1), colors=colors, linewidths=4 * strength,
        capstyle="round", joinstyle="round", rasterized=len(y) > 5000, zorder=3,
    )  # fmt: skip
    axes.add_collection(pieces)
    axes.margins(x=0.01)
    axes.spines[["top", "right"]].set_visible(False)


def _colour_bar(figure: Any, panels: Any, colormap: Any, full: float) -> None:
    """What the colours stand for."""
    made = need("matplotlib.colors", "plot", PURPOSE)
    cm = need("matplotlib.cm", "plot", PURPOSE)
    low = -1.0 if colormap.reads == "signed" else 0.0
    table = colormap(np.linspace(low, 1, 256)) / 255
    full = full or 1.0
    scale = cm.ScalarMappable(made.Normalize(low * full, full), made.ListedColormap(table))
    figure.colorbar(scale, ax=list(panels), label="relevance", aspect=30, pad=0.01)


def _draw_bars(axes: Any, rows: Sequence[tuple[str, float]], others: bool) -> None:
    """Bars from top to bottom, each with its number; that of the others is grey."""
    names, numbers = zip(*rows, strict=True)
    ends = np.array(numbers)
    signed = find_colormap("soft")(np.array([0.67, -0.67])) / 255
    colors: list[Any] = [tuple(signed[0] if number >= 0 else signed[1]) for number in numbers]
    if others:
        colors[-1] = "#b0b0b0"
    places = np.arange(len(rows))
    axes.barh(places, ends, color=colors, height=0.7)
    for text in axes.set_yticks(places, labels=names):
        _plainly(text.label1)
    axes.set_ylim(len(rows) - 0.4, -0.6)
    axes.axvline(0, color=GREY, linewidth=0.8)
    for place, number in zip(places, numbers, strict=True):
        side = "left" if number >= 0 else "right"
        shift = (4 if number >= 0 else -4), 0
        axes.annotate(f"{number:+.3g}", (number, place), shift, textcoords="offset points", va="center", ha=side,
                      color=GREY, fontsize="small")  # fmt: skip
    axes.margins(x=0.15)
    axes.set_xlabel("relevance: red speaks for, blue against")
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.tick_params(axis="y", length=0)


def _shortened(name: str) -> str:
    return name if len(name) <= 40 else f"{name[:39]}…"
