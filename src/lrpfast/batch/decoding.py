"""From the bytes of a file, or the numbers of a tensor, to a network's inputs."""

from __future__ import annotations

import io
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath

from ..errors import InputError
from ..feeds import Arrays
from ..npy import ZIP
from ..ops.base import Array
from ..preprocess import Preprocessing, is_picture, prepare, read_arrays, read_image
from .inputs import Shape, Shapes, by_name

PICTURES = frozenset((".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm", ".pgm"))
ARRAYS = frozenset((".npy", ".npz"))

_NUMPY = b"\x93NUMPY"


def suffix_of(name: str) -> str:
    """In lower case, with its dot."""
    return PurePosixPath(name).suffix.lower()


@dataclass(frozen=True)
class Decoder:
    """Makes inputs of a network.

    Attributes
    ----------
    shapes : tuple of int, or mapping of name to tuple of int
        Of one sample.
    preprocessing : Preprocessing
        How a picture becomes numbers.
    """

    shapes: Shapes
    preprocessing: Preprocessing

    def sample(self, data: bytes, name: str) -> Arrays:
        """All inputs, out of a file.

        Parameters
        ----------
        data : bytes
            A picture or an `.npy` or `.npz` file of one sample; where there are several inputs, an `.npz` file with
            an array for each.
        name : str
            What messages call the file.

        Raises
        ------
        InputError
            It cannot be read, or does not fit.
        """
        if not isinstance(self.shapes, Mapping):
            return (self.file(data, name),)
        if not data.startswith(ZIP):
            raise InputError(f"{name!r} is no .npz file; {self.wanted}")
        arrays = read_arrays(io.BytesIO(data), name)
        found = {
            key: arrays[key].reshape(shape)
            for key, shape in self.shapes.items()
            if key in arrays and _is_one(arrays[key], shape)
        }
        if len(found) < len(self.shapes):
            raise InputError(f"{name!r} holds {_listed(arrays)}; {self.wanted}, a single sample")
        return tuple(found.values())

    def file(self, data: bytes, name: str, which: str = "") -> Array:
        """One of the inputs, out of a picture or an `.npy` or `.npz` file; raises as `sample`."""
        shape = by_name(self.shapes)[which]
        if not data.startswith((_NUMPY, ZIP)):
            picture = read_image(io.BytesIO(data), name=name)
            return prepare(picture, shape, self.preprocessing)[0]
        arrays = read_arrays(io.BytesIO(data), name)
        fitting = [array.reshape(shape) for array in arrays.values() if _is_one(array, shape)]
        if len(fitting) == 1:
            return fitting[0]
        raise InputError(
            f"{name!r} holds {_listed(arrays)}; expected one array of shape {shape}, a single sample"
        )

    def tensor(self, values: Array, name: str, which: str = "") -> Array:
        """One of the inputs, out of numbers in its shape or in a row; raises `InputError` if there are not as many."""
        shape = by_name(self.shapes)[which]
        if values.shape == shape:
            return values
        if values.ndim <= 1 and values.size == math.prod(shape):
            return values.reshape(shape)
        raise InputError(f"{name} has shape {values.shape}; the network takes samples of shape {shape}")

    def takes_pictures(self, which: str = "") -> bool:
        """Whether one of the inputs is a picture, by its shape."""
        return is_picture(by_name(self.shapes)[which])

    def pixels(self, values: Array, which: str = "") -> Array:
        """One of the inputs, out of a picture from 0 to 255: (height, width) or (height, width, channels)."""
        from PIL import Image

        flat = values[..., 0] if values.ndim == 3 and values.shape[2] == 1 else values
        return prepare(Image.fromarray(flat), by_name(self.shapes)[which], self.preprocessing)[0]

    @property
    def wanted(self) -> str:
        """What a source has to hold where there are several inputs, in words."""
        listed = ", ".join(f"{name} {shape}" for name, shape in by_name(self.shapes).items())
        return f"the network takes {listed}: expected an array for each, under its name"


def _is_one(array: Array, shape: Shape) -> bool:
    """Whether it is a single sample."""
    return array.shape in (shape, (1, *shape))


def _listed(arrays: Mapping[str, Array]) -> str:
    return ", ".join(f"{key} {array.shape}" for key, array in arrays.items())
