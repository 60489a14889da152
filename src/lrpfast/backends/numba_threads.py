"""Threads for the Numba backend: a range of independent items is cut among a shared pool.

The kernels release the GIL, so Python's own threads serve. Unlike Numba's parallel loops they let
several callers run at once, survive a fork, leave Numba's process-wide threading layer to others,
and cost nothing when the work is small. A kernel writes each output in exactly one item and in
the same way whatever the range, so results do not depend on the cut.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import numba

_GRAIN = 1 << 17  # operations worth handing to a thread: handing over takes some 30 µs

_local = threading.local()
_lock = threading.Lock()
_pool: ThreadPoolExecutor | None = None


def threads() -> int:
    """How many threads a kernel called from this thread may use; by default `NUMBA_NUM_THREADS`."""
    limit: int = getattr(_local, "limit", numba.config.NUMBA_NUM_THREADS)
    return limit


@contextlib.contextmanager
def limit_threads(n: int) -> Iterator[None]:
    """Let the kernels called from this thread use at most `n` threads, itself included.

    Raises
    ------
    ValueError
        If `n` is less than 1.
    """
    if n < 1:
        raise ValueError(f"limit_threads: n is {n}; at least 1 thread is needed")
    before = threads()
    _local.limit = n
    try:
        yield
    finally:
        _local.limit = before


def run(kernel: Callable[..., None], items: int, work: int, *arguments: object) -> None:
    """Call `kernel(first, last, *arguments)` on ranges that cover `range(items)`.

    `work` is roughly how many arithmetic operations all items take; it decides whether the
    work is worth sharing. The calling thread does its part.
    """
    parts = min(threads(), items, max(1, work // _GRAIN))
    cuts = [items * i // parts for i in range(parts + 1)] if parts > 1 else [0, items]
    rest = [_shared_pool().submit(kernel, *cut, *arguments) for cut in zip(cuts[1:], cuts[2:], strict=False)]
    kernel(cuts[0], cuts[1], *arguments)
    for future in rest:
        future.result()


def _shared_pool() -> ThreadPoolExecutor:
    global _pool
    with _lock:
        if _pool is None:
            _pool = ThreadPoolExecutor(numba.config.NUMBA_NUM_THREADS, "lrpfast")
        return _pool


def _forget_pool() -> None:
    """After a fork: the child has none of the pool's threads, and the lock may be held for ever."""
    global _pool, _lock
    _pool, _lock = None, threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_pool)
