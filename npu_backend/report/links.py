"""How much each resource of the network carries: links, ports, DRAM, and the cores' DMA."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from npu_backend.program import Record
from npu_backend.report.figures import TimedProgram

KINDS = ("link", "port", "dram", "dma")
_DMA_WAYS = (".load", ".store", ".send", ".receive")


@dataclass(frozen=True)
class LinkFigures:
    """One resource, by its name in the program: what it carried over the whole run.

    `kind`: `link` of the network, memory `port` (of a node, or of a core), `dram`, or one direction of a core's `dma`.
    `bytes` are those that flowed, DRAM's in whole bursts; `gb_per_s` is its capacity. `utilization` is the share of
    what it could have carried in the time of the run, 0 to 1.
    """

    name: str
    kind: str
    bytes: int
    gb_per_s: float
    utilization: float


def link_figures(programs: Sequence[TimedProgram]) -> tuple[LinkFigures, ...]:
    """All resources that any path crosses, the busiest first, of equally busy ones in the machine's order."""
    records: dict[str, Record] = {}
    moved: dict[str, float] = {}
    for timed in programs:
        for record, moved_bytes in zip(timed.program.resources, timed.timing.resource_bytes.tolist(), strict=True):
            records.setdefault(record["name"], record)
            moved[record["name"]] = moved.get(record["name"], 0.0) + moved_bytes
    total_ns = sum(timed.timing.total_ns for timed in programs)
    found = [_figures(record, moved[name], total_ns) for name, record in records.items()]
    return tuple(sorted(found, key=lambda link: -link.utilization))


def _figures(record: Record, moved_bytes: float, total_ns: float) -> LinkFigures:
    # GB/s are bytes a nanosecond.
    capacity = record["bytes_per_ns"]
    utilization = moved_bytes / (capacity * total_ns) if total_ns else 0.0
    return LinkFigures(record["name"], _kind(record), round(moved_bytes), capacity, utilization)


def _kind(record: Record) -> str:
    if record["is_link"]:
        return "link"
    if record["name"] == "dram":
        return "dram"
    return "dma" if record["name"].endswith(_DMA_WAYS) else "port"
