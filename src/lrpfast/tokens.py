"""From text to what networks read: tokens and their numbers, by vocabulary, `tokenizer.json` or bytes."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import replace
from functools import cached_property
from typing import Any

from .errors import InputError
from .extras import need
from .files import json_value, read_text
from .pieces import PADDING, SPECIAL, Tokenized

__all__ = ["BytesTokenizer", "LibraryTokenizer", "Tokenized", "Tokenizer", "VocabularyTokenizer", "read"]

UNKNOWN = ("[UNK]", "<unk>", "<UNK>", "[unk]", "<oov>", "<OOV>")
"""Names of the token for words that are not in the vocabulary."""

PIECES_OF_CHUNK = re.compile(r"\w+|[^\w\s]")
"""Runs of letters and digits, or one other character."""


class Tokenizer:
    """Cuts texts into tokens.

    Attributes
    ----------
    scheme : str
        How tokens make words, a name in `lrpfast.pieces.SCHEMES`.
    pad_id : int or None
        What fills up; None if that is not known.
    pad_left : bool
        Whether it stands before the text.
    max_length : int or None
        The most tokens that the network is made for, where the tokenizer's file says so.
    """

    scheme: str = "words"
    pad_id: int | None = None
    pad_left: bool = False
    max_length: int | None = None

    def encode(self, text: str | bytes, max_length: int | None = None) -> Tokenized:
        """Cut a text into tokens, of which `max_length` at most are kept.

        Raises
        ------
        InputError
            Bytes that are not UTF-8, or words that the vocabulary has no number for.
        """
        raise NotImplementedError

    def token(self, number: int) -> str:
        """The token that a number stands for; ``<number>`` if there is none."""
        raise NotImplementedError

    def named(self, ids: Iterable[int], pad_id: int | None = None) -> Tokenized:
        """A text whose tokens are known by their numbers; `pad_id`, or else the tokenizer's, is padding."""
        numbers = tuple(ids)
        fills = self.pad_id if pad_id is None else pad_id
        found = self._text(map(self.token, numbers), numbers, 0)
        return replace(found, padding=tuple(number == fills for number in numbers))

    def _text(
        self, tokens: Iterable[str], ids: Iterable[int], cut: int, unknown: Iterable[str] = ()
    ) -> Tokenized:
        numbers = tuple(ids)
        return Tokenized(tuple(tokens), numbers, (False,) * len(numbers), self.scheme, cut, tuple(unknown))

    def fit(self, text: Tokenized, length: int, pad_id: int | None = None) -> Tokenized:
        """Fill a text up to `length` tokens.

        Parameters
        ----------
        text : Tokenized
        length : int
        pad_id : int, optional
            What fills up. Default: the tokenizer's own.

        Raises
        ------
        InputError
            It has more tokens, or nobody says what fills up.
        """
        missing = length - len(text.ids)
        if missing == 0:
            return text
        number = self.pad_id if pad_id is None else pad_id
        if missing < 0 or number is None:
            cure = "cut it with max_length" if missing < 0 else "say by which number it is filled up: pad_id"
            raise InputError(f"the text has {len(text.ids)} tokens, but the network reads {length}; {cure}")

        def filled(values: tuple[Any, ...], value: Any) -> tuple[Any, ...]:
            rest = (value,) * missing
            return rest + values if self.pad_left else values + rest

        return replace(
            text,
            tokens=filled(text.tokens, self.token(number)),
            ids=filled(text.ids, number),
            padding=filled(text.padding, True),
        )


class BytesTokenizer(Tokenizer):
    """Every byte of the text (in UTF-8) is a token, and its value the number."""

    scheme = "bytes"

    def encode(self, text: str | bytes, max_length: int | None = None) -> Tokenized:
        raw = text.encode() if isinstance(text, str) else text
        kept = raw[:max_length]
        return self._text(map(self.token, kept), kept, len(raw) - len(kept))

    def token(self, number: int) -> str:
        if not 0 <= number < 256:
            return f"<{number}>"
        return chr(number) if 32 <= number < 127 else f"<0x{number:02X}>"


class VocabularyTokenizer(Tokenizer):
    """Whole words out of a list.

    A text is cut at white space. What is not in the vocabulary then is cut into runs of letters and digits and
    single other characters. Texts are brought to lower case if no word of the vocabulary has an upper-case
    letter. A word that is not in it gets the number of the first of `UNKNOWN` that is.

    Parameters
    ----------
    numbers : mapping of str to int
    name : str, default "the vocabulary"
        What messages call it.
    """

    def __init__(self, numbers: Mapping[str, int], name: str = "the vocabulary") -> None:
        self.name = name
        self.numbers = dict(numbers)
        self.lower = is_lower_case(numbers)
        self.unknown = next((token for token in UNKNOWN if token in numbers), None)
        self.pad_id = _pad_id(numbers)

    def encode(self, text: str | bytes, max_length: int | None = None) -> Tokenized:
        found = list(self._words(_decoded(text)))
        strange = tuple(dict.fromkeys(word for word in found if word not in self.numbers))
        if strange and self.unknown is None:
            listed = ", ".join(map(repr, strange[:10])) + (", …" if len(strange) > 10 else "")
            raise InputError(
                f"{self.name} has no number for {listed}, and no token for what is unknown "
                f"({' or '.join(UNKNOWN[:2])})"
            )
        kept = found[:max_length]
        names = tuple(word if word in self.numbers else str(self.unknown) for word in kept)
        unknown = tuple(word for word in strange if word in kept)
        return self._text(names, (self.numbers[name] for name in names), len(found) - len(kept), unknown)

    def _words(self, text: str) -> Iterable[str]:
        for chunk in text.split():
            if chunk in self.numbers:
                yield chunk
                continue
            chunk = chunk.lower() if self.lower else chunk
            yield from [chunk] if chunk in self.numbers else PIECES_OF_CHUNK.findall(chunk)

    @cached_property
    def _names(self) -> dict[int, str]:
        return {number: token for token, number in self.numbers.items()}

    def token(self, number: int) -> str:
        return self._names.get(number, f"<{number}>")


class LibraryTokenizer(Tokenizer):
    """A tokenizer of the package tokenizers.

    Parameters
    ----------
    tokenizer : tokenizers.Tokenizer
        What it says of padding and truncation is taken over, and switched off in it: `fit` and `encode` pad
        and cut where they are told to.
    """

    def __init__(self, tokenizer: Any) -> None:
        described = json.loads(tokenizer.to_str())
        self._tokenizer = tokenizer
        self._unknown = described["model"].get("unk_token")
        self.scheme = _scheme(described)
        truncation, padding = tokenizer.truncation or {}, tokenizer.padding or {}
        self.max_length = truncation.get("max_length")
        self._cut_at = truncation.get("direction", "right")
        self.pad_id = padding.get("pad_id", _pad_id(tokenizer.get_vocab()))
        self.pad_left = padding.get("direction") == "left"
        tokenizer.no_padding()
        tokenizer.no_truncation()

    def encode(self, text: str | bytes, max_length: int | None = None) -> Tokenized:
        text = _decoded(text)
        try:
            found = self._tokenizer.encode(text)
        except Exception as error:  # the library raises nothing more special
            raise InputError(f"the tokenizer cannot cut the text: {error}") from error
        whole = len(found.ids)
        if max_length is not None and whole > max_length:
            special = self._tokenizer.num_special_tokens_to_add(False)
            if max_length <= special:
                raise InputError(f"max_length is {max_length}, of which special tokens take {special}")
            inner = self._tokenizer.encode(text, add_special_tokens=False)
            inner.truncate(max_length - special, direction=self._cut_at)
            found = self._tokenizer.post_process(inner)
        strange = [text[slice(*span)] for token, span in zip(found.tokens, found.offsets, strict=True)
                   if token == self._unknown]  # fmt: skip
        return self._text(found.tokens, found.ids, whole - len(found.ids), dict.fromkeys(strange))

    def token(self, number: int) -> str:
        return self._tokenizer.id_to_token(number) or f"<{number}>"


def read(source: str | os.PathLike[str]) -> Tokenizer:
    """Make a tokenizer.

    Parameters
    ----------
    source : path or "bytes"
        - ``tokenizer.json``, as the package tokenizers writes it; needs that package (the extra ``text``);
        - another ``.json`` file: an object of word to number;
        - any other file: a vocabulary, one word a line, numbered from 0. If it holds pieces such as ``##ing``
          it is BERT's: read by the package tokenizers, with [CLS] and [SEP] around texts;
        - ``"bytes"``: the bytes of the text are the numbers.

    Raises
    ------
    InputError
        The file cannot be read or is of another form.
    MissingPackageError
        The package tokenizers is needed and not installed.
    """
    if source == "bytes":
        return BytesTokenizer()
    path = os.fspath(source)
    text = read_text(path, "tokens")
    if path.lower().endswith(".json"):
        return _of_json(path, text)
    numbers = _numbered(path, text)
    if any(token.startswith("##") and len(token) > 2 for token in numbers):
        return _bert(path, numbers)
    return VocabularyTokenizer(numbers, repr(path))


def _of_json(path: str, text: str) -> Tokenizer:
    try:
        described = json_value(text)
    except ValueError as error:
        raise InputError(f"cannot read the tokens {path!r}: no JSON: {error}") from error
    if isinstance(described, dict) and described and all(type(n) is int for n in described.values()):
        return VocabularyTokenizer(described, repr(path))
    if not (isinstance(described, dict) and isinstance(described.get("model"), dict)):
        raise InputError(
            f"the tokens {path!r} are neither a tokenizer.json nor a JSON object of word to number; expected one "
            "of them, or a text file with one word a line"
        )
    library = need("tokenizers", "text", f"reading {path!r}")
    try:
        return LibraryTokenizer(library.Tokenizer.from_str(text))
    except Exception as error:  # the library raises nothing more special
        raise InputError(f"cannot read the tokenizer {path!r}: {error}") from error


def _bert(path: str, numbers: Mapping[str, int]) -> Tokenizer:
    """The tokenizer that belongs to a vocabulary of WordPiece."""
    library = need("tokenizers", "text", f"cutting words into the pieces of {path!r}")
    absent = [token for token in ("[UNK]", "[CLS]", "[SEP]") if token not in numbers]
    if absent:
        raise InputError(
            f"{path!r} holds pieces such as '##ing', but not {', '.join(absent)}, so it is not BERT's and does "
            "not say how texts are cut; give the model's tokenizer.json"
        )
    made = library.BertWordPieceTokenizer(dict(numbers), lowercase=is_lower_case(numbers))
    return LibraryTokenizer(library.Tokenizer.from_str(made.to_str()))


def _numbered(path: str, text: str) -> dict[str, int]:
    """Words by the numbers of their lines."""
    numbers: dict[str, int] = {}
    twice = []
    for number, line in enumerate(text.rstrip("\r\n").split("\n")):
        word = line.rstrip("\r").strip(" ")
        if word in numbers:
            twice.append(f"{word!r} in lines {numbers[word] + 1} and {number + 1}")
        elif word:
            numbers[word] = number
    if twice or not numbers:
        wrong = f"has {'; '.join(twice[:5])}" if twice else "is empty"
        raise InputError(f"the vocabulary {path!r} {wrong}; expected one word a line, each once")
    return numbers


def is_lower_case(vocabulary: Iterable[str]) -> bool:
    """Whether no word has an upper-case letter; special tokens do not count."""
    return all(token == token.lower() for token in vocabulary if not SPECIAL.fullmatch(token))


def _pad_id(numbers: Mapping[str, int]) -> int | None:
    return next((numbers[token] for token in sorted(PADDING) if token in numbers), None)


def _decoded(text: str | bytes) -> str:
    if isinstance(text, str):
        return text
    try:
        return text.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(
            f"the text is not UTF-8: {error}; expected UTF-8, or tokens that are bytes"
        ) from None


def _scheme(described: Mapping[str, Any]) -> str:
    """How a tokenizer marks pieces of words, by its description."""
    if described["model"].get("type") == "WordPiece":
        return "wordpiece"
    parts = json.dumps([described.get("decoder"), described.get("pre_tokenizer")], ensure_ascii=False)
    if '"ByteLevel"' in parts:
        return "bytelevel"
    return "sentencepiece" if '"Metaspace"' in parts or "▁" in parts else "words"
