"""A network's graph as it was described; its weights are in memory, or back in their file.

Canonisation makes new weights, and the old ones are seldom needed again. Those that came from a file can be
read again, so a network need not hold both.
"""

from __future__ import annotations

import contextlib
import threading
import weakref
from collections.abc import Callable
from dataclasses import fields
from typing import Any

import numpy as np

from .errors import ModelError
from .graph import Graph
from .ops.affine import Affine
from .ops.base import Array

WORTH = 2**20
"""So many bytes of weights are worth reading a file again."""


class Original:
    """A graph that may be given back to its file.

    Parameters
    ----------
    graph : Graph
    read : callable, optional
        Makes the same graph again; None if that cannot be.

    Attributes
    ----------
    inputs : mapping of name to Fact
        What is known of the inputs.
    output : str
        The name of the array that it ends in.
    output_shape : tuple of int
        Of one sample.
    nodes : int
        How many there are.
    """

    def __init__(self, graph: Graph, read: Callable[[], Graph] | None = None) -> None:
        self.inputs = graph.inputs
        self.output = graph.output
        self.output_shape = graph.output_shape
        self.nodes = len(graph.nodes)
        self._graph: Graph | None = graph
        self._read = read
        self._hash = ""
        self._hashing: threading.Thread | None = None
        self._released = False
        self._lock = threading.Lock()
        self._again: weakref.ref[Graph] | None = None

    def graph(self) -> Graph:
        """The graph, read again if it was released.

        Raises
        ------
        ModelError
            What would be read is not there any more, or another network.
        """
        kept = self._graph
        if kept is not None:
            return kept
        with self._lock:
            again = None if self._again is None else self._again()
            if again is None:
                again = self._reread()
                self._again = weakref.ref(again)
            return again

    def _reread(self) -> Graph:
        assert self._read is not None
        cure = "keep the file as it is while its network is in use, or load the network again"
        try:
            graph = self._read()
        except (OSError, ModelError) as error:
            raise ModelError(
                f"weights have to be read from the model's file again, which fails: {error}; {cure}"
            ) from error
        if digest(graph) != self._hash:
            raise ModelError(
                "weights have to be read from the model's file again, which holds another network by now "
                f"(its SHA-256 is not {self._hash[:12]}…); {cure}"
            )
        return graph

    def hash_aside(self) -> None:
        """Begin to compute the hash in another thread, where that takes long: it leaves the interpreter to others."""
        with self._lock:
            graph = self._graph
            if self._hash or self._hashing is not None or graph is None or _nbytes(graph) < WORTH:
                return
            hashing = threading.Thread(target=self._compute_hash, args=(graph,), daemon=True)
            # Where the system grants no more threads it is computed when it is asked for.
            with contextlib.suppress(RuntimeError):
                hashing.start()
                self._hashing = hashing

    def expect_release(self) -> None:
        """Prepare for `release`, if it may come to that: without the hash no other graph could be told from this."""
        graph = self._graph
        if (
            self._read is not None
            and graph is not None
            and any(isinstance(n.op, Affine) for n in graph.nodes)
        ):
            self.hash_aside()

    def release(self, canonized: Graph) -> None:
        """Hold the weights no longer, if they can be read again and `canonized` has many of its own."""
        graph = self._graph
        if self._read is None or graph is None or _nbytes(graph, but=canonized) < WORTH:
            return
        with self._lock:
            self._released = True
            if self._hash:
                self._graph = None

    def _compute_hash(self, graph: Graph) -> None:
        found = digest(graph)
        with self._lock:
            self._hash = found
            if self._released:
                self._graph = None

    @property
    def hash(self) -> str:
        """SHA-256 of structure and weights, in hexadecimal."""
        if self._hashing is not None:
            self._hashing.join()
        if not self._hash:
            self._compute_hash(self.graph())
        return self._hash


def digest(graph: Graph) -> str:
    """SHA-256 of a graph's structure and weights, in hexadecimal."""
    import hashlib  # not needed to predict, and not free to import

    found = hashlib.sha256(repr(tuple(graph.inputs.items())).encode())
    for node in graph.nodes:
        found.update(repr((node.name, type(node.op).__name__, node.inputs, node.output)).encode())
        for name, value in _attributes(node.op):
            if isinstance(value, np.ndarray):
                found.update(repr((name, value.shape, value.dtype.str)).encode())
                found.update(np.ascontiguousarray(value).data)
            else:
                found.update(repr((name, value)).encode())
    return found.hexdigest()


def _attributes(op: Any) -> list[tuple[str, Any]]:
    return [(f.name, getattr(op, f.name)) for f in fields(op)]


def _nbytes(graph: Graph, but: Graph | None = None) -> int:
    """Bytes of a graph's weights; of those that another does not have."""
    others = {} if but is None else _arrays(but)
    return sum(array.nbytes for key, array in _arrays(graph).items() if key not in others)


def _arrays(graph: Graph) -> dict[int, Array]:
    """The weights of a graph, each once."""
    values = (value for node in graph.nodes for _, value in _attributes(node.op))
    return {id(value): value for value in values if isinstance(value, np.ndarray)}
