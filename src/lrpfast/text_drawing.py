"""Words with colours behind them: what terminals, HTML and pictures have in common, and the first two."""

from __future__ import annotations

import html as markup
import os
import shutil
import sys
import textwrap
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from .colors import Heat, find_colormap, normalize
from .errors import InputError
from .pieces import WHITE

if TYPE_CHECKING:
    from .text import TokenRelevance

RGB = tuple[int, int, int]

CMAP = "soft"
"""Signed, red above zero and blue below, and pale around it: black letters are easy to read on most of it."""

FAINT = 1 / 32
"""Share of the full colour below which a terminal's own background stays."""

REDS, BLUES = (224, 217, 210, 203, 160, 124, 88), (189, 147, 105, 63, 21, 20, 18)
"""From pale to dark in the palette of 256 colours, of which numbers 16 to 231 are a cube of 6 x 6 x 6."""

CUBE = (0, 95, 135, 175, 215, 255)
"""Levels of red, green and blue in it."""


@dataclass(frozen=True)
class Cell:
    """A token that is drawn.

    Attributes
    ----------
    text, begins
        As of a `Piece`; the gap between two words is a space here.
    token : str
        As the tokenizer has it.
    relevance : float
    strength : float
        |relevance| as a share of the full colour, 0 ... 1.
    background, letters : RGB
        The colours of its relevance, and of letters that can be read on it.
    """

    text: str
    begins: bool
    token: str
    relevance: float
    strength: float
    background: RGB
    letters: RGB


@dataclass(frozen=True)
class Drawing:
    """The tokens that are drawn, and what is to be said about them.

    Attributes
    ----------
    cells : tuple of Cell
    words : TokenRelevance
        What is drawn.
    level : float
        The |relevance| in full colour.
    """

    cells: tuple[Cell, ...]
    words: TokenRelevance
    level: float

    @classmethod
    def of(cls, words: TokenRelevance, level: float | None = None) -> Drawing:
        """What there is to draw; `level` is the |relevance| in full colour, the largest by default."""
        shown = np.flatnonzero(~words.padding)
        relevance = words.relevance[shown]
        values = _normalized(relevance, level)
        colormap = find_colormap(CMAP)
        backgrounds, strengths = colormap(values), colormap.strength(values)
        seen = words.pieces()
        cells = []
        for k, i in enumerate(shown):
            piece, background = seen[i], _rgb(backgrounds[k])
            text, begins = (" ", False) if piece.is_gap else (piece.text, piece.begins)
            cells.append(Cell(text, begins, words.tokens[i], float(relevance[k]), float(strengths[k]),
                              background, letters_on(background)))  # fmt: skip
        return cls(tuple(cells), words, float(np.abs(relevance).max(initial=0)) if level is None else level)

    def caption(self, colored: bool = True) -> list[str]:
        """What the colours (or signs) mean, the sum of all, and what is not drawn."""
        meaning = "+ speaks for, - against"
        if colored:
            meaning = f"red speaks for, blue against; full colour at ±{self.level:.3g}"
        lines = [f"{meaning}; all sums to {self.words.total:+.3g}"]
        if count := int(self.words.padding.sum()):
            noun = "padding token" if count == 1 else "padding tokens"
            lines.append(f"not shown: {count} {noun} with {self.words.left_out:+.3g} in sum")
        return lines


def _normalized(relevance: Heat, level: float | None) -> Heat:
    if not len(relevance):
        return relevance
    values: Heat = normalize(relevance[None], clip=100, level="image" if level is None else level)[0]
    return values


def _rgb(color: NDArray[np.uint8]) -> RGB:
    red, green, blue = (int(channel) for channel in color)
    return red, green, blue


def letters_on(background: RGB) -> RGB:
    """Black or white, whichever contrasts more: 4.5 to 1 at least, as WCAG 2 asks for."""
    channels = np.array(background) / 255
    linear = np.where(channels <= 0.04045, channels / 12.92, ((channels + 0.055) / 1.055) ** 2.4)
    luminance = float(linear @ (0.2126, 0.7152, 0.0722))
    return (0, 0, 0) if (luminance + 0.05) ** 2 > 1.05 * 0.05 else (255, 255, 255)


def lay_out(
    cells: Sequence[Cell], width: float, gap: float, measure: Callable[[str], float]
) -> list[list[tuple[float, Cell]]]:
    """Set cells in lines no wider than `width`, broken between words where that can be done.

    Returns
    -------
    list of list of (float, Cell)
        Per line the cells, each with the place of its left edge.
    """
    words: list[list[Cell]] = []
    for cell in cells:
        if cell.begins or cell.text == " " or not words or words[-1][-1].text == " ":
            words.append([])
        words[-1].append(cell)
    lines: list[list[tuple[float, Cell]]] = [[]]
    x = 0.0
    for word in words:
        space = gap if lines[-1] and word[0].begins else 0.0
        if lines[-1] and x + space + sum(measure(cell.text) for cell in word) > width:
            lines.append([])
            x = space = 0.0
        x += space
        for cell in word:
            if lines[-1] and x + measure(cell.text) > width:  # a word longer than a line
                lines.append([])
                x = 0.0
            lines[-1].append((x, cell))
            x += measure(cell.text)
    return lines


# --- the terminal ---


def ansi(drawing: Drawing, width: int | None, colors: str, k: int) -> str:
    """As `TokenRelevance.ansi`."""
    if width is not None and width < 1:
        raise InputError(f"width is {width}; expected a positive number of columns")
    if colors not in ("auto", "truecolor", "256", "none"):
        raise InputError(f"colors is {colors!r}; expected 'auto', 'truecolor', '256' or 'none'")
    width = width or shutil.get_terminal_size().columns
    colors = wanted_colors(os.environ, sys.stdout.isatty()) if colors == "auto" else colors
    lines = []
    for line in lay_out(drawing.cells, width, 1, columns):
        text, end = "", 0.0
        for x, cell in line:
            text += " " * round(x - end) + _painted(cell, colors)
            end = x + columns(cell.text)
        lines.append(text)
    if colors == "none":
        lines += ["", *_strongest(drawing, width, k)]
    caption = drawing.caption(colored=colors != "none")
    return "\n".join([*lines, "", *(part for line in caption for part in textwrap.wrap(line, width))])


def wanted_colors(environment: Mapping[str, str], terminal: bool) -> str:
    """Which colours the user and the terminal want (https://no-color.org)."""
    if environment.get("NO_COLOR") or not terminal or environment.get("TERM") == "dumb":
        return "none"
    return "truecolor" if environment.get("COLORTERM") in ("truecolor", "24bit") else "256"


def columns(text: str) -> int:
    """Columns that a text takes on a terminal."""
    return sum(
        0 if unicodedata.combining(c) else 2 if unicodedata.east_asian_width(c) in "WF" else 1 for c in text
    )


def _painted(cell: Cell, colors: str) -> str:
    if colors == "none" or cell.strength < FAINT:
        return cell.text
    if colors == "truecolor":
        letters, background = (f"2;{';'.join(map(str, color))}" for color in (cell.letters, cell.background))
    else:
        letters, background = _of_palette(cell)
    return f"\x1b[38;{letters};48;{background}m{cell.text}\x1b[0m"


def _of_palette(cell: Cell) -> tuple[str, str]:
    """Letters and background out of 256 colours."""
    ramp = REDS if cell.relevance > 0 else BLUES
    number = ramp[min(int(cell.strength * len(ramp)), len(ramp) - 1)]
    red, green, blue = (CUBE[(number - 16) // step % 6] for step in (36, 6, 1))
    return f"5;{16 if letters_on((red, green, blue)) == (0, 0, 0) else 231}", f"5;{number}"


def _strongest(drawing: Drawing, width: int, k: int) -> list[str]:
    """The strongest tokens as bars of + and -, and the sum of the others."""
    top = [(f"{visible(token):.24}", value) for token, value in drawing.words.top(k)]
    names = max((columns(token) for token, _ in top), default=0)
    room = max(4, min(40, width - names - 16))
    largest = max((abs(value) for _, value in top), default=0.0) or 1.0
    lines = []
    for token, value in top:
        bar = ("+" if value > 0 else "-") * round(room * abs(value) / largest)
        lines.append(f"  {token}{' ' * (names - columns(token))}  {value:+10.3g}  {bar}".rstrip())
    others = len(drawing.cells) - len(top)
    if others > 0:
        rest = sum(cell.relevance for cell in drawing.cells) - sum(value for _, value in top)
        lines.append(f"  {others} other{'s' * (others > 1)}: {rest:+.3g} in sum")
    return lines


def visible(token: str) -> str:
    """A token with signs in place of white space and of what cannot be printed."""
    return "".join(WHITE.get(c) or (c if c.isprintable() else ascii(c)[1:-1]) for c in token)


# --- HTML ---

STYLE = (
    "body{font-family:sans-serif;max-width:50em;margin:2em auto;padding:0 1em;color:#222;background:#fff}"
    ".lrp{font-size:1.1em;line-height:2;overflow-wrap:anywhere}.lrp span{padding:.15em .1em;border-radius:.2em}"
    "table{border-collapse:collapse}td,th{padding:.1em .8em;text-align:left}td+td{text-align:right;"
    "font-variant-numeric:tabular-nums}"
)


def html(drawing: Drawing, title: str) -> str:
    """As `TokenRelevance.html`."""
    rows = "\n".join(
        f"<tr><td>{markup.escape(visible(cell.token))}</td><td>{cell.relevance:+.6g}</td></tr>"
        for cell in drawing.cells
    )
    heading = f"<h1>{markup.escape(title)}</h1>\n" if title else ""
    return (
        '<!DOCTYPE html>\n<html>\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{markup.escape(title or 'Relevance of words')}</title>\n<style>{STYLE}</style>\n</head>\n"
        f"<body>\n{heading}{html_fragment(drawing)}\n<details>\n<summary>All numbers</summary>\n<table>\n"
        f"<tr><th>token</th><th>relevance</th></tr>\n{rows}\n</table>\n</details>\n</body>\n</html>"
    )


def html_fragment(drawing: Drawing) -> str:
    """The coloured words and the caption, to be put into a page."""
    parts = []
    for i, cell in enumerate(drawing.cells):
        gap = " " if i and cell.begins else ""
        note = markup.escape(f"{visible(cell.token)}: {cell.relevance:+.4g}", quote=True)
        text = "&nbsp;<wbr>" if cell.text == " " else markup.escape(cell.text)
        style = f"background:{_hex(cell.background)};color:{_hex(cell.letters)}"
        parts.append(f'{gap}<span title="{note}" style="{style}">{text}</span>')
    caption = "<br>".join(map(markup.escape, drawing.caption()))
    return f'<p class="lrp" dir="auto">{"".join(parts)}</p>\n<p><small>{caption}</small></p>'


def _hex(color: RGB) -> str:
    return "#" + bytes(color).hex()
