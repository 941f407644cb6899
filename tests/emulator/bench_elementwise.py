"""Speed of the element-wise kernels over float16 activations that lie in the cache, one thread.

``python -m tests.emulator.bench_elementwise [--level portable|avx2|avx512]`` prints one row a function.
"""

from __future__ import annotations

import argparse
import sys

import numpy as np

from npu_backend.isa import DataType, Instruction
from npu_backend.isa_functions import BinaryFunction, UnaryFunction
from npu_backend.ops.numerics_unary import parameters_of
from tests.emulator.bench_kernels import seconds_per_run
from tests.emulator.matrix_cases import LEVELS
from tests.emulator.operands import one_input
from tests.emulator.scratchpad import Scratchpad

ELEMENTS = (1, 1, 1, 1 << 16)
HALF = {"type": DataType.FLOAT16, "zero_point": 0, "scale": 1.0}


def _code(*sides: str) -> dict[str, object]:
    return {f"{side}_{name}": value for side in sides for name, value in HALF.items()}


def binary(function: BinaryFunction) -> tuple[Instruction, np.ndarray]:
    """The instruction and its scratchpad, full of halves."""
    rng = np.random.default_rng(0)
    spm = Scratchpad(rng, 1 << 19)
    places = {side: spm.place(rng.normal(0, 2, ELEMENTS).astype(np.float16), gaps=False)
              for side in ("left", "right", "output")}  # fmt: skip
    fields: dict[str, object] = {"counts": ELEMENTS, "function": function, "reserved": 0, **_code(*places)}
    for side, place in places.items():
        fields |= {side: place.address, f"{side}_strides": place.strides}
    return Instruction("BINARY", fields), spm.memory  # type: ignore[arg-type]


def unary(function: UnaryFunction) -> tuple[Instruction, np.ndarray]:
    """The instruction and its scratchpad, full of halves."""
    rng = np.random.default_rng(0)
    spm = Scratchpad(rng, 1 << 19)
    source, output = (spm.place(rng.normal(0, 2, ELEMENTS).astype(np.float16), gaps=False) for _ in range(2))
    parameters = {"power": (0.7,)}.get(function.name.lower(), ())
    alpha, beta = (*parameters_of(function.name.lower(), parameters), 0, 0)[:2]
    fields = one_input("UNARY", source, output, **_code("input", "output"), function=function, alpha=alpha, beta=beta)
    del fields["name"]
    return Instruction("UNARY", fields), spm.memory  # type: ignore[arg-type]


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description="millions of elements a second of the element-wise kernels")
    parser.add_argument("--level", choices=LEVELS, default="avx512")
    level = LEVELS[parser.parse_args().level]
    for make, functions in ((binary, BinaryFunction), (unary, UnaryFunction)):
        for function in functions:
            if function not in (BinaryFunction.ADD_CODES, BinaryFunction.MULTIPLY_CODES) or make is unary:
                seconds = seconds_per_run(*make(function), level)  # type: ignore[operator]
                sys.stdout.write(f"{function.name.lower():20} {ELEMENTS[-1] / seconds / 1e6:8.0f}\n")


if __name__ == "__main__":
    main()
