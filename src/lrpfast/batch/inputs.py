"""The inputs of a network in a job: one, or several by their names."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..feeds import like_given
from ..network import Network

Shape = tuple[int, ...]

Shapes = Shape | Mapping[str, Shape]
"""The shape of one sample: of a network's only input, or by name of each of several."""


def shapes_of(network: Network) -> Shapes:
    """The shapes of a network's inputs."""
    return like_given(network.inputs, tuple(fact.shape for fact in network.inputs.values()))


def by_name(shapes: Shapes) -> Mapping[str, Shape]:
    """The shapes by input; an only one has no name, "", since nothing is called after it."""
    return shapes if isinstance(shapes, Mapping) else {"": shapes}


def titled(word: str, name: str) -> str:
    """What belongs to an input: ``relevance``, or ``relevance:NAME`` where there are several."""
    return f"{word}:{name}" if name else word


def as_json(shapes: Shapes) -> Any:
    """For files: a list, or a list for each name."""
    found = {name: list(shape) for name, shape in by_name(shapes).items()}
    return found if isinstance(shapes, Mapping) else found[""]


def from_json(described: Any) -> Shapes:
    """What `as_json` wrote; raises TypeError or ValueError if it is something else."""
    if isinstance(described, Mapping):
        return {str(name): tuple(map(int, shape)) for name, shape in described.items()}
    return tuple(map(int, described))
