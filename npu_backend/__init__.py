"""A compiler backend for multicore mobile NPUs; knows nothing of TVM.

The public names load on first use, so that importing the package costs nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from npu_backend.machine import load_machine, machine_names
    from npu_backend.pipeline import compile_graph
    from npu_backend.strategies import STRATEGIES, strategy_named

_HOMES = {
    "load_machine": "machine",
    "machine_names": "machine",
    "compile_graph": "pipeline",
    "STRATEGIES": "strategies",
    "strategy_named": "strategies",
}

__all__ = ["STRATEGIES", "compile_graph", "load_machine", "machine_names", "strategy_named"]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
