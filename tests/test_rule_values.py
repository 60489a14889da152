"""Rules as values: printed, compared, hashed, pickled, and refused where they make no sense."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import numpy as np
import pytest

import lrpfast
from lrpfast import (
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
    Part,
    Pass,
    ReLUDeconvNet,
    ReLUGuidedBackprop,
    Route,
    Rule,
    RuleError,
    Share,
    SignalTakesAll,
    Stabilizer,
    Term,
    WinnerTakeAll,
    WSquare,
    Z,
    ZBox,
    ZPlus,
)

VALUES: list[Rule] = [
    Z(), Z(bias=False), Epsilon(), Epsilon(0.5), Epsilon(Stabilizer(0.5, clip=True)), Epsilon(bias=False),
    ZPlus(), ZPlus(0.5), AlphaBeta(), AlphaBeta(1, 0), AlphaBeta(bias=False), Gamma(), Gamma(0.5), ZBox(-1, 1),
    ZBox(-1, 2), ZBox(np.zeros(3), np.ones(3)), ZBox(np.zeros((3, 1)), 1), WSquare(), WSquare(bias=False), Flat(),
    Flat(0.5), Pass(), Norm(), Norm(0.5), AbsNorm(), AbsNorm(0.5), WinnerTakeAll(), Route(), SignalTakesAll(), Halves(),
    LNRule(), LNRule(0.5), Gradient(), ReLUDeconvNet(), ReLUGuidedBackprop(), CustomRule(max, "mine"),
]  # fmt: skip


@pytest.mark.parametrize("rule", VALUES, ids=str)
def test_rules_are_values(rule: Rule) -> None:
    again = copy.deepcopy(rule)
    pickled = pickle.loads(pickle.dumps(rule))
    if not isinstance(rule, CustomRule):  # two functions are never known to be the same
        assert rule == again == pickled
        assert hash(rule) == hash(again) == hash(pickled)
    assert str(rule) == str(again) == str(pickled)
    assert type(rule).__name__ in str(rule)
    assert [other for other in VALUES if other == rule] == [rule]
    with pytest.raises(AttributeError):
        rule.stabilizer = 2  # type: ignore[attr-defined]


def test_every_rule_is_in_the_registry() -> None:
    assert {type(rule).__name__ for rule in VALUES} == set(RULES)
    assert all(RULES[type(rule).__name__] is type(rule) for rule in VALUES)


@pytest.mark.parametrize(
    ("rule", "text"),
    [
        (Epsilon(), "Epsilon()"),
        (Epsilon(0.25, bias=False), "Epsilon(epsilon=0.25, bias=False)"),
        (AlphaBeta(1, 0), "AlphaBeta(alpha=1, beta=0)"),
        (ZBox(-1, 2.5), "ZBox(low=-1.0, high=2.5)"),
        (ZBox(np.zeros((3, 1, 1)), 1), "ZBox(low=array(3, 1, 1), high=1.0)"),
        (CustomRule(max, "mine"), "CustomRule(mine)"),
    ],
)
def test_rules_print_what_is_not_the_default(rule: Rule, text: str) -> None:
    assert str(rule) == text


def test_shares_print_as_formulas() -> None:
    def lines(rule: Any) -> list[str]:
        return [str(share) for share in rule.shares()]

    assert lines(Epsilon()) == ["x·w over the same + b"]
    assert lines(ZPlus(bias=False)) == ["x⁺·w⁺ + x⁻·w⁻ over the same"]
    assert lines(AlphaBeta()) == [
        "2·(x⁺·w⁺ + x⁻·w⁻) over the same + b⁺", "-1·(x⁺·w⁻ + x⁻·w⁺) over the same + b⁻"
    ]  # fmt: skip
    assert lines(Gamma())[0] == "[z>0] x⁺·(1.25w⁺+1w⁻) + x⁻·(1w⁺+1.25w⁻) over the same + (1.25b⁺+1b⁻)"
    assert lines(ZBox(0, 1)) == ["(x−low)·w⁺ + (x−high)·w⁻ over the same"]
    assert lines(WSquare()) == ["1·w² over the same + b²"]
    assert lines(Flat()) == ["1·1 over the same"]
    assert lines(AbsNorm()) == ["|x|·|w| over the same"]


def test_scales_of_shares_add_up_to_one() -> None:
    for rule in VALUES:
        if isinstance(rule, lrpfast.SharingRule):
            for z in (1, -1):
                assert sum(share.scale for share in rule.shares() if share.gate in (0, z)) == 1


def test_a_box_keeps_its_bounds_from_its_caller() -> None:
    low = np.zeros(3)
    rule = ZBox(low, 1)
    low[0] = 5
    np.testing.assert_array_equal(rule.low, np.zeros(3))
    with pytest.raises(ValueError, match="read-only"):
        rule.low[0] = 5  # type: ignore[index]


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: AlphaBeta(2, 2), "alpha − beta is 0, but relevance is conserved only where it is 1; try alpha=3"),
        (lambda: AlphaBeta(0.5, -0.5), "beta is -0.5; expected a finite number ≥ 0"),
        (lambda: AlphaBeta(np.inf, np.inf), "alpha is inf"),
        (lambda: AlphaBeta("2", 1), "alpha is '2'"),
        (lambda: Epsilon(-1e-6), "epsilon is -1e-06; expected a finite number ≥ 0, such as 1e-06"),
        (lambda: Epsilon(float("nan")), "epsilon is nan"),
        (lambda: Epsilon(None), "epsilon is None"),
        (lambda: Epsilon(True), "epsilon is True"),
        (lambda: ZPlus(-1), "epsilon is -1"),
        (lambda: AlphaBeta(stabilizer=-1), "epsilon is -1"),
        (lambda: Gamma(stabilizer=-1), "epsilon is -1"),
        (lambda: WSquare(-1), "epsilon is -1"),
        (lambda: Flat(-1), "epsilon is -1"),
        (lambda: Norm(-1), "epsilon is -1"),
        (lambda: AbsNorm(-1), "epsilon is -1"),
        (lambda: ZBox(0, 1, -1), "epsilon is -1"),
        (lambda: Stabilizer(np.inf), "epsilon is inf"),
        (lambda: Gamma(-0.1), "gamma is -0.1"),
        (lambda: Gamma(np.nan), "gamma is nan"),
        (lambda: ZBox(1, 1), "low=1 is not below high=1; give the smallest and the largest value"),
        (lambda: ZBox(2, 1), "low=2 is not below high=1"),
        (lambda: ZBox(np.array([0, 2, 3]), 1), r"low=array\(3,\) is not below high=1 at 2 of 3 elements"),
        (lambda: ZBox(np.zeros(3), np.ones(4)), r"low has shape \(3,\) and high \(4,\); they do not fit together"),
        (lambda: ZBox(np.nan, 1), "low holds NaN or infinity"),
        (lambda: ZBox(0, np.inf), "high holds NaN or infinity"),
        (lambda: ZBox("dark", "bright"), "low is 'dark'; expected a number or an array"),
        (lambda: Part(power=3), "power is 3"),
        (lambda: Part(2, 1, power=0), "power 0 stands for ones"),
        (lambda: Term(Part(power=2), Part()), "squares x"),
        (lambda: Term(Part(), Part(minus="low")), "shifts w"),
        (lambda: Share((), gate=2), "gate is 2"),
        (lambda: Share((), scale=np.nan), "scale nan"),
        (lambda: Share((), bias=Part(power=0)), "cannot be shifted or replaced by ones"),
    ],
)  # fmt: skip
def test_rules_refuse(make: Any, words: str) -> None:
    with pytest.raises(RuleError, match=words):
        make()
