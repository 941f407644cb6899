"""Kernels of random boxes, on memory with gaps, against the whole function as TVM builds it."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tvm
from tvm import te, topi

from npu_backend.box import Box
from npu_backend.kernels import Kernel
from tests.tir.regions import stages
from tvm_ext import tir_api as api
from tvm_ext.generation import RELAX, generation
from tvm_ext.tir_native import kernel_library
from tvm_ext.tir_stages import Stage, stages_of

BOXES = 4
# Where a box has one position of an axis, what follows of it is known to the compiler, which rounds once less.
FOLDED = {"resize-cubic": 1e-6}
Inputs = Sequence[tuple[tuple[int, ...], str]]


@dataclass(frozen=True)
class Function:
    """A name, shapes and data types of the inputs, and the output as an expression of them."""

    name: str
    inputs: Inputs
    output: Callable[..., Any]

    def __str__(self) -> str:
        return self.name


def of(name: str, output: Callable[..., Any], *shapes: tuple[int, ...], dtypes: Sequence[str] = ()) -> Function:
    """A function of float32 tensors, or of others."""
    return Function(name, tuple(zip(shapes, dtypes or ["float32"] * len(shapes), strict=True)), output)


def layer_norm(x: Any, scale: Any, shift: Any) -> Any:
    """From sums; TOPI's sums two things at once in one of the generations."""
    count = api.tir.const(api.constant(x.shape[2]), "float32")
    centred = x - topi.sum(x, 2, keepdims=True) / count
    variance = topi.sum(centred * centred, 2, keepdims=True) / count
    return centred * topi.rsqrt(variance + api.tir.const(1e-5, "float32")) * scale + shift


def trilu(x: Any) -> Any:
    zero = api.tir.const(0, "float32")
    return te.compute(x.shape, lambda i, j: api.tir.Select(j >= i, x[i, j], zero), name="trilu")


def running_sum(x: Any) -> Any:
    """A cumulative sum as a reduction over all positions, those after the own left out."""
    k, zero = te.reduce_axis((0, x.shape[1]), "k"), api.tir.const(0, "float32")
    return te.compute(x.shape, lambda i, j: te.sum(api.tir.if_then_else(k <= j, x[i, k], zero), k), name="running")


def one_hot(indices: Any) -> Any:
    return te.compute((*indices.shape, 9), lambda i, j: (indices[i].equal(j)).astype("float32"), name="one_hot")


FUNCTIONS = (
    of("exp", topi.exp, (5, 7)),
    of("erf-gelu", lambda x: x * (topi.erf(x) + topi.full_like(x, 1.0)), (3, 4, 5)),
    of("broadcast-power", topi.power, (4, 5, 6), (5, 1)),
    of("leaky", lambda x: topi.nn.leaky_relu(x, 0.1), (3, 8)),
    of("sum", lambda x: topi.sum(x, 1), (5, 9, 4)),
    of("maximum-rows", lambda x: topi.max(x, [0, 2], keepdims=True), (5, 6, 7)),
    of("total", topi.sum, (4, 5)),
    of("position-of-largest", lambda x: topi.argmax(x, 1), (5, 9, 4)),
    of("position-of-smallest", lambda x: topi.argmin(x, 1, True, True), (5, 9), dtypes=("int32",)),
    of("number", topi.exp, ()),
    of("softmax", lambda x: topi.nn.softmax(x, 1), (4, 9, 3)),
    of("log-softmax", lambda x: topi.nn.log_softmax(x, 1), (6, 11)),
    of("layer-norm", layer_norm, (3, 5, 8), (8,), (8,)),
    of("conv2d", lambda x, w: topi.nn.conv2d(x, w, 2, 1, 1, "NCHW"), (1, 4, 9, 8), (5, 4, 3, 3)),
    of("conv3d", lambda x, w: topi.nn.conv3d_ncdhw(x, w, 1, 1, 1, 1), (1, 3, 5, 6, 4), (2, 3, 3, 3, 3)),
    of("pool-average", lambda x: topi.nn.pool2d(x, (3, 3), (2, 2), (1, 1), (1, 1, 1, 1), "avg"), (1, 3, 9, 7)),
    of("matmul", lambda a, b: topi.nn.batch_matmul(a, b, transpose_b=False), (2, 5, 6), (2, 6, 4)),
    of("einsum", lambda a, b: topi.einsum("bij,bkj->bik", a, b), (2, 4, 5), (2, 3, 5)),
    of("pad", lambda x: topi.nn.pad(x, (0, 2, 1), (1, 0, 3), 7.0), (3, 4, 5)),
    of("mirror-pad", lambda x: topi.nn.mirror_pad(x, (2, 1), (1, 3), "REFLECT"), (5, 6)),
    of("strided-slice", lambda x: topi.strided_slice(x, [1, 9], [5, 0], [2, -3]), (6, 11)),
    of("concatenate", lambda a, b: topi.concatenate((a, b), 1), (3, 4, 2), (3, 5, 2)),
    of("transpose-reshape", lambda x: topi.reshape(topi.transpose(x, (2, 0, 1)), (4, 15)), (3, 5, 4)),
    of("resize-cubic", lambda x: topi.image.resize2d(x, (0.0,) * 4, (9, 11), "NCHW", "cubic", "half_pixel", ""),
       (1, 2, 5, 6)),
    of("take", lambda x, i: topi.take(x, i, 0, mode="clip"), (7, 5), (6,), dtypes=("float32", "int32")),
    of("gather-elements", lambda x, i: topi.gather(x, 1, i), (4, 6), (4, 3), dtypes=("float32", "int64")),
    of("where", topi.where, (3, 7), (3, 7), (3, 7), dtypes=("bool", "float32", "float32")),
    of("less", topi.less, (4, 6), (4, 6)),
    of("floor-divide-integers", lambda a: topi.floor_divide(a, api.tir.const(3, "int32")), (5, 9), dtypes=("int32",)),
    of("codes-to-float", lambda x: topi.cast(x, "float32") * 0.5, (4, 6), dtypes=("int8",)),
    of("trilu", trilu, (6, 8)),
    of("running-sum", running_sum, (4, 9)),
    of("one-hot", one_hot, (5,), dtypes=("int32",)),
)  # fmt: skip


def draw(rng: np.random.Generator, shape: tuple[int, ...], dtype: str) -> np.ndarray:
    """Positive floats, of which every function is defined, and integers that are positions."""
    if dtype == "float32":
        return rng.uniform(0.1, 2, shape).astype(dtype)
    return rng.integers(0, 2 if dtype == "bool" else 5, shape).astype(dtype)


@dataclass(frozen=True)
class Memory:
    """A box of a tensor in memory with gaps."""

    box: Box
    array: np.ndarray
    whole: np.ndarray

    @staticmethod
    def of(rng: np.random.Generator, box: Box, dtype: str) -> Memory:
        """Filled with one and the same byte."""
        extents = [extent + int(rng.integers(0, 3)) for extent in box.shape]
        count = int(np.prod(extents, dtype=int)) * np.dtype(dtype).itemsize
        whole = np.full(count, 1, np.uint8).view(dtype).reshape(extents)
        return Memory(box, whole[(*(slice(0, extent) for extent in box.shape), ...)], whole)

    def part(self, box: Box) -> np.ndarray:
        """A box inside; any place where that is empty."""
        return self.array if box.is_empty else self.array[_slices(box.relative_to(self.box))]


def _slices(box: Box) -> tuple[Any, ...]:
    return (*map(slice, box.starts, box.stops), ...)


@dataclass(frozen=True)
class Call:
    """A kernel on memory."""

    symbol: str
    operands: tuple[np.ndarray, ...]

    def run(self, library: ctypes.CDLL) -> None:
        addresses = (ctypes.c_void_p * len(self.operands))(*(each.ctypes.data for each in self.operands))
        assert getattr(library, self.symbol)(addresses) == 0


def calls_of(found: Sequence[Stage], parameters: Sequence[Any], values: Sequence[np.ndarray], out_box: Box,
             rng: np.random.Generator) -> tuple[list[Call], Memory]:  # fmt: skip
    """The calls that make a box of the output, each stage as far as the later ones need it."""
    needed: dict[int, Box] = {len(found) - 1: out_box}
    for number in reversed(range(len(found))):
        if number not in needed:
            continue
        for buffer, box in zip(found[number].inputs, found[number].input_boxes(needed[number]), strict=True):
            for source in (i for i in range(number) if found[i].output.same_as(buffer)):
                needed[source] = needed[source].hull(box) if source in needed else box
    held = []
    for buffer, value in zip(parameters, values):
        memory = Memory.of(rng, Box.whole(value.shape), str(value.dtype))
        memory.array[...] = value
        held.append((buffer, memory))
    calls = []
    for number in sorted(needed):
        stage = found[number]
        memory = Memory.of(rng, needed[number], stage.dtype)
        boxes = stage.input_boxes(needed[number])
        operands = tuple(next(each.part(box) for known, each in held if known.same_as(buffer))
                         for buffer, box in zip(stage.inputs, boxes, strict=True))  # fmt: skip
        operands += (memory.array,)
        kernel = Kernel(stage, needed[number], tuple(each.strides for each in operands))
        calls.append(Call(kernel.symbol, operands))
        held.append((stage.output, memory))
    return calls, memory


def whole(expressions: Sequence[Any], values: Sequence[np.ndarray], shape: tuple[int, ...], dtype: str) -> np.ndarray:
    """The function as TVM builds it for this processor."""
    module = tvm.IRModule({"main": te.create_prim_func(expressions).with_attr("global_symbol", "main")})
    if generation() == RELAX:
        built, tensor = api.tir.build(module, target="llvm"), tvm.runtime.tensor
    else:
        from tvm_ext.relay_host import host_triple

        built, tensor = tvm.build(module, target=f"llvm -mtriple={host_triple()}"), tvm.nd.array
    result = tensor(np.zeros(shape, dtype))
    built["main"](*map(tensor, values), result)
    return np.asarray(result.numpy())


def random_box(rng: np.random.Generator, shape: tuple[int, ...]) -> Box:
    ends = [sorted(rng.choice(extent + 1, 2, replace=False).tolist()) for extent in shape]
    return Box(tuple(low for low, _ in ends), tuple(high for _, high in ends))


@pytest.mark.parametrize("function", FUNCTIONS, ids=str)
def test_boxes_are_parts_of_the_whole(function: Function, tmp_path: Path) -> None:
    rng = np.random.default_rng(len(function.name))
    inputs = [te.placeholder(shape, dtype, name=f"x{i}") for i, (shape, dtype) in enumerate(function.inputs)]
    expressions = [*inputs, function.output(*inputs)]
    primitive = te.create_prim_func(expressions)
    found = stages_of(primitive, function.name)
    values = [draw(rng, shape, dtype) for shape, dtype in function.inputs]
    shape, dtype = found[-1].shape, found[-1].dtype
    boxes = [Box.whole(shape), *(random_box(rng, shape) for _ in range(BOXES))]
    made = [calls_of(found, api.parameters_of(primitive), values, box, rng) for box in boxes]
    tolerance = FOLDED.get(function.name, 0)
    library = kernel_library([call.symbol for calls, _ in made for call in calls], tmp_path)
    expected = whole(expressions, values, shape, dtype)
    for calls, memory in made:
        for call in calls:
            call.run(library)
        np.testing.assert_allclose(memory.array, expected[_slices(memory.box)], tolerance, err_msg=str(memory.box))
        beside = np.ones(memory.whole.shape, bool)
        beside[(*(slice(0, extent) for extent in memory.box.shape), ...)] = False
        assert np.all(memory.whole[beside].view(np.uint8) == 1), f"{memory.box}: written beside its operand"


def test_operations_are_counted() -> None:
    x, y = (te.placeholder((8, 16), "float32", name=name) for name in "xy")
    (stage,) = stages([x, y], topi.exp(x) / y + x)
    count = stage.operations(Box((0, 0), (2, 3)))
    # An addition; an exponential and a division; three loads and a store.
    assert (count.simple_bytes, count.special_bytes, count.access_bytes) == (6 * 4, 2 * 6 * 4, 4 * 6 * 4)


def test_equal_kernels_are_one() -> None:
    """Boxes of equal extents, where the position is no matter."""
    x = te.placeholder((8, 16), "float32", name="x")
    (stage,) = stages([x], topi.exp(x))
    strides = ((64, 4), (64, 4))
    first, second = (Kernel(stage, Box((row, 0), (row + 2, 16)), strides).symbol for row in (0, 4))
    assert first == second


@pytest.mark.parametrize(("output", "reason"), [
    (lambda x: topi.cumsum(x, 1), "is no expression of one element"),
    (lambda x: topi.sort(x, 1), "calls TVM's runtime"),
])  # fmt: skip
def test_refused_with_a_reason(output: Callable[[Any], Any], reason: str) -> None:
    x = te.placeholder((4, 6), "float32", name="x")
    with pytest.raises(ValueError, match=reason):
        stages([x], output(x))
