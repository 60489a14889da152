"""From an ONNX model to a `Graph`, by the readers that the operators register."""

from __future__ import annotations

import weakref
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from . import onnx_old
from .errors import ModelError, UnsupportedOperatorError
from .graph import Fact, Graph, Node, infer, prune
from .limits import Budget, Limits
from .memory import MORE_MEMORY, accounted
from .onnx_attributes import attributes_of, known_attributes
from .onnx_branches import branch_of, graphs, reads
from .onnx_file import ModelFile
from .onnx_fold import Folding, shape_of, size_of
from .onnx_heads import choose
from .onnx_indices import with_plain_indices
from .onnx_inputs import InputShape, declared_inputs
from .onnx_size import check_graph, without_functions
from .ops import FOLDED, READERS, Op
from .ops.reading import REFUSED, Applied, Constant, OnnxNode, Reading, Unsupported, Varying

if TYPE_CHECKING:
    from onnx import ModelProto, NodeProto

OLDEST_OPSET = 6

MOST_AXES = 32
"""Of an array, batch included, as in NumPy 1."""

ML = "ai.onnx.ml"
"""The domain of ONNX's operators of classical machine learning."""

Operand = Fact | Constant | Varying | None


class Loaded(NamedTuple):
    """What a model was read as.

    Attributes
    ----------
    graph : Graph
    output : str
        What the model calls the array that the graph ends in.
    labels : tuple of str, or None
        What the model calls the elements of the graph's output.
    notes : tuple of str
        What was cut off the model's end, in words.
    """

    graph: Graph
    output: str
    labels: tuple[str, ...] | None
    notes: tuple[str, ...]


def load_graph(
    source: Any,
    input_shape: InputShape | None = None,
    output: str | None = None,
    limits: Limits | None = None,
) -> Graph:
    """The graph that `load_model` reads."""
    return load_model(source, input_shape, output, limits=limits).graph


def load_model(
    source: Any,
    input_shape: InputShape | None = None,
    output: str | None = None,
    *,
    label: str | None = None,
    limits: Limits | None = None,
) -> Loaded:
    """Read an ONNX model.

    The batch axis is axis 0 of the inputs; its size is free, whatever the model declares. What does
    not contribute to the output is left out.

    Parameters
    ----------
    source : path, bytes or onnx.ModelProto
        External data are read from the model's own folder only.
    input_shape : tuple of int, or mapping of input name to tuple of int, optional
        Shape of one sample, without the batch axis; needed where the model leaves it open.
    output : str, optional
        The array that the graph is to end in: an output of the model, or any other that it computes. Needed
        where the model has several outputs besides labels of them. Where it is a label, the graph ends in
        the scores that it is made of.
    label : str, optional
        What errors call the model.
    limits : Limits, optional
        What the model may ask for at most. Default: the environment's.

    Raises
    ------
    FileNotFoundError
        There is no such file.
    ModelError
        It is not an ONNX model, is damaged, holds NaN, exceeds a limit, has several outputs of which none is
        named, or leaves the shape of an input open.
    UnsupportedOperatorError
        It uses operators, or forms of them, that lrpfast does not have; all of them are listed.
    OutOfMemoryError
        Its weights take more memory than the system grants.
    """
    with ModelFile(source, limits) as file, accounted(f"loading {label or file.label}", MORE_MEMORY):
        file.label = label or file.label
        try:
            return _Loader(file, input_shape, output).load()
        except UnsupportedOperatorError:
            raise
        except ModelError as error:
            raise ModelError(f"{file.label}: {error}") from None


class _Loader:
    """Walks a model's nodes once, keeping what is known of each array."""

    def __init__(self, file: ModelFile, input_shape: InputShape | None, output: str | None) -> None:
        self.file = file
        self.limits = file.limits
        self.model = without_functions(file.model, file.limits)
        graph = self.model.graph
        check_graph(graph, file.limits)
        file.admit(graph.initializer)
        self.visited = 0
        self.elements = 0
        self.opset = _opset(self.model)
        self.budget = Budget(file.limits)
        self.folding = Folding(self.opset, self.budget)
        self.tensors = {tensor.name: tensor for tensor in graph.initializer}
        if graph.sparse_initializer:
            raise ModelError("it has sparse initializers; save it with dense ones")
        self.chosen = choose(graph, output, file.tensor)
        self.output = self.chosen.output
        self.inputs, self.batch = declared_inputs(
            [v for v in graph.input if v.name not in self.tensors], input_shape
        )

        # What is known of arrays: each name is in one of these (or in `tensors`).
        self.facts: dict[str, Fact] = {}
        for name, fact in self.inputs.items():
            self.learn(name, fact)
        self.constants: dict[str, Constant | Varying] = {}
        self.unknown: dict[str, bool] = {}  # what depends on an offender; True if it is a constant
        self.alive: weakref.WeakValueDictionary[str, Constant] = weakref.WeakValueDictionary()

        self.nodes: list[Node] = []
        self.offenders: list[str] = []
        self.node_names = Names()
        self.array_names = Names(name for node in graph.node for name in (*node.input, *node.output))
        self.array_names.update((*self.inputs, *self.tensors))

    def load(self) -> Loaded:
        """The graph, and what its end is."""
        needed = _needed(with_plain_indices(self.model.graph, self.file.tensor), [self.output])
        self.used = {self.output, *(name for _, node in needed for name in reads(node))} - {""}
        self.visit_all(needed)
        if self.offenders:
            raise UnsupportedOperatorError(
                f"lrpfast does not support {len(self.offenders)} of the nodes of {self.file.label}\n"
                + "\n".join(f"  {line}" for line in self.offenders)
                + "\nsimplify the model (onnxsim folds what can be folded), or cut it before these nodes; "
                "lrpfast.OPERATORS lists the supported operators",
                tuple(self.offenders),
            )
        if self.output not in self.facts:
            raise ModelError(f"its output {self.output!r} does not depend on its inputs {list(self.inputs)}")
        graph = Graph(self.inputs, prune(self.output, self.nodes), self.output)
        labels = self.chosen.labels
        if labels is not None and graph.output_shape != (len(labels),):
            labels = None
        return Loaded(graph, self.output, labels, self.chosen.notes)

    # --- nodes ---

    def visit_all(self, nodes: Iterable[tuple[int, NodeProto]]) -> None:
        """Visit nodes, which come with their places in the model; note those that stand in the way."""
        for index, node in nodes:
            self.visited += 1
            self.limits.check("nodes", self.visited, "it has nodes, those of branches included")
            name = node.name or f"{node.op_type}_{index}"
            try:
                self.visit(node, name)
            except Unsupported as reason:
                self.refuse(node, name, str(reason))
            except ModelError as error:
                raise ModelError(f"node {name!r} ({node.op_type}): {error}") from None

    def visit(self, node: NodeProto, name: str) -> None:
        """Fold a node, or read it; `Unsupported` says why neither is possible."""
        kind = _kind(node)
        for output in filter(None, node.output):
            if any(output in known for known in (self.facts, self.constants, self.unknown, self.tensors)):
                raise ModelError(f"it writes {output!r}, which is written already")
        if any(input in self.unknown for input in node.input):
            self.pass_unknown(node)
            return
        if graphs(node):
            self.take_branch(node, name)
            return
        operands = tuple(self.operand(input) for input in node.input)
        if self.opset < onnx_old.SINCE:
            node, operands = onnx_old.modernized(node, operands)
        known = None
        if kind == node.op_type:
            known = known_attributes(kind, "", self.opset)
        elif kind in READERS:  # of which there is one version each
            known = known_attributes(node.op_type, node.domain, None)
        attributes = attributes_of(node, known)
        if any(isinstance(operand, Fact) for operand in operands) and node.op_type not in ("Shape", "Size"):
            if kind not in READERS:
                raise Unsupported(REFUSED.get(kind, "lrpfast has no such operator"))
            self.read(node, name, operands, attributes)
            return
        values = self.evaluate(node, operands, attributes)
        self.constants.update(
            (output, value) for output, value in zip(node.output, values, strict=False) if output
        )

    def read(
        self, node: NodeProto, name: str, operands: tuple[Operand, ...], attributes: dict[str, Any]
    ) -> None:
        """Make the operators of a node that works on activations."""
        reader = READERS[_kind(node)]
        wanted = [index for index, output in enumerate(node.output) if output in self.used]
        for index in wanted:
            if index and not reader.many_outputs:
                raise Unsupported(
                    f"its output {index} ({node.output[index]!r}) is used; only output 0 can be"
                )
            view = OnnxNode(
                node.op_type, name, tuple(node.input), tuple(node.output), attributes, self.opset,
                operands, self.batch, index, self.budget,
            )  # fmt: skip
            title = name if len(wanted) == 1 else f"{name}/{index}"
            self.add(title, _tree(reader.read(view), operands), tuple(node.input), node.output[index])

    def add(self, name: str, applied: Applied, inputs: tuple[str, ...], output: str) -> None:
        """Append the operators that compute `output` from a node's inputs."""
        alone = all(isinstance(input, int) for input in applied.inputs)
        self.append(applied, name, alone, inputs, output, {})

    def append(
        self, branch: Applied, name: str, alone: bool, inputs: tuple[str, ...], output: str | None,
        made: dict[int, str],
    ) -> str:  # fmt: skip
        """Append a branch of a node's tree; `made` has its arrays by identity, since a branch may be used twice."""
        # No function inside of `add`: it would refer to itself, and keep the weights until cycles are collected.
        if id(branch) in made:
            return made[id(branch)]
        names = tuple(
            inputs[i] if isinstance(i, int) else self.append(i, name, alone, inputs, None, made)
            for i in branch.inputs
        )
        title = self.node_names.fresh(name if alone else f"{name}/{type(branch.op).__name__}")
        target = made[id(branch)] = output or self.array_names.fresh(title)
        self.learn(target, infer(branch.op, *(self.facts[each] for each in names)))
        self.nodes.append(Node(title, branch.op, names, target))
        return target

    def learn(self, name: str, fact: Fact) -> None:
        """Note what is known of an array."""
        if len(fact.shape) >= MOST_AXES:
            raise ModelError(f"{name!r} has {1 + len(fact.shape)} axes; expected at most {MOST_AXES}")
        self.facts[name] = fact
        self.elements += fact.size
        what = f"elements of the arrays up to {name!r} of shape {fact.shape}, for one sample"
        self.limits.check("elements", self.elements, what)

    def take_branch(self, node: NodeProto, name: str) -> None:
        """Visit, in place of an If whose condition is constant, the nodes of its branch."""
        if node.op_type != "If":
            raise Unsupported(
                f"{node.op_type} runs a graph of its own; only an If that always takes one branch can"
            )
        condition = self.operand(node.input[0])
        if isinstance(condition, Varying):
            raise Unsupported("which branch of the If is taken depends on the batch size")
        if condition is None or isinstance(condition, Fact):
            raise Unsupported("which branch of the If is taken depends on the input")
        branch = branch_of(node, bool(condition.all()), self.array_names.fresh(name))
        self.file.admit(branch.tensors.values())
        self.tensors.update(branch.tensors)
        needed = _needed(branch.nodes, [output for output in node.output if output in self.used])
        self.used.update(name for _, inner in needed for name in reads(inner))
        self.visit_all(needed)

    def evaluate(
        self, node: NodeProto, operands: tuple[Operand, ...], attributes: dict[str, Any]
    ) -> list[Constant | Varying]:
        """The outputs of a node whose inputs are constants, or of Shape or Size."""
        first = operands[0] if operands else None
        if isinstance(first, Fact):
            return [shape_of(first.shape, attributes) if node.op_type == "Shape" else size_of(first.shape)]
        if node.op_type == "Constant":
            return [self.stated(attributes)]
        constants = [None if isinstance(operand, Fact) else operand for operand in operands]
        return self.folding.fold(node, constants, attributes)

    def stated(self, attributes: dict[str, Any]) -> Constant:
        """The value of a Constant node."""
        from onnx import TensorProto

        for name, value in attributes.items():
            if name == "value" and isinstance(value, TensorProto):
                self.file.admit([value])
                return self.file.tensor(value)
            if name in ("value_int", "value_ints") and value is not None:
                return np.array(value, np.int64)
            if name in ("value_float", "value_floats") and value is not None:
                return np.array(value, np.float32)
        raise Unsupported(f"a constant given by {sorted(attributes)} is not a plain array")

    def operand(self, name: str) -> Operand:
        """What is known of an input."""
        if not name:
            return None
        if name in self.facts:
            return self.facts[name]
        if name in self.constants:
            return self.constants[name]
        if name not in self.tensors:
            raise ModelError(f"it reads {name!r}, which nothing before it writes")
        # Weights that several nodes share are read once, and are not kept for the loader's sake.
        array = self.alive.get(name)
        if array is None:
            array = self.alive[name] = self.file.tensor(self.tensors[name])
        return array

    # --- offenders ---

    def refuse(self, node: NodeProto, name: str, reason: str) -> None:
        """Note an offender."""
        self.offenders.append(f"node {name!r} ({node.op_type}): {reason}")
        self.forget(node, computes=any(self.is_computed(input) for input in node.input))

    def pass_unknown(self, node: NodeProto) -> None:
        """A node behind an offender: no offender for that, but one if there is no such operator."""
        computes = node.op_type not in FOLDED and any(self.is_computed(input) for input in reads(node))
        kind = _kind(node)
        if computes and kind not in READERS and kind != "If":
            raise Unsupported(REFUSED.get(kind, "lrpfast has no such operator"))
        self.forget(node, computes)

    def forget(self, node: NodeProto, computes: bool) -> None:
        """Nothing is known of what a node writes, but whether it computes it from the network's input."""
        self.unknown.update((output, not computes) for output in node.output if output)

    def is_computed(self, name: str) -> bool:
        """Whether an array depends on the network's input."""
        return name in self.facts or self.unknown.get(name) is False


# --- the model's declarations ---


def _kind(node: NodeProto) -> str:
    """The operator by which a node's reader is known: its type; behind its domain, where that is not ONNX's own."""
    if node.domain in ("", "ai.onnx"):
        return str(node.op_type)
    if node.domain != ML:
        raise Unsupported(f"lrpfast has no operators of domain {node.domain!r}")
    return f"{ML}.{node.op_type}"


def _opset(model: ModelProto) -> int:
    from onnx.defs import onnx_opset_version

    newest = onnx_opset_version()
    versions = [entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx")]
    if not versions:
        raise ModelError("it does not use ONNX's own operators (no opset of the default domain)")
    if not OLDEST_OPSET <= versions[0] <= newest:
        raise ModelError(
            f"it uses opset {versions[0]}; expected {OLDEST_OPSET} to {newest}. Export it with another, "
            "or install a newer onnx"
        )
    return int(versions[0])


def _tree(reading: Reading, operands: Sequence[Operand]) -> Applied:
    """What a node was read as, as a tree."""
    if isinstance(reading, Applied):
        return reading
    computed = tuple(index for index, operand in enumerate(operands) if isinstance(operand, Fact))
    first, *others = (reading,) if isinstance(reading, Op) else reading
    applied = Applied(first, computed)
    for op in others:
        applied = Applied(op, (applied,))
    return applied


def _needed(nodes: Sequence[NodeProto], outputs: Iterable[str]) -> list[tuple[int, NodeProto]]:
    """The nodes that some outputs depend on, with their places in the model."""
    names = set(outputs)
    kept = []
    for index, node in reversed(list(enumerate(nodes))):
        if names.intersection(name for name in node.output if name):
            names.update(reads(node))
            kept.append((index, node))
    return kept[::-1]


class Names(set[str]):
    """Names that are taken."""

    def __init__(self, names: Iterable[str] = ()) -> None:
        super().__init__(names)
        self._numbers: dict[str, int] = {}

    def fresh(self, name: str) -> str:
        """`name`, or with a number if it is taken; now taken."""
        unique, number = name, self._numbers.get(name, 1)
        while unique in self:
            number += 1
            unique = f"{name}_{number}"
        self._numbers[name] = number
        self.add(unique)
        return unique
