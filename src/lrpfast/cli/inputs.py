"""From arguments to what is explained: samples out of files, and preprocessings."""

from __future__ import annotations

import contextlib
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ..errors import InputError, LrpfastError
from ..feeds import check_feed
from ..network import Network
from ..ops.base import Array
from ..preprocess import PREPROCESSINGS, Preprocessing, is_picture, prepare, read_arrays, read_image
from ..tables import read_table
from .console import BAD_INPUT, Failure, closest, note, usage

if TYPE_CHECKING:
    from PIL.Image import Image

    from ..tokens import Tokenized

ARRAYS = (".npy", ".npz")
TABLES = (".csv", ".tsv")

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
        Its place along the array's batch axis, or its row in a table.
    names : sequence of str or None
        Of a table's features, or of a signal's channels.
    text : Tokenized or None
        The tokens that the input stands for.
    input : str or None
        Which of several inputs `read` gives, and has the relevance that is shown.
    others : mapping of str to array
        The other inputs, without a batch axis.
    """

    file: str
    name: str
    read: Callable[[], tuple[Array, Image | None]]
    array: str | None = None
    index: int | None = None
    names: Sequence[str] | None = None
    text: Tokenized | None = None
    input: str | None = None
    others: Mapping[str, Array] = field(default_factory=dict)

    def feed(self, x: Array) -> Array | dict[str, Array]:
        """What the network is called with: a batch of this sample alone.

        Parameters
        ----------
        x : array
            From `read`.
        """
        if self.input is None:
            return x[None]
        return {self.input: x[None]} | {name: array[None] for name, array in self.others.items()}

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
    files: Sequence[str],
    network: Network,
    preprocessing: Preprocessing,
    dtype: str,
    features: Sequence[str] | None = None,
    shown: str | None = None,
) -> list[Sample]:
    """All samples of all files, each of them read once and checked.

    Parameters
    ----------
    features : sequence of str, optional
        Names of features or channels; of a table that has a header, the columns to take.
    shown : str, optional
        Of a network with several inputs the one whose relevance is shown.

    Raises
    ------
    Failure
        A file is unreadable, does not fit the network, or holds NaN.
    """
    samples = []
    for file in files:
        with reading_input(file):
            suffix = Path(file).suffix.lower()
            if len(network.inputs) > 1:
                found = list(_samples_of_inputs(file, network, shown or next(iter(network.inputs))))
            elif suffix in ARRAYS:
                found = list(_samples_of_arrays(file, network))
            elif suffix in TABLES:
                found = list(_samples_of_table(file, network, features))
            else:
                found = [_sample_of_image(file, network, preprocessing, keep=len(files) == 1)]
            for sample in found:
                check_sample(sample, network, dtype)
        samples += [replace(sample, names=sample.names or features) for sample in found]
    return with_unique_names(samples)


@contextlib.contextmanager
def reading_input(file: str) -> Iterator[None]:
    """What goes wrong with an input in this block is said with its name."""
    try:
        if Path(file).is_dir():
            raise Failure(f"the input {file!r} is a folder", BAD_INPUT, f"name its files: {file}/*.jpg")
        yield
    except LrpfastError as error:
        message = str(error)
        raise Failure(message if file in message else f"{file}: {message}", BAD_INPUT) from error


def check_sample(sample: Sample, network: Network, dtype: str) -> None:
    """Raise an `LrpfastError` if the network does not take the sample."""
    check_feed(network.name, network.inputs, sample.feed(sample.read()[0]), np.dtype(dtype))


def is_array_file(file: str) -> bool:
    """Whether the file holds numbers rather than a picture or a text."""
    return Path(file).suffix.lower() in (*ARRAYS, *TABLES)


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


def _samples_of_inputs(file: str, network: Network, shown: str) -> Iterator[Sample]:
    """Samples of a network with several inputs: places along the batch axis of arrays named like these."""
    facts = network.inputs
    takes = ", ".join(f"{name} {fact.shape}" for name, fact in facts.items())
    if Path(file).suffix.lower() != ".npz":
        raise InputError(
            f"{network.name!r} has {len(facts)} inputs, {takes}; {file!r} cannot be all of them: give an .npz file "
            "whose arrays are named like them, each with a batch axis"
        )
    arrays = read_arrays(file)
    fitting = [arrays[name] for name in facts if name in arrays]
    counts = {len(array) for array in fitting}
    if (
        len(fitting) < len(facts)
        or len(counts) > 1
        or any(arrays[name].shape[1:] != fact.shape for name, fact in facts.items())
    ):
        found = ", ".join(f"{key} {array.shape}" for key, array in arrays.items())
        raise InputError(
            f"{file!r} holds {found}; {network.name!r} takes {takes}, each with one batch axis before it"
        )
    for key in arrays.keys() - facts.keys():
        note(f"{file}: left out {key!r}, which is no input of the network")
    (count,) = counts
    for i in range(count):
        number = f"-{i:0{len(str(count - 1))}}" if count > 1 else ""
        others = {name: arrays[name][i] for name in facts if name != shown}
        yield Sample(
            file, Path(file).stem + number, _reader(arrays[shown][i]), index=i, input=shown, others=others
        )


def _samples_of_table(file: str, network: Network, features: Sequence[str] | None) -> Iterator[Sample]:
    """The rows of a table, one sample each; or the channels of one signal, which are its columns."""
    table, shape = read_table(file), network.input_shape
    if features is not None and table.names is not None:
        table = table.select(features)
    rows, columns = table.values.shape
    if shape == (columns,):
        digits = len(str(rows - 1))
        for i, row in enumerate(table.values):
            number = f"-{i:0{digits}}" if rows > 1 else ""
            yield Sample(file, Path(file).stem + number, _reader(row), index=i, names=table.names)
        return
    channels_first = len(shape) == 2 and shape[0] < shape[1]
    signal = table.values.T if channels_first else table.values
    if signal.shape != shape:
        raise InputError(
            f"{file!r} holds {rows} rows of {columns} numbers; {network.name!r} takes samples of shape {shape}: a "
            "row is one sample of features, or a column one channel of a signal"
        )
    yield Sample(file, Path(file).stem, _reader(signal), names=table.names)


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


def with_unique_names(samples: list[Sample]) -> list[Sample]:
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
