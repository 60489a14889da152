"""Readers of operators of the domain ai.onnx.ml: what surrounds and makes up the models of scikit-learn."""

from __future__ import annotations

import numpy as np

from ..errors import ModelError
from .activation import Sigmoid
from .affine import Affine
from .base import Array, Op
from .gemm import Gemm
from .movement import Identity
from .reading import OnnxNode, Unsupported, reads
from .softmax import Softmax
from .take import taken


@reads("ai.onnx.ml.Scaler")
def _read_scaler(node: OnnxNode) -> Affine:
    scale, offset = (_numbers(node, name) for name in ("scale", "offset"))
    if scale.size != offset.size and 1 not in (scale.size, offset.size):
        raise ModelError(f"it has {scale.size} scales and {offset.size} offsets")
    return Affine(scale, -offset * scale)


@reads("ai.onnx.ml.Imputer")
def _read_imputer(node: OnnxNode) -> Identity:
    if not np.isnan(node.number("replaced_value_float", 0.0)):
        raise Unsupported("it replaces a number; only NaN can be, which no input may hold")
    return Identity()


@reads("ai.onnx.ml.ArrayFeatureExtractor")
def _read_array_feature_extractor(node: OnnxNode) -> Op:
    """Chosen elements of the last axis."""
    shape = node.fact(0).shape
    if not shape:
        raise ModelError("its input has no axis behind the batch")
    places = node.constant(1).reshape(-1)
    if places.dtype.kind not in "iu":
        raise ModelError(f"its indices have dtype {places.dtype}; expected integers")
    if not places.size or places.min() < 0 or places.max() >= shape[-1]:
        shown = places.tolist() if places.size <= 8 else f"from {places.min()} to {places.max()}"
        raise ModelError(f"its indices {shown} are out of range for an axis of {shape[-1]}")
    return taken(shape, len(shape) - 1, places)


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
