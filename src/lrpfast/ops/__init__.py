"""The operators: one file per family, with attributes, shape inference, forward, vjp and ONNX readers."""

from . import classical, rearrange, reductions, resize, shape, slices  # noqa: F401 - they register readers
from .activation import Clip, HardSigmoid, LeakyRelu, PRelu, Relu, Shrink, Sigmoid, Tanh, ThresholdedRelu
from .affine import Affine, batch_normalization
from .arithmetic import Add
from .base import Array, Elementwise, Linear, Movement, Op
from .contraction import GroupedGemm
from .conv import Conv, ConvTranspose
from .embedding import Embedding
from .extremes import Bound, Max, Min
from .function import FUNCTIONS, Function
from .gemm import Gemm
from .interpolation import Interpolation, Upsample
from .movement import Cast, Concat, Expand, Identity, Pad, Reshape, Slice, Transpose
from .normalization import LRN, LpNormalization, Normalization, Normalizing
from .one_hot import OneHot
from .pool import AveragePool, GlobalAveragePool, GlobalMaxPool, MaxPool
from .power import Pow
from .product import Div, Mul
from .reading import READERS
from .select import Mask, Where
from .smooth import Celu, Elu, Gelu, Selu, Swish
from .softmax import LogSoftmax, Softmax
from .take import Pick, Take

FOLDED = ("Constant", "ConstantOfShape", "Shape", "Size")
"""ONNX operators that never act on activations: they are evaluated when a model is read."""

OPERATORS: tuple[str, ...] = tuple(sorted((*READERS, *FOLDED)))
"""ONNX operators that can be read; others too, where all of their inputs are constant."""

__all__ = [
    "FOLDED",
    "FUNCTIONS",
    "LRN",
    "OPERATORS",
    "READERS",
    "Add",
    "Affine",
    "Array",
    "AveragePool",
    "Bound",
    "Cast",
    "Celu",
    "Clip",
    "Concat",
    "Conv",
    "ConvTranspose",
    "Div",
    "Elementwise",
    "Elu",
    "Embedding",
    "Expand",
    "Function",
    "Gelu",
    "Gemm",
    "GlobalAveragePool",
    "GlobalMaxPool",
    "GroupedGemm",
    "HardSigmoid",
    "Identity",
    "Interpolation",
    "LeakyRelu",
    "Linear",
    "LogSoftmax",
    "LpNormalization",
    "Mask",
    "Max",
    "MaxPool",
    "Min",
    "Movement",
    "Mul",
    "Normalization",
    "Normalizing",
    "OneHot",
    "Op",
    "PRelu",
    "Pad",
    "Pick",
    "Pow",
    "Relu",
    "Reshape",
    "Selu",
    "Shrink",
    "Sigmoid",
    "Slice",
    "Softmax",
    "Swish",
    "Take",
    "Tanh",
    "ThresholdedRelu",
    "Transpose",
    "Upsample",
    "Where",
    "batch_normalization",
]
