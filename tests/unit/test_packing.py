"""Packed weights, read back element by element as the instruction table describes them."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from npu_backend.box import Box
from npu_backend.isa import CHANNEL_BLOCK, WEIGHT_CHUNK, WEIGHT_GROUP
from npu_backend.ops.base import PackedConstant, Reduction
from npu_backend.ops.packing import chunk_bytes, folded_bias, pack_dense, pack_depthwise, parameter_bytes

PARAMETER_BYTES = parameter_bytes(4)

kernels = st.tuples(st.integers(1, 3), st.integers(1, 3))
seeds = st.integers(0, 1000)


def parameters(row: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    tail = np.ascontiguousarray(row[-PARAMETER_BYTES:])
    half = PARAMETER_BYTES // 2
    return tail[:half].view(np.int32), tail[half:].view(np.float32)


@given(st.integers(1, 40), st.integers(1, 150), kernels, seeds)
def test_dense_rows(outputs: int, inputs: int, kernel: tuple[int, int], seed: int) -> None:
    rng = np.random.default_rng(seed)
    weight = rng.integers(-127, 128, (outputs, inputs, *kernel)).astype(np.int8)
    bias, scales = rng.integers(-999, 999, outputs).astype(np.int32), rng.random(outputs).astype(np.float32)
    rows = pack_dense(weight, bias, scales)
    groups = -(-inputs // WEIGHT_GROUP)
    taps = kernel[0] * kernel[1]
    assert rows.shape == (-(-outputs // CHANNEL_BLOCK), groups * WEIGHT_GROUP * taps * CHANNEL_BLOCK + PARAMETER_BYTES)
    for output, channel in zip(rng.integers(0, outputs, 5), rng.integers(0, inputs, 5), strict=True):
        row, lane = rows[output // CHANNEL_BLOCK], output % CHANNEL_BLOCK
        chunk, inside = divmod(int(channel), WEIGHT_CHUNK)
        chunk_groups = min(WEIGHT_CHUNK // WEIGHT_GROUP, groups - chunk * (WEIGHT_CHUNK // WEIGHT_GROUP))
        for y, x in np.ndindex(*kernel):
            group = (y * kernel[1] + x) * chunk_groups + inside // WEIGHT_GROUP
            place = chunk * chunk_bytes(weight) + (group * CHANNEL_BLOCK + lane) * WEIGHT_GROUP + inside % WEIGHT_GROUP
            assert row[place].view(np.int8) == weight[output, channel, y, x]
        assert parameters(row)[0][lane] == bias[output]
        assert parameters(row)[1][lane] == scales[output]


@given(st.integers(1, 40), kernels, seeds)
def test_depthwise_rows(channels: int, kernel: tuple[int, int], seed: int) -> None:
    rng = np.random.default_rng(seed)
    weight = rng.integers(-127, 128, (channels, 1, *kernel)).astype(np.int8)
    bias, scales = rng.integers(-999, 999, channels).astype(np.int32), rng.random(channels).astype(np.float32)
    rows = pack_depthwise(weight, bias, scales)
    for channel in range(channels):
        row, lane = rows[channel // CHANNEL_BLOCK], channel % CHANNEL_BLOCK
        taps = row[:-PARAMETER_BYTES].reshape(*kernel, CHANNEL_BLOCK).view(np.int8)
        np.testing.assert_array_equal(taps[:, :, lane], weight[channel, 0])
        assert (parameters(row)[0][lane], parameters(row)[1][lane]) == (bias[channel], scales[channel])


def test_lanes_past_the_last_channel_are_zero() -> None:
    rows = pack_dense(np.ones((17, 3, 1, 1), np.int8), np.ones(17, np.int32), np.ones(17, np.float32))
    weights = rows[1, :-PARAMETER_BYTES].reshape(CHANNEL_BLOCK, WEIGHT_GROUP)
    assert weights.sum() == 3
    assert parameters(rows[1])[0].sum() == 1


def test_folded_bias_takes_the_zero_point_out_of_the_sums() -> None:
    rng = np.random.default_rng(1)
    weight = rng.integers(-127, 128, (5, 7, 3, 2)).astype(np.int8)
    bias, zero_point = rng.integers(-999, 999, 5).astype(np.int32), 131
    x = rng.integers(0, 256, (7, 3, 2))
    raw = (weight.astype(np.int64) * x).sum(axis=(1, 2, 3)) + folded_bias(weight, bias, zero_point)
    centred = (weight.astype(np.int64) * (x - zero_point)).sum(axis=(1, 2, 3)) + bias
    np.testing.assert_array_equal(raw, centred)
    np.testing.assert_array_equal(folded_bias(weight, None, zero_point), folded_bias(weight, np.zeros(5), zero_point))


def test_slices_of_a_constant() -> None:
    constant = PackedConstant(np.zeros((4, 1000), np.uint8), axis=1, block=16, chunk_bytes=400)
    assert constant.row_interval(Box((0, 16), (9, 50))) == (1, 4)
    assert constant.column_interval(None) == (0, 1000)
    assert constant.column_interval(Reduction(0, 64, 140)) == (0, 400)
    assert constant.column_interval(Reduction(64, 128, 140)) == (400, 800)
    # The last part brings what is left of the channels, and the parameters.
    assert constant.column_interval(Reduction(128, 140, 140)) == (800, 1000)
    assert PackedConstant(np.zeros((4, 8), np.uint8)).row_interval(Box((3,), (4,))) == (0, 4)
