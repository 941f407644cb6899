"""What the installed generation of TVM makes of every model in a folder: `python -m tests.relay.programs FOLDER`."""

from __future__ import annotations

import hashlib
import json
import sys
from pathlib import Path
from typing import Any

from npu_backend import compile_graph, load_machine, strategy_named
from npu_backend.errors import NpuError
from tvm_ext.driver import front_end_options, import_model

# Whose forms of floats the vector processors are asked for.
KERNELS_OF = "float-"
# One machine that computes in float16 and one that does not.
MACHINES = ("exynos2100", "ring4")
KERNELS, HOST = "kernels", "host"


def made_of(path: Path) -> dict[str, Any]:
    """By machine: the hash of every program, where each operator runs, and the graphs as text; and `KERNELS`."""
    made = {machine: _made_for(path, machine) for machine in MACHINES}
    return made | {KERNELS: _engines_with_kernels(path)} if path.stem.startswith(KERNELS_OF) else made


def _engines_with_kernels(path: Path) -> dict[str, str]:
    """Where each operator runs on a machine without float16 if vector processors take what engines do not."""
    try:
        parts = import_model(path, **front_end_options(load_machine(MACHINES[0]))).partitioned
    except NpuError as error:
        return {"error": f"{type(error).__name__}: {error}"}
    return {op.name: op.engine for op in parts.npu_ops} | {op.name: HOST for op in parts.host_ops}


def _made_for(path: Path, machine: str) -> dict[str, Any]:
    description = load_machine(machine)
    try:
        parts = import_model(path, computes_float=description.computes_float).partitioned
    except NpuError as error:
        return {"error": f"{type(error).__name__}: {error}"}
    programs = {symbol: compile_graph(graph, description.take(3), strategy_named("base").alone).to_bytes()
                for symbol, graph in parts.graphs.items()}  # fmt: skip
    return {
        "programs": {symbol: hashlib.sha256(data).hexdigest() for symbol, data in programs.items()},
        "npu": [[op.name, op.op, op.partition] for op in parts.npu_ops],
        "host": [[op.name, op.op, op.reason] for op in parts.host_ops],
        "graphs": {symbol: str(graph) for symbol, graph in parts.graphs.items()},
    }


if __name__ == "__main__":
    made = {path.stem: made_of(path) for path in sorted(Path(sys.argv[1]).glob("*.onnx"))}
    sys.stdout.write(json.dumps(made))
