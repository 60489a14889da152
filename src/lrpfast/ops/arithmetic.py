"""Sums of several activations (ONNX Add, Sum)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from ..errors import ModelError
from ..graph import Fact
from .affine import ONE, Affine, operand
from .base import Array, Linear, Op
from .movement import Identity
from .reading import OnnxNode, Unsupported, reads


@dataclass(frozen=True)
class Add(Linear):
    """Sum of two or more arrays of one shape."""

    kinds: ClassVar[tuple[str, ...]] = ("Add", "sum")
    several: ClassVar[bool] = True

    def infer(self, *inputs: Fact) -> Fact:
        shapes = [x.shape for x in inputs]
        if len(set(shapes)) != 1:
            raise ModelError(f"its inputs have different shapes {shapes} per sample; expected one shape")
        return Fact(shapes[0], nonnegative=all(x.nonnegative for x in inputs))

    def forward(self, *inputs: Array) -> Array:
        z: Array = inputs[0].copy()
        for x in inputs[1:]:
            z += x
        return z

    def vjp(self, inputs: tuple[Array, ...], output: Array, s: Array) -> tuple[Array, ...]:
        return (s,) * len(inputs)


@reads("Add", "Sum")
def _read_add(node: OnnxNode) -> tuple[Op, ...]:
    computed = [index for index in range(len(node.inputs)) if not node.is_constant(index)]
    shapes = [node.fact(index).shape for index in computed]
    if len(set(shapes)) != 1:
        raise Unsupported(f"it broadcasts arrays of shapes {shapes} per sample; make them equal first")
    shifts = [
        Affine(ONE, operand(node, index, shapes[0]))
        for index in range(len(node.inputs)) if index not in computed
    ]  # fmt: skip
    sums = [Add()] if len(computed) > 1 else []
    return (*sums, *shifts) or (Identity(),)
