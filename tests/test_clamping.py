"""Arrays that their readers clamp: which they are, and that nothing else changes."""

from __future__ import annotations

import numpy as np
import pytest
from test_layouts import check_same, plan_of, with_lanes

import lrpfast
from lrpfast import Add, Builder, Conv2d, Network, ReLU, ReLU6
from lrpfast.ops.base import Op
from lrpfast.plan import Plan
from lrpfast.steps import KernelCall

NOTE = "clamped by its readers"


def network(clamp: Op, also_read: bool = False, seed: int = 0) -> Network:
    """1×1, clamp, depthwise, clamp, 1×1, as in MobileNetV2; `also_read`: a sum reads the first clamp's output, too."""
    rng = np.random.default_rng(seed)
    build = Builder((3, 7, 6))
    wide = build(Conv2d(rng.normal(0, 3, (5, 3, 1, 1)), rng.normal(size=5)), build.input, name="wide")
    clamped = build(clamp, wide, name="clamped")
    deep = build(
        Conv2d(rng.normal(size=(5, 1, 3, 3)), rng.normal(size=5), padding=1, groups=5), clamped, name="deep"
    )
    after = build(ReLU(), deep, name="after")
    if also_read:
        after = build(Add(), after, clamped, name="sum")
    return build.network(build(Conv2d(rng.normal(size=(2, 5, 7, 6))), after, name="last"))


def plan(net: Network, composite: str = "epsilon_plus") -> Plan:
    return plan_of(net.graph, lrpfast.composite(composite), with_lanes(1))


def clamped(some: Plan) -> list[str]:
    """The nodes of which no output behind their clamp is kept."""
    return [step.node for step in some.forward if isinstance(step, KernelCall) and NOTE in step.form]


@pytest.mark.parametrize("clamp", [ReLU(), ReLU6()], ids=["relu", "relu6"])
def test_only_the_unclamped_array_is_kept(clamp: Op) -> None:
    some = plan(network(clamp))
    assert clamped(some) == ["wide"]
    arrays = {view.array for step in (*some.forward, *some.vjp) for view in (*step.inputs(), *step.outputs())}
    assert "wide" in arrays and "clamped" not in arrays


def test_not_where_somebody_reads_it_who_cannot_clamp() -> None:
    assert clamped(plan(network(ReLU6(), also_read=True))) == []


def test_not_where_nobody_needs_the_unclamped_array() -> None:
    assert clamped(plan(network(ReLU6()), "gradient")) == []


@pytest.mark.parametrize("composite", ["epsilon_plus", "epsilon_alpha2_beta1", "gradient"])
@pytest.mark.parametrize("also_read", [False, True])
@pytest.mark.parametrize("clamp", [ReLU(), ReLU6()], ids=["relu", "relu6"])
def test_results_are_those_of_plain_steps(clamp: Op, also_read: bool, composite: str) -> None:
    net = network(clamp, also_read)
    x = np.random.default_rng(1).normal(0, 2, (2, 3, 7, 6))
    wide = np.einsum("oi,nihw->nohw", net.graph.nodes[0].op.weight[:, :, 0, 0], x)
    assert (wide < 0).any() and (wide > 6).any()  # both ends of the clamp count
    check_same(net.graph, lrpfast.composite(composite), x)
