"""``lrpfast explain``: heatmaps of files."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import click
import numpy as np

from ..api import Explainer
from ..colors import COLORMAPS
from ..composites import INITS
from ..errors import LrpfastError
from ..explanation import Explanation
from ..image import save as save_picture
from ..network import Network
from ..ops.base import Array
from ..preprocess import PREPROCESSINGS, bounds
from .composing import BOXED, make_composite
from .console import REFUSED, Failure, OneOf, Progress, note, print_json, translate, usage
from .inputs import UNIT, Sample, choose_preprocessing, find_samples, is_array_file, is_picture
from .labels import find_target, read_labels
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
    threads_option,
)
from .outputs import PICTURES, check_destinations, destinations, write_array

if TYPE_CHECKING:
    from PIL.Image import Image

HELP = """Explain what a network sees in pictures or arrays.

    MODEL is an ONNX file. INPUT is a picture, an .npy array or an .npz file of arrays, with or without a
    batch axis; every sample of every input is explained. All arguments and inputs are checked before
    anything is computed.

    OUT is a picture for one sample (heat.png), a folder for several (heat/), or an array of relevance in
    the shape of the input (relevance.npy). In the heatmap, red speaks for the target and blue against it.

    For each sample a line is printed, with tabs between: input, target, score, probability, output.

    \b
    Examples:
      lrpfast explain model.onnx photo.jpg -o heat.png --labels labels.txt
      lrpfast explain model.onnx photo.jpg -o heat.png --overlay -t "tabby cat"
      lrpfast explain model.onnx photos/*.jpg -o heat/ -c epsilon_gamma_box
      lrpfast explain model.onnx signals.npy -o relevance.npy --json
    """


Mode = Literal["overlay", "side_by_side"]


@click.command(short_help="Write heatmaps of pictures or arrays.", help=HELP)
@model_argument
@click.argument("inputs", metavar="INPUT...", nargs=-1, required=True, type=click.Path())
@click.option("-o", "--out", type=click.Path(), help="Picture, .npy file or folder to write.")
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
@click.option(
    "--init",
    type=OneOf("init", INITS),
    help="Relevance to hand back: the output, 1, or the Softmax probability.",
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
    default="seismic",
    show_default=True,
    help=f"Colours: {', '.join(COLORMAPS)}.",
)
@input_shape_option
@threads_option
@memory_option
@backend_option
@dtype_option
@json_option
def explain(
    model: str, inputs: tuple[str, ...], out: str | None, save: str | None, target: str | None,
    labels: str | None, composite: str, parameters: Parameters, low: float | None, high: float | None,
    init: str | None, preprocess: str | None, mode: Mode | None, cmap: str,
    input_shape: tuple[int, ...] | None, threads: int | None, max_memory: int | None,
    backend: str | None, dtype: str, as_json: bool,
) -> None:  # fmt: skip
    if out is None and save is None and not as_json:
        raise usage("there is nothing to write", "say -o heat.png, --save result.npz or --json")
    network = load_network(model, input_shape)
    size = _outputs(network, init)
    names = read_labels(labels, model, size)
    index = find_target(target, names, size)
    preprocessing = choose_preprocessing(preprocess, network.input_shape)
    samples = find_samples(inputs, network, preprocessing, dtype)
    files = _destinations(samples, out, save, mode, network.input_shape)

    pictures = [file for file in inputs if not is_array_file(file)]
    known = preprocess is not None or len(pictures) == len(inputs)
    box = bounds(preprocessing, network.input_shape) if known and composite in BOXED else None
    chosen = make_composite(composite, parameters, low, high, network.canonized(dtype).graph, box)
    explainer = Explainer(
        network, chosen, threads=threads, backend=backend, dtype=dtype, max_memory=max_memory
    )
    check_destinations((file for several in files for file in several), (*inputs, model))
    if pictures and preprocess is None:
        how = "brought to 0 ... 1" if preprocessing == UNIT else "preprocessed as for ImageNet"
        note(f"pictures are {how}; if the network wants them otherwise, say --preprocess")

    stacked = Path(out) if out is not None and _is_stack(out) else None
    results, relevances = [], []
    with Progress(len(samples)) as progress:
        for sample, paths in zip(samples, files, strict=True):
            progress.step(str(sample))
            x, picture = sample.read()
            explanation = _explained(explainer, sample, x, index, init)
            for path in paths:
                if path != stacked:
                    _write(explanation, path, picture if mode else None, mode or "heatmap", cmap)
            if stacked is not None:
                relevances.append(explanation.relevance_of()[0])
            results.append(_result(sample, explanation, names, paths))
            if not as_json:
                progress.clear()
                _print_line(sample, results[-1])
    if stacked is not None:
        write_array(stacked, relevances[0] if [s.index for s in samples] == [None] else np.stack(relevances))
    if as_json:
        about = {key: explanation.manifest[key] for key in ("model", "composite", "init", "backend", "dtype")}
        print_json({**about, "results": results})


def _outputs(network: Network, init: str | None) -> int:
    """How many outputs there are to choose from, if the command can choose."""
    shape = network.canonized().graph.output_shape
    size = max(shape, default=1)
    if int(np.prod(shape)) != size:
        raise Failure(
            f"the network's output has shape {shape} per sample, no list of classes",
            REFUSED,
            "use lrpfast.explain in Python, with target= as an array of output weights",
        )
    if init == "probability" and (len(shape) != 1 or size < 2):
        raise usage(f"there are no probabilities of an output of shape {shape}", "use --init logit or one")
    return size


def _is_stack(out: str) -> bool:
    """Whether the relevance of all samples goes into one array file."""
    return out.lower().endswith(".npy") and not Path(out).is_dir()


def _destinations(
    samples: Sequence[Sample], out: str | None, save: str | None, mode: Mode | None, shape: tuple[int, ...]
) -> list[tuple[Path, ...]]:
    """The files to be written for each sample."""
    names = [sample.name for sample in samples]
    drawable = is_picture(shape)
    if mode and (out is None or not drawable or _is_stack(out)):
        raise usage(f"--{mode.replace('_', '-')} needs a picture to write", "say -o heat.png")
    columns = []
    if out is not None and _is_stack(out):
        columns.append([Path(out)] * len(samples))
    elif out is not None:
        columns.append(destinations("--out", out, names, (*PICTURES, ".npy"), ".png" if drawable else ".npy"))
        if not drawable and columns[0][0].suffix.lower() in PICTURES:
            raise usage(f"relevance of shape {shape} is no picture", "write an array: -o relevance.npy")
    if save is not None:
        columns.append(destinations("--save", save, names, (".npz",), ".npz"))
    return list(zip(*columns, strict=True)) if columns else [()] * len(samples)


def _explained(
    explainer: Explainer, sample: Sample, x: Array, target: int | None, init: str | None
) -> Explanation:
    try:
        return explainer(x[None], target, init)
    except LrpfastError as error:
        failure = translate(error)
        raise Failure(f"{sample}: {failure.message}", REFUSED, failure.hint) from error


def _write(
    explanation: Explanation, path: Path, photo: Image | None, mode: Mode | Literal["heatmap"], cmap: str
) -> None:
    """Write what the suffix says."""
    if path.suffix == ".npz":
        explanation.save(path)
    elif path.suffix == ".npy":
        write_array(path, explanation.relevance_of()[0])
    else:
        save_picture(explanation.image(photo=photo, mode=mode, cmap=cmap), path)


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

    return {
        "input": sample.file,
        "array": sample.array,
        "index": sample.index,
        "target": described(int(explanation.target[0])),
        "top": [described(int(i)) for i in np.argsort(-scores, kind="stable")[:5]],
        "conservation_worst": explanation.conservation.worst,
        "outputs": [str(path) for path in paths],
    }


def _print_line(sample: Sample, result: dict[str, Any]) -> None:
    """One sample as a line with tabs."""
    target = result["target"]
    label = str(target["index"]) + (f" {target['label']}" if target["label"] else "")
    probability = "-" if target["probability"] is None else f"{target['probability']:.4f}"
    cells = (str(sample), label, f"{target['score']:.5g}", probability, *(result["outputs"] or "-"))
    click.echo("\t".join(cells))
