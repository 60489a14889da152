"""What only the Numba backend has: compiled code that outlives the process, and arrays of one lane."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import lrpfast
from lrpfast import backends
from lrpfast.backends.ending import Ending
from lrpfast.errors import InputError

pytestmark = pytest.mark.skipif(bool(backends.available()["numba"]), reason="numba is not installed")
posix = pytest.mark.skipif(os.name == "nt", reason="permissions, and where the home directory is, are POSIX'")

COLLECT = """
import numpy as np
from lrpfast import backends
from lrpfast.backends import numba_kernels
from lrpfast.backends.ending import Ending
a, out = np.ones((2, 3, 5, 1), np.float32), np.zeros((2, 3, 5, 1), np.float32)
backends.get("numba").collect(a, (2, 1), Ending(out))
assert (out == 2).all()
stats = numba_kernels.collect.stats
print(sum(stats.cache_hits.values()), sum(stats.cache_misses.values()), stats.cache_path)
"""


@pytest.fixture
def locked(tmp_path: Path) -> dict[str, str]:
    """The environment of a program for which neither the package nor the home directory can be written."""
    package = tmp_path / "lrpfast"
    shutil.copytree(
        Path(lrpfast.__file__).parent, package, ignore=shutil.ignore_patterns("__pycache__", "*.so", "demo")
    )
    nowhere = package / "backends" / "__pycache__"
    nowhere.touch()  # a file, in which not even root can make files
    (tmp_path / "tmp").mkdir()
    clean = {key: value for key, value in os.environ.items() if not key.startswith(("LRPFAST_", "NUMBA_"))}
    homes = dict.fromkeys(("HOME", "XDG_CACHE_HOME", "LOCALAPPDATA"), str(nowhere))
    temporary = dict.fromkeys(("TMPDIR", "TEMP", "TMP"), str(tmp_path / "tmp"))
    return clean | homes | temporary | {"PYTHONPATH": str(tmp_path), "PYTHONDONTWRITEBYTECODE": "1"}


def hits_and_misses(env: dict[str, str]) -> tuple[int, int, str]:
    """Of the cache, in a process that calls one kernel; and where the cache is."""
    done = subprocess.run(
        [sys.executable, "-c", COLLECT], env=env, capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr
    hits, misses, path = done.stdout.split(maxsplit=2)
    return int(hits), int(misses), path.strip()


@posix
def test_compiled_code_is_kept_where_package_and_home_are_read_only(locked: dict[str, str]) -> None:
    hits, misses, path = hits_and_misses(locked)
    assert (hits, misses) == (0, 1)
    assert path.startswith(locked["TMPDIR"])
    assert hits_and_misses(locked)[:2] == (1, 0)


@posix
def test_compiled_code_that_others_could_have_written_is_not_used(locked: dict[str, str]) -> None:
    hits_and_misses(locked)
    (folder,) = Path(locked["TMPDIR"]).glob("lrpfast-numba-*")
    folder.chmod(0o777)
    hits, _, path = hits_and_misses(locked)
    assert hits == 0 and path == "None"


def test_arrays_of_several_lanes_are_refused() -> None:
    numba = backends.get("numba")
    a, conv = np.ones((1, 1, 1, 3, 3, 8), np.float32), np.ones((8, 8, 1, 1, 1), np.float32)
    one, none = (1, 1, 1), (0, 0, 0)
    with pytest.raises(InputError, match="conv_forward: there are arrays of 8 lanes"):
        numba.conv_forward(a, conv, one, none, one, 1, (1, 1), (1, 1), None, False, Ending(a.copy()))
    a = a.reshape(1, 1, 9, 8)
    with pytest.raises(InputError, match="reorder: there are arrays of 8 lanes"):
        numba.reorder(a, 8, Ending(np.ones((1, 8, 9, 1), np.float32)))
