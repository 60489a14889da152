"""Trained networks with inputs, ready for the flip test (flipping.py): what is removed, and in which steps.

>>> case = CASES["photographs"]()
>>> case.measure().fall, case.measure().random_fall
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import Any

import numpy as np
from flipping import Flips, blocks, flips, mean, probability
from networks import efficientnet_lite0
from numpy.typing import NDArray
from real_networks import PAD as NO_BYTE
from real_networks import digits_mlp, magika_input, magika_path
from text_networks import LENGTH, LIBRARIES, PAD, UNKNOWN, text_cnn

import lrpfast
from lrpfast import Composite, Epsilon

Array = NDArray[Any]

EPSILON = Composite("epsilon", [("convolution", Epsilon()), *lrpfast.composite("epsilon_plus").rules])
"""ε in convolutions, too."""

FILES = {
    "tests/peers.py": "python",
    "csrc/threads.cpp": "cpp",
    "pyproject.toml": "toml",
    "CMakePresets.json": "json",
    "README.md": "markdown",
    "Makefile": "makefile",
    ".ci/run": "shell",
    "docs/images/demo.png": "png",
}
"""Files of this repository, and what magika takes them for."""


@dataclass(frozen=True)
class Case:
    """A network and samples.

    Attributes
    ----------
    network : lrpfast.Network
    x : array (n, …)
    composite : Composite or str
    blank : float
        What takes the place of an input that is removed.
    unit : str
        What is removed, in words.
    steps : tuple of float
        Shares of the units that are removed.
    units : array of int, shape of x, optional
        As for `flips`, for each sample.
    orders : int
        Random orders for each sample.
    """

    network: lrpfast.Network
    x: Array
    composite: Composite | str
    blank: float
    unit: str
    steps: tuple[float, ...]
    units: Array | None = None
    orders: int = 5

    @cached_property
    def explanation(self) -> lrpfast.Explanation:
        """The explanation of each sample's top class."""
        return lrpfast.explain(self.network, self.x, composite=self.composite)

    def measure(self) -> Flips:
        """The flip test, averaged over the samples."""
        relevance, targets = self.explanation.relevance_of(), self.explanation.target
        return mean(
            flips(
                probability(self.network, int(targets[i])), x, relevance[i], self.blank, self.steps,
                None if self.units is None else self.units[i], self.orders,
            )
            for i, x in enumerate(self.x)
        )  # fmt: skip


@cache
def digits() -> Case:
    """Pixels of digits, for scikit-learn's MLP: their ink goes."""
    mlp = digits_mlp()
    network = lrpfast.load(mlp.model, output="probabilities")
    return Case(network, mlp.x[:40], "epsilon_plus", 0, "pixel", _steps(1 / 64, 16))


@cache
def photographs() -> Case:
    """Squares of 16 by 16 pixels of photographs, for EfficientNet-Lite0: they become grey."""
    net = efficientnet_lite0()
    x = net.pictures(3)
    units = np.stack([blocks(sample.shape, 16) for sample in x])
    network = lrpfast.load(net.path)
    return Case(network, x, "epsilon_plus", 0, "square of 16 × 16 pixels", _steps(0.04, 8), units, 3)


@cache
def words() -> Case:
    """Words of docstrings whose library is recognised: the word for those that are unknown takes their place."""
    net = text_cnn()
    network, x = lrpfast.load(net.path), net.tokens(net.held_out)
    right = network.predict(x).argmax(1) == [LIBRARIES.index(text.library) for text in net.held_out]
    x = x[right][:40]
    units = np.where(x == PAD, -1, np.arange(LENGTH))
    return Case(network, x, EPSILON, UNKNOWN, "word", _steps(0.05, 6), units)


@cache
def files() -> Case:
    """Bytes of files, for magika: they become what it reads where there are none."""
    root = Path(__file__).parents[1]
    x = np.stack([magika_input((root / name).read_bytes()) for name in FILES])
    units = np.where(x == NO_BYTE, -1, np.arange(x.shape[1]))
    return Case(lrpfast.load(magika_path()), x, EPSILON, NO_BYTE, "byte", _steps(0.1, 5), units, 2)


def _steps(share: float, count: int) -> tuple[float, ...]:
    return tuple(share * (step + 1) for step in range(count))


CASES: dict[str, Callable[[], Case]] = {
    "digits": digits,
    "photographs": photographs,
    "words": words,
    "files": files,
}
"""All of them; each is made once."""
