"""Whole networks against zennit, the field's reference: float64 to rounding, float32 as close as its own."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
from conftest import BACKENDS
from heatmaps import distance
from networks import HIGH, LOW, PHOTOGRAPHS, network, photograph
from small_networks import onnxruntime_forward

import lrpfast

pytestmark = pytest.mark.networks

NETWORKS = ("vgg11", "vgg16_bn", "resnet18", "resnet50", "mobilenet_v2", "efficientnet_lite0")
COMPOSITES = (
    "epsilon_plus",
    "epsilon_plus_flat",
    "epsilon_alpha2_beta1",
    "epsilon_alpha2_beta1_flat",
    "epsilon_gamma_box",
)

# VGG-16 takes as long as all others together, and has no operator that VGG-11 and the ResNets have not.
CASES = [
    (name, rules) for name in NETWORKS for rules in COMPOSITES
    if name != "vgg16_bn" or rules == "epsilon_gamma_box"
]  # fmt: skip


@cache
def loaded(name: str) -> lrpfast.Network:
    return lrpfast.load(network(name).path)


def composite(name: str) -> lrpfast.Composite:
    box = {"low": LOW, "high": HIGH} if name == "epsilon_gamma_box" else {}
    return lrpfast.composite(name, **box)


@cache
def heatmaps(name: str, rules: str, photo: str, dtype: type) -> tuple[np.ndarray, np.ndarray]:
    """Zennit's and ours."""
    from peers import zennit_relevance

    x = photograph(photo)
    theirs = zennit_relevance(network(name).module, x, rules, dtype=dtype, low=LOW, high=HIGH)
    explanation = lrpfast.explain(loaded(name), x, composite=composite(rules), dtype=dtype)
    assert explanation.conservation.worst < (1e-11 if dtype is np.float64 else 1e-5)
    return theirs, explanation.relevance


@pytest.mark.parametrize(("name", "rules"), CASES)
def test_float64_heatmaps_are_those_of_zennit(name: str, rules: str) -> None:
    theirs, ours = heatmaps(name, rules, PHOTOGRAPHS[1], np.float64)
    assert distance(ours, theirs) <= 1e-9


@pytest.mark.parametrize(("name", "rules"), CASES)
def test_float32_heatmaps_are_as_close_as_those_of_zennit(name: str, rules: str) -> None:
    # Where two candidates of a max-pooling, or the two sides of a residual sum that cancels, differ by less
    # than float32's last bit, rounding decides which pixel gets the relevance: 1e-4 to 1e-3 of the whole
    # heatmap hang on one such tie, in any implementation. So one photograph without any has to be found.
    def distances(photo: str) -> tuple[float, float]:
        exact, _ = heatmaps(name, rules, photo, np.float64)
        theirs, ours = heatmaps(name, rules, photo, np.float32)
        assert distance(ours, exact) < 1e-2
        return distance(ours, exact), distance(theirs, exact)

    order = (PHOTOGRAPHS[1], PHOTOGRAPHS[0], PHOTOGRAPHS[2])
    assert any(ours <= max(2 * theirs, 1e-4) for ours, theirs in map(distances, order))


@pytest.mark.parametrize("name", NETWORKS)
def test_predictions_are_those_of_onnxruntime(name: str) -> None:
    x = np.concatenate([photograph(p) for p in PHOTOGRAPHS])
    theirs = onnxruntime_forward(str(network(name).path), x)
    assert np.abs(loaded(name).predict(x) - theirs).max() <= 1e-4 * np.abs(theirs).max()
    assert (loaded(name).predict(x).argmax(axis=1) == theirs.argmax(axis=1)).all()


@pytest.mark.skipif("numba" not in BACKENDS, reason="only where the suite runs on Numba")
@pytest.mark.parametrize("name", [name for name in NETWORKS if name != "vgg16_bn"])
def test_numba_agrees(name: str) -> None:
    x, options = photograph(PHOTOGRAPHS[1]), {"dtype": np.float64, "composite": "epsilon_plus_flat"}
    ours = lrpfast.explain(loaded(name), x, **options).relevance_of()
    assert distance(lrpfast.explain(loaded(name), x, backend="numba", **options).relevance_of(), ours) <= 1e-9


@pytest.mark.parametrize("name", NETWORKS)
def test_canonizing_changes_no_more_than_rounding(name: str) -> None:
    x = photograph(PHOTOGRAPHS[1])
    assert loaded(name).canonization_error(x, dtype=np.float64) < 1e-12
    # In float32 both networks round, each some 1e-5 of the largest output at most.
    assert loaded(name).canonization_error(x) < 2e-5
