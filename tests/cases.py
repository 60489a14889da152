"""Layers of every kind, rules of every kind with their oracles, and numbers that compute exactly.

All numbers are small multiples of a quarter: products and sums of them are exact in float32 too. So
denominators have no rounding error that a division could blow up, and zeros are zeros on every
backend; what is compared is the formula.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import oracle

from lrpfast import (
    AbsNorm,
    AlphaBeta,
    AvgPool1d,
    AvgPool2d,
    AvgPool3d,
    Conv1d,
    Conv2d,
    Conv3d,
    ConvTranspose1d,
    ConvTranspose2d,
    ConvTranspose3d,
    CustomRule,
    Dense,
    Epsilon,
    Flat,
    Gamma,
    GlobalAveragePool,
    Gradient,
    Norm,
    Rule,
    Stabilizer,
    WSquare,
    Z,
    ZBox,
    ZPlus,
)
from lrpfast.ops import Add, Affine, AveragePool, Conv, GroupedGemm, Interpolation

Oracle = Callable[[oracle.Layer, oracle.Array, oracle.Array], oracle.Array]


def quarters(rng: np.random.Generator, *shape: int) -> oracle.Array:
    """Multiples of a quarter between -2 and 2."""
    return rng.integers(-8, 9, shape) / 4


# --- layers ---


@dataclass(frozen=True)
class Case:
    """A linear operator, and the shapes of its inputs per sample."""

    op: Any
    shapes: tuple[tuple[int, ...], ...]

    @property
    def layer(self) -> oracle.Layer:
        return oracle.matrix(self.op, *self.shapes)


def _layers() -> dict[str, Case]:
    rng = np.random.default_rng(7)
    q = partial(quarters, rng)
    return {
        "dense": Case(Dense(q(5, 7), q(5)), ((7,),)),
        "dense, no bias": Case(Dense(q(4, 6)), ((6,),)),
        "dense, one output": Case(Dense(q(1, 9), q(1)), ((9,),)),
        "dense, two axes": Case(Dense(q(5, 4), q(5)), ((3, 4),)),
        "dense, three axes": Case(Dense(q(3, 4), q(3)), ((2, 3, 4),)),
        "conv1d": Case(Conv1d(q(4, 3, 3), q(4)), ((3, 9),)),
        "conv1d, strided": Case(Conv1d(q(3, 2, 4), q(3), stride=3, padding=2, dilation=2), ((2, 11),)),
        "conv2d": Case(Conv2d(q(4, 3, 3, 3), q(4)), ((3, 6, 5),)),
        "conv2d, 1x1": Case(Conv2d(q(5, 4, 1, 1), q(5)), ((4, 3, 5),)),
        "conv2d, padded": Case(Conv2d(q(3, 2, 3, 3), q(3), padding=1), ((2, 5, 4),)),
        "conv2d, strided": Case(
            Conv2d(q(3, 2, 3, 2), q(3), stride=(2, 3), padding=(1, 0), dilation=(2, 1)), ((2, 9, 8),)
        ),
        "conv2d, uneven pads": Case(Conv(q(3, 2, 3, 3), q(3), pads=(0, 2, 1, 0)), ((2, 5, 5),)),
        "conv2d, no bias": Case(Conv2d(q(3, 2, 3, 3), padding=1), ((2, 4, 4),)),
        "conv2d, grouped": Case(Conv2d(q(6, 2, 3, 3), q(6), padding=1, groups=2), ((4, 5, 4),)),
        "conv2d, depthwise": Case(Conv2d(q(3, 1, 3, 3), q(3), padding=1, groups=3), ((3, 5, 6),)),
        "conv2d, depthwise twofold": Case(Conv2d(q(6, 1, 3, 3), q(6), stride=2, groups=3), ((3, 7, 5),)),
        "conv3d": Case(Conv3d(q(3, 2, 2, 3, 2), q(3), stride=(1, 2, 1), padding=(1, 1, 0)), ((2, 3, 5, 4),)),
        "conv3d, depthwise": Case(Conv3d(q(2, 1, 2, 2, 3), q(2), padding=1, groups=2), ((2, 3, 4, 3),)),
        "transposed conv1d": Case(ConvTranspose1d(q(3, 4, 3), q(4), stride=2, padding=1), ((3, 5),)),
        "transposed conv2d": Case(
            ConvTranspose2d(q(3, 2, 3, 3), q(2), stride=2, padding=1, output_padding=1), ((3, 4, 3),)
        ),
        "transposed conv2d, grouped": Case(
            ConvTranspose2d(q(4, 3, 2, 3), q(6), stride=(1, 2), groups=2, dilation=2), ((4, 3, 3),)
        ),
        "transposed conv2d, depthwise": Case(ConvTranspose2d(q(3, 1, 2, 2), q(3), groups=3), ((3, 4, 4),)),
        "transposed conv3d": Case(ConvTranspose3d(q(2, 3, 2, 2, 2), q(3), stride=(1, 2, 1)), ((2, 2, 3, 3),)),
        "average pool 1d": Case(AvgPool1d(4, stride=2), ((3, 10),)),
        "average pool 2d": Case(AvgPool2d(2), ((3, 6, 4),)),
        "average pool 2d, overlapping": Case(AvgPool2d(3, stride=2), ((2, 7, 5),)),
        "average pool 2d, pads count": Case(AvgPool2d(3, stride=2, padding=1), ((2, 6, 5),)),
        "average pool 2d, pads do not count": Case(
            AvgPool2d(3, stride=2, padding=1, count_include_pad=False), ((2, 6, 5),)
        ),
        "average pool 2d, ceil": Case(AveragePool((2, 3), (2, 3), ceil_mode=True), ((2, 5, 7),)),
        "average pool 3d": Case(AvgPool3d(2, stride=1), ((2, 3, 3, 4),)),
        "global average pool": Case(GlobalAveragePool(), ((4, 4, 3),)),
        "interpolation": Case(Interpolation(q(5, 4)), ((2, 3, 4),)),
        "interpolation, linear": Case(Interpolation(np.abs(q(7, 4))), ((4,),)),
        "dense layers side by side": Case(GroupedGemm(q(6, 2, 1), groups=3), ((6, 4),)),
        "affine per channel": Case(Affine(q(3, 1, 1), q(3, 1, 1)), ((3, 4, 2),)),
        "affine by one number": Case(Affine(np.float64(1.5), np.float64(-0.5)), ((3, 4),)),
        "affine per element": Case(Affine(q(2, 3), q(3)), ((2, 3),)),
        "affine of a vector": Case(Affine(q(6), q(6)), ((6,),)),
        "sum of two": Case(Add(), ((3, 4), (3, 4))),
        "sum of three": Case(Add(), ((2, 3, 2),) * 3),
    }


LAYERS = _layers()


# --- rules ---


def _custom(op: Any, inputs: Any, output: Any, r: Any) -> Any:
    """x ⊙ Jᵀ r."""
    return tuple(x * c for x, c in zip(inputs, op.vjp(inputs, output, r), strict=True))


def _custom_oracle(layer: oracle.Layer, x: oracle.Array, r: oracle.Array) -> oracle.Array:
    return x * (r @ layer.w)


def _by_name(pairs: list[tuple[Rule, Oracle]]) -> dict[str, tuple[Rule, Oracle]]:
    return {str(rule): (rule, function) for rule, function in pairs}


def _rules() -> dict[str, tuple[Rule, Oracle]]:
    pairs: list[tuple[Rule, Oracle]] = [
        (Z(), oracle.z),
        (Z(bias=False), partial(oracle.z, bias=False)),
        (Epsilon(), oracle.epsilon),
        (Epsilon(bias=False), partial(oracle.epsilon, bias=False)),
        (Norm(), oracle.epsilon),
        (AbsNorm(), oracle.abs_norm),
        (ZPlus(), oracle.z_plus),
        (ZPlus(bias=False), partial(oracle.z_plus, bias=False)),
        (ZBox(-2, 2), partial(oracle.z_box, low=-2, high=2)),
        (WSquare(), oracle.w_square),
        (WSquare(bias=False), partial(oracle.w_square, bias=False)),
        (Flat(), oracle.flat),
        (Gradient(), oracle.gradient),
        (CustomRule(_custom), _custom_oracle),
    ]
    for alpha, beta in ((2.0, 1.0), (1.0, 0.0), (1.5, 0.5)):
        for bias in (True, False):
            numbers = {"alpha": alpha, "beta": beta, "bias": bias}
            pairs.append((AlphaBeta(**numbers), partial(oracle.alpha_beta, **numbers)))
    for gamma in (0.25, 1.0, 2.0):  # with 2 magnitudes count whole, as they do where nothing is divided
        for bias in (True, False):
            pairs.append((Gamma(gamma, bias=bias), partial(oracle.gamma, gamma=gamma, bias=bias)))
    return _by_name(pairs)


def _stabilized_rules() -> dict[str, tuple[Rule, Oracle]]:
    pairs: list[tuple[Rule, Oracle]] = []
    for clip, norm_scale in ((False, False), (True, False), (False, True), (True, True)):
        options: dict[str, Any] = {"epsilon": 0.25, "clip": clip, "norm_scale": norm_scale}
        stabilizer = Stabilizer(**options)
        pairs += [
            (Epsilon(stabilizer), partial(oracle.epsilon, **options)),
            (Norm(stabilizer), partial(oracle.epsilon, **options)),
            (AbsNorm(stabilizer), partial(oracle.abs_norm, **options)),
            (ZPlus(stabilizer), partial(oracle.z_plus, **options)),
            (AlphaBeta(stabilizer=stabilizer), partial(oracle.alpha_beta, alpha=2, beta=1, **options)),
            (Gamma(stabilizer=stabilizer), partial(oracle.gamma, gamma=0.25, **options)),
            (ZBox(-2, 2, stabilizer), partial(oracle.z_box, low=-2, high=2, **options)),
            (WSquare(stabilizer), partial(oracle.w_square, **options)),
            (Flat(stabilizer), partial(oracle.flat, **options)),
        ]
    return _by_name(pairs)


RULES = _rules()
"""Each rule by its text, with its oracle."""

STABILIZED_RULES = _stabilized_rules()
"""Rules with each of the stabiliser's options."""


def fits(case: Case, rule: Rule) -> bool:
    """Whether the rule is for such a layer: ZBox is for layers with one input."""
    return len(case.shapes) == 1 or not isinstance(rule, ZBox)


# --- arrays that fit a layer ---


def flatten(x: tuple[np.ndarray, ...]) -> oracle.Array:
    """All inputs of each sample in one row."""
    return np.concatenate([a.reshape(len(a), -1) for a in x], axis=1).astype(np.float64)


def inputs(case: Case, seed: int, n: int = 2) -> tuple[np.ndarray, ...]:
    """Inputs for a layer."""
    rng = np.random.default_rng(seed)
    return tuple(quarters(rng, n, *shape) for shape in case.shapes)


def relevance(layer: oracle.Layer, x: oracle.Array, seed: int) -> oracle.Array:
    """Relevance (n, outputs) for a layer's outputs; none where z is zero, with its bias or without.

    There the stabiliser alone decides, and one such output drowns all others (`test_rules` has tests
    for it).
    """
    r = quarters(np.random.default_rng(seed + 1), len(x), len(layer.w))
    z = x @ layer.w.T
    return r * (np.abs(z) > 1e-9) * (np.abs(z + layer.b) > 1e-9)
