"""Native kernels written in C by hand: whole tensors, tiles, cores and strategies against NumPy."""

from __future__ import annotations

import ctypes
import hashlib
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest

from npu_backend import compile_graph, load_machine, strategy_named, toolchain
from npu_backend.box import Box
from npu_backend.errors import EmulatorError
from npu_backend.graph import Graph, GraphBuilder, Tensor
from npu_backend.kernels import Kernel, KernelOperations
from npu_backend.ops import append_op
from npu_backend.ops.attributes import BinaryAttributes, KernelAttributes
from npu_backend.program import Program
from npu_backend.runtime import Emulator


@dataclass(frozen=True, eq=False)
class Written(ABC):
    """A function of float32 tensors in C; `sources` collects the native functions that were asked for."""

    shape: tuple[int, ...]
    sources: dict[str, str] = field(default_factory=dict)
    dtype = "float32"

    @property
    def name(self) -> str:
        return type(self).__name__

    @property
    def split_axes(self) -> tuple[int, ...]:
        return tuple(range(len(self.shape)))

    def operations(self, out_box: Box) -> KernelOperations:
        return KernelOperations(4 * out_box.size, 0, 8 * out_box.size)

    @abstractmethod
    def body(self, kernel: Kernel) -> str: ...

    def symbol(self, kernel: Kernel) -> str:
        body = self.body(kernel)
        symbol = "npu_kernel_" + hashlib.sha256(body.encode()).hexdigest()[:16]
        self.sources[symbol] = f"int32_t {symbol}(void *const *operands) {{\n{body}\nreturn 0;\n}}\n"
        return symbol


def loops(box: Box, statement: str) -> str:
    """C loops over the positions i0, i1, ... of a box."""
    lines = [f"for (long i{axis} = {start}; i{axis} < {stop}; i{axis}++)"
             for axis, (start, stop) in enumerate(zip(box.starts, box.stops))]  # fmt: skip
    return " ".join(lines) + " {" + statement + "}"


def element(operand: int, box: Box, strides: Sequence[int], index: Sequence[str]) -> str:
    """C for an element of an operand at a position of the whole tensor."""
    terms = (f"({position} - {start}L) * {stride}L" for position, start, stride in zip(index, box.starts, strides))
    return f"(*(float *)((char *)operands[{operand}] + {' + '.join(terms)}))"


class Stencil(Written):
    """Sum of an element and its neighbours below and above, nothing beyond the ends."""

    def input_boxes(self, out_box: Box) -> tuple[Box, ...]:
        (start, stop), rows = out_box.interval(1), self.shape[1]
        return (out_box.with_interval(1, max(start - 1, 0), min(stop + 1, rows)),)

    def body(self, kernel: Kernel) -> str:
        (box,) = self.input_boxes(kernel.out_box)
        rows = (("i1", "1"), ("(i1 - 1)", "i1 > 0"), ("(i1 + 1)", f"i1 + 1 < {self.shape[1]}"))
        taps = (f"({inside} ? {element(0, box, kernel.strides[0], ('i0', row, 'i2'))} : 0.0f)" for row, inside in rows)
        out = element(1, kernel.out_box, kernel.strides[1], ("i0", "i1", "i2"))
        return loops(kernel.out_box, f"{out} = {' + '.join(taps)};")

    def reference(self, inputs: Sequence[np.ndarray]) -> np.ndarray:
        padded = np.pad(inputs[0], ((0, 0), (1, 1), (0, 0)))
        return padded[:, 1:-1] + padded[:, :-2] + padded[:, 2:]


class Reverse(Written):
    """Every element from the other end of the rows, which one core alone can do."""

    @property
    def split_axes(self) -> tuple[int, ...]:
        return (0, 2)

    def input_boxes(self, out_box: Box) -> tuple[Box, ...]:
        start, stop = out_box.interval(1)
        return (out_box.with_interval(1, self.shape[1] - stop, self.shape[1] - start),)

    def body(self, kernel: Kernel) -> str:
        (box,) = self.input_boxes(kernel.out_box)
        source = element(0, box, kernel.strides[0], ("i0", f"({self.shape[1] - 1} - i1)", "i2"))
        target = element(1, kernel.out_box, kernel.strides[1], ("i0", "i1", "i2"))
        return loops(kernel.out_box, f"{target} = {source};")

    def reference(self, inputs: Sequence[np.ndarray]) -> np.ndarray:
        return inputs[0][:, ::-1].copy()


class RowTimes(Written):
    """Every element times that of a row, the second input."""

    def input_boxes(self, out_box: Box) -> tuple[Box, ...]:
        return out_box, Box((out_box.starts[2],), (out_box.stops[2],))

    def body(self, kernel: Kernel) -> str:
        boxes = self.input_boxes(kernel.out_box)
        left, right = (element(number, box, strides, index) for number, (box, strides, index) in enumerate(
            zip(boxes, kernel.strides, (("i0", "i1", "i2"), ("i2",)))))  # fmt: skip
        target = element(2, kernel.out_box, kernel.strides[2], ("i0", "i1", "i2"))
        return loops(kernel.out_box, f"{target} = {left} * {right};")

    def reference(self, inputs: Sequence[np.ndarray]) -> np.ndarray:
        return inputs[0] * inputs[1]


SHAPE = (2, 37, 19)


def chain() -> tuple[Graph, list[Written]]:
    """Kernels and an operator of the vector engine after each other, so that tensors stay in the scratchpads."""
    builder = GraphBuilder("chain")
    x = builder.input(Tensor("x", SHAPE, "float32"), "x")
    row = builder.constant_tensor("row", np.linspace(0.5, 2, SHAPE[2], dtype=np.float32))
    functions: list[Written] = [Stencil(SHAPE), RowTimes(SHAPE), Reverse(SHAPE), Stencil(SHAPE)]
    for number, function in enumerate(functions):
        inputs = [x, row] if isinstance(function, RowTimes) else [x]
        x = append_op(builder, "kernel", inputs, KernelAttributes(function), name=f"kernel{number}", dtype="float32")
        if number == 1:
            x = append_op(builder, "binary", [x, x], BinaryAttributes("add"), name="twice", dtype="float32")
    builder.output(x, "y")
    return builder.freeze(), functions


def native(functions: Sequence[Written], folder: Path) -> ctypes.CDLL:
    """All kernels that were asked for, compiled."""
    source, library = folder / "kernels.c", folder / "kernels.so"
    lines = dict(item for function in functions for item in function.sources.items())
    source.write_text("#include <stdint.h>\n" + "".join(lines.values()))
    toolchain.run_compiler([*toolchain.find_compiler(), "-O1", "-shared", "-fPIC", str(source), "-o", str(library)])
    return ctypes.CDLL(str(library))


def expected(x: np.ndarray, functions: Sequence[Written]) -> np.ndarray:
    row = np.linspace(0.5, 2, SHAPE[2], dtype=np.float32)
    for number, function in enumerate(functions):
        x = function.reference([x, row])
        x = x + x if number == 1 else x
    return x


@pytest.mark.parametrize("spm_bytes", [None, 4096])
@pytest.mark.parametrize(
    ("machine", "cores", "strategy"),
    [
        ("exynos2100", 3, "stratum"), ("exynos2100", 3, "spatial"), ("exynos2100", 3, "channel"),
        ("exynos2100", 1, "single"), ("mesh16", 4, "stratum"), ("ring4", 4, "halo"), ("biglittle", 2, "base"),
    ],
)  # fmt: skip
def test_equal(machine: str, cores: int, strategy: str, spm_bytes: int | None, tmp_path: Path) -> None:
    graph, functions = chain()
    description = load_machine(machine).take(cores)
    description = description if spm_bytes is None else description.with_spm_bytes(spm_bytes)
    program = compile_graph(graph, description, strategy_named(strategy).alone, check=True)
    x = np.random.default_rng(0).normal(size=SHAPE).astype(np.float32)
    with Emulator(program.to_bytes(), kernels=native(functions, tmp_path)) as emulator:
        for threads, check in ((1, True), (2, False)):
            (y,) = emulator.run({"x": x}, threads=threads, check=check).values()
            np.testing.assert_array_equal(y, expected(x, functions))


def test_named_in_the_file_and_timed_without_native_code() -> None:
    graph, functions = chain()
    program = compile_graph(graph, load_machine("exynos2100"), strategy_named("base"))
    names = {symbol for function in functions for symbol in function.sources}
    assert set(program.kernels) <= names
    again = Program.from_bytes(program.to_bytes())
    assert again.kernels == program.kernels
    with Emulator(program.to_bytes()) as emulator:
        assert emulator.time().total_ns > 0
        with pytest.raises(EmulatorError, match=r"KERNEL \(node kernel0\): its native function npu_kernel_\w+ is not"):
            emulator.run({"x": np.zeros(SHAPE, np.float32)})


def test_cycles_follow_the_operations() -> None:
    """Twice the operations take twice the time of the vector processor."""

    class Heavy(Stencil):
        def operations(self, out_box: Box) -> KernelOperations:
            return KernelOperations(4_000_000, 0, 0)

    class Heavier(Stencil):
        def operations(self, out_box: Box) -> KernelOperations:
            return KernelOperations(0, 1_000_000, 0)

    times = []
    for kind in (Heavy, Heavier):
        builder = GraphBuilder("one")
        x = builder.input(Tensor("x", SHAPE, "float32"), "x")
        y = append_op(builder, "kernel", [x], KernelAttributes(kind(SHAPE)), name="k", dtype="float32")
        builder.output(y, "y")
        program = compile_graph(builder.freeze(), load_machine("exynos2100"), strategy_named("single"))
        with Emulator(program.to_bytes()) as emulator:
            times.append(emulator.time().cores[0].vector_busy_ns)
    assert times[1] == pytest.approx(2 * times[0], rel=1e-2)
