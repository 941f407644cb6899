"""One case of an operator: what it needs, the graph around it, and inputs.

Rank 4 activations are ``[n, h, w, c]``; the graph around the operator turns the host's ``[n, c, h, w]`` into it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from npu_backend.graph import CODES, Graph, GraphBuilder, Op, Quantization, Tensor
from npu_backend.ops import append_op, registered_ops
from npu_backend.ops.attributes import (
    PadAttributes,
    ReshapeAttributes,
    SliceAttributes,
    TransposeAttributes,
    UnaryAttributes,
)

Shape = tuple[int, ...]
Arrays = tuple[np.ndarray, ...]
SMALL_SPM_BYTES = 2048

# Scales and zero points (as uint8; int8 has 128 less) of the inputs in turn, and of the output.
INPUT_CODES = ((0.02, 131), (0.035, 120), (0.011, 97))
OUTPUT_CODE = (0.05, 113)


@dataclass(frozen=True)
class Case:
    """One operator with everything it needs.

    `same_code`: the output has the first input's scale. `channels_last`: rank 4 hosts are [n, c, h, w], else the axes
    are left alone. `spm_bytes`: a scratchpad so small that the operator is tiled. `constant_at`: which of the inputs
    are constant tensors, of `constant_dtype` (else the case's). `dtypes` of the inputs, where not the case's.
    """

    kind: str
    label: str
    shapes: tuple[Shape, ...]
    attributes: Any = None
    constants: Callable[[np.random.Generator], Arrays] = field(default=lambda _: ())
    dtype: str = "uint8"
    output_dtype: str = ""
    output_code: tuple[float, int] = OUTPUT_CODE
    same_code: bool = False
    channels_last: bool = True
    spm_bytes: int = SMALL_SPM_BYTES
    constant_at: tuple[int, ...] = ()
    constant_dtype: str = ""
    dtypes: tuple[str, ...] = ()

    def __str__(self) -> str:
        return f"{self.kind}-{self.label}-{self.dtype}"

    @property
    def seed(self) -> int:
        """A number of its own for every case, the same in every run."""
        return sum(ord(letter) * (i + 1) for i, letter in enumerate(str(self)))


def code(scale: float, zero_point: int, dtype: str) -> Quantization | None:
    """The quantisation, told as uint8's, with the scale rounded to float32; none where a type holds no codes.

    16-bit codes have 256 steps in one of uint8's.
    """
    if dtype not in CODES:
        return None
    steps = 256 if dtype.endswith("16") else 1
    return Quantization(float(np.float32(scale / steps)), shifted(zero_point, dtype))


def shifted(value: int, dtype: str) -> int:
    """A uint8 code as the code of another type with the same meaning."""
    return (value - (128 if dtype.startswith("int") else 0)) * (256 if dtype.endswith("16") else 1)


def build(case: Case, *, prefix: bool = False) -> Graph:
    """The case as a graph; with `prefix` its inputs are computed by other layers, so they may stay in scratchpads."""
    builder = GraphBuilder(str(case))
    inputs = tuple(_input(builder, case, index, prefix=prefix) for index in range(len(case.shapes)))
    constants = case.constants(np.random.default_rng(case.seed))
    names = (*inputs, *(builder.constant(f"constant{i}", value) for i, value in enumerate(constants)))
    dtype = case.output_dtype or case.dtype
    quantization = builder.tensors[inputs[0]].quantization if case.same_code else code(*case.output_code, dtype)
    output = append_op(
        builder, case.kind, names, case.attributes, name="operator", dtype=dtype, quantization=quantization
    )
    if case.kind == "transpose":
        # A reshape insists on row-major order, or legalize would leave the turning to the host.
        shape = (1, *builder.tensors[output].shape)
        output = append_op(builder, "reshape", (output,), ReshapeAttributes(shape), name="rows", dtype=dtype,
                           quantization=quantization)  # fmt: skip
    rank = len(builder.tensors[output].shape)
    builder.output(_turn(builder, output, (0, 3, 1, 2)) if rank == 4 and case.channels_last else output, "y")
    return builder.freeze()


def _input(builder: GraphBuilder, case: Case, index: int, *, prefix: bool) -> str:
    if index in case.constant_at:
        dtype = case.constant_dtype or _dtype(case, index)
        values = draw(np.random.default_rng(case.seed + index), case.shapes[index], dtype)
        if dtype == "int8":
            # ONNX Runtime computes in float with int8 constants that all lie in [-64, 64].
            values.flat[0] = -100
        if dtype in ("int32", "int64"):
            values[values == 0] = 7  # ONNX Runtime refuses to divide by a constant 0
        return builder.constant_tensor(f"c{index}", values, code(*INPUT_CODES[index % 3], dtype))
    shape, dtype = case.shapes[index], _dtype(case, index)
    quantization = code(*INPUT_CODES[index % 3], dtype)
    turned = len(shape) == 4 and case.channels_last
    host = tuple(shape[axis] for axis in (0, 3, 1, 2)) if turned else shape
    requantized = prefix and np.dtype(dtype).itemsize == 1 and quantization is not None
    before = code(0.018, 127, dtype) if requantized else quantization
    name = builder.input(Tensor(f"x{index}", host, dtype, before), f"x{index}")
    if turned:
        name = _turn(builder, name, (0, 2, 3, 1))
    if prefix:
        kind, attributes = ("unary", UnaryAttributes("identity")) if requantized else ("slice", _backwards(shape))
        name = append_op(builder, kind, (name,), attributes, name=f"p{index}", dtype=dtype, quantization=quantization)
    return name


def _backwards(shape: Shape) -> SliceAttributes:
    return SliceAttributes(tuple(extent - 1 for extent in shape), (-1,) * len(shape), (-1,) * len(shape))


def _dtype(case: Case, index: int) -> str:
    return (case.dtypes[index] if case.dtypes else "") or case.dtype


def _turn(builder: GraphBuilder, name: str, axes: tuple[int, ...]) -> str:
    tensor = builder.tensors[name]
    return append_op(builder, "transpose", (name,), TransposeAttributes(axes), name=f"{name}.turned",
                     dtype=tensor.dtype, quantization=tensor.quantization)  # fmt: skip


def operator(graph: Graph) -> Op:
    """The operator under test in a graph made by `build`."""
    return next(op for op in graph.ops if op.name == "operator")


def draw_inputs(graph: Graph, seed: int) -> dict[str, np.ndarray]:
    """Random host inputs: every code of integers, normal floats."""
    rng = np.random.default_rng(seed)
    return {port.host_name: draw(rng, port.host_shape(graph.tensor(port.tensor)), graph.tensor(port.tensor).dtype)
            for port in graph.inputs}  # fmt: skip


def draw(rng: np.random.Generator, shape: Shape, dtype: str) -> np.ndarray:
    """Random values of a type: every code, normal floats, small plain integers."""
    if dtype.startswith("float"):
        return rng.normal(0, 3, shape).astype(dtype)
    if dtype in ("int32", "int64"):
        return rng.integers(-99, 100, shape).astype(dtype)
    if dtype == "bool":
        return np.asarray(rng.random(shape) < 0.5)
    info = np.iinfo(dtype)
    if dtype == "uint64":
        return rng.integers(info.min, info.max, shape, dtype=np.uint64, endpoint=True)
    return rng.integers(info.min, info.max + 1, shape).astype(dtype)


def in_form(case: Case, form: str) -> Case:
    """A case that is written for uint8 with activations of another type; codes among the attributes move along."""
    attributes = case.attributes
    if getattr(attributes, "clamp", None):
        clamp = tuple(shifted(bound, form) for bound in attributes.clamp) if form in CODES else None
        attributes = replace(attributes, clamp=clamp)
    if isinstance(attributes, PadAttributes):
        attributes = replace(attributes, value=shifted(int(attributes.value), form) if form in CODES else 1.5)
    return replace(case, dtype=form, attributes=attributes)


def in_forms(cases: Iterable[Case]) -> Iterator[Case]:
    """Every case in every form that its kind takes."""
    for case in cases:
        for form in registered_ops()[case.kind].forms:
            yield case if form == case.dtype else in_form(case, form)
