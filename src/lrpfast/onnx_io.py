"""From an ONNX model to a `Graph`, by the readers that the operators register."""

from __future__ import annotations

import weakref
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from . import onnx_old
from .errors import ModelError, UnsupportedOperatorError
from .graph import Fact, Graph, Node, infer, prune
from .onnx_file import ModelFile
from .onnx_fold import fold, shape_of, size_of
from .ops import FOLDED, READERS, Op
from .ops.reading import REFUSED, Applied, Constant, OnnxNode, Reading, Unsupported, Varying

if TYPE_CHECKING:
    from onnx import GraphProto, ModelProto, NodeProto, ValueInfoProto

OLDEST_OPSET = 6

Operand = Fact | Constant | Varying | None

InputShape = tuple[int, ...] | Mapping[str, tuple[int, ...]]
"""Shape of one sample of the only input, or of each by name."""


def load_graph(source: Any, input_shape: InputShape | None = None, output: str | None = None) -> Graph:
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
        where the model has several outputs.

    Raises
    ------
    FileNotFoundError
        There is no such file.
    ModelError
        It is not an ONNX model, is damaged, holds NaN, has several outputs of which none is named, or leaves
        the shape of an input open.
    UnsupportedOperatorError
        It uses operators, or forms of them, that lrpfast does not have; all of them are listed.
    """
    with ModelFile(source) as file:
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
        self.model = _without_functions(file.model)
        graph = self.model.graph
        self.opset = _opset(self.model)
        self.tensors = {tensor.name: tensor for tensor in graph.initializer}
        if graph.sparse_initializer:
            raise ModelError("it has sparse initializers; save it with dense ones")
        self.output = _chosen_output(graph, output)
        self.inputs, self.batch = _inputs([v for v in graph.input if v.name not in self.tensors], input_shape)

        # What is known of arrays: each name is in one of these (or in `tensors`).
        self.facts = dict(self.inputs)
        self.constants: dict[str, Constant | Varying] = {}
        self.unknown: dict[str, bool] = {}  # what depends on an offender; True if it is a constant
        self.alive: weakref.WeakValueDictionary[str, Constant] = weakref.WeakValueDictionary()

        self.nodes: list[Node] = []
        self.offenders: list[str] = []
        self.node_names: set[str] = set()
        self.array_names = {name for node in graph.node for name in (*node.input, *node.output)}
        self.array_names |= {*self.inputs, *self.tensors}

    def load(self) -> Graph:
        """The graph."""
        needed = _needed(self.model.graph.node, self.output)
        self.used = {self.output, *(name for _, node in needed for name in node.input)} - {""}
        for index, node in needed:
            name = node.name or f"{node.op_type}_{index}"
            try:
                self.visit(node, name)
            except Unsupported as reason:
                self.refuse(node, name, str(reason))
            except ModelError as error:
                raise ModelError(f"node {name!r} ({node.op_type}): {error}") from None
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
        return Graph(self.inputs, prune(self.output, self.nodes), self.output)

    # --- nodes ---

    def visit(self, node: NodeProto, name: str) -> None:
        """Fold a node, or read it; `Unsupported` says why neither is possible."""
        if node.domain not in ("", "ai.onnx"):
            raise Unsupported(f"lrpfast has no operators of domain {node.domain!r}")
        for output in filter(None, node.output):
            if any(output in known for known in (self.facts, self.constants, self.unknown, self.tensors)):
                raise ModelError(f"it writes {output!r}, which is written already")
        if any(input in self.unknown for input in node.input):
            self.pass_unknown(node)
            return
        operands = tuple(self.operand(input) for input in node.input)
        if self.opset < onnx_old.SINCE:
            node, operands = onnx_old.modernized(node, operands)
        attributes = _attributes(node)
        if any(isinstance(operand, Fact) for operand in operands) and node.op_type not in ("Shape", "Size"):
            if node.op_type not in READERS:
                raise Unsupported(REFUSED.get(node.op_type, "lrpfast has no such operator"))
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
        reader = READERS[node.op_type]
        wanted = [index for index, output in enumerate(node.output) if output in self.used]
        for index in wanted:
            if index and not reader.many_outputs:
                raise Unsupported(
                    f"its output {index} ({node.output[index]!r}) is used; only output 0 can be"
                )
            view = OnnxNode(
                node.op_type, name, tuple(node.input), tuple(node.output), attributes, self.opset,
                operands, self.batch, index,
            )  # fmt: skip
            title = name if len(wanted) == 1 else f"{name}/{index}"
            self.add(title, _tree(reader.read(view), operands), tuple(node.input), node.output[index])

    def add(self, name: str, applied: Applied, inputs: tuple[str, ...], output: str) -> None:
        """Append the operators that compute `output` from a node's inputs."""
        alone = all(isinstance(input, int) for input in applied.inputs)
        made: dict[int, str] = {}  # the arrays of branches, by identity: a branch may be used twice

        def append(branch: Applied, output: str | None) -> str:
            if id(branch) in made:
                return made[id(branch)]
            names = tuple(inputs[i] if isinstance(i, int) else append(i, None) for i in branch.inputs)
            title = _fresh(name if alone else f"{name}/{type(branch.op).__name__}", self.node_names)
            target = made[id(branch)] = output or _fresh(title, self.array_names)
            self.facts[target] = infer(branch.op, *(self.facts[each] for each in names))
            self.nodes.append(Node(title, branch.op, names, target))
            return target

        append(applied, output)

    def evaluate(
        self, node: NodeProto, operands: tuple[Operand, ...], attributes: dict[str, Any]
    ) -> list[Constant | Varying]:
        """The outputs of a node whose inputs are constants, or of Shape or Size."""
        first = operands[0] if operands else None
        if isinstance(first, Fact):
            return [shape_of(first.shape, attributes) if node.op_type == "Shape" else size_of(first.shape)]
        if node.op_type == "Constant":
            return [self.stated(attributes)]
        if any(attribute.HasField("g") or attribute.graphs for attribute in node.attribute):
            raise Unsupported("it runs a graph of its own (control flow)")
        constants = [None if isinstance(operand, Fact) else operand for operand in operands]
        return fold(node, constants, self.opset)

    def stated(self, attributes: dict[str, Any]) -> Constant:
        """The value of a Constant node."""
        from onnx import TensorProto

        for name, value in attributes.items():
            if name == "value" and isinstance(value, TensorProto):
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
        computes = node.op_type not in FOLDED and any(self.is_computed(input) for input in node.input)
        if computes and node.op_type not in READERS:
            raise Unsupported(REFUSED.get(node.op_type, "lrpfast has no such operator"))
        self.forget(node, computes)

    def forget(self, node: NodeProto, computes: bool) -> None:
        """Nothing is known of what a node writes, but whether it computes it from the network's input."""
        self.unknown.update((output, not computes) for output in node.output if output)

    def is_computed(self, name: str) -> bool:
        """Whether an array depends on the network's input."""
        return name in self.facts or self.unknown.get(name) is False


# --- the model's declarations ---


def _without_functions(model: ModelProto) -> ModelProto:
    """The model with calls of its own functions replaced by their bodies."""
    if not model.functions:
        return model
    from onnx import inliner

    return inliner.inline_local_functions(model)


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


def _chosen_output(graph: GraphProto, name: str | None) -> str:
    """The name of the array that is to be explained."""
    names = [value.name for value in graph.output]
    if name is None and len(names) != 1:
        raise ModelError(
            f"it has {len(names)} outputs, {', '.join(names) or 'none'}; say which one is to be explained: output=…"
        )
    if name is None:
        (name,) = names
    if name not in names and not any(name in node.output for node in graph.node):
        raise ModelError(f"it has no output or other array {name!r}; its outputs are {', '.join(names)}")
    return name


def _inputs(
    values: Sequence[ValueInfoProto], shapes: InputShape | None
) -> tuple[dict[str, Fact], int | None]:
    """What is known of the inputs, and the batch size that they declare, if it is a number."""
    if not isinstance(shapes, Mapping):
        if shapes is not None and len(values) != 1:
            names = ", ".join(f"{value.name!r}: (…)" for value in values)
            raise ModelError(f"it has {len(values)} inputs; name them: input_shape={{{names}}}")
        shapes = {} if shapes is None else {value.name: shapes for value in values}
    unknown = [name for name in shapes if name not in {value.name for value in values}]
    if unknown:
        raise ModelError(
            f"input_shape names {unknown[0]!r}; its inputs are {', '.join(value.name for value in values)}"
        )
    facts = {}
    batches: list[int | None] = []
    for value in values:
        batch, shape = _sample_shape(value, shapes.get(value.name))
        signed = value.type.tensor_type.elem_type not in _unsigned()
        facts[value.name] = Fact(shape, nonnegative=not signed, integer=_is_integer(value))
        batches.append(batch)
    if not facts:
        raise ModelError("it has no input")
    return facts, batches[0]


def _unsigned() -> tuple[int, ...]:
    from onnx import TensorProto

    return TensorProto.UINT8, TensorProto.UINT16, TensorProto.UINT32, TensorProto.UINT64


def _is_integer(value: ValueInfoProto) -> bool:
    """Whether an input is of an integer type and not of a floating-point one; others are refused."""
    from onnx import TensorProto

    floats = (TensorProto.FLOAT, TensorProto.DOUBLE, TensorProto.FLOAT16, TensorProto.BFLOAT16)
    signed = (TensorProto.INT8, TensorProto.INT16, TensorProto.INT32, TensorProto.INT64)
    kind = value.type.tensor_type.elem_type
    if kind not in (*floats, *signed, *_unsigned()):
        names = {number: name for name, number in TensorProto.DataType.items()}
        raise ModelError(
            f"its input {value.name!r} has type {names.get(kind, str(kind))}; lrpfast explains real numbers, "
            "and integers that index an embedding"
        )
    return kind not in floats


def _sample_shape(value: ValueInfoProto, given: tuple[int, ...] | None) -> tuple[int | None, tuple[int, ...]]:
    """The batch size that an input declares, if it is a number, and the shape of one sample."""
    tensor = value.type.tensor_type
    if given is not None:
        given = _checked_shape(given)
    if not tensor.HasField("shape"):
        if given is None:
            raise ModelError(f"its input {value.name!r} has no shape; give one sample's as input_shape=(…)")
        return None, given
    dims = [dim.dim_value if dim.dim_value > 0 else dim.dim_param or "?" for dim in tensor.shape.dim]
    declared = f"its input {value.name!r} has shape ({', '.join(map(str, dims))})"
    if len(dims) < 2:
        raise ModelError(f"{declared}; expected a batch axis, and others behind it")
    sample = dims[1:]
    if given is None:
        if not all(isinstance(n, int) for n in sample):
            example = ", ".join(str(n) if isinstance(n, int) else "…" for n in sample)
            raise ModelError(
                f"{declared}, open behind the batch axis; give one sample's as input_shape=({example})"
            )
        given = tuple(int(n) for n in sample)
    fits = [not isinstance(n, int) or n == m for n, m in zip(sample, given, strict=False)]
    if len(sample) != len(given) or not all(fits):
        raise ModelError(f"{declared}, batch axis first; input_shape={given} does not fit")
    return dims[0] if isinstance(dims[0], int) else None, given


def _checked_shape(shape: tuple[int, ...]) -> tuple[int, ...]:
    try:
        sizes = tuple(int(n) for n in shape)
    except (TypeError, ValueError):
        sizes = ()
    if not sizes or min(sizes) < 1:
        raise ModelError(
            f"input_shape is {shape!r}; expected the sizes of one sample without the batch, as (3, 224, 224)"
        )
    return sizes


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


def _needed(nodes: Sequence[NodeProto], output: str) -> list[tuple[int, NodeProto]]:
    """The nodes that `output` depends on, with their places in the model."""
    names = {output}
    kept = []
    for index, node in reversed(list(enumerate(nodes))):
        if names.intersection(name for name in node.output if name):
            names.update(node.input)
            kept.append((index, node))
    return kept[::-1]


def _attributes(node: NodeProto) -> dict[str, Any]:
    """A node's attributes as Python values; strings decoded."""
    from onnx.helper import get_attribute_value

    attributes = {}
    for attribute in node.attribute:
        value = get_attribute_value(attribute)
        attributes[attribute.name] = value.decode("utf-8", "replace") if isinstance(value, bytes) else value
    return attributes


def _fresh(name: str, taken: set[str]) -> str:
    """`name`, or with a number if it is taken; now taken."""
    unique, number = name, 1
    while unique in taken:
        number += 1
        unique = f"{name}_{number}"
    taken.add(unique)
    return unique
