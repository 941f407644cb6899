"""A compiler backend for multicore mobile NPUs; knows nothing of TVM."""

from __future__ import annotations

from npu_backend.machine import load_machine, machine_names
from npu_backend.pipeline import compile_graph
from npu_backend.strategies import STRATEGIES, strategy_named

__all__ = ["STRATEGIES", "compile_graph", "load_machine", "machine_names", "strategy_named"]
