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
from lrpfast import demo
from lrpfast.benchmark import onnxruntime_predictor

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

    def explainer(self, composite: str, threads: int) -> lrpfast.Explainer:
        """Explains with the preset of that name; one that needs the range of the input is given it."""
        box = {"low": self.low, "high": self.high} if composite == "epsilon_gamma_box" else {}
        return lrpfast.Explainer(self.network, lrpfast.composite(composite, **box), threads=threads)


@cache
def subject(name: str) -> Subject:
    """One of `NETWORKS` of tests/networks.py with photographs, or "demo" with pictures of its own."""
    if name == "demo":
        return Subject(name, demo.MODEL, lrpfast.load(demo.MODEL), demo_pictures, 0.0, 1.0)
    net = network(name)
    return Subject(name, net.path, lrpfast.load(net.path), net.pictures, LOW, HIGH)


def demo_pictures(n: int) -> Array:
    """The samples of the demo, as often as need be."""
    images, _ = demo.samples()
    return np.resize(demo.prepare(images), (n, 1, 28, 28))


@cache
def onnxruntime_predict(path: Path, threads: int) -> Callable[[Array], Array]:
    """onnxruntime's inference on the CPU as a function of the input."""
    return onnxruntime_predictor(path, threads)
