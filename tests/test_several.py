"""Several explanations from one forward pass: of targets, and under composites."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from conftest import BACKENDS
from hypothesis import given, settings
from test_plans import composites, networks, seeds
from toy_networks import IMAGES, X, cnn, mlp

import lrpfast
from lrpfast import COMPOSITES, Composite, Explainer, Explanation, InputError, Network
from lrpfast.steps import Step

TARGETS: list[Any] = [None, 2, [0, 1, 2, 3, 4, -1], np.linspace(-1, 1, 5), 2]
BOX = {"low": -6, "high": 6}


def preset(name: str) -> Composite:
    return lrpfast.composite(name, **(BOX if "box" in name or "bounded" in name else {}))


def assert_close(one: Explanation, other: Explanation, dtype: Any) -> None:
    """Equal but for rounding."""
    tolerance = 1e-6 if dtype == np.float32 else 1e-12
    assert one.layers.keys() == other.layers.keys()
    pairs = [(one.relevance, other.relevance), (one.output, other.output)]
    pairs += [(one.layers[name], other.layers[name]) for name in one.layers]
    for a, b in pairs:
        assert a.shape == b.shape and a.dtype == b.dtype == dtype
        np.testing.assert_allclose(a, b, rtol=0, atol=tolerance * (np.abs(b).max() or 1))
    np.testing.assert_array_equal(one.target, other.target)
    assert one.manifest == other.manifest
    assert one.conservation.worst < 20 * tolerance
    for row, expected in zip(one.conservation, other.conservation, strict=True):
        assert (row.node, row.rule) == (expected.node, expected.rule)
        scale = max(abs(expected.r_in), abs(other.conservation[0].r_in), 1)
        assert row.r_out == pytest.approx(expected.r_out, abs=1000 * tolerance * scale)


# --- several targets ---


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("name", COMPOSITES)
def test_several_targets_are_single_ones(name: str, dtype: Any, backend: str) -> None:
    explainer = Explainer(cnn(), preset(name), backend=backend, dtype=dtype, record="all")
    found = explainer.several(IMAGES, TARGETS)
    assert len(found) == len(TARGETS)
    for explanation, target in zip(found, TARGETS, strict=True):
        assert_close(explanation, explainer(IMAGES, target), dtype)
    assert found[1].relevance.tobytes() == found[4].relevance.tobytes()  # nothing is left of what was between


@settings(max_examples=60)
@given(network=networks(), composite=composites(), seed=seeds)
def test_several_targets_on_any_network(network: Network, composite: Composite, seed: int) -> None:
    x = np.clip(np.random.default_rng(seed).normal(size=(2, 2, 5, 5)), -6, 6)
    for backend in BACKENDS:
        options: dict[str, Any] = {"dtype": np.float64, "record": "all", "on_blowup": "ignore"}
        explainer = Explainer(network, composite, backend=backend, **options)
        for found, target in zip(explainer.several(x, [0, 1, 0]), [0, 1, 0], strict=True):
            single = explainer(x, target)
            names = [*single.layers]
            pairs = [(found.relevance, single.relevance)]
            pairs += [(found.layers[name], single.layers[name]) for name in names]
            for a, b in pairs:
                scale = max(np.abs(b).max(), np.abs(single.output).max(), 1)
                np.testing.assert_allclose(a, b, rtol=0, atol=1e-8 * scale)


def test_init_and_limits_hold_for_all_targets(backend: str) -> None:
    explainer = Explainer(cnn(), "epsilon_plus", backend=backend)
    whole = explainer.several(IMAGES, [0, 1], "one", threads=1)
    for explanation, target in zip(whole, [0, 1], strict=True):
        assert_close(explanation, explainer(IMAGES, target, "one"), np.float32)
    kept = explainer._prepared(explainer.network, keep=True).plan
    assert kept.bytes_per_sample >= explainer.memory_per_sample
    some = explainer.several(IMAGES, iter([0, 1]), "one", max_memory=kept.nbytes(4))
    for one, other in zip(some, whole, strict=True):
        assert_close(one, other, np.float32)
    with pytest.raises(InputError, match="max_memory is 1000 bytes, but one sample takes"):
        explainer.several(IMAGES, [0, 1], max_memory=1000)


def test_the_forward_pass_runs_once(monkeypatch: pytest.MonkeyPatch) -> None:
    explainer = Explainer(cnn(), "epsilon_plus", backend="numpy")
    found: list[str] = []
    for name in ("conv_forward", "conv_vjp", "divide"):
        kernel = getattr(explainer.backend, name)

        def counted(*args: Any, name: str = name, kernel: Any = kernel, **more: Any) -> None:
            found.append(name)
            kernel(*args, **more)

        monkeypatch.setattr(explainer.backend, name, counted)
    explainer.several(IMAGES, [0])
    once = {name: found.count(name) for name in set(found)}
    found.clear()
    explainer.several(IMAGES, [0, 1, 2])
    assert {name: found.count(name) for name in once} == {
        name: times * (1 if name.endswith("forward") else 3) for name, times in once.items()
    }


def test_the_plan_for_several_is_made_when_it_is_wanted() -> None:
    explainer = Explainer(mlp())
    explainer(X)
    assert [keep for _, keep in explainer._made] == [False]
    explainer.several(X, [0])
    assert [keep for _, keep in explainer._made] == [False, True]


@pytest.mark.parametrize("name", COMPOSITES)
def test_no_step_back_could_have_been_done_before(name: str) -> None:
    plan = Explainer(cnn(), preset(name))._prepared(cnn(), keep=True).plan
    (back,) = plan.backs
    reached = {back.initial.array}

    def is_reached(step: Step) -> bool:
        return not reached.isdisjoint(step.reads())

    for step in plan.vjp:
        assert is_reached(step) or step.label() == "sums"
        reached.update(step.writes())
    assert not any(is_reached(step) for step in plan.forward)


def test_many_threads_explain_several_targets() -> None:
    explainer = Explainer(cnn())
    with ThreadPoolExecutor(4) as pool:
        jobs = [pool.submit(explainer.several, IMAGES[:2], [0, 1]) for _ in range(8)]
        maps = [tuple(e.relevance.tobytes() for e in job.result()) for job in jobs]
    assert len(set(maps)) == 1


@pytest.mark.parametrize("targets", [(), [], "cat", 3, None])
def test_there_have_to_be_targets(targets: Any) -> None:
    with pytest.raises(InputError, match=r"targets is .*expected one or more targets, such as"):
        Explainer(mlp()).several(X, targets)


def test_each_target_is_checked_before_anything_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    explainer = Explainer(mlp(), backend="numpy")
    explainer.several(X, [0])
    monkeypatch.setattr(explainer.backend, "gemm_forward", None)
    with pytest.raises(InputError, match="target is 7; the network has 3 outputs"):
        explainer.several(X, [0, 7])
    with pytest.raises(InputError, match="threads is 0"):
        explainer.several(X, [0], threads=0)


def test_a_network_without_a_shape_explains_several_targets() -> None:
    network = lrpfast.Sequential(lrpfast.Conv2d(np.ones((2, 1, 3, 3))), lrpfast.Flatten())
    explainer = Explainer(network)
    for size in (5, 6):
        found = explainer.several(np.ones((2, 1, size, size)), [0, 1])
        assert [e.relevance.shape for e in found] == [(2, 1, size, size)] * 2


# --- several composites ---


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_composites_are_compared(dtype: Any, backend: str) -> None:
    chosen = [preset(name) for name in COMPOSITES]
    found = lrpfast.compare(cnn(), IMAGES, chosen, 1, backend=backend, dtype=dtype, record="all", threads=2)
    for composite, explanation in zip(chosen, found, strict=True):
        single = Explainer(cnn(), composite, backend=backend, dtype=dtype, record="all")(IMAGES, 1)
        assert_close(explanation, single, dtype)
    assert [e.manifest["init"] for e in found] == [c.init for c in chosen]
    assert all(e.output is found[0].output for e in found)


def test_compared_in_pieces_too() -> None:
    names = ["epsilon_plus", "gradient", "epsilon_plus"]
    whole = lrpfast.compare(cnn(), IMAGES, names, init="one")
    pieces = lrpfast.compare(cnn(), IMAGES, names, init="one", max_memory="100kB")
    for one, other in zip(pieces, whole, strict=True):
        assert_close(one, other, np.float32)
    assert whole[0].relevance.tobytes() == whole[2].relevance.tobytes()


@settings(max_examples=40)
@given(network=networks(), one=composites(), other=composites(), seed=seeds)
def test_any_composites_are_compared(network: Network, one: Composite, other: Composite, seed: int) -> None:
    x = np.clip(np.random.default_rng(seed).normal(size=(2, 2, 5, 5)), -6, 6)
    for backend in BACKENDS:
        options: dict[str, Any] = {"dtype": np.float64, "record": "all", "on_blowup": "ignore"}
        options["backend"] = backend
        found = lrpfast.compare(network, x, [one, other, one], 1, **options)
        for explanation, composite in zip(found, (one, other, one), strict=True):
            single = Explainer(network, composite, **options)(x, 1)
            pairs = [(explanation.relevance, single.relevance)]
            pairs += [(explanation.layers[name], single.layers[name]) for name in single.layers]
            for a, b in pairs:
                scale = max(np.abs(b).max(), np.abs(single.output).max(), 1)
                np.testing.assert_allclose(a, b, rtol=0, atol=1e-8 * scale)


@pytest.mark.parametrize("composites", [(), [], "epsilon_plus", None])
def test_there_have_to_be_composites(composites: Any) -> None:
    with pytest.raises(InputError, match=r"composites is .*expected one or more, such as"):
        lrpfast.compare(mlp(), X, composites)


def test_mistakes_in_comparisons() -> None:
    with pytest.raises(lrpfast.CompositeError, match="unknown composite 'epsilon'"):
        lrpfast.compare(mlp(), X, ["epsilon_plus", "epsilon"])
    for wrong in (
        {"threads": 0},
        {"dtype": np.int8},
        {"max_memory": "much"},
        {"record": "conv*"},
        {"target": 9},
    ):
        with pytest.raises(InputError, match=next(iter(wrong))):
            lrpfast.compare(mlp(), X, ["epsilon_plus"], **wrong)
