"""Operators that are computed where all of their inputs are constants, and how large their results can be.

That is told before anything is computed, and not by onnx's own inference of shapes: given nodes from strangers it
writes out of bounds, aborts and does not end. Nor does onnx's reference, which computes them, check what it is given:
it broadcasts where the operator does not. What would is refused.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from .ops.reading import Constant

Operands = Sequence[Constant | None]
Attributes = Mapping[str, Any]
Bound = Callable[[Attributes, Operands], int]
"""Elements of all results at most; raises `ValueError`, `IndexError`, … for operands that make no sense."""

MOST_SIZES = 128
"""In a list of sizes: two for each axis of an array."""

MOST_FACTORS = 32
"""Of one Einsum."""

TEXT = 8
"""ONNX's number for the type of texts."""


def _given(operands: Operands) -> list[Constant]:
    return [operand for operand in operands if operand is not None]


def _operand(operands: Operands, index: int) -> Constant:
    found = operands[index]
    if found is None:
        raise ValueError(f"its input {index} is missing")
    return found


def _integers(operands: Operands, index: int) -> list[int]:
    values = _operand(operands, index)
    if values.dtype.kind not in "iu" or values.size > MOST_SIZES:
        raise ValueError(
            f"its input {index} is {values.size} numbers of dtype {values.dtype}; "
            f"expected at most {MOST_SIZES} integers"
        )
    return [int(n) for n in values.reshape(-1)]


def _product(sizes: Sequence[int]) -> int:
    """Elements of an array of such sizes. No axis counts as empty: arrays made on the way may lack it, and not be."""
    return math.prod(max(1, n) for n in sizes)


def _size(operand: Constant) -> int:
    return _product(operand.shape)


# --- bounds ---


def _broadcast(attributes: Attributes, operands: Operands) -> int:
    return _product(np.broadcast_shapes(*(operand.shape for operand in _given(operands))))


def _no_more(attributes: Attributes, operands: Operands) -> int:
    """Each result is no larger than what is read."""
    return 2 * sum(map(_size, _given(operands)))


def _once(attributes: Attributes, operands: Operands) -> int:
    return sum(map(_size, _given(operands)))


def _indices(attributes: Attributes, operands: Operands) -> int:
    x = _operand(operands, 0)
    return 4 * _size(x) * max(1, x.ndim)


def _scaled(attributes: Attributes, operands: Operands) -> int:
    """The first operand times and plus the others, which have no axes that it does not have."""
    shapes = [operand.shape for operand in _given(operands)]
    if np.broadcast_shapes(*shapes) != shapes[0]:
        raise ValueError(f"its inputs have shapes {shapes}; expected that all broadcast to the first")
    return _no_more(attributes, operands)


def _per_channel(attributes: Attributes, operands: Operands) -> int:
    """The first operand times and plus the others, which have a number for each of its channels."""
    x, *others = _given(operands)
    if any(other.size != x.shape[1] for other in others):
        raise ValueError(
            f"its parameters have {[other.size for other in others]} numbers for {x.shape[1]} channels"
        )
    return _no_more(attributes, operands)


def _eye(attributes: Attributes, operands: Operands) -> int:
    x = _operand(operands, 0)
    return _size(x) ** (2 if x.ndim == 1 else 1)


def _cast(attributes: Attributes, operands: Operands) -> int:
    if attributes["to"] == TEXT:
        raise ValueError("it makes texts of numbers")
    return _once(attributes, operands)


def _split(attributes: Attributes, operands: Operands) -> int:
    """A part is an object of its own, which takes as much as many elements."""
    given = operands[1] if len(operands) > 1 else None
    stated = attributes.get("num_outputs", len(attributes.get("split", ())))
    return _size(_operand(operands, 0)) + 1000 * max(0, int(stated) if given is None else given.size)


def _constant_of_shape(attributes: Attributes, operands: Operands) -> int:
    return _product(_integers(operands, 0))


def _expand(attributes: Attributes, operands: Operands) -> int:
    x, sizes = _operand(operands, 0), _integers(operands, 1)
    rank = max(x.ndim, len(sizes))
    own = (*(1,) * (rank - x.ndim), *x.shape)
    target = (*(1,) * (rank - len(sizes)), *sizes)
    return _product([max(n, m) for n, m in zip(own, target, strict=True)])


def _tile(attributes: Attributes, operands: Operands) -> int:
    return _size(_operand(operands, 0)) * _product(_integers(operands, 1))


def _range(attributes: Attributes, operands: Operands) -> int:
    start, limit, delta = (float(_operand(operands, i).reshape(-1)[0]) for i in range(3))
    steps = (limit - start) / delta
    if not math.isfinite(steps):
        raise ValueError(f"it has {steps} steps")
    return max(0, math.ceil(steps))


def _pad(attributes: Attributes, operands: Operands) -> int:
    x = _operand(operands, 0)
    pads = _integers(operands, 1) if len(operands) > 1 else [int(n) for n in attributes["pads"]]
    named = operands[3] if len(operands) > 3 else None
    axes = range(x.ndim) if named is None else _integers(operands, 3)
    sizes = list(x.shape)
    for axis, begin, end in zip(axes, pads[: len(pads) // 2], pads[len(pads) // 2 :], strict=True):
        sizes[axis] += max(0, begin) + max(0, end)
    return _product(sizes)


def _resize(attributes: Attributes, operands: Operands) -> int:
    x = _operand(operands, 0)
    if attributes.get("antialias"):  # which looks at as many places as the scale says
        raise ValueError("it averages, which lrpfast does not compute of constants")
    place, last = max((i, n) for i, n in enumerate(operands) if i and n is not None and n.size)
    if last.dtype.kind not in "fiu" or last.size > MOST_SIZES:
        raise ValueError("it has neither scales nor sizes")
    if place < 3:
        if not (np.isfinite(last) & (last > 0)).all():
            raise ValueError(f"its scales are {last.tolist()}")
        return int(_size(x) * math.prod(math.ceil(scale) for scale in last.reshape(-1).tolist()))
    sizes = _integers(operands, place)
    if len(sizes) != x.ndim:
        return _size(x) * _product(sizes)
    # Axis by axis: one may grow before another shrinks.
    if attributes.get("keep_aspect_ratio_policy", "stretch") != "stretch":
        scale = max(sizes) / max(1, min(x.shape, default=1))
        sizes = [math.ceil(n * scale) + 1 for n in x.shape]
    return _product([max(n, m) for n, m in zip(x.shape, sizes, strict=True)])


def _one_hot(attributes: Attributes, operands: Operands) -> int:
    return _size(_operand(operands, 0)) * max(1, int(_operand(operands, 1).reshape(-1)[0]))


def _gather(attributes: Attributes, operands: Operands) -> int:
    data, indices = _operand(operands, 0), _operand(operands, 1)
    return int(_size(data) // max(1, data.shape[attributes.get("axis", 0)]) * _size(indices))


def _gather_elements(attributes: Attributes, operands: Operands) -> int:
    data, indices = _operand(operands, 0), _operand(operands, 1)
    # NumPy's `choose` brings indices back into an axis one length at a time.
    if indices.size and np.abs(indices.astype(np.float64)).max() > max(data.shape, default=0):
        raise ValueError(f"its indices reach from {indices.min()} to {indices.max()}")
    return _size(indices)


def _gather_nd(attributes: Attributes, operands: Operands) -> int:
    data, indices = _operand(operands, 0), _operand(operands, 1)
    return _size(indices) * _size(data)


def _products(attributes: Attributes, operands: Operands) -> int:
    """Of matrices: (…, m, k) and (…, k, n)."""
    a, b = _operand(operands, 0), _operand(operands, 1)
    stacked = np.broadcast_shapes(a.shape[:-2], b.shape[:-2])
    return _product((*stacked, *a.shape[-2:-1], b.shape[-1] if b.ndim > 1 else 1))


def _gemm(attributes: Attributes, operands: Operands) -> int:
    a, b = _operand(operands, 0), _operand(operands, 1)
    if a.ndim != 2 or b.ndim != 2:
        raise ValueError(f"its inputs have {a.ndim} and {b.ndim} axes; expected matrices")
    rows, columns = a.shape[bool(attributes.get("transA"))], b.shape[not attributes.get("transB")]
    return _product((rows, columns))


def _einsum(attributes: Attributes, operands: Operands) -> int:
    if (
        len(operands) > MOST_FACTORS
    ):  # the order in which to multiply is found by trying all pairs, time and again
        raise ValueError(f"it has {len(operands)} operands; expected at most {MOST_FACTORS}")
    return math.prod(map(_size, _given(operands)))


def _blocks(attributes: Attributes, operands: Operands) -> int:
    """Of numbers with a scale for all, for each place of an axis, or for each block."""
    x, *others = _given(operands)
    block, axis = attributes.get("block_size", 0), attributes.get("axis", 1)
    if not block and any(other.size not in (1, x.shape[axis]) for other in others):
        raise ValueError(f"it has {[other.size for other in others]} scales for {x.shape[axis]} places")
    return int(_no_more(attributes, operands) + max(0, block) * sum(map(_size, others)))


def _window(attributes: Attributes, operands: Operands) -> int:
    return max(0, int(_operand(operands, 0).reshape(-1)[0]))


BOUNDS: Mapping[str, Bound] = {
    **dict.fromkeys(
        ("Abs", "Acos", "Acosh", "Add", "And", "Asin", "Asinh", "Atan", "Atanh", "BitShift", "BitwiseAnd",
         "BitwiseNot", "BitwiseOr", "BitwiseXor", "Ceil", "Celu", "Clip", "Cos", "Cosh", "Div", "Elu",
         "Equal", "Erf", "Exp", "Floor", "Gelu", "Greater", "GreaterOrEqual", "HardSigmoid", "HardSwish", "IsInf",
         "IsNaN", "LeakyRelu", "Less", "LessOrEqual", "Log", "Max", "Mean", "Min", "Mish", "Mod", "Mul", "Neg", "Not",
         "Or", "PRelu", "Pow", "Reciprocal", "Relu", "Round", "Selu", "Shrink", "Sigmoid", "Sign", "Sin", "Sinh",
         "Softplus", "Softsign", "Sqrt", "Sub", "Sum", "Swish", "Tan", "Tanh", "ThresholdedRelu", "Where", "Xor"),
        _broadcast,
    ),
    **dict.fromkeys(
        ("CastLike", "Concat", "DepthToSpace", "Flatten", "Identity", "Reshape", "Shape", "Size", "Slice",
         "SpaceToDepth", "Squeeze", "Transpose", "Trilu", "Unsqueeze"),
        _once,
    ),
    **dict.fromkeys(
        ("ArgMax", "ArgMin", "Compress", "CumProd", "CumSum", "DynamicQuantizeLinear", "GlobalAveragePool",
         "GlobalLpPool", "GlobalMaxPool", "Hardmax", "LogSoftmax", "LpNormalization", "MeanVarianceNormalization",
         "ReduceL1", "ReduceL2", "ReduceLogSum", "ReduceLogSumExp", "ReduceMax", "ReduceMean", "ReduceMin",
         "ReduceProd", "ReduceSum", "ReduceSumSquare", "Scatter", "ScatterElements", "ScatterND", "Softmax"),
        _no_more,
    ),
    **dict.fromkeys(("LayerNormalization", "RMSNormalization"), _scaled),
    **dict.fromkeys(("BatchNormalization", "InstanceNormalization"), _per_channel),
    **dict.fromkeys(("NonZero", "TopK", "Unique"), _indices),
    **dict.fromkeys(("DequantizeLinear", "QuantizeLinear"), _blocks),
    **dict.fromkeys(("BlackmanWindow", "HammingWindow", "HannWindow"), _window),
    **dict.fromkeys(("Resize", "Upsample"), _resize),
    "Cast": _cast,
    "ConstantOfShape": _constant_of_shape,
    "Einsum": _einsum,
    "Expand": _expand,
    "EyeLike": _eye,
    "Gather": _gather,
    "GatherElements": _gather_elements,
    "GatherND": _gather_nd,
    "Gemm": _gemm,
    "MatMul": _products,
    "OneHot": _one_hot,
    "Pad": _pad,
    "Range": _range,
    "Split": _split,
    "Tile": _tile,
}  # fmt: skip
"""By operator; others are not computed. Some would be loops as long as a value says, or open pictures."""

LOOPS: Mapping[str, int] = {
    **dict.fromkeys(("GatherND", "Resize", "Scatter", "ScatterElements", "ScatterND", "Upsample"), 10_000),
    **dict.fromkeys(("Erf", "Unique"), 100),
}
"""Operators that onnx's reference computes element by element, and the steps that it takes for one."""

WIDTHS: Mapping[str, int] = {
    **dict.fromkeys(
        ("ArgMax", "ArgMin", "BlackmanWindow", "Cast", "CastLike", "ConstantOfShape", "EyeLike", "HammingWindow",
         "HannWindow", "NonZero", "OneHot", "Range", "Shape", "Size", "TopK"),
        8,
    ),
    **dict.fromkeys(("Erf", "Unique"), 40),
}  # fmt: skip
"""Bytes of an element, for operators whose results may be of wider types than what they read, or are Python's objects
at first."""


def itemsize(op_type: str, operands: Operands) -> int:
    """Bytes of an element of the results at most."""
    return max([WIDTHS.get(op_type, 1), *(operand.dtype.itemsize for operand in _given(operands))])


def steps(op_type: str, attributes: Attributes, operands: Operands, elements: int) -> int:
    """About how long computing `elements` takes: elements that are read, written and multiplied."""
    given = _given(operands)
    total = sum(map(_size, given)) + elements
    if op_type in ("Gemm", "MatMul"):
        return total + _size(_operand(operands, 0)) * max(_operand(operands, 1).shape, default=1)
    if op_type in ("Max", "Mean", "Min", "Sum"):
        return total + len(given) * elements
    if op_type == "Pad" and attributes.get("mode", "constant") != "constant":
        return 10_000 * total
    if op_type == "ScatterND":  # each index may write a part of the array
        data, indices = _operand(operands, 0), _operand(operands, 1)
        parts = _product(indices.shape[:-1]) * _product(data.shape[indices.shape[-1] :])
        return LOOPS[op_type] * total + parts
    return LOOPS.get(op_type, 1) * total
