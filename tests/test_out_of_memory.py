"""Where memory ends: an error that says what takes how much, and no crash."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from conftest import BACKENDS
from onnx_models import model_of, node

import lrpfast
from lrpfast import cgroups, memory
from lrpfast.errors import OutOfMemoryError

limited = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="limits as Linux has them")
SOURCE = str(Path(lrpfast.__file__).parents[1])
MEGABYTE = 2**20


def python(*arguments: str, limit: int | None = None) -> subprocess.CompletedProcess[str]:
    """Run Python as a process of its own, with at most `limit` bytes of addresses."""

    def confine() -> None:
        import resource

        if limit is not None:
            resource.setrlimit(resource.RLIMIT_AS, (limit, limit))

    environment = {**os.environ, "PYTHONPATH": SOURCE, "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "2"}
    return subprocess.run(
        [sys.executable, *arguments], capture_output=True, text=True, env=environment, preexec_fn=confine
    )


# --- ulimit -v ---

PRELUDE = """
import resource, sys
import numpy as np, lrpfast
from lrpfast import errors
def confine(megabytes):
    "So much more than there is now."
    pages = int(open("/proc/self/statm").read().split()[0])
    limit = pages * resource.getpagesize() + megabytes * 2**20
    resource.setrlimit(resource.RLIMIT_AS, (limit, resource.RLIM_INFINITY))
def refused(act, *words):
    try:
        act()
    except lrpfast.OutOfMemoryError as error:
        assert isinstance(error, MemoryError)
        missing = [word for word in words if word not in str(error)]
        assert not missing, (missing, str(error))
    else:
        raise AssertionError("there was memory enough")
rng = np.random.default_rng(0)
"""

RUN = """
network = lrpfast.Sequential(lrpfast.Conv2d(rng.normal(size=(8, 1, 3, 3)), padding=1), lrpfast.ReLU(),
                             lrpfast.GlobalAveragePool(), input_shape=(1, 64, 64))
explainer = lrpfast.Explainer(network, backend={backend!r})
x = np.ones((4000, 1, 64, 64), np.float32)
before = explainer(x[:2]).relevance
confine(300)
refused(lambda: explainer(x), "a run of 4000 samples takes", "B (", "bytes)", "set max_memory")
refused(lambda: network.predict(x, backend={backend!r}), "a run of 4000 samples takes", "set max_memory")
assert explainer(x[:100], max_memory="50MB").relevance[:2].tobytes() == before.tobytes()
"""

PACKING = """
w = rng.normal(size=(1024, 512, 3, 3)).astype(np.float32)
network = lrpfast.Sequential(lrpfast.Conv2d(w, padding=1), lrpfast.Flatten(), input_shape=(512, 8, 8))
network.canonized()
confine(8)
refused(lambda: lrpfast.Explainer(network, "gradient"), "packing the weights takes", "bytes", "ulimit -v")
"""

WINDOWS = """
pooling = lrpfast.AvgPool1d(2**13, stride=1), lrpfast.Flatten()
explainer = lrpfast.Explainer(lrpfast.Sequential(*pooling, input_shape=(1, 2**14)), backend="native")
confine(64)
sources = 2**13 * (2**13 + 1)
for _ in range(3):
    refused(lambda: explainer(np.ones((1, 1, 2**14)), 0), "an explanation takes more memory than the system grants: "
            f"tables of windows: no memory for {8 * sources} bytes; set max_memory, or take fewer")
"""

KERNEL = """
from lrpfast import _core
from lrpfast.backends.ending import Ending
def pool(x, window):
    out = np.empty((1, 1, 1, 1, x - window + 1, 16), np.float32)
    _core.sumpool_forward(np.ones((1, 1, 1, 1, x, 16), np.float32), np.ones(out.shape[2:5], np.float32), (1, 1, window),
                          (1, 1, 1), (0, 0, 0), (1, 1, 1), (1.0, 1.0), (1.0, 1.0), Ending(out))
    return out
def message(act):
    try:
        act()
    except MemoryError as error:
        return str(error)
    raise AssertionError("there was memory enough")
confine(64)
for _ in range(3):
    assert message(lambda: pool(2**14, 2**13)) == "tables of windows: no memory for 536936448 bytes"
    assert (pool(20, 3) == 3).all()
assert message(lambda: _core.set_target(2**27 * "x")) == "", "an error of Python's own, not of the C++ library"
"""


THREADS = """
import os
def threads():
    return len(os.listdir("/proc/self/task"))
lrpfast.set_num_threads(2)
layers = lrpfast.Conv2d(rng.normal(size=(32, 8, 3, 3)), padding=1), lrpfast.ReLU(), lrpfast.Flatten()
network = lrpfast.Sequential(*layers, input_shape=(8, 32, 32))
explainer, x = lrpfast.Explainer(network, "epsilon_plus", backend="native"), rng.normal(size=(2, 8, 32, 32))
np.ones((64, 64)) @ np.ones((64, 64))  # NumPy starts its own
before = threads()
confine(6)  # less than a thread's stack
alone = explainer(x, 5).relevance.tobytes()
assert threads() == before
resource.setrlimit(resource.RLIMIT_AS, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
assert explainer(x, 5).relevance.tobytes() == alone
assert threads() == before + 1
"""


@limited
@pytest.mark.parametrize("backend", BACKENDS)
def test_a_run_that_is_too_large(backend: str) -> None:
    result = python("-c", PRELUDE + RUN.format(backend=backend))
    assert result.returncode == 0, result.stderr


@limited
@pytest.mark.skipif("native" not in BACKENDS, reason="only the native backend packs weights")
@pytest.mark.parametrize(
    "script", [PACKING, WINDOWS, KERNEL, THREADS], ids=["packed", "windows", "a kernel's own", "threads"]
)
def test_memory_of_kernels(script: str) -> None:
    result = python("-c", PRELUDE + script)
    assert result.returncode == 0, result.stderr


# --- the command line, under a limit from its beginning ---


def refused(folder: Path, model: str, x: Path, message: str) -> None:
    out = folder / "out.npy"
    result = python(
        "-m", "lrpfast", "explain", str(folder / model), str(x), "-o", str(out), limit=700 * MEGABYTE
    )
    assert result.returncode == 1, result.stderr
    assert re.match(f"error: .*{message}", result.stderr), result.stderr
    assert "Traceback" not in result.stderr and "bug" not in result.stderr
    assert not out.exists()


@limited
def test_weights_that_cannot_be_loaded(tmp_path: Path) -> None:
    """2 GiB of zeros, which take no place on the disk."""
    model = model_of([node("MatMul", "x w")], ["n", 2**20], {"w": np.zeros((1, 1), np.float32)})
    (tensor,) = model.graph.initializer
    tensor.dims[:] = (2**20, 2**9)
    tensor.raw_data = b"elsewhere"
    onnx.external_data_helper.set_external_data(tensor, "weights.bin")
    tensor.ClearField("raw_data")
    (tmp_path / "big.onnx").write_bytes(model.SerializeToString())
    with open(tmp_path / "weights.bin", "wb") as file:
        file.truncate(2**31)
    np.save(tmp_path / "x.npy", np.ones((1, 2**20), np.float32))
    message = (
        r"tensor 'w' takes 2\.0 GiB \(2147483648 bytes\), more memory than the system grants; raise the limit"
    )
    refused(tmp_path, "big.onnx", tmp_path / "x.npy", message)


@limited
def test_a_file_that_cannot_be_mapped(tmp_path: Path) -> None:
    (tmp_path / "huge.onnx").write_bytes(b"\x08\x08")
    with open(tmp_path / "huge.onnx", "r+b") as file:
        file.truncate(2**31)
    np.save(tmp_path / "x.npy", np.ones((1, 2), np.float32))
    refused(tmp_path, "huge.onnx", tmp_path / "x.npy", r"model '.*huge.onnx' is a file of 2\.0 GiB")


@limited
def test_an_explanation_that_is_too_large(tmp_path: Path) -> None:
    """From 64 × 64 numbers to 4 GiB."""
    nodes = [node("ConvTranspose", "x w", "z", strides=[64, 64]), node("GlobalAveragePool", "z", "m"),
             node("Flatten", "m")]  # fmt: skip
    onnx.save(
        model_of(nodes, ["n", 1, 64, 64], {"w": np.ones((1, 64, 1, 1), np.float32)}), tmp_path / "wide.onnx"
    )
    np.save(tmp_path / "x.npy", np.ones((1, 1, 64, 64), np.float32))
    message = r"making a plan takes more memory than the system grants: Unable to allocate \d\.\d+ GiB"
    refused(tmp_path, "wide.onnx", tmp_path / "x.npy", message)


# --- control groups ---


def group(root: Path, line: str, files: dict[str, str]) -> None:
    for name, text in {
        "proc/self/cgroup": line,
        **{f"sys/fs/cgroup/{n}": t for n, t in files.items()},
    }.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text + "\n")


V2 = {"a/memory.max": "1000", "a/memory.current": "600", "a/memory.stat": "anon 500\ninactive_file 100"}
V1 = {"memory/a/memory.limit_in_bytes": "1000", "memory/a/memory.usage_in_bytes": "300",
      "memory/a/memory.stat": "cache 50\ntotal_inactive_file 50"}  # fmt: skip


@pytest.mark.parametrize(
    ("line", "files", "expected"),
    [
        ("0::/a", V2, 500),
        ("0::/a", {**V2, "a/memory.max": "max"}, None),
        ("0::/a/b", V2, 500),
        ("0::/a", {**V2, "memory.max": "900", "memory.current": "800", "memory.stat": "anon 1"}, 100),
        ("4:memory:/a", V1, 750),
        ("4:memory:/a\n0::/a", {**V1, **V2}, 500),
        ("4:memory:/a", {**V1, "memory/a/memory.limit_in_bytes": "9223372036854771712"}, None),
        ("4:cpu:/a", V1, None),
        ("0::/gone", V1, None),
    ],
)
def test_what_control_groups_leave(
    line: str, files: dict[str, str], expected: int | None, tmp_path: Path
) -> None:
    group(tmp_path, line, files)
    assert cgroups.memory_left(tmp_path) == expected
    assert cgroups.memory_left(tmp_path / "elsewhere") is None


def test_what_a_control_group_does_not_grant_is_not_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """The system would kill the process when it uses it."""
    network = lrpfast.Sequential(lrpfast.Dense(np.ones((2, 3))))
    explainer, x = lrpfast.Explainer(network), np.ones((4, 3), np.float32)
    monkeypatch.setattr(memory, "memory_left", lambda: 300)
    explainer(x)  # for so little nobody looks
    monkeypatch.setattr(memory, "WORTH_A_LOOK", 1)
    words = r"a run of 400 samples takes .* bytes\), but the control group has 300 bytes left; set max_memory"
    with pytest.raises(OutOfMemoryError, match=words):
        explainer(np.ones((400, 3), np.float32))
