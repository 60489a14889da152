"""Writing files whole or not at all."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from typing import BinaryIO

from .errors import OutputError


@contextlib.contextmanager
def whole_file(path: str | os.PathLike[str]) -> Iterator[BinaryIO]:
    """Open a file that appears at `path` when the block ends, and not at all if an error ends it.

    Raises
    ------
    OutputError
        The file cannot be written.
    """
    path = os.fspath(path)
    folder, name = os.path.split(path)
    part = os.path.join(folder, f".{name}.{os.getpid()}.{os.urandom(4).hex()}.part")
    try:
        # Opened for reading too: into what can only be written, NumPy writes by C's stdio, whose last error is lost
        # with what did not fit on the disk.
        with open(part, "x+b") as file:
            yield file
        os.replace(part, path)
    except OSError as error:
        raise OutputError(
            f"cannot write {path!r}: {error.strerror or error}; choose a place that can be written to"
        ) from error
    finally:
        with contextlib.suppress(OSError):
            os.unlink(part)
