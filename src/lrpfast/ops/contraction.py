"""Sums of products with a constant: dense layers over any axes, maybe one for each place; ONNX's Einsum and MatMul.

An axis has a letter. With `x` computed, `c` constant and `z` the result, a letter

    in x and c, not in z    is summed over: the features of a dense layer
    in c and z              numbers its outputs
    in x and z              numbers rows that the layer is applied to
    in x, c and z           numbers layers, each applied to features of its own
    in x alone              is summed up first
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from ..errors import ModelError
from .affine import ZERO, Affine
from .base import Array, Op
from .chain import Chain
from .conv import Conv
from .gemm import Gemm
from .reading import OnnxNode, Unsupported, reads
from .reductions import total
from .take import Pick

Letters = tuple[str, ...]


@dataclass(frozen=True, eq=False)
class GroupedGemm(Conv):
    """Dense layers side by side, each on features of its own: a convolution in groups, with windows of one element."""

    kinds: ClassVar[tuple[str, ...]] = ("GroupedGemm", "dense", "linear")


def contraction(chain: Chain, x: Letters, constant: Array, c: Letters, z: Letters) -> Chain:
    """Append the operators that compute `z`.

    Parameters
    ----------
    chain : Chain
    x : tuple of str
        A letter for each axis of a sample; one that is there twice stands for the diagonal.
    constant : array
    c : tuple of str
        A letter for each of its axes; none twice, each in x or z.
    z : tuple of str
        The letters of an output sample: none twice, each in x or c.
    """
    if len(set(x)) != len(x):
        x = _diagonal(chain, x)
    alone = [axis for axis, letter in enumerate(x) if letter not in (*c, *z)]
    total(chain, alone)
    x = tuple(letter for axis, letter in enumerate(x) if axis not in alone)
    sizes = dict(zip((*x, *c), (*chain.shape, *constant.shape), strict=True))
    each = tuple(letter for letter in z if letter in x and letter in c)
    summed = tuple(letter for letter in x if letter in c and letter not in z)
    new = tuple(letter for letter in z if letter not in x)
    rows = tuple(letter for letter in x if letter not in c)
    weight = constant.transpose([c.index(letter) for letter in (*each, *new, *summed)])
    groups, outputs, features = (math.prod(sizes[n] for n in part) for part in (each, new, summed))
    if not summed and not new:
        _arrange(chain, x, z)
        if c:
            chain.then(Affine(weight.reshape([sizes[n] if n in c else 1 for n in z]), ZERO))
        return chain
    if groups > 1:
        _arrange(chain, x, (*each, *summed, *rows))
        chain.reshaped((groups * features, math.prod(sizes[n] for n in rows)))
        chain.then(GroupedGemm(weight.reshape(groups * outputs, features, 1), groups=groups))
        made = (*each, *new, *rows)
    else:
        _arrange(chain, x, (*each, *rows, *summed))
        chain.reshaped((*(sizes[n] for n in rows), features)).then(Gemm(weight.reshape(outputs, features)))
        made = (*each, *rows, *new)
    chain.reshaped(tuple(sizes[n] for n in made))
    return _arrange(chain, made, z)


def _arrange(chain: Chain, x: Letters, z: Letters) -> Chain:
    """Bring axes into the order of `z`."""
    return chain.transposed(tuple(x.index(letter) for letter in z))


def _diagonal(chain: Chain, x: Letters) -> Letters:
    """Choose the elements with equal indices along axes of one letter; the letters that remain."""
    numbers = np.arange(math.prod(chain.shape)).reshape(chain.shape)
    found = tuple(dict.fromkeys(x))
    chain.then(Pick(_einsum([(numbers, x)], found)))
    return found


def _einsum(terms: Sequence[tuple[Any, Letters]], z: Letters) -> Any:
    """NumPy's einsum, of letters that may be longer."""
    places = {letter: place for place, letter in enumerate(dict.fromkeys(n for _, x in terms for n in x))}
    flat: list[Any] = [part for array, x in terms for part in (array, [places[n] for n in x])]
    try:
        return np.einsum(*flat, [places[n] for n in z])
    except ValueError as error:
        raise Unsupported(f"NumPy does not multiply so many operands or axes: {error}") from None


# --- ONNX ---


def _read(node: OnnxNode, place: int, terms: Sequence[Letters], z: Letters) -> tuple[Op, ...]:
    """The contraction of the computed input `place` with the others, constants; the batch's letter comes first."""
    (batch, *rest), shape = terms[place], node.fact(place).shape
    x = tuple(rest)
    if z[:1] != (batch,) or batch in (*x, *z[1:]):
        raise Unsupported("it does not keep axis 0 as the batch")
    z = z[1:]
    sizes = dict(zip(x, shape, strict=True))
    constants = []
    for index, letters in enumerate(terms):
        if index != place:
            weights = node.floats(index, node.shared(index, len(letters) if letters[:1] == (batch,) else 0))
            array, letters = _without_ones(weights, letters, {**sizes, batch: 0})
            if batch in letters:
                raise Unsupported(f"its constant {node.inputs[index]!r} has values for each sample")
            constants.append((array, letters))
    for array, letters in [*constants, (np.empty(shape), x)]:
        for letter, n in zip(letters, array.shape, strict=True):
            known = sizes[letter] = max(sizes.get(letter, 1), n)
            if n not in (1, known):
                raise ModelError(f"an axis has {n} elements in one of its inputs and {known} in another")
    if not set(z) <= set(sizes):
        raise ModelError("an axis of its result is in none of its inputs")
    stretched = [i for i, n in enumerate(shape) if n != sizes[x[i]]]
    if len(set(x)) != len(x):
        node.budget.take(16 * math.prod(shape), f"indices of shape {shape}")
    chain = Chain(shape).reshaped(tuple(n for i, n in enumerate(shape) if i not in stretched))
    x = tuple(letter for i, letter in enumerate(x) if i not in stretched)
    c = tuple(dict.fromkeys(n for _, letters in constants for n in letters if n in x or n in z))
    if len(constants) == 1 and constants[0][1] == c:
        constant = constants[0][0]
    else:
        every = {n for _, letters in constants for n in letters}
        each, total = (math.prod(sizes[n] for n in letters) for letters in (c, every))
        node.budget.take(8 * each, f"a product of constants, of {each} elements", total)
        doubles = [(array.astype(np.float64), letters) for array, letters in constants]
        constant = _einsum(doubles or [(np.ones(()), ())], c)
    return contraction(chain, x, constant, c, z).read()


def _without_ones(array: Array, letters: Letters, sizes: Mapping[str, int]) -> tuple[Array, Letters]:
    """The array without axes of size 1 that another input has with more elements."""
    gone = tuple(i for i, n in enumerate(array.shape) if n == 1 and sizes.get(letters[i], 1) != 1)
    return array.squeeze(gone), tuple(letter for i, letter in enumerate(letters) if i not in gone)


@reads("Einsum")
def _read_einsum(node: OnnxNode) -> tuple[Op, ...]:
    computed = [index for index in range(len(node.inputs)) if not node.is_constant(index)]
    if len(computed) != 1:
        raise Unsupported(f"{len(computed)} of its operands are computed; only one can be")
    ranks = [node.rank(index) for index in range(len(node.inputs))]
    terms, z = _equation(node.string("equation", ""), ranks)
    return _read(node, computed[0], terms, z)


def _equation(text: str, ranks: Sequence[int]) -> tuple[list[Letters], Letters]:
    """The letters of each operand and of the result; those that an ellipsis stands for are numbers, from the end."""
    left, arrow, right = text.replace(" ", "").partition("->")
    subscripts = left.split(",")
    pattern = r"[A-Za-z]*(\.\.\.[A-Za-z]*)?"
    if len(subscripts) != len(ranks) or not all(re.fullmatch(pattern, part) for part in (*subscripts, right)):
        raise ModelError(f"its equation is {text!r}; expected letters for {len(ranks)} operands")
    terms = [_letters(part, rank) for part, rank in zip(subscripts, ranks, strict=True)]
    dots = max((n for term in terms for n in term if n.isdigit()), key=int, default=None)
    count = 0 if dots is None else int(dots) + 1
    if arrow:
        if count and "..." not in right:
            raise Unsupported(f"its equation {text!r} sums over what an ellipsis stands for")
        return terms, _letters(right, len(right.replace("...", "")) + count * ("..." in right))
    each = left.replace(",", "").replace(".", "")
    alone = sorted(letter for letter in set(each) if each.count(letter) == 1)
    return terms, (*map(str, reversed(range(count))), *alone)


def _letters(subscripts: str, rank: int) -> Letters:
    before, dots, after = subscripts.partition("...")
    count = rank - len(before) - len(after)
    if count < 0 or (count and not dots):
        raise ModelError(f"its equation has {subscripts!r} for an operand of {rank} axes")
    return (*before, *map(str, reversed(range(count))), *after)


@reads("MatMul")
def _read_matmul(node: OnnxNode) -> tuple[Op, ...]:
    """The last axes but two, of which there may be none, are matched from the end."""
    place = 1 if node.is_constant(0) else 0
    ranks = node.rank(0), node.rank(1)
    if not ranks[1 - place]:
        raise ModelError(
            f"tensor {node.inputs[1 - place]!r} is a single number; expected a vector or matrices"
        )
    left, right = (tuple(map(str, reversed(range(max(n - 2, 0))))) for n in ranks)
    rows, columns = ("row",) * (ranks[0] > 1), ("column",) * (ranks[1] > 1)
    z = (*max(left, right, key=len), *rows, *columns)
    return _read(node, place, ((*left, *rows, "sum"), (*right, "sum", *columns)), z)
