"""The choice of a backend, its threads, and what must survive forks and threads."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import BACKENDS

from lrpfast import Conv2d, Dense, Explainer, Flatten, MaxPool2d, Network, ReLU, Sequential, backends
from lrpfast.backends import cpus
from lrpfast.backends.ending import Ending
from lrpfast.errors import BackendError

AVAILABLE = [name for name, reason in backends.available().items() if not reason]
needs_native = pytest.mark.skipif("native" not in AVAILABLE, reason="the native backend was not built")


def python(code: str, **env: str) -> str:
    """The output of a program in a process of its own, or its errors if it fails."""
    clean = {key: value for key, value in os.environ.items() if not key.startswith(("LRPFAST_", "OMP_"))}
    done = subprocess.run(
        [sys.executable, "-c", code], env=clean | env, capture_output=True, text=True, timeout=120
    )
    return done.stdout.strip() if done.returncode == 0 else done.stderr


def dense(module: Any, samples: int = 3) -> np.ndarray[Any, Any]:
    """A dense layer that is large enough for several threads."""
    rng = np.random.default_rng(0)
    src, w = (
        rng.normal(size=(samples, 700)).astype(np.float32),
        rng.normal(size=(900, 700)).astype(np.float32),
    )
    out = np.zeros((samples, 900), np.float32)
    module.gemm_forward(src, w, (1, 1), (1, 0), Ending(out))
    return out


def network() -> Network:
    """A network whose every layer is large enough for several threads."""
    rng = np.random.default_rng(0)
    return Sequential(
        Conv2d(rng.normal(size=(32, 3, 3, 3)) / 5, padding=1), ReLU(),
        Conv2d(rng.normal(size=(32, 32, 3, 3)) / 17, padding=1), ReLU(), MaxPool2d(2),
        Flatten(), Dense(rng.normal(size=(10, 32 * 20 * 20)) / 113), input_shape=(3, 40, 40),
    )  # fmt: skip


PICTURES = np.random.default_rng(1).normal(size=(4, 3, 40, 40)).astype(np.float32)


def in_threads(count: int, work: Callable[[int], None]) -> None:
    """Run `work` with the numbers below `count` at the same time; the first error is raised here."""
    with ThreadPoolExecutor(count) as pool:
        for job in [pool.submit(work, i) for i in range(count)]:
            job.result()


def test_native_is_there_where_it_is_required() -> None:
    if os.environ.get("LRPFAST_REQUIRE_NATIVE") == "1":
        assert backends.available()["native"] == ""
    assert "numpy" in AVAILABLE


def test_the_best_available_backend_is_the_default() -> None:
    assert python("from lrpfast import backends; print(backends.get().name)") == AVAILABLE[0]


@pytest.mark.parametrize("name", AVAILABLE)
def test_a_backend_by_name_and_by_environment(name: str) -> None:
    assert backends.get(name).name == name
    assert python("from lrpfast import backends; print(backends.get().name)", LRPFAST_BACKEND=name) == name
    assert backends.describe(backends.get(name)).startswith(name)


def test_an_unknown_backend_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(BackendError, match="backend is 'cuda', expected one of: native, numba, numpy"):
        backends.get("cuda")
    monkeypatch.setenv("LRPFAST_BACKEND", "opencl")
    with pytest.raises(BackendError, match="LRPFAST_BACKEND is 'opencl'"):
        backends.get()


WITHOUT = """
import sys
for name in {missing!r}:
    sys.modules[name] = None  # as if it were not installed
from lrpfast import backends
print(backends.get().name)
print(sorted(name for name, reason in backends.available().items() if reason))
try:
    backends.get({asked!r})
except backends.BackendError as error:
    print(error)
"""


def test_without_a_compiler_and_numba_numpy_remains() -> None:
    missing = ["lrpfast._core", "numba"]
    name, absent, error = python(WITHOUT.format(missing=missing, asked="native")).splitlines()
    assert (name, absent) == ("numpy", "['native', 'numba']")
    assert (
        "'native' is not available: this installation was built without" in error
        and "C++ compiler" in error
        and error.endswith("one of: numpy")
    )
    error = python(WITHOUT.format(missing=missing, asked="numba")).splitlines()[-1]
    assert "'numba' is not available" in error and "pip install numba" in error


@needs_native
def test_targets_by_environment_and_by_name() -> None:
    native = backends.get("native")
    before = native.target()
    assert before in native.targets()
    code = "from lrpfast import backends; print(backends.describe(backends.get('native')))"
    try:
        for target in native.targets():
            assert python(code, LRPFAST_TARGET=target) == f"native ({target})"
            native.set_target(target)
            assert native.target() == target
        with pytest.raises(
            BackendError, match="'mmx' is not available.*choose one of: .*" + native.targets()[-1]
        ):
            native.set_target("mmx")
    finally:
        native.set_target(before)
    for code in ("backends.get()", "backends.get('native')", "backends.available()"):
        error = python(f"from lrpfast import backends; {code}", LRPFAST_TARGET="mmx")
        assert "BackendError: LRPFAST_TARGET: SIMD target 'mmx' is not available" in error


# --- threads ---


def test_the_number_of_threads_can_be_set() -> None:
    before = backends.get_num_threads()
    assert before >= 1
    try:
        backends.set_num_threads(3)
        assert backends.get_num_threads() == 3
        for name in BACKENDS:
            dense(backends.get(name))
        with pytest.raises(ValueError, match="n is 0, expected at least 1"):
            backends.set_num_threads(0)
    finally:
        backends.set_num_threads(before)


def test_the_default_does_not_replace_what_another_thread_sets(monkeypatch: pytest.MonkeyPatch) -> None:
    before = backends.get_num_threads()
    with ThreadPoolExecutor(1) as pool:

        def slow_default() -> int:
            asked.append(pool.submit(backends.set_num_threads, 3))
            wait(asked, timeout=0.1)
            return 1

        asked: list[Future[None]] = []
        monkeypatch.setattr(backends, "_num_threads", None)
        monkeypatch.setattr(backends, "default_num_threads", slow_default)
        try:
            backends.get_num_threads()
            asked[0].result()
            assert backends.get_num_threads() == 3
        finally:
            backends.set_num_threads(before)


def test_the_environment_sets_the_number_of_threads() -> None:
    code = "from lrpfast import backends; print(backends.get_num_threads())"
    assert python(code, OMP_NUM_THREADS="5") == "5"
    assert python(code, OMP_NUM_THREADS="3,2") == "3"
    cpu_count = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    assert 1 <= int(python(code, OMP_NUM_THREADS="0")) <= (cpu_count or 1)


@pytest.mark.parametrize(
    ("groups", "files", "expected"),
    [
        ("0::/a/b", {"a/cpu.max": "150000 100000", "a/b/cpu.max": "max 100000"}, 1.5),
        ("0::/a", {"cpu.max": "400000 100000"}, 4.0),
        ("4:cpu,cpuacct:/a", {"cpu/a/cpu.cfs_quota_us": "200000", "cpu/a/cpu.cfs_period_us": "100000"}, 2.0),
        ("4:cpu:/a", {"cpu/a/cpu.cfs_quota_us": "-1", "cpu/a/cpu.cfs_period_us": "100000"}, None),
        ("0::/a", {"a/cpu.max": "nonsense"}, None),
        (None, {}, None),
    ],
)
def test_quotas_of_control_groups(
    tmp_path: Path, groups: str | None, files: dict[str, str], expected: float | None
) -> None:
    for name, content in files.items():
        path = tmp_path / "sys/fs/cgroup" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content + "\n")
    if groups is not None:
        (tmp_path / "proc/self").mkdir(parents=True)
        (tmp_path / "proc/self/cgroup").write_text(groups + "\n")
    assert cpus.cgroup_quota(tmp_path) == expected


@pytest.mark.parametrize(
    ("asked", "quota", "expected"),
    [
        ("", None, 8), ("", 1.5, 1), ("", 0.5, 1), ("", 4.0, 4), ("", 16.0, 8), ("3", 1.0, 3), ("0", 2.0, 2),
        ("many", 2.0, 2),
    ],
)  # fmt: skip
def test_the_default_number_of_threads(
    monkeypatch: pytest.MonkeyPatch, asked: str, quota: float | None, expected: int
) -> None:
    """What the user asks for, else no more than the CPUs and the control group's quota."""
    monkeypatch.setenv("OMP_NUM_THREADS", asked)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)), raising=False)
    monkeypatch.setattr(cpus, "cgroup_quota", lambda: quota)
    assert cpus.default_num_threads() == expected


@pytest.mark.parametrize("name", BACKENDS)
def test_limits_of_one_thread(name: str) -> None:
    module = backends.get(name)
    with module.limit_threads(None):
        expected = dense(module)
    with module.limit_threads(1), module.limit_threads(2):
        np.testing.assert_allclose(dense(module), expected, rtol=1e-4, atol=1e-4)


@needs_native
def test_a_limit_ends_with_its_block_and_must_be_positive() -> None:
    native = backends.get("native")
    with pytest.raises(RuntimeError, match="stop"), native.limit_threads(1):
        raise RuntimeError("stop")
    with native.limit_threads(2):
        from lrpfast import _core

        assert _core.limit_threads(2) == 2  # which returns the limit before
    with pytest.raises(ValueError, match="threads is 0, expected at least 1"), native.limit_threads(0):
        pass


@pytest.mark.parametrize("name", BACKENDS)
def test_several_threads_may_call_at_once(name: str) -> None:
    module = backends.get(name)
    expected = dense(module)

    def work(number: int) -> None:
        for _ in range(20):
            np.testing.assert_array_equal(dense(module), expected)

    in_threads(4, work)


@pytest.mark.parametrize("name", BACKENDS)
def test_several_threads_may_share_an_explainer(name: str) -> None:
    """Batches of several sizes, with several threads each: the same bytes as alone."""
    before = backends.get_num_threads()
    backends.set_num_threads(2)
    try:
        explainer = Explainer(network(), "epsilon_plus", backend=name)
        expected = [explainer(PICTURES[: n + 1]).relevance.tobytes() for n in range(4)]

        def work(number: int) -> None:
            for turn in range(3):
                n = (number + turn) % 4
                assert explainer(PICTURES[: n + 1]).relevance.tobytes() == expected[n]

        in_threads(4, work)
    finally:
        backends.set_num_threads(before)


# Workers are started when they are needed first, so their number shows how many a call may use.
LIMIT = """
import os, sys
sys.path.insert(0, {tests!r})
from lrpfast import Explainer, backends, explain
from test_backends import PICTURES, network
backends.set_num_threads(3)
counts = []
for threads in (1, 2, None):
    explanation = Explainer(network(), backend="native", threads=threads)(PICTURES)
    counts.append(len(os.listdir("/proc/self/task")))
print(counts[1] - counts[0], counts[2] - counts[0])
"""


@needs_native
@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="threads are counted as Linux shows them")
def test_a_call_uses_no_more_threads_than_it_may() -> None:
    assert python(LIMIT.format(tests=str(Path(__file__).parent))) == "1 2"


FORK = """
import os, sys, warnings
sys.path.insert(0, {tests!r})
warnings.simplefilter("ignore", DeprecationWarning)  # Python warns of forks in programs with threads
import numpy as np
from lrpfast import Explainer, backends
from test_backends import PICTURES, dense, network
backends.set_num_threads(2)
module = backends.get({name!r})
explainer = Explainer(network(), "epsilon_plus", backend={name!r})
answers = lambda: [{answers}]
expected = answers()
for generation in range(2):
    if os.fork() == 0:
        assert answers() == expected
        if generation == 1:
            os._exit(0)
    else:
        status = os.waitstatus_to_exitcode(os.wait()[1])
        assert answers() == expected
        if generation == 0:
            print(status)
        os._exit(status) if generation else sys.exit(status)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="the system has no fork")
@pytest.mark.parametrize(
    "answers",
    [
        "dense(module).tobytes()",
        "explainer(PICTURES).relevance.tobytes(), explainer.network.predict(PICTURES).tobytes()",
    ],
    ids=["kernels", "explainers"],
)
@pytest.mark.parametrize("name", BACKENDS)
def test_what_was_used_before_a_fork_works_in_the_child(name: str, answers: str) -> None:
    """And in the child's child, and in the parent afterwards."""
    assert python(FORK.format(tests=str(Path(__file__).parent), name=name, answers=answers)) == "0"
