"""The kernels under sanitizers: build them with a preset, and run on them the tests of what is made of them.

    python tests/sanitized.py sanitize    # addresses and undefined behaviour
    python tests/sanitized.py threads     # data races

What follows goes to pytest; tests that are named there take the place of all. Any finding fails. Needs GCC, whose
runtime libraries are loaded before Python. Python is not instrumented, nor has it to be: what is looked for is in
csrc. Leaks are not looked for, as CPython leaves memory to the system when it ends; `make soak` measures them.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
RUNTIMES = {"sanitize": "libasan.so", "threads": "libtsan.so"}
TESTS = [
    "bindings", "clamping", "conservation", "elementwise", "extreme_numbers", "feeds", "forms", "kernel_bits",
    "kernel_refusals", "kernels", "layers", "layouts", "memory", "normalization", "plans", "products", "programs",
    "propagate", "repeatability", "rules", "several", "shapes", "transposes",
]  # fmt: skip
"""Those of kernels run on every SIMD target that this machine has."""


def built(preset: str) -> Path:
    """Build the module; returns a folder with the package around it."""
    tools = dict(os.environ, PATH=os.pathsep.join([os.path.dirname(sys.executable), os.environ["PATH"]]))
    for command in (
        ["cmake", "--preset", preset, f"-DPython_EXECUTABLE={sys.executable}"],
        ["cmake", "--build", "--preset", preset],
    ):
        subprocess.run(command, cwd=ROOT, env=tools, check=True)
    package = ROOT / "build" / preset / "package"
    shutil.rmtree(package, ignore_errors=True)
    shutil.copytree(ROOT / "src", package, ignore=shutil.ignore_patterns("*.so", "__pycache__"))
    (module,) = (ROOT / "build" / preset).glob("_core*.so")
    shutil.copy(module, package / "lrpfast")
    return package


def runtime(name: str) -> str:
    """A runtime library of the compiler's."""
    compiler = os.environ.get("CXX", "c++")
    found = subprocess.run(
        [compiler, f"-print-file-name={name}"], capture_output=True, text=True
    ).stdout.strip()
    if not os.path.isabs(found):
        sys.exit(f"{compiler} has no {name}; sanitizers need GCC: install it, or name it in CXX")
    return found


def main(preset: str, *arguments: str) -> int:
    package = built(preset)
    reports = ROOT / "build" / preset / "reports"
    shutil.rmtree(reports, ignore_errors=True)
    reports.mkdir()
    options = (
        f"log_path={reports}/found:exitcode=66"  # of addresses and races; undefined behaviour goes to stderr
    )
    environment = {
        **os.environ,
        "PYTHONPATH": str(package),
        "LRPFAST_TEST_BACKENDS": "native",
        "LRPFAST_BACKEND": "",
        "OPENBLAS_NUM_THREADS": "1",  # NumPy's threads are not instrumented: what they hand over would be races
        # libstdc++ too, or what it throws is not seen to be thrown.
        "LD_PRELOAD": f"{runtime(RUNTIMES[preset])} {runtime('libstdc++.so')}",
        "ASAN_OPTIONS": f"{options}:detect_leaks=0:allocator_may_return_null=1:detect_stack_use_after_return=1",
        "UBSAN_OPTIONS": f"{options}:print_stacktrace=1:halt_on_error=1",
        "TSAN_OPTIONS": f"{options}:suppressions={ROOT}/tests/tsan.supp",
    }
    chosen = any(argument.startswith("tests/") for argument in arguments)
    tests = [] if chosen else [f"tests/test_{name}.py" for name in TESTS]
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "--capture=sys",
        "-p",
        "no:cacheprovider",
        *arguments,
        *tests,
    ]
    code = subprocess.run(command, cwd=ROOT, env=environment).returncode
    found = sorted(reports.iterdir())
    for report in found:
        print(report.read_text(errors="replace"))
    print(f"{len(found)} reports of the sanitizers; pytest ended with {code}")
    return code or len(found) > 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
