"""Normalisation by statistics of the activations themselves: LayerNormalization, RMSNormalization and their kin.

With its statistics held constant such a layer is `z = a · x + b`, with an `a` and a `b` for each sample. That
is all that rules know of it:

- `Pass` hands relevance through. It is the identity rule of AttnLRP [1]_: each output is its own input, moved and
  scaled, and nothing else contributes.
- A sharing rule, such as `Epsilon`, takes the terms `a_j x_j` and `b_j` apart. Each output has one input, so
  `R_j = a_j x_j / stab(z_j) · R_j'`, and the share of the mean, `b_j / stab(z_j) · R_j'`, goes to the ledger's bias.
- The LN-rule of Ali et al. [2]_ holds the deviation constant, but not the mean: `z = a (x - mean(x))` is linear then,
  and its contributions add up to z without a bias. See `rules.LNRule`.

`vjp` is the true derivative, through the statistics too.

References
----------
.. [1] R. Achtibat et al., "AttnLRP: attention-aware layer-wise relevance propagation for transformers",
   ICML 2024. arXiv:2402.05602
.. [2] A. Ali et al., "XAI for transformers: better explanations through conservative propagation",
   ICML 2022. arXiv:2202.07304
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from ..errors import ModelError
from ..graph import Fact
from .affine import Affine, of_sample
from .base import Array, Op
from .parameters import check_broadcast
from .reading import OnnxNode, Unsupported, reads

Ints = tuple[int, ...]


class Normalizing(Op):
    """Operators `z = a · x + b` whose `a` and `b` are statistics of x."""

    kinds: ClassVar[tuple[str, ...]] = ("normalization",)

    @property
    def has_centre(self) -> bool:
        """Whether something is subtracted from x."""
        return False

    def statistics(self, x: Array) -> tuple[Array, Array | None]:
        """`a` and `-b / a`, the centre, which broadcast to `x` (n, …); None for a centre that is always zero."""
        raise NotImplementedError

    def uncentred(self, s: Array) -> Array:
        """`Cᵀ s`, C what subtracts the centre from x."""
        return s

    def forward(self, *inputs: Array) -> Array:
        (x,) = inputs
        a, centre = self.statistics(x)
        centred: Array = x if centre is None else x - centre
        with np.errstate(invalid="ignore"):  # what is not finite is found where predictions are checked
            z: Array = centred * a
        return z


def _mean(x: Array, axes: Ints) -> Array:
    """Mean over `axes`, which are kept; summed up in float64."""
    mean: Array = x.mean(axis=axes, keepdims=True, dtype=np.float64).astype(x.dtype)
    return mean


def _check_axes(axes: Ints, x: Fact) -> None:
    if not axes or sorted(set(axes)) != list(axes) or not 0 <= axes[0] <= axes[-1] < len(x.shape):
        raise ModelError(
            f"its axes are {axes}, its input has shape {x.shape} per sample; expected axes of a sample in order"
        )


@dataclass(frozen=True)
class Normalization(Normalizing):
    """`z = (x - mean) / √(variance + epsilon)`, mean and variance over some axes of each sample.

    Parameters
    ----------
    axes : tuple of int
        Axes of one sample, 0 being the first behind the batch axis, in order.
    epsilon : float, default 1e-5
    centred : bool, default True
        Whether the mean is subtracted; else the mean of x² takes the variance's place (RMS normalisation).
    groups : int, default 1
        Where it is not 1, axis 0 is cut into so many groups, each with statistics of its own.
    outside : bool, default False
        `(x - mean) / (√variance + epsilon)` instead.
    source : str, default "Normalization"
        The operator that it was made from: the first of its `kinds`.

    Raises
    ------
    ModelError
        An axis is not one of a sample's, epsilon is negative, or the groups do not fit.
    """

    kinds: ClassVar[tuple[str, ...]] = ("Normalization", "normalization")

    axes: Ints
    epsilon: float = 1e-5
    centred: bool = True
    groups: int = 1
    outside: bool = False
    source: str = "Normalization"

    def __post_init__(self) -> None:
        object.__setattr__(self, "kinds", (self.source, "normalization"))
        if not (math.isfinite(self.epsilon) and self.epsilon >= 0):
            raise ModelError(f"epsilon is {self.epsilon}; expected a finite number ≥ 0")
        if self.groups < 1 or (self.groups > 1 and self.axes[:1] != (0,)):
            raise ModelError(
                f"it has {self.groups} groups over axes {self.axes}; axis 0 has to be among them"
            )

    @property
    def has_centre(self) -> bool:
        return self.centred

    def infer(self, *inputs: Fact) -> Fact:
        (x,) = inputs
        _check_axes(self.axes, x)
        if x.shape[0] % self.groups:
            raise ModelError(f"its {self.groups} groups do not divide the {x.shape[0]} channels")
        return Fact(x.shape, nonnegative=x.nonnegative and not self.centred)

    def statistics(self, x: Array) -> tuple[Array, Array | None]:
        grouped, axes = self._grouped(x)
        mean = _mean(grouped, axes) if self.centred else None
        centred = grouped if mean is None else grouped - mean  # in two passes, so that no digits cancel
        variance = _mean(np.square(centred), axes)
        kind = x.dtype.type
        with np.errstate(divide="ignore"):
            if self.outside:
                a = 1 / (np.sqrt(variance) + kind(self.epsilon))
            else:
                a = 1 / np.sqrt(variance + kind(self.epsilon))
        return self._per_channel(a, x), None if mean is None else self._per_channel(mean, x)

    def vjp(self, inputs: tuple[Array, ...], output: Array, s: Array) -> tuple[Array, ...]:
        """`a (s - mean(s) - t mean(s z))`, t being `z` but for epsilon: `∂√variance/∂x_j = t_j / n`.

        With epsilon under the root `∂a/∂x_j = -a² z_j / n`; outside of it `-a² t_j / n`, t = (x - mean) / √variance.
        """
        (x,) = inputs
        a, centre = self.statistics(x)
        slope = output
        if self.outside:
            rest = np.broadcast_to(1 - a * x.dtype.type(self.epsilon), output.shape)
            slope = np.divide(output, rest, out=np.zeros_like(output), where=rest != 0)
        back = s - slope * self._mean_of(s * output)
        if centre is not None:
            back -= self._mean_of(s)
        return (back * a,)

    def uncentred(self, s: Array) -> Array:
        return s - self._mean_of(s) if self.centred else s  # C = 1 - mean is its own transpose

    def _mean_of(self, values: Array) -> Array:
        grouped, axes = self._grouped(values)
        return self._per_channel(_mean(grouped, axes), values)

    def _grouped(self, x: Array) -> tuple[Array, Ints]:
        """`x` with its groups as an axis of their own, and the axes over which the statistics run."""
        if self.groups == 1:
            return x, tuple(axis + 1 for axis in self.axes)
        return x.reshape(len(x), self.groups, -1, *x.shape[2:]), tuple(axis + 2 for axis in self.axes)

    def _per_channel(self, values: Array, x: Array) -> Array:
        """Statistics of groups as those of their channels."""
        if self.groups == 1:
            return values
        each = np.repeat(values, x.shape[1] // self.groups, axis=2)
        return each.reshape(len(x), -1, *values.shape[3:])


@dataclass(frozen=True)
class LpNormalization(Normalizing):
    """`z = x / max(‖x‖, floor)`, the norm over some axes of each sample; zero where the divisor is.

    Parameters
    ----------
    axes : tuple of int
        Axes of one sample, in order.
    p : {1, 2}, default 2
        `Σ|x|` or `√Σx²`.
    floor : float, default 0

    Raises
    ------
    ModelError
        An axis is not one of a sample's, p is neither 1 nor 2, or the floor is negative.
    """

    kinds: ClassVar[tuple[str, ...]] = ("LpNormalization", "normalization")

    axes: Ints
    p: int = 2
    floor: float = 0.0

    def __post_init__(self) -> None:
        if self.p not in (1, 2):
            raise ModelError(f"p is {self.p}; expected 1 or 2")
        if not (math.isfinite(self.floor) and self.floor >= 0):
            raise ModelError(f"floor is {self.floor}; expected a finite number ≥ 0")

    def infer(self, *inputs: Fact) -> Fact:
        (x,) = inputs
        _check_axes(self.axes, x)
        return Fact(x.shape, nonnegative=x.nonnegative)

    def statistics(self, x: Array) -> tuple[Array, Array | None]:
        norm = np.maximum(self._norm(x), x.dtype.type(self.floor))
        return np.divide(1, norm, out=np.zeros_like(norm), where=norm != 0), None

    def vjp(self, inputs: tuple[Array, ...], output: Array, s: Array) -> tuple[Array, ...]:
        """`a (s - t Σ s z)`, t the derivative of the norm: `z` for p = 2, sign(x) for p = 1, 0 below the floor."""
        (x,) = inputs
        a, _ = self.statistics(x)
        slope = output if self.p == 2 else np.sign(x)
        along = (s * output).sum(axis=self._axes(), keepdims=True, dtype=np.float64).astype(s.dtype)
        return (a * (s - slope * along * (self._norm(x) > self.floor)),)

    def _norm(self, x: Array) -> Array:
        powers = np.abs(x) if self.p == 1 else np.square(x, dtype=np.float64)
        total = powers.sum(axis=self._axes(), keepdims=True, dtype=np.float64)
        norm: Array = (total if self.p == 1 else np.sqrt(total)).astype(x.dtype)
        return norm

    def _axes(self) -> Ints:
        return tuple(axis + 1 for axis in self.axes)


@dataclass(frozen=True)
class LRN(Normalizing):
    """Local response normalisation: `z_c = x_c / (bias + alpha / size · Σ x_i²)^beta`, i the channels around c.

    The window has `size` channels, `(size - 1) // 2` of them before c, and ends where the channels do.

    Parameters
    ----------
    size : int
    alpha : float, default 1e-4
    beta : float, default 0.75
    bias : float, default 1

    Raises
    ------
    ModelError
        The size is less than 1, or a number is not finite.
    """

    kinds: ClassVar[tuple[str, ...]] = ("LRN", "normalization")

    size: int
    alpha: float = 1e-4
    beta: float = 0.75
    bias: float = 1.0

    def __post_init__(self) -> None:
        if self.size < 1 or not all(map(math.isfinite, (self.alpha, self.beta, self.bias))):
            raise ModelError(
                f"size is {self.size}, alpha {self.alpha}, beta {self.beta}, bias {self.bias}; expected a size ≥ 1 "
                "and finite numbers"
            )

    def infer(self, *inputs: Fact) -> Fact:
        (x,) = inputs
        if not x.shape:
            raise ModelError("its input has no channel axis")
        return Fact(x.shape, nonnegative=x.nonnegative)

    def statistics(self, x: Array) -> tuple[Array, Array | None]:
        return self._base(x) ** -x.dtype.type(self.beta), None

    def vjp(self, inputs: tuple[Array, ...], output: Array, s: Array) -> tuple[Array, ...]:
        """`a s - 2 beta alpha / size · x Σ s z / base`, the sum over the windows that x is in."""
        (x,) = inputs
        base, kind = self._base(x), x.dtype.type
        before = (self.size - 1) // 2
        spread = self._windows(s * output / base, self.size - 1 - before, before)
        factor = kind(2 * self.beta * self.alpha / self.size)
        return (s * base ** -kind(self.beta) - factor * x * spread,)

    def _base(self, x: Array) -> Array:
        before = (self.size - 1) // 2
        squares = self._windows(np.square(x), before, self.size - 1 - before)
        kind = x.dtype.type
        base: Array = kind(self.bias) + kind(self.alpha / self.size) * squares
        return base

    def _windows(self, values: Array, before: int, after: int) -> Array:
        """Sums over windows of channels: so many before, and after, each."""
        total = np.zeros_like(values)
        channels = values.shape[1]
        for step in range(-min(before, channels - 1), min(after, channels - 1) + 1):
            inside = slice(max(0, -step), channels - max(0, step))
            total[:, inside] += values[:, max(0, step) : channels + min(0, step)]
        return total


# --- ONNX ---


def _then_affine(
    node: OnnxNode, op: Normalization, sample: Ints, scale: Array | None, shift: Array | None
) -> Op | tuple[Op, ...]:
    """The normalisation, then gamma and beta, if there are any."""
    if scale is None and shift is None:
        return op
    parts = [np.float32(default) if a is None else a for a, default in ((scale, 1), (shift, 0))]
    for name, array in zip(("scale", "bias"), parts, strict=True):
        check_broadcast(f"its {name}", array.shape, sample)
    return op, Affine(parts[0], parts[1])


def _optional(node: OnnxNode, index: int, sample: Ints) -> Array | None:
    return of_sample(node, index, node.weights(index), sample) if node.has(index) else None


@reads("LayerNormalization", "RMSNormalization")
def _read_layer_normalization(node: OnnxNode) -> Op | tuple[Op, ...]:
    shape = node.fact(0).shape
    first = node.axis(node.integer("axis", -1), 1 + len(shape))
    axes = tuple(range(first, len(shape)))
    centred = node.op_type == "LayerNormalization"
    op = Normalization(axes, node.number("epsilon", 1e-5), centred, source=node.op_type)
    return _then_affine(node, op, shape, _optional(node, 1, shape), _optional(node, 2, shape))


def _per_channel(node: OnnxNode, index: int, channels: int, axes: int) -> Array:
    """The constant input `index` of a number per channel, or per group of channels."""
    values = node.weights(index)
    if values.ndim != 1 or not len(values) or channels % len(values):
        raise ModelError(f"its input {index} has shape {values.shape}; expected ({channels},)")
    return np.repeat(values, channels // len(values)).reshape(-1, *[1] * axes)


@reads("InstanceNormalization", "GroupNormalization")
def _read_instance_normalization(node: OnnxNode) -> Op | tuple[Op, ...]:
    shape = node.fact(0).shape
    if len(shape) < 2:
        raise ModelError(
            f"its input has shape {shape} per sample; expected channels, and one axis or more behind"
        )
    axes = tuple(range(1, len(shape)))
    epsilon = node.number("epsilon", 1e-5)
    op = Normalization(axes, epsilon, source=node.op_type)
    if node.op_type == "GroupNormalization":
        groups = node.integer("num_groups", 0)
        op = Normalization((0, *axes), epsilon, groups=groups, source=node.op_type)
    scale, shift = (_per_channel(node, index, shape[0], len(axes)) for index in (1, 2))
    return _then_affine(node, op, shape, scale, shift)


@reads("MeanVarianceNormalization")
def _read_mean_variance_normalization(node: OnnxNode) -> Normalization:
    rank = 1 + len(node.fact(0).shape)
    axes = node.integers("axes") or (0, 2, 3)
    if any(axis in (0, -rank) for axis in axes):
        raise Unsupported(f"its axes {axes} take statistics over the batch")
    # ONNX's function adds 1e-9 to the deviation.
    return Normalization(tuple(sorted(node.axes(axes, rank))), 1e-9, outside=True, source=node.op_type)


@reads("LRN")
def _read_lrn(node: OnnxNode) -> LRN:
    return LRN(
        node.integer("size", 0),
        node.number("alpha", 1e-4),
        node.number("beta", 0.75),
        node.number("bias", 1.0),
    )


@reads("LpNormalization")
def _read_lp_normalization(node: OnnxNode) -> LpNormalization:
    axis = node.axis(node.integer("axis", -1), 1 + len(node.fact(0).shape))
    return LpNormalization((axis,), node.integer("p", 2))
