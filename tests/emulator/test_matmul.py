"""MATMUL, at every kernel level, bit for bit against NumPy."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import pytest

from npu_backend.graph import CODES, FLOATS, Quantization, Tensor
from npu_backend.ops.elementwise import element_fields
from npu_backend.ops.numerics_matmul import matmul
from tests.emulator.matrix_cases import LEVELS
from tests.emulator.scratchpad import Placed, Scratchpad, execute
from tests.ops.case import draw

Matrices = tuple[np.ndarray, np.ndarray]

SIZES = (1, 2, 3, 5, 6, 7, 11, 12, 13, 16, 17, 31, 33, 48, 65)


@dataclass(frozen=True)
class Product:
    """Sizes and types of one case."""

    rows: int
    inner: int
    columns: int
    left: str = "uint8"
    right: str = "uint8"
    output: str = "uint8"


def tensor(rng: np.random.Generator, dtype: str, spread: float) -> Tensor:
    """A tensor of a type; codes get any zero point, and a scale at which 8-bit codes are about `spread` wide."""
    if dtype not in CODES:
        return Tensor("t", (), dtype)
    info, steps = np.iinfo(dtype), 256 if dtype.endswith("16") else 1
    scale = np.float32(spread / 128 / steps * rng.uniform(0.5, 2))
    return Tensor("t", (), dtype, Quantization(float(scale), int(rng.integers(info.min, info.max + 1))))


def place(spm: Scratchpad, values: np.ndarray, rng: np.random.Generator) -> Placed:
    """A matrix in either order, dense or with gaps, perhaps as every third element of something larger."""
    if rng.random() < 0.3:
        whole = spm.place(np.repeat(values[..., None], 3, axis=2), (0, 1, 2), gaps=False)
        return Placed(whole.address, whole.shape[:2], whole.strides[:2], whole.dtype)
    return spm.place(values, ((0, 1), (1, 0))[int(rng.integers(2))])


def fields_of(product: Product, left: Placed, right: Placed, output: Placed) -> dict[str, Any]:
    fields: dict[str, Any] = {
        "name": "MATMUL", "rows": product.rows, "inner": product.inner, "columns": product.columns,
    }  # fmt: skip
    for name, placed in (("left", left), ("right", right), ("output", output)):
        fields[name] = placed.address
        fields[f"{name}_row_bytes"], fields[f"{name}_column_bytes"] = placed.strides
    return fields


@dataclass
class Prepared:
    """A case in a scratchpad: the instruction's fields, where the output lies and what it should be."""

    spm: Scratchpad
    fields: dict[str, Any]
    output: Placed
    expected: np.ndarray


def prepare(
    product: Product, rng: np.random.Generator, values: tuple[np.ndarray, np.ndarray] | None = None
) -> Prepared:
    shapes = (product.rows, product.inner), (product.inner, product.columns)
    left, right = values or (draw(rng, shapes[0], product.left), draw(rng, shapes[1], product.right))
    a, b = tensor(rng, product.left, 2), tensor(rng, product.right, 2)
    output = tensor(rng, product.output, 3 * product.inner**0.5)
    spm = Scratchpad(rng, 1 << 18)
    placed = place(spm, left, rng), place(spm, right, rng)
    target = place(spm, np.zeros((product.rows, product.columns), product.output), rng)
    fields = fields_of(product, *placed, target)
    for name, each in (("left", a), ("right", b), ("output", output)):
        fields |= element_fields(name, each)
    return Prepared(spm, fields, target, matmul(left, a, right, b, output))


def check_levels(product: Product, seed: int) -> None:
    prepared = prepare(product, np.random.default_rng(seed))
    for level in LEVELS.values():
        prepared.spm.check(level, prepared.output, prepared.expected, prepared.fields)


@pytest.mark.parametrize("seed", range(120))
def test_any_sizes_strides_and_types(seed: int) -> None:
    rng = np.random.default_rng(seed)
    rows, inner, columns = (int(rng.choice(SIZES)) for _ in range(3))
    left, right = (str(rng.choice([*CODES, *FLOATS])) for _ in range(2))
    check_levels(Product(rows, inner, columns, left, right, str(rng.choice([*CODES, *FLOATS, "int32"]))), seed)


@pytest.mark.parametrize("dtype", ["uint8", "int8", "uint16", "int16", "float16", "float32"])
@pytest.mark.parametrize("rows", range(1, 27))
def test_every_height_of_a_strip(dtype: str, rows: int) -> None:
    check_levels(Product(rows, 19, 33, dtype, dtype, dtype), rows)


@pytest.mark.parametrize("dtype", ["uint8", "int16", "float16", "float32"])
@pytest.mark.parametrize("inner", [300, 1001])
def test_long_sums(dtype: str, inner: int) -> None:
    check_levels(Product(3, inner, 5, dtype, dtype, "float32"), inner)


@pytest.mark.parametrize("dtype", ["int8", "uint16", "float16", "float32"])
def test_reduction_in_parts(dtype: str) -> None:
    """The accumulators carry the sum, so that parts give the bits of the whole."""
    rng = np.random.default_rng(2)
    prepared = prepare(Product(14, 90, 21, dtype, dtype, "float32"), rng)
    kind = np.int64 if dtype == "uint16" else np.int32
    kept = prepared.spm.place(np.zeros((14, 21), kind), gaps=False)
    address = kept.address
    cuts = [0, 31, 64, 90]
    for level in LEVELS.values():
        memory = prepared.spm.memory.copy()
        for low, high in pairwise(cuts):
            part = prepared.fields | {
                "left": prepared.fields["left"] + low * prepared.fields["left_column_bytes"],
                "right": prepared.fields["right"] + low * prepared.fields["right_row_bytes"], "inner": high - low,
                "accumulators": address, "load_accumulators": int(low > 0), "keep_accumulators": int(high < 90),
            }  # fmt: skip
            execute(level, memory, part)
        actual = np.ascontiguousarray(prepared.output.view(memory)).view(np.float32)[..., 0]
        np.testing.assert_array_equal(actual, prepared.expected)


def test_extreme_codes_do_not_saturate_inside() -> None:
    rng = np.random.default_rng(1)
    for dtype, other in (("uint8", "int8"), ("int8", "int8"), ("uint8", "uint8"), ("uint16", "int16")):
        low, high = np.iinfo(dtype), np.iinfo(other)
        ends = np.full((13, 70), low.max, dtype), np.full((70, 17), high.min, other)
        for output in ("int32", "float32"):
            prepared = prepare(Product(13, 70, 17, dtype, other, output), rng, ends)
            extreme = prepared.fields | {"left_zero_point": low.min, "right_zero_point": high.max}
            a = Tensor("a", (), dtype, Quantization(prepared.fields["left_scale"], int(low.min)))
            b = Tensor("b", (), other, Quantization(prepared.fields["right_scale"], int(high.max)))
            expected = matmul(ends[0], a, ends[1], b, Tensor("y", (), output))
            for level in LEVELS.values():
                prepared.spm.check(level, prepared.output, expected, extreme)


def test_special_floats() -> None:
    rng = np.random.default_rng(4)
    for dtype in FLOATS:
        left, right = draw(rng, (9, 24), dtype), draw(rng, (24, 20), dtype)
        left.flat[:3], right.flat[5:9] = (np.inf, -np.inf, np.nan), (np.inf, 0, -0.0, np.finfo(dtype).max)
        left[5], right[:, 7] = np.finfo(dtype).smallest_subnormal, np.finfo(dtype).smallest_subnormal
        for output in (*FLOATS, "int8", "int32"):
            with np.errstate(over="ignore"):
                prepared = prepare(Product(9, 24, 20, dtype, dtype, output), rng, (left, right))
            for level in LEVELS.values():
                memory = prepared.spm.memory.copy()
                execute(level, memory, prepared.fields)
                actual = np.ascontiguousarray(prepared.output.view(memory)).view(output)[..., 0]
                np.testing.assert_array_equal(actual, prepared.expected)


def test_one_tensor_may_be_both_operands() -> None:
    rng = np.random.default_rng(7)
    values = draw(rng, (23, 23), "float16")
    prepared = prepare(Product(23, 23, 23, "float16", "float16", "float16"), rng, (values, values))
    same = prepared.fields | {
        "right": prepared.fields["left"], "right_row_bytes": prepared.fields["left_row_bytes"],
        "right_column_bytes": prepared.fields["left_column_bytes"],
    }  # fmt: skip
    for level in LEVELS.values():
        prepared.spm.check(level, prepared.output, prepared.expected, same)
