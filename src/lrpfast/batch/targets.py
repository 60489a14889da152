"""Which output is explained: what a target expression says, for each sample.

argmax                  the largest output
3                       output 3
tabby cat               the output with that label, or that synonym
top3                    the three largest, one explanation each
logit[3]-logit[5]       what speaks for 3 rather than for 5; labels and factors will do, too:
                        0.5*logit[cat] + 0.5*logit[dog] - logit[car]
column:NAME             what a table's column says, row by row: any of these but topN
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal

import numpy as np

from ..errors import InputError
from ..labels import called, resembling

FORMS = "argmax, a number, a label, top3, an expression such as logit[3]-logit[5], or column:NAME"

_TOP = re.compile(r"top(\d+)")
_TERM = re.compile(r"\s*([+-]?)\s*(?:(\d+(?:\.\d*)?|\.\d+)\s*\*\s*)?logit\[([^\]]+)\]\s*")


@dataclass(frozen=True)
class Wanted:
    """What is explained of one sample.

    Attributes
    ----------
    text : str
        How it was said.
    index : int or None
        The output; None for the largest, or where there are weights.
    weights : tuple of (int, float)
        Outputs and their weights, if it is an expression.
    """

    text: str
    index: int | None = None
    weights: tuple[tuple[int, float], ...] = ()

    @property
    def kind(self) -> Literal["largest", "index", "weights"]:
        """How the output is said."""
        if self.weights:
            return "weights"
        return "largest" if self.index is None else "index"


LARGEST = Wanted("argmax")


@dataclass(frozen=True)
class Target:
    """A target expression; made by `parse`.

    Attributes
    ----------
    text : str
        As it was given.
    ranks : int
        How many explanations each sample gets: more than one only for ``topN``.
    column : str or None
        The column that says what is wanted.
    shared : Wanted or None
        What is wanted of every sample, where no column says it.
    names : tuple of str
        Labels of the outputs, if there are any.
    shape : tuple of int
        Of the network's output, which is a vector, perhaps with axes of length 1.
    """

    text: str
    ranks: int
    column: str | None
    shared: Wanted | None
    names: tuple[str, ...]
    shape: tuple[int, ...]

    @property
    def size(self) -> int:
        """How many outputs there are."""
        return math.prod(self.shape)

    def wanted(self, cell: Any) -> Wanted:
        """What is wanted of a sample, given its cell in the column; raises `InputError`."""
        if self.shared is not None:
            return self.shared
        if cell is None:
            raise InputError(f"its {self.column!r} is null; expected a target")
        if isinstance(cell, (int, np.integer)) and not isinstance(cell, bool):
            return _output(int(cell), self.size)
        if not isinstance(cell, str):
            raise InputError(
                f"its {self.column!r} is {cell!r:.60}; expected a number, a label or an expression"
            )
        return _wanted(cell, self.names, self.size)

    def label(self, index: int | None) -> str | None:
        """The label of an output, if it has one."""
        return self.names[index] if self.names and index is not None else None

    def asked(self, several: Sequence[Wanted]) -> Any:
        """What an `Explainer` is asked of samples that want the same kind: None, indices, or weights."""
        if several[0].kind == "largest":
            return None
        if several[0].kind == "index":
            return np.array([one.index for one in several])
        weights = np.zeros((len(several), self.size))
        for row, one in zip(weights, several, strict=True):
            for index, weight in one.weights:
                row[index] = weight
        return weights.reshape(-1, *self.shape)


def parse(text: str, labels: Sequence[str] | None, shape: tuple[int, ...]) -> Target:
    """Understand a target expression.

    Parameters
    ----------
    text : str
    labels : sequence of str, optional
        Of the outputs.
    shape : tuple of int
        Of the network's output for one sample.

    Raises
    ------
    InputError
        The expression is none, or does not fit the network; or the output is no vector.
    """
    size = math.prod(shape)
    if size != max(shape, default=1):
        raise InputError(
            f"the network's output has shape {shape} per sample, no list of classes; explain it with "
            "lrpfast.explain and target= as an array of output weights"
        )
    names = tuple(labels or ())
    if names and len(names) != size:
        raise InputError(f"there are {len(names)} labels; the network has {size} outputs: give one for each")
    text = text.strip()
    if text.startswith("column:"):
        return Target(text, 1, text.partition(":")[2].strip(), None, names, shape)
    top = _TOP.fullmatch(text)
    if top and not 1 <= int(top[1]) <= size:
        raise InputError(f"target is {text!r}; the network has {size} outputs: choose from top1 to top{size}")
    shared = LARGEST if top else _wanted(text, names, size)
    return Target(text, int(top[1]) if top else 1, None, shared, names, shape)


@lru_cache(1024)
def _wanted(text: str, labels: tuple[str, ...], size: int) -> Wanted:
    text = text.strip()
    if text == "argmax":
        return LARGEST
    if "logit[" in text:
        return _expression(text, labels, size)
    return _output(_index(text, labels), size)


def _output(index: int, size: int) -> Wanted:
    if not 0 <= index < size:
        raise InputError(f"target is {index}; the network has {size} outputs, 0 to {size - 1}")
    return Wanted(str(index), index)


def _expression(text: str, labels: tuple[str, ...], size: int) -> Wanted:
    weights: dict[int, float] = {}
    at = 0
    while at < len(text):
        term = _TERM.match(text, at)
        if term is None or (at and not term[1]):
            raise InputError(
                f"target is {text!r}, which cannot be read from {text[at:]!r} on; expected terms such as "
                "logit[3] - 0.5*logit[5]"
            )
        sign, factor, key = term.groups()
        index = _output(_index(key, labels), size).index
        assert index is not None
        weight = float(factor or 1) * (-1 if sign == "-" else 1)
        weights[index] = weights.get(index, 0.0) + weight
        at = term.end()
    if not any(weights.values()):
        raise InputError(f"target is {text!r}, in which all outputs cancel: there is nothing to explain")
    return Wanted(text, None, tuple(sorted(weights.items())))


def _index(text: str, labels: tuple[str, ...]) -> int:
    """The output that a number or a label stands for."""
    try:
        return int(text)
    except ValueError:
        pass
    if not labels:
        raise InputError(
            f"target has {text!r}, but the outputs have no labels; expected {FORMS}, or give the labels"
        )
    found = called(text, labels)
    if len(found) == 1:
        return found[0]
    if found:
        choices = ", ".join(f"{i} ({labels[i]})" for i in found)
        raise InputError(f"target {text!r} could be any of {choices}; give its number")
    near = resembling(text, labels)
    hint = f"did you mean {' or '.join(map(repr, near))}?" if near else f"expected {FORMS}"
    raise InputError(f"no output is called {text!r}; {hint}")
