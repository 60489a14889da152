"""How much a file may ask for. Files come from strangers: sizes are checked before anything of such a size is made."""

from __future__ import annotations

import os
from dataclasses import dataclass, fields
from functools import lru_cache

from .errors import InputError, LrpfastError, ModelError
from .memory import in_words

VARIABLE = "LRPFAST_LIMITS"
"""The environment variable that sets limits: ``nodes=100000,pixels=200000000``."""


@dataclass(frozen=True)
class Limits:
    """What one file may have or need at most. What needs more is refused before any work is done.

    The defaults are far above what networks and pictures need that are explained on a CPU. Where files come from
    strangers and memory is short, give less.

    Attributes
    ----------
    nodes : int
        Nodes of a model, those of its functions at each call.
    depth : int
        How deep graphs may lie within nodes of graphs, and functions call one another.
    ends : int
        Inputs of a model, and outputs.
    structure : int
        Bytes of a model besides the data of its big tensors. In memory a byte may become a hundred.
    weights : int
        Bytes of all tensors that are read from files.
    folded : int
        Bytes of all constants that are computed when a model is read: by its nodes, and by lrpfast for operators that
        are numbers, such as indices, made of a few sizes.
    steps : int
        Steps that this may take: elements read and written, or multiplied; ten thousand for an element where onnx's
        reference runs a loop in Python.
    elements : int
        Elements of all arrays of a network together, for one sample.
    pixels : int
        Of a picture.
    arrays : int
        Bytes of all arrays in an `.npy` or `.npz` file that is read at once, of a chunk of a Zarr array, and of any one
        file of a batch.
    text : int
        Bytes of a text, CSV or JSON file.

    Raises
    ------
    InputError
        A limit is no whole number ≥ 1.
    """

    nodes: int = 50_000
    depth: int = 32
    ends: int = 1_000
    structure: int = 2**26
    weights: int = 2**35
    folded: int = 2**31
    steps: int = 2**34
    elements: int = 2**32
    pixels: int = 80_000_000
    arrays: int = 2**32
    text: int = 2**26

    def __post_init__(self) -> None:
        for each in fields(self):
            value = getattr(self, each.name)
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise InputError(f"the limit {each.name} is {value!r}; expected a whole number ≥ 1")

    def check(self, name: str, value: int, what: str, error: type[LrpfastError] = ModelError) -> None:
        """Raise `error` if `value` is more than the limit `name`; `what` says of what it is the number or the size."""
        limit = getattr(self, name)
        if value > limit:
            shown = in_words if name in _BYTES else str
            raise error(
                f"{what}: {shown(value)}, more than the limit of {shown(limit)}; if you trust where the file comes "
                f"from, raise the limit: limits=lrpfast.Limits({name}={value}), or {VARIABLE}={name}={value}"
            )


class Budget:
    """What is left of limits that hold for all nodes of a model together.

    Parameters
    ----------
    limits : Limits
    """

    def __init__(self, limits: Limits | None = None) -> None:
        self.limits = limits or Limits()
        self._nbytes = 0
        self._steps = 0

    def take(self, nbytes: int, what: str, steps: int = 0) -> None:
        """Count what is about to be computed; raise `ModelError` if it is too much with all before."""
        self._nbytes += nbytes
        self.limits.check("folded", self._nbytes, f"constants that are computed, up to {what}")
        self._steps += steps
        self.limits.check("steps", self._steps, f"steps that computing constants takes, up to {what}")


_BYTES = ("structure", "weights", "folded", "arrays", "text")


def limits_now() -> Limits:
    """The limits that the environment sets, and else the defaults; raises `InputError` if it sets them wrongly."""
    return _parsed(os.environ.get(VARIABLE, ""))


@lru_cache(1)
def _parsed(text: str) -> Limits:
    known = {each.name for each in fields(Limits)}
    given = {}
    for part in filter(None, (part.strip() for part in text.split(","))):
        name, _, number = (piece.strip() for piece in part.partition("="))
        if name not in known or not number.isdecimal():
            raise InputError(
                f"{VARIABLE} is {text!r}, in which {part!r} sets no limit; expected NAME=NUMBER, with commas "
                f"between several; names are {', '.join(sorted(known))}"
            )
        given[name] = int(number)
    return Limits(**given)
