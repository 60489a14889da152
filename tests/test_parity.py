"""Whole networks against zennit, the field's reference: float64 to rounding, float32 as close as its own."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import pytest
from conftest import BACKENDS
from heatmaps import distance
from networks import HIGH, LOW, PHOTOGRAPHS, network, photograph
from small_networks import onnxruntime_forward

import lrpfast

pytestmark = pytest.mark.networks

NETWORKS = ("vgg11_bn", "vgg16_bn", "resnet18", "resnet50", "mobilenet_v2", "efficientnet_lite0")
COMPOSITES = (
    "epsilon_plus",
    "epsilon_plus_flat",
    "epsilon_alpha2_beta1",
    "epsilon_alpha2_beta1_flat",
    "epsilon_gamma_box",
)

# What is left out has no rule that is not compared on such layers elsewhere: ZPlus, Gamma and those of the first layer
# (flat, box) on AlexNet and wider ResNets in test_architectures.py, all presets on the other networks here.
FEWER = {
    "vgg11_bn": ("epsilon_alpha2_beta1",),
    "vgg16_bn": ("epsilon_gamma_box",),
    "resnet50": ("epsilon_plus", "epsilon_alpha2_beta1"),
}
CASES = [(name, rules) for name in NETWORKS for rules in FEWER.get(name, COMPOSITES)]


@lru_cache(maxsize=1)
def loaded(name: str) -> lrpfast.Network:
    return lrpfast.load(network(name).path)


def composite(name: str) -> lrpfast.Composite:
    box = {"low": LOW, "high": HIGH} if name == "epsilon_gamma_box" else {}
    return lrpfast.composite(name, **box)


def zennit(name: str, rules: str, photo: str, dtype: type = np.float64) -> np.ndarray:
    """Zennit's heatmap."""
    from peers import zennit_relevance

    return zennit_relevance(network(name).module, photograph(photo), rules, dtype=dtype, low=LOW, high=HIGH)


def heatmap(name: str, rules: str, photo: str, dtype: type = np.float64) -> np.ndarray:
    """Ours."""
    explanation = lrpfast.explain(loaded(name), photograph(photo), composite=composite(rules), dtype=dtype)
    assert explanation.conservation.worst < (1e-11 if dtype is np.float64 else 1e-5)
    return explanation.relevance


@pytest.mark.parametrize(("name", "rules"), CASES)
def test_heatmaps_are_those_of_zennit(name: str, rules: str) -> None:
    first, *others = PHOTOGRAPHS[1], PHOTOGRAPHS[0], PHOTOGRAPHS[2]
    exact = zennit(name, rules, first)
    assert distance(heatmap(name, rules, first), exact) <= 1e-9

    # Where two candidates of a max-pooling, or the two sides of a residual sum that cancels, differ by less
    # than float32's last bit, rounding decides which pixel gets the relevance: 1e-4 to 1e-3 of the whole
    # heatmap hang on one such tie, in any implementation. So one photograph without any has to be found.
    def is_as_close(photo: str, exact: np.ndarray) -> bool:
        ours = distance(heatmap(name, rules, photo, np.float32), exact)
        assert ours < 1e-2
        return ours <= 1e-4 or ours <= 2 * distance(zennit(name, rules, photo, np.float32), exact)

    assert is_as_close(first, exact) or any(is_as_close(p, zennit(name, rules, p)) for p in others)


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
