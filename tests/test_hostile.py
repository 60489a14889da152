"""Files from strangers: seeds that broke a property once, fresh damage, and what is never loaded."""

from __future__ import annotations

import ast
import io
import json
import os
import pickle
import random
import sys
import zipfile
from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np
import onnx
import pytest
from hostile import PROPERTIES, SAMPLE
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from mutations import mutated
from onnx_models import model_of, node
from PIL import Image
from small_networks import SMALL_NETWORKS

import lrpfast
from lrpfast.batch.decoding import Decoder
from lrpfast.batch.sources import open_source
from lrpfast.batch.tables import Columns
from lrpfast.errors import InputError, ModelError
from lrpfast.preprocess import Preprocessing

SEEDS = sorted((Path(__file__).parent / "seeds").glob("*/*"))
SOURCES = sorted(Path(lrpfast.__file__).parent.rglob("*.py"))


@pytest.mark.parametrize("seed", SEEDS, ids=lambda path: f"{path.parent.name}-{path.stem}")
def test_what_broke_a_property_once(seed: Path) -> None:
    PROPERTIES[seed.parent.name](seed.read_bytes())


# --- fresh damage ---


@cache
def models() -> tuple[onnx.ModelProto, ...]:
    return tuple(make() for make in SMALL_NETWORKS.values())


@settings(max_examples=60, suppress_health_check=list(HealthCheck))
@given(st.integers(0, 2**32), st.integers(0, len(SMALL_NETWORKS) - 1))
def test_damaged_models(seed: int, place: int) -> None:
    model = mutated(models()[place], random.Random(seed), models())
    PROPERTIES["model"](model.SerializeToString())


def saved(save: Callable[..., None], *arrays: np.ndarray, **named: np.ndarray) -> bytes:
    file = io.BytesIO()
    save(file, *arrays, **named)
    return file.getvalue()


def picture(kind: str) -> bytes:
    file = io.BytesIO()
    pixels = np.random.default_rng(0).integers(0, 256, (12, 17, 3), np.uint8)
    Image.fromarray(pixels).save(file, kind)
    return file.getvalue()


WHOLE = {
    "image": (picture("PNG"), picture("JPEG"), picture("TIFF"), saved(np.save, np.ones(SAMPLE))),
    "arrays": (saved(np.save, np.ones((2, *SAMPLE))), saved(np.savez_compressed, x=np.ones((2, *SAMPLE)))),
    "preprocessing": (b'{"size": [8, 8], "mean": [1, 2, 3], "scale": 0.1, "layout": "nchw"}',),
    "labels": (b"cat\ndog", b'["cat", ["n0", "dog"]]', b'{"0": "cat"}'),
    "csv": (b"a,b\n1,2\n3,4\n",),
    "tokens": (b"[UNK]\na\nfilm", b'{"[UNK]": 0, "a": 1}'),
}
"""Files that are as they should be."""


@pytest.mark.parametrize("name", WHOLE)
def test_whole_files_are_read(name: str) -> None:
    assert {PROPERTIES[name](data) for data in WHOLE[name]} == {"read"}


@settings(max_examples=150, suppress_health_check=list(HealthCheck))
@given(st.sampled_from([(name, data) for name, files in WHOLE.items() for data in files]), st.data())
def test_damaged_files(whole: tuple[str, bytes], choices: st.DataObject) -> None:
    name, data = whole
    damaged = bytearray(data)
    for place, byte in choices.draw(
        st.lists(st.tuples(st.integers(0, len(data) - 1), st.integers(0, 255)), max_size=8)
    ):
        damaged[place] = byte
    end = choices.draw(st.integers(0, len(data)))
    PROPERTIES[name](bytes(damaged[: end or len(data)]))


# --- what is never loaded ---


class Malice:
    """Makes a folder when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = str(path)

    def __reduce__(self) -> tuple[Callable[[str], None], tuple[str]]:
        return os.mkdir, (self.path,)


def test_pickles_in_arrays_are_not_run(tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    objects = np.array([Malice(mark)], object)
    np.save(tmp_path / "a.npy", objects, allow_pickle=True)
    np.savez(tmp_path / "a.npz", meta=objects, relevance=np.ones(1))
    for path in (tmp_path / "a.npy", tmp_path / "a.npz"):
        with pytest.raises(InputError, match="never loaded"):
            lrpfast.preprocess.read_arrays(path)
        for name in ("arrays", "image"):
            assert PROPERTIES[name](path.read_bytes()) == "refused"
    with pytest.raises(InputError, match="never loaded"):
        lrpfast.Explanation.load(tmp_path / "a.npz")
    assert not mark.exists()


def test_nothing_in_the_package_unpickles_or_runs_what_it_reads() -> None:
    """No module imports a format that runs code, and NumPy is always told that it may not."""
    runs = {"pickle", "cPickle", "dill", "cloudpickle", "joblib", "marshal", "shelve", "yaml"}
    offenders = []
    for path in SOURCES:
        for found in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(found, ast.Import):
                offenders += [f"{path}: import {each.name}" for each in found.names if each.name in runs]
            elif isinstance(found, ast.ImportFrom) and found.module in runs:
                offenders.append(f"{path}: from {found.module}")
            elif isinstance(found, ast.Call) and ast.unparse(found.func) in ("eval", "exec"):
                offenders.append(f"{path}: {ast.unparse(found)}")
            elif isinstance(found, ast.Call) and ast.unparse(found.func) == "np.load":
                given = {each.arg: ast.unparse(each.value) for each in found.keywords}
                if given.get("allow_pickle") != "False":
                    offenders.append(f"{path}: {ast.unparse(found)}")
    assert not offenders


def test_pictures_in_formats_that_run_programs_are_not_opened(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    Image.new("RGB", (4, 4)).save(path, "EPS")
    with pytest.raises(InputError, match="cannot identify"):
        lrpfast.preprocess.read_image(path)


@pytest.mark.skipif(sys.version_info < (3, 11), reason="zarr 3 needs Python 3.11")
@pytest.mark.parametrize("place", ["filters", "compressor"])
def test_pickles_in_zarr_arrays_are_not_run(place: str, tmp_path: Path) -> None:
    import zarr

    from lrpfast.batch.stores import open_store

    mark, folder = tmp_path / "mark", tmp_path / "a.zarr"
    array = zarr.create_array(folder, shape=(1, *SAMPLE), dtype="f4", zarr_format=2, compressors=None)
    array[:] = 1
    about = json.loads((folder / ".zarray").read_text())
    about[place] = (
        {"id": "pickle", "protocol": 5} if place == "compressor" else [{"id": "pickle", "protocol": 5}]
    )
    (folder / ".zarray").write_text(json.dumps(about))
    (folder / "0.0.0.0").write_bytes(pickle.dumps(Malice(mark)))
    with pytest.raises(InputError):
        list(open_store(str(folder), "a", Decoder(SAMPLE, Preprocessing())).items(0, 1))
    assert not mark.exists()


# --- what is no file ---


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="pipes are of POSIX")
def test_pipes_and_devices_are_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "zero.png").symlink_to("/dev/zero")
    source = open_source(tmp_path, Decoder(SAMPLE, Preprocessing()), Columns())
    for item in source.items(0, len(source)):
        with pytest.raises(InputError, match="no regular file"):
            item.read()
    model = model_of([node("MatMul", "x w")], ("n", 2))
    w = onnx.TensorProto(name="w", data_type=1, dims=[2, 2], data_location=onnx.TensorProto.EXTERNAL)
    w.external_data.add(key="location", value="pipe.png")
    model.graph.initializer.append(w)
    (tmp_path / "model.onnx").write_bytes(model.SerializeToString())
    for path in (tmp_path / "model.onnx", tmp_path / "pipe.png", Path("/dev/zero")):
        with pytest.raises(ModelError, match=r"is not there|is not a file"):
            lrpfast.load(path)


# --- bombs ---


def test_pictures_that_claim_many_pixels(tmp_path: Path) -> None:
    small = bytearray(picture("BMP"))
    for width in (10_000, 20_000):  # Pillow warns of the first, and refuses the second
        small[18:26] = np.array([width, 10_000], "<i4").tobytes()
        (tmp_path / "a.bmp").write_bytes(small)
        with pytest.raises(InputError, match=rf"a\.bmp.*{width}0000, more than the limit of 80000000"):
            lrpfast.preprocess.read_image(tmp_path / "a.bmp")


def test_archives_that_claim_or_hold_gigabytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LRPFAST_LIMITS", "arrays=1000000")
    with zipfile.ZipFile(tmp_path / "a.npz", "w", zipfile.ZIP_DEFLATED) as archive:
        for name in "xy":
            archive.writestr(f"{name}.npy", saved(np.save, np.zeros(100_000)))
    assert (tmp_path / "a.npz").stat().st_size < 10_000
    with pytest.raises(InputError, match=r"up to 'y' of shape \(100000,\): 1\.5 MiB .*limit of 976\.6 KiB"):
        lrpfast.preprocess.read_arrays(tmp_path / "a.npz")
    header = saved(np.save, np.zeros(1)).replace(b"(1,), }" + b" " * 12, b"(1000000000000,), }")
    (tmp_path / "b.npy").write_bytes(header)
    with pytest.raises(InputError, match=r"more than the limit"):
        lrpfast.preprocess.read_arrays(tmp_path / "b.npy")


def test_functions_that_call_one_another_twice() -> None:
    """Thirty functions, each calling the next one twice, would be a billion nodes."""
    model = model_of([onnx.helper.make_node("F0", ["x"], ["y"], domain="own")], (1, 2))
    opsets = [*model.opset_import, onnx.helper.make_opsetid("own", 1)]
    for i in range(30):
        calls = [onnx.helper.make_node(f"F{i + 1}", ["x"], [name], domain="own") for name in "ab"]
        body = [*calls, onnx.helper.make_node("Add", ["a", "b"], ["y"])]
        model.functions.append(onnx.helper.make_function("own", f"F{i}", ["x"], ["y"], body, opsets))
    last = [onnx.helper.make_node("Relu", ["x"], ["y"])]
    model.functions.append(onnx.helper.make_function("own", "F30", ["x"], ["y"], last, opsets))
    model.opset_import.append(opsets[-1])
    with pytest.raises(ModelError, match=r"nodes, those of its functions .*more than the limit of 50000"):
        lrpfast.load(model)
    model.functions[-1].node[0].op_type, model.functions[-1].node[0].domain = "F0", "own"
    with pytest.raises(ModelError, match=r"'F0' calls itself|call one another"):
        lrpfast.load(model)


@pytest.mark.parametrize(
    ("nodes", "constants"),
    [
        ([node("ConstantOfShape", "c", "h"), node("Add", "x h")], {"c": [1, 10**6, 10**6]}),
        ([node("Expand", "one c", "h"), node("Add", "x h")], {"one": 1.0, "c": [1, 10**6, 10**6]}),
        ([node("Tile", "ones c", "h"), node("Add", "x h")], {"ones": np.ones((1, 4)), "c": [1, 10**9]}),
        ([node("Range", "a b c", "h"), node("Add", "x h")], {"a": 0.0, "b": 1e12, "c": 1.0}),
        ([node("Pad", "ones c", "h"), node("Add", "x h")], {"ones": np.ones(4), "c": [0, 10**12]}),
        (
            [node("Resize", "ones - - c", "h"), node("Add", "x h")],
            {"ones": np.ones((1, 4)), "c": [1, 10**12]},
        ),
        ([node("Pad", "x c")], {"c": [0, 0, 0, 2**32]}),
        ([node("Resize", "x - - c", mode="linear")], {"c": [1, 10**9]}),
        ([node("Unsqueeze", "x last", "u"), node("Expand", "u c")], {"last": [2], "c": [1, 4, 10**10]}),
        ([node("Einsum", "c c c", "h", equation="a,b,c->"), node("Mul", "x h")], {"c": np.ones(10**4)}),
    ],
    ids=lambda value: value[0].op_type if isinstance(value, list) else "",
)
def test_small_models_that_make_large_arrays(
    nodes: list[onnx.NodeProto], constants: dict[str, object]
) -> None:
    model = model_of(nodes, (1, 4), constants)
    with pytest.raises(ModelError, match=r"more than the limit|must be less than|the size of its result"):
        lrpfast.load(model)


@pytest.mark.parametrize(
    "last",
    [
        node("MaxPool", "x", kernel_shape=[40001], pads=[20000, 20000]),
        node("AveragePool", "x", kernel_shape=[40001], pads=[20000, 20000]),
        node("Conv", "x w", pads=[20000, 20000]),
        node("Resize", "x - s", mode="nearest"),
    ],
    ids=lambda last: last.op_type,
)
def test_windows_that_kernels_could_not_list(last: onnx.NodeProto) -> None:
    constants = {"w": np.ones((1, 1, 40001), np.float32), "s": np.array([1, 1, 40001], np.float32)}
    with pytest.raises(ModelError, match=r"a window of 40001 over .* places"):
        lrpfast.load(model_of([last], ("n", 1, 40001 if last.op_type != "Resize" else 3), constants))
