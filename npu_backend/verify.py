"""What must hold between the passes: one verifier per type of stage.

A violation is our own bug, never the user's. The cheap checks run after every pass, the `thorough` ones under
``--check``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from npu_backend.graph import Graph
from npu_backend.passes.synchronize import Synchronized
from npu_backend.program import Program
from npu_backend.stages import Fused, Partitioned, Placed, Resident, Routed, Scheduled, Tiled
from npu_backend.verify_error import VerificationError
from npu_backend.verify_graph import verify_fused, verify_graph, verify_partitioned, verify_resident, verify_tiled
from npu_backend.verify_program import verify_placed, verify_program, verify_scheduled, verify_synchronized
from npu_backend.verify_route import verify_routed

__all__ = ["VERIFIERS", "VerificationError", "verify"]

VERIFIERS: Mapping[type, Callable[..., None]] = {
    Graph: verify_graph,
    Fused: verify_fused,
    Partitioned: verify_partitioned,
    Resident: verify_resident,
    Tiled: verify_tiled,
    Routed: verify_routed,
    Scheduled: verify_scheduled,
    Placed: verify_placed,
    Synchronized: verify_synchronized,
    Program: verify_program,
}


def verify(stage: Any, *, thorough: bool) -> None:
    """Checks what a pass made.

    Raises VerificationError naming the pass, the layer or operator, the core and the numbers.
    """
    VERIFIERS[type(stage)](stage, thorough=thorough)
