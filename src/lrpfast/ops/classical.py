"""Readers of operators of the domain ai.onnx.ml: what surrounds and makes up the models of scikit-learn."""

from __future__ import annotations

import numpy as np

from ..errors import ModelError
from .activation import Sigmoid
from .affine import Affine
from .base import Array, Op
from .gemm import Gemm
from .movement import Concat, Identity, Slice
from .reading import Applied, OnnxNode, Reading, Unsupported, reads
from .softmax import Softmax


@reads("ai.onnx.ml.Scaler")
def _read_scaler(node: OnnxNode) -> Affine:
    scale, offset = (_numbers(node, name) for name in ("scale", "offset"))
    return Affine(scale, -offset * scale)


@reads("ai.onnx.ml.Imputer")
def _read_imputer(node: OnnxNode) -> Identity:
    if not np.isnan(node.number("replaced_value_float", 0.0)):
        raise Unsupported("it replaces a number; only NaN can be, which no input may hold")
    return Identity()


@reads("ai.onnx.ml.ArrayFeatureExtractor")
def _read_array_feature_extractor(node: OnnxNode) -> Reading:
    """Chosen elements of the last axis: slices, side by side."""
    shape = node.fact(0).shape
    places = [int(n) for n in node.constant(1).reshape(-1)]
    if not places or min(places) < 0 or max(places) >= shape[-1]:
        raise ModelError(f"its indices {places} are out of range for an axis of {shape[-1]}")
    parts = []
    for run in _runs(places):
        rest = (0,) * (len(shape) - 1)
        parts.append(Slice((*rest, run.start), (*(1 for _ in rest), run.step), (*shape[:-1], len(run))))
    if len(parts) == 1:
        return parts[0]
    return Applied(Concat(len(shape) - 1), tuple(Applied(part, (0,)) for part in parts))


def _runs(places: list[int]) -> list[range]:
    """Numbers as ranges with equal steps."""
    runs: list[range] = []
    for place in places:
        last = runs[-1] if runs else range(0)
        step = place - last[-1] if last else 0
        if last and step and (len(last) == 1 or step == last.step):
            runs[-1] = range(last.start, place + (1 if step > 0 else -1), step)
        else:
            runs.append(range(place, place + 1))
    return runs


@reads("ai.onnx.ml.LinearRegressor")
def _read_linear_regressor(node: OnnxNode) -> Gemm:
    if node.string("post_transform", "NONE") != "NONE":
        raise Unsupported(f"post_transform is {node.string('post_transform', '')!r}; only NONE is supported")
    return _dense(node, node.integer("targets", 1))


@reads("ai.onnx.ml.LinearClassifier", many_outputs=True)
def _read_linear_classifier(node: OnnxNode) -> Op | tuple[Op, ...]:
    if node.wanted == 0:
        raise Unsupported("its output 0 is a label; only the scores, its output 1, can be explained")
    classes = max(len(node.attributes.get(f"classlabels_{kind}", ())) for kind in ("ints", "strings"))
    dense = _dense(node, classes)
    transform = node.string("post_transform", "NONE")
    activations: dict[str, tuple[Op, ...]] = {"NONE": (), "SOFTMAX": (Softmax(),), "LOGISTIC": (Sigmoid(),)}
    if transform not in activations:
        raise Unsupported(f"post_transform is {transform!r}; expected one of {', '.join(activations)}")
    return dense, *activations[transform]


def _dense(node: OnnxNode, rows: int) -> Gemm:
    """The linear map of a linear model with so many outputs."""
    weight, bias = _numbers(node, "coefficients"), _numbers(node, "intercepts")
    (features,) = node.fact(0).shape if len(node.fact(0).shape) == 1 else (0,)
    if not features or weight.size != rows * features:
        raise Unsupported(
            f"it has {weight.size} coefficients for {rows} outputs of samples {node.fact(0).shape}"
        )
    if bias.size not in (0, rows):
        raise Unsupported(f"it has {bias.size} intercepts for {rows} outputs")
    return Gemm(weight.reshape(rows, features), bias if bias.size else None)


def _numbers(node: OnnxNode, name: str) -> Array:
    """An attribute that lists floating-point numbers, which ONNX keeps in float32."""
    return np.array(node.attributes.get(name, ()), np.float64)
