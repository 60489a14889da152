"""``lrpfast demo``: the network that ships with the package explains its own samples."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from .console import note, print_table, usage
from .outputs import PICTURES, check_destinations

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from ..explanation import Explanation

HELP = """Explain pictures with the small network that ships with lrpfast; needs nothing else.

    Writes one picture: each sample, and beside it the heatmaps of three composites. Red speaks for the
    class that the network chose, blue against it.

    \b
    Example:
      lrpfast demo -o demo.png
    """

COMPOSITES: dict[str, dict[str, Any]] = {
    "epsilon_plus": {},
    "epsilon_gamma_box": {"low": 0.0, "high": 1.0},
    "gradient_x_input": {},
}
"""What is shown side by side: two kinds of relevance propagation, and a gradient to compare."""

SIZE = 140  # pixels of a picture's side: a multiple of 28


@click.command(short_help="Explain the embedded samples: a first look.", help=HELP)
@click.option(
    "-o", "--out", type=click.Path(), default="lrpfast-demo.png", show_default=True, help="Picture to write."
)
def demo(out: str) -> None:
    path = Path(out) / "lrpfast-demo.png" if Path(out).is_dir() or out.endswith("/") else Path(out)
    if path.suffix.lower() not in PICTURES:
        raise usage(f"--out is {out!r}; expected a name in {' '.join(PICTURES)}", "such as -o demo.png")
    check_destinations([path], ())
    _run(path)


def _run(path: Path) -> None:
    from PIL import Image

    from .. import demo as shipped
    from ..api import Explainer, load
    from ..composites import composite
    from ..image import grid, save

    began = time.perf_counter()
    network = load(shipped.MODEL)
    images, classes = shipped.samples()
    x = shipped.prepare(images)
    explanations = {
        name: Explainer(network, composite(name, **parameters))(x) for name, parameters in COMPOSITES.items()
    }
    answers = _answers(next(iter(explanations.values())), classes, shipped.LABELS)
    pictures, captions = [], []
    for i, image in enumerate(images):
        pictures.append(Image.fromarray(image).resize((SIZE, SIZE), Image.Resampling.NEAREST))
        captions.append(_caption(*answers[i]))
        for name, explanation in explanations.items():
            pictures.append(explanation.image(i, enlarge=SIZE // image.shape[-1]))
            captions.append(f"{name}\n")
    save(grid(pictures, columns=2 * (1 + len(explanations)), labels=captions, font_size=12), path)
    print_table(("picture", "network says", "probability", "score"), answers)
    seconds = time.perf_counter() - began
    note(f"{len(images)} pictures, {len(explanations)} composites, {seconds:.1f} s; look at {path}")


def _answers(
    explanation: Explanation, classes: NDArray[np.int64], labels: Sequence[str]
) -> list[tuple[str, ...]]:
    """Per sample: what it shows, what the network takes it for, how surely, and the score behind that."""
    assert explanation.probabilities is not None
    rows: list[tuple[str, ...]] = []
    for i, (truth, found) in enumerate(zip(classes, explanation.target, strict=True)):
        rows.append((
            labels[truth],
            labels[found],
            f"{explanation.probabilities[i, found]:.1%}",
            f"{explanation.output[i, found]:.3f}",
        ))  # fmt: skip
    return rows


def _caption(truth: str, answer: str, probability: str, _score: str) -> str:
    verdict = "recognised" if truth == answer else f"taken for {answer}"
    return f"{truth}\n{verdict}, {probability}"
