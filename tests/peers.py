"""What zennit computes, as an oracle for whole networks.

zennit falls back to the plain gradient for whatever it has no rule for, without a word. So that
parity with it means something, a network is brought into a form here in which every step has a
rule, and refused if one is left over.
"""

from __future__ import annotations

import copy
import gc
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, DTypeLike, NDArray
from torch import Tensor, nn
from traced import PASSED
from zennit.attribution import Gradient
from zennit.canonizers import AttributeCanonizer, Canonizer, NamedMergeBatchNorm
from zennit.composites import COMPOSITES
from zennit.layer import Sum
from zennit.rules import Pass
from zennit.torchvision import ResNetCanonizer
from zennit.types import BatchNorm, Linear

COMPOSITE_NAMES = (
    "epsilon_plus",
    "epsilon_plus_flat",
    "epsilon_alpha2_beta1",
    "epsilon_alpha2_beta1_flat",
    "epsilon_gamma_box",
)

Array = NDArray[np.floating[Any]]

# One thread: on two cores torch's threads, which wait for each other by spinning, take twice the time.
torch.set_num_threads(1)


def zennit_relevance(
    module: nn.Module,
    x: ArrayLike,
    composite: str,
    *,
    dtype: DTypeLike = np.float64,
    target: ArrayLike | None = None,
    initial: ArrayLike | None = None,
    low: ArrayLike = -1.0,
    high: ArrayLike = 1.0,
    prepare: Callable[[nn.Module, torch.dtype], nn.Module] | None = None,
) -> Array:
    """Relevance of the input according to zennit.

    Parameters
    ----------
    module : torch.nn.Module
        Network in evaluation mode. It is copied, the copy canonized.
    x : array, (n, …)
    composite : str
        One of `COMPOSITE_NAMES`.
    dtype : numpy dtype
        float32 or float64: precision of the weights and of all that is computed.
    target : int or array of int, (n,)
        Output whose value is its initial relevance; each sample's largest one by default.
    initial : array, (n, classes)
        Initial relevance instead of that.
    low, high : float or array
        Range of `x`, broadcast to its shape; read by `epsilon_gamma_box` only.
    prepare : callable, optional
        Makes the copy of the network that zennit is given, every step of which has a rule or needs none, as
        `traced.traced` does. Default: a copy of the module as it is, with canonizers.

    Returns
    -------
    array of `dtype`, (n, …)

    Raises
    ------
    ValueError
        zennit would use the plain gradient somewhere in this network.
    """
    kind = getattr(torch, np.dtype(dtype).name)
    inputs = torch.tensor(np.asarray(x), dtype=kind)
    box: dict[str, Any] = {}
    if composite == "epsilon_gamma_box":
        bounds = {"low": low, "high": high}
        box = {name: torch.tensor(np.asarray(v), dtype=kind).expand_as(inputs) for name, v in bounds.items()}
    network = prepared_copy(module, kind) if prepare is None else prepare(module, kind)
    with torch.no_grad():
        expected = network(inputs)
    passed = [(PASSED, Pass())]
    rules = COMPOSITES[composite](
        canonizers=canonizers(network) if prepare is None else [], layer_map=passed, **box
    )
    if prepare is None:
        with rules.context(network):
            refuse_silent_gradients(network)

    def start(output: Tensor) -> Tensor:
        if initial is not None:
            return torch.tensor(np.asarray(initial), dtype=kind)
        chosen = output.argmax(1) if target is None else torch.tensor(np.asarray(target)).expand(len(output))
        return output.detach() * nn.functional.one_hot(chosen, output.shape[1])

    output, relevance = Gradient(network, rules)(inputs, start)
    rounding = torch.finfo(kind).eps ** 0.5 * float(expected.abs().max())
    torch.testing.assert_close(output, expected, rtol=0, atol=rounding, msg="canonizing changed the network")
    result: Array = relevance.numpy()
    # Hooks and modules refer to one another: without this the copies of all weights stay for many tests more.
    del network, rules, output, relevance
    gc.collect()
    return result


def prepared_copy(module: nn.Module, kind: torch.dtype) -> nn.Module:
    """A copy of `module` that zennit can be trusted with.

    zennit 0.5.1 folds batch normalization and leaves an identity behind that still divides by
    √(1 + ε), which takes 5e-6 off the relevance at each layer. So ε goes into the variances first.
    Activations no longer work in place, so that no array changes after it was read.
    """
    result = copy.deepcopy(module).to(kind).eval().requires_grad_(False)
    layer: Any
    for layer in result.modules():
        if isinstance(layer, BatchNorm):
            layer.running_var += layer.eps
            layer.eps = 0.0
        elif hasattr(layer, "inplace"):
            layer.inplace = False
    return result


# --- canonizers: steps that networks compute in Python, as modules that zennit has rules for ---


def _mobilenet_block(self: Any, x: Tensor) -> Any:
    """torchvision's `InvertedResidual.forward`."""
    y = self.conv(x)
    return self.residual_sum(torch.stack([x, y], dim=-1)) if self.use_res_connect else y


def _mobilenet(self: Any, x: Tensor) -> Any:
    """torchvision's `MobileNetV2._forward_impl`."""
    return self.classifier(torch.flatten(self.global_pool(self.features(x)), 1))


def _efficientnet_block(self: Any, x: Tensor, drop_connect_rate: float | None = None) -> Any:
    """efficientnet_lite_pytorch's `MBConvBlock.forward`, without training and squeeze-and-excitation."""
    arguments = self._block_args
    y = x
    if arguments.expand_ratio != 1:
        y = self._swish(self._bn0(self._expand_conv(y)))
    y = self._swish(self._bn1(self._depthwise_conv(y)))
    y = self._bn2(self._project_conv(y))
    residual = self.id_skip and arguments.stride == 1 and arguments.input_filters == arguments.output_filters
    return self.residual_sum(torch.stack([x, y], dim=-1)) if residual else y


def _replacements(_: str, module: nn.Module) -> dict[str, Any] | None:
    """The attributes that a module is to have instead of its own."""
    kind = type(module).__name__
    if kind == "InvertedResidual":
        return {"forward": _mobilenet_block.__get__(module), "residual_sum": Sum()}
    if kind == "MobileNetV2":
        return {"_forward_impl": _mobilenet.__get__(module), "global_pool": nn.AdaptiveAvgPool2d(1)}
    if kind == "MBConvBlock":
        return {"forward": _efficientnet_block.__get__(module), "residual_sum": Sum()}
    return None


def canonizers(network: nn.Module) -> list[Canonizer]:
    """zennit's own canonizer for ResNets and VGGs, and ours for MobileNetV2 and EfficientNet-Lite.

    In EfficientNet-Lite a padding module stands where zennit looks for the convolution in front of
    a batch normalization, hence its list of names.
    """
    pairs = (("_conv_stem", "_bn0"), ("_conv_head", "_bn1"))
    block_pairs = (("_expand_conv", "_bn0"), ("_depthwise_conv", "_bn1"), ("_project_conv", "_bn2"))
    names: list[tuple[list[str], str]] = []
    for prefix, block in network.named_modules():
        kind = type(block).__name__
        here = {"EfficientNet": pairs, "MBConvBlock": block_pairs}.get(kind, ())
        dot = f"{prefix}." if prefix else ""
        names += [([dot + linear], dot + norm) for linear, norm in here if hasattr(block, linear)]
    return [ResNetCanonizer(), AttributeCanonizer(_replacements), NamedMergeBatchNorm(names)]


# --- no silent gradients ---

MOVEMENT = (nn.MaxPool2d, nn.Flatten, nn.Dropout, nn.Identity, nn.ZeroPad2d)
"""Modules that need no rule: their gradient routes relevance as it should."""

MOVEMENT_FUNCTIONS = {"flatten", "stack", "view", "size"}
"""The same, of functions and methods that are called outside of modules."""


class _Tracer(torch.fx.Tracer):
    """Records what a network calls, down to the modules that can have a rule."""

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return not any(m.children()) or isinstance(m, Linear)


def refuse_silent_gradients(network: nn.Module) -> None:
    """Raise unless each step of a network, with a composite registered, has a rule or needs none."""
    offenders = []
    for node in _Tracer().trace(network).nodes:
        if node.op == "call_module":
            layer = network.get_submodule(str(node.target))
            ruled = layer._forward_hooks and not (isinstance(layer, BatchNorm) and not _is_identity(layer))
            if not ruled and not isinstance(layer, MOVEMENT):
                offenders.append(f"{node.target} ({type(layer).__name__})")
        elif node.op in ("call_function", "call_method"):
            name = node.target if isinstance(node.target, str) else getattr(node.target, "__name__", "?")
            if name not in MOVEMENT_FUNCTIONS:
                offenders.append(f"{node.name} ({name})")
    if offenders:
        raise ValueError(f"zennit would take the plain gradient of {', '.join(offenders)}")


def _is_identity(norm: Any) -> bool:
    """Whether a batch normalization was folded away."""
    values = ((norm.weight, 1), (norm.bias, 0), (norm.running_mean, 0), (norm.running_var, 1))
    return norm.eps == 0 and all(bool((p == value).all()) for p, value in values)
