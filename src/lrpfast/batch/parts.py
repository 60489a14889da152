"""The Parquet data set that a job writes: part files, which are also the record of what is done.

A part holds the rows of a fixed stretch of the source. It appears under its name when it is whole, so a job that
was killed finds out from the names, and from what each footer says, where to go on.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from ..extras import need
from .drift import Profile
from .encoding import Encoded, Encoding
from .places import EXTRA, Place, writing_into

KEY = b"lrpfast"
"""Where the footer has the part's facts, as JSON."""

GROUP_BYTES = 2**22
"""About so many bytes of rows are put together to a row group; a part may be one."""


@dataclass(frozen=True, eq=False)
class Facts:
    """What is known of a whole part.

    Attributes
    ----------
    start, count : int
        The stretch of the source.
    ids : str
        SHA-256 of the inputs' names.
    failed : int
        Inputs that have an error.
    worst : float
        The largest |unexplained|.
    blowups : int
        Inputs for which a node blew up.
    profile : Profile
    manifest : mapping
        What made it.
    """

    start: int
    count: int
    ids: str
    failed: int
    worst: float
    blowups: int
    profile: Profile
    manifest: Mapping[str, Any]

    def as_json(self) -> str:
        return json.dumps({**vars(self), "profile": self.profile.as_json(), "manifest": dict(self.manifest)})

    @classmethod
    def from_json(cls, text: bytes) -> Facts:
        described = json.loads(text)
        return cls(**{**described, "profile": Profile.from_json(described["profile"])})


def digest(ids: Iterable[str]) -> str:
    """SHA-256 of names, in their order."""
    hashed = hashlib.sha256()
    for name in ids:
        hashed.update(_line(name))
    return hashed.hexdigest()


def _line(name: str) -> bytes:
    return json.dumps(name).encode() + b"\n"


@dataclass(frozen=True, eq=False)
class Dataset:
    """A folder of parts.

    Attributes
    ----------
    place : Place
    encoding : Encoding
    manifest : mapping
        Of this run.
    """

    place: Place
    encoding: Encoding
    manifest: Mapping[str, Any]

    def part(self, number: int) -> Place:
        """The file of a part."""
        return self.place / f"part-{number:06}.parquet"

    def facts(self, number: int) -> Facts | None:
        """What is known of a part; None if it is not there, or damaged."""
        place = self.part(number)
        if not place.exists():
            return None
        parquet, arrow = _packages()
        try:
            with place.open() as file:
                return Facts.from_json(parquet.read_metadata(file).metadata[KEY])
        except (OSError, ValueError, KeyError, TypeError, arrow.ArrowException):
            return None

    def begin(self, number: int) -> OpenPart:
        """A part to write rows into."""
        return OpenPart(self, number)


class OpenPart:
    """A part that is being written: it appears when it is closed, and not at all if it is discarded."""

    def __init__(self, dataset: Dataset, number: int) -> None:
        parquet, _ = _packages()
        self._dataset = dataset
        self._place = dataset.part(number)
        self._stack = contextlib.ExitStack()
        file = self._stack.enter_context(self._place.writing())
        encoding = dataset.encoding
        self._writer = parquet.ParquetWriter(file, encoding.schema, **encoding.writing)
        self._waiting: list[Any] = []
        self._ids = hashlib.sha256()
        self._start: int | None = None
        self._count = self._failed = self._blowups = 0
        self._worst = 0.0
        self._profile = Profile.empty(encoding.shapes)

    def add(self, rows: Encoded) -> None:
        """Write rows, which follow those before; raises `OutputError`."""
        self._start = rows.start if self._start is None else self._start
        self._count += len(rows.ids)
        for name in rows.ids:
            self._ids.update(_line(name))
        self._failed += rows.failed
        self._worst = max(self._worst, rows.worst)
        self._blowups += rows.blowups
        self._profile += rows.profile
        self._waiting.append(rows.batch)
        if sum(batch.nbytes for batch in self._waiting) >= GROUP_BYTES:
            self._write_group()

    def _write_group(self) -> None:
        _, arrow = _packages()
        if self._waiting:
            with writing_into(self._place):
                self._writer.write_table(arrow.Table.from_batches(self._waiting))
            self._waiting = []

    def close(self) -> None:
        """Make the part appear; raises `OutputError`."""
        self._write_group()
        facts = Facts(
            self._start or 0, self._count, self._ids.hexdigest(), self._failed, self._worst, self._blowups,
            self._profile, self._dataset.manifest,
        )  # fmt: skip
        self._writer.add_key_value_metadata({KEY.decode(): facts.as_json()})
        with writing_into(self._place):
            self._writer.close()
        self._stack.close()

    def discard(self) -> None:
        """Leave nothing behind."""
        with contextlib.suppress(OSError):
            self._writer.close()  # into the file that is removed
        with contextlib.suppress(Discarded):
            self._stack.__exit__(Discarded, Discarded(), None)


class Discarded(Exception):
    """A part is not to appear."""


def _packages() -> tuple[Any, Any]:
    return need("pyarrow.parquet", EXTRA, "a Parquet data set"), need("pyarrow", EXTRA, "a Parquet data set")
