"""Numbers at the ends of what floats can hold: reported by name, or computed and accounted for; nothing silent."""

from __future__ import annotations

import inspect
import math
import threading
import time
from typing import Any

import numpy as np
import onnx
import pytest
from conftest import BACKENDS
from onnx_models import model_of, node
from toy_networks import IMAGES, cnn, mlp

import lrpfast
from lrpfast import (
    COMPOSITES,
    Conv2d,
    Dense,
    Explainer,
    Flatten,
    InputError,
    ModelError,
    NonFiniteError,
    ReLU,
    Sequential,
)
from lrpfast.ops import Sigmoid, Softmax

BAD = [math.nan, math.inf, -math.inf]
RNG = np.random.default_rng(21)
W1, W2 = RNG.normal(size=(16, 8, 3, 3)) / 8, RNG.normal(size=(5, 16 * 36)) / 24


def unbiased() -> lrpfast.Network:
    """Without biases: f(0) = 0, and f(s · x) = s · f(x) for s ≥ 0."""
    return Sequential(Conv2d(W1, padding=1), ReLU(), Flatten(), Dense(W2), input_shape=(8, 6, 6))


def preset(name: str) -> lrpfast.Composite:
    bounded = {"low", "high"} <= inspect.signature(COMPOSITES[name]).parameters.keys()
    return lrpfast.composite(name, **({"low": -8.0, "high": 8.0} if bounded else {}))


# --- not finite ---


@pytest.mark.parametrize("bad", BAD)
def test_inputs_are_refused_by_name_and_place(bad: float, monkeypatch: pytest.MonkeyPatch) -> None:
    explainer = Explainer(cnn())
    x = IMAGES.copy()
    x[2, 1, 7, 3] = bad
    monkeypatch.setattr(explainer._prepared(explainer.network).plan.__class__, "take", None)  # nothing runs
    for call in (explainer, explainer.network.predict):
        with pytest.raises(
            NonFiniteError, match=rf"x holds {bad} at index \(2, 1, 7, 3\) \(1 such values in all\)"
        ):
            call(x)


@pytest.mark.parametrize("bad", BAD)
def test_one_of_several_inputs_is_named(bad: float) -> None:
    model = model_of([node("Add", "x right")], ["n", 3])
    model.graph.input.append(onnx.helper.make_tensor_value_info("right", onnx.TensorProto.FLOAT, ["n", 3]))
    network = lrpfast.load(model)
    good, wrong = np.ones((1, 3), np.float32), np.array([[1, bad, 2]], np.float32)
    with pytest.raises(NonFiniteError, match=rf"x\['right'\] holds {bad} at index \(0, 1\)"):
        lrpfast.explain(network, {"x": good, "right": wrong})


@pytest.mark.parametrize("bad", BAD)
def test_weights_are_refused_by_name(bad: float, tmp_path: Any) -> None:
    weight = np.ones((4, 3), np.float32)
    weight[1, 2] = bad
    path = tmp_path / "model.onnx"
    onnx.save(model_of([node("MatMul", "x w", name="dense")], ["n", 4], {"w": weight}), path)
    with pytest.raises(ModelError, match=r"tensor 'w'.*holds NaN or infinity in 1 of 12"):
        lrpfast.load(path)
    with pytest.raises(ModelError, match=r"weight .*NaN or infinity in 1 of 12"):
        Dense(weight)


@pytest.mark.parametrize("bad", BAD)
def test_targets_and_initial_relevance(bad: float) -> None:
    explainer, x = Explainer(mlp()), np.ones((2, 4))
    with pytest.raises(InputError, match="target holds NaN or infinity"):
        explainer(x, [0.0, bad, 1.0])
    with pytest.raises(InputError, match="init holds NaN or infinity"):
        explainer(x, 0, [1.0, bad])


# --- zero ---


@pytest.mark.parametrize("init", ["logit", "one"])
@pytest.mark.parametrize("name", COMPOSITES)
def test_inputs_of_zeros(name: str, init: str, backend: str) -> None:
    """Biases speak, and the ledger says what they took."""
    explanation = Explainer(cnn(), preset(name), backend=backend, on_blowup="ignore")(
        np.zeros_like(IMAGES), 1, init
    )
    assert np.isfinite(explanation.relevance).all()
    assert explanation.conservation.worst < 1e-5


@pytest.mark.parametrize("name", COMPOSITES)
def test_a_network_that_says_nothing(name: str, backend: str) -> None:
    """f(0) = 0: no relevance begins with the output; what is begun with 1 is dead at once."""
    explainer = Explainer(unbiased(), preset(name), backend=backend, on_blowup="ignore")
    x = np.zeros((2, 8, 6, 6), np.float32)
    silent, forced = explainer(x, 1), explainer(x, 1, "one")
    np.testing.assert_array_equal(silent.output, 0)
    if explainer.composite.init == "logit":
        np.testing.assert_array_equal(silent.relevance, 0)
    for explanation in (silent, forced):
        assert np.isfinite(explanation.relevance).all()
        assert explanation.conservation.worst < 1e-9
    if name.startswith("epsilon"):
        (dense,) = (row for row in forced.conservation if row.node.startswith("Gemm"))
        assert (dense.r_in, dense.r_out, dense.dead + dense.stabilizer) == (2.0, 0.0, 2.0)


def test_a_logit_of_zero(backend: str) -> None:
    """Inputs speak for and against, and cancel."""
    network = Sequential(Dense(np.array([[1.0, -1.0], [1.0, 0.0]])))
    x = np.array([[3.0, 3.0]])
    for init, arrives in (("logit", 0.0), ("one", 1.0)):
        explanation = Explainer(network, "epsilon_plus", backend=backend)(x, 0, init)
        (row,) = explanation.conservation
        assert (row.r_in, explanation.relevance.sum()) == (arrives, 0.0)
        assert row.r_in == row.r_out + row.dead + row.stabilizer


# --- saturated ---


@pytest.mark.parametrize("name", ["epsilon_plus", "gradient"])
@pytest.mark.parametrize("head", [Softmax(), Sigmoid()], ids=["softmax", "sigmoid"])
def test_outputs_that_are_one(head: Any, name: str, backend: str) -> None:
    """The score before the head is explained, which is as far from flat as ever."""
    w = np.array([[60.0, 50.0], [-70.0, -50.0]])
    x = np.array([[1.0, 2.0]])
    explainer = Explainer(Sequential(Dense(w), head), name, backend=backend)
    explanation = explainer(x, 0)
    np.testing.assert_array_equal(explanation.probabilities, [[1.0, 0.0]])
    expected = w[:1] if name == "gradient" else x * w[:1] * 160 / (160 + 1e-6)
    np.testing.assert_allclose(explanation.relevance, expected, rtol=1e-5)
    sure = explainer(x, 0, "probability")
    assert sure.relevance.sum() == pytest.approx(110 if name == "gradient" else 1, rel=1e-5)
    least = explainer(x, 1, "probability")
    np.testing.assert_array_equal(least.relevance, 0)
    assert max(e.conservation.worst for e in (explanation, sure, least)) < 1e-6


@pytest.mark.parametrize("name", COMPOSITES)
def test_saturated_functions_inside(name: str, backend: str) -> None:
    """A Sigmoid whose values are all 0 or 1 to the last bit."""
    w = np.array([[400.0, 300.0], [-400.0, -300.0], [350.0, 10.0]])
    network = Sequential(
        Dense(w), lrpfast.Sigmoid(), Dense(np.array([[1.0, 2.0, -3.0], [0.5, 0.5, 1.0]])), input_shape=(2,)
    )
    explanation = Explainer(network, preset(name), backend=backend, on_blowup="ignore")(
        np.array([[1.0, 2.0]]), 1
    )
    np.testing.assert_array_equal(explanation.output, [[-2.0, 1.5]])
    assert np.isfinite(explanation.relevance).all()
    assert explanation.conservation.worst < 1e-6


# --- denormals ---


@pytest.mark.parametrize("factor", [1e-38, 1e-40, 1e-43])
def test_denormals_are_numbers(factor: float, backend: str) -> None:
    """The network is homogeneous: outputs shrink with the input, and gradients stay."""
    x = RNG.normal(size=(3, 8, 6, 6)).astype(np.float32)
    tiny = (x * np.float32(factor)).astype(np.float32)
    explainer = Explainer(unbiased(), "gradient", backend=backend)
    reference = Explainer(unbiased(), "gradient", backend="numpy", dtype=np.float64)(tiny, 2, "one")
    found = explainer(tiny, 2, "one")
    step = float(np.finfo(np.float32).smallest_subnormal)
    np.testing.assert_allclose(found.output, reference.output, rtol=1e-5, atol=400 * step)
    assert np.any(found.output != 0)
    if factor > 1e-41:  # below, some sums have lost their sign, and ReLUs their side
        scale = np.abs(reference.relevance).max()
        np.testing.assert_allclose(found.relevance, reference.relevance, atol=1e-5 * scale)
    plus = Explainer(unbiased(), "epsilon_plus", backend=backend)(tiny, 2, "one")
    assert plus.conservation.worst < 1e-6
    assert sum(row.stabilizer + row.dead for row in plus.conservation) == pytest.approx(3, rel=1e-3)


@pytest.mark.parametrize("name", ["epsilon_plus", "epsilon_alpha2_beta1"])
def test_denormals_are_not_slow(name: str, backend: str) -> None:
    """Within a wide margin: on some processors each takes a hundred cycles."""
    explainer = Explainer(unbiased(), name, backend=backend, threads=1, on_blowup="ignore")
    x = RNG.normal(size=(16, 8, 6, 6)).astype(np.float32)

    def seconds(x: Any) -> float:
        times = []
        for _ in range(5):
            start = time.perf_counter()
            explainer(x, 0, "one")
            times.append(time.perf_counter() - start)
        return min(times)

    assert seconds(x * np.float32(1e-39)) < 100 * seconds(x)


@pytest.mark.parametrize("name", BACKENDS)
def test_the_callers_arithmetic_stays_as_it_is(name: str) -> None:
    """No thread flushes denormals to zero, or traps, after it has explained something."""
    tiny, half = np.array([1e-44], np.float32), np.float32(0.5)
    found: list[Any] = []

    def work() -> None:
        before = (tiny * half).tobytes()
        errors = np.geterr()
        Explainer(cnn(), backend=name, threads=2)(IMAGES)
        found.append((before, (tiny * half).tobytes(), errors == np.geterr()))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    work()
    for before, after, same in found:
        assert before == after != np.zeros(1, np.float32).tobytes() and same
