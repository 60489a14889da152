"""What the benchmarks run: networks, inputs for them, and onnxruntime to measure against."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

import lrpfast
from lrpfast import backends, demo
from lrpfast.benchmark import onnxruntime_predictor
from lrpfast.benchmark_profile import operations
from lrpfast.composites import assign
from lrpfast.lower import lower
from lrpfast.plan import Plan
from lrpfast.steps import KernelCall, Step

sys.path.append(str(Path(__file__).parents[1] / "tests"))
from networks import HIGH, LOW, network

Array = NDArray[np.float32]


@dataclass(frozen=True)
class Subject:
    """A network, and where its inputs come from.

    Attributes
    ----------
    name : str
    path : Path
        The ONNX file.
    network : lrpfast.Network
        The same, loaded.
    pictures : callable
        Makes a batch of so many different inputs.
    low, high : float
        The range of their values.
    """

    name: str
    path: Path
    network: lrpfast.Network
    pictures: Callable[[int], Array]
    low: float
    high: float

    def composite(self, name: str) -> lrpfast.Composite:
        """The preset of that name; one that needs the range of the input is given it."""
        box = {"low": self.low, "high": self.high} if name == "epsilon_gamma_box" else {}
        return lrpfast.composite(name, **box)

    def explainer(self, composite: str, threads: int, backend: str | None = None) -> lrpfast.Explainer:
        """Explains with the preset of that name."""
        return lrpfast.Explainer(self.network, self.composite(composite), threads=threads, backend=backend)

    def plan(self, composite: str = "") -> Plan:
        """What is run to explain with the preset of that name, or to predict if none is named."""
        graph = self.network.canonized(np.float32).graph
        assigned = assign(self.composite(composite), graph) if composite else None
        return lower(graph, assigned, backends.get())

    def products(self, composite: str) -> float:
        """Products with the layers' matrices that an explanation takes.

        A product counts as much as its layer's share of all multiplications of a prediction, which is 1.
        """
        return multiplications(self.plan(composite)) / multiplications(self.plan())


@cache
def subject(name: str) -> Subject:
    """One of `NETWORKS` of tests/networks.py with photographs, or "demo" with pictures of its own."""
    if name == "demo":
        return Subject(name, demo.MODEL, lrpfast.load(demo.MODEL), demo_pictures, 0.0, 1.0)
    net = network(name)
    return Subject(name, net.path, lrpfast.load(net.path), net.pictures, LOW, HIGH)


def multiplications(plan: Plan) -> int:
    """Of all convolutions and dense layers of a plan."""
    steps = [s for s in (*plan.forward, *plan.vjp) if s.label().startswith(("conv", "gemm", "depthwise"))]
    return sum(work(step) for step in steps) // 2


def work(step: Step) -> int:
    """Operations of a step per sample; twice as many where a convolution has two parts of its weights."""
    two = isinstance(step, KernelCall) and step.arguments.get("other_part") is not None
    return (operations(step) or 0) * (2 if two else 1)


def demo_pictures(n: int) -> Array:
    """The samples of the demo, as often as need be."""
    images, _ = demo.samples()
    return np.resize(demo.prepare(images), (n, 1, 28, 28))


@cache
def onnxruntime_predict(path: Path, threads: int) -> Callable[[Array], Array]:
    """onnxruntime's inference on the CPU as a function of the input."""
    return onnxruntime_predictor(path, threads)
