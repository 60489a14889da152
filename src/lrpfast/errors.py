"""The errors lrpfast raises on purpose. All derive from `LrpfastError`.

A message names the thing, the value it had, what was expected and the cure; when several things
are wrong at once it lists them all.
"""


class LrpfastError(Exception):
    """Base of every error that lrpfast raises on purpose."""


class ModelError(LrpfastError, ValueError):
    """A model file or network description cannot be used as it stands."""


class UnsupportedOperatorError(ModelError):
    """The model uses operators, or forms of them, that lrpfast does not explain.

    Attributes
    ----------
    offenders : tuple of str
        One line per node that stands in the way.
    """

    def __init__(self, message: str, offenders: tuple[str, ...] = ()) -> None:
        super().__init__(message)
        self.offenders = offenders


class RuleError(LrpfastError, ValueError):
    """A rule's parameters are invalid, or a rule does not apply to a layer."""


class CompositeError(LrpfastError, ValueError):
    """A composite is unknown, malformed, or leaves a node without a rule."""


class InputError(LrpfastError, ValueError):
    """An input array, target, initial relevance or image is unusable."""


class NonFiniteError(LrpfastError, ArithmeticError):
    """NaN or infinity appeared in an input, in a prediction or in a relevance."""


class BlowUpError(LrpfastError, ArithmeticError):
    """A node multiplies the relevance that arrives, and that was to be an error (`on_blowup="error"`).

    Attributes
    ----------
    offenders : tuple of str
        One line per node.
    """

    def __init__(self, message: str, offenders: tuple[str, ...] = ()) -> None:
        super().__init__(message)
        self.offenders = offenders


class BlowUpWarning(UserWarning):
    """A node multiplies the relevance that arrives: contributions cancel, and single inputs drown all others."""


class BackendError(LrpfastError, RuntimeError):
    """The backend or SIMD target that was asked for is not available."""


class OutOfMemoryError(LrpfastError, MemoryError):
    """The system grants less memory than a network or a run needs; the message says how much that is."""


class MissingPackageError(LrpfastError, ImportError):
    """A package that an optional feature needs is not installed; the message names the extra that brings it."""


class ClusterError(LrpfastError, RuntimeError):
    """A cluster cannot be reached, or not do what it is asked for."""


class OutputError(LrpfastError, OSError):
    """A result cannot be written where it was asked to go."""
