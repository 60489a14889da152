"""The networks that other tests explain are what they are said to be."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx
import pytest
from networks import HIGH, LOW, NETWORKS, class_names, efficientnet_lite0, network, photograph
from small_networks import SMALL_NETWORKS, onnxruntime_forward, random_input


@pytest.mark.parametrize("make", SMALL_NETWORKS.values(), ids=SMALL_NETWORKS.keys())
def test_small_network_tells_samples_apart(make: Callable[[], onnx.ModelProto]) -> None:
    model = make()
    assert model == make()
    x = random_input(model, samples=3)
    y = onnxruntime_forward(model, x)
    assert np.isfinite(y).all()
    assert np.ptp(y, axis=0).min() > 1e-6
    np.testing.assert_allclose(onnxruntime_forward(model, x[1:2]), y[1:2], atol=1e-6)


def test_photographs_fill_their_range() -> None:
    for name, brightest in (("chelsea", 0.7), ("coffee", HIGH), ("camera", HIGH)):
        x = photograph(name)
        assert x.shape == (1, 3, 224, 224)
        assert x.dtype == np.float32
        assert LOW <= x.min() < -0.9
        assert brightest <= x.max() <= HIGH


# No test explains a VGG-16: it is for benchmarks, which compare its predictions with onnxruntime's.
@pytest.mark.networks
@pytest.mark.parametrize("name", [name for name in NETWORKS if not name.startswith("vgg16")])
def test_file_and_module_are_the_same_network(name: str) -> None:
    import torch

    net = network(name)
    x = net.pictures(3)
    with torch.no_grad():
        expected = net.module(torch.from_numpy(x)).numpy()
    assert 0.5 < expected.std() < 10
    assert np.ptp(expected, axis=0).max() > 0.3
    difference = np.abs(onnxruntime_forward(str(net.path), x) - expected).max()
    assert difference < 1e-4 * np.abs(expected).max()

    model = onnx.load(net.path)
    norms = [node for node in model.graph.node if node.op_type == "BatchNormalization"]
    assert len(norms) == sum(isinstance(m, torch.nn.BatchNorm2d) for m in net.module.modules())
    assert model.graph.input[0].type.tensor_type.shape.dim[0].dim_param == "n"
    assert 13 <= model.opset_import[0].version <= 17


@pytest.mark.networks
@pytest.mark.parametrize(
    ("picture", "expected"),
    [
        ("chelsea", {"tiger cat": 0.39, "Egyptian cat": 0.36, "tabby, tabby cat": 0.17}),
        ("coffee", {"espresso": 0.95}),
        ("camera", {"tripod": 0.94}),
    ],
)
def test_efficientnet_sees_what_is_there(picture: str, expected: dict[str, float]) -> None:
    logits = onnxruntime_forward(str(efficientnet_lite0().path), photograph(picture))[0].astype(float)
    probabilities = np.exp(logits - logits.max())
    probabilities /= probabilities.sum()
    best = probabilities.argsort()[::-1][: len(expected)]
    seen = {class_names()[k]: probabilities[k] for k in best}
    assert list(seen) == list(expected)
    assert seen == pytest.approx(expected, abs=0.01)
