"""Whether lrpfast, as it is installed for the Python that runs this, is whole and computes what it should.

    python scripts/check_install.py native

Run by `make wheel` in an environment of each wheel's own, under an emulated CPU too, and by cibuildwheel. Needs
nothing but lrpfast. The last line of output ends in a hash of the relevance: where the same bits are expected, it
is the same.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import importlib.metadata
import io
import json
import sys
import sysconfig
import tempfile
from collections.abc import Iterable
from pathlib import Path, PurePath
from typing import Any

LARGEST = 3_000_000  # bytes of _core
SOURCES = {".cpp", ".hpp", ".def", ".o", ".a", ".cmake", ".toml"}
CLOSE = {"float64": 1e-10, "float32": 1e-4}  # of the largest relevance


def require(holds: bool, why: str) -> None:
    if not holds:
        raise SystemExit(f"check_install: {why}")


def misplaced(files: Iterable[PurePath], name: str, native: bool) -> list[str]:
    """What is wrong with the list of files that were installed, in words.

    Parameters
    ----------
    files : iterable of PurePath
        Relative to site-packages.
    name : str
        Of the folder of metadata.
    native : bool
        Whether the C++ kernels have to be there, or must not be.
    """
    found = {file.as_posix() for file in files}
    wanted = {"lrpfast/py.typed", "lrpfast/_core.pyi", "lrpfast/demo/fashion.onnx"}
    wanted |= {f"{name}/licenses/{text}" for text in ("LICENSE", "NOTICE")}
    wrong = [f"{file} is missing" for file in sorted(wanted - found)]
    kernels = [file for file in found if file.startswith("lrpfast/_core.") and not file.endswith(".pyi")]
    if len(kernels) != int(native):
        wrong.append(f"of compiled kernels there are {kernels}, expected {'one' if native else 'none'}")
    for file in map(PurePath, sorted(found)):
        ours = file.parts[0] in ("lrpfast", name, "..")  # what is above is the command
        if not ours or file.suffix in SOURCES or "tests" in file.parts:
            wrong.append(f"{file} does not belong there")
    return wrong


def check_files(native: bool) -> None:
    """What was installed is where it belongs, and not the sources beside this script."""
    import lrpfast

    here = Path(lrpfast.__file__).parent
    require(here.is_relative_to(sysconfig.get_path("platlib")) or here.is_relative_to(sysconfig.get_path("purelib")),
            f"lrpfast is imported from {here}, not from where it was installed")  # fmt: skip
    installed = importlib.metadata.distribution("lrpfast")
    require(installed.version == lrpfast.__version__,
            f"the metadata are of {installed.version}, the code of {lrpfast.__version__}")  # fmt: skip
    wrong = misplaced(installed.files or (), f"lrpfast-{installed.version}.dist-info", native)
    require(not wrong, "; ".join(wrong))
    for kernels in here.glob("_core.*.so"):
        size = kernels.stat().st_size
        require(size <= LARGEST, f"{kernels.name} has {size} bytes, expected at most {LARGEST}")


def check_threads() -> None:
    """An interpreter without a GIL goes on without it once the kernels are loaded."""
    if sysconfig.get_config_var("Py_GIL_DISABLED"):
        import lrpfast._core  # noqa: F401

        require(not sys._is_gil_enabled(), "lrpfast._core has switched the GIL on")


def check_explanations(backend: str) -> str:
    """The embedded samples are explained alike by the backend and by the definition; a hash of the relevance."""
    import numpy as np

    from lrpfast import Explainer, demo, load

    network, pictures = load(demo.MODEL), demo.prepare(demo.samples()[0])
    # With grain: in areas of one colour, rounding would decide who wins a max-pool.
    grain = np.random.default_rng(0).random(pictures.shape, np.float32)
    x = pictures * np.float32(0.875) + grain * np.float32(0.125)
    explain = Explainer(network)
    require(explain.backend.name == backend, f"{explain.backend.name} explains, expected {backend}")
    wanted = np.asarray(Explainer(network, backend="numpy", dtype=np.float64)(x).relevance)
    scale = np.abs(wanted).max()
    for dtype, close in CLOSE.items():
        found = Explainer(network, dtype=dtype)(x)
        far = float(np.abs(found.relevance - wanted).max() / scale)
        require(
            far <= close, f"{backend} and numpy differ by {far:.1e} in {dtype}, expected at most {close:g}"
        )
        require(found.conservation.worst < 1e-4, f"unexplained relevance: {found.conservation.worst:.1e}")
    alone = explain(x, threads=1).relevance
    require(alone.tobytes() == found.relevance.tobytes(), "one thread and several make different bits")
    return hashlib.sha256(alone.tobytes()).hexdigest()


def command(*arguments: str) -> str:
    """Run the installed command `lrpfast` in this process: another one might not be emulated."""
    (entry,) = importlib.metadata.distribution("lrpfast").entry_points.select(
        group="console_scripts", name="lrpfast"
    )
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        try:
            entry.load()(list(arguments))
        except SystemExit as end:
            require(end.code in (None, 0), f"lrpfast {' '.join(arguments)} exits with {end.code}")
    return out.getvalue()


def check_commands(backend: str) -> dict[str, Any]:
    """`lrpfast doctor` and `lrpfast demo` do what they say; what the doctor says."""
    from PIL import Image

    with tempfile.TemporaryDirectory() as folder:
        picture = Path(folder) / "demo.png"
        command("demo", "-o", str(picture))
        with Image.open(picture) as image:
            image.load()
    found: dict[str, Any] = json.loads(command("doctor", "--json"))
    require(found["used"] == backend, f"the doctor says that {found['used']} is used, expected {backend}")
    return found


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("backend", choices=("native", "numba"), help="which one has to compute")
    parser.add_argument("--target", help="the SIMD target that has to be active, such as baseline")
    options = parser.parse_args()
    native = options.backend == "native"
    check_files(native)
    if native:
        check_threads()
    relevance = check_explanations(options.backend)
    require(not (native and "numba" in sys.modules), "numba is imported, though the native backend computes")
    found = check_commands(options.backend)
    active = found["simd"]["active"] if native else ""
    require(options.target in (None, active), f"the SIMD target is {active}, expected {options.target}")
    backend = " ".join(filter(None, (options.backend, active)))
    print(f"lrpfast {found['lrpfast']}, Python {found['python']}, {backend}: relevance {relevance}")


if __name__ == "__main__":
    main()
