"""Who is compared: onnxruntime, lrpfast, zennit and captum, each ready to be called."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import NamedTuple

import torch
from captum.attr import LRP
from captum.attr._core.lrp import SUPPORTED_LAYERS_WITH_RULES, SUPPORTED_NON_LINEAR_LAYERS
from captum.attr._utils.lrp_rules import Alpha1_Beta0_Rule, EpsilonRule
from subjects import Array, Subject, network, onnxruntime_predict
from zennit.attribution import Gradient
from zennit.composites import COMPOSITES

import lrpfast
from lrpfast import Composite, Epsilon, Norm, Pass, Selector
from lrpfast.parts import ALL, POS, Share, Term
from lrpfast.rules import SharingRule

from peers import canonizers, prepared_copy, refuse_silent_gradients  # isort: skip (found by subjects)

PEERS = ("zennit", "captum")


class Answer(NamedTuple):
    """What a contestant computes: the network's output, and the relevance if it explains."""

    output: Array
    relevance: Array | None = None
    conservation: lrpfast.Conservation | None = None


Call = Callable[[], Answer]


@dataclass(frozen=True)
class Contest:
    """One network, batch and number of threads.

    Attributes
    ----------
    calls : dict of str to callable
        The contestants.
    absent : dict of str to str
        Contestants that cannot take part, and why.
    expected : dict of str to array
        For each peer the relevance that it should find, where it is not lrpfast's own answer in this contest.
    """

    calls: dict[str, Call]
    absent: dict[str, str]
    expected: dict[str, Array]


@contextmanager
def contest(net: Subject, batch: int, threads: int, composite: str, with_numba: bool) -> Iterator[Contest]:
    """Make all contestants ready; what need be done only once (loading, registering rules, planning) is done."""
    torch.set_num_threads(threads)
    x = net.pictures(batch)
    infer = onnxruntime_predict(net.path, threads)
    with zennit_explainer(net, x, composite) as zennit:
        calls: dict[str, Call] = {
            "onnxruntime": lambda: Answer(infer(x)),
            "predict": lambda: Answer(net.network.predict(x, threads=threads)),
            "explain": explainer(net, x, composite, threads),
        }
        if with_numba:
            calls["numba"] = explainer(net, x, composite, threads, "numba")
        calls["zennit"] = zennit
        obstacle = captum_obstacle(net, composite)
        if obstacle:
            yield Contest(calls, {"captum": obstacle}, {})
            return
        expected = lrpfast.explain(net.network, x, composite=CAPTUM).relevance
        yield Contest(calls | {"captum": captum_explainer(net, x)}, {}, {"captum": expected})


def explainer(net: Subject, x: Array, composite: str, threads: int, backend: str | None = None) -> Call:
    """lrpfast's explanation, on its best backend or the one named."""
    made = net.explainer(composite, threads, backend)

    def explain() -> Answer:
        explanation = made(x)
        return Answer(explanation.output, explanation.relevance, explanation.conservation)

    return explain


# --- zennit ---


@contextmanager
def zennit_explainer(net: Subject, x: Array, composite: str) -> Iterator[Call]:
    """zennit on the torch module, as tests/peers.py prepares it, with its rules registered."""
    prepared, inputs = prepared_copy(network(net.name).module, torch.float32), torch.from_numpy(x)
    bounds = {"low": net.low, "high": net.high} if composite == "epsilon_gamma_box" else {}
    box = {name: torch.full_like(inputs, bound) for name, bound in bounds.items()}
    rules = COMPOSITES[composite](canonizers=canonizers(prepared), **box)

    def top_logit(output: torch.Tensor) -> torch.Tensor:
        return output.detach() * torch.nn.functional.one_hot(output.argmax(1), output.shape[1])

    with Gradient(prepared, rules, top_logit) as attributor:
        refuse_silent_gradients(prepared)

        def explain() -> Answer:
            output, relevance = attributor(inputs)
            return Answer(output.detach().numpy(), relevance.numpy())

        yield explain


# --- captum ---


class Alpha1Beta0(SharingRule):
    """α1β0 as captum has it: w⁺ with x of any sign, over the same and the whole bias."""

    @property
    def stab(self) -> lrpfast.Stabilizer:
        return lrpfast.Stabilizer(1e-9)

    def shares(self) -> tuple[Share, ...]:
        return (Share((Term(ALL, POS),), ALL),)


CAPTUM = Composite(
    "captum",
    (
        (Selector("convolution", first=True), Epsilon()),
        ("convolution", Alpha1Beta0()),
        ("dense", Epsilon()),
        ("average_pool", Norm()),
        ("activation", Pass()),
    ),
)
"""What captum's rules are set to below, as lrpfast's rules.

ε in the first convolution, since w⁺ with inputs of either sign makes denominators near zero: then rounding
decides what captum answers, and nothing could be compared.
"""

CAPTUM_KNOWS = (*SUPPORTED_LAYERS_WITH_RULES, *SUPPORTED_NON_LINEAR_LAYERS)

MOVEMENT_FUNCTIONS = ("flatten", "size", "view")
"""Whose gradient routes relevance as it should."""


def captum_obstacle(net: Subject, composite: str) -> str:
    """Why captum cannot explain this network with rules like the composite's; empty if it can."""
    if composite != "epsilon_plus":
        return f"has no rules like those of {composite}"
    module = network(net.name).module
    nodes = torch.fx.symbolic_trace(module).graph.nodes
    layers = [module.get_submodule(node.target) for node in nodes if node.op == "call_module"]
    refused = [type(layer).__name__ for layer in layers if not isinstance(layer, CAPTUM_KNOWS)]
    if refused:
        return f"refuses {' and '.join(dict.fromkeys(refused))}"
    functions = [node.target for node in nodes if node.op in ("call_function", "call_method")]
    names = dict.fromkeys(f if isinstance(f, str) else f.__name__ for f in functions)
    wrong = [f"takes the plain gradient of {name}" for name in names if name not in MOVEMENT_FUNCTIONS]
    if any(isinstance(layer, torch.nn.BatchNorm2d) for layer in layers):
        wrong.insert(0, "has no α1β0 rule for BatchNorm2d")
    return " and ".join(wrong)


def captum_explainer(net: Subject, x: Array) -> Call:
    """captum on the torch module, with the rules of `CAPTUM`."""
    prepared = prepared_copy(network(net.name).module, torch.float32)
    inputs = torch.from_numpy(x).clone().requires_grad_()
    with torch.no_grad():
        output = prepared(inputs)
    target, lrp = output.argmax(1), LRP(prepared)
    convolutions = [layer for layer in prepared.modules() if isinstance(layer, torch.nn.Conv2d)]
    dense = [layer for layer in prepared.modules() if isinstance(layer, torch.nn.Linear)]

    def explain() -> Answer:
        for layer in convolutions[1:]:
            layer.rule = Alpha1_Beta0_Rule()
        for layer in (*convolutions[:1], *dense):
            layer.rule = EpsilonRule(1e-6)
        relevance = lrp.attribute(inputs, target=target)  # takes the rules away again
        return Answer(output.numpy(), relevance.detach().numpy())

    return explain
