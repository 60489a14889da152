"""How the Numba backend compiles: one decorator, with a cache on disk wherever one can be had."""

from __future__ import annotations

import os
import stat
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar, cast

import numba

Function = TypeVar("Function", bound=Callable[..., Any])
_config: Any = numba.config


def kernel(function: Function) -> Function:
    """Compile a function on its first call for each dtype, to code that runs without the GIL.

    Products and sums stay apart and in the order written (`fastmath=False`), so that results do
    not depend on whether an element falls into a vector loop or its remainder. Division by zero
    follows IEEE 754 and does not raise.

    The machine code is kept beside this file or else in the user's cache directory (Numba's
    choice, which `NUMBA_CACHE_DIR` overrides), or else in a private temporary directory. Where
    none of these can be written it is compiled anew in every process.
    """
    try:
        return _compile(function, cache=True)
    except RuntimeError:  # Numba found no directory that it may write
        pass
    # The setting is read while decorating; other users of Numba get theirs back.
    before, _config.CACHE_DIR = _config.CACHE_DIR, _temporary_cache()
    try:
        return _compile(function, cache=True)
    except RuntimeError:
        return _compile(function, cache=False)
    finally:
        _config.CACHE_DIR = before


def _compile(function: Function, cache: bool) -> Function:
    jit: Any = numba.njit(nogil=True, fastmath=False, error_model="numpy", cache=cache)
    return cast(Function, jit(function))


def _temporary_cache() -> str:
    """The path of this user's directory below the system's temporary one; empty if there is none.

    Cached code is trusted when it is loaded, so a directory that others could have filled is
    not used.
    """
    user = os.getuid() if hasattr(os, "getuid") else None
    try:
        folder = Path(tempfile.gettempdir()) / f"lrpfast-numba-{user if user is not None else 'cache'}"
        folder.mkdir(mode=0o700, exist_ok=True)
        found = folder.lstat()
    except OSError:
        return ""
    private = user is None or (found.st_uid == user and not found.st_mode & 0o022)
    return str(folder) if private and stat.S_ISDIR(found.st_mode) else ""
