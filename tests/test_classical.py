"""Operators of the domain ai.onnx.ml against onnxruntime."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import helper
from onnx_models import model_of, node

import lrpfast
from lrpfast import ModelError, UnsupportedOperatorError

RNG = np.random.default_rng(2)
X = RNG.standard_normal((4, 6)).astype(np.float32)
ML = "ai.onnx.ml."
NUMBERS = RNG.standard_normal(18).tolist()

# name: (operator, inputs, index of its output, constants, attributes)
FORMS: dict[str, tuple[str, str, int, dict[str, Any], dict[str, Any]]] = {
    "Scaler": (ML + "Scaler", "x", 0, {}, {"scale": NUMBERS[:6], "offset": NUMBERS[6:12]}),
    "Scaler of one number": (ML + "Scaler", "x", 0, {}, {"scale": [2.0], "offset": [0.5]}),
    "Imputer": (ML + "Imputer", "x", 0, {},
                {"imputed_value_floats": NUMBERS[:6], "replaced_value_float": float("nan")}),
    "ArrayFeatureExtractor": (ML + "ArrayFeatureExtractor", "x c", 0, {"c": [1, 3, 5]}, {}),
    "ArrayFeatureExtractor, uneven": (ML + "ArrayFeatureExtractor", "x c", 0, {"c": [5, 4, 3, 0, 1, 1, 4]}, {}),
    "LinearRegressor": (ML + "LinearRegressor", "x", 0, {},
                        {"coefficients": NUMBERS[:12], "intercepts": NUMBERS[12:14], "targets": 2}),
    "LinearRegressor, no intercept": (ML + "LinearRegressor", "x", 0, {}, {"coefficients": NUMBERS[:6]}),
    **{
        f"LinearClassifier, {transform}": (
            ML + "LinearClassifier", "x", 1, {},
            {"coefficients": NUMBERS, "intercepts": NUMBERS[:3], "classlabels_ints": [0, 1, 2],
             "post_transform": transform, "multi_class": 1},
        )
        for transform in ("NONE", "SOFTMAX", "LOGISTIC")
    },
}  # fmt: skip


def model(
    operator: str, inputs: str, index: int, constants: dict[str, Any], attributes: dict[str, Any]
) -> onnx.ModelProto:
    domain, _, op_type = operator.rpartition(".")
    outputs = ["label", "y"] if index else ["y"]
    made = model_of(
        [node(op_type, inputs, " ".join(outputs), domain=domain, **attributes)], ("n", 6), constants
    )
    made.opset_import.append(helper.make_opsetid(domain, 3))
    return made


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
def test_read_as_onnxruntime_does(form: Any) -> None:
    given = model(*form)
    session = onnxruntime.InferenceSession(given.SerializeToString())
    network = lrpfast.load(given)
    expected = session.run(["y"], {"x": X})[0]
    np.testing.assert_allclose(network.predict(X), expected, rtol=1e-5, atol=1e-6)
    assert lrpfast.explain(network, X, 0, dtype=np.float64).conservation.worst < 1e-11


REFUSED: dict[str, tuple[str, str, int, dict[str, Any], dict[str, Any], str]] = {
    "Imputer of zeros": (ML + "Imputer", "x", 0, {}, {"imputed_value_floats": [1.0]}, "it replaces a number"),
    "regressor": (ML + "LinearRegressor", "x", 0, {},
                  {"coefficients": NUMBERS[:6], "post_transform": "SOFTMAX"}, "post_transform is 'SOFTMAX'"),
    "classifier": (ML + "LinearClassifier", "x", 1, {},
                   {"coefficients": NUMBERS, "classlabels_ints": [0, 1, 2], "post_transform": "PROBIT"},
                   "post_transform is 'PROBIT'; expected one of NONE, SOFTMAX, LOGISTIC"),
    "coefficients": (ML + "LinearRegressor", "x", 0, {}, {"coefficients": NUMBERS[:5]}, "5 coefficients for 1"),
    "intercepts": (ML + "LinearRegressor", "x", 0, {}, {"coefficients": NUMBERS[:6], "intercepts": [1.0, 2.0]},
                   "2 intercepts for 1"),
    "trees": (ML + "TreeEnsembleRegressor", "x", 0, {}, {}, "no such operator"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED.values(), ids=REFUSED)
def test_refused(case: Any) -> None:
    *form, says = case
    with pytest.raises(UnsupportedOperatorError, match=says):
        lrpfast.load(model(*form))


def test_columns_out_of_range() -> None:
    with pytest.raises(ModelError, match=r"its indices \[6\] are out of range"):
        lrpfast.load(model(ML + "ArrayFeatureExtractor", "x c", 0, {"c": [6]}, {}))
