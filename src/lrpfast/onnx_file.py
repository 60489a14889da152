"""ONNX files: the model without its big tensors, and those tensors one by one.

Parsing a model whole would hold its weights twice. Here the big tensors stay in the file until they
are asked for, and are read to where they are used.
"""

from __future__ import annotations

import errno
import io
import math
import mmap
import os
import sys
from collections.abc import Iterable
from contextlib import ExitStack
from functools import lru_cache
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from .errors import ModelError, OutOfMemoryError
from .limits import Limits, limits_now
from .memory import MORE_MEMORY, in_words, reserve
from .onnx_wire import SELF, Buffer, Malformed, Oversized, Truncated, without_big_tensors

if TYPE_CHECKING:
    from onnx import ModelProto, TensorProto

MAGIC = {
    b"version https://git-lfs": "a Git LFS pointer; fetch the file itself with `git lfs pull`",
    b"PK\x03\x04": "a ZIP archive, perhaps a PyTorch checkpoint; export the network with torch.onnx.export",
    b"\x89HDF": "an HDF5 file, perhaps a Keras model; convert it with tf2onnx",
    b"\x89PNG": "a PNG image",
    b"\xff\xd8\xff": "a JPEG image",
}


class ModelFile:
    """An ONNX model; a context manager, since its file stays open while tensors are read.

    Parameters
    ----------
    source : path, bytes or onnx.ModelProto
    limits : Limits, optional
        Default: the environment's.

    Attributes
    ----------
    limits : Limits
    label : str
        What the model is called in error messages.
    model : onnx.ModelProto
        Without the data of big tensors; `tensor` reads these.

    Raises
    ------
    FileNotFoundError
        There is no such file.
    ModelError
        It is not an ONNX model, or damaged, or more than the limits allow.
    """

    def __init__(self, source: Any, limits: Limits | None = None) -> None:
        from onnx import ModelProto

        self.limits = limits_now() if limits is None else limits
        self._weights = 0
        self._stack = ExitStack()
        self._folder: str | None = None
        self._data: BinaryIO = io.BytesIO()
        if isinstance(source, ModelProto):
            self.label, self.model = "the model", source
        elif isinstance(source, (bytes, bytearray, memoryview)):
            self.label = f"the model of {len(source)} bytes"
            self._data = io.BytesIO(source)
            self.model = self._parse(bytes(source))
        elif isinstance(source, (str, os.PathLike)):
            path = os.fsdecode(source)
            self.label = f"model {path!r}"
            self._folder = os.path.dirname(os.path.abspath(path))
            with ExitStack() as stack:
                self.model = self._open(path, stack)
                self._stack = stack.pop_all()
        else:
            raise ModelError(
                f"a model cannot be read from {type(source).__name__}; give a path, bytes or onnx.ModelProto"
            )

    def __enter__(self) -> ModelFile:
        return self

    def __exit__(self, *error: object) -> None:
        self._stack.close()

    def _open(self, path: str, stack: ExitStack) -> ModelProto:
        if not os.path.exists(path):
            raise FileNotFoundError(errno.ENOENT, "there is no such model file", path)
        if not os.path.isfile(path):
            raise ModelError(f"{self.label} is not a file; give the path of an .onnx file")
        self._data = stack.enter_context(open(path, "rb"))  # noqa: SIM115
        if not os.path.getsize(path):
            return self._parse(b"")
        with self._mapped(path) as data:
            return self._parse(data)

    def _mapped(self, path: str) -> mmap.mmap:
        try:
            return mmap.mmap(self._data.fileno(), 0, access=mmap.ACCESS_READ)
        except OSError as error:
            if error.errno != errno.ENOMEM:
                raise
            raise OutOfMemoryError(
                f"{self.label} is a file of {in_words(os.path.getsize(path))}, more memory than the system grants; "
                f"{MORE_MEMORY}"
            ) from None

    def _parse(self, data: Buffer) -> ModelProto:
        from google.protobuf.message import DecodeError  # type: ignore[import-untyped]
        from onnx import ModelProto

        begin = data[:32]
        for magic, what in MAGIC.items():
            if begin.startswith(magic):
                raise ModelError(f"{self.label} is not an ONNX model but {what}")
        if not begin:
            raise ModelError(f"{self.label} is empty; export or download it again")
        try:
            model: ModelProto = ModelProto.FromString(without_big_tensors(data, self.limits.structure))
        except Oversized:
            what = f"the bytes of {self.label}, too few of which are data of big tensors"
            self.limits.check("structure", len(data), what)
            raise
        except Truncated as error:
            raise ModelError(
                f"{self.label} is truncated, or not an ONNX model: {error}; export or download it again"
            ) from None
        except (DecodeError, Malformed):
            raise ModelError(f"{self.label} is not an ONNX model, or damaged; give an .onnx file") from None
        if not model.HasField("graph") or not model.opset_import:
            raise ModelError(f"{self.label} is not an ONNX model: it has no graph or no operator set")
        return model

    def admit(self, tensors: Iterable[TensorProto]) -> None:
        """Count the bytes of tensors that are yet to be read; raise `ModelError` if all so far are above the limit."""
        from onnx import TensorProto

        external = TensorProto.EXTERNAL
        self._weights += sum(_nbytes(tensor) for tensor in tensors if tensor.data_location == external)
        self.limits.check("weights", self._weights, "its tensors take")

    def tensor(self, tensor: TensorProto) -> NDArray[Any]:
        """The value of one of the model's tensors, as a read-only array.

        Raises
        ------
        ModelError
            Its data are missing or of the wrong size, or in a file outside the model's folder.
        """
        from onnx import TensorProto

        if tensor.data_location != TensorProto.EXTERNAL:
            array = _converted(tensor)
        else:
            entries = {entry.key: entry.value for entry in tensor.external_data}
            location = entries.get("location", "")
            try:
                offset, length = int(entries.get("offset", 0)), int(entries.get("length", -1))
            except ValueError:
                raise ModelError(f"tensor {tensor.name!r} lies at no number: {entries}") from None
            if location == SELF:
                array = _read(tensor, self._data, offset, length)
            else:
                array = self._external(tensor, location, offset, length)
        array.flags.writeable = False
        return array

    def _external(self, tensor: TensorProto, location: str, offset: int, length: int) -> NDArray[Any]:
        path = self._external_path(tensor.name, location)
        try:
            with open(path, "rb") as file:
                return _read(tensor, file, offset, length)
        except OSError as error:
            raise ModelError(
                f"tensor {tensor.name!r} cannot be read from {path!r}: {error.strerror}"
            ) from None

    def _external_path(self, name: str, location: str) -> str:
        """The file that an external tensor names, which must lie in the model's own folder."""
        if self._folder is None:
            raise ModelError(
                f"tensor {name!r} is in another file ({location!r}), and models given as bytes or ModelProto "
                "have no folder; give the path of the model, or load it with onnx.load first"
            )
        parts = location.replace("\\", "/").split("/")
        path = os.path.join(self._folder, location)
        inside = os.path.realpath(self._folder)
        if (
            not location
            or "\0" in location
            or os.path.isabs(location)
            or os.path.splitdrive(location)[0]
            or ".." in parts
            or not os.path.realpath(path).startswith(os.path.join(inside, ""))
        ):
            raise ModelError(
                f"tensor {name!r} is in {location!r}, outside the model's folder; "
                "put the file next to the model, and save the model with that name in it"
            )
        if not os.path.isfile(path):
            raise ModelError(f"tensor {name!r} is in {path!r}, which is not there; put it next to the model")
        return path


def _read(tensor: TensorProto, file: BinaryIO, offset: int, length: int) -> NDArray[Any]:
    """The array whose `length` bytes (all that follow, if negative) begin at `offset` of `file`."""
    from onnx import TensorProto

    size = file.seek(0, os.SEEK_END)
    length = size - offset if length < 0 else length
    if offset < 0 or length < 0 or offset + length > size:
        raise ModelError(
            f"tensor {tensor.name!r} lies at bytes {offset} to {offset + length} of a file of {size} bytes; "
            "the file is truncated or belongs to another model"
        )
    shape, dtype = tuple(tensor.dims), _dtype(tensor.data_type)
    if dtype is None:
        raise ModelError(f"tensor {tensor.name!r} has the unknown data type {tensor.data_type}")
    plain = dtype.kind in "fiubc" or dtype.name == "bfloat16"  # not numbers of less than a byte, and the like
    expected = math.prod(shape) * dtype.itemsize
    if any(n < 0 for n in shape) or length > expected or (plain and length != expected):
        raise ModelError(f"tensor {tensor.name!r} of shape {shape} and type {dtype} has {length} bytes")
    data = reserve(length, f"tensor {tensor.name!r}", MORE_MEMORY)
    file.seek(offset)
    file.readinto(data)  # type: ignore[attr-defined]
    if not plain:
        raw = TensorProto(name=tensor.name, data_type=tensor.data_type, dims=shape, raw_data=data.tobytes())
        return _converted(raw)
    array = data.view(dtype)
    if sys.byteorder == "big":
        array.byteswap(inplace=True)
    try:
        return array.reshape(shape)
    except ValueError as error:  # no elements, and other axes that are larger than any array's
        raise ModelError(f"tensor {tensor.name!r} has shape {shape}: {error}") from None


@lru_cache(64)
def _dtype(data_type: int) -> np.dtype[Any] | None:
    """The type of a tensor's numbers by ONNX's number for it; None if there is no such type."""
    from onnx import helper

    try:
        return np.dtype(helper.tensor_dtype_to_np_dtype(data_type))
    except KeyError:
        return None


def _nbytes(tensor: TensorProto) -> int:
    """Bytes that the numbers take which a tensor declares."""
    dtype = _dtype(tensor.data_type)
    if len(tensor.dims) > 64:
        raise ModelError(f"tensor {tensor.name!r} has {len(tensor.dims)} axes, more than any array")
    return 0 if dtype is None else math.prod(max(0, n) for n in tensor.dims) * dtype.itemsize


def _converted(tensor: TensorProto) -> NDArray[Any]:
    """The array that a TensorProto holds itself."""
    from onnx import numpy_helper

    try:
        return numpy_helper.to_array(tensor)
    except (ValueError, TypeError, KeyError, OverflowError) as error:
        raise ModelError(f"tensor {tensor.name!r} is damaged: {error}") from None
