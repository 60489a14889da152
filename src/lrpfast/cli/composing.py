"""The composite that the options describe, its box brought to the layer that needs it."""

from __future__ import annotations

import inspect
from typing import Any

import numpy as np

from ..composites import COMPOSITES, Composite, composite
from ..errors import CompositeError
from ..graph import Graph
from ..ops.base import Array
from .console import note, usage
from .options import Parameters

BOXED = {"epsilon_gamma_box": "convolution", "deep_taylor_bounded": "linear"}
"""The composites that need the bounds of the inputs, and the kind of the first layers that use them."""

Box = tuple[Any, Any]


def make_composite(
    name: str,
    parameters: Parameters,
    low: float | None,
    high: float | None,
    graph: Graph,
    box: Box | None = None,
) -> Composite:
    """Make a composite for a network.

    Parameters
    ----------
    name, parameters, low, high
        As the options give them.
    graph : Graph
        The canonised network.
    box : (low, high), optional
        Bounds of the network's input, for composites that need some and where the options give none.

    Raises
    ------
    Failure
        A parameter is unknown, missing or invalid.
    """
    given: dict[str, Any] = dict(parameters)
    given.update({key: value for key, value in (("low", low), ("high", high)) if value is not None})
    known = inspect.signature(COMPOSITES[name]).parameters
    for key, value in given.items():
        if key not in known:
            has = f"its parameters are {', '.join(known)}" if known else "it has no parameters"
            raise usage(f"composite {name!r} has no parameter {key!r}", has)
        if isinstance(value, str) and not isinstance(known[key].default, str):
            raise usage(
                f"--param is {f'{key}={value}'!r}; expected {key}=NUMBER", f"such as --param {key}=0.5"
            )
    if name in BOXED:
        if not {"low", "high"} & given.keys() and box is not None:
            given["low"], given["high"] = box
        if not {"low", "high"} <= given.keys():
            raise usage(
                f"composite {name!r} needs the bounds of the inputs",
                "say --low and --high; for pictures both can be left out, as --preprocess implies them",
            )
    try:
        made = composite(name, **given)
        if name in BOXED:
            given["low"], given["high"] = box_at_first(graph, BOXED[name], given["low"], given["high"])
            made = composite(name, **given)
    except CompositeError as error:
        raise usage(str(error), "`lrpfast composites` lists the parameters and their defaults") from error
    return made


def make_composite_to_look_at(
    name: str, parameters: Parameters, low: float | None, high: float | None, graph: Graph
) -> Composite:
    """As `make_composite`; without bounds they are 0 and 1, since nothing is computed with them."""
    if name in BOXED and low is None and high is None and not {"low", "high"} & dict(parameters).keys():
        note(f"{name} is shown for inputs from 0 to 1; --low and --high say otherwise")
    return make_composite(name, parameters, low, high, graph, box=(0.0, 1.0))


def box_at_first(graph: Graph, kind: str, low: Any, high: Any) -> Box:
    """Bounds of the network's input as bounds of the input of the first layer of some kind.

    Between the two may stand a Transpose, padding or a normalisation: operators that are monotonic in each
    element, so that the bounds go through them like any input. For convolutions the bounds are taken
    per channel.

    Parameters
    ----------
    low, high : float or array
        Broadcast against one sample.
    """
    bounds: dict[str, tuple[Array, Array]] = {
        name: (
            np.broadcast_to(np.float64(low), (1, *fact.shape)),
            np.broadcast_to(np.float64(high), (1, *fact.shape)),
        )
        for name, fact in graph.inputs.items()
    }
    for node in graph.nodes:
        inputs = [bounds[name] for name in node.inputs]
        if kind in node.op.kinds:
            return _simplified(*inputs[0], per_channel="convolution" in node.op.kinds)
        if "linear" in node.op.kinds:
            raise usage(f"the bounds of the first {kind}'s input are unknown: {node.name} comes before it",
                        "use lrpfast.composite in Python, or another composite")  # fmt: skip
        ends = [node.op.forward(*(pair[side] for pair in inputs)) for side in (0, 1)]
        bounds[node.output] = np.minimum(*ends), np.maximum(*ends)
    return low, high


def _simplified(low: Array, high: Array, per_channel: bool) -> Box:
    """Bounds without the batch axis: numbers if they are the same everywhere."""
    if per_channel:
        spatial = tuple(range(2, low.ndim))
        low, high = low.min(axis=spatial, keepdims=True), high.max(axis=spatial, keepdims=True)
    low, high = low[0], high[0]
    if low.min() == low.max() and high.min() == high.max():
        return float(low.min()), float(high.max())
    return low, high
