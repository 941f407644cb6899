"""Pooling, resize and softmax numerics against ONNX Runtime's default session."""

from __future__ import annotations

import numpy as np
import onnxruntime
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from npu_backend.graph import Quantization as NpuQuantization
from npu_backend.ops import numerics_core as core
from npu_backend.ops import numerics_lines as lines
from npu_backend.ops import numerics_pool as pool
from npu_backend.ops import numerics_softmax
from tests.ops.onnx_reference import (
    Attributes,
    F,
    assert_within_one_step,
    draw_code,
    draw_image,
    draw_scale,
    draw_values,
    draw_zero_point,
    dtypes,
    near,
    reference,
    seeds,
    to_nchw,
    to_nhwc,
)
from tvm_ext.float_resizes import release

# Thousands of random trials; tests/ops/test_onnx.py holds every operator to ONNX Runtime in the fast tests.
pytestmark = pytest.mark.slow

# Python 3.10 has 1.23 at most.
OLDER = release(onnxruntime.__version__) < (1, 32)

# pooling


class Windows:
    def __init__(self, rng: np.random.Generator):
        self.kernel = tuple(int(v) for v in rng.integers(2, 4, 2))
        self.strides = tuple(int(v) for v in rng.integers(1, 4, 2))
        self.pads = tuple(int(v) for v in rng.integers(0, 2, 4))
        self.ceil_mode = bool(rng.integers(2))

    def attributes(self) -> Attributes:
        return {
            "kernel_shape": self.kernel,
            "strides": self.strides,
            "pads": self.pads,
            "ceil_mode": int(self.ceil_mode),
        }


@given(seeds, dtypes)
def test_max_pool(rng: np.random.Generator, dtype: np.dtype) -> None:
    values, windows, x = draw_image(rng, dtype), Windows(rng), draw_code(rng, dtype)
    y = x if rng.integers(2) else draw_code(rng, dtype)
    pooled = pool.pool_elements(
        core.dequantize(values, *x), "maximum", windows.kernel, windows.strides, windows.pads, (1, 1), windows.ceil_mode
    )
    expected = reference("MaxPool", [(to_nchw(values), x)], y, **windows.attributes())
    np.testing.assert_array_equal(core.quantize(pooled, *y, dtype), to_nhwc(expected))


@settings(max_examples=200)
@given(seeds, dtypes, st.booleans())
def test_average_pool(rng: np.random.Generator, dtype: np.dtype, count_include_pad: bool) -> None:
    values, windows, x = draw_image(rng, dtype), Windows(rng), draw_code(rng, dtype)
    y = near(rng, x, dtype)
    actual = pool.average_pool(
        values, *x, windows.kernel, *y, windows.strides, windows.pads, count_include_pad, windows.ceil_mode
    )
    attributes = {**windows.attributes(), "count_include_pad": int(count_include_pad)}
    expected = reference("AveragePool", [(to_nchw(values), x)], y, **attributes)
    np.testing.assert_array_equal(actual, to_nhwc(expected))


@settings(max_examples=200)
@given(seeds, dtypes)
def test_global_average_pool(rng: np.random.Generator, dtype: np.dtype) -> None:
    values, x = draw_image(rng, dtype), draw_code(rng, dtype)
    y = F(x[0] * 2 ** rng.uniform(-3, 0)), draw_zero_point(rng, dtype)
    expected = to_nhwc(reference("GlobalAveragePool", [(to_nchw(values), x)], y))
    np.testing.assert_array_equal(pool.global_average_pool(values, *x, *y), expected)


@pytest.mark.parametrize("channels_last", [False, True])
@given(rng=seeds, dtype=dtypes)
def test_mean_is_within_one_step(rng: np.random.Generator, dtype: np.dtype, channels_last: bool) -> None:
    values, x = draw_image(rng, dtype), draw_code(rng, dtype)
    y = F(x[0] * 2 ** rng.uniform(-3, 0)), draw_zero_point(rng, dtype)
    if channels_last:
        expected = reference("ReduceMean", [(values, x)], y, axes=[1, 2])
    else:
        expected = to_nhwc(reference("ReduceMean", [(to_nchw(values), x)], y, axes=[2, 3]))
    mean = lines.reduce(values, NpuQuantization(float(x[0]), x[1]), "mean", (1, 2))
    assert_within_one_step(core.quantize(mean, *y, dtype), expected, 0.1)


# softmax


@settings(max_examples=200)
@given(seeds, dtypes)
def test_softmax(rng: np.random.Generator, dtype: np.dtype) -> None:
    shape = (int(rng.integers(1, 6)), int(rng.integers(2, 1100)))
    values = draw_values(rng, shape, dtype) // rng.choice([1, 4])
    x = draw_scale(rng, -8, -1), draw_zero_point(rng, dtype)
    y_scale = F(rng.choice([1 / 256, 1 / 255, 2 ** rng.uniform(-9, -6)]))
    y = y_scale, int(rng.choice([core.integer_range(dtype)[0], draw_zero_point(rng, dtype)]))
    expected = reference("Softmax", [(values.astype(dtype), x)], y, axis=-1)
    actual = numerics_softmax.softmax(values.astype(dtype), x[0], *y)
    if OLDER:  # Its int8 codes wrap where they should saturate.
        expected = np.where(actual == core.integer_range(dtype)[1], actual, expected)
    np.testing.assert_array_equal(actual, expected)
