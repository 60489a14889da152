"""Explaining: from a network and inputs to an `Explanation`."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from . import backends
from .blowup import BlowUpPolicy
from .composites import Composite, Selector, assign
from .composites import composite as make_composite
from .errors import InputError, RuleError
from .explanation import Explanation
from .feeds import Arrays, as_array, as_finite, check_feed
from .graph import Fact, Graph, Node
from .ledger import BLOWUP
from .limits import Limits
from .lower import lower
from .memory import memory_limit
from .network import Network, real_dtype, thread_count
from .ops.base import Array, Op
from .prepared import Prepared, prepare
from .rules import Rule
from .steps import Step

if TYPE_CHECKING:
    from .onnx_inputs import InputShape


def load(
    source: Any,
    input_shape: InputShape | None = None,
    *,
    output: str | None = None,
    limits: Limits | None = None,
) -> Network:
    """Read a network from an ONNX model.

    Parameters
    ----------
    source : path, bytes or onnx.ModelProto
        Weights in external files are read from the model's own folder only. Keep the files as they are:
        weights that are replaced before a network runs (batch normalisation is folded) are not kept in
        memory but read again if they are asked for; what has changed by then is refused.
    input_shape : tuple of int, or mapping of input name to tuple of int, optional
        Shape of one sample, without the batch axis; needed where the model leaves it open.
    output : str, optional
        Which output to explain: the name of one of the model's, or of any array that it computes. Needed
        where the model has several; labels that are made of the others do not count.
    limits : lrpfast.Limits, optional
        What the model may ask for at most. Default: the environment's ``LRPFAST_LIMITS``, or `Limits()`.

    Returns
    -------
    Network
        Where the model ends in a label (ArgMax, TopK, a comparison with a threshold, and the lookup of a name
        by these) or in a table of scores by label (ZipMap), the network ends in the scores before that, and
        these are what `Network.predict` returns. A Normalizer of the scores is left out likewise.
        `Network.notes` says what was cut off, `Network.labels` what the model calls its classes.

    Raises
    ------
    FileNotFoundError
        There is no such file.
    ModelError
        It is not an ONNX model, is damaged, holds NaN, or exceeds a limit; or it is not said which output is meant.
    UnsupportedOperatorError
        It uses operators that are not among `lrpfast.OPERATORS`; all of them are listed.
    """
    from .onnx_io import load_graph, load_model

    if not isinstance(source, (str, os.PathLike)):
        loaded = load_model(source, input_shape, output, limits=limits)
        return Network(loaded.graph, labels=loaded.labels, notes=loaded.notes)
    path = os.path.abspath(os.fsdecode(source))  # the process may go to another folder
    loaded = load_model(path, input_shape, output, limits=limits)
    read = partial(load_graph, path, input_shape, output, limits)
    name = os.path.basename(os.fsdecode(source))
    return Network(loaded.graph, name, read, labels=loaded.labels, notes=loaded.notes)


class Explainer:
    """Explains predictions of one network with one composite; called like a function.

    Immutable and thread-safe: make it once, call it from as many threads as you like. The results
    of a sample do not depend on the batch it is in, nor on the number of threads (native backend).

    Parameters
    ----------
    network : Network
    composite : str or Composite, default "epsilon_plus_flat"
        Which rule goes where; see `lrpfast.COMPOSITES`.
    threads : int, optional
        At most this many threads a call; default: all that `lrpfast.get_num_threads` allows.
    backend : {"native", "numba", "numpy"}, optional
        Default: the best one here.
    dtype : float32 or float64, default float32
        What everything is computed in.
    record : str or iterable of str, default ()
        Nodes whose relevance is to be kept: names or glob patterns; "all" for every node.
    max_memory : int or str, optional
        At most this many bytes for all arrays of one run, or a size such as "512MB" or "1.5GiB"; a batch
        that takes more is explained piece by piece, with the same results. Each sample takes
        `memory_per_sample`; weights and results are not counted. Default: no limit.
    on_blowup : {"warn", "clip", "error", "ignore"}, default "warn"
        What is done where contributions cancel so much that a node multiplies Σ|R| by more than `blowup`, in any
        sample: a `BlowUpWarning`; what the node hands back is scaled down, sample by sample, to `blowup` times
        what arrived, which the ledger says (`clipped`); a `BlowUpError`; or nothing. It concerns rules that
        promise conservation, and not the node that makes the output: its contributions cancel as much as the
        prediction is small.
    blowup : float, default 10
        The threshold, ≥ 1.

    Raises
    ------
    CompositeError
        The composite is unknown, or leaves a node without a rule.
    InputError
        `dtype`, `threads`, `record`, `max_memory`, `on_blowup` or `blowup` is invalid, or not even one sample fits
        in `max_memory`.

    Examples
    --------
    >>> explain = Explainer(network, lrpfast.composite("epsilon_gamma_box", low=-3, high=3))  # doctest: +SKIP
    >>> explanation = explain(x, target=7)                                                     # doctest: +SKIP
    """

    def __init__(
        self,
        network: Network,
        composite: str | Composite = "epsilon_plus_flat",
        *,
        threads: int | None = None,
        backend: str | None = None,
        dtype: Any = np.float32,
        record: str | Iterable[str] = (),
        max_memory: int | str | None = None,
        on_blowup: str = "warn",
        blowup: float = BLOWUP,
    ) -> None:
        self.network = network
        self.composite = make_composite(composite)
        self.threads = thread_count(threads)
        self.dtype = real_dtype(dtype)
        self.backend = backends.get(backend)
        self.record = (record,) if isinstance(record, str) else tuple(record)
        self.max_memory = memory_limit(max_memory)
        self.policy = BlowUpPolicy(on_blowup, blowup)
        self._lock = threading.Lock()
        self._made: dict[tuple[tuple[Fact, ...], bool], Prepared] = {}
        if network.is_bound:
            self._prepared(network).plan.pieces(1, self.max_memory)

    def __reduce__(self) -> tuple[Any, ...]:
        options = {
            "threads": self.threads, "backend": self.backend.name, "dtype": self.dtype, "record": self.record,
            "max_memory": self.max_memory, "on_blowup": self.policy.on_blowup, "blowup": self.policy.threshold,
        }  # fmt: skip
        return partial(Explainer, **options), (self.network, self.composite)

    def __repr__(self) -> str:
        return f"<Explainer of {self.network!r} by {self.composite.name} on {self.backend.name}>"

    @property
    def memory_per_sample(self) -> int:
        """Bytes that a run takes for each sample of its batch: what `max_memory` limits.

        Raises
        ------
        ModelError
            The network does not know the shape of its input yet.
        """
        return self._prepared(self.network).plan.bytes_per_sample

    @property
    def manifest(self) -> Mapping[str, Any]:
        """What the manifests of all explanations will say: model hash, composite, rule per node, versions, backend.

        Raises
        ------
        ModelError
            The network does not know the shape of its input yet.
        """
        return self._prepared(self.network).manifests[0]

    def _prepared(self, network: Network, keep: bool = False) -> Prepared:
        """What is needed for inputs of the network's shape, made at its first use."""
        key = tuple(network.inputs.values()), keep
        found = self._made.get(key)
        if found is not None:
            return found
        with self._lock:
            if key not in self._made:
                with self.backend.limit_threads(self.threads):  # some denominators are computed here
                    self._made[key] = prepare(
                        network, (self.composite,), self.backend, self.dtype, self.record, keep, self.policy
                    )
            return self._made[key]

    def __call__(
        self,
        x: Any,
        target: Any = None,
        init: Any = None,
        *,
        threads: int | None = None,
        max_memory: int | str | None = None,
    ) -> Explanation:
        """Explain the predictions for `x`.

        Parameters
        ----------
        x : array (n, *network.input_shape)
        target : None, int, array of int (n,), or array of output weights, optional
            Which output to explain: the largest of each sample by default; or one index for all; or one
            per sample; or a weight for every output, shaped like one sample's output or all of them
            (``w[3] = 1, w[5] = -1`` explains what speaks for 3 rather than 5). Whole numbers in one
            axis are always indices, so give such weights as floats.
        init : {"logit", "one", "probability"} or array, optional
            The relevance to hand back, times the target's weights: the output f(x) itself, 1, the
            probability (`Explanation.probabilities`), or your own numbers: (n,), or shaped like the output.
            Default: the composite's, "logit" for relevance rules and "one" for gradients.
        threads : int, optional
            At most this many threads for this call. Default: the explainer's `threads`.
        max_memory : int or str, optional
            Limit of memory for this call. Default: the explainer's `max_memory`.

        Returns
        -------
        Explanation

        Raises
        ------
        InputError
            `x`, `target` or `init` does not fit the network; `threads` or `max_memory` is invalid, or not even
            one sample fits in `max_memory`.
        NonFiniteError
            NaN or infinity in `x`, in the prediction or in the relevance.
        BlowUpError
            A node multiplies Σ|R| by more than the threshold, and `on_blowup` is "error".
        OutOfMemoryError
            The run takes more memory than the system grants.
        """
        threads, limit = self._limits(threads, max_memory)
        network, inputs = self._checked(x)
        prepared = self._prepared(network)
        asked = prepared.ask(target, init, len(inputs[0]))
        with self.backend.limit_threads(threads):
            (explanation,) = prepared.explanations(inputs, [asked], limit)
        return explanation

    def several(
        self,
        x: Any,
        targets: Iterable[Any],
        init: Any = None,
        *,
        threads: int | None = None,
        max_memory: int | str | None = None,
    ) -> list[Explanation]:
        """Explain several targets of the same inputs, with one forward pass for all.

        What does not depend on the target is computed once: the prediction, and the denominators of rules
        that need more than the layer's output. A sample takes more memory than `memory_per_sample`, since
        relevance cannot take the place of what the next target needs.

        Parameters
        ----------
        x : array (n, *network.input_shape)
        targets : iterable
            One or more, each as for a single explanation: None, an index, an index per sample, or weights.
        init, threads, max_memory : optional
            As for a single explanation, for all targets.

        Returns
        -------
        list of Explanation
            One for each target, in their order; like single ones, but for rounding at most. Their `output`
            and `probabilities` are the same arrays.

        Raises
        ------
        InputError
            There are no targets, or as for a single explanation.
        NonFiniteError, BlowUpError
            As for a single explanation.

        Examples
        --------
        >>> cat, dog = explain.several(x, [281, 207])  # doctest: +SKIP
        """
        threads, limit = self._limits(threads, max_memory)
        network, inputs = self._checked(x)
        wanted = _as_list("targets", targets, "one or more targets, such as [281, 207]")
        prepared = self._prepared(network, keep=True)
        asked = [prepared.ask(target, init, len(inputs[0])) for target in wanted]
        with self.backend.limit_threads(threads):
            return prepared.explanations(inputs, asked, limit)

    def profile(self, x: Any, target: Any = None, init: Any = None) -> list[tuple[Step, float]]:
        """Where the time of an explanation goes.

        Parameters
        ----------
        x, target, init
            As for the explanation. It runs once without being timed, so that nothing is timed that only a
            first run has to do.

        Returns
        -------
        list of (Step, float)
            The plan's steps in the order in which they run, each with the seconds that it took.
        """
        network, inputs = self._checked(x)
        prepared = self._prepared(network)
        asked = prepared.ask(target, init, len(inputs[0]))
        with self.backend.limit_threads(self.threads):
            return prepared.times(inputs, asked, self.max_memory)

    def _checked(self, x: Any) -> tuple[Network, Arrays]:
        """The network for arrays like `x`, and its inputs."""
        network = self.network.bound(x)
        return network, check_feed(network.name, network.inputs, x, self.dtype)

    def _limits(self, threads: int | None, max_memory: int | str | None) -> tuple[int | None, int | None]:
        """What holds for one call: its own limits, or the explainer's."""
        threads, limit = thread_count(threads), memory_limit(max_memory)
        return self.threads if threads is None else threads, self.max_memory if limit is None else limit


def _as_list(name: str, values: Any, expected: str) -> list[Any]:
    """The values, of which there has to be one at least."""
    listed = [] if isinstance(values, (str, bytes)) or not isinstance(values, Iterable) else list(values)
    if not listed:
        raise InputError(f"{name} is {values!r:.60}; expected {expected}")
    return listed


def explain(
    network: Network,
    x: Any,
    target: Any = None,
    composite: str | Composite = "epsilon_plus_flat",
    init: Any = None,
    record: str | Iterable[str] = (),
    **options: Any,
) -> Explanation:
    """Explain the predictions of `network` for `x`, once. See `Explainer` for all parameters.

    Examples
    --------
    >>> explanation = lrpfast.explain(network, x)          # doctest: +SKIP
    >>> explanation.relevance.shape == x.shape             # doctest: +SKIP
    True
    """
    return Explainer(network, composite, record=record, **options)(x, target, init)


def compare(
    network: Network,
    x: Any,
    composites: Iterable[str | Composite],
    target: Any = None,
    init: Any = None,
    *,
    threads: int | None = None,
    backend: str | None = None,
    dtype: Any = np.float32,
    record: str | Iterable[str] = (),
    max_memory: int | str | None = None,
    on_blowup: str = "warn",
    blowup: float = BLOWUP,
) -> list[Explanation]:
    """Explain the same predictions under several composites, with one forward pass for all.

    Parameters
    ----------
    network : Network
    x : array (n, *network.input_shape)
    composites : iterable of str or Composite
        One or more.
    target, init : optional
        As for an `Explainer`'s call, for all composites; `init` is each composite's own by default.
    threads, backend, dtype, record, max_memory, on_blowup, blowup : optional
        As for `Explainer`.

    Returns
    -------
    list of Explanation
        One for each composite, in their order; like those of explainers, but for rounding. Their `output` and
        `probabilities` are the same arrays.

    Raises
    ------
    CompositeError
        A composite is unknown, or leaves a node without a rule.
    InputError
        There are no composites, or as for `Explainer` and its call.
    NonFiniteError
        NaN or infinity in `x`, in the prediction or in the relevance.
    BlowUpError
        As for `Explainer`'s call.

    Examples
    --------
    >>> plus, flat = lrpfast.compare(network, x, ["epsilon_plus", "epsilon_plus_flat"])  # doctest: +SKIP
    """
    named = _as_list("composites", composites, 'one or more, such as ["epsilon_plus", "gradient"]')
    chosen = [make_composite(composite) for composite in named]
    kernels, dtype, threads = backends.get(backend), real_dtype(dtype), thread_count(threads)
    limit, policy = memory_limit(max_memory), BlowUpPolicy(on_blowup, blowup)
    network = network.bound(x)
    inputs = check_feed(network.name, network.inputs, x, dtype)
    record = (record,) if isinstance(record, str) else tuple(record)
    with kernels.limit_threads(threads):
        prepared = prepare(network, chosen, kernels, dtype, record, True, policy)
        asked = [prepared.ask(target, init, len(inputs[0]), which) for which in range(len(chosen))]
        return prepared.explanations(inputs, asked, limit)


def propagate(
    rule: Rule, layer: Any, x: Any, r: Any, *, backend: str | None = None, dtype: Any = None,
    on_blowup: str = "ignore", blowup: float = BLOWUP,
) -> Any:  # fmt: skip
    """Apply a rule to one layer: the relevance of its inputs, given that of its outputs.

    Parameters
    ----------
    rule : Rule
    layer : operator
        Such as ``Dense(w, b)`` or ``Conv2d(w, b, padding=1)``.
    x : array (n, ...), or a tuple of arrays for operators with several inputs
    r : array (n, ...)
        Relevance of the outputs.
    backend : str, optional
    dtype : float32 or float64, optional
        Default: float64 if `x` is, else float32.
    on_blowup, blowup : optional
        As for `Explainer`, but for the default: nothing is done, as it is the rule itself that is asked for.

    Returns
    -------
    array like x, or a tuple of them

    Raises
    ------
    RuleError
        The rule does not apply to the layer.
    InputError
        Shapes or dtypes do not fit.
    ModelError
        The layer does not fit the shape of `x`.
    NonFiniteError
        NaN or infinity in `x`, in `r` or in the result.
    BlowUpError
        The layer multiplies Σ|R| by more than `blowup`, and `on_blowup` is "error".
    """
    from .layers import resolve

    if not isinstance(rule, Rule):
        raise RuleError(f"{rule!r} is not a rule; expected one of lrpfast.RULES, made, such as Epsilon()")
    several = isinstance(x, tuple)
    arrays = [as_array("x", a) for a in (x if several else (x,))]
    if dtype is None:
        dtype = np.float64 if all(a.dtype == np.float64 for a in arrays) else np.float32
    dtype = real_dtype(dtype)
    if any(a.ndim == 0 for a in arrays) or len({len(a) for a in arrays}) != 1 or not len(arrays[0]):
        raise InputError(
            f"x has shapes {[a.shape for a in arrays]}; expected a batch axis of one length ≥ 1 first"
        )
    op: Op = resolve(layer, *(Fact(a.shape[1:]) for a in arrays))
    arrays = [as_finite("x", a, dtype) for a in arrays]
    policy = BlowUpPolicy(on_blowup, blowup)
    relevance = _propagate(rule, op, arrays, as_array("r", r), backends.get(backend), dtype, policy)
    return relevance if several else relevance[0]


def _propagate(
    rule: Rule,
    op: Op,
    arrays: list[Array],
    r: Array,
    backend: Any,
    dtype: np.dtype[Any],
    policy: BlowUpPolicy,
) -> tuple[Array, ...]:
    """One layer as a network."""
    from .composites import why_not

    n = len(arrays[0])
    inputs = {f"x{i}": Fact(a.shape[1:]) for i, a in enumerate(arrays)}
    layer = Node("layer", op, tuple(inputs), "z")
    graph = Graph(inputs, (layer,), "z")
    problem = why_not(rule, layer, graph)
    if problem:
        raise RuleError(f"{rule} {problem}; the layer is {op.kinds[0]}")
    if r.shape != (n, *graph.output_shape):
        raise InputError(f"r has shape {r.shape}; the layer's output has {(n, *graph.output_shape)}")
    composite = Composite("propagate", ((Selector(name="layer"), rule),))
    plan = lower(graph, assign(composite, graph), backend, dtype, limit=policy.limit, spare=False)
    r = as_finite("r", r, dtype)
    with plan.workspace(n) as run:
        run.forward(*arrays)
        relevance = run.vjp(r)
        run.settle()
        policy.judge([(plan.backs[0].books, run.numbers(), n)])
    return relevance
