"""Limits of memory: how users write them, and how messages do."""

from __future__ import annotations

import re
from typing import Any

import numpy as np

from .errors import InputError

_UNITS = {
    "b": 1, "kb": 10**3, "mb": 10**6, "gb": 10**9, "tb": 10**12, "kib": 2**10, "mib": 2**20, "gib": 2**30,
    "tib": 2**40,
}  # fmt: skip
_SIZE = re.compile(r"\s*(\d+(?:\.\d*)?|\.\d+)\s*([a-z]+)\s*", re.IGNORECASE)


def memory_limit(value: Any) -> int | None:
    """A limit in bytes.

    Parameters
    ----------
    value : None, int or str
        None for no limit; bytes; or a number and its unit, such as ``"512MB"`` or ``"1.5 GiB"``: powers of
        1000, or with an i of 1024, in letters of any case.

    Raises
    ------
    InputError
        It is none of these, or less than one byte.
    """
    if value is None:
        return None
    limit = 0
    if isinstance(value, str):
        found = _SIZE.fullmatch(value)
        if found and found[2].lower() in _UNITS:
            limit = int(float(found[1]) * _UNITS[found[2].lower()])
    elif isinstance(value, (int, np.integer)) and not isinstance(value, bool):
        limit = int(value)
    if limit < 1:
        raise InputError(
            f'max_memory is {value!r}; expected a whole number of bytes ≥ 1, a size such as "512MB" or "1.5GiB", '
            "or None for no limit"
        )
    return limit


def in_words(nbytes: int) -> str:
    """Bytes as people read them, and exactly: ``1.5 MiB (1572864 bytes)``."""
    for unit, size in (("GiB", 2**30), ("MiB", 2**20), ("KiB", 2**10)):
        if nbytes >= size:
            whole, tenths = divmod((10 * nbytes + size // 2) // size, 10)  # of what no float may hold, too
            return f"{whole}.{tenths} {unit} ({nbytes} bytes)"
    return "1 byte" if nbytes == 1 else f"{nbytes} bytes"
