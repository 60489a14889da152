"""What a job costs on one core, on more, and on Ray's actors; and so what a billion inputs cost.

    python bench/scaling.py --networks resnet50 --seconds 60 --update docs/scaling.md

Each network explains pictures by itself (`Explainer`), in jobs on one thread and on two, and in a job on a Ray cluster
of this machine with two actors of one thread. Rates are taken between the first part of a job and the last, so that
what is done once does not count.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from compare import positive
from PIL import Image
from report import digits, listed, markdown, update
from subjects import Subject, subject

from lrpfast.batch import run
from lrpfast.batch.cluster import connected
from lrpfast.batch.decoding import Decoder
from lrpfast.batch.inputs import shapes_of
from lrpfast.benchmark import machine
from lrpfast.preprocess import PREPROCESSINGS

from networks import NETWORKS, PHOTOGRAPHS, photograph_path  # isort: skip (found by subjects)

COMPOSITE = "epsilon_plus"
BATCH, FILES, PARTS, KEPT, TOP, MOST = 8, 16, 24, 48, 100, 40_000
SIZE = 500, 375
"""Of the pictures, which are JPEG files of quality 90, as ImageNet's are."""

INPUTS = 10**9


@dataclass(frozen=True)
class Costs:
    """What was measured of one network.

    Attributes
    ----------
    explainer, one, two, ray : float
        Inputs per second: `Explainer` on one thread; jobs on one thread, on two, and on two actors of one.
    read, decode : float
        Bytes of a file, and seconds that it takes to become an input; NaN for arrays.
    whole, half, top : float
        Bytes of a row with all relevance in float32, in float16, and with the strongest elements.
    """

    name: str
    explainer: float
    one: float
    two: float
    ray: float
    read: float
    decode: float
    whole: float
    half: float
    top: float


class Watch:
    """Inputs per second between the first and the last time that a job tells of some."""

    def __init__(self) -> None:
        self._seen: list[tuple[float, int]] = []

    def __call__(self, done: int, total: int, failed: int) -> None:
        assert not failed
        if done:
            self._seen.append((time.perf_counter(), done))

    @property
    def rate(self) -> float:
        (start, first), (end, last) = self._seen[0], self._seen[-1]
        return (last - first) / (end - start)


def costs_of(name: str, seconds: float, repeats: int) -> Costs:
    """Measure a network, everything `repeats` times in turn; the fastest counts."""
    net = subject(name)
    with tempfile.TemporaryDirectory() as folder:
        explainer = max(explainer_rate(net, seconds) for _ in range(repeats))
        n = min(MOST, max(2 * PARTS, int(2 * explainer * seconds)))
        source = source_of(net, Path(folder), n)
        best = {"one": 0.0, "two": 0.0, "ray": 0.0}
        ways: dict[str, dict[str, Any]] = {
            "one": {"threads": 1, "workers": 1},
            "two": {"threads": 2, "workers": 2},
            "ray": {"threads": 1, "workers": 2, "ray": "auto"},
        }
        for _ in range(repeats):
            for way, options in ways.items():
                best[way] = max(best[way], job_rate(net, source, -(-n // PARTS), **options))
        return Costs(name, explainer, **best, **decoding(net, Path(folder)), **row_bytes(net))


def explainer_rate(net: Subject, seconds: float) -> float:
    explain, x = net.explainer(COMPOSITE, 1), net.pictures(BATCH)
    explain(x)
    start = time.perf_counter()
    for done in range(1, 10**9):
        explain(x)
        spent = time.perf_counter() - start
        if spent > seconds:
            return BATCH * done / spent
    raise AssertionError


def source_of(net: Subject, folder: Path, n: int) -> Path:
    """As many inputs: a list of pictures, some of which come again, or an array."""
    if len(net.network.input_shape) == 1:
        np.save(folder / "x.npy", np.resize(net.pictures(256), (n, *net.network.input_shape)))
        return folder / "x.npy"
    for i in range(FILES):
        with Image.open(photograph_path(PHOTOGRAPHS[i % len(PHOTOGRAPHS)])) as photo:
            turned = photo.convert("RGB").resize(SIZE).transpose(Image.Transpose(i % 7))
            turned.save(folder / f"{i}.jpg", quality=90)
    (folder / "list.txt").write_text("".join(f"{i % FILES}.jpg\n" for i in range(n)))
    return folder / "list.txt"


def job_rate(net: Subject, source: Path, part_rows: int, **options: Any) -> float:
    watch = Watch()
    with tempfile.TemporaryDirectory() as out:
        run(net.network, source, out, composite=COMPOSITE, part_rows=part_rows, progress=watch, **options)
    return watch.rate


def decoding(net: Subject, folder: Path) -> dict[str, float]:
    files = [path.read_bytes() for path in folder.glob("*.jpg")]
    if not files:
        return {"read": np.nan, "decode": np.nan}
    decoder = Decoder(shapes_of(net.network), PREPROCESSINGS["imagenet"])
    rounds = []
    for _ in range(5):
        start = time.perf_counter()
        for data in files:
            decoder.file(data, "picture")
        rounds.append((time.perf_counter() - start) / len(files))
    return {"read": sum(map(len, files)) / len(files), "decode": min(rounds)}


def row_bytes(net: Subject) -> dict[str, float]:
    """Bytes of the data set for each input; in float16 by rewriting it as the job writes."""
    found = {}
    with tempfile.TemporaryDirectory() as folder:
        source = source_of(net, Path(folder), KEPT)
        for name, top in (("whole", 0), ("top", TOP)):
            out = Path(folder, name)
            run(net.network, source, out, composite=COMPOSITE, part_rows=KEPT, top_k=top)
            found[name] = (out / "part-000000.parquet").stat().st_size / KEPT
        table = pq.read_table(Path(folder, "whole", "part-000000.parquet"))
        place = table.schema.get_field_index("relevance")
        half = table["relevance"].combine_chunks()
        values = pa.array(half.values.to_numpy().astype(np.float16))
        table = table.set_column(place, "relevance", pa.ListArray.from_arrays(half.offsets, values))
        pq.write_table(
            table, Path(folder, "half"), compression="zstd", use_dictionary=["id", "target"],
            use_byte_stream_split=["relevance.list.element"],
        )  # fmt: skip
        found["half"] = Path(folder, "half").stat().st_size / KEPT
    return found


def measured_table(costs: list[Costs]) -> list[str]:
    columns = (
        "network", "`Explainer`, 1 thread", "job, 1 thread", "job, 2 threads", "Ray, 2 actors", "Ray : 2 threads",
        "decoding",
    )  # fmt: skip
    rows = [
        (
            one.name, *map(digits, (one.explainer, one.one, one.two, one.ray)), f"{one.ray / one.two:.2f}",
            "–" if np.isnan(one.decode) else f"{1000 * one.decode:.1f} ms",
        )
        for one in costs
    ]  # fmt: skip
    return markdown(columns, 1, rows)


def billion_table(costs: list[Costs]) -> list[str]:
    """What follows for `INPUTS` inputs, by the rate of an actor."""
    columns = (
        "network", "core-hours", "days on 100 cores", "hours on 10,000", "read", "written: all, float32", "float16",
        f"top {TOP}",
    )  # fmt: skip
    rows = []
    for one in costs:
        hours = INPUTS / (one.ray / 2) / 3600
        read = "–" if np.isnan(one.read) else terabytes(one.read)
        written = map(terabytes, (one.whole, one.half, one.top))
        rows.append(
            (one.name, f"{hours:,.0f}", digits(hours / 100 / 24), digits(hours / 10_000), read, *written)
        )
    return markdown(columns, 1, rows)


def terabytes(bytes_each: float) -> str:
    """Of all inputs, with what each takes."""
    return f"{INPUTS * bytes_each / 1e12:,.1f} TB ({bytes_each / 1000:,.1f} kB each)"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    names = ["resnet50", "mobilenet_v2", "mlp"]
    parser.add_argument("--networks", nargs="+", choices=NETWORKS, metavar="NAME", default=names)
    parser.add_argument(
        "--seconds", type=float, default=30.0, help="about so long for each job on two threads"
    )
    parser.add_argument("--repeats", type=positive, metavar="N", default=3)
    parser.add_argument("--update", nargs="+", type=Path, metavar="FILE", default=[])
    options = parser.parse_args()
    with connected("local"):
        costs = [costs_of(name, options.seconds, options.repeats) for name in options.networks]
    setting = machine("ray", "pyarrow")
    said = (
        f"{setting['cpu']}, {setting['cpus']} CPUs, {setting['backend']}; Ray {setting['ray']}, pyarrow "
        f"{setting['pyarrow']}. `{COMPOSITE}`, float32, all relevance written; JPEG pictures of {SIZE[0]} × {SIZE[1]}, "
        f"`mlp` an array. Inputs per second, the best of {options.repeats} turns."
    )
    blocks = {
        "bench-scaling": [*measured_table(costs), "", *listed([said])],
        "bench-billion": billion_table(costs),
    }
    print(*(line for lines in blocks.values() for line in (*lines, "")), sep="\n")
    for path in options.update:
        update(path, blocks)


if __name__ == "__main__":
    main()
