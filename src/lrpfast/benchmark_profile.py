"""Where the time of an explanation goes: a row for every step of a plan."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from .graph import Graph
from .ops.base import Array
from .steps import HostCall, KernelCall, Step, View


@dataclass(frozen=True)
class ProfileRow:
    """One step of a plan, and what it cost.

    Attributes
    ----------
    node, step, form : str
        The node that the step works for; the kernel, or the NumPy function; and the form that was chosen.
    seconds : float
    share : float
        Of the time of all steps.
    rate : float or None
        Operations per second: as many additions and multiplications as the kernel's definition spends, zeros
        included, so that skipping those shows as a higher rate. None for NumPy functions.
    input_density, relevance_density : float or None
        Which share of the node's inputs, and of the relevance of its output, is not zero.
    """

    node: str
    step: str
    form: str
    seconds: float
    share: float
    rate: float | None
    input_density: float | None
    relevance_density: float | None


def profile_rows(
    timed: Sequence[tuple[Step, float]], samples: int, densities: Mapping[str, tuple[float, float]]
) -> list[ProfileRow]:
    """A row for each step, in the order in which they run.

    Parameters
    ----------
    timed : sequence of (Step, float)
        The steps and the seconds that each took.
    samples : int
        How many samples they worked on.
    densities : mapping of node name to (float, float)
        As `densities` returns them.
    """
    total = sum(seconds for _, seconds in timed) or 1.0
    rows = []
    for step, seconds in timed:
        known = operations(step)
        rate = None if known is None or not seconds else known * samples / seconds
        row = (step.node, step.label(), step.form, seconds, seconds / total, rate)
        rows.append(ProfileRow(*row, *densities.get(step.node, (None, None))))
    return rows


def densities(
    graph: Graph, inputs: Sequence[Array], relevance: Mapping[str, Array]
) -> dict[str, tuple[float, float]]:
    """Which share of each node's inputs, and of the relevance of its output, is not zero.

    Parameters
    ----------
    graph : Graph
        The canonised network.
    inputs : sequence of array
        Of the network, each with a batch axis in front.
    relevance : mapping of node name to array
        The relevance of all nodes' outputs.
    """
    arrays = dict(zip(graph.inputs, inputs, strict=True))
    found = {}
    with np.errstate(all="ignore"):
        for node in graph.nodes:
            inputs = [arrays[name] for name in node.inputs]
            arrays[node.output] = node.op.forward(*inputs)
            found[node.name] = density(inputs), density([relevance[node.name]])
    return found


def density(arrays: Iterable[Array]) -> float:
    """The share of all elements that are not zero."""
    counts = [(np.count_nonzero(a), a.size) for a in arrays]
    return sum(count for count, _ in counts) / (sum(size for _, size in counts) or 1)


# --- operations ---


def operations(step: Step) -> int | None:
    """Additions and multiplications per sample that a step's definition spends; None for NumPy functions."""
    if isinstance(step, HostCall):
        return None
    assert isinstance(step, KernelCall)
    family, _, direction = step.kernel.partition("_")
    arguments = step.arguments
    given = arguments.get("src", arguments.get("z"))
    written = arguments["out"] if step.end is None else step.end.out
    z = written if direction == "forward" else given
    if family == "gemm":
        return _products(step) * (z.rows if isinstance(z, View) else len(z))
    if family in ("conv", "depthwise"):
        return _products(step) * math.prod(_shape(z)[1:4])
    if step.kernel in ("sumpool_forward", "sumpool_vjp", "maxpool_forward"):
        return _size(z) * int(math.prod(arguments["window"]))
    return max(_size(given), _size(written))


def _products(step: KernelCall) -> int:
    """What a multiplication and an addition for each weight amount to; twice, if there are two parts of them."""
    parts = 1 if step.arguments.get("other_part") is None else 2
    return 2 * parts * int(step.arguments["w"].size)


def _shape(array: View | Array) -> tuple[int, ...]:
    """The shape of one row, (blocks, d, h, w, lanes) if it is blocked: of a view of the plan, or of a constant."""
    return array.shape if isinstance(array, View) else array.shape[1:]


def _size(array: View | Array) -> int:
    """Elements per sample."""
    return math.prod(_shape(array)) * (array.rows if isinstance(array, View) else len(array))
