"""A real network on real photographs: EfficientNet-Lite0 with its ImageNet weights."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
from networks import HIGH, LOW, PHOTOGRAPHS, class_names, efficientnet_lite0, photograph

import lrpfast

pytestmark = pytest.mark.networks

CLASSES = {
    "chelsea": {"tiger cat", "Egyptian cat", "tabby"},  # a tabby that ImageNet's labels do not agree on
    "coffee": {"espresso"},
    "camera": {"tripod"},
}

# What decides, as boxes (left, top, right, bottom) drawn by hand on the square of 224 pixels: the cat's eyes
# and nose, the cup with spoon, the camera and the tripod's legs.
OBJECTS = {
    "chelsea": [(34, 55, 110, 120), (165, 70, 224, 135), (105, 140, 180, 205)],
    "coffee": [(25, 0, 190, 185)],
    "camera": [(95, 40, 165, 95), (90, 130, 195, 224)],
}


@cache
def explanation(rules: str) -> lrpfast.Explanation:
    box = {"low": LOW, "high": HIGH} if rules == "epsilon_gamma_box" else {}
    network = lrpfast.load(efficientnet_lite0().path)
    x = np.concatenate([photograph(name) for name in PHOTOGRAPHS])
    return lrpfast.explain(network, x, composite=lrpfast.composite(rules, **box))


@pytest.mark.parametrize("name", PHOTOGRAPHS)
def test_the_top_class_is_right(name: str) -> None:
    names = np.array(class_names())
    e = explanation("epsilon_plus_flat")
    i = PHOTOGRAPHS.index(name)
    assert names[e.target[i]] in CLASSES[name]


@pytest.mark.parametrize("rules", ["epsilon_plus_flat", "epsilon_plus", "epsilon_gamma_box"])
@pytest.mark.parametrize("name", PHOTOGRAPHS)
def test_positive_relevance_lies_on_the_object(name: str, rules: str) -> None:
    heat = np.maximum(explanation(rules).relevance[PHOTOGRAPHS.index(name)].sum(axis=0), 0)
    inside = np.zeros(heat.shape, bool)
    for left, top, right, bottom in OBJECTS[name]:
        inside[top:bottom, left:right] = True
    assert heat[inside].mean() > 2.5 * heat[~inside].mean()


@pytest.mark.parametrize("rules", ["epsilon_plus_flat", "epsilon_plus", "epsilon_gamma_box"])
def test_the_ledger_closes(rules: str) -> None:
    assert explanation(rules).conservation.worst < 1e-5
