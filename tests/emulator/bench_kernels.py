"""Speed of the matrix engine's kernels on layers of MobileNetV2 and InceptionV3, one thread, whole layers in one piece.

``python -m tests.emulator.bench_kernels [--level portable|avx2|avx512] [--type uint8|int8|uint16|int16|float16]``
prints one row a layer. With ``--compare`` it also times ONNX Runtime's float32 operator, and prints our time over its.
"""

from __future__ import annotations

import argparse
import ctypes
import sys
import time
from dataclasses import replace

import numpy as np

from npu_backend.encoding import encode
from npu_backend.isa import DATA_TYPES, Instruction
from npu_backend.toolchain import emulator_library
from tests.emulator.matrix_cases import (
    LEVELS,
    Bytes,
    Scratchpad,
    Window,
    code_range,
    dtype_of,
    instruction_of,
    pack_blocks,
    random_operands,
    strided_image,
)

BATCH_SECONDS = 0.02
BATCHES = 7

# Network, operator, input size, input channels, output channels, kernel, stride; padded as "same".
LAYERS = [
    ("mobilenet_v2", "CONV", 224, 3, 32, (3, 3), 2),
    ("mobilenet_v2", "DEPTHWISE", 112, 32, 32, (3, 3), 1),
    ("mobilenet_v2", "CONV", 112, 32, 16, (1, 1), 1),
    ("mobilenet_v2", "CONV", 112, 16, 96, (1, 1), 1),
    ("mobilenet_v2", "DEPTHWISE", 112, 96, 96, (3, 3), 2),
    ("mobilenet_v2", "CONV", 56, 24, 144, (1, 1), 1),
    ("mobilenet_v2", "DEPTHWISE", 56, 144, 144, (3, 3), 1),
    ("mobilenet_v2", "CONV", 56, 144, 24, (1, 1), 1),
    ("mobilenet_v2", "CONV", 28, 192, 32, (1, 1), 1),
    ("mobilenet_v2", "DEPTHWISE", 14, 384, 384, (3, 3), 1),
    ("mobilenet_v2", "CONV", 14, 96, 576, (1, 1), 1),
    ("mobilenet_v2", "CONV", 14, 576, 96, (1, 1), 1),
    ("mobilenet_v2", "DEPTHWISE", 7, 960, 960, (3, 3), 1),
    ("mobilenet_v2", "CONV", 7, 960, 160, (1, 1), 1),
    ("mobilenet_v2", "CONV", 7, 320, 1280, (1, 1), 1),
    ("mobilenet_v2", "CONV", 1, 1280, 1000, (1, 1), 1),
    ("inception_v3", "CONV", 299, 3, 32, (3, 3), 2),
    ("inception_v3", "CONV", 149, 32, 32, (3, 3), 1),
    ("inception_v3", "CONV", 147, 32, 64, (3, 3), 1),
    ("inception_v3", "CONV", 73, 80, 192, (3, 3), 1),
    ("inception_v3", "CONV", 35, 288, 64, (1, 1), 1),
    ("inception_v3", "CONV", 35, 48, 64, (5, 5), 1),
    ("inception_v3", "CONV", 35, 96, 96, (3, 3), 1),
    ("inception_v3", "CONV", 17, 768, 192, (1, 1), 1),
    ("inception_v3", "CONV", 17, 160, 160, (1, 7), 1),
    ("inception_v3", "CONV", 17, 192, 192, (7, 1), 1),
    ("inception_v3", "CONV", 8, 2048, 320, (1, 1), 1),
    ("inception_v3", "CONV", 8, 448, 384, (3, 3), 1),
]


def window_of(size: int, channels: int, outputs: int, kernel: tuple[int, int], stride: int) -> Window:
    """A square layer padded so that the output is the input's size over the stride, rounded up."""
    output_size = -(-size // stride)
    window = Window(size, size, channels, output_size, output_size, outputs, kernel=kernel, stride=(stride, stride))
    return replace(window, pad_top=kernel[0] // 2, pad_left=kernel[1] // 2)


def prepare(window: Window, operator: str) -> tuple[Instruction, Bytes]:
    """The layer's instruction and a scratchpad that holds it, its blocks at multiples of 64 bytes."""
    rng = np.random.default_rng(0)
    blocks, parameters, block_bytes = pack_blocks(window, random_operands(window, rng, operator == "DEPTHWISE"))
    padded = np.pad(blocks.reshape(window.blocks, block_bytes), ((0, 0), (0, -block_bytes % 64)))
    pixels = window.output_height * window.output_width
    image = np.zeros((window.height, window.width, window.channels), dtype_of(window.input_type))
    pieces = {"blocks": padded.reshape(-1), "input": strided_image(image, window.input_strides)}
    output = np.zeros(pixels * window.output_channels, dtype_of(window.output_type)).view(np.uint8)
    spm, address = Scratchpad(rng, pieces | {"output": output}, 64).build()
    address["parameters"] = address["blocks"] + parameters
    return instruction_of(window, operator, address, padded.shape[1]), spm


def seconds_per_run(instruction: Instruction, spm: Bytes, level: int) -> float:
    """The best of several batches; a batch is one call, so that its copy of the scratchpad hardly counts."""
    execute = ctypes.CDLL(str(emulator_library())).npu_execute
    pointer = spm.ctypes.data_as(ctypes.c_void_p)

    def run(repeats: int) -> float:
        code = encode(instruction) * repeats
        start = time.perf_counter()
        status = execute(code, ctypes.c_uint64(len(code)), pointer, ctypes.c_uint64(spm.size), ctypes.c_uint32(level))
        assert status == 0, status
        return time.perf_counter() - start

    repeats = max(1, int(BATCH_SECONDS / run(1)))
    return min(run(repeats) for _ in range(BATCHES)) / repeats


def onnx_runtime_seconds(window: Window, operator: str) -> float:
    """The best of several runs of ONNX Runtime's Conv in float32, one thread, with the same geometry."""
    import onnx
    import onnxruntime
    from onnx import helper, numpy_helper

    depthwise = operator == "DEPTHWISE"
    shape = (window.output_channels, 1 if depthwise else window.channels, *window.kernel)
    reach = [
        (size - 1) * window.stride[0] + kernel - given
        for size, kernel, given in zip(
            (window.output_height, window.output_width), window.kernel, (window.height, window.width), strict=True
        )
    ]
    before = (window.pad_top, window.pad_left)
    pads = (*before, *(max(0, total - first) for total, first in zip(reach, before, strict=True)))
    node = helper.make_node("Conv", ["x", "w"], ["y"], strides=window.stride, pads=pads,
                            group=window.channels if depthwise else 1)  # fmt: skip
    x = np.zeros((1, window.channels, window.height, window.width), np.float32)
    weight = numpy_helper.from_array(np.ones(shape, np.float32), "w")
    ports = [helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, extents)
             for name, extents in (("x", x.shape), ("y", None))]  # fmt: skip
    model = helper.make_model(helper.make_graph([node], "layer", ports[:1], ports[1:], [weight]),
                              opset_imports=[helper.make_opsetid("", 17)], ir_version=9)  # fmt: skip
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])

    def run(repeats: int) -> float:
        start = time.perf_counter()
        for _ in range(repeats):
            session.run(None, {"x": x})
        return time.perf_counter() - start

    repeats = max(1, int(BATCH_SECONDS / run(1)))
    return min(run(repeats) for _ in range(BATCHES)) / repeats


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description="GMAC/s of the matrix engine's kernels")
    parser.add_argument("--level", choices=LEVELS, default="avx512")
    parser.add_argument("--type", choices=["uint8", "int8", "uint16", "int16", "float16"], default="uint8")
    parser.add_argument("--compare", action="store_true")
    options = parser.parse_args()
    sys.stdout.write(f"{'network':13} {'operator':10} {'layer':28} {'MMAC':>7} {'us':>9} {'GMAC/s':>7}\n")
    for network, operator, size, channels, outputs, kernel, stride in LAYERS:
        data_type = DATA_TYPES[options.type]
        window = window_of(size, channels, outputs, kernel, stride)
        window = replace(window, input_type=data_type, output_type=data_type, clamp_high=code_range(data_type)[1])
        seconds = seconds_per_run(*prepare(window, operator), LEVELS[options.level])
        reduced = kernel[0] * kernel[1] * (1 if operator == "DEPTHWISE" else channels)
        macs = window.output_height * window.output_width * outputs * reduced
        layer = f"{size}x{size}x{channels} -> {outputs} {kernel[0]}x{kernel[1]}/{stride}"
        figures = f"{macs / 1e6:7.1f} {seconds * 1e6:9.1f} {macs / seconds / 1e9:7.1f}"
        ratio = f" {seconds / onnx_runtime_seconds(window, operator):5.2f}" if options.compare else ""
        sys.stdout.write(f"{network:13} {operator:10} {layer:28} {figures}{ratio}\n")


if __name__ == "__main__":
    main()
