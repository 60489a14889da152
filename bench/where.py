"""Where the time of an explanation goes: each network's, by kinds of steps, on one thread.

    python bench/where.py
    python bench/where.py --networks resnet50 --composite epsilon_gamma_box --update docs/performance.md

For each kind of steps: its share of the time; operations per second, as many as the kernels' definitions spend, so
that Winograd's algorithm shows as a higher rate; and bytes per second, each array of a step counted once. Set beside
what `bench/roofline.py` prints they tell what bounds a network. `lrpfast bench MODEL --profile` has all steps.

Predictions are compared with onnxruntime's, and relevance has to be accounted for; no time is asserted.
"""

from __future__ import annotations

import argparse
import math
from collections import defaultdict
from pathlib import Path

from compare import DEFAULT_NETWORKS, positive
from report import listed, markdown, update
from subjects import onnxruntime_predict, subject, work

from lrpfast.benchmark import machine, prediction_error
from lrpfast.steps import KernelCall, Step

from networks import NETWORKS  # isort: skip (found by subjects)
from peers import COMPOSITE_NAMES  # isort: skip

REPEATS = 5
"""Runs; of each step the shortest time counts."""


def kind(step: Step) -> str:
    """What a step is counted as."""
    if not isinstance(step, KernelCall):
        return "NumPy functions"
    family = step.kernel.partition("_")[0]
    if family == "conv":
        sides = step.arguments["w"].shape[2:]
        return "1×1 convolutions" if math.prod(sides) == 1 else "wider convolutions"
    kinds = {
        "depthwise": "depthwise convolutions",
        "gemm": "dense layers",
        "maxpool": "pooling",
        "sumpool": "pooling",
    }
    return kinds.get(family, "elementwise steps")


def nbytes(step: Step, samples: int) -> int:
    """Bytes of all arrays that a step reads and writes, its weights included."""
    moved = sum(view.nbytes for view in (*step.inputs(), *step.outputs())) * samples
    return moved + (
        step.arguments["w"].nbytes if isinstance(step, KernelCall) and "w" in step.arguments else 0
    )


def rows_of(name: str, composite: str, batch: int) -> list[tuple[str, ...]]:
    """A row for each kind of steps of a network."""
    net = subject(name)
    x, explainer = net.pictures(batch), net.explainer(composite, 1)
    explanation = explainer(x)
    assert prediction_error(explanation.output, onnxruntime_predict(net.path, 1)(x)) <= 1e-4
    assert explanation.conservation.worst <= 1e-5
    runs = [explainer.profile(x) for _ in range(REPEATS)]
    sums: dict[str, list[float]] = defaultdict(lambda: [0.0, 0.0, 0.0])
    for timed in zip(*runs, strict=True):
        step = timed[0][0]
        numbers = (min(seconds for _, seconds in timed), work(step) * batch, nbytes(step, batch))
        sums[kind(step)] = [a + b for a, b in zip(sums[kind(step)], numbers, strict=True)]
    total = sum(seconds for seconds, _, _ in sums.values())
    return [
        (
            name,
            str(batch),
            what,
            f"{seconds / total:.0%}",
            f"{done / seconds / 1e9:.0f}",
            f"{moved / seconds / 1e9:.0f}",
        )
        for what, (seconds, done, moved) in sorted(sums.items(), key=lambda entry: -entry[1][0])
    ]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("--networks", nargs="+", choices=NETWORKS, metavar="NAME", default=DEFAULT_NETWORKS)
    parser.add_argument("--composite", choices=COMPOSITE_NAMES, metavar="NAME", default="epsilon_plus")
    parser.add_argument("--batch", type=positive, metavar="N", default=1)
    parser.add_argument("--update", nargs="+", type=Path, metavar="FILE", default=[])
    options = parser.parse_args()
    rows = [row for name in options.networks for row in rows_of(name, options.composite, options.batch)]
    setting = machine()
    said = (
        f"`{options.composite}`, one thread of {setting['cpu']}, {setting['backend']}; of each step the shortest time "
        f"of {REPEATS}. Operations and bytes as the steps' definitions have them."
    )
    columns = ("network", "batch", "steps", "time", "GF/s", "GB/s")
    lines = [*markdown(columns, 3, rows), "", *listed([said])]
    print(*lines, sep="\n")
    for path in options.update:
        update(path, {"bench-where": lines})


if __name__ == "__main__":
    main()
