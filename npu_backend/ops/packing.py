"""Weights as the matrix engine reads them; the layouts are those of CONV and DEPTHWISE in the instruction table."""

from __future__ import annotations

import numpy as np

from npu_backend.isa import CHANNEL_BLOCK, WEIGHT_CHUNK, WEIGHT_GROUP

PARAMETER_BYTES = CHANNEL_BLOCK * (4 + 4)


def pack_dense(weight: np.ndarray, bias: np.ndarray, multipliers: np.ndarray) -> np.ndarray:
    """Rows of a dense convolution: int8 weight ``[o, i, kh, kw]`` to uint8 ``[ceil(o / 16), chunks + parameters]``."""
    blocks = -(-weight.shape[0] // CHANNEL_BLOCK)
    padded = _pad(_pad(weight, 0, CHANNEL_BLOCK), 1, WEIGHT_GROUP)
    chunks = []
    for start in range(0, padded.shape[1], WEIGHT_CHUNK):
        chunk = padded[:, start : start + WEIGHT_CHUNK]
        groups = chunk.reshape(blocks, CHANNEL_BLOCK, -1, WEIGHT_GROUP, *weight.shape[2:])
        chunks.append(groups.transpose(0, 4, 5, 2, 1, 3).reshape(blocks, -1))
    return _rows(chunks, bias, multipliers)


def pack_depthwise(weight: np.ndarray, bias: np.ndarray, multipliers: np.ndarray) -> np.ndarray:
    """Rows of a depthwise convolution: int8 ``[c, 1, kh, kw]`` to uint8 ``[ceil(c / 16), taps + parameters]``."""
    padded = _pad(weight[:, 0], 0, CHANNEL_BLOCK)
    taps = padded.reshape(-1, CHANNEL_BLOCK, *weight.shape[2:]).transpose(0, 2, 3, 1)
    return _rows([taps.reshape(len(taps), -1)], bias, multipliers)


def chunk_bytes(kernel: tuple[int, int]) -> int:
    """Bytes of one full chunk of input channels in a row."""
    return kernel[0] * kernel[1] * WEIGHT_CHUNK * CHANNEL_BLOCK


def folded_bias(weight: np.ndarray, bias: np.ndarray | None, input_zero_point: int) -> np.ndarray:
    """int32 ``[o]``: the bias less what the raw codes' zero point adds to every sum of weight ``[o, i, kh, kw]``."""
    total = weight.astype(np.int64).sum(axis=(1, 2, 3)) * -input_zero_point
    folded: np.ndarray = total if bias is None else total + bias.astype(np.int64)
    return folded.astype(np.int32)


def _rows(chunks: list[np.ndarray], bias: np.ndarray, multipliers: np.ndarray) -> np.ndarray:
    parameters = [_pad(values, 0, CHANNEL_BLOCK).reshape(-1, CHANNEL_BLOCK).view(np.uint8)
                  for values in (bias.astype(np.int32), multipliers.astype(np.float32))]  # fmt: skip
    return np.concatenate([chunk.view(np.uint8) for chunk in chunks] + parameters, axis=1)


def _pad(values: np.ndarray, axis: int, multiple: int) -> np.ndarray:
    shape = list(values.shape)
    shape[axis] += -shape[axis] % multiple
    padded = np.zeros(shape, values.dtype)
    padded[tuple(map(slice, values.shape))] = values
    return padded
