"""Networks out of torch, Keras and scikit-learn: exported to ONNX behind the scenes, and read from there."""

from __future__ import annotations

import contextlib
import inspect
import io
import re
import tempfile
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from .errors import InputError, ModelError
from .extras import need
from .feeds import as_array
from .network import Network
from .onnx_io import load_model
from .ops.base import Array

TOLERANCE = 1e-2
"""The largest difference from the framework's prediction, as a share of its largest output. Rounding is far below,
in half precision too; what an exporter got wrong is far above."""

SCOPES = "pkg.torch.onnx.name_scopes"
"""Where torch's exporter says which module a node comes from."""


def from_torch(module: Any, example: Any, *, output: str | None = None) -> Network:
    """A network from a torch module (needs ``pip install "lrpfast[torch]"``).

    Weights are copied. The module is exported in evaluation mode, to which it is set for the time being; neither
    its weights nor the modes of its parts are changed. Nodes are called by the submodule that they come from and
    their ONNX operator: ``record="features.3/*"``.

    Parameters
    ----------
    module : torch.nn.Module
    example : tensor or array (n, …), or a sequence of them, or a mapping of argument name to them
        What the module is called with: its only argument, its arguments in order, or those by name. Says shapes
        and types of the inputs, which are called like the arguments; any batch size will do later.
    output : str, optional
        Which output to explain, as for `lrpfast.load`. A module's outputs are called by their keys (a mapping),
        ``output_0``, ``output_1``, … (a sequence) or ``output``.

    Returns
    -------
    Network
        Its prediction for `example` has been compared with the module's.

    Raises
    ------
    MissingPackageError
        torch or onnxscript is not installed.
    InputError
        `module` or `example` is of another kind.
    ModelError
        torch cannot export the module: what it does must not depend on the values of its inputs. Or the network
        predicts something else than the module.
    UnsupportedOperatorError
        The module uses operators that are not among `lrpfast.OPERATORS`.

    Examples
    --------
    >>> network = lrpfast.from_torch(module, torch.zeros(1, 3, 224, 224))  # doctest: +SKIP
    >>> lrpfast.explain(network, x)                                         # doctest: +SKIP
    """
    torch = _torch("from_torch", "torch")
    if not isinstance(module, torch.nn.Module):
        raise InputError(f"module is {module!r:.60}, a {type(module).__name__}; expected a torch.nn.Module")
    by_name = isinstance(example, Mapping)
    given = list(example.values()) if by_name else example if isinstance(example, Sequence) else [example]
    tensors = [_two_samples(torch, value) for value in given]
    names = list(map(str, example)) if by_name else _arguments(module, len(tensors))

    def call(*inputs: Any) -> Any:
        return module(**dict(zip(names, inputs, strict=True))) if by_name else module(*inputs)

    with _evaluating(module):
        return _exported(torch, module, call, dict(zip(names, tensors, strict=True)), output)


def from_keras(model: Any, example: Any = None, *, output: str | None = None) -> Network:
    """A network from a Keras 3 model that runs on torch (needs ``pip install "lrpfast[keras]"``).

    Parameters
    ----------
    model : keras.Model
        With the torch backend: set the environment variable ``KERAS_BACKEND=torch`` before Keras is imported. Models
        that were trained with another backend, and saved, can be loaded with this one.
    example : array (n, …), or a sequence of them, or a mapping of name to them, optional
        What the model is called with; needed where the model leaves its inputs' shapes open, or does not say
        what they are (subclasses of ``keras.Model``).
    output : str, optional
        Which output to explain, as for `from_torch`; several outputs are called by their layers or keys.

    Returns
    -------
    Network
        Its inputs are called as in the model; images are channels-last if they are in the model.

    Raises
    ------
    MissingPackageError
        Keras, torch or onnxscript is not installed.
    InputError
        `model` is of another kind, or runs on another backend; or an example is needed.
    ModelError, UnsupportedOperatorError
        As for `from_torch`.
    """
    keras = need("keras", "keras", "from_keras")
    if not isinstance(model, keras.Model):
        raise InputError(f"model is {model!r:.60}, a {type(model).__name__}; expected a keras.Model")
    if keras.backend.backend() != "torch":
        raise InputError(
            f"Keras runs on {keras.backend.backend()}; save the model, set the environment variable "
            'KERAS_BACKEND=torch, and load it again; or model.export("model.onnx", format="onnx"), and lrpfast.load'
        )
    torch = _torch("from_keras", "keras")
    names, example = _keras_example(keras, model, example)
    tensors = [_two_samples(torch, value) for value in keras.tree.flatten(example)]

    def call(*inputs: Any) -> Any:
        results = model(keras.tree.pack_sequence_as(example, list(inputs)), training=False)
        keys = getattr(model, "output_names", None)
        listed = isinstance(results, (list, tuple)) and keys is not None and len(keys) == len(results)
        return dict(zip(keys, results, strict=True)) if listed and keys is not None else results

    return _exported(torch, model, call, dict(zip(names, tensors, strict=True)), output)


def from_sklearn(model: Any, *, output: str | None = None) -> Network:
    """A network from a fitted model of scikit-learn (needs ``pip install "lrpfast[sklearn]"``).

    Parameters
    ----------
    model : estimator
        `MLPClassifier`, `MLPRegressor`, a linear model, or a pipeline that ends in one, with scalers and whatever
        else is affine before it. It takes arrays (n, features).
    output : str, optional
        Which output to explain, as for `lrpfast.load`. Default: a classifier's probabilities, with relevance from
        the logits on; a regressor's value.

    Returns
    -------
    Network
        Its input is called ``X``; `Network.labels` are the classes.

    Raises
    ------
    MissingPackageError
        scikit-learn or skl2onnx is not installed.
    InputError
        `model` is of another kind, or is not fitted.
    ModelError
        skl2onnx cannot convert it; or the network predicts something else.
    UnsupportedOperatorError
        It has steps that are not understood.
    """
    sklearn = need("sklearn.base", "sklearn", "from_sklearn")
    skl2onnx = need("skl2onnx", "sklearn", "from_sklearn")
    types = need("skl2onnx.common.data_types", "sklearn", "from_sklearn")
    features = getattr(model, "n_features_in_", None)
    if not isinstance(model, sklearn.BaseEstimator) or features is None:
        raise InputError(
            f"model is {model!r:.60}; expected a fitted model of scikit-learn, such as MLPClassifier"
        )
    steps = getattr(model, "steps", None)
    last = steps[-1][1] if steps else model
    classifies = sklearn.is_classifier(last)
    options = {id(last): {"zipmap": False}} if classifies else None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            proto = skl2onnx.to_onnx(
                model, initial_types=[("X", types.FloatTensorType([None, features]))], options=options
            )
    except Exception as error:  # whatever classes the converters have for the reasons
        raise ModelError(f"skl2onnx cannot convert this {type(last).__name__}: {_reason(error)}") from error
    x = np.random.default_rng(0).standard_normal((4, features)).astype(np.float32)
    predict = model.predict_proba if classifies and hasattr(model, "predict_proba") else model.predict
    expected = np.asarray(predict(x), np.float64)
    scores = proto.graph.output[-1].name  # before it comes a classifier's label
    ends = {scores: expected.reshape(len(x), -1)}
    return _read(proto.SerializeToString(), type(last).__name__, output or scores, {"X": x}, ends)


# --- torch ---


def _torch(purpose: str, extra: str) -> Any:
    """The package, if its exporter can run."""
    torch = need("torch", extra, purpose)
    need("onnxscript", extra, purpose)
    return torch


def _arguments(module: Any, count: int) -> list[str]:
    """What a module calls its first arguments."""
    kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    parameters = inspect.signature(module.forward).parameters.values()
    names = [parameter.name for parameter in parameters if parameter.kind in kinds][:count]
    return names + [f"input_{i}" for i in range(len(names), count)]


def _two_samples(torch: Any, value: Any) -> Any:
    """Two samples of an example: the exporter takes an axis with one place for one that always has one."""
    if not isinstance(value, torch.Tensor):
        array = as_array("example", value)
        value = torch.as_tensor(array, dtype=torch.get_default_dtype() if array.dtype.kind == "f" else None)
    if value.ndim < 2 or not len(value):
        raise InputError(
            f"example has shape {tuple(value.shape)}; expected a batch axis of one sample or more, and others"
        )
    return (torch.cat([value, value]) if len(value) == 1 else value[:2]).detach()


@contextlib.contextmanager
def _evaluating(module: Any) -> Iterator[None]:
    """Evaluation mode for this block; afterwards each part has its own mode again."""
    modes = [(part, part.training) for part in module.modules()]
    module.eval()
    try:
        yield
    finally:
        for part, training in modes:
            part.training = training


def _exported(
    torch: Any, module: Any, call: Callable[..., Any], tensors: Mapping[str, Any], output: str | None
) -> Network:
    """The network that `call` computes from tensors with the weights of a module."""

    class Exported(torch.nn.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.module = module
            self.training = False

        def forward(self, *inputs: Any) -> tuple[Any, ...]:
            return tuple(_by_name(torch, call(*inputs)).values())

    with torch.no_grad():
        results = _by_name(torch, call(*tensors.values()))
    # The array of an output must not be called like an input.
    expected = {
        f"{name}_output" if name in tensors else name: _array(torch, t) for name, t in results.items()
    }
    with tempfile.TemporaryDirectory(prefix="lrpfast-") as folder:
        path = Path(folder) / "model.onnx"
        try:
            # The older exporter (dynamo=False) is quicker, but writes one branch down as if it were always taken.
            with _quiet():
                program = torch.onnx.export(
                    Exported(), tuple(tensors.values()), dynamo=True, verbose=False,
                    input_names=list(tensors), output_names=list(expected),
                    dynamic_shapes=(tuple({0: torch.export.Dim.AUTO} for _ in tensors),),
                )  # fmt: skip
                _name_nodes(program)
                program.save(path, external_data=True)
        except Exception as error:  # whatever classes the exporter has for the reasons
            raise ModelError(
                f"torch cannot export this {type(module).__name__} to ONNX: {_reason(error.__cause__ or error)}; "
                "torch.export must be able to trace it, so what it does must not depend on the values of its inputs"
            ) from error
        feeds = {name: _array(torch, tensor) for name, tensor in tensors.items()}
        return _read(path, type(module).__name__, output, feeds, expected)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Nothing is printed and nobody warned in this block."""
    with (
        contextlib.redirect_stdout(io.StringIO()),
        contextlib.redirect_stderr(io.StringIO()),
        warnings.catch_warnings(),
    ):
        warnings.simplefilter("ignore")
        yield


def _by_name(torch: Any, results: Any, prefix: str = "output") -> dict[str, Any]:
    """The tensors that a module returned, by name."""
    if isinstance(results, torch.Tensor):
        return {prefix: results}
    if isinstance(results, Mapping):
        parts = {str(key): value for key, value in results.items()}
    elif isinstance(results, (list, tuple)):
        keys = getattr(results, "_fields", [f"{prefix}_{i}" for i in range(len(results))])
        parts = dict(zip(keys, results, strict=True))
    else:
        raise ModelError(
            f"it returns {type(results).__name__}; expected tensors, or a sequence or mapping of them"
        )
    found: dict[str, Any] = {}
    for name, value in parts.items():
        if value is not None:
            found.update(_by_name(torch, value, name))
    return found


def _name_nodes(program: Any) -> None:
    """Call the nodes of an exported program by the modules that they come from."""
    for node in program.model.graph:
        scopes = re.findall(r"'([^']*)'", node.metadata_props.get(SCOPES, ""))
        path = scopes[-2].removeprefix("module").lstrip(".") if len(scopes) > 1 else ""
        if path:
            node.name = f"{path}/{node.op_type}"


def _array(torch: Any, tensor: Any) -> Array:
    tensor = tensor.detach().cpu()
    array: Array = (tensor.float() if tensor.dtype == torch.bfloat16 else tensor).numpy()
    return array


# --- Keras ---


def _keras_example(keras: Any, model: Any, example: Any) -> tuple[list[str], Any]:
    """The names of a model's inputs, and an example of them, in one structure."""
    structure = None
    with contextlib.suppress(AttributeError, ValueError):  # of models that do not know their inputs
        structure = model.inputs[0] if isinstance(model, keras.Sequential) else model.input
    described = example if structure is None else structure
    if described is None:
        raise InputError(f"{model.name!r} does not know the shapes of its inputs; give an example=")
    if isinstance(described, Mapping):
        names = keras.tree.flatten({name: str(name) for name in described})
    else:
        flat = keras.tree.flatten(described)
        names = [getattr(each, "name", None) or f"input_{i}" for i, each in enumerate(flat)]
    if example is None:
        example = keras.tree.map_structure(_drawn, structure)
    return names, example


def _drawn(tensor: Any) -> Array:
    """Two samples for an input of a Keras model: noise, or zeros for integers."""
    shape = tensor.shape[1:]
    if None in shape:
        raise InputError(
            f"the input {tensor.name!r} has shape {tensor.shape}, open behind the batch axis; give an example="
        )
    noise = np.random.default_rng(0).random((2, *shape))
    return noise.astype(tensor.dtype)


# --- all ---


def _read(
    source: Any, name: str, output: str | None, feeds: Mapping[str, Array], expected: Mapping[str, Array]
) -> Network:
    """The network of an exported model, whose prediction is what the framework's is.

    Parameters
    ----------
    source : path or bytes
        Not needed any more afterwards: the network is not told where it came from.
    name : str
    output : str, optional
    feeds : mapping of str to array
        The example.
    expected : mapping of output name to array
        What the framework predicts for it.
    """
    loaded = load_model(source, None, output, label=f"the exported {name}")
    network = Network(loaded.graph, name, labels=loaded.labels, notes=loaded.notes)
    if loaded.output in expected:  # and not the scores of a label
        wanted = np.asarray(expected[loaded.output], np.float64)
        found = network.predict({name: feeds[name] for name in network.inputs})
        largest = float(np.abs(wanted).max())
        if found.shape != wanted.shape or float(np.abs(found - wanted).max()) > TOLERANCE * largest:
            raise ModelError(
                f"the network that was made of this {name} predicts something else: for an example {found!r:.200} "
                f"instead of {wanted!r:.200}; a bug in the exporter, or in lrpfast"
            )
    return network


def _reason(error: BaseException) -> str:
    """The first line of an error."""
    line, *_ = str(error).strip().splitlines() or [type(error).__name__]
    return line
