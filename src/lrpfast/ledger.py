"""The conservation ledger: where relevance went, settled from the sums that a run left behind."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial

import numpy as np
from numpy.typing import NDArray

from .errors import NonFiniteError

Numbers = NDArray[np.float64]

_QUIET = partial(np.errstate, over="ignore", invalid="ignore")  # what is not finite is refused in words

SUMS, PARTS = 2, 4
"""How many numbers a sample there are of the sums of an array, and in a node's own ledger."""


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
    """

    node: str
    rule: str
    conserves: bool
    arrived: int
    left: tuple[tuple[int, int | None], ...]
    ledger: int | None


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
        `r_in − r_out − bias − stabilizer − dead` as a share of Σ|R| that arrived: rounding. NaN for
        rules that promise no conservation (gradients, custom rules).
    """

    node: str
    rule: str
    r_in: float
    r_out: float
    bias: float
    stabilizer: float
    dead: float
    unexplained: float


@dataclass(frozen=True, eq=False)
class SampleLedger:
    """The conservation ledger of each sample, over all nodes.

    Attributes
    ----------
    worst : array (n,)
        The largest |unexplained| of a node, as in `ConservationRow`; 0 where no rule promises conservation.
    bias, stabilizer, dead : array (n,)
        What all nodes together took.
    """

    worst: Numbers
    bias: Numbers
    stabilizer: Numbers
    dead: Numbers


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

    def __post_init__(self) -> None:
        rows, which, signs = [], [], []
        for row, account in enumerate(self.accounts):
            for after, before in account.left:
                rows.append(row)
                which.append(after)
                signs.append(1.0)
                if before is not None:
                    rows.append(row)
                    which.append(before)
                    signs.append(-1.0)
        ledgers = [self.ledgers if a.ledger is None else a.ledger for a in self.accounts]
        arrived = [a.arrived for a in self.accounts]
        index = tuple(np.array(i, np.intp) for i in (rows, which, arrived, ledgers))
        object.__setattr__(self, "_index", index)
        object.__setattr__(self, "_signs", np.array(signs))

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
            columns = self._columns(parts.sum(axis=1, keepdims=True), sums.sum(axis=1, keepdims=True))
        lines = columns[:, :, 0].tolist()
        return tuple(_row(account, line) for account, line in zip(self.accounts, lines, strict=True))

    def by_sample(self, numbers: Numbers, n: int) -> SampleLedger:
        """What became of each sample's relevance, out of the numbers of a run with `n` samples."""
        with _QUIET():
            columns = self._columns(*self._split(numbers, n))
        bias, stabilizer, dead = columns[:, 2:5].sum(axis=0)
        conserving = [account.conserves for account in self.accounts]
        worst = np.abs(columns[conserving, 5]).max(axis=0, initial=0.0)
        return SampleLedger(worst, bias, stabilizer, dead)

    def _split(self, numbers: Numbers, n: int) -> tuple[Numbers, Numbers]:
        """The ledgers (ledgers, n, 4) and the sums (sums, n, 2)."""
        split = n * PARTS * self.ledgers
        return numbers[:split].reshape(self.ledgers, n, PARTS), numbers[split:].reshape(self.sums, n, SUMS)

    def _columns(self, parts: Numbers, sums: Numbers) -> Numbers:
        """The numbers of the ledger, (accounts, 6, m), for m samples or sums of samples."""
        rows, which, arrived, ledgers = self._index
        parts = np.concatenate(
            [parts, np.zeros((1, *parts.shape[1:]))]
        )  # the last for nodes without a ledger
        left = np.zeros((len(self.accounts), sums.shape[1]))
        np.add.at(left, rows, self._signs[:, None] * sums[which, :, 0])
        if not np.isfinite(left).all():
            self._refuse(left.sum(axis=1))
        r_in, size = sums[arrived].transpose(2, 0, 1)
        covered, bias, stabilizer, dead = parts[ledgers].transpose(2, 0, 1)
        gap = r_in - covered
        small = np.abs(gap) <= 1e-14 * size  # the sums' own rounding
        dead = dead + np.where(small | (ledgers == self.ledgers)[:, None], 0, gap)
        rest = r_in - left - bias - stabilizer - dead
        unexplained = np.divide(rest, size, out=np.zeros_like(rest), where=size != 0)
        return np.stack([r_in, left, bias, stabilizer, dead, unexplained], axis=1)

    def _refuse(self, left: Numbers) -> None:
        account = self.accounts[int(np.argmin(np.isfinite(left)))]
        raise NonFiniteError(
            f"the relevance that node {account.node!r} hands back under {account.rule} is not finite; "
            "it overflows, or a denominator is too small: use a larger stabilizer, or dtype float64"
        )


def _row(account: Account, line: Sequence[float]) -> ConservationRow:
    r_in, r_out, bias, stabilizer, dead, unexplained = line
    kept = unexplained if account.conserves else float("nan")
    return ConservationRow(account.node, account.rule, r_in, r_out, bias, stabilizer, dead, kept)
