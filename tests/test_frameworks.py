"""Networks out of torch, Keras and scikit-learn: they predict the same, and what they came from is untouched."""

from __future__ import annotations

import importlib
import os
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import lrpfast
from lrpfast import (
    Explanation,
    InputError,
    MissingPackageError,
    ModelError,
    Network,
    UnsupportedOperatorError,
    frameworks,
)

os.environ.setdefault("KERAS_BACKEND", "torch")
RNG = np.random.default_rng(6)


def rng_array(*shape: int) -> Any:
    return RNG.standard_normal(shape).astype(np.float32)


def closed(network: Network, x: Any, expected: Any) -> Explanation:
    """The explanation, after the prediction and the ledger were checked."""
    expected = np.asarray(expected)
    np.testing.assert_allclose(network.predict(x), expected, rtol=0, atol=1e-5 * np.abs(expected).max())
    explanation = lrpfast.explain(network, x, composite="epsilon_plus", on_blowup="ignore")
    assert explanation.conservation.worst < 1e-4
    return explanation


# --- torch ---


@pytest.fixture(scope="module")
def torch() -> Any:
    return importlib.import_module("torch")


def convolutional(torch: Any) -> Any:
    """With a layer that is used twice, and in training mode but for a part."""
    nn = torch.nn

    class Convolutional(nn.Module):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            super().__init__()
            self.first = nn.Sequential(nn.Conv2d(3, 6, 3, padding=1), nn.BatchNorm2d(6), nn.ReLU())
            self.twice = nn.Conv2d(6, 6, 3, padding=1)
            self.last = nn.Sequential(nn.Dropout(0.9), nn.Linear(6 * 16, 4))

        def forward(self, image: Any) -> Any:
            h = self.first(image)
            h = torch.relu(self.twice(torch.relu(self.twice(h))))
            return self.last(torch.nn.functional.max_pool2d(h, 2).flatten(1))

    torch.manual_seed(0)
    module = Convolutional().train()
    module.first[1].eval()
    module.first[1].running_mean.uniform_(-1, 1)
    return module


def two_inputs(torch: Any) -> Any:
    class Two(torch.nn.Module):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = torch.nn.Linear(6, 5), torch.nn.Linear(4, 5)

        def forward(self, left: Any, right: Any) -> dict[str, Any]:
            hidden = torch.relu(self.a(left))
            return {"logits": hidden + self.b(right), "hidden": hidden, "nothing": None}

    return Two().eval()


def states(module: Any) -> list[tuple[bool, list[Any]]]:
    return [(part.training, [p.clone() for p in part.parameters()]) for part in module.modules()]


@pytest.mark.networks
def test_a_torch_module(torch: Any, capfd: pytest.CaptureFixture[str]) -> None:
    module = convolutional(torch)
    before, files = states(module), set(Path(tempfile.gettempdir()).glob("lrpfast-*"))
    network = lrpfast.from_torch(module, torch.zeros(1, 3, 8, 8))
    assert capfd.readouterr() == ("", "")
    assert set(Path(tempfile.gettempdir()).glob("lrpfast-*")) == files
    after = states(module)
    assert [training for training, _ in before] == [training for training, _ in after]
    for (_, old), (_, new) in zip(before, after, strict=True):
        assert all(torch.equal(a, b) for a, b in zip(old, new, strict=True))
    assert all(p.requires_grad for p in module.parameters())

    assert list(network.inputs) == ["image"] and network.name == "Convolutional"
    x = rng_array(5, 3, 8, 8)
    with torch.no_grad():
        expected = module.eval()(torch.from_numpy(x)).numpy()
    explanation = closed(network, x, expected)
    assert {"twice/Conv", "twice/Conv_2", "last.1/Gemm"} <= set(explanation.manifest["rules"])
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.zero_()  # the network has weights of its own
    np.testing.assert_allclose(network.predict(x), expected, atol=1e-5)


@pytest.mark.networks
def test_several_inputs_and_outputs_of_a_module(torch: Any) -> None:
    module = two_inputs(torch)
    x = {"left": rng_array(3, 6), "right": rng_array(3, 4)}
    with torch.no_grad():
        results = module(*map(torch.from_numpy, x.values()))
    # In order, as a tuple of tensors; by name, as arrays of doubles.
    for example in (
        (torch.zeros(1, 6), torch.zeros(1, 4)),
        {"right": np.ones((3, 4)), "left": np.ones((3, 6))},
    ):
        network = lrpfast.from_torch(module, example, output="logits")
        assert set(network.inputs) == {"left", "right"}
        explanation = closed(network, x, results["logits"])
        assert np.abs(explanation.relevance_of("left")).sum() > 0
    with pytest.raises(ModelError, match="the exported Two: it has 2 outputs, logits, hidden; say which one"):
        lrpfast.from_torch(module, (torch.zeros(1, 6), torch.zeros(1, 4)))


@pytest.mark.networks
def test_a_module_that_decides_by_itself(torch: Any) -> None:
    class Decides(torch.nn.Module):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            super().__init__()
            self.layer = torch.nn.Linear(5, 1)

        def forward(self, x: Any) -> Any:
            p = torch.sigmoid(self.layer(x))
            p = torch.cat([1 - p, p], 1)
            return p, p.argmax(1)

    module = Decides()
    network = lrpfast.from_torch(module, torch.zeros(1, 5))
    x = rng_array(4, 5)
    with torch.no_grad():
        p, label = module(torch.from_numpy(x))
        z = module.layer(torch.from_numpy(x)).numpy()
    explanation = closed(network, x, p)
    np.testing.assert_allclose(explanation.output, np.hstack([-z, z]), rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(explanation.target, label)


@pytest.mark.networks
def test_modules_that_torch_cannot_export(torch: Any, capfd: pytest.CaptureFixture[str]) -> None:
    class Branching(torch.nn.Module):  # type: ignore[misc, name-defined]
        def forward(self, x: Any) -> Any:
            return x if x.sum() > 0 else -x

    module = Branching().train()
    with pytest.raises(ModelError, match=r"torch cannot export this Branching to ONNX: .*data-dependent"):
        lrpfast.from_torch(module, torch.ones(2, 3))
    assert module.training and capfd.readouterr() == ("", "")

    class Sorting(torch.nn.Module):  # type: ignore[misc, name-defined]
        def forward(self, x: Any) -> Any:
            return x * torch.sort(x, 1).values

    with pytest.raises(UnsupportedOperatorError, match=r"of the nodes of the exported Sorting\n.*TopK"):
        lrpfast.from_torch(Sorting(), torch.ones(2, 5))


@pytest.mark.networks
def test_what_is_no_module_or_no_example(torch: Any) -> None:
    with pytest.raises(InputError, match=r"expected a torch\.nn\.Module"):
        lrpfast.from_torch(torch.nn.functional.relu, torch.ones(1, 3))
    for example in (torch.ones(3), np.zeros((0, 3))):
        with pytest.raises(InputError, match=r"example has shape \([03](,|, 3)\); expected a batch axis"):
            lrpfast.from_torch(torch.nn.ReLU(), example)

    class Strange(torch.nn.Module):  # type: ignore[misc, name-defined]
        def forward(self, x: Any) -> str:
            return "yes"

    with pytest.raises(ModelError, match="it returns str"):
        lrpfast.from_torch(Strange(), torch.ones(1, 3))


@pytest.mark.networks
def test_another_prediction_is_not_accepted(torch: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """As of an exporter that gets something wrong: here, the weights change behind its back."""
    module = torch.nn.Linear(3, 2)

    def changed(program: Any) -> None:
        with torch.no_grad():
            module.weight.mul_(3)

    monkeypatch.setattr(frameworks, "_name_nodes", changed)
    with pytest.raises(ModelError, match="made of this Linear predicts something else"):
        lrpfast.from_torch(module, torch.ones(1, 3))


# --- Keras ---


def marked(test: Callable[..., None]) -> Any:
    """Marks a test that runs Keras, whose variables make NumPy warn."""
    quiet = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
    return pytest.mark.networks(quiet(test))


@pytest.fixture(scope="module")
def keras() -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return importlib.import_module("keras")


def images(keras: Any) -> Any:
    layers = keras.layers
    image = layers.Input((12, 12, 3), name="image")
    x = layers.Conv2D(6, 3, strides=2, padding="same")(image)
    x = layers.ReLU()(layers.BatchNormalization(beta_initializer="random_normal")(x))
    y = layers.SeparableConv2D(6, 3, padding="same", activation="relu")(x)
    x = layers.Concatenate()([layers.Add()([x, y]), layers.MaxPooling2D(3, 1, padding="same")(x)])
    x = layers.Dropout(0.5)(layers.GlobalAveragePooling2D()(x))
    return keras.Model(image, layers.Dense(4, activation="softmax", bias_initializer="random_normal")(x))


@marked
def test_a_keras_model_with_channels_last(keras: Any, capfd: pytest.CaptureFixture[str]) -> None:
    model = images(keras)
    weights = [w.copy() for w in model.get_weights()]
    network = lrpfast.from_keras(model)
    assert capfd.readouterr() == ("", "")
    assert {name: fact.shape for name, fact in network.inputs.items()} == {"image": (12, 12, 3)}
    x = rng_array(3, 12, 12, 3)
    explanation = closed(network, x, model.predict(x, verbose=0))
    assert explanation.relevance.shape == x.shape
    np.testing.assert_allclose(explanation.probabilities, network.predict(x), rtol=1e-5)
    for before, after in zip(weights, model.get_weights(), strict=True):
        np.testing.assert_array_equal(before, after)
    # All biases and normalisations are folded, all transposes but the first cancel.
    kinds = [node.op.kinds[0] for node in network.canonized().graph.nodes]
    assert "Affine" not in kinds and kinds.count("Transpose") == 1


@marked
def test_words_for_keras(keras: Any) -> None:
    layers = keras.layers
    ids = layers.Input((7,), dtype="int32", name="ids")
    x = layers.Conv1D(5, 3, activation="relu")(layers.Embedding(10, 4)(ids))
    model = keras.Model(ids, layers.Dense(1, activation="sigmoid")(layers.GlobalAveragePooling1D()(x)))
    network = lrpfast.from_keras(model)
    given = RNG.integers(0, 10, (4, 7))
    assert closed(network, given, model.predict(given, verbose=0)).relevance.shape == (4, 7)


@marked
def test_several_inputs_and_outputs_of_a_keras_model(keras: Any) -> None:
    layers = keras.layers
    a, b = layers.Input((6,), name="a"), layers.Input((4,), name="b")
    hidden = layers.Dense(5, activation="relu", name="hidden")(layers.Concatenate()([a, b]))
    score = layers.Dense(2, name="score")(hidden)
    x = {"a": rng_array(3, 6), "b": rng_array(3, 4)}
    listed = keras.Model([a, b], [score, hidden])
    closed(lrpfast.from_keras(listed, output="score"), x, listed.predict(list(x.values()), verbose=0)[0])
    named = keras.Model({"b": b, "a": a}, {"first": score, "second": hidden})
    network = lrpfast.from_keras(named, output="second")
    closed(network, x, named.predict(x, verbose=0)["second"])


@marked
def test_keras_models_that_need_an_example(keras: Any) -> None:
    class Own(keras.Model):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            super().__init__()
            self.first = keras.layers.Dense(5, activation="relu")
            self.second = keras.layers.Dense(2)

        def call(self, x: Any) -> Any:
            return self.second(self.first(x))

    model, x = Own(), rng_array(3, 6)
    with pytest.raises(InputError, match="does not know the shapes of its inputs; give an example="):
        lrpfast.from_keras(model)
    closed(lrpfast.from_keras(model, x[:1]), x, model.predict(x, verbose=0))
    open_ended = keras.Sequential([keras.layers.Input((None, 3)), keras.layers.Conv1D(4, 3)])
    with pytest.raises(InputError, match=r"has shape \(None, None, 3\), open behind the batch axis"):
        lrpfast.from_keras(open_ended)
    assert lrpfast.from_keras(open_ended, np.zeros((1, 9, 3), np.float32)).input_shape == (9, 3)
    with pytest.raises(InputError, match=r"expected a keras\.Model"):
        lrpfast.from_keras(keras.layers.Dense(3))


@marked
def test_keras_on_another_backend(keras: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    model = keras.Sequential([keras.layers.Input((3,)), keras.layers.Dense(2)])
    monkeypatch.setattr(keras.backend, "backend", lambda: "tensorflow")
    with pytest.raises(InputError, match=r"Keras runs on tensorflow; .*KERAS_BACKEND=torch"):
        lrpfast.from_keras(model)


# --- scikit-learn ---


@pytest.fixture(scope="module")
def fitted() -> Callable[..., Any]:
    """Fits a model to noise with some classes; few steps do."""

    def fit(model: Any, y: Any) -> Any:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # it has not converged
            return model.fit(10 * rng_array(60, 5) + 3, y)

    return fit


CLASSES = RNG.integers(0, 3, 60)
NAMES = np.array(["cat", "dog", "owl"])


def sklearn_models() -> dict[str, tuple[Any, Any, tuple[str, ...] | None]]:
    from sklearn.compose import ColumnTransformer
    from sklearn.decomposition import PCA
    from sklearn.impute import SimpleImputer
    from sklearn.linear_model import LinearRegression, LogisticRegression
    from sklearn.neural_network import MLPClassifier, MLPRegressor
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import MinMaxScaler, RobustScaler, StandardScaler

    mlp = MLPClassifier((8, 4), max_iter=3, random_state=0)
    columns = [("a", StandardScaler(), [0, 3, 4]), ("b", MinMaxScaler(), [1]), ("c", "passthrough", [2, 0])]
    regressor = MLPRegressor(hidden_layer_sizes=(6,), max_iter=3)
    binary, targets = CLASSES > 0, RNG.standard_normal(60)
    return {
        "three classes": (mlp, NAMES[CLASSES], ("cat", "dog", "owl")),
        "two classes": (make_pipeline(StandardScaler(), mlp), NAMES[binary.astype(int)], ("cat", "dog")),
        "components": (make_pipeline(SimpleImputer(), PCA(3), mlp), CLASSES, ("0", "1", "2")),
        "columns": (
            make_pipeline(ColumnTransformer(columns), mlp),
            CLASSES,
            ("0", "1", "2"),
        ),
        "tanh": (MLPClassifier((4,), "tanh", max_iter=3), CLASSES, ("0", "1", "2")),
        "regressor": (make_pipeline(RobustScaler(), regressor), targets, None),
        "logistic": (LogisticRegression(), NAMES[CLASSES], ("cat", "dog", "owl")),
        "logistic of two": (LogisticRegression(), binary.astype(int), ("0", "1")),
        "linear": (LinearRegression(), targets, None),
    }


@pytest.mark.parametrize(
    "name",
    ["three classes", "two classes", "components", "columns", "tanh", "regressor", "logistic",
     "logistic of two", "linear"],
)  # fmt: skip
def test_models_of_scikit_learn(fitted: Callable[..., Any], name: str) -> None:
    model, y, labels = sklearn_models()[name]
    model = fitted(model, y)
    network = lrpfast.from_sklearn(model)
    x = 10 * rng_array(7, 5) + 3
    classifies = hasattr(model, "predict_proba")
    expected = model.predict_proba(x) if classifies else model.predict(x).reshape(7, -1)
    explanation = closed(network, x, expected)
    assert network.labels == labels
    if classifies:
        np.testing.assert_array_equal(np.array(labels)[explanation.target], model.predict(x).astype(str))
        np.testing.assert_allclose(explanation.probabilities, expected, atol=1e-5)


def test_two_classes_are_explained_by_their_logits(fitted: Callable[..., Any]) -> None:
    """The relevance of either class is that of its log-odds, whose gradient is the other's but for the sign."""
    model = fitted(sklearn_models()["two classes"][0], CLASSES > 0)
    network = lrpfast.from_sklearn(model)
    x = rng_array(4, 5)
    p = model.predict_proba(x)
    explanations = [lrpfast.explain(network, x, target, "gradient", dtype=np.float64) for target in (0, 1)]
    np.testing.assert_allclose(explanations[1].output[:, 1], np.log(p[:, 1] / p[:, 0]), rtol=1e-4)
    np.testing.assert_allclose(explanations[0].relevance, -explanations[1].relevance, rtol=1e-9)
    assert np.abs(explanations[0].relevance).max() > 0


def test_what_scikit_learn_has_besides(fitted: Callable[..., Any]) -> None:
    from sklearn.ensemble import RandomForestClassifier
    from sklearn.neural_network import MLPClassifier
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import FunctionTransformer, Normalizer

    with pytest.raises(InputError, match="expected a fitted model of scikit-learn"):
        lrpfast.from_sklearn(MLPClassifier())
    with pytest.raises(InputError, match="expected a fitted model"):
        lrpfast.from_sklearn("model.pkl")
    with pytest.raises(UnsupportedOperatorError, match="TreeEnsembleClassifier"):
        lrpfast.from_sklearn(fitted(RandomForestClassifier(2), CLASSES))
    mlp = MLPClassifier((4,), max_iter=2)
    with pytest.raises(UnsupportedOperatorError, match="Normalizer"):
        lrpfast.from_sklearn(fitted(make_pipeline(Normalizer(), mlp), CLASSES))
    with pytest.raises(ModelError, match="skl2onnx cannot convert this MLPClassifier"):
        lrpfast.from_sklearn(fitted(make_pipeline(FunctionTransformer(np.abs), mlp), CLASSES))


# --- what is not there ---


@pytest.mark.parametrize(("call", "missing", "extra"), [
    ("from_torch(None, None)", "torch", "torch"), ("from_torch(None, None)", "onnxscript", "torch"),
    ("from_keras(None)", "keras", "keras"), ("from_sklearn(None)", "sklearn", "sklearn"),
    ("from_sklearn(None)", "skl2onnx", "sklearn"),
])  # fmt: skip
def test_missing_packages(monkeypatch: pytest.MonkeyPatch, call: str, missing: str, extra: str) -> None:
    for name in ("torch", "onnxscript", "keras", "sklearn", "sklearn.base", "skl2onnx"):
        here = missing in (name, name.partition(".")[0])
        monkeypatch.setitem(sys.modules, name, None if here else type(sys)(name))
    with pytest.raises(MissingPackageError, match=rf'needs {missing}.*pip install "lrpfast\[{extra}\]"'):
        eval(call, vars(lrpfast.frameworks))


def test_frameworks_are_imported_when_they_are_needed() -> None:
    code = "import sys, lrpfast.frameworks; assert not {'torch', 'keras', 'sklearn', 'skl2onnx'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
