"""The network as a value: an immutable graph of nodes, with facts about every array in it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from .errors import ModelError

if TYPE_CHECKING:
    from .ops.base import Op


@dataclass(frozen=True)
class Fact:
    """What is known of an array before it is computed.

    Attributes
    ----------
    shape : tuple of int
        Shape of one sample; the batch axis in front of it is not counted.
    nonnegative : bool
        True where every element is known to be ≥ 0 (after a ReLU, say). Rules get cheaper then.
    integer : bool
        True for arrays of an integer type, such as the indices of words; they are computed with as floats.
    """

    shape: tuple[int, ...]
    nonnegative: bool = False
    integer: bool = False

    @property
    def size(self) -> int:
        """Number of elements of one sample."""
        size = 1
        for n in self.shape:
            size *= n
        return size


@dataclass(frozen=True)
class Node:
    """One operator, and the names of the arrays that it reads and writes.

    Attributes
    ----------
    name : str
        Unique in its graph.
    op : Op
        Operator with its attributes and parameters.
    inputs : tuple of str
        Names of the arrays read (parameters are not among them: the operator holds those).
    output : str
        Name of the array written.
    """

    name: str
    op: Op
    inputs: tuple[str, ...]
    output: str


@dataclass(frozen=True)
class Graph:
    """Nodes in an order in which they can be computed, from one or several inputs to one output.

    Building a graph infers and checks the facts of all arrays.

    Attributes
    ----------
    inputs : mapping of name to Fact
        What is known of each input, in the order in which callers give them.
    nodes : tuple of Node
    output : str
    facts : mapping of name to Fact
        What is known of every array.

    Raises
    ------
    ModelError
        There is no input, a name is used twice, read before it is written, or shapes do not fit.
    """

    inputs: Mapping[str, Fact]
    nodes: tuple[Node, ...]
    output: str
    facts: Mapping[str, Fact] = field(init=False, compare=False, repr=False)

    def __post_init__(self) -> None:
        if not self.inputs:
            raise ModelError("the graph has no input")
        object.__setattr__(self, "inputs", MappingProxyType(dict(self.inputs)))
        for fact in self.inputs.values():
            checked_shape(fact.shape)
        facts = dict(self.inputs)
        names: set[str] = set()
        for node in self.nodes:
            if node.name in names:
                raise ModelError(f"node name {node.name!r} is used twice; give each node its own name")
            names.add(node.name)
            missing = [name for name in node.inputs if name not in facts]
            if missing:
                raise ModelError(f"node {node.name!r} reads {missing[0]!r}, which nothing before it writes")
            if node.output in facts:
                raise ModelError(f"node {node.name!r} writes {node.output!r} a second time")
            try:
                facts[node.output] = infer(node.op, *(facts[name] for name in node.inputs))
            except ModelError as error:
                raise ModelError(f"node {node.name!r} ({type(node.op).__name__}): {error}") from None
        if self.output not in facts:
            raise ModelError(f"the graph's output {self.output!r} is written by no node")
        object.__setattr__(self, "facts", MappingProxyType(facts))

    def __reduce__(self) -> tuple[Any, ...]:
        return Graph, (dict(self.inputs), self.nodes, self.output)

    @cached_property
    def producers(self) -> Mapping[str, Node]:
        """The node that writes each array (inputs have none)."""
        return MappingProxyType({node.output: node for node in self.nodes})

    @cached_property
    def consumers(self) -> Mapping[str, tuple[Node, ...]]:
        """The nodes that read each array, in order; once per time they read it."""
        readers: dict[str, list[Node]] = {name: [] for name in self.facts}
        for node in self.nodes:
            for name in node.inputs:
                readers[name].append(node)
        return MappingProxyType({name: tuple(nodes) for name, nodes in readers.items()})

    @property
    def output_shape(self) -> tuple[int, ...]:
        """Shape of one sample of the output."""
        return self.facts[self.output].shape


def checked_shape(input_shape: tuple[int, ...]) -> tuple[int, ...]:
    """`input_shape`, all of whose sizes must be at least 1."""
    if not all(n >= 1 for n in input_shape):
        raise ModelError(f"input_shape is {input_shape}; expected sizes ≥ 1, without the batch axis")
    return input_shape


def infer(op: Op, *inputs: Fact) -> Fact:
    """What is known of an operator's output; raises `ModelError` if it does not take these inputs."""
    if not (len(inputs) == op.arity or (inputs and op.arity is None)):
        counts = {None: "one array or more", 1: "one array", 2: "two arrays"}
        raise ModelError(f"it takes {counts.get(op.arity, f'{op.arity} arrays')}, but reads {len(inputs)}")
    fact = op.infer(*inputs)
    if 0 in fact.shape:
        raise ModelError(f"its output has shape {fact.shape} per sample: it is empty")
    return fact


def prune(graph_output: str, nodes: Iterable[Node]) -> tuple[Node, ...]:
    """The nodes that `graph_output` depends on, in their order."""
    needed = {graph_output}
    kept = []
    for node in reversed(tuple(nodes)):
        if node.output in needed:
            needed.update(node.inputs)
            kept.append(node)
    return tuple(reversed(kept))
