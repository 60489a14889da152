"""Whether anything grows, or is left behind: many explanations, many threads, and a large job.

    python bench/soak.py
    python bench/soak.py --explanations 100000 --large 0 --threads-minutes 60 --inputs 0
    python bench/soak.py --json soak.json --update docs/reliability.md

Four parts, each of which may be left out with 0:

- explanations of small networks that take turns, with composites, targets, dtypes, batches and shapes in turn, and
  explainers that are made anew and thrown away: after loading, packing, explaining, saving and loading again
- explanations of ResNet-50
- many threads on one explainer, whose answers have to be the same bits as those of one thread alone
- `lrpfast batch` over many inputs

Memory is flat if its slope after warming up, by least squares, is less than so much per explanation (`ALLOWED`).
Open files and threads have to be as many as before. Ends with 1 if anything is not so.
"""

from __future__ import annotations

import argparse
import gc
import itertools
import json
import subprocess
import sys
import tempfile
import threading
import warnings
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from report import listed, markdown, update
from watch import Watch, held

import lrpfast
from lrpfast import BlowUpWarning, Explainer
from lrpfast.benchmark import machine

sys.path.append(str(Path(__file__).parents[1] / "tests"))
from toy_networks import IMAGES, cnn, mlp

ALLOWED = {"explanations": 512, "ResNet-50": 65536, "threads": 512, "batch": 1024}
"""Bytes by which memory may grow per explanation, of each part: less than any result or array of it has."""

FASHION = Path(lrpfast.__file__).parent / "demo/fashion.onnx"
TURNS = 25  # explanations of an explainer, before another is made
LOOKS = 200  # samples of memory


@dataclass(frozen=True)
class Row:
    """What a part did, and what it held."""

    part: str
    done: int
    seconds: float
    first: float
    last: float
    slope: float
    files: tuple[int, int]
    threads: tuple[int, int]
    complaint: str = ""

    @property
    def complaints(self) -> list[str]:
        found = [self.complaint] if self.complaint else []
        if self.slope > ALLOWED[self.part]:
            found.append(f"memory grows by {self.slope:.0f} bytes each, more than {ALLOWED[self.part]}")
        for name, (before, after) in (("open files", self.files), ("threads", self.threads)):
            if after > before:
                found.append(f"there were {before} {name} before, and are {after} now")
        return [f"{self.part}: {text}" for text in found]

    @classmethod
    def of(
        cls,
        part: str,
        done: int,
        watch: Watch,
        before: tuple[int, int],
        after: tuple[int, int],
        complaint: str = "",
    ) -> Row:
        flat = watch.flat()
        return cls(
            part, done, watch.seconds, flat.first, flat.last, flat.slope, (before[0], after[0]), (before[1], after[1]),
            complaint,
        )  # fmt: skip

    def cells(self) -> tuple[str, ...]:
        mib = 2**20
        return (
            self.part, f"{self.done}", f"{self.seconds:.0f} s", f"{self.first / mib:.1f} MiB",
            f"{self.last / mib:.1f} MiB", f"{self.slope:+.0f} B", f"{ALLOWED[self.part]} B",
            "{} → {}".format(*self.files), "{} → {}".format(*self.threads),
        )  # fmt: skip


COLUMNS = (
    "part", "explanations", "time", "memory, warm", "at the end", "growth each", "allowed", "open files", "threads"
)  # fmt: skip


def steady(part: str, count: int, act: Callable[[int], object]) -> Row:
    """`act(i)` for so many i, watched."""
    before, watch = held(), Watch()
    every = max(1, count // LOOKS)
    for i in range(count):
        act(i)
        if i % every == 0:
            gc.collect()
            watch.look(i)
        if i <= watch.warm * count:
            before = held()  # the kernels' threads stay, once they are there
    return Row.of(part, count, watch, before, held())


# --- the parts ---


def explanations(count: int) -> Row:
    """Small networks, with all that can be different in turn."""
    with tempfile.TemporaryDirectory() as folder:
        return steady("explanations", count, Turns(Path(folder)))


class Turns:
    """One explanation after the other, each unlike the last."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        rng = np.random.default_rng(0)
        clothes = rng.normal(size=(4, 1, 28, 28)).astype(np.float32)
        open_shape = lrpfast.Sequential(
            lrpfast.Conv2d(rng.normal(size=(8, 3, 3, 3))), lrpfast.ReLU(), lrpfast.GlobalAveragePool()
        )
        sources: list[tuple[Callable[[], lrpfast.Network], Callable[[int], Any]]] = [
            (cnn, lambda n: IMAGES[:n]),
            (mlp, lambda n: np.ones((n, 4), np.float32)),
            (lambda: lrpfast.load(FASHION), lambda n: clothes[:n]),
            (lambda: open_shape, lambda n: rng.normal(size=(n, 3, 8 + n, 9))),
        ]
        self.makers = itertools.cycle(
            itertools.product(
                sources, ["epsilon_plus_flat", "epsilon_alpha2_beta1", "gradient"], [np.float32, np.float64]
            )
        )
        self.explainer: Explainer | None = None

    def __call__(self, i: int) -> None:
        if i % TURNS == 0:
            (make, self.inputs), composite, dtype = next(self.makers)
            self.explainer = Explainer(make(), composite, dtype=dtype, on_blowup="ignore")
        assert self.explainer is not None
        x = self.inputs(1 + i % 4)
        if i % 5 == 4:
            self.explainer.several(x, [0, 1])
            return
        weights = np.zeros(self.explainer.network.bound(x).output_shape)
        weights.flat[i % weights.size] = 1.0
        explanation = self.explainer(x, weights)
        if i % 10 == 0:
            path = self.folder / "explanation.npz"
            explanation.save(path)
            lrpfast.Explanation.load(path)
            self.explainer.network.predict(x)


def large(count: int) -> Row:
    """ResNet-50, whose weights take 100 MB."""
    from subjects import subject

    chosen = subject("resnet50")
    x = chosen.pictures(2)
    explainers = [chosen.explainer(name, 2) for name in ("epsilon_plus_flat", "epsilon_alpha2_beta1")]
    return steady("ResNet-50", count, lambda i: explainers[i % 2](x[: 1 + i % 2], i % 1000))


def threads(minutes: float, count: int) -> Row:
    """Many threads on one explainer, against what one thread alone answers."""
    explainer = Explainer(cnn(), record="all")
    questions = [(IMAGES[i : i + n], target) for i in range(6) for n in (1, 3) for target in (0, 3)]
    alone = [answer_of(explainer, *question) for question in questions]
    watch, stop, lock = Watch(), threading.Event(), threading.Lock()
    done, wrong = [0], list[str]()

    def work(number: int) -> None:
        for i in itertools.count(number):
            if stop.is_set():
                return
            which = i % len(questions)
            try:
                same = answer_of(explainer, *questions[which]) == alone[which]
            except Exception as error:
                wrong.append(f"{type(error).__name__}: {error}")
                return
            with lock:
                done[0] += 1
            if not same:
                wrong.append(f"question {which} was answered otherwise than alone")

    explainer(IMAGES)
    before = held()
    workers = [threading.Thread(target=work, args=(i,)) for i in range(count)]
    for worker in workers:
        worker.start()
    while not stop.wait(min(1.0, minutes * 60 / 20)) and watch.seconds < minutes * 60:
        watch.look(done[0])
    stop.set()
    for worker in workers:
        worker.join()
    gc.collect()
    return Row.of("threads", done[0], watch, before, held(), wrong[0] if wrong else "")


def answer_of(explainer: Explainer, x: Any, target: int) -> tuple[bytes, ...]:
    """All that an explanation says, to the bit."""
    explanation = explainer(x, target)
    return (
        explanation.relevance.tobytes(), explanation.output.tobytes(), repr(list(explanation.conservation)).encode(),
        *(layer.tobytes() for layer in explanation.layers.values()),
    )  # fmt: skip


def batch(count: int) -> Row:
    """`lrpfast batch` as a process of its own, watched from here."""
    part = max(1, count // 40)
    with tempfile.TemporaryDirectory() as folder:
        x, out = Path(folder) / "x.npy", Path(folder) / "out"
        np.save(x, np.random.default_rng(1).normal(size=(count, 1, 28, 28)).astype(np.float32))
        before, watch = held(), Watch()
        process = subprocess.Popen(
            [sys.executable, "-m", "lrpfast", "batch", str(FASHION), str(x), "-o", str(out), "--part-rows", str(part)],
            stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        while process.poll() is None:
            if parts := len(list(out.glob("part-*"))):
                watch.look(parts * part, process.pid)
            try:
                process.wait(0.02)
            except subprocess.TimeoutExpired:
                continue
        assert process.stderr is not None
        said = process.stderr.read()
        process.stderr.close()
        return Row.of(
            "batch",
            count,
            watch,
            before,
            held(),
            f"ended with {process.returncode}: {said}" * bool(process.returncode),
        )


# --- what is reported ---


def rows(options: argparse.Namespace) -> Iterator[Row]:
    if options.explanations:
        yield explanations(options.explanations)
    if options.large:
        yield large(options.large)
    if options.threads_minutes:
        yield threads(options.threads_minutes, options.threads)
    if options.inputs:
        yield batch(options.inputs)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    add = parser.add_argument
    add("--explanations", type=int, metavar="N", default=10_000)
    add("--large", type=int, metavar="N", default=300, help="explanations of ResNet-50")
    add("--threads-minutes", type=float, metavar="MINUTES", default=10.0)
    add("--threads", type=int, metavar="N", default=16)
    add("--inputs", type=int, metavar="N", default=10_000, help="of the job")
    add("--json", type=Path, metavar="FILE")
    add("--update", nargs="+", type=Path, metavar="FILE", default=[], help="put the table into documents")
    options = parser.parse_args(arguments)
    warnings.simplefilter("ignore", BlowUpWarning)
    found = []
    for row in rows(options):
        found.append(row)
        print(
            "  ".join(f"{name} {cell}" for name, cell in zip(COLUMNS, row.cells(), strict=True)), flush=True
        )
    complaints = [text for row in found for text in row.complaints]
    print(*complaints, sep="\n")
    setting = machine()
    if options.json:
        options.json.write_text(
            json.dumps({"machine": setting, "rows": [asdict(row) for row in found]}, indent=1)
        )
    if complaints:
        return 1
    said = (
        f"{options.threads} threads; lrpfast {lrpfast.__version__}, {setting['backend']} on {setting['cpu']}, Python "
        f"{sys.version.split()[0]}, NumPy {np.__version__}. Growth is the slope by least squares after the first 30 % "
        "of the work."
    )
    lines = [*markdown(COLUMNS, 1, [row.cells() for row in found]), "", *listed([said])]
    for path in options.update:
        update(path, {"soak": lines})
    return 0


if __name__ == "__main__":
    sys.exit(main())
