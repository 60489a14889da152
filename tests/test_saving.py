"""Explanations on disk, and the manifest that says what made them."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from toy_networks import W1, X, mlp

import lrpfast
from lrpfast import (
    Dense,
    Explanation,
    InputError,
    OutputError,
    Sequential,
    explain,
)


def test_save_and_load(tmp_path: Path) -> None:
    path = tmp_path / "explanation.npz"
    saved = explain(mlp(), X, [0, 1, 2], "epsilon_plus", record="all")
    saved.save(path)
    loaded = Explanation.load(path)
    for name in ("relevance", "output", "probabilities", "target"):
        np.testing.assert_array_equal(getattr(loaded, name), getattr(saved, name))
        assert getattr(loaded, name).dtype == getattr(saved, name).dtype
    assert list(loaded.layers) == list(saved.layers)
    for name, layer in saved.layers.items():
        np.testing.assert_array_equal(loaded.layers[name], layer)
    assert loaded.conservation == saved.conservation
    assert loaded.manifest == saved.manifest
    assert len(loaded) == 3
    assert os.listdir(tmp_path) == ["explanation.npz"]


def test_save_without_probabilities_and_over_an_older_file(tmp_path: Path) -> None:
    path = tmp_path / "explanation.npz"
    path.write_bytes(b"older")
    saved = explain(Sequential(Dense(W1[:1])), X, composite="gradient", record="all")  # its ledger holds NaN
    saved.save(str(path))
    loaded = Explanation.load(str(path))
    assert loaded.probabilities is None
    np.testing.assert_array_equal(loaded.relevance, saved.relevance)
    assert np.isnan(loaded.conservation[0].unexplained)


def test_saved_files_are_as_readable_as_any_other(tmp_path: Path) -> None:
    explain(mlp(), X).save(tmp_path / "a.npz")
    (tmp_path / "b").touch()
    assert (tmp_path / "a.npz").stat().st_mode == (tmp_path / "b").stat().st_mode


def test_manifest_says_what_was_done() -> None:
    network = mlp()
    explanation = explain(network, X, 1, "epsilon_plus_flat", backend="numpy")
    manifest = explanation.manifest
    assert manifest["model"] == {"name": "mlp", "sha256": network.hash}
    assert manifest["composite"] == "epsilon_plus_flat"
    assert manifest["rules"] == {
        "Gemm_0": "Flat()", "Relu_1": "Pass()", "Gemm_2": "Epsilon()", "Relu_3": "Pass()", "Gemm_4": "Epsilon()"
    }  # fmt: skip
    assert manifest["versions"]["lrpfast"] == lrpfast.__version__
    assert manifest["versions"]["numpy"] == np.__version__
    assert (manifest["backend"], manifest["dtype"]) == ("numpy", "float32")
    assert (manifest["target"], manifest["init"]) == (1, "logit")
    assert json.loads(json.dumps(manifest)) == manifest


@pytest.mark.parametrize(
    ("target", "init", "noted"),
    [
        (None, None, (None, "logit")),
        (np.int64(2), "one", (2, "one")),
        ([0, 1, 2], np.ones(3), ([0, 1, 2], [1, 1, 1])),
        (np.eye(3), np.ones((3, 3)), (np.eye(3).tolist(), np.ones((3, 3)).tolist())),
    ],
)
def test_manifest_holds_target_and_init(target: Any, init: Any, noted: tuple[Any, Any]) -> None:
    manifest = explain(mlp(), X, target, "epsilon_plus", init).manifest
    assert (manifest["target"], manifest["init"]) == noted
    json.dumps(manifest)


def test_large_targets_are_described_in_the_manifest() -> None:
    network = Sequential(Dense(np.ones((30, 4))))
    manifest = explain(network, X, np.ones(30), "epsilon_plus").manifest
    assert manifest["target"] == "array of shape (30,)"


def test_where_nothing_can_be_written(tmp_path: Path) -> None:
    explanation = explain(mlp(), X)
    (tmp_path / "file").touch()
    (tmp_path / "folder.npz").mkdir()
    for path in (tmp_path / "missing" / "a.npz", tmp_path / "file" / "a.npz", tmp_path / "folder.npz"):
        with pytest.raises(OutputError, match=r"cannot write .*; choose a place that can be written to"):
            explanation.save(path)
    assert sorted(os.listdir(tmp_path)) == ["file", "folder.npz"]


def test_what_is_not_a_saved_explanation(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        Explanation.load(tmp_path / "missing.npz")
    (tmp_path / "text.npz").write_text("text")
    np.savez(tmp_path / "other.npz", a=np.ones(3))
    np.save(tmp_path / "array.npy", np.ones(3))
    for name in ("text.npz", "other.npz", "array.npy"):
        with pytest.raises(InputError, match=rf"{name}' is not a saved explanation .*expected an \.npz file"):
            Explanation.load(tmp_path / name)
