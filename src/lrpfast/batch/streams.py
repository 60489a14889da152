"""How a job shares out its threads and its memory among explanations that are made side by side.

A call of an explainer spreads each kernel over its threads, which wait for one another at the end of each. Whatever
else takes one of their CPUs for a moment (decoding, writing) then stops them all. Batches that are explained side by
side, each by one thread, wait for nobody, so what is done besides costs no more than it takes itself; and a thread
that has no others to hand work to does the same work in a little less time. So there are as many such streams as
there are threads, if the memory suffices for a sample in each. If it does not, or if there are not even as many
inputs, there is one stream, with all threads.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from ..api import Explainer
from ..backends import get_num_threads
from .inputs import by_name, shapes_of

MEMORY = 3 * 2**26
"""Without a limit of memory a job takes so many bytes for each of its threads, if that is enough for a sample."""

MOST = 256
"""Batches have so many samples at most, unless another number is asked for."""

UNDER_WAY = 4
"""For each sample that is being explained, so many samples' inputs and results are in memory, between the threads."""


@dataclass(frozen=True)
class Streams:
    """Explanations that are made side by side.

    Attributes
    ----------
    count : int
    threads : int
        Of each.
    most : int
        Samples that a batch may have.
    memory : int or None
        Limit for the run of each, in bytes.
    """

    count: int
    threads: int
    most: int
    memory: int | None


def shared_out(explainer: Explainer, ranks: int, inputs: int) -> Streams:
    """How a job is done.

    Parameters
    ----------
    explainer : Explainer
        Knows the limits.
    ranks : int
        Explanations of each input.
    inputs : int
        How many there are.
    """
    allowed = get_num_threads()
    threads = allowed if explainer.threads is None else min(explainer.threads, allowed)
    limit = explainer.max_memory
    room = (limit or MEMORY * threads) // _bytes_per_sample(explainer, ranks)
    count = threads if inputs >= threads and (limit is None or room >= threads) else 1
    most = max(1, min(MOST, room // count, -(-inputs // count)))
    return Streams(count, threads // count, most, None if limit is None else limit // count)


def _bytes_per_sample(explainer: Explainer, ranks: int) -> int:
    """What a sample takes while it is explained, and what waits before and behind it."""
    elements = sum(math.prod(shape) for shape in by_name(shapes_of(explainer.network)).values())
    runs = explainer.memory_per_sample * (1 if ranks == 1 else 2)
    return runs + UNDER_WAY * elements * explainer.dtype.itemsize * (1 + ranks)
