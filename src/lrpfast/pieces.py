"""Tokens, and how they make words: the marks that tokenizers leave on pieces, taken off again.

Every scheme says of a token which bytes of the text it stands for, and whether a word begins with it.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from .errors import InputError

SPECIAL = re.compile(r"\[[A-Z]+\d*\]|<(?!0x)[^<>\s]+>")
"""Tokens that stand for no text, such as [CLS], </s> or <|endoftext|>: they join nothing."""

BYTE = re.compile(r"<0x([0-9A-Fa-f]{2})>")
"""A token that is one byte, as SentencePiece writes it."""

PADDING = frozenset({"[PAD]", "<pad>", "<PAD>", "<|pad|>"})
"""Tokens that fill up a sequence, by the names that are usual."""

WHITE = {" ": "␣", "\n": "⏎", "\r": "␍", "\t": "⇥"}
"""What stands for white space that is a token of its own, so that it can be seen."""


@dataclass(frozen=True)
class Piece:
    """A token as a reader sees it.

    Attributes
    ----------
    text : str
        Without the marks of the scheme and the space in front; never empty, and a sign in place of white
        space and of what cannot be printed.
    begins : bool
        Whether a word begins here. What does not begin one is written right behind what stands before it.
    """

    text: str
    begins: bool

    @property
    def is_gap(self) -> bool:
        """Whether it is the space between two words, which is a token of its own here."""
        return self.text == WHITE[" "]


@dataclass(frozen=True)
class Tokenized:
    """A text as a network reads it; made by the tokenizers of `lrpfast.tokens`.

    Attributes
    ----------
    tokens : tuple of str
    ids : tuple of int
        The tokens' numbers.
    padding : tuple of bool
        Which tokens only fill up.
    scheme : str
        How tokens make words: a name in `SCHEMES`.
    cut : int
        How many tokens the text had beyond these.
    unknown : tuple of str
        Words that are not in the vocabulary.
    """

    tokens: tuple[str, ...]
    ids: tuple[int, ...]
    padding: tuple[bool, ...]
    scheme: str
    cut: int
    unknown: tuple[str, ...]

    def array(self) -> NDArray[np.int64]:
        """The numbers as one sample (tokens,)."""
        return np.array(self.ids, np.int64)


def _whole_words(token: str) -> tuple[bytes, bool]:
    return token.encode(), True


def _wordpiece(token: str) -> tuple[bytes, bool]:
    inside = token.startswith("##") and len(token) > 2
    return (token[2:] if inside else token).encode(), not inside


def _sentencepiece(token: str) -> tuple[bytes, bool]:
    if found := BYTE.fullmatch(token):
        return bytes.fromhex(found[1]), False
    return token.replace("▁", " ").encode(), token.startswith("▁")


def _bytelevel(token: str) -> tuple[bytes, bool]:
    found = bytes(_BYTES[c] for c in token) if set(token) <= _BYTES.keys() else token.encode()
    return found, found[:1].isspace()


def _single_bytes(token: str) -> tuple[bytes, bool]:
    found = BYTE.fullmatch(token)
    value = bytes.fromhex(found[1]) if found else token.encode()
    return value, value.isspace()


def _byte_letters() -> dict[str, int]:
    """Byte-level BPE's alphabet: bytes that can be printed are themselves, the others follow from U+0100 on."""
    printable = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    others = [byte for byte in range(256) if byte not in printable]
    return {chr(b): b for b in printable} | {chr(0x100 + i): b for i, b in enumerate(others)}


_BYTES = _byte_letters()

Scheme = Callable[[str], tuple[bytes, bool]]

SCHEMES: Mapping[str, Scheme] = MappingProxyType(
    {
        "words": _whole_words,
        "wordpiece": _wordpiece,
        "sentencepiece": _sentencepiece,
        "bytelevel": _bytelevel,
        "bytes": _single_bytes,
    }
)
"""Words alone; WordPiece (BERT: ``##ing``); SentencePiece (T5, Llama: ``▁word``, ``<0xE2>``); byte-level
BPE (GPT-2, RoBERTa: ``Ġword``); single bytes."""


def find_scheme(tokens: Iterable[str]) -> str:
    """The scheme whose marks most tokens bear; words alone where none bears any."""
    marks: Counter[str] = Counter()
    for token in tokens:
        marks["wordpiece"] += token.startswith("##") and len(token) > 2
        marks["sentencepiece"] += "▁" in token
        marks["bytelevel"] += token.startswith(("Ġ", "Ċ"))
        marks["bytes"] += BYTE.fullmatch(token) is not None
    ordered = sorted(marks, key=lambda name: (name != "bytes", marks[name]))
    return next((name for name in reversed(ordered) if marks[name]), "words")


def checked_scheme(name: str) -> str:
    """`name`, which must be one of `SCHEMES`."""
    if name not in SCHEMES:
        raise InputError(f"unknown scheme {name!r} of tokens; choose one of {', '.join(SCHEMES)}, or auto")
    return name


def pieces(tokens: Sequence[str], scheme: str) -> list[Piece]:
    """Each token as a reader sees it, in its place.

    Bytes that are no text by themselves, parts of a letter say, are shown as ``\\xe2``.
    """
    return [_piece(raw, begins) for raw, begins in _read(tokens, scheme)]


def words(tokens: Sequence[str], scheme: str, alone: Collection[int] = ()) -> list[tuple[str, slice]]:
    """The words that neighbouring tokens make, with the tokens that make them.

    Parameters
    ----------
    tokens, scheme
        As for `pieces`.
    alone : collection of int, default ()
        Places of tokens that are words of their own, as those in `SPECIAL` are anyway.

    Returns
    -------
    list of (str, slice)
        In order; the slices cover all tokens once.
    """
    read = _read(tokens, scheme, alone)
    starts = [i for i, (_, begins) in enumerate(read) if begins]
    spans = [slice(a, b) for a, b in zip(starts, [*starts[1:], len(read)], strict=True)]
    return [(_piece(b"".join(raw for raw, _ in read[span]), True).text, span) for span in spans]


def _read(tokens: Sequence[str], scheme: str, alone: Collection[int] = ()) -> list[tuple[bytes, bool]]:
    """Bytes, and whether a word begins: always with and behind what is alone."""
    of = SCHEMES[checked_scheme(scheme)]
    found: list[tuple[bytes, bool]] = []
    behind = True
    for i, token in enumerate(tokens):
        single = i in alone or SPECIAL.fullmatch(token) is not None
        raw, begins = (token.encode(), True) if single else of(token)
        found.append((raw, begins or behind))
        behind = single
    return found


def _piece(raw: bytes, begins: bool) -> Piece:
    text = raw.decode("utf-8", "backslashreplace")
    shown = text.strip() or "".join(WHITE.get(c, c) for c in text) or "∅"
    return Piece("".join(c if c.isprintable() else ascii(c)[1:-1] for c in shown), begins)
