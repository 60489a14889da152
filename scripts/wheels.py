"""Build the sdist and all wheels that this machine can build, and try each where no compiler is to be found.

    python scripts/wheels.py                # into dist/: `make wheel`
    python scripts/wheels.py --here         # for this Python alone, and the pure one

Everything is built from the sdist: a native wheel for each CPython here that the project supports (those on PATH and
in ~/.pyenv), and one without the C++ kernels. A wheel is built in a fresh environment that holds what the project
asks for to be built, without a network; repaired and stripped by auditwheel; installed in another fresh environment;
and checked there by `check_install.py`, with a PATH that leads to no compiler. On x86-64 the native wheel of the
Python that runs this is checked once more under qemu, on a CPU without AVX.

Nothing reaches dist/ unless all is well. Needs the dependency group `wheel`, and a C++ compiler.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import build

ROOT = Path(__file__).resolve().parents[1]
CHECK = ROOT / "scripts" / "check_install.py"
LARGEST = 3_000_000  # bytes of a wheel

COMPILERS = ("cc", "c++", "gcc", "g++", "clang", "clang++", "cmake", "ninja", "make")

# A compiler's libstdc++ may be newer than its libc: systems with the one would lack the other. What of it is linked in
# takes 0.1 MB.
STATIC = "-static-libstdc++ -Wl,--exclude-libs,ALL -Wl,--gc-sections"

# The oldest CPU that NumPy's own wheels run on: SSE4.2 and no AVX.
OLD_CPU = "Nehalem"

DESCRIBE = """
import json, os, sys, sysconfig
free = bool(sysconfig.get_config_var("Py_GIL_DISABLED"))
print(json.dumps({
    "implementation": sys.implementation.name,
    "version": "%d.%d" % sys.version_info[:2],
    "threading": "t" if free else "",
    "headers": os.path.isfile(os.path.join(sysconfig.get_path("include"), "Python.h")),
}))
"""


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--here", action="store_true", help="only for the Python that runs this, and the pure one"
    )
    parser.add_argument("--out", type=Path, default=ROOT / "dist", help="default: dist")
    parser.add_argument("-C", dest="settings", action="append", default=[], metavar="KEY=VALUE",
                        help="handed to the build, such as cmake.define.LRPFAST_WERROR=ON")  # fmt: skip
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    first, *others = [own()] if options.here else interpreters()
    with tempfile.TemporaryDirectory(prefix="lrpfast-wheels-") as folder:
        workshop = Workshop(Path(folder), options.settings)
        sdist = workshop.sdist()
        tree = workshop.unpacked(sdist)
        native, installed = workshop.wheel(tree, first, "native")
        try_on_old_cpu(installed)
        pure, _ = workshop.wheel(tree, first, "numba")
        more = [workshop.wheel(tree, python, "native")[0] for python in others]
        for file in (sdist, native, pure, *more):
            shutil.move(file, options.out / file.name)
    say(f"all of them are in {options.out}")


def say(text: str) -> None:
    print(text, flush=True)


# --- interpreters ---


@dataclass(frozen=True)
class Interpreter:
    """A Python, and what it is: ``3.13``, or ``3.13t`` without a GIL."""

    path: str
    name: str


def supported() -> list[str]:
    """The versions that the project's classifiers name."""
    return re.findall(r'"Programming Language :: Python :: (3\.\d+)"', (ROOT / "pyproject.toml").read_text())


def interpreters() -> list[Interpreter]:
    """All CPythons here that can build for the project, the one that runs this first; says which cannot."""
    names = [f"python{version}{threading}" for version in supported() for threading in ("", "t")]
    pyenv = Path(os.environ.get("PYENV_ROOT", "~/.pyenv")).expanduser()
    paths = [*filter(None, map(shutil.which, names)), *map(str, sorted(pyenv.glob("versions/*/bin/python")))]
    found = {own().name: own()}
    for path in paths:
        interpreter = described(path)
        if interpreter is not None:
            found.setdefault(interpreter.name, interpreter)
    return list(found.values())


def own() -> Interpreter:
    interpreter = described(sys.executable)
    if interpreter is None:
        raise SystemExit(f"{sys.executable} cannot build lrpfast: run this with another Python")
    return interpreter


def described(path: str) -> Interpreter | None:
    """What a Python is; None where the project is not for it, and, said so, where it lacks its headers."""
    asked = subprocess.run([path, "-c", DESCRIBE], capture_output=True, text=True)
    if asked.returncode:
        return None  # a shim of pyenv for a version that is not chosen
    answer = json.loads(asked.stdout)
    if answer["implementation"] != "cpython" or answer["version"] not in supported():
        return None
    name = answer["version"] + answer["threading"]
    obstacle = "" if answer["headers"] else "it has no Python.h"
    if name == "3.13t":
        obstacle = "Numba is not to be had for it; 3.14t is the first without a GIL for which it is"
    if obstacle:
        say(f"no wheel by {path}: {obstacle}")
        return None
    return Interpreter(path, name)


# --- what is done ---


class Workshop:
    """A folder for all that is in the making.

    Parameters
    ----------
    folder : Path
        Empty; somebody else removes it.
    settings : sequence of str
        For the build backend, each KEY=VALUE.
    """

    def __init__(self, folder: Path, settings: Sequence[str]) -> None:
        self.folder = folder
        self.settings = [f"-C{setting}" for setting in settings]
        self.offline = offline()
        self._builders: dict[Interpreter, str] = {}

    def sdist(self) -> Path:
        """Make the sdist."""
        run([sys.executable, "-m", "build", "--sdist", "--outdir", self.folder, ROOT])
        (made,) = self.folder.glob("lrpfast-*.tar.gz")
        say(f"{made.name}: {made.stat().st_size / 1e6:.2f} MB")
        return made

    def unpacked(self, sdist: Path) -> Path:
        """What the wheels are built from."""
        with tarfile.open(sdist) as archive:
            archive.extractall(self.folder, filter="data")
        return self.folder / sdist.name.removesuffix(".tar.gz")

    def wheel(self, tree: Path, python: Interpreter, backend: str) -> tuple[Path, Path]:
        """Build a wheel and try it; where it is, and the Python of the environment that it is installed in.

        Parameters
        ----------
        tree : Path
            The sources.
        python : Interpreter
        backend : {"native", "numba"}
            What is to compute: the wheel has the C++ kernels, or is the pure one.
        """
        began = time.perf_counter()
        wheel = self.built(tree, python, backend)
        if backend == "native":
            wheel = self.repaired(wheel)
        size = wheel.stat().st_size
        if size > LARGEST:
            raise SystemExit(f"{wheel.name} has {size} bytes, expected at most {LARGEST}")
        built = time.perf_counter()
        installed = self.environment(f"{python.name}-{backend}", python)
        run([*pip(installed), "install", "--only-binary=:all:", wheel])
        answer = run([installed, CHECK, backend], without_compiler(installed))
        say(f"{wheel.name}: {size / 1e6:.2f} MB; built in {built - began:.0f} s, "
            f"installed and checked in {time.perf_counter() - built:.0f} s\n    {answer}")  # fmt: skip
        return wheel, installed

    def built(self, tree: Path, python: Interpreter, backend: str) -> Path:
        """Build a wheel in an environment with no more than the build asks for, and without a network."""
        out = self.folder / f"{python.name}-{backend}-built"
        builder = self.builder(tree, python)
        switch = {"LRPFAST_REQUIRE_NATIVE": "1"} if backend == "native" else {"LRPFAST_PURE": "1"}
        if backend == "native" and sys.platform == "linux":
            switch["LDFLAGS"] = f"{os.environ.get('LDFLAGS', '')} {STATIC}"
        run([*self.offline, *pip(builder), "wheel", "--no-index", "--no-deps", "--no-build-isolation", *self.settings,
             "--wheel-dir", out, tree], with_first(builder) | switch)  # fmt: skip
        return only(out)

    def builder(self, tree: Path, python: Interpreter) -> str:
        """The Python of an environment to build in."""
        if python not in self._builders:
            builder = self.environment(f"{python.name}-builder", python)
            project = build.ProjectBuilder(tree, python_executable=builder)
            run([*pip(builder), "install", *project.build_system_requires])
            if more := project.get_requires_for_build("wheel"):  # CMake and Ninja, unless they are there
                run([*pip(builder), "install", *more])
            self._builders[python] = builder
        return self._builders[python]

    def repaired(self, wheel: Path) -> Path:
        """The wheel with the oldest manylinux tag that its symbols allow, and without those that nothing needs."""
        if sys.platform != "linux":
            return wheel
        out = wheel.parent / "repaired"
        run([sys.executable, "-m", "auditwheel", "repair", "--strip", "--wheel-dir", out, wheel],
            with_first(sys.executable))  # fmt: skip
        return only(out)

    def environment(self, name: str, python: Interpreter) -> str:
        """A new virtual environment; its Python."""
        run([python.path, "-m", "venv", self.folder / name])
        return str(self.folder / name / "bin" / "python")


def try_on_old_cpu(python: str) -> None:
    """Check a native wheel on an emulated CPU without AVX: the bits are those of the baseline target here."""
    emulator = shutil.which("qemu-x86_64")
    if platform.machine() != "x86_64":
        return
    if emulator is None:
        say(f"no {OLD_CPU} is emulated: there is no qemu-x86_64 (Debian: apt-get install qemu-user)")
        return
    began = time.perf_counter()
    check = [python, CHECK, "native", "--target", "baseline"]
    bare = without_compiler(python)
    bare.pop("OPENBLAS_CORETYPE", None)  # is meant for the CPU that is really there
    emulated = run([emulator, "-cpu", OLD_CPU, *check], bare)
    here = run(check, bare | {"LRPFAST_TARGET": "baseline"})
    if emulated != here:
        raise SystemExit(
            f"on an emulated {OLD_CPU}:\n    {emulated}\nand with LRPFAST_TARGET=baseline here:\n    {here}"
        )
    seconds = time.perf_counter() - began
    say(f"on an emulated {OLD_CPU} the same bits as here, checked in {seconds:.0f} s:\n    {emulated}")


# --- commands and what they find ---


def run(command: Sequence[str | Path], environment: Mapping[str, str] = os.environ) -> str:
    """Run a command; the last line that it prints. If it fails, all that it prints is shown, and this ends."""
    done = subprocess.run(
        command, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    if done.returncode:
        raise SystemExit(
            f"{done.stdout}\n{' '.join(map(str, command))}\nfailed with exit code {done.returncode}"
        )
    return (done.stdout.strip().splitlines() or [""])[-1]


def only(folder: Path) -> Path:
    (file,) = folder.iterdir()
    return file


def pip(python: str) -> list[str]:
    return [python, "-m", "pip", "--disable-pip-version-check"]


def offline() -> list[str]:
    """What is put before a command that must not reach a network; says so where that cannot be had."""
    unshare = shutil.which("unshare")
    alone = [unshare, "--map-root-user", "--net"] if unshare else []
    if alone and subprocess.run([*alone, "true"], capture_output=True).returncode == 0:
        return alone
    say(
        "wheels are built with pip --no-index, but not kept from the network: unshare --net cannot be used here"
    )
    return []


def with_first(python: str) -> dict[str, str]:
    """The environment with a Python's own commands before all others."""
    return dict(os.environ) | {"PATH": f"{Path(python).parent}{os.pathsep}{os.environ['PATH']}"}


def without_compiler(python: str) -> dict[str, str]:
    """The environment of a machine that has Python and nothing to build with; no setting of lrpfast's in it."""
    bare = {name: value for name, value in os.environ.items() if not name.startswith(("LRPFAST_", "PYTHON"))}
    bare |= {"PATH": str(Path(python).parent), "CC": "there-is-none", "CXX": "there-is-none"}
    found = [name for name in COMPILERS if shutil.which(name, path=bare["PATH"])]
    if found:
        raise SystemExit(f"{bare['PATH']} has {', '.join(found)}, though nothing is to be compiled")
    return bare


if __name__ == "__main__":
    main()
