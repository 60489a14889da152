"""Weights that canonisation replaces go back to their file, and are read again only if it still holds them."""

from __future__ import annotations

import gc
import subprocess
import sys
import threading
import weakref
from concurrent.futures import Future, ThreadPoolExecutor, wait
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import onnx
import pytest
from onnx_models import model_of, node

import lrpfast
from lrpfast import ModelError, Network
from lrpfast.graph import Graph
from lrpfast.original import WORTH, digest

CHANNELS = 192


def normalized(seed: int = 0, channels: int = CHANNELS) -> onnx.ModelProto:
    """A convolution of more than `WORTH` bytes, and the normalisation that is folded into it."""
    rng = np.random.default_rng(seed)
    weights = {"w": rng.standard_normal((channels, channels, 3, 3)) / channels}
    weights |= {name: rng.uniform(0.5, 2, channels) for name in ("gamma", "beta", "mean", "var")}
    nodes = [
        node("Conv", "x w", "a", pads=[1, 1, 1, 1]),
        node("BatchNormalization", "a gamma beta mean var", "b"),
        node("Relu", "b", "c"),
        node("GlobalAveragePool", "c", "d"),
        node("Flatten", "d", "y"),
    ]
    constants = {name: array.astype(np.float32) for name, array in weights.items()}
    return model_of(nodes, ("n", channels, 4, 4), constants)


def some_input(n: int = 2) -> np.ndarray:
    return np.random.default_rng(1).standard_normal((n, CHANNELS, 4, 4)).astype(np.float32)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    file = tmp_path / "model.onnx"
    onnx.save(normalized(), file)
    assert file.stat().st_size > WORTH
    return file


def released(path: Path) -> tuple[Network, weakref.ref[Graph]]:
    """A network that has been canonised, and its graph as it was loaded."""
    network = lrpfast.load(path)
    before = weakref.ref(network.graph)
    network.canonized()
    assert network.hash  # from here on nothing happens on the side
    gc.collect()
    return network, before


def test_folded_weights_are_not_held(path: Path) -> None:
    network, before = released(path)
    assert before() is None
    assert (network.input_shape, network.output_shape) == ((CHANNELS, 4, 4), (CHANNELS,))
    assert "5 nodes" in repr(network)


def test_nothing_waits_for_cycles_to_be_collected(path: Path) -> None:
    gc.collect()
    gc.disable()
    try:
        network = lrpfast.load(path)
        weight = weakref.ref(network.graph.nodes[0].op.weight)
        network.canonized()
        assert network.hash
        assert weight() is None
    finally:
        gc.enable()


def test_what_is_read_again_is_the_same(path: Path) -> None:
    network, before = released(path)
    kept = lrpfast.load(path.read_bytes())
    assert network.hash == kept.hash == digest(network.graph)
    graph = network.graph
    assert network.graph is graph  # as long as somebody holds it
    x = some_input()
    for dtype in ("float32", "float64"):
        one, other = (lrpfast.explain(net, x, dtype=dtype).relevance for net in (network, kept))
        np.testing.assert_array_equal(one, other)
    assert network.canonization_error(x) == kept.canonization_error(x)
    assert before() is None


def test_the_path_is_that_of_loading(path: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    network, _ = released(Path(path.name))
    monkeypatch.chdir("/")
    assert len(network.graph.nodes) == 5


def test_threads_read_it_once(path: Path) -> None:
    network, _ = released(path)
    with ThreadPoolExecutor(8) as pool:
        graphs = list(pool.map(lambda _: network.graph, range(16)))
    assert all(graph is graphs[0] for graph in graphs)


def test_the_hash_may_be_asked_for_while_it_begins_to_be_computed(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A thread that is about to start cannot be joined yet."""
    network = lrpfast.load(path)
    expected = digest(network.graph)
    with ThreadPoolExecutor(1) as pool:

        class Slow(threading.Thread):
            def start(self) -> None:
                asked.append(pool.submit(lambda: network.hash))
                wait(asked, timeout=0.1)
                super().start()

        asked: list[Future[str]] = []
        monkeypatch.setattr("lrpfast.original.threading", SimpleNamespace(Thread=Slow))
        network.original.hash_aside()
        assert asked[0].result() == network.hash == expected


def test_a_file_that_has_changed_is_refused(path: Path) -> None:
    network, _ = released(path)
    x = some_input()
    expected = network.predict(x)
    size = path.stat().st_size
    onnx.save(normalized(seed=1), path)
    assert path.stat().st_size == size
    with pytest.raises(ModelError, match=r"holds another network by now .*; keep the file as it is while"):
        _ = network.graph
    with pytest.raises(ModelError, match="holds another network"):
        lrpfast.Explainer(network, dtype="float64")
    np.testing.assert_array_equal(network.predict(x), expected)  # which needs nothing from the file
    onnx.save(normalized(), path)
    assert len(network.graph.nodes) == 5


@pytest.mark.parametrize("damage", [Path.unlink, lambda path: path.write_bytes(path.read_bytes()[:-9])])
def test_a_file_that_is_gone_or_damaged_is_refused(path: Path, damage: object) -> None:
    network, _ = released(path)
    damage(path)  # type: ignore[operator]
    with pytest.raises(
        ModelError, match=r"read from the model's file again, which fails: .*load the network again"
    ):
        network.canonized("float64")
    assert len(network.predict(some_input())) == 2


def test_a_network_that_gains_nothing_keeps_its_weights(tmp_path: Path) -> None:
    """Small ones, ones of whose weights nothing is folded, and ones that have no file."""
    small, dense = tmp_path / "small.onnx", tmp_path / "dense.onnx"
    onnx.save(normalized(channels=8), small)
    w = np.ones((600, 600), np.float32)
    onnx.save(model_of([node("Gemm", "x w")], ("n", 600), {"w": w}), dense)
    networks = [lrpfast.load(small), lrpfast.load(dense), lrpfast.load(normalized())]
    graphs = [network.graph for network in networks]
    for file in (small, dense):
        file.unlink()
    for network, graph in zip(networks, graphs, strict=True):
        network.canonized()
        assert network.hash
        network.canonized("float64")
        assert network.graph is graph


PEAK = """
import sys
import lrpfast, lrpfast.api, lrpfast.onnx_io, onnx, hashlib

def peak():  # unlike ru_maxrss, this is of the program alone and not of what it was before
    (line,) = (line for line in open("/proc/self/status") if line.startswith("VmHWM"))
    return int(line.split()[1]) * 1024

before = peak()
network = lrpfast.load(sys.argv[1])
print(peak() - before)
network.canonized()
network.hash
print(peak() - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_loading_takes_little_more_memory_than_the_file(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    onnx.save(normalized(channels=1024), path)
    result = subprocess.run([sys.executable, "-c", PEAK, path], capture_output=True, text=True, check=True)
    loaded, canonized = (int(line) / path.stat().st_size for line in result.stdout.split())
    assert loaded < 1.5
    assert canonized < 2.7  # the weights as they were, and folded; nothing in float64
