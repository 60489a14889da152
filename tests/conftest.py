"""What all tests share: hypothesis profiles, and the backends to run on."""

from __future__ import annotations

import gc
import os
import signal
import sys

import pytest
from hypothesis import HealthCheck, settings

import lrpfast.backends
from lrpfast.errors import BackendError

ALL_BACKENDS = ("native", "numba", "numpy")

# They write Zarr arrays, and zarr 3 needs Python 3.11.
collect_ignore = (
    ["test_batch.py", "test_batch_cli.py", "test_disk_faults.py"] if sys.version_info < (3, 11) else []
)


def _backends() -> tuple[str, ...]:
    """LRPFAST_BACKEND alone where that is set; else all that can run here.

    LRPFAST_TEST_BACKENDS, names with commas between them, makes a missing one an error.
    """
    if os.environ.get("LRPFAST_BACKEND"):
        return (os.environ["LRPFAST_BACKEND"],)
    required = os.environ.get("LRPFAST_TEST_BACKENDS")
    found = []
    for name in required.split(",") if required else ALL_BACKENDS:
        try:
            lrpfast.backends.get(name)
        except BackendError:
            if required:
                raise
        else:
            found.append(name)
    return tuple(found)


BACKENDS = _backends()

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # So it is in the background of a shell, and what is ignored stays ignored in the processes that tests start; what
    # is handled does not.
    signal.signal(signal.SIGINT, signal.default_int_handler)

settings.register_profile("default", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("ci", parent=settings.get_profile("default"), derandomize=True, print_blob=True)
settings.load_profile("ci" if os.environ.get("CI") else "default")


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "networks: uses real networks, exported from torch on the first run")


def pytest_collection_finish() -> None:
    # What collecting made stays until the end: Python's collector need not look through its 700,000 objects again.
    gc.collect()
    gc.freeze()


def pytest_report_header(config: pytest.Config) -> str:
    return f"lrpfast {lrpfast.__version__}; backends: {', '.join(BACKENDS)}"


@pytest.fixture(params=BACKENDS)
def backend(request: pytest.FixtureRequest) -> str:
    """The name of a backend; the test runs once on each."""
    name: str = request.param
    return name
