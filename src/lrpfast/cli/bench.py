"""``lrpfast bench``: what predicting and explaining cost with a model, on this machine."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import numpy as np

from .. import backends
from ..api import Explainer
from ..benchmark import machine, medians, onnxruntime_predictor, prediction_error, take_turns
from ..composites import Composite
from ..explanation import Explanation
from ..files import whole_file
from ..network import Network
from ..ops.base import Array
from .blowups import without_warnings
from .composing import make_composite
from .console import note, print_json, print_table, shorten
from .inputs import choose_preprocessing, find_samples
from .options import (
    Parameters,
    backend_option,
    composite_options,
    dtype_option,
    input_shape_option,
    load_network,
    memory_option,
    model_argument,
    output_option,
    threads_option,
)
from .outputs import check_destinations

if TYPE_CHECKING:
    from ..benchmark_profile import ProfileRow
    from ..onnx_inputs import InputShape

HELP = """Say how long MODEL takes to predict and to explain, on this machine.

    Times are medians of several turns, which predicting, explaining and (if it is installed)
    onnxruntime's inference of the same model take one after the other. The last column is the price in
    inferences: how many times as long as onnxruntime's. Loading and planning are not counted; how far
    the predictions are apart is said below the table.

    --profile adds a table of the steps of an explanation: the kernel, its form (a letter, spelled out
    below the table), its time, the operations it stands for, and which share of the node's inputs x and
    of its relevance R is not zero. Steps that take next to nothing are summed up.

    \b
    Examples:
      lrpfast bench model.onnx
      lrpfast bench model.onnx --batch 8 --threads 1 -c epsilon_gamma_box
      lrpfast bench model.onnx --input photo.jpg --profile --json result.json
    """

SHORT = 0.005
"""Steps with a smaller share of the time are summed up."""


@click.command(short_help="How long a model takes to predict and to explain.", help=HELP)
@model_argument
@click.option(
    "--input",
    "file",
    type=click.Path(),
    metavar="FILE",
    help="A picture, .npy or .npz; its samples fill the batch.  [default: seeded noise]",
)
@click.option("--preprocess", metavar="NAME|FILE", help="How a picture becomes input; as for `explain`.")
@composite_options
@click.option("--batch", type=click.IntRange(min=1), default=1, show_default=True, metavar="N",
              help="Samples per call.")  # fmt: skip
@click.option("--repeats", type=click.IntRange(min=1), default=7, show_default=True, metavar="N",
              help="Turns of each.")  # fmt: skip
@click.option("--profile", "profiled", is_flag=True, help="Also say where the time goes, step by step.")
@click.option(
    "--json", "out", type=click.Path(), is_flag=False, flag_value="-", metavar="[OUT]",
    help="Write all times to this file; without a name, print them as JSON instead of the tables.",
)  # fmt: skip
@input_shape_option
@output_option
@threads_option
@memory_option
@backend_option
@dtype_option
def bench(
    model: str, file: str | None, preprocess: str | None, composite: str, parameters: Parameters,
    low: float | None, high: float | None, batch: int, repeats: int, profiled: bool, out: str | None,
    input_shape: InputShape | None, output: str | None, threads: int | None, max_memory: int | None,
    backend: str | None, dtype: str,
) -> None:  # fmt: skip
    network = load_network(model, input_shape, output)
    x = _batch(network, file, preprocess, dtype, batch)
    box = float(min(a.min() for a in x.values())), float(max(a.max() for a in x.values()))
    chosen = make_composite(composite, parameters, low, high, network.canonized(dtype).graph, box)
    threads = threads or backends.get_num_threads()
    engine: dict[str, Any] = {"threads": threads, "backend": backend, "dtype": dtype}
    explainer = Explainer(network, chosen, max_memory=max_memory, **engine)
    if out not in (None, "-"):
        check_destinations([Path(out)], [model] if file is None else [model, file])

    calls = {
        "predict": lambda: network.predict(x, max_memory=max_memory, **engine),
        "explain": lambda: explainer(x),
    }
    reference, why_not = _reference(model, threads, network.output, x)
    if reference is not None:
        calls = {"onnxruntime": lambda: reference(x), **calls}
    answers: dict[str, Any] = {}
    with without_warnings():
        times = take_turns(calls, repeats, answers.update)
    document: dict[str, Any] = {
        "model": {"name": network.name, "sha256": network.hash}, "input": file or "noise",
        "input_shape": _shape(network), "batch": batch, "composite": chosen.name, "dtype": dtype,
        "threads": threads, "backend": backends.describe(explainer.backend), "seconds": times,
        "ms_per_sample": {name: 1e3 * median / batch for name, median in medians(times).items()},
        "onnxruntime": why_not, **_checks(answers), "machine": machine("onnxruntime"),
    }  # fmt: skip
    if profiled:
        with without_warnings():
            rows = _profile(network, chosen, explainer, x, engine)
        document["profile"] = [asdict(row) for row in rows]
    if out == "-":
        print_json(document)
        return
    _print(document, repeats)
    if profiled:
        click.echo()
        _print_profile(rows)
    if out is not None:
        with whole_file(out) as written:
            written.write(f"{json.dumps(document, indent=2, allow_nan=False)}\n".encode())


def _batch(
    network: Network, file: str | None, preprocess: str | None, dtype: str, batch: int
) -> dict[str, Array]:
    """The inputs: the file's samples, over and over again, or noise."""
    if file is None:
        return {name: array.astype(dtype) for name, array in network.noise(batch).items()}
    name, *others = network.inputs
    preprocessing = choose_preprocessing(preprocess, network.inputs[name].shape)
    found = find_samples((file,), network, preprocessing, dtype)[:batch]
    samples = [{**sample.others, name: sample.read()[0]} for sample in found]
    return {
        each: np.stack([samples[i % len(samples)][each] for i in range(batch)]).astype(dtype)
        for each in (name, *others)
    }


def _shape(network: Network) -> tuple[int, ...] | dict[str, tuple[int, ...]]:
    """The shape of the input, or of each by name."""
    shapes = {name: fact.shape for name, fact in network.inputs.items()}
    return shapes if len(shapes) > 1 else network.input_shape


def _reference(
    model: str, threads: int, output: str, x: Mapping[str, Array]
) -> tuple[Callable[[Mapping[str, Array]], Array] | None, str]:
    """onnxruntime's inference; or None, and why there is none."""
    try:
        predict = onnxruntime_predictor(model, threads, output)
        predict(x)
    except ImportError:
        return None, "it is not installed; pip install onnxruntime"
    except Exception as error:  # whatever classes onnxruntime has for the reasons
        reason, *_ = str(error).splitlines() or [type(error).__name__]
        return None, f"it cannot run this model: {reason}"
    return predict, ""


def _checks(answers: Mapping[str, Any]) -> dict[str, float | None]:
    """How far the answers can be trusted."""
    explanation: Explanation = answers["explain"]
    expected = answers.get("onnxruntime")
    return {
        "prediction_error": None if expected is None else prediction_error(answers["predict"], expected),
        "unexplained": explanation.conservation.worst,
    }


def _profile(
    network: Network,
    chosen: Composite,
    explainer: Explainer,
    x: Mapping[str, Array],
    engine: Mapping[str, Any],
) -> list[ProfileRow]:
    """Times of the steps; densities are those of the first sample."""
    from ..benchmark_profile import densities, profile_rows

    first = {name: array[:1] for name, array in x.items()}
    relevance = Explainer(network, chosen, record="all", **engine)(first).layers
    found = densities(network.canonized(explainer.dtype).graph, tuple(first.values()), relevance)
    return profile_rows(explainer.profile(x), len(next(iter(x.values()))), found)


# --- in words ---


def _print(document: Mapping[str, Any], repeats: int) -> None:
    given = document["input_shape"]
    shapes = given.values() if isinstance(given, Mapping) else [given]
    shape = ", ".join("×".join(map(str, each)) or "number" for each in shapes)
    threads = f"{document['threads']} thread{'s' * (document['threads'] > 1)}"
    title = (
        f"{document['model']['name']}: {document['composite']} in {document['dtype']}, "
        f"{document['backend']}, {threads}"
    )
    click.echo(click.wrap_text(title, 80))
    click.echo(f"batches of {document['batch']} × ({shape}), medians of {repeats} turns\n")
    ms = document["ms_per_sample"]
    unit = ms.get("onnxruntime")
    rows = [
        (name, f"{value:13.3f}", f"{1e3 / value:9.1f}", "" if unit is None else f"{value / unit:10.2f} ×")
        for name, value in ms.items()
    ]
    print_table(("", "ms per sample", "samples/s", "onnxruntime"), rows)
    click.echo()
    if unit is None:
        click.echo(click.wrap_text(f"No multiples of onnxruntime's time: {document['onnxruntime']}.", 80))
    else:
        error = document["prediction_error"]
        click.echo(f"The predictions differ from onnxruntime's by {error:.0e} of the largest output.")
        if error > 1e-3:
            note("that is more than rounding; another dtype, or a bug in either")
    click.echo(f"At most {document['unexplained']:.0e} of the relevance is unexplained at any node.")


def _print_profile(rows: Sequence[ProfileRow]) -> None:
    """The steps in the order in which they run, and the same by kernels."""
    letters: dict[str, str] = {}
    cells, rest = [], []
    for row in rows:
        if row.share < SHORT:
            rest.append(row)
            continue
        letter = letters.setdefault(row.form, _letter(len(letters))) if row.form else ""
        dense = (_percent(row.input_density, 4), _percent(row.relevance_density, 4))
        cells.append((shorten(row.node, 18), shorten(row.step, 17), letter, *_cost([row]), *dense))
    if rest:
        cells.append((f"{len(rest)} shorter ones", "", "", *_cost(rest), "", ""))
    head = ("node", "step", "form", "     ms", " time", " GF/s", " x≠0", " R≠0")
    print_table(head, cells)
    click.echo()
    for form, letter in letters.items():
        click.echo(click.wrap_text(form, 80, f"{letter}  ", "   "))
    click.echo()
    steps = dict.fromkeys(row.step for row in rows)
    groups = {step: [row for row in rows if row.step == step] for step in steps}
    by_time = sorted(groups.items(), key=lambda group: -sum(row.seconds for row in group[1]))
    table = ((shorten(step, 26), f"{len(group):5}", *_cost(group)) for step, group in by_time)
    print_table(("step", "calls", *head[3:6]), table)


def _letter(index: int) -> str:
    """a, b, …, z, aa, …"""
    return (_letter(index // 26 - 1) if index >= 26 else "") + chr(ord("a") + index % 26)


def _cost(rows: Sequence[ProfileRow]) -> tuple[str, str, str]:
    """Milliseconds, share of the time, and rate of some steps together."""
    seconds = sum(row.seconds for row in rows)
    known = [row for row in rows if row.rate is not None]
    rate = sum(row.rate * row.seconds for row in known if row.rate is not None) / (seconds or 1.0)
    time = _percent(sum(row.share for row in rows), 5)
    return f"{1e3 * seconds:7.2f}", time, f"{rate / 1e9:5.1f}" if known else ""


def _percent(value: float | None, width: int) -> str:
    return "" if value is None else f"{value:{width}.0%}"
