"""Test cases with a batch axis in front of their data, made from cases that have none."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, defs, helper, numpy_helper, shape_inference
from onnx.reference import ReferenceEvaluator

Array = NDArray[Any]
Arrays = Mapping[str, Array]

AXES = ("axis", "axes", "perm")
"""Names of attributes and inputs that number axes."""

MAX_SIZE = 10_000
"""Larger arrays are not lifted: ONNX's reference is slow, and cases with so many elements have a batch."""


def lift(model: ModelProto, inputs: Arrays, outputs: Arrays) -> tuple[ModelProto, Arrays, Arrays] | None:
    """A model for batches of what `model` takes, two samples, and what it gives for them; None if there is none.

    An axis is put in front of what is fed. What else has to change is found by trying: nothing; axes that are
    counted from the front; lists with a number for each axis. ONNX decides: shapes must fit, and its reference
    must give each sample of the batch what the case expects, or what it gives the sample alone.

    Parameters
    ----------
    model : ModelProto
    inputs, outputs : mapping of str to array
        What it is fed, and what the case expects.
    """
    if any(array.size > MAX_SIZE for array in inputs.values()):
        return None
    # The second sample has the values of the first in another order: they suit logarithms too.
    other = {name: np.array(np.flip(array)) for name, array in inputs.items()}
    batch = {name: np.stack([array, other[name]]) for name, array in inputs.items()}
    try:
        alone = _reference(model, other, outputs)
        expected = {name: np.stack([array, alone[name]]) for name, array in outputs.items()}
    except Exception:  # the reference cannot run it, or sizes depend on values
        return None
    for lifted in _candidates(model, inputs, outputs):
        try:
            shape_inference.infer_shapes(lifted, check_type=True, strict_mode=True)
            found = _reference(lifted, batch, outputs)
            for name, array in found.items():
                assert array.shape == expected[name].shape
                np.testing.assert_allclose(array, expected[name], rtol=1e-5, atol=1e-7)
        except Exception:  # whatever onnx raises: that is no model, or another computation
            continue
        return lifted, batch, expected
    return None


def _reference(model: ModelProto, inputs: Arrays, outputs: Arrays) -> Arrays:
    """The outputs by ONNX's reference implementation."""
    names = list(outputs)
    with np.errstate(all="ignore"):
        return dict(zip(names, ReferenceEvaluator(model).run(names, dict(inputs)), strict=True))


def _candidates(model: ModelProto, inputs: Arrays, outputs: Arrays) -> Iterator[ModelProto]:
    """Models that may do to each sample of a batch what `model` does."""
    lifted = ModelProto()
    lifted.CopyFrom(model)
    graph = lifted.graph
    del graph.value_info[:]
    for values, arrays in ((graph.input, inputs), (graph.output, outputs)):
        for value in values:
            if value.name in arrays:
                kind = value.type.tensor_type.elem_type
                shape = ("n", *arrays[value.name].shape)
                value.CopyFrom(helper.make_tensor_value_info(value.name, kind, shape))
    yield lifted
    shifted = ModelProto()
    shifted.CopyFrom(lifted)
    if _shift_axes(shifted, set(inputs)):
        yield shifted
    for entry in (0, 1):
        longer = ModelProto()
        longer.CopyFrom(lifted)
        if _lengthen_lists(longer, inputs, entry):
            yield longer


def _shift_axes(model: ModelProto, reached: set[str]) -> bool:
    """Number axes anew at nodes that depend on what is in `reached`; whether there are any."""
    graph = model.graph
    (opset,) = (entry.version for entry in model.opset_import if entry.domain == "")
    changed = False
    for node in graph.node:
        if reached.isdisjoint(node.input):
            continue
        reached.update(node.output)
        schema = defs.get_schema(node.op_type, opset)
        changed |= _shift_attributes(node, schema)
        for place, formal in enumerate(schema.inputs[: len(node.input)]):
            axes = _constant(model, node.input[place])
            if formal.name in AXES and axes is not None:
                _replace(model, node, place, axes + (axes >= 0))
                changed = True
    return changed


def _shift_attributes(node: NodeProto, schema: Any) -> bool:
    """Add 1 to the attributes of a node that count axes from the front."""
    given = {attribute.name: attribute for attribute in node.attribute}
    changed = False
    for name in AXES:
        stated = given.get(name)
        if stated is None:
            if name not in schema.attributes or not schema.attributes[name].default_value.name:
                continue
            stated = schema.attributes[name].default_value
        else:
            node.attribute.remove(stated)
        value = helper.get_attribute_value(stated)
        moved = [axis + (axis >= 0) for axis in np.atleast_1d(value).tolist()]
        if name == "perm":
            moved = [0, *moved]
        node.attribute.append(helper.make_attribute(name, moved[0] if isinstance(value, int) else moved))
        changed = True
    return changed


def _lengthen_lists(model: ModelProto, inputs: Arrays, entry: int) -> bool:
    """Put `entry` in front of the lists that nodes read besides what is in `inputs`; whether there are any.

    Lists with two numbers for each axis, those of one end before those of the other, get it twice.
    """
    changed = False
    for node in model.graph.node:
        if not node.input or node.input[0] not in inputs:
            continue
        rank = inputs[node.input[0]].ndim
        for place, name in enumerate(node.input):
            numbers = _constant(model, name)
            if numbers is not None and numbers.ndim == 1:
                places = [0, rank] if len(numbers) == 2 * rank else [0]
                _replace(model, node, place, np.insert(numbers, places, entry))
                changed = True
    return changed


def _constant(model: ModelProto, name: str) -> Array | None:
    """The initializer of that name."""
    for tensor in model.graph.initializer:
        if tensor.name == name:
            return numpy_helper.to_array(tensor)
    return None


def _replace(model: ModelProto, node: NodeProto, place: int, array: Array) -> None:
    """Let a node read `array` as its input `place`."""
    name = f"{node.input[place]}/lifted/{len(model.graph.initializer)}"
    model.graph.initializer.append(numpy_helper.from_array(array, name))
    node.input[place] = name
