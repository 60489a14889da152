"""The work of a job: parts of the source decoded, explained and written, each stage in threads of its own."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import dataclass, replace
from typing import Any

from ..errors import InputError, OutputError
from .explaining import Explaining, Sample
from .items import Item, Source
from .parts import Dataset, Facts, digest
from .pipeline import BatchSize, staged
from .places import Place
from .settings import enter
from .sinks import PictureSink, Sinks, open_zarr
from .writing import Batch, Rows, Writer, Written

Progress = Callable[[int, int, int], None]
"""Told after each batch: inputs done, all inputs, inputs that failed in this run."""

Maker = Callable[["Job", Sequence[int]], Generator[Written, None, None]]
"""Makes parts of a job."""


@dataclass(frozen=True, eq=False)
class Job:
    """What there is to be done, and with what; made by `lrpfast.batch.job.prepared`.

    Attributes
    ----------
    explaining : Explaining
    source : Source
    dataset : Dataset
    part_rows : int
        Inputs per part.
    batch_size : BatchSize
    workers : int
        Threads that decode and draw.
    zarr, png : str or None
        Where relevance goes besides.
    settings : mapping
        What the job is: it goes on only as the same.
    """

    explaining: Explaining
    source: Source
    dataset: Dataset
    part_rows: int
    batch_size: BatchSize
    workers: int
    zarr: str | None
    png: str | None
    settings: Mapping[str, Any]

    def work(
        self, parts: Sequence[int], progress: Progress | None = None, maker: Maker | None = None
    ) -> None:
        """Explain and write these parts, in their order.

        Parameters
        ----------
        parts : sequence of int
            Those of `pending`, or some of them.
        progress : callable, optional
            Told (done, all, failed) before the first batch and after each.
        maker : callable, optional
            Makes the parts in the place of `make`; what is written besides the rows is there.

        Raises
        ------
        InputError
            The source was changed, or no input can be explained within the memory.
        OutputError
            Something cannot be written.
        """
        tell = progress or (lambda *_: None)
        done, failed = len(self.source) - self.inputs(parts), 0
        tell(done, len(self.source), failed)
        self.sinks(begun=done > 0)
        for url in (self.zarr, self.png):
            if url is not None:
                Place.at(url).sweep()
        with contextlib.closing((maker or Job.make)(self, parts)) as made:
            for written in made:
                done += written.inputs
                failed += written.failed
                tell(done, len(self.source), failed)

    def make(self, parts: Sequence[int]) -> Generator[Written, None, None]:
        """Explain and write these parts, batch by batch; what was begun is given up if the iterator is closed early."""
        streams = self.explaining.streams.count
        pool, compute, write = (ThreadPoolExecutor(n, "lrpfast-batch") for n in (self.workers, streams, 1))
        writer = Writer(self.dataset, self.sinks(begun=True), pool)
        try:
            samples = staged(self.explaining.decoded, self._items(parts), pool, self._ahead)
            explained = self.batch_size.timed(self._explained)
            rows = staged(explained, self._batches(samples), compute, lambda: streams)
            yield from staged(writer.write, rows, write, lambda: 2 * streams)
        except BaseException:
            # Somebody waits for this to end, and a kernel may take longer: nobody waits for that.
            with contextlib.suppress(RuntimeError):
                wait([write.submit(writer.discard)], timeout=0.5)
            raise
        finally:
            for executor in (pool, compute, write):
                executor.shutdown(wait=False, cancel_futures=True)

    def only(self, parts: Sequence[int]) -> Job:
        """So much of the job as parts that lie side by side need, to be sent to another process."""
        stretch = range(self.stretch(parts[0]).start, self.stretch(parts[-1]).stop) if parts else range(0)
        return replace(self, source=self.source.only(stretch.start, stretch.stop))

    def here(self) -> Job:
        """The job in the process that it was sent to: that has its own CPUs, and says so in what it writes."""
        explaining = self.explaining.shared_out(len(self.source))
        return replace(
            self, explaining=explaining, dataset=replace(self.dataset, manifest=explaining.manifest),
            batch_size=self.batch_size.within(explaining.streams.most),
        )  # fmt: skip

    def pending(self) -> list[int]:
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
        return [number for number in range(self.parts) if not self._is_done(number)]

    def _is_done(self, number: int) -> bool:
        facts, stretch = self.dataset.facts(number), self.stretch(number)
        if facts is None:
            return False
        fits = facts.start == stretch.start and facts.count <= len(stretch)
        if not fits or facts.ids != digest(self.source.ids(stretch.start, stretch.start + facts.count)):
            raise self._changed(self.dataset.part(number).name)
        return facts.count == len(stretch)

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
        """How many there are."""
        return -(-len(self.source) // self.part_rows)

    def inputs(self, parts: Iterable[int]) -> int:
        """How many inputs some parts have."""
        return sum(len(self.stretch(number)) for number in parts)

    def stretch(self, number: int) -> range:
        """The inputs of a part."""
        return range(number * self.part_rows, min((number + 1) * self.part_rows, len(self.source)))

    def _changed(self, part: str) -> OutputError:
        return OutputError(
            f"{str(self.dataset.place)!r} is a job over other inputs: those of {part} are not where they were in the "
            "source; inputs may be added behind the others, but not removed or renamed: choose another folder"
        )

    def _items(self, parts: Iterable[int]) -> Iterator[tuple[int, Item]]:
        """The inputs of the parts, with their places."""
        for number in parts:
            stretch = self.stretch(number)
            found = stretch.start
            for item in self.source.items(stretch.start, stretch.stop):
                yield found, item
                found += 1
            if found != stretch.stop:
                raise InputError(
                    f"the source ends after {found} of {len(self.source)} inputs: it was changed; start the job again"
                )

    def _ahead(self) -> int:
        """How many inputs are decoded before they are needed."""
        return 2 * (self.batch_size.size * self.explaining.streams.count + self.workers)

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

    def _explained(self, batch: Batch) -> Rows:
        rows = self.explaining.explained(batch.samples)
        elsewhere = rows if self.zarr is not None or self.png is not None else ()
        return Rows(batch.part, batch.last, self.dataset.encoding.encoded(rows), elsewhere)

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
        dataset, ranks = self.dataset, self.explaining.target.ranks
        encoding = dataset.encoding
        zarr = pictures = None
        if self.zarr is not None:
            about = {"settings": self.settings, "manifest": dataset.manifest}
            zarr = open_zarr(
                self.zarr, len(self.source), ranks, encoding.shapes, encoding.dtype, self.part_rows, about, begun
            )  # fmt: skip
        if self.png is not None:
            folder = Place.at(self.png)
            enter(folder, self.settings, dataset.manifest, begun)
            pictures = PictureSink(folder, ranks, encoding.shapes, dataset.manifest)
        return Sinks(zarr, pictures)
