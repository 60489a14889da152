"""The command line for models with several inputs and outputs."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from click.testing import CliRunner, Result
from onnx import TensorProto, helper, numpy_helper
from onnx_models import node
from PIL import Image

import lrpfast
from lrpfast.cli import main

Run = Callable[..., Result]
RNG = np.random.default_rng(3)
W, V = (RNG.standard_normal((n, 4)).astype(np.float32) for n in (75, 6))
X = {
    "photo": RNG.standard_normal((3, 3, 5, 5)).astype(np.float32),
    "facts": RNG.random((3, 6)).astype(np.float32),
}


def two_inputs(
    *, sizes: tuple[Any, ...] = (3, 5, 5), outputs: tuple[str, ...] = ("y", "h")
) -> onnx.ModelProto:
    """A picture and a table's row; `y` is a sum of what both say, `h` what the picture does, `k` a label."""
    nodes = [
        node("Flatten", "photo", "f"), node("MatMul", "f w", "p"), node("Relu", "p", "h"),
        node("MatMul", "facts v", "q"), node("Add", "h q", "y"), node("ArgMax", "y", "k", axis=1),
        node("Gather", "names k", "label"),
    ]  # fmt: skip
    graph = helper.make_graph(
        nodes, "two",
        [helper.make_tensor_value_info("photo", 1, ["n", *sizes]), helper.make_tensor_value_info("facts", 1, ["n", 6])],
        [helper.make_tensor_value_info(name, TensorProto.STRING if name == "label" else 1, None) for name in outputs],
        [numpy_helper.from_array(W, "w"), numpy_helper.from_array(V, "v"),
         helper.make_tensor("names", TensorProto.STRING, [4], [b"ant", b"bee", b"cow", b"dog"])],
    )  # fmt: skip
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=10)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("several")
    onnx.save(two_inputs(), folder / "two.onnx")
    onnx.save(two_inputs(outputs=("y", "label")), folder / "labelled.onnx")
    onnx.save(two_inputs(sizes=(3, "h", "w"), outputs=("y",)), folder / "open.onnx")
    np.savez(folder / "x.npz", extra=np.zeros(3), **X)
    np.savez(folder / "one.npz", photo=X["photo"])
    np.savez(folder / "uneven.npz", photo=X["photo"], facts=X["facts"][:2])
    np.save(folder / "x.npy", X["facts"])
    return folder


@pytest.fixture
def run(files: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Runs lrpfast in an empty folder; `@` in a name stands for `files`."""
    monkeypatch.chdir(tmp_path)

    def call(*arguments: str) -> Result:
        return CliRunner().invoke(main, [argument.replace("@", f"{files}/") for argument in arguments])

    return call


def succeeded(result: Result) -> Result:
    assert result.exit_code == 0, result.stderr
    return result


QUICK = ("--repeats", "1", "--json")


@pytest.mark.parametrize(
    "command", [("check", "@two.onnx"), ("inspect", "@two.onnx"), ("explain", "@two.onnx", "@x.npz", "--json"),
                ("bench", "@two.onnx", *QUICK)],
)  # fmt: skip
def test_an_output_has_to_be_named(run: Run, command: tuple[str, ...]) -> None:
    result = run(*command)
    assert result.exit_code == 1
    assert "it has 2 outputs, y, h" in result.stderr
    assert "hint: say --output NAME" in result.stderr
    succeeded(run(*command, "--output", "h"))
    assert "no output or other array 'z'" in run(*command, "--output", "z").stderr


def test_check_and_inspect_say_what_was_cut(run: Run) -> None:
    note = "y: explained, since it has the scores that label is made of"
    assert f"note: {note}" in succeeded(run("check", "@labelled.onnx")).stderr
    assert json.loads(succeeded(run("check", "@labelled.onnx", "--json")).stdout)["notes"] == [note]
    assert note in succeeded(run("inspect", "@labelled.onnx", "-s", "canonized")).stdout


def test_explanations_by_input(run: Run, files: Path, tmp_path: Path) -> None:
    arguments = ("-o", "heat/", "--save", "saved/", "-c", "epsilon_plus")
    result = succeeded(run("explain", "@labelled.onnx", "@x.npz", *arguments))
    assert (
        "drawn or written is the relevance of photo; --draw shows facts, and --save R.npz has all"
        in result.stderr
    )
    assert "left out 'extra', which is no input" in result.stderr
    explanation = lrpfast.explain(lrpfast.load(files / "labelled.onnx"), X, composite="epsilon_plus")
    for i in range(3):
        saved = lrpfast.Explanation.load(tmp_path / "saved" / f"x-{i}.npz")
        for name in X:
            np.testing.assert_array_equal(saved.relevance_of(name)[0], explanation.relevance_of(name)[i])
        with Image.open(tmp_path / "heat" / f"x-{i}.png") as drawn:
            np.testing.assert_array_equal(drawn, explanation.image(i, input="photo"))
    # The labels are the model's own, and can be chosen by.
    names = ["ant", "bee", "cow", "dog"]
    assert [line.split("\t")[1] for line in result.stdout.splitlines()] == [
        f"{t} {names[t]}" for t in explanation.target
    ]
    chosen = succeeded(run("explain", "@labelled.onnx", "@x.npz", "-t", "cow", "--json"))
    assert json.loads(chosen.stdout)["results"][0]["target"]["index"] == 2


def test_another_input_can_be_written(run: Run, files: Path, tmp_path: Path) -> None:
    arguments = ("explain", "@two.onnx", "@x.npz", "--output", "y", "--draw", "facts", "-c", "epsilon_plus")
    succeeded(run(*arguments, "-o", "facts.npy"))
    expected = lrpfast.explain(lrpfast.load(files / "two.onnx", output="y"), X, composite="epsilon_plus")
    np.testing.assert_array_equal(np.load(tmp_path / "facts.npy"), expected.relevance_of("facts"))
    assert (
        "--draw is 'fact', but the model's inputs are photo, facts"
        in run(*arguments, "--draw", "fact", "--json").stderr
    )


def test_shapes_by_name(run: Run) -> None:
    for given in (["photo:3x5x5"], ["photo:3,5,5,facts:6"], ["photo:3x5x5,facts:6"]):
        succeeded(run("check", "@open.onnx", "--input-shape", *given))
    succeeded(run("check", "@open.onnx", "--input-shape", "photo:3x5x5", "--input-shape", "facts:6"))
    for given, says, code in (
        (["photo:"], "expected positive whole numbers", 2),
        (["photo:3x0x5"], "or NAME:3x224x224 for each input", 2),
        (["3,5,5", "--input-shape", "photo:3x5x5"], "name the inputs: --input-shape NAME:3x224x224", 2),
        (["3,5,5", "--input-shape", "6"], "--input-shape is given more than once", 2),
        (["3,5,5"], "say --input-shape NAME:3x224x224", 1),
        (["image:3x5x5"], "its inputs are photo, facts", 1),
    ):
        result = run("check", "@open.onnx", "--input-shape", *given)
        assert result.exit_code == code
        assert says in result.stderr


@pytest.mark.parametrize(
    ("file", "says"),
    [
        ("@x.npy", "give an .npz file whose arrays are named like them, each with a batch axis"),
        ("@one.npz", "holds photo (3, 3, 5, 5); 'two.onnx' takes photo (3, 5, 5), facts (6,)"),
        ("@uneven.npz", "facts (2, 6); 'two.onnx' takes"),
    ],
)
def test_inputs_that_do_not_fit(run: Run, file: str, says: str) -> None:
    result = run("explain", "@two.onnx", file, "--output", "y", "--json")
    assert result.exit_code == 3
    assert says in result.stderr


def test_bench_of_several_inputs(run: Run) -> None:
    for given in ((), ("--input", "@x.npz", "--batch", "4")):
        document = json.loads(succeeded(run("bench", "@two.onnx", "--output", "h", *given, *QUICK)).stdout)
        assert document["input_shape"] == {"photo": [3, 5, 5], "facts": [6]}
        assert document["onnxruntime"] == "" and document["prediction_error"] < 1e-5
    shown = succeeded(run("bench", "@two.onnx", "--output", "h", "--repeats", "1", "--profile")).stdout
    assert "batches of 1 × (3×5×5, 6)" in shown
    inner = json.loads(succeeded(run("bench", "@two.onnx", "--output", "q", *QUICK)).stdout)
    assert inner["onnxruntime"].startswith("it cannot run this model") and inner["prediction_error"] is None
