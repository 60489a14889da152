"""Endings for the Numba backend: checked, and brought into the form that compiled code wants."""

from __future__ import annotations

from math import prod
from typing import Any

import numpy as np

from ..errors import InputError
from ..ops.base import Array
from . import numba_kernels as kernels
from .ending import WHOLE, Ending, Quotient
from .numba_threads import run
from .numpy_ import Part, bounded

_NO_QUOTIENT = Quotient(None, None, 0.0)


def require(fits: bool, kernel: str, **arrays: Array | None) -> None:
    """Refuse arrays that do not fit."""
    if not fits:
        found = ", ".join(f"{k} {a.dtype} {a.shape}" for k, a in arrays.items() if a is not None)
        raise InputError(f"{kernel}: arrays do not fit each other, or out is not C-contiguous: {found}")


def _alike(arrays: dict[str, Array | None], dtype: Any, shape: tuple[int, ...]) -> bool:
    """Whether those that are there have this dtype and shape."""
    return all(a is None or (a.dtype == dtype and a.shape == shape) for a in arrays.values())


def flat(a: Array | None, like: Array) -> Array:
    """`a`, flat and read-only (so that one compiled version serves all); empty if absent."""
    found = np.empty(0, like.dtype) if a is None else a.reshape(-1)
    found.flags.writeable = False
    return found


def numbers(values: tuple[float, ...], like: Array) -> Array:
    """Numbers in the dtype of `like`."""
    return flat(np.array(values, like.dtype), like)


class Finish:
    """An ending for compiled code: checked, flat, and with room for what the items count.

    Parameters
    ----------
    kernel : str
        Name of the kernel, for the error.
    fits : bool
        Whether the kernel's own arrays fit each other.
    end : Ending
    epsilons : array, optional
        The quotient's ε for each sample.
    **arrays : array
        The kernel's own arrays.

    Attributes
    ----------
    ends : Ends
    out : array
        Flat.
    """

    def __init__(
        self, kernel: str, fits: bool, end: Ending, epsilons: Array | None = None, **arrays: Array
    ) -> None:
        out, q = end.out, end.quotient or _NO_QUOTIENT
        times = None if end.times is None else bounded(end.times, end.times_high)
        lanes = {a.shape[-1] for a in (*arrays.values(), out) if a.ndim in (4, 6)}
        if lanes - {1}:
            raise InputError(
                f"{kernel}: there are arrays of {max(lanes)} lanes; those of this backend have one"
            )
        gate_z = q.gate_z if q.gate or q.mirrored is not None else None
        like = {
            "times": times, "plus": end.plus, "r": q.r, "gate_z": gate_z, "kept": end.kept, "mirrored": q.mirrored,
        }  # fmt: skip
        channels = {"bias": end.bias, "the quotient's bias": q.bias}
        books = {"ledger": q.ledger, "sums": end.sums}
        fits = (
            fits
            and out.flags.c_contiguous
            and all(a is None or a.flags.c_contiguous for a in (end.kept, q.mirrored))
            and all(a.dtype == out.dtype for a in arrays.values())
            and _alike(like, out.dtype, out.shape)
            and _alike(channels, out.dtype, out.shape[1:2])
            and _alike({"": q.ledger}, np.float64, (len(out), 4))
            and _alike({"": end.sums}, np.float64, (len(out), 2))
            and ((q.gate == 0 and q.mirrored is None) or gate_z is not None)
            and (q.gate == 0 or q.mirrored is None)
            and (end.quotient is None or (q.r is not None and q.ledger is not None))
        )
        require(fits, kernel, **arrays, out=out, **like, **channels, **books)
        self.end, self.out = end, out.reshape(-1)
        self.counts = end.quotient is not None or end.sums is not None
        nothing = np.empty(0, out.dtype)
        self.ends = kernels.Ends(
            flat(end.bias, out), flat(times, out), flat(end.plus, out), flat(q.r, out),
            flat(gate_z, out), flat(q.bias, out),
            nothing if end.kept is None else end.kept.reshape(-1),
            nothing if q.mirrored is None else q.mirrored.reshape(-1),
            numbers((*end.times_part, *(end.clamp or (1, 0, 0)), q.scale, end.plus_factor), out),
            numbers((q.epsilon,), out) if epsilons is None else flat(epsilons, out),
            end.clamp is not None, end.quotient is not None, bool(q.clip), int(q.gate), end.sums is not None,
        )  # fmt: skip

    def room(self, items: int) -> Array:
        """For what so many items count; none if there is nothing to count."""
        return np.empty(items * kernels.BOOKS if self.counts else 0)

    def book(self, found: Array, first: int, samples: int) -> None:
        """Enter what the items of some samples have counted."""
        if self.counts:
            total = found.reshape(samples, -1, kernels.BOOKS).sum(axis=1)
            if self.end.quotient is not None:
                self.end.quotient.ledger[first : first + samples] += total[:, :4]
            if self.end.sums is not None:
                self.end.sums[first : first + samples] = total[:, 4:]

    def some(self, first: int, samples: int) -> tuple[kernels.Ends, Array]:
        """The ending and the output of some samples."""
        size = self.out.size // len(self.end.out)

        def cut(a: Array) -> Array:
            return a[first * size : (first + samples) * size]

        e = self.ends
        cut_ends = e._replace(
            times=cut(e.times), plus=cut(e.plus), r=cut(e.r), gate_z=cut(e.gate_z), kept=cut(e.kept),
            mirrored=cut(e.mirrored),
        )  # fmt: skip
        return cut_ends, cut(self.out)

    def raw(self) -> Array:
        """Where a kernel without an ending leaves its result, flat, for `apply`."""
        end = self.end
        trivial = not self.counts and end.bias is end.times is end.plus is end.clamp is None
        return self.out if trivial else np.empty_like(self.out)

    def apply(self, src: Array, src_part: Part = WHOLE, w: Array | None = None, w_part: Part = WHOLE) -> None:
        """End with `part(src)`, times `part(w)` for each channel."""
        if src is self.out:
            return
        out, ends, factors = self.end.out, self.ends, flat(w, self.out)
        n, size = len(out), prod(out.shape[1:])
        alike = ends.bias.size == ends.taken.size == factors.size == 0  # channels make no difference
        row = size if alike else prod(out.shape[2:])
        items = n * -(-size // kernels.PIECE)
        found = self.room(items)
        run(
            kernels.collect, items, out.size,
            flat(src, out), factors, numbers((*src_part, *w_part), out), size, row, ends, self.out, found,
        )  # fmt: skip
        self.book(found, 0, n)
