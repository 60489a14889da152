"""A job: all inputs of a source explained and written, from where an earlier run of it stopped."""

from __future__ import annotations

import contextlib
import math
import os
import time
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from ..backends import get_num_threads
from ..composites import Composite
from ..errors import InputError, OutputError
from ..ledger import BLOWUP
from ..network import Network
from ..preprocess import PREPROCESSINGS, Preprocessing
from .decoding import Decoder
from .explaining import Explaining, Row, Sample, prepare_explaining
from .items import Item, Source
from .parts import Dataset, Facts, digest
from .pipeline import BatchSize, staged
from .places import Place
from .reports import Summary, read_reference, write_report
from .rows import Kept, RowForm
from .settings import array_digest, enter, locked
from .sinks import PictureSink, Sinks, check_drawable, open_zarr
from .sources import check_apart, open_source
from .tables import Columns
from .writing import Batch, Writer, Written

PART_BYTES, PART_ROWS = 2**27, 4096
"""A part has about so many bytes of relevance, and at most so many rows, unless something else is asked for."""

MEMORY, MOST = 2**28, 256
"""Without a limit of memory, batches take so many bytes at most, and have so many samples."""

UNDER_WAY = 8
"""Up to so many batches' inputs and results are in memory, between the threads."""

Progress = Callable[[int, int, int], None]
"""Told after each batch: inputs done, all inputs, inputs that failed in this run."""


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
    column: str | None = None,
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
        With one input, of known shape.
    source : path or URL
        A folder, a pattern, a list of paths (.txt), an ``.npy`` or ``.npz`` file, a Parquet file or a Zarr
        array.
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
    column, id_column : str, optional
        Columns of tables: the inputs, and what they are called.
    top_k : int, default 0
        Keep only so many of the strongest elements of the relevance in the rows; 0 keeps all of it.
    zarr : str, optional
        A Zarr array for the relevance, which then is in the rows only as `top_k` says.
    png : str, optional
        A folder for heatmaps.
    batch_size : int, optional
        Samples that are explained at once. Default: found while running, within the memory.
    part_rows : int, optional
        Inputs per part; what a job loses if it is killed. Default: about 128 MiB of relevance, at most 4096.
    max_memory : int or str, optional
        Limit for the arrays of a run and what waits before and behind it.
    threads, backend, dtype : optional
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
        Told (done, all, failed) after each batch.

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
    for name, value, least in (
        ("batch_size", batch_size, 1), ("part_rows", part_rows, 1), ("workers", workers, 1), ("top_k", top_k, 0)
    ):  # fmt: skip
        if value is not None and value < least:
            raise InputError(f"{name} is {value}; expected a whole number ≥ {least}")
    threads, decoders = _threads(threads, workers, ray)
    explaining = prepare_explaining(
        network, composite, target=target, init=init, labels=labels, threads=threads, backend=backend, dtype=dtype,
        max_memory=max_memory, on_blowup=on_blowup, blowup=blowup,
    )  # fmt: skip
    explainer, wanted, manifest = explaining.explainer, explaining.target, explaining.manifest
    shape = network.input_shape
    before = None if reference is None else read_reference(reference, shape)
    if png is not None:
        check_drawable(shape)
    check_apart(source, [url for url in (out, zarr, png) if url is not None])
    found = open_source(source, Decoder(shape, preprocessing), Columns(column, id_column, wanted.column))
    kept = Kept(whole=zarr is None and not top_k, top=min(top_k, math.prod(shape)))
    rows = part_rows or _part_rows(kept, shape, explainer.dtype, wanted.ranks)
    settings = {
        "source": os.fspath(source), "model": manifest["model"]["sha256"],
        "composite": manifest["composite"], "rules": manifest["rules"],
        "arrays": array_digest(explainer.composite),
        **{key: manifest[key] for key in ("target", "init", "on_blowup", "blowup")},
        "labels": digest(wanted.names) if wanted.names else None,
        "preprocessing": asdict(preprocessing), "column": column, "id_column": id_column, "top_k": kept.top,
        "zarr": zarr, "png": png, "part_rows": rows, "dtype": str(explainer.dtype),
        "lrpfast": manifest["versions"]["lrpfast"],
    }  # fmt: skip
    place = Place.at(out)
    place.make_folder()
    with locked(place):
        enter(place, settings, manifest)
        place.sweep()
        counted = explaining.policy.threshold if on_blowup == "warn" else math.inf
        job = Job(
            explaining, Dataset(place, RowForm(kept, explainer.dtype, shape), manifest, counted),
            len(found), rows, BatchSize(batch_size, most_samples(explaining)),
            decoders, _absolute(zarr), _absolute(png), settings,
        )  # fmt: skip
        start = time.monotonic()
        resumed = _worked(job, found, progress, ray, workers)
        seconds = time.monotonic() - start
        summary = Summary.of(job.facts(), settings, manifest, len(found), resumed, seconds, before)
        write_report(place, summary)
    return summary


def _worked(job: Job, source: Source, progress: Progress | None, ray: str | None, actors: int | None) -> int:
    """Do what is not done yet; returns how many inputs were."""
    pending = list(job.pending(source))
    done = resumed = job.inputs - sum(len(job.stretch(number)) for number in pending)
    failed = 0
    tell = progress or (lambda *_: None)
    tell(done, job.inputs, failed)
    sinks = job.sinks(begun=resumed > 0)
    for url in (job.zarr, job.png):
        if url is not None:
            Place.at(url).sweep()
    if ray is None:
        parts = job.work(source, pending, sinks)
    else:
        from .cluster import work_on_cluster

        parts = work_on_cluster(job, source, pending, ray, actors)
    with contextlib.closing(parts) as work:
        for written in work:
            done += written.inputs
            failed += written.failed
            tell(done, job.inputs, failed)
    return resumed


def _part_rows(kept: Kept, shape: tuple[int, ...], dtype: np.dtype[Any], ranks: int) -> int:
    """Inputs per part, by the size of what rows keep."""
    size = math.prod(shape) * dtype.itemsize if kept.whole else 8 * kept.top + 1
    return max(1, min(PART_ROWS, PART_BYTES // (size * ranks)))


def _threads(threads: int | None, workers: int | None, ray: str | None) -> tuple[int | None, int]:
    """How many compute, and how many decode and draw, in each process; None for as many as there are CPUs."""
    if ray is None:
        return threads, workers or get_num_threads()
    return threads or 1, threads or 1


def _absolute(url: str | None) -> str | None:
    """A path or URL that means the same wherever the process is."""
    return None if url is None else str(Place.at(url))


def most_samples(explaining: Explaining) -> int:
    """How many samples a batch may have for its memory."""
    explainer, target = explaining.explainer, explaining.target
    limit = explainer.max_memory or MEMORY
    inputs = math.prod(explainer.network.input_shape) * explainer.dtype.itemsize
    runs = explainer.memory_per_sample * (1 if target.ranks == 1 else 2)
    return max(1, min(MOST, limit // (runs + UNDER_WAY * inputs * (1 + target.ranks))))


@dataclass(frozen=True, eq=False)
class Job:
    """What there is to be done, and with what; can be pickled, to be done elsewhere.

    Attributes
    ----------
    explaining : Explaining
    dataset : Dataset
    inputs : int
        How many the source has.
    part_rows : int
    batch_size : BatchSize
    workers : int
        Threads that decode and draw.
    zarr, png : str, optional
    settings : mapping
    """

    explaining: Explaining
    dataset: Dataset
    inputs: int
    part_rows: int
    batch_size: BatchSize
    workers: int
    zarr: str | None
    png: str | None
    settings: Mapping[str, Any]

    def here(self) -> Job:
        """The job in the process that was handed it: parts say what made them."""
        return replace(self, dataset=replace(self.dataset, manifest=self.explaining.manifest))

    def work(self, source: Source, numbers: Iterable[int], sinks: Sinks) -> Generator[Written, None, None]:
        """Make parts, batch by batch; what was begun is given up if the iterator is closed early."""
        pool, compute, write = (ThreadPoolExecutor(n, "lrpfast-batch") for n in (self.workers, 1, 1))
        writer = Writer(self.dataset, sinks, pool)
        try:
            samples = staged(self.explaining.decoded, self._items(source, numbers), pool, self._ahead)
            explained = self.batch_size.timed(self._explained)
            rows = staged(explained, self._batches(samples), compute, lambda: 1)
            yield from staged(writer.write, rows, write, lambda: 1)
        except BaseException:
            # Somebody waits for this to end, and a kernel may take longer: nobody waits for that.
            with contextlib.suppress(RuntimeError):
                wait([write.submit(writer.discard)], timeout=0.5)
            raise
        finally:
            for executor in (pool, compute, write):
                executor.shutdown(wait=False, cancel_futures=True)

    def sinks(self, begun: bool) -> Sinks:
        """What is asked for besides the rows, made or opened.

        Parameters
        ----------
        begun : bool
            Whether some of the job is done, so that they have to be there.

        Raises
        ------
        OutputError
            They cannot be written, belong to something else, or are gone.
        """
        form, ranks, manifest = self.dataset.form, self.explaining.target.ranks, self.dataset.manifest
        zarr = pictures = None
        if self.zarr is not None:
            about = {"settings": self.settings, "manifest": manifest}
            whole = (self.inputs, *form.shape)
            zarr = open_zarr(self.zarr, whole, ranks, form.dtype, self.part_rows, about, begun)
        if self.png is not None:
            folder = Place.at(self.png)
            enter(folder, self.settings, manifest, begun)
            pictures = PictureSink(folder, ranks, manifest)
        return Sinks(zarr, pictures)

    def facts(self) -> Iterator[Facts]:
        """Those of all parts.

        Raises
        ------
        OutputError
            A part is gone, or not whole.
        """
        for number in range(self.parts):
            facts = self.dataset.facts(number)
            if facts is None or facts.count != len(self.stretch(number)):
                raise OutputError(
                    f"{str(self.dataset.part(number))!r} is not there any more, or cannot be read; start the job again"
                )
            yield facts

    @property
    def parts(self) -> int:
        """How many there will be."""
        return -(-self.inputs // self.part_rows)

    def stretch(self, number: int) -> range:
        """The inputs of a part."""
        return range(number * self.part_rows, min((number + 1) * self.part_rows, self.inputs))

    def pending(self, source: Source) -> Iterator[int]:
        """The parts that are not there, or that have fewer inputs than the source has by now.

        Raises
        ------
        OutputError
            A part has other inputs than the source.
        """
        last = self.dataset.part(self.parts - 1).name
        for name in self.dataset.place.names():
            if name.startswith("part-") and name > last:
                raise self._changed(name)
        for number in range(self.parts):
            facts, stretch = self.dataset.facts(number), self.stretch(number)
            if facts is None:
                yield number
                continue
            fits = facts.start == stretch.start and facts.count <= len(stretch)
            if not fits or facts.ids != digest(source.ids(stretch.start, stretch.start + facts.count)):
                raise self._changed(self.dataset.part(number).name)
            if facts.count < len(stretch):
                yield number

    def _changed(self, part: str) -> OutputError:
        return OutputError(
            f"{str(self.dataset.place)!r} is a job over other inputs: those of {part} are not where they were in the "
            "source; inputs may be added behind the others, but not removed or renamed: choose another folder"
        )

    def _items(self, source: Source, numbers: Iterable[int]) -> Iterator[tuple[int, Item]]:
        """The inputs of the parts, with their places."""
        for number in numbers:
            stretch = self.stretch(number)
            found = stretch.start
            for item in source.items(stretch.start, stretch.stop):
                yield found, item
                found += 1
            if found != stretch.stop:
                raise InputError(
                    f"the source ends after {found} of {self.inputs} inputs: it was changed; start the job again"
                )

    def _ahead(self) -> int:
        """How many inputs are decoded before they are needed."""
        return 2 * (self.batch_size.size + self.workers)

    def _batches(self, samples: Iterable[Sample]) -> Iterator[Batch]:
        """Samples in batches, none of which reaches from one part into the next."""
        collected: list[Sample] = []
        for sample in samples:
            collected.append(sample)
            number = sample.index // self.part_rows
            last = sample.index == self.stretch(number).stop - 1
            if last or len(collected) >= self.batch_size.size:
                yield Batch(number, collected, last)
                collected = []

    def _explained(self, batch: Batch) -> tuple[Batch, list[Row]]:
        return batch, self.explaining.explained(batch.samples)
