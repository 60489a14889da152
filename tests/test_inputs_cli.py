"""Texts, signals and tables on the command line, and all that docs/inputs.md says of them."""

from __future__ import annotations

import importlib
import json
import os
import re
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from click.testing import CliRunner, Result
from PIL import Image
from small_networks import SMALL_NETWORKS, random_input
from text_models import PLAIN, expected, text_model, write_vocabularies

import lrpfast
from lrpfast.cli import main

Run = Callable[..., Result]
DOCS = Path(__file__).parents[1] / "docs" / "inputs.md"
NAMES = ("age", "weight", "height", "pulse", "sodium", "potassium", "iron", "sugar")
REVIEW = "The film was not good, but GREAT!\n"
READ = ["the", "film", "was", "not", "good", ",", "[UNK]", "great", "!"]
IDS = [PLAIN.index(word) for word in READ]


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("inputs")
    onnx.save(text_model(12), folder / "sentiment.onnx")
    onnx.save(text_model("length"), folder / "open.onnx")
    onnx.save(text_model("length", mask=True), folder / "masked.onnx")
    write_vocabularies(folder)
    (folder / "review.txt").write_text(REVIEW)
    np.save(folder / "ids.npy", [[4, 11, 6, *[0] * 9], [4, 9, 6, *[0] * 9]])
    for name, network in (("table", "mlp"), ("signals", "cnn_1d")):
        model = SMALL_NETWORKS[network]()
        onnx.save(model, folder / f"{name}.onnx")
        np.save(folder / f"{name}.npy", random_input(model, samples=2))
    (folder / "names.txt").write_text("\n".join(NAMES))
    write_csv(folder / "patients.csv", NAMES, np.load(folder / "table.npy"))
    write_csv(folder / "signal.csv", ("left", "right"), np.load(folder / "signals.npy")[0].T)
    return folder


def write_csv(path: Path, names: tuple[str, ...], rows: Any) -> None:
    lines = [",".join(names), *(",".join(repr(float(value)) for value in row) for row in rows)]
    path.write_text("\n".join(lines) + "\n")


@pytest.fixture
def run(files: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Runs `lrpfast explain` in an empty folder; `@` in a name stands for `files`."""
    monkeypatch.chdir(tmp_path)

    def call(*arguments: str, **options: Any) -> Result:
        expanded = [argument.replace("@", f"{files}/") for argument in arguments]
        return CliRunner().invoke(main, ["explain", *expanded], **options)

    return call


def succeeded(result: Result) -> Result:
    assert result.exit_code == 0, result.stderr
    return result


def tokens_of(result: Result, index: int = 0) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(succeeded(result).stdout)["results"][index]["tokens"]
    return found


OPEN, VOCAB = "@open.onnx", ("--tokens", "@vocab.txt")


# --- texts ---


def test_text_is_explained_token_by_token(run: Run) -> None:
    result = run(OPEN, "@review.txt", *VOCAB, "--json", "-t", "positive", "--dtype", "float64")
    found = tokens_of(result)
    assert [token["id"] for token in found] == IDS
    np.testing.assert_allclose([token["relevance"] for token in found], expected(IDS, 1), rtol=1e-3)
    assert json.loads(result.stdout)["composite"] == "epsilon_plus"
    assert "not in the vocabulary, and read as unknown: 'but'" in result.stderr


def test_words_are_printed_where_nothing_is_written(run: Run) -> None:
    result = succeeded(run(OPEN, "--sentence", "a great film", "--sentence", "bad!", *VOCAB))
    head, *rest = result.stdout.splitlines()
    assert head.split("\t")[0] == "text 1" and head.split("\t")[4] == "-"
    assert "a great film" in rest and "bad !" in result.stdout
    assert re.search(r"^  great +[+-]\d\S* +[+-]{3,}$", result.stdout, re.MULTILINE)
    assert "\x1b" not in result.stdout
    assert "text 2 is filled up to 3 tokens like the longest text, and the network sees that" in result.stderr
    assert "padding token" in result.stdout
    quiet = succeeded(run(OPEN, "--sentence", "a great film", *VOCAB, "-o", "w.html"))
    assert quiet.stdout.count("\n") == 1 and quiet.stderr == ""


def test_the_standard_input_is_read(run: Run) -> None:
    result = run(OPEN, "-", "--tokens", "bytes", "--json", input=b"a\xc3\xa4\n")
    assert [token["token"] for token in tokens_of(result)] == ["a", "<0xC3>", "<0xA4>", "<0x0A>"]
    assert json.loads(result.stdout)["results"][0]["input"] == "-"


def test_texts_are_filled_up_and_cut_to_the_models_length(run: Run) -> None:
    result = run("@sentiment.onnx", "@review.txt", *VOCAB, "--json")
    assert [token["id"] for token in tokens_of(result)] == [*IDS, 0, 0, 0]
    long = run("@sentiment.onnx", "--sentence", "good " * 14, *VOCAB, "--json")
    assert len(tokens_of(long)) == 12
    assert "text 1: 2 of 14 tokens are cut off, and not seen by the network" in long.stderr
    short = run(OPEN, "@review.txt", *VOCAB, "--max-length", "3", "--json")
    assert [token["id"] for token in tokens_of(short)] == IDS[:3]
    padded = run("@sentiment.onnx", "--sentence", "hi", "--tokens", "bytes", "--pad-id", "256", "--json")
    assert [token["token"] for token in tokens_of(padded)][1:3] == ["i", "<256>"]


def test_a_tokenizer_pads_cuts_and_marks_as_its_file_says(run: Run) -> None:
    arguments = ("@open.onnx", "--sentence", "the actor was acting", "--sentence", "good " * 9, "--json")
    for file in ("@tokenizer.json", "@bert.txt"):
        result = run(*arguments, "--tokens", file)
        first = [token["token"] for token in tokens_of(result)]
        assert first[:8] == ["[CLS]", "the", "act", "##or", "was", "act", "##ing", "[SEP]"]
        second = [token["token"] for token in tokens_of(result, 1)]
        # The file says at most nine tokens; the vocabulary says nothing.
        assert second == ["[CLS]", *["good"] * (7 if "json" in file else 9), "[SEP]"]
        assert ("tokens are cut off" in result.stderr) == ("json" in file)
    pieces = succeeded(run(*arguments[:3], "--tokens", "@bert.txt")).stdout
    joined = succeeded(run(*arguments[:3], "--tokens", "@bert.txt", "--words")).stdout
    assert "##or" in pieces and "##or" not in joined and re.search(r"^  actor  ", joined, re.MULTILINE)


def test_masks_are_filled_in(run: Run, files: Path) -> None:
    texts = ("--sentence", "a great film", "--sentence", "bad", "--json", "-t", "0", "--dtype", "float64")
    result = run("@masked.onnx", *texts, *VOCAB)
    assert result.stderr == ""  # the mask hides the padding, so there is nothing to say
    bad = tokens_of(result, 1)
    found = [token["relevance"] for token in bad]
    np.testing.assert_allclose(found, [expected([9], 0, 3)[0], 0, 0], rtol=1e-3, atol=1e-12)
    assert [token["id"] for token in bad] == [9, 0, 0]


def test_arrays_of_ids_are_shown_as_words(run: Run, tmp_path: Path) -> None:
    result = run("@sentiment.onnx", "@ids.npy", *VOCAB, "-o", "out/", "--json")
    assert [token["token"] for token in tokens_of(result)][:3] == ["a", "great", "film"]
    assert sorted(os.listdir("out")) == ["ids-0.html", "ids-1.html"]
    page = (tmp_path / "out/ids-1.html").read_text()
    assert "not shown: 9 padding tokens" in page and ">bad</span>" in page


@pytest.mark.parametrize("name", ["w.html", "w.png", "w.txt", "w.npy"])
def test_words_are_written_by_the_suffix(run: Run, tmp_path: Path, name: str) -> None:
    result = succeeded(run(OPEN, "@review.txt", *VOCAB, "-o", name, "--save", "all.npz", "-t", "1"))
    assert result.stdout.rstrip("\n").split("\t")[4:] == [name, "all.npz"]
    relevance = lrpfast.Explanation.load("all.npz").relevance_of()[0]
    np.testing.assert_allclose(relevance, expected(IDS, 1), rtol=1e-3)
    if name == "w.png":
        with Image.open(name) as picture:
            assert picture.width == 800
    elif name == "w.npy":
        np.testing.assert_array_equal(np.load(name), relevance)
    else:
        text = Path(name).read_text("utf-8")
        assert "review.txt: 1 positive, probability 0." in text
        assert "great" in text


# --- signals and tables ---


def test_rows_of_a_table_become_bars(run: Run, files: Path) -> None:
    result = succeeded(
        run("@table.onnx", "@patients.csv", "-o", "out/", "--save", "all/", "-c", "epsilon_plus")
    )
    lines = [line.split("\t") for line in result.stdout.splitlines()]
    assert [line[4] for line in lines] == [f"out/patients-{i}.png" for i in range(len(lines))]
    assert lines[1][0].endswith("patients.csv[1]")
    x = np.load(files / "table.npy")
    explanation = lrpfast.explain(lrpfast.load(files / "table.onnx"), x, composite="epsilon_plus")
    found = lrpfast.Explanation.load("all/patients-1.npz").relevance_of()
    np.testing.assert_allclose(found[0], explanation.relevance_of()[1], rtol=1e-4, atol=1e-6)
    label = f"{lines[1][0]}: {lines[1][1]}, probability {lines[1][3]}"
    chart = lrpfast.draw.bars(found[0], NAMES, x[1], title=label)
    with Image.open("out/patients-1.png") as drawn:
        assert drawn.convert("RGB").tobytes() == chart.image().tobytes()


def test_features_name_arrays_and_choose_columns(run: Run, files: Path, tmp_path: Path) -> None:
    table = np.load(files / "table.npy")
    wide = np.column_stack([table[:, ::-1], np.arange(len(table))])
    write_csv(tmp_path / "wide.csv", (*NAMES[::-1], "outcome"), wide)
    names = ("--features", "@names.txt", "-c", "epsilon_plus")
    for source, out in (("wide.csv", "a.npy"), ("@table.npy", "b.npy")):
        succeeded(run("@table.onnx", source, *names, "-o", out))
    np.testing.assert_array_equal(np.load("a.npy"), np.load("b.npy"))
    succeeded(run("@table.onnx", "@table.npy", *names, "-o", "out/"))
    succeeded(run("@table.onnx", "@patients.csv", "-c", "epsilon_plus", "-o", "out/"))
    with Image.open("out/table-0.png") as one, Image.open("out/patients-0.png") as other:
        below = [np.asarray(picture)[60:] for picture in (one, other)]  # the titles say which file it was
    np.testing.assert_array_equal(*below)


def test_a_signal_becomes_a_curve(run: Run, files: Path) -> None:
    succeeded(run("@signals.onnx", "@signal.csv", "-o", "s.png", "--save", "s.npz"))
    succeeded(run("@signals.onnx", "@signal.csv", "-o", "hot.svg", "--cmap", "hot"))
    assert b"<!-- left -->" in Path("hot.svg").read_bytes()
    x = np.load(files / "signals.npy")
    explanation = lrpfast.explain(lrpfast.load(files / "signals.onnx"), x[:1])
    np.testing.assert_array_equal(
        lrpfast.Explanation.load("s.npz").relevance_of(), explanation.relevance_of()
    )
    with Image.open("s.png") as drawn:
        colors = {color for _, color in drawn.convert("RGB").getcolors(1 << 20) or ()}
    assert any(red > 1.5 * blue for red, _, blue in colors)
    folder = succeeded(run("@signals.onnx", "@signals.npy", "-o", "all/"))
    assert folder.stdout.splitlines()[0].endswith("all/signals-0.png")


def test_without_matplotlib_arrays_can_still_be_written(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    real = importlib.import_module

    def without(name: str, package: str | None = None) -> object:
        if name.startswith("matplotlib"):
            raise ModuleNotFoundError("no", name="matplotlib")
        return real(name, package)

    monkeypatch.setattr("lrpfast.extras.import_module", without)
    refused = run("@table.onnx", "@table.npy", "-o", "out/")
    assert (refused.exit_code, refused.stdout) == (4, "")
    assert 'pip install "lrpfast[plot]"' in refused.stderr
    succeeded(run("@table.onnx", "@table.npy", "-o", "r.npy"))
    assert os.listdir() == ["r.npy"]


# --- what is refused ---

BAD: list[tuple[str, tuple[str, ...], int, str]] = [
    ("text without tokens", (OPEN, "--sentence", "a"), 2, "--sentence needs to know what the network's tokens are"),
    ("words without tokens", (OPEN, "x.npy", "--words"), 2, "--words needs"),
    ("no text", (OPEN, *VOCAB), 2, "give --text FILE, --text - for the standard input, or --sentence WORDS"),
    ("empty words", (OPEN, *VOCAB, "--sentence", " "), 2, "--sentence is empty"),
    ("a file as words", (OPEN, *VOCAB, "--sentence", "@review.txt"), 2, "is the name of a file, not the words in it"),
    ("stdin twice", (OPEN, "-", "--text", "-", *VOCAB), 2, "can be read once only"),
    ("no tokens file", (OPEN, "@review.txt", "--tokens", "@no.txt"), 3, "cannot read the tokens"),
    ("no text file", (OPEN, "--text", "@no.txt", *VOCAB), 3, "cannot read the text"),
    ("not UTF-8", (OPEN, "@ids.bin", *VOCAB), 3, "ids.bin: the text is not UTF-8"),
    ("empty text", (OPEN, "@empty.txt", *VOCAB), 3, "there is not a single token in it"),
    ("a picture model", ("@signals.onnx", "@review.txt", *VOCAB), 2, "takes samples of 2 × 40, not a sequence"),
    ("no model", ("@no.onnx", "@review.txt", *VOCAB), 1, "there is no model"),
    ("not ONNX", ("@review.txt", "@review.txt", *VOCAB), 1, "review.txt"),
    ("too long", ("@sentiment.onnx", "--sentence", "a", *VOCAB, "--max-length", "13"), 2, "the model takes 12 tokens"),
    ("no padding", ("@sentiment.onnx", "--sentence", "a", "--tokens", "bytes"), 2, "say --pad-id N"),
    ("unknown id", (OPEN, "--sentence", "a", "--tokens", "@huge.json"), 1, "the index 300 is out of range"),
    ("colours of words", (OPEN, "--sentence", "a", *VOCAB, "--cmap", "hot"), 2, "--cmap is for heatmaps and curves"),
    ("overlay of words", (OPEN, "--sentence", "a", *VOCAB, "-o", "a.png", "--overlay"), 2, "--overlay needs a picture"),
    ("words as svg", (OPEN, "--sentence", "a", *VOCAB, "-o", "a.svg"), 2, "expected a name in .html .htm .txt .png"),
    ("features of words", (OPEN, "--sentence", "a", *VOCAB, "--features", "@names.txt"), 2, "--features names"),
    ("too few names", ("@signals.onnx", "@signals.npy", "--features", "@names.txt", "--json"), 3, "8 names, but"),
    ("no names", ("@table.onnx", "@table.npy", "--features", "@no.txt", "--json"), 3, "cannot read the features"),
    ("no column", ("@table.onnx", "@signal.csv", "--features", "@names.txt", "--json"), 3, "no column 'age'"),
    ("a table for signals", ("@signals.onnx", "@patients.csv", "--json"), 3, "one channel of a signal"),
    ("a broken table", ("@table.onnx", "@broken.csv", "--json"), 3, "broken.csv': line 2, column b: 'x' is no"),
]  # fmt: skip


@pytest.mark.parametrize(("arguments", "code", "message"), [b[1:] for b in BAD], ids=[b[0] for b in BAD])
def test_bad_arguments_are_refused(
    run: Run, files: Path, tmp_path: Path, arguments: tuple[str, ...], code: int, message: str
) -> None:
    (files / "empty.txt").write_text(" \n")
    (files / "ids.bin").write_bytes(b"\xff\xfe")
    (files / "huge.json").write_text('{"a": 300}')
    (files / "broken.csv").write_text("a,b\n1,x\n")
    result = run(*arguments)
    assert result.exit_code == code, result.stderr
    assert message in result.stderr
    assert sum(line.startswith("error: ") for line in result.stderr.splitlines()) == 1
    assert "Traceback" not in result.stderr and result.stdout == ""
    assert os.listdir(tmp_path) == []


def test_inputs_whose_use_is_unclear_are_refused(run: Run, files: Path) -> None:
    model = text_model(12, mask=True)
    model.graph.input[1].name = "position_ids"
    onnx.save(model, "two.onnx")
    result = run("two.onnx", "--sentence", "a", *VOCAB)
    assert result.exit_code == 2
    assert "which of the model's inputs ids, position_ids, token_type_ids takes the tokens" in result.stderr


# --- the page about all this ---


def test_the_page_about_inputs_is_true(files: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for file in files.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    page = DOCS.read_text("utf-8")
    commands = re.findall(r"^    lrpfast (.+)$", page, re.MULTILINE)
    assert len(commands) == 6
    for command in commands:
        succeeded(CliRunner().invoke(main, shlex.split(command)))
    space: dict[str, Any] = {}
    for block in re.findall(r"^```python\n(.*?)^```", page, re.MULTILINE | re.DOTALL):
        exec(compile(block, str(DOCS), "exec"), space)
    assert space["words"].tokens[:4] == ("not", "a", "bad", "film")
    for name in ("review.html", "signal.svg", "signal.png", "bars.pdf", "curves/signals-0.png"):
        assert Path(name).stat().st_size > 500
    assert len(os.listdir("patients")) == len(os.listdir("bars")) == len(np.load("table.npy"))
