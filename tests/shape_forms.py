"""Forms of the operators that move, reduce, interpolate and contract, each as a model of one node."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np
import onnx
from onnx_models import OPSET, Array, model_of, node


def normal(*shape: int, seed: int = 3) -> Array:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def f32(*values: float) -> Array:
    return np.array(values, np.float32)


class Form(NamedTuple):
    """One node that is to be read; `place` is that of its computed input among the constants."""

    op_type: str
    shape: tuple[int, ...]
    constants: tuple[Any, ...] = ()
    attributes: Mapping[str, Any] = MappingProxyType({})
    opset: int = OPSET
    place: int = 0
    batch: int | str = "n"

    @property
    def model(self) -> onnx.ModelProto:
        """From "x" to "y"; None among the constants leaves an optional input out."""
        named = {f"c{k}": value for k, value in enumerate(self.constants) if value is not None}
        names = ["-" if c is None else f"c{k}" for k, c in enumerate(self.constants)]
        names.insert(self.place, "x")
        made = node(self.op_type, " ".join(names), **self.attributes)
        return model_of([made], (self.batch, *self.shape), named, opset=self.opset)

    @property
    def x(self) -> Array:
        """Three samples; positive where a logarithm is taken."""
        x = normal(3, *self.shape, seed=7)
        return np.abs(x) + 0.1 if self.op_type == "ReduceLogSum" else x


THREE = np.ones((3, 1, 1), np.int64)
"""Repeats indices for three samples."""

MOVEMENT = {
    "Expand": Form("Expand", (1, 4), ([1, 3, 4],)),
    "Expand-fewer-axes": Form("Expand", (2, 1, 4), ([3, 1],), opset=8),
    "Expand-nothing": Form("Expand", (2, 1, 4), ([1, 1, 1, 1],)),
    "Tile": Form("Tile", (2, 3), ([1, 2, 3],)),
    "Tile-nothing": Form("Tile", (2, 3), ([1, 1, 1],)),
    "Tile-opset-7": Form("Tile", (2, 3, 2), ([1, 1, 3, 1],), opset=7),
    "Gather-one": Form("Gather", (6, 7), (np.int64(-2),), {"axis": 1}),
    "Gather-run": Form("Gather", (6, 7), ([2, 1, 0],), {"axis": 1}),
    "Gather-any": Form("Gather", (6, 7), ([0, 3, 3, 1],), {"axis": 1}),
    "Gather-same": Form("Gather", (6, 7), ([3, 3],), {"axis": 2}, opset=7),
    "Gather-matrix": Form("Gather", (6, 7), ([[0, 3], [3, -1], [2, 2]],), {"axis": -1}),
    "GatherElements": Form(
        "GatherElements", (3, 4), (THREE * [[[0, 1, 0], [2, 2, -1]]],), {"axis": 1}, batch=3
    ),
    "GatherElements-last": Form("GatherElements", (3, 4), (THREE * [[[0, 1, 0]]],), {"axis": -1}, batch=3),
    "GatherND": Form("GatherND", (3, 4), (THREE * [[[0, 1], [2, -2]]],), {"batch_dims": 1}, batch=3),
    "GatherND-rows": Form("GatherND", (3, 4), (THREE * [[[1], [2], [1]]],), {"batch_dims": 1}, batch=3),
    "GatherND-dims": Form("GatherND", (3, 4), (THREE * [[[1], [2], [-2]]],), {"batch_dims": 2}, batch=3),
    "Compress": Form("Compress", (3, 4), (np.array([True, False, True]),), {"axis": 1}),
    "Compress-short": Form("Compress", (3, 7), (np.array([True, True, False, True]),), {"axis": -1}, opset=9),
    "Trilu": Form("Trilu", (3, 4)),
    "Trilu-lower": Form("Trilu", (2, 3, 4), (np.int64(-1),), {"upper": 0}),
    "DepthToSpace": Form("DepthToSpace", (8, 2, 3), (), {"blocksize": 2}),
    "DepthToSpace-CRD": Form("DepthToSpace", (8, 2, 3), (), {"blocksize": 2, "mode": "CRD"}),
    "DepthToSpace-opset-7": Form("DepthToSpace", (9, 2, 1), (), {"blocksize": 3}, opset=7),
    "SpaceToDepth": Form("SpaceToDepth", (2, 4, 6), (), {"blocksize": 2}),
    "SpaceToDepth-CRD": Form("SpaceToDepth", (2, 4, 6), (), {"blocksize": 2, "mode": "CRD"}, opset=28),
    "Pad-reflect": Form("Pad", (2, 5, 4), ([0, 0, 2, 1, 0, 1, 3, 2],), {"mode": "reflect"}),
    "Pad-edge": Form("Pad", (2, 5, 4), ([0, 1, 2, 1, 0, 1, 3, 2],), {"mode": "edge"}),
    "Pad-wrap": Form("Pad", (2, 5), ([0, 0, 7, 0, 0, 6],), {"mode": "wrap"}),
    "Pad-cut-reflect": Form("Pad", (2, 5, 4), ([0, 0, -1, 1, 0, 0, 2, -2],), {"mode": "reflect"}),
    "Pad-axes": Form("Pad", (2, 5, 4), ([1, 2], None, [2]), {"mode": "edge"}),
    "Pad-old-reflect": Form("Pad", (2, 5), (), {"mode": "reflect", "pads": [0, 0, 1, 0, 0, 2]}, opset=7),
    "Pad-nothing": Form("Pad", (2, 5), ([0, 0, 0, 0, 0, 0],)),
    "Slice-opset-9": Form("Slice", (6, 7), (), {"starts": [1, -3], "ends": [-1, 99], "axes": [1, 2]}, opset=9),
    "Slice-backwards": Form("Slice", (6, 7), ([-1, 9], [-(2**63), 1], [2, 1], [-2, -3])),
    "Slice-no-axes": Form("Slice", (6, 7), ([0, 1], [10**9, 5]), opset=10),
    "Slice-no-op": Form("Slice", (6, 7), ([0, 0, 0], [2**63 - 1] * 3)),
    "Slice-declared-batch": Form("Slice", (6,), ([0, 2], [3, 4]), batch=3),
    "Squeeze-all": Form("Squeeze", (3, 1, 2, 1), batch=3),
}  # fmt: skip

REDUCTION = {
    **{
        f"Reduce{name}-{opset}-{axes}-{keepdims}": Form(
            f"Reduce{name}", (3, 4, 5), () if old else (axes,),
            {"keepdims": keepdims, **({"axes": axes} if old else {})}, opset=opset,
        )
        for name in ("Mean", "Sum", "Max", "Min", "L1", "L2", "SumSquare", "LogSum", "LogSumExp")
        for opset, axes, keepdims in ((11, [1], 1), (13, [-1, 1], 0), (18, [1, 2, 3], 0), (20, [2, -1], 1))
        for old in [opset < (13 if name == "Sum" else 18)]
    },
    "ReduceMean-many": Form("ReduceMean", (2, 3, 2, 3, 2), ([1, 2, 4, 5],)),
    "ReduceMax-default-keepdims": Form("ReduceMax", (3, 4), ([-1],)),
    "ReduceSum-no-op": Form("ReduceSum", (3, 4), (), {"noop_with_empty_axes": 1}),
    "ReduceSumSquare-no-op": Form("ReduceSumSquare", (3, 4), (np.zeros(0, np.int64),), {"noop_with_empty_axes": 1}),
    "GlobalAveragePool-four-axes": Form("GlobalAveragePool", (2, 3, 2, 3, 2)),
    **{
        f"{name}-{p}": Form(op_type, (2, 5, 6), (), {"p": p, **attributes}, opset=opset)
        for p in (1, 2, 3)
        for name, op_type, opset, attributes in (
            ("GlobalLpPool", "GlobalLpPool", 21, {}),
            ("LpPool", "LpPool", 11, {"kernel_shape": [2, 3], "strides": [2, 1], "pads": [0, 1, 1, 1]}),
            ("LpPool-ceil", "LpPool", 18,
             {"kernel_shape": [2, 3], "strides": [2, 2], "ceil_mode": 1, "dilations": [2, 1]}),
            ("LpPool-same", "LpPool", 22, {"kernel_shape": [2, 3], "auto_pad": "SAME_UPPER"}),
        )
    },
}  # fmt: skip

MAP = (2, 5, 6)
BETWEEN = {"axes": [2, 3]}

INTERPOLATION = {
    "Upsample-7": Form("Upsample", MAP, (), {"scales": [1.0, 1.0, 2.0, 3.0]}, opset=7),
    "Upsample-7-linear": Form("Upsample", MAP, (), {"scales": [1.0, 1.0, 2.0, 3.0], "mode": "linear"}, opset=7),
    "Upsample-9": Form("Upsample", MAP, (f32(1, 1, 2, 1.5),), opset=9),
    "Upsample-9-linear": Form("Upsample", MAP, (f32(1, 1, 2, 1.5),), {"mode": "linear"}, opset=9),
    "Resize-10": Form("Resize", MAP, (f32(1, 1, 1.3, 2.6),), opset=10),
    "Resize-10-smaller": Form("Resize", MAP, (f32(1, 1, 0.6, 0.7),), opset=10),
    "Resize-10-linear": Form("Resize", MAP, (f32(1, 1, 1.3, 2.6),), {"mode": "linear"}, opset=10),
    "Resize-11": Form("Resize", MAP, (f32(), f32(1, 1, 2, 2)), opset=11),
    "Resize-11-tf": Form(
        "Resize", MAP, (f32(), f32(1, 1, 2, 1.5)),
        {"coordinate_transformation_mode": "tf_half_pixel_for_nn", "nearest_mode": "floor"}, opset=11,
    ),
    "Resize-11-sizes": Form(
        "Resize", MAP, (f32(), f32(), [3, 2, 7, 4]),
        {"coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"}, opset=11, batch=3,
    ),
    "Resize-13-linear": Form("Resize", MAP, (None, None, [3, 2, 7, 4]), {"mode": "linear"}, opset=13, batch=3),
    "Resize-13-cubic": Form("Resize", MAP, (None, None, [3, 2, 7, 4]), {"mode": "cubic"}, opset=13, batch=3),
    "Resize-13-cubic-inside": Form(
        "Resize", MAP, (None, None, [3, 2, 7, 4]), {"mode": "cubic", "exclude_outside": 1, "cubic_coeff_a": -0.5},
        opset=13, batch=3,
    ),
    "Resize-13-crop": Form(
        "Resize", MAP, (f32(0, 0, 0.2, 0.3, 1, 1, 0.8, 0.9), None, [3, 2, 7, 4]),
        {"mode": "linear", "coordinate_transformation_mode": "tf_crop_and_resize"}, opset=13, batch=3,
    ),
    "Resize-18-axes": Form("Resize", MAP, (None, f32(2.5, 0.5)), {"mode": "linear", "axes": [3, 2]}, opset=18),
    "Resize-18-not-larger": Form(
        "Resize", MAP, (None, None, [7, 9]), {"mode": "linear", "keep_aspect_ratio_policy": "not_larger", **BETWEEN},
        opset=18,
    ),
    "Resize-18-not-smaller": Form(
        "Resize", MAP, (None, None, [7, 9]), {"keep_aspect_ratio_policy": "not_smaller", **BETWEEN}, opset=18,
    ),
    "Resize-18-crop-axes": Form(
        "Resize", MAP, (f32(0.2, 0.3, 0.8, 0.9), None, [7, 4]),
        {"mode": "linear", "coordinate_transformation_mode": "tf_crop_and_resize", **BETWEEN}, opset=18,
    ),
    "Resize-18-antialias": Form(
        "Resize", MAP, (None, None, [3, 4]), {"mode": "linear", "antialias": 1, **BETWEEN}, opset=18
    ),
    "Resize-18-cubic-antialias": Form(
        "Resize", MAP, (None, None, [3, 4]), {"mode": "cubic", "antialias": 1, **BETWEEN}, opset=18
    ),
    "Resize-19-symmetric": Form(
        "Resize", MAP, (None, f32(1, 1, 2.3, 1.7)),
        {"mode": "linear", "coordinate_transformation_mode": "half_pixel_symmetric"}, opset=19,
    ),
    "Resize-channels": Form("Resize", MAP, (None, f32(1, 2, 1, 1)), {"mode": "linear"}),
    "Resize-channels-nearest": Form("Resize", MAP, (None, f32(1, 2, 2, 1))),
    "Resize-1d": Form("Resize", (2, 7), (None, f32(1, 1, 2)), {"mode": "linear"}),
    "Resize-3d": Form("Resize", (2, 3, 4, 5), (None, f32(1, 1, 2, 2, 2)), {"mode": "linear"}),
    "Resize-3d-nearest": Form("Resize", (2, 3, 4, 5), (None, f32(1, 1, 2, 1, 3))),
    "Resize-one-place": Form("Resize", (2, 1, 1), (None, f32(1, 1, 4, 5)), {"mode": "linear"}),
    "Resize-nothing": Form("Resize", MAP, (None, f32(1, 1, 1, 1)), {"mode": "cubic"}),
}  # fmt: skip

CONTRACTION = {
    "MatMul-left": Form("MatMul", (3, 4), (normal(5, 3),), place=1),
    "MatMul-left-stack": Form("MatMul", (2, 3, 4), (normal(2, 5, 3),), place=1),
    "MatMul-left-vector": Form("MatMul", (3, 4), (normal(3),), place=1),
    "MatMul-left-broadcast": Form("MatMul", (2, 3, 4, 5), (normal(3, 2, 4),), place=1),
    "MatMul-stack": Form("MatMul", (2, 3, 4), (normal(2, 4, 5),)),
    "MatMul-stack-of-one": Form("MatMul", (2, 3, 4), (normal(1, 1, 4, 5),)),
    "MatMul-stretched": Form("MatMul", (1, 3, 4), (normal(2, 4, 5),)),
    "MatMul-vector": Form("MatMul", (3, 4), (normal(4),)),
    "MatMul-partly-broadcast": Form("MatMul", (2, 3, 4, 5), (normal(2, 1, 5, 2),)),
    **{
        f"Einsum {equation}": Form("Einsum", shape, constants, {"equation": equation}, place=place)
        for equation, shape, constants, place in (
            ("bij,jk->bik", (3, 4), (normal(4, 5),), 0),
            ("bij, jk", (3, 4), (normal(4, 5),), 0),
            ("jk,bij->bik", (3, 4), (normal(4, 5),), 1),
            ("bij,ijk->bki", (3, 4), (normal(3, 4, 5),), 0),
            ("bij,ij->bij", (3, 4), (normal(3, 4),), 0),
            ("bij,ij->bji", (3, 4), (normal(3, 4),), 0),
            ("bij->bji", (3, 4), (), 0),
            ("bij->b", (3, 4), (), 0),
            ("bii->bi", (3, 3), (), 0),
            ("bii,ij->bj", (3, 3), (normal(3, 3),), 0),
            ("...k,km->...m", (3, 4), (normal(4, 2),), 0),
            ("b...k,...k->b...", (3, 4), (normal(4),), 0),
            ("bij,ij,jk->bki", (3, 4), (normal(3, 4), normal(4, 6)), 0),
            ("bij,k->bijk", (3, 4), (normal(5),), 0),
            ("bij,ii->bij", (3, 4), (normal(3, 3),), 0),
            ("bij,kj->bi", (3, 4), (normal(2, 4),), 0),
            ("btd,hdkz->bhtk", (3, 4), (normal(5, 4, 2, 6),), 0),
            ("bhtd,hdk->bthk", (2, 3, 4), (normal(2, 4, 5),), 0),
        )
    },
}  # fmt: skip

FORMS = {**MOVEMENT, **REDUCTION, **INTERPOLATION, **CONTRACTION}
