"""A chart of what explanations cost, in inferences."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from statistics import mean
from typing import Any

from report import CONTESTANTS, Row, digits

COLORS = {
    "predict": "#56B4E9", "explain": "#0072B2", "numba": "#009E73", "zennit": "#E69F00", "captum": "#CC79A7",
}  # fmt: skip
"""Of the palette of Okabe and Ito, which the colour-blind can tell apart."""

NAMES = {"predict": "lrpfast predict", "explain": "lrpfast explain", "numba": "lrpfast explain on Numba"}
"""Of contestants in the legend; the others have their own."""

Group = tuple[str, int]
"""The bars of one network and batch."""

HEIGHT = 0.19  # inches of a bar
GAP = 0.7  # bars between groups
TICKS = (0.2, 0.5, 1, 2, 5, 10, 20, 50, 100)


def draw(result: dict[str, Any], rows: Sequence[Row], path: Path) -> None:
    """Grouped bars, one panel for each number of threads; needs matplotlib."""
    import matplotlib

    matplotlib.use("agg")
    from matplotlib import pyplot

    panels = sorted({row.threads for row in rows})
    shown = [name for name in CONTESTANTS if any(name in row.seconds for row in rows)]
    places, bottom = layout(rows, shown)
    size = (1.5 + 4.5 * len(panels), 1.6 + HEIGHT * bottom)
    figure, axes = pyplot.subplots(
        1, len(panels), figsize=size, sharey=True, squeeze=False, layout="constrained"
    )
    multiples = [multiple for row in rows for multiple in row.multiples.values()]
    limits = 0.9 * min(multiples), 1.6 * max(multiples)  # room for numbers
    for axis, threads in zip(axes[0], panels, strict=True):
        draw_panel(axis, [row for row in rows if row.threads == threads], shown, places)
        axis.set_ylim(bottom - GAP - 0.3, -0.7)
        axis.set_xscale("log")
        axis.set_xticks(TICKS, [str(tick) for tick in TICKS], minor=False)
        axis.set_xticks([], minor=True)
        axis.set_xlim(limits)
        axis.set_title(f"{threads} thread{'s' * (threads > 1)}", fontsize=10, loc="left")
        axis.set_xlabel("time in inferences of onnxruntime (the line is one; logarithmic)", fontsize=9)
    handles, labels = axes[0][0].get_legend_handles_labels()
    figure.legend(
        handles,
        labels,
        ncols=len(shown) if len(panels) > 1 else 3,
        loc="outside upper center",
        frameon=False,
        fontsize=9,
    )
    about = f"{result['composite']}, float32, {result['machine']['cpu']}, {result['machine']['backend']}"
    figure.supxlabel(about, fontsize=7, color="0.4")
    figure.savefig(path, dpi=160)
    pyplot.close(figure)


def layout(rows: Sequence[Row], shown: Sequence[str]) -> tuple[dict[Group, dict[str, float]], float]:
    """Where the bars of each group lie, from top to bottom, and where all of them end."""
    places: dict[Group, dict[str, float]] = {}
    below = 0.0
    for row in rows:
        group = row.network, row.batch
        if group not in places:
            taking_part = [name for name in shown if name in row.seconds]
            places[group] = {name: below + i for i, name in enumerate(taking_part)}
            below += len(taking_part) + GAP
    return places, below


def draw_panel(
    axis: Any, rows: Sequence[Row], shown: Sequence[str], places: dict[Group, dict[str, float]]
) -> None:
    """The bars of one number of threads."""
    for name in shown:
        taking_part = [row for row in rows if name in row.seconds]
        at = [places[row.network, row.batch][name] for row in taking_part]
        lengths = [row.multiples[name] for row in taking_part]
        axis.barh(at, [length - 1 for length in lengths], 0.9, left=1, color=COLORS[name],
                  label=NAMES.get(name, name))  # fmt: skip
        for place, length in zip(at, lengths, strict=True):
            axis.text(1.04 * max(1, length), place, digits(length), va="center", fontsize=7)
    axis.axvline(1, color="0.25", linewidth=1)
    middles = [mean(bars.values()) for bars in places.values()]
    axis.set_yticks(middles, [f"{network}\nbatch {batch}" for network, batch in places], fontsize=8)
    axis.tick_params(axis="y", length=0)
    axis.tick_params(axis="x", labelsize=8)
    axis.spines[["top", "right", "left"]].set_visible(False)
