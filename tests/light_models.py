"""The nine networks of ONNX's own tests, whose weights are all 0.02, with seeded weights that say something.

>>> model, x = light_model("resnet50")
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import numpy_helper

FOLDER = Path(onnx.__file__).parent / "backend" / "test" / "data" / "light"

LIGHT_MODELS = tuple(sorted(path.stem.removeprefix("light_") for path in FOLDER.glob("light_*.onnx")))
"""What `light_model` knows."""


def light_model(name: str) -> tuple[onnx.ModelProto, NDArray[np.float32]]:
    """A model with weights in it, and an input for it.

    Parameters
    ----------
    name : str
        One of `LIGHT_MODELS`.
    """
    model = onnx.load(FOLDER / f"light_{name}.onnx")
    graph, rng = model.graph, np.random.default_rng(0)
    shapes = {t.name: tuple(numpy_helper.to_array(t)) for t in graph.initializer}
    roles: dict[str, tuple[str, int]] = {}
    for node in reversed(graph.node):
        for place, name in enumerate(node.input):
            # A factor or summand per channel takes a detour through Unsqueeze.
            role = roles[node.output[0]] if node.op_type == "Unsqueeze" else (node.op_type, place)
            roles.setdefault(name, role)
    # There are no statistics of any data; residual sums grow from block to block unless scales are small.
    gain = 0.6 if any(node.op_type == "Sum" for node in graph.node) else 1.0
    kept = []
    for node in graph.node:
        if node.op_type != "ConstantOfShape" or node.input[0] not in shapes:
            kept.append(node)
            continue
        weight = _weight(rng, gain, shapes[node.input[0]], *roles[node.output[0]])
        graph.initializer.append(numpy_helper.from_array(weight, node.output[0]))
    del graph.node[:]
    graph.node.extend(kept)
    read = {name for node in kept for name in node.input}
    tensors = [t for t in graph.initializer if t.name in read]
    del graph.initializer[:]
    graph.initializer.extend(tensors)
    values = {t.name for t in graph.initializer}
    (given,) = (value for value in graph.input if value.name in read - values)
    del graph.input[:]
    graph.input.append(given)
    shape = [dim.dim_value or 1 for dim in given.type.tensor_type.shape.dim]
    return model, rng.standard_normal(shape).astype(np.float32)


def _weight(
    rng: np.random.Generator, gain: float, shape: tuple[int, ...], op_type: str, place: int
) -> NDArray[np.float32]:
    """A parameter of an operator, by the place of the input that it is."""
    noise = rng.standard_normal(shape, dtype=np.float32)
    if op_type == "BatchNormalization":
        # Scale, shift, mean and variance.
        return (
            (gain * rng.uniform(0.7, 1.3, shape)).astype(np.float32), 0.1 * noise, 0.1 * noise,
            rng.uniform(0.5, 1.5, shape).astype(np.float32),
        )[place - 1]  # fmt: skip
    if len(shape) < 2 or op_type in ("Add", "Mul", "Sum"):
        return 1 + 0.2 * noise if op_type == "Mul" else 0.1 * noise
    return noise * np.float32(np.sqrt(2 / np.prod(shape[1:])))
