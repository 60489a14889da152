"""Whole files to begin with, by property: what mutations start from."""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import numpy as np
import onnx

TESTS = Path(__file__).parents[1] / "tests"
sys.path.append(str(TESTS))

import conformance_cases  # noqa: E402
import test_classical  # noqa: E402
import test_heads  # noqa: E402
from hostile import SAMPLE  # noqa: E402
from light_models import FOLDER  # noqa: E402
from small_networks import SMALL_NETWORKS  # noqa: E402

import lrpfast  # noqa: E402

MOST = 2**16
"""Larger files are left out: small ones are mutated, and run, more often."""


def files(name: str) -> Iterator[bytes]:
    """Files for one of the properties, those that broke it once included."""
    yield from _MAKERS[name]()
    for path in sorted((TESTS / "seeds" / name).glob("*")):
        yield path.read_bytes()


def write(name: str, folder: Path) -> None:
    """Write the files into a folder, each under its hash."""
    folder.mkdir(parents=True, exist_ok=True)
    for data in files(name):
        if len(data) <= MOST:
            (folder / hashlib.sha256(data).hexdigest()[:16]).write_bytes(data)


def _models() -> Iterator[bytes]:
    """The small networks of the tests and what ends in labels; ONNX's own cases of single operators, and its networks
    with weights left out."""
    for make in SMALL_NETWORKS.values():
        yield make().SerializeToString()
    yield _with_functions().SerializeToString()
    for form in test_classical.FORMS.values():
        yield test_classical.model(*form).SerializeToString()
    for nodes, outputs, *_ in test_heads.LABELS.values():
        made = test_heads.model([test_heads.DENSE, *nodes], *outputs, **test_heads.CONSTANTS)
        yield made.SerializeToString()
    for case in conformance_cases.all_cases():
        if not (case.expanded or conformance_cases.inapplicable(case)):
            yield next(conformance_cases.readings(case)).model.SerializeToString()
    for path in FOLDER.glob("light_*.onnx"):
        yield path.read_bytes()


def _with_functions() -> onnx.ModelProto:
    """Two functions, one of which calls the other."""
    make = onnx.helper
    model = SMALL_NETWORKS["mlp"]()
    opsets = [*model.opset_import, make.make_opsetid("own", 1)]
    inner = [make.make_node("LeakyRelu", ["x"], ["a"], alpha=0.1), make.make_node("Add", ["a", "x"], ["y"])]
    outer = [make.make_node("Inner", ["x"], ["a"], domain="own"), make.make_node("Tanh", ["a"], ["y"])]
    model.functions.append(make.make_function("own", "Inner", ["x"], ["y"], inner, opsets))
    model.functions.append(make.make_function("own", "Outer", ["x"], ["y"], outer, opsets))
    model.opset_import.append(opsets[-1])
    for node in model.graph.node:
        if node.op_type == "Relu":
            node.op_type, node.domain = "Outer", "own"
    return model


def _images() -> Iterator[bytes]:
    from PIL import Image

    pixels = np.random.default_rng(0).integers(0, 256, (12, 17, 3), np.uint8)
    pictures = [
        Image.fromarray(pixels).convert(mode) for mode in ("RGB", "L", "RGBA", "P", "1", "CMYK", "LA")
    ]
    pictures.append(Image.fromarray(pixels[..., 0].astype(np.uint16)))
    for picture in pictures:
        for kind in ("PNG", "JPEG", "BMP", "GIF", "WEBP", "TIFF", "PPM"):
            file = io.BytesIO()
            with contextlib.suppress(OSError, ValueError):  # formats without this mode
                picture.save(file, kind)
                yield file.getvalue()
    yield from _arrays()


def _arrays() -> Iterator[bytes]:
    for shape in (SAMPLE, (3, *SAMPLE)):
        for dtype in ("f4", "f8", "u1", ">i2", "f2"):
            array = np.ones(shape, dtype)
            file = io.BytesIO()
            np.save(file, array)
            yield file.getvalue()
            for save in (np.savez, np.savez_compressed):
                file = io.BytesIO()
                save(file, x=array, other=np.zeros(2))
                yield file.getvalue()


def _tables() -> Iterator[bytes]:
    import pyarrow as pa
    from pyarrow import parquet

    size = int(np.prod(SAMPLE))
    picture = next(_images())
    columns = {
        "image": pa.array([picture, None, b"no picture"]),
        "x": pa.array([np.ones(size, np.float32).tolist()] * 3),
        "fixed": pa.array(np.ones((3, size)).tolist(), pa.list_(pa.float64(), size)),
        "nested": pa.array(np.ones((3, *SAMPLE)).tolist()),
        "struct": pa.array([{"bytes": picture, "path": "a.png"}] * 3),
        "path": pa.array(["nowhere.png", "https://example.invalid/a.png", None]),
    }
    for column in columns.values():
        for compression in ("snappy", "none", "gzip"):
            file = io.BytesIO()
            parquet.write_table(
                pa.table({"image": column, "id": ["a", "b", "c"]}), file, compression=compression
            )
            yield file.getvalue()


def _explanations() -> Iterator[bytes]:
    network = lrpfast.load(SMALL_NETWORKS["mlp"]())
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "saved.npz"
        lrpfast.explain(network, network.noise(2)).save(path)
        yield path.read_bytes()


def _texts(*texts: str) -> Iterator[bytes]:
    yield from (text.encode() for text in texts)


def _tokens() -> Iterator[bytes]:
    from tokenizers import BertWordPieceTokenizer, Tokenizer, decoders, models, pre_tokenizers

    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "a", "good", "film", "##s", ",", "?", "'", "isn", "t", "it"]
    yield "\n".join(words).encode()
    yield "\n".join(word for word in words if "#" not in word).encode()
    yield json.dumps({word: i for i, word in enumerate(words)}).encode()
    made = BertWordPieceTokenizer({word: i for i, word in enumerate(words)})
    made.enable_padding(length=8)
    made.enable_truncation(8)
    yield made.to_str().encode()

    for model, pre, decoder in (
        (
            models.BPE({"a": 0, "b": 1, "ab": 2}, [("a", "b")]),
            pre_tokenizers.ByteLevel(),
            decoders.ByteLevel(),
        ),
        (
            models.Unigram([("<unk>", 0.0), ("▁a", -1.0), ("film", -2.0)], 0, False),
            pre_tokenizers.Metaspace(),
            None,
        ),
        (models.WordLevel({"a": 0, "[UNK]": 1}, "[UNK]"), pre_tokenizers.Whitespace(), None),
    ):
        tokenizer = Tokenizer(model)
        tokenizer.pre_tokenizer = pre
        if decoder is not None:
            tokenizer.decoder = decoder
        yield tokenizer.to_str().encode()


_MAKERS: Mapping[str, Callable[[], Iterator[bytes]]] = {
    "model": _models,
    "image": _images,
    "arrays": _arrays,
    "table": _tables,
    "explanation": _explanations,
    "preprocessing": lambda: _texts(
        '{"size": [8, 8], "resize": "crop", "crop_ratio": 0.5, "interpolation": "bicubic", "channels": "BGR", '
        '"scale": 0.1, "mean": [1, 2, 3], "std": [0.5], "layout": "nchw", "grayscale": true}'
    ),
    "labels": lambda: _texts(
        "cat\ndog\n", '["cat", ["n0", "dog"]]', '{"0": "cat", "1": "dog"}', '{"cat": 0}'
    ),
    "csv": lambda: _texts("a,b\n1,2\n3,4\n", "1;2\n3;4", 'a\t"b ""c"""\n1e3\t-0.5\n'),
    "tokens": _tokens,
}
