"""Ray: the same rows as on one machine, whoever is killed meanwhile; and batches of Ray data sets."""

from __future__ import annotations

import io
import json
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pyarrow as pa
import pyarrow.dataset
import pyarrow.parquet as pq
import pytest
from batch_jobs import FASHION, SOURCE, parts_of, start, write_table
from click.testing import CliRunner
from PIL import Image
from toy_networks import IMAGES, cnn, mlp

import lrpfast
from lrpfast.batch import cluster, run
from lrpfast.cli import main
from lrpfast.errors import ClusterError, InputError, OutputError
from lrpfast.preprocess import PREPROCESSINGS, prepare

LINES = np.random.default_rng(3).normal(size=(37, 4)).astype(np.float32)
CLOTHES = np.random.default_rng(2).normal(size=(240, 1, 28, 28)).astype(np.float32)
PICTURES = np.random.default_rng(4).integers(0, 256, (5, 20, 30, 3), np.uint8)


QUIET = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_AUTH_MODE": "disabled"}


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def short_folder() -> tempfile.TemporaryDirectory[str]:
    """For Ray's files: what its sockets are called must not be long."""
    return tempfile.TemporaryDirectory(prefix="ray-", dir="/tmp", ignore_cleanup_errors=True)


@pytest.fixture(scope="module")
def ray() -> Iterator[Any]:
    """Ray, connected to a cluster of its own with two CPUs; nothing of it is left."""
    with pytest.MonkeyPatch.context() as patch, short_folder() as folder:
        for name, value in QUIET.items():
            patch.setenv(name, value)
        import ray

        ray.init(
            "local", num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level="ERROR", _temp_dir=folder
        )  # fmt: skip
        yield ray
        ray.shutdown()


def address(ray: Any) -> str:
    return str(ray.get_runtime_context().gcs_address)


def table_of(out: str) -> pa.Table:
    return pyarrow.dataset.dataset(out, format="parquet").to_table()


class Killer(threading.Thread):
    """Kills actors that are in the middle of a part: the name of the file that each writes has its process.

    What a process leaves behind says that it was in the middle: it would have renamed the file, or removed it.
    """

    def __init__(self, out: Path, parts: str, kills: int) -> None:
        super().__init__(daemon=True)
        self._out = out
        self._pattern = re.compile(rf"\.part-{parts}\.parquet\.(\d+)\.\w+\.part")
        self._kills = kills
        self._over = False
        self.killed: set[int] = set()

    def run(self) -> None:
        while len(self.killed) < self._kills and not self._over:
            for path in self._out.glob(".part-*.part"):
                found = self._pattern.fullmatch(path.name)
                if found and int(found[1]) not in self.killed:
                    os.kill(int(found[1]), signal.SIGKILL)
                    self.killed.add(int(found[1]))
                    break
            time.sleep(0.001)

    def __exit__(self, *_: object) -> None:
        self._over = True
        self.join()

    def __enter__(self) -> Killer:
        self.start()
        return self

    def left_behind(self) -> set[int]:
        """The processes whose files are there, half-written."""
        found = (self._pattern.fullmatch(path.name) for path in self._out.glob(".part-*.part"))
        return {int(match[1]) for match in found if match}


# --- jobs ---


@pytest.mark.parametrize("target", ["top2", "logit[1]-logit[0]"])
def test_a_job_is_as_on_one_machine(ray: Any, target: str) -> None:
    Path("p").mkdir()
    for i, pixels in enumerate(PICTURES):
        Image.fromarray(pixels).save(f"p/{i}.png")
    Path("p/3.png").write_text("nonsense")
    options: dict[str, Any] = {"target": target, "part_rows": 2, "top_k": 9}
    seen: list[tuple[int, int, int]] = []
    expected = run(cnn(), "p", "a", threads=1, png="pa", **options)
    summary = run(cnn(), "p", "b", ray="auto", png="pb", progress=lambda *now: seen.append(now), **options)
    assert (summary.inputs, summary.failed, summary.parts) == (5, 1, 3)
    assert summary.profile.as_json() == expected.profile.as_json()
    assert table_of("a").equals(table_of("b"))
    assert (seen[0], seen[-1]) == ((0, 5, 0), (5, 5, 1))
    for one, other in zip(parts_of(Path("a")), parts_of(Path("b")), strict=True):
        assert pq.read_metadata(one).metadata[b"lrpfast"] == pq.read_metadata(other).metadata[b"lrpfast"]
    drawn = sorted(path.name for path in Path("pa").glob("*.png"))
    assert len(drawn) == 4 * (2 if target == "top2" else 1)
    for name in drawn:
        assert Path("pa", name).read_bytes() == Path("pb", name).read_bytes()
    assert ray.is_initialized()
    assert not list(Path().glob("*/.*.part"))
    assert run(cnn(), "p", "b", png="pb", **options).resumed == 5


@pytest.mark.skipif(sys.version_info < (3, 11), reason="zarr 3 needs Python 3.11")
def test_actors_write_one_zarr_array(ray: Any) -> None:
    import zarr

    np.save("x.npy", LINES)
    run(mlp(), "x.npy", "a", zarr="a.zarr", part_rows=5, threads=1)
    run(mlp(), "x.npy", "b", zarr="b.zarr", part_rows=5, ray="auto")
    found, expected = (zarr.open_array(name, mode="r")[:] for name in ("b.zarr", "a.zarr"))
    np.testing.assert_array_equal(found, expected)
    assert np.isfinite(found).all()
    assert not list(Path("b.zarr").glob(".*"))


def test_killed_actors_are_replaced(ray: Any, tmp_path: Path) -> None:
    np.save("x.npy", CLOTHES)
    assert (
        CliRunner().invoke(main, ["batch", FASHION, "x.npy", "-o", "a", "--part-rows", "30"]).exit_code == 0
    )
    with Killer(Path("b"), r"00000\d", kills=2) as killer:
        process = start(FASHION, "x.npy", "-o", "b", "--part-rows", 30, "--batch-size", 1, "--json",
                        f"--ray={address(ray)}", cwd=tmp_path)  # fmt: skip
        out, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    assert len(killer.killed) == 2
    assert killer.left_behind() == killer.killed
    summary = json.loads(out)  # what Ray says of dead workers is elsewhere
    assert (summary["inputs"], summary["resumed"], summary["failed"]) == (240, 0, 0)
    assert table_of("b")["index"].to_pylist() == list(range(240))
    assert table_of("a").equals(table_of("b"))


def test_progress_counts_inputs_and_takes_back_what_died_with_an_actor(ray: Any) -> None:
    np.save("x.npy", CLOTHES)
    counts: list[int] = []

    def watch(done: int, total: int, failed: int) -> None:
        counts.append(done)
        if done == 5 and 0 not in counts[1:]:
            (path,) = Path("out").glob(".part-*.part")
            os.kill(int(path.name.split(".")[3]), signal.SIGKILL)

    options: dict[str, Any] = {"part_rows": 240, "batch_size": 1, "workers": 1, "progress": watch}
    run(lrpfast.load(FASHION), "x.npy", "out", ray="auto", **options)
    again = counts.index(0, 1)
    assert 5 < again < 240
    assert counts == [*range(again), *range(241)]


def test_a_part_over_which_actors_die_again_and_again_ends_the_job(
    ray: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cluster, "ATTEMPTS", 2)
    np.save("x.npy", CLOTHES)
    words = r"2 workers died over part 1, inputs 120 to 239; is there memory enough"
    with Killer(Path("out"), "000001", kills=2) as killer, pytest.raises(ClusterError, match=words):
        run(lrpfast.load(FASHION), "x.npy", "out", part_rows=120, batch_size=1, ray="auto", workers=1)
    assert killer.left_behind() == killer.killed
    assert [part.name for part in parts_of(Path("out"))] == ["part-000000.parquet"]


def test_actors_that_ray_kills_for_their_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    too_little = {"RAY_memory_usage_threshold": "0.0001", "RAY_memory_monitor_refresh_ms": "50"}
    np.save("x.npy", CLOTHES)
    with short_folder() as folder:
        for name, value in {**QUIET, **too_little, "RAY_TMPDIR": folder}.items():
            monkeypatch.setenv(name, value)
        process = start(FASHION, "x.npy", "-o", "out", "--workers", 1, "--ray=local", cwd=tmp_path)
        _, err = process.communicate(timeout=120)
    assert process.returncode == 1, err
    assert re.search(r"error: 4 workers died (while they started|over part 0).*running low on memory", err), (
        err
    )


@pytest.mark.skipif(os.name == "nt", reason="sends POSIX signals")
def test_a_job_that_is_interrupted_and_killed_goes_on_without_ray(ray: Any, tmp_path: Path) -> None:
    np.save("x.npy", CLOTHES)
    command = (FASHION, "x.npy", "-o", "out", "--part-rows", 8, "--batch-size", 1)
    on_ray = ("--workers", 1, f"--ray={address(ray)}")
    done: dict[str, int] = {}
    for kill, code in ((signal.SIGINT, 130), (signal.SIGKILL, -signal.SIGKILL)):
        process = start(*command, *on_ray, cwd=tmp_path)
        while len(parts_of(Path("out"))) < len(done) + 2:
            assert process.poll() is None, process.communicate()
            time.sleep(0.005)
        process.send_signal(kill)
        _, err = process.communicate(timeout=30)
        assert process.returncode == code
        assert "note: on the Ray cluster at " in err
        done = {part.name: part.stat().st_mtime_ns for part in parts_of(Path("out"))}
        assert 2 <= len(done) < 30
    process = start(*command, cwd=tmp_path)
    _, err = process.communicate()
    assert process.returncode == 0, err
    assert re.match(rf"note: goes on: {8 * len(done)}|{8 * len(done) + 8} of 240 inputs were done", err)
    assert done.items() <= {part.name: part.stat().st_mtime_ns for part in parts_of(Path("out"))}.items()
    assert CliRunner().invoke(main, ["batch", FASHION, "x.npy", "-o", "expected"]).exit_code == 0
    assert table_of("out").equals(table_of("expected"))


def test_what_goes_wrong_on_an_actor_is_said(ray: Any) -> None:
    np.save("x.npy", LINES)

    def move(done: int, total: int, failed: int) -> None:
        if done == 5:
            os.rename("out", "elsewhere")

    with pytest.raises(OutputError, match=r"cannot write '.*part-00000"):
        run(mlp(), "x.npy", "out", part_rows=5, ray="auto", workers=1, progress=move)


def test_an_output_that_nodes_do_not_share(ray: Any) -> None:
    np.save("x.npy", LINES)
    fsspec.filesystem("memory").store.clear()
    with pytest.raises(
        ClusterError, match=r"the node \S+ does not see what \S+ has in memory:///out; source and"
    ):
        run(mlp(), "x.npy", "memory://out", ray="auto", workers=1)


def test_a_source_that_nodes_do_not_share(ray: Any) -> None:
    fs = fsspec.filesystem("memory")
    fs.store.clear()
    np.save("x.npy", LINES)
    fs.put_file("x.npy", "/in/x.npy")
    with pytest.raises(ClusterError, match=r"does not see what .* has in memory:///in;"):
        run(mlp(), "memory://in/*.npy", "out", ray="auto", workers=1)


def test_more_threads_than_a_node_has(ray: Any) -> None:
    np.save("x.npy", LINES)
    with pytest.raises(
        ClusterError, match=r"no node of the cluster has 3 CPUs .* the largest has 2; choose fewer"
    ):
        run(mlp(), "x.npy", "out", ray="auto", threads=3)


def test_another_version_is_refused() -> None:
    with pytest.raises(
        ClusterError, match=rf"has lrpfast {lrpfast.__version__}, and head has 0\.0; install the same"
    ):
        next(cluster.Worker("0.0", cluster.Shared("head", ()), [None]).start())


@pytest.mark.parametrize("url", ["127.0.0.1:9", "ray://127.0.0.1:9", "head", "127.0.0.1:99999"])
def test_a_cluster_that_is_not_there(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ray.is_initialized", lambda: False)
    np.save("x.npy", CLOTHES)
    result = CliRunner().invoke(main, ["batch", FASHION, "x.npy", "-o", "out", f"--ray={url}"])
    assert (result.exit_code, f"cannot reach the Ray cluster '{url}'" in result.stderr) == (1, True), (
        result.stderr
    )
    assert not Path("out").exists()


ALONE = """
import sys
from ray._private import services
services._find_address_from_flag = lambda flag: set()  # other clusters of this machine are not found
from lrpfast.cli import main
sys.exit(main(sys.argv[1:]))
"""


def test_a_cluster_that_was_killed_is_not_looked_for() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        gone = "127.0.0.1:{1}".format(*server.getsockname())
    np.save("x.npy", CLOTHES[:3])
    command = [sys.executable, "-c", ALONE, "batch", FASHION, "x.npy", "-o", "out", "--ray"]
    with short_folder() as folder:
        Path(folder, "ray").mkdir()
        Path(folder, "ray/ray_current_cluster").write_text(gone)  # as a head that was killed leaves it behind
        environment = {**os.environ, **QUIET, "PYTHONPATH": SOURCE, "RAY_TMPDIR": folder}
        result = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)
    assert result.returncode == 0, result.stderr
    assert "note: no Ray cluster runs here, so one with " in result.stderr
    assert table_of("out")["index"].to_pylist() == [0, 1, 2]


def test_ray_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    np.save("x.npy", CLOTHES)
    result = CliRunner().invoke(main, ["batch", FASHION, "x.npy", "-o", "out", "--ray"])
    assert result.exit_code == 4
    assert (
        'a batch on a cluster needs ray, which is not installed; pip install "lrpfast[ray]"' in result.stderr
    )


# --- Ray Data ---


def rows_by_id(table: pa.Table) -> list[dict[str, Any]]:
    """The rows of a table, without their places in batches, by input and rank."""
    rows = [{key: value for key, value in row.items() if key != "index"} for row in table.to_pylist()]
    return sorted(rows, key=lambda row: (row["id"], row["rank"]))


@pytest.mark.filterwarnings("ignore::DeprecationWarning:ray.data")  # that Ray has of itself
def test_batches_of_a_data_set_have_the_rows_of_a_job(ray: Any) -> None:
    Path("p").mkdir()
    for i, pixels in enumerate(PICTURES):
        Image.fromarray(pixels).save(f"p/{i}.png")
    pictures = [Path(f"p/{i}.png").read_bytes() for i in range(5)]
    write_table(
        Path("t.parquet"),
        {"id": list("abcde"), "image": [*pictures[:4], b"no"], "why": ["0", "4", "1", "argmax", "0"]},
    )
    run(cnn(), "t.parquet", "out", target="column:why", threads=1)
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    rows = ray.data.from_arrow(pq.read_table("t.parquet")).map_batches(
        lrpfast.ray.Explainer, fn_constructor_args=[cnn()], fn_constructor_kwargs={"target": "column:why"},
        batch_size=2, compute=ray.data.ActorPoolStrategy(size=1),
    )  # fmt: skip
    found = pa.concat_tables(ray.get(rows.to_arrow_refs()))
    assert rows_by_id(found) == rows_by_id(table_of("out"))
    assert found.schema.field("relevance").type == pa.list_(pa.float32())


def explained(batch: dict[str, Any], **options: Any) -> list[dict[str, Any]]:
    return lrpfast.ray.Explainer(cnn(), **options)(batch).to_pylist()


def as_objects(values: list[Any]) -> np.ndarray:
    """A column of what is no number, as Ray hands it on."""
    column = np.empty(len(values), object)
    column[:] = values
    return column


def test_inputs_of_a_batch_come_in_many_forms() -> None:
    names = [f"{i}.png" for i in range(5)]
    for pixels, name in zip(PICTURES, names, strict=True):
        Image.fromarray(pixels).save(name)
    encoded = [Path(name).read_bytes() for name in names]
    x = np.stack([prepare(Image.fromarray(p), (3, 11, 9), PREPROCESSINGS["imagenet"])[0] for p in PICTURES])
    expected = lrpfast.explain(cnn(), x).relevance.reshape(5, -1)
    saved = io.BytesIO()
    np.save(saved, x[0])
    for column in (
        PICTURES,
        as_objects(list(PICTURES)),
        as_objects(encoded),
        as_objects(names),
        as_objects([{"bytes": data, "path": None} for data in encoded]),
        as_objects([{"path": str(Path(name).absolute())} for name in names]),
        as_objects([saved.getvalue(), *encoded[1:]]),
        x,
        x.reshape(5, -1),
    ):
        rows = explained({"image": column, "other": np.arange(5)})
        assert [(row["index"], row["id"], row["error"]) for row in rows] == [
            (i, f"batch[{i}]", None) for i in range(5)
        ]
        np.testing.assert_array_equal(np.array([row["relevance"] for row in rows], np.float32), expected)


def test_what_a_batch_says_of_its_rows() -> None:
    options = {"column": "a", "id_column": "key", "target": "column:why", "top_k": 3, "labels": list("abcde")}
    batch = {"a": IMAGES[:3], "b": IMAGES[:3], "key": np.array([7, 8, 9]), "why": as_objects(["e", 1, None])}
    rows = explained(batch, batch_size=2, **options)
    assert [(row["id"], row["target"], row["label"]) for row in rows[:2]] == [
        ("7", "4", "e"),
        ("8", "1", "b"),
    ]
    assert rows[2]["error"] == "its 'why' is null; expected a target"
    for x, row, k in zip(IMAGES, rows[:2], (4, 1), strict=False):
        alone = lrpfast.explain(cnn(), x[None], k).relevance.ravel()
        np.testing.assert_array_equal(np.array(row["values"], np.float32), alone[row["places"]])


def test_bad_inputs_of_a_batch_are_rows() -> None:
    rows = explained({"image": as_objects([None, b"no", "gone.png", {"bytes": None}, IMAGES[0]])})
    errors = [row["error"] or "" for row in rows]
    assert errors[0] == "batch[0]: its 'image' is null; expected an input"
    assert errors[1] == "cannot read the image 'batch[1]': cannot identify its format"
    assert "gone.png" in errors[2]
    assert errors[3] == "batch[3]: it has neither bytes nor a path"
    assert errors[4] == ""


def test_batches_that_cannot_be_explained() -> None:
    for batch, words in (
        ({"label": np.arange(3)}, "'batch' has columns label, and it is not clear which holds the inputs"),
        (
            pa.table({"image": [[1.0]]}),
            r"a batch is a Table; expected a dict of arrays, as batch_format='numpy' gives",
        ),
    ):
        with pytest.raises(InputError, match=words):
            explained(batch)
    with pytest.raises(InputError, match="target is 5; the network has 5 outputs"):
        lrpfast.ray.Explainer(cnn(), target="5")


def test_models_are_paths_urls_or_bytes() -> None:
    fsspec.filesystem("memory").store.clear()
    fsspec.filesystem("memory").put_file(FASHION, "/model.onnx")
    found = [
        lrpfast.ray.Explainer(model, threads=1)({"x": CLOTHES[:3]})
        for model in (FASHION, Path(FASHION), "memory://model.onnx", Path(FASHION).read_bytes())
    ]
    for table in found:
        manifest = json.loads(table.schema.metadata[b"lrpfast"])["manifest"]
        assert manifest["model"]["sha256"] == lrpfast.load(FASHION).hash
        assert table.equals(found[0])


def test_threads_are_those_that_ray_gives(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "3")  # as Ray sets it for an actor with num_cpus=3
    assert lrpfast.ray.Explainer(cnn())._explaining.explainer.threads == 3
    assert lrpfast.ray.Explainer(cnn(), threads=1)._explaining.explainer.threads == 1
