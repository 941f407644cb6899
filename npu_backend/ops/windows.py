"""Arithmetic of sliding windows, shared by convolution and pooling."""

from __future__ import annotations

from collections.abc import Sequence

from npu_backend.box import Box
from npu_backend.ops.base import Operand


def window_count(length: int, kernel: int, stride: int, dilation: int, before: int, after: int) -> int:
    """Output positions along one axis: ``floor((length + pads - reach) / stride) + 1`` (ONNX, Conv)."""
    return (length + before + after - dilation * (kernel - 1) - 1) // stride + 1


def clip_interval(start: int, stop: int, length: int) -> tuple[int, int]:
    """The interval inside ``0:length``; where nothing is left, one element at the nearer end.

    A window that lies wholly in the padding still needs an address to be relative to.
    """
    low, high = max(0, min(start, length - 1)), max(1, min(stop, length))
    return (low, high) if low < high else (low, low + 1)


def window_interval(
    start: int, stop: int, length: int, kernel: int, stride: int, dilation: int, before: int
) -> tuple[int, int]:
    """Input positions that output positions ``start:stop`` need, clipped to the input."""
    first = start * stride - before
    last = (stop - 1) * stride - before + dilation * (kernel - 1)
    return clip_interval(first, last + 1, length)


def window_box(
    out_box: Box,
    in_shape: Sequence[int],
    kernel: tuple[int, int],
    strides: tuple[int, int],
    dilations: tuple[int, int],
    pads: tuple[int, int, int, int],
    channels: tuple[int, int],
) -> Box:
    """Input box ``[n, h, w, c]`` of an output box, with the channel interval given."""
    rows, columns = (
        window_interval(
            *out_box.interval(axis + 1), in_shape[axis + 1], kernel[axis], strides[axis], dilations[axis], pads[axis]
        )
        for axis in (0, 1)
    )
    intervals = (out_box.interval(0), rows, columns, channels)
    return Box(tuple(low for low, _ in intervals), tuple(high for _, high in intervals))


def image_fields(source: Operand, output: Operand, batch: int) -> dict[str, object]:
    """Address, stride and extent fields of a window instruction for one image of the batch."""
    source, output = at_batch(source, batch), at_batch(output, batch)
    _, in_height, in_width, in_channels = source.box.shape
    _, out_height, out_width, out_channels = output.box.shape
    return {
        "input": source.address, "input_row_bytes": source.strides[1], "input_column_bytes": source.strides[2],
        "input_height": in_height, "input_width": in_width, "input_channels": in_channels,
        "output": output.address, "output_row_bytes": output.strides[1], "output_column_bytes": output.strides[2],
        "output_height": out_height, "output_width": out_width, "output_channels": out_channels,
    }  # fmt: skip


def at_batch(operand: Operand, batch: int) -> Operand:
    """The operand's part for one image."""
    return operand.narrow(operand.box.with_interval(0, batch, batch + 1))


def padding_before(out_start: int, in_start: int, stride: int, before: int) -> int:
    """Rows that the tile's first output row starts above the tile's first input row."""
    return in_start - (out_start * stride - before)
