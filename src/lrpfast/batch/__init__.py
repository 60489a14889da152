"""Production jobs: many inputs explained into a Parquet data set, a Zarr array or heatmaps; see docs/batch.md.

>>> import lrpfast
>>> network = lrpfast.load("model.onnx")                                   # doctest: +SKIP
>>> summary = lrpfast.batch.run(network, "photos/", "out/", target="top3")   # doctest: +SKIP
>>> summary.failed                                                        # doctest: +SKIP
0

A job that was stopped, in whatever way, goes on when `run` is called again with the same arguments.
"""

from .drift import Drift, Profile, drift
from .job import run
from .reports import Summary

__all__ = ["Drift", "Profile", "Summary", "drift", "run"]
