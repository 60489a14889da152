"""Whole networks at batch 1: inference by onnxruntime, ours, and explanations, on one thread and on two.

Benchmarks of one network and number of threads share a table, so that its multiples can be read across.
"""

from __future__ import annotations

import numpy as np
import pytest
from pytest_benchmark.fixture import BenchmarkFixture
from subjects import onnxruntime_predict, subject

from lrpfast.benchmark import prediction_error

TORCHVISION = ("resnet18", "resnet50", "mobilenet_v2", "vgg16_bn")
COMPOSITES = ("epsilon_plus", "epsilon_plus_flat", "epsilon_alpha2_beta1", "epsilon_gamma_box")

on_networks = pytest.mark.parametrize(
    "name", ["demo", *(pytest.param(name, marks=pytest.mark.networks) for name in TORCHVISION)]
)
on_threads = pytest.mark.parametrize("threads", [1, 2])


@on_networks
@on_threads
def test_onnxruntime(benchmark: BenchmarkFixture, name: str, threads: int) -> None:
    net = subject(name)
    benchmark.group = f"{name}, threads={threads}"
    x = net.pictures(1)
    output = benchmark(onnxruntime_predict(net.path, threads), x)
    assert prediction_error(output, net.network.predict(x)) <= 1e-4


@on_networks
@on_threads
def test_predict(benchmark: BenchmarkFixture, name: str, threads: int) -> None:
    net = subject(name)
    benchmark.group = f"{name}, threads={threads}"
    x = net.pictures(1)
    net.network.predict(x)  # makes the plan
    output = benchmark(net.network.predict, x, threads=threads)
    assert prediction_error(output, onnxruntime_predict(net.path, threads)(x)) <= 1e-4


@on_networks
@on_threads
@pytest.mark.parametrize("composite", COMPOSITES)
def test_explain(benchmark: BenchmarkFixture, name: str, threads: int, composite: str) -> None:
    net = subject(name)
    benchmark.group = f"{name}, threads={threads}"
    x, explainer = net.pictures(1), net.explainer(composite, threads)
    explanation = benchmark(explainer, x)
    top = int(onnxruntime_predict(net.path, threads)(x).argmax())
    assert explanation.target.tolist() == [top]
    assert explanation.conservation[0].r_in == pytest.approx(explanation.output[0, top])
    assert explanation.conservation[-1].r_out == pytest.approx(explanation.relevance.sum(dtype=np.float64))
    assert explanation.conservation.worst < 1e-5
