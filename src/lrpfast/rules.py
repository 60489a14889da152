"""The propagation rules, as data.

A layer computes `z_k = Σ_j x_j w_jk + b_k`. A rule says how the relevance `R_k` that arrives at its
outputs is shared among its inputs. Nearly all rules are lists of *shares*: parts of `x` and `w` that
form both a denominator and the numerators over it,

    R_j = Σ_shares Σ_k  q_jk · scale · [gate] · R_k / stab(Σ_i q_ik + part(b_k)),
    q_jk = Σ_terms part(x_j) · part(w_jk).

Being data, a rule can be printed, compared, hashed, pickled, checked for conservation, and simplified
when a plan is made. Nothing is computed here.

References
----------
.. [1] S. Bach et al., "On pixel-wise explanations for non-linear classifier decisions by layer-wise
   relevance propagation", PLoS ONE 10(7), 2015. doi:10.1371/journal.pone.0130140
.. [2] G. Montavon et al., "Explaining nonlinear classification decisions with deep Taylor
   decomposition", Pattern Recognition 65, 2017. doi:10.1016/j.patcog.2016.11.008
.. [3] G. Montavon et al., "Layer-wise relevance propagation: an overview", in Explainable AI,
   Springer, 2019. doi:10.1007/978-3-030-28954-6_10
.. [4] C. J. Anders et al., "Software for dataset-wide XAI: from local explanations to global insights
   with Zennit, CoRelAy, and ViRelAy", arXiv:2106.13200.
.. [5] J. Zhang et al., "Top-down neural attention by excitation backprop", IJCV 126, 2018.
.. [6] L. Arras et al., "Explaining and interpreting LSTMs", in Explainable AI, Springer, 2019.
   doi:10.1007/978-3-030-28954-6_11
.. [7] A. Ali et al., "XAI for transformers: better explanations through conservative propagation",
   ICML 2022. arXiv:2202.07304
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

import numpy as np

from .errors import RuleError
from .parts import ABS, ALL, NEG, ONE, POS, SQUARE, Part, Share, Stabilizer, Term, check_nonnegative

if TYPE_CHECKING:
    from .ops.base import Array, Op


@dataclass(frozen=True)
class Rule:
    """Base class of all rules.

    `family` says which operators a rule is for: "linear" (dense, convolution, average pooling, Add,
    …: everything `z = W x + b`, and normalisation, whose W and b are statistics), "same shape", "any", or the
    kind of operator.
    """

    @property
    def family(self) -> str:
        return "linear"

    @property
    def conserves(self) -> bool:
        """Whether all relevance that arrives is accounted for (gradients and custom rules promise nothing)."""
        return True

    def __str__(self) -> str:
        """The rule with the parameters that differ from their defaults."""
        shown = []
        for f in fields(self):
            value = getattr(self, f.name)
            if isinstance(value, np.ndarray):
                shown.append(f"{f.name}=array{value.shape}")
            elif value != f.default:
                shown.append(f"{f.name}={value!r}")
        return f"{type(self).__name__}({', '.join(shown)})"


@dataclass(frozen=True)
class SharingRule(Rule):
    """Base class of the rules for linear layers that are lists of shares."""

    def __post_init__(self) -> None:
        _ = self.stab  # an ε that is none is refused here

    def shares(self) -> tuple[Share, ...]:
        """The shares; their scales add up to 1 over the gates that can be open at once."""
        raise NotImplementedError

    @property
    def stab(self) -> Stabilizer:
        """The stabilizer of the denominators."""
        return Stabilizer.ensure(getattr(self, "stabilizer", 1e-6))


def _bias(part: Part, bias: bool) -> Part | None:
    return part if bias else None


@dataclass(frozen=True)
class Z(SharingRule):
    """LRP-0: `R_j = Σ_k x_j w_jk / z_k · R_k`; outputs with `z = 0` hand nothing back ([1], eq. 56).

    Parameters
    ----------
    bias : bool, default True
        Keep the bias in the denominator; it then takes its share of the relevance.
    """

    bias: bool = True

    @property
    def stab(self) -> Stabilizer:
        return Stabilizer(0.0)

    def shares(self) -> tuple[Share, ...]:
        return (Share((Term(ALL, ALL),), _bias(ALL, self.bias)),)


@dataclass(frozen=True)
class Epsilon(SharingRule):
    """LRP-ε: `R_j = Σ_k x_j w_jk / stab(z_k) · R_k` ([1], eq. 58).

    Parameters
    ----------
    epsilon : float or Stabilizer, default 1e-6
        A larger ε absorbs more of the weak and contradictory contributions.
    bias : bool, default True
        Keep the bias in the denominator.
    """

    epsilon: float | Stabilizer = 1e-6
    bias: bool = True

    @property
    def stab(self) -> Stabilizer:
        return Stabilizer.ensure(self.epsilon)

    def shares(self) -> tuple[Share, ...]:
        return (Share((Term(ALL, ALL),), _bias(ALL, self.bias)),)


@dataclass(frozen=True)
class Norm(SharingRule):
    """Share in proportion to the contributions, for layers without weights (Add, average pooling).

    `R_j = Σ_k x_j w_jk / stab(z_k) · R_k`, w fixed by the operator ([4]).

    Parameters
    ----------
    stabilizer : float or Stabilizer, default 1e-6
    """

    stabilizer: float | Stabilizer = 1e-6

    def shares(self) -> tuple[Share, ...]:
        return (Share((Term(ALL, ALL),), ALL),)


@dataclass(frozen=True)
class AbsNorm(SharingRule):
    """Share in proportion to the magnitudes of the contributions, so that nothing can cancel.

    `R_j = Σ_k |x_j w_jk| / stab(Σ_i |x_i w_ik|) · R_k`. Of a residual sum of 3 and −2, R = 1 goes back as .6 and
    .4, where `Norm` has 3 and −2; so does autoLRP. It never hands back more than Σ|R| that arrived. The bias takes
    no part.

    Parameters
    ----------
    stabilizer : float or Stabilizer, default 1e-6
    """

    stabilizer: float | Stabilizer = 1e-6

    def shares(self) -> tuple[Share, ...]:
        return (Share((Term(ABS, ABS),)),)


_PLUS = (Term(POS, POS), Term(NEG, NEG))
_MINUS = (Term(POS, NEG), Term(NEG, POS))


@dataclass(frozen=True)
class ZPlus(SharingRule):
    """Only positive contributions count, the z⁺ rule of deep Taylor decomposition ([2], eq. 18).

    `q_jk = x_j⁺ w_jk⁺ + x_j⁻ w_jk⁻` over `stab(Σ q + b⁺)`: the same as `AlphaBeta(1, 0)`.

    Parameters
    ----------
    stabilizer : float or Stabilizer, default 1e-6
    bias : bool, default True
        Keep `b⁺` in the denominator.
    """

    stabilizer: float | Stabilizer = 1e-6
    bias: bool = True

    def shares(self) -> tuple[Share, ...]:
        return (Share(_PLUS, _bias(POS, self.bias)),)


@dataclass(frozen=True)
class AlphaBeta(SharingRule):
    """Positive and negative contributions are shared apart, weighted α and −β ([1], eq. 60).

    `R_j = Σ_k (α (x_j w_jk)⁺ / stab(Σ (xw)⁺ + b⁺) − β (x_j w_jk)⁻ / stab(Σ (xw)⁻ + b⁻)) R_k`.

    Parameters
    ----------
    alpha, beta : float, default 2 and 1
        Both ≥ 0, and α − β = 1, so that relevance is conserved.
    stabilizer : float or Stabilizer, default 1e-6
    bias : bool, default True

    Raises
    ------
    RuleError
        α or β is negative, or α − β is not 1.
    """

    alpha: float = 2.0
    beta: float = 1.0
    stabilizer: float | Stabilizer = 1e-6
    bias: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        check_nonnegative("alpha", self.alpha, 2.0)
        check_nonnegative("beta", self.beta, 1.0)
        if not abs(self.alpha - self.beta - 1) <= 1e-9:
            raise RuleError(
                f"alpha={self.alpha}, beta={self.beta}: alpha − beta is {self.alpha - self.beta:g}, "
                f"but relevance is conserved only where it is 1; try alpha={self.beta + 1:g}"
            )

    def shares(self) -> tuple[Share, ...]:
        plus = Share(_PLUS, _bias(POS, self.bias), scale=float(self.alpha))
        minus = Share(_MINUS, _bias(NEG, self.bias), scale=-float(self.beta))
        return tuple(share for share in (plus, minus) if share.scale)


@dataclass(frozen=True)
class Gamma(SharingRule):
    """Contributions of the output's own sign count 1 + γ times ([3], generalised as in [4]).

    Where `z > 0`: `q_jk = x_j⁺ (w_jk + γ w_jk⁺) + x_j⁻ (w_jk + γ w_jk⁻)` over `stab(Σ q + b + γ b⁺)`;
    where `z < 0` the signs of w and b are exchanged; where `z = 0` nothing is handed back.

    Parameters
    ----------
    gamma : float, default 0.25
        γ ≥ 0; 0 is LRP-ε, ∞ would be z⁺.
    stabilizer : float or Stabilizer, default 1e-6
    bias : bool, default True
    """

    gamma: float = 0.25
    stabilizer: float | Stabilizer = 1e-6
    bias: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        check_nonnegative("gamma", self.gamma, 0.25)

    def shares(self) -> tuple[Share, ...]:
        more = 1 + float(self.gamma)
        grown, shrunk = Part(more, 1), Part(1, more)
        positive = (Term(POS, grown), Term(NEG, shrunk))
        negative = (Term(POS, shrunk), Term(NEG, grown))
        return (
            Share(positive, _bias(grown, self.bias), gate=1),
            Share(negative, _bias(shrunk, self.bias), gate=-1),
        )


@dataclass(frozen=True, eq=False)
class ZBox(SharingRule):
    """The z^B rule for inputs that lie in a box, such as pixels ([2], eq. 20).

    `q_jk = x_j w_jk − l_j w_jk⁺ − h_j w_jk⁻` over `stab(Σ q)`; the bias takes no part. Computed as
    `(x − l) w⁺ + (x − h) w⁻`, in which nothing cancels.

    Parameters
    ----------
    low, high : float or array
        Bounds of the inputs, `low < high` everywhere: numbers, or arrays that broadcast against one
        sample.
    stabilizer : float or Stabilizer, default 1e-6

    Raises
    ------
    RuleError
        A bound is not finite, or `low ≥ high` somewhere.
    InputError
        When the rule is used: an input lies outside of the box.
    """

    low: float | Array
    high: float | Array
    stabilizer: float | Stabilizer = 1e-6

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("low", "high"):
            try:
                value = np.array(getattr(self, name), dtype=np.float64)
            except (TypeError, ValueError) as error:
                raise RuleError(
                    f"{name} is {getattr(self, name)!r}; expected a number or an array"
                ) from error
            if not np.isfinite(value).all():
                raise RuleError(f"{name} holds NaN or infinity; expected finite bounds")
            value.setflags(write=False)
            object.__setattr__(self, name, float(value) if value.ndim == 0 else value)
        try:
            wrong = np.asarray(self.low >= self.high)
        except ValueError:
            raise RuleError(
                f"low has shape {np.shape(self.low)} and high {np.shape(self.high)}; they do not fit together"
            ) from None
        if wrong.any():
            where = "" if wrong.ndim == 0 else f" at {int(wrong.sum())} of {wrong.size} elements"
            raise RuleError(
                f"low={_number(self.low)} is not below high={_number(self.high)}{where}; "
                "give the smallest and the largest value that an input can have"
            )

    def _key(self) -> tuple[Any, ...]:
        bounds = [(np.shape(v), np.asarray(v, np.float64).tobytes()) for v in (self.low, self.high)]
        return (*bounds, self.stabilizer)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, ZBox) and self._key() == other._key()

    def __hash__(self) -> int:
        return hash(self._key())

    def shares(self) -> tuple[Share, ...]:
        return (Share((Term(Part(minus="low"), POS), Term(Part(minus="high"), NEG))),)


def _number(value: float | Array) -> str:
    return f"{value:g}" if np.ndim(value) == 0 else f"array{np.shape(value)}"


@dataclass(frozen=True)
class WSquare(SharingRule):
    """The w² rule, for inputs of any real value ([2], eq. 13): `q_jk = w_jk²` over `stab(Σ q + b²)`.

    Inputs that are zero receive relevance too.

    Parameters
    ----------
    stabilizer : float or Stabilizer, default 1e-6
    bias : bool, default True
        Keep `b²` in the denominator.
    """

    stabilizer: float | Stabilizer = 1e-6
    bias: bool = True

    def shares(self) -> tuple[Share, ...]:
        return (Share((Term(ONE, SQUARE),), _bias(SQUARE, self.bias)),)


@dataclass(frozen=True)
class Flat(SharingRule):
    """Equal shares for all inputs of an output ([3]); padding does not count, nor does the bias.

    Parameters
    ----------
    stabilizer : float or Stabilizer, default 1e-6
    """

    stabilizer: float | Stabilizer = 1e-6

    def shares(self) -> tuple[Share, ...]:
        return (Share((Term(ONE, ONE),)),)


@dataclass(frozen=True)
class Pass(Rule):
    """Hand relevance through unchanged, for operators whose input and output have one shape."""

    @property
    def family(self) -> str:
        return "same shape"


@dataclass(frozen=True)
class WinnerTakeAll(Rule):
    """Max-pooling: the first of the largest inputs of a window receives its relevance ([1]).

    Max and Min of several activations likewise, for each element: the first that has the result.
    """

    @property
    def family(self) -> str:
        return "winner"


@dataclass(frozen=True)
class Route(Rule):
    """Movement operators: each element's relevance goes back to where the element came from.

    An element that was copied receives the sum of its copies' relevance, an index of an embedding that of its row.
    """

    @property
    def family(self) -> str:
        return "movement"


@dataclass(frozen=True)
class SignalTakesAll(Rule):
    """Products `z = a · b` of a signal and a gate, and quotients: the signal receives everything ([6], "LRP-all").

    The gate, such as the sigmoid in squeeze-and-excitation, lets the signal through but is no part of what is
    said; the divisor of a quotient likewise.
    """

    @property
    def family(self) -> str:
        return "gating"


@dataclass(frozen=True)
class Halves(Rule):
    """Products `z = a · b` of two equals: each receives one half of the relevance ([6], "LRP-half").

    Both are responsible for all of z, and to first order their shares are alike (a ∂z/∂a = b ∂z/∂b = z).
    """

    @property
    def family(self) -> str:
        return "product"


@dataclass(frozen=True)
class LNRule(Rule):
    """Normalisation layers with a constant deviation, `z = a (x - mean(x))`, by contribution ([7], "LN-rule").

    `R_j = Σ_k x_j a (δ_jk - 1/n) / stab(z_k) · R_k`, n the number of elements that share a mean. What one output
    owes to the mean is charged to all elements of it, where sharing rules such as `Epsilon`, for which the mean is
    a constant too, give it to a bias.

    Parameters
    ----------
    stabilizer : float or Stabilizer, default 1e-6
    """

    stabilizer: float | Stabilizer = 1e-6

    def __post_init__(self) -> None:
        _ = self.stab

    @property
    def stab(self) -> Stabilizer:
        """The stabilizer of the denominators."""
        return Stabilizer.ensure(self.stabilizer)

    @property
    def family(self) -> str:
        return "normalization"


@dataclass(frozen=True)
class Gradient(Rule):
    """The plain gradient, `Jᵀ R`. It conserves nothing; for the gradient-type baselines."""

    @property
    def family(self) -> str:
        return "any"

    @property
    def conserves(self) -> bool:
        return False


@dataclass(frozen=True)
class ReLUDeconvNet(Gradient):
    """DeconvNet (Zeiler & Fergus 2014): an activation hands back `max(R, 0)`, whatever its input."""

    @property
    def family(self) -> str:
        return "activation"


@dataclass(frozen=True)
class ReLUGuidedBackprop(Gradient):
    """Guided backprop (Springenberg et al. 2015): `max(R, 0)` times the activation's derivative."""

    @property
    def family(self) -> str:
        return "activation"


@dataclass(frozen=True, eq=False)
class CustomRule(Rule):
    """A rule of your own, in NumPy: slow, and free.

    Parameters
    ----------
    function : callable
        `function(op, inputs, output, r) -> tuple of arrays`: the operator (its `forward` and `vjp`
        are at hand), the tuple of its input arrays, its output and the relevance that arrives, all
        with a batch axis in front; returns the relevance of each input, in the input's shape.
    name : str, default "custom"
        Shown in tables and manifests.
    """

    function: Callable[[Op, tuple[Array, ...], Array, Array], tuple[Array, ...]]
    name: str = "custom"

    @property
    def family(self) -> str:
        return "any"

    @property
    def conserves(self) -> bool:
        return False

    def __str__(self) -> str:
        return f"CustomRule({self.name})"


RULES: dict[str, type[Rule]] = {
    rule.__name__: rule
    for rule in (
        Z, Epsilon, ZPlus, AlphaBeta, Gamma, ZBox, WSquare, Flat, Pass, Norm, AbsNorm,
        WinnerTakeAll, Route, SignalTakesAll, Halves, LNRule, Gradient, ReLUDeconvNet, ReLUGuidedBackprop, CustomRule,
    )
}  # fmt: skip
"""All rules by name."""
