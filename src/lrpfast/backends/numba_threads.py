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

from .cpus import default_num_threads

_GRAIN = 50_000  # nanoseconds of work that are worth a thread: handing over takes some 30 µs

_default = default_num_threads()
_local = threading.local()
_lock = threading.Lock()
_pool: ThreadPoolExecutor | None = None


def set_num_threads(n: int) -> None:
    """Let each call use at most `n` threads where `limit_threads` does not say otherwise."""
    global _default
    if n < 1:
        raise ValueError(f"set_num_threads: n is {n}, expected at least 1")
    _default = n


def thread_count() -> int:
    """How many threads a kernel called from this thread may use."""
    return getattr(_local, "limit", None) or _default


@contextlib.contextmanager
def limit_threads(threads: int | None) -> Iterator[None]:
    """Let kernels that this thread calls use at most `threads` threads, itself included.

    None changes nothing.

    Raises
    ------
    ValueError
        If `threads` is less than 1.
    """
    if threads is not None and threads < 1:
        raise ValueError(f"limit_threads: threads is {threads}, expected at least 1")
    before = getattr(_local, "limit", None)
    _local.limit = before if threads is None else threads
    try:
        yield
    finally:
        _local.limit = before


def run(kernel: Callable[..., None], items: int, work: int, *arguments: object) -> None:
    """Call `kernel(first, last, *arguments)` on ranges that cover `range(items)`.

    `work` is roughly the time for all items, in nanoseconds; it decides among how many threads
    they are shared. The calling thread is one of them.
    """
    parts = max(1, min(thread_count(), items, work // _GRAIN))
    cuts = [items * i // parts for i in range(parts + 1)]
    rest = [_shared_pool().submit(kernel, cuts[i], cuts[i + 1], *arguments) for i in range(1, parts)]
    kernel(0, cuts[1], *arguments)
    for future in rest:
        future.result()


def _shared_pool() -> ThreadPoolExecutor:
    global _pool
    with _lock:
        if _pool is None:
            # Threads start when they are needed; several callers at once share those that there may be.
            _pool = ThreadPoolExecutor(max(_default, os.cpu_count() or 1), "lrpfast")
        return _pool


def _forget_pool() -> None:
    """After a fork: the child has none of the pool's threads, and the lock may be held for ever."""
    global _pool, _lock
    _pool, _lock = None, threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_pool)
