"""Pictures of words with colours behind them."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypedDict

from .errors import InputError
from .text_drawing import Drawing, lay_out

if TYPE_CHECKING:
    from PIL.Image import Image

FONTS = (
    "DejaVuSans.ttf",
    "NotoSans-Regular.ttf",
    "LiberationSans-Regular.ttf",
    "Arial Unicode.ttf",
    "arial.ttf",
)
"""Fonts that many machines have, by the files that Pillow looks for in the system's folders."""

ABSENT = "\U0010fffd"
"""A character of no font: what is drawn like it is missing."""


class ImageOptions(TypedDict, total=False):
    """The keyword arguments of `image`, which `TokenRelevance.image` passes on."""

    width: int
    font_size: int
    font: str | os.PathLike[str] | None


def image(
    drawing: Drawing,
    title: str,
    width: int = 800,
    font_size: int = 20,
    font: str | os.PathLike[str] | None = None,
) -> Image:
    """As `TokenRelevance.image`."""
    from PIL import Image, ImageDraw

    if width < 100 or font_size < 4:
        raise InputError(f"width is {width} and font_size {font_size}; expected 100 and 4 pixels at least")
    caption = drawing.caption()
    texts = [title, *caption, *(cell.text for cell in drawing.cells)]
    size = font_size
    main, small = (_letters(font, pixels, texts) for pixels in (size, max(4, round(0.7 * size))))
    margin, step, inner = size, round(1.9 * size), width - 2 * size
    pad = max(1, size // 8)  # of colour on both sides of the letters

    def measure(text: str) -> float:
        return main.length(text) + 2 * pad

    lines = lay_out(drawing.cells, inner, 0.22 * size, measure)
    heads = _folded(title, inner, main.length)
    notes = [part for line in caption for part in _folded(line, inner, small.length)]
    leading, note = round(1.4 * size), round(1.1 * size)
    top = margin + leading * len(heads) + (size // 2 if heads else 0)
    below = top + step * len(lines) + size // 3
    picture = Image.new("RGB", (width, below + note * len(notes) + margin // 2), "white")
    draw = ImageDraw.Draw(picture)

    def write(x: float, y: float, text: str, color: Any, letters: Letters) -> None:
        draw.text((x, y), letters.writable(text), color, letters.font, anchor="lm")

    for k, text in enumerate(heads):
        write(margin, margin + (k + 0.5) * leading, text, "#303030", main)
    for k, line in enumerate(lines):
        middle = top + (k + 0.5) * step
        for x, cell in line:
            box = margin + x, middle - 0.75 * size, margin + x + measure(cell.text) - 1, middle + 0.75 * size
            draw.rounded_rectangle(box, size // 5, cell.background)
            write(margin + x + pad, middle, cell.text, cell.letters, main)
    for k, text in enumerate(notes):
        write(margin, below + (k + 0.5) * note, text, "#606060", small)
    return picture


def missing_letters(texts: Iterable[str], font: str | os.PathLike[str] | None) -> str:
    """The characters for which there is no picture in the font that `image` would take."""
    texts = list(texts)
    chosen = _letters(font, 12, texts)
    return "".join(c for c in sorted(set("".join(texts))) if not chosen.has(c))


class Letters:
    """A font that knows which letters it lacks: a code is written in their place."""

    def __init__(self, font: Any) -> None:
        self.font = font
        self._absent = bytes(font.getmask(ABSENT))
        self._found: dict[str, bool] = {" ": True}

    def has(self, letter: str) -> bool:
        """Whether the font has a picture of the letter."""
        if letter not in self._found:
            self._found[letter] = bytes(self.font.getmask(letter)) != self._absent
        return self._found[letter]

    def writable(self, text: str) -> str:
        """The text with codes for the letters that are missing."""
        return "".join(c if self.has(c) else ascii(c)[1:-1] for c in text)

    def length(self, text: str) -> float:
        """Pixels that the text takes."""
        return float(self.font.getlength(self.writable(text)))


def _folded(text: str, width: float, measure: Callable[[str], float]) -> list[str]:
    """A text in lines that fit."""
    lines: list[str] = []
    for word in text.split():
        longer = f"{lines[-1]} {word}" if lines else word
        if lines and measure(longer) <= width:
            lines[-1] = longer
        else:
            lines.append(word)
    return lines


def _letters(path: str | os.PathLike[str] | None, size: int, texts: Iterable[str]) -> Letters:
    """The font that is asked for; or the first that has all letters, else the one that lacks fewest."""
    from PIL import ImageFont

    if path is not None:
        try:
            return Letters(ImageFont.truetype(os.fspath(path), size))
        except OSError as error:
            raise InputError(
                f"cannot read the font {os.fspath(path)!r}: {error}; expected a TrueType or OpenType file"
            ) from None
    needed = set("".join(texts))
    fonts: list[tuple[int, int, Letters]] = []
    for font in map(Letters, _usual_fonts(size)):
        lacks = sum(not font.has(letter) for letter in needed)
        if not lacks:
            return font
        fonts.append((lacks, len(fonts), font))
    return min(fonts)[2]


def _usual_fonts(size: int) -> Iterator[Any]:
    from PIL import ImageFont

    yield ImageFont.load_default(size)
    for name in (*FONTS, *_carried_font()):
        try:
            yield ImageFont.truetype(name, size)
        except OSError:
            continue


def _carried_font() -> Iterator[str]:
    """The font that comes with matplotlib, where that is installed."""
    spec = find_spec("matplotlib")
    if spec is not None and spec.origin is not None:
        yield str(Path(spec.origin).parent / "mpl-data/fonts/ttf/DejaVuSans.ttf")
