"""From the bytes of a file, or the numbers of a tensor, to a network's input."""

from __future__ import annotations

import io
import math
from dataclasses import dataclass
from pathlib import PurePosixPath

from ..errors import InputError
from ..ops.base import Array
from ..preprocess import Preprocessing, is_picture, prepare, read_arrays, read_image

PICTURES = frozenset((".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm", ".pgm"))
ARRAYS = frozenset((".npy", ".npz"))

_NUMPY, _ZIP = b"\x93NUMPY", b"PK\x03\x04"


def suffix_of(name: str) -> str:
    """In lower case, with its dot."""
    return PurePosixPath(name).suffix.lower()


@dataclass(frozen=True)
class Decoder:
    """Makes inputs of a network.

    Attributes
    ----------
    shape : tuple of int
        Of one sample.
    preprocessing : Preprocessing
        How a picture becomes numbers.
    """

    shape: tuple[int, ...]
    preprocessing: Preprocessing

    def file(self, data: bytes, name: str) -> Array:
        """The input that a picture or an `.npy` or `.npz` file of one sample holds; raises `InputError`."""
        if data.startswith((_NUMPY, _ZIP)):
            return self._array(data, name)
        picture = read_image(io.BytesIO(data), name=name)
        return prepare(picture, self.shape, self.preprocessing)[0]

    def tensor(self, values: Array, name: str) -> Array:
        """Numbers in the shape of a sample, or in a row; raises `InputError` if there are not as many."""
        if values.shape == self.shape:
            return values
        if values.ndim == 1 and values.size == math.prod(self.shape):
            return values.reshape(self.shape)
        raise InputError(f"{name} has shape {values.shape}; the network takes samples of shape {self.shape}")

    @property
    def takes_pictures(self) -> bool:
        """Whether the network does, by the shape of its input."""
        return is_picture(self.shape)

    def pixels(self, values: Array) -> Array:
        """The input that a picture makes: (height, width) or (height, width, channels), from 0 to 255."""
        from PIL import Image

        flat = values[..., 0] if values.ndim == 3 and values.shape[2] == 1 else values
        return prepare(Image.fromarray(flat), self.shape, self.preprocessing)[0]

    def _array(self, data: bytes, name: str) -> Array:
        arrays = read_arrays(io.BytesIO(data), name)
        fitting = [
            a.reshape(self.shape) for a in arrays.values() if a.shape in (self.shape, (1, *self.shape))
        ]
        if len(fitting) == 1:
            return fitting[0]
        found = ", ".join(f"{key} {array.shape}" for key, array in arrays.items())
        raise InputError(f"{name!r} holds {found}; expected one array of shape {self.shape}, a single sample")
