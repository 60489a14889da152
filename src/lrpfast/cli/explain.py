"""``lrpfast explain``: files in, drawings and arrays of relevance out."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import numpy as np

from ..api import Explainer
from ..colors import COLORMAPS
from ..composites import INITS
from ..errors import LrpfastError
from ..explanation import Explanation
from ..network import Network
from ..ops.base import Array
from ..preprocess import PREPROCESSINGS, bounds
from ..question import has_classes
from .blowups import BlowUps, blowup_options, without_warnings
from .composing import BOXED, make_composite
from .console import REFUSED, Failure, OneOf, Progress, closest, note, print_json, translate, usage
from .inputs import UNIT, Sample, choose_preprocessing, find_samples, is_array_file
from .labels import find_target, read_features, read_labels
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
from .outputs import check_destinations, destinations, write_array
from .showing import (
    BARS,
    CURVE,
    DRAWINGS,
    HEATMAP,
    NUMBERS,
    Form,
    Mode,
    Shown,
    Style,
    check_drawable,
    form_for,
    write,
)
from .texts import TextOptions, Texts, text_options

if TYPE_CHECKING:
    from ..onnx_inputs import InputShape

HELP = """Explain what a network sees in pictures, texts, signals, tables or arrays.

    MODEL is an ONNX file. INPUT is a picture, an .npy array, an .npz file of arrays or a .csv table, with
    or without a batch axis (of a table, each row is a sample); with --tokens it is a text file, or - for
    the standard input. For a model with several inputs it is an .npz file whose arrays are named like
    them, with one batch axis. Every sample of every input is explained. All arguments and inputs are checked
    before anything is computed.

    OUT is a file for one sample (heat.png), a folder for several (heat/), or an array of relevance in the
    shape of the input (relevance.npy). Red speaks for the target and blue against it. What is drawn
    follows from what the network takes:

    \b
      pictures             heatmaps           .png .jpg
      token ids            coloured words     .html .png .jpg .txt
      features             bars               .png .svg .pdf .jpg
      channels × length    coloured curves    .png .svg .pdf .jpg

    Without OUT, words are shown in the terminal. Their default composite is epsilon_plus, since equal
    shares in the first layer would make words look alike.

    For each sample a line is printed, with tabs between: input, target, score, probability, output.

    \b
    Examples:
      lrpfast explain model.onnx photo.jpg -o heat.png --labels labels.txt
      lrpfast explain model.onnx photo.jpg -o heat.png --overlay -t "tabby cat"
      lrpfast explain model.onnx photos/*.jpg -o heat/ -c epsilon_gamma_box
      lrpfast explain model.onnx --tokens vocab.txt --sentence "a good film"
      lrpfast explain model.onnx --tokens vocab.txt --text review.txt -o r.html
      lrpfast explain model.onnx patients.csv -o patients/
      lrpfast explain model.onnx signals.npy -o relevance.npy --json
    """


TEXT_COMPOSITE = "epsilon_plus"
"""The default for texts: equal shares in the first layer (epsilon_plus_flat) make words look alike."""


@click.command(short_help="Explain pictures, texts, signals or tables.", help=HELP)
@model_argument
@click.argument("inputs", metavar="[INPUT]...", nargs=-1, type=click.Path())
@click.option("-o", "--out", type=click.Path(), help="File or folder to write.")
@click.option(
    "--save",
    type=click.Path(),
    metavar="R.npz",
    help="Also save relevance, prediction and ledger; a folder for several samples.",
)
@click.option("-t", "--target", metavar="N|LABEL", help="Output to explain.  [default: the largest]")
@click.option(
    "--labels",
    type=click.Path(),
    metavar="FILE",
    help="Names of the outputs: one per line, or JSON.  [default: the model's own]",
)
@composite_options
@blowup_options
@click.option(
    "--init",
    type=OneOf("init", INITS),
    help="Relevance to hand back: the output, 1, or the probability.",
)
@click.option(
    "--preprocess",
    metavar="NAME|FILE",
    help=f"How a picture becomes input: {', '.join(PREPROCESSINGS)}, or a .json file.  "
    "[default: imagenet; 0 to 1 for one channel]",
)
@click.option("--overlay", "mode", flag_value="overlay", help="Lay the heatmap over the picture.")
@click.option("--side-by-side", "mode", flag_value="side_by_side", help="Put the heatmap next to it.")
@click.option(
    "--cmap",
    type=OneOf("colour map", COLORMAPS, "NAME"),
    help=f"Colours of heatmaps and curves: {', '.join(COLORMAPS)}.  [default: seismic; soft for curves]",
)
@text_options
@click.option(
    "--features",
    type=click.Path(),
    metavar="FILE",
    help="Names of a table's features or a signal's channels: one per line, or JSON; of a table with a "
    "header, the columns to take.",
)
@click.option(
    "--top",
    type=click.IntRange(min=1),
    default=20,
    show_default=True,
    metavar="N",
    help="How many features are drawn, the strongest first.",
)
@click.option(
    "--draw",
    metavar="NAME",
    help="Input whose relevance is drawn or written, of a model with several.  [default: the first drawable]",
)
@input_shape_option
@output_option
@threads_option
@memory_option
@backend_option
@dtype_option
@json_option
def explain(
    model: str, inputs: tuple[str, ...], out: str | None, save: str | None, target: str | None,
    labels: str | None, composite: str, parameters: Parameters, low: float | None, high: float | None,
    on_blowup: str, blowup: float, init: str | None, preprocess: str | None, mode: Mode | None,
    cmap: str | None, tokens: str | None,
    text_files: tuple[str, ...], sentences: tuple[str, ...], joined: bool, max_length: int | None, pad_id: int | None,
    features: str | None, top: int, draw: str | None, input_shape: InputShape | None, output: str | None,
    threads: int | None, max_memory: int | None, backend: str | None, dtype: str, as_json: bool,
) -> None:  # fmt: skip
    inputs = (*inputs, *text_files)
    options = TextOptions(tokens, sentences, joined, max_length, pad_id)
    options.check(inputs)
    if out is None and save is None and tokens is None and not as_json:
        raise usage("there is nothing to write", "say -o heat.png, --save result.npz or --json")
    texts = None if tokens is None else Texts(model, inputs, options, input_shape)
    network = load_network(model, input_shape if texts is None else texts.input_shape, output)
    size = _outputs(network, init)
    names = read_labels(labels, model, size, network.labels)
    index = find_target(target, names, size)
    shown_input = _shown_input(network, draw, texts)
    shape = network.inputs[shown_input].shape
    preprocessing = choose_preprocessing(preprocess, shape)
    columns = None if features is None else read_features(features)
    if texts is None:
        samples = find_samples(inputs, network, preprocessing, dtype, columns, shown_input)
    else:
        samples = texts.samples(network, dtype)
    form = form_for(shape, texts is not None)
    if columns is not None and form not in (BARS, CURVE):
        raise usage("--features names the features of tables or the channels of signals", "leave it out")
    style = Style(mode, cmap, top, joined)
    files = _destinations(samples, out, save, style, form, shape)

    pictures = [] if texts is not None else [file for file in inputs if not is_array_file(file)]
    known = preprocess is not None or len(pictures) == len(inputs) > 0
    box = bounds(preprocessing, shape) if known and composite in BOXED else None
    if texts is not None and not _is_given("composite"):
        composite = TEXT_COMPOSITE
    chosen = make_composite(composite, parameters, low, high, network.canonized(dtype).graph, box)
    explainer = Explainer(
        network, chosen, threads=threads, backend=backend, dtype=dtype, max_memory=max_memory,
        on_blowup=on_blowup, blowup=blowup,
    )  # fmt: skip
    check_destinations((file for several in files for file in several), (*inputs, model))
    if pictures and preprocess is None:
        how = "brought to 0 ... 1" if preprocessing == UNIT else "preprocessed as for ImageNet"
        note(f"pictures are {how}; if the network wants them otherwise, say --preprocess")

    stacked = Path(out) if out is not None and _is_stack(out) else None
    printed = texts is not None and not as_json and ((out is None and save is None) or sys.stdout.isatty())
    results, relevances = [], []
    blowups = BlowUps(on_blowup, blowup)
    with Progress(len(samples)) as progress, without_warnings():
        for sample, paths in zip(samples, files, strict=True):
            progress.step(str(sample))
            x, picture = sample.read()
            explanation = _explained(explainer, sample, x, index, init)
            blowups.add(explanation)
            results.append(
                {**_result(sample, explanation, names, paths), "blowups": blowups.document(explanation)}
            )
            shown = Shown(sample, x, picture, explanation, _title(sample, results[-1]))
            for path in paths:
                if path != stacked:
                    write(shown, path, form, style)
            if stacked is not None:
                relevances.append(shown.relevance)
            if not as_json:
                progress.clear()
                _print_line(sample, results[-1])
            if printed:
                click.echo(f"\n{shown.words(joined).ansi(k=top)}\n")
    blowups.note()
    if stacked is not None:
        write_array(stacked, relevances[0] if [s.index for s in samples] == [None] else np.stack(relevances))
    if as_json:
        keys = ("model", "composite", "init", "backend", "dtype", "on_blowup", "blowup")
        about = {key: explanation.manifest[key] for key in keys}
        print_json({**about, "results": results})


def _shown_input(network: Network, draw: str | None, texts: Texts | None) -> str:
    """The input whose relevance is drawn or written: the one that is asked for, or the first that can be drawn."""
    names = list(network.inputs)
    if draw is not None and texts is not None:
        raise usage("--draw is for arrays; of texts the words are shown", "leave it out")
    if draw is not None and draw not in names:
        raise usage(
            f"--draw is {draw!r}, but the model's inputs are {', '.join(names)}", closest(draw, names)
        )
    if draw is not None:
        return draw
    if texts is not None:
        return texts.input
    if len(names) > 1:
        shown = next((n for n in names if form_for(network.inputs[n].shape, False) is not NUMBERS), names[0])
        rest = ", ".join(name for name in names if name != shown)
        note(f"drawn or written is the relevance of {shown}; --draw shows {rest}, and --save R.npz has all")
        return shown
    return names[0]


def _is_given(parameter: str) -> bool:
    """Whether a parameter of the command was said, and is not its default."""
    source = click.get_current_context().get_parameter_source(parameter)
    return source is not click.core.ParameterSource.DEFAULT


def _outputs(network: Network, init: str | None) -> int:
    """How many outputs there are to choose from, if the command can choose."""
    canonized = network.canonized()
    shape = canonized.graph.output_shape
    size = max(shape, default=1)
    if int(np.prod(shape)) != size:
        raise Failure(
            f"the network's output has shape {shape} per sample, no list of classes",
            REFUSED,
            "use lrpfast.explain in Python, with target= as an array of output weights",
        )
    if init == "probability" and not has_classes(shape, canonized.head):
        raise usage(f"there are no probabilities of an output of shape {shape}", "use --init logit or one")
    return size


def _is_stack(out: str) -> bool:
    """Whether the relevance of all samples goes into one array file."""
    return out.lower().endswith(".npy") and not Path(out).is_dir()


def _destinations(
    samples: Sequence[Sample],
    out: str | None,
    save: str | None,
    style: Style,
    form: Form,
    shape: tuple[int, ...],
) -> list[tuple[Path, ...]]:
    """The files to be written for each sample."""
    names = [sample.name for sample in samples]
    if style.mode and (out is None or form is not HEATMAP or _is_stack(out)):
        raise usage(f"--{style.mode.replace('_', '-')} needs a picture to write", "say -o heat.png")
    if style.cmap and form not in (HEATMAP, CURVE):
        raise usage("--cmap is for heatmaps and curves", "leave it out")
    columns = []
    if out is not None and _is_stack(out):
        columns.append([Path(out)] * len(samples))
    elif out is not None:
        if form is NUMBERS and Path(out).suffix.lower() in DRAWINGS:
            raise usage(
                f"relevance of shape {shape} is no picture",
                "write an array: -o relevance.npy, or --save relevance.npz",
            )
        columns.append(destinations("--out", out, names, (*form.suffixes, ".npy"), form.default))
    check_drawable(form, samples, shape, columns[0] if columns else ())
    if save is not None:
        columns.append(destinations("--save", save, names, (".npz",), ".npz"))
    return list(zip(*columns, strict=True)) if columns else [()] * len(samples)


def _explained(
    explainer: Explainer, sample: Sample, x: Array, target: int | None, init: str | None
) -> Explanation:
    try:
        return explainer(sample.feed(x), target, init)
    except LrpfastError as error:
        failure = translate(error)
        raise Failure(f"{sample}: {failure.message}", REFUSED, failure.hint) from error


def _result(
    sample: Sample, explanation: Explanation, labels: Sequence[str] | None, paths: Sequence[Path]
) -> dict[str, Any]:
    """What is reported of one sample."""
    scores = explanation.output[0].reshape(-1)
    probabilities = None if explanation.probabilities is None else explanation.probabilities[0]

    def described(i: int) -> dict[str, Any]:
        return {
            "index": i,
            "label": labels[i] if labels else None,
            "score": float(scores[i]),
            "probability": None if probabilities is None else float(probabilities[i]),
        }

    result = {
        "input": sample.file,
        "array": sample.array,
        "index": sample.index,
        "target": described(int(explanation.target[0])),
        "top": [described(int(i)) for i in np.argsort(-scores, kind="stable")[:5]],
        "conservation_worst": explanation.conservation.worst,
        "outputs": [str(path) for path in paths],
    }
    if sample.text is not None:
        columns = (sample.text.tokens, sample.text.ids, explanation.relevance_of(sample.input)[0].tolist())
        keys = ("token", "id", "relevance")
        result["tokens"] = [dict(zip(keys, row, strict=True)) for row in zip(*columns, strict=True)]
    return result


def _label(target: dict[str, Any]) -> str:
    return str(target["index"]) + (f" {target['label']}" if target["label"] else "")


def _title(sample: Sample, result: dict[str, Any]) -> str:
    """One sample as words above a drawing."""
    target = result["target"]
    sure = "" if target["probability"] is None else f", probability {target['probability']:.4f}"
    return f"{sample}: {_label(target)}{sure}"


def _print_line(sample: Sample, result: dict[str, Any]) -> None:
    """One sample as a line with tabs."""
    target = result["target"]
    label = _label(target)
    probability = "-" if target["probability"] is None else f"{target['probability']:.4f}"
    cells = (str(sample), label, f"{target['score']:.5g}", probability, *(result["outputs"] or "-"))
    click.echo("\t".join(cells))
