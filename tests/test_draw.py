"""Charts of signals and tables: what is drawn, by the objects of the figure and by pixels; and tables of files."""

from __future__ import annotations

import importlib
import re
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import pytest
from matplotlib.colors import to_rgb
from PIL import Image

import lrpfast
from lrpfast import InputError, MissingPackageError, NonFiniteError, OutputError, draw
from lrpfast.colors import COLORMAPS
from lrpfast.tables import read_table

X = np.array([[0.0, 1.0, -1.0, 2.0], [5.0, 5.0, 4.0, 5.0]])
R = np.array([[0.0, 2.0, -1.0, 0.5], [0.0, 0.0, 0.0, 4.0]])


def curve_of(axes: Any) -> Any:
    """The coloured pieces of a panel."""
    (pieces,) = axes.collections
    return pieces


# --- signals ---


def test_signal_colours_the_curve_by_its_relevance() -> None:
    figure = draw.signal(X, R, ["left", "$right$"]).figure
    left, right, bar = figure.axes
    for axes, x, r in ((left, X[0], R[0]), (right, X[1], R[1])):
        (line,) = axes.lines
        np.testing.assert_array_equal(line.get_xydata(), np.column_stack([np.arange(4), x]))
        pieces = curve_of(axes)
        expected = COLORMAPS["soft"](r / 4) / 255  # one scale for all channels: the largest is 4
        np.testing.assert_allclose(pieces.get_colors()[:, :3], expected)
        np.testing.assert_allclose(pieces.get_linewidths(), np.abs(r))
    assert (left.get_ylabel(), right.get_ylabel()) == ("left", "$right$")
    assert not right.yaxis.label.get_parse_math()
    assert bar.get_ylim() == (-4, 4)


def test_pieces_of_a_curve_meet_in_the_middle() -> None:
    segments = curve_of(draw.signal(X[0], R[0]).figure.axes[0]).get_segments()
    np.testing.assert_array_equal(segments[1], [[0.5, 0.5], [1, 1], [1.5, 0]])
    np.testing.assert_array_equal(segments[0][0], [0, 0])
    np.testing.assert_array_equal(segments[3][-1], [3, 2])


def test_a_level_and_a_map_can_be_chosen() -> None:
    figure = draw.signal(X, R, cmap="viridis", level=8.0, title="$ 5").figure
    np.testing.assert_allclose(curve_of(figure.axes[1]).get_linewidths(), np.abs(R[1]) / 2)
    assert figure.axes[-1].get_ylim() == (0, 8)
    assert figure.get_suptitle() == "$ 5"
    draw.signal([[1.0]], [[0.0]]).image()


# --- tables ---


def rows_of(figure: Any) -> list[tuple[str, float, tuple[float, ...]]]:
    """Labels, lengths and colours of the bars from top to bottom."""
    (axes,) = figure.axes
    labels = [label.get_text() for label in axes.get_yticklabels()]
    bars = sorted(axes.patches, key=lambda bar: bar.get_y())
    assert axes.get_ylim()[0] > axes.get_ylim()[1]  # the first on top
    return [(text, bar.get_width(), bar.get_facecolor()[:3]) for text, bar in zip(labels, bars, strict=True)]


def test_bars_are_sorted_and_hide_nothing() -> None:
    relevance = np.array([0.5, -3.0, 0.1, 2.0, -0.4])
    rows = rows_of(draw.bars(relevance, list("abcde"), [1.0, 2.5, 3, 4, 5], k=2).figure)
    assert [row[:2] for row in rows] == [
        ("b = 2.5", -3.0),
        ("d = 4", 2.0),
        ("3 others, in sum", pytest.approx(0.2)),
    ]
    (_, _, against), (_, _, speaks_for), (_, _, others) = rows
    assert against[2] > against[0] and speaks_for[0] > speaks_for[2]
    assert others == to_rgb("#b0b0b0")
    assert sum(row[1] for row in rows) == pytest.approx(relevance.sum())
    assert [row[0] for row in rows_of(draw.bars(relevance).figure)] == [
        f"feature {i}" for i in (1, 3, 0, 4, 2)
    ]


def test_names_are_no_formulas_and_not_too_long() -> None:
    figure = draw.bars([1.0, 2.0], ["income in $ or in $", "x" * 99]).figure
    assert rows_of(figure)[0][0] == "x" * 39 + "…"
    assert not figure.axes[0].get_yticklabels()[1].get_parse_math()


# --- charts as files ---


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".svg", ".pdf"])
def test_charts_are_saved_whole_and_alike(tmp_path: Path, suffix: str) -> None:
    for name in ("a", "b"):
        draw.bars([1.0]).save(tmp_path / f"{name}{suffix}", dpi=40)
    first, second = (path.read_bytes() for path in sorted(tmp_path.iterdir()))
    assert first == second
    assert {".png": b"\x89PNG", ".jpg": b"\xff\xd8", ".svg": b"<?xml", ".pdf": b"%PDF"}[suffix] in first[:8]


def test_image_is_what_is_saved(tmp_path: Path) -> None:
    chart = draw.bars([1.0, -2.0])
    chart.save(tmp_path / "a.png", dpi=60)
    with Image.open(tmp_path / "a.png") as saved:
        assert saved.convert("RGB").tobytes() == chart.image(dpi=60).tobytes()
    assert chart._repr_png_()[:4] == b"\x89PNG"
    with pytest.raises(OutputError, match=r"'\.bmp' is no format for charts"):
        chart.save(tmp_path / "a.bmp")


def test_the_state_of_pyplot_is_left_alone() -> None:
    backend, before = matplotlib.rcParams["backend"], dict(matplotlib.rcParams)
    draw.signal(X, R).image()
    assert matplotlib.rcParams["backend"] == backend and dict(matplotlib.rcParams) == before
    from matplotlib import pyplot

    assert pyplot.get_fignums() == []


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: draw.signal(X, R[:, :3]), "expected one shape for both"),
        (lambda: draw.signal(X[None], R[None]), "expected one shape for both"),
        (lambda: draw.signal(np.ones((40, 5)), np.ones((40, 5))), "there are 40 channels; at most 32"),
        (lambda: draw.signal(X, R, ["a"]), "there are 1 names, but 2 channels"),
        (lambda: draw.signal(X, R, "ab"), "there are 2 names"),
        (lambda: draw.signal(X, R, cmap="jet"), "unknown colour map 'jet'"),
        (lambda: draw.bars(R), "relevance has shape (2, 4)"),
        (lambda: draw.bars(R[0], ["a"]), "there are 1 names, but 4 features"),
        (lambda: draw.bars(R[0], values=[1.0]), "values has shape (1,)"),
        (lambda: draw.bars(R[0], k=0), "k is 0"),
    ],
)
def test_what_does_not_fit_is_refused(call: Any, message: str) -> None:
    with pytest.raises(InputError, match=re.escape(message)):
        call()


def test_nan_is_refused() -> None:
    with pytest.raises(NonFiniteError):
        draw.bars([np.nan])


def test_matplotlib_is_named_with_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    real = importlib.import_module

    def without(name: str, package: str | None = None) -> object:
        if name.startswith("matplotlib"):
            raise ModuleNotFoundError("No module named 'matplotlib'", name="matplotlib")
        return real(name, package)

    monkeypatch.setattr("lrpfast.extras.import_module", without)
    for call in (lambda: draw.bars([1.0]), lambda: draw.signal(X, R), draw.check_available):
        with pytest.raises(
            MissingPackageError, match=re.escape('not installed; pip install "lrpfast[plot]"')
        ):
            call()


# --- explanations ---


def test_explanations_draw_signals_and_tables() -> None:
    w = np.arange(8.0).reshape(2, 4) - 3
    network = lrpfast.Sequential(lrpfast.Dense(w))
    x = np.array([[1.0, 2, 3, 4], [4.0, 3, 2, 1]])
    explanation = lrpfast.explain(network, x, 1, "epsilon_plus", dtype=np.float64)
    for values in (x, x[1]):
        rows = rows_of(explanation.bars(list("abcd"), 1, k=4, values=values).figure)
        by_name = {text: width for text, width, _ in rows}
        expected = dict(zip(("a = 4", "b = 3", "c = 2", "d = 1"), x[1] * w[1], strict=True))
        assert by_name == pytest.approx(expected, rel=1e-5)
        axes = explanation.signal(values, 1, level=8.0).figure.axes[0]
        np.testing.assert_allclose(curve_of(axes).get_linewidths(), np.abs(x[1] * w[1]) / 2, rtol=1e-5)


# --- tables in files ---


@pytest.mark.parametrize(
    ("text", "names", "values"),
    [
        ("a,b\n1,2\n3,4.5\n", ("a", "b"), [[1, 2], [3, 4.5]]),
        ("1,2\n3,4\n", None, [[1, 2], [3, 4]]),
        ('\ufeff"a; b";c\r\n1;-2e3\r\n\r\n', ("a; b", "c"), [[1, -2000]]),
        ("a\tb\n1\t2", ("a", "b"), [[1, 2]]),
        ("x\n1\n2\n", ("x",), [[1], [2]]),
    ],
)
def test_tables_are_read(tmp_path: Path, text: str, names: tuple[str, ...] | None, values: list[Any]) -> None:
    (tmp_path / "t.csv").write_text(text, "utf-8", newline="")
    table = read_table(tmp_path / "t.csv")
    assert table.names == names
    np.testing.assert_array_equal(table.values, values)


def test_columns_are_selected_by_name(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("a,b,c\n1,2,3\n")
    table = read_table(tmp_path / "t.csv").select(["c", "a"])
    assert table.names == ("c", "a")
    np.testing.assert_array_equal(table.values, [[3, 1]])
    with pytest.raises(InputError, match="there is no column 'd'; there are c, a"):
        table.select(["a", "d"])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is empty"),
        ("a,b\n", "there are no rows"),
        ("a,b\n1,2,3\n", "line 2 has 3 cells, the first one 2"),
        ("a,b\n1,\n2,nan\n", "line 2, column b: '' is no finite number; line 3, column b: 'nan'"),
        ("1,x\n2,3\n", "line 1, column 2: 'x' is no finite number"),
        ("a,a\n1,2\n", "the column 'a' is there twice"),
        ('a,"b\n1,2\n', "unexpected end of data"),
        ("a\n" + "x\n" * 9, "; …"),
    ],
)
def test_tables_that_are_none_are_refused(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "t.csv").write_text(text)
    with pytest.raises(InputError, match=re.escape(message)):
        read_table(tmp_path / "t.csv")
