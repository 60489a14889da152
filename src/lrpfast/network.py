"""A network: what a user loads or writes down, predicts with and explains."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from . import backends
from .canonize import Canonized, canonize
from .errors import InputError, ModelError, NonFiniteError
from .feeds import Arrays, as_array, check_feed
from .graph import Fact, Graph
from .lower import lower
from .memory import LESS_AT_ONCE, MORE_MEMORY, accounted, memory_limit
from .ops.base import Array
from .original import Original
from .plan import Plan


class Network:
    """An immutable network with one output, and one input or several.

    Made by `lrpfast.load`, `lrpfast.Sequential` or `lrpfast.Builder`. Batch axis first; a network
    that was exported for a fixed batch size takes any. Pickled, it takes its weights along.

    Parameters
    ----------
    graph : Graph, or a function of the input's shape that makes it
        As described, before canonisation. A function serves networks that fit several shapes: such a
        network takes the shape of the first array it meets, or the one that `at` is given.
    name : str, default "network"
        Shown in reports.
    read : callable, optional
        Makes the same graph again. If there is one, the weights that canonisation replaces are not held.
    labels : sequence of str, optional
    notes : sequence of str, optional

    Attributes
    ----------
    name : str
    labels : tuple of str, or None
        What the model calls its outputs.
    notes : tuple of str
        What was cut off the model's end when it was read, in words.
    graph : Graph
        What came from a file may have to be read again; `ModelError` says if the file has changed.
    inputs : mapping of name to Fact
        Shape of one sample, and what else is known of each input.
    input_shape, output_shape : tuple of int
        Of one sample; networks with several inputs have no `input_shape`.
    """

    def __init__(
        self,
        graph: Graph | Callable[[tuple[int, ...]], Graph],
        name: str = "network",
        read: Callable[[], Graph] | None = None,
        labels: Sequence[str] | None = None,
        notes: Sequence[str] = (),
    ) -> None:
        self.name = name
        self.labels = None if labels is None else tuple(labels)
        self.notes = tuple(notes)
        self._original = Original(graph, read) if isinstance(graph, Graph) else None
        self._make = None if isinstance(graph, Graph) else graph
        self._lock = threading.Lock()
        self._bound: dict[tuple[int, ...], Network] = {}
        self._canonized: dict[np.dtype[Any], Canonized] = {}
        self._plans: dict[tuple[str, np.dtype[Any]], tuple[Plan, Canonized]] = {}

    def __reduce__(self) -> tuple[Any, ...]:
        return Network, (self.graph, self.name, None, self.labels, self.notes)  # its file may not be there

    @property
    def original(self) -> Original:
        """The network as it was described, by what is known of it without its weights."""
        if self._original is None:
            raise ModelError(
                f"{self.name!r} does not know the shape of its input yet; give input_shape=, or call "
                ".at(shape of one sample)"
            )
        return self._original

    @property
    def graph(self) -> Graph:
        return self.original.graph()

    @property
    def is_bound(self) -> bool:
        """Whether the shape of the input is known."""
        return self._original is not None

    def at(self, input_shape: tuple[int, ...]) -> Network:
        """The network for samples of `input_shape`; itself if its shape is fixed."""
        if self._make is None:
            return self
        with self._lock:
            if input_shape not in self._bound:
                self._bound[input_shape] = Network(self._make(input_shape), self.name)
            return self._bound[input_shape]

    def bound(self, x: Any) -> Network:
        """The network for arrays like `x`."""
        return self if self.is_bound else self.at(as_array("x", x).shape[1:])

    @property
    def inputs(self) -> Mapping[str, Fact]:
        return self.original.inputs

    @property
    def input_shape(self) -> tuple[int, ...]:
        if len(self.inputs) != 1:
            raise ModelError(
                f"{self.name!r} has {len(self.inputs)} inputs, {', '.join(self.inputs)}; their shapes are in .inputs"
            )
        (fact,) = self.inputs.values()
        return fact.shape

    @property
    def output(self) -> str:
        """What the model calls its output."""
        return self.original.output

    @property
    def output_shape(self) -> tuple[int, ...]:
        return self.original.output_shape

    def __repr__(self) -> str:
        if self._original is None:
            return f"<Network {self.name!r}: its shape comes with its input>"
        inputs = ", ".join(str(fact.shape) for fact in self.inputs.values())
        return f"<Network {self.name!r}: {self._original.nodes} nodes, {inputs} -> {self.output_shape}>"

    def canonized(self, dtype: Any = np.float32) -> Canonized:
        """The network as rules are applied to it (computed once per dtype)."""
        key = np.dtype(dtype)
        with self._lock:
            if key not in self._canonized:
                original = self.original
                original.expect_release()
                with accounted("folding the weights", MORE_MEMORY):
                    canonized = canonize(original.graph(), key)
                self._canonized[key] = replace(canonized, changes=(*self.notes, *canonized.changes))
                original.release(canonized.graph)
            return self._canonized[key]

    def canonization_error(self, x: Array | None = None, dtype: Any = np.float32) -> float:
        """`max |Δforward|` that canonisation causes, relative to `max |forward|`.

        Parameters
        ----------
        x : array (n, *input_shape), optional
            As for `predict`. Default: four samples of seeded normal noise, or of small whole numbers.
        dtype : float32 or float64
        """
        inputs = self.noise() if x is None else x
        arrays = check_feed(self.name, self.inputs, inputs, np.dtype(dtype))
        plan = lower(self.graph, None, backends.get(), dtype)
        with plan.workspace(len(arrays[0])) as run:
            before = run.forward(*arrays)
        after = self.predict(inputs, dtype=dtype)
        scale = float(np.abs(before).max()) or 1.0
        return float(np.abs(before - after).max()) / scale

    def noise(self, n: int = 4) -> dict[str, Array]:
        """Seeded samples: zeros and ones for integers, else normal noise, its magnitude where inputs are ≥ 0."""
        rng = np.random.default_rng(0)
        found = {}
        for name, fact in self.inputs.items():
            noise = rng.standard_normal((n, *fact.shape))
            if fact.integer:
                noise = noise.round() % 2
            found[name] = np.abs(noise) if fact.nonnegative else noise
        return found

    def predict(
        self,
        x: Any,
        *,
        backend: str | None = None,
        threads: int | None = None,
        dtype: Any = np.float32,
        max_memory: int | str | None = None,
    ) -> Array:
        """Run the network.

        Parameters
        ----------
        x : array (n, *input_shape)
            Of a network with several inputs: a mapping of name to array, or a sequence of arrays in order.
        backend : {"native", "numba", "numpy"}, optional
            Default: the best one here (`lrpfast doctor` says which).
        threads : int, optional
            At most this many threads; default: all that `lrpfast.get_num_threads` allows.
        dtype : float32 or float64, default float32
        max_memory : int or str, optional
            At most this many bytes for all arrays of one run, or a size such as "512MB"; a batch that takes
            more is run piece by piece. Default: no limit.

        Returns
        -------
        array (n, *output_shape)
            The network's own output, the final Softmax or Sigmoid included; where the model ends in a label,
            the scores that it is made of.

        Raises
        ------
        InputError
            `x` has the wrong shape or dtype; an option is invalid, or not even one sample fits in `max_memory`.
        NonFiniteError
            `x` or the output holds NaN or infinity.
        OutOfMemoryError
            The run takes more memory than the system grants.
        """
        if self._original is None:
            return self.bound(x).predict(
                x, backend=backend, threads=threads, dtype=dtype, max_memory=max_memory
            )
        kernels, dtype, threads = backends.get(backend), real_dtype(dtype), thread_count(threads)
        limit = memory_limit(max_memory)
        arrays = check_feed(self.name, self.inputs, x, dtype)
        plan, canonized = self._plan(kernels, dtype)
        outputs = []
        with kernels.limit_threads(threads), accounted("a prediction", LESS_AT_ONCE):
            for piece in plan.pieces(len(arrays[0]), limit):
                some = tuple(array[piece] for array in arrays)
                with plan.workspace(len(some[0])) as run:
                    outputs.append(run.forward(*some))
        output = outputs[0] if len(outputs) == 1 else np.concatenate(outputs)
        check_output(canonized.graph, arrays, output)
        return output if canonized.head is None else canonized.head.forward(output)

    def _plan(self, kernels: Any, dtype: np.dtype[Any]) -> tuple[Plan, Canonized]:
        """The plan that predicts."""
        key = (kernels.name, dtype)
        found = self._plans.get(key)
        if found is None:
            canonized = self.canonized(dtype)
            with self._lock:
                if key not in self._plans:
                    self._plans[key] = lower(canonized.graph, None, kernels, dtype), canonized
                found = self._plans[key]
        return found

    @property
    def hash(self) -> str:
        """SHA-256 of the network's structure and weights, in hexadecimal."""
        return self.original.hash


_FLOAT32 = np.dtype(np.float32)
_REAL = frozenset((_FLOAT32, np.dtype(np.float64)))


def real_dtype(dtype: Any) -> np.dtype[Any]:
    """`dtype`, which must be one of the two that the kernels are made for."""
    if dtype is np.float32:
        return _FLOAT32
    try:
        real: np.dtype[Any] = np.dtype(dtype)
    except TypeError:
        raise InputError(f"dtype is {dtype!r}; expected float32 or float64") from None
    if real not in _REAL:
        raise InputError(f"dtype is {real}; expected float32 or float64")
    return real


def thread_count(threads: Any) -> int | None:
    """`threads`, which must be None or a whole number."""
    if threads is None:
        return None
    whole = isinstance(threads, (int, np.integer)) and not isinstance(threads, bool)
    if not (whole and threads >= 1):
        raise InputError(f"threads is {threads!r}; expected a whole number ≥ 1, or None for all")
    return int(threads)


def check_output(graph: Graph, inputs: Arrays, output: Array) -> None:
    """Raise an error that names the culprit if `output` is not finite."""
    if np.isfinite(output).all():
        return
    arrays = dict(zip(graph.inputs, inputs, strict=True))
    with np.errstate(all="ignore"):
        for node in graph.nodes:
            arrays[node.output] = node.op.forward(*(arrays[name] for name in node.inputs))
            if not np.isfinite(arrays[node.output]).all():
                break
    raise NonFiniteError(
        f"the prediction is not finite: NaN or infinity first appears at node {node.name!r} "
        f"({node.op.kinds[0]}); the input is out of the network's range, or use dtype float64"
    )
