"""Batches: every source and sink against explanations made one by one, and jobs that go on."""

from __future__ import annotations

import io
import json
import math
import os
import pickle
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zarr
from batch_jobs import parts_of, relevance_of, rows_of, write_table
from PIL import Image
from toy_networks import IMAGES, W1, X, cnn, linear, mlp

import lrpfast
from lrpfast.batch import run, streams
from lrpfast.batch.decoding import Decoder
from lrpfast.batch.encoding import strongest
from lrpfast.batch.sources import open_source
from lrpfast.batch.tables import Columns
from lrpfast.errors import InputError, OutputError
from lrpfast.ops import Add
from lrpfast.preprocess import PREPROCESSINGS, prepare

LINEAR = linear()
LINES = np.random.default_rng(3).normal(size=(37, 4)).astype(np.float32)
PICTURES = np.random.default_rng(4).integers(0, 256, (7, 20, 30, 3), np.uint8)


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    fsspec.filesystem("memory").store.clear()


def cancelling() -> lrpfast.Network:
    """3 x − 2.99 x behind a ReLU, and a layer behind that: shares of the sum are some 300 times what arrives."""
    build = lrpfast.Builder((1,))
    branches = [build(lrpfast.Dense(np.array([[w]])), build.input) for w in (3.0, -2.99)]
    total = build(lrpfast.ReLU(), build(Add(), *branches))
    return build.network(build(lrpfast.Dense(np.array([[2.0]])), total))


def one_by_one(network: lrpfast.Network, x: np.ndarray, **options: Any) -> np.ndarray:
    return np.concatenate([lrpfast.explain(network, sample[None], **options).relevance for sample in x])


# --- what rows say ---


def test_rows_are_what_explanations_of_single_inputs_say(tmp_path: Path) -> None:
    np.save("x.npy", LINES)
    network = mlp()
    summary = run(network, "x.npy", "out", part_rows=10, labels=["a", "b", "c"], batch_size=4)
    rows = rows_of("out")
    assert (summary.inputs, summary.failed, summary.resumed, summary.parts) == (37, 0, 0, 4)
    assert [row["index"] for row in rows] == list(range(37))
    assert [row["id"] for row in rows] == [f"x.npy[{i}]" for i in range(37)]
    for x, row in zip(LINES, rows, strict=True):
        alone = lrpfast.explain(network, x[None])
        best = int(alone.output[0].argmax())
        np.testing.assert_allclose(row["relevance"], alone.relevance[0], rtol=2e-5, atol=1e-6)
        assert (row["rank"], row["target"], row["target_index"]) == (0, str(best), best)
        assert row["label"] == "abc"[best]
        assert row["score"] == pytest.approx(alone.output[0, best], rel=1e-5)
        assert row["probability"] == pytest.approx(alone.probabilities[0, best], rel=1e-5)
        assert row["relevance_sum"] == pytest.approx(alone.relevance.sum(dtype=float), abs=1e-5)
        assert row["relevance_abs"] == pytest.approx(np.abs(alone.relevance).sum(dtype=float), rel=1e-5)
        for part in ("bias", "stabilizer", "dead"):
            assert row[part] == pytest.approx(sum(getattr(n, part) for n in alone.conservation), abs=1e-5)
        assert row["unexplained"] < 1e-5
        assert row["error"] is None
    assert summary.conservation_worst == max(row["unexplained"] for row in rows)


def test_the_ledger_of_each_sample_is_that_of_the_sample_alone() -> None:
    explainer = lrpfast.Explainer(mlp(), dtype="float64")
    ledger = explainer(X).conservation.by_sample()
    for i, x in enumerate(X):
        alone = explainer(x[None]).conservation
        assert ledger.worst[i] == pytest.approx(alone.worst, abs=1e-14)
        assert ledger.gain[i] == pytest.approx(max(row.gain for row in alone if not row.explained), rel=1e-9)
        for part in ("bias", "stabilizer", "dead"):
            expected = sum(getattr(row, part) for row in alone)
            assert getattr(ledger, part)[i] == pytest.approx(expected, abs=1e-12)


def test_the_largest_gain_of_each_sample() -> None:
    x = np.array([[1.0], [-1.0], [2.0]])
    explainer = lrpfast.Explainer(cancelling(), on_blowup="ignore", dtype="float64")
    for i, sample in enumerate(x):
        rows = [row for row in explainer(sample[None]).conservation if not row.explained]
        expected = max(row.gain for row in rows)
        assert explainer(x).conservation.by_sample().gain[i] == pytest.approx(expected, rel=1e-12)
    hidden, head = lrpfast.Dense(np.ones((2, 1))), lrpfast.Dense(np.array([[3.0, -2.9]]))
    explained = lrpfast.explain(lrpfast.Sequential(hidden, lrpfast.ReLU(), head), x[:1]).conservation
    assert max(row.gain for row in explained) > 10  # of the node that makes the explained output
    assert explained.by_sample().gain[0] == pytest.approx(1)
    clipping = lrpfast.Explainer(cancelling(), on_blowup="clip", blowup=2, dtype="float64")
    alone = clipping(x[2:]).conservation
    assert clipping(x).conservation.by_sample().clipped[2] == pytest.approx(sum(row.clipped for row in alone))
    assert clipping(x).conservation.by_sample().worst.max() < 1e-12


def test_a_saved_ledger_has_no_samples() -> None:
    with pytest.raises(InputError, match="sums over the batch only"):
        lrpfast.Conservation(lrpfast.explain(mlp(), X).conservation[:2]).by_sample()


def test_each_part_says_what_made_it() -> None:
    np.save("x.npy", LINES)
    network = mlp()
    run(network, "x.npy", "out", part_rows=20, composite="epsilon_plus")
    for part, start, count in zip(parts_of(Path("out")), (0, 20), (20, 17), strict=True):
        metadata = pq.read_metadata(part).metadata
        facts = json.loads(metadata[b"lrpfast"])
        assert (facts["start"], facts["count"], facts["failed"]) == (start, count, 0)
        assert facts["manifest"]["model"]["sha256"] == network.hash
        assert facts["manifest"]["composite"] == "epsilon_plus"
        assert set(facts["manifest"]["rules"]) == {node.name for node in network.canonized().graph.nodes}
        assert {"versions", "backend", "dtype", "target", "init"} <= facts["manifest"].keys()
        assert json.loads(metadata[b"relevance_shape"]) == [4]


def test_the_strongest_elements() -> None:
    np.save("x.npy", IMAGES)
    network = cnn()
    run(network, "x.npy", "out", top_k=5, dtype="float64")
    for x, row in zip(IMAGES, rows_of("out"), strict=True):
        expected = lrpfast.explain(network, x[None], dtype="float64").relevance.ravel()
        assert "relevance" not in row
        size = np.abs(expected)
        np.testing.assert_allclose(size[row["places"]], np.sort(size)[::-1][:5], rtol=1e-9)
        np.testing.assert_allclose(row["values"], expected[row["places"]], rtol=1e-9)


@pytest.mark.parametrize("k", [1, 3, 7, 12, 20])
def test_of_equally_strong_elements_the_first_ones(k: int) -> None:
    relevance = np.array([0, 2, -1, -2, 3, 0, 1, 2, -3, 0, 0, 1], np.float32).reshape(3, 4)
    expected = sorted(range(12), key=lambda i: (-abs(relevance.flat[i]), i))[:k]
    assert strongest(relevance, k).tolist() == expected


@pytest.mark.parametrize(("policy", "blowups", "failed"), [("warn", 2, 0), ("ignore", 0, 0), ("error", 0, 2)])
def test_blow_ups(policy: str, blowups: int, failed: int) -> None:
    np.save("x.npy", np.array([[1.0], [-1.0], [2.0]], np.float32))  # behind a ReLU that −1 does not pass
    summary = run(cancelling(), "x.npy", "out", target="0", on_blowup=policy)
    rows = rows_of("out")
    assert (summary.blowups, summary.failed) == (blowups, failed)
    assert summary.manifest["on_blowup"] == policy
    if policy == "error":
        assert "multiplies the relevance" in rows[0]["error"]
    else:
        assert [row["gain"] > 100 for row in rows] == [True, False, True]


def test_blow_ups_are_clipped() -> None:
    np.save("x.npy", np.array([[1.0], [2.0]], np.float32))
    run(cancelling(), "x.npy", "out", target="0", on_blowup="clip", blowup=2)
    for x, row in zip((1.0, 2.0), rows_of("out"), strict=True):
        alone = lrpfast.explain(cancelling(), np.array([[x]]), 0, on_blowup="clip", blowup=2)
        assert row["relevance"] == pytest.approx(alone.relevance[0], rel=1e-4)
        assert row["clipped"] == pytest.approx(sum(node.clipped for node in alone.conservation), abs=1e-5)
        assert row["gain"] == pytest.approx(2, rel=1e-5)


# --- targets ---


def gradient(target: str, **options: Any) -> list[dict[str, Any]]:
    """Rows of a linear layer, whose gradient by output k is row k of `W1`."""
    np.save("x.npy", LINES)
    run(LINEAR, "x.npy", "out", composite="gradient", target=target, **options)
    return rows_of("out")


@pytest.mark.parametrize(
    ("target", "weights"),
    [
        ("2", {2: 1}),
        ("logit[3]-logit[5]", {3: 1, 5: -1}),
        (" - logit[1] + 0.5*logit[0]+.5 * logit[dog] ", {1: -1, 0: 0.5, 4: 0.5}),
        ("logit[2]+logit[2]", {2: 2}),
        ("tabby", {3: 1}),
    ],
)
def test_targets(target: str, weights: dict[int, float]) -> None:
    labels = ["a", "b", "c", "cat, tabby", "dog", "e"]
    rows = gradient(target, labels=labels)
    expected = sum(weight * W1[k] for k, weight in weights.items())
    outputs = LINES @ W1.T + lrpfast.explain(LINEAR, np.zeros((1, 4))).output
    for row, output in zip(rows, outputs, strict=True):
        np.testing.assert_allclose(row["relevance"], expected, rtol=1e-5)
        score = sum(weight * output[k] for k, weight in weights.items())
        assert row["score"] == pytest.approx(score, abs=1e-4)


def test_the_largest_outputs_each_have_a_row() -> None:
    rows = gradient("top3")
    outputs = lrpfast.explain(LINEAR, LINES).output
    order = np.argsort(-outputs, axis=1)[:, :3]
    assert [(row["index"], row["rank"]) for row in rows] == [(i, k) for i in range(37) for k in range(3)]
    assert [row["target_index"] for row in rows] == order.ravel().tolist()
    np.testing.assert_allclose(relevance_of(rows, (4,)), W1[order.ravel()], rtol=1e-5)


def test_targets_of_a_column() -> None:
    cells = ["1", "argmax", "logit[0]-logit[2]", "b", None, "nobody"]
    x = LINES[:6].tolist()
    write_table(Path("x.parquet"), {"x": x, "why": cells})
    summary = run(
        LINEAR, "x.parquet", "out", composite="gradient", target="column:why", labels=list("abcdef")
    )
    rows = rows_of("out")
    best = int(lrpfast.explain(LINEAR, LINES[1:2]).target[0])
    expected = [W1[1], W1[best], W1[0] - W1[2], W1[1]]
    np.testing.assert_allclose(relevance_of(rows[:4], (4,)), expected, rtol=1e-5)
    assert summary.failed == 2
    assert rows[4]["error"] == "its 'why' is null; expected a target"
    assert rows[5]["error"].startswith("no output is called 'nobody'")


def test_whole_numbers_of_a_column_are_outputs() -> None:
    write_table(Path("x.parquet"), {"x": LINES[:3].tolist(), "why": [4, 6, 0]})
    run(LINEAR, "x.parquet", "out", composite="gradient", target="column:why")
    rows = rows_of("out")
    np.testing.assert_allclose(relevance_of([rows[0], rows[2]], (4,)), W1[[4, 0]], rtol=1e-5)
    assert rows[1]["error"] == "target is 6; the network has 6 outputs, 0 to 5"


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ("6", "target is 6; the network has 6 outputs"),
        ("-1", "target is -1"),
        ("top0", "choose from top1 to top6"),
        ("top7", "choose from top1 to top6"),
        ("cat", "have no labels"),
        ("logit[3]logit[4]", "cannot be read from 'logit"),
        ("logit[3]-", "cannot be read from '-'"),
        ("3*logit[]", "cannot be read from"),
        ("logit[1]-logit[1]", "all outputs cancel"),
        ("column:y", "so it has no columns"),
    ],
)
def test_targets_that_make_no_sense(target: str, message: str) -> None:
    with pytest.raises(InputError, match="^(?s:.*)" + message.replace("[", r"\[")):
        gradient(target)
    assert not Path("out").exists()


# --- sources ---


def save_pictures(folder: Path) -> list[str]:
    """Pictures in a folder and one below, in the order in which they are found."""
    (folder / "b").mkdir(parents=True)
    names = [f"{i}.png" for i in range(4)] + [f"b/{i}.png" for i in range(4, 7)]
    for pixels, name in zip(PICTURES, names, strict=True):
        Image.fromarray(pixels).save(folder / name)
    (folder / "notes.md").write_text("no input")
    (folder / ".hidden.png").write_text("no input")
    return sorted(names)


def pictures_as_inputs(names: list[str], network: lrpfast.Network) -> np.ndarray:
    pictures = [PICTURES[int(Path(name).stem)] for name in names]
    preprocessing = PREPROCESSINGS["imagenet"]
    return np.stack([prepare(Image.fromarray(p), network.input_shape, preprocessing)[0] for p in pictures])


def png(pixels: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def folder_source() -> tuple[str, list[str], list[str]]:
    names = save_pictures(Path("p"))
    return "p", names, names


def pattern_source() -> tuple[str, list[str], list[str]]:
    names = [name for name in save_pictures(Path("p")) if "/" not in name]
    return "p/[0-9].png", names, names


def list_source() -> tuple[str, list[str], list[str]]:
    save_pictures(Path("p"))
    names = ["b/5.png", "1.png", str(Path("p/b/6.png").resolve())]
    Path("p/list.txt").write_text("\n".join(["# these", *names, ""]))
    return "p/list.txt", names, names


def url_source() -> tuple[str, list[str], list[str]]:
    names = save_pictures(Path("p"))
    fsspec.filesystem("memory").put("p", "/bucket/", recursive=True)
    return "memory://bucket/p", names, names


def url_list_source() -> tuple[str, list[str], list[str]]:
    url_source()
    names = ["memory://bucket/p/2.png", "memory://bucket/p/b/4.png"]
    Path("list.txt").write_text("\n".join(names))
    return "list.txt", names, names


def bytes_table() -> tuple[str, list[str], list[str]]:
    names = ["3.png", "0.png", "6.png"]
    images = [png(PICTURES[int(name[0])]) for name in names]
    write_table(Path("t.parquet"), {"id": names, "image": images, "other": [1, 2, 3]})
    return "t.parquet", names, names


def path_table() -> tuple[str, list[str], list[str]]:
    save_pictures(Path("p"))
    names = ["3.png", "b/5.png"]
    write_table(Path("p/t.parquet"), {"file": names})
    return "p/t.parquet", ["t.parquet[0]", "t.parquet[1]"], names


def struct_table() -> tuple[str, list[str], list[str]]:
    save_pictures(Path("p"))
    image = [{"bytes": png(PICTURES[1]), "path": "1.png"}, {"bytes": None, "path": "b/6.png"}]
    write_table(Path("p/t.parquet"), {"image": image, "id": [10, 11]})
    return "p/t.parquet", ["10", "11"], ["1.png", "6.png"]


@pytest.mark.parametrize(
    "make",
    [
        folder_source, pattern_source, list_source, url_source, url_list_source, bytes_table, path_table, struct_table,
    ],
)  # fmt: skip
def test_sources_of_pictures(make: Callable[[], tuple[str, list[str], list[str]]]) -> None:
    source, ids, names = make()
    network = cnn()
    summary = run(network, source, "out", part_rows=3, workers=3)
    rows = rows_of("out")
    assert [row["id"] for row in rows] == ids
    assert (summary.inputs, summary.failed) == (len(ids), 0)
    expected = one_by_one(network, pictures_as_inputs(names, network))
    np.testing.assert_allclose(relevance_of(rows, (3, 11, 9)), expected, rtol=1e-4, atol=1e-5)


def npy(x: np.ndarray) -> str:
    np.save("x.npy", x)
    return "x.npy"


def npz(x: np.ndarray) -> str:
    np.savez_compressed("x.npz", a=x[:2], y=np.arange(6), b=x[2:])
    return "x.npz"


def shards(x: np.ndarray) -> str:
    Path("shards").mkdir()
    for i in range(0, len(x), 2):
        np.save(f"shards/{i}.npy", x[i : i + 2].astype(np.float64))
    return "shards"


def single_files(x: np.ndarray) -> str:
    Path("single").mkdir()
    for i, sample in enumerate(x):
        np.save(f"single/{i}.npy", sample if i % 2 == 0 else sample[None])
    return "single/*.npy"


def tensors(x: np.ndarray) -> str:
    write_table(Path("x.parquet"), {"id": list("abcdef"), "x": x.reshape(6, -1).tolist()}, row_group_size=4)
    return "x.parquet"


def nested(x: np.ndarray) -> str:
    Path("t").mkdir()
    for i in range(2):
        write_table(Path(f"t/{i}.parquet"), {"pixels": x[3 * i : 3 * i + 3].tolist(), "y": [0.5, 1.5, 2.5]})
    return "t"


def tensor_type(x: np.ndarray) -> str:
    column = pa.FixedShapeTensorArray.from_numpy_ndarray(x)
    pq.write_table(pa.table({"input": column}), "x.parquet")
    return "x.parquet"


def zarr_array(x: np.ndarray) -> str:
    zarr.create_array("x.zarr", data=x, chunks=(4, 3, 11, 9))
    return "x.zarr"


def zarr_in_memory(x: np.ndarray) -> str:
    zarr.create_array("memory://x.zarr", data=x, chunks=(1, 3, 11, 9))
    return "memory://x.zarr"


@pytest.mark.parametrize(
    "make", [npy, npz, shards, single_files, tensors, nested, tensor_type, zarr_array, zarr_in_memory]
)
def test_sources_of_numbers(make: Callable[[np.ndarray], str]) -> None:
    network = cnn()
    summary = run(network, make(IMAGES), "out", part_rows=4)
    rows = rows_of("out")
    assert summary.failed == 0
    assert len({row["id"] for row in rows}) == len(rows) == 6
    expected = one_by_one(network, IMAGES)
    np.testing.assert_allclose(relevance_of(rows, (3, 11, 9)), expected, rtol=1e-4, atol=1e-5)


def group_of_arrays() -> str:
    zarr.open_group("g.zarr", mode="w").create_array("x", data=IMAGES)
    return "g.zarr"


def by_columns() -> str:
    np.save("x.npy", np.asfortranarray(IMAGES))
    return "x.npy"


def two_candidates() -> str:
    write_table(Path("x.parquet"), {"a": ["1"], "b": ["2"]})
    return "x.parquet"


def mixed() -> str:
    two_candidates()
    save_pictures(Path("p"))
    os.rename("x.parquet", "p/x.parquet")
    return "p"


def text() -> str:
    Path("x.parquet").write_text("not Parquet")
    return "x.parquet"


def empty_list() -> str:
    Path("x.txt").write_text("\n")
    return "x.txt"


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: "nothing", "there is no 'nothing'; expected a folder"),
        (lambda: "*.jpg", "holds none of the files"),
        (lambda: npy(LINES), r"holds x.npy \(37, 4\) of float32; the network takes samples of shape \(3, 11, 9\)"),
        (by_columns, "lies column by column"),
        (two_candidates, "say --column NAME"),
        (mixed, "tables and other files"),
        (text, "the table is damaged"),
        (empty_list, "holds no inputs"),
        (group_of_arrays, "a Zarr group of x; name one of its arrays"),
        (lambda: "nosuch://x", "cannot be opened"),
    ],
)  # fmt: skip
def test_sources_that_cannot_be_used(make: Callable[[], str], message: str) -> None:
    with pytest.raises(InputError, match=message):
        run(cnn(), make(), "out")
    assert not Path("out").exists()


@pytest.mark.parametrize(
    ("source", "options"),
    [
        ("p", {"out": "p/out"}),
        ("p", {"out": "p"}),
        ("p", {"png": "p/b/png"}),
        ("p/**/*.png", {"zarr": "p/z.zarr"}),
    ],
)
def test_outputs_do_not_become_inputs(source: str, options: dict[str, str]) -> None:
    save_pictures(Path("p"))
    with pytest.raises(InputError, match="what is written would be read"):
        run(cnn(), source, **{"out": "out", **options})
    assert not Path("out").exists()


# --- sinks ---


@pytest.mark.parametrize("url", ["r.zarr", "memory://r.zarr"])
def test_zarr(url: str) -> None:
    x = np.concatenate([IMAGES, IMAGES])
    x[7, 0, 0, 0] = np.nan
    np.save("x.npy", x)
    network = cnn()
    run(network, "x.npy", "out", zarr=url, part_rows=4, batch_size=3)
    array = zarr.open_array(url, mode="r")
    good = [i for i in range(12) if i != 7]
    expected = one_by_one(network, x[good])
    np.testing.assert_allclose(array[:][good], expected, rtol=1e-4, atol=1e-5)
    assert np.isnan(array[7]).all()
    assert array.attrs["lrpfast"]["manifest"]["model"]["sha256"] == network.hash
    assert 4 % array.chunks[0] == 0
    assert "relevance" not in rows_of("out")[0]


def test_zarr_with_ranks() -> None:
    np.save("x.npy", LINES)
    run(LINEAR, "x.npy", "out", zarr="r.zarr", target="top2", composite="gradient", top_k=1)
    order = np.argsort(-lrpfast.explain(LINEAR, LINES).output, axis=1)[:, :2]
    np.testing.assert_allclose(zarr.open_array("r.zarr", mode="r")[:], W1[order], rtol=1e-5)


def test_heatmaps() -> None:
    names = save_pictures(Path("p"))
    network = cnn()
    run(network, "p", "out", png="png")
    expected = pictures_as_inputs(names, network)
    drawn = sorted(Path("png").glob("*.png"))
    assert [path.name for path in drawn] == [f"{i:08}-{Path(n).stem}.png" for i, n in enumerate(names)]
    for path, x, name in zip(drawn, expected, names, strict=True):
        with Image.open(path) as found:
            about = json.loads(found.text["lrpfast"])
            pixels = np.asarray(found.convert("RGB")).astype(int)
        picture = lrpfast.explain(network, x[None]).image(0)
        assert np.abs(pixels - np.asarray(picture)).max() <= 2
        assert (about["id"], about["model"]["sha256"]) == (name, network.hash)


def test_what_is_no_picture_is_not_drawn() -> None:
    np.save("x.npy", LINES)
    with pytest.raises(InputError, match="cannot be drawn"):
        run(LINEAR, "x.npy", "out", png="png")


def test_a_data_set_in_memory() -> None:
    np.save("x.npy", LINES)
    run(LINEAR, "x.npy", "memory://out", part_rows=10)
    rows = rows_of("/out", fsspec.filesystem("memory"))
    np.testing.assert_allclose(relevance_of(rows, (4,)), one_by_one(LINEAR, LINES), rtol=1e-5, atol=1e-6)
    assert run(LINEAR, "x.npy", "memory://out", part_rows=10).resumed == 37


# --- bad inputs ---


def test_a_bad_input_is_a_row_with_its_reason() -> None:
    save_pictures(Path("p"))
    Path("p/2.png").write_bytes(Path("p/2.png").read_bytes()[:200])
    Path("p/3.png").write_text("nonsense")
    np.save("p/4.npy", np.full((3, 11, 9), np.nan))
    np.save("p/5.npy", LINES)
    np.save("p/6.npy", np.full((1, 3, 11, 9), 3e38, np.float32))
    Path("list.txt").write_text("\n".join([f"p/{i}.png" for i in range(4)] + [f"p/{i}.npy" for i in (4, 5, 6)]
                                          + ["p/gone.png"]))  # fmt: skip
    seen = []
    summary = run(cnn(), "list.txt", "out", batch_size=8, progress=lambda *done: seen.append(done))
    rows = rows_of("out")
    errors = [row["error"] or "" for row in rows]
    assert errors[:2] == ["", ""]
    assert errors[2].startswith("cannot read the image 'p/2.png'")
    assert errors[3].startswith("cannot read the image 'p/3.png'")
    assert errors[4].startswith("x holds nan at index")
    assert errors[5].startswith("'p/5.npy' holds 5 (37, 4); expected one array of shape (3, 11, 9)")
    assert "not finite" in errors[6]
    assert "gone.png" in errors[7]
    for row in rows[2:]:
        assert row["relevance"] is row["score"] is row["probability"] is row["unexplained"] is None
    assert relevance_of(rows[:2], (3, 11, 9)).any()
    assert (summary.inputs, summary.failed) == (8, 6)
    assert seen == [(0, 8, 0), (8, 8, 6)]
    again = run(cnn(), "list.txt", "out")
    assert (again.failed, again.resumed) == (6, 8)


def test_an_array_that_ends_early_has_rows_as_far_as_it_goes() -> None:
    np.save("x.npy", LINES)
    Path("x.npy").write_bytes(Path("x.npy").read_bytes()[:-20])
    summary = run(LINEAR, "x.npy", "out")
    errors = [row["error"] for row in rows_of("out")]
    assert summary.failed == 2
    assert errors[:-2] == [None] * 35
    assert errors[-2:] == [
        "x.npy[35]: x.npy ends early, with 12 of the sample's 16 bytes",
        "x.npy[36]: x.npy ends early, with 0 of the sample's 16 bytes",
    ]


# --- being sent elsewhere ---


@pytest.mark.parametrize("kind", ["pictures", "npy", "npz", "parquet", "zarr"])
def test_stretches_of_a_source_can_be_sent_elsewhere(kind: str) -> None:
    """What is sent has the same items in the same places, and little else."""
    x, shape = LINES, (4,)
    if kind == "pictures":
        save_pictures(Path("p"))
        url, shape = "p", (3, 11, 9)
    elif kind == "npy":
        np.save(url := "x.npy", x)
    elif kind == "npz":
        np.savez(url := "x.npz", a=x[:5], b=x[5:6], c=x[6:])
    elif kind == "parquet":
        Path("t").mkdir()
        for i in range(0, 37, 5):
            write_table(Path(f"t/{i:02}.parquet"), {"id": [str(k) for k in range(len(x[i : i + 5]))],
                                                    "x": x[i : i + 5].tolist()})  # fmt: skip
        url = "t"
    else:
        zarr.save_array(url := "x.zarr", x)
    source = open_source(url, Decoder(shape, PREPROCESSINGS["imagenet"]), Columns())
    whole = [(item.id, item.read()) for item in source.items(0, len(source))]
    for start, stop in ((0, 3), (3, 6), (2, 7), (4, 7), (0, len(source))):
        sent = pickle.loads(pickle.dumps(source.only(start, stop)))
        assert len(sent) == len(source) == len(whole)
        found = [(item.id, item.read()) for item in sent.items(start, stop)]
        assert list(sent.ids(start, stop)) == [name for name, _ in found]
        np.testing.assert_equal(found, whole[start:stop])
    assert len(pickle.dumps(source.only(0, 0))) < 4000
    assert source.file().exists()


# --- going on ---


class Stopped(Exception):
    pass


def stop_at(inputs: int) -> Callable[[int, int, int], None]:
    def progress(done: int, total: int, failed: int) -> None:
        if done >= inputs:
            raise Stopped

    return progress


@pytest.mark.parametrize("zarr_url", [None, "r.zarr"])
def test_a_stopped_job_goes_on(zarr_url: str | None) -> None:
    lines = np.tile(LINES, (3, 1))
    np.save("x.npy", lines)
    options: dict[str, Any] = {"part_rows": 5, "batch_size": 2, "zarr": zarr_url}
    resumed = []
    for stop in (7, 41, 80):
        with pytest.raises(Stopped):
            run(LINEAR, "x.npy", "out", progress=stop_at(stop), **options)
        assert not list(Path("out").glob(".*.part"))
        resumed.append(5 * len(parts_of(Path("out"))))
    before = {part.name: part.stat().st_mtime_ns for part in parts_of(Path("out"))}
    summary = run(LINEAR, "x.npy", "out", **options)
    after = {part.name: part.stat().st_mtime_ns for part in parts_of(Path("out"))}
    assert resumed == sorted(resumed)
    assert summary.resumed == resumed[-1] >= 80 - 5
    assert before.items() <= after.items()
    rows = rows_of("out")
    assert [row["index"] for row in rows] == list(range(111))
    found = zarr.open_array(zarr_url, mode="r")[:] if zarr_url else relevance_of(rows, (4,))
    np.testing.assert_allclose(found, np.tile(one_by_one(LINEAR, LINES), (3, 1)), rtol=1e-5, atol=1e-6)


def test_a_damaged_part_is_made_again() -> None:
    np.save("x.npy", LINES)
    run(LINEAR, "x.npy", "out", part_rows=10)
    part = parts_of(Path("out"))[1]
    good = rows_of("out")
    part.write_bytes(part.read_bytes()[:-100])
    assert run(LINEAR, "x.npy", "out", part_rows=10).resumed == 27
    assert rows_of("out") == good


def test_inputs_may_be_added_behind_the_others() -> None:
    np.save("x.npy", LINES[:13])
    run(LINEAR, "x.npy", "out", part_rows=5, zarr="r.zarr")
    np.save("x.npy", LINES)
    summary = run(LINEAR, "x.npy", "out", part_rows=5, zarr="r.zarr")
    assert (summary.inputs, summary.resumed) == (37, 10)
    assert [row["index"] for row in rows_of("out")] == list(range(37))
    found = zarr.open_array("r.zarr", mode="r")[:]
    np.testing.assert_allclose(found, one_by_one(LINEAR, LINES), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("change", ["rename", "remove", "remove many"])
def test_other_inputs_are_refused(change: str) -> None:
    names = save_pictures(Path("p"))
    run(cnn(), "p", "out", part_rows=2)
    if change == "rename":
        Path("p/1.png").rename("p/0a.png")
    for name in {"remove": names[-1:], "remove many": names[3:]}.get(change, []):
        Path("p", name).unlink()
    with pytest.raises(OutputError, match="a job over other inputs"):
        run(cnn(), "p", "out", part_rows=2)


@pytest.mark.parametrize(
    ("setting", "value", "words"),
    [
        ("target", "2", 'target: "argmax" there, "2" now'),
        ("composite", "gradient", 'composite: "epsilon_plus_flat" there, "gradient" now'),
        ("composite", lrpfast.composite("epsilon_plus_flat", epsilon=0.5), "rules: "),
        ("init", "one", 'init: "logit" there, "one" now'),
        ("dtype", "float64", 'dtype: "float32" there, "float64" now'),
        ("top_k", 2, "top_k: 0 there, 2 now"),
        ("part_rows", 4, "part_rows: 10 there, 4 now"),
        ("zarr", "r.zarr", 'zarr: null there, "r.zarr" now'),
        ("network", LINEAR, "model: "),
    ],
)
def test_other_settings_are_refused(setting: str, value: Any, words: str) -> None:
    np.save("x.npy", LINES)
    options = {"network": mlp(), "source": "x.npy", "out": "out", "part_rows": 10}
    run(**options)
    with pytest.raises(OutputError, match="holds a job with other settings") as caught:
        run(**{**options, setting: value})
    assert f"\n  {words}" in str(caught.value)


def test_other_bounds_are_refused() -> None:
    np.save("x.npy", IMAGES)
    low, high = IMAGES.min((0, 2, 3), keepdims=True)[0], IMAGES.max((0, 2, 3), keepdims=True)[0]
    box = lrpfast.composite("epsilon_gamma_box", low=low, high=high)
    run(cnn(), "x.npy", "out", composite=box)
    assert run(cnn(), "x.npy", "out", composite=box).resumed == 6
    with pytest.raises(OutputError, match="\n  arrays: "):
        run(cnn(), "x.npy", "out", composite=lrpfast.composite("epsilon_gamma_box", low=low, high=high + 1))


def test_a_folder_with_something_else_is_refused() -> None:
    np.save("x.npy", LINES)
    Path("out").mkdir()
    Path("out/thesis.tex").write_text("years of work")
    with pytest.raises(OutputError, match=r"holds thesis.tex, but no job"):
        run(LINEAR, "x.npy", "out")


def test_a_zarr_array_of_another_job_is_refused() -> None:
    np.save("x.npy", LINES)
    run(LINEAR, "x.npy", "a", zarr="r.zarr", target="1")
    with pytest.raises(OutputError, match="is not this job's"):
        run(LINEAR, "x.npy", "b", zarr="r.zarr", target="2")


def test_relevance_that_is_gone_is_not_taken_to_be_there() -> None:
    np.save("x.npy", LINES)
    run(LINEAR, "x.npy", "out", zarr="r.zarr")
    os.rename("r.zarr", "elsewhere.zarr")
    with pytest.raises(OutputError, match="is not there, though parts of the job are done"):
        run(LINEAR, "x.npy", "out", zarr="r.zarr")


def test_a_folder_that_cannot_be_written_any_more_ends_the_job() -> None:
    np.save("x.npy", LINES)

    def move(done: int, total: int, failed: int) -> None:
        if done == 10:
            os.rename("out", "elsewhere")

    with pytest.raises(OutputError, match=r"cannot write '.*part-00000"):
        run(LINEAR, "x.npy", "out", part_rows=5, batch_size=5, progress=move)


@pytest.mark.skipif(os.name == "nt", reason="folders are locked on POSIX only")
def test_two_jobs_do_not_share_a_folder() -> None:
    np.save("x.npy", LINES)

    def another(*_: int) -> None:
        with pytest.raises(OutputError, match="another process is writing"):
            run(LINEAR, "x.npy", "out")

    run(LINEAR, "x.npy", "out", progress=another)


def test_options_are_checked() -> None:
    np.save("x.npy", LINES)
    for name in ("batch_size", "part_rows", "workers"):
        with pytest.raises(InputError, match=f"{name} is 0; expected a whole number ≥ 1"):
            run(LINEAR, "x.npy", "out", **{name: 0})
    with pytest.raises(InputError, match="init is 'two'"):
        run(LINEAR, "x.npy", "out", init="two")
    with pytest.raises(InputError, match="there are 2 labels; the network has 6 outputs"):
        run(LINEAR, "x.npy", "out", labels=["a", "b"])
    with pytest.raises(InputError, match="one sample takes"):
        run(LINEAR, "x.npy", "out", max_memory=8)
    limit = lrpfast.Explainer(LINEAR).memory_per_sample + 64  # enough for one explanation, not for several
    with pytest.raises(InputError, match="one sample takes"):
        run(LINEAR, "x.npy", "out", max_memory=limit, target="top2")


# --- memory ---


def test_memory_does_not_grow_with_the_number_of_inputs() -> None:
    size = 1000
    network = lrpfast.Sequential(lrpfast.Dense(np.random.default_rng(0).normal(size=(3, size))))

    def peak(n: int) -> int:
        np.save(f"{n}.npy", np.ones((n, size), np.float32))
        tracemalloc.start()
        try:
            arrow = pa.total_allocated_bytes()
            seen = []
            run(
                network, f"{n}.npy", f"out{n}", part_rows=100, batch_size=10,
                progress=lambda *_: seen.append(pa.total_allocated_bytes() - arrow),
            )  # fmt: skip
            return tracemalloc.get_traced_memory()[1] + max(seen)
        finally:
            tracemalloc.stop()

    peak(20)  # what is imported and compiled only once
    few, many = peak(200), peak(2000)
    assert 4 * size * 1800 > 7e6  # what more inputs there are
    assert many - few < 3e6  # what Arrow holds at the moment is more at one time than at another


def test_each_thread_has_batches_of_its_own_if_there_is_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streams, "get_num_threads", lambda: 4)
    network = cnn()
    size = lrpfast.Explainer(network).memory_per_sample + 2 * streams.UNDER_WAY * IMAGES[0].nbytes

    def shared(inputs: int, **limits: Any) -> tuple[int, int, int, int | None]:
        found = streams.shared_out(lrpfast.Explainer(network, **limits), 1, inputs)
        return found.count, found.threads, found.most, found.memory

    assert shared(10**6) == (4, 1, streams.MOST, None)
    assert shared(20) == (4, 1, 5, None)
    assert shared(3) == (1, 4, 3, None)
    assert shared(10**6, threads=2)[:2] == (2, 1)
    assert shared(10**6, max_memory=12 * size) == (4, 1, 3, 3 * size)
    assert shared(10**6, max_memory=4 * size - 1) == (1, 4, 3, 4 * size - 1)


def test_batches_fit_into_the_memory() -> None:
    np.save("x.npy", IMAGES)
    network = cnn()
    explainer = lrpfast.Explainer(network)
    limit = math.floor(explainer.memory_per_sample * 1.5)
    run(network, "x.npy", "out", max_memory=limit)
    expected = one_by_one(network, IMAGES)
    np.testing.assert_allclose(relevance_of(rows_of("out"), (3, 11, 9)), expected, rtol=1e-4, atol=1e-5)
