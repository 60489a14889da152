"""What `test_processes.py` runs: ``python pool_workers.py METHOD BACKEND``."""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import sys
import warnings
from functools import cache, partial

import numpy as np
from toy_networks import IMAGES, cnn

import lrpfast


@cache
def explainer(backend: str) -> lrpfast.Explainer:
    return lrpfast.Explainer(cnn(), backend=backend)


def answer(backend: str, i: int) -> str:
    """An explanation, to the bit."""
    explanation = explainer(backend)(np.repeat(IMAGES[i : i + 1], 2, axis=0), i % 5)
    return hashlib.sha256(explanation.relevance.tobytes() + explanation.output.tobytes()).hexdigest()


def main(method: str, backend: str) -> None:
    warnings.simplefilter("ignore", DeprecationWarning)  # Python warns of forks in programs with threads
    lrpfast.set_num_threads(2)
    explained = partial(answer, backend)
    before = list(map(explained, range(6)))
    with multiprocessing.get_context(method).Pool(2) as pool:
        found = pool.map(explained, range(6))
    print(json.dumps({"before": before, "pool": found, "after": list(map(explained, range(6)))}))


if __name__ == "__main__":
    main(*sys.argv[1:])
