"""The command line: what it prints where, what it writes, how it fails."""

from __future__ import annotations

import importlib
import json
import os
import signal
import subprocess
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
from small_networks import SMALL_NETWORKS, onnxruntime_forward, random_input

import lrpfast
from lrpfast import demo, preprocess
from lrpfast.cli import COMMANDS, main
from lrpfast.cli.composing import box_at_first
from lrpfast.cli.console import fitted, shorten
from lrpfast.cli.labels import parse_labels

Run = Callable[..., Result]
SOURCE = str(Path(lrpfast.__file__).parents[1])


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of models, pictures and arrays, good ones and bad ones."""
    folder = tmp_path_factory.mktemp("files")
    for name in ("mlp", "small_cnn", "nhwc_cnn", "cnn_1d", "branches"):
        model = SMALL_NETWORKS[name]()
        onnx.save(model, folder / f"{name}.onnx")
        np.save(folder / f"{name}.npy", random_input(model))
    labelled = SMALL_NETWORKS["mlp"]()
    labels = ["ant", "bee, honey bee", "cat", "cat", "tiger cat"]
    labelled.metadata_props.add(key="labels", value=json.dumps(labels))
    onnx.save(labelled, folder / "labelled.onnx")
    (folder / "labels.txt").write_text("\n".join(f"class {i}" for i in range(10)) + "\n")
    pixels = np.random.default_rng(0).integers(0, 256, (40, 60, 3), np.uint8)
    Image.fromarray(pixels).save(folder / "photo.png")
    Image.fromarray(pixels[::-1]).save(folder / "photo.jpg")

    whole = (folder / "mlp.onnx").read_bytes()
    (folder / "text.onnx").write_text("this is not a model")
    (folder / "truncated.onnx").write_bytes(whole[: len(whole) // 2])
    odd = [node("Relu", "x", "h"), node("Det", "h", "d"), node("NonZero", "d", "y")]
    onnx.save(model_of(odd, ["n", 4, 4]), folder / "unknown.onnx")
    open_shape = model_of([node("Relu", "x")], ["n", "c", "h", "w"])
    onnx.save(open_shape, folder / "open.onnx")
    weight = np.full((8, 3), 1e30, np.float32)
    onnx.save(model_of([node("MatMul", "x w")], ["n", 8], {"w": weight}), folder / "huge.onnx")
    weight[0, 0] = np.nan
    onnx.save(model_of([node("MatMul", "x w")], ["n", 8], {"w": weight}), folder / "nan.onnx")
    conv = model_of([node("Conv", "x w")], ["n", 3, 8, 8], {"w": np.ones((2, 3, 3, 3), np.float32)})
    onnx.save(conv, folder / "map.onnx")
    flat = [node("Flatten", "x", "f"), node("MatMul", "f w")]
    square = model_of(flat, ["n", 6, 6], {"w": np.ones((36, 3), np.float32)})
    onnx.save(square, folder / "square.onnx")
    np.save(folder / "square.npy", np.ones((6, 6), np.float32))

    x = np.ones((2, 8), np.float32)
    x[1, 3] = np.nan
    np.save(folder / "nan.npy", x)
    np.save(folder / "huge.npy", np.full((1, 8), 1e30, np.float32))
    np.save(folder / "wide.npy", np.ones((2, 9), np.float32))
    np.save(folder / "complex.npy", np.ones((2, 8), np.complex64))
    np.savez(folder / "several.npz", a=np.ones((2, 8)), b=np.zeros(8), y=np.arange(3))
    (folder / "broken.npy").write_bytes((folder / "mlp.npy").read_bytes()[:100])
    (folder / "broken.png").write_bytes((folder / "photo.png").read_bytes()[:500])
    (folder / "preprocess.json").write_text('{"mean": [1, 2], "colour": "RGB"}')
    (folder / "few.txt").write_text("a\nb\n")
    (folder / "labels.json").write_text('{"a": "b"}')
    return folder


@pytest.fixture
def run(files: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Runs the command line in an empty folder; the first word of a name, `@`, stands for `files`."""
    monkeypatch.chdir(tmp_path)

    def call(*arguments: str, **options: Any) -> Result:
        expanded = [argument.replace("@", f"{files}/") for argument in arguments]
        return CliRunner(**options).invoke(main, expanded)

    return call


def start(*arguments: str, **options: Any) -> subprocess.Popen[str]:
    """The command line as a process of its own."""
    environment = {**os.environ, "PYTHONPATH": SOURCE, **options.pop("env", {})}
    return subprocess.Popen(
        [sys.executable, "-m", "lrpfast", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
        **options,
    )


def succeeded(result: Result) -> Result:
    """The result, of a command that must not have failed."""
    assert result.exit_code == 0, result.stderr
    return result


# --- the command itself ---


def test_module_runs_as_a_process() -> None:
    process = start("--version")
    out, err = process.communicate()
    assert (process.returncode, out, err) == (0, f"lrpfast {lrpfast.__version__}\n", "")


def test_help_is_quick_to_load() -> None:
    heavy = ("onnx", "numba", "PIL", "matplotlib", "torch")
    code = f"import sys, lrpfast.cli; print([m for m in {heavy} if m in sys.modules])"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True,
                           env={**os.environ, "PYTHONPATH": SOURCE}, check=True)  # fmt: skip
    assert found.stdout == "[]\n"


@pytest.mark.parametrize("command", [None, *COMMANDS])
def test_help_fits_80_columns_and_has_examples(run: Run, command: str | None) -> None:
    result = succeeded(run(*filter(None, (command, "--help"))))
    assert result.stderr == ""
    assert max(map(len, result.stdout.splitlines())) <= 80
    assert "  lrpfast " in result.stdout or command == "doctor"


def test_help_documents_the_exit_codes(run: Run) -> None:
    text = run("--help").stdout
    assert all(f"\n    {code:<5}" in text for code in (0, 1, 2, 3, 4, 5, 6, 130))
    assert list(COMMANDS) == [
        "explain", "batch", "check", "inspect", "composites", "rules", "bench", "doctor", "demo"
    ]  # fmt: skip


def test_colors_appear_only_where_wanted(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    plain = run("check", "@no.onnx")
    assert "\x1b" not in plain.stderr
    monkeypatch.setenv("NO_COLOR", "1")
    assert "\x1b" not in run("rules").stdout


def test_cells_are_shortened_in_the_middle() -> None:
    assert shorten("/features.0/conv/Conv", 12) == "/featu…/Conv"
    assert shorten("short", 5) == "short"
    assert fitted([30, 10, 20], 50) == [18, 10, 18]
    assert fitted([10, 10], 80) == [10, 10]


# --- explain ---


def test_explains_a_picture(run: Run, files: Path) -> None:
    result = succeeded(
        run("explain", "@small_cnn.onnx", "@photo.png", "-o", "heat.png", "--labels", "@labels.txt")
    )
    array, _ = preprocess.prepare(
        preprocess.read_image(files / "photo.png"), (3, 16, 16), preprocess.PREPROCESSINGS["imagenet"]
    )
    probabilities = onnxruntime_forward(SMALL_NETWORKS["small_cnn"](), array[None])[0]
    target = int(probabilities.argmax())
    name, label, _, probability, output = result.stdout.rstrip("\n").split("\t")
    assert (name, label, output) == (f"{files}/photo.png", f"{target} class {target}", "heat.png")
    assert float(probability) == pytest.approx(probabilities[target], abs=6e-5)
    explanation = lrpfast.explain(lrpfast.load(files / "small_cnn.onnx"), array[None])
    np.testing.assert_array_equal(np.asarray(Image.open("heat.png")), np.asarray(explanation.image()))
    assert result.stderr.startswith("note: pictures are preprocessed as for ImageNet; ")
    assert result.stderr.count("\n") == 1


def test_relevance_of_an_array_has_its_shape(run: Run, files: Path) -> None:
    x = np.load(files / "cnn_1d.npy")
    np.save("one.npy", x[0])
    expected = lrpfast.explain(lrpfast.load(files / "cnn_1d.onnx"), x).relevance
    for source, shape in (("@cnn_1d.npy", x.shape), ("one.npy", x.shape[1:])):
        result = succeeded(run("explain", "@cnn_1d.onnx", source, "-o", "new/r.npy"))
        relevance = np.load("new/r.npy")
        assert relevance.shape == shape
        np.testing.assert_allclose(relevance, expected if relevance.ndim == 3 else expected[0], rtol=1e-5)
        assert result.stderr == ""
    assert os.listdir("new") == ["r.npy"]


def test_several_inputs_go_into_a_folder(run: Run) -> None:
    result = succeeded(run("explain", "@small_cnn.onnx", "@small_cnn.npy", "@photo.png", "@photo.jpg",
                           "-o", "heat", "--save", "all/", "--preprocess", "tf"))  # fmt: skip
    names = ["small_cnn-0", "small_cnn-1", "small_cnn-2", "photo", "photo-2"]
    lines = [line.split("\t") for line in result.stdout.splitlines()]
    assert [line[4] for line in lines] == [f"heat/{name}.png" for name in names]
    assert [line[5] for line in lines] == [f"all/{name}.npz" for name in names]
    assert lines[1][0].endswith("/small_cnn.npy[1]")
    assert sorted(os.listdir("heat")) == sorted(f"{name}.png" for name in names)
    saved = [lrpfast.Explanation.load(f"all/{name}.npz") for name in names]
    assert {explanation.relevance.shape for explanation in saved} == {(1, 3, 16, 16)}
    assert [f"{e.output[0, e.target[0]]:.5g}" for e in saved] == [line[2] for line in lines]
    assert result.stderr == ""


def test_arrays_of_an_npz_that_do_not_fit_are_named(run: Run) -> None:
    result = succeeded(run("explain", "@mlp.onnx", "@several.npz", "-o", "r/"))
    assert sorted(os.listdir("r")) == ["several-a-0.png", "several-a-1.png", "several-b.png"]
    assert "left out 'y', whose shape (3,) is not the network's" in result.stderr
    assert result.stdout.splitlines()[1].split("\t")[0].endswith("several.npz:a[1]")


def test_names_inside_an_npz_cannot_leave_the_folder(run: Run, tmp_path: Path) -> None:
    np.savez("evil.npz", **{"../../out": np.ones(8), "b/c": np.ones(8)})
    succeeded(run("explain", "@mlp.onnx", "evil.npz", "-o", "r/"))
    assert sorted(os.listdir("r")) == ["evil-.._.._out.png", "evil-b_c.png"]
    assert sorted(os.listdir(tmp_path)) == ["evil.npz", "r"]


def test_json_says_what_was_found(run: Run, files: Path) -> None:
    result = succeeded(run("explain", "@labelled.onnx", "@mlp.npy", "--json", "--init", "probability"))
    document = json.loads(result.stdout)
    assert document["composite"] == "epsilon_plus_flat"
    assert document["init"] == "probability"
    probabilities = onnxruntime_forward(str(files / "mlp.onnx"), np.load(files / "mlp.npy"))
    labels = ["ant", "bee, honey bee", "cat", "cat", "tiger cat"]
    for i, (found, expected) in enumerate(zip(document["results"], probabilities, strict=True)):
        order = np.argsort(-expected)
        assert found["index"] == i
        assert [entry["index"] for entry in found["top"]] == list(order)
        assert [entry["probability"] for entry in found["top"]] == pytest.approx(
            list(expected[order]), abs=1e-6
        )
        assert found["target"] == found["top"][0]
        assert found["target"]["label"] == labels[order[0]]
        assert found["conservation_worst"] < 1e-5
        assert found["outputs"] == []


@pytest.mark.parametrize("target", ["bee", "Honey Bee", "bee, honey bee", "1"])
def test_target_is_a_number_or_a_label(run: Run, target: str) -> None:
    document = json.loads(
        succeeded(run("explain", "@labelled.onnx", "@mlp.npy", "--json", "-t", target)).stdout
    )
    assert [result["target"]["index"] for result in document["results"]] == [1, 1, 1]


@pytest.mark.parametrize(
    ("text", "labels"),
    [
        ("a\nb b\n\n", ["a", "b b"]),
        ('["a", "b"]', ["a", "b"]),
        ('{"1": "b", "0": "a"}', ["a", "b"]),
        ('{"0": ["n01", "a"], "1": ["n02", "b"]}', ["a", "b"]),
        ('{"b": 1, "a": 0}', ["a", "b"]),
        ('{"1": "b"}', None),
        ('["a"', None),
    ],
)
def test_labels_come_in_many_forms(text: str, labels: list[str] | None) -> None:
    assert parse_labels(text) == labels


@pytest.mark.parametrize(("option", "size"), [("--overlay", (224, 224)), ("--side-by-side", None)])
def test_pictures_beside_or_under_the_heatmap(run: Run, option: str, size: tuple[int, int] | None) -> None:
    base = ("explain", "@small_cnn.onnx", "@photo.png", "--preprocess", "imagenet")
    succeeded(run(*base, "-o", "plain.png"))
    succeeded(run(*base, "-o", "with.png", option, "--cmap", "bwr"))
    plain, other = Image.open("plain.png"), Image.open("with.png")
    assert other.size == size if size else other.width > 2 * plain.width
    assert not np.array_equal(np.asarray(plain), np.asarray(other))


def test_box_follows_from_the_preprocessing(run: Run, files: Path) -> None:
    """Channels last: the box stands before a Transpose, the z^B rule behind it."""
    succeeded(run("explain", "@nhwc_cnn.onnx", "@photo.png", "-o", "r.npy", "-c", "epsilon_gamma_box"))
    kind = preprocess.PREPROCESSINGS["imagenet"]
    x, _ = preprocess.prepare(preprocess.read_image(files / "photo.png"), (12, 12, 3), kind)
    mean, std = (np.reshape(values, (3, 1, 1)) for values in (kind.mean, kind.std))
    composite = lrpfast.composite("epsilon_gamma_box", low=(0 - mean) / std, high=(1 - mean) / std)
    expected = lrpfast.explain(lrpfast.load(files / "nhwc_cnn.onnx"), x[None], composite=composite).relevance[
        0
    ]
    np.testing.assert_allclose(np.load("r.npy"), expected, atol=1e-5 * np.abs(expected).max())


def test_box_goes_through_a_normalisation(files: Path) -> None:
    """The network begins with `(x - mean) / std`."""
    graph = lrpfast.load(files / "branches.onnx").canonized().graph
    low, high = box_at_first(graph, "convolution", 0.0, 2.0)
    mean, std = np.reshape([0.1, 0.2, 0.3], (3, 1, 1)), np.reshape([0.8, 0.9, 1.1], (3, 1, 1))
    np.testing.assert_allclose(low, (0 - mean) / std, rtol=1e-6)
    np.testing.assert_allclose(high, (2 - mean) / std, rtol=1e-6)


def test_parameters_reach_the_rules(run: Run, files: Path) -> None:
    engine = ("--dtype", "float64", "--backend", "numpy", "--threads", "1", "--max-memory", "1.5GiB")
    succeeded(run("explain", *MLP, "-o", "r.npy", "-c", "epsilon_plus", "-p", "epsilon=0.5", *engine))
    composite = lrpfast.composite("epsilon_plus", epsilon=0.5)
    network, x = lrpfast.load(files / "mlp.onnx"), np.load(files / "mlp.npy")
    expected = lrpfast.explain(network, x, composite=composite, dtype=np.float64, backend="numpy").relevance
    np.testing.assert_allclose(np.load("r.npy"), expected, rtol=1e-12)


def test_network_without_a_shape_needs_the_option(run: Run, tmp_path: Path) -> None:
    np.save("x.npy", np.ones((3, 4, 5), np.float32))
    refused = run("explain", "@open.onnx", "x.npy", "--json")
    assert refused.exit_code == 1
    assert "hint: say --input-shape" in refused.stderr
    result = run("inspect", "@open.onnx", "--input-shape", "3,4,5")
    assert "3×4×5" in succeeded(result).stdout


# --- explain: what is refused ---

PHOTO = ("@small_cnn.onnx", "@photo.png")
MLP = ("@mlp.onnx", "@mlp.npy")
OUT = ("-o", "out/")

BAD: list[tuple[str, Sequence[str], int, str]] = [
    ("no such model", ("@no.onnx", "@photo.png", *OUT), 1, "there is no model"),
    ("model is a folder", (".", "@photo.png", *OUT), 1, "is a folder"),
    ("not ONNX", ("@text.onnx", "@photo.png", *OUT), 1, "text.onnx' is "),
    ("model is a picture", ("@photo.jpg", "@photo.png", *OUT), 1, "not an ONNX model but a JPEG image"),
    ("truncated model", ("@truncated.onnx", "@mlp.npy", *OUT), 1, "truncated"),
    ("unknown operators", ("@unknown.onnx", "@mlp.npy", *OUT), 1, "Det"),
    ("NaN in weights", ("@nan.onnx", "@mlp.npy", *OUT), 1, "NaN"),
    ("output is a map", ("@map.onnx", "@photo.png", *OUT), 1, "no list of classes"),
    ("prediction overflows", ("@huge.onnx", "@huge.npy", "--json"), 1, "huge.npy[0]: the prediction is"),
    ("unfit input shape", (*MLP, *OUT, "--input-shape", "9"), 1, "input_shape"),
    ("no output", MLP, 2, "there is nothing to write"),
    ("no input", ("@mlp.onnx", *OUT), 2, "Missing argument 'INPUT...'"),
    ("unknown option", (*MLP, *OUT, "--fast"), 2, "No such option"),
    ("unknown composite", (*MLP, *OUT, "-c", "epsilon_pluss"), 2, "unknown composite 'epsilon_pluss'"),
    ("unknown parameter", (*MLP, *OUT, "-p", "gamma=1"), 2, "has no parameter 'gamma'"),
    ("parameter without value", (*MLP, *OUT, "-p", "epsilon"), 2, "expected NAME=VALUE"),
    ("word for a number", (*MLP, *OUT, "-p", "bias=no"), 2, "--param is 'bias=no'; expected bias=NUMBER"),
    ("number for a word", (*MLP, *OUT, "-p", "sums=1"), 2, "sums is 1.0; expected one of norm, abs"),
    ("unknown policy", (*MLP, *OUT, "--on-blowup", "warm"), 2, "unknown policy 'warm'"),
    ("threshold below one", (*MLP, *OUT, "--blowup", "0.5"), 2, "--blowup"),
    ("negative epsilon", (*MLP, *OUT, "-p", "epsilon=-1"), 2, "epsilon is -1.0"),
    ("box without bounds", (*MLP, *OUT, "-c", "deep_taylor_bounded"), 2, "needs the bounds"),
    ("empty box", (*MLP, *OUT, "-c", "deep_taylor_bounded", "--low", "2", "--high", "1"), 2, "low=2 is"),
    ("target too large", (*MLP, *OUT, "-t", "5"), 2, "target is 5; the network has 5 outputs"),
    ("negative target", (*MLP, *OUT, "-t", "-1"), 2, "target is -1"),
    ("no labels", (*MLP, *OUT, "-t", "cat"), 2, "the outputs have no labels"),
    ("unknown label", ("@labelled.onnx", "@mlp.npy", *OUT, "-t", "dog"), 2, "no output is called 'dog'"),
    ("ambiguous label", ("@labelled.onnx", "@mlp.npy", *OUT, "-t", "cat"), 2, "could be any of 2"),
    ("unknown init", (*MLP, *OUT, "--init", "two"), 2, "unknown init 'two'"),
    ("unknown preprocessing", (*PHOTO, *OUT, "--preprocess", "imagnet"), 2, "preprocessing 'imagnet'"),
    ("no backend", (*MLP, *OUT, "--backend", "cuda"), 2, "unknown backend 'cuda'"),
    ("no threads", (*MLP, *OUT, "--threads", "0"), 2, "'--threads': 0"),
    ("no size", (*MLP, *OUT, "--max-memory", "much"), 2, "--max-memory is 'much'; expected a size"),
    ("too little memory", (*MLP, *OUT, "--max-memory", "100"), 2, "max_memory is 100 bytes, but one sample"),
    ("float16", (*MLP, *OUT, "--dtype", "float16"), 2, "unknown dtype 'float16'"),
    ("shape of zeros", (*MLP, *OUT, "--input-shape", "3,0"), 2, "--input-shape is '3,0'"),
    ("one picture for three", ("@small_cnn.onnx", "@small_cnn.npy", "-o", "a.png"), 2, "there are 3 samples"),
    ("a picture of a square", ("@square.onnx", "@square.npy", "-o", "a.png"), 2, "(6, 6) is no picture"),
    ("unknown suffix", (*PHOTO, "-o", "a.gif"), 2, "--out is 'a.gif'"),
    ("overlay of nothing", (*PHOTO, "-o", "a.npy", "--overlay"), 2, "--overlay needs a picture"),
    ("no such picture", ("@small_cnn.onnx", "@no.png", *OUT), 3, "No such file"),
    ("no such array", ("@mlp.onnx", "@no.npy", *OUT), 3, "No such file"),
    ("broken picture", ("@small_cnn.onnx", "@broken.png", *OUT), 3, "cannot read the image"),
    ("broken array", ("@mlp.onnx", "@broken.npy", *OUT), 3, "cannot read arrays"),
    ("text as a picture", ("@small_cnn.onnx", "@labels.txt", *OUT), 3, "cannot read the image"),
    ("wrong shape", ("@mlp.onnx", "@wide.npy", *OUT), 3, "'mlp.onnx' takes samples of shape (8,)"),
    ("wrong dtype", ("@mlp.onnx", "@complex.npy", *OUT), 3, "dtype complex64"),
    ("NaN in x", ("@mlp.onnx", "@nan.npy", *OUT), 3, "x holds nan"),
    ("picture for signals", ("@cnn_1d.onnx", "@photo.png", *OUT), 3, "samples of shape (2, 40)"),
    ("a folder", ("@mlp.onnx", ".", *OUT), 3, "is a folder"),
    ("bad preprocessing", (*PHOTO, *OUT, "--preprocess", "@preprocess.json"), 3, "unknown keys 'colour'"),
    ("too few labels", (*MLP, *OUT, "--labels", "@few.txt"), 3, "has 2 labels; the network has 5 outputs"),
    ("no labels file", (*MLP, *OUT, "--labels", "@no.txt"), 3, "cannot read the labels"),
    ("odd labels", (*MLP, *OUT, "--labels", "@labels.json"), 3, "not in a form that is known"),
    ("unwritable", (*PHOTO, "-o", "x.npy/heat.png"), 4, "cannot write into 'x.npy'"),
    ("unwritable save", (*PHOTO, "--save", "x.npy/r.npz"), 4, "cannot write into 'x.npy'"),
]  # fmt: skip


@pytest.mark.parametrize(("arguments", "code", "message"), [b[1:] for b in BAD], ids=[b[0] for b in BAD])
def test_bad_arguments_are_refused(
    run: Run, tmp_path: Path, arguments: Sequence[str], code: int, message: str
) -> None:
    np.save("x.npy", np.ones(8, np.float32))
    result = run("explain", *arguments)
    assert result.exit_code == code, result.stderr
    errors = [line for line in result.stderr.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1
    assert message in result.stderr
    assert "Traceback" not in result.stderr
    assert result.stdout == ""
    assert os.listdir(tmp_path) == ["x.npy"]


def test_all_inputs_are_checked_before_the_first_is_explained(run: Run, tmp_path: Path) -> None:
    result = run("explain", "@small_cnn.onnx", "@photo.png", "@broken.png", *OUT)
    assert (result.exit_code, result.stdout) == (3, "")
    assert os.listdir(tmp_path) == []


def test_inputs_are_not_overwritten(run: Run, files: Path) -> None:
    Image.open(files / "photo.png").save("photo.png")
    before = Path("photo.png").read_bytes()
    for out in ("photo.png", ".", "../" + Path.cwd().name):
        result = run("explain", "@small_cnn.onnx", "photo.png", "-o", out)
        assert result.exit_code == 2
        assert "is an input and would be overwritten" in result.stderr
        assert Path("photo.png").read_bytes() == before


@pytest.mark.parametrize(
    ("arguments", "hint"),
    [
        ((*MLP, *OUT, "-c", "epsilon_pluss"), "did you mean epsilon_plus or epsilon_plus_flat?"),
        ((*MLP, *OUT, "-p", "gamma=1"), "its parameters are epsilon, stabilizer, bias, sums"),
        ((*MLP, *OUT, "-t", "9"), "choose from 0 to 4"),
        (("@labelled.onnx", "@mlp.npy", *OUT, "-t", "honey"), "did you mean 'bee, honey bee'?"),
        (("@labelled.onnx", "@mlp.npy", *OUT, "-t", "cat"), "give its number: 2 (cat), 3 (cat)"),
        ((*MLP, "-o", "a.npz"), "write a.npz/ if it is to be a folder"),
        ((*PHOTO, *OUT, "--preprocess", "imagnet"), "did you mean imagenet? (a .json file will do too)"),
        (("@huge.onnx", "@huge.npy", "--json"), "--dtype float64 has more range"),
        (("@mlp.onnx",), "`lrpfast explain --help` shows how it is used"),
    ],
)
def test_errors_come_with_a_cure(run: Run, arguments: Sequence[str], hint: str) -> None:
    assert f"hint: {hint}\n" in run("explain", *arguments).stderr


def test_debug_shows_the_traceback(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LRPFAST_DEBUG", "1")
    result = run("explain", "@mlp.onnx", "@nan.npy", *OUT)
    assert result.exit_code == 3
    assert "Traceback" in result.stderr
    assert "error: " in result.stderr


def test_a_bug_is_called_a_bug(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    module = importlib.import_module("lrpfast.cli.explain")
    monkeypatch.setattr(module, "find_samples", lambda *_: 1 / 0)
    result = run("explain", *MLP, *OUT)
    assert result.exit_code == 1
    assert result.stderr.startswith("error: ZeroDivisionError: division by zero\nhint: this is a bug")


@pytest.mark.skipif(os.name == "nt", reason="signals are sent as POSIX has them")
def test_interrupt_stops_at_once_and_leaves_whole_files(files: Path, tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", np.zeros((3_000, 3, 16, 16), np.uint8))
    process = start("explain", str(files / "small_cnn.onnx"), "x.npy", "-o", "out", cwd=tmp_path)
    assert process.stdout is not None
    process.stdout.readline()
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=30)
    assert process.returncode == 130
    assert err.strip() == "error: interrupted"
    written = sorted((tmp_path / "out").iterdir())
    assert 1 <= len(written) < 3_000
    for path in written:
        assert path.suffix == ".png"
        Image.open(path).load()


def test_a_closed_pipe_is_no_traceback() -> None:
    process = start("rules")
    assert process.stdout is not None and process.stderr is not None
    process.stdout.close()
    assert "Traceback" not in process.stderr.read()
    process.stderr.close()
    process.wait()


# --- check and inspect ---


def test_check_gives_every_node_its_rule_and_reason(run: Run) -> None:
    result = succeeded(run("check", "@mlp.onnx"))
    assert result.stdout == (
        "node      op    rule       reason\n"
        "gemm_0    Gemm  Flat()     first linear\n"
        "relu_1    Relu  Pass()     activation\n"
        "gemm_2    Gemm  Epsilon()  dense\n"
        "relu_3    Relu  Pass()     activation\n"
        "matmul_4  Gemm  Epsilon()  dense\n"
    )
    assert result.stderr == "note: mlp.onnx can be explained: epsilon_plus_flat has a rule for all 5 nodes\n"
    document = json.loads(succeeded(run("check", "@mlp.onnx", "--json")).stdout)
    assert document["ok"] is True
    assert document["rules"][0] == {
        "node": "gemm_0",
        "op": "Gemm",
        "rule": "Flat()",
        "reason": "first linear",
    }


def test_check_lists_what_stands_in_the_way(run: Run) -> None:
    result = run("check", "@unknown.onnx")
    assert result.exit_code == 1
    assert [word in result.stdout for word in ("Det", "NonZero", "Relu")] == [True, True, False]
    assert result.stderr.startswith("error: ")
    assert "support" in result.stderr and "Det" not in result.stderr
    assert "\nhint: " in result.stderr
    document = json.loads(run("check", "@unknown.onnx", "--json").stdout)
    assert (document["ok"], len(document["refusals"])) == (False, 2)


def test_check_lists_nodes_without_a_rule(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    only_dense = lrpfast.Composite("only_dense", (("dense", lrpfast.Epsilon()),))
    monkeypatch.setitem(lrpfast.COMPOSITES, "epsilon_plus_flat", lambda: only_dense)
    result = run("check", "@mlp.onnx")
    assert result.exit_code == 1
    assert [line.split()[0] for line in result.stdout.splitlines()] == ["relu_1", "relu_3"]
    assert "error: composite 'only_dense' does not cover this network" in result.stderr


def test_check_shows_a_box_composite_without_bounds(run: Run) -> None:
    result = succeeded(run("check", "@small_cnn.onnx", "-c", "epsilon_gamma_box"))
    assert "ZBox(low=0.0, high=1.0)  first convolution" in result.stdout
    assert "shown for inputs from 0 to 1" in result.stderr


def test_inspect_prints_the_stages(run: Run) -> None:
    graph = succeeded(run("inspect", "@mlp.onnx")).stdout.splitlines()
    assert graph[1:3] == ["(x)                           8", "gemm_0     Gemm     (x)       16"]
    assert graph[-1] == "softmax_6  Softmax  add_5     5       ≥ 0"
    canonized = succeeded(run("inspect", "@mlp.onnx", "--stage", "canonized")).stdout
    assert "softmax_6: cut off; relevance starts at the logits\n" in canonized
    assert "add_5: folded into matmul_4 before it\n" in canonized
    assert "\nmax|Δforward| = " in canonized
    assert "\nsoftmax_6 " not in canonized
    assert succeeded(run("inspect", "@mlp.onnx", "-s", "rules")).stdout == run("check", "@mlp.onnx").stdout
    plan = succeeded(run("inspect", "@mlp.onnx", "-s", "plan", "-c", "epsilon_plus")).stdout
    steps = [line.split(maxsplit=3) for line in plan.splitlines()[1:]]
    assert [step[1:] for step in steps if step[0] == "forward"] == [
        ["gemm_0", "gemm_forward", "with relu_1"], ["gemm_2", "gemm_forward", "with relu_3"],
        ["matmul_4", "gemm_forward"],
    ]  # fmt: skip
    assert [step[1:3] for step in steps if step[0] == "vjp"][:3] == [
        ["matmul_4", kernel] for kernel in ("sums", "divide", "gemm_vjp")
    ]
    assert "denominator is the layer's output" in plan


def test_inspect_prints_json(run: Run) -> None:
    for name in ("branches", "small_cnn"):
        nodes = json.loads(succeeded(run("inspect", f"@{name}.onnx", "--json")).stdout)["nodes"]
        assert {"name", "op", "inputs", "output", "shape", "parameters", "attributes"} < nodes[0].keys()
    canonized = json.loads(succeeded(run("inspect", "@small_cnn.onnx", "-s", "canonized", "--json")).stdout)
    assert canonized["output_shape"] == [10]
    assert 0 < canonized["max_forward_difference"] < 1e-5
    assert len(canonized["changes"]) == 3  # two batch normalizations, one Softmax
    plan = json.loads(succeeded(run("inspect", "@small_cnn.onnx", "-s", "plan", "--json")).stdout)
    assert {step["pass"] for step in plan["steps"]} == {"forward", "vjp"}
    assert succeeded(run("inspect", "@small_cnn.onnx", "-s", "rules", "--json")).stdout.startswith("{")


# --- the others ---


@pytest.mark.parametrize(
    ("command", "registry"), [("rules", lrpfast.RULES), ("composites", lrpfast.COMPOSITES)]
)
def test_lists_name_everything_with_its_parameters(run: Run, command: str, registry: dict[str, Any]) -> None:
    text = succeeded(run(command)).stdout
    assert [line.split("(")[0] for line in text.splitlines() if line[0] != " "] == list(registry)
    assert max(map(len, text.splitlines())) <= 84
    entries = json.loads(succeeded(run(command, "--json")).stdout)
    assert [entry["name"] for entry in entries] == list(registry)
    assert all(entry["doc"] for entry in entries)
    parameters = {entry["name"]: entry["parameters"] for entry in entries}
    if command == "rules":
        assert parameters["Gamma"] == {"gamma": 0.25, "stabilizer": 1e-6, "bias": True}
    else:
        assert parameters["deep_taylor_bounded"] == {"low": None, "high": None, "stabilizer": 1e-6}


def test_doctor_says_what_runs_and_why(run: Run) -> None:
    found = json.loads(succeeded(run("doctor", "--json")).stdout)
    assert found["used"] == lrpfast.backends.get().name
    assert found["backends"]["numpy"] == {"available": True, "reason": ""}
    assert found["threads"]["count"] == lrpfast.get_num_threads()
    assert found["packages"]["numpy"] == np.__version__
    assert found["operators"] == list(lrpfast.OPERATORS)
    text = succeeded(run("doctor")).stdout
    assert f"  {found['used']:<9} used, since " in text
    assert max(map(len, text.splitlines())) <= 80


@pytest.mark.parametrize("variable", ["LRPFAST_BACKEND", "LRPFAST_TARGET"])
def test_doctor_survives_a_wrong_environment(variable: str) -> None:
    if variable == "LRPFAST_TARGET" and lrpfast.backends.available()["native"]:
        pytest.skip("SIMD targets belong to the native backend, which is not built here")
    environment = {"LRPFAST_BACKEND": "", "LRPFAST_TARGET": "", variable: "abacus"}
    process = start("doctor", env=environment)
    out, err = process.communicate()
    assert process.returncode == 1
    assert "abacus" in err and "Traceback" not in err
    assert "  numpy     can run" in out


def test_doctor_says_where_the_threads_come_from() -> None:
    out, _ = start("doctor", "--json", env={"OMP_NUM_THREADS": "3"}).communicate()
    assert json.loads(out)["threads"] == {"count": 3, "from": "OMP_NUM_THREADS=3"}


def test_demo_explains_the_embedded_samples(run: Run) -> None:
    result = succeeded(run("demo", "-o", "new/demo.png"))
    head, *rows = result.stdout.splitlines()
    _, classes = demo.samples()
    assert head.split() == ["picture", "network", "says", "probability", "score"]
    assert len(rows) == len(classes)
    assert all(row.startswith(demo.LABELS[i]) for row, i in zip(rows, classes, strict=True))
    picture = np.asarray(Image.open("new/demo.png").convert("RGB")).astype(int)
    assert picture.shape[0] > 600 and picture.shape[1] > 1000
    red, _, blue = np.moveaxis(picture, -1, 0)
    assert (red - blue > 100).any() and (blue - red > 100).any()
    assert result.stderr.endswith("look at new/demo.png\n")
    assert run("demo", "-o", "demo.txt").exit_code == 2
