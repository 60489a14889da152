"""Operators that move, reduce and interpolate: read in every form, held to onnxruntime and to ONNX's reference."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx.reference import ReferenceEvaluator
from onnx_models import Array, evaluate
from shape_forms import FORMS
from small_networks import onnxruntime_forward
from test_ops import check_vjps

import lrpfast
from lrpfast.onnx_io import load_graph

onnxruntime.set_default_logger_severity(4)

NOT_IN_ONNXRUNTIME = onnxruntime.capi.onnxruntime_pybind11_state


def expected(model: onnx.ModelProto, x: Array) -> Array:
    """What onnxruntime computes, or ONNX's reference where onnxruntime has no such form."""
    try:
        return onnxruntime_forward(model, x)
    except (NOT_IN_ONNXRUNTIME.NotImplemented, NOT_IN_ONNXRUNTIME.Fail):
        (y,) = ReferenceEvaluator(model).run(None, {"x": x})
        return y


@pytest.mark.parametrize("name", FORMS)
def test_form(name: str) -> None:
    """The definitions compute what others do; each vjp is that of its forward."""
    form = FORMS[name]
    graph = load_graph(form.model)
    y = evaluate(graph, form.x)
    np.testing.assert_allclose(y, expected(form.model, form.x), rtol=3e-5, atol=3e-5, strict=True)
    check_vjps(graph, form.x.astype(np.float64))


@pytest.mark.parametrize("name", FORMS)
def test_engine(name: str, backend: str) -> None:
    """Backends compute what the definitions say, and the books of relevance close at every node."""
    form = FORMS[name]
    network = lrpfast.load(form.model)
    y = evaluate(network.graph, form.x.astype(np.float64))
    np.testing.assert_allclose(network.predict(form.x, backend=backend), y, rtol=2e-5, atol=2e-5)
    shape = network.output_shape
    r = np.random.default_rng(1).uniform(0.5, 2, (3, *shape))
    explain = lrpfast.Explainer(network, "epsilon_plus", backend=backend, dtype=np.float64)
    assert explain(form.x, np.ones(shape), r).conservation.worst < 1e-11
