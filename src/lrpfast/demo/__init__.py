"""The network that ships with lrpfast, and a few pictures for it.

A small classifier of Fashion-MNIST, with some images of the test set that it was not trained on;
`README.md` beside this file says how they were made and what they are worth.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

_FOLDER = Path(__file__).parent

MODEL: Path = _FOLDER / "fashion.onnx"
"""The network: images (n, 1, 28, 28) float32 in [0, 1] to probabilities (n, 10)."""

SAMPLES: Path = _FOLDER / "samples.npz"
"""Test images with their labels, their places in the test set and the probabilities that the network gave."""

LABELS: tuple[str, ...] = (
    "T-shirt/top",
    "Trouser",
    "Pullover",
    "Dress",
    "Coat",
    "Sandal",
    "Shirt",
    "Sneaker",
    "Bag",
    "Ankle boot",
)
"""What the ten classes are called."""


def samples() -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Read the pictures.

    Returns
    -------
    images : array of uint8, (n, 28, 28)
        Bright garments on black (0).
    labels : array of int64, (n,)
        Their true classes. The network takes the last picture for something else.
    """
    with np.load(SAMPLES, allow_pickle=False) as data:
        return data["images"], data["labels"]


def prepare(images: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Turn pictures into the network's input: `pixel / 255`, with an axis for the one channel.

    Parameters
    ----------
    images : array of uint8, (n, 28, 28)

    Returns
    -------
    array of float32, (n, 1, 28, 28)
        Values in [0, 1]: the `low` and `high` of the z^B rule.
    """
    prepared: NDArray[np.float32] = images[:, np.newaxis].astype(np.float32) / np.float32(255)
    return prepared
