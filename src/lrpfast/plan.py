"""The plan: a flat list of kernel calls, and the loop that runs it.

A plan is immutable, knows its backend and dtype, and holds for any number of samples; it may be run
by many threads at once, since each run has a workspace of its own. It mentions arrays by name.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from .errors import NonFiniteError
from .ops.base import Array

Workspace = dict[str, Any]


@dataclass(frozen=True)
class View:
    """An array of the workspace, seen in the shape that a kernel wants.

    Attributes
    ----------
    array : str
        Name of the array.
    shape : tuple of int
        Shape behind the leading axis.
    rows : int
        Rows of the leading axis per sample.
    """

    array: str
    shape: tuple[int, ...]
    rows: int = 1

    def __str__(self) -> str:
        return self.array


@dataclass(frozen=True)
class New:
    """An array that a step makes: its name, one sample's shape, and how it starts."""

    name: str
    shape: tuple[int, ...]
    dtype: str = "real"
    zero: bool = False


@dataclass(frozen=True)
class Step:
    """Base of the two kinds of steps.

    Attributes
    ----------
    node : str
        The node that the step works for.
    form : str
        In words: which form was chosen, and why.
    frees : tuple of str
        Arrays that no later step reads.
    """

    node: str
    form: str = field(default="", kw_only=True)
    frees: tuple[str, ...] = field(default=(), kw_only=True)

    def reads(self) -> tuple[str, ...]:
        """Names of the arrays read or updated."""
        raise NotImplementedError

    def writes(self) -> tuple[str, ...]:
        """Names of the arrays made."""
        raise NotImplementedError

    def label(self) -> str:
        """What runs, as shown by ``lrpfast inspect --stage plan``."""
        raise NotImplementedError


@dataclass(frozen=True)
class KernelCall(Step):
    """A kernel and its arguments: views of the workspace, constants and numbers."""

    kernel: str
    arguments: Mapping[str, Any]
    makes: tuple[New, ...] = ()

    def reads(self) -> tuple[str, ...]:
        made = self.writes()
        views = (v for v in self.arguments.values() if isinstance(v, View))
        return tuple(v.array for v in views if v.array not in made)

    def writes(self) -> tuple[str, ...]:
        return tuple(new.name for new in self.makes)

    def label(self) -> str:
        return self.kernel


@dataclass(frozen=True)
class HostCall(Step):
    """A NumPy function of whole arrays, for what needs no kernel.

    Attributes
    ----------
    function : callable
        Takes the arrays that `inputs` name, returns one array for each of `outputs`.
    inputs : tuple of str or Shape
    outputs : tuple of Delivery
    """

    title: str
    function: Callable[..., tuple[Array, ...]]
    inputs: tuple[str | Shape, ...]
    outputs: tuple[Delivery, ...]

    def reads(self) -> tuple[str, ...]:
        named = tuple(name for name in self.inputs if isinstance(name, str))
        return named + tuple(d.name for d in self.outputs if d.accumulate)

    def writes(self) -> tuple[str, ...]:
        return tuple(d.name for d in self.outputs if not d.accumulate)

    def label(self) -> str:
        return self.title


@dataclass(frozen=True)
class Shape:
    """Stands for an array of which only the shape is needed; costs no memory."""

    shape: tuple[int, ...]


@dataclass(frozen=True)
class Delivery:
    """Where a result goes: a new array, or added to one. A private array is a copy, never a view."""

    name: str
    accumulate: bool = False
    private: bool = False
    dtype: str = "real"


@dataclass(frozen=True)
class Account:
    """Where the sums of a node's relevance are found after a run.

    Attributes
    ----------
    node, rule : str
    conserves : bool
    arrived : str
        Sums of the relevance at its output.
    left : tuple of (str, str or None)
        For each input: the sums after the node's contribution, and those before it.
    ledger : str or None
        What bias, stabilizer and dead units took.
    """

    node: str
    rule: str
    conserves: bool
    arrived: str
    left: tuple[tuple[str, str | None], ...]
    ledger: str | None


@dataclass(frozen=True)
class Plan:
    """Steps forward and steps back, for one network, rules, dtype and backend."""

    input: str
    input_shape: tuple[int, ...]
    output: str
    output_shape: tuple[int, ...]
    dtype: np.dtype[Any]
    backend: Any
    forward: tuple[Step, ...]
    vjp: tuple[Step, ...]
    accounts: tuple[Account, ...]
    relevance: str
    recorded: Mapping[str, str]

    def run_forward(self, x: Array) -> Workspace:
        """Run the forward steps on `x` of shape (n, *input_shape); the output is among the arrays."""
        workspace: Workspace = {self.input: x}
        self._run(self.forward, workspace, len(x))
        return workspace

    def run_vjp(self, workspace: Workspace, initial: Array) -> None:
        """Hand back the relevance `initial` of the output; `workspace` is from `run_forward`."""
        workspace[relevance_of(self.output)] = initial
        self._run(self.vjp, workspace, len(initial))

    def _run(self, steps: tuple[Step, ...], workspace: Workspace, n: int) -> None:
        with np.errstate(over="ignore", invalid="ignore"):  # infinity and NaN are looked for afterwards
            for step in steps:
                if isinstance(step, KernelCall):
                    for new in step.makes:
                        make = np.zeros if new.zero else np.empty
                        workspace[new.name] = make((n, *new.shape), self._dtype(new.dtype))
                    arguments = {
                        key: workspace[value.array].reshape(n * value.rows, *value.shape)
                        if isinstance(value, View)
                        else value
                        for key, value in step.arguments.items()
                    }
                    getattr(self.backend, step.kernel)(**arguments)
                elif isinstance(step, HostCall):
                    self._run_host(step, workspace, n)
                for name in step.frees:
                    del workspace[name]

    def _dtype(self, name: str) -> Any:
        return self.dtype if name == "real" else name

    def _run_host(self, step: HostCall, workspace: Workspace, n: int) -> None:
        inputs = [
            workspace[name]
            if isinstance(name, str)
            else np.broadcast_to(np.zeros((), self.dtype), (n, *name.shape))
            for name in step.inputs
        ]
        results = step.function(*inputs)
        for delivery, result in zip(step.outputs, results, strict=True):
            if delivery.accumulate:
                workspace[delivery.name] += result
            elif delivery.private:
                workspace[delivery.name] = np.array(result, self._dtype(delivery.dtype), order="C")
            else:
                workspace[delivery.name] = np.ascontiguousarray(result, self._dtype(delivery.dtype))


def relevance_of(value: str) -> str:
    """Name of the array that holds the relevance of `value`."""
    return f"R({value})"


def with_frees(steps: Iterable[Step], keep: frozenset[str]) -> tuple[Step, ...]:
    """Let each array be freed after the last step that reads it, unless it is to be kept."""
    steps = tuple(steps)
    last: dict[str, int] = {}
    for i, step in enumerate(steps):
        for name in (*step.reads(), *step.writes()):
            last[name] = i
    frees: list[list[str]] = [[] for _ in steps]
    for name, i in last.items():
        if name not in keep:
            frees[i].append(name)
    return tuple(replace(step, frees=tuple(f)) for step, f in zip(steps, frees, strict=True))


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


def settle(plan: Plan, workspace: Workspace) -> tuple[ConservationRow, ...]:
    """Make the ledger out of the sums that a run left behind.

    Raises
    ------
    NonFiniteError
        Some relevance is NaN or infinite; names the node that made it.
    """
    rows = []
    for account in plan.accounts:
        arrived, size = workspace[account.arrived].sum(axis=0)
        left = 0.0
        for after, before in account.left:
            left += float(workspace[after][:, 0].sum())
            if before is not None:
                left -= float(workspace[before][:, 0].sum())
        if not np.isfinite(left):
            raise NonFiniteError(
                f"the relevance that node {account.node!r} hands back under {account.rule} is not finite; "
                "it overflows, or a denominator is too small: use a larger stabilizer, or dtype float64"
            )
        bias = stabilizer = dead = 0.0
        if account.ledger is not None:
            covered, bias, stabilizer, dead = map(float, workspace[account.ledger].sum(axis=0))
            gap = float(arrived) - covered
            dead += gap if abs(gap) > 1e-14 * float(size) else 0.0  # else it is the sums' own rounding
        rest = float(arrived) - left - bias - stabilizer - dead
        unexplained = rest / float(size) if size else 0.0
        rows.append(
            ConservationRow(
                account.node, account.rule, float(arrived), left, bias, stabilizer, dead,
                unexplained if account.conserves else float("nan"),
            )
        )  # fmt: skip
    return tuple(rows)
