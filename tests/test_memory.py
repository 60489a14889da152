"""Limits for one call: of memory, by which batches go to pieces that nobody notices, and of threads."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from toy_networks import IMAGES, X, cnn, mlp

import lrpfast
from lrpfast import Explainer, Explanation, InputError
from lrpfast.memory import in_words, memory_limit

SPARE = 64  # a run takes so much more than its samples do


def limit_for(explainer: Explainer, samples: int) -> int:
    """What lets so many samples run at once, and not one more."""
    return explainer.memory_per_sample * samples + SPARE


def assert_same(one: Explanation, other: Explanation, backend: str) -> None:
    """To the bit on the native backend, whose results do not depend on the batch; else to rounding."""
    assert one.layers.keys() == other.layers.keys()
    pairs = [(one.relevance, other.relevance), (one.output, other.output), (one.target, other.target)]
    pairs.append((one.probabilities, other.probabilities))
    pairs += [(one.layers[name], other.layers[name]) for name in one.layers]
    for a, b in pairs:
        assert a.shape == b.shape and a.dtype == b.dtype
        if backend == "native":
            assert a.tobytes() == b.tobytes()
        else:
            np.testing.assert_allclose(a, b, rtol=0, atol=1e-4 * np.abs(b).max())
    assert one.manifest == other.manifest
    numbers = [(r.r_in, r.r_out, r.bias, r.stabilizer, r.dead) for r in one.conservation]
    others = [(r.r_in, r.r_out, r.bias, r.stabilizer, r.dead) for r in other.conservation]
    scale = np.abs(others).max()
    np.testing.assert_allclose(numbers, others, rtol=0, atol=(1e-12 if backend == "native" else 1e-4) * scale)
    assert one.conservation.worst < 1e-5


QUESTIONS: dict[str, dict[str, Any]] = {
    "largest": {},
    "an index": {"target": 3},
    "an index per sample": {"target": [0, 1, 2, 3, 4, -1]},
    "weights": {"target": [0.0, 1.0, -1.0, 0.0, 0.5]},
    "weights per sample": {"target": np.random.default_rng(1).normal(size=(6, 5))},
    "probability": {"init": "probability"},
    "init per sample": {"init": np.arange(1.0, 7.0)},
    "init per output": {"init": np.random.default_rng(2).normal(size=(6, 5)), "target": 1},
}


@pytest.mark.parametrize("question", QUESTIONS)
def test_pieces_are_not_noticed(question: str, backend: str) -> None:
    explainer = Explainer(cnn(), backend=backend, record="all")
    whole = explainer(IMAGES, **QUESTIONS[question])
    for samples in (1, 4, 5, 6):
        pieces = explainer(IMAGES, **QUESTIONS[question], max_memory=limit_for(explainer, samples))
        assert_same(pieces, whole, backend)


def test_the_ledger_is_that_of_the_whole_batch() -> None:
    explainer = Explainer(cnn(), "epsilon_plus", backend="numpy", dtype=np.float64)
    single = [explainer(IMAGES[i : i + 1]).conservation for i in range(6)]
    pieces = explainer(IMAGES, max_memory=limit_for(explainer, 1)).conservation
    for i, row in enumerate(pieces):
        assert row.r_in == pytest.approx(sum(ledger[i].r_in for ledger in single))
        assert row.bias == pytest.approx(sum(ledger[i].bias for ledger in single))
        assert row.node == single[0][i].node


def test_pieces_fit_and_are_of_about_one_size() -> None:
    plan = Explainer(mlp())._prepared(mlp()).plan
    for n in range(1, 20):
        for most in range(1, 20):
            limit = plan.nbytes(most)
            pieces = plan.pieces(n, limit)
            sizes = [piece.stop - piece.start for piece in pieces]
            assert np.concatenate([np.arange(n)[piece] for piece in pieces]).tolist() == list(range(n))
            assert max(map(plan.nbytes, sizes)) <= limit
            assert len(sizes) == -(-n // most)
            assert sizes == sorted(sizes, reverse=True) and max(sizes) - min(sizes) <= 1
    assert plan.pieces(10**9, None) == [slice(0, 10**9)]


def test_a_run_takes_no_more(backend: str) -> None:
    explainer = Explainer(cnn(), backend=backend)
    limit = limit_for(explainer, 2)
    explainer(IMAGES, max_memory=limit)
    kept = explainer._prepared(explainer.network).plan._free
    assert kept and all(workspace.memory.nbytes <= limit for workspace in kept)


def test_the_explainers_own_limit_and_that_of_a_call(monkeypatch: pytest.MonkeyPatch) -> None:
    free = Explainer(cnn())
    explainer = Explainer(cnn(), max_memory=limit_for(free, 2))
    runs: list[int] = []
    plan = explainer._prepared(explainer.network).plan
    take = type(plan).take
    monkeypatch.setattr(type(plan), "take", lambda self, n: runs.append(n) or take(self, n))
    explainer(IMAGES)
    explainer(IMAGES, max_memory="1GiB")
    explainer(IMAGES[:5], max_memory=limit_for(free, 3))
    assert runs == [2, 2, 2, 6, 3, 2]
    runs.clear()
    steps = explainer.profile(IMAGES)
    assert runs == [2] * 6 and len(steps) == len(plan.forward) + len(plan.vjp)


def test_predictions_go_to_pieces_too(backend: str) -> None:
    network = cnn()
    whole = network.predict(IMAGES, backend=backend)
    with pytest.raises(InputError, match="max_memory is 100 bytes, but one sample takes"):
        network.predict(IMAGES, backend=backend, max_memory=100)
    pieces = network.predict(IMAGES, backend=backend, max_memory="40 kB")
    np.testing.assert_allclose(pieces, whole, rtol=1e-5)
    if backend == "native":
        assert pieces.tobytes() == whole.tobytes()


def test_a_sample_that_does_not_fit() -> None:
    explainer = Explainer(cnn())
    needed = limit_for(explainer, 1)
    words = (
        rf"max_memory is 1\.0 KiB \(1024 bytes\), but one sample takes .*\({needed} bytes\); give at least"
    )
    with pytest.raises(InputError, match=words):
        explainer(IMAGES, max_memory="1KiB")
    with pytest.raises(InputError, match=words):
        Explainer(cnn(), max_memory=1024)
    explainer(IMAGES[:1], max_memory=needed)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (None, None), (1, 1), (np.int64(10**12), 10**12), ("512MB", 512 * 10**6), ("1.5GiB", 3 * 2**29),
        (" 2 kib ", 2048), ("7B", 7), (".5 TB", 5 * 10**11), ("3.KB", 3000),
    ],
)  # fmt: skip
def test_sizes(text: Any, expected: int | None) -> None:
    assert memory_limit(text) == expected


@pytest.mark.parametrize(
    "value", [0, -1, 1.5, 1e9, True, "", "512", "MB", "-1MB", "1.2.3GB", "5 elephants", "0.1B", [1], b"1MB"]
)
def test_what_is_no_size(value: Any) -> None:
    for call in (
        lambda: Explainer(mlp(), max_memory=value),
        lambda: Explainer(mlp())(X, max_memory=value),
        lambda: mlp().predict(X, max_memory=value),
    ):
        with pytest.raises(InputError, match=r'max_memory is .*expected .* such as "512MB" or "1\.5GiB"'):
            call()


def test_bytes_in_words() -> None:
    assert [in_words(n) for n in (1, 1536, 3 * 2**19, 5 * 2**30)] == [
        "1 byte", "1.5 KiB (1536 bytes)", "1.5 MiB (1572864 bytes)", "5.0 GiB (5368709120 bytes)"
    ]  # fmt: skip


def test_memory_per_sample_needs_a_shape() -> None:
    network = lrpfast.Sequential(lrpfast.Conv2d(np.ones((2, 1, 3, 3))), lrpfast.Flatten())
    explainer = Explainer(network, max_memory="10kB")
    with pytest.raises(lrpfast.ModelError, match="does not know the shape of its input"):
        _ = explainer.memory_per_sample
    assert explainer(np.ones((4, 1, 5, 5))).relevance.shape == (4, 1, 5, 5)
    with pytest.raises(InputError, match="but one sample takes"):
        explainer(np.ones((4, 1, 50, 50)))


def test_threads_of_a_call(monkeypatch: pytest.MonkeyPatch, backend: str) -> None:
    explainer = Explainer(cnn(), backend=backend, threads=2)
    limits: list[int | None] = []
    limit = explainer.backend.limit_threads
    monkeypatch.setattr(explainer.backend, "limit_threads", lambda n: limits.append(n) or limit(n))
    maps = {explainer(IMAGES, threads=n).relevance.tobytes() for n in (None, 1, np.int64(3))}
    assert limits == [2, 1, 3] and len(maps) == 1


@pytest.mark.parametrize("threads", [0, -1, 1.5, True, "two"])
def test_threads_of_a_call_are_checked(threads: Any) -> None:
    with pytest.raises(InputError, match=r"threads is .*expected a whole number"):
        Explainer(mlp())(X, threads=threads)
