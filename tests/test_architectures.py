"""torchvision's architectures, each exported by torch: prediction, ledger, zennit's heatmaps, Numba's."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache

import numpy as np
import pytest
from architectures import ARCHITECTURES, Architecture, architecture
from conftest import BACKENDS
from heatmaps import distance
from networks import HIGH, LOW
from small_networks import onnxruntime_forward

import lrpfast

pytestmark = pytest.mark.networks

COMPOSITES = ("epsilon_plus_flat", "epsilon_gamma_box")


@pytest.fixture(params=ARCHITECTURES, scope="module")
def net(request: pytest.FixtureRequest) -> Iterator[Architecture]:
    """One network for all tests of it, and nothing of it in memory after them."""
    yield architecture(request.param)
    for kept in (loaded, explained):
        kept.cache_clear()


@cache
def loaded(net: Architecture) -> lrpfast.Network:
    return lrpfast.load(net.path)


@cache
def explained(net: Architecture, rules: str, dtype: type, backend: str | None = None) -> lrpfast.Explanation:
    """Of the second picture."""
    box = {"low": LOW, "high": HIGH} if rules == "epsilon_gamma_box" else {}
    composite = lrpfast.composite(rules, **box)
    x = net.pictures(2)[1:]
    return lrpfast.explain(loaded(net), x, composite=composite, dtype=dtype, backend=backend)


def test_predictions_are_those_of_onnxruntime(net: Architecture) -> None:
    x = net.pictures(3)
    theirs = onnxruntime_forward(str(net.path), x)
    assert np.ptp(theirs, axis=0).max() > 0.1 * np.abs(theirs).max()  # the network tells pictures apart
    ours = loaded(net).predict(x)
    assert np.abs(ours - theirs).max() <= 1e-4 * np.abs(theirs).max()
    # Found patterns have the exact constants of a GELU, which files hold in float32.
    assert loaded(net).canonization_error(x, dtype=np.float64) < (1e-8 if "convnext" in net.name else 1e-12)
    assert (ours.argmax(axis=1) == theirs.argmax(axis=1)).all()


@pytest.mark.parametrize("rules", COMPOSITES)
def test_every_bit_of_relevance_is_accounted_for(net: Architecture, rules: str) -> None:
    assert explained(net, rules, np.float64).conservation.worst < 1e-11
    assert explained(net, rules, np.float32).conservation.worst < 1e-5


@pytest.mark.parametrize("rules", COMPOSITES)
def test_heatmaps_are_those_of_zennit(net: Architecture, rules: str) -> None:
    from peers import zennit_relevance
    from traced import traced

    x = net.pictures(2)[1:]
    bounds = {"low": LOW, "high": HIGH, "prepare": traced}
    exact = zennit_relevance(net.module, x, rules, **bounds)
    assert distance(explained(net, rules, np.float64).relevance_of(), exact) <= 1e-9
    ours = distance(explained(net, rules, np.float32).relevance_of(), exact)
    if ours > 1e-4:
        theirs = zennit_relevance(net.module, x, rules, dtype=np.float32, **bounds)
        assert ours <= 2 * distance(theirs, exact)


@pytest.mark.skipif("numba" not in BACKENDS, reason="only where the suite runs on Numba")
def test_numba_agrees(net: Architecture) -> None:
    exact = explained(net, COMPOSITES[0], np.float64).relevance_of()
    found = explained(net, COMPOSITES[0], np.float64, "numba")
    assert distance(found.relevance_of(), exact) <= 1e-9
    assert explained(net, COMPOSITES[0], np.float32, "numba").conservation.worst < 1e-5
