"""Relevance of words: which tokens of a text spoke for the target, and which against it.

`Explanation.text` makes a `TokenRelevance`, which is printed (`ansi`), drawn (`html`, `image`, `save`) or
asked for its strongest tokens (`top`); `words` joins pieces of words.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .colors import Heat, as_numbers
from .errors import InputError, OutputError
from .files import whole_file
from .pieces import PADDING, Piece, Tokenized, checked_scheme, find_scheme, pieces, words

if TYPE_CHECKING:
    from PIL.Image import Image
    from typing_extensions import Unpack

    from .text_drawing import Drawing
    from .text_image import ImageOptions

__all__ = ["PADDING", "TokenRelevance", "token_relevance"]

DOCUMENTS = (".html", ".htm", ".txt")
PICTURES = (".png", ".jpg", ".jpeg")
SUFFIXES = (*DOCUMENTS, *PICTURES)
"""What `TokenRelevance.save` writes."""


@dataclass(frozen=True, eq=False)
class TokenRelevance:
    """A text in tokens, each with its relevance.

    Attributes
    ----------
    tokens : tuple of str
        All that the network read, in its order.
    relevance : array of float64 (tokens,)
        Positive where a token spoke for the target.
    padding : array of bool (tokens,)
        Tokens that are not drawn; their relevance is stated instead.
    scheme : str
        How tokens make words: a name in `lrpfast.pieces.SCHEMES`.
    """

    tokens: tuple[str, ...]
    relevance: Heat
    padding: NDArray[np.bool_]
    scheme: str

    def __len__(self) -> int:
        return len(self.tokens)

    def __str__(self) -> str:
        return self.ansi(colors="none")

    def _repr_html_(self) -> str:
        from .text_drawing import html_fragment

        return html_fragment(self._drawing(None))

    @property
    def total(self) -> float:
        """The sum over all tokens, padding included."""
        return float(self.relevance.sum())

    @property
    def left_out(self) -> float:
        """The relevance of the padding, which no drawing shows."""
        return float(self.relevance[self.padding].sum())

    def pieces(self) -> list[Piece]:
        """The tokens as a reader sees them, without the marks of the scheme."""
        return pieces(self.tokens, self.scheme)

    def top(self, k: int = 10) -> list[tuple[str, float]]:
        """The `k` tokens with the largest |relevance|, the strongest first; padding is left out.

        Raises
        ------
        InputError
            `k` is no positive whole number.
        """
        if not isinstance(k, (int, np.integer)) or k < 1:
            raise InputError(f"k is {k!r}; expected a positive whole number")
        shown = np.flatnonzero(~self.padding)
        order = shown[np.argsort(-np.abs(self.relevance[shown]), kind="stable")]
        return [(self.tokens[i], float(self.relevance[i])) for i in order[:k]]

    def words(self) -> TokenRelevance:
        """The same text in whole words: relevance of the pieces of a word is added up.

        What marks a piece depends on the `scheme`. Where punctuation has no mark of its own (SentencePiece,
        byte-level BPE) it stays with the word before it. Special tokens and padding stay alone.
        """
        joined = words(self.tokens, self.scheme, set(np.flatnonzero(self.padding).tolist()))
        sums = np.array([self.relevance[span].sum() for _, span in joined])
        padding = np.array([self.padding[span.start] for _, span in joined])
        return TokenRelevance(tuple(word for word, _ in joined), sums, padding, "words")

    def ansi(
        self,
        width: int | None = None,
        colors: Literal["auto", "truecolor", "256", "none"] = "auto",
        k: int = 10,
        level: float | None = None,
    ) -> str:
        """The text for a terminal: red behind what spoke for the target, blue behind what spoke against it.

        Without colours: the text, then its `k` strongest tokens with bars.

        Parameters
        ----------
        width : int, optional
            Columns. Default: the terminal's.
        colors : {"auto", "truecolor", "256", "none"}, default "auto"
            "auto" asks the environment: none if ``NO_COLOR`` is set, if the standard output is no terminal
            or ``TERM`` is ``dumb``; else as many as ``COLORTERM`` says.
        k : int, default 10
        level : float, optional
            The |relevance| that is shown in full colour. Default: the largest.
        """
        from .text_drawing import ansi

        return ansi(self._drawing(level), width, colors, k)

    def html(self, title: str = "", level: float | None = None) -> str:
        """An HTML document that needs no other file: coloured words, numbers as tooltips and as a table.

        Parameters
        ----------
        title : str, optional
            What stands above the text.
        level : float, optional
            As for `ansi`.
        """
        from .text_drawing import html

        return html(self._drawing(level), title)

    def image(self, title: str = "", level: float | None = None, **options: Unpack[ImageOptions]) -> Image:
        """A picture of the coloured words, set in lines (needs Pillow).

        Parameters
        ----------
        title, level : optional
            As for `html`.
        width : int, default 800
            Of the picture, in pixels.
        font_size : int, default 20
            In pixels.
        font : path, optional
            A TrueType or OpenType font. Default: Pillow's own, and where that has not all letters of the text
            the first of this machine's usual fonts that has more of them. Letters that are missing are
            drawn as ``\\u4e2d``.

        Raises
        ------
        InputError
            An option is out of range, or the font cannot be read.
        """
        from .text_image import image

        return image(self._drawing(level), title, **options)

    def save(self, path: str | os.PathLike[str], title: str = "", **options: Any) -> None:
        """Write an HTML document, a picture or plain text, as the suffix says; whole or not at all.

        Parameters
        ----------
        path : path
            In one of `SUFFIXES`.
        title, **options
            As for `html`, `image` or `ansi`.

        Raises
        ------
        OutputError
            Another suffix, or the file cannot be written.
        """
        path = Path(path)
        suffix = path.suffix.lower()
        if suffix in PICTURES:
            from .image import save

            save(self.image(title, **options), path)
            return
        if suffix not in DOCUMENTS:
            raise OutputError(
                f"cannot write {str(path)!r}: {path.suffix!r} is no format for words; use {' '.join(SUFFIXES)}"
            )
        head = f"{title}\n\n" if title else ""
        text = head + self.ansi(80, "none", **options) if suffix == ".txt" else self.html(title, **options)
        with whole_file(path) as file:
            file.write(f"{text}\n".encode())

    def _drawing(self, level: float | None) -> Drawing:
        from .text_drawing import Drawing

        return Drawing.of(self, level)


def token_relevance(
    tokens: Iterable[str] | Tokenized,
    relevance: ArrayLike,
    padding: Collection[str] | NDArray[np.bool_] | None = None,
    scheme: str = "auto",
) -> TokenRelevance:
    """Put tokens and relevance together.

    Parameters
    ----------
    tokens : iterable of str, or Tokenized
        One for each place of the network's input, padding included. What a tokenizer of `lrpfast.tokens` made
        knows its padding and scheme.
    relevance : array_like (tokens, ...)
        Summed over all axes but the first: the dimensions of an embedding, say.
    padding : collection of str, or array of bool (tokens,), optional
        The tokens that fill up, by name or by place. Default: `PADDING`.
    scheme : {"auto", "words", "wordpiece", "sentencepiece", "bytelevel", "bytes"}, default "auto"
        How tokens make words; "auto" looks for the marks of each in the tokens.

    Raises
    ------
    InputError
        There are not as many tokens as places, or an argument has the wrong type.
    NonFiniteError
        NaN or infinity in the relevance.
    """
    if isinstance(tokens, Tokenized):
        padding = np.array(tokens.padding) if padding is None else padding
        scheme = tokens.scheme if scheme == "auto" else scheme
        tokens = tokens.tokens
    values = as_numbers("relevance", relevance)
    names = _as_tokens(tokens)
    if values.ndim == 0 or len(values) != len(names) or not names:
        places = f"{len(values)} places" if values.ndim else "no axis"
        raise InputError(
            f"there are {len(names)} tokens, but relevance of shape {values.shape} has {places}; expected one "
            "token for each place, padding and special tokens included"
        )
    scheme = find_scheme(names) if scheme == "auto" else checked_scheme(scheme)
    mask = _mask(PADDING if padding is None else padding, names)
    return TokenRelevance(names, values.reshape(len(values), -1).sum(axis=1), mask, scheme)


def _as_tokens(tokens: Iterable[str]) -> tuple[str, ...]:
    """Tokens as a tuple; one string is none of them."""
    names = () if isinstance(tokens, str) else tuple(tokens)
    wrong = [token for token in names if not isinstance(token, str)]
    if wrong or isinstance(tokens, str):
        found = f"{wrong[0]!r} among them" if wrong else repr(tokens)
        raise InputError(f"tokens have to be strings, one for each place of the input; got {found:.80}")
    return names


def _mask(padding: Collection[str] | NDArray[np.bool_], tokens: tuple[str, ...]) -> NDArray[np.bool_]:
    """Which tokens are padding."""
    if isinstance(padding, np.ndarray) and padding.dtype == np.bool_:
        if padding.shape != (len(tokens),):
            raise InputError(f"padding has shape {padding.shape}; expected ({len(tokens)},), one per token")
        return padding
    names = {padding} if isinstance(padding, str) else set(padding)
    return np.array([token in names for token in tokens])
