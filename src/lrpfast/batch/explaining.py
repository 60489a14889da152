"""From samples to rows: decoded, explained, and what failed with its reason."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ..api import Explainer
from ..blowup import BlowUpPolicy
from ..composites import Composite
from ..errors import BlowUpError, InputError, LrpfastError, NonFiniteError
from ..explanation import Explanation
from ..feeds import Arrays, check_feed
from ..network import Network
from ..ops.base import Array
from ..question import Largest, ask
from .items import Item
from .streams import Streams, shared_out
from .targets import LARGEST, Target, Wanted, parse


@dataclass(frozen=True, eq=False)
class Sample:
    """An item that was decoded, or could not be.

    Attributes
    ----------
    index : int
        Its place in the source.
    id : str
    x : tuple of arrays or None
        The network's inputs, without a batch axis; None if something is wrong.
    wanted : Wanted
    error : str or None
        What is wrong.
    """

    index: int
    id: str
    x: Arrays | None
    wanted: Wanted
    error: str | None = None


@dataclass(frozen=True, eq=False)
class Row:
    """One explanation of one input, or why there is none.

    Attributes
    ----------
    index, id, error
        As those of a `Sample`.
    rank : int
        0, or the place of the target among the largest outputs for ``topN``.
    target : str
        The target in words: an output's number, or the expression.
    target_index : int or None
        The output, if it is one.
    label : str or None
    score : float
        The output that was explained, or the weighted sum of outputs; NaN if there is an error.
    probability : float or None
        Softmax of the outputs, at the target.
    relevance : tuple of arrays or None
        Of each input, without a batch axis.
    unexplained, bias, stabilizer, dead, clipped, gain : float
        From the sample's own ledger: the largest |unexplained| of a node, what all nodes took, and the largest
        gain of a node that could blow up.
    """

    index: int
    id: str
    rank: int
    target: str
    target_index: int | None = None
    label: str | None = None
    score: float = float("nan")
    probability: float | None = None
    relevance: Arrays | None = None
    unexplained: float = float("nan")
    bias: float = float("nan")
    stabilizer: float = float("nan")
    dead: float = float("nan")
    clipped: float = float("nan")
    gain: float = float("nan")
    error: str | None = None


@dataclass(frozen=True, eq=False)
class Explaining:
    """Decodes and explains.

    Attributes
    ----------
    explainer : Explainer
    target : Target
    init : str
    policy : BlowUpPolicy
        As it was asked for; where it is to warn, the explainer does not, since rows say it.
    streams : Streams
        How many threads and how much memory each batch has.
    """

    explainer: Explainer
    target: Target
    init: str
    policy: BlowUpPolicy
    streams: Streams

    @property
    def manifest(self) -> Mapping[str, Any]:
        """The explainer's, with what all rows share."""
        said = {"target": self.target.text, "init": self.init}
        blowups = {"on_blowup": self.policy.on_blowup, "blowup": self.policy.threshold}
        return {**self.explainer.manifest, **said, **blowups}

    def shared_out(self, inputs: int) -> Explaining:
        """The same with streams for so many inputs, and for the CPUs that this process has."""
        return replace(self, streams=shared_out(self.explainer, self.target.ranks, inputs))

    def decoded(self, numbered: tuple[int, Item]) -> Sample:
        """Read an item, and check it by itself, so that a bad one spoils no batch."""
        index, item = numbered
        network = self.explainer.network
        wanted = LARGEST
        try:
            wanted = self.target.wanted(item.target)
            given = {name: x[None] for name, x in zip(network.inputs, item.read(), strict=True)}
            checked = check_feed(network.name, network.inputs, given, self.explainer.dtype)
            return Sample(index, item.id, tuple(x[0] for x in checked), wanted)
        except MemoryError:
            raise
        except Exception as error:  # each file system and each decoder has its own ways to fail
            return Sample(index, item.id, None, wanted, in_words(error))

    def explained(self, samples: Sequence[Sample]) -> list[Row]:
        """The rows of a batch, in its order."""
        rows: list[Row] = []
        for kind in ("largest", "index", "weights"):
            alike = [sample for sample in samples if sample.x is not None and sample.wanted.kind == kind]
            rows += self._rows(alike) if alike else []
        rows += [
            _failed(sample, sample.wanted, sample.error, rank)
            for sample in samples
            if sample.error is not None
            for rank in range(self.target.ranks)
        ]
        return sorted(rows, key=lambda row: (row.index, row.rank))

    def _rows(self, samples: Sequence[Sample]) -> list[Row]:
        """The rows of samples that want the same kind of target."""
        given = [sample.x for sample in samples if sample.x is not None]
        x = dict(zip(self.explainer.network.inputs, map(np.stack, zip(*given, strict=True)), strict=True))
        try:
            explanations = self._explanations(x, self.target.asked([sample.wanted for sample in samples]))
        except (InputError, NonFiniteError, BlowUpError) as error:
            if str(error).startswith("max_memory"):  # which no other input can cure
                raise
            if len(samples) == 1:
                return [
                    _failed(samples[0], samples[0].wanted, in_words(error), rank)
                    for rank in range(self.target.ranks)
                ]
            alone = (self._rows([sample]) for sample in samples)  # to find out whose fault it is
            return [row for rows in alone for row in rows]
        return [
            row for rank, explanation in enumerate(explanations)
            for row in self._made(samples, explanation, rank)
        ]  # fmt: skip

    def _explanations(self, x: Mapping[str, Array], target: Any) -> list[Explanation]:
        """One explanation for each rank."""
        limits = {"threads": self.streams.threads, "max_memory": self.streams.memory}
        if self.target.ranks == 1:
            return [self.explainer(x, target, self.init, **limits)]
        return self.explainer.several(x, map(Largest, range(self.target.ranks)), self.init, **limits)

    def _made(self, samples: Sequence[Sample], explanation: Explanation, rank: int) -> list[Row]:
        """The rows that an explanation of a batch makes."""
        found = explanation.relevance
        relevance = tuple(found.values()) if isinstance(found, Mapping) else (found,)
        outputs = explanation.output.reshape(len(samples), -1).astype(np.float64)
        ledger = explanation.conservation.by_sample()
        rows = []
        for i, sample in enumerate(samples):
            given, index = sample.wanted, None
            if given.weights:
                score = sum(weight * outputs[i, k] for k, weight in given.weights)
            else:
                index = int(explanation.target[i])
                score = outputs[i, index]
            sure = None
            if index is not None and explanation.probabilities is not None:
                sure = float(explanation.probabilities[i, index])
            rows.append(Row(
                index=sample.index, id=sample.id, rank=rank, target=given.text if index is None else str(index),
                target_index=index, label=self.target.label(index), score=float(score), probability=sure,
                relevance=tuple(r[i] for r in relevance), unexplained=float(ledger.worst[i]),
                bias=float(ledger.bias[i]), stabilizer=float(ledger.stabilizer[i]), dead=float(ledger.dead[i]),
                clipped=float(ledger.clipped[i]), gain=float(ledger.gain[i]),
            ))  # fmt: skip
        return rows


def prepare_explaining(
    network: Network, composite: str | Composite, *, target: str, init: str | None, labels: Sequence[str] | None,
    threads: int | None, backend: str | None, dtype: Any, max_memory: int | str | None, on_blowup: str, blowup: float,
) -> Explaining:  # fmt: skip
    """Understand what is to be explained, and how, in a stream for one input; parameters as those of a job.

    Raises
    ------
    CompositeError
        The composite is unknown, or leaves a node without a rule.
    InputError
        The target or an option is unusable.
    """
    policy = BlowUpPolicy(on_blowup, blowup)
    explainer = Explainer(
        network, composite, threads=threads, backend=backend, dtype=dtype, max_memory=max_memory, blowup=blowup,
        on_blowup="ignore" if on_blowup == "warn" else on_blowup,
    )  # fmt: skip
    canonized = network.canonized(explainer.dtype)
    outputs = canonized.graph.output_shape
    wanted = parse(target, network.labels if labels is None else labels, outputs)
    init = init or explainer.composite.init
    ask(0, init, 1, outputs, explainer.dtype, canonized.head)  # or all rows would say what is wrong with it
    return Explaining(explainer, wanted, init, policy, shared_out(explainer, wanted.ranks, 1))


def _failed(sample: Sample, wanted: Wanted, error: str | None, rank: int) -> Row:
    return Row(sample.index, sample.id, rank, wanted.text, wanted.index, error=error)


def in_words(error: Exception) -> str:
    """An error as a row states it."""
    return str(error) if isinstance(error, LrpfastError) else f"{type(error).__name__}: {error}"
