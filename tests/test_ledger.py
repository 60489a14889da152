"""The ledger is settled when it is looked at; what is not finite is refused at once."""

from __future__ import annotations

import copy
import pickle
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from toy_networks import IMAGES, cnn

import lrpfast
from lrpfast import NonFiniteError
from lrpfast.ledger import Account, Books


def test_the_ledger_is_made_when_it_is_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[int] = []
    rows = Books.rows

    def counted(*arguments: Any) -> Any:
        made.append(1)
        return rows(*arguments)

    monkeypatch.setattr(Books, "rows", counted)
    explain = lrpfast.Explainer(cnn())
    first, second = explain(IMAGES), explain(2 * IMAGES)
    assert not made
    later = [tuple(explanation.conservation) for explanation in (first, second)]
    assert len(made) == 2
    assert tuple(first.conservation) is not tuple(second.conservation)
    assert len(made) == 2
    assert later[0] != later[1]  # the second run wrote over the memory of the first, not over its numbers
    assert tuple(explain(IMAGES).conservation) == later[0]


def test_a_ledger_may_travel_before_it_is_looked_at() -> None:
    explanation = lrpfast.explain(cnn(), IMAGES)
    sent = pickle.loads(pickle.dumps(explanation))
    assert sent.conservation == explanation.conservation
    assert copy.deepcopy(explanation.conservation) == explanation.conservation
    with ThreadPoolExecutor(8) as pool:
        fresh = lrpfast.explain(cnn(), IMAGES).conservation
        assert set(pool.map(str, [fresh] * 16)) == {str(explanation.conservation)}


def test_numbers_that_are_not_finite_are_refused_at_once() -> None:
    books = Books((Account("a", "Z()", True, 0, ((1, None),), None, ((1, None),)),), ledgers=0, sums=2)
    (row,) = books.settled(np.array([3.0, 3.0, 2.0, 2.0]), 1)()
    assert (row.r_in, row.r_out) == (3, 2)
    for wrong in (np.nan, np.inf, -np.inf):
        with pytest.raises(NonFiniteError, match="node 'a' hands back under"):
            books.settled(np.array([3.0, 3.0, wrong, 2.0]), 1)


def test_sums_that_overflow_are_refused_at_once() -> None:
    books = Books((Account("a", "Z()", True, 0, ((1, None),), None, ((1, None),)),), ledgers=0, sums=2)
    with pytest.raises(NonFiniteError, match="node 'a'"):
        books.settled(np.array([3.0, 3.0, 3.0, 3.0, 1e308, 1.0, 1e308, 1.0]), 2)
