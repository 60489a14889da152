"""Trained networks of several kinds: predictions, ledgers, and what decides.

The flip tests ask whether relevance means anything: scores must fall faster when the most relevant inputs are
removed than when as many others are (flipping.py).
"""

from __future__ import annotations

from collections import Counter, defaultdict
from functools import cache
from io import BytesIO

import numpy as np
import onnx
import pytest
from conftest import BACKENDS
from flip_cases import CASES, EPSILON, FILES
from numpy.lib.stride_tricks import sliding_window_view
from onnx import numpy_helper
from real_networks import digits_mlp, magika_input, magika_labels, magika_path
from small_networks import onnxruntime_forward
from text_networks import LIBRARIES, PAD, text_cnn

import lrpfast

pytestmark = pytest.mark.networks


@pytest.mark.parametrize("name", CASES)
def test_inputs_with_relevance_decide(name: str) -> None:
    found = CASES[name]().measure()
    assert found.fall > 1.3 * found.random_fall
    assert (found.relevant[1:] < found.random[1:]).mean() > 0.8


@pytest.mark.parametrize("name", CASES)
def test_the_ledger_closes(name: str) -> None:
    assert CASES[name]().explanation.conservation.worst < 1e-5


@pytest.mark.skipif("numba" not in BACKENDS, reason="only where the suite runs on Numba")
@pytest.mark.parametrize("name", CASES)
def test_numba_agrees(name: str) -> None:
    case = CASES[name]()
    ours, numbas = (
        lrpfast.explain(case.network, case.x[:2], composite=case.composite, dtype=np.float64, backend=backend)
        for backend in (None, "numba")
    )
    scale = np.linalg.norm(ours.relevance_of())
    assert np.linalg.norm(numbas.relevance_of() - ours.relevance_of()) <= 1e-9 * scale


def test_mlp_of_scikit_learn_reads_digits() -> None:
    mlp = digits_mlp()
    p = CASES["digits"]().network.predict(mlp.x)
    np.testing.assert_allclose(p, mlp.classifier.predict_proba(mlp.x.astype(float)), atol=1e-5)
    assert (p.argmax(1) == mlp.y).mean() > 0.93


# --- texts ---


@cache
def texts() -> tuple[lrpfast.Network, np.ndarray, np.ndarray, lrpfast.Explanation]:
    """The network, tokens of texts that it was not trained on, their libraries, and the explanation."""
    net = text_cnn()
    network, x = lrpfast.load(net.path), net.tokens(net.held_out)
    y = np.array([LIBRARIES.index(text.library) for text in net.held_out])
    return network, x, y, lrpfast.explain(network, x, composite=EPSILON)


def test_texts_are_told_apart() -> None:
    network, x, y, explanation = texts()
    z = network.predict(x)
    np.testing.assert_allclose(z, onnxruntime_forward(str(text_cnn().path), x), atol=1e-5)
    assert (z.argmax(1) == y).mean() > 0.8
    assert explanation.relevance.shape == x.shape
    np.testing.assert_array_equal(explanation.relevance[x == PAD], 0)


def test_relevance_of_words_is_the_formula() -> None:
    network, x, _, _ = texts()
    ours = lrpfast.explain(network, x[:5], composite=EPSILON, dtype=np.float64)
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


# --- files ---


def test_files_are_recognised() -> None:
    case = CASES["files"]()
    p = case.network.predict(case.x)
    np.testing.assert_allclose(p, onnxruntime_forward(str(magika_path()), case.x), atol=1e-4)
    assert [magika_labels()[k] for k in p.argmax(1)] == list(FILES.values())


def test_pieces_of_magika_are_found() -> None:
    # As exported, the embedding is a comparison with 0 … 256, and of GELU and LayerNorm only arithmetic is left.
    graph = CASES["files"]().network.canonized().graph
    kinds = Counter(type(node.op).__name__ for node in graph.nodes)
    assert (kinds["Embedding"], kinds["Gelu"], kinds["Normalization"], kinds["Mul"]) == (1, 2, 2, 0)


@pytest.mark.parametrize("content", [b"  \n def f(x):\n    return x\n", bytes(range(256)) * 40, b""])
def test_magika_reads_what_its_own_package_gives_it(content: bytes) -> None:
    from magika import Magika
    from magika.types import Seekable

    features = Magika._extract_features_from_seekable(
        Seekable(BytesIO(content)), 1024, 0, 1024, 256, 4096, False
    )
    np.testing.assert_array_equal(magika_input(content), features.beg + features.end)
