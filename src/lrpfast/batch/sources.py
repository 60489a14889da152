"""What a source is: a folder, a pattern, a list, arrays, a table."""

from __future__ import annotations

import os
import posixpath
from collections.abc import Iterable, Sequence

from ..errors import InputError
from .arrays import open_arrays
from .decoding import ARRAYS, PICTURES, Decoder, suffix_of
from .files import Files, resolved
from .items import Chain, Source
from .places import Place
from .stores import is_store, open_store
from .tables import Columns, open_table

TABLES = frozenset((".parquet", ".pq"))
FORMS = (
    "a folder, a pattern such as photos/*.jpg, a .txt file with a path a line, a picture, .npy, .npz, .parquet "
    "or .zarr"
)


def open_source(url: str | os.PathLike[str], decoder: Decoder, columns: Columns) -> Source:
    """The items that a path, a pattern or a URL stands for.

    Parameters
    ----------
    url : str or path
    decoder : Decoder
        For the network.
    columns : Columns
        Of tables.

    Raises
    ------
    InputError
        There is nothing, or nothing that can be explained, or a file's header is unreadable. Files that
        hold one input each are not opened yet.
    MissingPackageError
        A package of the extra is not installed.
    """
    url = os.fspath(url)
    place = Place.at(url)
    source, is_table = _opened(place, url, decoder, columns)
    if not is_table and columns != Columns():
        raise InputError(f"{url!r} is no table, so it has no columns; expected .parquet files")
    if not len(source):
        raise InputError(f"{url!r} holds no inputs; expected {FORMS}")
    return source


def may_hold_pictures(url: str, inputs: int) -> bool:
    """Whether a source is something else than arrays, by its name alone; of several inputs, whether it is a table."""
    suffix = suffix_of(url.rstrip("/"))
    return suffix not in (*ARRAYS, ".zarr") if inputs == 1 else suffix in TABLES


def check_apart(source: str | os.PathLike[str], outputs: Iterable[str | os.PathLike[str]]) -> None:
    """Raise an `InputError` if an output would lie in the folder that is read, and become an input."""
    place = Place.at(source)
    deep = place.is_folder() and not is_store(place)
    if not deep and "**" not in place.path:
        return
    folder = place if deep else Place(place.fs, _fixed(place.path))
    for url in outputs:
        other = Place.at(url)
        if other.fs == folder.fs and f"{other.path}/".startswith(folder.path.rstrip("/") + "/"):
            raise InputError(
                f"{os.fspath(url)!r} lies in the source {os.fspath(source)!r}, so what is written would be read; "
                "choose a place beside it"
            )


def _opened(place: Place, url: str, decoder: Decoder, columns: Columns) -> tuple[Source, bool]:
    """The source, and whether it is a table."""
    if _is_pattern(place.path) and not place.exists():
        folder, names = _matching(place)
    elif not place.exists():
        raise InputError(f"there is no {url!r}; expected {FORMS}")
    elif is_store(place):
        return open_store(url, place.name, decoder), False
    elif place.is_folder():
        folder, names = place, place.files()
    elif suffix_of(place.name) == ".txt":
        return _listed(place, decoder), False
    else:
        folder, names = place.folder, [place.name]
    return _of_files(folder, names, decoder, columns, url)


def _is_pattern(path: str) -> bool:
    return any(mark in path for mark in "*?[")


def _fixed(pattern: str) -> str:
    """The folder before the first wildcard."""
    parts = pattern.split("/")
    return "/".join(parts[: next(i for i, part in enumerate(parts) if _is_pattern(part))]) or "/"


def _matching(pattern: Place) -> tuple[Place, list[str]]:
    """The files that fit a pattern, seen from the folder before its first wildcard."""
    folder = Place(pattern.fs, _fixed(pattern.path))
    found = pattern.fs.glob(pattern.path, detail=True)
    files = [path for path, about in found.items() if about["type"] == "file"]
    return folder, sorted(posixpath.relpath(path, folder.path or "/") for path in files)


def _listed(place: Place, decoder: Decoder) -> Files:
    """The files whose paths are the lines of a list; they are relative to the list's folder."""
    try:
        lines = place.read().decode("utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise InputError(f"the list {str(place)!r} is not UTF-8 text; expected a path a line") from error
    names = [line.strip() for line in lines if line.strip() and not line.startswith("#")]
    return Files(place.folder, names, decoder)


def _of_files(
    folder: Place, names: Sequence[str], decoder: Decoder, columns: Columns, url: str
) -> tuple[Source, bool]:
    """Tables, arrays of many samples, or files of one sample each; and whether they are tables."""
    by_kind = {
        kind: [name for name in names if suffix_of(name) in kind] for kind in (TABLES, ARRAYS, PICTURES)
    }
    tables, arrays, pictures = by_kind.values()
    if not (tables or arrays or pictures):
        raise InputError(f"{url!r} holds none of the files that can be explained; expected {FORMS}")
    if tables and (arrays or pictures):
        raise InputError(f"{url!r} holds tables and other files; give a pattern that fits one kind")
    if tables:
        return Chain([open_table(resolved(folder, name), name, columns, decoder) for name in tables]), True
    if pictures:
        return Files(folder, sorted(arrays + pictures), decoder), False
    first, single = open_arrays(resolved(folder, arrays[0]), arrays[0], decoder)
    if single:  # so are the others, which need not be opened yet
        return Files(folder, arrays, decoder), False
    others = [open_arrays(resolved(folder, name), name, decoder)[0] for name in arrays[1:]]
    return Chain([first, *others]), False
