"""Whole networks, every neuron: the plan against an interpreter that knows no forms, views or kernels.

Networks are drawn at random, with branches that split and join; so are the composites. What a plan can
get wrong and a single layer cannot show is found here: an array freed too early, shared or added to twice.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import oracle
import pytest
from cases import flatten
from conftest import BACKENDS
from hypothesis import given, settings
from hypothesis import strategies as st

import lrpfast
from lrpfast import (
    COMPOSITES,
    AbsNorm,
    AlphaBeta,
    AvgPool2d,
    Builder,
    Composite,
    Concat,
    Conv2d,
    ConvTranspose2d,
    Dense,
    Epsilon,
    Explainer,
    Flat,
    Flatten,
    Gamma,
    GlobalAveragePool,
    Gradient,
    LeakyReLU,
    MaxPool2d,
    Network,
    Norm,
    Pad,
    Pass,
    ReLU,
    ReLU6,
    ReLUDeconvNet,
    ReLUGuidedBackprop,
    Rule,
    Selector,
    SharingRule,
    Sigmoid,
    Softmax,
    Tanh,
    Transpose,
    WSquare,
    Z,
    ZBox,
    ZPlus,
)
from lrpfast.composites import assign
from lrpfast.graph import Graph
from lrpfast.ops import Add, Affine

# --- the interpreter ---


def share(rule: SharingRule, layer: oracle.Layer, x: oracle.Array, r: oracle.Array) -> oracle.Array:
    """A sharing rule by its written-out formula."""
    epsilon = rule.stab.epsilon
    if isinstance(rule, (Z, Epsilon, Norm)):
        return oracle.epsilon(layer, x, r, getattr(rule, "bias", True), epsilon=epsilon)
    if isinstance(rule, AbsNorm):
        return oracle.abs_norm(layer, x, r, epsilon=epsilon)
    if isinstance(rule, ZPlus):
        return oracle.z_plus(layer, x, r, rule.bias, epsilon=epsilon)
    if isinstance(rule, AlphaBeta):
        return oracle.alpha_beta(layer, x, r, rule.alpha, rule.beta, rule.bias, epsilon=epsilon)
    if isinstance(rule, Gamma):
        return oracle.gamma(layer, x, r, rule.gamma, rule.bias, epsilon=epsilon)
    if isinstance(rule, ZBox):
        return oracle.z_box(layer, x, r, rule.low, rule.high, epsilon=epsilon)
    if isinstance(rule, WSquare):
        return oracle.w_square(layer, x, r, rule.bias, epsilon=epsilon)
    assert isinstance(rule, Flat)
    return oracle.flat(layer, x, r, epsilon=epsilon)


def handed_back(
    op: Any, rule: Rule, x: tuple[np.ndarray, ...], y: np.ndarray, r: np.ndarray
) -> tuple[Any, ...]:
    """The relevance of a node's inputs."""
    if isinstance(rule, SharingRule):
        layer = oracle.matrix(op, *(a.shape[1:] for a in x))
        back = share(rule, layer, flatten(x), flatten((r,)))
        pieces = np.split(back, np.cumsum([a[0].size for a in x])[:-1], axis=1)
        return tuple(piece.reshape(a.shape) for piece, a in zip(pieces, x, strict=True))
    if isinstance(rule, Pass):
        return (r,)
    if isinstance(rule, ReLUDeconvNet):
        return (np.maximum(r, 0),)
    return op.vjp(x, y, np.maximum(r, 0) if isinstance(rule, ReLUGuidedBackprop) else r)


def interpreted(
    graph: Graph, rules: Mapping[str, Rule], x: np.ndarray, initial: np.ndarray
) -> dict[str, Any]:
    """The relevance of every array of the graph."""
    values = dict.fromkeys(graph.inputs, x)
    for node in graph.nodes:
        values[node.output] = node.op.forward(*(values[name] for name in node.inputs))
    relevance: dict[str, Any] = {name: np.zeros_like(value) for name, value in values.items()}
    relevance[graph.output] = initial
    for node in reversed(graph.nodes):
        inputs = tuple(values[name] for name in node.inputs)
        back = handed_back(node.op, rules[node.name], inputs, values[node.output], relevance[node.output])
        for name, piece in zip(node.inputs, back, strict=True):
            relevance[name] = relevance[name] + piece
    return relevance


# --- what is drawn ---

LAYERS: dict[str, Any] = {
    "conv": lambda rng, c: Conv2d(rng.normal(size=(4, c, 3, 3)) / 3, rng.normal(size=4) / 3, padding=1),
    "strided": lambda rng, c: Conv2d(rng.normal(size=(4, c, 2, 2)) / 2, stride=2, padding=1),
    "grouped": lambda rng, c: Conv2d(rng.normal(size=(c, c // 2, 1, 1)), rng.normal(size=c) / 3, groups=2),
    "depthwise": lambda rng, c: Conv2d(
        rng.normal(size=(c, 1, 3, 3)) / 2, -np.abs(rng.normal(size=c)), 1, 1, 1, c
    ),
    "transposed": lambda rng, c: ConvTranspose2d(rng.normal(size=(c, 4, 2, 2)) / 2, rng.normal(size=4) / 3),
    "norm": lambda rng, c: Affine(
        rng.normal(size=(c, 1, 1)), rng.normal(size=(c, 1, 1)), "BatchNormalization"
    ),
    "elements": lambda rng, c: Affine(rng.normal(size=(5,)), np.zeros(())),
    "dense": lambda rng, c: Dense(rng.normal(size=(5, 5)) / 2, rng.normal(size=5) / 3),
    "relu": lambda rng, c: ReLU(),
    "relu6": lambda rng, c: ReLU6(),
    "leaky": lambda rng, c: LeakyReLU(0.2),
    "tanh": lambda rng, c: Tanh(),
    "sigmoid": lambda rng, c: Sigmoid(),
    "max": lambda rng, c: MaxPool2d(2, 1, 1),
    "average": lambda rng, c: AvgPool2d(3, 1, 1),
    "global": lambda rng, c: GlobalAveragePool(),
    "pad": lambda rng, c: Pad((0, 1, 0, 0, 0, 0), 0.5),
    "transpose": lambda rng, c: Transpose((0, 2, 1)),
}


@st.composite
def networks(draw: Any) -> Network:
    """Layers on any array made so far that they fit, joined by Add and Concat; at the end a dense one."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    build = Builder((2, 5, 5))
    arrays = {build.input: (2, 5, 5)}
    value = build.input
    kinds = st.sampled_from([*LAYERS, *["relu", "add", "concat", "branch"] * 3])
    for kind in draw(st.lists(kinds, min_size=4, max_size=14)):
        before = value
        if kind == "branch":
            value = draw(st.sampled_from(sorted(arrays)))
            continue
        if kind in ("add", "concat"):
            like = arrays[before] if kind == "add" else arrays[before][1:]
            partners = [n for n, shape in arrays.items() if (shape if kind == "add" else shape[1:]) == like]
            other = draw(st.sampled_from(partners))
            value = build(Add() if kind == "add" else Concat(0), before, other)
        else:
            if kind in ("elements", "dense") and arrays[before][-1] != 5:
                continue
            value = build(LAYERS[kind](rng, arrays[before][0]), before)
        arrays[value] = build.network(value).output_shape
        if np.prod(arrays[value]) > 400:
            value = before
    flat = build(Flatten(), value)
    size = build.network(flat).output_shape[0]
    end = build(Dense(rng.normal(size=(3, size)) / np.sqrt(size), rng.normal(size=3)), flat)
    return build.network(build(Softmax(), end) if draw(st.booleans()) else end)


SHARING = (
    Epsilon(), Epsilon(0.1, bias=False), Norm(), AbsNorm(), ZPlus(), ZPlus(bias=False), AlphaBeta(),
    AlphaBeta(1.5, 0.5), AlphaBeta(bias=False), Gamma(), Gamma(0.5), WSquare(), Flat(),
)  # fmt: skip
BOX = ZBox(-1e5, 1e5)  # holds whatever a network of any kind computes


@st.composite
def composites(draw: Any) -> Composite:
    """Any rule for each kind of operator, and another for the first ones and for a few by name."""
    kinds = ("convolution", "dense", "sum", "average_pool", "affine")
    rule = st.sampled_from(SHARING)
    entries: list[tuple[Any, Rule]] = [
        (Selector(name="*_3"), Gradient()),
        (Selector("linear", first=True), draw(st.sampled_from((*SHARING, BOX)))),
        *((kind, draw(rule)) for kind in kinds),
        (
            "activation",
            draw(st.sampled_from((Pass(), Pass(), Gradient(), ReLUDeconvNet(), ReLUGuidedBackprop()))),
        ),
    ]
    return Composite("drawn", tuple(entries[draw(st.integers(0, 1)) :]))


def check(network: Network, composite: Composite, seed: int, n: int) -> None:
    """All relevance of the network, on every backend."""
    x = np.clip(np.random.default_rng(seed).normal(size=(n, 2, 5, 5)), -6, 6)
    graph = network.canonized(np.float64).graph
    rules = {name: given.rule for name, given in assign(composite, graph).items()}
    for backend in BACKENDS:
        explanation = Explainer(
            network, composite, backend=backend, dtype=np.float64, record="all", on_blowup="ignore"
        )(x)
        chosen = np.eye(3)[explanation.target]
        initial = chosen * (explanation.output if composite.init == "logit" else 1)
        expected = interpreted(graph, rules, x, initial)
        assert explanation.conservation.worst < 1e-11
        found = {node.output: explanation.layers[node.name] for node in graph.nodes}
        (name,) = graph.inputs
        found[name] = explanation.relevance / x if composite.times_input else explanation.relevance
        for name, relevance in found.items():
            tolerance = 1e-8 * max(np.abs(expected[name]).max(), np.abs(initial).max())
            np.testing.assert_allclose(relevance, expected[name], rtol=0, atol=tolerance, err_msg=name)


seeds, samples = st.integers(0, 2**32 - 1), st.integers(1, 3)


@settings(max_examples=150)
@given(network=networks(), composite=composites(), seed=seeds, n=samples)
def test_any_rules_on_any_network(network: Network, composite: Composite, seed: int, n: int) -> None:
    check(network, composite, seed, n)


@pytest.mark.parametrize("name", COMPOSITES)
@settings(max_examples=15)
@given(network=networks(), seed=seeds, n=samples)
def test_presets_on_any_network(name: str, network: Network, seed: int, n: int) -> None:
    box = {"low": BOX.low, "high": BOX.high} if "box" in name or "bounded" in name else {}
    check(network, lrpfast.composite(name, **box), seed, n)
