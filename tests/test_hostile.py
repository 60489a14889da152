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
from typing import Any

import numpy as np
import onnx
import pytest
from hostile import PROPERTIES, SAMPLE
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from mutations import mutated
from onnx import TensorProto, helper
from onnx_models import model_of, node, ones
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


def test_files_are_looked_for_in_the_model_s_folder_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not in the working directory, where onnx looks for the tensors that are attributes."""
    (tmp_path / "folder").mkdir()
    np.full(1, 42, np.float32).tofile(tmp_path / "secret.bin")
    value = TensorProto(dims=[1], data_type=1, data_location=TensorProto.EXTERNAL)
    value.external_data.add(key="location", value="secret.bin")
    model = model_of([node("ConstantOfShape", "n", "h", value=value), node("Add", "x h")], (1, 4), {"n": [4]})
    (tmp_path / "folder" / "model.onnx").write_bytes(model.SerializeToString())
    monkeypatch.chdir(tmp_path)
    for source in (model, model.SerializeToString(), tmp_path / "folder" / "model.onnx"):
        with pytest.raises(ModelError, match="among its attributes is in another file"):
            lrpfast.load(source)


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
        ([node("Einsum", "x c c", equation="ab,c,d->abcd")], {"c": np.ones(10**5)}),
        ([node("Einsum", "x c c c", equation="ab,cd,ce,cf->ab")], {"c": np.ones((400, 400))}),
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


def ml(op_type: str, inputs: str, outputs: str = "y", **attributes: Any) -> onnx.NodeProto:
    return node(op_type, inputs, outputs, domain="ai.onnx.ml", **attributes)


N = 2000
TALL, LONG, NOTHING = ones(N, 1), ones(N), np.ones((0, N, N), np.float32)
EXCESSIVE: dict[str, tuple[list[onnx.NodeProto], dict[str, object]]] = {
    # nodes that make h of constants; more than 2²⁰ elements, by what onnx's reference makes of them
    "scale that is no channel's": ([node("BatchNormalization", "a b b b b", "h")], {"a": TALL, "b": LONG}),
    "instances": ([node("InstanceNormalization", "a b b", "h")], {"a": TALL, "b": LONG}),
    "scale of more axes": ([node("LayerNormalization", "a b", "h")], {"a": TALL, "b": LONG}),
    "bounds that broadcast": ([node("Clip", "a b", "h")], {"a": TALL, "b": LONG}),
    "scales for other places": (
        [node("DequantizeLinear", "a b", "h")], {"a": np.ones((N, 1), np.int8), "b": LONG},
    ),
    "matrices in stacks": ([node("Gemm", "a a", "h")], {"a": ones(N, 1, 1)}),
    "a diagonal": ([node("EyeLike", "b", "h")], {"b": LONG}),
    "an axis grows, then one shrinks": ([node("Resize", "a - - s", "h")], {"a": ones(1, N), "s": [N, 1]}),
    "scales that are integers": ([node("Resize", "a - s", "h")], {"a": ones(1, N), "s": [1, N]}),
    "no matrices": ([node("Trilu", "a", "h")], {"a": NOTHING}),
    "sum of nothing": ([node("ReduceSum", "a axis", "h", keepdims=0)], {"a": NOTHING, "axis": [0]}),
    "copies, none": ([node("Tile", "a s", "h")], {"a": ones(1, 1), "s": [N * N, 0]}),
    "vectors, none": ([node("OneHot", "i n v", "h")], {"i": np.ones(0, int), "n": N * N, "v": ones(2)}),
    "parts": ([node("Split", "b", "h", num_outputs=10**5)], {"b": LONG}),
    "parts of nothing": (
        [node("ConstantOfShape", "n", "s"), helper.make_node("Split", ["b", "s"], ["h"])], {"b": LONG, "n": [10**5]},
    ),
    "a list of sizes": (
        [node("ConstantOfShape", "n", "s"), node("Cast", "s", "i", to=7), node("Tile", "b i", "h")],
        {"b": LONG, "n": [10**5]},
    ),
    "floats of bytes": ([node("Range", "a b c", "h")], dict(zip("abc", np.array([0, 60_000, 0.1], "f2"), strict=True))),
    "Python's floats": ([node("Erf", "a", "h")], {"a": ones(100, 1000)}),
    "places of many axes": ([node("TopK", "a k", "h i")], {"a": ones(*[1] * 20, 10**5), "k": [1]}),
    "a number without end": (
        [node("Einsum", " ".join(["b"] * 2000), "h", equation=",".join(["a"] * 2000) + "->")], {"b": LONG},
    ),
    "writes of whole arrays": (
        [node("ScatterND", "b i c", "h")], {"b": LONG, "i": np.ones((10**6, 0), int), "c": ones(1, 1)},
    ),
    "summands": ([node("Sum", " ".join(["b"] + ["c"] * 10**5), "h")], {"b": LONG, "c": 0.0}),
    "dictionary": ([node("Unique", "b", "h", sorted=0)], {"b": ones(10**5)}),
}  # fmt: skip


@pytest.mark.parametrize(("nodes", "constants"), EXCESSIVE.values(), ids=EXCESSIVE)
def test_what_onnx_makes_of_constants_is_bounded(
    nodes: list[onnx.NodeProto], constants: dict[str, object]
) -> None:
    model = model_of([*nodes, node("Cast", "h", "f", to=1), node("Add", "x f")], (1, 4), constants)
    limits = lrpfast.Limits(folded=2**20, steps=2**24)
    with pytest.raises(ModelError, match=r"more than the limit|cannot be evaluated \(ValueError: it"):
        lrpfast.load(model, limits=limits)


def test_texts_are_not_computed_with() -> None:
    """NumPy adds and multiplies them: forty sums would be a tebibyte."""
    text = TensorProto(name="t", dims=[1], data_type=TensorProto.STRING, string_data=[b"1"])
    doubled = [node("Add", f"{'t' if i == 0 else f't{i}'} " * 2, f"t{i + 1}") for i in range(24)]
    repeated = [node("Mul", "t many", "t24")]
    written = [node("Cast", "many", "t24", to=TensorProto.STRING)]
    for nodes in (doubled, repeated, written):
        made = [*nodes, node("Cast", "t24", "h", to=1), node("Add", "x h")]
        model = model_of(made, (1, 4), {"many": [2**24]})
        model.graph.initializer.append(text)
        with pytest.raises(ModelError, match=r"computes with texts|makes texts of numbers"):
            lrpfast.load(model)


@cache
def many_branches() -> onnx.ModelProto:
    """An If with nodes and, behind them, an If with as many, or as many of them."""
    output = [helper.make_tensor_value_info("b1", 1, None)]
    nodes = [node("Relu", "x", f"a{i}") for i in range(4000)]

    def chosen(output: str, branch: onnx.GraphProto) -> onnx.NodeProto:
        return helper.make_node("If", ["c"], [output], then_branch=branch, else_branch=branch)

    wide = helper.make_graph([node("Relu", "x", f"b{i}") for i in range(4000)], "wide", [], output)
    thin = helper.make_graph([node("Relu", "x", "b1")], "thin", [], output)
    ifs = [chosen("b1", wide), *(chosen(f"c{i}", thin) for i in range(4000))]
    branch = helper.make_graph([*nodes, *ifs], "branch", [], output)
    return model_of([chosen("y", branch)], (1, 4), {"c": np.array(True)})


def test_reading_takes_linear_time() -> None:
    """By looking at each for each these would be some 10⁹ steps or more."""
    with pytest.raises(ModelError, match="axes; expected at most 32"):
        lrpfast.load(model_of([node("Unsqueeze", "x", axes=range(1, 50_000))], (1, 4), opset=11))
    assert lrpfast.load(many_branches()).output_shape == (4,)
    labels = [node("ArgMax", "x", "i", axis=1), ml("LabelEncoder", "i", "l", classes_strings=["a"] * 300_000)]
    outputs = [f"l{i}" for i in range(999)]
    model = model_of([*labels, *(node("Identity", "l", name) for name in outputs)], (1, 4), outputs=outputs)
    assert lrpfast.load(model).output == "x"


# --- numbers and types that make no sense ---


CROP = {"roi": np.array([0, 0, 1e308, 1, 1, -1e308]), "s": [1, 1, 8]}
SENSELESS: dict[str, tuple[list[onnx.NodeProto], dict[str, object]]] = {
    "index NaN": ([ml("ArrayFeatureExtractor", "x i")], {"i": [np.nan]}),
    "labels of one": ([ml("LinearClassifier", "x", "l y", classlabels_ints=3)], {}),
    "coefficients of text": ([ml("LinearRegressor", "x", coefficients=["a"] * 4)], {}),
    "no scales": ([node("InstanceNormalization", "x s s")], {"s": ones(0)}),
    "infinite part": (
        [node("Resize", "x roi - s", mode="linear", coordinate_transformation_mode="tf_crop_and_resize")], CROP,
    ),
    "operands beyond NumPy's": (
        [node("Einsum", "x" + " c" * 70, equation="abc" + ",d" * 70 + "->abc")], {"c": ones(1)},
    ),
}  # fmt: skip


@pytest.mark.parametrize(("nodes", "constants"), SENSELESS.values(), ids=SENSELESS)
def test_what_makes_no_sense_is_refused(nodes: list[onnx.NodeProto], constants: dict[str, object]) -> None:
    model = model_of(nodes, (1, 4) if nodes[0].domain else (1, 2, 4), constants)
    model.opset_import.append(helper.make_opsetid("ai.onnx.ml", 3))
    with pytest.raises(ModelError):
        lrpfast.load(model)


@pytest.mark.parametrize("attribute", ["classlabels_strings", "classlabels_int64s"])
def test_labels_that_are_no_lists_are_left_out(attribute: str) -> None:
    nodes = [node("Softmax", "x", "p"), ml("ZipMap", "p", **{attribute: 3})]
    assert lrpfast.load(model_of(nodes, (1, 4))).labels is None


@pytest.mark.parametrize("k", [-(2**63), 2**63 - 1])
@pytest.mark.parametrize("upper", [0, 1])
def test_diagonals_out_of_sight(k: int, upper: int) -> None:
    network = lrpfast.load(model_of([node("Trilu", "x k", upper=upper)], (1, 3, 3), {"k": np.array(k)}))
    kept = (k < 0) == bool(upper)
    np.testing.assert_array_equal(network.predict(ones(1, 3, 3)), np.full((1, 3, 3), float(kept)))


def test_indices_compared_with_a_text() -> None:
    """As Keras compares them with 0."""
    nodes = [
        node("Less", "x z", "c"),
        node("Add", "x n", "p"),
        node("Where", "c p x", "i"),
        node("Gather", "t i"),
    ]
    model = model_of(nodes, (1, 4), {"n": [3], "t": ones(3, 2)}, elem_type=TensorProto.INT64)
    model.graph.initializer.add(name="z", dims=[1], data_type=TensorProto.STRING, string_data=[b"abc"])
    with pytest.raises(ModelError):
        lrpfast.load(model)


def test_tensors_of_no_elements_and_endless_axes(tmp_path: Path) -> None:
    model = model_of([node("Add", "x e")], (1, 4))
    tensor = TensorProto(name="e", dims=[0, 2**62], data_type=1, data_location=TensorProto.EXTERNAL)
    tensor.external_data.add(key="location", value="e.bin")
    model.graph.initializer.append(tensor)
    (tmp_path / "e.bin").touch()
    (tmp_path / "model.onnx").write_bytes(model.SerializeToString())
    with pytest.raises(ModelError, match=r"'e' has shape \(0, 4611686018427387904\)"):
        lrpfast.load(tmp_path / "model.onnx")


def test_a_part_of_an_array_for_each_of_many_indices() -> None:
    model = model_of([node("GatherND", "x i", batch_dims=1)], (1, 2, N), {"i": np.zeros((1, N, 1), np.int64)})
    with pytest.raises(ModelError, match="more than the limit"):
        lrpfast.load(model, limits=lrpfast.Limits(folded=2**20))
