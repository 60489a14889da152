"""What the machine can do at most, measured with NumPy and the kernels of lrpfast.

    python bench/roofline.py
    python bench/roofline.py --threads 1 --json roofline.json --update docs/performance.md

products
    of two matrices by NumPy's BLAS, and of a 1×1 convolution by a kernel of lrpfast, with arrays that stay in a
    cache near to the core: the rates that can be reached, which are less than what the data sheet promises;
copies
    of arrays that fit into the second cache, into the third, and into neither: bytes read and bytes written.

A layer takes no less than the larger of operations / products and bytes / copies. No time is asserted; the
answers are.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # read when NumPy is imported; threads are ours

import numpy as np
from compare import positive
from kernel_layers import aligned, conv
from report import listed, markdown, update

from lrpfast import backends
from lrpfast.backends import numpy_
from lrpfast.benchmark import machine

COPIES = {"copies, 512 KiB": 1 << 18, "copies, 8 MiB": 1 << 22, "copies, 512 MiB": 1 << 28}
"""Bytes of each of two arrays. The names give both."""

ROUNDS, SECONDS = 5, 0.05
"""The best of so many rounds of that length counts: what else the machine does only takes away."""


def best_rate(call: Callable[[], object], amount: float) -> float:
    """So much at each call: how much per second."""
    best = 0.0
    call()
    for _ in range(ROUNDS):
        calls, began = 0, time.perf_counter()
        while (passed := time.perf_counter() - began) < SECONDS or calls == 0:
            call()
            calls += 1
        best = max(best, calls * amount / passed)
    return best


def shared(call: Callable[[Any], object], pieces: Sequence[Any]) -> Callable[[], object]:
    """Do something with each piece, in a thread of its own if there are several."""
    if len(pieces) == 1:
        return lambda: call(pieces[0])
    pool = ThreadPoolExecutor(len(pieces))
    return lambda: list(pool.map(call, pieces))


def matrix_rate(threads: int) -> float:
    """Operations per second of NumPy's products of matrices, one for each thread."""
    side = 768
    rng = np.random.default_rng(0)
    factors = [rng.standard_normal((2, side, side), dtype=np.float32) for _ in range(threads)]
    results = [np.empty((side, side), np.float32) for _ in range(threads)]

    def multiply(i: int) -> None:
        np.matmul(*factors[i], out=results[i])

    rate = best_rate(shared(multiply, range(threads)), 2 * side**3 * threads)
    column = factors[0][0].astype(np.float64) @ factors[0][1][:, 0]
    np.testing.assert_allclose(results[0][:, 0], column, rtol=0, atol=1e-5 * np.abs(column).max())
    return rate


def product_rate(threads: int) -> float:
    """Operations per second of a 1×1 convolution, 256 channels from 128 at 28 × 28 places."""
    backend = backends.get()
    arguments, operations = conv("conv_forward", "relu", backend.LANES, 128, 256, 28, 1, 1)
    with backend.limit_threads(threads):
        backend.conv_forward(**arguments)
        answer = arguments["end"].out.copy()
        numpy_.conv_forward(**arguments)
        np.testing.assert_allclose(answer, arguments["end"].out, rtol=0, atol=1e-5 * answer.max())
        return best_rate(lambda: backend.conv_forward(**arguments), operations)


def copy_rate(nbytes: int, threads: int) -> float:
    """Bytes read and written per second, each thread copying a part."""
    source = aligned(np.arange(nbytes // 4, dtype=np.float32))
    copy = aligned(np.zeros_like(source))
    pieces = list(zip(np.array_split(copy, threads), np.array_split(source, threads), strict=True))
    repeats = max(1, (1 << 25) // nbytes)  # so that handing out work takes little of the time

    def share(piece: Any) -> None:
        for _ in range(repeats):
            np.copyto(*piece)

    rate = best_rate(shared(share, pieces), 2 * nbytes * repeats)
    np.testing.assert_array_equal(copy, source)
    return rate


def measure(threads: Sequence[int]) -> dict[str, dict[int, float]]:
    """For each thing measured and each number of threads, how much per second."""
    rates = {
        "products of matrices, NumPy": {n: matrix_rate(n) for n in threads},
        "products of a 1×1 convolution": {n: product_rate(n) for n in threads},
    }
    for name, nbytes in COPIES.items():
        rates[name] = {n: copy_rate(nbytes, n) for n in threads}
    return rates


def table(setting: dict[str, Any], rates: dict[str, dict[int, float]]) -> list[str]:
    """Lines of Markdown."""
    threads = list(next(iter(rates.values())))
    columns = ("at most", *(f"{n} thread{'s' * (n > 1)}" for n in threads))
    lines = [
        (
            name,
            *(
                f"{rate / 1e9:.0f} {'GF/s' if name.startswith('products') else 'GB/s'}"
                for rate in by_threads.values()
            ),
        )
        for name, by_threads in rates.items()
    ]
    said = f"{setting['cpu']} ({setting['cpus']} CPUs), {setting['backend']}; the best of {ROUNDS} rounds."
    return [*markdown(columns, 1, lines), "", *listed([said])]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument(
        "--threads", nargs="+", type=positive, metavar="N", default=[1, 2], help="default: 1 2"
    )
    parser.add_argument("--json", type=Path, metavar="OUT", help="write the rates to this file")
    parser.add_argument(
        "--update", nargs="+", type=Path, metavar="FILE", default=[], help="put the table into documents"
    )
    options = parser.parse_args()
    setting, rates = machine(), measure(options.threads)
    lines = table(setting, rates)
    print(*lines, sep="\n")
    if options.json:
        options.json.write_text(json.dumps({"machine": setting, "rates": rates}, indent=1) + "\n")
    for path in options.update:
        update(path, {"bench-roofline": lines})


if __name__ == "__main__":
    main()
