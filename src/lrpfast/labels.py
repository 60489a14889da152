"""Names of outputs: which of them a word means."""

from __future__ import annotations

import difflib
import re
from collections.abc import Sequence


def called(name: str, labels: Sequence[str]) -> list[int]:
    """The outputs with that label, or with that synonym in a label such as ``"tabby, tabby cat"``."""
    wanted = name.strip().casefold()
    names = [{label.casefold(), *(word.strip().casefold() for word in label.split(","))} for label in labels]
    return [i for i, words in enumerate(names) if wanted in words]


def resembling(name: str, labels: Sequence[str]) -> list[str]:
    """A few labels that have `name` as a word, or else look like it."""
    word = re.compile(rf"\b{re.escape(name.strip().casefold())}\b")
    near = [label for label in labels if word.search(label.casefold())][:5]
    return near or difflib.get_close_matches(name, labels, 3, 0.5)
