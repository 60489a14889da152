"""Whole networks against zennit, the field's reference: float64 to rounding, float32 as close as its own."""

from __future__ import annotations

from functools import cache

import lrpfast
import numpy as np
import pytest
from networks import HIGH, LOW, PHOTOGRAPHS, network, photograph
from small_networks import onnxruntime_forward

pytestmark = pytest.mark.networks

NETWORKS = ("vgg11", "vgg16_bn", "resnet18", "resnet50", "mobilenet_v2", "efficientnet_lite0")
COMPOSITES = (
    "epsilon_plus",
    "epsilon_plus_flat",
    "epsilon_alpha2_beta1",
    "epsilon_alpha2_beta1_flat",
    "epsilon_gamma_box",
)


@cache
def loaded(name: str) -> lrpfast.Network:
    return lrpfast.load(network(name).path)


def composite(name: str) -> lrpfast.Composite:
    box = {"low": LOW, "high": HIGH} if name == "epsilon_gamma_box" else {}
    return lrpfast.composite(name, **box)


def distance(a: np.ndarray, b: np.ndarray) -> float:
    """Relative L2 distance."""
    return float(np.linalg.norm(a.astype(np.float64) - b) / np.linalg.norm(b))


@pytest.mark.parametrize("rules", COMPOSITES)
@pytest.mark.parametrize("name", NETWORKS)
def test_heatmaps_are_those_of_zennit(name: str, rules: str) -> None:
    from peers import zennit_relevance

    x = photograph(PHOTOGRAPHS[0])
    net = network(name)
    reference = {
        dtype: zennit_relevance(net.module, x, rules, dtype=dtype, low=LOW, high=HIGH)
        for dtype in (np.float64, np.float32)
    }
    ours = {
        dtype: lrpfast.explain(loaded(name), x, composite=composite(rules), dtype=dtype)
        for dtype in (np.float64, np.float32)
    }
    exact = reference[np.float64]
    assert distance(ours[np.float64].relevance, exact) <= 1e-9
    assert distance(ours[np.float32].relevance, exact) <= max(2 * distance(reference[np.float32], exact), 1e-4)
    assert ours[np.float64].conservation.worst < 1e-11
    assert ours[np.float32].conservation.worst < 1e-5


@pytest.mark.parametrize("name", NETWORKS)
def test_predictions_are_those_of_onnxruntime(name: str) -> None:
    x = np.concatenate([photograph(p) for p in PHOTOGRAPHS])
    theirs = onnxruntime_forward(str(network(name).path), x)
    assert np.abs(loaded(name).predict(x) - theirs).max() <= 1e-4 * np.abs(theirs).max()
    assert (loaded(name).predict(x).argmax(axis=1) == theirs.argmax(axis=1)).all()


@pytest.mark.parametrize("name", NETWORKS)
def test_canonizing_changes_no_more_than_rounding(name: str) -> None:
    assert loaded(name).canonization_error(photograph(PHOTOGRAPHS[1])) < 1e-5
