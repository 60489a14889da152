"""Work that is handed from thread to thread, in order, with a bound on how much is under way."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor, Future
from typing import Any, TypeVar

In = TypeVar("In")
Out = TypeVar("Out")


def staged(
    function: Callable[[In], Out], values: Iterable[In], executor: Executor, ahead: Callable[[], int]
) -> Iterator[Out]:
    """The results of `function`, in order, computed by an executor while the caller does something else.

    Parameters
    ----------
    function : callable
    values : iterable
        Taken as they are needed.
    executor : Executor
    ahead : callable
        How many values may be under way beyond the one that is waited for.
    """
    under_way: deque[Future[Out]] = deque()
    for value in values:
        under_way.append(executor.submit(function, value))
        while len(under_way) > ahead():
            yield under_way.popleft().result()
    while under_way:
        yield under_way.popleft().result()


class BatchSize:
    """How many samples are explained at once: given, or found so that a batch takes a fraction of a second.

    Results do not depend on it; a job can be interrupted and shows progress only between batches.

    Parameters
    ----------
    fixed : int or None
    limit : int
        At most so many if it is to be found.
    """

    SECONDS = 2.0
    FIRST = 4

    def __init__(self, fixed: int | None, limit: int) -> None:
        self._limit = limit
        self._fixed = fixed is not None
        self._size = min(self.FIRST, limit) if fixed is None else fixed
        self._lock = threading.Lock()

    def within(self, limit: int) -> BatchSize:
        """The same with another limit, and nothing learnt."""
        return BatchSize(self._size if self._fixed else None, limit)

    def __reduce__(self) -> tuple[Any, ...]:
        return BatchSize, (self._size if self._fixed else None, self._limit)

    @property
    def size(self) -> int:
        return self._size

    def timed(self, function: Callable[[In], Out]) -> Callable[[In], Out]:
        """`function` of a batch, whose time is learnt from."""

        def call(batch: In) -> Out:
            start = time.perf_counter()
            result = function(batch)
            self.learn(len(batch), time.perf_counter() - start)  # type: ignore[arg-type]
            return result

        return call

    def learn(self, samples: int, seconds: float) -> None:
        """A batch of so many samples took so long: at most twice as many are next."""
        if self._fixed or samples < self._size:
            return
        with self._lock:
            fitting = int(self.SECONDS * samples / max(seconds, 1e-9))
            self._size = max(1, min(fitting, 2 * self._size, self._limit))
