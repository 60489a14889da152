"""A text classifier with an embedding, and the texts it is for: from which library does a docstring come?

>>> net = text_cnn()
>>> text = net.held_out[0]
>>> text.words, text.library
>>> x = net.tokens([text])                          # (1, 40), int64

The texts are docstrings of packages that the dependency group `peers` brings along, so they are there wherever
these tests run. The network is trained once per machine, in some 15 s, and cached as networks.py does it.
"""

from __future__ import annotations

import ast
import hashlib
import json
import re
import tempfile
import warnings
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from networks import CACHE
from numpy.typing import NDArray

if TYPE_CHECKING:
    import torch

LIBRARIES = ("networkx", "skimage", "sklearn", "sympy")
"""The classes: graphs, images, learning, algebra."""

DISTRIBUTIONS = ("networkx", "scikit-image", "scikit-learn", "sympy", "torch")

LENGTH = 40
"""Words of a text that count; a shorter one is filled up with `PAD`."""

SHORTEST = 10
"""Texts with fewer words are left out."""

PAD, UNKNOWN = 0, 1

MOST = 1600
"""At most so many texts of a library; some have many times as many as others."""

WIDTHS, FEATURES, CHANNELS = (3, 4, 5), 32, 48


@dataclass(frozen=True)
class Text:
    """A docstring, up to its examples.

    Attributes
    ----------
    words : tuple of str
        In lower case; those with a name of a library in them are left out.
    library : str
        One of `LIBRARIES`.
    """

    words: tuple[str, ...]
    library: str


@dataclass(frozen=True)
class TextNet:
    """A trained text classifier.

    Attributes
    ----------
    path : Path
        The ONNX file: int64 tokens (n, 40) to logits (n, 4).
    vocabulary : tuple of str
        Words by their tokens; the first two stand for `PAD` and `UNKNOWN`.
    held_out : tuple of Text
        Texts that it was not trained on.
    """

    path: Path
    vocabulary: tuple[str, ...]
    held_out: tuple[Text, ...]

    def tokens(self, texts: Iterable[Text]) -> NDArray[np.int64]:
        """What the network reads, (n, 40)."""
        return _tokens(texts, self.vocabulary)


@cache
def text_cnn() -> TextNet:
    """The network, trained and exported first if this machine has not done so."""
    path = CACHE / f"text_cnn-{_key()}.onnx"
    words = path.with_suffix(".json")
    if not (path.exists() and words.exists()):
        CACHE.mkdir(parents=True, exist_ok=True)
        for outdated in CACHE.glob("text_cnn-*"):
            outdated.unlink(missing_ok=True)
        texts = _texts()
        held_out, training = texts[: len(texts) // 5], texts[len(texts) // 5 :]
        vocabulary = _vocabulary(training)
        content = {"vocabulary": vocabulary, "held_out": [(text.words, text.library) for text in held_out]}
        with tempfile.TemporaryDirectory(dir=CACHE) as folder:
            draft = Path(folder) / "draft"
            draft.write_text(json.dumps(content))
            draft.replace(words)
            _export(_train(training, vocabulary), draft)
            draft.replace(path)
    content = json.loads(words.read_text())
    held_out = [Text(tuple(text), library) for text, library in content["held_out"]]
    return TextNet(path, tuple(content["vocabulary"]), tuple(held_out))


def _key() -> str:
    """What the cached files depend on: this one and the versions of the packages."""
    parts = (Path(__file__).read_text(), *map(version, DISTRIBUTIONS))
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:12]


# --- texts ---


def _texts() -> list[Text]:
    """All texts, in a seeded order."""
    texts = [Text(words, library) for library in LIBRARIES for words in _distinct(library)]
    return [texts[i] for i in np.random.default_rng(0).permutation(len(texts))]


def _distinct(library: str) -> list[tuple[str, ...]]:
    """Different texts of a library: the first `MOST`, since reading all takes its time."""
    found: dict[tuple[str, ...], None] = {}
    for docstring in _docstrings(library):
        words = _words(docstring)
        if len(words) >= SHORTEST:
            found[words] = None
        if len(found) == MOST:
            break
    return list(found)


def _docstrings(library: str) -> Iterable[str]:
    """The docstrings of functions and classes, from the package's files in a seeded order; it is not imported."""
    spec = find_spec(library)
    if spec is None or spec.origin is None:
        raise ModuleNotFoundError(
            f"the package {library!r}, whose docstrings the tests need, is not installed"
        )
    paths = sorted(path for path in Path(spec.origin).parent.rglob("*.py") if "tests" not in path.parts)
    for i in np.random.default_rng(0).permutation(len(paths)):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of escape sequences in other people's strings
            tree = ast.parse(paths[i].read_bytes())
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith("__"):
                yield ast.get_docstring(node) or ""


def _words(docstring: str) -> tuple[str, ...]:
    """The words before the examples."""
    prose = re.split(r">>>|\n\s*Examples", docstring)[0].lower()
    found = re.findall(r"[a-z]{2,}", prose)
    return tuple(word for word in found if not any(library in word for library in LIBRARIES))


def _vocabulary(texts: Iterable[Text]) -> list[str]:
    """The words that occur in four texts or more, in the order of the alphabet."""
    counts = Counter(word for text in texts for word in set(text.words))
    return ["<pad>", "<unknown>", *sorted(word for word, count in counts.items() if count >= 4)]


def _tokens(texts: Iterable[Text], vocabulary: Sequence[str]) -> NDArray[np.int64]:
    place = {word: token for token, word in enumerate(vocabulary)}
    rows = [[place.get(word, UNKNOWN) for word in text.words[:LENGTH]] for text in texts]
    return np.array([row + [PAD] * (LENGTH - len(row)) for row in rows])


# --- the network ---


def _module(words: int) -> torch.nn.Module:
    """Embedding; convolutions of three widths, each followed by ReLU and the maximum over time; a dense layer."""
    import torch
    from torch import nn

    class TextCNN(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embedding = nn.Embedding(words, FEATURES, padding_idx=PAD)
            self.convolutions = nn.ModuleList(nn.Conv1d(FEATURES, CHANNELS, width) for width in WIDTHS)
            self.dropout = nn.Dropout(0.4)
            self.dense = nn.Linear(len(WIDTHS) * CHANNELS, len(LIBRARIES))

        def forward(self, tokens: torch.Tensor) -> torch.Tensor:
            x = self.embedding(tokens).transpose(1, 2)
            maxima = [torch.relu(convolution(x)).amax(2) for convolution in self.convolutions]
            logits: torch.Tensor = self.dense(self.dropout(torch.cat(maxima, 1)))
            return logits

    return TextCNN()


def _train(
    texts: Sequence[Text], vocabulary: Sequence[str], epochs: int = 6, batch: int = 64
) -> torch.nn.Module:
    """Minimise the cross-entropy with AdamW."""
    import torch

    x = torch.from_numpy(_tokens(texts, vocabulary))
    y = torch.tensor([LIBRARIES.index(text.library) for text in texts])
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # several wait for each other by spinning, and that takes longer
    with torch.random.fork_rng():
        torch.manual_seed(0)
        module = _module(len(vocabulary))
        optimizer = torch.optim.AdamW(module.parameters(), lr=2e-3, weight_decay=0.01)
        for _ in range(epochs):
            for chosen in torch.randperm(len(x)).split(batch):
                loss = torch.nn.functional.cross_entropy(module(x[chosen]), y[chosen])
                optimizer.zero_grad()
                torch.autograd.backward(loss)
                optimizer.step()
    torch.set_num_threads(threads)
    return module.eval()


def _export(module: torch.nn.Module, path: Path) -> None:
    import torch

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the older exporter, which says so
        torch.onnx.export(
            module,
            (torch.zeros(2, LENGTH, dtype=torch.int64),),
            path,
            dynamo=False,
            opset_version=17,
            input_names=["tokens"],
            output_names=["logits"],
            dynamic_axes={"tokens": {0: "n"}, "logits": {0: "n"}},
        )
