"""The network that ships with the package is small, right, and as its README says."""

from __future__ import annotations

import hashlib
import json

import numpy as np
import onnx
import pytest
from small_networks import onnxruntime_forward

from lrpfast import demo


@pytest.fixture(scope="module")
def model() -> onnx.ModelProto:
    return onnx.load(demo.MODEL)


def test_files_are_small_and_are_the_ones_described() -> None:
    readme = (demo.MODEL.parent / "README.md").read_text()
    for path, limit in ((demo.MODEL, 300_000), (demo.SAMPLES, 20_000)):
        content = path.read_bytes()
        assert len(content) < limit
        assert f"{len(content):,} bytes" in readme
        assert hashlib.sha256(content).hexdigest() in readme


def test_model_states_its_labels_and_takes_any_batch(model: onnx.ModelProto) -> None:
    onnx.checker.check_model(model, full_check=True)
    properties = {p.key: p.value for p in model.metadata_props}
    assert tuple(json.loads(properties["labels"])) == demo.LABELS
    assert len(set(demo.LABELS)) == 10
    batch, *sample = model.graph.input[0].type.tensor_type.shape.dim
    assert batch.dim_param == "n"
    assert [d.dim_value for d in sample] == [1, 28, 28]
    assert model.opset_import[0].version == 13
    assert not any(t.external_data for t in model.graph.initializer)


def test_model_leaves_something_to_canonize(model: onnx.ModelProto) -> None:
    operators = [node.op_type for node in model.graph.node]
    assert operators.count("BatchNormalization") == operators.count("Conv") == 5
    assert operators[-1] == "Softmax"


def test_samples_get_the_recorded_probabilities() -> None:
    images, labels = demo.samples()
    with np.load(demo.SAMPLES) as data:
        recorded = data["probabilities"]
    probabilities = onnxruntime_forward(str(demo.MODEL), demo.prepare(images))
    np.testing.assert_allclose(probabilities, recorded, atol=1e-5)
    np.testing.assert_allclose(probabilities.sum(1), 1, atol=1e-5)
    right = probabilities.argmax(1) == labels
    assert right[:-1].all()
    assert not right[-1]
    assert len(set(labels[:-1])) == len(labels) - 1


def test_prepare_gives_what_the_network_reads() -> None:
    images, labels = demo.samples()
    assert images.shape == (8, 28, 28)
    assert images.dtype == np.uint8
    assert labels.shape == (8,)
    x = demo.prepare(images)
    assert x.shape == (8, 1, 28, 28)
    assert x.dtype == np.float32
    np.testing.assert_array_equal(np.rint(x[:, 0] * 255), images)
    assert x.min() == 0
    assert x.max() == 1
