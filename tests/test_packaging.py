"""What is looked for in an installed wheel (scripts/check_install.py), which has to find what is wrong."""

from __future__ import annotations

import importlib.util
from pathlib import Path, PurePosixPath
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[1]
NAME = "lrpfast-1.0.dist-info"
PURE = [
    "lrpfast/__init__.py",
    "lrpfast/__pycache__/__init__.cpython-313.pyc",
    "lrpfast/_core.pyi",
    "lrpfast/py.typed",
    "lrpfast/demo/fashion.onnx",
    f"{NAME}/METADATA",
    f"{NAME}/licenses/LICENSE",
    f"{NAME}/licenses/NOTICE",
    "../../../bin/lrpfast",
]
KERNELS = "lrpfast/_core.cpython-313-x86_64-linux-gnu.so"


@pytest.fixture(scope="module")
def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("check_install", ROOT / "scripts/check_install.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def wrong(script: ModuleType, files: list[str], native: bool = False) -> list[str]:
    found: list[str] = script.misplaced(map(PurePosixPath, files), NAME, native)
    return found


def test_wheels_that_are_whole(script: ModuleType) -> None:
    assert wrong(script, PURE) == []
    assert wrong(script, [*PURE, KERNELS], native=True) == []


@pytest.mark.parametrize(
    "file", ["lrpfast/py.typed", "lrpfast/_core.pyi", f"{NAME}/licenses/LICENSE", f"{NAME}/licenses/NOTICE"]
)
def test_what_is_missing_is_named(script: ModuleType, file: str) -> None:
    assert wrong(script, [other for other in PURE if other != file]) == [f"{file} is missing"]


@pytest.mark.parametrize(
    "file",
    [
        "tests/test_api.py",
        "lrpfast/tests/test_api.py",
        "lrpfast/bindings.cpp",
        "csrc/kernels.def",
        "lib/x.py",
    ],
)
def test_what_does_not_belong_there_is_named(script: ModuleType, file: str) -> None:
    assert wrong(script, [*PURE, file]) == [f"{file} does not belong there"]


def test_kernels_are_where_they_should_be_and_nowhere_else(script: ModuleType) -> None:
    assert wrong(script, PURE, native=True) == ["of compiled kernels there are [], expected one"]
    assert wrong(script, [*PURE, KERNELS]) == [f"of compiled kernels there are ['{KERNELS}'], expected none"]
