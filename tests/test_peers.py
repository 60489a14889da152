"""The zennit oracle itself: golden vectors, conservation, and no silent gradients."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from networks import network, photograph
from peers import COMPOSITE_NAMES, prepared_copy, zennit_relevance
from torch import Tensor, nn

pytestmark = pytest.mark.networks

W = [[1.0, -1.0, 0.5], [-0.5, 2.0, -1.5]]
B = [-1.0, 0.5]
X = np.array([[1.0, 1.0, -2.0]])


def with_golden_weights(layer: nn.Linear | nn.Conv2d) -> nn.Module:
    """`layer` with the weights W and biases B."""
    layer.weight.data = torch.tensor(W).reshape(layer.weight.shape)
    layer.bias = nn.Parameter(torch.tensor(B))
    return layer


def test_epsilon_on_a_dense_layer() -> None:
    layer = nn.Sequential(with_golden_weights(nn.Linear(3, 2)))
    r = zennit_relevance(layer, X, "epsilon_plus", initial=[[1.0, 1.0]])
    np.testing.assert_allclose(r, [[-0.59999973, 0.89999967, 1.09999963]], atol=1e-8)


@pytest.mark.parametrize(
    ("composite", "expected"),
    [
        ("epsilon_plus", [0.999999, 0.36363630, 0.54545445]),
        ("epsilon_alpha2_beta1", [1, 0.39393937, 0.75757568]),
        ("epsilon_plus_flat", [0.66666644] * 3),
        ("epsilon_alpha2_beta1_flat", [0.66666644] * 3),
        ("epsilon_gamma_box", [0.67599058, 0.79254072, 0.53146849]),
    ],
)
def test_rules_on_a_convolution(composite: str, expected: list[float]) -> None:
    net = nn.Sequential(with_golden_weights(nn.Conv2d(3, 2, 1)), nn.Flatten())
    r = zennit_relevance(net, X[..., None, None], composite, initial=[[1.0, 1.0]], low=-3, high=3)
    np.testing.assert_allclose(r.ravel(), expected, atol=1e-8)


def test_target_chooses_the_logit_that_is_explained() -> None:
    layer = nn.Sequential(with_golden_weights(nn.Linear(3, 2)))
    largest = zennit_relevance(layer, X, "epsilon_plus")
    np.testing.assert_array_equal(largest, zennit_relevance(layer, X, "epsilon_plus", target=1))
    np.testing.assert_array_equal(largest, zennit_relevance(layer, X, "epsilon_plus", initial=[[0, 5.0]]))
    other = zennit_relevance(layer, X, "epsilon_plus", target=[0])
    np.testing.assert_allclose(other, [[1, -1, -1]], rtol=1e-5)


# In depthwise networks only one composite: a depthwise kernel whose weights are all of one sign leaves
# a denominator of the others' rules empty, and a share of the relevance with nowhere to go.
@pytest.mark.parametrize(
    ("name", "composite"),
    [
        *(("resnet18", composite) for composite in COMPOSITE_NAMES),
        ("mobilenet_v2", "epsilon_gamma_box"),
        ("efficientnet_lite0", "epsilon_gamma_box"),
    ],
)
def test_conserves_the_logit_without_biases(name: str, composite: str) -> None:
    net = prepared_copy(network(name).module, torch.float64)
    for layer in net.modules():
        if isinstance(layer, nn.BatchNorm2d) and layer.running_mean is not None:
            layer.running_mean.zero_()
        if isinstance(layer, nn.BatchNorm2d | nn.Linear):
            layer.bias.zero_()
    x = photograph("coffee")[..., ::2, ::2]
    with torch.no_grad():
        logit = net(torch.from_numpy(x).double()).max()
    assert zennit_relevance(net, x, composite).sum() == pytest.approx(float(logit), rel=1e-3)


def test_batch_normalization_takes_no_relevance() -> None:
    net = nn.Sequential(nn.Conv2d(1, 1, 1, bias=False), nn.BatchNorm2d(1, eps=0.5), nn.Flatten())
    nn.init.constant_(net.get_parameter("0.weight"), 2.0)
    r = zennit_relevance(net.eval(), [[[[3.0]]]], "epsilon_plus", initial=[[1.0]])
    np.testing.assert_allclose(r, [[[[1.0]]]], rtol=1e-6)


class Residual(nn.Module):
    """`x + f(x)`, written in Python."""

    def __init__(self) -> None:
        super().__init__()
        self.f = nn.Linear(3, 3)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.f(x)
        return x + y


@pytest.mark.parametrize(
    ("net", "message"),
    [
        (nn.Sequential(Residual(), nn.ReLU()), "add"),
        (nn.Sequential(nn.Linear(3, 3), nn.LayerNorm(3)), r"1 \(LayerNorm\)"),
        (nn.Sequential(nn.BatchNorm1d(3), nn.Linear(3, 2)), r"0 \(BatchNorm1d\)"),
    ],
)
def test_refuses_what_zennit_would_take_the_gradient_of(net: nn.Module, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        zennit_relevance(net.eval(), X, "epsilon_plus")
