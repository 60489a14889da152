"""ONNX's own light models, of opset 9, with seeded weights: prediction, class, ledger, all backends."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from conftest import BACKENDS
from light_models import LIGHT_MODELS, light_model
from small_networks import onnxruntime_forward

import lrpfast

pytestmark = pytest.mark.networks


def test_there_are_nine() -> None:
    assert len(LIGHT_MODELS) == 9


@pytest.mark.parametrize("name", LIGHT_MODELS)
def test_light_model(name: str) -> None:
    model, x = light_model(name)
    theirs = onnxruntime_forward(model, x)
    network = lrpfast.load(model)
    ours = network.predict(x)
    assert np.abs(ours - theirs).max() <= 1e-4 * np.abs(theirs).max()
    assert ours.argmax() == theirs.argmax()
    assert network.canonization_error(x) < 2e-5

    # The relevance of the class, on every backend that is compiled.
    target: Any = None if theirs.size == len(theirs[0]) else theirs == theirs.max()
    assert lrpfast.explain(network, x, target).conservation.worst < 1e-5
    # In float32 a tie of a max-pooling decides over percents of a deep network's heatmap.
    deep = sum(node.op_type == "Conv" for node in model.graph.node) > 20
    dtype, tolerance = (np.float64, 1e-9) if deep else (np.float32, 1e-2)
    maps = [
        lrpfast.explain(network, x, target, backend=backend, dtype=dtype).relevance_of()
        for backend in sorted(set(BACKENDS) - {"numpy"})  # the definition takes minutes here
    ]
    for other in maps[1:]:
        assert np.linalg.norm(other - maps[0]) <= tolerance * np.linalg.norm(maps[0])
