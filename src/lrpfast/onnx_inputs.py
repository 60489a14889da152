"""What a model declares of its inputs: shapes, and whether they are integers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from .errors import ModelError
from .graph import Fact

if TYPE_CHECKING:
    from onnx import ValueInfoProto

InputShape = tuple[int, ...] | Mapping[str, tuple[int, ...]]
"""Shape of one sample of the only input, or of each by name."""


def declared_inputs(
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
