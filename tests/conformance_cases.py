"""ONNX's own backend tests, run through lrpfast's loader: each case passes, is refused, or does not apply.

A case is a model with inputs and expected outputs. Nothing here knows single operators: types of inputs and
outputs tell whether a case applies, and how it can be read tells what the case says about lrpfast:

- Node cases feed weights as inputs too. One floating-point input after the other is the network's input while
  the rest are constants; then all of them are inputs.
- lrpfast keeps axis 0 of inputs as the batch. The data of many cases have none, so each is also *lifted*: an
  axis is put in front of what is fed, and axes that the model counts from the front are moved by one. ONNX's
  reference must give each sample what the case gives it alone, else the case cannot be lifted so.

A case passes if at least one way to read it loads. All that load must give the expected numbers.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from conformance_lift import lift
from conformance_relevance import check_relevance
from numpy.typing import NDArray
from onnx import ModelProto, TensorProto, defs, numpy_helper

import lrpfast
from lrpfast.errors import LrpfastError
from lrpfast.onnx_fold import RANDOM

Array = NDArray[Any]

FLOATS = frozenset((TensorProto.FLOAT, TensorProto.DOUBLE, TensorProto.FLOAT16, TensorProto.BFLOAT16))
STORED = ("simple", "pytorch-operator", "pytorch-converted")
"""Folders of test cases that come with onnx."""

PASSED, PARTLY, REFUSED, INAPPLICABLE, WRONG = "passed", "in part", "refused", "not applicable", "WRONG"


@dataclass(frozen=True, eq=False)
class Case:
    """A model, what it is fed, and what it should give.

    Attributes
    ----------
    name : str
    operator : str
        The one that is tested, or the folder of a whole network.
    model : ModelProto
    inputs, outputs : mapping of str to array
        None for what is not an array.
    data : sequence of str
        The inputs that can be a network's, the most important first; the others are constants.
    rtol, atol : float
    """

    name: str
    operator: str
    model: ModelProto
    inputs: Mapping[str, Any]
    outputs: Mapping[str, Any]
    data: Sequence[str]
    rtol: float = 1e-3
    atol: float = 1e-7

    @property
    def expanded(self) -> bool:
        """Whether the operator is written out as the graph that ONNX defines it by."""
        return "_expanded" in self.name


@dataclass(frozen=True)
class Outcome:
    """What became of a case, and why."""

    case: Case
    status: str
    reasons: tuple[str, ...] = ()


# --- the cases ---


def all_cases() -> list[Case]:
    """All cases."""
    return [*node_cases(), *(case for folder in STORED for case in stored_cases(folder))]


def node_cases() -> list[Case]:
    """ONNX's cases of single operators, and of those operators written out."""
    from onnx.backend.test.case.node import collect_testcases

    np.random.seed(0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # overflows that the cases are about
        found = collect_testcases(None)
    alone = {case.name: case.model for case in found}
    cases = []
    for case in found:
        model = alone[case.name.partition("_expanded")[0]]
        fed = {
            value.name: _array(array)
            for value, array in zip(case.model.graph.input, case.data_sets[0][0], strict=True)
        }
        given = {
            value.name: _array(array)
            for value, array in zip(case.model.graph.output, case.data_sets[0][1], strict=True)
        }
        operator = model.graph.node[0].op_type
        cases.append(Case(case.name, operator, case.model, fed, given, _data(model), case.rtol, case.atol))
    return cases


def _data(model: ModelProto) -> list[str]:
    """The inputs of the only node of a model that are floating-point arrays and, but the first, have gradients."""
    (node,), (opset,) = model.graph.node, model.opset_import[:1]
    formal = defs.get_schema(node.op_type, opset.version, node.domain).inputs
    fixed = {
        name
        for place, name in enumerate(node.input)
        if place and _category(formal, place) == defs.OpSchema.DifferentiationCategory.NonDifferentiable
    }
    return [name for name in floats(model.graph.input) if name not in fixed]


def _category(formal: Sequence[Any], place: int) -> Any:
    """Whether ONNX has gradients for an input; the last formal one stands for all that follow."""
    return formal[min(place, len(formal) - 1)].differentiation_category


def stored_cases(folder: str) -> list[Case]:
    """The networks of one of the folders `STORED`."""
    cases = []
    for path in sorted((Path(onnx.__file__).parent / "backend/test/data" / folder).iterdir()):
        model = onnx.load(path / "model.onnx")
        weights = {tensor.name for tensor in model.graph.initializer}
        fed = [value for value in model.graph.input if value.name not in weights]
        inputs, outputs = (
            {
                value.name: _stored(path / f"test_data_set_0/{kind}_{i}.pb", value)
                for i, value in enumerate(values)
            }
            for kind, values in (("input", fed), ("output", model.graph.output))
        )
        cases.append(Case(path.name, folder, model, inputs, outputs, floats(fed)))
    return cases


def _stored(path: Path, value: onnx.ValueInfoProto) -> Any:
    return _array(onnx.load_tensor(path)) if is_array(value) else None


def _array(value: Any) -> Any:
    """Arrays as they are; None for what is not one array."""
    if isinstance(value, TensorProto):
        return numpy_helper.to_array(value)
    return np.asarray(value) if isinstance(value, (np.ndarray, np.generic)) else None


# --- which of them apply ---


def is_array(value: onnx.ValueInfoProto) -> bool:
    """Whether it is neither a sequence nor optional."""
    return bool(value.type.WhichOneof("value") == "tensor_type")


def floats(values: Iterable[onnx.ValueInfoProto]) -> list[str]:
    """Names of those that are floating-point arrays."""
    return [value.name for value in values if value.type.tensor_type.elem_type in FLOATS]


def inapplicable(case: Case) -> str:
    """Why a case says nothing about networks that can be explained; empty if it does."""
    graph = case.model.graph
    domains = {node.domain for node in graph.node} - {"", "ai.onnx"}
    if domains:
        return f"operators of domain {min(domains)}"
    if any(
        attribute.HasField("g") or attribute.graphs for node in graph.node for attribute in node.attribute
    ):
        return "control flow"
    if any(node.op_type in RANDOM for node in graph.node):
        return "random numbers"
    if not all(map(is_array, (*graph.input, *graph.output))):
        return "sequences or optional values"
    if graph.node[0].op_type == "DequantizeLinear":
        return "quantized input"
    if not case.data:
        return "no floating-point input"
    if not floats(graph.output[:1]):
        return "no floating-point result"
    x, y = case.inputs[case.data[0]], case.outputs[graph.output[0].name]
    if not x.size:
        return "empty input"
    return "" if np.isfinite(x).all() and np.isfinite(y).all() else "NaN or infinity"


# --- running one ---


@dataclass(frozen=True, eq=False)
class Reading:
    """A case with some of its inputs as the network's, the others as constants."""

    model: ModelProto
    inputs: Mapping[str, Array]
    outputs: Mapping[str, Array]


def readings(case: Case) -> Iterator[Reading]:
    """All ways to read a case, those that say most about it first."""
    together = [case.data] if len(case.data) > 1 else []
    integers = [name for name in _integers(case.model.graph.input) if name in case.inputs]
    for chosen in (*([name] for name in case.data), *together, *([integers] if integers else [])):
        plain = _as_given(case, chosen)
        lifted = lift(plain.model, plain.inputs, plain.outputs)
        if lifted is not None:
            yield _fed(Reading(*lifted))
        yield _fed(plain)


def _fed(reading: Reading) -> Reading:
    """A reading whose inputs are of NumPy's own types, which bfloat16 is not."""
    inputs = {
        name: array.astype(np.float32) if array.dtype.kind == "V" else array
        for name, array in reading.inputs.items()
    }
    return replace(reading, inputs=inputs)


def _integers(values: Iterable[onnx.ValueInfoProto]) -> list[str]:
    """Names of those that may index an embedding."""
    kinds = (TensorProto.INT32, TensorProto.INT64)
    return [value.name for value in values if value.type.tensor_type.elem_type in kinds]


def _as_given(case: Case, chosen: Sequence[str]) -> Reading:
    """A case whose inputs are `chosen`."""
    model = ModelProto()
    model.CopyFrom(case.model)
    graph = model.graph
    constants = [name for name in case.inputs if name not in chosen]
    graph.initializer.extend(numpy_helper.from_array(case.inputs[name], name) for name in constants)
    kept = [value for value in graph.input if value.name not in constants]
    del graph.input[:]
    graph.input.extend(kept)
    outputs = {name: case.outputs[name] for name in floats(graph.output)}
    return Reading(model, {name: case.inputs[name] for name in chosen}, outputs)


def run(case: Case, backends: Sequence[str | None] = (None,)) -> Outcome:
    """Read a case in all ways, and compare what loads with what the case expects."""
    reason = inapplicable(case)
    if reason:
        return Outcome(case, INAPPLICABLE, (reason,))
    status, why = REFUSED, ()
    explained: set[tuple[str, ...]] = (
        set()
    )  # what has been explained: readings with the same inputs are alike
    for reading in readings(case):
        refusals: dict[str, LrpfastError] = {}
        for output in reading.outputs:
            try:
                network = predicted(case, reading, output, backends)
                if (output, *reading.inputs) not in explained:
                    explained.add((output, *reading.inputs))
                    check_relevance(network, reading.inputs)
            except LrpfastError as error:
                refusals[output] = error
            except Exception as error:  # an AssertionError, or whatever should not have come up
                what = f"{', '.join(reading.inputs)} -> {output}: {type(error).__name__}: {error}"
                return Outcome(case, WRONG, (what,))
        if case.data[0] not in reading.inputs or status == PASSED:
            continue
        if not refusals:
            status, why = PASSED, ()
        elif case.model.graph.output[0].name not in refusals and status == REFUSED:
            status, why = PARTLY, _reasons(refusals)
        elif not why:
            why = _reasons(refusals)
    return Outcome(case, status, why)


def _reasons(refusals: Mapping[str, LrpfastError]) -> tuple[str, ...]:
    """The lines of the first refusal."""
    error = next(iter(refusals.values()))
    return getattr(error, "offenders", None) or (str(error),)


def predicted(case: Case, reading: Reading, output: str, backends: Sequence[str | None]) -> lrpfast.Network:
    """The network that gives one output, once its predictions are what the case expects.

    They are computed in float64 if the inputs are, else in float32. Warnings are errors.
    """
    double = any(array.dtype == np.float64 for array in reading.inputs.values())
    expected = reading.outputs[output]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        network = lrpfast.load(reading.model, output=output)
        if network.notes:
            raise lrpfast.ModelError("the scores that it chooses from are explained instead")
        for backend in backends:
            dtype = np.float64 if double else np.float32
            found = network.predict(reading.inputs, backend=backend, dtype=dtype)
            assert found.shape == expected.shape, f"its shape is {found.shape}; expected {expected.shape}"
            np.testing.assert_allclose(found.astype(expected.dtype), expected, case.rtol, case.atol)
    return network
