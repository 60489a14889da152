"""Deep Taylor decomposition beside sensitivity: the figures and the table of docs/deep_taylor.md.

Needs the packages of the dependency groups `peers` and `bench`:

    python examples/deep_taylor.py --update docs/deep_taylor.md --images docs/images
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path

import matplotlib
import numpy as np
from numpy.typing import NDArray

import lrpfast

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
sys.path.insert(0, str(Path(__file__).parents[1] / "bench"))
from digit_pairs import RULES, SIDE, Pictures, trained_detector, unseen_pictures
from report import listed, markdown, update

Array = NDArray[np.float64]

METHODS: dict[str, Callable[[lrpfast.Network, Array], Array]] = {
    "w²": lambda network, x: explained(network, x, RULES["w2"]),
    "z⁺": lambda network, x: explained(network, x, RULES["z+"]),
    "z^B": lambda network, x: explained(network, x, RULES["zB"]),
    "sensitivity": lambda network, x: explained(network, x, "gradient") ** 2,
    "gradient × input": lambda network, x: explained(network, x, "gradient_x_input"),
}
"""Deep Taylor decomposition by the rule at its input, and what it is compared with."""

LAYERS = (1, 2)
EXAMPLES = 6


def explained(network: lrpfast.Network, x: Array, composite: str | lrpfast.Composite) -> Array:
    """Relevance of the pixels for the network's only output."""
    return lrpfast.explain(network, x, 0, composite=composite, dtype=np.float64).relevance


def evidence(network: lrpfast.Network, x: Array) -> Array:
    return network.predict(x, dtype=np.float64)[:, 0]


def measured(pictures: Pictures) -> list[str]:
    """The table's lines."""
    rows, notes = [], []
    for layers in LAYERS:
        network = trained_detector(layers)
        f = evidence(network, pictures.x)
        seen = pictures.wanted & (f > 0.5)
        found, f_found = pictures[seen], f[seen]
        right = ((f > 0.5) == pictures.wanted).mean()
        notes.append(
            f"{layers} layer{'s' * (layers > 1)}: {right:.1%} of {len(f)} pictures are told apart rightly; the figures "
            f"are means over the {len(f_found)} in which a wanted digit was found."
        )
        for name, method in METHODS.items():
            r = method(network, found.x)
            missing = np.abs(r.sum(1) - f_found) / f_found
            negative = -np.minimum(r, 0).sum(1) / np.abs(r).sum(1)
            correlation = np.corrcoef(r.sum(1), f_found)[0, 1]
            rows.append(
                (str(layers), name, f"{missing.mean():.1e}" if missing.mean() < 1e-3 else f"{missing.mean():.2f}",
                 f"{correlation:.2f}", f"{negative.mean():.0%}", f"{found.beside(r).mean():.0%}")
            )  # fmt: skip
    columns = (
        "layers",
        "input rule",
        "\\|ΣR − f\\| / f",
        "correlation of ΣR with f",
        "negative",
        "on the distractor",
    )
    return [*markdown(columns, 2, rows), "", *listed(notes)]


def scatter(pictures: Pictures, path: Path) -> None:
    """ΣR against f, a panel for each method and network."""
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(len(LAYERS), len(METHODS), figsize=(13, 5.4), layout="constrained")
    for row, layers in zip(axes, LAYERS, strict=True):
        network = trained_detector(layers)
        f = evidence(network, pictures.x)
        for axis, (name, method) in zip(row, METHODS.items(), strict=True):
            total = method(network, pictures.x).sum(1)
            axis.plot([0, f.max()], [0, f.max()], color="0.7", linewidth=1)
            for wanted, color, label in ((True, "C3", "0–3 there"), (False, "C0", "not there")):
                chosen = pictures.wanted == wanted
                axis.plot(f[chosen], total[chosen], ".", color=color, markersize=3, label=label)
            axis.set_title(f"{name}, {layers} layer{'s' * (layers > 1)}", fontsize=10)
            axis.set_xlabel("f(x)", fontsize=9)
        row[0].set_ylabel("ΣR", fontsize=9)
    axes[0, 0].legend(fontsize=8, loc="upper left")
    figure.savefig(path, dpi=90)
    plt.close(figure)


def heatmaps(pictures: Pictures, path: Path) -> None:
    """Some pictures, and beneath each of them its heatmaps."""
    from matplotlib import pyplot as plt

    networks = [trained_detector(layers) for layers in LAYERS]
    seen = pictures.wanted & np.all([evidence(network, pictures.x) > 0.5 for network in networks], axis=0)
    x = pictures[seen].x[:EXAMPLES]
    rows = [("picture", x, "gray_r")]
    for layers, network in zip(LAYERS, networks, strict=True):
        rows += [(f"{name}\n{layers} layer{'s' * (layers > 1)}", method(network, x), "seismic")
                 for name, method in METHODS.items()]  # fmt: skip
    figure, axes = plt.subplots(
        len(rows), EXAMPLES, figsize=(2 * EXAMPLES + 1, 1.05 * len(rows)), layout="constrained"
    )
    for line, (name, values, colors) in zip(axes, rows, strict=True):
        for axis, value in zip(line, values, strict=True):
            most = np.abs(value).max()
            least = 0 if colors == "gray_r" else -most
            axis.imshow(value.reshape(SIDE, 2 * SIDE), cmap=colors, vmin=least, vmax=most)
            axis.set(xticks=[], yticks=[])
        line[0].set_ylabel(name, rotation=0, ha="right", va="center", fontsize=9)
    figure.savefig(path, dpi=80)
    plt.close(figure)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--update", type=Path, metavar="FILE", help="document whose table is to be replaced")
    parser.add_argument("--images", type=Path, metavar="FOLDER", help="where to write the figures")
    arguments = parser.parse_args()
    lines = measured(unseen_pictures(2000))
    print("\n".join(lines))
    if arguments.update:
        update(arguments.update, {"deep-taylor": lines})
    if arguments.images:
        matplotlib.use("Agg")
        scatter(unseen_pictures(600), arguments.images / "deep_taylor_sums.png")
        heatmaps(unseen_pictures(60), arguments.images / "deep_taylor_heatmaps.png")


if __name__ == "__main__":
    main()
