"""Pooling over windows and over whole images, on ``[n, h, w, c]``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from npu_backend.box import Box
from npu_backend.graph import Graph, Op, Tensor
from npu_backend.isa_functions import PoolFunction, ReduceFunction
from npu_backend.ops import numerics_pool as numerics
from npu_backend.ops.attributes import PoolAttributes
from npu_backend.ops.base import LoweredInstruction, OpSpec, Tile, quantization_of, register
from npu_backend.ops.elementwise import FORMS, element_fields
from npu_backend.ops.lines import line_instructions
from npu_backend.ops.numerics_core import decode, encode
from npu_backend.ops.numerics_lines import reduce
from npu_backend.ops.windows import at_batch, image_fields, padding_before, window_box

_PIXELS = (1, 2)
_WITHOUT_END = 1 << 30


@register
class Pool2d(OpSpec):
    """Maximum, average or norm of every window; padding never counts as a maximum."""

    kind = "pool2d"
    meaning = "maximum, average and norm pooling: any kernel, stride, dilation and pads, padding counted or not"
    forms = FORMS

    def infer_shape(
        self, attributes: PoolAttributes, inputs: Sequence[Tensor], constants: Sequence[np.ndarray]
    ) -> tuple[int, ...]:
        """``[n, oh, ow, c]``."""
        (batch, *lengths, channels), a = inputs[0].shape, attributes
        rows, columns = (
            numerics.output_length(
                lengths[axis], a.dilations[axis] * (a.kernel[axis] - 1) + 1, a.strides[axis], a.pads[axis],
                a.pads[2 + axis], a.ceil_mode,
            )
            for axis in range(2)
        )  # fmt: skip
        return batch, rows, columns, channels

    def reference(self, graph: Graph, op: Op, inputs: Sequence[np.ndarray]) -> np.ndarray:
        """As ONNX Runtime's MaxPool, QLinearAveragePool, or its float operators."""
        a, x, y = op.attributes, graph.tensor(op.inputs[0]), graph.tensor(op.output)
        if not _on_average_bytes(a, x, y):
            real = decode(inputs[0], x.quantization)
            return encode(
                numerics.pool_elements(real, a.function, a.kernel, a.strides, a.pads, a.dilations, a.ceil_mode), y
            )
        return numerics.average_pool_in_uint8(
            inputs[0], np.float32(quantization_of(x).scale), quantization_of(x).zero_point, a.kernel,
            np.float32(quantization_of(y).scale), quantization_of(y).zero_point, a.strides, a.pads,
            a.function == "average_window", a.ceil_mode,
        )  # fmt: skip

    def split_axes(self, graph: Graph, op: Op) -> Mapping[int, int]:
        """Every axis."""
        del graph, op
        return {0: 1, 1: 1, 2: 1, 3: 1}

    def input_boxes(self, graph: Graph, op: Op, out_box: Box) -> tuple[Box, ...]:
        """The windows' rows and columns, the same channels."""
        shape, a = graph.tensor(op.inputs[0]).shape, op.attributes
        return (window_box(out_box, shape, a.kernel, a.strides, a.dilations, a.pads, out_box.interval(3)),)

    def lower(self, graph: Graph, op: Op, tile: Tile) -> tuple[LoweredInstruction, ...]:
        """One instruction per image."""
        a, source, output = op.attributes, tile.inputs[0].box, tile.output.box
        x, y = graph.tensor(op.inputs[0]), graph.tensor(op.output)
        ends = [x.shape[1 + axis] + a.pads[2 + axis] - source.starts[1 + axis] for axis in range(2)]
        # ONNX Runtime's integer kernel divides by the whole window, whatever hangs over.
        counted = [_WITHOUT_END, _WITHOUT_END] if _on_average_bytes(a, x, y) else ends
        fields = element_fields("input", x) | element_fields("output", y) | {
            "kernel_height": a.kernel[0], "kernel_width": a.kernel[1],
            "stride_height": a.strides[0], "stride_width": a.strides[1],
            "dilation_height": a.dilations[0], "dilation_width": a.dilations[1],
            "function": PoolFunction[a.function.upper()],
            "pad_top": padding_before(output.starts[1], source.starts[1], a.strides[0], a.pads[0]),
            "pad_left": padding_before(output.starts[2], source.starts[2], a.strides[1], a.pads[1]),
            "counted_height": counted[0], "counted_width": counted[1],
        }  # fmt: skip
        return tuple(LoweredInstruction("POOL", fields | image_fields(tile.inputs[0], tile.output, image))
                     for image in range(*output.interval(0)))  # fmt: skip


def _on_average_bytes(a: PoolAttributes, x: Tensor, y: Tensor) -> bool:
    """Whether ONNX Runtime's integer kernel averages the windows."""
    return a.function in ("average_valid", "average_window") and a.dilations == (1, 1) and _same_bytes(x, y)


@register
class GlobalAveragePool(OpSpec):
    """The mean of all pixels; of 8-bit codes requantised from the integer sum."""

    kind = "global_average_pool"
    meaning = "mean of all pixels of every channel (GlobalAveragePool)"
    forms = FORMS

    def infer_shape(
        self, attributes: None, inputs: Sequence[Tensor], constants: Sequence[np.ndarray]
    ) -> tuple[int, ...]:
        """``[n, 1, 1, c]``."""
        return inputs[0].shape[0], 1, 1, inputs[0].shape[3]

    def reference(self, graph: Graph, op: Op, inputs: Sequence[np.ndarray]) -> np.ndarray:
        """As ONNX Runtime's QLinearGlobalAveragePool, or its float operator but for the order of sums."""
        x, y = graph.tensor(op.inputs[0]), graph.tensor(op.output)
        if not _same_bytes(x, y):
            return encode(reduce(inputs[0], x.quantization, "mean", _PIXELS), y)
        return numerics.global_average_pool(
            inputs[0], np.float32(quantization_of(x).scale), quantization_of(x).zero_point,
            np.float32(quantization_of(y).scale), quantization_of(y).zero_point,
        )  # fmt: skip

    def split_axes(self, graph: Graph, op: Op) -> Mapping[int, int]:
        """Images and channels."""
        del graph, op
        return {0: 1, 3: 1}

    def input_boxes(self, graph: Graph, op: Op, out_box: Box) -> tuple[Box, ...]:
        """All pixels of the same images and channels."""
        _, height, width, _ = graph.tensor(op.inputs[0]).shape
        return (out_box.with_interval(1, 0, height).with_interval(2, 0, width),)

    def lower(self, graph: Graph, op: Op, tile: Tile) -> tuple[LoweredInstruction, ...]:
        """One instruction per image; or a reduction."""
        x, y = graph.tensor(op.inputs[0]), graph.tensor(op.output)
        if not _same_bytes(x, y):
            mean = {"function": ReduceFunction.MEAN}
            return line_instructions("REDUCE", graph, op, (tile.inputs[0], tile.output), _PIXELS, mean)
        lowered, fields = [], element_fields("input", x) | element_fields("output", y)
        for image in range(*tile.output.box.interval(0)):
            source, output = at_batch(tile.inputs[0], image), at_batch(tile.output, image)
            _, height, width, channels = source.box.shape
            lowered.append(LoweredInstruction("MEAN", fields | {
                "input": source.address, "input_row_bytes": source.strides[1],
                "input_column_bytes": source.strides[2], "input_height": height, "input_width": width,
                "channels": channels, "output": output.address,
            }))  # fmt: skip
        return tuple(lowered)


def _same_bytes(x: Tensor, y: Tensor) -> bool:
    """Whether input and output are 8-bit codes of one type, for which ONNX Runtime has integer kernels."""
    return x.dtype == y.dtype and x.dtype in ("uint8", "int8")
