"""Pictures of relevance: heatmaps, overlays on the photograph, grids with labels.

The way from relevance to a picture has three steps, each a function of its own: `heatmap` sums over the
channels, `normalize` brings the sums to -1 ... 1 with zero kept at zero, `colorize` looks up colours.
`render` does it all; `save` writes the picture in one piece or not at all.
"""

from __future__ import annotations

import io
import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .colors import COLORMAPS, Colormap, Heat, LevelOptions, as_heat, as_numbers, find_colormap, normalize
from .errors import InputError, OutputError
from .files import whole_file

if TYPE_CHECKING:
    from PIL import Image
    from typing_extensions import Unpack

    Picture = Image.Image | NDArray[np.uint8]

__all__ = [
    "COLORMAPS",
    "colorize",
    "grid",
    "heatmap",
    "normalize",
    "overlay",
    "render",
    "save",
    "side_by_side",
]

# JPEG's defaults smear the single coloured pixels that heatmaps consist of.
SAVING = {"JPEG": {"quality": 95, "subsampling": 0}, "PNG": {"compress_level": 3}}
"""Options per format. Heatmaps are hardly smaller on PNG's higher levels, which take three times as long."""


def heatmap(relevance: ArrayLike, channel_axis: int | Literal["auto"] | None = "auto") -> Heat:
    """Sum relevance over its channels.

    Parameters
    ----------
    relevance : array_like
        One sample, (h, w), (c, h, w) or (h, w, c), or a batch of the latter two.
    channel_axis : int, "auto" or None, default "auto"
        The axis to sum over; None if there is none. "auto" takes the axis before or after height and
        width that has 1 or 3 elements, and refuses to guess if both or neither have.

    Returns
    -------
    ndarray of float64, shape (h, w) or (n, h, w)

    Raises
    ------
    InputError
        No real numbers, no picture, or the channels cannot be told.
    NonFiniteError
        NaN or infinity in the relevance.
    """
    array = as_numbers("relevance", relevance)
    if channel_axis == "auto":
        channel_axis = _channel_axis(array.shape)
    if channel_axis is not None:
        if not isinstance(channel_axis, int) or not -array.ndim <= channel_axis < array.ndim:
            raise InputError(f"relevance of shape {array.shape} has no axis {channel_axis!r} to sum over")
        with np.errstate(over="ignore", invalid="ignore"):
            array = array.sum(axis=channel_axis)
    return as_heat(array)


def colorize(heat: ArrayLike, cmap: str = "seismic", **levels: Unpack[LevelOptions]) -> NDArray[np.uint8]:
    """Colour a heatmap: zero is the neutral colour, positive is red and negative blue by default.

    Parameters
    ----------
    heat : array_like, shape (h, w) or (n, h, w)
        From `heatmap`.
    cmap : str, default "seismic"
        Name in `COLORMAPS`.
    **levels
        `clip`, `symmetric` and `level` of `normalize`.

    Returns
    -------
    ndarray of uint8, shape (h, w, 3) or (n, h, w, 3)

    Raises
    ------
    InputError
        Unknown colour map, or as for `normalize`.
    """
    return find_colormap(cmap)(normalize(heat, **levels))


def overlay(
    heat: ArrayLike,
    photo: Picture,
    alpha: float = 0.8,
    cmap: str = "seismic",
    **levels: Unpack[LevelOptions],
) -> Image.Image:
    """Lay a heatmap over the grey photograph; the stronger the relevance, the less of it shows through.

    Parameters
    ----------
    heat : array_like, shape (h, w)
        From `heatmap`; resized to the photograph's size if it has another.
    photo : PIL image or ndarray of uint8, (h, w) or (h, w, 3)
        The photograph that the network saw.
    alpha : float, default 0.8
        Opacity at full relevance, in [0, 1]; elsewhere it falls with the root of the normalized |heat|.
    cmap, **levels
        As for `colorize`.

    Raises
    ------
    InputError
        Invalid options, or `photo` is no picture.
    """
    return _overlay(_single(normalize(heat, **levels)), _picture(photo), alpha, find_colormap(cmap))


def side_by_side(
    photo: Picture, *heats: ArrayLike, cmap: str = "seismic", **levels: Unpack[LevelOptions]
) -> Image.Image:
    """Put a photograph and heatmaps, each brought to its size, in a row."""
    photo = _picture(photo)
    values = [_single(normalize(heat, **levels)) for heat in heats]
    return _row(photo, *(_resized(_colors(v, find_colormap(cmap)), photo.size) for v in values))


def grid(
    images: Sequence[Picture],
    columns: int | None = None,
    labels: Sequence[str] | None = None,
    pad: int = 8,
    font_size: int = 14,
) -> Image.Image:
    """Lay pictures out on white, row by row, each in the middle of its cell with its label below.

    Parameters
    ----------
    images : sequence of PIL images or uint8 arrays
        At least one; the largest sets the size of the cells (labels may widen them a little).
    columns : int, optional
        Default: as many as make the grid about square.
    labels : sequence of str, optional
        One per picture, of one or more lines; what is wider than a cell is cut off. Pillow's own font
        is used, which has ASCII letters only.
    pad : int, default 8
        Pixels between the cells and around them.
    font_size : int, default 14
        In pixels.

    Raises
    ------
    InputError
        No pictures, not as many labels as pictures, or a number out of range.
    """
    from PIL import Image, ImageDraw, ImageFont

    pictures = [_picture(image) for image in images]
    if not pictures:
        raise InputError("a grid needs at least one picture")
    if labels is not None and len(labels) != len(pictures):
        raise InputError(f"there are {len(labels)} labels for {len(pictures)} pictures; give one for each")
    if columns is None:
        columns = math.ceil(math.sqrt(len(pictures)))
    for name, value, least in (("columns", columns, 1), ("pad", pad, 0), ("font_size", font_size, 1)):
        if value < least:
            raise InputError(f"{name} is {value}; expected at least {least}")
    texts = [label.split("\n") for label in labels or [""] * len(pictures)]
    font = ImageFont.load_default(font_size)
    line = round(font_size * 1.35)
    below = line * max(map(len, texts)) if labels else 0
    width, height = (max(picture.size[axis] for picture in pictures) for axis in (0, 1))
    longest = max(font.getlength(text) for lines in texts for text in lines)
    width = max(width, math.ceil(min(longest, 10 * font_size)))  # room to read under small pictures

    rows = math.ceil(len(pictures) / columns)
    sheet = Image.new("RGB", (columns * (width + pad) + pad, rows * (height + below + pad) + pad), "white")
    draw = ImageDraw.Draw(sheet)
    for i, (picture, lines) in enumerate(zip(pictures, texts, strict=True)):
        left, top = pad + i % columns * (width + pad), pad + i // columns * (height + below + pad)
        x, y = left + (width - picture.width) // 2, top + (height - picture.height) // 2
        if pad:  # a thin frame, since heatmaps are mostly as white as the sheet
            draw.rectangle((x - 1, y - 1, x + picture.width, y + picture.height), outline="#d0d0d0")
        sheet.paste(picture, (x, y))
        for k, text in enumerate(lines):
            middle = left + width / 2, top + height + (k + 0.6) * line
            draw.text(middle, _shortened(text, font, width), "#303030", font, anchor="mm")
    return sheet


def render(
    relevance: ArrayLike,
    photo: Picture | Sequence[Picture] | None = None,
    mode: Literal["heatmap", "overlay", "side_by_side"] = "heatmap",
    *,
    channel_axis: int | Literal["auto"] | None = "auto",
    cmap: str = "seismic",
    alpha: float = 0.8,
    enlarge: int | None = None,
    **levels: Unpack[LevelOptions],
) -> Image.Image:
    """Make a picture of relevance.

    Parameters
    ----------
    relevance : array_like
        As for `heatmap`. A batch makes a grid.
    photo : picture or sequence of pictures, optional
        What the network saw, one per sample; needed for the modes "overlay" and "side_by_side".
    mode : {"heatmap", "overlay", "side_by_side"}, default "heatmap"
        The relevance alone, over the photograph, or next to it.
    channel_axis
        As for `heatmap`.
    cmap, alpha, **levels
        As for `overlay`.
    enlarge : int, optional
        Size of a pixel. Default: small pictures are enlarged to 224 pixels or a little less.

    Raises
    ------
    InputError, NonFiniteError
        As for the functions above, or the photographs are missing or not as many as the samples.
    """
    if mode not in ("heatmap", "overlay", "side_by_side"):
        raise InputError(f"mode is {mode!r}; expected 'heatmap', 'overlay' or 'side_by_side'")
    if enlarge is not None and enlarge < 1:
        raise InputError(f"enlarge is {enlarge}; expected at least 1")
    colormap = find_colormap(cmap)
    values = normalize(heatmap(relevance, channel_axis), **levels)
    samples = values if values.ndim == 3 else values[None]
    if mode == "heatmap":
        return _gathered([_enlarged(_colors(sample, colormap), enlarge) for sample in samples])

    photos: list[Picture] = []
    if photo is not None:
        several = isinstance(photo, (list, tuple)) or getattr(photo, "ndim", 0) == 4
        photos = list(cast("Sequence[Picture]", photo)) if several else [cast("Picture", photo)]
    if len(photos) != len(samples):
        raise InputError(
            f"mode {mode!r} needs one photo per sample; there are {len(photos)} photos and "
            f"{len(samples)} samples"
        )
    pictures = []
    for sample, picture in zip(samples, map(_picture, photos), strict=True):
        if mode == "overlay":
            pictures.append(_enlarged(_overlay(sample, picture, alpha, colormap), enlarge))
        else:
            shown = _enlarged(picture, enlarge)
            pictures.append(_row(shown, _resized(_colors(sample, colormap), shown.size)))
    return _gathered(pictures)


def save(image: Image.Image, path: str | os.PathLike[str]) -> None:
    """Write a picture; the suffix names the format. The file appears whole or not at all.

    Raises
    ------
    OutputError
        Unknown suffix, or the file cannot be written.
    """
    from PIL import Image

    path = Path(path)
    suffix = path.suffix.lower()
    Image.preinit()  # the common formats; the others take long to import
    kind = Image.EXTENSION.get(suffix) or Image.registered_extensions().get(suffix)
    if kind not in Image.SAVE:
        raise OutputError(
            f"cannot write {str(path)!r}: {path.suffix!r} is no format for pictures; use .png or .jpg"
        )
    buffer = io.BytesIO()
    try:
        image.save(buffer, kind, **SAVING.get(kind, {}))
    except (OSError, ValueError, KeyError) as error:
        raise OutputError(f"cannot write {str(path)!r} as {kind}: {error}; use .png") from error
    with whole_file(path) as file:
        file.write(buffer.getvalue())


def _overlay(values: Heat, photo: Image.Image, alpha: float, colormap: Colormap) -> Image.Image:
    """`overlay` for normalized values."""
    from PIL import Image

    if not 0 <= alpha <= 1:
        raise InputError(f"alpha is {alpha!r}; expected an opacity from 0 to 1")
    if photo.size != values.shape[::-1]:
        field = Image.fromarray(values.astype(np.float32))
        values = np.asarray(field.resize(photo.size, Image.Resampling.BILINEAR), np.float64)
    grey = np.asarray(photo.convert("L"), np.float64)[..., None]
    # The root lifts the many faint pixels of a heatmap, which would drown in the photograph.
    opacity = alpha * np.sqrt(colormap.strength(values))[..., None]
    return Image.fromarray(np.rint(grey + opacity * (colormap(values) - grey)).astype(np.uint8))


def _row(*pictures: Image.Image) -> Image.Image:
    return grid(pictures, columns=len(pictures))


def _gathered(pictures: list[Image.Image]) -> Image.Image:
    return pictures[0] if len(pictures) == 1 else grid(pictures)


def _colors(values: Heat, colormap: Colormap) -> Image.Image:
    from PIL import Image

    return Image.fromarray(colormap(values))


def _enlarged(picture: Image.Image, factor: int | None) -> Image.Image:
    """Every pixel a square of factor x factor pixels."""
    factor = max(1, 224 // max(picture.size)) if factor is None else factor
    return _resized(picture, (picture.width * factor, picture.height * factor))


def _resized(picture: Image.Image, size: tuple[int, int]) -> Image.Image:
    """Enlarged without blurring, or made smaller without losing pixels."""
    from PIL import Image

    smaller = size[0] < picture.width or size[1] < picture.height
    return picture.resize(size, Image.Resampling.BOX if smaller else Image.Resampling.NEAREST)


def _shortened(text: str, font: Any, width: int) -> str:
    """The text, or as much of its beginning as fits into the width."""
    if font.getlength(text) <= width:
        return text
    while text and font.getlength(text + "...") > width:
        text = text[:-1]
    return text.rstrip() + "..."


def _picture(image: Picture) -> Image.Image:
    """A picture in RGB."""
    from PIL import Image

    if isinstance(image, Image.Image):
        return image.convert("RGB")
    array = np.asarray(image)
    fits = array.ndim >= 2 and array.size and array.shape[2:] in ((), (3,))
    if array.dtype != np.uint8 or not fits:
        raise InputError(
            "a picture is a PIL image or an array of uint8, (h, w) or (h, w, 3); got "
            f"{type(image).__name__} of dtype {array.dtype} and shape {array.shape}"
        )
    return Image.fromarray(array).convert("RGB")


def _channel_axis(shape: tuple[int, ...]) -> int | None:
    if len(shape) == 2:
        return None
    likely = [axis for axis in (-3, -1) if len(shape) in (3, 4) and shape[axis] in (1, 3)]
    if len(likely) != 1:
        raise InputError(
            f"cannot tell which axis of relevance of shape {shape} holds the channels; expected (h, w), "
            "(c, h, w), (h, w, c) or a batch of them, c = 1 or 3; give channel_axis, None if there is none"
        )
    return likely[0]


def _single(heat: Heat) -> Heat:
    if heat.ndim != 2:
        raise InputError(f"one heatmap (h, w) is needed here, not a batch of shape {heat.shape}")
    return heat
