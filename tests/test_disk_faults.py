"""Disks that are full, or only to be read: an error that names the file, what was there stays, nothing half-written."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr
from batch_jobs import FASHION, SOURCE, parts_of, relevance_of, rows_of

import lrpfast

pytestmark = pytest.mark.skipif(
    not sys.platform.startswith("linux"), reason="limits and /sys as Linux has them"
)

CLOTHES = np.random.default_rng(3).normal(size=(40, 1, 28, 28)).astype(np.float32)
Run = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Runs the command line in a folder with sources x.npy (one) and xs.npy; no file can have more than `most` bytes.

    That is like a full disk, and takes no privileges: Python ignores the signal, and writing fails.
    """
    monkeypatch.chdir(tmp_path)
    np.save("x.npy", CLOTHES[:1])
    np.save("xs.npy", CLOTHES)

    def call(*arguments: str, most: int | None = None) -> subprocess.CompletedProcess[str]:
        def confine() -> None:
            import resource

            if most is not None:
                resource.setrlimit(resource.RLIMIT_FSIZE, (most, resource.RLIM_INFINITY))

        return subprocess.run(
            [sys.executable, "-m", "lrpfast", *arguments],
            capture_output=True, text=True, env={**os.environ, "PYTHONPATH": SOURCE}, preexec_fn=confine,
        )  # fmt: skip

    return call


def remnants() -> list[str]:
    """What is half-written."""
    return [name for _, _, files in os.walk(".") for name in files if name.endswith(".part")]


OUTPUTS = {
    "heatmap": ("-o", "heat.png"),
    "JPEG": ("-o", "heat.jpg"),
    "array": ("-o", "heat.npy"),
    "saved": ("--save", "heat.npz"),
}


@pytest.mark.parametrize("kind", OUTPUTS)
def test_a_full_disk(run: Run, kind: str) -> None:
    option, out = OUTPUTS[kind]
    Path(out).write_text("as before")
    result = run("explain", FASHION, "x.npy", option, out, most=512)
    assert result.returncode == 4
    assert (
        result.stderr
        == f"error: cannot write '{out}': File too large; choose a place that can be written to\n"
    )
    assert Path(out).read_text() == "as before"
    assert remnants() == []


@pytest.mark.parametrize("kind", OUTPUTS)
def test_a_place_that_is_only_to_be_read(run: Run, kind: str) -> None:
    """In /sys nobody makes files, root neither."""
    option, out = OUTPUTS[kind]
    result = run("explain", FASHION, "x.npy", option, f"/sys/kernel/{out}")
    assert result.returncode == 4
    assert result.stderr.startswith("error: cannot write into '/sys/kernel'")
    assert result.stdout == ""  # before anything was computed


@pytest.mark.parametrize("sink", ["rows", "zarr"])
def test_a_job_on_a_full_disk_goes_on_when_there_is_room(run: Run, sink: str) -> None:
    arguments = ["batch", FASHION, "xs.npy", "-o", "out", "--part-rows", "20"]
    arguments += ["--zarr", "r.zarr"] if sink == "zarr" else []
    result = run(*arguments, most=8000)
    assert result.returncode == 4, result.stderr
    place = "part-000000.parquet" if sink == "rows" else "r.zarr"
    assert result.stderr.startswith("error: cannot write ") and place in result.stderr.partition("': ")[0]
    assert "File too large" in result.stderr
    assert parts_of(Path("out")) == [] and remnants() == []
    result = run(*arguments)
    assert result.returncode == 0, result.stderr
    rows = rows_of("out")
    assert [row["index"] for row in rows] == list(range(len(CLOTHES)))
    found = zarr.open_array("r.zarr", mode="r")[:] if sink == "zarr" else relevance_of(rows, (1, 28, 28))
    expected = lrpfast.explain(lrpfast.load(FASHION), CLOTHES).relevance
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("option", ["-o", "--zarr", "--png"])
def test_a_job_where_nothing_can_be_written(run: Run, option: str) -> None:
    places: dict[str, Any] = {"-o": "out", option: "/sys/kernel/lrpfast"}
    result = run("batch", FASHION, "x.npy", *(word for pair in places.items() for word in pair))
    assert result.returncode == 4, result.stderr
    assert result.stderr.startswith("error: cannot write ") and "/sys/kernel/lrpfast" in result.stderr
    assert "Traceback" not in result.stderr and parts_of(Path("out")) == []
