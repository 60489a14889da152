"""A job on a Ray cluster: its parts are handed out to actors, each of which holds the network.

An actor makes a part as a job on one machine does, and writes it where all nodes see it. So what is there is what is
done, whoever did it: a part whose actor died is given to another, and a job that was stopped goes on with Ray or
without.
"""

from __future__ import annotations

import contextlib
import os
import socket
from collections import Counter
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import Any

from .._version import __version__
from ..errors import ClusterError, LrpfastError
from ..extras import need
from .items import Source
from .places import TEMPORARY, Place
from .work import Job, Maker
from .writing import Written

EXTRA = "ray"
ATTEMPTS = 4
"""So many actors may die over one part, or while they start one after the other, before the job gives up."""

SECONDS = 10.0
"""How long a cluster may take to answer."""


@dataclass(frozen=True)
class Cluster:
    """A cluster that this process is connected to; made by `connected`.

    Attributes
    ----------
    ray : module
    started : bool
        Whether it was started here.
    """

    ray: Any
    started: bool

    def __str__(self) -> str:
        if self.started:
            return f"no Ray cluster runs here, so one with {self.cpus} CPUs was started for this job"
        nodes = len(self._nodes())
        address = self.ray.get_runtime_context().gcs_address
        return f"on the Ray cluster at {address}: {nodes} node{'s' if nodes > 1 else ''}, {self.cpus} CPUs"

    @property
    def cpus(self) -> int:
        """Of all nodes."""
        return int(sum(self._nodes()))

    @property
    def largest(self) -> int:
        """CPUs of the largest node."""
        return int(max(self._nodes(), default=0))

    def _nodes(self) -> list[float]:
        """The nodes' CPUs."""
        return [node["Resources"].get("CPU", 0) for node in self.ray.nodes() if node["Alive"]]


@contextlib.contextmanager
def connected(address: str) -> Iterator[Cluster]:
    """Connect to a cluster; in the end leave it again, unless the caller was connected before.

    Parameters
    ----------
    address : str
        ``HOST:PORT``; "auto" for the cluster that ``RAY_ADDRESS`` names or that runs on this machine, or else one
        that is started here and ends with the block; or "local" for that in any case.

    Raises
    ------
    MissingPackageError
        Ray is not installed.
    ClusterError
        There is no such cluster.
    """
    ray = need("ray", EXTRA, "a batch on a cluster")
    if ray.is_initialized():
        yield Cluster(ray, False)
        return
    named = (os.environ.get("RAY_ADDRESS") or address) if address == "auto" else address
    if named == "auto" and not _runs_here():
        named = "local"
    if named not in ("auto", "local"):
        _check_answers(named)
    try:
        ray.init(named, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    except (ConnectionError, RuntimeError, ValueError) as error:
        raise _unreachable(named, error) from error
    try:
        yield Cluster(ray, started=named == "local")
    finally:
        ray.shutdown()


def _runs_here() -> bool:
    """Whether the cluster that Ray would find on this machine is there.

    Ray writes down the address of the last cluster, and a head that was killed leaves it behind.
    """
    from ray._private.services import canonicalize_bootstrap_address

    try:
        _check_answers(canonicalize_bootstrap_address("auto") or "")
    except (ConnectionError, ClusterError):
        return False
    return True


def _check_answers(address: str) -> None:
    """Raise a `ClusterError` if nobody listens, which Ray would find out within many minutes."""
    host, _, port = address.rpartition(":")
    if not port.isdecimal() or "://" in host:
        raise _unreachable(address, "it is no HOST:PORT")
    try:
        socket.create_connection((host, int(port)), SECONDS).close()
    except (OSError, OverflowError) as error:
        raise _unreachable(address, error) from error


def _unreachable(address: str, why: object) -> ClusterError:
    return ClusterError(
        f"cannot reach the Ray cluster {address!r}: {why}; expected HOST:PORT, as `ray start --head` says it, or auto"
    )


def on_cluster(address: str, actors: int | None) -> Maker:
    """What makes parts of a job on a cluster, in whatever order they are done; actors end with the iterator.

    Parameters
    ----------
    address : str
        See `connected`.
    actors : int, optional
        Default: as many as the cluster has CPUs for.

    Raises
    ------
    ClusterError
        While parts are made: there is no such cluster, it has no room for an actor, actors die again and again, or a
        node does not see the source or the output, or has another version of lrpfast.
    """
    return partial(_made, address=address, actors=actors)


def _made(
    job: Job, parts: Sequence[int], *, address: str, actors: int | None
) -> Generator[Written, None, None]:
    if not parts:
        return
    threads = job.explaining.explainer.threads or 1
    with connected(address) as cluster, Shared.of(job) as shared:
        if cluster.largest < threads:
            raise ClusterError(
                f"no node of the cluster has {threads} CPUs for the threads of one worker: the largest has "
                f"{cluster.largest}; choose fewer threads, or start a larger node"
            )
        most = actors or cluster.cpus // threads
        crew = _Crew(cluster.ray, cluster.ray.put(job.only(())), shared, threads)
        try:
            yield from crew.work(job, parts, min(most, len(parts)))
        finally:
            crew.dismiss()


@dataclass(frozen=True)
class Shared:
    """What every node has to see: files of the node where the job was started, with their sizes.

    Attributes
    ----------
    node : str
        That node.
    files : tuple of (Place, int)
    """

    node: str
    files: tuple[tuple[Place, int], ...]

    @classmethod
    @contextlib.contextmanager
    def of(cls, job: Job) -> Iterator[Shared]:
        """A file of the source, and one in each place that is written to, which is there as long as the block lasts."""
        folders = [job.dataset.place, *(Place.at(url) for url in (job.zarr, job.png) if url is not None)]
        marks = [folder / f".shared.{os.urandom(8).hex()}{TEMPORARY}" for folder in folders]
        read = job.source.file()
        with contextlib.ExitStack() as stack:
            for mark in marks:
                mark.write(b"")
                stack.callback(_removed, mark)
            found = [mark for mark in (read, *marks) if mark is not None]
            yield cls(socket.gethostname(), tuple((place, place.size()) for place in found))

    def check(self) -> None:
        """Raise a `ClusterError` if something is not seen from here."""
        missing = [place for place, size in self.files if not place.exists() or place.size() != size]
        if missing:
            names = ", ".join(dict.fromkeys(str(place.folder) for place in missing))
            raise ClusterError(
                f"the node {socket.gethostname()} does not see what {self.node} has in {names}; source and output have "
                "to be on a file system that all nodes have under the same path, or at URLs such as s3://…"
            )


class Worker:
    """Makes parts, where Ray puts it: an actor.

    Parameters
    ----------
    version : str
        Of lrpfast where the job was started.
    shared : Shared
    job : list of one ObjectRef of a Job
        In a list, Ray does not read it before versions are compared.
    """

    def __init__(self, version: str, shared: Shared, job: list[Any]) -> None:
        self._version = version
        self._shared = shared
        self._reference = job

    @cached_property
    def _job(self) -> Job:
        if self._version != __version__:
            raise ClusterError(
                f"the node {socket.gethostname()} has lrpfast {__version__}, and {self._shared.node} has "
                f"{self._version}; install the same everywhere"
            )
        self._shared.check()
        job: Job = need("ray", EXTRA, "a worker").get(self._reference[0])
        return job.here()

    def start(self) -> Iterator[Written]:
        """Get ready: check what can be seen from here, and load the network."""
        _ = self._job
        yield from ()

    def work(self, part: int, source: Source) -> Iterator[Written]:
        """Make a part, unless it is there: its maker may have died before it could say so."""
        job = self._job
        facts = job.dataset.facts(part)
        if facts is not None and facts.count == len(job.stretch(part)):
            yield Written(facts.count, facts.failed)
        else:
            yield from replace(job, source=source).make([part])


class _Crew:
    """The actors of a job.

    They do not come back to life by themselves, since Ray might wait for room for one while its part could be made
    by another: if one dies, its part goes to one that has nothing to do, or else a new one is asked for.
    """

    def __init__(self, ray: Any, job: Any, shared: Shared, threads: int) -> None:
        self._ray = ray
        self._make = ray.remote(Worker).options(num_cpus=threads, max_restarts=0).remote
        self._arguments = __version__, shared, [job]
        self._hired: list[Any] = []
        self._idle: list[Any] = []
        self._busy: dict[Any, _Task] = {}  # by the stream of what is written

    def work(self, job: Job, parts: Sequence[int], size: int) -> Generator[Written, None, None]:
        """Make parts with so many actors; what dies with one is taken back, as a negative number of inputs."""
        left, deaths = list(reversed(parts)), Counter[int | None]()
        errors = self._ray.exceptions
        died = errors.RayActorError, errors.OutOfMemoryError  # where memory is scarce, Ray kills by itself
        for _ in range(size):
            self._hire()
        while left or any(task.part is not None for task in self._busy.values()):
            for stream in self._news():
                task = self._busy[stream]
                try:
                    written = self._ray.get(next(stream))
                except StopIteration:
                    del self._busy[stream]
                    self._idle.append(task.worker)
                    if task.part is None:
                        deaths[None] = 0
                except errors.RayTaskError as error:
                    raise _ours(error) from None
                except died as error:
                    del self._busy[stream]
                    deaths[task.part] += 1
                    if deaths[task.part] == ATTEMPTS:
                        raise _hopeless(job, task.part, error) from error
                    if task.part is not None:
                        left.append(task.part)
                        yield Written(-task.inputs, -task.failed)
                    if not self._idle:
                        self._hire()
                else:
                    task.inputs += written.inputs
                    task.failed += written.failed
                    yield written
            while left and self._idle:
                self._give(self._idle.pop(), job, left.pop())

    def _news(self) -> list[Any]:
        """The streams that have something; all of them at once, since there may be thousands."""
        streams = list(self._busy)
        self._ray.wait(streams, num_returns=1)
        ready, _ = self._ray.wait(streams, num_returns=len(streams), timeout=0)
        return list(ready)

    def dismiss(self) -> None:
        """End all actors, whatever they do."""
        for worker in self._hired:
            self._ray.kill(worker)

    def _hire(self) -> None:
        worker = self._make(*self._arguments)
        self._hired.append(worker)
        self._busy[worker.start.remote()] = _Task(worker, None)

    def _give(self, worker: Any, job: Job, part: int) -> None:
        self._busy[worker.work.remote(part, job.only([part]).source)] = _Task(worker, part)


@dataclass
class _Task:
    """What an actor does: it makes a part, or starts; and what it has written of the part."""

    worker: Any
    part: int | None
    inputs: int = 0
    failed: int = 0


def _removed(place: Place) -> None:
    with contextlib.suppress(OSError):
        place.remove()


def _ours(error: Any) -> Exception:
    """What an actor raised."""
    cause = error.cause
    known = isinstance(cause, (LrpfastError, MemoryError))
    return cause if known else ClusterError(f"a worker failed: {error}")


def _hopeless(job: Job, part: int | None, error: Exception) -> ClusterError:
    """Actors die again and again."""
    if part is None:
        return ClusterError(
            f"{ATTEMPTS} workers died while they started; is lrpfast[ray] installed on each node, and is there memory "
            f"for the network? The last one: {error}"
        )
    stretch = job.stretch(part)
    return ClusterError(
        f"{ATTEMPTS} workers died over part {part}, inputs {stretch.start} to {stretch.stop - 1}; is there memory "
        f"enough for a worker on each CPU? More threads make fewer workers, max_memory smaller batches. The last one: "
        f"{error}"
    )
