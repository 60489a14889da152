"""What holds of files from strangers, whatever is in them: lrpfast's own error, or a sound result.

Each property takes the bytes of a file, and raises if lrpfast does anything else. `make fuzz` looks for bytes that
break one; `tests/seeds` has those that did.
"""

from __future__ import annotations

import io
import os
import tempfile
import warnings
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np

import lrpfast
from lrpfast.batch.arrays import open_arrays
from lrpfast.batch.decoding import Decoder
from lrpfast.batch.places import Place
from lrpfast.batch.tables import Columns, open_table
from lrpfast.cli.console import Failure
from lrpfast.cli.labels import read_features
from lrpfast.errors import LrpfastError, OutOfMemoryError
from lrpfast.preprocess import PREPROCESSINGS, Preprocessing
from lrpfast.tables import read_table
from lrpfast.tokens import read as read_tokens

SAMPLE = (3, 8, 8)
"""Shape of the samples that arrays and pictures are read as."""

ELEMENTS = 2**17
"""Networks with more elements in all their arrays are loaded, and not run: runs are to be fast."""

LIMITS = lrpfast.Limits(
    nodes=2000, structure=2**20, weights=2**26, folded=2**26, steps=2**27, elements=2**24, pixels=2**22, arrays=2**24,
    text=2**20,
)  # fmt: skip
"""As a careful user would set them; what they allow fits into little memory."""

COMPOSITES = ("epsilon_plus", "epsilon_gamma_box", "epsilon_alpha2_beta1_flat", "deep_taylor", "gradient")

REFUSALS = (LrpfastError, Failure)


def model(data: bytes) -> str:
    """A model is refused, or its network explains noise: finite, and with a closed ledger."""
    try:
        network = lrpfast.load(data, limits=LIMITS)
        if sum(fact.size for fact in network.graph.facts.values()) > ELEMENTS:
            return "large"
    except OutOfMemoryError:  # the limits are there so that it does not come to that
        raise
    except LrpfastError:
        return "refused"
    name = COMPOSITES[zlib.crc32(data) % len(COMPOSITES)]
    low_high = {"low": -3, "high": 3} if "box" in name else {}
    composite = lrpfast.composite(name, **low_high)
    for dtype in (np.float32, np.float64):  # relevance by a value may be less than float32 has numbers for
        try:
            explanation = _explained(network, composite, dtype)
        except OutOfMemoryError:
            raise
        except LrpfastError:
            return "failed"
        if not any(_is_open(row, explanation.conservation) for row in explanation.conservation):
            return "explained"
    raise AssertionError(f"{name}: relevance is lost\n{explanation.conservation}")


def _explained(network: lrpfast.Network, composite: lrpfast.Composite, dtype: type) -> lrpfast.Explanation:
    """The explanation of noise, which is finite."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", lrpfast.BlowUpWarning)
        explanation = lrpfast.explain(
            network, network.noise(2), composite=composite, backend="native", threads=1, dtype=dtype
        )
    relevance = explanation.relevance
    for array in relevance.values() if isinstance(relevance, Mapping) else (relevance,):
        assert np.isfinite(array).all(), f"{composite}: relevance is not finite"
    return explanation


def _is_open(row: lrpfast.ConservationRow, ledger: lrpfast.Conservation) -> bool:
    """Whether a node lost more than rounding does, which is as large as relevance is anywhere in the network."""
    lost = row.r_in - row.r_out - row.bias - row.stabilizer - row.dead - row.clipped
    most = max(abs(value) for each in ledger for value in (each.r_in, each.r_out, each.bias, each.dead))
    return abs(row.unexplained) > 1e-2 and abs(lost) > 1e-5 * most + 1e-30  # below, float32 loses its digits


def image(data: bytes) -> str:
    """Pictures, and arrays of one sample, as a job reads them."""
    try:
        array = Decoder(SAMPLE, PREPROCESSINGS["imagenet"]).file(data, "name")
    except LrpfastError:
        return "refused"
    assert array.shape == SAMPLE
    return "read"


def arrays(data: bytes) -> str:
    """Arrays of many samples, as a job reads them."""
    with _file(data, ".npz" if data.startswith(b"PK") else ".npy") as path:
        try:
            source, _ = open_arrays(Place.at(path), "name", Decoder(SAMPLE, PREPROCESSINGS["raw"]))
            count = min(len(source), 20)
            for item in source.items(0, count):
                assert [array.shape for array in item.read()] == [SAMPLE]
        except LrpfastError:
            return "refused"
    return "read"


def table(data: bytes) -> str:
    """Parquet."""
    with _file(data, ".parquet") as path:
        try:
            source = open_table(Place.at(path), "name", Columns(), Decoder(SAMPLE, PREPROCESSINGS["raw"]))
            for item in source.items(0, min(len(source), 20)):
                try:
                    assert [array.shape for array in item.read()] == [SAMPLE]
                except LrpfastError:
                    continue
        except LrpfastError:
            return "refused"
    return "read"


def explanation(data: bytes) -> str:
    """What `Explanation.save` wrote, and its ledger in words."""
    return _read(lambda path: str(lrpfast.Explanation.load(path).conservation), data, ".npz")


def preprocessing(data: bytes) -> str:
    return _read(Preprocessing.from_json, data, ".json")


def labels(data: bytes) -> str:
    return _read(read_features, data, ".txt")


def csv(data: bytes) -> str:
    return _read(read_table, data, ".csv")


def tokens(data: bytes) -> str:
    """A tokenizer or a vocabulary, and a text that it cuts."""
    return _read(_tokenized, data, ".json" if data.lstrip()[:1] == b"{" else ".txt")


def _tokenized(path: str) -> None:
    tokenizer = read_tokens(path)
    found = tokenizer.encode("A good film, isn't it? žluťoučký 電影")
    assert len(found.tokens) == len(found.ids)


def _read(read: Callable[[str], object], data: bytes, suffix: str) -> str:
    with _file(data, suffix) as path:
        try:
            read(path)
        except REFUSALS:
            return "refused"
    return "read"


class _file:
    """A file with these bytes, in memory where that is possible."""

    def __init__(self, data: bytes, suffix: str) -> None:
        self.data, self.suffix = data, suffix

    def __enter__(self) -> str:
        folder = "/dev/shm" if os.path.isdir("/dev/shm") else None
        handle, self.path = tempfile.mkstemp(self.suffix, "lrpfast-fuzz-", folder)
        with io.FileIO(handle, "w") as file:
            file.write(self.data)
        return self.path

    def __exit__(self, *error: object) -> None:
        Path(self.path).unlink()


PROPERTIES: Mapping[str, Callable[[bytes], str]] = {
    each.__name__: each
    for each in (model, image, arrays, table, explanation, preprocessing, labels, csv, tokens)
}
"""By the name of the folder in `tests/seeds`."""
