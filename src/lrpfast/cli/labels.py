"""What the outputs of a network are called, and which of them is meant; and what its inputs are called."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ..errors import InputError
from ..files import json_value, read_text
from ..labels import called, resembling
from .console import BAD_INPUT, Failure, usage

FORMS = "one name per line, a JSON list, or a JSON object of index to name or name to index"


def read_labels(
    path: str | None, model: str, size: int, classes: Sequence[str] | None = None
) -> list[str] | None:
    """The labels of a file, or those that the model carries (metadata ``labels``); None if there are none.

    Parameters
    ----------
    path, model : str
        Files.
    size : int
        How many outputs there are.
    classes : sequence of str, optional
        What the model itself makes of its outputs; if it carries no others.

    Raises
    ------
    Failure
        The file is unreadable, or has not as many labels as the network has outputs.
    """
    if path is None:
        carried = _embedded(model) or (None if classes is None else list(classes))
        return carried if carried is None or len(carried) == size else None
    labels = _read("labels", path)
    if len(labels) != size:
        raise Failure(f"{path!r} has {len(labels)} labels; the network has {size} outputs", BAD_INPUT,
                      "give a label for each output, in their order")  # fmt: skip
    return labels


def read_features(path: str) -> list[str]:
    """The names of a table's features or of a signal's channels.

    Raises
    ------
    Failure
        The file is unreadable.
    """
    return _read("features", path)


def _read(what: str, path: str) -> list[str]:
    try:
        text = read_text(path, what)
    except InputError as error:
        raise Failure(str(error), BAD_INPUT, f"expected {FORMS}") from error
    names = parse_labels(text)
    if names is None:
        raise Failure(f"the {what} {path!r} are not in a form that is known", BAD_INPUT, f"expected {FORMS}")
    return names


def parse_labels(text: str) -> list[str] | None:
    """The labels that `text` holds, by index; None if it is JSON of another form."""
    if text.lstrip()[:1] not in ("[", "{"):
        return [line.strip() for line in text.rstrip().splitlines()]
    try:
        described = json_value(text)
    except ValueError:
        return None
    if isinstance(described, list):
        return [_label(item) for item in described]
    try:
        if described and all(type(value) is int for value in described.values()):
            described = {value: key for key, value in described.items()}
        by_index = {int(key): _label(value) for key, value in described.items()}
        return [by_index[i] for i in range(len(by_index))]
    except (ValueError, KeyError):
        return None


def _label(item: Any) -> str:
    """A label; of several words for it, as in Keras' ``["n02123045", "tabby"]``, the last."""
    return str(item[-1] if isinstance(item, list) and item else item)


def _embedded(model: str) -> list[str] | None:
    from ..onnx_file import ModelFile

    with ModelFile(model) as file:
        for entry in file.model.metadata_props:
            if entry.key == "labels":
                return parse_labels(entry.value)
    return None


def find_target(target: str | None, labels: Sequence[str] | None, size: int) -> int | None:
    """The index that ``--target`` means: a number, a label, or one of a label's synonyms.

    Raises
    ------
    Failure
        Out of range, or no such label, or several.
    """
    if target is None:
        return None
    try:
        index = int(target)
    except ValueError:
        return _by_label(target, labels)
    if not 0 <= index < size:
        raise usage(f"target is {index}; the network has {size} outputs", f"choose from 0 to {size - 1}")
    return index


def _by_label(target: str, labels: Sequence[str] | None) -> int:
    if labels is None:
        raise usage(
            f"target is {target!r}, but the outputs have no labels", "give a number, or say --labels FILE"
        )
    found = called(target, labels)
    if len(found) == 1:
        return found[0]
    if found:
        choices = ", ".join(f"{i} ({labels[i]})" for i in found)
        raise usage(f"target {target!r} could be any of {len(found)} outputs", f"give its number: {choices}")
    near = resembling(target, labels)
    hint = f"did you mean {' or '.join(map(repr, near))}?" if near else "give a number, or one of the labels"
    raise usage(f"no output is called {target!r}", hint)
