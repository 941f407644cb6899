"""Weights as the matrix engine reads them; the layouts are those of CONV and DEPTHWISE in the instruction table."""

from __future__ import annotations

import numpy as np

from npu_backend.isa import CHANNEL_BLOCK, WEIGHT_CHUNK, WEIGHT_GROUP


def parameter_bytes(sum_itemsize: int) -> int:
    """Bytes of a block's parameters: its bias, of the sums' type, and its float32 multipliers."""
    return CHANNEL_BLOCK * (sum_itemsize + 4)


def channel_group(weight_type: np.dtype[np.generic]) -> int:
    """Input channels that lie together for each output: four int8, or one float16."""
    return WEIGHT_GROUP if weight_type == np.int8 else 1


def pack_dense(weight: np.ndarray, bias: np.ndarray, multipliers: np.ndarray) -> np.ndarray:
    """Rows of a dense convolution: weight ``[o, i, kh, kw]`` to uint8 ``[ceil(o / 16), chunks + parameters]``."""
    blocks, group = -(-weight.shape[0] // CHANNEL_BLOCK), channel_group(weight.dtype)
    padded = _pad(_pad(weight, 0, CHANNEL_BLOCK), 1, group)
    chunks = []
    for start in range(0, padded.shape[1], WEIGHT_CHUNK):
        chunk = padded[:, start : start + WEIGHT_CHUNK]
        groups = chunk.reshape(blocks, CHANNEL_BLOCK, -1, group, *weight.shape[2:])
        chunks.append(groups.transpose(0, 4, 5, 2, 1, 3).reshape(blocks, -1))
    return _rows(chunks, bias, multipliers)


def dense_bytes(weight_type: np.dtype[np.generic], channels: int, taps: int) -> int:
    """Bytes of the weights in a row of `pack_dense`."""
    group = channel_group(weight_type)
    return taps * -(-channels // group) * group * CHANNEL_BLOCK * weight_type.itemsize


def depthwise_bytes(weight_type: np.dtype[np.generic], taps: int) -> int:
    """Bytes of the weights in a row of `pack_depthwise`."""
    return taps * CHANNEL_BLOCK * weight_type.itemsize


def pack_depthwise(weight: np.ndarray, bias: np.ndarray, multipliers: np.ndarray) -> np.ndarray:
    """Rows of a depthwise convolution: weight ``[c, 1, kh, kw]`` to uint8 ``[ceil(c / 16), taps + parameters]``."""
    padded = _pad(weight[:, 0], 0, CHANNEL_BLOCK)
    taps = padded.reshape(-1, CHANNEL_BLOCK, *weight.shape[2:]).transpose(0, 2, 3, 1)
    return _rows([taps.reshape(len(taps), -1)], bias, multipliers)


def chunk_bytes(weight: np.ndarray) -> int:
    """Bytes of one full chunk of input channels in a row, of weight ``[o, i, kh, kw]``."""
    return dense_bytes(weight.dtype, WEIGHT_CHUNK, weight.shape[2] * weight.shape[3])


def folded_bias(weight: np.ndarray, bias: np.ndarray | None, input_zero_point: int) -> np.ndarray:
    """int64 ``[o]``: the bias less what the raw codes' zero point adds to every sum of weight ``[o, i, kh, kw]``."""
    total = weight.astype(np.int64).sum(axis=(1, 2, 3)) * -input_zero_point
    folded: np.ndarray = total if bias is None else total + bias.astype(np.int64)
    return folded


def _rows(chunks: list[np.ndarray], bias: np.ndarray, multipliers: np.ndarray) -> np.ndarray:
    parameters = [_pad(values, 0, CHANNEL_BLOCK).reshape(-1, CHANNEL_BLOCK).view(np.uint8)
                  for values in (bias, multipliers)]  # fmt: skip
    return np.concatenate([np.ascontiguousarray(chunk).view(np.uint8) for chunk in chunks] + parameters, axis=1)


def _pad(values: np.ndarray, axis: int, multiple: int) -> np.ndarray:
    shape = list(values.shape)
    shape[axis] += -shape[axis] % multiple
    padded = np.zeros(shape, values.dtype)
    padded[tuple(map(slice, values.shape))] = values
    return padded
