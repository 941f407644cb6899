"""Resize numerics against ONNX Runtime's default session."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnxruntime
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from npu_backend.ops import numerics_core as core
from npu_backend.ops import numerics_resize as resize
from npu_backend.ops.attributes import ResizeAttributes
from npu_backend.ops.numerics_resize import Axis
from npu_backend.ops.resize import resize_taps
from tests.ops.onnx_reference import (
    F,
    Graph,
    Quantization,
    draw_code,
    draw_image,
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

COORDINATES: list[resize.CoordinateMode] = [
    "half_pixel", "half_pixel_symmetric", "pytorch_half_pixel", "align_corners", "asymmetric", "tf_crop_and_resize",
]  # fmt: skip
WHOLE_IMAGE = [mode for mode in COORDINATES if mode != "tf_crop_and_resize"]
ROUNDINGS: list[resize.NearestMode] = ["floor", "ceil", "round_prefer_floor", "round_prefer_ceil"]
# An older release takes a tie that float32 puts a step beside one half for none.
COMPARABLE = ROUNDINGS[:2] if OLDER else ROUNDINGS
OPSET = 19


@pytest.mark.parametrize("mode", WHOLE_IMAGE)
@pytest.mark.parametrize("rounding", ROUNDINGS)
def test_nearest_indices(mode: resize.CoordinateMode, rounding: resize.NearestMode) -> None:
    if rounding not in COMPARABLE:
        pytest.skip(f"ONNX Runtime {onnxruntime.__version__} rounds near ties otherwise than 1.32")
    rng = np.random.default_rng(4)
    # The pairs whose coordinates fall a float32 step beside a tie, then any.
    lengths = [(7, 2), (7, 38), (10, 12), (13, 14), (15, 18), (20, 6), (25, 54), (26, 64)]
    lengths += [(int(a), int(b)) for a, b in rng.integers(1, 300, (40, 2))]
    for before, after in lengths:
        graph = Graph()
        x = graph.input(np.arange(before, dtype=F).reshape(1, 1, 1, before))
        sizes = graph.constant(np.array([1, 1, 1, after]))
        attributes = {"coordinate_transformation_mode": mode, "nearest_mode": rounding}
        expected = graph.run(graph.op("Resize", x, "", "", sizes, mode="nearest", **attributes), F, OPSET)
        np.testing.assert_array_equal(resize.nearest_indices(Axis(before, after, mode), rounding), expected.ravel())


def resized(values: np.ndarray, x: Quantization, y: Quantization, kind: str, lengths: Sequence[int], **how: str) -> Any:
    sizes = np.array([1, values.shape[3], *lengths])
    expected = reference("Resize", [(to_nchw(values), x)], y, [None, None, sizes], OPSET, mode=kind, **how)
    return to_nhwc(expected)


@given(seeds, dtypes, st.sampled_from(WHOLE_IMAGE), st.sampled_from(COMPARABLE))
def test_resize_nearest(
    rng: np.random.Generator, dtype: np.dtype, mode: resize.CoordinateMode, rounding: resize.NearestMode
) -> None:
    values, x = draw_image(rng, dtype), draw_code(rng, dtype)
    y = x if rng.integers(2) else near(rng, x, dtype)
    lengths = [int(v) for v in rng.integers(1, 40, 2)]
    rows, columns = (
        resize.nearest_indices(Axis(before, after, mode), rounding)
        for before, after in zip(values.shape[1:3], lengths, strict=True)
    )
    expected = resized(values, x, y, "nearest", lengths, coordinate_transformation_mode=mode, nearest_mode=rounding)
    moved: Any = resize.resize_nearest(values, rows, columns)
    np.testing.assert_array_equal(core.requantize(moved, *x, *y), expected)


@settings(max_examples=200)
@given(seeds, dtypes, st.sampled_from(WHOLE_IMAGE), st.booleans())
def test_resize_linear(
    rng: np.random.Generator, dtype: np.dtype, mode: resize.CoordinateMode, integer_factor: bool
) -> None:
    values, x = draw_image(rng, dtype), draw_code(rng, dtype)
    y = x if rng.integers(2) else near(rng, x, dtype)
    before = values.shape[1:3]
    lengths = [int(v) for v in (before * rng.integers(1, 5, 2) if integer_factor else rng.integers(1, 40, 2))]
    rows, columns = (resize.linear_taps(Axis(a, b, mode)) for a, b in zip(before, lengths, strict=True))
    expected = resized(values, x, y, "linear", lengths, coordinate_transformation_mode=mode)
    np.testing.assert_array_equal(resize.resize_linear(values, *x, *y, rows, columns), expected)


@given(seeds, st.sampled_from(WHOLE_IMAGE))
def test_resize_linear_between_convolutions(rng: np.random.Generator, mode: resize.CoordinateMode) -> None:
    """Channels last, as ONNX Runtime's layout pass leaves it, and by a scale input."""
    dtype = np.dtype(np.uint8)
    values, x, y = draw_image(rng, dtype), draw_code(rng, dtype), draw_code(rng, dtype)
    scales = [F(2), F(1.5)]
    rows, columns = (
        resize.linear_taps(Axis(before, int(factor * before), mode, float(factor)))
        for before, factor in zip(values.shape[1:3], scales, strict=True)
    )
    constants = [None, np.array([1, *scales, 1], F)]
    attributes = {"mode": "linear", "coordinate_transformation_mode": mode}
    expected = reference("Resize", [(values, x)], y, constants, OPSET, **attributes)
    np.testing.assert_array_equal(resize.resize_linear(values, *x, *y, rows, columns), expected)


FUNCTIONS = ("nearest", "bilinear", "cubic", "antialiased bilinear", "antialiased cubic")


@settings(max_examples=150)
@given(seeds, st.sampled_from(COORDINATES), st.booleans())
@pytest.mark.parametrize("function", FUNCTIONS)
def test_any_resize_of_floats(
    function: str, rng: np.random.Generator, mode: resize.CoordinateMode, by_scales: bool
) -> None:
    """Scales that are not the sizes' ratio, regions of interest partly outside, weights cut off at the border."""
    values = rng.normal(0, 1, (1, *rng.integers(1, 14, 2), 3)).astype(F)
    attributes = draw_attributes(rng, function, mode, values.shape[1:3], by_scales=by_scales)
    if min(attributes.output_size) == 0:
        return
    taps = resize_taps(attributes, values.shape[1:3])
    interpolate = resize.bilinear if function == "bilinear" and taps[0].weights.shape[1] == 2 else resize.separable
    outside = resize.outside(*taps)[:, :, None]
    actual = np.where(outside, F(attributes.extrapolation), interpolate(values, *taps))
    expected = to_nhwc(run_onnx(to_nchw(values), attributes, by_scales=by_scales))
    np.testing.assert_allclose(actual, expected, rtol=2e-5, atol=2e-5)


def draw_attributes(
    rng: np.random.Generator, function: str, mode: str, size: tuple[int, ...], *, by_scales: bool
) -> ResizeAttributes:
    if by_scales:
        scales = tuple(float(F(scale)) for scale in rng.uniform(0.3, 3, 2))
        output = tuple(int(F(length) * F(scale)) for length, scale in zip(size, scales, strict=True))
    else:
        output = tuple(map(int, rng.integers(1, 30, 2)))
        scales = tuple(float(F(after) / F(before)) for after, before in zip(output, size, strict=True))
    crop = mode == "tf_crop_and_resize"
    roi = tuple(float(F(v)) for v in (*rng.uniform(-0.2, 0.5, 2), *rng.uniform(0.5, 1.2, 2))) if crop else (0, 0, 1, 1)
    cubic, antialias = "cubic" in function, "antialiased" in function
    return ResizeAttributes(
        function.removeprefix("antialiased "), output, scales, mode, str(rng.choice(COMPARABLE)),
        float(rng.choice([-0.75, -0.5])) if cubic else -0.75, bool(rng.integers(2)) and cubic, antialias, roi,
        5.0 if crop else 0.0,
    )  # fmt: skip


def run_onnx(x: np.ndarray, a: ResizeAttributes, *, by_scales: bool) -> np.ndarray:
    graph = Graph()
    roi = graph.constant([0, 0, *a.roi[:2], 1, 1, *a.roi[2:]], F) if a.coordinate_mode.startswith("tf_crop") else ""
    sizes = "" if by_scales else graph.constant([*x.shape[:2], *a.output_size])
    scales = graph.constant([1, 1, *a.scales], F) if by_scales else ""
    function = "linear" if a.function == "bilinear" else a.function
    more: dict[str, Any] = {"nearest_mode": a.nearest_mode} if function == "nearest" else {}
    if function == "cubic":
        more = {"cubic_coeff_a": a.cubic_coefficient, "exclude_outside": int(a.exclude_outside)}
    name = graph.op(
        "Resize", graph.input(x), roi, scales, sizes, mode=function, coordinate_transformation_mode=a.coordinate_mode,
        antialias=int(a.antialias), extrapolation_value=a.extrapolation, **more,
    )  # fmt: skip
    return graph.run(name, F, OPSET)
