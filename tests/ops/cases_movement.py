"""Cases of the operators that move elements, and what they are in ONNX."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from onnx import TensorProto
from onnx.helper import np_dtype_to_tensor_dtype

from npu_backend.graph import Graph, Op, Tensor
from npu_backend.ops.attributes import (
    BlockAttributes,
    ConcatAttributes,
    ExpandAttributes,
    GatherAttributes,
    PadAttributes,
    ReshapeAttributes,
    SliceAttributes,
    TileAttributes,
    TransposeAttributes,
)
from npu_backend.ops.numerics_core import decode
from tests.ops.case import Case, Shape, in_form
from tests.ops.onnx_reference import Graph as OnnxGraph

Names = Sequence[str]


def moved(kind: str, label: str, shape: Shape, attributes: Any, **more: Any) -> Case:
    return Case(kind, label, (shape,), attributes, same_code=True, **more)


def gather(label: str, shape: Shape, axis: int, indices: Shape, **more: Any) -> Case:
    """The axis has at least 100 positions, since plain integers are drawn from -99 to 99."""
    return Case("gather", label, (shape, indices), GatherAttributes(axis), same_code=True, channels_last=False,
                dtypes=("", more.pop("index_type", "int64")), **more)  # fmt: skip


PADS = (
    moved("pad", "image", (1, 7, 9, 19), PadAttributes((0, 2, 1, 0), (0, 1, 3, 0), 120)),
    moved("pad", "all", (2, 5, 6, 16), PadAttributes((1, 0, 2, 3), (0, 4, 0, 5), 77)),
    moved("pad", "wide", (1, 2, 3, 8), PadAttributes((0, 9, 8, 0), (0, 9, 0, 0), 0), spm_bytes=1024),
    moved("pad", "crop", (2, 9, 11, 19), PadAttributes((0, -2, 3, 0), (0, 1, -4, -5), 200)),
    moved("pad", "reflect", (1, 7, 9, 19), PadAttributes((0, 3, 2, 0), (0, 4, 1, 0), mode="reflect")),
    moved("pad", "edge", (2, 5, 6, 16), PadAttributes((1, 0, 2, 3), (0, 4, 0, 5), mode="edge")),
    moved("pad", "wrap", (7, 33), PadAttributes((3, 30), (5, 0), mode="wrap"), spm_bytes=1024),
    moved("pad", "rank5", (2, 3, 4, 5, 6), PadAttributes((0, 1, 0, 2, 0), (1, 0, 0, 1, 3), 9)),
)

SLICES = (
    moved("slice", "inside", (2, 9, 11, 37), SliceAttributes((1, 2, 3, 5), (2, 8, 11, 30), (1, 1, 1, 1))),
    moved("slice", "steps", (1, 14, 13, 20), SliceAttributes((0, 1, 0, 2), (1, 14, 12, 20), (1, 3, 2, 5))),
    moved("slice", "rank2", (35, 297), SliceAttributes((0, 10), (35, 270), (2, 1))),
    moved("slice", "reversed", (2, 9, 11, 17), SliceAttributes((1, 8, 0, 0), (-1, -1, 11, 17), (-1, -1, 1, 1))),
    moved("slice", "backwards", (3, 14, 130), SliceAttributes((0, 12, 129), (3, 1, 4), (1, -3, -1))),
    moved("slice", "rank6", (3, 2, 4, 3, 5, 6),
          SliceAttributes((0, 1, 3, 2, 0, 5), (3, 2, -1, -1, 5, -1), (2, 1, -1, -2, 1, -2))),
)  # fmt: skip

TRANSPOSES = (
    moved("transpose", "matrix", (23, 37), TransposeAttributes((1, 0))),
    moved("transpose", "rank3", (5, 7, 11), TransposeAttributes((2, 0, 1))),
    moved("transpose", "rank4", (2, 5, 7, 16), TransposeAttributes((3, 1, 0, 2)), channels_last=False),
    moved("transpose", "scalar", (), TransposeAttributes(())),
    moved("transpose", "rank5", (2, 3, 5, 4, 7), TransposeAttributes((4, 0, 3, 1, 2))),
)

RESHAPES = (
    moved("reshape", "flatten", (6, 5, 7, 16), ReshapeAttributes((6, 560)), spm_bytes=4096),
    moved("reshape", "rows", (36, 70), ReshapeAttributes((90, 28))),
    moved("reshape", "whole", (1, 7, 11, 13), ReshapeAttributes((1, 1001))),
    moved("reshape", "rank5", (1, 18, 4, 24), ReshapeAttributes((1, 18, 4, 3, 8))),
    moved("reshape", "rank6", (5, 12, 14), ReshapeAttributes((5, 3, 2, 2, 7, 2)), spm_bytes=1024),
    moved("reshape", "join", (2, 7, 6, 3, 25), ReshapeAttributes((14, 6, 3, 25)), channels_last=False),
    moved("reshape", "scalar", (1, 1, 1), ReshapeAttributes(())),
)

CONCATS = (
    *(Case("concat", f"axis{axis}", tuple(tuple(n if i == axis else e for i, e in enumerate((2, 7, 5, 19)))
                                          for n in sizes), ConcatAttributes(axis))
      for axis, sizes in enumerate(((1, 2), (5, 7, 3), (1, 6), (16, 19, 3)))),
    Case("concat", "rank2", ((9, 140), (9, 131)), ConcatAttributes(1), same_code=True),
    Case("concat", "rank6", ((2, 3, 2, 4, 1, 5), (2, 3, 1, 4, 1, 5)), ConcatAttributes(2)),
)  # fmt: skip

REPEATS = (
    moved("expand", "image", (2, 1, 7, 1), ExpandAttributes((2, 6, 7, 21))),
    moved("expand", "rows", (19,), ExpandAttributes((3, 14, 19)), channels_last=False),
    moved("expand", "scalar", (), ExpandAttributes((35, 67))),
    moved("expand", "rank6", (2, 1, 3, 1, 5, 1), ExpandAttributes((2, 4, 3, 2, 5, 3))),
    moved("tile", "image", (1, 5, 3, 19), TileAttributes((2, 1, 3, 2))),
    moved("tile", "rank2", (7, 45), TileAttributes((3, 4))),
    moved("tile", "rank5", (2, 3, 1, 4, 5), TileAttributes((1, 2, 3, 1, 2))),
)

BLOCKS = (
    moved("depth_to_space", "dcr", (2, 5, 7, 28), BlockAttributes(2)),
    moved("depth_to_space", "dcr3", (1, 7, 3, 45), BlockAttributes(3)),
    moved("depth_to_space", "crd", (1, 9, 5, 36), BlockAttributes(2, "CRD")),
    moved("space_to_depth", "2", (2, 10, 14, 7), BlockAttributes(2)),
    moved("space_to_depth", "4", (1, 20, 12, 3), BlockAttributes(4), spm_bytes=1024),
)

GATHERS = (
    gather("rows", (100, 19), 0, (23,), spm_bytes=512),
    gather("rows-int32", (107, 3, 5), 0, (7, 6), index_type="int32"),
    gather("columns", (13, 101, 5), 1, (9,), spm_bytes=4096),
    gather("last", (3, 5, 101), 2, (2, 3, 2), spm_bytes=8192),
    gather("scalar", (103, 60, 50), 0, ()),
    gather("image", (2, 3, 100, 7), 2, (21,)),
    gather("embedding", (1009, 90), 0, (2, 17), constant_at=(0,)),
    gather("middle", (5, 401, 33), 1, (14,), constant_at=(0,), index_type="int32"),
    gather("constant-indices", (101, 19), 0, (3, 5), constant_at=(1,)),
    gather("rank6", (3, 100, 2, 2, 3), 1, (4, 2), spm_bytes=8192),
)


def in_turns(cases: Iterable[Case], forms: Sequence[str]) -> Iterator[Case]:
    """Every case as it is and in one other form: what moves bytes needs no more."""
    for index, case in enumerate(cases):
        form = forms[index % len(forms)]
        yield case
        yield replace(in_form(case, form), spm_bytes=case.spm_bytes * np.dtype(form).itemsize)


OTHER_FORMS = ("float16", "int64", "int16", "bool", "float32", "uint16", "int32", "int8", "float64",
               "uint32", "uint64")  # fmt: skip
CODED = ("int8", "uint16", "int16", "float16", "int64")
AS_THEY_LIE = (
    "axis0",
    "axis1",
    "axis2",
    "axis3",
    "image",
    "all",
    "wide",
    "edge",
    "inside",
    "steps",
    "reversed",
    "flatten",
)
CASES: tuple[Case, ...] = (
    *in_turns((*PADS, *SLICES, *TRANSPOSES, *RESHAPES, *REPEATS, *BLOCKS, *GATHERS), OTHER_FORMS),
    *in_turns((replace(case, label=f"{case.label}-turned", channels_last=False)
               for case in (*CONCATS, *PADS, *SLICES, *RESHAPES, *REPEATS)
               if len(case.shapes[0]) == 4 and case.label in AS_THEY_LIE), OTHER_FORMS),
    *CONCATS, *(in_form(case, form) for case in CONCATS for form in CODED),
)  # fmt: skip


def host_axes(graph: Graph, op: Op) -> tuple[int, ...]:
    return (0, 3, 1, 2) if len(graph.tensor(op.output).shape) == 4 else tuple(range(len(graph.tensor(op.output).shape)))


def _on_host(graph: Graph, op: Op, values: Sequence[int]) -> list[int]:
    return [values[axis] for axis in host_axes(graph, op)]


def emit_pad(onnx: OnnxGraph, graph: Graph, op: Op, names: Names) -> str:
    a, tensor = op.attributes, graph.tensor(op.output)
    widths = onnx.constant([*_on_host(graph, op, a.before), *_on_host(graph, op, a.after)], np.int64)
    if a.mode != "constant":
        return onnx.op("Pad", names[0], widths, mode=a.mode)
    value = np.array(a.value).astype(tensor.dtype)
    return onnx.op("Pad", names[0], widths, onnx.constant(decode(value, tensor.quantization), onnx_dtype(tensor)))


def emit_slice(onnx: OnnxGraph, graph: Graph, op: Op, names: Names) -> str:
    a = op.attributes
    # ONNX counts a stop of -1 from the end: before the first element is at -1 - extent.
    stops = [stop if stop >= 0 else -(2**31) for stop in a.stops]
    starts, stops, steps = (_on_host(graph, op, side) for side in (a.starts, stops, a.steps))
    axes = range(len(starts))
    return onnx.op("Slice", names[0], *(onnx.constant([*v], np.int64) for v in (starts, stops, axes, steps)))


def emit_transpose(onnx: OnnxGraph, graph: Graph, op: Op, names: Names) -> str:
    axes = op.attributes.axes
    return onnx.op("Transpose", names[0], perm=axes) if axes else onnx.op("Identity", names[0])


def emit_concat(onnx: OnnxGraph, graph: Graph, op: Op, names: Names) -> str:
    return onnx.op("Concat", *names, axis=host_axes(graph, op).index(op.attributes.axis))


def emit_expand(onnx: OnnxGraph, graph: Graph, op: Op, names: Names) -> str:
    return onnx.op("Expand", names[0], onnx.constant(_on_host(graph, op, op.attributes.shape), np.int64))


def emit_tile(onnx: OnnxGraph, graph: Graph, op: Op, names: Names) -> str:
    return onnx.op("Tile", names[0], onnx.constant(_on_host(graph, op, op.attributes.repeats), np.int64))


def emit_depth_to_space(onnx: OnnxGraph, graph: Graph, op: Op, names: Names) -> str:
    attributes = {"blocksize": op.attributes.block, "mode": op.attributes.mode}
    return _in_float(onnx, graph, op, names[0], lambda x: onnx.op("DepthToSpace", x, **attributes))


def emit_space_to_depth(onnx: OnnxGraph, graph: Graph, op: Op, names: Names) -> str:
    return _in_float(onnx, graph, op, names[0], lambda x: onnx.op("SpaceToDepth", x, blocksize=op.attributes.block))


def _in_float(onnx: OnnxGraph, graph: Graph, op: Op, name: str, emit: Callable[[str], str]) -> str:
    """ONNX Runtime has no such kernel for integers and booleans; float32 holds the cases' values exactly."""
    tensor = graph.tensor(op.output)
    if onnx_dtype(tensor) == np.float32:
        return emit(name)
    back = np_dtype_to_tensor_dtype(np.dtype(tensor.dtype))
    return onnx.op("Cast", emit(onnx.op("Cast", name, to=TensorProto.FLOAT)), to=back)


def emit_gather(onnx: OnnxGraph, graph: Graph, op: Op, names: Names) -> str:
    return onnx.op("Gather", *names, axis=op.attributes.axis)


def onnx_dtype(tensor: Tensor) -> Any:
    """Codes and halves are float32 where ONNX Runtime computes."""
    return np.float32 if tensor.quantization is not None or tensor.dtype == "float16" else np.dtype(tensor.dtype)


EMIT: Mapping[str, Callable[[OnnxGraph, Graph, Op, Names], str]] = {
    "pad": emit_pad, "slice": emit_slice, "transpose": emit_transpose, "concat": emit_concat, "expand": emit_expand,
    "tile": emit_tile, "depth_to_space": emit_depth_to_space, "space_to_depth": emit_space_to_depth,
    "gather": emit_gather,
}  # fmt: skip
