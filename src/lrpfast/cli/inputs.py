"""From arguments to what is explained: samples out of files, labels, targets, preprocessings."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ..errors import InputError, LrpfastError
from ..feeds import check_feed
from ..network import Network
from ..ops.base import Array
from ..preprocess import PREPROCESSINGS, Preprocessing, prepare, read_arrays, read_image
from .console import BAD_INPUT, Failure, closest, note, usage

if TYPE_CHECKING:
    from PIL.Image import Image

ARRAYS = (".npy", ".npz")

UNIT = Preprocessing(scale=1 / 255)
"""The default for networks that take one channel."""


@dataclass(frozen=True)
class Sample:
    """One thing to be explained.

    Attributes
    ----------
    file : str
        The argument that it comes from.
    name : str
        Unique among the samples; output files are called by it.
    read : callable
        Gives the network's input, without a batch axis, and what it looks like (None if it is no picture).
        Of several pictures each is read again each time, so that many of them need no memory.
    array : str or None
        Which array of an .npz file it is in.
    index : int or None
        Its place along the array's batch axis.
    """

    file: str
    name: str
    read: Callable[[], tuple[Array, Image | None]]
    array: str | None = None
    index: int | None = None

    def __str__(self) -> str:
        array = "" if self.array is None else f":{self.array}"
        return self.file + array + ("" if self.index is None else f"[{self.index}]")


def find_preprocessing(name: str) -> Preprocessing:
    """A preset, or what a JSON file says."""
    if name in PREPROCESSINGS:
        return PREPROCESSINGS[name]
    if name.endswith(".json") or Path(name).is_file():
        return Preprocessing.from_json(name)
    raise usage(
        f"unknown preprocessing {name!r}", f"{closest(name, PREPROCESSINGS)} (a .json file will do too)"
    )


def choose_preprocessing(name: str | None, shape: tuple[int, ...]) -> Preprocessing:
    """What the option says; else ImageNet's, or 0 ... 1 for one channel."""
    if name is not None:
        return find_preprocessing(name)
    grey = len(shape) == 3 and 1 in (shape[0], shape[2])
    return UNIT if grey else PREPROCESSINGS["imagenet"]


def find_samples(
    files: Sequence[str], network: Network, preprocessing: Preprocessing, dtype: str
) -> list[Sample]:
    """All samples of all files, each of them read once and checked.

    Raises
    ------
    Failure
        A file is unreadable, does not fit the network, or holds NaN.
    """
    samples = []
    for file in files:
        try:
            if Path(file).is_dir():
                raise Failure(f"the input {file!r} is a folder", BAD_INPUT, f"name its files: {file}/*.jpg")
            if Path(file).suffix.lower() in ARRAYS:
                found = list(_samples_of_arrays(file, network))
            else:
                found = [_sample_of_image(file, network, preprocessing, keep=len(files) == 1)]
            for sample in found:
                check_feed(network.name, network.inputs, sample.read()[0][None], np.dtype(dtype))
        except LrpfastError as error:
            message = str(error)
            raise Failure(message if file in message else f"{file}: {message}", BAD_INPUT) from error
        samples += found
    return _with_unique_names(samples)


def is_array_file(file: str) -> bool:
    """Whether the file holds arrays rather than a picture."""
    return Path(file).suffix.lower() in ARRAYS


def _sample_of_image(file: str, network: Network, preprocessing: Preprocessing, keep: bool) -> Sample:
    def read() -> tuple[Array, Image | None]:
        return prepare(read_image(file), network.input_shape, preprocessing)

    return Sample(file, Path(file).stem, cache(read) if keep else read)


def _samples_of_arrays(file: str, network: Network) -> Iterator[Sample]:
    """Samples of all arrays of the file that fit the network."""
    arrays = read_arrays(file)
    shape = network.input_shape
    fitting = {
        key: array for key, array in arrays.items() if array.shape == shape or array.shape[1:] == shape
    }
    if not fitting:
        found = ", ".join(f"{key} {array.shape}" for key, array in arrays.items())
        sizes = ", ".join(map(str, shape))
        raise InputError(
            f"{file!r} holds {found}; {network.name!r} takes samples of shape {shape}, or several "
            f"of them as (n, {sizes})"
        )
    for key in arrays.keys() - fitting.keys():
        note(f"{file}: left out {key!r}, whose shape {arrays[key].shape} is not the network's")
    for key, array in fitting.items():
        part = None if len(arrays) == 1 else key
        name = Path(file).stem if part is None else f"{Path(file).stem}-{key}"
        if array.shape == shape:
            yield Sample(file, name, _reader(array), part)
            continue
        digits = len(str(len(array) - 1))
        for i, sample in enumerate(array):
            number = f"-{i:0{digits}}" if len(array) > 1 else ""
            yield Sample(file, name + number, _reader(sample), part, i)


def _reader(sample: Array) -> Callable[[], tuple[Array, Image | None]]:
    return lambda: (sample, picture_of(sample))


def picture_of(sample: Array) -> Image | None:
    """What an array looks like: its values from the least to the greatest as black to white."""
    if not is_picture(sample.shape):
        return None
    from PIL import Image

    values = np.asarray(sample, np.float64)
    values = values - values.min()
    pixels = np.rint(255 * values / (values.max() or 1)).astype(np.uint8)
    if pixels.shape[0] in (1, 3):
        pixels = pixels.transpose(1, 2, 0)
    return Image.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels)


def is_picture(shape: tuple[int, ...]) -> bool:
    """Whether relevance of this shape can be drawn: the first or the last axis holds 1 or 3 channels."""
    return len(shape) == 3 and (shape[0] in (1, 3)) != (shape[2] in (1, 3))


def _with_unique_names(samples: list[Sample]) -> list[Sample]:
    """Names become fit for file names; equal ones are numbered."""
    unique: list[Sample] = []
    seen: Counter[str] = Counter()
    for sample in samples:
        stem = re.sub(r"[^\w.-]+", "_", sample.name).lstrip(".") or "input"
        name = stem
        while seen[name.lower()]:
            seen[stem.lower()] += 1
            name = f"{stem}-{seen[stem.lower()]}"
        seen[name.lower()] += 1
        unique.append(replace(sample, name=name))
    return unique
