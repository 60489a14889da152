"""`propagate`: golden vectors, denominators that are zero, rules that share nothing, mistakes."""

from __future__ import annotations

from typing import Any

import numpy as np
import oracle
import pytest

import lrpfast
from lrpfast import (
    AlphaBeta,
    Concat,
    Conv2d,
    CustomRule,
    Dense,
    Epsilon,
    Flat,
    Gamma,
    MaxPool2d,
    Norm,
    Pass,
    ReLU,
    Route,
    Stabilizer,
    Transpose,
    WinnerTakeAll,
    WSquare,
    Z,
    ZBox,
    ZPlus,
)
from lrpfast.errors import InputError, RuleError
from lrpfast.ops import Add

W = np.array([[1, -1, 0.5], [-0.5, 2, -1.5]])
B = np.array([-1, 0.5])
X = np.array([[1.0, 1.0, -2.0]])

GOLDEN = [
    (Epsilon(1e-6), (-0.59999973, 0.89999967, 1.09999963)),
    (Epsilon(0.25), (-0.53968254, 0.82539683, 1.01587302)),
    (Epsilon(1e-6, bias=False), (-1.11111009, 1.44444335, 1.66666552)),
    (Gamma(0.25), (-0.44206759, 0.84670209, 1.04278049)),
    (Gamma(0.25, bias=False), (-0.75362273, 1.26811531, 1.48550658)),
    (ZPlus(), (0.99999900, 0.36363630, 0.54545445)),
    (ZPlus(bias=False), (0.99999900, 0.39999992, 0.59999988)),
    (AlphaBeta(1, 0, bias=False), (0.99999900, 0.39999992, 0.59999988)),
    (AlphaBeta(2, 1), (1.00000000, 0.39393937, 0.75757567)),
    (AlphaBeta(2, 1, bias=False), (1.00000000, 0.30000009, 0.70000001)),
    (ZBox(-3.0, 3.0), (0.67599058, 0.79254072, 0.53146849)),
    (WSquare(), (0.34472924, 0.90028472, 0.41025634)),
    (Flat(), (0.66666644, 0.66666644, 0.66666644)),
]
"""What zennit 1.0.0 returns for R = (1, 1), in float64, to the digits shown."""


@pytest.mark.parametrize(("rule", "expected"), GOLDEN, ids=lambda value: str(value))
def test_golden_vectors_of_zennit(rule: Any, expected: tuple[float, ...], backend: str) -> None:
    got = lrpfast.propagate(rule, Dense(W, B), X, np.ones((1, 2)), backend=backend)
    np.testing.assert_allclose(got[0], expected, rtol=0, atol=5.1e-9)


@pytest.mark.parametrize(
    ("rule", "expected"), [(AlphaBeta(1, 0), (-1, 0)), (AlphaBeta(2, 1), (-2, 0.5))], ids=str
)
def test_micro_case_of_bach_et_al(rule: Any, expected: tuple[float, ...], backend: str) -> None:
    layer = Dense(np.array([[1.0, -1.0]]), np.array([-1.0]))
    got = lrpfast.propagate(rule, layer, np.array([[1.0, 1.0]]), np.array([[-1.0]]), backend=backend)
    np.testing.assert_allclose(got[0], expected, rtol=0, atol=3e-6)


# --- rules that do not share ---


def test_pass_hands_relevance_through(backend: str) -> None:
    x, r = np.array([[-1.0, 2.0]]), np.array([[3.0, 4.0]])
    np.testing.assert_array_equal(lrpfast.propagate(Pass(), ReLU(), x, r, backend=backend), r)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_the_first_winner_of_a_window_takes_all(dtype: Any, backend: str) -> None:
    x = np.array([[[[1, 3, 3], [3, 2, 0], [-1, -1, -5]]]], dtype)
    r = np.array([[[[1, 10], [100, 1000]]]], dtype)
    got = lrpfast.propagate(WinnerTakeAll(), MaxPool2d(2, 1), x, r, backend=backend)
    np.testing.assert_array_equal(got[0, 0], [[0, 11, 0], [100, 1000, 0], [0, 0, 0]])
    one = np.ones((1, 1, 1, 1), dtype)
    padded = lrpfast.propagate(WinnerTakeAll(), MaxPool2d(3, 3, 1), -1 - x, one, backend=backend)
    np.testing.assert_array_equal(padded[0, 0], [[1, 0, 0], [0, 0, 0], [0, 0, 0]])


def test_movement_routes_relevance_back(backend: str) -> None:
    x, r = np.arange(6.0).reshape(1, 2, 3), np.arange(10.0, 16.0).reshape(1, 3, 2)
    got = lrpfast.propagate(Route(), Transpose((1, 0)), x, r, backend=backend)
    np.testing.assert_array_equal(got, r.transpose(0, 2, 1))
    a, b = np.ones((1, 2)), np.ones((1, 3))
    first, second = lrpfast.propagate(Route(), Concat(0), (a, b), np.arange(5.0)[None], backend=backend)
    np.testing.assert_array_equal(first, [[0, 1]])
    np.testing.assert_array_equal(second, [[2, 3, 4]])


# --- denominators that are zero ---

ZERO = Dense(np.array([[1.0, -1.0], [2.0, 1.0]]))  # z = (0, 3) at x = (1, 1)
AT_ZERO, ONES = np.array([[1.0, 1.0]]), np.ones((1, 2))


@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        (Z(), (2 / 3, 1 / 3)),
        (Epsilon(0.0), (2 / 3, 1 / 3)),
        (Epsilon(0.5), (1 / 0.5 + 2 / 3.5, -1 / 0.5 + 1 / 3.5)),  # σ(0) = +1
        (Epsilon(Stabilizer(0.5, clip=True)), (1 / 0.5 + 2 / 3, -1 / 0.5 + 1 / 3)),
        (Gamma(1.0, stabilizer=0), (2 / 3, 1 / 3)),  # z = 0 opens neither gate
        (ZPlus(0.0), (1 + 2 / 3, 1 / 3)),
        (AlphaBeta(2, 1, 0.0), (2 + 4 / 3, -1 + 2 / 3)),
    ],
    ids=str,
)
def test_outputs_that_are_zero(rule: Any, expected: tuple[float, ...], backend: str) -> None:
    for sign in (1.0, -1.0):  # -0.0 counts as positive too
        got = lrpfast.propagate(rule, ZERO, sign * AT_ZERO, ONES, backend=backend)
        np.testing.assert_allclose(
            got[0], np.array(expected) if sign > 0 else _mirrored(rule), rtol=0, atol=1e-12
        )


def _mirrored(rule: Any) -> np.ndarray:
    """By the oracle, for x = (-1, -1)."""
    layer = oracle.matrix(ZERO, (2,))
    x = -AT_ZERO
    if isinstance(rule, AlphaBeta):
        return oracle.alpha_beta(layer, x, ONES, rule.alpha, rule.beta, epsilon=0)[0]
    if isinstance(rule, ZPlus):
        return oracle.z_plus(layer, x, ONES, epsilon=0)[0]
    if isinstance(rule, Gamma):
        return oracle.gamma(layer, x, ONES, rule.gamma, epsilon=0)[0]
    stab = rule.stab
    return oracle.epsilon(layer, x, ONES, epsilon=stab.epsilon, clip=stab.clip)[0]


def test_inputs_that_are_all_zero_hand_nothing_back_but_for_flat_and_w_square(backend: str) -> None:
    layer, x, r = Dense(W, B), np.zeros((1, 3)), np.ones((1, 2))
    for rule in (Z(), Epsilon(), ZPlus(), AlphaBeta(), Gamma(), Norm()):
        np.testing.assert_array_equal(lrpfast.propagate(rule, layer, x, r, backend=backend), 0)
    for rule in (Flat(), WSquare(bias=False)):
        assert lrpfast.propagate(rule, layer, x, r, backend=backend).sum() == pytest.approx(2, abs=1e-5)


def test_padding_receives_nothing_and_does_not_count(backend: str) -> None:
    layer = Conv2d(np.ones((1, 1, 3, 3)), padding=1)
    got = lrpfast.propagate(Flat(0.0), layer, np.zeros((1, 1, 2, 2)), np.ones((1, 1, 2, 2)), backend=backend)
    np.testing.assert_allclose(got, np.ones((1, 1, 2, 2)), atol=1e-12)


# --- CustomRule and mistakes ---


def test_custom_rule_sees_the_layer(backend: str) -> None:
    seen = []

    def rule(op: Any, inputs: Any, output: Any, r: Any) -> Any:
        seen.append((op, inputs, output, r))
        return tuple(np.full_like(x, r.sum() / x.size / len(inputs)) for x in inputs)

    x, r = (np.array([[1.0, 2.0]]), np.array([[3.0, 4.0]])), np.array([[1.0, 1.0]])
    first, second = lrpfast.propagate(CustomRule(rule), Add(), x, r, backend=backend)
    np.testing.assert_array_equal(first, [[0.5, 0.5]])
    np.testing.assert_array_equal(second, first)
    ((op, inputs_seen, output, r_seen),) = seen
    assert isinstance(op, Add)
    np.testing.assert_array_equal(inputs_seen, x)
    np.testing.assert_array_equal(output, [[4.0, 6.0]])
    np.testing.assert_array_equal(r_seen, r)


@pytest.mark.parametrize(
    "result", [None, (), (np.zeros((1, 3)), np.zeros((1, 3))), (np.zeros((1, 2)),), (np.zeros(3),)]
)
def test_custom_rule_that_returns_the_wrong_thing(result: Any) -> None:
    with pytest.raises(RuleError, match=r"mine.*expected .* of shape \(1, 3\)"):
        lrpfast.propagate(CustomRule(lambda *_: result, "mine"), Dense(W, B), X, np.ones((1, 2)))


@pytest.mark.parametrize(
    ("rule", "layer", "x", "r", "error", "words"),
    [
        (Epsilon(), ReLU(), X, X, RuleError, "is for linear operators only; the layer is Relu"),
        (Pass(), Dense(W, B), X, ONES, RuleError, "needs one input, of the output's shape"),
        (WinnerTakeAll(), Dense(W, B), X, ONES, RuleError, "operators of kind winner only"),
        (Route(), Dense(W, B), X, ONES, RuleError, "operators of kind movement only"),
        (lrpfast.ReLUDeconvNet(), Dense(W, B), X, ONES, RuleError, "operators of kind activation only"),
        (ZBox(0, 1), Add(), (ONES, ONES), ONES, RuleError, "is for operators with one input"),
        (ZBox(np.zeros(2), 1), Dense(W, B), X, ONES, RuleError, "does not broadcast"),
        (Epsilon(), Dense(W, B), X, np.ones((1, 3)), InputError, r"r has shape \(1, 3\)"),
        (Epsilon(), Dense(W, B), X, np.ones((2, 2)), InputError, r"output has \(1, 2\)"),
        (Epsilon(), Dense(W, B), 1.0, ONES, InputError, "batch axis"),
        (Epsilon(), Add(), (X, np.ones((2, 3))), X, InputError, "batch axis of one length"),
        (Epsilon(), Dense(W, B), np.ones((1, 4)), ONES, lrpfast.ModelError, "last axis of 3"),
        (Epsilon(), Dense(W, B), X, np.array([[np.nan, 1]]), lrpfast.NonFiniteError, "r holds"),
        (Epsilon(), Dense(W, B), np.array([[np.nan, 1, 1]]), ONES, lrpfast.NonFiniteError, "x holds"),
        (Epsilon(), Dense(W, B), (X, X), ONES, lrpfast.ModelError, "it takes one array, but reads 2"),
        (Epsilon(), "Dense", X, ONES, lrpfast.ModelError, "is not a layer"),
        ("epsilon", Dense(W, B), X, ONES, RuleError, "'epsilon' is not a rule"),
        (Epsilon, Dense(W, B), X, ONES, RuleError, "is not a rule"),
    ],
)  # fmt: skip
def test_propagate_refuses(rule: Any, layer: Any, x: Any, r: Any, error: Any, words: str) -> None:
    with pytest.raises(error, match=words):
        lrpfast.propagate(rule, layer, x, r)


def test_propagate_dtype_follows_x() -> None:
    layer, r = Dense(W, B), np.ones((1, 2))
    assert lrpfast.propagate(Epsilon(), layer, X, r).dtype == np.float64
    assert lrpfast.propagate(Epsilon(), layer, X.astype(np.float32), r).dtype == np.float32
    assert lrpfast.propagate(Epsilon(), layer, X.astype(int), r).dtype == np.float32
    assert lrpfast.propagate(Epsilon(), layer, X, r, dtype=np.float32).dtype == np.float32
    with pytest.raises(InputError, match="dtype is int64; expected float32 or float64"):
        lrpfast.propagate(Epsilon(), layer, X, r, dtype=np.int64)


@pytest.mark.parametrize(("value", "bound"), [(-1.25, "low"), (2.25, "high")])
def test_box_rules_refuse_what_lies_outside_of_the_box(value: float, bound: str, backend: str) -> None:
    x = np.array([[0.5, value]], np.float32)
    with pytest.raises(
        InputError, match=rf"'layer' reads {value}, by 0\.25 beyond the {bound}= of its rule ZBox"
    ):
        lrpfast.propagate(
            ZBox(-1, 2), Dense(np.ones((3, 2), np.float32)), x, np.ones((1, 3)), backend=backend
        )
