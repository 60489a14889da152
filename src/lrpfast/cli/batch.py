"""``lrpfast batch``: many inputs, in a job that can be stopped and started again."""

from __future__ import annotations

import contextlib
import os
import shutil
import sys
import time
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, NoReturn

import click

from ..composites import INITS
from ..errors import InputError
from ..preprocess import PREPROCESSINGS, bounds, is_picture
from .blowups import blowup_options
from .composing import BOXED, make_composite
from .console import (
    BLOWUP_CURES,
    CROSSED,
    INTERRUPTED,
    SOME_FAILED,
    Failure,
    OneOf,
    note,
    print_json,
    report,
    shorten,
    usage,
)
from .inputs import UNIT, choose_preprocessing
from .labels import read_labels
from .options import (
    Parameters,
    backend_option,
    composite_options,
    dtype_option,
    input_shape_option,
    json_option,
    load_network,
    memory_option,
    model_argument,
    output_option,
    threads_option,
)

if TYPE_CHECKING:
    from ..onnx_inputs import InputShape

HELP = """Explain all inputs of SOURCE, in a job that can be stopped and goes on.

    SOURCE is a folder, a pattern in quotes ("photos/*.jpg"), a list (.txt, a
    path a line), an .npy or .npz file of many samples, a Parquet file with
    pictures as bytes, paths or tensors, or a Zarr array; a path, or a URL
    that fsspec knows (s3://..., memory://...). Of a model with several
    inputs: .npz files with an array named like each input, a Parquet file
    with a column for each, or a Zarr group with an array for each.

    OUT becomes a folder with a Parquet data set: a row for each input, with
    its id, target, score, relevance, conservation figures, and the error if
    it could not be explained. --zarr puts the relevance into a Zarr array
    instead, --png draws heatmaps besides. Needs the extra: pip install
    "lrpfast[batch]".

    Stopped in whatever way, the same command goes on where it was, and each
    input is there exactly once. Other settings are refused: another job
    needs another OUT. --ray does the same job on a Ray cluster, with SOURCE
    and OUT where all nodes see them (docs/scaling.md; the extra "ray").

    \b
    Targets:
      argmax              the largest output (default)
      3, "tabby cat"      an output, by its number or label
      top3                the three largest: three rows for each input
      logit[3]-logit[5]   what speaks for 3 rather than for 5
      column:label        what the table's column says, row by row

    \b
    Examples:
      lrpfast batch model.onnx photos/ -o out/ --labels labels.txt
      lrpfast batch model.onnx "s3://bucket/*.jpg" -o out/ --top-k 100
      lrpfast batch model.onnx x.npy -o out/ --zarr relevance.zarr
      lrpfast batch model.onnx s3://in/ -o s3://out/ --ray=head:6379
      lrpfast batch model.onnx today.parquet -o today/ -t column:label \\
          --reference yesterday/ --fail-on drift=0.1

    \b
    Exit codes:
      0    every input was explained
      5    some inputs failed: their rows say why
      6    a threshold of --fail-on was crossed
      1-4  the job cannot run (see lrpfast --help)
      130  interrupted; the same command goes on
    """


class BatchSizeType(click.ParamType):  # type: ignore[type-arg]
    """``auto`` or a number."""

    name = "batch size"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int | None:
        if value == "auto":
            return None
        if not str(value).isdecimal() or int(value) < 1:
            raise usage(f"--batch-size is {value!r}; expected auto, or a whole number ≥ 1")
        return int(value)


class ThresholdType(click.ParamType):  # type: ignore[type-arg]
    """``conservation=NUMBER`` or ``drift=NUMBER``."""

    name = "threshold"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[str, float]:
        name, _, number = str(value).partition("=")
        try:
            limit = float(number)
        except ValueError:
            limit = -1.0
        if name not in ("conservation", "drift") or not limit >= 0:
            raise usage(f"--fail-on is {value!r}; expected conservation=NUMBER or drift=NUMBER",
                        "such as --fail-on conservation=1e-4")  # fmt: skip
        return name, limit


@click.command(short_help="Explain many inputs, resumably.", help=HELP)
@model_argument
@click.argument("source", type=click.Path())
@click.option("-o", "--out", required=True, type=click.Path(), help="Folder of the data set.")
@click.option("-t", "--target", default="argmax", show_default=True, help="What to explain; see above.")
@click.option(
    "--labels",
    type=click.Path(),
    metavar="FILE",
    help="Names of the outputs: one per line, or JSON.  [default: the model's own]",
)
@composite_options
@blowup_options
@click.option("--init", type=OneOf("init", INITS), help="Relevance to hand back.")
@click.option(
    "--preprocess",
    metavar="NAME|FILE",
    help=f"How a picture becomes input: {', '.join(PREPROCESSINGS)}, or a .json file.  "
    "[default: imagenet; 0 to 1 for one channel]",
)
@click.option(
    "--column",
    metavar="NAME",
    multiple=True,
    help="The table's column of inputs; of several inputs INPUT=NAME, repeatable.  [default: found by itself]",
)
@click.option("--id-column", metavar="NAME", help="The table's column of names.  [default: id]")
@click.option(
    "--top-k",
    type=click.IntRange(min=0),
    default=0,
    metavar="K",
    help="Keep the K strongest elements instead of all relevance.",
)
@click.option("--zarr", type=click.Path(), metavar="URL", help="Put relevance into a Zarr array.")
@click.option("--png", type=click.Path(), metavar="FOLDER", help="Draw heatmaps.")
@click.option(
    "--batch-size",
    type=BatchSizeType(),
    default="auto",
    show_default=True,
    metavar="N",
    help="Inputs that are explained at once.",
)
@click.option(
    "--part-rows",
    type=click.IntRange(min=1),
    metavar="N",
    help="Inputs per part file: what is lost at most if the job is killed.  [default: by size]",
)
@click.option(
    "--workers",
    type=click.IntRange(min=1),
    metavar="N",
    help="Threads that decode and draw; with --ray, processes that explain.  [default: the CPUs]",
)
@click.option(
    "--ray",
    is_flag=False,
    flag_value="auto",
    metavar="[ADDRESS]",
    help="Work on a Ray cluster: HOST:PORT, or else the one that runs here; without one, a local one is started.",
)
@click.option("--reference", type=click.Path(), metavar="REPORT", help="An earlier job to compare with.")
@click.option(
    "--fail-on",
    type=ThresholdType(),
    multiple=True,
    metavar="WHAT=X",
    help="Exit with 6 if conservation (the largest unexplained share) or drift is more than X; repeatable.",
)
@input_shape_option
@output_option
@threads_option
@memory_option
@backend_option
@dtype_option
@json_option
def batch(
    model: str, source: str, out: str, target: str, labels: str | None, composite: str,
    parameters: Parameters, low: float | None, high: float | None, on_blowup: str,
    blowup: float, init: str | None, preprocess: str | None,
    column: tuple[str, ...], id_column: str | None, top_k: int, zarr: str | None, png: str | None,
    batch_size: int | None, part_rows: int | None, workers: int | None, ray: str | None, reference: str | None,
    fail_on: tuple[tuple[str, float], ...], input_shape: InputShape | None, output: str | None, threads: int | None,
    max_memory: int | None, backend: str | None, dtype: str, as_json: bool,
) -> int:  # fmt: skip
    from ..batch import run
    from ..batch.sources import may_hold_pictures
    from ..batch.targets import parse

    if reference is None and any(name == "drift" for name, _ in fail_on):
        raise usage("--fail-on drift=… needs something to compare with", "say --reference REPORT")
    network = load_network(model, input_shape, output)
    shape = network.canonized(dtype).graph.output_shape
    names = read_labels(labels, model, max(shape, default=1), network.labels)
    try:
        parse(target, names, shape)
    except InputError as error:
        raise usage(str(error)) from error
    shapes = [fact.shape for fact in network.inputs.values()]
    pictures = [shape for shape in shapes if is_picture(shape)]
    preprocessing = choose_preprocessing(preprocess, (pictures or shapes)[0])
    boxed = preprocess is not None and composite in BOXED and len(shapes) == 1
    box = bounds(preprocessing, shapes[0]) if boxed else None
    chosen = make_composite(composite, parameters, low, high, network.canonized(dtype).graph, box)
    if preprocess is None and may_hold_pictures(source, len(shapes)) and pictures:
        how = "brought to 0 ... 1" if preprocessing == UNIT else "preprocessed as for ImageNet"
        note(f"pictures are {how}; if the network wants them otherwise, say --preprocess")
    columns = columns_of(column, len(shapes))
    progress = Rate()
    try:
        with _cluster(ray):
            summary = run(
                network, source, out, composite=chosen, target=target, init=init, labels=names,
                preprocessing=preprocessing, column=columns, id_column=id_column, top_k=top_k, zarr=zarr, png=png,
                batch_size=batch_size, part_rows=part_rows, max_memory=max_memory, threads=threads, workers=workers,
                ray=ray, backend=backend, dtype=dtype, on_blowup=on_blowup, blowup=blowup, reference=reference,
                progress=progress,
            )  # fmt: skip
    except KeyboardInterrupt:
        progress.clear()
        _leave(Failure("interrupted", INTERRUPTED, "the same command goes on where this one was"))
    finally:
        progress.clear()
    if as_json:
        print_json(summary.as_json())
    else:
        cells = (out, f"{summary.inputs} inputs", f"{summary.failed} failed", f"{summary.parts} parts")
        click.echo("\t".join((*cells, f"unexplained {summary.conservation_worst:.1e}")))
    return _judged(summary, dict(fail_on), reference)


def columns_of(given: Sequence[str], inputs: int) -> str | dict[str, str] | None:
    """What ``--column`` says: a column, or one by the name of each input."""
    if inputs > 1 or len(given) > 1:
        pairs = [each.partition("=") for each in given]
        wrong = [each for each, (_, mark, column) in zip(given, pairs, strict=True) if not (mark and column)]
        if inputs == 1 or wrong:
            expected = "one column" if inputs == 1 else "INPUT=COLUMN"
            raise usage(f"--column is {' '.join(wrong or given)!r}; expected {expected}",
                        "lrpfast inspect names the model's inputs")  # fmt: skip
        return {name: column for name, _, column in pairs} or None
    return given[0] if given else None


@contextlib.contextmanager
def _cluster(address: str | None) -> Iterator[None]:
    """Connected to the cluster, if there is to be one; what it is, is said.

    Ray prints on stdout when a worker dies. There belongs the result alone.
    """
    if address is None:
        yield
        return
    from ..batch.cluster import connected

    with contextlib.redirect_stdout(sys.stderr), connected(address) as cluster:
        note(str(cluster))
        yield


def _leave(failure: Failure) -> NoReturn:
    """End the process at once: its threads may be in a kernel that takes long."""
    code = report(failure)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def _judged(summary: Any, limits: dict[str, float], reference: str | None) -> int:
    """The exit code; what led to it is said."""
    code = 0
    if summary.failed:
        note(f"{summary.failed} of {summary.inputs} inputs failed; the column error says why")
        code = SOME_FAILED
    if summary.blowups:
        note(f"for {summary.blowups} inputs a node multiplies the relevance that arrives, as contributions cancel; "
             f"the column gain says how much\n{BLOWUP_CURES}")  # fmt: skip
    found = {"conservation": summary.conservation_worst}
    if summary.drift is not None:
        drift = summary.drift
        found["drift"] = drift.moved
        note(f"{drift.moved:.1%} of the relevance lies elsewhere than in {reference} (by chance it would be some "
             f"{drift.chance:.1%}; p = {drift.p:.2g}), most of it in {drift.regions[0][0]}")  # fmt: skip
    elif reference is not None:
        note("drift cannot be told: fewer than two inputs have relevance")
    for name, limit in limits.items():
        if found.get(name, 0.0) > limit:
            note(f"{name} is {found[name]:.3g}, more than the {limit:g} of --fail-on")
            code = CROSSED
    return code


class Rate:
    """How far a job is, how fast, and how long it will take: a bar on a terminal, else a line now and then.

    Called with the inputs done, all inputs, and those that failed.
    """

    BAR_SECONDS, LINE_SECONDS = 0.1, 10.0

    def __init__(self) -> None:
        self._start = self._shown = time.monotonic()
        self._first: int | None = None
        self._bar = sys.stderr.isatty() and os.environ.get("TERM") != "dumb"

    def __call__(self, done: int, total: int, failed: int) -> None:
        now = time.monotonic()
        if self._first is None:
            self._first, self._start = done, now
            if done:
                note(f"goes on: {done} of {total} inputs were done")
            return
        if now - self._shown < (self.BAR_SECONDS if self._bar else self.LINE_SECONDS):
            return
        self._shown = now
        text = progress_text(done, total, failed, (done - self._first) / max(now - self._start, 1e-9))
        if self._bar:
            filled = 20 * done // total
            text = shorten(
                "█" * filled + "░" * (20 - filled) + f" {text}", shutil.get_terminal_size().columns - 1
            )
            click.echo(f"\r\x1b[K{text}", err=True, nl=False)
        else:
            click.echo(text, err=True)

    def clear(self) -> None:
        """Wipe the bar, so that something else can be printed."""
        if self._bar:
            click.echo("\r\x1b[K", err=True, nl=False)


def progress_text(done: int, total: int, failed: int, rate: float) -> str:
    """How far, how fast and how long, in words."""
    left = "" if rate <= 0 else f", {_duration((total - done) / rate)} left"
    wrong = f", {failed} failed" if failed else ""
    return f"{done}/{total} inputs, {rate:.3g}/s{left}{wrong}"


def _duration(seconds: float) -> str:
    """Such as ``45 s``, ``12 min`` or ``3 h 20 min``."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"
