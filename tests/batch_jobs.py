"""What tests of batches share: sources with known answers, and reading what a job wrote."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.dataset
import pyarrow.parquet as pq

import lrpfast

SOURCE = str(Path(lrpfast.__file__).parents[1])
FASHION = str(Path(lrpfast.__file__).parent / "demo/fashion.onnx")


def rows_of(out: Any, filesystem: Any = None) -> list[dict[str, Any]]:
    """All rows of a job, as any reader of Parquet sees them, in the order of its parts."""
    return pyarrow.dataset.dataset(str(out), format="parquet", filesystem=filesystem).to_table().to_pylist()


def relevance_of(rows: list[dict[str, Any]], shape: tuple[int, ...]) -> np.ndarray:
    """The relevance in the rows, stacked; no row may lack it."""
    return np.stack([np.array(row["relevance"], np.float32).reshape(shape) for row in rows])


def parts_of(out: Path) -> list[Path]:
    return sorted(out.glob("part-*.parquet"))


def write_table(path: Path, columns: dict[str, Any], **options: Any) -> None:
    pq.write_table(pyarrow.table(columns), path, **options)


def start(*arguments: Any, **options: Any) -> subprocess.Popen[str]:
    """``lrpfast batch`` as a process of its own."""
    return subprocess.Popen(
        [sys.executable, "-m", "lrpfast", "batch", *map(str, arguments)],
        text=True,
        env={**os.environ, "PYTHONPATH": SOURCE},
        **{"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **options},
    )
