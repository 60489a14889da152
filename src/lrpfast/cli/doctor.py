"""``lrpfast doctor``: what runs here, and why."""

from __future__ import annotations

import importlib.metadata
import os
import platform
from collections.abc import Iterator
from typing import Any

import click

from .. import backends
from .._version import __version__
from ..backends.cpus import cgroup_quota, default_num_threads
from ..errors import BackendError
from ..ops import OPERATORS
from .console import REFUSED, Failure, print_json
from .options import json_option

BACKENDS = ("native", "numba", "numpy")

PACKAGES = {
    "numpy": "arrays",
    "onnx": "reading models",
    "Pillow": "reading and drawing pictures",
    "numba": "the numba backend",
}
"""What each package is needed for."""

HELP = """Say which backend computes here and why, on how many threads, and what else is installed.

    Exits with 1 if LRPFAST_BACKEND or LRPFAST_TARGET ask for what is not there.
    """


@click.command(short_help="What runs here, and why.", help=HELP)
@json_option
def doctor(as_json: bool) -> None:
    found = diagnosis()
    if as_json:
        print_json(found)
    else:
        for line in _lines(found):
            click.echo(line)
    if found["problem"]:
        raise Failure(found["problem"], REFUSED, "unset the environment variable, or correct it")


def diagnosis() -> dict[str, Any]:
    """All that `doctor` reports, as JSON has it."""
    reasons = {name: _why_not(name) for name in BACKENDS}
    used, problem = None, ""
    try:
        used = backends.get().name
    except BackendError as error:
        problem = str(error)
    return {
        "lrpfast": __version__,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "backends": {name: {"available": not reason, "reason": reason} for name, reason in reasons.items()},
        "used": used,
        "because": _because(used, reasons),
        "simd": _simd() if not reasons["native"] else None,
        "threads": {"count": backends.get_num_threads(), "from": _threads_from()},
        "packages": {name: _version(name) for name in PACKAGES},
        "operators": OPERATORS,
        "problem": problem,
    }


def _why_not(name: str) -> str:
    """Why a backend cannot run; empty if it can."""
    try:
        backends.get(name)
    except BackendError as error:
        return str(error)
    return ""


def _because(used: str | None, reasons: dict[str, str]) -> str:
    if used is None:
        return ""
    if os.environ.get("LRPFAST_BACKEND"):
        return f"LRPFAST_BACKEND={used}"
    return "it is the fastest" if used == BACKENDS[0] else "it is the fastest that can run here"


def _simd() -> dict[str, Any]:
    native = backends.get("native")
    forced = os.environ.get("LRPFAST_TARGET") or None
    return {"detected": native.targets()[0], "active": native.target(), "runnable": native.targets(),
            "forced": forced}  # fmt: skip


def _threads_from() -> str:
    if backends.get_num_threads() != default_num_threads():
        return "lrpfast.set_num_threads"
    asked = os.environ.get("OMP_NUM_THREADS", "")
    if asked.split(",")[0].strip().isdecimal() and int(asked.split(",")[0]) > 0:
        return f"OMP_NUM_THREADS={asked}"
    cpus = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quota = cgroup_quota()
    if quota is not None and quota < cpus:
        return f"the control group grants {quota:g} of {cpus} CPUs"
    return f"{cpus} CPUs that this process may use"


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _lines(found: dict[str, Any]) -> Iterator[str]:
    """The diagnosis in words, at most 80 columns wide."""
    yield f"lrpfast {found['lrpfast']}, Python {found['python']}, {found['platform']}"
    yield _heading("Backends")
    for name, backend in found["backends"].items():
        state = f"used, since {found['because']}" if name == found["used"] else "can run"
        yield _entry(name, state if backend["available"] else backend["reason"])
    yield _heading("SIMD target (native backend)")
    simd = found["simd"]
    if simd is None:
        yield _entry("none", "the native backend cannot run")
    else:
        why = f"LRPFAST_TARGET={simd['forced']}" if simd["forced"] else "the best that this CPU has"
        others = ", ".join(simd["runnable"])
        yield _entry(simd["active"], f"{why}; detected {simd['detected']}; can run: {others}")
    yield _heading("Threads")
    yield _entry(str(found["threads"]["count"]), found["threads"]["from"])
    yield _heading("Packages")
    for name, version in found["packages"].items():
        yield _entry(name, f"{version or 'not installed'} ({PACKAGES[name]})")
    yield _heading("ONNX operators")
    yield click.wrap_text(", ".join(found["operators"]), 78, "  ", "  ")


def _heading(text: str) -> str:
    return f"\n{click.style(text, bold=True)}"


def _entry(name: str, text: str) -> str:
    return click.wrap_text(text, 78, f"  {name:<9} ", " " * 12)
