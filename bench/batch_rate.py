"""The rate of a job (`lrpfast.batch.run`) beside that of an `Explainer` on arrays that are in memory already.

    python bench/batch_rate.py                                  # ResNet-50, JPEG files of 500 by 375 pixels
    python bench/batch_rate.py --network mobilenet_v2 --source npy --inputs 256
    python bench/batch_rate.py --json build/bench/batch.json

Prints, for each, the median milliseconds and CPU milliseconds per input, over turns that alternate, and the ratio of
the two. CPU time is that of the whole process: it is what remains comparable on a machine that does something else,
too. What a job does once (reading the model, making the plan, first pages of memory) is left out by measuring two
jobs, of which one has so many inputs more; it is printed by itself. Memory is what bench/processes.py says of a
command.

The relevance that the job wrote is compared with the Explainer's, bit by bit where the backend is native: the exit
code is 1 if they differ. No time is asserted.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow.dataset
from PIL import Image
from subjects import Subject, subject

import lrpfast
from lrpfast.batch import run
from lrpfast.benchmark import machine
from lrpfast.preprocess import PREPROCESSINGS, prepare, read_image

from networks import PHOTOGRAPHS, photograph_path  # isort: skip (found by subjects)

PIXELS = (500, 375)
"""Of the pictures: as many as the median one of ImageNet has."""

COMPOSITE, PREPROCESSING = "epsilon_plus_flat", "imagenet"


class Cost(NamedTuple):
    """Seconds that passed, and those of all CPUs."""

    seconds: float
    cpu: float

    def __sub__(self, other: tuple[float, float]) -> Cost:
        return Cost(self.seconds - other[0], self.cpu - other[1])


def clock() -> Cost:
    return Cost(time.perf_counter(), time.process_time())


def cost(call: Callable[[], object]) -> Cost:
    before = clock()
    call()
    return clock() - before


def pictures(n: int) -> Iterator[Image.Image]:
    """Photographs, each moved by some pixels against the one before."""
    for i in range(n):
        photograph = (
            Image.open(photograph_path(PHOTOGRAPHS[i % len(PHOTOGRAPHS)])).convert("RGB").resize(PIXELS)
        )
        yield Image.fromarray(np.roll(np.asarray(photograph), (3 * i, 5 * i), axis=(0, 1)))


def write_inputs(net: Subject, folder: Path, n: int, source: str) -> np.ndarray:
    """Write files and lists of them; returns the arrays that they hold."""
    arrays, names = [], []
    for i, picture in enumerate(pictures(n)):
        names.append(f"{i:06}.{source}")
        path = folder / names[-1]
        if source == "npy":
            arrays.append(prepare(picture, net.network.input_shape, PREPROCESSINGS[PREPROCESSING])[0])
            np.save(path, arrays[-1])
        else:
            picture.save(path, **({"quality": 90} if source == "jpg" else {}))
            found = prepare(read_image(path), net.network.input_shape, PREPROCESSINGS[PREPROCESSING])
            arrays.append(found[0])
    (folder / "names.txt").write_text("\n".join(names))
    return np.stack(arrays)


class Contest:
    """The two that are compared, on the same inputs."""

    def __init__(self, net: Subject, folder: Path, options: argparse.Namespace) -> None:
        self.net, self.folder, self.options = net, folder, options
        self.x = write_inputs(net, folder, options.start + options.inputs, options.source)
        self.explainer = lrpfast.Explainer(
            net.network, COMPOSITE, threads=options.threads, on_blowup="ignore"
        )

    def explain(self) -> list[np.ndarray]:
        """The Explainer, batch by batch."""
        size, x = self.options.batch, self.x[self.options.start :]
        return [self.explainer(x[i : i + size]).relevance for i in range(0, len(x), size)]

    def job(self, n: int) -> Path:
        """A job over the first inputs; returns its folder."""
        names = (self.folder / "names.txt").read_text().splitlines()[:n]
        (self.folder / f"{n}.txt").write_text("\n".join(names))
        out = Path(tempfile.mkdtemp(dir=self.folder))
        run(
            self.net.network, self.folder / f"{n}.txt", out, composite=COMPOSITE, threads=self.options.threads,
            workers=self.options.workers, top_k=self.options.top_k, max_memory=self.options.max_memory,
        )  # fmt: skip
        return out

    def check(self) -> None:
        """Exit if the job wrote something else than the Explainer says."""
        start, options = self.options.start, self.options
        rows = pyarrow.dataset.dataset(str(self.job(len(self.x))), format="parquet").to_table()
        expected = np.concatenate(self.explain()).reshape(len(self.x) - start, -1)
        column = "values" if options.top_k else "relevance"
        found = np.stack([np.array(cell.values) for cell in rows.column(column)])[start:]
        if options.top_k:
            places = np.stack([np.array(cell.values) for cell in rows.column("places")])[start:]
            expected = np.take_along_axis(expected, places, axis=1)
        same = np.array_equal(found, expected)
        if self.explainer.backend.name != "native":  # where other batches may round otherwise
            same = np.allclose(found, expected, rtol=1e-3, atol=1e-5)
        if not same:
            sys.exit(f"the job's relevance differs by up to {np.abs(found - expected).max():.1e}")


def measure(options: argparse.Namespace) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        contest = Contest(subject(options.network), Path(folder), options)
        contest.check()
        few, many = options.start, options.start + options.inputs
        explaining, jobs, starts = [], [], []
        for _ in range(options.repeats):
            explaining.append(cost(contest.explain))
            first = cost(lambda: contest.job(few))
            jobs.append(cost(lambda: contest.job(many)) - first)
            starts.append(first)
    found: dict[str, Any] = {"network": options.network, "source": options.source, "inputs": options.inputs}
    for name, costs in (("explainer", explaining), ("job", jobs)):
        for which in Cost._fields:
            found[f"{name}_{which}"] = statistics.median(getattr(c, which) for c in costs) / options.inputs
    found["ratio"] = found["explainer_seconds"] / found["job_seconds"]
    found["cpu_ratio"] = found["explainer_cpu"] / found["job_cpu"]
    rest = statistics.median(c.seconds for c in starts) - few * found["job_seconds"]
    return {**found, "start_seconds": rest}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--network", default="resnet50")
    parser.add_argument("--source", choices=["jpg", "png", "npy"], default="jpg")
    parser.add_argument("--inputs", type=int, default=64)
    parser.add_argument("--start", type=int, default=16, help="inputs of the smaller job")
    parser.add_argument("--batch", type=int, default=8, help="of the Explainer's calls")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int)
    parser.add_argument("--workers", type=int)
    parser.add_argument("--top-k", type=int, default=0)
    parser.add_argument("--max-memory")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    found = measure(options)
    print(machine())
    print(f"{options.network}, {options.source}, {options.inputs} inputs: per input")
    for name in ("explainer", "job"):
        print(
            f"  {name:10} {1e3 * found[f'{name}_seconds']:8.2f} ms   CPU {1e3 * found[f'{name}_cpu']:8.2f} ms"
        )
    print(f"  ratio      {found['ratio']:8.1%}      CPU {found['cpu_ratio']:8.1%}")
    print(f"a job takes {found['start_seconds']:.2f} s besides")
    if options.json:
        options.json.write_text(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
