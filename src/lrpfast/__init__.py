"""Layer-wise relevance propagation from an ONNX file to a heatmap, on the CPU, without a framework.

>>> import lrpfast
>>> network = lrpfast.load("model.onnx")                 # doctest: +SKIP
>>> explanation = lrpfast.explain(network, x)            # doctest: +SKIP
>>> explanation.image().save("heatmap.png")              # doctest: +SKIP
"""

import importlib as _importlib
import typing as _typing

from . import layers
from ._version import __version__
from .api import Explainer, explain, load, propagate
from .backends import get_num_threads, set_num_threads
from .composites import COMPOSITES, Composite, Selector, composite
from .errors import (
    BackendError,
    CompositeError,
    InputError,
    LrpfastError,
    ModelError,
    NonFiniteError,
    OutputError,
    RuleError,
    UnsupportedOperatorError,
)
from .explanation import Conservation, Explanation
from .layers import *  # noqa: F403
from .network import Network
from .ops import OPERATORS
from .plan import ConservationRow
from .rules import (
    RULES,
    AlphaBeta,
    CustomRule,
    Epsilon,
    Flat,
    Gamma,
    Gradient,
    Norm,
    Part,
    Pass,
    ReLUDeconvNet,
    ReLUGuidedBackprop,
    Route,
    Rule,
    Share,
    SharingRule,
    Stabilizer,
    Term,
    WinnerTakeAll,
    WSquare,
    Z,
    ZBox,
    ZPlus,
)

if _typing.TYPE_CHECKING:
    from . import image, preprocess, taylor


def __getattr__(name: str) -> _typing.Any:
    """Modules that not everybody needs, imported at their first use."""
    if name in ("image", "preprocess", "taylor"):
        return _importlib.import_module(f".{name}", __name__)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


__all__ = [
    "COMPOSITES", "OPERATORS", "RULES",
    "AlphaBeta", "BackendError", "Composite", "CompositeError", "Conservation", "ConservationRow",
    "CustomRule", "Epsilon", "Explainer", "Explanation", "Flat", "Gamma", "Gradient", "InputError",
    "LrpfastError", "ModelError", "Network", "NonFiniteError", "Norm", "OutputError", "Part", "Pass",
    "ReLUDeconvNet", "ReLUGuidedBackprop", "Route", "Rule", "RuleError", "Selector", "Share", "SharingRule",
    "Stabilizer", "Term", "UnsupportedOperatorError", "WSquare", "WinnerTakeAll", "Z", "ZBox", "ZPlus",
    "__version__", "composite", "explain", "get_num_threads", "image", "layers", "load", "preprocess", "propagate",
    "set_num_threads", "taylor", *layers.__all__,
]  # fmt: skip
