"""Files here or anywhere else that fsspec reaches, written whole or not at all."""

from __future__ import annotations

import contextlib
import os
import posixpath
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, BinaryIO

from ..errors import InputError, OutputError
from ..extras import need
from ..limits import limits_now

EXTRA = "batch"

TEMPORARY = ".part"
"""Suffix of files that are not whole yet; their names begin with a dot."""


@dataclass(frozen=True)
class Place:
    """A file or folder of a file system.

    Attributes
    ----------
    fs : fsspec.AbstractFileSystem
    path : str
        Its path there, without a protocol.
    """

    fs: Any
    path: str

    @classmethod
    def at(cls, url: str | os.PathLike[str]) -> Place:
        """The place that a path or a URL names.

        Raises
        ------
        MissingPackageError
            fsspec, or the package that the protocol needs, is not installed.
        InputError
            There is no such protocol.
        """
        fsspec = need("fsspec", EXTRA, "a batch")
        try:
            fs, path = fsspec.core.url_to_fs(os.fspath(url))
        except (ImportError, ValueError) as error:
            raise InputError(
                f"{os.fspath(url)!r} cannot be opened: {error}; expected a path, or a URL that fsspec knows"
            ) from error
        return cls(fs, path)

    def __truediv__(self, name: str) -> Place:
        return Place(self.fs, f"{self.path.rstrip('/')}/{name}")

    def __str__(self) -> str:
        return self.path if self.is_local else str(self.fs.unstrip_protocol(self.path))

    @property
    def name(self) -> str:
        return posixpath.basename(self.path.rstrip("/"))

    @property
    def folder(self) -> Place:
        return Place(self.fs, posixpath.dirname(self.path.rstrip("/")))

    @property
    def is_local(self) -> bool:
        """Whether it is a file of this computer."""
        protocol = self.fs.protocol
        return "file" in ((protocol,) if isinstance(protocol, str) else protocol)

    def exists(self) -> bool:
        return bool(self.fs.exists(self.path))

    def size(self) -> int:
        """Bytes of the file."""
        return int(self.fs.size(self.path))

    def is_folder(self) -> bool:
        return bool(self.fs.isdir(self.path))

    def names(self) -> list[str]:
        """What is in this folder, sorted; nothing if there is no such folder."""
        try:
            found = self.fs.ls(self.path, detail=False, refresh=True)
        except FileNotFoundError:
            return []
        return sorted(posixpath.basename(path.rstrip("/")) for path in found)

    def files(self) -> list[str]:
        """The files in this folder and all below, by their paths from here, sorted; hidden ones are left out."""
        start = len(self.path.rstrip("/")) + 1
        found = (path[start:] for path in self.fs.find(self.path))
        return sorted(path for path in found if not any(part[:1] in "._" for part in path.split("/")))

    def open(self) -> BinaryIO:
        """Open for reading, with seeking.

        Raises
        ------
        InputError
            It cannot be opened.
        """
        try:
            file: BinaryIO = self.fs.open(self.path, "rb")
        except OSError as error:
            raise InputError(f"cannot read {str(self)!r}: {error.strerror or error}") from error
        return file

    def read(self) -> bytes:
        """All of the file.

        Raises
        ------
        InputError
            It cannot be read; here: it is no regular file, for a pipe may never end, or it is above the limit `arrays`.
        """
        try:
            if self.is_local:
                about = os.stat(self.path)
                if not stat.S_ISREG(about.st_mode):
                    raise InputError(f"cannot read {str(self)!r}: it is no regular file")
                limits_now().check("arrays", about.st_size, f"the file {str(self)!r}", InputError)
            data: bytes = self.fs.cat_file(self.path)
        except OSError as error:
            raise InputError(f"cannot read {str(self)!r}: {error.strerror or error}") from error
        return data

    def make_folder(self) -> None:
        """Make the folder if there is none, and see that it can be written into.

        Raises
        ------
        OutputError
            It cannot be.
        """
        try:
            self.fs.makedirs(self.path, exist_ok=True)
        except OSError as error:
            raise _unwritable(self, error) from error
        probe = self / f".probe.{os.urandom(4).hex()}{TEMPORARY}"
        probe.write(b"")
        probe.remove()

    @contextlib.contextmanager
    def writing(self, flush: bool = True) -> Iterator[BinaryIO]:
        """Open a file that appears here when the block ends, and not at all if an error ends it.

        Parameters
        ----------
        flush : bool, default True
            Whether a local file is on the disk before it appears, and so is whole even if the power fails.

        Raises
        ------
        OutputError
            It cannot be written.
        """
        part = self.folder / f".{self.name}.{os.getpid()}.{os.urandom(4).hex()}{TEMPORARY}"
        try:
            with self.fs.open(part.path, "wb") as file:
                yield file
                if self.is_local and flush:
                    file.flush()
                    os.fsync(file.fileno())
            if self.is_local:
                os.replace(part.path, self.path)
            else:
                self.fs.mv(part.path, self.path)
        except OSError as error:
            raise _unwritable(self, error) from error
        finally:
            with contextlib.suppress(OSError):
                part.remove()

    def write(self, data: bytes, flush: bool = True) -> None:
        """Write a file, whole or not at all, as `writing` does; raises `OutputError`."""
        with self.writing(flush) as file:
            file.write(data)

    def remove(self) -> None:
        """Remove the file."""
        self.fs.rm_file(self.path)

    def sweep(self) -> None:
        """Remove what runs that were killed left half-written in this folder."""
        for name in self.names():
            if name.startswith(".") and name.endswith(TEMPORARY):
                with contextlib.suppress(OSError):
                    (self / name).remove()


@contextlib.contextmanager
def writing_into(place: Place) -> Iterator[None]:
    """In a `with`: let an error of the file system say what cannot be written, as an `OutputError`."""
    try:
        yield
    except OutputError:
        raise
    except OSError as error:
        raise _unwritable(place, error) from error


def _unwritable(place: Place, error: OSError) -> OutputError:
    return OutputError(
        f"cannot write {str(place)!r}: {error.strerror or error}; choose a place that can be written to"
    )
