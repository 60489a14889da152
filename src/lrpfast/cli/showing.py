"""How relevance is shown: as a heatmap, words, a curve or bars, by what the network takes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from ..draw import MAX_PANELS, check_available, signal
from ..draw import SUFFIXES as CHARTS
from ..explanation import Explanation
from ..image import save as save_picture
from ..ops.base import Array
from ..preprocess import is_picture
from ..text import SUFFIXES as DOCUMENTS
from ..text import TokenRelevance, token_relevance
from .console import BAD_INPUT, Failure, note
from .inputs import Sample
from .outputs import PICTURES, write_array

if TYPE_CHECKING:
    from PIL.Image import Image

DRAWINGS = {*PICTURES, *CHARTS, *DOCUMENTS}
"""Suffixes of all drawings."""

Mode = Literal["overlay", "side_by_side"]


@dataclass(frozen=True)
class Style:
    """What the options say of drawings.

    Attributes
    ----------
    mode : "overlay", "side_by_side" or None
        Of heatmaps.
    cmap : str or None
        Colour map of heatmaps and curves; None for the usual one.
    top : int
        How many features or tokens are listed.
    joined : bool
        Whether pieces of words are joined.
    """

    mode: Mode | None
    cmap: str | None
    top: int
    joined: bool


@dataclass(frozen=True)
class Shown:
    """A sample that is explained, and what belongs to it.

    Attributes
    ----------
    sample : Sample
    x : array
        Its input, without a batch axis.
    picture : PIL image or None
        What the input looks like.
    explanation : Explanation
        Of this sample alone.
    title : str
        What stands above drawings.
    """

    sample: Sample
    x: Array
    picture: Image | None
    explanation: Explanation
    title: str

    @property
    def relevance(self) -> Array:
        """Without a batch axis, like `x`."""
        relevance: Array = self.explanation.relevance_of(self.sample.input)[0]
        return relevance

    def words(self, joined: bool) -> TokenRelevance:
        """The tokens with their relevance, `joined` to words or not."""
        assert self.sample.text is not None
        found = token_relevance(self.sample.text, self.relevance)
        return found.words() if joined else found


@dataclass(frozen=True)
class Form:
    """A way to draw relevance.

    Attributes
    ----------
    suffixes : tuple of str
        Of files that it can be drawn into; none if there is no such way.
    default : str
        Suffix of files in a folder.
    draw : callable
        Writes a file.
    """

    suffixes: tuple[str, ...]
    default: str
    draw: Callable[[Shown, Path, Style], None]


def _draw_heatmap(shown: Shown, path: Path, style: Style) -> None:
    photo = shown.picture if style.mode else None
    cmap = style.cmap or "seismic"
    image = shown.explanation.image(
        input=shown.sample.input, photo=photo, mode=style.mode or "heatmap", cmap=cmap
    )
    save_picture(image, path)


def _draw_words(shown: Shown, path: Path, style: Style) -> None:
    words = shown.words(style.joined)
    if path.suffix.lower() in PICTURES:
        from ..text_image import missing_letters

        if missing := missing_letters([shown.title, *(piece.text for piece in words.pieces())], None):
            note(
                f"{path}: no font here has {missing[:20]}; codes stand in their place, but .html has the letters"
            )
    words.save(path, shown.title)


def _draw_curve(shown: Shown, path: Path, style: Style) -> None:
    relevance = shown.relevance
    first = relevance.shape[0] < relevance.shape[1]  # the channels
    x, r = (shown.x, relevance) if first else (shown.x.T, relevance.T)
    signal(x, r, shown.sample.names, cmap=style.cmap or "soft", title=shown.title).save(path)


def _draw_bars(shown: Shown, path: Path, style: Style) -> None:
    names, input = shown.sample.names, shown.sample.input
    shown.explanation.bars(names, k=style.top, values=shown.x, input=input, title=shown.title).save(path)


def _write_relevance(shown: Shown, path: Path, style: Style) -> None:
    write_array(path, shown.relevance)


HEATMAP = Form(PICTURES, ".png", _draw_heatmap)
WORDS = Form(DOCUMENTS, ".html", _draw_words)
CURVE = Form(CHARTS, ".png", _draw_curve)
BARS = Form(CHARTS, ".png", _draw_bars)
NUMBERS = Form((), ".npy", _write_relevance)
"""No drawing, but an array."""


def form_for(shape: tuple[int, ...], text: bool) -> Form:
    """How relevance of one sample's shape is drawn."""
    if text:
        return WORDS
    if is_picture(shape):
        return HEATMAP
    if len(shape) == 1:
        return BARS
    is_signal = len(shape) == 2 and shape[0] != shape[1] and min(shape) <= MAX_PANELS
    return CURVE if is_signal else NUMBERS


def check_drawable(
    form: Form, samples: Sequence[Sample], shape: tuple[int, ...], paths: Iterable[Path]
) -> None:
    """Raise an error if what a drawing needs is not there: names that fit, or the package that draws.

    Raises
    ------
    Failure
        There are not as many names as features or channels.
    MissingPackageError
        matplotlib is needed and not installed.
    """
    if form not in (CURVE, BARS):
        return
    if any(path.suffix.lower() in CHARTS for path in paths):
        check_available()
    count, what = (shape[0], "features") if form is BARS else (min(shape), "channels")
    for sample in samples:
        if sample.names is not None and len(sample.names) != count:
            raise Failure(f"{sample}: there are {len(sample.names)} names, but the network takes {count} {what}",
                          BAD_INPUT, "give one name for each")  # fmt: skip


def write(shown: Shown, path: Path, form: Form, style: Style) -> None:
    """Write what the suffix says."""
    if path.suffix == ".npz":
        shown.explanation.save(path)
    elif path.suffix == ".npy":
        _write_relevance(shown, path, style)
    else:
        form.draw(shown, path, style)
