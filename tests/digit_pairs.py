"""Pictures of two digits side by side, and networks trained to find one digit beside the other.

The setting of deep Taylor decomposition's first experiments (Montavon et al. 2017, Sec. 4 and 5) on scikit-learn's
digits of 8 by 8 pixels: a network says whether a picture shows a digit from 0 to 3; a digit from 4 to 9 stands
beside it. Layers are rectified detectors whose biases are never positive, each followed by sum-pooling:

>>> pictures = unseen_pictures(500)
>>> network = trained_detector(2)
>>> f = network.predict(pictures.x)[:, 0]          # near 1 where there is such a digit, near 0 where not
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray

from lrpfast import Composite, Dense, Network, Pass, ReLU, Sequential, ZPlus, composite

Array = NDArray[np.float64]

SIDE = 8
"""Height of a picture, and width of either digit."""

WANTED = 4
"""Digits below this one are those to be found."""

LOW, HIGH = 0.0, 1.0
"""The range of pixels."""

DETECTORS, POOLED = 100, 4
"""Rectified neurons of a layer, and how many of the first layer's share one neuron of sum-pooling."""

WRITERS = 1200
"""Digits before this one are for training; those after it are by other writers."""


EXACT = 1e-12
"""A stabilizer that takes nothing."""

RULES = {
    "w2": composite("deep_taylor", stabilizer=EXACT),
    "z+": Composite("z+", [("linear", ZPlus(EXACT, bias=False)), ("activation", Pass())]),
    "zB": composite("deep_taylor_bounded", low=LOW, high=HIGH, stabilizer=EXACT),
}
"""Deep Taylor decomposition by its rule for the input; all else is z⁺."""


@dataclass(frozen=True)
class Pictures:
    """Pictures of two digits.

    Attributes
    ----------
    x : array (n, 128)
        Pixels of 8 rows by 16 columns, from `LOW` to `HIGH`.
    wanted : array of bool (n,)
        Whether one of the two is a digit to be found.
    left : array of bool (n,)
        Whether that digit (or, if there is none, the first of two others) is the left one.
    """

    x: Array
    wanted: NDArray[np.bool_]
    left: NDArray[np.bool_]

    def __getitem__(self, chosen: NDArray[np.bool_]) -> Pictures:
        return Pictures(self.x[chosen], self.wanted[chosen], self.left[chosen])

    def beside(self, relevance: Array) -> Array:
        """The share of Σ|R| that lies on the other digit's half of each picture."""
        halves = np.abs(relevance).reshape(-1, SIDE, 2, SIDE).sum((1, 3))
        return halves[np.arange(len(halves)), self.left.astype(int)] / halves.sum(1)


def unseen_pictures(n: int, seed: int = 2) -> Pictures:
    """Pictures of digits that no network was trained on."""
    return _pairs(n, slice(WRITERS, None), seed, empty=0.0)


def _pairs(n: int, part: slice, seed: int, empty: float) -> Pictures:
    """Half of them with a digit to be found; the other one is left away in a share `empty` of pictures."""
    from sklearn.datasets import load_digits

    rng, digits = np.random.default_rng(seed), load_digits()
    images, labels = digits.images[part] / 16, digits.target[part]
    wanted, left = rng.random(n) < 0.5, rng.random(n) < 0.5
    others = np.flatnonzero(labels >= WANTED)
    found = np.where(wanted, rng.choice(np.flatnonzero(labels < WANTED), n), rng.choice(others, n))
    first, second = images[found], images[rng.choice(others, n)]
    second[rng.random(n) < empty] = 0
    side = left[:, None, None]
    x = np.concatenate([np.where(side, first, second), np.where(side, second, first)], axis=2)
    return Pictures(x.reshape(n, -1), wanted, left)


@cache
def trained_detector(layers: int) -> Network:
    """A network of one or two layers that was trained by `train`.

    The output is a sum of the last layer's detectors, so it is never negative.
    """
    parameters = train(layers)
    w, b = parameters[:2]
    network = [Dense(w, b), ReLU()]
    if layers == 2:
        network += [Dense(pooling()), Dense(*parameters[2:]), ReLU()]
    return Sequential(*network, Dense(np.ones((1, DETECTORS))), name=f"digits_{layers}")


def pooling() -> Array:
    """Weights of the sum-pooling between two layers."""
    return np.kron(np.eye(DETECTORS // POOLED), np.ones(POOLED))


@cache
def train(
    layers: int, seed: int = 0, steps: int = 6000, batch: int = 50, rate: float = 3e-3, decay: float = 1e-3
) -> tuple[Array, ...]:
    """Weights and biases of each layer: Adam on (f - wanted)² + decay · Σ|w|, with b ← min(b, 0) after each step.

    A third of the training pictures have no second digit: a detector cannot have a positive bias, and must
    not learn to take the ink of a distractor, which is always there, in its place.
    """
    from threadpoolctl import threadpool_limits

    rng = np.random.default_rng(seed)
    pictures = _pairs(10_000, slice(WRITERS), seed=1, empty=1 / 3)
    parameters = []
    for inputs in (SIDE * 2 * SIDE, DETECTORS // POOLED)[:layers]:
        scale = 1 / np.sqrt(inputs if not parameters else DETECTORS)
        parameters += [rng.normal(0, scale, (DETECTORS, inputs)), np.zeros(DETECTORS)]
    first = [np.zeros_like(p) for p in parameters]
    second = [np.zeros_like(p) for p in parameters]
    with threadpool_limits(1):  # the matrices are too small to share
        for step in range(1, steps + 1):
            chosen = rng.integers(len(pictures.x), size=batch)
            slopes = _slopes(parameters, pictures.x[chosen], pictures.wanted[chosen])
            for k, (p, slope) in enumerate(zip(parameters, slopes, strict=True)):
                if k % 2 == 0:
                    slope = slope + decay * np.sign(p)
                first[k] += 0.1 * (slope - first[k])
                second[k] += 0.01 * (slope**2 - second[k])
                mean, square = first[k] / (1 - 0.9**step), second[k] / (1 - 0.99**step)
                p -= rate * (1 - step / steps) * mean / (np.sqrt(square) + 1e-8)
                if k % 2 == 1:
                    np.minimum(p, 0, out=p)
    for p in parameters:
        p.flags.writeable = False
    return tuple(parameters)


def _slopes(parameters: list[Array], x: Array, wanted: NDArray[np.bool_]) -> list[Array]:
    """The gradient of the mean squared error by each parameter."""
    inputs, z = [], []
    for w, b in zip(parameters[::2], parameters[1::2], strict=True):
        inputs.append(x)
        z.append(x @ w.T + b)
        x = np.maximum(z[-1], 0) @ pooling().T
    f = np.maximum(z[-1], 0).sum(1)
    back = (2 * (f - wanted) / len(f))[:, None] * (z[-1] > 0)
    slopes = [back.T @ inputs[-1], back.sum(0)]
    if len(z) == 2:
        back = back @ parameters[2] @ pooling() * (z[0] > 0)
        slopes = [back.T @ inputs[0], back.sum(0), *slopes]
    return slopes
