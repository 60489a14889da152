"""Damage that strangers do to ONNX models, on purpose or not: mutations of the protobuf message.

>>> broken = mutated(model, random.Random(0), others)
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Sequence
from typing import Any

import onnx
from onnx import AttributeProto, GraphProto, ModelProto, NodeProto, TensorProto

from lrpfast.ops import FOLDED, READERS

SIZES = (0, 1, 2, 3, 4, 5, 7, 8, 16, 64, 255, 1000, 65536, 2**20, 2**31 - 1, 2**31, 2**40, 2**62, 2**63 - 1)
"""Sizes, indices and counts that programs stumble over; so do their negatives."""

NUMBERS = (
    0.0, -0.0, 1.0, -1.0, 0.5, 1e-7, 1e-38, 1e-45, 1e7, 1e30, 3.4e38, -3.4e38, float("inf"), float("-inf"),
    float("nan"),
)  # fmt: skip

LOCATIONS = ("", ".", "\0", "/etc/passwd", "../secret", "weights.bin", "a/../../b", "/dev/zero", "w\0.bin")
OPERATORS = tuple(sorted(name for name in {*READERS, *FOLDED} if "." not in name))
DOMAINS = ("", "", "ai.onnx", "ai.onnx.ml", "com.microsoft", "custom")

Rng = random.Random


def mutated(model: ModelProto, rng: Rng, others: Sequence[ModelProto] = ()) -> ModelProto:
    """A copy of `model` with one to four mutations; some bring nodes from `others`."""
    result = ModelProto()
    result.CopyFrom(model)
    for _ in range(rng.choice((1, 1, 1, 2, 2, 3, 4))):
        mutation = rng.choice(_MUTATIONS)
        try:
            mutation(result, rng, others)
        except Exception:  # the model has no place for it, or is too broken by now for onnx's own helpers
            continue
    return result


def size(rng: Rng, near: int | None = None) -> int:
    """A size: often near the one that was there."""
    if near is not None and rng.random() < 0.4:
        return _clamped(near + rng.choice((-2, -1, 1, 2)))
    if near is not None and rng.random() < 0.2:
        return _clamped(near * rng.choice((-1, 2, 1024)))
    return rng.choice(SIZES) * rng.choice((1, 1, 1, -1))


def _clamped(n: int) -> int:
    return max(-(2**63), min(2**63 - 1, n))


# --- where ---


def _graph(model: ModelProto, rng: Rng) -> GraphProto:
    """The model's graph, one inside of a node, or a function, which has nodes too."""
    graph = model.graph
    inner = [a.g for node in graph.node for a in node.attribute if a.HasField("g")]
    inner += model.functions
    return rng.choice(inner) if inner and rng.random() < 0.3 else graph


def _node(model: ModelProto, rng: Rng) -> NodeProto:
    return rng.choice(_graph(model, rng).node)


def _attribute(model: ModelProto, rng: Rng) -> AttributeProto:
    return rng.choice([a for node in _graph(model, rng).node for a in node.attribute])


def _tensor(model: ModelProto, rng: Rng) -> TensorProto:
    graph = _graph(model, rng)
    held = [a.t for node in graph.node for a in node.attribute if a.HasField("t")]
    return rng.choice([*graph.initializer, *held])


def _name(model: ModelProto, rng: Rng) -> str:
    """The name of some array."""
    graph = model.graph
    names = [name for node in graph.node for name in (*node.input, *node.output)]
    names += [tensor.name for tensor in graph.initializer] + [value.name for value in graph.input]
    return rng.choice([*names, "", "nowhere"])


# --- what ---


def _change_attribute(model: ModelProto, rng: Rng, others: Sequence[ModelProto]) -> None:
    attribute = _attribute(model, rng)
    if attribute.type == AttributeProto.INT:
        attribute.i = size(rng, attribute.i)
    elif attribute.type == AttributeProto.INTS:
        values = list(attribute.ints)
        if values and rng.random() < 0.6:
            place = rng.randrange(len(values))
            values[place] = size(rng, values[place])
        else:
            values = _resized(values, size(rng), rng)
        attribute.ints[:] = values
    elif attribute.type == AttributeProto.FLOAT:
        attribute.f = rng.choice(NUMBERS)
    elif attribute.type == AttributeProto.FLOATS:
        attribute.floats[:] = _resized(list(attribute.floats), rng.choice(NUMBERS), rng)
    elif attribute.type == AttributeProto.STRING:
        known = [a.s for node in model.graph.node for a in node.attribute if a.s]
        words = (
            b"",
            b"SAME_UPPER",
            b"VALID",
            b"linear",
            b"cubic",
            b"reflect",
            b"mean",
            b"\xff",
            b"ij,jk->ik",
            b"...",
        )
        attribute.s = rng.choice([*known, *words])
    else:
        attribute.type = rng.randrange(15)


def _resized(values: list[Any], value: Any, rng: Rng) -> list[Any]:
    """A list that is longer or shorter by one, or much longer."""
    kind = rng.randrange(4)
    if kind == 0 and values:
        values.pop(rng.randrange(len(values)))
    elif kind == 1:
        values = values * rng.choice((2, 40))
    else:
        values.insert(rng.randint(0, len(values)), value)
    return values


def _add_attribute(model: ModelProto, rng: Rng, others: Sequence[ModelProto]) -> None:
    """An attribute that another operator has, or a type that it should not have."""
    found = [a for other in (model, *_some(others, rng)) for node in other.graph.node for a in node.attribute]
    _node(model, rng).attribute.add().CopyFrom(rng.choice(found))


def _drop_attribute(model: ModelProto, rng: Rng, others: Sequence[ModelProto]) -> None:
    node = _node(model, rng)
    del node.attribute[rng.randrange(len(node.attribute))]


def _retype_attribute(model: ModelProto, rng: Rng, others: Sequence[ModelProto]) -> None:
    attribute = _attribute(model, rng)
    attribute.type = rng.randrange(15)
    if rng.random() < 0.5:
        attribute.ClearField(rng.choice(("i", "f", "s", "ints", "floats", "t", "g")))


def _change_operator(model: ModelProto, rng: Rng, others: Sequence[ModelProto]) -> None:
    node = _node(model, rng)
    if rng.random() < 0.1:
        node.domain = rng.choice(DOMAINS)
    else:
        node.op_type = rng.choice(OPERATORS)


def _change_nodes(model: ModelProto, rng: Rng, others: Sequence[ModelProto]) -> None:
    """Drop, double or move a node."""
    graph = _graph(model, rng)
    place = rng.randrange(len(graph.node))
    nodes = list(graph.node)
    node = nodes[place]
    kind = rng.randrange(4)
    if kind == 0:
        nodes.pop(place)
    elif kind == 1:
        nodes.insert(place, node)
    elif kind == 2:
        nodes.insert(rng.randrange(len(nodes)), nodes.pop(place))
    else:  # the same thing a second time, over what it made
        copy = NodeProto()
        copy.CopyFrom(node)
        copy.input[0], copy.output[0] = node.output[0], f"{node.output[0]}_again"
        for other in nodes[place + 1 :]:
            other.input[:] = [copy.output[0] if name == node.output[0] else name for name in other.input]
        nodes.insert(place + 1, copy)
    kept = [NodeProto.FromString(each.SerializeToString()) for each in nodes]
    del graph.node[:]
    graph.node.extend(kept)


def _change_edge(model: ModelProto, rng: Rng, others: Sequence[ModelProto]) -> None:
    node = _node(model, rng)
    names = node.output if rng.random() < 0.2 else node.input
    kind = rng.randrange(6)
    if kind == 0:
        names.append(_name(model, rng))
    elif kind == 1:
        del names[rng.randrange(len(names))]
    else:
        names[rng.randrange(len(names))] = _name(model, rng)


def _change_tensor(model: ModelProto, rng: Rng, others: Sequence[ModelProto]) -> None:
    """Sizes, type or data of a tensor; then often the others, so that they fit."""
    tensor = _tensor(model, rng)
    kind = rng.randrange(9)
    if kind == 0:
        tensor.data_type = rng.randrange(28)
    elif kind == 1:
        tensor.dims[:] = _resized(list(tensor.dims), size(rng), rng)
    elif kind == 2 and tensor.dims:
        place = rng.randrange(len(tensor.dims))
        tensor.dims[place] = size(rng, tensor.dims[place])
    elif kind == 3:
        data = bytearray(tensor.raw_data)
        for _ in range(rng.choice((1, 4, 16))):
            data[rng.randrange(len(data))] = rng.choice((0, 1, 127, 128, 255))
        tensor.raw_data = bytes(data)
    elif kind == 4:
        _fill(tensor, rng)
    elif kind == 5:
        tensor.raw_data = tensor.raw_data[: rng.randrange(len(tensor.raw_data) + 1)]
    elif kind == 6:  # no elements
        tensor.dims[rng.randrange(len(tensor.dims))] = 0
        tensor.raw_data = b""
    elif kind == 7:
        tensor.ClearField("raw_data")
        tensor.data_type = TensorProto.STRING
        tensor.string_data[:] = [b"1"] * min(math.prod(tensor.dims), 4096)
    else:
        tensor.data_location = TensorProto.EXTERNAL
        values = {"location": rng.choice(LOCATIONS), "offset": str(size(rng)), "length": str(size(rng))}
        for key in rng.sample(sorted(values), rng.randint(0, 3)):
            tensor.external_data.add(key=key, value=rng.choice((values[key], "one", "1e3")))


def _fill(tensor: TensorProto, rng: Rng) -> None:
    """New numbers, and as many as the sizes say."""
    import numpy as np

    array = onnx.numpy_helper.to_array(tensor).copy()
    flat = array.reshape(-1)
    for _ in range(rng.choice((1, 2, flat.size))):
        place = rng.randrange(flat.size)
        if flat.dtype.kind == "f":
            with np.errstate(over="ignore"):
                flat[place] = rng.choice(NUMBERS)
        else:
            limits = np.iinfo(flat.dtype)
            flat[place] = max(limits.min, min(limits.max, size(rng, int(flat[place]))))
    tensor.CopyFrom(onnx.numpy_helper.from_array(array, tensor.name))


def _change_declaration(model: ModelProto, rng: Rng, others: Sequence[ModelProto]) -> None:
    """Shape or type of an input or output."""
    graph = model.graph
    tensor = rng.choice([*graph.input, *graph.output]).type.tensor_type
    dims = tensor.shape.dim
    kind = rng.randrange(5)
    if kind == 0:
        tensor.elem_type = rng.randrange(28)
    elif kind == 1:
        dims.add().dim_value = size(rng)
    elif kind == 2:
        del dims[rng.randrange(len(dims))]
    elif kind == 3:
        dims[rng.randrange(len(dims))].dim_param = "n"
    else:
        dim = rng.choice(dims)
        dim.dim_value = size(rng, dim.dim_value)


def _change_ends(model: ModelProto, rng: Rng, others: Sequence[ModelProto]) -> None:
    """Which arrays are inputs, outputs and constants."""
    graph = model.graph
    kind = rng.randrange(5)
    if kind == 0:
        rng.choice(graph.output).name = _name(model, rng)
    elif kind == 1:
        graph.output.add().name = _name(model, rng)
    elif kind == 2:
        del graph.initializer[rng.randrange(len(graph.initializer))]
    elif kind == 3:
        tensor = graph.initializer.add()
        tensor.CopyFrom(rng.choice(graph.initializer))
        tensor.name = _name(model, rng)
    else:
        graph.input.add().CopyFrom(onnx.helper.make_tensor_value_info(_name(model, rng), 1, [1, size(rng)]))


def _freeze(model: ModelProto, rng: Rng, others: Sequence[ModelProto]) -> None:
    """Make a constant of an input: what is made of it is computed when the model is read."""
    import numpy as np

    graph = model.graph
    value = rng.choice(graph.input)
    tensor = value.type.tensor_type
    sizes = [dim.dim_value for dim in tensor.shape.dim]
    numbers = np.array(rng.choices(range(-2, 5), k=min(math.prod(sizes), 4096)))
    array = numbers.astype(onnx.helper.tensor_dtype_to_np_dtype(tensor.elem_type)).reshape(sizes)
    graph.initializer.append(onnx.numpy_helper.from_array(array, value.name))
    value.name = "unread"


def _change_header(model: ModelProto, rng: Rng, others: Sequence[ModelProto]) -> None:
    if rng.random() < 0.7:
        rng.choice(model.opset_import).version = rng.choice((*range(5, 28), size(rng)))
    elif rng.random() < 0.5:
        rng.choice(model.opset_import).domain = rng.choice(DOMAINS)
    else:
        model.ir_version = size(rng)


def _graft(model: ModelProto, rng: Rng, others: Sequence[ModelProto]) -> None:
    """Nodes of another model, with their constants, in front of the output."""
    (other,) = _some(others, rng)
    graph = model.graph
    mark = f"graft{len(graph.node)}_"
    place = rng.randint(0, len(graph.node))
    entry = rng.choice(
        [*(name for node in list(graph.node)[:place] for name in node.output), graph.input[0].name]
    )
    names = {value.name: entry for value in other.graph.input}
    constants = {tensor.name for tensor in other.graph.initializer}
    start = rng.randrange(len(other.graph.node))
    grafted = []
    for node in list(other.graph.node)[start : start + rng.choice((1, 1, 2, 5))]:
        copy = NodeProto()
        copy.CopyFrom(node)
        copy.name = ""
        copy.input[:] = [
            name and (mark + name if name in constants else names.get(name, entry)) for name in node.input
        ]
        names.update((name, mark + name) for name in node.output if name)
        copy.output[:] = [name and mark + name for name in node.output]
        grafted.append(copy)
    last = grafted[-1].output[0]
    rest = [NodeProto.FromString(node.SerializeToString()) for node in list(graph.node)[place:]]
    for node in rest:
        node.input[:] = [last if name == entry else name for name in node.input]
    if graph.output[0].name == entry or not rest:
        graph.output[0].name = last
    del graph.node[place:]
    graph.node.extend([*grafted, *rest])
    for tensor in other.graph.initializer:
        if any(mark + tensor.name in node.input for node in grafted):
            graph.initializer.add().CopyFrom(tensor)
            graph.initializer[-1].name = mark + tensor.name


def _some(others: Sequence[ModelProto], rng: Rng) -> list[ModelProto]:
    return [rng.choice(others)] if others else []


Mutation = Callable[[ModelProto, Rng, Sequence[ModelProto]], None]

_MUTATIONS: tuple[Mutation, ...] = (
    _change_attribute, _change_attribute, _change_attribute, _add_attribute, _drop_attribute, _retype_attribute,
    _change_operator, _change_operator, _change_nodes, _change_edge, _change_edge, _change_tensor, _change_tensor,
    _change_tensor, _change_declaration, _change_declaration, _change_ends, _freeze, _change_header, _graft, _graft,
    _graft,
)  # fmt: skip
