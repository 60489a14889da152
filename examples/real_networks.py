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

import lrpfast
from lrpfast import image
from lrpfast.text import TokenRelevance, token_relevance
from lrpfast.tokens import BytesTokenizer

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
    return markdown(("library", "words that spoke for it"), 2, rows)


def words_picture(path: Path) -> None:
    """Of each library the first text, of 15 to 30 words, that the network is sure of."""
    net, case = text_cnn(), CASES["words"]()
    pictures = []
    for k, library in enumerate(LIBRARIES):
        chosen = [text for text in net.held_out if text.library == library and 15 <= len(text.words) <= 30]
        explanation = lrpfast.explain(case.network, net.tokens(chosen), k, case.composite)
        i = int(np.argmax(explanation.probabilities[:, k] > 0.9))
        words = chosen[i].words
        found = token_relevance(words, explanation.relevance_of()[i, : len(words)], scheme="words")
        pictures.append(found.image(f"{library}, p = {explanation.probabilities[i, k]:.3f}", font_size=16))
    image.save(image.grid(pictures, columns=1), path)


def _pairs(x: Array, relevance: Array) -> Iterator[tuple[int, float]]:
    return zip(x.ravel().tolist(), relevance.ravel().tolist(), strict=True)


# --- files ---


def files_table(most: int = 6) -> list[str]:
    """For each file the words that spoke most for its type."""
    case = CASES["files"]()
    probabilities = case.network.predict(case.x)
    rows = []
    for i, name in enumerate(FILES):
        target = int(case.explanation.target[i])
        found = file_words(i).words().top(5 * most)
        best = list(dict.fromkeys(_readable(word) for word, r in found if r > 0))
        shown = " ".join(f"`{word}`" for word in best[:most])
        rows.append((name, f"{magika_labels()[target]} {probabilities[i, target]:.3f}", shown))
    return markdown(("file", "type", "words that spoke for it"), 3, rows)


def file_words(i: int, part: slice = slice(None)) -> TokenRelevance:
    """What magika read of a file, and its relevance."""
    case = CASES["files"]()
    tokens = BytesTokenizer().named(case.x[i, part], NO_BYTE)
    return token_relevance(tokens, case.explanation.relevance_of()[i, part])


def _readable(word: str) -> str:
    """A word for a table: of a long one its two ends."""
    word = word if len(word) <= 40 else f"{word[:16]}…{word[-23:]}"
    return word.replace("|", "¦").replace("`", "'")


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
        words_picture(arguments.images / "words.png")
        file_words(0, slice(700)).words().save(arguments.images / "bytes.png", font_size=16)


if __name__ == "__main__":
    main()
