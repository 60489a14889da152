"""Pools of processes, however they are started: the same bits as here."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pool_workers
import pytest
from conftest import BACKENDS

import lrpfast

METHODS = ["spawn"] + (["fork", "forkserver"] if hasattr(os, "fork") else [])


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("backend", BACKENDS)
def test_pools(backend: str, method: str) -> None:
    """Two workers, each with kernels that use two threads, after the same was done in the parent."""
    result = subprocess.run(
        [sys.executable, pool_workers.__file__, method, backend],
        capture_output=True, text=True, timeout=300,
        env={**os.environ, "PYTHONPATH": str(Path(lrpfast.__file__).parents[1])},
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    found = json.loads(result.stdout)
    assert found["before"] == found["pool"] == found["after"]
    assert found["pool"] == [pool_workers.answer(backend, i) for i in range(6)]
