"""Layers that an exporter has broken up into simpler operators, found again.

What is found is one operator to the rules, and has one line in the list of changes. Pieces whose values others read
too stay as they are, and so does whatever differs by more than the rounding of its constants to float32.

`scalar` finds functions of one number by their values, `layers` normalisation and Softmax by their algebra, `joined`
what is whole but for movements around it.
"""

from __future__ import annotations

from ..graph import Graph
from .found import made_whole
from .joined import joined_layers
from .layers import broken_layers
from .scalar import scalar_functions

_KINDS = (scalar_functions, broken_layers, joined_layers)


def find_patterns(graph: Graph, changes: list[str]) -> Graph:
    """The graph with the layers that are found, a line for each added to `changes`."""
    for find in _KINDS:
        graph = made_whole(graph, find(graph), changes)
    return graph


__all__ = ["find_patterns"]
