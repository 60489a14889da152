"""Drift: shares of regions and the statistic, against sums that are written out and against known shifts."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
from toy_networks import IMAGES, cnn, linear

from lrpfast.batch import Profile, drift, run
from lrpfast.batch.drift import Regions
from lrpfast.errors import InputError

RNG = np.random.default_rng(8)


@pytest.mark.parametrize("shape", [(5,), (300,), (3, 50), (3, 20, 11), (2, 3, 9, 5), (1, 1, 1)])
def test_regions_cut_an_array_without_gaps(shape: tuple[int, ...]) -> None:
    r = RNG.normal(size=shape)
    names, sums = Regions(shape).names(), Regions(shape).sums([r])
    assert len(names) == len(sums) <= 512
    seen = np.zeros(shape, int)
    for name, found in zip(names, sums, strict=True):
        region = tuple(slice(*map(int, part.split(":"))) for part in name[1:-1].split(", "))
        seen[region] += 1
        assert found == pytest.approx(np.abs(r[region]).sum(), rel=1e-12)
    assert (seen == 1).all()


def profile(samples: np.ndarray) -> Profile:
    found = Profile.empty(samples.shape[1:])
    for sample in samples:
        found = found.with_sums(Regions(sample.shape).sums([sample]))
    return found


def test_the_statistic_is_the_formula() -> None:
    before, now = RNG.normal(size=(40, 3)), RNG.normal(size=(60, 3)) * [1, 2, 1]
    found = drift(profile(before), profile(now))
    assert found is not None
    p, q = (np.abs(x) / np.abs(x).sum(1, keepdims=True) for x in (before, now))
    change = q.mean(0) - p.mean(0)
    error = np.sqrt(p.var(0, ddof=1) / 40 + q.var(0, ddof=1) / 60)
    z = change / error
    assert found.moved == pytest.approx(np.abs(change).sum() / 2)
    assert found.chance == pytest.approx(math.sqrt(2 / math.pi) * error.sum() / 2)
    assert found.p == pytest.approx(min(1, 3 * math.erfc(np.abs(z).max() / math.sqrt(2))))
    assert (found.samples, found.reference_samples) == (60, 40)
    assert found.regions[0][0] == "[1:2]"
    np.testing.assert_allclose([r[3] for r in sorted(found.regions)], z)


def test_without_a_change_what_moved_is_about_what_chance_moves() -> None:
    ratios, ps = [], []
    for _ in range(200):
        found = drift(profile(RNG.gamma(2, size=(50, 8))), profile(RNG.gamma(2, size=(50, 8))))
        assert found is not None
        ratios.append(found.moved / found.chance)
        ps.append(found.p)
    assert 0.9 < np.mean(ratios) < 1.1
    assert np.mean(np.array(ps) < 0.05) < 0.12


def test_scale_and_sign_make_no_drift() -> None:
    x = RNG.normal(size=(20, 6))
    found = drift(profile(x), profile(-1000 * x))
    assert found is not None
    assert found.moved < 1e-12
    assert found.p == 1


def test_all_relevance_elsewhere() -> None:
    left, right = np.zeros((2, 5, 4))
    left[:, 0] = right[:, 3] = 1
    found = drift(profile(left), profile(right))
    assert found is not None
    assert found.moved == 1
    assert found.p == 0
    json.dumps(found.as_json(), allow_nan=False)


def test_samples_without_relevance_do_not_count() -> None:
    assert profile(np.zeros((3, 4))).n == 0
    assert drift(profile(np.zeros((3, 4))), profile(np.ones((3, 4)))) is None


def test_shapes_must_agree() -> None:
    with pytest.raises(InputError, match=r"inputs of shape \(4,\), this job about \(5,\)"):
        drift(profile(np.ones((2, 4))), profile(np.ones((2, 5))))


def test_jobs_are_compared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    np.save("x.npy", IMAGES)
    moved = IMAGES.copy()
    moved[:, :, 6:] *= 0.01
    np.save("y.npy", moved)
    network = cnn()
    options = {"composite": "gradient_x_input", "part_rows": 2}
    first = run(network, "x.npy", "x", **options)
    same = run(network, "x.npy", "same", reference="x", **options)
    other = run(network, "y.npy", "y", reference="x/_report.json", **options)
    assert first.drift is None
    assert same.drift is not None and other.drift is not None
    assert same.drift.moved == 0
    assert other.drift.moved > 0.2
    report = json.loads(Path("y/_report.json").read_text())
    assert report["drift"] == json.loads(json.dumps(other.drift.as_json()))
    assert report["manifest"]["composite"] == "gradient_x_input"
    regions = Regions((3, 11, 9))
    relevance = network_relevance(network, IMAGES)
    sums = np.stack([regions.sums([r]) for r in relevance])
    expected = np.mean(sums / sums.sum(axis=1, keepdims=True), axis=0)
    np.testing.assert_allclose(first.profile.mean, expected, rtol=1e-4)


def network_relevance(network, x):  # type: ignore[no-untyped-def]
    from lrpfast import explain

    return explain(network, x, composite="gradient_x_input").relevance


@pytest.mark.parametrize(
    ("reference", "message"),
    [("none", "cannot read"), ("x.npy", "is no report"), ("empty.json", "is no report"), ("a", "takes")],
)
def test_references_that_do_not_fit(
    reference: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    np.save("x.npy", IMAGES)
    np.save("lines.npy", np.ones((3, 4), np.float32))
    Path("empty.json").write_text("{}")
    run(linear(), "lines.npy", "a")
    with pytest.raises(InputError, match=message):
        run(cnn(), "x.npy", "out", reference=reference)
    assert not Path("out").exists()
