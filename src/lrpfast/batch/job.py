"""A job: all inputs of a source explained and written, from where an earlier run of it stopped."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from ..backends import get_num_threads
from ..composites import Composite
from ..errors import InputError
from ..ledger import BLOWUP
from ..network import Network
from ..preprocess import PREPROCESSINGS, Preprocessing
from .decoding import Decoder
from .encoding import Encoding, Kept
from .explaining import prepare_explaining
from .inputs import Shapes, by_name, shapes_of
from .parts import Dataset, digest
from .pipeline import BatchSize
from .places import Place
from .reports import Summary, read_reference, write_report
from .settings import array_digest, enter, locked
from .sinks import check_drawable
from .sources import check_apart, open_source
from .stores import zarr_package
from .tables import Columns
from .work import Job, Progress

PART_BYTES, PART_ROWS = 2**27, 4096
"""A part has about so many bytes of relevance, and at most so many rows, unless something else is asked for."""


def run(
    network: Network,
    source: str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    composite: str | Composite = "epsilon_plus_flat",
    target: str = "argmax",
    init: str | None = None,
    labels: Sequence[str] | None = None,
    preprocessing: Preprocessing = PREPROCESSINGS["imagenet"],
    column: str | Mapping[str, str] | None = None,
    id_column: str | None = None,
    top_k: int = 0,
    zarr: str | None = None,
    png: str | None = None,
    batch_size: int | None = None,
    part_rows: int | None = None,
    max_memory: int | str | None = None,
    threads: int | None = None,
    workers: int | None = None,
    ray: str | None = None,
    backend: str | None = None,
    dtype: Any = np.float32,
    on_blowup: str = "warn",
    blowup: float = BLOWUP,
    reference: str | os.PathLike[str] | None = None,
    progress: Progress | None = None,
) -> Summary:
    """Explain all inputs of a source; called again after it was stopped, go on.

    Parameters
    ----------
    network : Network
        Of known input shape.
    source : path or URL
        A folder, a pattern, a list of paths (.txt), an ``.npy`` or ``.npz`` file, a Parquet file or a Zarr
        array; what each has to hold where the network has several inputs, docs/batch.md says.
    out : path or URL
        Folder of the Parquet data set.
    composite : str or Composite
    target : str, default "argmax"
        See `lrpfast.batch.targets`.
    init : str, optional
        As for an `Explainer`'s call.
    labels : sequence of str, optional
        Names of the outputs. Default: the network's.
    preprocessing : Preprocessing
        How pictures become inputs.
    column : str, or mapping of input name to str, optional
        Columns of tables that hold the inputs; of several inputs by default those of their names.
    id_column : str, optional
        The column that says what the inputs are called.
    top_k : int, default 0
        Keep only so many of the strongest elements of the relevance of each input in the rows; 0 keeps all of it.
    zarr : str, optional
        A Zarr array for the relevance, which then is in the rows only as `top_k` says; a group of arrays if there
        are several inputs.
    png : str, optional
        A folder for heatmaps.
    batch_size : int, optional
        Samples that each stream explains at once. Default: found while running, within the memory.
    part_rows : int, optional
        Inputs per part; what a job loses if it is killed. Default: about 128 MiB of relevance, at most 4096.
    max_memory : int or str, optional
        Limit for the arrays of all runs and what waits before and behind them. Default: 192 MiB for each thread.
    threads : int, optional
        Threads that explain; each has batches of its own if there is memory for that. Default: all.
    backend, dtype : optional
        As for `Explainer`.
    on_blowup, blowup : optional
        As for `Explainer`; but "warn" counts the inputs instead (`Summary.blowups`), and "error" makes error rows.
    workers : int, optional
        Threads that decode and draw. Default: as many as may compute. With `ray`: actors; default: as many as
        the cluster has CPUs for.
    ray : str, optional
        Work on the Ray cluster at ``HOST:PORT``; "auto" is the one that ``RAY_ADDRESS`` names or that runs on this
        machine, or else one that is started for the job, as "local" always is. Each actor has `threads` threads,
        1 by default, and the limit `max_memory` for itself. Source and outputs have to be where all nodes see them.
    reference : path or URL, optional
        Report, or folder, of an earlier job to compare with.
    progress : callable, optional
        Told (done, all, failed) after each batch. With `ray`, what was written of a part is not done any more when
        the actor that made it dies.

    Returns
    -------
    Summary

    Raises
    ------
    MissingPackageError
        The extra ``batch``, or ``ray``, is not installed.
    InputError
        The source, the target or an option is unusable. An input that is unusable makes a row with its
        error instead.
    OutputError
        `out` cannot be written, is in use, or holds a job with other settings or other inputs.
    ClusterError
        There is no such cluster, or it cannot do this job.
    """
    options = Options(
        composite, target, init, labels, preprocessing, column, id_column, top_k, zarr, png, batch_size, part_rows,
        max_memory, threads, workers, backend, dtype, on_blowup, blowup,
    )  # fmt: skip
    maker = None
    if ray is not None:
        from .cluster import on_cluster

        maker = on_cluster(ray, workers)
        options = replace(options, threads=threads or 1, workers=threads or 1)
    before = None if reference is None else read_reference(reference, shapes_of(network))
    job = prepared(network, source, out, options)
    place = job.dataset.place
    place.make_folder()
    with locked(place):
        enter(place, job.settings, job.dataset.manifest)
        place.sweep()
        pending = job.pending()
        resumed = len(job.source) - job.inputs(pending)
        start = time.monotonic()
        job.work(pending, progress, maker)
        seconds = time.monotonic() - start
        summary = Summary.of(
            job.facts(), job.settings, job.dataset.manifest, len(job.source), resumed, seconds, before
        )
        write_report(place, summary)
    return summary


@dataclass(frozen=True)
class Options:
    """What `run` may be told of a job, under the same names."""

    composite: str | Composite = "epsilon_plus_flat"
    target: str = "argmax"
    init: str | None = None
    labels: Sequence[str] | None = None
    preprocessing: Preprocessing = PREPROCESSINGS["imagenet"]
    column: str | Mapping[str, str] | None = None
    id_column: str | None = None
    top_k: int = 0
    zarr: str | None = None
    png: str | None = None
    batch_size: int | None = None
    part_rows: int | None = None
    max_memory: int | str | None = None
    threads: int | None = None
    workers: int | None = None
    backend: str | None = None
    dtype: Any = np.float32
    on_blowup: str = "warn"
    blowup: float = BLOWUP

    def __post_init__(self) -> None:
        for name, least in (("batch_size", 1), ("part_rows", 1), ("workers", 1), ("top_k", 0)):
            value = getattr(self, name)
            if value is not None and value < least:
                raise InputError(f"{name} is {value}; expected a whole number ≥ {least}")


def prepared(
    network: Network, source: str | os.PathLike[str], out: str | os.PathLike[str], options: Options
) -> Job:
    """Everything that a job needs, checked; nothing is written yet.

    Some parts of it (`Job.work`) may be done by one process and some by others that prepared the same, if one of
    them has entered the folder before (`settings.enter`) and none does what another does.

    Parameters
    ----------
    network, source, out
        As for `run`.
    options : Options

    Raises
    ------
    MissingPackageError, InputError
        As `run`.
    """
    explaining = prepare_explaining(
        network, options.composite, target=options.target, init=options.init, labels=options.labels,
        threads=options.threads, backend=options.backend, dtype=options.dtype, max_memory=options.max_memory,
        on_blowup=options.on_blowup, blowup=options.blowup,
    )  # fmt: skip
    explainer, target, manifest = explaining.explainer, explaining.target, explaining.manifest
    shapes = shapes_of(network)
    if options.png is not None:
        check_drawable(shapes)
    if options.zarr is not None:
        zarr_package()
    check_apart(source, [url for url in (out, options.zarr, options.png) if url is not None])
    found = open_source(
        source,
        Decoder(shapes, options.preprocessing),
        Columns(options.column, options.id_column, target.column),
    )
    kept = Kept(options.zarr is None and not options.top_k, options.top_k)
    rows = options.part_rows or _part_rows(kept, shapes, explainer.dtype, target.ranks)
    settings = {
        "source": os.fspath(source), "model": manifest["model"]["sha256"],
        "composite": manifest["composite"], "rules": manifest["rules"],
        "arrays": array_digest(explainer.composite),
        **{key: manifest[key] for key in ("target", "init", "on_blowup", "blowup")},
        "labels": digest(target.names) if target.names else None,
        "preprocessing": asdict(options.preprocessing), "column": options.column, "id_column": options.id_column,
        "top_k": options.top_k, "zarr": options.zarr, "png": options.png, "part_rows": rows,
        "dtype": str(explainer.dtype), "lrpfast": manifest["versions"]["lrpfast"],
    }  # fmt: skip
    explaining = explaining.shared_out(len(found))
    counted = explaining.policy.threshold if options.on_blowup == "warn" else math.inf
    return Job(
        explaining, found,
        Dataset(Place.at(out), Encoding(kept, explainer.dtype, shapes, counted), manifest),
        rows, BatchSize(options.batch_size, explaining.streams.most), options.workers or get_num_threads(),
        _absolute(options.zarr), _absolute(options.png), settings,
    )  # fmt: skip


def _absolute(url: str | None) -> str | None:
    """A path or URL that means the same wherever the process is."""
    return None if url is None else str(Place.at(url))


def _part_rows(kept: Kept, shapes: Shapes, dtype: np.dtype[Any], ranks: int) -> int:
    """Inputs per part, by the size of what rows keep."""
    sizes = [math.prod(shape) for shape in by_name(shapes).values()]
    whole = sum(sizes) * dtype.itemsize if kept.whole else 0
    size = max(1, whole + sum(8 * min(kept.top, size) for size in sizes))
    return max(1, min(PART_ROWS, PART_BYTES // (size * ranks)))
