"""The conservation ledger: where relevance went, settled from the sums that a run left behind."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from .errors import NonFiniteError

Numbers = NDArray[np.float64]

_QUIET = partial(np.errstate, over="ignore", invalid="ignore")  # what is not finite is refused in words

SUMS, PARTS = 2, 4
"""How many numbers a sample there are of the sums of an array, and in a node's own ledger."""

_LAST_BIT = 2.0**-23
"""What rounding can do to a running sum, in float32, as a share of it."""

BLOWUP = 10.0
"""A node that multiplies Σ|R| by more than this blows up, unless said otherwise. No rule of the presets exceeds 3 on
the networks of the tests (docs/rules.md)."""

_SLACK = 1e-5
"""How far rounding may lead a gain beyond its bound."""


@dataclass(frozen=True)
class Account:
    """Where the sums of a node's relevance are found after a run.

    Attributes
    ----------
    node, rule : str
    conserves : bool
    arrived : int
        Number of the sums of the relevance at its output.
    left : tuple of (int, int or None)
        For each input: the sums after the node's contribution, and those before it.
    ledger : int or None
        Number of the ledger with what bias, stabilizer and dead units took.
    handed : tuple of (int, int or None)
        As `left`, for magnitudes: sums of the node's contributions alone, where there are such.
    limit : float, default ∞
        The contributions have been scaled down to at most so many times Σ|R| that arrived; then `handed` has
        them as they were before.
    explained : bool, default False
        As `ConservationRow` has it.
    most : float, default 0
        The most by which the node may multiply Σ|R|, as far as is known beforehand; 0 where that is no blow-up.
    """

    node: str
    rule: str
    conserves: bool
    arrived: int
    left: tuple[tuple[int, int | None], ...]
    ledger: int | None
    handed: tuple[tuple[int, int | None], ...]
    limit: float = math.inf
    explained: bool = False
    most: float = 0.0


@dataclass(frozen=True)
class ConservationRow:
    """One node's entry in the conservation ledger; sums over the batch.

    Attributes
    ----------
    node, rule : str
    r_in : float
        Relevance that arrived at the node's output.
    r_out : float
        Relevance that the node handed back to its inputs.
    bias, stabilizer : float
        What the bias and the stabilizer took.
    dead : float
        What met a denominator of zero or no open gate.
    unexplained : float
        `r_in − r_out − bias − stabilizer − dead − clipped` as a share of Σ|R| that arrived: rounding. NaN for
        rules that promise no conservation (gradients, custom rules).
    clipped : float
        What was taken by scaling down what the node handed back (`on_blowup="clip"`).
    gain : float
        Σ|R| that the node handed back, over all of its inputs, by Σ|R| that arrived; the largest of the batch.
        Where the node was not the first to hand an input any, only the sums before and after are known, and
        what it handed to that input counts with a lower bound: the larger one of `|Σ|after| − Σ|before||` and
        `|Σ after − Σ before|`.
    explained : bool
        Whether the node makes the explained output itself. Its contributions cancel as much as the prediction is
        small; that scales a heatmap as a whole, and is no blow-up.
    """

    node: str
    rule: str
    r_in: float
    r_out: float
    bias: float
    stabilizer: float
    dead: float
    unexplained: float
    clipped: float = 0.0
    gain: float = math.nan
    explained: bool = False

    def blows_up(self, threshold: float = BLOWUP) -> bool:
        """Whether the node's rule promises conservation, and it multiplied Σ|R| by more than `threshold`."""
        return self.gain > beyond(threshold) and not self.explained and not math.isnan(self.unexplained)


def beyond(threshold: float) -> float:
    """What a gain has to exceed to be a blow-up, rounding left aside."""
    return threshold * (1 + _SLACK)


def scales(arrived: Numbers, handed: Numbers, limit: float | Numbers) -> Numbers:
    """The factors with which magnitudes `handed` are at most `limit` times those that `arrived`; 1 if they are."""
    most = limit * arrived
    return np.divide(most, handed, out=np.ones_like(handed), where=handed > most)


class _Pairs(NamedTuple):
    """The rows of accounts, and the numbers of sums after and before them; −1 where there was nothing before."""

    rows: NDArray[np.intp]
    after: NDArray[np.intp]
    before: NDArray[np.intp]


def _pairs(lists: Sequence[tuple[tuple[int, int | None], ...]]) -> _Pairs:
    found = [(row, a, -1 if b is None else b) for row, pairs in enumerate(lists) for a, b in pairs]
    return _Pairs(*np.array(found, np.intp).reshape(-1, 3).T)


@dataclass(frozen=True, eq=False)
class SampleLedger:
    """The conservation ledger of each sample, over all nodes.

    Attributes
    ----------
    worst : array (n,)
        The largest |unexplained| of a node, as in `ConservationRow`; 0 where no rule promises conservation.
    bias, stabilizer, dead, clipped : array (n,)
        What all nodes together took.
    gain : array (n,)
        The largest gain of a node that could blow up: its rule promises conservation, and it does not make the
        explained output.
    """

    worst: Numbers
    bias: Numbers
    stabilizer: Numbers
    dead: Numbers
    clipped: Numbers
    gain: Numbers


@dataclass(frozen=True, eq=False)
class Books:
    """The accounts of all nodes, and how their numbers lie in a run's memory.

    A run has all ledgers, then all sums, one behind the other: (ledgers, n, 4) and (sums, n, 2).
    """

    accounts: tuple[Account, ...] = ()
    ledgers: int = 0
    sums: int = 0
    _index: tuple[NDArray[np.intp], ...] = field(init=False, repr=False)
    _signs: Numbers = field(init=False, repr=False)
    _whole: _Pairs = field(init=False, repr=False)
    _merged: _Pairs = field(init=False, repr=False)
    _limits: Numbers = field(init=False, repr=False)
    _judged: NDArray[np.bool_] = field(init=False, repr=False)
    _glance: tuple[NDArray[np.intp], ...] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        left, handed = (_pairs([getattr(a, name) for a in self.accounts]) for name in ("left", "handed"))
        merged = left.before >= 0
        rows = np.concatenate([left.rows, left.rows[merged]])
        which = np.concatenate([left.after, left.before[merged]])
        signs = np.where(np.arange(len(rows)) < len(left.rows), 1.0, -1.0)
        ledgers = [self.ledgers if a.ledger is None else a.ledger for a in self.accounts]
        arrived = [a.arrived for a in self.accounts]
        merged = handed.before >= 0
        judged = np.array([a.most > 1 for a in self.accounts], np.bool_)
        looked_at = [a for a in self.accounts if a.most > 1]
        numbers = [[n for pair in a.handed for n in pair if n is not None] for a in looked_at]
        starts = np.cumsum([0, *map(len, numbers)])[:-1]
        glance = [n for some in numbers for n in some], starts, [a.arrived for a in looked_at]
        keep = partial(object.__setattr__, self)
        keep("_index", (rows, which, *(np.array(i, np.intp) for i in (arrived, ledgers))))
        keep("_signs", signs)
        keep("_whole", _Pairs(*(column[~merged] for column in handed)))
        keep("_merged", _Pairs(*(column[merged] for column in handed)))
        keep("_limits", np.array([a.limit for a in self.accounts]))
        keep("_judged", judged)
        keep("_glance", tuple(np.array(i, np.intp) for i in glance))

    @property
    def nbytes(self) -> int:
        """Bytes per sample."""
        return 8 * (PARTS * self.ledgers + SUMS * self.sums)

    def joined(self, runs: Sequence[Numbers]) -> Numbers:
        """The numbers of several runs as those of one run with all their samples."""
        ledgers, sums = [], []
        for numbers in runs:
            n = numbers.nbytes // max(self.nbytes, 1)
            split = n * PARTS * self.ledgers
            ledgers.append(numbers[:split].reshape(self.ledgers, n * PARTS))
            sums.append(numbers[split:].reshape(self.sums, n * SUMS))
        return np.concatenate([np.concatenate(part, axis=1).ravel() for part in (ledgers, sums)])

    def settled(self, numbers: Numbers, n: int) -> Callable[[], tuple[ConservationRow, ...]]:
        """The ledger of a run with `n` samples, to be made when somebody asks for it; keeps `numbers` until then.

        Raises
        ------
        NonFiniteError
            As `rows`, but at once.
        """
        make = partial(self.rows, numbers, n)
        with _QUIET():
            size = np.abs(numbers).sum()
        if not math.isfinite(size):  # if it is, so is every sum of some of the numbers
            make()
        return make

    def rows(self, numbers: Numbers, n: int) -> tuple[ConservationRow, ...]:
        """Make the ledger out of the numbers of a run with `n` samples.

        Raises
        ------
        NonFiniteError
            Some relevance is NaN or infinite; names the node that made it.
        """
        parts, sums = self._split(numbers, n)
        with _QUIET():
            handed = self._handed(sums)
            clipped = self._clipped(sums, handed).sum(axis=1, keepdims=True)
            together = parts.sum(axis=1, keepdims=True), sums.sum(axis=1, keepdims=True)
            columns = self._columns(*together, clipped, handed)
            gains = self._gains(sums, handed).max(axis=1, initial=0.0)
            lines = np.concatenate([columns[:, :, 0], gains[:, None]], axis=1).tolist()
        return tuple(_row(account, line) for account, line in zip(self.accounts, lines, strict=True))

    def by_sample(self, numbers: Numbers, n: int) -> SampleLedger:
        """What became of each sample's relevance, out of the numbers of a run with `n` samples."""
        parts, sums = self._split(numbers, n)
        with _QUIET():
            handed = self._handed(sums)
            columns = self._columns(parts, sums, self._clipped(sums, handed), handed)
            gains = self._gains(sums, handed)
        conserving = np.array([account.conserves for account in self.accounts], np.bool_)
        explained = np.array([account.explained for account in self.accounts], np.bool_)
        worst = np.abs(columns[conserving, 5]).max(axis=0, initial=0.0)
        gain = gains[conserving & ~explained].max(axis=0, initial=0.0)
        bias, stabilizer, dead, _, clipped = columns[:, 2:7].sum(axis=0)
        return SampleLedger(worst, bias, stabilizer, dead, clipped, gain)

    def _split(self, numbers: Numbers, n: int) -> tuple[Numbers, Numbers]:
        """The ledgers (ledgers, n, 4) and the sums (sums, n, 2)."""
        return numbers[: n * PARTS * self.ledgers].reshape(self.ledgers, n, PARTS), self._sums(numbers, n)

    def _columns(self, parts: Numbers, sums: Numbers, clipped: Numbers, handed: Numbers) -> Numbers:
        """The numbers of the ledger but for the gain, (accounts, 7, m), for m samples or sums of samples."""
        rows, which, arrived, ledgers = self._index
        left = np.zeros(clipped.shape)
        np.add.at(left, rows, self._signs[:, None] * sums[which, :, 0])
        finite: NDArray[np.bool_] = np.isfinite(np.concatenate([left, handed], axis=1)).all(axis=1)
        if not finite.all():
            self._refuse(finite)
        nothing = np.zeros((1, *parts.shape[1:]))  # for nodes without a ledger
        covered, bias, stabilizer, dead = np.concatenate([parts, nothing])[ledgers].transpose(2, 0, 1)
        r_in, size = sums[arrived].transpose(2, 0, 1)
        gap = r_in - covered
        small = np.abs(gap) <= 1e-14 * size  # the sums' own rounding
        dead = dead + np.where(small | (ledgers == self.ledgers)[:, None], 0, gap)
        rest = r_in - left - bias - stabilizer - dead - clipped
        unexplained = np.divide(rest, size, out=np.zeros_like(rest), where=size != 0)
        return np.stack([r_in, left, bias, stabilizer, dead, unexplained, clipped], axis=1)

    def blown_up(self, numbers: Numbers, n: int, threshold: float) -> list[tuple[Account, float]]:
        """The accounts whose rows `blows_up` in a run with `n` samples, and their gains."""
        which, starts, arrived = self._glance
        if not len(starts):
            return []
        samples = self._sums(numbers, n)
        sizes = samples[..., 1]
        most = np.add.reduceat(sizes[which], starts)  # what was there before counts too
        if not (most / threshold > sizes[arrived]).any():
            return []
        with _QUIET():
            gains = self._gains(samples, self._handed(samples)).max(axis=1, initial=0.0)
        found = np.flatnonzero((gains > beyond(threshold)) & self._judged)
        return [(self.accounts[i], float(gains[i])) for i in found]

    def _sums(self, numbers: Numbers, n: int) -> Numbers:
        """Σ and Σ|·| of each array and sample: (sums, n, 2)."""
        sums: Numbers = numbers[n * PARTS * self.ledgers :].reshape(self.sums, n, SUMS)
        return sums

    def _handed(self, sums: Numbers) -> Numbers:
        """Σ|R| that each node hands back, before any is clipped, or the bound of it: (accounts, n)."""
        total = np.zeros((len(self.accounts), sums.shape[1]))
        np.add.at(total, self._whole.rows, sums[self._whole.after, :, 1])
        if len(self._merged.rows):
            after, before = sums[self._merged.after], sums[self._merged.before]
            bound = np.abs(after - before).max(axis=2) - _LAST_BIT * after[..., 1]
            np.add.at(total, self._merged.rows, np.maximum(bound, 0))
        return total

    def _gains(self, sums: Numbers, handed: Numbers) -> Numbers:
        """Of each account in each sample: (accounts, n)."""
        arrived = sums[self._index[2], :, 1]
        nothing = np.where(handed > 0, np.inf, 0.0)
        gains = np.divide(handed, arrived, out=nothing, where=arrived > 0)
        limited: Numbers = np.minimum(gains, self._limits[:, None])
        return limited

    def _clipped(self, sums: Numbers, handed: Numbers) -> Numbers:
        """What was taken by scaling contributions down, of each account in each sample: (accounts, n)."""
        total = np.zeros_like(handed)
        (clipping,) = np.nonzero(self._limits < np.inf)
        if len(clipping):
            given = np.zeros_like(handed)
            np.add.at(given, self._whole.rows, sums[self._whole.after, :, 0])
            arrived = sums[self._index[2][clipping], :, 1]
            factors = scales(arrived, handed[clipping], self._limits[clipping, None])
            total[clipping] = (1 - factors) * given[clipping]
        return total

    def _refuse(self, finite: NDArray[np.bool_]) -> None:
        account = self.accounts[int(np.argmin(finite))]
        raise NonFiniteError(
            f"the relevance that node {account.node!r} hands back under {account.rule} is not finite; "
            "it overflows, or a denominator is too small: use a larger stabilizer, or dtype float64"
        )


def _row(account: Account, line: Sequence[float]) -> ConservationRow:
    r_in, r_out, bias, stabilizer, dead, unexplained, clipped, gain = line
    return ConservationRow(
        account.node, account.rule, r_in, r_out, bias, stabilizer, dead,
        unexplained if account.conserves else math.nan, clipped, gain, account.explained,
    )  # fmt: skip
