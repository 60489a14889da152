"""Batches of networks with several inputs: every source and sink against an explanation of the same arrays."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pyarrow.parquet as pq
import pytest
import zarr
from batch_jobs import rows_of, write_table
from click.testing import CliRunner
from onnx import TensorProto, helper, numpy_helper
from onnx_models import node
from PIL import Image

import lrpfast
from lrpfast.batch import run
from lrpfast.cli import main
from lrpfast.errors import InputError, OutputError
from lrpfast.preprocess import Preprocessing

RNG = np.random.default_rng(12)
N = 6
X = {
    "photo": RNG.normal(size=(N, 3, 5, 5)).astype(np.float32),
    "tokens": RNG.integers(0, 9, (N, 4)),
    "size": RNG.random((N, 1)).astype(np.float32),
}
SHAPES = {name: x.shape[1:] for name, x in X.items()}


def three_inputs() -> onnx.ModelProto:
    """Four scores: a layer on a picture, the mean of words' vectors, and a number with a weight."""
    weights = {"w": (75, 4), "e": (9, 4), "v": (1, 4)}
    nodes = [
        node("Flatten", "photo", "f"), node("MatMul", "f w", "p"), node("Relu", "p", "h"),
        node("Gather", "e tokens", "t"), node("ReduceMean", "t", "m", axes=[1], keepdims=0),
        node("MatMul", "size v", "q"), node("Add", "h m", "a"), node("Add", "a q", "y"),
    ]  # fmt: skip
    kinds = {"photo": TensorProto.FLOAT, "tokens": TensorProto.INT64, "size": TensorProto.FLOAT}
    graph = helper.make_graph(
        nodes, "three",
        [helper.make_tensor_value_info(name, kinds[name], ["n", *shape]) for name, shape in SHAPES.items()],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(RNG.normal(size=shape).astype(np.float32), name) for name, shape in weights.items()],
    )  # fmt: skip
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=10)


MODEL = three_inputs()
NETWORK = lrpfast.load(MODEL)
EXPECTED = lrpfast.explain(NETWORK, X)


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def npz() -> tuple[str, list[str]]:
    np.savez("x.npz", other=np.zeros(3), **{name: X[name] for name in reversed(X)})
    return "x.npz", [f"x.npz[{i}]" for i in range(N)]


def compressed_shards() -> tuple[str, list[str]]:
    Path("s").mkdir()
    for i in (0, 3):
        np.savez_compressed(f"s/{i}.npz", **{name: x[i : i + 3] for name, x in X.items()})
    return "s", [f"{i}.npz[{row}]" for i in (0, 3) for row in range(3)]


def single_files() -> tuple[str, list[str]]:
    Path("s").mkdir()
    for i in range(N):
        np.savez(f"s/{i}.npz", **{name: x[i] if i < 3 else x[i : i + 1] for name, x in X.items()})
    return "s", [f"{i}.npz" for i in range(N)]


def table() -> tuple[str, list[str]]:
    columns = {name: x.reshape(N, -1).tolist() for name, x in X.items()}
    write_table(
        Path("x.parquet"), {**columns, "id": list("abcdef"), "size": X["size"][:, 0]}, row_group_size=4
    )
    return "x.parquet", list("abcdef")


def zarr_group() -> tuple[str, list[str]]:
    group = zarr.open_group("x.zarr", mode="w")
    for name, x in X.items():
        group.create_array(name, data=x, chunks=(2 if name == "size" else 4, *x.shape[1:]))
    return "x.zarr", [f"x.zarr[{i}]" for i in range(N)]


@pytest.mark.parametrize("make", [npz, compressed_shards, single_files, table, zarr_group])
def test_sources(make: Callable[[], tuple[str, list[str]]]) -> None:
    source, ids = make()
    summary = run(NETWORK, source, "out", part_rows=4)
    rows = rows_of("out")
    assert (summary.failed, [row["id"] for row in rows]) == (0, ids)
    for name, expected in EXPECTED.relevance.items():
        found = np.array([row[f"relevance:{name}"] for row in rows]).reshape(expected.shape)
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)
    size = sum(np.abs(r).reshape(N, -1).sum(axis=1, dtype=float) for r in EXPECTED.relevance.values())
    total = sum(r.reshape(N, -1).sum(axis=1, dtype=float) for r in EXPECTED.relevance.values())
    np.testing.assert_allclose([row["relevance_abs"] for row in rows], size, rtol=1e-5)
    np.testing.assert_allclose([row["relevance_sum"] for row in rows], total, rtol=1e-4, atol=1e-5)
    about = pq.read_metadata("out/part-000000.parquet").metadata
    assert json.loads(about[b"relevance_shape"]) == {name: list(shape) for name, shape in SHAPES.items()}
    assert run(NETWORK, source, "out", part_rows=4).resumed == N


def test_columns_of_other_names_and_pictures() -> None:
    pixels = RNG.integers(0, 256, (N, 5, 5, 3), np.uint8)
    for i, picture in enumerate(pixels):
        Image.fromarray(picture).save(f"{i}.png")
    words = X["tokens"].tolist()
    write_table(
        Path("x.parquet"), {"file": [f"{i}.png" for i in range(N)], "words": words, "size": [0.5] * N}
    )
    how = Preprocessing(scale=1 / 255, resize="stretch")
    run(
        NETWORK,
        "x.parquet",
        "out",
        column={"photo": "file", "tokens": "words"},
        preprocessing=how,
        target="1",
    )
    photo = (pixels / 255).astype(np.float32).transpose(0, 3, 1, 2)
    given = {"photo": photo, "tokens": X["tokens"], "size": np.full((N, 1), 0.5)}
    expected = lrpfast.explain(NETWORK, given, target=1, on_blowup="ignore").relevance
    for row, photos, tokens in zip(rows_of("out"), expected["photo"], expected["tokens"], strict=True):
        np.testing.assert_allclose(row["relevance:photo"], photos.ravel(), rtol=1e-4, atol=1e-6)
        np.testing.assert_allclose(row["relevance:tokens"], tokens, rtol=1e-4, atol=1e-6)


def test_the_strongest_elements_of_each_input_and_a_zarr_group() -> None:
    source, _ = npz()
    run(NETWORK, source, "out", top_k=3, zarr="r.zarr", target="top2", part_rows=4)
    best = np.argsort(-EXPECTED.output, axis=1)[:, :2]
    group = zarr.open_group("r.zarr", mode="r")
    assert group.attrs["lrpfast"]["manifest"]["model"]["sha256"] == NETWORK.hash
    rows = rows_of("out")
    for name in SHAPES:
        found = group[name][:]
        for rank in (0, 1):
            expected = lrpfast.explain(NETWORK, X, best[:, rank]).relevance_of(name)
            np.testing.assert_allclose(found[:, rank], expected, rtol=1e-4, atol=1e-6)
        for row in rows:
            whole = found[row["index"], row["rank"]].ravel()
            assert len(row[f"places:{name}"]) == min(3, whole.size)
            np.testing.assert_array_equal(np.float32(row[f"values:{name}"]), whole[row[f"places:{name}"]])
            strongest = np.sort(np.abs(whole))[::-1][:3]
            np.testing.assert_array_equal(np.abs(whole[row[f"places:{name}"]]), strongest)
    assert not any(key.startswith("relevance:") for key in rows[0])
    assert run(NETWORK, source, "out", top_k=3, zarr="r.zarr", target="top2", part_rows=4).resumed == N


def test_a_group_that_was_half_made_is_completed_and_one_that_goes_away_is_missed() -> None:
    source, _ = npz()
    run(NETWORK, source, "a", zarr="r.zarr", part_rows=3)
    attributes = zarr.open_group("r.zarr", mode="r").attrs.asdict()
    Path("a").rename("lost")
    Path("r.zarr").rename("other.zarr")
    zarr.open_group("r.zarr", mode="w", attributes=attributes)  # as if the job had been killed here
    run(NETWORK, source, "a", zarr="r.zarr", part_rows=3)
    found = zarr.open_group("r.zarr", mode="r")["photo"][:]
    np.testing.assert_allclose(found, EXPECTED.relevance_of("photo"), rtol=1e-5, atol=1e-6)
    Path("r.zarr").rename("away.zarr")
    np.savez("x.npz", **{name: np.concatenate([x, x]) for name, x in X.items()})
    with pytest.raises(OutputError, match=r"r.zarr' is not there"):
        run(NETWORK, source, "a", zarr="r.zarr", part_rows=3)


def test_what_can_be_drawn_is_drawn() -> None:
    source, _ = npz()
    run(NETWORK, source, "out", png="png")
    drawn = sorted(path.name for path in Path("png").glob("*.png"))
    assert drawn == [f"{i:08}-x-photo.png" for i in range(N)]
    with Image.open(f"png/{drawn[2]}") as found:
        assert json.loads(found.text["lrpfast"])["input"] == "photo"
        pixels = np.asarray(found.convert("RGB")).astype(int)
    expected = np.asarray(EXPECTED.image(2, input="photo")).astype(int)
    assert np.abs(pixels - expected).max() <= 2


def test_drift_between_inputs() -> None:
    source, _ = npz()
    first = run(NETWORK, source, "a", composite="epsilon_plus")
    np.savez("y.npz", **{**X, "size": 100 * X["size"]})
    moved = run(NETWORK, "y.npz", "b", composite="epsilon_plus", reference="a").drift
    assert moved is not None
    assert moved.regions[0][0] == "size[0:1]"
    relevance = lrpfast.explain(NETWORK, X, composite="epsilon_plus", on_blowup="ignore").relevance
    share = np.abs(relevance["size"]).ravel()
    whole = sum(np.abs(r).reshape(N, -1).sum(axis=1) for r in relevance.values())
    assert first.profile.mean[-1] == pytest.approx(np.mean(share / whole), rel=1e-5)
    one = lrpfast.Sequential(lrpfast.Dense(np.ones((2, 3))))
    np.save("one.npy", np.ones((3, 3), np.float32))
    with pytest.raises(InputError, match="is about inputs of shape"):
        run(one, "one.npy", "c", reference="a")


def test_a_bad_input_among_several_is_a_row_with_its_reason() -> None:
    tokens = X["tokens"].astype(np.float64)
    tokens[1, 0], tokens[2, 0] = 0.5, 9
    columns: dict[str, Any] = {
        "tokens": tokens.tolist(),
        "photo": X["photo"].reshape(N, -1).tolist(),
        "size": [1.0] * N,
    }
    columns["photo"][3] = None
    columns["size"][4] = float("nan")
    write_table(Path("x.parquet"), columns)
    run(NETWORK, "x.parquet", "out")
    errors = [row["error"] for row in rows_of("out")]
    assert [error is None for error in errors] == [True, False, False, False, False, True]
    for error, words in zip(
        errors[1:5], ("whole numbers", "9", "'photo' is null", "x['size'] holds nan"), strict=True
    ):
        assert words in error


def uneven() -> str:
    np.savez("x.npz", **{**X, "size": X["size"][:3]})
    return "x.npz"


def one_missing() -> str:
    np.savez("x.npz", photo=X["photo"], size=X["size"])
    return "x.npz"


def sole_array() -> str:
    np.save("x.npy", X["photo"])
    return "x.npy"


def photos_only() -> str:
    Image.new("RGB", (5, 5)).save("x.png")
    return "x.png"


def column_missing() -> str:
    write_table(Path("x.parquet"), {"photo": X["photo"].reshape(N, -1).tolist(), "size": [1.0] * N})
    return "x.parquet"


def column_of_numbers() -> str:
    write_table(Path("x.parquet"), {"photo": [1.0], "tokens": [[1, 2, 3, 4]], "size": [1.0]})
    return "x.parquet"


def group_without_one() -> str:
    zarr.open_group("x.zarr", mode="w").create_array("photo", data=X["photo"])
    return "x.zarr"


def uneven_group() -> str:
    group = zarr.open_group("x.zarr", mode="w")
    for name, x in X.items():
        group.create_array(name, data=x[: 3 if name == "size" else N])
    return "x.zarr"


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (uneven, "with as many samples along the first axis"),
        (one_missing, r"expected an array for each, under its name"),
        (sole_array, "holds no arrays with names"),
        (column_missing, "has no column 'tokens'; it has photo, size"),
        (column_of_numbers, "'photo' of 'x.parquet' holds no inputs"),
        (group_without_one, "is a group of photo; the network takes photo"),
        (uneven_group, "expected as many samples of each input"),
    ],
)
def test_sources_that_cannot_be_used(make: Callable[[], str], message: str) -> None:
    with pytest.raises(InputError, match=message):
        run(NETWORK, make(), "out")
    assert not Path("out").exists()


def test_a_picture_alone_is_not_all_inputs() -> None:
    run(NETWORK, photos_only(), "out")
    assert (
        "'x.png' is no .npz file; the network takes photo (3, 5, 5), tokens (4,)"
        in rows_of("out")[0]["error"]
    )


def test_columns_are_named_by_input() -> None:
    source, _ = table()
    with pytest.raises(InputError, match="say NAME=photo for one of them"):
        run(NETWORK, source, "out", column="photo")
    with pytest.raises(InputError, match="column names image; the network has inputs photo, tokens, size"):
        run(NETWORK, source, "out", column={"image": "photo"})
    one = lrpfast.Sequential(lrpfast.Dense(np.ones((2, 4))))
    with pytest.raises(InputError, match="the network has one input"):
        run(one, source, "out", column={"x": "tokens"})


def test_the_command() -> None:
    onnx.save(MODEL, "three.onnx")
    table()
    pq.write_table(pq.read_table("x.parquet").rename_columns(["picture", "words", "size", "id"]), "x.parquet")

    def call(*arguments: str) -> Any:
        return CliRunner().invoke(main, ["batch", "three.onnx", "x.parquet", *arguments])

    flags = ["--column", "photo=picture", "--column", "tokens=words"]
    result = call("-o", "out", *flags, "--preprocess", "raw", "--top-k", "2")
    assert (result.exit_code, result.stderr) == (0, ""), result.stderr
    for row, expected in zip(rows_of("out"), EXPECTED.relevance_of("tokens"), strict=True):
        np.testing.assert_allclose(row["values:tokens"], expected[row["places:tokens"]], rtol=1e-4)
    result = call("-o", "other", "--column", "picture")
    assert (result.exit_code, "expected INPUT=COLUMN" in result.stderr) == (2, True)
