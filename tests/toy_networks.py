"""Two networks by hand, with inputs: one whose arithmetic is easily written out, one with every kernel."""

from __future__ import annotations

import numpy as np

from lrpfast import (
    AvgPool2d,
    Builder,
    Concat,
    Conv2d,
    Dense,
    Flatten,
    MaxPool2d,
    Network,
    ReLU,
    Sequential,
)
from lrpfast.ops import Add

RNG = np.random.default_rng(11)
W1, B1 = RNG.normal(size=(6, 4)), RNG.normal(size=6)
W2, B2 = RNG.normal(size=(5, 6)), RNG.normal(size=5)
W3, B3 = RNG.normal(size=(3, 5)), RNG.normal(size=3)
X = RNG.normal(size=(3, 4))


def mlp() -> Network:
    return Sequential(Dense(W1, B1), ReLU(), Dense(W2, B2), ReLU(), Dense(W3, B3), name="mlp")


def mlp_values(x: np.ndarray) -> tuple[np.ndarray, ...]:
    """The values in `mlp`: input, what each ReLU reads, logits."""
    z1 = x @ W1.T + B1
    z2 = np.maximum(z1, 0) @ W2.T + B2
    return x, z1, z2, np.maximum(z2, 0) @ W3.T + B3


def linear() -> Network:
    """One dense layer: its gradient by output k is row k of `W1`, which makes targets plain to see."""
    return Sequential(Dense(W1, B1))


def cnn(seed: int = 0) -> Network:
    """Every kind of kernel in one network."""
    rng = np.random.default_rng(seed)
    build = Builder((3, 11, 9))
    a = build(
        ReLU(), build(Conv2d(rng.normal(size=(8, 3, 3, 3)), rng.normal(size=8), padding=1), build.input)
    )
    a = build(MaxPool2d(2), a)
    depthwise = build(Conv2d(rng.normal(size=(8, 1, 3, 3)), rng.normal(size=8), padding=1, groups=8), a)
    b = build(Conv2d(rng.normal(size=(8, 8, 1, 1)), rng.normal(size=8)), build(ReLU(), depthwise))
    a = build(ReLU(), build(Add(), a, b))
    a = build(Concat(0), build(AvgPool2d(2), a), build(MaxPool2d(2), a))
    a = build(Dense(rng.normal(size=(5, 64)), rng.normal(size=5)), build(Flatten(), a))
    return build.network(a)


IMAGES = np.random.default_rng(5).normal(size=(6, 3, 11, 9)).astype(np.float32)
