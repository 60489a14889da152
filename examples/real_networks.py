"""What decides in trained networks, and whether it does: the tables and the figure of docs/real_networks.md.

Needs the packages of the dependency groups `peers` and `bench`:

    python examples/real_networks.py --update docs/real_networks.md --images docs/images
"""

from __future__ import annotations

import argparse
import sys
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from numpy.typing import NDArray

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
sys.path.insert(0, str(Path(__file__).parents[1] / "bench"))
from flip_cases import CASES, FILES
from flipping import Flips
from real_networks import PAD as NO_BYTE
from real_networks import magika_labels
from report import markdown, update
from text_networks import LIBRARIES, PAD, UNKNOWN, text_cnn

Array = NDArray[Any]

TITLES = {
    "digits": "scikit-learn's MLP, digits",
    "photographs": "EfficientNet-Lite0, photographs",
    "words": "text CNN, docstrings",
    "files": "magika, files",
}


# --- flip tests ---


def flip_table(measured: dict[str, Flips]) -> list[str]:
    """A line for each network."""
    rows = []
    for name, found in measured.items():
        case = CASES[name]()
        rules = case.composite if isinstance(case.composite, str) else case.composite.name
        middle = len(found.removed) // 2
        rows.append(
            (TITLES[name], case.unit, rules, str(len(case.x)), f"{found.relevant[0]:.3f}",
             f"{found.removed[middle]:.0%}", f"{found.relevant[middle]:.3f}", f"{found.random[middle]:.3f}",
             f"{found.fall:.3f}", f"{found.random_fall:.3f}")
        )  # fmt: skip
    columns = ("network", "removed is a", "rules", "inputs", "p before", "removed", "p, most relevant removed",
               "p, random ones removed", "mean fall, most relevant", "mean fall, random")  # fmt: skip
    return markdown(columns, 3, rows)


def curves(measured: dict[str, Flips], path: Path) -> None:
    """The probability against what was removed, a panel for each network."""
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(1, len(measured), figsize=(13, 3), layout="constrained", sharey=True)
    for axis, (name, found) in zip(axes, measured.items(), strict=True):
        axis.plot(100 * found.removed, found.relevant, "C3.-", label="most relevant first")
        axis.plot(100 * found.removed, found.random, "C7.-", label="random")
        axis.set_title(TITLES[name], fontsize=10)
        axis.set_xlabel(f"removed: % of {CASES[name]().unit.split()[0]}s", fontsize=9)
        axis.set_ylim(0, 1.03)
    axes[0].set_ylabel("probability of the class", fontsize=9)
    axes[0].legend(fontsize=8)
    figure.savefig(path, dpi=90)
    plt.close(figure)


# --- words ---


def words_table(most: int = 10) -> list[str]:
    """For each library the words that spoke for it most, in all texts that were taken for its."""
    net = text_cnn()
    case = CASES["words"]()
    import lrpfast

    x = net.tokens(net.held_out)
    explanation = lrpfast.explain(case.network, x, composite=case.composite)
    relevance = explanation.relevance_of()
    rows = []
    for k, library in enumerate(LIBRARIES):
        sums: dict[int, float] = defaultdict(float)
        for token, r in _pairs(x[explanation.target == k], relevance[explanation.target == k]):
            if token not in (PAD, UNKNOWN):
                sums[token] += r
        best = sorted(sums, key=lambda token: -sums[token])[:most]
        rows.append((library, ", ".join(net.vocabulary[token] for token in best)))
    return [*markdown(("library", "words that spoke for it"), 2, rows), "", *_example(x, explanation)]


def _example(x: Array, explanation: Any) -> list[str]:
    """One text, word by word."""
    net = text_cnn()
    graphs = [i for i, text in enumerate(net.held_out) if text.library == "networkx" and len(text.words) < 30]
    i = max((i for i in graphs if explanation.target[i] == 0), key=lambda i: explanation.probabilities[i, 0])
    r = explanation.relevance_of()[i]
    most = np.abs(r).max()
    words = [_emphasised(net.vocabulary[token] if token != UNKNOWN else "?", value / most)
             for token, value in zip(x[i], r, strict=True) if token != PAD]  # fmt: skip
    p = explanation.probabilities[i, 0]
    return [f"A text that is taken for networkx's (p = {p:.3f}); words with more than half of the largest relevance "
            "are bold, with more than a tenth in italics, `?` is a word that it does not know:", "",
            "> " + " ".join(words)]  # fmt: skip


def _emphasised(word: str, share: float) -> str:
    return f"**{word}**" if share > 0.5 else f"*{word}*" if share > 0.1 else word


def _pairs(x: Array, relevance: Array) -> Iterator[tuple[int, float]]:
    return zip(x.ravel().tolist(), relevance.ravel().tolist(), strict=True)


# --- files ---


def files_table(width: int = 16, most: int = 4) -> list[str]:
    """For each file the passages that spoke most for its type."""
    case = CASES["files"]()
    explanation = case.explanation
    rows = []
    for i, name in enumerate(FILES):
        target = int(explanation.target[i])
        p = case.network.predict(case.x[i : i + 1])[0, target]
        found = passages(case.x[i], explanation.relevance_of()[i], width, most)
        shown = " ".join(f"`{_readable(case.x[i, start : start + width])}`" for start in found)
        rows.append((name, f"{magika_labels()[target]} {p:.3f}", shown))
    return markdown(("file", "type", "passages that spoke for it"), 3, rows)


def passages(x: Array, relevance: Array, width: int, most: int) -> list[int]:
    """Where the passages of `width` bytes begin that have the largest sums of relevance, none upon another."""
    sums = np.convolve(np.where(x == NO_BYTE, 0, relevance), np.ones(width), "valid")
    found: list[int] = []
    for start in np.argsort(-sums, kind="stable"):
        if all(abs(start - other) >= width for other in found):
            found.append(int(start))
        if len(found) == most:
            break
    return found


def _readable(data: Array) -> str:
    """Bytes as text for a table; what is not ASCII as ·, ends of lines as ⏎."""
    characters = {9: "→", 10: "⏎", 96: "'", 124: "¦"}
    return "".join(
        characters.get(byte, chr(byte) if 32 <= byte < 127 else "·")
        for byte in data.tolist()
        if byte != NO_BYTE
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--update", type=Path, metavar="FILE", help="document whose tables are to be replaced"
    )
    parser.add_argument("--images", type=Path, metavar="FOLDER", help="where to write the figure")
    arguments = parser.parse_args()
    measured = {name: make().measure() for name, make in CASES.items()}
    blocks = {"flips": flip_table(measured), "words": words_table(), "files": files_table()}
    print("\n\n".join("\n".join(lines) for lines in blocks.values()))
    if arguments.update:
        update(arguments.update, blocks)
    if arguments.images:
        matplotlib.use("Agg")
        curves(measured, arguments.images / "flips.png")


if __name__ == "__main__":
    main()
