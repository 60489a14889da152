"""Explanations in Ray Data's pipelines; jobs on a Ray cluster are `lrpfast.batch.run` with ``ray=``.

>>> import lrpfast, ray                                                                # doctest: +SKIP
>>> photos = ray.data.read_binary_files("s3://bucket/photos/", include_paths=True)     # doctest: +SKIP
>>> rows = photos.map_batches(                                                         # doctest: +SKIP
...     lrpfast.ray.Explainer, fn_constructor_args=["model.onnx"], concurrency=8, batch_size=64,
...     fn_constructor_kwargs={"column": "bytes", "id_column": "path", "target": "top3"},
... )
>>> rows.write_parquet("s3://bucket/relevance/")                                       # doctest: +SKIP
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from typing import TYPE_CHECKING, Any

import numpy as np

from .api import load
from .backends.cpus import default_num_threads
from .batch.decoding import Decoder
from .batch.encoding import Encoding, Kept
from .batch.explaining import Sample, prepare_explaining
from .batch.frames import frame_items
from .batch.inputs import shapes_of
from .batch.parts import KEY
from .batch.pipeline import BatchSize, staged
from .batch.places import Place
from .batch.tables import Columns
from .composites import Composite
from .extras import need
from .ledger import BLOWUP
from .network import Network
from .preprocess import PREPROCESSINGS, Preprocessing

if TYPE_CHECKING:
    from .onnx_inputs import InputShape

__all__ = ["Explainer"]


class Explainer:
    """Explains the batches of a Ray data set: a class for ``map_batches``.

    Each actor that Ray makes of it loads the model once.

    Parameters
    ----------
    model : path, URL, bytes or Network
        Paths and URLs are opened by each actor; what else it is is sent to them.
    composite, target, init, labels, preprocessing, column, id_column, top_k : optional
        As for `lrpfast.batch.run`.
    batch_size, max_memory, backend, dtype, on_blowup, blowup : optional
        As for `lrpfast.batch.run`: a batch of the data set is explained in pieces that fit into the memory.
    threads : int, optional
        Default: as many as Ray gives the actor CPUs.
    input_shape, output : optional
        As for `lrpfast.load`.

    Raises
    ------
    LrpfastError
        The model, the composite, the target or an option is unusable.
    """

    def __init__(
        self,
        model: str | os.PathLike[str] | bytes | Network,
        *,
        composite: str | Composite = "epsilon_plus_flat",
        target: str = "argmax",
        init: str | None = None,
        labels: Sequence[str] | None = None,
        preprocessing: Preprocessing = PREPROCESSINGS["imagenet"],
        column: str | Mapping[str, str] | None = None,
        id_column: str | None = None,
        top_k: int = 0,
        batch_size: int | None = None,
        threads: int | None = None,
        max_memory: int | str | None = None,
        backend: str | None = None,
        dtype: Any = np.float32,
        on_blowup: str = "warn",
        blowup: float = BLOWUP,
        input_shape: InputShape | None = None,
        output: str | None = None,
    ) -> None:
        network = _network(model, input_shape, output)
        threads = threads or default_num_threads()  # OMP_NUM_THREADS, which Ray sets for each actor
        self._explaining = prepare_explaining(
            network, composite, target=target, init=init, labels=labels, threads=threads, backend=backend, dtype=dtype,
            max_memory=max_memory, on_blowup=on_blowup, blowup=blowup,
        ).shared_out(sys.maxsize)  # fmt: skip
        shapes, streams = shapes_of(network), self._explaining.streams
        self._columns = Columns(column, id_column, self._explaining.target.column)
        self._decoder = Decoder(shapes, preprocessing)
        self._encoding = Encoding(Kept(not top_k, top_k), self._explaining.explainer.dtype, shapes)
        self._about = {KEY: json.dumps({"manifest": dict(self._explaining.manifest)})}
        self._size = BatchSize(batch_size, streams.most)
        self._decode, self._explain = (ThreadPoolExecutor(n, "lrpfast-ray") for n in (threads, streams.count))

    def __call__(self, batch: Mapping[str, Any]) -> Any:
        """Explain a batch.

        Parameters
        ----------
        batch : mapping of name to array
            Columns, as ``batch_format="numpy"`` has them, which is Ray's default. The inputs are encoded pictures or
            `.npy` files as bytes, paths or URLs of such, arrays in the shape of a sample, or, for networks that take
            pictures, these as whole numbers from 0 to 255 (``uint8``): (height, width) or (height, width, channels).

        Returns
        -------
        pyarrow.Table
            The rows that a job writes; ``index`` is the place in this batch. The manifest is in its metadata.

        Raises
        ------
        InputError
            The batch has no such columns. An input that is unusable makes a row with its error instead.
        """
        items = frame_items(batch, self._columns, self._decoder)
        streams = self._explaining.streams.count
        ahead = 2 * self._size.size * streams
        samples = staged(self._explaining.decoded, enumerate(items), self._decode, lambda: ahead)
        pieces = _pieces(samples, lambda: self._size.size)
        made = staged(self._size.timed(self._encoded), pieces, self._explain, lambda: streams)
        schema = self._encoding.schema
        table = need("pyarrow", "ray", "a table of rows").Table.from_batches(list(made), schema)
        return table.replace_schema_metadata({**schema.metadata, **self._about})

    def _encoded(self, samples: Sequence[Sample]) -> Any:
        return self._encoding.encoded(self._explaining.explained(samples)).batch


def _pieces(samples: Iterator[Sample], size: Callable[[], int]) -> Iterator[list[Sample]]:
    while some := list(islice(samples, size())):
        yield some


def _network(
    model: str | os.PathLike[str] | bytes | Network, input_shape: InputShape | None, output: str | None
) -> Network:
    if isinstance(model, Network):
        return model
    if isinstance(model, str) and "://" in model:
        return load(Place.at(model).read(), input_shape, output=output)
    return load(model, input_shape, output=output)
