"""Whole processes: how long from start to end, and how much memory at most.

    python bench/processes.py COMMAND ...

runs a command and prints its seconds and MiB as JSON. It is a program of its own since Linux counts what a process
held before it became another one: measured from a process that has torch in memory, everything would be large.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterable
from typing import Any

PREDICT = """
import sys
import numpy as np
import onnxruntime
session = onnxruntime.InferenceSession(sys.argv[1], providers=["CPUExecutionProvider"])
session.run(None, {session.get_inputs()[0].name: np.load(sys.argv[2])})
"""


def process_rows(networks: Iterable[str], composite: str, repeats: int) -> list[dict[str, Any]]:
    """Time and memory of inference by onnxruntime and of `lrpfast explain`, for networks that take photographs."""
    import tempfile

    import numpy as np
    from subjects import subject

    from networks import PHOTOGRAPHS, photograph_path  # isort: skip (found by subjects)

    rows = []
    with tempfile.TemporaryDirectory() as folder:
        array, heatmap, photo = f"{folder}/x.npy", f"{folder}/heat.png", str(photograph_path(PHOTOGRAPHS[0]))
        for name in networks:
            net = subject(name)
            if len(net.network.input_shape) != 3:
                continue
            model = str(net.path)
            np.save(array, net.pictures(1))
            explain = ["-m", "lrpfast", "explain", model, photo, "-o", heatmap, "-c", composite]
            if composite == "epsilon_gamma_box":
                explain += ["--low", str(net.low), "--high", str(net.high)]
            programs = {"onnxruntime": ["-c", PREDICT, model, array], "lrpfast explain": explain}
            found: dict[str, list[dict[str, float]]] = {program: [] for program in programs}
            for _ in range(repeats + 1):
                for program, arguments in programs.items():
                    found[program].append(launched(arguments))
            for program, (_, *runs) in found.items():  # the first run brought the files into memory
                columns = {key: [measured[key] for measured in runs] for key in ("seconds", "mib")}
                rows.append({"network": name, "program": program, **columns})
    return rows


def launched(arguments: list[str]) -> dict[str, float]:
    """Run Python with these arguments from a small process."""
    command = [sys.executable, __file__, sys.executable, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"{' '.join(command)} failed:\n{done.stderr}")
    measured: dict[str, float] = json.loads(done.stdout)
    return measured


def main(command: list[str]) -> None:
    began = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    seconds = time.perf_counter() - began
    if status:
        sys.exit(f"the command ended with {os.waitstatus_to_exitcode(status)}")
    unit = 1 if sys.platform == "darwin" else 1024  # bytes of what ru_maxrss counts
    print(json.dumps({"seconds": seconds, "mib": usage.ru_maxrss * unit / 2**20}))


if __name__ == "__main__":
    main(sys.argv[1:])
