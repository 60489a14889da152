"""From files to the arrays that networks take: photographs and `.npy`/`.npz` files.

A photograph is read (`read_image`), brought to the network's size and turned into numbers (`prepare`):
`y = (pixel · scale - mean) / std` per channel, with pixels from 0 to 255. `bounds` gives the values of
black and white under the same arithmetic, which is what the ZBox rule asks for.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from functools import cache
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, BinaryIO, Literal

import numpy as np
from numpy.typing import NDArray

from . import npy
from .errors import InputError
from .files import json_value, read_text
from .limits import limits_now

if TYPE_CHECKING:
    from PIL import Image

PathLike = str | os.PathLike[str]

FORMATS = ("BMP", "GIF", "JPEG", "MPO", "PNG", "PPM", "TIFF", "WEBP")
"""What pictures may be, by Pillow's names. It knows others that are rarer, and some that run programs (EPS)."""

CHOICES: Mapping[str, tuple[str | None, ...]] = MappingProxyType(
    {
        "resize": ("crop", "stretch", "fit"),
        "interpolation": ("bilinear", "bicubic", "nearest"),
        "channels": ("RGB", "BGR"),
        "layout": (None, "nchw", "nhwc"),
    }
)
"""The words that the fields of a `Preprocessing` may take."""


@dataclass(frozen=True)
class Preprocessing:
    """How a photograph becomes an input of a network.

    Attributes
    ----------
    size : (int, int), optional
        Height and width of the network's input. Default: what the network says; if both say, they must
        agree.
    resize : {"crop", "stretch", "fit"}, default "crop"
        "crop": the shorter side becomes size / `crop_ratio`, and the centre is cut out. "stretch": the
        whole picture, its aspect ratio given up. "fit": the whole picture in the middle of black bars.
    crop_ratio : float, default 0.875
        For "crop", in (0, 1]: 0.875 is 224 out of 256, as is usual for ImageNet.
    interpolation : {"bilinear", "bicubic", "nearest"}, default "bilinear"
        Filter for resizing (the first two with anti-aliasing).
    channels : {"RGB", "BGR"}, default "RGB"
        Order of the channels in the array.
    scale : float, default 1
        Factor on the pixels 0 ... 255; positive.
    mean, std : tuple of float, default (0,) and (1,)
        Subtracted and divided by, after scaling; one number for all channels or one for each, in the
        order of `channels`. `std` is positive.
    layout : {"nchw", "nhwc"}, optional
        Default: inferred from the network's input shape, which has 1 or 3 channels.
    grayscale : bool, default False
        Take the colour away first. Networks with one channel always get a grey picture.

    Raises
    ------
    InputError
        Fields with a wrong type or value; all of them are listed.
    """

    size: tuple[int, int] | None = None
    resize: Literal["crop", "stretch", "fit"] = "crop"
    crop_ratio: float = 0.875
    interpolation: Literal["bilinear", "bicubic", "nearest"] = "bilinear"
    channels: Literal["RGB", "BGR"] = "RGB"
    scale: float = 1.0
    mean: tuple[float, ...] = (0.0,)
    std: tuple[float, ...] = (1.0,)
    layout: Literal["nchw", "nhwc"] | None = None
    grayscale: bool = False

    def __post_init__(self) -> None:
        for name in ("size", "mean", "std"):
            value = getattr(self, name)
            object.__setattr__(self, name, tuple(value) if isinstance(value, list) else value)
        problems = _problems(self)
        if problems:
            raise InputError("invalid preprocessing: " + "; ".join(problems))

    @classmethod
    def from_json(cls, path: PathLike) -> Preprocessing:
        """Read a JSON object whose keys are the names of the fields; absent ones keep their defaults.

        Example: `{"scale": 0.00392156862745098, "mean": [0.5], "std": [0.5], "channels": "BGR"}`.

        Raises
        ------
        InputError
            The file cannot be read, is not a JSON object, or has unknown keys or invalid values.
        """
        text = read_text(path, "preprocessing")
        try:
            described = json_value(text, _unique_keys)
        except ValueError as error:
            raise InputError(f"cannot read the preprocessing {str(path)!r}: {_cause(error)}") from error
        if not isinstance(described, dict):
            raise InputError(
                f"the preprocessing {str(path)!r} holds a {type(described).__name__}; expected a JSON object "
                'such as {"scale": 1, "mean": [127.5], "std": [127.5]}'
            )
        known = [field.name for field in fields(cls)]
        unknown = [repr(key) for key in described if key not in known]
        if unknown:
            raise InputError(
                f"the preprocessing {str(path)!r} has unknown keys {', '.join(unknown)}; "
                f"known are {', '.join(known)}"
            )
        try:
            return cls(**described)
        except InputError as error:
            raise InputError(f"{str(path)!r}: {error}") from None


def _problems(preprocessing: Preprocessing) -> list[str]:
    """What is wrong with the fields, one sentence each."""
    values = {field.name: getattr(preprocessing, field.name) for field in fields(preprocessing)}
    ratio, scale, size = values["crop_ratio"], values["scale"], values["size"]
    expected = {
        "size": (
            size is None
            or (isinstance(size, tuple) and len(size) == 2 and all(type(n) is int and n > 0 for n in size)),
            "two positive integers, height and width",
        ),
        "crop_ratio": (_is_number(ratio) and 0 < ratio <= 1, "a number above 0 and up to 1"),
        "scale": (_is_number(scale) and scale > 0, "a positive number"),
        "mean": (_are_numbers(values["mean"]), "a list of 1 or 3 numbers"),
        "std": (_are_numbers(values["std"]) and min(values["std"]) > 0, "a list of 1 or 3 positive numbers"),
        "grayscale": (isinstance(values["grayscale"], bool), "true or false"),
    }
    for name, words in CHOICES.items():
        expected[name] = (values[name] in words, " or ".join(repr(word) for word in words))
    wrong = {name: words for name, (fine, words) in expected.items() if not fine}
    return [f"{name} is {values[name]!r}, expected {words}" for name, words in wrong.items()]


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def _are_numbers(values: object) -> bool:
    return isinstance(values, tuple) and len(values) in (1, 3) and all(map(_is_number, values))


PREPROCESSINGS: Mapping[str, Preprocessing] = MappingProxyType(
    {
        "imagenet": Preprocessing(scale=1 / 255, mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225)),
        "tf": Preprocessing(mean=(127.5,), std=(127.5,)),
        "efficientnet-lite": Preprocessing(mean=(127.0,), std=(128.0,), interpolation="bicubic"),
        "raw": Preprocessing(),
    }
)
"""Presets. "imagenet": torchvision's, with ImageNet's mean and deviation. "tf": -1 ... 1.
"efficientnet-lite": (pixel - 127) / 128. "raw": 0 ... 255."""


def read_image(
    path: PathLike | BinaryIO, max_pixels: int | None = None, name: str | None = None
) -> Image.Image:
    """Read a picture as RGB: turned upright by its EXIF tag, transparency laid over white.

    16-bit grey pictures are brought to 8 bits; of animations the first frame is read.

    Parameters
    ----------
    path : path or binary file
    max_pixels : int, optional
        Default: the limit `pixels` of the environment (`lrpfast.Limits`).
    name : str, optional
        What messages call the picture. Default: its path.

    Raises
    ------
    InputError
        The file cannot be read or decoded, has 32-bit pixels, or has more than `max_pixels` pixels.
    """
    from PIL import Image, ImageOps, UnidentifiedImageError

    limits = limits_now() if max_pixels is None else replace(limits_now(), pixels=max_pixels)
    try:
        with Image.open(path, formats=_formats()) as picture:
            width, height = picture.size
            limits.check("pixels", width * height, f"{width} x {height} pixels", InputError)
            return _to_rgb(ImageOps.exif_transpose(picture))
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        pixels = int(
            re.findall(r"\d+", str(error))[0]
        )  # Pillow has a limit of its own, and looks before we do
        limits.check("pixels", pixels, f"cannot read the image {name or str(path)!r}: pixels", InputError)
        raise InputError(
            f"cannot read the image {name or str(path)!r}: {pixels} pixels are more than Pillow's own limit; "
            "PIL.Image.MAX_IMAGE_PIXELS sets it"
        ) from error
    except Exception as error:  # decoders fail on damaged files in every way there is
        # Pillow would say where in memory the file is, and so something else each time.
        unknown = isinstance(error, UnidentifiedImageError)
        why = "cannot identify its format" if unknown else _cause(error)
        raise InputError(f"cannot read the image {name or str(path)!r}: {why}") from error


@cache
def _formats() -> tuple[str, ...]:
    """Those of `FORMATS` that this Pillow can read."""
    from PIL import Image, MpoImagePlugin, TiffImagePlugin, WebPImagePlugin  # noqa: F401  they register themselves

    Image.preinit()
    return tuple(name for name in FORMATS if name in Image.OPEN)


def prepare(
    image: Image.Image, sample_shape: tuple[int, ...], preprocessing: Preprocessing
) -> tuple[NDArray[np.float32], Image.Image]:
    """Turn a picture into an input of a network.

    Parameters
    ----------
    image : PIL.Image.Image
        From `read_image`, or any picture that Pillow converts to RGB.
    sample_shape : tuple of int
        Shape of one sample of the network's input: (3, h, w), (h, w, 3), (1, h, w) or (h, w, 1).
    preprocessing : Preprocessing
        One of `PREPROCESSINGS`, say.

    Returns
    -------
    array : ndarray of float32, shape `sample_shape`
        The input, without a batch axis.
    picture : PIL.Image.Image
        The part of the picture that the network sees, height h and width w: what a heatmap is laid over.

    Raises
    ------
    InputError
        The shape is not that of a picture, or contradicts the preprocessing.
    """
    form = _form(sample_shape, preprocessing)
    picture = _resize(image.convert("RGB"), form.height, form.width, preprocessing)
    if preprocessing.grayscale or form.channels == 1:
        picture = picture.convert("L")
    pixels = np.asarray(picture if form.channels == 1 else picture.convert("RGB"))
    return _normalize(pixels.reshape(form.height, form.width, form.channels), form, preprocessing), picture


def bounds(
    preprocessing: Preprocessing, sample_shape: tuple[int, ...]
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """The values of black and of white after `preprocessing`: `low` and `high` of the ZBox rule.

    Returns
    -------
    low, high : ndarray of float32, shape `sample_shape`
        Every array that `prepare` makes lies between them.

    Raises
    ------
    InputError
        As for `prepare`.
    """
    form = _form(sample_shape, preprocessing)
    black = np.zeros((form.height, form.width, form.channels), np.uint8)
    return _normalize(black, form, preprocessing), _normalize(black + 255, form, preprocessing)


def is_picture(shape: tuple[int, ...]) -> bool:
    """Whether samples of this shape are pictures: the first or the last axis holds 1 or 3 channels."""
    return len(shape) == 3 and (shape[0] in (1, 3)) != (shape[2] in (1, 3))


def read_arrays(path: PathLike | BinaryIO, name: str | None = None) -> dict[str, NDArray[Any]]:
    """Read the arrays of a `.npy` or `.npz` file; pickled objects are never loaded.

    Parameters
    ----------
    path : path or binary file
    name : str, optional
        What messages call the file, and the array of an `.npy` is named after. Default: its path.

    Returns
    -------
    dict
        The arrays by name, in the file's order; the array of a `.npy` is named after the file.

    Raises
    ------
    InputError
        The file is missing, damaged, of another format or above the limit, or an array in it is empty or does not
        hold real numbers.
    """
    name = name or str(path)
    arrays = npy.read_arrays(path, name)
    if not arrays:
        raise InputError(f"{name!r} holds no arrays")
    problems = [
        f"{key!r} has dtype {array.dtype} and shape {array.shape}"
        for key, array in arrays.items()
        if array.dtype.kind not in "biuf" or array.size == 0
    ]
    if problems:
        raise InputError(f"{name!r}: {'; '.join(problems)}; expected real numbers, at least one")
    return arrays


@dataclass(frozen=True)
class _Form:
    """Which axis of a sample means what."""

    channels: int
    height: int
    width: int
    layout: Literal["nchw", "nhwc"]


def _form(shape: tuple[int, ...], preprocessing: Preprocessing) -> _Form:
    """Read the sample's shape as that of a picture, and check it against the preprocessing."""
    layouts: tuple[Literal["nchw", "nhwc"], ...] = ("nchw", "nhwc")
    wanted = layouts if preprocessing.layout is None else (preprocessing.layout,)
    fitting = []
    if len(shape) == 3 and min(shape) > 0:
        fitting = [layout for layout in wanted if shape[0 if layout == "nchw" else 2] in (1, 3)]
    if not fitting:
        raise InputError(
            f"the network takes samples of shape {shape}: no picture in layout {' or '.join(wanted)}; "
            "expected (3, h, w), (1, h, w), (h, w, 3) or (h, w, 1): give an array instead of an image"
        )
    if len(fitting) > 1:
        raise InputError(
            f"samples of shape {shape} may be channels first or channels last; say which in the "
            'preprocessing: layout "nchw" or "nhwc"'
        )
    channels, height, width = shape if fitting[0] == "nchw" else (shape[2], *shape[:2])
    if preprocessing.size not in (None, (height, width)):
        raise InputError(
            f"the preprocessing makes pictures of size {preprocessing.size}, but the network takes "
            f"{(height, width)} (height, width); leave size out, or correct it"
        )
    for name in ("mean", "std"):
        count = len(getattr(preprocessing, name))
        if count not in (1, channels):
            raise InputError(
                f"the preprocessing's {name} has {count} numbers, but the network takes {channels} "
                "channel(s); give one number for all, or one for each"
            )
    return _Form(channels, height, width, fitting[0])


def _resize(image: Image.Image, height: int, width: int, preprocessing: Preprocessing) -> Image.Image:
    """An RGB picture of that height and width, made as the preprocessing says."""
    from PIL import Image

    resample = Image.Resampling[preprocessing.interpolation.upper()]
    if preprocessing.resize == "stretch":
        return image.resize((width, height), resample)
    if preprocessing.resize == "fit":
        ratio = min(width / image.width, height / image.height)
        inner = max(1, round(image.width * ratio)), max(1, round(image.height * ratio))
        picture = Image.new("RGB", (width, height))
        corner = (width - inner[0]) // 2, (height - inner[1]) // 2
        picture.paste(image.resize(inner, resample), corner)
        return picture
    whole = _whole_size(image.size, (width, height), preprocessing.crop_ratio)
    left, upper = round((whole[0] - width) / 2), round((whole[1] - height) / 2)
    return image.resize(whole, resample).crop((left, upper, left + width, upper + height))


def _whole_size(image: tuple[int, int], target: tuple[int, int], crop_ratio: float) -> tuple[int, int]:
    """Size (width, height) to which a picture is brought before the target is cut out of its centre.

    Rounded as torchvision's Resize and CenterCrop do, so that the pixels are the same.
    """
    tight = 0 if target[0] * image[1] >= target[1] * image[0] else 1  # the axis with less to spare
    short = round(target[tight] / crop_ratio)
    long = max(target[1 - tight], short * image[1 - tight] // image[tight])
    if short * long > limits_now().pixels:
        raise InputError(
            f"a picture of {image[0]} x {image[1]} pixels is too thin to be cropped to "
            f'{target[0]} x {target[1]}; cut it first, or use resize "fit" or "stretch"'
        )
    return (short, long) if tight == 0 else (long, short)


def _normalize(pixels: NDArray[np.uint8], form: _Form, preprocessing: Preprocessing) -> NDArray[np.float32]:
    """(h, w, c) pixels in RGB → the network's numbers, order of channels and layout.

    The formula is computed for the 256 values that a pixel can have, and looked up for each.
    """
    if preprocessing.channels == "BGR":
        pixels = pixels[..., ::-1]
    levels = np.arange(256)[:, None] * preprocessing.scale - np.array(preprocessing.mean)
    table = np.broadcast_to(levels / np.array(preprocessing.std), (256, form.channels)).astype(np.float32)
    shape = (form.channels, form.height, form.width)
    values = np.empty(shape if form.layout == "nchw" else (*shape[1:], shape[0]), np.float32)
    for channel in range(form.channels):
        where = channel if form.layout == "nchw" else (..., channel)
        values[where] = table[:, channel][pixels[..., channel]]
    return values


def _to_rgb(picture: Image.Image) -> Image.Image:
    from PIL import Image

    if picture.mode in ("I", "F"):
        raise InputError("it holds 32-bit numbers, whose black and white are unknown; save it with 8 bits")
    if picture.mode.startswith("I;16"):  # Pillow would cut off at 255 instead of scaling
        picture = Image.fromarray(np.rint(np.asarray(picture) / 257).astype(np.uint8))
    if picture.has_transparency_data:
        picture = picture.convert("RGBA")
        white = Image.new("RGBA", picture.size, "white")
        picture = Image.alpha_composite(white, picture)
    return picture.convert("RGB")


def _unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    keys = [key for key, _ in pairs]
    twice = sorted({key for key in keys if keys.count(key) > 1})
    if twice:
        raise ValueError(f"the key {twice[0]!r} is given twice")
    return dict(pairs)


def _cause(error: BaseException) -> str:
    """The reason in words, without the path that an OSError repeats."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return str(error) or type(error).__name__
