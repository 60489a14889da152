"""What a job found out in all: the report beside its output, and the comparison with an earlier one."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from ..errors import InputError
from .drift import Drift, Profile, drift
from .inputs import Shapes
from .parts import Facts
from .places import Place

FILE = "_report.json"


@dataclass(frozen=True)
class Summary:
    """A job that is done.

    Attributes
    ----------
    inputs, failed : int
        All inputs, and those that have an error instead of an explanation.
    resumed : int
        Inputs that earlier runs of the job had done.
    seconds : float
        Of this run.
    parts : int
        Files of the data set.
    conservation_worst : float
        The largest |unexplained| of any node for any input.
    blowups : int
        Inputs for which a node multiplied the relevance by more than the threshold (`on_blowup`).
    profile : Profile
        How relevance is spread.
    drift : Drift or None
        Against the reference, if there is one, and if there are enough samples to tell.
    settings, manifest : mapping
        What the job is, and what ran it.
    """

    inputs: int
    failed: int
    resumed: int
    seconds: float
    parts: int
    conservation_worst: float
    blowups: int
    profile: Profile
    drift: Drift | None
    settings: Mapping[str, Any]
    manifest: Mapping[str, Any]

    @classmethod
    def of(
        cls, facts: Iterable[Facts], settings: Mapping[str, Any], manifest: Mapping[str, Any], inputs: int,
        resumed: int, seconds: float, before: Profile | None,
    ) -> Summary:  # fmt: skip
        """Sum the parts up; they are read one after the other."""
        parts = failed = blowups = 0
        worst, profile = 0.0, None
        for one in facts:
            parts += 1
            failed += one.failed
            blowups += one.blowups
            worst = max(worst, one.worst)
            profile = one.profile if profile is None else profile + one.profile
        assert profile is not None
        moved = None if before is None else drift(before, profile)
        return cls(
            inputs, failed, resumed, seconds, parts, worst, blowups, profile, moved, settings, manifest
        )

    @property
    def rate(self) -> float:
        """Inputs per second in this run."""
        return (self.inputs - self.resumed) / self.seconds if self.seconds else 0.0

    def as_json(self) -> dict[str, Any]:
        """What the command prints."""
        return {
            "inputs": self.inputs, "explained": self.inputs - self.failed, "failed": self.failed,
            "resumed": self.resumed, "seconds": self.seconds, "inputs_per_second": self.rate, "parts": self.parts,
            "conservation_worst": self.conservation_worst, "blowups": self.blowups,
            "drift": None if self.drift is None else self.drift.as_json(),
            "settings": dict(self.settings), "manifest": dict(self.manifest),
        }  # fmt: skip


def write_report(place: Place, summary: Summary) -> None:
    """Write the report into the folder of the job; raises `OutputError`."""
    document = {**summary.as_json(), "profile": summary.profile.as_json()}
    (place / FILE).write(json.dumps(document, indent=1, ensure_ascii=False).encode())


def read_reference(url: str | os.PathLike[str], shapes: Shapes) -> Profile:
    """The profile of an earlier job, out of its report or its folder.

    Raises
    ------
    InputError
        There is no report, or it is about inputs of another shape, or too few of them.
    """
    place = Place.at(url)
    place = place / FILE if place.is_folder() else place
    try:
        profile = Profile.from_json(json.loads(place.read())["profile"])
    except (KeyError, TypeError, ValueError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(
            f"{str(place)!r} is no report of a job ({error}); expected the {FILE} that `lrpfast batch` wrote, or its "
            "folder"
        ) from error
    if profile.shapes != shapes:
        raise InputError(
            f"the reference {str(place)!r} is about inputs of shape {profile.shapes}; the network takes {shapes}"
        )
    return profile
