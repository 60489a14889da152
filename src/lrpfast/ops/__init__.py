"""The operators: one file per family, with attributes, shape inference, forward, vjp and ONNX readers."""

from . import shape, slices  # noqa: F401 - they register readers
from .activation import Clip, LeakyRelu, Relu, Sigmoid, Tanh
from .affine import Affine, batch_normalization
from .arithmetic import Add
from .base import Array, Elementwise, Linear, Movement, Op
from .conv import Conv, ConvTranspose
from .embedding import Embedding
from .gemm import Gemm
from .movement import Cast, Concat, Expand, Identity, Pad, Reshape, Slice, Transpose
from .pool import AveragePool, GlobalAveragePool, GlobalMaxPool, MaxPool
from .product import Div, Mul
from .reading import READERS
from .softmax import Softmax

FOLDED = ("Constant", "ConstantOfShape", "Shape", "Size")
"""ONNX operators that never act on activations: they are evaluated when a model is read."""

OPERATORS: tuple[str, ...] = tuple(sorted((*READERS, *FOLDED)))
"""ONNX operators that can be read; others too, where all of their inputs are constant."""

__all__ = [
    "FOLDED",
    "OPERATORS",
    "READERS",
    "Add",
    "Affine",
    "Array",
    "AveragePool",
    "Cast",
    "Clip",
    "Concat",
    "Conv",
    "ConvTranspose",
    "Div",
    "Elementwise",
    "Embedding",
    "Expand",
    "Gemm",
    "GlobalAveragePool",
    "GlobalMaxPool",
    "Identity",
    "LeakyRelu",
    "Linear",
    "MaxPool",
    "Movement",
    "Mul",
    "Op",
    "Pad",
    "Relu",
    "Reshape",
    "Sigmoid",
    "Slice",
    "Softmax",
    "Tanh",
    "Transpose",
    "batch_normalization",
]
