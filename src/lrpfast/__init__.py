"""Layer-wise relevance propagation from an ONNX file to a heatmap, on the CPU, without a framework.

>>> import lrpfast
>>> network = lrpfast.load("model.onnx")                 # doctest: +SKIP
>>> explanation = lrpfast.explain(network, x)            # doctest: +SKIP
>>> explanation.image().save("heatmap.png")              # doctest: +SKIP
"""

import importlib as _importlib
import typing as _typing

from ._version import __version__

if _typing.TYPE_CHECKING:
    from . import batch, draw, image, layers, preprocess, ray, taylor, text, tokens
    from .api import Explainer, compare, explain, load, propagate
    from .backends import get_num_threads, set_num_threads
    from .composites import COMPOSITES, Composite, Selector, composite
    from .errors import (
        BackendError,
        BlowUpError,
        BlowUpWarning,
        ClusterError,
        CompositeError,
        InputError,
        LrpfastError,
        MissingPackageError,
        ModelError,
        NonFiniteError,
        OutOfMemoryError,
        OutputError,
        RuleError,
        UnsupportedOperatorError,
    )
    from .explanation import Conservation, Explanation
    from .frameworks import from_keras, from_sklearn, from_torch
    from .layers import *
    from .ledger import ConservationRow
    from .limits import Limits
    from .network import Network
    from .ops import OPERATORS
    from .parts import Part, Share, Stabilizer, Term
    from .rules import (
        RULES,
        AbsNorm,
        AlphaBeta,
        CustomRule,
        Epsilon,
        Flat,
        Gamma,
        Gradient,
        Halves,
        LNRule,
        Norm,
        Pass,
        ReLUDeconvNet,
        ReLUGuidedBackprop,
        Route,
        Rule,
        SharingRule,
        SignalTakesAll,
        WinnerTakeAll,
        WSquare,
        Z,
        ZBox,
        ZPlus,
    )

__all__ = [
    "CELU",
    "COMPOSITES",
    "ELU",
    "GELU",
    "OPERATORS",
    "RULES",
    "SELU",
    "AbsNorm",
    "Add",
    "AlphaBeta",
    "AvgPool1d",
    "AvgPool2d",
    "AvgPool3d",
    "BackendError",
    "BatchNorm",
    "BlowUpError",
    "BlowUpWarning",
    "Builder",
    "ClusterError",
    "Composite",
    "CompositeError",
    "Concat",
    "Conservation",
    "ConservationRow",
    "Conv1d",
    "Conv2d",
    "Conv3d",
    "ConvTranspose1d",
    "ConvTranspose2d",
    "ConvTranspose3d",
    "CustomRule",
    "Dense",
    "Epsilon",
    "Explainer",
    "Explanation",
    "Flat",
    "Flatten",
    "Gamma",
    "GlobalAveragePool",
    "GlobalMaxPool",
    "Gradient",
    "Halves",
    "Hardsigmoid",
    "Hardswish",
    "InputError",
    "LNRule",
    "LeakyReLU",
    "Limits",
    "LogSoftmax",
    "LrpfastError",
    "MaxPool1d",
    "MaxPool2d",
    "MaxPool3d",
    "Mish",
    "MissingPackageError",
    "ModelError",
    "Network",
    "NonFiniteError",
    "Norm",
    "OutOfMemoryError",
    "OutputError",
    "PReLU",
    "Pad",
    "Part",
    "Pass",
    "ReLU",
    "ReLU6",
    "ReLUDeconvNet",
    "ReLUGuidedBackprop",
    "Reshape",
    "Route",
    "Rule",
    "RuleError",
    "Selector",
    "Sequential",
    "Share",
    "SharingRule",
    "SiLU",
    "Sigmoid",
    "SignalTakesAll",
    "Softmax",
    "Softplus",
    "Softsign",
    "Stabilizer",
    "Tanh",
    "Term",
    "Transpose",
    "UnsupportedOperatorError",
    "WSquare",
    "WinnerTakeAll",
    "Z",
    "ZBox",
    "ZPlus",
    "__version__",
    "batch",
    "compare",
    "composite",
    "draw",
    "explain",
    "from_keras",
    "from_sklearn",
    "from_torch",
    "get_num_threads",
    "image",
    "layers",
    "load",
    "preprocess",
    "propagate",
    "ray",
    "set_num_threads",
    "taylor",
    "text",
    "tokens",
]  # fmt: skip

_MODULES = ("batch", "draw", "image", "layers", "preprocess", "ray", "taylor", "text", "tokens")
_HOMES = (
    "api",
    "rules",
    "composites",
    "layers",
    "errors",
    "explanation",
    "network",
    "ledger",
    "limits",
    "ops",
    "backends",
    "frameworks",
)


def __getattr__(name: str) -> _typing.Any:
    """Import at first use: a program that only may have to explain something pays nothing."""
    if name in _MODULES:
        return _importlib.import_module(f".{name}", __name__)
    if name in __all__:
        for home in _HOMES:
            module = _importlib.import_module(f".{home}", __name__)
            if hasattr(module, name):
                globals()[name] = getattr(module, name)
                return globals()[name]
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
