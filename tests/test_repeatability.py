"""The same bytes whatever runs beside it, in whatever batch; and nothing of the caller's is written to."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from toy_networks import IMAGES, cnn, linear

import lrpfast
from lrpfast import (
    Composite,
    Conv2d,
    CustomRule,
    Explainer,
    Flatten,
    ReLU,
    Selector,
    Sequential,
    explain,
)


@pytest.mark.parametrize(
    "composite", ["epsilon_plus_flat", "epsilon_alpha2_beta1", "gradient", "deep_taylor"]
)
def test_one_explainer_serves_many_threads(composite: str, backend: str) -> None:
    explainer = Explainer(cnn(), composite, backend=backend, record="all")
    alone = [explainer(IMAGES[i : i + 1], target=i % 5) for i in range(6)]
    with ThreadPoolExecutor(8) as pool:
        jobs = [(i, pool.submit(explainer, IMAGES[i : i + 1], i % 5)) for i in list(range(6)) * 5]
        for i, job in jobs:
            explanation = job.result()
            assert explanation.relevance.tobytes() == alone[i].relevance.tobytes()
            assert repr(list(explanation.conservation)) == repr(list(alone[i].conservation))
            for name, layer in explanation.layers.items():
                assert layer.tobytes() == alone[i].layers[name].tobytes()


def test_networks_and_explainers_may_be_first_used_by_many_threads_at_once() -> None:
    network = Sequential(Conv2d(np.ones((2, 1, 3, 3))), ReLU(), Flatten())  # its shape comes with its input
    explainer = Explainer(network, "epsilon_plus")
    x = np.random.default_rng(0).normal(size=(1, 1, 6, 6))
    with ThreadPoolExecutor(8) as pool:
        maps = {job.result().relevance.tobytes() for job in [pool.submit(explainer, x) for _ in range(16)]}
        predictions = {job.result().tobytes() for job in [pool.submit(network.predict, x) for _ in range(16)]}
    assert len(maps) == len(predictions) == 1


@pytest.mark.parametrize("composite", ["epsilon_plus_flat", "epsilon_gamma_box", "epsilon_alpha2_beta1"])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_batch_is_its_samples(composite: str, dtype: Any, backend: str) -> None:
    """To the bit on the native backend, which promises it; to rounding on the others."""
    box = {"low": -6, "high": 6} if "box" in composite else {}
    explainer = Explainer(cnn(), lrpfast.composite(composite, **box), backend=backend, dtype=dtype)
    whole = explainer(IMAGES)
    single = [explainer(IMAGES[i : i + 1]) for i in range(len(IMAGES))]
    together = np.concatenate([one.relevance for one in single])
    outputs = np.concatenate([one.output for one in single])
    if backend == "native":
        assert whole.relevance.tobytes() == together.tobytes()
        assert whole.output.tobytes() == outputs.tobytes()
    else:
        scale = np.abs(together).max(axis=(1, 2, 3), keepdims=True)
        epsilon = np.finfo(dtype).eps
        assert (np.abs(whole.relevance - together) / scale).max() < 1000 * epsilon


def test_the_number_of_threads_changes_nothing(backend: str) -> None:
    maps = {explain(cnn(), IMAGES, backend=backend, threads=n).relevance.tobytes() for n in (1, 2, 3, None)}
    assert len(maps) == 1


def test_layout_and_dtype_of_the_input_change_nothing(backend: str) -> None:
    explainer = Explainer(cnn(), backend=backend)
    expected = explainer(IMAGES).relevance.tobytes()
    channels_last = np.ascontiguousarray(IMAGES.transpose(0, 2, 3, 1)).transpose(0, 3, 1, 2)
    for x in (channels_last, np.repeat(IMAGES, 2, axis=0)[::2], IMAGES.astype(np.float64), IMAGES.tolist()):
        assert explainer(x).relevance.tobytes() == expected
    integers = np.arange(2 * 3 * 11 * 9).reshape(2, 3, 11, 9)
    expected = explainer(integers.astype(np.float32)).relevance.tobytes()
    assert explainer(integers).relevance.tobytes() == expected


def test_nothing_is_written_to_the_network_or_the_input(backend: str) -> None:
    network = cnn()
    before, x = network.hash, IMAGES.copy()
    explainer = Explainer(network, "epsilon_alpha2_beta1", backend=backend, record="all")
    explainer(x)
    network.predict(x, backend=backend)
    network._hash = ""  # so that it is computed again
    assert network.hash == before
    np.testing.assert_array_equal(x, IMAGES)
    for node in network.graph.nodes:
        for name in ("weight", "bias"):
            array = getattr(node.op, name, None)
            assert array is None or not array.flags.writeable


def test_custom_rules_cannot_write_to_what_they_get() -> None:
    def careless(op: Any, inputs: Any, output: Any, r: Any) -> Any:
        inputs[0][:] = 0
        return (inputs[0],)

    composite = Composite("test", ((Selector(), CustomRule(careless)),))
    x = np.ones((1, 4), np.float32)
    with pytest.raises(ValueError, match="read-only"):
        explain(linear(), x, 0, composite)
    np.testing.assert_array_equal(x, 1)


def test_one_explanation_does_not_change_another(backend: str) -> None:
    explainer = Explainer(cnn(), backend=backend, record="all")
    first = explainer(IMAGES[:1])
    copy = first.relevance.copy()
    explainer(IMAGES[1:2])
    np.testing.assert_array_equal(first.relevance, copy)
