"""Operators that move, reduce and interpolate: read in every form, held to onnxruntime and to ONNX's reference."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import onnx
import onnxruntime
from onnx.reference import ReferenceEvaluator
from onnx_models import OPSET, Array, evaluate, model_of, node
from small_networks import onnxruntime_forward
from test_ops import check_vjps, normal

import lrpfast
from lrpfast.onnx_io import load_graph

onnxruntime.set_default_logger_severity(4)


class Form(NamedTuple):
    """One node that is to be read; `place` is that of its computed input among the constants."""

    op_type: str
    shape: tuple[int, ...]
    constants: tuple[Any, ...] = ()
    attributes: dict[str, Any] = {}
    opset: int = OPSET
    place: int = 0
    batch: int | str = "n"

    @property
    def model(self) -> onnx.ModelProto:
        named = {f"c{k}": value for k, value in enumerate(self.constants) if value is not None}
        names = ["-" if c is None else f"c{k}" for k, c in enumerate(self.constants)]
        names.insert(self.place, "x")
        made = node(self.op_type, " ".join(names), **self.attributes)
        return model_of([made], (self.batch, *self.shape), named, opset=self.opset)


def expected(model: onnx.ModelProto, x: Array) -> Array:
    """What onnxruntime computes, or ONNX's reference where onnxruntime has no such version."""
    try:
        return onnxruntime_forward(model, x)
    except Exception:
        (y,) = ReferenceEvaluator(model).run(None, {"x": x})
        return y


def check(model: onnx.ModelProto, x: Array, *, exact: bool = False) -> Any:
    """The definitions and the engine compute what others do; each vjp is that of its forward."""
    graph = load_graph(model)
    y = evaluate(graph, x)
    tolerance = 0 if exact else 3e-5
    np.testing.assert_allclose(y, expected(model, x), rtol=tolerance, atol=tolerance, strict=True)
    check_vjps(graph, x.astype(np.float64))
    np.testing.assert_allclose(lrpfast.load(model).predict(x), y, rtol=1e-5, atol=1e-5)
    return graph


def sample(shape: tuple[int, ...]) -> Array:
    return normal(3, *shape, seed=7)
