"""Where results go: decided, and tried, before anything is computed; written whole or not at all."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from ..files import whole_file
from ..ops.base import Array
from .console import BAD_OUTPUT, Failure, usage

PICTURES = (".png", ".jpg", ".jpeg")


def destinations(
    option: str, out: str, names: Sequence[str], suffixes: tuple[str, ...], default: str
) -> list[Path]:
    """One path per sample: `out` itself if it names a file, else files in the folder `out`.

    Parameters
    ----------
    option : str
        The option that `out` was given by, for messages.
    names : sequence of str
        The samples' names.
    suffixes : tuple of str
        Of files that may be asked for.
    default : str
        Suffix of files in a folder.
    """
    path = Path(out)
    if path.is_dir() or out.endswith(("/", os.sep)) or not path.suffix:
        return [path / (name + default) for name in names]
    if path.suffix.lower() not in suffixes:
        raise usage(
            f"{option} is {out!r}; expected a name in {' '.join(suffixes)}, or a folder",
            f"write {out}/ if it is to be a folder",
        )
    if len(names) > 1:
        raise usage(
            f"{option} {out!r} is one file, but there are {len(names)} samples",
            f"give a folder, such as {path.with_suffix('')}/",
        )
    return [path]


def check_destinations(paths: Iterable[Path], sources: Sequence[str]) -> None:
    """Make the folders, try to write into them, and see that no source would be overwritten."""
    paths = list(paths)
    taken = {Path(source).resolve() for source in sources}
    for path in paths:
        if path.resolve() in taken:
            raise usage(f"{str(path)!r} is an input and would be overwritten", "choose another output")
        if path.is_dir():
            raise Failure(f"cannot write {str(path)!r}: it is a folder", BAD_OUTPUT)
    for folder in dict.fromkeys(path.parent for path in paths):
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=folder):
                pass
        except OSError as error:
            raise Failure(
                f"cannot write into {str(folder)!r}: {error.strerror or error}", BAD_OUTPUT,
                "choose a folder that you may write to",
            ) from error  # fmt: skip


def write_array(path: Path, array: Array) -> None:
    """Write an `.npy` file, whole or not at all."""
    with whole_file(path) as file:
        np.save(file, array)
