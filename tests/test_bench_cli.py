"""``lrpfast bench``: its tables, its JSON, and how it fails. What the times are nobody can know."""

from __future__ import annotations

import importlib
import json
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from click.testing import CliRunner, Result
from onnx_models import model_of, node
from PIL import Image
from small_networks import SMALL_NETWORKS, random_input

import lrpfast
from lrpfast import Explainer, backends
from lrpfast.benchmark_profile import density, operations
from lrpfast.cli import main
from lrpfast.steps import HostCall, KernelCall, Step

Run = Callable[..., Result]
BENCH = importlib.import_module("lrpfast.cli.bench")
QUICK = ("--repeats", "2")
LONG = "a-long-name-" * 4


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of models and inputs."""
    folder = tmp_path_factory.mktemp("files")
    for name in ("mlp", "small_cnn", "branches"):
        model = SMALL_NETWORKS[name]()
        onnx.save(model, folder / f"{name}.onnx")
        np.save(folder / f"{name}.npy", random_input(model))
    onnx.save(SMALL_NETWORKS["small_cnn"](), folder / f"{LONG}.onnx")
    onnx.save(model_of([node("Relu", "x")], ["n", "c", "h", "w"]), folder / "open.onnx")
    pixels = np.random.default_rng(0).integers(0, 256, (40, 60, 3), np.uint8)
    Image.fromarray(pixels).save(folder / "photo.png")
    weight = np.full((8, 3), 1e30, np.float32)
    onnx.save(model_of([node("MatMul", "x w")], ["n", 8], {"w": weight}), folder / "huge.onnx")
    np.save(folder / "huge.npy", np.full((1, 8), 1e30, np.float32))
    np.save(folder / "wide.npy", np.ones((2, 9), np.float32))
    (folder / "text.onnx").write_text("this is not a model")
    return folder


@pytest.fixture
def run(files: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Runs `lrpfast bench` in an empty folder; `@` stands for `files`."""
    monkeypatch.chdir(tmp_path)

    def call(*arguments: str) -> Result:
        expanded = [argument.replace("@", f"{files}/") for argument in arguments]
        return CliRunner().invoke(main, ["bench", *expanded])

    return call


def succeeded(result: Result) -> Result:
    """The result, of a command that must not have failed."""
    assert result.exit_code == 0, result.stderr
    return result


# --- tables ---


def test_the_table_says_what_was_measured(run: Run) -> None:
    result = succeeded(run("@small_cnn.onnx", "--batch", "3", "--threads", "1", *QUICK))
    title, batches, _, head, *rows = result.stdout.splitlines()
    kernels = backends.describe(backends.get())
    assert title == f"small_cnn.onnx: epsilon_plus_flat in float32, {kernels}, 1 thread"
    assert batches == "batches of 3 × (3×16×16), medians of 2 turns"
    assert head.split() == ["ms", "per", "sample", "samples/s", "onnxruntime"]
    assert [row.split()[0] for row in rows[:3]] == ["onnxruntime", "predict", "explain"]
    ms, rate, multiple = (np.array([float(row.split()[i]) for row in rows[:3]]) for i in (1, 2, 3))
    np.testing.assert_allclose(ms * rate, 1000, rtol=0.1)  # both are rounded, and the times are short
    assert multiple[0] == 1 and rows[0].endswith("×")
    assert rows[4].startswith("The predictions differ from onnxruntime's by ")
    assert rows[5].startswith("At most ") and rows[5].endswith("of the relevance is unexplained at any node.")
    assert result.stderr == ""


@pytest.mark.parametrize("model", ["@small_cnn.onnx", "@branches.onnx", f"@{LONG}.onnx"])
def test_tables_fit_80_columns(run: Run, model: str) -> None:
    text = succeeded(run(model, "--profile", *QUICK)).stdout
    assert max(map(len, text.splitlines())) <= 80


def test_a_box_without_bounds_is_the_range_of_the_input(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    boxes = []
    make = BENCH.make_composite
    monkeypatch.setattr(BENCH, "make_composite", lambda *args: boxes.append(args[-1]) or make(*args))
    succeeded(run("@small_cnn.onnx", "--input", "@small_cnn.npy", "-c", "epsilon_gamma_box", *QUICK))
    assert boxes[0][0] < 0 < boxes[0][1]


def test_a_batch_that_takes_too_much_memory_goes_to_pieces(run: Run) -> None:
    result = succeeded(run("@mlp.onnx", "--batch", "40", "--max-memory", "20kB", "--profile", *QUICK))
    assert "batches of 40" in result.stdout and "gemm_forward" in result.stdout
    result = run("@mlp.onnx", "--max-memory", "100", *QUICK)
    assert result.exit_code == 2 and "max_memory is 100 bytes, but one sample takes" in result.stderr


# --- JSON ---


def test_json_holds_every_turn(run: Run, files: Path) -> None:
    result = succeeded(run("@mlp.onnx", "--json", "--batch", "2", "--threads", "1", "--repeats", "3",
                           "--dtype", "float64", "--backend", "numpy", "-c", "epsilon_plus"))  # fmt: skip
    document = json.loads(result.stdout)
    network = lrpfast.load(files / "mlp.onnx")
    assert document["model"] == {"name": "mlp.onnx", "sha256": network.hash}
    assert (document["input"], document["input_shape"], document["batch"]) == ("noise", [8], 2)
    assert (document["composite"], document["dtype"], document["threads"]) == ("epsilon_plus", "float64", 1)
    assert (document["backend"], document["onnxruntime"]) == ("numpy", "")
    assert list(document["seconds"]) == ["onnxruntime", "predict", "explain"]
    for name, seconds in document["seconds"].items():
        assert len(seconds) == 3 and min(seconds) > 0
        assert document["ms_per_sample"][name] == pytest.approx(1e3 * sorted(seconds)[1] / 2)
    assert document["prediction_error"] < 1e-5
    assert document["unexplained"] < 1e-12
    assert document["machine"]["lrpfast"] == lrpfast.__version__
    assert "profile" not in document
    assert result.stderr == ""


def test_json_with_a_name_is_written_besides_the_table(run: Run) -> None:
    result = succeeded(run("@mlp.onnx", "--json", "new/times.json", "--profile", *QUICK))
    assert "ms per sample" in result.stdout and "gemm_forward" in result.stdout
    text = Path("new/times.json").read_text()
    document = json.loads(text)
    assert {row["step"] for row in document["profile"]} >= {"gemm_forward", "gemm_vjp"}
    assert sum(row["share"] for row in document["profile"]) == pytest.approx(1)
    assert text.endswith("}\n")
    assert os.listdir("new") == ["times.json"]


def test_samples_of_a_file_fill_the_batch(run: Run, monkeypatch: pytest.MonkeyPatch, files: Path) -> None:
    x = np.load(files / "mlp.npy")
    assert len(x) == 3
    seen = []

    def explainer(*args: Any, **options: Any) -> Any:
        inner = Explainer(*args, **options)
        return type(
            "Spy", (), {"__call__": lambda _, x: seen.append(x) or inner(x), "backend": inner.backend}
        )()

    monkeypatch.setattr(BENCH, "Explainer", explainer)
    for batch in (2, 7):
        succeeded(run("@mlp.onnx", "--input", "@mlp.npy", "--batch", str(batch), "--json", *QUICK))
        np.testing.assert_array_equal(seen[-1]["x"], x[np.arange(batch) % 3])


def test_a_picture_is_preprocessed(run: Run) -> None:
    arguments = ("@small_cnn.onnx", "--input", "@photo.png", "--json", *QUICK)
    document = json.loads(succeeded(run(*arguments, "--preprocess", "tf")).stdout)
    assert document["input"].endswith("photo.png")
    assert run(*arguments, "--preprocess", "imagnet").exit_code == 2


# --- the profile ---


def test_the_profile_has_every_step_once(run: Run, files: Path) -> None:
    document = json.loads(succeeded(run("@small_cnn.onnx", "--json", "--profile", *QUICK)).stdout)
    explainer = Explainer(lrpfast.load(files / "small_cnn.onnx"))
    timed = explainer.profile(np.load(files / "small_cnn.npy"))
    rows = document["profile"]
    assert [(row["node"], row["step"], row["form"]) for row in rows] == [
        (step.node, step.label(), step.form) for step, _ in timed
    ]
    assert all(row["seconds"] >= 0 for row in rows)
    nodes = [row for row in rows if row["input_density"] is not None]
    assert all(0 <= row["input_density"] <= 1 and 0 <= row["relevance_density"] <= 1 for row in nodes)
    assert {row["step"] for row in nodes} >= {"conv_forward", "conv_vjp"}


def test_short_steps_are_summed_up_and_forms_are_letters(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(BENCH, "SHORT", 2.0)
    text = succeeded(run("@small_cnn.onnx", "--profile", *QUICK)).stdout
    steps = json.loads(succeeded(run("@small_cnn.onnx", "--json", "--profile", *QUICK)).stdout)["profile"]
    assert f"\n{len(steps)} shorter ones " in text
    monkeypatch.setattr(BENCH, "SHORT", 0.0)
    text = succeeded(run("@small_cnn.onnx", "--profile", *QUICK)).stdout
    assert "shorter ones" not in text
    assert "\na  " in text and "denominator" in text
    assert [BENCH._letter(i) for i in (0, 25, 26, 51, 52, 701, 702)] == [
        "a", "z", "aa", "az", "ba", "zz", "aaa"
    ]  # fmt: skip


def test_a_profile_times_every_step(backend: str, files: Path) -> None:
    """Native programs time their own calls; others, and NumPy functions, are timed one by one."""
    network = lrpfast.load(files / "branches.onnx")
    x = np.load(files / "branches.npy")
    explainer = Explainer(network, lrpfast.composite("epsilon_gamma_box", low=-9, high=9), backend=backend)
    timed = explainer.profile(x, target=1, init="one")
    steps = [step for step, _ in timed]
    assert {type(step) for step in steps} == {KernelCall, HostCall}
    assert all(isinstance(step, Step) and seconds >= 0 for step, seconds in timed)
    assert sum(seconds for _, seconds in timed) > 0
    plan = explainer._prepared(network).plan
    assert steps == [*plan.forward, *plan.vjp]
    before = explainer(x, target=1, init="one").relevance
    explainer.profile(x)
    assert explainer(x, target=1, init="one").relevance.tobytes() == before.tobytes()


def test_a_profile_refuses_what_an_explanation_refuses(files: Path) -> None:
    explainer = Explainer(lrpfast.load(files / "mlp.onnx"))
    x = np.load(files / "mlp.npy")
    with pytest.raises(lrpfast.InputError, match="target is 9"):
        explainer.profile(x, target=9)
    with pytest.raises(lrpfast.InputError, match="x has shape"):
        explainer.profile(x[:, :3])
    explainer.profile(x)  # and is fit for use afterwards


def test_operations_are_those_of_the_definition() -> None:
    network = lrpfast.Sequential(
        lrpfast.Conv2d(np.ones((32, 16, 3, 3)), padding=1),
        lrpfast.ReLU(),
        lrpfast.MaxPool2d(2),
        lrpfast.Flatten(),
        lrpfast.Dense(np.ones((5, 32 * 16))),
    )
    explainer = Explainer(network, "epsilon_plus")
    timed = explainer.profile(np.ones((2, 16, 8, 8)))
    found: dict[str, set[int | None]] = {}
    for step, _ in timed:
        found.setdefault(step.label(), set()).add(operations(step))
    assert found["conv_forward"] == {2 * 32 * 16 * 9 * 64}
    assert found["conv_vjp"] == {2 * found["conv_forward"].pop()}  # with another part of w for x < 0
    assert found["gemm_forward"] == found["gemm_vjp"] == {2 * 5 * 32 * 16}
    assert found["maxpool_forward"] == {4 * 32 * 16}


def test_density_is_the_share_that_is_not_zero() -> None:
    assert density([np.array([0.0, 1.0]), np.array([2.0, 0.0, 0.0, 3.0])]) == 0.5
    assert density([]) == 0


# --- onnxruntime ---


def test_without_onnxruntime_there_are_no_multiples(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)  # as if it were not installed
    result = succeeded(run("@mlp.onnx", *QUICK))
    text = " ".join(result.stdout.split())
    assert "No multiples of onnxruntime's time: it is not installed; pip install onnxruntime." in text
    assert "×" not in result.stdout.split("turns")[1]
    document = json.loads(succeeded(run("@mlp.onnx", "--json", *QUICK)).stdout)
    assert document["onnxruntime"] == "it is not installed; pip install onnxruntime"
    assert document["prediction_error"] is None
    assert list(document["seconds"]) == ["predict", "explain"]


@pytest.mark.parametrize(
    ("error", "words"),
    [(RuntimeError("no such operator\nat line 7"), "no such operator"), (MemoryError(), "MemoryError")],
)
def test_a_model_that_onnxruntime_refuses(
    run: Run, monkeypatch: pytest.MonkeyPatch, error: Exception, words: str
) -> None:
    def refuse(*_: object) -> None:
        raise error

    monkeypatch.setattr(BENCH, "onnxruntime_predictor", refuse)
    document = json.loads(succeeded(run("@mlp.onnx", "--json", *QUICK)).stdout)
    assert document["onnxruntime"] == f"it cannot run this model: {words}"


def test_a_prediction_that_is_not_onnxruntimes_is_noted(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(BENCH, "onnxruntime_predictor", lambda *_: lambda x: np.ones((1, 5), np.float32))
    result = succeeded(run("@mlp.onnx", *QUICK))
    assert "note: that is more than rounding" in result.stderr


# --- what is refused ---

BAD: list[tuple[str, Sequence[str], int, str]] = [
    ("no model", (), 2, "Missing argument 'MODEL'"),
    ("no such model", ("@no.onnx",), 1, "there is no model"),
    ("not ONNX", ("@text.onnx",), 1, "text.onnx' is "),
    ("prediction overflows", ("@huge.onnx", "--input", "@huge.npy"), 1, "the prediction is not finite"),
    ("open shape", ("@open.onnx",), 1, "say --input-shape"),
    ("no such input", ("@mlp.onnx", "--input", "@no.npy"), 3, "No such file"),
    ("wrong shape", ("@mlp.onnx", "--input", "@wide.npy"), 3, "takes samples of shape (8,)"),
    ("input is a model", ("@small_cnn.onnx", "--input", "@mlp.onnx"), 3, "cannot read the image"),
    ("empty batch", ("@mlp.onnx", "--batch", "0"), 2, "'--batch': 0"),
    ("no turns", ("@mlp.onnx", "--repeats", "0"), 2, "'--repeats': 0"),
    ("no backend", ("@mlp.onnx", "--backend", "cuda"), 2, "unknown backend 'cuda'"),
    ("unknown composite", ("@mlp.onnx", "-c", "epsilon_pluss"), 2, "unknown composite"),
    ("unfit composite", ("@mlp.onnx", "-c", "epsilon_plus", "-p", "gamma=1"), 2, "no parameter 'gamma'"),
    ("overwritten", ("@mlp.onnx", "--json", "@mlp.onnx"), 2, "would be overwritten"),
    ("overwritten input", ("@mlp.onnx", "--input", "@mlp.npy", "--json", "@mlp.npy"), 2, "is an input"),
    ("unwritable", ("@mlp.onnx", "--json", "file/times.json"), 4, "cannot write into 'file'"),
    ("a folder", ("@mlp.onnx", "--json", "."), 4, "it is a folder"),
]  # fmt: skip


@pytest.mark.parametrize(("arguments", "code", "message"), [b[1:] for b in BAD], ids=[b[0] for b in BAD])
def test_bad_arguments_are_refused_before_anything_is_measured(
    run: Run,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    arguments: Sequence[str],
    code: int,
    message: str,
) -> None:
    (tmp_path / "file").write_text("")
    result = run(*arguments)
    assert result.exit_code == code, result.stderr
    assert sum(line.startswith("error: ") for line in result.stderr.splitlines()) == 1
    assert message in result.stderr
    assert "Traceback" not in result.stderr
    assert result.stdout == ""
    assert os.listdir(tmp_path) == ["file"]
