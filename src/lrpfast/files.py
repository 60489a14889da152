"""Reading texts within limits; writing files whole or not at all."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Callable, Iterator
from typing import Any, BinaryIO

from .errors import InputError, LrpfastError, OutputError
from .limits import limits_now


@contextlib.contextmanager
def reading(what: str, hint: str = "") -> Iterator[None]:
    """In a `with`: whatever is raised for a damaged file becomes an `InputError` that says `what` cannot be read.

    lrpfast's own errors stay. Libraries that read files from strangers fail in every way there is, so any other
    `Exception` counts.
    """
    try:
        yield
    except LrpfastError:
        raise
    except Exception as error:
        reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
        raise InputError("; ".join(filter(None, (f"cannot read {what}: {reason}", hint)))) from error


def read_bytes(path: str | os.PathLike[str], what: str) -> bytes:
    """All of a file that holds a text; messages call it `what`.

    Raises
    ------
    InputError
        It cannot be read, or is larger than the limit `text`.
    """
    limits, path = limits_now(), os.fspath(path)
    try:
        with open(path, "rb") as file:
            data = file.read(limits.text + 1)
    except (OSError, ValueError) as error:  # a path with a null byte is a ValueError
        reason = getattr(error, "strerror", None) or str(error)
        raise InputError(f"cannot read the {what} {path!r}: {reason}") from error
    limits.check("text", len(data), f"cannot read the {what} {path!r}: at least", InputError)
    return data


def read_text(path: str | os.PathLike[str], what: str) -> str:
    """As `read_bytes`, decoded; raises `InputError` too if it is not UTF-8."""
    try:
        return read_bytes(path, what).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(f"cannot read the {what} {os.fspath(path)!r}: it is not UTF-8 text") from error


def json_value(text: str, pairs: Callable[[list[tuple[str, Any]]], Any] | None = None) -> Any:
    """What a JSON text says; raises `ValueError` if it is none, or nested too deeply.

    Parameters
    ----------
    text : str
    pairs : callable, optional
        Makes objects of their pairs.
    """
    try:
        return json.loads(text, object_pairs_hook=pairs)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


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
