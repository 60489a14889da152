"""Plans for blocked arrays, with fusion and without: the same numbers as from plain ones, step by step.

The NumPy kernels take any number of lanes, so a backend that likes 4 or 16 of them is the module with
another number in it.
"""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from cases import LAYERS, RULES, fits, flatten, inputs, relevance
from hypothesis import given, settings
from hypothesis import strategies as st
from small_networks import SMALL_NETWORKS, random_input
from test_plans import composites, networks

import lrpfast
from lrpfast import COMPOSITES, Builder, Composite, Network, Pass, ReLU, Rule, Selector
from lrpfast.backends import numpy_
from lrpfast.composites import assign
from lrpfast.graph import Graph
from lrpfast.lower import lower
from lrpfast.plan import Plan


def with_lanes(lanes: int, **more: Any) -> Any:
    """The NumPy backend, liking another number of lanes."""
    return SimpleNamespace(**{**vars(numpy_), "LANES": lanes, **more})


def explained(plan: Plan, x: np.ndarray, initial: np.ndarray | None = None) -> list[np.ndarray]:
    """All that a run gives; its memory holds NaN before, so that nothing unwritten can be read unnoticed."""
    with plan.workspace(len(x)) as run:
        run.memory[...] = 255
        output = run.forward(x)
        found = [output, *run.vjp(output if initial is None else initial)]
        rows = [(r.r_in, r.r_out, r.bias, r.stabilizer, r.dead) for r in run.settle()]
        return [*found, *run.recorded().values(), np.array(rows)]


def plan_of(graph: Graph, composite: Composite, backend: Any, *, fuse: bool = True) -> Plan:
    return lower(
        graph, assign(composite, graph), backend, np.float64, [n.name for n in graph.nodes], fuse=fuse
    )


def check_same(graph: Graph, composite: Composite, x: np.ndarray, initial: np.ndarray | None = None) -> None:
    """Any lanes, fused or not: the same results."""
    expected = explained(plan_of(graph, composite, with_lanes(1), fuse=False), x, initial)
    for lanes, fuse in ((1, True), (4, False), (4, True), (16, True)):
        got = explained(plan_of(graph, composite, with_lanes(lanes), fuse=fuse), x, initial)
        for one, other in zip(expected, got, strict=True):
            size = np.abs(one).max(initial=0)
            np.testing.assert_allclose(
                other, one, rtol=0, atol=1e-12 * size, err_msg=f"{lanes} lanes, {fuse=}"
            )


@pytest.mark.parametrize("name", COMPOSITES)
@pytest.mark.parametrize("model", SMALL_NETWORKS)
def test_presets_on_small_networks(model: str, name: str) -> None:
    onnx = SMALL_NETWORKS[model]()
    bounds = {"low": -8.0, "high": 8.0} if "box" in name or "bounded" in name else {}
    x = random_input(onnx, samples=2).astype(np.float64)
    check_same(lrpfast.load(onnx).canonized(np.float64).graph, lrpfast.composite(name, **bounds), x)


ONE_INPUT = [
    pytest.param(layer, rule, id=f"{layer}-{rule}")
    for layer, case in LAYERS.items() if len(case.shapes) == 1
    for rule in RULES if fits(case, RULES[rule][0])
]  # fmt: skip


@pytest.mark.parametrize(("layer", "rule"), ONE_INPUT)
def test_every_rule_on_every_layer(layer: str, rule: str) -> None:
    case = LAYERS[layer]
    build = Builder(case.shapes[0])
    network = build.network(build(ReLU(), build(case.op, build.input, name="layer")))
    entries: tuple[tuple[Any, Rule], ...] = ((Selector(name="layer"), RULES[rule][0]), ("activation", Pass()))
    (x,) = inputs(case, 0)
    r = relevance(case.layer, flatten((x,)), 0).reshape(len(x), *network.output_shape)
    check_same(network.graph, Composite("test", entries), x, r)


@settings(max_examples=60)
@given(network=networks(), composite=composites(), seed=st.integers(0, 2**32 - 1))
def test_any_rules_on_any_network(network: Network, composite: Composite, seed: int) -> None:
    x = np.clip(np.random.default_rng(seed).normal(size=(2, 2, 5, 5)), -6, 6)
    check_same(network.canonized(np.float64).graph, composite, x)
