"""A network made ready for questions under one or several composites, and the runs that answer them."""

from __future__ import annotations

import fnmatch
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from . import backends
from ._version import __version__
from .blowup import BlowUpPolicy
from .canonize import Head
from .composites import Composite, assign
from .errors import InputError
from .explanation import Conservation, Explanation
from .feeds import Arrays, like_given
from .graph import Graph
from .ledger import Books, Numbers
from .lower import lower, lower_kept
from .memory import LESS_AT_ONCE, MORE_MEMORY, accounted
from .network import Network, check_output
from .ops.activation import Sigmoid
from .ops.base import Array
from .ops.softmax import Softmax
from .plan import Plan, Workspace
from .question import Question, ask, described, has_classes
from .steps import Step

_SOFTMAX = Softmax()


class Asked(NamedTuple):
    """A question, in the user's words and as it was understood.

    Attributes
    ----------
    target, init
        As given.
    question : Question
    which : int
        The number of the composite that it is asked of.
    """

    target: Any
    init: Any
    question: Question
    which: int


class Answer(NamedTuple):
    """What a run finds out about some of the samples; attributes are those of `Explanation`."""

    relevance: Arrays
    output: Array
    probabilities: Array | None
    target: NDArray[Any]
    layers: Mapping[str, Array]
    numbers: Numbers


@dataclass(frozen=True, eq=False)
class Prepared:
    """All that is computed before any input is seen; made by `prepare`.

    Attributes
    ----------
    graph : Graph
        The canonised network.
    head : Softmax, Sigmoid or None
        What was cut off its end.
    plan : Plan
        With a pass back for each composite.
    composites : tuple of Composite
    manifests : tuple of mapping
        For each composite, what is known beforehand of an explanation's manifest.
    policy : BlowUpPolicy
        What is done where a node blows up.
    """

    graph: Graph
    head: Head | None
    plan: Plan
    composites: tuple[Composite, ...]
    manifests: tuple[Mapping[str, Any], ...]
    policy: BlowUpPolicy

    def ask(self, target: Any, init: Any, n: int, which: int = 0) -> Asked:
        """A question about `n` samples; raises `InputError` if it does not fit."""
        init = self.composites[which].init if init is None else init
        question = ask(target, init, n, self.graph.output_shape, self.plan.dtype, self.head)
        return Asked(target, init, question, which)

    def explanations(self, inputs: Arrays, asked: Sequence[Asked], limit: int | None) -> list[Explanation]:
        """An explanation for each question, in runs of at most `limit` bytes with one forward pass each.

        Raises
        ------
        BlowUpError
            A node blows up, and the policy forbids it.
        OutOfMemoryError
            A run takes more memory than the system grants.
        """
        runs = []
        with accounted("an explanation", LESS_AT_ONCE):
            for piece, some in self._pieces(inputs, limit):
                with self.plan.workspace(len(some[0])) as run:
                    runs.append(self._answers(run, some, asked, piece))
        answers = [
            some[0] if len(some) == 1 else _joined(some, self._books(one))
            for one, some in zip(asked, zip(*runs, strict=True), strict=True)
        ]
        made = [self._explanation(*found) for found in zip(asked, answers, strict=True)]
        self._judge(zip(asked, answers, strict=True))
        return made

    def _books(self, asked: Asked) -> Books:
        return self.plan.backs[asked.which].books

    def _judge(self, found: Iterable[tuple[Asked, Answer]]) -> None:
        """Warn of blow-ups or refuse them, as the policy has it."""
        self.policy.judge((self._books(one), answer.numbers, len(answer.output)) for one, answer in found)

    def times(self, inputs: Arrays, asked: Asked, limit: int | None) -> list[tuple[Step, float]]:
        """The seconds that each step takes for one question, in runs of at most `limit` bytes."""
        steps = *self.plan.forward, *self.plan.vjp
        seconds = np.zeros(len(steps))
        found = []
        for piece, some in self._pieces(inputs, limit):
            with self.plan.workspace(len(some[0])) as run:
                found += self._answers(run, some, [asked], piece)
            with self.plan.timed_workspace(len(some[0])) as timed:
                self._answers(timed, some, [asked], piece)
                seconds += [time for _, time in timed.times()]
        self._judge((asked, answer) for answer in found)
        return list(zip(steps, seconds.tolist(), strict=True))

    def _pieces(self, inputs: Arrays, limit: int | None) -> Iterator[tuple[slice, Arrays]]:
        """The batch in pieces of at most `limit` bytes."""
        for piece in self.plan.pieces(len(inputs[0]), limit):
            yield piece, tuple(array[piece] for array in inputs)

    def _answers(self, run: Workspace, inputs: Arrays, asked: Sequence[Asked], piece: slice) -> list[Answer]:
        """What is to be said about samples that are a piece of the batch."""
        output = run.forward(*inputs)
        check_output(self.graph, inputs, output)
        probabilities = None
        if has_classes(output.shape[1:], self.head):
            head = self.head if isinstance(self.head, Sigmoid) else _SOFTMAX
            probabilities = head.forward(output)
        answers = []
        for one in asked:
            target, initial = one.question.some(piece).initial(output, probabilities)
            relevance = run.vjp(initial, one.which)
            if self.composites[one.which].times_input:
                relevance = tuple(r * x for r, x in zip(relevance, inputs, strict=True))
            answers.append(Answer(relevance, output, probabilities, target, run.recorded(), run.numbers()))
        return answers

    def _explanation(self, asked: Asked, answer: Answer) -> Explanation:
        """The explanation that an answer about the whole batch makes."""
        books, numbers, n = self._books(asked), answer.numbers, len(answer.output)
        return Explanation(
            relevance=like_given(self.graph.inputs, answer.relevance),
            output=answer.output,
            probabilities=answer.probabilities,
            target=answer.target,
            layers=answer.layers,
            conservation=Conservation(books.settled(numbers, n), partial(books.by_sample, numbers, n)),
            manifest={
                **self.manifests[asked.which],
                "target": described(asked.target),
                "init": described(asked.init),
            },
        )


def _joined(answers: Sequence[Answer], books: Books) -> Answer:
    relevance, output, probabilities, target, layers, numbers = zip(*answers, strict=True)
    return Answer(
        tuple(np.concatenate(some) for some in zip(*relevance, strict=True)),
        np.concatenate(output),
        None if probabilities[0] is None else np.concatenate(probabilities),
        np.concatenate(target),
        {name: np.concatenate([some[name] for some in layers]) for name in layers[0]},
        books.joined(numbers),
    )


def prepare(
    network: Network,
    composites: Sequence[Composite],
    backend: Any,
    dtype: np.dtype[Any],
    record: Sequence[str],
    keep: bool,
    policy: BlowUpPolicy,
) -> Prepared:
    """Assign the rules and make the plan.

    Parameters
    ----------
    network : Network
        Its shape is known.
    composites : sequence of Composite
        One, unless `keep`.
    backend : module
    dtype : dtype
    record : sequence of str
        Names or patterns of nodes.
    keep : bool
        Whether a forward pass is to serve several questions.
    policy : BlowUpPolicy

    Raises
    ------
    CompositeError
        A composite leaves a node without a rule.
    InputError
        A pattern fits no node.
    """
    network.original.hash_aside()  # which the manifest waits for
    canonized = network.canonized(dtype)
    graph = canonized.graph
    assigned = [assign(composite, graph) for composite in composites]
    names = recorded(record, graph)
    with accounted("making a plan", f"{MORE_MEMORY} or input"):
        if keep:
            plan = lower_kept(graph, assigned, backend, dtype, names, limit=policy.limit)
        else:
            (rules,) = assigned
            plan = lower(graph, rules, backend, dtype, names, limit=policy.limit)
    manifests = tuple(
        {
            "model": {"name": network.name, "sha256": network.hash},
            "composite": composite.name,
            "rules": {name: str(a.rule) for name, a in rules.items()},
            "versions": {
                "lrpfast": __version__, "numpy": np.__version__, "python": sys.version.split()[0]
            },
            "backend": backends.describe(backend),
            "dtype": str(dtype),
            "on_blowup": policy.on_blowup,
            "blowup": policy.threshold,
        }
        for composite, rules in zip(composites, assigned, strict=True)
    )  # fmt: skip
    return Prepared(graph, canonized.head, plan, tuple(composites), manifests, policy)


def recorded(patterns: Iterable[str], graph: Graph) -> tuple[str, ...]:
    """The names of the nodes that the patterns fit; "all" fits every one."""
    names = [node.name for node in graph.nodes]
    if "all" in patterns:
        return tuple(names)
    found: list[str] = []
    for pattern in patterns:
        matching = fnmatch.filter(names, pattern)
        if not matching:
            raise InputError(
                f"record names {pattern!r}, which fits no node; the nodes are {', '.join(names)}"
            )
        found += matching
    return tuple(dict.fromkeys(found))
