"""Trained networks of several kinds: predictions, ledgers, and what decides.

The flip tests ask whether relevance means anything: scores must fall faster when the most relevant inputs are
removed than when as many others are (flipping.py).
"""

from __future__ import annotations

from collections import defaultdict
from functools import cache

import numpy as np
import onnx
import pytest
from flipping import Flips, blocks, flips, mean, probability
from networks import efficientnet_lite0
from numpy.lib.stride_tricks import sliding_window_view
from onnx import numpy_helper
from real_networks import digits_mlp
from small_networks import onnxruntime_forward
from text_networks import LENGTH, LIBRARIES, PAD, UNKNOWN, text_cnn

import lrpfast
from lrpfast import Composite, Epsilon, Pass

pytestmark = pytest.mark.networks


def assert_relevant_inputs_count(found: Flips, times: float = 1.3) -> None:
    assert found.fall > times * found.random_fall
    assert (found.relevant[1:] < found.random[1:]).mean() > 0.8


# --- scikit-learn's MLP on digits ---


def test_mlp_of_scikit_learn_reads_digits() -> None:
    mlp = digits_mlp()
    network = lrpfast.load(mlp.model, output="probabilities")
    p = network.predict(mlp.x)
    np.testing.assert_allclose(p, mlp.classifier.predict_proba(mlp.x.astype(float)), atol=1e-5)
    assert (p.argmax(1) == mlp.y).mean() > 0.93


@pytest.mark.parametrize("rules", ["epsilon_plus", "deep_taylor_bounded"])
def test_pixels_decide_on_digits(rules: str) -> None:
    mlp = digits_mlp()
    network = lrpfast.load(mlp.model, output="probabilities")
    box = {"low": 0, "high": 16} if rules == "deep_taylor_bounded" else {}
    x = mlp.x[:40]
    e = lrpfast.explain(network, x, composite=lrpfast.composite(rules, **box))
    assert e.conservation.worst < 1e-6
    steps = np.arange(1, 17) / 64
    found = mean(flips(probability(network, int(k)), x_i, r, 0, steps)
                 for x_i, r, k in zip(x, e.relevance, e.target, strict=True))  # fmt: skip
    assert_relevant_inputs_count(found, times=2)


# --- photographs ---


def test_squares_decide_on_photographs() -> None:
    network, x = lrpfast.load(efficientnet_lite0().path), efficientnet_lite0().pictures(3)
    e = lrpfast.explain(network, x, composite="epsilon_plus")
    steps = np.arange(1, 8) / 25
    found = mean(flips(probability(network, int(k)), x_i, r, 0, steps, blocks(x_i.shape, 16), orders=3)
                 for x_i, r, k in zip(x, e.relevance, e.target, strict=True))  # fmt: skip
    assert_relevant_inputs_count(found)


# --- texts ---

RULES = Composite("epsilon", [("linear", Epsilon()), ("activation", Pass())])


@cache
def texts() -> tuple[lrpfast.Network, np.ndarray, np.ndarray, lrpfast.Explanation]:
    """The network, tokens of texts that it was not trained on, their libraries, and the explanation."""
    net = text_cnn()
    network, x = lrpfast.load(net.path), net.tokens(net.held_out)
    y = np.array([LIBRARIES.index(text.library) for text in net.held_out])
    return network, x, y, lrpfast.explain(network, x, composite=RULES)


def test_texts_are_told_apart() -> None:
    network, x, y, explanation = texts()
    z = network.predict(x)
    np.testing.assert_allclose(z, onnxruntime_forward(str(text_cnn().path), x), atol=1e-5)
    assert (z.argmax(1) == y).mean() > 0.8
    assert explanation.conservation.worst < 1e-6
    assert explanation.relevance.shape == x.shape
    np.testing.assert_array_equal(explanation.relevance[x == PAD], 0)


def test_relevance_of_words_is_the_formula() -> None:
    network, x, _, _ = texts()
    ours = lrpfast.explain(network, x[:5], composite=RULES, dtype=np.float64)
    for tokens, target, r in zip(x[:5], ours.target, ours.relevance, strict=True):
        np.testing.assert_allclose(r, written_out(tokens, target), atol=1e-9)


def written_out(tokens: np.ndarray, target: int) -> np.ndarray:
    """ε with 1e-6: the dense layer's terms, each of which goes to the words of the window that won."""
    tensors = {
        t.name: numpy_helper.to_array(t).astype(float) for t in onnx.load(text_cnn().path).graph.initializer
    }
    stab = np.vectorize(lambda z: z + (1e-6 if z >= 0 else -1e-6))
    x, convolutions = tensors["embedding.weight"][tokens], []
    for i in range(3):
        w, b = tensors[f"convolutions.{i}.weight"], tensors[f"convolutions.{i}.bias"]
        windows = sliding_window_view(x, w.shape[2], axis=0)
        convolutions.append((w, windows, np.einsum("tck,fck->tf", windows, w) + b))
    maxima = np.concatenate([np.maximum(z, 0).max(0) for _, _, z in convolutions])
    terms = maxima * tensors["dense.weight"][target]
    z_out = terms.sum() + tensors["dense.bias"][target]
    shares = iter(terms * z_out / stab(z_out))
    relevance = np.zeros(len(tokens))
    for w, windows, z in convolutions:
        for f, t in enumerate(np.maximum(z, 0).argmax(0)):
            by_word = (windows[t] * w[f]).sum(0)
            relevance[t : t + len(by_word)] += next(shares) * by_word / stab(z[t, f])
    return relevance


@pytest.mark.parametrize(
    ("library", "expected"),
    [
        ("networkx", {"graph", "graphs", "node", "nodes", "edge", "edges"}),
        ("skimage", {"image", "images", "footprint", "filter", "ndarray", "pixel"}),
        ("sklearn", {"samples", "features", "feature", "estimator", "classification"}),
    ],
)
def test_words_that_decide_are_those_of_the_subject(library: str, expected: set[str]) -> None:
    _, x, _, explanation = texts()
    sums: dict[int, float] = defaultdict(float)
    chosen = explanation.target == LIBRARIES.index(library)
    for token, r in zip(x[chosen].ravel(), explanation.relevance[chosen].ravel(), strict=True):
        sums[int(token)] += float(r)
    best = [text_cnn().vocabulary[token] for token in sorted(sums, key=lambda token: -sums[token])[:12]]
    assert len(expected.intersection(best)) >= 2, best


def test_words_decide() -> None:
    network, x, y, explanation = texts()
    right = np.flatnonzero(explanation.target == y)[:40]
    words = np.where(x != PAD, np.arange(LENGTH), -1)
    found = mean(flips(probability(network, int(y[i])), x[i], explanation.relevance[i], UNKNOWN,
                       (0.05, 0.1, 0.15, 0.2, 0.3), words[i]) for i in right)  # fmt: skip
    assert_relevant_inputs_count(found, times=2)
