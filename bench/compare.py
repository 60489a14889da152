"""Inference and explanations side by side: onnxruntime, lrpfast, zennit and captum, in float32.

    python bench/compare.py                                           # the whole table; some twenty minutes
    python bench/compare.py --networks vgg16 mlp --threads 1 --batch 1
    python bench/compare.py --composite epsilon_plus epsilon_gamma_box --numba
    python bench/compare.py --json result.json --chart bench.png --update README.md docs/performance.md
    python bench/compare.py --load result.json --markdown             # reports once more what was measured

Prints, for each network, batch and number of threads, the median time of

onnxruntime
    inference, the unit that the multiples are of;
predict
    lrpfast's inference;
explain
    lrpfast's explanation: inference, relevance and the numbers of the conservation ledger;
numba
    the same on the Numba backend, with --numba;
zennit, captum
    their explanations in torch: inference and relevance.

Whatever need be done only once (loading, canonizing, registering rules, planning) is done before. They take
turns, so that whatever else the machine does hits all of them. After each turn the answers are compared; the
exit code is 1 if they differ. No time is asserted.

Two more tables follow from the first: how much faster so many threads are than one, ours beside onnxruntime's; and
what one more product with the layers' matrices costs where a preset takes more of them than the first one named,
in inferences: no more than 1 is the goal.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from chart import draw
from contestants import PEERS, Answer, Contest, contest
from processes import process_rows
from report import (
    HEADER,
    Row,
    line,
    notes,
    preset_table,
    process_table,
    short_table,
    speedup_table,
    table,
    update,
)
from subjects import Array, subject

from lrpfast.benchmark import machine, prediction_error, take_turns

from networks import NETWORKS  # isort: skip (found by subjects)
from peers import COMPOSITE_NAMES  # isort: skip

DEFAULT_NETWORKS = ("vgg16", "resnet50", "mobilenet_v2", "efficientnet_lite0", "mlp")
DEFAULT_BATCHES = {"mlp": (1, 256)}  # others: (1, 8)

MOST = {"prediction": 1e-4, "numba": 1e-2, "zennit": 1e-2, "captum": 1e-2, "unexplained": 1e-5}
"""How far answers may be apart.

Predictions from onnxruntime's, as a share of the largest output. Relevance from lrpfast's with the peer's rules, or
Numba's from that of the other backend, by relative L2 distance, the worst sample's: rounding may decide a tie of a
max-pooling, and a tie can move 1e-3 of a heatmap. Relevance unexplained by the conservation ledger, as a share of
what arrived at a node; and what is found at the output and the input of the network against what the ledger says,
as a share of Σ|R|.
"""


OURS = ("onnxruntime", "predict", "explain")
"""Whose number of turns is `--repeats`."""

BRIEF, MORE_TURNS = 0.01, 5
"""Contestants have so many times as many turns where an explanation takes less than so many seconds."""


def measure(name: str, batch: int, threads: int, composite: str, options: argparse.Namespace) -> Row:
    """Let the contestants take turns, and check what they answer."""
    net = subject(name)
    title = f"{name}, batch {batch}, {threads} threads, {composite}"
    worst = dict.fromkeys(MOST, 0.0)
    with contest(net, batch, threads, composite, options.numba) as field:

        def check(answers: dict[str, Answer]) -> None:
            for kind, error in errors(field, answers):
                worst[kind] = max(worst[kind], error)
                if not error <= MOST[kind]:
                    sys.exit(f"{title}: {kind} differs by {error:.1e}; at most {MOST[kind]:.0e} is expected")

        began = time.perf_counter()
        field.calls["explain"]()
        more = MORE_TURNS if time.perf_counter() - began < BRIEF else 1
        turns = {
            name: more * (options.repeats if name in OURS else options.peer_repeats) for name in field.calls
        }
        seconds = take_turns(field.calls, turns, check)
    memory = batch * net.plan(composite).bytes_per_sample
    return Row(name, batch, threads, composite, net.products(composite), memory, seconds, worst, field.absent)


def errors(field: Contest, answers: dict[str, Answer]) -> Iterator[tuple[str, float]]:
    """How far the answers are apart; see `MOST`."""
    reference = answers["onnxruntime"].output
    for answer in answers.values():
        yield "prediction", prediction_error(answer.output, reference)
    ours = answers["explain"]
    for peer in ("numba", *PEERS):
        if peer in answers:
            yield peer, distance(answers[peer].relevance, field.expected.get(peer, ours.relevance))
    assert ours.conservation is not None
    yield "unexplained", ours.conservation.worst
    for found, claimed in (
        (ours.output.max(axis=1), ours.conservation[0].r_in),
        (ours.relevance, ours.conservation[-1].r_out),
    ):
        size = np.abs(found).sum(dtype=np.float64)
        yield "unexplained", abs(float(found.sum(dtype=np.float64)) - claimed) / size


def distance(a: Array | None, b: Array | None) -> float:
    """Relative L2 distance, the worst sample's."""
    assert a is not None and b is not None
    ours, theirs = (array.reshape(len(array), -1).astype(np.float64) for array in (a, b))
    return float((np.linalg.norm(ours - theirs, axis=1) / np.linalg.norm(theirs, axis=1)).max())


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    add = made.add_argument
    known = f"of {', '.join(NETWORKS)}"
    default = f"default: {' '.join(DEFAULT_NETWORKS)}"
    add("--networks", nargs="+", choices=NETWORKS, metavar="NAME", default=DEFAULT_NETWORKS,
        help=f"{known} ({default})")  # fmt: skip
    add("--batch", nargs="+", type=positive, metavar="N", help="default: 1 8; for mlp 1 256")
    add("--threads", nargs="+", type=positive, metavar="N", default=[1, 2], help="default: 1 2")
    add("--composite", nargs="+", choices=COMPOSITE_NAMES, metavar="NAME", default=["epsilon_plus"],
        help=f"of {', '.join(COMPOSITE_NAMES)} (default: epsilon_plus); all but the first are measured only with "
        "the first batch and number of threads")  # fmt: skip
    add("--numba", action="store_true", help="lrpfast on the Numba backend takes part too")
    add(
        "--repeats",
        type=positive,
        metavar="N",
        default=7,
        help="turns of onnxruntime and lrpfast (default: 7)",
    )
    add(
        "--peer-repeats",
        type=positive,
        metavar="N",
        default=3,
        help="turns of the others (default: 3)",
    )
    add("--processes", action="store_true", help="also start whole processes: their time and peak memory")
    add("--load", type=Path, metavar="JSON", help="report what an earlier run wrote instead of measuring")
    add("--json", type=Path, metavar="OUT", help="write all times to this file")
    add("--chart", type=Path, metavar="OUT", help="draw a chart: .png, .svg or .pdf")
    add("--markdown", action="store_true", help="print the tables as they stand in documents")
    add("--update", nargs="+", type=Path, metavar="FILE", default=[], help="put the tables into documents")
    return made


def positive(text: str) -> int:
    """A number of threads, samples or turns."""
    if int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text} is not at least 1")
    return int(text)


def run(options: argparse.Namespace) -> dict[str, Any]:
    """Measure, printing each line of the table as soon as it is there."""
    setting = machine("onnxruntime", "torch", "zennit", "captum")
    turns = {"repeats": options.repeats, "peer_repeats": options.peer_repeats}
    first, *others = options.composite
    print(f"{', '.join(f'{key} {value}' for key, value in setting.items())}\n\n{HEADER}")
    rows: list[Row] = []
    for name in options.networks:
        batches = options.batch or DEFAULT_BATCHES.get(name, (1, 8))
        runs = [(batch, threads, first) for batch in batches for threads in options.threads]
        runs += [(batches[0], options.threads[0], other) for other in others]
        for case in runs:
            rows.append(measure(name, *case, options))
            print(line(rows[-1]), flush=True)
    processes = process_rows(options.networks, first, options.repeats) if options.processes else []
    return {"machine": setting, "composite": first, **turns,
            "rows": [{**asdict(row), "medians": row.medians} for row in rows], "processes": processes}  # fmt: skip


def main() -> None:
    arguments = parser()
    options = arguments.parse_args()
    for out in (options.json, options.chart):
        if out is not None and not out.parent.is_dir():
            arguments.error(f"{out}: there is no folder {out.parent}")
    result = json.loads(options.load.read_text()) if options.load else run(options)
    rows = [Row.of(row) for row in result["rows"]]
    if options.load:
        print("\n".join([HEADER, *map(line, rows)]))
    blocks = {
        "bench": table(result, rows),
        "bench-short": short_table(result, rows),
        "bench-threads": speedup_table(rows),
        "bench-presets": preset_table(rows),
        "bench-processes": process_table(result["processes"]),
    }
    blocks = {name: block for name, block in blocks.items() if block}
    print("", *notes(result, rows), sep="\n")
    for name in ("bench-threads", "bench-presets", "bench-processes"):
        if name in blocks:
            print("", *blocks[name], sep="\n")
    if options.json:
        options.json.write_text(json.dumps(result, indent=1) + "\n")
    if options.chart:
        draw(result, [row for row in rows if row.composite == result["composite"]], options.chart)
    if options.markdown:
        print(*("\n".join(["", *block]) for block in blocks.values()), sep="\n")
    for path in options.update:
        update(path, blocks)


if __name__ == "__main__":
    main()
