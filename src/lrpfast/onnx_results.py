"""Operators that are computed where all of their inputs are constants, and how large their results can be.

That is told before anything is computed, and not by onnx's own inference of shapes: given nodes from strangers it
writes out of bounds, aborts and does not end.
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


def _given(operands: Operands) -> list[Constant]:
    return [operand for operand in operands if operand is not None]


def _operand(operands: Operands, index: int) -> Constant:
    found = operands[index]
    if found is None:
        raise ValueError(f"its input {index} is missing")
    return found


def _integers(operands: Operands, index: int) -> list[int]:
    values = _operand(operands, index)
    if values.dtype.kind not in "iu":
        raise ValueError(f"its input {index} has dtype {values.dtype}; expected integers")
    return [int(n) for n in values.reshape(-1)]


def _product(sizes: Sequence[int]) -> int:
    return math.prod(max(0, n) for n in sizes)


# --- bounds ---


def _broadcast(attributes: Attributes, operands: Operands) -> int:
    return math.prod(np.broadcast_shapes(*(operand.shape for operand in _given(operands))))


def _no_more(attributes: Attributes, operands: Operands) -> int:
    """Each result is no larger than what is read."""
    return 2 * sum(operand.size for operand in _given(operands))


def _once(attributes: Attributes, operands: Operands) -> int:
    return sum(operand.size for operand in _given(operands))


def _indices(attributes: Attributes, operands: Operands) -> int:
    x = _operand(operands, 0)
    return 4 * x.size * max(1, x.ndim)


def _constant_of_shape(attributes: Attributes, operands: Operands) -> int:
    return _product(_integers(operands, 0))


def _expand(attributes: Attributes, operands: Operands) -> int:
    x, sizes = _operand(operands, 0), _integers(operands, 1)
    rank = max(x.ndim, len(sizes))
    own = (*(1,) * (rank - x.ndim), *x.shape)
    target = (*(1,) * (rank - len(sizes)), *sizes)
    return _product([max(n, m) for n, m in zip(own, target, strict=True)])


def _tile(attributes: Attributes, operands: Operands) -> int:
    return _operand(operands, 0).size * _product(_integers(operands, 1))


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
    last = next(operand for operand in reversed(operands) if operand is not None and operand.size)
    if last is x or last.dtype.kind not in "fiu":
        raise ValueError("it has neither scales nor sizes")
    if last.dtype.kind == "f":
        if not (np.isfinite(last) & (last > 0)).all():
            raise ValueError(f"its scales are {last.tolist()}")
        return int(x.size * math.prod(math.ceil(scale) for scale in last.reshape(-1)))
    sizes = [max(1, int(n)) for n in last.reshape(-1)]
    if attributes.get("keep_aspect_ratio_policy", "stretch") != "stretch":
        scale = max(sizes) / max(1, min(x.shape, default=1))
        return math.prod(math.ceil(n * scale) + 1 for n in x.shape)
    return _product(sizes) if len(sizes) == x.ndim else x.size * _product(sizes)


def _one_hot(attributes: Attributes, operands: Operands) -> int:
    return _operand(operands, 0).size * max(0, int(_operand(operands, 1).reshape(-1)[0]))


def _gather(attributes: Attributes, operands: Operands) -> int:
    data, indices = _operand(operands, 0), _operand(operands, 1)
    return int(data.size // max(1, data.shape[attributes.get("axis", 0)]) * indices.size)


def _gather_elements(attributes: Attributes, operands: Operands) -> int:
    data, indices = _operand(operands, 0), _operand(operands, 1)
    # NumPy's `choose` brings indices back into an axis one length at a time.
    if indices.size and np.abs(indices.astype(np.float64)).max() > max(data.shape, default=0):
        raise ValueError(f"its indices reach from {indices.min()} to {indices.max()}")
    return indices.size


def _gather_nd(attributes: Attributes, operands: Operands) -> int:
    data, indices = _operand(operands, 0), _operand(operands, 1)
    return indices.size * data.size


def _products(attributes: Attributes, operands: Operands) -> int:
    """Of matrices: (…, m, k) and (…, k, n)."""
    a, b = _operand(operands, 0), _operand(operands, 1)
    if attributes.get("transA"):
        a = a.T
    if attributes.get("transB"):
        b = b.T
    stacked = np.broadcast_shapes(a.shape[:-2], b.shape[:-2])
    return math.prod(stacked) * math.prod(a.shape[-2:-1]) * (b.shape[-1] if b.ndim > 1 else 1)


def _einsum(attributes: Attributes, operands: Operands) -> int:
    return math.prod(operand.size for operand in _given(operands))


def _blocks(attributes: Attributes, operands: Operands) -> int:
    """Of numbers with a scale for each block."""
    scales = _operand(operands, 1).size * max(0, int(attributes.get("block_size", 0)))
    return _no_more(attributes, operands) + scales


def _window(attributes: Attributes, operands: Operands) -> int:
    return max(0, int(_operand(operands, 0).reshape(-1)[0]))


BOUNDS: Mapping[str, Bound] = {
    **dict.fromkeys(
        ("Abs", "Acos", "Acosh", "Add", "And", "Asin", "Asinh", "Atan", "Atanh", "BitShift", "BitwiseAnd",
         "BitwiseNot", "BitwiseOr", "BitwiseXor", "Cast", "Ceil", "Celu", "Cos", "Cosh", "Div", "Elu",
         "Equal", "Erf", "Exp", "Floor", "Gelu", "Greater", "GreaterOrEqual", "HardSigmoid", "HardSwish", "IsInf",
         "IsNaN", "LeakyRelu", "Less", "LessOrEqual", "Log", "Max", "Mean", "Min", "Mish", "Mod", "Mul", "Neg", "Not",
         "Or", "PRelu", "Pow", "Reciprocal", "Relu", "Round", "Selu", "Shrink", "Sigmoid", "Sign", "Sin", "Sinh",
         "Softplus", "Softsign", "Sqrt", "Sub", "Sum", "Swish", "Tan", "Tanh", "ThresholdedRelu", "Where", "Xor"),
        _broadcast,
    ),
    **dict.fromkeys(
        ("CastLike", "Clip", "Concat", "DepthToSpace", "EyeLike", "Flatten", "Identity", "Reshape", "Shape", "Size",
         "Slice", "SpaceToDepth", "Split", "Squeeze", "Transpose", "Trilu", "Unsqueeze"),
        _once,
    ),
    **dict.fromkeys(
        ("ArgMax", "ArgMin", "BatchNormalization", "Compress", "CumProd", "CumSum", "DynamicQuantizeLinear",
         "GlobalAveragePool", "GlobalLpPool", "GlobalMaxPool", "GroupNormalization", "Hardmax", "InstanceNormalization",
         "LayerNormalization", "LogSoftmax", "LpNormalization", "MeanVarianceNormalization", "RMSNormalization",
         "ReduceL1", "ReduceL2", "ReduceLogSum", "ReduceLogSumExp", "ReduceMax", "ReduceMean", "ReduceMin",
         "ReduceProd", "ReduceSum", "ReduceSumSquare", "Scatter", "ScatterElements", "ScatterND", "Softmax", "TopK"),
        _no_more,
    ),
    **dict.fromkeys(("NonZero", "Unique"), _indices),
    **dict.fromkeys(("DequantizeLinear", "QuantizeLinear"), _blocks),
    **dict.fromkeys(("BlackmanWindow", "HammingWindow", "HannWindow"), _window),
    **dict.fromkeys(("Gemm", "MatMul"), _products),
    **dict.fromkeys(("Resize", "Upsample"), _resize),
    "ConstantOfShape": _constant_of_shape,
    "Einsum": _einsum,
    "Expand": _expand,
    "Gather": _gather,
    "GatherElements": _gather_elements,
    "GatherND": _gather_nd,
    "OneHot": _one_hot,
    "Pad": _pad,
    "Range": _range,
    "Tile": _tile,
}  # fmt: skip
"""By operator; others are not computed. Some would be loops as long as a value says, or open pictures."""

LOOPS = frozenset(("GatherND", "Resize", "Scatter", "ScatterElements", "ScatterND", "Upsample"))
"""Operators that onnx's reference computes element by element."""

CHANGING = frozenset(
    ("ArgMax", "ArgMin", "Cast", "CastLike", "ConstantOfShape", "EyeLike", "NonZero", "OneHot", "Shape", "Size", "TopK",
     "Unique")
)  # fmt: skip
"""Operators whose results may be of wider types than what they read."""


def itemsize(op_type: str, operands: Operands) -> int:
    """Bytes of an element of the results at most."""
    return max([8 * (op_type in CHANGING), *(operand.dtype.itemsize for operand in _given(operands))])


def steps(op_type: str, attributes: Attributes, operands: Operands, elements: int) -> int:
    """About how long computing `elements` takes: elements that are read, written and multiplied."""
    total = sum(operand.size for operand in _given(operands)) + elements
    if op_type in ("Gemm", "MatMul"):
        return total + _operand(operands, 0).size * max(_operand(operands, 1).shape, default=1)
    loops = op_type in LOOPS or (op_type == "Pad" and attributes.get("mode", "constant") != "constant")
    return 10_000 * total if loops else total
