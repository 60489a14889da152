"""`Explainer`, `Explanation` and `Network`: targets, initial relevance, recording, prediction, mistakes."""

from __future__ import annotations

import pickle
from typing import Any

import numpy as np
import pytest
from toy_networks import B1, IMAGES, W1, X, cnn, linear, mlp, mlp_values

import lrpfast
from lrpfast import (
    Builder,
    Composite,
    Conv2d,
    Dense,
    Epsilon,
    Explainer,
    Explanation,
    Flatten,
    InputError,
    LeakyReLU,
    ModelError,
    Network,
    NonFiniteError,
    Pass,
    ReLU,
    Reshape,
    Sequential,
    Softmax,
    Z,
    explain,
)
from lrpfast.ops import Add

# --- targets ---


def gradient_of(
    target: Any = None, init: Any = None, network: Network | None = None, **options: Any
) -> Explanation:
    return explain(network or linear(), X, target, "gradient", init, dtype=np.float64, **options)


@pytest.mark.parametrize(
    ("target", "rows"),
    [
        (2, [2, 2, 2]),
        (np.int64(2), [2, 2, 2]),
        (-1, [5, 5, 5]),
        ([0, 3, 5], [0, 3, 5]),
        (np.array([0, -1, 5], np.int32), [0, 5, 5]),
    ],
)
def test_target_by_index(target: Any, rows: list[int]) -> None:
    explanation = gradient_of(target)
    np.testing.assert_allclose(explanation.relevance, W1[rows], rtol=1e-14)
    assert explanation.target.tolist() == rows


def test_target_is_the_largest_output_by_default() -> None:
    explanation = gradient_of()
    best = (X @ W1.T + B1).argmax(axis=1)
    assert len(set(best)) > 1
    np.testing.assert_array_equal(explanation.target, best)
    np.testing.assert_allclose(explanation.relevance, W1[best], rtol=1e-14)


def test_contrastive_target() -> None:
    weights = np.zeros(6)
    weights[3], weights[5] = 1, -1
    explanation = gradient_of(weights)
    np.testing.assert_allclose(explanation.relevance, np.tile(W1[3] - W1[5], (3, 1)), rtol=1e-14)
    np.testing.assert_array_equal(explanation.target, np.tile(weights, (3, 1)))
    each = np.random.default_rng(0).normal(size=(3, 6))
    np.testing.assert_allclose(gradient_of(each).relevance, each @ W1, rtol=1e-12)


def test_a_network_with_one_output() -> None:
    network = Sequential(Dense(W1[:1], B1[:1]))
    for target in (None, 0):
        explanation = gradient_of(target, network=network)
        np.testing.assert_allclose(explanation.relevance, np.tile(W1[0], (3, 1)), rtol=1e-14)
    assert explanation.probabilities is None


def test_maps_of_outputs_need_weights() -> None:
    network = Sequential(Conv2d(np.ones((2, 1, 1, 1))), input_shape=(1, 3, 3))
    x, weights = np.ones((2, 1, 3, 3)), np.zeros((2, 3, 3))
    weights[1, 1, 1] = 1
    relevance = explain(network, x, weights, "gradient").relevance
    assert relevance.sum() == relevance[:, 0, 1, 1].sum() == 2
    with pytest.raises(InputError, match=r"output has shape \(2, 2, 3, 3\), so there is no largest class"):
        explain(network, x)


# --- initial relevance ---


def test_initial_relevance() -> None:
    logits = X @ W1.T + B1
    e = np.exp(logits)
    softmax = e / e.sum(axis=1, keepdims=True)
    rows = np.arange(3)
    for init, value in (
        (None, np.ones(3)), ("one", np.ones(3)), ("logit", logits[rows, 2]), ("probability", softmax[rows, 2]),
        (0.9, np.full(3, 0.9)), (np.array([1.0, -2.0, 0.0]), np.array([1.0, -2.0, 0.0])), (logits, logits[rows, 2]),
    ):  # fmt: skip
        explanation = gradient_of(2, init)
        np.testing.assert_allclose(explanation.relevance, value[:, None] * W1[2], rtol=1e-12)
    assert explanation.probabilities is not None
    np.testing.assert_allclose(explanation.probabilities, softmax, rtol=1e-12)


def test_relevance_rules_begin_with_the_logit() -> None:
    options: dict[str, Any] = {"dtype": np.float64, "on_blowup": "ignore"}
    explanation = explain(mlp(), X, 1, "epsilon_plus", **options)
    assert explanation.conservation[0].r_in == pytest.approx(explanation.output[:, 1].sum())
    assert explanation.manifest["init"] == "logit"
    weights = np.array([0.0, 1.0, -1.0])
    contrast = explain(mlp(), X, weights, "epsilon_plus", **options)
    assert contrast.conservation[0].r_in == pytest.approx((contrast.output @ weights).sum())


def test_probability_is_that_of_the_softmax_that_was_cut_off() -> None:
    network = Sequential(Dense(W1, B1), Softmax())
    explanation = explain(network, X, 1, "epsilon_plus", "probability")
    probabilities = network.predict(X)
    np.testing.assert_allclose(explanation.probabilities, probabilities, rtol=1e-6)
    assert explanation.conservation[0].r_in == pytest.approx(probabilities[:, 1].sum(), rel=1e-6)
    np.testing.assert_allclose(explanation.output, X @ W1.T + B1, rtol=1e-5)


# --- recording ---


def test_record_all_keeps_every_neuron() -> None:
    network = mlp()
    explanation = explain(network, X, 1, "epsilon_plus", record="all", dtype=np.float64)
    assert list(explanation.layers) == [node.name for node in network.graph.nodes]
    for node in network.graph.nodes:
        layer = explanation.layers[node.name]
        assert layer.shape == (3, *network.graph.facts[node.output].shape)
    rows = {row.node: row for row in explanation.conservation}
    for name, layer in explanation.layers.items():
        assert layer.sum() == pytest.approx(rows[name].r_in)
    last = network.graph.nodes[-1].name
    np.testing.assert_allclose(explanation.layers[last], explanation.output * np.eye(3)[1])


def test_record_by_name_and_pattern() -> None:
    network = mlp()
    everything = explain(network, X, record="all").layers
    for record in ("Gemm_*", ["Gemm_0", "Gemm_2", "Gemm_4"], ("Gemm_?", "Gemm_0")):
        layers = explain(network, X, record=record).layers
        assert list(layers) == ["Gemm_0", "Gemm_2", "Gemm_4"]
        for name, layer in layers.items():
            np.testing.assert_array_equal(layer, everything[name])
    assert explain(network, X).layers == {}
    with pytest.raises(
        InputError, match=r"record names 'conv\*', which fits no node; the nodes are Gemm_0, Relu_1"
    ):
        Explainer(network, record=("Gemm_0", "conv*"))


def test_recording_changes_nothing(backend: str) -> None:
    plain = explain(cnn(), IMAGES, backend=backend)
    recorded = explain(cnn(), IMAGES, record="all", backend=backend)
    np.testing.assert_array_equal(plain.relevance, recorded.relevance)
    assert plain.conservation == recorded.conservation


@pytest.mark.parametrize("order", ["pr", "rp", "prp", "rpr"])
def test_recorded_branches_keep_what_arrived_at_them(order: str, backend: str) -> None:
    """The branches' relevance adds up at the value that they all read, not at the branches."""
    build = Builder((2, 2))
    a = build(LeakyReLU(0.5), build.input, name="a")
    made = [
        build(Reshape((4,)) if kind == "r" else ReLU(), a, name=f"{kind}{i}") for i, kind in enumerate(order)
    ]
    flat = [name if name[0] == "r" else build(Reshape((4,)), name) for name in made]
    network = build.network(build(Add(), *flat, name="sum"))
    squares = X.reshape(-1, 2, 2)
    explanation = explain(network, squares, np.ones(4), record="all", dtype=np.float64, backend=backend)
    value = np.where(X > 0, X, 0.5 * X)
    branches = {name: np.maximum(value, 0) if name[0] == "p" else value for name in made}
    total = sum(branches.values())
    expected = {name: b * total / (total + np.where(total < 0, -1e-6, 1e-6)) for name, b in branches.items()}
    for name, relevance in expected.items():
        found = explanation.layers[name].reshape(-1, 4)
        np.testing.assert_allclose(found, relevance, rtol=1e-12, atol=1e-15)
    at_a = explanation.layers["a"].reshape(-1, 4)
    np.testing.assert_allclose(at_a, sum(expected.values()), rtol=1e-12, atol=1e-15)
    np.testing.assert_allclose(explanation.relevance.reshape(-1, 4), at_a, rtol=1e-12)


# --- prediction ---


def test_predict(backend: str) -> None:
    expected = mlp_values(X)[-1]
    for dtype, rtol in ((np.float32, 1e-5), (np.float64, 1e-12)):
        y = mlp().predict(X, backend=backend, dtype=dtype)
        assert y.dtype == dtype
        np.testing.assert_allclose(y, expected, rtol=rtol, atol=rtol)
    softmax = Sequential(Dense(W1, B1), Softmax()).predict(X, backend=backend, threads=1)
    np.testing.assert_allclose(softmax.sum(axis=1), 1, rtol=1e-6)


def test_explanation_of_a_dtype(backend: str) -> None:
    for dtype in (np.float32, np.float64, "float32", "float64"):
        explanation = explain(cnn(), IMAGES, dtype=dtype, record="all", backend=backend)
        arrays = (
            explanation.relevance,
            explanation.output,
            explanation.probabilities,
            *explanation.layers.values(),
        )
        assert {str(a.dtype) for a in arrays if a is not None} == {str(np.dtype(dtype))}
    assert explanation.relevance.shape == IMAGES.shape


def test_float32_is_close_to_float64(backend: str) -> None:
    for composite in ("epsilon_plus_flat", "epsilon_alpha2_beta1", "deep_taylor"):
        exact = explain(cnn(), IMAGES, composite=composite, dtype=np.float64, backend=backend).relevance
        close = explain(cnn(), IMAGES, composite=composite, dtype=np.float32, backend=backend).relevance
        assert np.abs(close - exact).max() < 1e-5 * np.abs(exact).max()


def test_names_and_numbers_of_a_network() -> None:
    network = mlp()
    assert (network.name, network.input_shape, network.output_shape, network.is_bound) == (
        "mlp",
        (4,),
        (3,),
        True,
    )
    assert repr(network) == "<Network 'mlp': 5 nodes, (4,) -> (3,)>"
    assert repr(Explainer(network, backend="numpy")) == (
        "<Explainer of <Network 'mlp': 5 nodes, (4,) -> (3,)> by epsilon_plus_flat on numpy>"
    )


def test_hash_is_of_structure_and_weights() -> None:
    assert mlp().hash == mlp().hash
    assert len(mlp().hash) == 64
    others = [
        Sequential(Dense(W1, B1)), Sequential(Dense(W1)), Sequential(Dense(W1 + 1e-9, B1)),
        Sequential(Dense(W1, B1), ReLU()), Sequential(Dense(W1, B1), LeakyReLU()),
        Sequential(Dense(W1, B1), LeakyReLU(0.2)), Sequential(Dense(W1.astype(np.float32), B1)),
    ]  # fmt: skip
    assert len({network.hash for network in others}) == len(others)


# --- mistakes ---


@pytest.mark.parametrize(
    ("x", "error", "words"),
    [
        (X[0], InputError, r"x has shape \(4,\), one sample without a batch axis; expected \(n, 4\): pass x\[None\]"),
        (np.ones((2, 5)), InputError, r"x has shape \(2, 5\); 'mlp' takes \(n, 4\)"),
        (np.ones((2, 4, 1)), InputError, r"x has shape \(2, 4, 1\); 'mlp' takes \(n, 4\)"),
        (np.ones((0, 4)), InputError, "no samples; expected at least one"),
        (1.0, InputError, r"x has shape \(\); 'mlp' takes"),
        ([[1, 2, 3, 4], [1, 2]], InputError, r"x is \[\[1, 2, 3, 4\], \[1, 2\]\] .*rows of one length"),
        (np.array([["a"] * 4]), InputError, "expected an array of real numbers"),
        (np.ones((1, 4), complex), InputError, r"dtype complex128\); expected an array of real numbers"),
        (None, InputError, "x is None"),
        ([[1, 2, np.nan, 4]], NonFiniteError, r"x holds nan at index \(0, 2\) \(1 such values in all\)"),
        ([[1, np.inf, 3, -np.inf]], NonFiniteError, r"x holds inf at index \(0, 1\) \(2 such values in all\)"),
        ([[1e300, 2, 3, 4]], NonFiniteError, "expected finite float32 numbers"),
    ],
)  # fmt: skip
def test_bad_inputs(x: Any, error: Any, words: str) -> None:
    for call in (Explainer(mlp()), mlp().predict):
        with pytest.raises(error, match=words):
            call(x)


@pytest.mark.parametrize(
    ("target", "words"),
    [
        (6, "target is 6; the network has 6 outputs, 0 to 5"),
        (-7, "target is -7; the network has 6 outputs"),
        ([0, 1, 9], "target is 9; the network has 6 outputs"),
        (
            [0, 1],
            r"target is \[0, 1\]; expected None, an index below 6, one index for each of the 3 samples, or",
        ),
        (1.5, "target is 1.5; expected None, an index below 6"),
        (True, "target is True; expected None"),
        ([0.0, 1.0, 2.0], r"target is \[0.0, 1.0, 2.0\]; expected"),
        (np.ones((3, 5)), r"output weights, as floats, of shape \(6,\) or \(3, 6\)"),
        ("cat", r"target is 'cat' \(dtype <U3\); expected an array of real numbers"),
        ([[1], [1, 2]], r"target is \[\[1\], \[1, 2\]\]"),
        ([np.nan] * 6, "target holds NaN or infinity; expected finite output weights"),
    ],
)
def test_bad_targets(target: Any, words: str) -> None:
    with pytest.raises(InputError, match=words):
        gradient_of(target)


def test_whole_numbers_are_indices_and_floats_are_weights() -> None:
    """Even where there are as many samples as outputs, so that the shape does not tell."""
    six = np.ones((6, 4))
    for target, expected in (
        (np.arange(6), W1),
        (np.arange(6.0), np.tile(np.arange(6) @ W1, (6, 1))),
        (np.eye(6, dtype=int), W1),
        (None, np.tile(W1[(six @ W1.T + B1)[0].argmax()], (6, 1))),
    ):
        relevance = explain(linear(), six, target, "gradient", dtype=np.float64).relevance
        np.testing.assert_allclose(relevance, expected, rtol=1e-12)
    with pytest.raises(InputError, match=r"or output weights, as floats, of shape \(6,\)"):
        gradient_of(np.array([0, 0, 0, 1, 0, -1]))


@pytest.mark.parametrize(
    ("init", "words"),
    [
        ("logits", "init is 'logits'; expected one of logit, one, probability, or an array"),
        (np.ones(4), r"init has shape \(4,\); expected \(3,\) or the output's \(3, 6\)"),
        ([1, np.nan, 3], "init holds NaN or infinity"),
        ([1, None, 3], "init is .*expected an array of real numbers"),
    ],
)
def test_bad_initial_relevance(init: Any, words: str) -> None:
    with pytest.raises(InputError, match=words):
        gradient_of(0, init)


def test_probability_needs_classes() -> None:
    with pytest.raises(
        InputError, match=r"needs class scores of shape \(n, classes\); the output has \(3, 1\)"
    ):
        gradient_of(0, "probability", Sequential(Dense(W1[:1])))


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"dtype": np.int32}, InputError, "dtype is int32; expected float32 or float64"),
        ({"dtype": np.float16}, InputError, "dtype is float16"),
        ({"dtype": "real"}, InputError, "dtype is 'real'; expected float32 or float64"),
        ({"threads": 0}, InputError, "threads is 0; expected a whole number ≥ 1, or None"),
        ({"threads": 1.5}, InputError, "threads is 1.5"),
        ({"threads": True}, InputError, "threads is True"),
        ({"backend": "cuda"}, lrpfast.BackendError, "'cuda'"),
        ({"composite": "epsilon"}, lrpfast.CompositeError, "unknown composite 'epsilon'"),
        ({"record": "conv*"}, InputError, "record names 'conv"),
    ],
)
def test_bad_options(options: dict[str, Any], error: Any, words: str) -> None:
    with pytest.raises(error, match=words):
        Explainer(mlp(), **options)


@pytest.mark.parametrize(
    "options", [{"threads": 0}, {"threads": -1}, {"dtype": np.int32}, {"backend": "cuda"}]
)
def test_predict_refuses_the_same_options(options: dict[str, Any]) -> None:
    with pytest.raises(lrpfast.LrpfastError):
        mlp().predict(X, **options)


def test_a_prediction_that_overflows_names_its_node(backend: str) -> None:
    big = Dense(np.full((2, 2), 1e30))
    network = Sequential(big, ReLU(), big)
    words = r"NaN or infinity first appears at node 'Gemm_2' \(Gemm\); .* use dtype float64"
    with np.errstate(over="ignore"):
        for call in (Explainer(network, "epsilon_plus", backend=backend), network.predict):
            with pytest.raises(NonFiniteError, match=words):
                call(np.ones((1, 2)))
    assert np.isfinite(network.predict(np.ones((1, 2)), dtype=np.float64)).all()


def test_a_relevance_that_overflows_names_its_node(backend: str) -> None:
    network = Sequential(Dense(np.array([[1.0, -1.0]])), ReLU(), Dense(np.array([[1.0]])))
    composite = Composite("test", (("linear", Z()), ("activation", Pass())))
    x = np.array([[1e-38, 0.0]])
    with (
        np.errstate(all="ignore"),
        pytest.raises(NonFiniteError, match=r"node 'Gemm_2' hands back under Z\(\)"),
    ):
        explain(network, x, 0, composite, init=3e38, backend=backend)


def test_errors_have_one_base() -> None:
    names = [name for name in lrpfast.__all__ if name.endswith("Error")]
    assert len(names) == 13
    for name in names:
        assert issubclass(getattr(lrpfast, name), lrpfast.LrpfastError)
    for name, builtin in (
        ("ModelError", ValueError),
        ("InputError", ValueError),
        ("OutputError", OSError),
        ("OutOfMemoryError", MemoryError),
    ):
        assert issubclass(getattr(lrpfast, name), builtin)


def test_a_network_that_is_given_no_shape_learns_it_from_its_input() -> None:
    network = Sequential(Conv2d(np.ones((2, 1, 3, 3))), Flatten())
    assert not network.is_bound
    with pytest.raises(ModelError, match="does not know the shape of its input yet"):
        _ = network.input_shape
    explainer = Explainer(network, "epsilon_plus")
    for size in (5, 6, 5):
        x = np.random.default_rng(0).normal(size=(2, 1, size, size))
        explanation = explainer(x)
        assert explanation.relevance.shape == x.shape
        again = explain(network.at((1, size, size)), x, composite="epsilon_plus")
        np.testing.assert_array_equal(explanation.relevance, again.relevance)
    with pytest.raises(ModelError, match="too small"):
        explainer(np.ones((1, 1, 2, 2)))
    with pytest.raises(InputError, match="x is None"):
        explainer(None)


def test_explain_and_explainer_are_the_same() -> None:
    one = explain(
        mlp(), X, 1, Composite("mine", (("linear", Epsilon()), ("activation", Pass()))), "one", ["Gemm_2"]
    )
    composite = Composite("mine", (("linear", Epsilon()), ("activation", Pass())))
    two = Explainer(mlp(), composite, record=["Gemm_2"])(X, 1, "one")
    np.testing.assert_array_equal(one.relevance, two.relevance)
    assert one.manifest == two.manifest
    assert one.conservation == two.conservation


def test_networks_and_explainers_are_handed_to_other_processes(backend: str) -> None:
    composite = lrpfast.composite("epsilon_gamma_box", low=-9.0, high=9.0)
    explainer = Explainer(cnn(), composite, backend=backend, dtype="float64", threads=1, record="Conv_0",
                          max_memory="1GB", on_blowup="clip", blowup=3)  # fmt: skip
    sent = pickle.loads(pickle.dumps(explainer))
    one, other = explainer(IMAGES), sent(IMAGES)
    np.testing.assert_array_equal(one.relevance, other.relevance)
    np.testing.assert_array_equal(one.layers["Conv_0"], other.layers["Conv_0"])
    assert one.manifest == other.manifest
    assert (sent.threads, sent.max_memory, sent.policy) == (1, 10**9, explainer.policy)
    network = pickle.loads(pickle.dumps(Network(mlp().graph, "named", labels="abc", notes=["cut"])))
    assert (network.name, network.labels, network.notes) == ("named", ("a", "b", "c"), ("cut",))


def test_a_network_that_knows_no_shape_is_not_handed_on() -> None:
    with pytest.raises(ModelError, match="does not know the shape of its input yet"):
        pickle.dumps(Sequential(Conv2d(np.ones((2, 1, 3, 3))), Flatten()))
