"""ONNX files: sources, external data, and damage."""

from __future__ import annotations

import os
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto
from onnx_models import evaluate, model_of, node
from small_networks import SMALL_NETWORKS, onnxruntime_forward

from lrpfast.errors import ModelError
from lrpfast.onnx_io import load_graph
from lrpfast.ops import Gemm


def big_model(seed: int = 0) -> onnx.ModelProto:
    rng = np.random.default_rng(seed)
    constants = {name: rng.standard_normal((96, 96)).astype(np.float32) for name in ("w", "v")}
    constants["w"] = constants["w"].astype(np.float64)
    nodes = [node("Cast", "w", "w32", to=1), node("MatMul", "x w32", "a"), node("Gemm", "a v", transB=1)]
    return model_of(nodes, ("n", 96), constants)


def test_sources_agree(tmp_path: Path) -> None:
    model = big_model()
    data = model.SerializeToString()
    path = tmp_path / "modél.onnx"
    path.write_bytes(data)
    x = np.random.default_rng(1).standard_normal((2, 96)).astype(np.float32)
    expected = evaluate(load_graph(model), x)
    np.testing.assert_allclose(expected, onnxruntime_forward(model, x), rtol=1e-3, atol=1e-3)
    for source in (path, str(path), os.fsencode(path), data, bytearray(data), memoryview(data)):
        if isinstance(source, bytes) and source != data:
            continue  # bytes are a model, never a path
        np.testing.assert_array_equal(evaluate(load_graph(source), x), expected)


def test_weights_are_read_once(tmp_path: Path) -> None:
    """Loading allocates little more than the weights, and shares those that are used twice."""
    w = np.random.default_rng(0).standard_normal((1000, 1000)).astype(np.float32)
    model = model_of(
        [node("Gemm", "x w", "a", transB=1), node("Gemm", "a w", transB=1)], ("n", 1000), {"w": w}
    )
    path = tmp_path / "model.onnx"
    onnx.save(model, path)
    load_graph(path)  # imports what it needs
    tracemalloc.start()
    try:
        first, second = (n.op for n in load_graph(path).nodes)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert isinstance(first, Gemm)
    assert isinstance(second, Gemm)
    assert first.weight is second.weight
    assert not first.weight.flags.writeable
    np.testing.assert_array_equal(first.weight, w)
    assert peak < 1.2 * w.nbytes


def test_external_data(tmp_path: Path) -> None:
    model = big_model()
    x = np.random.default_rng(1).standard_normal((2, 96)).astype(np.float32)
    expected = evaluate(load_graph(model), x)
    path = tmp_path / "model.onnx"
    onnx.save(model, path, save_as_external_data=True, location="weights.bin", size_threshold=0)
    np.testing.assert_array_equal(evaluate(load_graph(path), x), expected)
    with pytest.raises(ModelError, match="have no folder"):
        load_graph(path.read_bytes())
    np.testing.assert_array_equal(evaluate(load_graph(onnx.load(path)), x), expected)

    weights = tmp_path / "weights.bin"
    weights.write_bytes(weights.read_bytes()[:-8])
    with pytest.raises(ModelError, match="truncated"):
        load_graph(path)
    weights.unlink()
    with pytest.raises(ModelError, match=r"weights\.bin.*not there"):
        load_graph(path)


def external(tmp_path: Path, **entries: Any) -> Path:
    """A model whose weight of four float32 is said to lie elsewhere."""
    folder = tmp_path / "folder"
    folder.mkdir(exist_ok=True)
    model = model_of([node("MatMul", "x w")], ("n", 2))
    w = TensorProto(name="w", data_type=1, dims=[2, 2], data_location=TensorProto.EXTERNAL)
    for key, value in entries.items():
        w.external_data.add(key=key, value=str(value))
    model.graph.initializer.append(w)
    (folder / "model.onnx").write_bytes(model.SerializeToString())
    return folder / "model.onnx"


def test_external_data_stay_in_the_folder(tmp_path: Path) -> None:
    (tmp_path / "secret").write_bytes(bytes(16))
    path = external(tmp_path, location="data/w")
    (path.parent / "data").mkdir()
    (path.parent / "data" / "w").write_bytes(bytes(16))
    assert load_graph(path).output_shape == (2,)
    (path.parent / "link").symlink_to(tmp_path / "secret")
    (path.parent / "up").symlink_to(tmp_path)
    locations = (
        "../secret",
        str(tmp_path / "secret"),
        "data/../../secret",
        "link",
        "up/secret",
        "",
        "..\\secret",
    )
    for location in locations:
        with pytest.raises(ModelError, match="outside the model's folder"):
            load_graph(external(tmp_path, location=location))
    (path.parent / "inside").symlink_to(path.parent / "data" / "w")
    assert load_graph(external(tmp_path, location="inside")).output_shape == (2,)


@pytest.mark.parametrize(
    ("entries", "says"),
    [
        ({"offset": 4}, "bytes|shape"),
        ({"offset": 0, "length": 20}, "lies at bytes 0 to 20 of a file of 16"),
        ({"offset": 0, "length": 12}, r"shape \(2, 2\) and type float32 has 12 bytes"),
        ({"offset": -4}, "lies at bytes -4"),
        ({"offset": "x"}, "no number"),
        ({"offset": 99}, "lies at"),
    ],
)
def test_external_data_of_the_wrong_size(tmp_path: Path, entries: dict[str, Any], says: str) -> None:
    path = external(tmp_path, location="w", **entries)
    (path.parent / "w").write_bytes(bytes(16))
    with pytest.raises(ModelError, match=says):
        load_graph(path)


def test_external_strings_are_no_weights(tmp_path: Path) -> None:
    path = external(tmp_path, location="w")
    (path.parent / "w").write_bytes(bytes(16))
    model = onnx.load(path, load_external_data=False)
    for data_type in (TensorProto.STRING, 99):
        model.graph.initializer[0].data_type = data_type
        path.write_bytes(model.SerializeToString())
        with pytest.raises(ModelError, match=r"damaged|unknown data type|dtype"):
            load_graph(path)


def test_truncated_file(tmp_path: Path) -> None:
    """Wherever a model is cut, that is noticed."""
    path = tmp_path / "cut.onnx"
    data = big_model().SerializeToString()
    for size in (1, 2, 10, 100, len(data) // 2, len(data) - 1):
        for source in (data[:size], path):
            path.write_bytes(data[:size])
            with pytest.raises(ModelError, match=r"truncated|damaged|not an ONNX model"):
                load_graph(source)
    with pytest.raises(ModelError, match=rf"cut.onnx'.*truncated.*{len(data) - 1} bytes"):
        load_graph(path)


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"", "is empty"),
        (b"hello, this is no model", "not an ONNX model"),
        (bytes(range(256)), "not an ONNX model"),
        (b"\xff" * 64, "not an ONNX model"),
        (b"version https://git-lfs.github.com/spec/v1\noid", "git lfs pull"),
        (b"PK\x03\x04....", r"torch\.onnx\.export"),
        (b"\x89PNG\r\n", "PNG image"),
        (onnx.GraphProto(name="only a graph").SerializeToString(), "not an ONNX model"),
    ],
)
def test_not_a_model(tmp_path: Path, data: bytes, says: str) -> None:
    path = tmp_path / "photo.onnx"
    path.write_bytes(data)
    with pytest.raises(ModelError, match=f"photo.onnx'.*{says}"):
        load_graph(path)
    with pytest.raises(ModelError, match=says):
        load_graph(data)


def test_no_file(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"no such model file.*nowhere\.onnx"):
        load_graph(tmp_path / "nowhere.onnx")
    with pytest.raises(ModelError, match="is not a file"):
        load_graph(tmp_path)
    with pytest.raises(ModelError, match="cannot be read from int; give a path"):
        load_graph(3)


def test_damaged_models_raise_model_errors_only() -> None:
    """Whatever single bytes are changed to, the reader raises its own errors or reads a model."""
    rng = np.random.default_rng(0)
    data = np.frombuffer(SMALL_NETWORKS["small_cnn"]().SerializeToString(), np.uint8)
    structure = np.flatnonzero(np.arange(len(data)) < 600).tolist() + list(range(len(data) - 300, len(data)))
    for place in rng.choice(structure, 250, replace=False):
        damaged = data.copy()
        damaged[place] = rng.integers(256)
        try:
            graph = load_graph(damaged.tobytes())
        except ModelError:
            continue
        assert graph.nodes
