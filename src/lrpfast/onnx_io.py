"""From an ONNX model to a `Graph`, by the readers that the operators register."""

from __future__ import annotations

import weakref
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from . import onnx_old
from .errors import ModelError, UnsupportedOperatorError
from .graph import Fact, Graph, Node, prune
from .onnx_file import ModelFile
from .onnx_fold import fold, shape_of, size_of
from .ops import FOLDED, READERS, Op
from .ops.reading import Constant, OnnxNode, Unsupported, Varying

if TYPE_CHECKING:
    from onnx import ModelProto, NodeProto, ValueInfoProto

OLDEST_OPSET = 6

Operand = Fact | Constant | Varying | None


def load_graph(source: Any, input_shape: tuple[int, ...] | None = None) -> Graph:
    """Read an ONNX model.

    The batch axis is axis 0 of the input; its size is free, whatever the model declares. What does
    not contribute to the output is left out.

    Parameters
    ----------
    source : path, bytes or onnx.ModelProto
        External data are read from the model's own folder only.
    input_shape : tuple of int, optional
        Shape of one sample, without the batch axis; needed where the model leaves it open.

    Raises
    ------
    FileNotFoundError
        There is no such file.
    ModelError
        It is not an ONNX model, is damaged, holds NaN, has several inputs or outputs, or leaves the
        shape of its input open.
    UnsupportedOperatorError
        It uses operators, or forms of them, that lrpfast does not have; all of them are listed.
    """
    with ModelFile(source) as file:
        try:
            return _Loader(file, input_shape).load()
        except UnsupportedOperatorError:
            raise
        except ModelError as error:
            raise ModelError(f"{file.label}: {error}") from None


class _Loader:
    """Walks a model's nodes once, keeping what is known of each array."""

    def __init__(self, file: ModelFile, input_shape: tuple[int, ...] | None) -> None:
        self.file = file
        self.model = _without_functions(file.model)
        graph = self.model.graph
        self.opset = _opset(self.model)
        self.tensors = {tensor.name: tensor for tensor in graph.initializer}
        if graph.sparse_initializer:
            raise ModelError("it has sparse initializers; save it with dense ones")
        self.input = _the_input([value for value in graph.input if value.name not in self.tensors])
        self.output = _only("output", [value.name for value in graph.output])
        self.batch, shape = _sample_shape(self.input, input_shape)
        self.input_shape = shape

        # What is known of arrays: each name is in one of these (or in `tensors`).
        self.facts = {self.input.name: Fact(shape)}
        self.constants: dict[str, Constant | Varying] = {}
        self.unknown: dict[str, bool] = {}  # what depends on an offender; True if it is a constant
        self.alive: weakref.WeakValueDictionary[str, Constant] = weakref.WeakValueDictionary()

        self.nodes: list[Node] = []
        self.offenders: list[str] = []
        self.node_names: set[str] = set()
        self.array_names = {name for node in graph.node for name in (*node.input, *node.output)}
        self.array_names |= {self.input.name, *self.tensors}

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
            raise ModelError(f"its output {self.output!r} does not depend on its input {self.input.name!r}")
        return Graph(self.input.name, self.input_shape, prune(self.output, self.nodes), self.output)

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
                raise Unsupported("lrpfast has no such operator")
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
        computed = tuple(
            input for input, operand in zip(node.input, operands, strict=True) if isinstance(operand, Fact)
        )
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
            ops = reader.read(view)
            self.add(
                name if len(wanted) == 1 else f"{name}/{index}",
                ops if isinstance(ops, tuple) else (ops,),
                computed,
                node.output[index],
            )

    def add(self, name: str, ops: Sequence[Op], inputs: tuple[str, ...], output: str) -> None:
        """Append a chain of operators that computes `output` from `inputs`."""
        for place, op in enumerate(ops):
            last = place == len(ops) - 1
            title = name if len(ops) == 1 else f"{name}/{type(op).__name__}"
            title = _fresh(title, self.node_names)
            target = output if last else _fresh(title, self.array_names)
            self.facts[target] = op.infer(*(self.facts[input] for input in inputs))
            self.nodes.append(Node(title, op, inputs, target))
            inputs = (target,)

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
            raise Unsupported("lrpfast has no such operator")
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


def _only(what: str, names: list[str]) -> str:
    if len(names) != 1:
        raise ModelError(
            f"it has {len(names)} {what}s {names}; expected one. "
            "Cut the part to be explained out with onnx.utils.extract_model"
        )
    return names[0]


def _the_input(values: list[ValueInfoProto]) -> ValueInfoProto:
    _only("input", [value.name for value in values])
    return values[0]


def _sample_shape(value: ValueInfoProto, given: tuple[int, ...] | None) -> tuple[int | None, tuple[int, ...]]:
    """The batch size that an input declares, if it is a number, and the shape of one sample."""
    from onnx import TensorProto

    floats = (TensorProto.FLOAT, TensorProto.DOUBLE, TensorProto.FLOAT16, TensorProto.BFLOAT16)
    tensor = value.type.tensor_type
    if tensor.elem_type not in floats:
        names = {number: name for name, number in TensorProto.DataType.items()}
        kind = names.get(tensor.elem_type, str(tensor.elem_type))
        raise ModelError(f"its input {value.name!r} has type {kind}; lrpfast explains floating-point inputs")
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
