"""Trained networks of small size: a dense one for digits, from scikit-learn, and magika, which knows types of files.

>>> mlp = digits_mlp()
>>> network = lrpfast.load(mlp.model, output="probabilities")
>>> network = lrpfast.load(magika_path())
>>> network.predict(magika_input(Path(__file__).read_bytes())[None])

A text classifier: text_networks.py. Larger networks: networks.py.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

# --- scikit-learn's classifier of its own digits ---


@dataclass(frozen=True)
class DigitsMLP:
    """A dense network 64-64-32-10.

    Attributes
    ----------
    model : onnx.ModelProto
        What skl2onnx makes of it: its outputs are `label` and `probabilities`.
    classifier : sklearn.neural_network.MLPClassifier
    x, y : array (360, 64), array (360,)
        Pictures of 8 by 8 pixels, from 0 to 16, and their digits; the network was not trained on them.
    """

    model: onnx.ModelProto
    classifier: Any
    x: NDArray[np.float32]
    y: NDArray[np.int64]


@cache
def digits_mlp() -> DigitsMLP:
    """Train and convert the network; that takes half a second."""
    from skl2onnx import to_onnx
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split
    from sklearn.neural_network import MLPClassifier

    digits = load_digits()
    pixels = digits.data.astype(np.float32)
    training, x, labels, y = train_test_split(pixels, digits.target, test_size=360, random_state=0)
    classifier = MLPClassifier((64, 32), max_iter=500, random_state=0).fit(training, labels)
    return DigitsMLP(to_onnx(classifier, x[:1], options={"zipmap": False}), classifier, x, y)


# --- magika ---

PAD = 256
"""What magika reads where a file has no more bytes."""

BEGIN = END = 1024
"""How many of a file's first and last bytes magika reads."""

BLOCK = 4096
"""Among how many bytes it looks for the first and last that are not blank."""


def magika_path() -> Path:
    """The ONNX file: int32 bytes (n, 2048) to the probabilities (n, 214) of types of files."""
    return _magika() / "model.onnx"


@cache
def magika_labels() -> tuple[str, ...]:
    """The types of files."""
    return tuple(json.loads((_magika() / "config.min.json").read_text())["target_labels_space"])


def _magika() -> Path:
    spec = find_spec("magika")
    if spec is None or spec.origin is None:
        raise ModuleNotFoundError("the package 'magika', whose network the tests need, is not installed")
    return Path(spec.origin).parent / "models" / "standard_v3_3"


def magika_input(content: bytes) -> NDArray[np.int32]:
    """What magika reads of a file, (2048,): its first bytes from the first that is not blank, then its last ones."""
    first, last = content[:BLOCK].lstrip()[:BEGIN], content[-BLOCK:].rstrip()[-END:]
    x = np.full(BEGIN + END, PAD, np.int32)
    x[: len(first)] = list(first)
    x[len(x) - len(last) :] = list(last)
    return x
