"""Inference and explanations side by side: onnxruntime, lrpfast and zennit, at batch 1 in float32.

    python bench/compare.py --networks resnet18 vgg16_bn --threads 1 2 --json result.json

Prints, for each network and number of threads, the median time of

onnxruntime
    inference, the unit that the multiples are of;
predict
    lrpfast's inference;
explain
    lrpfast's explanation: inference, relevance and conservation ledger;
zennit
    zennit's explanation in torch: inference and relevance.

Whatever need be done only once (loading, canonizing, registering rules, planning) is done before. The four
take turns, so that whatever else the machine does hits all of them. After each turn answers are compared; the
exit code is 1 if they differ.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from subjects import Array, Subject, onnxruntime_predict, prediction_error, subject
from zennit.attribution import Gradient
from zennit.composites import COMPOSITES

import lrpfast.backends

sys.path.append(str(Path(__file__).parents[1] / "tests"))
from networks import NETWORKS, network
from peers import COMPOSITE_NAMES, canonizers, prepared_copy, refuse_silent_gradients

MOST_PREDICTION_ERROR = 1e-4
"""Of the largest output."""

MOST_HEATMAP_ERROR = 1e-2
"""Relative L2 distance: rounding may decide a tie of a max-pooling, and a tie can move 1e-3 of a heatmap."""

PAUSE = 0.05
"""Seconds between turns, in which the threads of the one before, which wait busily for a while, fall asleep."""


class Answer(NamedTuple):
    """What a contestant computes: the network's output, and the heatmap if it explains."""

    output: Array
    heatmap: Array | None = None


@dataclass(frozen=True)
class Row:
    """Measurements of one network and number of threads.

    Attributes
    ----------
    seconds : dict of str to list of float
        For each contestant the time of each of its turns.
    prediction_error : float
        The largest between onnxruntime and any other; see `MOST_PREDICTION_ERROR`.
    heatmap_error : float
        Between lrpfast and zennit; see `MOST_HEATMAP_ERROR`.
    """

    network: str
    threads: int
    composite: str
    seconds: dict[str, list[float]]
    prediction_error: float
    heatmap_error: float

    def medians(self) -> dict[str, float]:
        """Median seconds of each contestant."""
        return {name: statistics.median(seconds) for name, seconds in self.seconds.items()}


# --- the contestants ---


@contextmanager
def contestants(name: str, composite: str, threads: int) -> Iterator[dict[str, Callable[[], Answer]]]:
    """The four of them, ready to be called."""
    net = subject(name)
    infer = onnxruntime_predict(net.path, threads)
    explainer = net.explainer(composite, threads)

    def explain() -> Answer:
        explanation = explainer(net.x)
        return Answer(explanation.output, explanation.relevance)

    with zennit_explainer(network(name).module, net, composite, threads) as zennit:
        yield {
            "onnxruntime": lambda: Answer(infer(net.x)),
            "predict": lambda: Answer(net.network.predict(net.x, threads=threads)),
            "explain": explain,
            "zennit": zennit,
        }


@contextmanager
def zennit_explainer(
    module: torch.nn.Module, net: Subject, composite: str, threads: int
) -> Iterator[Callable[[], Answer]]:
    """zennit on a copy of `module`, as tests/peers.py prepares it, with its rules registered."""
    torch.set_num_threads(threads)
    prepared, x = prepared_copy(module, torch.float32), torch.from_numpy(net.x)
    bounds = {"low": net.low, "high": net.high} if composite == "epsilon_gamma_box" else {}
    box = {name: torch.full_like(x, bound) for name, bound in bounds.items()}
    rules = COMPOSITES[composite](canonizers=canonizers(prepared), **box)

    def top_logit(output: torch.Tensor) -> torch.Tensor:
        return output.detach() * torch.nn.functional.one_hot(output.argmax(1), output.shape[1])

    with Gradient(prepared, rules, top_logit) as attributor:
        refuse_silent_gradients(prepared)

        def explain() -> Answer:
            output, relevance = attributor(x)
            return Answer(output.detach().numpy(), relevance.numpy())

        yield explain


# --- measuring ---


def measure(name: str, composite: str, threads: int, repeats: int) -> Row:
    """Let the contestants take turns, and check what they answer."""
    with contestants(name, composite, threads) as calls:
        seconds: dict[str, list[float]] = {contestant: [] for contestant in calls}
        errors = []
        for _ in range(repeats):
            answers = {}
            for contestant, call in calls.items():
                time.sleep(PAUSE)
                call()  # brings the network into the caches, and the threads to work
                start = time.perf_counter()
                answers[contestant] = call()
                seconds[contestant].append(time.perf_counter() - start)
            errors.append(check(f"{name}, threads={threads}, {composite}", answers))
    prediction_errors, heatmap_errors = zip(*errors, strict=True)
    return Row(name, threads, composite, seconds, max(prediction_errors), max(heatmap_errors))


def check(title: str, answers: dict[str, Answer]) -> tuple[float, float]:
    """How far predictions and heatmaps are apart; ends the program if that is too far."""
    expected = answers["onnxruntime"].output
    prediction = max(prediction_error(answer.output, expected) for answer in answers.values())
    ours, theirs = answers["explain"].heatmap, answers["zennit"].heatmap
    assert ours is not None and theirs is not None
    heatmap = float(np.linalg.norm(ours - theirs) / np.linalg.norm(theirs))
    if not (prediction <= MOST_PREDICTION_ERROR and heatmap <= MOST_HEATMAP_ERROR):
        sys.exit(
            f"{title}: the answers differ: predictions by {prediction:.1e} (at most {MOST_PREDICTION_ERROR:.0e} "
            f"of the largest output is expected), heatmaps by {heatmap:.1e} (at most {MOST_HEATMAP_ERROR:.0e})"
        )
    return prediction, heatmap


# --- reporting ---


def machine() -> dict[str, Any]:
    """What the numbers depend on, besides the code."""
    packages = ("numpy", "onnxruntime", "torch", "zennit")
    return {
        "system": platform.platform(),
        "cpu": cpu_name(),
        "cpus": lrpfast.backends.get_num_threads(),
        "python": platform.python_version(),
        "lrpfast": lrpfast.__version__,
        "backend": lrpfast.backends.describe(lrpfast.backends.get()),
        **{package: version(package) for package in packages},
    }


def cpu_name() -> str:
    """The processor's name where Linux gives one, else its architecture."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


HEADER = (
    f"{'network':18} {'threads':>7} {'onnxruntime':>12} {'predict':>18} {'explain':>18} {'zennit':>18}  "
    "predictions  heatmaps differ by"
)


def line(row: Row) -> str:
    """One line of the table: milliseconds, and how many times onnxruntime's they are."""
    medians = row.medians()
    unit = medians.pop("onnxruntime")
    cells = [f"{seconds * 1e3:8.1f} ms {seconds / unit:5.2f} ×" for seconds in medians.values()]
    return (
        f"{row.network:18} {row.threads:7} {unit * 1e3:9.1f} ms {' '.join(cells)}  "
        f"{row.prediction_error:11.0e}  {row.heatmap_error:8.0e}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument(
        "--networks",
        nargs="+",
        choices=NETWORKS,
        metavar="NAME",
        default=["resnet18", "resnet50", "mobilenet_v2", "vgg16_bn"],
        help=f"of {', '.join(NETWORKS)} (default: %(default)s)",
    )
    parser.add_argument("--threads", nargs="+", type=int, default=[1, 2], help="default: %(default)s")
    parser.add_argument("--composite", choices=COMPOSITE_NAMES, default="epsilon_plus")
    parser.add_argument("--repeats", type=int, default=7, help="turns of each (default: %(default)s)")
    parser.add_argument("--json", type=Path, metavar="OUT", help="write all times to this file")
    options = parser.parse_args()
    if min(options.threads) < 1 or options.repeats < 1:
        parser.error("--threads and --repeats are to be at least 1")
    if options.json and not options.json.parent.is_dir():
        parser.error(f"--json {options.json}: there is no folder {options.json.parent}")

    setting = machine()
    print(f"{options.composite}; {', '.join(f'{key} {value}' for key, value in setting.items())}\n{HEADER}")
    rows = []
    for name in options.networks:
        for threads in options.threads:
            rows.append(measure(name, options.composite, threads, options.repeats))
            print(line(rows[-1]), flush=True)
    if options.json:
        content = {"machine": setting, "rows": [{**asdict(row), "medians": row.medians()} for row in rows]}
        options.json.write_text(json.dumps(content, indent=1) + "\n")


if __name__ == "__main__":
    main()
