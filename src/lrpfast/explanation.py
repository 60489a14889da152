"""What an explanation is: relevance, the prediction it belongs to, and where every bit of it went."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, overload

import numpy as np

from .blowup import check_threshold
from .errors import InputError
from .files import json_value, whole_file
from .ledger import BLOWUP, ConservationRow, SampleLedger
from .npy import read_arrays
from .ops.base import Array

if TYPE_CHECKING:
    from PIL.Image import Image

    from .draw import Chart
    from .pieces import Tokenized
    from .text import TokenRelevance


class Conservation(Sequence[ConservationRow]):
    """The conservation ledger: one row per node, from the output back to the input.

    A sequence of `ConservationRow`; printed, a table of 80 columns, in which `stab.` is what the stabilizer took
    and `rest` what is unexplained.

    Parameters
    ----------
    rows : iterable of ConservationRow, or a function that makes them
        A function is called when the rows are looked at first.
    samples : callable, optional
        Makes the figures of each sample.
    """

    def __init__(
        self,
        rows: Iterable[ConservationRow] | Callable[[], Iterable[ConservationRow]],
        samples: Callable[[], SampleLedger] | None = None,
    ) -> None:
        self._source = rows
        self._samples = samples

    @cached_property
    def _rows(self) -> tuple[ConservationRow, ...]:
        return tuple(self._source() if callable(self._source) else self._source)

    def __reduce__(self) -> tuple[Any, ...]:
        return Conservation, (self._rows,)  # rows are less than what they are made of

    @overload
    def __getitem__(self, index: int) -> ConservationRow: ...
    @overload
    def __getitem__(self, index: slice) -> Conservation: ...
    def __getitem__(self, index: int | slice) -> ConservationRow | Conservation:
        return Conservation(self._rows[index]) if isinstance(index, slice) else self._rows[index]

    def __len__(self) -> int:
        return len(self._rows)

    def __iter__(self) -> Iterator[ConservationRow]:
        return iter(self._rows)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Conservation) and self._rows == other._rows

    __hash__ = None  # type: ignore[assignment]

    @property
    def worst(self) -> float:
        """The largest |unexplained|; 0 where no rule promises conservation."""
        shares = [abs(row.unexplained) for row in self if not np.isnan(row.unexplained)]
        return max(shares, default=0.0)

    def by_sample(self) -> SampleLedger:
        """The ledger of each sample rather than of the batch, over all nodes.

        Raises
        ------
        InputError
            The explanation was saved, pickled or cut: only sums over the batch were kept.
        """
        if self._samples is None:
            raise InputError("this ledger has sums over the batch only; ask the explanation as it was made")
        return self._samples()

    def blowups(self, threshold: float = BLOWUP) -> Conservation:
        """The rows of nodes that multiplied Σ|R| by more than `threshold`.

        It is never the node that makes the explained output, nor one whose rule promises no conservation.

        Raises
        ------
        InputError
            The threshold is no finite number ≥ 1.
        """
        threshold = check_threshold(threshold)
        return Conservation([row for row in self if row.blows_up(threshold)])

    def __str__(self) -> str:
        clipped = any(row.clipped for row in self)
        head = ["R in", "R out", "bias", "stab.", "dead", *["clipped"] * clipped, "gain", "rest"]
        lines = [head]
        for row in self:
            taken = (row.bias, row.stabilizer, row.dead, *[row.clipped] * clipped)
            numbers = [_number(value) for value in (row.r_in, row.r_out, *taken)]
            rest = "-" if math.isnan(row.unexplained) else _number(row.unexplained, 1)
            lines.append([*numbers, _number(row.gain, 3), rest])
        widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
        words = [("node", "rule"), *((row.node, row.rule.removesuffix("()")) for row in self)]
        left = _COLUMNS - sum(widths) - len(widths) - 1
        rule = min(max(len(rule) for _, rule in words), max(left * 3 // 8, _RULE))
        node = min(max(len(node) for node, _ in words), max(left - rule, _NODE))
        table = zip(words, lines, strict=True)
        return "\n".join(
            f"{_shorten(name, node):{node}} {_shorten(which, rule):{rule}} "
            + " ".join(f"{cell:>{width}}" for cell, width in zip(cells, widths, strict=True))
            for (name, which), cells in table
        )


_COLUMNS = 80
_NODE, _RULE = 10, 7  # the least that is left for the words


def _number(value: float, most: int = 4, width: int = 6) -> str:
    """As many digits, of so many at most, as fit in the width; one at least."""
    digits = (f"{value:.{n}g}".replace("e-0", "e-").replace("e+0", "e+") for n in range(most, 0, -1))
    *_, shortest = texts = list(digits)
    return next((text for text in texts if len(text) <= width), shortest)


def _shorten(text: str, width: int) -> str:
    tail = width // 2
    return text if len(text) <= width else text[: width - 1 - tail] + "…" + text[len(text) - tail :]


@dataclass(frozen=True, eq=False)
class Explanation:
    """The relevance of every input for a prediction.

    Attributes
    ----------
    relevance : array, shape of x, or a mapping of input name to array
        Positive where an input spoke for the target, negative where it spoke against it. A mapping where the
        network has several inputs.
    output : array (n, ...)
        What the network computed for the target to be chosen from: logits, where it ends in a Softmax or Sigmoid.
    probabilities : array (n, classes) or None
        Sigmoid of `output` where the network ends in one, else Softmax; None if the output is not one vector
        per sample, or has one value that no Sigmoid follows.
    target : array
        Index per sample, int (n,), or the weights of the outputs, shape of `output`.
    layers : mapping of node name to array
        Relevance at the outputs of the nodes that were recorded.
    conservation : Conservation
        Where relevance went, node by node.
    manifest : mapping
        What made this explanation: model hash, composite, rule per node, versions, backend, dtype.
    """

    relevance: Array | Mapping[str, Array]
    output: Array
    probabilities: Array | None
    target: Array
    layers: Mapping[str, Array]
    conservation: Conservation
    manifest: Mapping[str, Any] = field(repr=False)

    def __len__(self) -> int:
        return len(self.output)

    def relevance_of(self, name: str | None = None) -> Array:
        """The relevance of one input.

        Parameters
        ----------
        name : str, optional
            Which input; needed only where the network has several.

        Raises
        ------
        InputError
            There is no such input, or several and no name.
        """
        if not isinstance(self.relevance, Mapping):
            if name is None:
                return self.relevance
            raise InputError(f"input={name!r}, but there is only one input: leave it out")
        if name is None or name not in self.relevance:
            raise InputError(f"input={name!r}; expected one of {', '.join(self.relevance)}")
        return self.relevance[name]

    def image(self, index: int = 0, *, input: str | None = None, **options: Any) -> Image:
        """Draw one sample's relevance as a heatmap (needs Pillow).

        Parameters
        ----------
        index : int, default 0
            Which sample.
        input : str, optional
            Which input, where the network has several.
        **options
            As for `lrpfast.image.render`: ``photo``, ``mode``, ``cmap``, ``clip``, ….
        """
        from .image import render

        return render(self.relevance_of(input)[index], **options)

    def text(
        self,
        tokens: Iterable[str] | Tokenized,
        index: int = 0,
        *,
        input: str | None = None,
        padding: Any = None,
        scheme: str = "auto",
    ) -> TokenRelevance:
        """One sample's relevance as that of a text's tokens.

        Parameters
        ----------
        tokens : iterable of str, or Tokenized
            What the network read: one token for each place of the sample, padding included; or what a tokenizer
            of `lrpfast.tokens` made. Whatever axes there are behind that of the places (an embedding's) are
            summed over.
        index : int, default 0
            Which sample.
        input : str, optional
            Which input, where the network has several.
        padding, scheme : optional
            As for `lrpfast.text.token_relevance`.

        Returns
        -------
        lrpfast.text.TokenRelevance
            Something to print, to draw and to save.

        Raises
        ------
        InputError
            There are not as many tokens as places.
        """
        from .text import token_relevance

        return token_relevance(tokens, self.relevance_of(input)[index], padding, scheme)

    def signal(self, x: Any, index: int = 0, *, input: str | None = None, **options: Any) -> Chart:
        """Draw one sample's relevance as colours of the curve that was explained (needs matplotlib).

        Parameters
        ----------
        x : array
            The inputs that were explained, or the one sample, (channels, length) or (length,).
        index : int, default 0
            Which sample.
        input : str, optional
            Which input, where the network has several.
        **options
            As for `lrpfast.draw.signal`: ``names``, ``cmap``, ``level``, ….

        Returns
        -------
        lrpfast.draw.Chart

        Raises
        ------
        InputError
            `x` does not fit the relevance, or that is no signal.
        MissingPackageError
            matplotlib is not installed.
        """
        from .draw import signal

        relevance = self.relevance_of(input)
        return signal(x[index] if np.shape(x) == relevance.shape else x, relevance[index], **options)

    def bars(
        self,
        names: Sequence[str] | None = None,
        index: int = 0,
        k: int = 20,
        *,
        values: Any = None,
        input: str | None = None,
        **options: Any,
    ) -> Chart:
        """Draw one sample's relevance of a table's features as bars (needs matplotlib).

        Parameters
        ----------
        names : sequence of str, optional
            Of the features.
        index : int, default 0
            Which sample.
        k : int, default 20
            How many features are shown by themselves, the strongest first.
        values : array, optional
            The inputs that were explained, or the one sample: shown behind the names.
        input : str, optional
            Which input, where the network has several.
        **options
            As for `lrpfast.draw.bars`.

        Returns
        -------
        lrpfast.draw.Chart

        Raises
        ------
        InputError
            Names or values do not fit the relevance, or that is not one of features.
        MissingPackageError
            matplotlib is not installed.
        """
        from .draw import bars

        relevance = self.relevance_of(input)
        values = values[index] if np.shape(values) == relevance.shape else values
        return bars(relevance[index], names, values, k, **options)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write everything to an `.npz` file, whole or not at all.

        Raises
        ------
        OutputError
            The file cannot be written.
        """
        arrays = {"output": self.output, "target": self.target}
        inputs = list(self.relevance) if isinstance(self.relevance, Mapping) else []
        if isinstance(self.relevance, Mapping):
            arrays.update({f"relevance_{i}": self.relevance[name] for i, name in enumerate(inputs)})
        else:
            arrays["relevance"] = self.relevance
        if self.probabilities is not None:
            arrays["probabilities"] = self.probabilities
        names = list(self.layers)
        arrays.update({f"layer_{i}": self.layers[name] for i, name in enumerate(names)})
        rows = [asdict(row) for row in self.conservation]
        meta = {"manifest": dict(self.manifest), "inputs": inputs, "layers": names, "conservation": rows}
        with whole_file(path) as file:
            np.savez_compressed(file, meta=np.array(json.dumps(meta)), **arrays)  # type: ignore[arg-type]

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Explanation:
        """Read what `save` wrote.

        Raises
        ------
        FileNotFoundError
            There is no such file.
        InputError
            The file is not a saved explanation.
        """
        try:
            with open(path, "rb") as file:
                arrays = read_arrays(file, os.fspath(path))
            meta = json_value(str(arrays.pop("meta")))
            _check_saved(arrays, meta)
            named = {name: arrays[f"relevance_{i}"] for i, name in enumerate(meta.get("inputs", []))}
            return cls(
                relevance=named or arrays["relevance"],
                output=arrays["output"],
                probabilities=arrays.get("probabilities"),
                target=arrays["target"],
                layers={name: arrays[f"layer_{i}"] for i, name in enumerate(meta["layers"])},
                conservation=Conservation([ConservationRow(**row) for row in meta["conservation"]]),
                manifest=meta["manifest"],
            )
        except FileNotFoundError:
            raise
        except Exception as error:
            raise InputError(
                f"{os.fspath(path)!r} is not a saved explanation ({error}); expected an .npz file that "
                "Explanation.save wrote"
            ) from error


def _check_saved(arrays: Mapping[str, Array], meta: Mapping[str, Any]) -> None:
    """Raise `ValueError` unless arrays and ledger of a file are what `Explanation.save` writes."""
    count = arrays["output"].shape[:1]
    for name, array in arrays.items():
        if array.dtype.kind not in "biuf" or not count or array.shape[:1] != count:
            raise ValueError(f"its array {name!r} has dtype {array.dtype} and shape {array.shape}")
    if not isinstance(meta["manifest"], dict):
        raise ValueError("its manifest is no mapping")
    for row in meta["conservation"]:
        for name, value in row.items():
            kinds = {"node": str, "rule": str, "explained": bool}.get(name, (int, float))
            if not isinstance(value, kinds):
                raise ValueError(f"the ledger has {value!r} as {name}")
