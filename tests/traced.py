"""Any torch network in a form in which zennit has a rule for every step.

A network is traced; functions that it calls become modules that zennit knows, products by a gate become
modules whose gradient is the rule of our `SignalTakesAll`, and layers absorb the batch normalization and
the factors behind them. A function that is not listed here is refused, since zennit would take its gradient.
"""

from __future__ import annotations

import copy
import operator
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn
from torch.fx.experimental.optimization import fuse
from zennit.layer import Sum

MOVEMENT = frozenset(
    ("cat", "chunk", "contiguous", "flatten", "floordiv", "getattr", "getitem", "permute", "reshape", "size",
     "transpose", "view")
)  # fmt: skip
"""Functions and methods whose gradient routes relevance as it should, and arithmetic with sizes."""

_ADD = (operator.add, operator.iadd, torch.add)
_MUL = (operator.mul, operator.imul, torch.mul)


class Norm(nn.Module):
    """Layer normalization by its function; zennit passes relevance through."""

    def __init__(self, shape: Any, weight: Tensor, bias: Tensor, eps: float) -> None:
        super().__init__()
        self.shape, self.eps = shape, eps
        self.register_buffer("weight", weight.detach().clone())
        self.register_buffer("bias", bias.detach().clone())

    def forward(self, x: Tensor) -> Tensor:
        return F.layer_norm(x, self.shape, self.get_buffer("weight"), self.get_buffer("bias"), self.eps)


class HardSigmoid(nn.Module):
    """The hard sigmoid with the slope that ONNX files hold, 1/6 in float32; zennit passes relevance through."""

    def forward(self, x: Tensor) -> Tensor:
        return (x * float(np.float32(1 / 6)) + 0.5).clamp(0, 1)


class _Gate(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, signal: Tensor, gate: Tensor) -> Tensor:
        ctx.gate = gate
        return signal * gate

    @staticmethod
    def backward(ctx: Any, *r: Tensor) -> tuple[Tensor, Tensor]:
        return r[0], torch.zeros_like(ctx.gate)


class Gate(nn.Module):
    """The product of a signal and a gate: the signal takes all relevance."""

    def forward(self, signal: Tensor, gate: Tensor) -> Tensor:
        result: Tensor = _Gate.apply(signal, gate)
        return result


PASSED = (Norm, HardSigmoid)
"""Modules that are to pass relevance through, and that zennit does not know."""


def traced(module: nn.Module, kind: torch.dtype) -> fx.GraphModule:
    """A copy of `module` of such modules only.

    Raises
    ------
    ValueError
        It calls a function that zennit would take the gradient of.
    """
    module = copy.deepcopy(module).to(kind).eval().requires_grad_(False)
    for layer in module.modules():
        if hasattr(layer, "inplace"):
            layer.inplace = False
    network: fx.GraphModule = fuse(module)
    for name, layer in list(network.named_modules()):
        if isinstance(layer, nn.Hardsigmoid):
            network.set_submodule(name, HardSigmoid())
        elif isinstance(layer, nn.LayerNorm):
            network.set_submodule(name, Norm(layer.normalized_shape, layer.weight, layer.bias, layer.eps))
    offenders = [str(node) for node in list(network.graph.nodes) if not _replaced(network, node)]
    if offenders:
        raise ValueError(f"zennit would take the plain gradient of {', '.join(offenders)}")
    network.graph.lint()
    network.recompile()
    return network.eval().requires_grad_(False)


def _replaced(network: fx.GraphModule, node: fx.Node) -> bool:
    """Put a module in the place of a function; False if there is none."""
    if node.op not in ("call_function", "call_method"):
        return True
    name = _called(node)
    tensors = tuple(a for a in node.args if isinstance(a, fx.Node))
    graph = network.graph
    with graph.inserting_before(node):
        if name in MOVEMENT:
            return True
        if node.target in _ADD and len(tensors) == 2:
            stacked = graph.call_function(torch.stack, (list(tensors),), {"dim": -1})
            return _put(network, node, Sum(), stacked)
        if node.target in _MUL and len(tensors) == 2:
            parameters = [a for a in tensors if a.op == "get_attr"]
            if parameters:
                (signal,) = set(tensors) - set(parameters)
                return _scaled(network, node, signal, _attribute(network, parameters[0]))
            gates = [a for a in tensors if _is_gate(network, a)]
            if len(gates) != 1:
                return False
            (signal,) = set(tensors) - set(gates)
            return _put(network, node, Gate(), signal, gates[0])
        if name in ("relu", "relu_"):
            return _put(network, node, nn.ReLU(), tensors[0])
        if name == "adaptive_avg_pool2d":
            return _put(network, node, nn.AdaptiveAvgPool2d(node.args[1]), tensors[0])
        if name in ("avg_pool2d", "max_pool2d"):
            pool = nn.AvgPool2d if name == "avg_pool2d" else nn.MaxPool2d
            window: dict[str, Any] = {"kernel_size": node.args[1]} if node.args[1:] else {}
            return _put(network, node, pool(**window, **node.kwargs), tensors[0])
        if name == "mean" and list(node.args[1]) == [2, 3]:
            pooled = _module(network, node, nn.AdaptiveAvgPool2d(1), tensors[0])
            return _put(network, node, nn.Flatten(), pooled)
        if name in ("dropout", "stochastic_depth"):
            return _put(network, node, nn.Identity(), tensors[0])
        if name == "layer_norm":
            shape, given = node.args[1], node.kwargs
            weight, bias = (_attribute(network, given[key]) for key in ("weight", "bias"))
            return _put(network, node, Norm(shape, weight, bias, given["eps"]), tensors[0])
    return False


def _called(node: fx.Node) -> str:
    """The name of the function or method that a step calls."""
    return node.target if isinstance(node.target, str) else getattr(node.target, "__name__", "?")


def _scaled(network: fx.GraphModule, node: fx.Node, signal: fx.Node, factor: Tensor) -> bool:
    """Fold a factor per channel into the dense layer before it, as canonisation does; False if there is none."""
    before = signal
    while _called(before) == "permute" and len(before.users) == 1:
        before = before.args[0]  # type: ignore[assignment]
    layer: Any = network.get_submodule(str(before.target)) if before.op == "call_module" else None
    if not isinstance(layer, nn.Linear) or len(before.users) != 1:
        return False
    layer.weight.data *= factor.reshape(-1, 1)
    layer.bias.data *= factor.reshape(-1)
    node.replace_all_uses_with(signal)
    network.graph.erase_node(node)
    return True


def _attribute(network: fx.GraphModule, node: Any) -> Tensor:
    tensor: Any = network
    for part in node.target.split("."):
        tensor = getattr(tensor, part)
    result: Tensor = tensor
    return result


def _is_gate(network: fx.GraphModule, node: fx.Node) -> bool:
    """Whether a sigmoid computes it."""
    return node.op == "call_module" and isinstance(
        network.get_submodule(str(node.target)), nn.Sigmoid | HardSigmoid
    )


def _module(network: fx.GraphModule, node: fx.Node, module: nn.Module, *inputs: fx.Node) -> fx.Node:
    name = f"as_module_{node.name}_{type(module).__name__}"
    network.add_module(name, module)
    return network.graph.call_module(name, inputs)


def _put(network: fx.GraphModule, node: fx.Node, module: nn.Module, *inputs: fx.Node) -> bool:
    node.replace_all_uses_with(_module(network, node, module, *inputs))
    network.graph.erase_node(node)
    return True
