"""What is done where a node multiplies Σ|R|: warn, clip, refuse, or nothing."""

from __future__ import annotations

import math
import sys
import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from .errors import BlowUpError, BlowUpWarning, InputError
from .ledger import BLOWUP, Books, Numbers

POLICIES = ("warn", "clip", "error", "ignore")

_CURES = (
    'composite(…, sums="abs") shares sums and average pooling by magnitude (AbsNorm), which cannot blow up; '
    'a larger epsilon tames dense layers; on_blowup="clip" scales down what nodes hand back, and "ignore" is silent'
)


@dataclass(frozen=True)
class BlowUpPolicy:
    """The policy and its threshold.

    Parameters
    ----------
    on_blowup : {"warn", "clip", "error", "ignore"}, default "warn"
    threshold : float, default 10
        Finite, ≥ 1.

    Raises
    ------
    InputError
        There is no such policy, or the threshold is invalid.
    """

    on_blowup: str = "warn"
    threshold: float = BLOWUP

    def __post_init__(self) -> None:
        if self.on_blowup not in POLICIES:
            raise InputError(f"on_blowup is {self.on_blowup!r}; expected one of {', '.join(POLICIES)}")
        object.__setattr__(self, "threshold", check_threshold(self.threshold))

    @property
    def limit(self) -> float:
        """By how much a node may multiply Σ|R| before it is clipped."""
        return self.threshold if self.on_blowup == "clip" else math.inf

    def judge(self, runs: Iterable[tuple[Books, Numbers, int]]) -> None:
        """Warn or refuse, once for all runs: the accounts, the numbers and the samples of each.

        Raises
        ------
        BlowUpError
            A node blows up, and the policy is "error".
        """
        if self.on_blowup not in ("warn", "error"):
            return
        worst: dict[tuple[str, str], float] = {}
        for books, numbers, n in runs:
            for account, gain in books.blown_up(numbers, n, self.threshold):
                key = account.node, account.rule
                worst[key] = max(gain, worst.get(key, 0.0))
        if not worst:
            return
        offenders = tuple(offence(*key, gain) for key, gain in worst.items())
        message = f"{said(offenders)}\n{_CURES}"
        if self.on_blowup == "error":
            raise BlowUpError(message, offenders)
        warnings.warn(BlowUpWarning(message), stacklevel=_caller())


def offence(node: str, rule: str, gain: float) -> str:
    """A node that blows up, in words."""
    return f"{node}: {gain:.3g} times, under {rule}"


def said(offenders: Sequence[str]) -> str:
    """What is to be said about nodes that blow up."""
    some = "a node multiplies" if len(offenders) == 1 else f"{len(offenders)} nodes multiply"
    lines = "\n".join(f"  {line}" for line in offenders)
    return f"{some} the relevance that arrives, as contributions cancel:\n{lines}"


def check_threshold(value: Any) -> float:
    """The threshold as a float.

    Raises
    ------
    InputError
        It is no finite number ≥ 1.
    """
    try:
        threshold = math.nan if isinstance(value, (bool, str)) else float(value)
    except (TypeError, ValueError):
        threshold = math.nan
    if not 1 <= threshold < math.inf:
        raise InputError(f"blowup is {value!r}; expected a finite number ≥ 1, such as {BLOWUP:g}")
    return threshold


def _caller() -> int:
    """The stack level, seen from who asks, of the first caller outside of the package."""
    package, level = __name__.partition(".")[0], 1
    frame = sys._getframe(1)
    while frame.f_back is not None and frame.f_globals.get("__name__", "").partition(".")[0] == package:
        frame, level = frame.f_back, level + 1
    return level
