"""Measuring: calls that take turns, onnxruntime to measure against, and what the numbers depend on."""

from __future__ import annotations

import os
import platform
import statistics
import time
from collections.abc import Callable, Iterable, Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from . import backends
from ._version import __version__
from .ops.base import Array

PAUSE = 0.05
"""Seconds between calls, in which the threads of the one before, which wait busily for a while, fall asleep."""

SLOW = 2.0
"""Seconds from which on a call need not be warmed up for each turn: its own time exceeds what that saves."""

_DTYPES = {
    "tensor(double)": np.float64, "tensor(float16)": np.float16,
    **{f"tensor({kind.__name__})": kind for kind in (np.int8, np.int16, np.int32, np.int64)},
    **{f"tensor({kind.__name__})": kind for kind in (np.uint8, np.uint16, np.uint32, np.uint64)},
}  # fmt: skip
"""The types of onnxruntime's inputs that are not float32."""

Answer = TypeVar("Answer")


def take_turns(
    calls: Mapping[str, Callable[[], Answer]],
    turns: int | Mapping[str, int],
    check: Callable[[dict[str, Answer]], None] = lambda answers: None,
) -> dict[str, list[float]]:
    """Time several calls turn by turn, so that whatever else the machine does hits all of them.

    Parameters
    ----------
    calls : mapping of str to callable
    turns : int or mapping of str to int
        How many each of them has.
    check : callable, optional
        Is given the answers, by name, after each turn: the new ones and, of calls without a turn, the last ones.

    Returns
    -------
    dict of str to list of float
        Seconds of each turn.
    """
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    left = {name: turns if isinstance(turns, int) else turns[name] for name in calls}
    answers: dict[str, Answer] = {}
    for turn in range(max(left.values())):
        for name, call in calls.items():
            if turn >= left[name]:
                continue
            time.sleep(PAUSE)
            if not seconds[name] or seconds[name][-1] < SLOW:
                call()  # brings the network into the caches, and the threads to work
            began = time.perf_counter()
            answers[name] = call()
            seconds[name].append(time.perf_counter() - began)
        check(answers)
    return seconds


def medians(seconds: Mapping[str, Iterable[float]]) -> dict[str, float]:
    """Of each call the median of its times."""
    return {name: statistics.median(times) for name, times in seconds.items()}


def onnxruntime_predictor(
    path: str | os.PathLike[str], threads: int, output: str | None = None
) -> Callable[[Array | Mapping[str, Array]], Array]:
    """onnxruntime's inference on the CPU as a function of the input, or of the inputs by name.

    Parameters
    ----------
    path : path
    threads : int
    output : str, optional
        Which output is wanted; default: the first.

    Raises
    ------
    ImportError
        onnxruntime is not installed.
    Exception
        onnxruntime cannot load the model; it has classes of its own for the reasons.
    """
    import onnxruntime  # type: ignore[import-untyped]

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(os.fspath(path), options, providers=["CPUExecutionProvider"])
    dtypes = {given.name: _DTYPES.get(given.type, np.float32) for given in session.get_inputs()}
    wanted = session.get_outputs()[0].name if output is None else output

    def predict(x: Array | Mapping[str, Array]) -> Array:
        arrays = x if isinstance(x, Mapping) else dict.fromkeys(dtypes, x)
        feeds = {name: arrays[name].astype(dtype, copy=False) for name, dtype in dtypes.items()}
        found: Array = session.run([wanted], feeds)[0]
        return found

    return predict


def prediction_error(output: Array, expected: Array) -> float:
    """The largest difference as a share of the largest output."""
    return float(np.abs(output - expected).max() / (np.abs(expected).max() or 1.0))


def machine(*packages: str) -> dict[str, Any]:
    """What times depend on, besides the code measured.

    Parameters
    ----------
    *packages : str
        Whose versions are wanted; None stands for one that is not installed.
    """
    return {
        "system": platform.platform(),
        "cpu": _cpu(),
        "cpus": backends.get_num_threads(),
        "python": platform.python_version(),
        "lrpfast": __version__,
        "backend": backends.describe(backends.get()),
        **{package: _version(package) for package in ("numpy", *packages)},
    }


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _cpu() -> str:
    """The processor's name where Linux gives one, else its architecture."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()
