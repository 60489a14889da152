"""The package as such: what importing it costs, what it exports, and that it says what everything is."""

from __future__ import annotations

import inspect
import json
import re
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import pytest

import lrpfast
from lrpfast import COMPOSITES, OPERATORS, RULES, Rule
from lrpfast.ops import FUNCTIONS, Function, Op

ROOT = Path(__file__).parents[1]
HEAVY = (
    "numba",
    "onnx",
    "onnxruntime",
    "PIL",
    "click",
    "matplotlib",
    "tokenizers",
    "pyarrow",
    "fsspec",
    "zarr",
    "ray",
    "pandas",
    "torch",
    "scipy",
    "hypothesis",
    "pytest",
)


def modules_after(code: str) -> set[str]:
    """The top-level modules that a fresh interpreter has loaded after running `code`."""
    code += "\nimport sys, json; print(json.dumps(sorted({name.partition('.')[0] for name in sys.modules})))"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(json.loads(result.stdout.splitlines()[-1]))


@pytest.mark.parametrize("module", ["lrpfast", "lrpfast.batch", "lrpfast.batch.cluster", "lrpfast.ray"])
def test_import_loads_nothing_heavy(module: str) -> None:
    assert modules_after(f"import {module}") & set(HEAVY) == set()


def test_explaining_a_network_by_hand_loads_nothing_heavy_either() -> None:
    code = """
import numpy as np, lrpfast
network = lrpfast.Sequential(lrpfast.Dense(np.ones((2, 3))), lrpfast.ReLU())
lrpfast.explain(network, np.ones((1, 3)), backend="numpy")
"""
    assert modules_after(code) & set(HEAVY) == set()


def test_all_is_sorted_out() -> None:
    assert len(set(lrpfast.__all__)) == len(lrpfast.__all__)
    for name in lrpfast.__all__:
        assert hasattr(lrpfast, name)
    public = {name for name in vars(lrpfast) if not name.startswith("_")}
    modules = {name for name in public if inspect.ismodule(getattr(lrpfast, name))}
    assert public - modules <= set(lrpfast.__all__)


@pytest.mark.parametrize("name", [name for name in lrpfast.__all__ if not name.startswith("_")])
def test_every_public_name_says_what_it_is(name: str) -> None:
    thing = getattr(lrpfast, name)
    if inspect.ismodule(thing) or callable(thing):
        doc = inspect.getdoc(thing)
        assert doc
        assert len(doc.splitlines()[0]) > 8
        assert not doc.startswith(f"{name}(")  # what dataclasses say for want of a docstring
    if inspect.isclass(thing):
        for method, function in vars(thing).items():
            if inspect.isfunction(function) and not method.startswith("_"):
                assert inspect.getdoc(getattr(thing, method)), f"{name}.{method}"


def subclasses(of: type) -> set[type]:
    direct = set(of.__subclasses__())
    return direct.union(*map(subclasses, direct))


def test_registries_are_complete() -> None:
    abstract: set[Any] = {lrpfast.SharingRule}
    ours = {rule for rule in subclasses(Rule) if rule.__module__ == "lrpfast.rules"} - abstract
    assert set(RULES.values()) == ours
    assert all(name == rule.__name__ and name in lrpfast.__all__ for name, rule in RULES.items())

    from lrpfast import composites

    presets = {
        name for name, function in vars(composites).items()
        if inspect.isfunction(function) and not name.startswith("_")
        and function.__module__ == composites.__name__ and inspect.signature(function).return_annotation == "Composite"
    }  # fmt: skip
    assert set(COMPOSITES) == presets - {"composite"}


REQUIRED = (
    "Conv ConvTranspose Gemm MatMul BatchNormalization Relu LeakyRelu Clip Sigmoid Tanh Softmax MaxPool AveragePool "
    "GlobalAveragePool GlobalMaxPool Add Sum Sub Mul Div Concat Flatten Reshape Transpose Squeeze Unsqueeze Identity "
    "Dropout Pad Slice Split Constant ConstantOfShape Cast Shape Gather"
)


def test_all_operators_of_plain_networks_are_supported() -> None:
    assert set(REQUIRED.split()) <= set(OPERATORS)
    assert list(OPERATORS) == sorted(set(OPERATORS))


def test_every_operator_can_be_selected_by_its_kinds() -> None:
    from lrpfast.composites import KINDS

    ours = {op for op in subclasses(Op) if op.__module__.startswith("lrpfast.ops")}
    concrete = {op for op in ours if not subclasses(op)}
    assert len(concrete) >= 20
    kinds = [op.kinds for op in concrete if op is not Function]
    assert {op.__name__ for op in concrete} == {kind[0] for kind in kinds} | {"Function"}
    for first, *others in (*kinds, *(Function(name).kinds for name in FUNCTIONS)):
        assert set(others) & set(KINDS)
        lrpfast.Selector(first)


def test_version_is_the_same_everywhere() -> None:
    assert re.fullmatch(r"\d+\.\d+\.\d+([a-z.]+\d+)?", lrpfast.__version__)
    stated = re.search(r'__version__ = "([^"]+)"', (ROOT / "src/lrpfast/_version.py").read_text())
    assert stated
    assert stated[1] == lrpfast.__version__
    try:
        assert version("lrpfast") == lrpfast.__version__
    except PackageNotFoundError:
        assert str(ROOT) in lrpfast.__file__  # run from the sources


def test_package_is_typed() -> None:
    assert (Path(lrpfast.__file__).parent / "py.typed").is_file()
