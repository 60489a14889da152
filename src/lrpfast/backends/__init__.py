"""The backends: modules with the same kernels, chosen by name.

``native`` (C++) is the fastest, ``numba`` needs no compiler, ``numpy`` is the definition.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import sys
import threading
from types import ModuleType

from ..errors import BackendError
from .cpus import default_num_threads

KERNELS = (
    "gemm_forward", "gemm_vjp", "conv_forward", "conv_vjp", "depthwise_forward", "depthwise_vjp",
    "sumpool_forward", "sumpool_vjp", "maxpool_forward", "maxpool_vjp", "affine", "collect", "divide",
    "reorder", "sums",
)  # fmt: skip

_MODULES = {"native": "native", "numba": "numba_", "numpy": "numpy_"}  # the best first
_CURES = {
    "native": "install lrpfast where a C++ compiler (GCC or Clang) is found",
    "numba": "pip install numba",
}

_num_threads: int | None = None
_ready: dict[str, ModuleType] = {}  # the backends that have been asked for and can run
_lock = threading.RLock()


def available() -> dict[str, str]:
    """The names of all backends, the best first, each with the reason why it cannot run, or ""."""
    return {name: _try(name)[1] for name in _MODULES}


def get(name: str | None = None) -> ModuleType:
    """Return a backend.

    Parameters
    ----------
    name : {"native", "numba", "numpy"}, optional
        Default: the environment variable ``LRPFAST_BACKEND``, else the first that can run.

    Returns
    -------
    module
        With the functions `KERNELS`, a `name`, the number `LANES`, and the context manager
        `limit_threads(n)`; perhaps with a class `Program`, which runs many calls in a row.

    Raises
    ------
    BackendError
        The backend is unknown or cannot run; or ``LRPFAST_TARGET`` names a SIMD target that cannot.
    """
    source = "backend"
    if name is None and os.environ.get("LRPFAST_BACKEND"):
        name, source = os.environ["LRPFAST_BACKEND"], "LRPFAST_BACKEND"
    if name is None:
        return next(module for module in map(_first, _MODULES) if module is not None)
    if name not in _MODULES:
        raise BackendError(f"{source} is {name!r}, expected one of: {', '.join(_MODULES)}")
    module, reason = _try(name)
    if module is None:
        others = ", ".join(other for other, why in available().items() if not why)
        cure = f"; {_CURES[name]}" if name in _CURES else ""
        raise BackendError(f"{source} {name!r} is not available: {reason}{cure}, or choose one of: {others}")
    return module


def _first(name: str) -> ModuleType | None:
    return _try(name)[0]


def _try(name: str) -> tuple[ModuleType | None, str]:
    """The backend, or None and the reason; a wrong `LRPFAST_TARGET` is nobody's reason to go on."""
    if name in _ready:
        return _ready[name], ""
    try:
        module = importlib.import_module(f".{_MODULES[name]}", __name__)
    except ImportError as error:
        if name == "native" and importlib.util.find_spec("lrpfast._core") is None:
            return None, "this installation was built without the C++ kernels"
        return None, str(error)
    with _lock:
        if hasattr(module, "set_num_threads"):
            module.set_num_threads(get_num_threads())
        _ready[name] = module
    return module, ""


def describe(backend: ModuleType) -> str:
    """The backend's name, with the SIMD target if it has one: ``native (avx2)``."""
    return f"{backend.name} ({backend.target()})" if hasattr(backend, "target") else str(backend.name)


def get_num_threads() -> int:
    """The most threads that one call may use.

    By default ``OMP_NUM_THREADS``, else the CPUs that this process may use: its affinity and its
    cgroup's quota, whichever is smaller.
    """
    global _num_threads
    with _lock:
        if _num_threads is None:
            _num_threads = default_num_threads()
        return _num_threads


def set_num_threads(n: int) -> None:
    """Let each call use at most `n` threads, in all backends that have threads of their own.

    Results do not depend on it.

    Raises
    ------
    ValueError
        If `n` is less than 1.
    """
    global _num_threads
    if n < 1:
        raise ValueError(f"set_num_threads: n is {n}, expected at least 1")
    with _lock:
        _num_threads = n
        for name in _MODULES:
            module = _loaded(name)
            if module is not None and hasattr(module, "set_num_threads"):
                module.set_num_threads(n)


def _loaded(name: str) -> ModuleType | None:
    return sys.modules.get(f"{__name__}.{_MODULES[name]}")
