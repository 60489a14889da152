"""Blow-ups at the command line: the options, and notes instead of Python's warnings."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterator
from typing import Any

import click

from ..blowup import POLICIES, offence, said
from ..errors import BlowUpWarning
from ..explanation import Explanation
from ..ledger import BLOWUP
from .console import BLOWUP_CURES, OneOf, note
from .options import apply

blowup_options = apply(
    click.option(
        "--on-blowup", type=OneOf("policy", POLICIES), default="warn", show_default=True,
        help="What to do where contributions cancel so much that a node multiplies the relevance.",
    ),
    click.option(
        "--blowup", type=click.FloatRange(min=1), default=BLOWUP, show_default=True, metavar="TIMES",
        help="By how much, for that.",
    ),
)  # fmt: skip


@contextlib.contextmanager
def without_warnings() -> Iterator[None]:
    """No Python warnings of blow-ups in this block."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", BlowUpWarning)
        yield


class BlowUps:
    """The nodes that blew up in some explanations, to be noted once."""

    def __init__(self, policy: str, threshold: float) -> None:
        self.threshold = threshold
        self.noted = policy == "warn"
        self.worst: dict[tuple[str, str], float] = {}

    def document(self, explanation: Explanation) -> list[dict[str, Any]]:
        """Where an explanation blew up or was clipped, for JSON."""
        return [
            {"node": row.node, "rule": row.rule, "gain": row.gain, "clipped": row.clipped}
            for row in explanation.conservation if row.clipped or row.blows_up(self.threshold)
        ]  # fmt: skip

    def add(self, explanation: Explanation) -> None:
        """Look at one more explanation."""
        for row in explanation.conservation.blowups(self.threshold) if self.noted else ():
            key = row.node, row.rule
            self.worst[key] = max(row.gain, self.worst.get(key, 0.0))

    def note(self) -> None:
        """Say which nodes blew up, if any did."""
        if self.worst:
            note(f"{said([offence(*key, gain) for key, gain in self.worst.items()])}\n{BLOWUP_CURES}")
