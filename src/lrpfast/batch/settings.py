"""What a job is, written down beside its output: a job goes on only as the same."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from ..composites import Composite
from ..errors import OutputError
from .places import Place
from .reports import FILE as REPORT

FILE = "_job.json"
LOCK = ".lock"
OURS = (FILE, REPORT)


def array_digest(composite: Composite) -> str | None:
    """SHA-256 of the arrays among the parameters of the rules, of which their words say the shape only."""
    hashed, found = hashlib.sha256(), False
    for selector, rule in composite.rules:
        for name, value in vars(rule).items():
            if isinstance(value, np.ndarray):
                found = True
                hashed.update(f"{selector} {name} {value.dtype} {value.shape}".encode() + value.tobytes())
    return hashed.hexdigest() if found else None


def enter(
    place: Place, settings: Mapping[str, Any], manifest: Mapping[str, Any], begun: bool = False
) -> None:
    """Begin a job in a folder, or go on with the one that is there.

    Parameters
    ----------
    place : Place
    settings, manifest : mapping
        What the job is, and what runs it.
    begun : bool, default False
        Whether some of the job is done, so that it has to be there.

    Raises
    ------
    OutputError
        The folder cannot be written, holds something else, or a job with other settings; or it is gone.
    """
    place.make_folder()
    there = place / FILE
    if there.exists():
        _check_same(place, _read(there), settings)
        return
    if begun:
        raise gone(place)
    foreign = [name for name in place.names() if not name.startswith(".") and name not in OURS]
    if foreign:
        raise OutputError(
            f"{str(place)!r} holds {', '.join(foreign[:3])}{' …' if len(foreign) > 3 else ''}, but no job; "
            "choose an empty or a new folder"
        )
    document = {"settings": settings, "manifest": dict(manifest)}
    there.write(json.dumps(document, indent=1, ensure_ascii=False).encode())


def gone(what: object) -> OutputError:
    """Something that was written before is not there."""
    return OutputError(
        f"{str(what)!r} is not there, though parts of the job are done; bring it back, or begin again in another folder"
    )


def _read(there: Place) -> Mapping[str, Any]:
    try:
        settings: Mapping[str, Any] = json.loads(there.read())["settings"]
    except (ValueError, KeyError, TypeError) as error:
        raise OutputError(
            f"{str(there)!r} is no description of a job ({error}); choose another folder"
        ) from error
    return settings


def _check_same(place: Place, before: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    now = json.loads(json.dumps(now))  # tuples become lists, as in the file
    differences = [
        f"  {key}: {_short(before.get(key))} there, {_short(now.get(key))} now"
        for key in dict.fromkeys((*before, *now))
        if before.get(key) != now.get(key)
    ]
    if differences:
        listed = "\n".join(differences)
        raise OutputError(
            f"{str(place)!r} holds a job with other settings:\n{listed}\n"
            "Choose another folder, remove this one, or say what was said then."
        )


def _short(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 60 else f"{text[:40]}…{text[-16:]}"


@contextlib.contextmanager
def locked(place: Place) -> Iterator[None]:
    """Keep other processes out of a local folder; the lock ends with the process, however that ends.

    Raises
    ------
    OutputError
        Another process has the folder.
    """
    try:
        import fcntl
    except ImportError:  # not on Windows
        yield
        return
    if not place.is_local:
        yield
        return
    with open(os.path.join(place.path, LOCK), "ab") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise OutputError(
                f"another process is writing into {str(place)!r}; wait for it, or choose another folder"
            ) from error
        yield
