"""``lrpfast demo``: the network that ships with the package explains its own samples."""

from __future__ import annotations

import time
from pathlib import Path

import click

from .console import note, print_table, usage
from .outputs import PICTURES, check_destinations

HELP = """Explain pictures with the small network that ships with lrpfast; needs nothing else.

    Writes one picture: a row for each sample, with the heatmaps of three composites. Red speaks for the
    class that the network chose, blue against it.

    \b
    Example:
      lrpfast demo -o demo.png
    """

COMPOSITES = {
    "epsilon_plus": {},
    "epsilon_gamma_box": {"low": 0.0, "high": 1.0},
    "gradient_x_input": {},
}
"""What is shown side by side: two kinds of relevance propagation, and a gradient to compare."""

SIZE = 140  # pixels of each picture's side, about


@click.command(short_help="Explain the embedded samples: a first look.", help=HELP)
@click.option("-o", "--out", type=click.Path(), default="lrpfast-demo.png", show_default=True,
              help="Picture to write.")
def demo(out: str) -> None:
    path = Path(out) / "lrpfast-demo.png" if Path(out).is_dir() or out.endswith("/") else Path(out)
    if path.suffix.lower() not in PICTURES:
        raise usage(f"--out is {out!r}; expected a name in {' '.join(PICTURES)}", "such as -o demo.png")
    check_destinations([path], ())
    _run(path)


def _run(path: Path) -> None:
    from .. import demo as shipped
    from ..api import Explainer, load
    from ..composites import composite
    from ..image import grid, render, save

    began = time.perf_counter()
    network = load(shipped.MODEL)
    images, classes = shipped.samples()
    x = shipped.prepare(images)
    explanations = [
        Explainer(network, composite(name, **parameters))(x) for name, parameters in COMPOSITES.items()
    ]
    first = explanations[0]
    assert first.probabilities is not None
    enlarge = max(1, SIZE // images.shape[-1])
    pictures, captions, rows = [], [], []
    for i, image in enumerate(images):
        found = int(first.target[i])
        truth, answer = shipped.LABELS[int(classes[i])], shipped.LABELS[found]
        probability = float(first.probabilities[i, found])
        rows.append((i, truth, answer + ("" if found == classes[i] else " (wrong)"), f"{probability:.3f}",
                     *(f"{explanation.conservation.worst:.0e}" for explanation in ())))
        ...
