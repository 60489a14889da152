"""``lrpfast batch`` as a command: what it prints, how it ends, and that it survives being killed."""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pyarrow.parquet as pq
import pytest
import zarr
from batch_jobs import FASHION, parts_of, relevance_of, rows_of, start, write_table
from click.testing import CliRunner, Result
from onnx_models import model_of, node
from PIL import Image

import lrpfast
from lrpfast.cli import main
from lrpfast.cli.batch import progress_text

RNG = np.random.default_rng(1)
CLOTHES = RNG.normal(size=(12, 1, 28, 28)).astype(np.float32)

Run = Callable[..., Result]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Runs ``lrpfast batch`` on the clothes classifier, in a folder with a source x.npy."""
    monkeypatch.chdir(tmp_path)
    np.save("x.npy", CLOTHES)

    def call(*arguments: str, model: str = FASHION) -> Result:
        return CliRunner().invoke(main, ["batch", model, *arguments])

    return call


def test_a_job(run: Run) -> None:
    result = run("x.npy", "-o", "out", "--part-rows", "5", "-t", "bag", "-c", "epsilon_plus")
    assert result.exit_code == 0, result.stderr
    assert result.stdout.startswith("out\t12 inputs\t0 failed\t3 parts\tunexplained ")
    assert result.stderr == ""
    rows = rows_of("out")
    expected = lrpfast.explain(lrpfast.load(FASHION), CLOTHES, target=8, composite="epsilon_plus")
    assert {row["label"] for row in rows} == {"Bag"}
    np.testing.assert_allclose(relevance_of(rows, (1, 28, 28)), expected.relevance, rtol=1e-3, atol=1e-5)


def test_the_summary_as_json(run: Run) -> None:
    result = run("x.npy", "-o", "out", "--json", "--batch-size", "3", "--threads", "1", "--max-memory", "1GB")
    summary = json.loads(result.stdout)
    assert (summary["inputs"], summary["explained"], summary["failed"], summary["resumed"]) == (12, 12, 0, 0)
    assert summary["settings"]["target"] == "argmax"
    assert summary["manifest"]["model"]["sha256"] == lrpfast.load(FASHION).hash
    again = run("x.npy", "-o", "out", "--json", "--workers", "2")  # what does not change results may change
    assert again.stderr == "note: goes on: 12 of 12 inputs were done\n"
    assert json.loads(again.stdout)["resumed"] == 12


# --- exit codes ---


def test_failed_inputs(run: Run) -> None:
    Path("list.txt").write_text("gone.png\n")
    result = run("list.txt", "-o", "out")
    assert result.exit_code == 5
    assert "note: 1 of 1 inputs failed; the column error says why" in result.stderr
    assert "gone.png" in rows_of("out")[0]["error"]


def test_thresholds(run: Run) -> None:
    assert run("x.npy", "-o", "a", "--fail-on", "conservation=1e-3").exit_code == 0
    result = run("x.npy", "-o", "b", "--fail-on", "conservation=1e-12")
    assert result.exit_code == 6
    assert "more than the 1e-12 of --fail-on" in result.stderr
    shifted = CLOTHES.copy()
    shifted[..., :14] = 0
    np.save("y.npy", shifted)
    flags = ("-c", "gradient_x_input", "--fail-on", "drift=0.1")
    assert run("x.npy", "-o", "c", "-c", "gradient_x_input").exit_code == 0
    assert run("x.npy", "-o", "d", "--reference", "c", *flags).exit_code == 0
    result = run("y.npy", "-o", "e", "--reference", "c", *flags)
    assert result.exit_code == 6
    assert "of the relevance lies elsewhere than in c" in result.stderr
    assert "drift is 0." in result.stderr


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["x.npy", "-o", "out", "-t", "hat"], 2, "no output is called 'hat'"),
        (["x.npy", "-o", "out", "--batch-size", "none"], 2, "--batch-size is 'none'; expected auto"),
        (["x.npy", "-o", "out", "--fail-on", "speed=1"], 2, "--fail-on is 'speed=1'"),
        (["x.npy", "-o", "out", "--fail-on", "drift=0.1"], 2, "say --reference REPORT"),
        (["x.npy"], 2, "Missing option '-o'"),
        (["gone/", "-o", "out"], 3, "there is no 'gone/'"),
        (["x.npy", "-o", "out", "--column", "x"], 3, "is no table"),
        (["x.npy", "-o", "x.npy"], 4, "cannot write"),
        (["x.npy", "-o", "out", "-c", "epsilon_gamma_box"], 2, "needs the bounds"),
    ],
)
def test_jobs_that_cannot_run(run: Run, arguments: list[str], code: int, message: str) -> None:
    result = run(*arguments)
    assert (result.exit_code, message in result.stderr) == (code, True), result.stderr
    assert not Path("out").exists()


def test_other_settings(run: Run) -> None:
    assert run("x.npy", "-o", "out").exit_code == 0
    result = run("x.npy", "-o", "out", "-t", "top2")
    assert result.exit_code == 4
    assert 'target: "argmax" there, "top2" now' in result.stderr


def test_a_model_that_is_refused(run: Run) -> None:
    Path("text.onnx").write_text("no model")
    assert run("x.npy", "-o", "out", model="text.onnx").exit_code == 1


def test_a_missing_package_is_named(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
    write_table(Path("x.parquet"), {"x": [[1.0]]})
    result = run("x.parquet", "-o", "out")
    assert result.exit_code == 4
    assert 'pip install "lrpfast[batch]"' in result.stderr


def test_zarr_on_a_python_that_is_too_old_for_it(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    zarr.create_array("x.zarr", data=CLOTHES)
    monkeypatch.setattr(sys, "version_info", (3, 10, 13))
    for arguments in (("x.npy", "-o", "out", "--zarr", "r.zarr"), ("x.zarr", "-o", "out")):
        result = run(*arguments)
        assert (result.exit_code, "zarr 3, and that Python 3.11 or newer" in result.stderr) == (4, True)
        assert not Path("out").exists()


def test_bounds_of_pictures_follow_from_their_preprocessing(run: Run) -> None:
    np.save("x.npy", np.clip(CLOTHES, -1, 1))
    result = run("x.npy", "-o", "out", "-c", "epsilon_gamma_box", "--preprocess", "tf")
    assert result.exit_code == 0, result.stderr
    assert (
        json.loads(Path("out/_job.json").read_text())["settings"]["rules"]["/0/0.0/Conv"]
        == "ZBox(low=-1.0, high=1.0)"
    )


def test_pictures_and_labels_and_columns(run: Run) -> None:
    Path("p").mkdir()
    for i, x in enumerate(RNG.integers(0, 256, (3, 28, 28), np.uint8)):
        Image.fromarray(x).save(f"p/{i}.png")
    write_table(
        Path("p/t.parquet"), {"name": list("abc"), "where": [f"{i}.png" for i in range(3)], "y": [1, 2, 3]}
    )
    Path("labels.txt").write_text("\n".join(f"class {i}" for i in range(10)))
    result = run("p/t.parquet", "-o", "out", "--column", "where", "--id-column", "name", "-t", "column:y",
                 "--labels", "labels.txt", "--png", "heat", "--zarr", "r.zarr", "--top-k", "3")  # fmt: skip
    assert result.exit_code == 0, result.stderr
    rows = rows_of("out")
    assert [(row["id"], row["label"]) for row in rows] == [
        ("a", "class 1"),
        ("b", "class 2"),
        ("c", "class 3"),
    ]
    assert result.stderr.startswith(
        "note: pictures are brought to 0 ... 1; if the network wants them otherwise"
    )
    assert sorted(os.listdir("heat")) == ["00000000-a.png", "00000001-b.png", "00000002-c.png", "_job.json"]
    found = zarr.open_array("r.zarr", mode="r")[:].reshape(3, -1)
    for row, relevance in zip(rows, found, strict=True):
        np.testing.assert_array_equal(relevance[row["places"]], np.array(row["values"], np.float32))


def test_help_teaches_in_80_columns(run: Run) -> None:
    text = CliRunner().invoke(main, ["batch", "--help"], terminal_width=80).output
    assert max(map(len, text.splitlines())) <= 80
    for word in ("top3", "logit[3]-logit[5]", "column:label", "Exit codes", "--reference", "130"):
        assert word in text


def test_blow_ups_are_noted(run: Run) -> None:
    nodes = [
        node("MatMul", "x a", "p"),
        node("MatMul", "x b", "q"),
        node("Add", "p q", "s"),
        node("MatMul", "s c"),
    ]
    weights = {name: np.full((1, 1), w, np.float32) for name, w in (("a", 3), ("b", -2.99), ("c", 2))}
    onnx.save(model_of(nodes, ["n", 1], weights), "cancels.onnx")
    np.save("one.npy", np.ones((2, 1), np.float32))
    result = run("one.npy", "-o", "out", model="cancels.onnx")
    assert result.exit_code == 0
    assert "note: for 2 inputs a node multiplies the relevance that arrives" in result.stderr
    assert run("one.npy", "-o", "quiet", "--on-blowup", "ignore", model="cancels.onnx").stderr == ""


# --- progress ---


def test_progress_in_words() -> None:
    assert progress_text(30, 90, 0, 2.0) == "30/90 inputs, 2/s, 30 s left"
    assert progress_text(1000, 10**6, 3, 87.65) == "1000/1000000 inputs, 87.7/s, 3 h 10 min left, 3 failed"


@pytest.mark.skipif(os.name == "nt", reason="needs a pseudo-terminal")
def test_a_bar_on_a_terminal(tmp_path: Path) -> None:
    terminal, its_end = os.openpty()
    arguments = job(tmp_path, 240, "--png", tmp_path / "png")
    process = start(*arguments, stderr=its_end)
    os.close(its_end)
    shown = b""
    with contextlib.suppress(OSError):  # what a pseudo-terminal says when the other end is closed
        while more := os.read(terminal, 4096):
            shown += more
    os.close(terminal)
    process.communicate()
    assert process.returncode == 0
    assert "█".encode() in shown
    assert b"/240 inputs, " in shown
    assert b"/s, " in shown
    assert shown.endswith(b"\r\x1b[K")


# --- being killed ---


def job(folder: Path, n: int, *more: Any) -> list[Any]:
    """Arguments of a job with a part file now and then."""
    if not (folder / "x.npy").exists():
        np.save(folder / "x.npy", np.random.default_rng(2).normal(size=(n, 1, 28, 28)).astype(np.float32))
    return [FASHION, folder / "x.npy", "-o", folder / "out", "--part-rows", 8, "--batch-size", 1, *more]


def test_kill_9_at_any_time(tmp_path: Path) -> None:
    n = 240
    arguments = job(tmp_path, n, "--png", tmp_path / "png", "--zarr", tmp_path / "r.zarr")
    chance = random.Random(os.environ.get("LRPFAST_SEED", time.time_ns()))
    kills = 0
    for attempt in range(40):
        process = start(*arguments)
        before = len(parts_of(tmp_path / "out"))
        while attempt > 0 and process.poll() is None and len(parts_of(tmp_path / "out")) <= before:
            time.sleep(0.002)  # the first is killed anywhere, the others while they write
        time.sleep(chance.uniform(0, 1.0 if attempt == 0 else 0.12))
        process.send_signal(signal.SIGKILL)
        process.communicate()
        kills += process.returncode == -signal.SIGKILL
        for part in parts_of(tmp_path / "out"):
            pq.read_table(part)  # whole whenever one looks
        for picture in (tmp_path / "png").glob("*.png"):
            Image.open(picture).load()
        if process.returncode == 0 or kills == 5:
            break
    assert kills >= 2
    process = start(*arguments)
    _, err = process.communicate()
    assert process.returncode == 0, err
    rows = rows_of(tmp_path / "out")
    assert [row["index"] for row in rows] == list(range(n))
    x = np.load(tmp_path / "x.npy")
    expected = lrpfast.explain(lrpfast.load(FASHION), x).relevance
    found = zarr.open_array(tmp_path / "r.zarr", mode="r")[:]
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-5)
    assert len(list((tmp_path / "png").glob("*.png"))) == n
    assert not [path for folder in ("out", "png") for path in (tmp_path / folder).glob(".*.part")]


def test_interrupted_within_a_second_even_in_a_long_kernel(tmp_path: Path) -> None:
    """One batch of everything on the slowest backend takes many seconds; nobody waits for it."""
    arguments = job(tmp_path, 3000, "--backend", "numpy", "--batch-size", 3000)
    arguments[arguments.index("--part-rows") + 1] = 3000
    process = start(*arguments)
    while not list((tmp_path / "out").glob("_job.json")):
        assert process.poll() is None, process.communicate()
        time.sleep(0.01)
    time.sleep(1)
    assert process.poll() is None
    process.send_signal(signal.SIGINT)
    sent = time.monotonic()
    _, err = process.communicate(timeout=30)
    assert time.monotonic() - sent < 2  # one second, on a machine that does nothing else
    assert process.returncode == 130
    assert err == "error: interrupted\nhint: the same command goes on where this one was\n"


def test_an_interrupted_job_goes_on(tmp_path: Path) -> None:
    arguments = job(tmp_path, 240, "--png", tmp_path / "png")
    process = start(*arguments)
    while len(parts_of(tmp_path / "out")) < 2:
        assert process.poll() is None, process.communicate()
        time.sleep(0.005)
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=30)
    assert process.returncode == 130
    assert len(parts_of(tmp_path / "out")) < 30
    process = start(*arguments)
    _, err = process.communicate()
    assert process.returncode == 0
    assert err.startswith("note: goes on: ")
    assert [row["index"] for row in rows_of(tmp_path / "out")] == list(range(240))
