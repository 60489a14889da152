"""Where kernels run, and whether they say what their definition says."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
from conftest import BACKENDS
from kernel_cases import Array, Case

from lrpfast import backends
from lrpfast.backends import numpy_

TOLERANCE = {"float32": 5e-6, "float64": 1e-13}


def _runners() -> list[str]:
    """Each backend that is tested, and the native one once for every SIMD target of this machine."""
    targets = backends.get("native").targets() if "native" in BACKENDS else ()
    return [f"native {target}" for target in targets] + [name for name in BACKENDS if name != "native"]


RUNNERS = _runners()
NATIVE = [runner for runner in RUNNERS if runner.startswith("native")]


@contextmanager
def running(runner: str) -> Iterator[Any]:
    """The backend's module, with its SIMD target set."""
    name, _, target = runner.partition(" ")
    module = backends.get(name)
    before = module.target() if target else ""
    if target:
        module.set_target(target)
    try:
        yield module
    finally:
        if target:
            module.set_target(before)


def assert_defined(case: Case, module: Any, dtype: str) -> None:
    """The call on a backend, in a dtype, has the results of its definition in float64."""
    assert_close(case.in_dtype(dtype).run(module), case.run(numpy_), case, dtype)


def assert_close(found: Mapping[str, Array], expected: Mapping[str, Array], case: Case, dtype: str) -> None:
    assert found.keys() == expected.keys()
    for path, value in expected.items():
        scale = max(1.0, _largest(value), _summed(path, expected, case))
        np.testing.assert_allclose(found[path], value, rtol=0, atol=TOLERANCE[dtype] * scale, err_msg=path)
        if path in ("end.out", "end.kept") and value.ndim > 2:
            unused = found[path][beyond(case, value)]
            assert not unused.any(), "lanes beyond the last channel are not zero"


def _largest(values: Array) -> float:
    return float(np.max(np.abs(values[np.isfinite(values)]), initial=0))


def _summed(path: str, expected: Mapping[str, Array], case: Case) -> float:
    """How much was added up, and so rounded."""
    if path == "end.sums":
        return float(np.nansum(np.abs(expected["end.out"])))
    if path == "end.quotient.ledger":
        quotient = case.arguments["end"].quotient
        biased = 0.0 if quotient.bias is None else _largest(quotient.bias) * np.abs(expected["end.out"]).sum()
        return float(abs(quotient.scale) * np.abs(quotient.r).sum() + biased)
    return 0.0


def beyond(case: Case, out: Array) -> Array:
    """Where blocked arrays have no channel: where no array of the call but the results has anything."""
    end, w = case.arguments["end"], case.arguments.get("w")
    biases = [end.bias, end.quotient and end.quotient.bias]
    counts = [len(bias) for bias in biases if bias is not None]
    if case.kernel == "reorder":
        counts = [case.arguments["channels"]]
    if case.kernel == "affine" or case.kernel.startswith("depthwise"):
        counts = [len(w)]
    if case.kernel.startswith("conv"):
        counts = [len(w) if case.kernel == "conv_forward" else w.shape[1] * case.arguments["groups"]]
    channels = counts[0] if counts else out.shape[1] * out.shape[-1]
    return numpy_.blocked(np.ones((len(out), channels, *out.shape[2:-1])), out.shape[-1]) == 0
