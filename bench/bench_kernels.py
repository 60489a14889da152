"""Each kernel on layers of well-known networks, on one thread, on every compiled backend.

`GF/s` counts the operations that the definition spends, zeros included, so skipping those, or Winograd's
algorithm, shows as a higher rate; `GB/s` counts each array once. Which SIMD target runs: the environment variable
LRPFAST_TARGET.
"""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy

import numpy as np
import pytest
from kernel_layers import CALLS, Arguments, Array, arrays_of, make_call
from pytest_benchmark.fixture import BenchmarkFixture

from lrpfast import backends
from lrpfast.backends import numpy_

# The third backend, numpy, is the definition: it gives the answers and need not be fast.
COMPILED = tuple(name for name in ("native", "numba") if not backends.available()[name])


def outputs_of(arguments: Arguments) -> dict[str, Array]:
    """What a call writes."""
    end = arguments.get("end")
    if end is None:
        return {name: arguments[name] for name in ("out", "winners") if name in arguments}
    found = {"out": end.out, "sums": end.sums, "ledger": end.quotient and end.quotient.ledger}
    return {name: array for name, array in found.items() if array is not None}


@pytest.mark.parametrize("backend", COMPILED)
@pytest.mark.parametrize(
    ("kernel", "layer", "ending"), CALLS, ids=["-".join(filter(None, call)) for call in CALLS]
)
def test_kernel(
    benchmark: BenchmarkFixture,
    record_property: Callable[[str, object], None],
    kernel: str,
    layer: str,
    ending: str,
    backend: str,
) -> None:
    module = backends.get(backend)
    arguments, operations = make_call(kernel, layer, ending, module.LANES)
    defined = deepcopy(arguments)
    getattr(numpy_, kernel)(**defined)

    benchmark.group = f"{kernel} {layer} {ending}".strip()
    benchmark.extra_info["backend"] = backends.describe(module)
    with module.limit_threads(1):
        # The call whose answer counts also warms up: Numba compiles here. Later ones add to the ledger.
        getattr(module, kernel)(**arguments)
        answer = deepcopy(outputs_of(arguments))
        benchmark(getattr(module, kernel), **arguments)
    for name, expected in outputs_of(defined).items():
        largest = np.abs(expected).max()
        np.testing.assert_allclose(answer[name], expected, rtol=0, atol=1e-5 * largest, err_msg=name)

    if benchmark.stats:  # there are none under --benchmark-disable
        size = sum(array.nbytes for array in arrays_of(arguments))
        for unit, count in (("GF/s", operations), ("GB/s", size)):
            rate = count / benchmark.stats.stats.median / 1e9
            benchmark.extra_info[unit] = rate
            record_property(unit, rate)
