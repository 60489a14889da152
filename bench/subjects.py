"""What the benchmarks run: a network, one picture for it, and onnxruntime to measure against."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import lrpfast
from lrpfast import demo

sys.path.append(str(Path(__file__).parents[1] / "tests"))
from networks import HIGH, LOW, network, photograph

Array = NDArray[np.float32]


@dataclass(frozen=True)
class Subject:
    """A network and an input of batch 1.

    Attributes
    ----------
    path : Path
        The ONNX file.
    network : lrpfast.Network
        The same, loaded.
    x : array of float32, (1, c, h, w)
    low, high : float
        The range that the values of `x` come from.
    """

    path: Path
    network: lrpfast.Network
    x: Array
    low: float
    high: float

    def explainer(self, composite: str, threads: int) -> lrpfast.Explainer:
        """Explains with the preset of that name; one that needs the range of the input is given it."""
        box = {"low": self.low, "high": self.high} if composite == "epsilon_gamma_box" else {}
        return lrpfast.Explainer(self.network, lrpfast.composite(composite, **box), threads=threads)


@cache
def subject(name: str) -> Subject:
    """One of `NETWORKS` of tests/networks.py with a photograph, or "demo" with a picture of its own."""
    if name == "demo":
        images, _ = demo.samples()
        return Subject(demo.MODEL, lrpfast.load(demo.MODEL), demo.prepare(images[:1]), 0.0, 1.0)
    path = network(name).path
    return Subject(path, lrpfast.load(path), photograph("coffee"), LOW, HIGH)


@cache
def onnxruntime_predict(path: Path, threads: int) -> Callable[[Array], Array]:
    """onnxruntime's inference on the CPU as a function of the input."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name

    def predict(x: Array) -> Array:
        output: Array = session.run(None, {name: x})[0]
        return output

    return predict


def prediction_error(output: NDArray[Any], expected: NDArray[Any]) -> float:
    """The largest difference as a share of the largest output."""
    return float(np.abs(output - expected).max() / np.abs(expected).max())
