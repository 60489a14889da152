"""Texts as inputs: files, the standard input or words on the command line, cut into tokens."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import numpy as np

from ..errors import InputError
from ..files import read_bytes
from ..network import Network
from ..ops.base import Array
from ..pieces import Tokenized
from ..preprocess import PREPROCESSINGS
from ..tokens import Tokenizer, read
from .console import BAD_INPUT, Failure, note, shorten, usage
from .inputs import Sample, check_sample, find_samples, is_array_file, reading_input, with_unique_names
from .options import apply, reading_model

if TYPE_CHECKING:
    from onnx import ValueInfoProto

    from ..onnx_inputs import InputShape

text_options = apply(
    click.option(
        "--tokens", metavar="FILE|bytes",
        help="How text becomes token ids: tokenizer.json, vocab.txt, or bytes. Inputs are text files then.",
    ),
    click.option("--text", "text_files", multiple=True, type=click.Path(), metavar="FILE",
                 help="A text file, as INPUT; - for the standard input; repeatable."),
    click.option("--sentence", "sentences", multiple=True, metavar="WORDS", help="Explain these words; repeatable."),
    click.option(
        "--words/--pieces", "joined", default=False,
        help="Show words whole, or the pieces that the network reads.  [default: pieces]",
    ),
    click.option("--max-length", type=click.IntRange(min=1), metavar="N",
                 help="Cut texts off behind N tokens.  [default: the model's length]"),
    click.option("--pad-id", type=click.IntRange(min=0), metavar="N",
                 help="What fills short texts up.  [default: the tokenizer's]"),
)  # fmt: skip

ROLES = {"mask": ("mask",), "types": ("type", "segment")}
"""Inputs beside the token ids, by parts of their names: 1 for tokens and 0 for padding; all 0."""


@dataclass(frozen=True)
class TextOptions:
    """What is said of texts on the command line.

    Attributes
    ----------
    tokens : str or None
        The tokenizer's file, or "bytes".
    sentences : tuple of str
        The words themselves.
    joined : bool
        Whether pieces of words are joined before they are shown.
    max_length, pad_id : int or None
    """

    tokens: str | None
    sentences: tuple[str, ...]
    joined: bool
    max_length: int | None
    pad_id: int | None

    def check(self, inputs: Sequence[str]) -> None:
        """Raise `Failure` if these options make no sense, or there is nothing to explain."""
        given = {
            "--sentence": self.sentences, "--words": self.joined or None, "--max-length": self.max_length,
            "--pad-id": self.pad_id,
        }  # fmt: skip
        for name, value in given.items():
            if self.tokens is None and value not in ((), None):
                raise usage(f"{name} needs to know what the network's tokens are",
                            "say --tokens tokenizer.json, vocab.txt or bytes")  # fmt: skip
        for text in self.sentences:
            if not text.strip():
                raise usage("--sentence is empty", "give the words to be explained")
            if len(text) < 256 and Path(text).is_file():
                raise usage(
                    f"--sentence {text!r} is the name of a file, not the words in it", "say --text FILE"
                )
        if not inputs and not self.sentences:
            text = "give --text FILE, --text - for the standard input, or --sentence WORDS"
            how = "`lrpfast explain --help` shows how it is used"
            raise usage("Missing argument 'INPUT...'", how if self.tokens is None else text)
        if inputs.count("-") > 1:
            raise usage("the standard input (-) can be read once only", "give - once")


@dataclass(frozen=True)
class TokenInputs:
    """The inputs of a model that reads tokens.

    Attributes
    ----------
    ids : str
        The input that takes the tokens' numbers.
    others : tuple of (str, str)
        The other inputs, each with its role.
    length : int or None
        How many tokens it takes; None if that is open.
    """

    ids: str
    others: tuple[tuple[str, str], ...]
    length: int | None

    def shapes(self, length: int) -> InputShape:
        """Shapes of a sample."""
        return dict.fromkeys((self.ids, *(name for name, _ in self.others)), (length,))

    @property
    def sees_padding(self) -> bool:
        """Whether there is no mask that would hide it."""
        return all(role != "mask" for _, role in self.others)


class Texts:
    """Texts in tokens, as long as the model wants them.

    Parameters
    ----------
    model : str
        The model's file.
    inputs : sequence of str
        Files: of text, - for the standard input, or arrays of token ids.
    options : TextOptions
    input_shape : shapes of the model's inputs, or None
        What ``--input-shape`` says.

    Attributes
    ----------
    input : str
        The input that takes the tokens' numbers.
    input_shape : shapes of the model's inputs, or None if there is no text to say how long they are

    Raises
    ------
    Failure
        A file is unreadable, holds no text that can be cut into tokens, or the model takes no tokens.
    """

    def __init__(
        self, model: str, inputs: Sequence[str], options: TextOptions, input_shape: InputShape | None
    ) -> None:
        self.options = options
        self._inputs = inputs
        with reading_input(str(options.tokens)):
            self.tokenizer = read(str(options.tokens))
        self._model = _token_inputs(model, input_shape)
        self.input = self._model.ids
        limit = self._limit()
        self._found = list(_tokenized(inputs, options.sentences, self.tokenizer, limit))
        longest = max((len(text.ids) for _, _, text in self._found), default=None)
        length = self._model.length or longest
        self.input_shape = input_shape if length is None else self._model.shapes(length)
        self._found = [(file, name, self._filled(file, text, length)) for file, name, text in self._found]

    def _limit(self) -> int | None:
        """The most tokens that a text may have."""
        asked, length = self.options.max_length, self._model.length
        if asked is not None and length is not None and asked > length:
            raise usage(f"--max-length is {asked}, but the model takes {length} tokens", "leave it out")
        known = [limit for limit in (asked, length, self.tokenizer.max_length) if limit is not None]
        return min(known, default=None)

    def _filled(self, file: str, text: Tokenized, length: int | None) -> Tokenized:
        """The text, filled up to the length that the model takes."""
        assert length is not None
        pad_id = self.options.pad_id
        if len(text.ids) < length and pad_id is None and self.tokenizer.pad_id is None:
            raise usage(f"{file} has {len(text.ids)} tokens and is to be filled up to {length}, but it is not known "
                        "with what", "say --pad-id N, as the network was trained")  # fmt: skip
        filled = self.tokenizer.fit(text, length, pad_id)
        if filled is not text and self._model.length is None and self._model.sees_padding:
            note(f"{file} is filled up to {length} tokens like the longest text, and the network sees that; "
                 "explained alone, it is not")  # fmt: skip
        return filled

    def samples(self, network: Network, dtype: str) -> list[Sample]:
        """All texts, then all arrays of token ids, as samples that the network takes."""
        samples = []
        for file, name, text in self._found:
            sample = self._sample(file, name, text)
            with reading_input(file):
                check_sample(sample, network, dtype)
            samples.append(sample)
        for sample in self._arrays(network, dtype):
            ids = (int(number) for number in sample.read()[0])
            samples.append(replace(sample, text=self.tokenizer.named(ids, self.options.pad_id)))
        return with_unique_names(samples)

    def _arrays(self, network: Network, dtype: str) -> list[Sample]:
        files = [file for file in self._inputs if is_array_file(file)]
        return find_samples(files, network, PREPROCESSINGS["raw"], dtype, shown=self.input) if files else []

    def _sample(self, file: str, name: str, text: Tokenized) -> Sample:
        """A text as a sample."""
        padding = np.array(text.padding)
        made: dict[str, Array] = {
            "mask": (~padding).astype(np.int64), "types": np.zeros(len(padding), np.int64)
        }  # fmt: skip
        others = {each: made[role] for each, role in self._model.others}
        ids: Any = text.array()
        chosen = self._model.ids if others else None
        return Sample(file, name, lambda: (ids, None), text=text, input=chosen, others=others)


def _tokenized(
    inputs: Sequence[str], texts: Sequence[str], tokenizer: Tokenizer, limit: int | None
) -> Iterator[tuple[str, str, Tokenized]]:
    """Every text with the name that messages have for it, and its name for files."""
    sources: list[tuple[str, str, str | None]] = [
        (file, "stdin" if file == "-" else Path(file).stem, None)
        for file in inputs
        if not is_array_file(file)
    ]
    sources += [(f"text {i + 1}", f"text-{i + 1}", text) for i, text in enumerate(texts)]
    for file, name, text in sources:
        with reading_input(file):
            found = tokenizer.encode(_content(file) if text is None else text, limit)
            if not found.ids:
                raise InputError(f"{file}: there is not a single token in it")
        if found.cut:
            whole = len(found.ids) + found.cut
            note(f"{file}: {found.cut} of {whole} tokens are cut off, and not seen by the network")
        if found.unknown:
            listed = ", ".join(repr(shorten(word, 30)) for word in found.unknown[:10])
            more = ", …" if len(found.unknown) > 10 else ""
            note(f"{file}: not in the vocabulary, and read as unknown: {listed}{more}")
        yield file, name, found


def _content(file: str) -> bytes:
    if file == "-":
        return bytes(sys.stdin.buffer.read())
    try:
        return read_bytes(file, "text")
    except InputError as error:
        raise Failure(str(error), BAD_INPUT) from error


def _token_inputs(model: str, input_shape: InputShape | None) -> TokenInputs:
    """Which inputs of the model take what."""
    from ..onnx_file import ModelFile

    with reading_model(model), ModelFile(model) as file:
        graph = file.model.graph
        constants = {tensor.name for tensor in graph.initializer}
        values = {value.name: value for value in graph.input if value.name not in constants}
    roles = {name: _role(name) for name in values} if len(values) > 1 else dict.fromkeys(values, "ids")
    ids = [name for name, role in roles.items() if role == "ids"]
    if len(ids) != 1:
        raise usage(f"it is not clear which of the model's inputs {', '.join(values)} takes the tokens",
                    "use lrpfast.explain in Python, with x as a mapping of name to array")  # fmt: skip
    others = tuple((name, role) for name, role in roles.items() if role != "ids")
    given = input_shape.get(ids[0]) if isinstance(input_shape, Mapping) else input_shape
    declared = _sample_shape(values[ids[0]]) if given is None else given
    if declared is not None and len(declared) != 1:
        sizes = " × ".join("?" if size is None else str(size) for size in declared) or "one number"
        raise usage(f"the model takes samples of {sizes}, not a sequence of tokens", "leave --tokens out")
    return TokenInputs(ids[0], others, declared[0] if declared else None)


def _role(name: str) -> str:
    """What an input takes, by its name."""
    for role, parts in ROLES.items():
        if any(part in name.lower() for part in parts):
            return role
    return "ids"


def _sample_shape(value: ValueInfoProto) -> tuple[int | None, ...] | None:
    """The shape that an input declares, without the batch axis; None for sizes that are open, or for all."""
    tensor = value.type.tensor_type
    if not tensor.HasField("shape"):
        return None
    return tuple(size.dim_value or None for size in list(tensor.shape.dim)[1:])
