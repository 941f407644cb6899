"""A network flit by flit and step by step, to hold the emulator's fluid transfers to; it shares no code with them.

The simulator is `flit_reference.c`, built on first use. It knows resources with bandwidths, and transfers whose flits
go through them in order; no topology, no events and no rates. What it models, and why:

- a flit is as wide as a link; a resource serves one flit a slot, as often as its bandwidth allows;
- every transfer has a channel of its own at each resource (a virtual channel), so none waits behind another's flits;
- a channel's buffer holds the flits on their way to it, those whose credit is on its way back, and one more: with less,
  transfers would not get a link's bandwidth;
- turns go round the channels that have a flit and room ahead of it (`Turns.TRANSFERS`); routers without a channel for
  every transfer go round their inputs instead (`Turns.PORTS`), which favours transfers that join late.
"""

from __future__ import annotations

import ctypes
import hashlib
import math
import tempfile
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from functools import cache
from pathlib import Path

import numpy as np

from npu_backend.toolchain import cache_directory, find_compiler, run_compiler

_SOURCE = Path(__file__).with_suffix(".c")
_FLAGS = ("-std=c11", "-O2", "-Wall", "-Wextra", "-Werror", "-fPIC", "-shared")
_STEP_LIMIT = 1 << 24

FLIT_BYTES = 16
# With none, transfers that take turns would lose slots to credits on their way.
SPARE_FLITS = 1

_RESOURCE = np.dtype([("flits_per_step", "f8"), ("first_port", "u4"), ("port_count", "u4")])
_PORT = np.dtype([("first_member", "u4"), ("member_count", "u4")])
_CHANNEL = np.dtype([(name, "u4") for name in (
    "first_child", "child_count", "transfer", "is_first", "buffer_flits", "delay_steps", "credit_steps")])  # fmt: skip
_TRANSFER = np.dtype([(name, "u4") for name in (
    "release_step", "flits", "first_channel", "channel_count", "finish_step")])  # fmt: skip


class Turns(Enum):
    """Among whom a resource's turns go round."""

    TRANSFERS = "transfers"
    PORTS = "ports"  # the resources that feed it; within one, its transfers


@dataclass(frozen=True)
class Hop:
    """One resource of a path; a flit reaches the next one `latency_ns` after its service began, a slot at the least."""

    resource: int
    latency_ns: float


@dataclass(frozen=True)
class FlitTransfer:
    """Flits that wait at the source from `release_ns` on; a path for each destination, of which all get all flits."""

    release_ns: float
    size_bytes: int
    paths: tuple[tuple[Hop, ...], ...]


@dataclass(frozen=True)
class FlitNetwork:
    """Bandwidths of all resources in bytes a nanosecond; flits; how many a buffer holds beyond what credits need."""

    bytes_per_ns: tuple[float, ...]
    flit_bytes: int = FLIT_BYTES
    spare_flits: int = SPARE_FLITS
    turns: Turns = Turns.TRANSFERS

    @property
    def step_ns(self) -> float:
        """Half a slot of the fastest resource, or less, so that latencies are met well enough."""
        return min(0.5, self.flit_bytes / max(self.bytes_per_ns)) / 2


@dataclass
class _Channel:
    """A transfer at a resource; those of one transfer form a tree."""

    resource: int
    latency_ns: float
    transfer: int
    parent: int | None  # channel
    children: list[int]


def finish_times_ns(network: FlitNetwork, transfers: Sequence[FlitTransfer]) -> list[float]:
    """When the last flit of each transfer has reached the last of its destinations."""
    channels, firsts = _channels(transfers)
    rows = _channel_rows(network, channels)
    resources, ports, members = _port_tables(network, channels)
    table = np.zeros(len(transfers), _TRANSFER)
    table["release_step"] = [round(transfer.release_ns / network.step_ns) for transfer in transfers]
    table["flits"] = [-(-transfer.size_bytes // network.flit_bytes) for transfer in transfers]
    table["first_channel"] = firsts
    table["channel_count"] = np.diff([*firsts, len(channels)])
    line_steps = int(max(rows["delay_steps"].max(), rows["credit_steps"].max())) + 1
    is_over = _library().flit_simulate(
        _pointer(resources), len(resources), _pointer(ports), len(ports), _pointer(members), _pointer(rows), len(rows),
        _pointer(table), len(table), line_steps, _STEP_LIMIT)  # fmt: skip
    assert is_over, "out of memory, or flits that never arrive"
    return [float(step) * network.step_ns for step in table["finish_step"]]


def _channels(transfers: Sequence[FlitTransfer]) -> tuple[list[_Channel], list[int]]:
    """All channels, and each transfer's first."""
    channels: list[_Channel] = []
    firsts = []
    for index, transfer in enumerate(transfers):
        firsts.append(len(channels))
        channels += _in_rows(_tree(index, transfer.paths), len(channels))
    return channels, firsts


def _tree(transfer: int, paths: Sequence[Sequence[Hop]]) -> list[_Channel]:
    """The paths joined, each resource once: fed on the first path that crosses it. They all begin at one resource."""
    channels: list[_Channel] = []
    at: dict[int, int] = {}
    for path in paths:
        before: int | None = None
        for hop in path:
            if hop.resource not in at:
                at[hop.resource] = len(channels)
                channels.append(_Channel(hop.resource, hop.latency_ns, transfer, before, []))
                if before is not None:
                    channels[before].children.append(at[hop.resource])
            before = at[hop.resource]
    assert sum(channel.parent is None for channel in channels) == 1
    return channels


def _in_rows(tree: Sequence[_Channel], first: int) -> list[_Channel]:
    """The channels breadth first, so that the children of each stand in a row; numbers count from `first` on."""
    order = [0]
    for index in order:  # grows as it goes
        order += tree[index].children
    place = {index: first + position for position, index in enumerate(order)}
    return [
        _Channel(row.resource, row.latency_ns, row.transfer, None if row.parent is None else place[row.parent],
                 [place[child] for child in row.children])
        for row in (tree[index] for index in order)
    ]  # fmt: skip


def _channel_rows(network: FlitNetwork, channels: Sequence[_Channel]) -> np.ndarray:
    rows = np.zeros(len(channels), _CHANNEL)
    for index, channel in enumerate(channels):
        row = rows[index]
        row["first_child"], row["child_count"] = (channel.children or [0])[0], len(channel.children)
        row["transfer"], row["is_first"] = channel.transfer, channel.parent is None
        row["delay_steps"], row["credit_steps"] = _delay_steps(network, channel), 1
        if channel.parent is not None:
            feeder = channels[channel.parent]
            per_step = network.bytes_per_ns[feeder.resource] * network.step_ns / network.flit_bytes
            row["credit_steps"] = max(1, round(1 / per_step))  # a slot: a wire back
            loop_steps = _delay_steps(network, feeder) + int(row["credit_steps"])
            row["buffer_flits"] = math.ceil(loop_steps * per_step) + network.spare_flits
    return rows


def _delay_steps(network: FlitNetwork, channel: _Channel) -> int:
    slot_ns = network.flit_bytes / network.bytes_per_ns[channel.resource]
    return max(1, round(max(slot_ns, channel.latency_ns) / network.step_ns))


def _port_tables(network: FlitNetwork, channels: Sequence[_Channel]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Resources with their ports, ports with their channels, and the channels by port."""
    by_port: defaultdict[int, defaultdict[int, list[int]]] = defaultdict(lambda: defaultdict(list))
    for index, channel in enumerate(channels):
        feeder = -1 if channel.parent is None else channels[channel.parent].resource
        by_port[channel.resource][index if network.turns == Turns.TRANSFERS else feeder].append(index)
    resources = np.zeros(len(by_port), _RESOURCE)
    ports: list[tuple[int, int]] = []
    members: list[int] = []
    for row, (resource, rows) in zip(resources, by_port.items()):
        row["flits_per_step"] = network.bytes_per_ns[resource] * network.step_ns / network.flit_bytes
        row["first_port"], row["port_count"] = len(ports), len(rows)
        for port in rows.values():
            ports.append((len(members), len(port)))
            members += port
    return resources, np.array(ports, _PORT), np.array(members, np.uint32)


def _pointer(table: np.ndarray) -> ctypes.c_void_p:
    return ctypes.c_void_p(table.ctypes.data)


@cache
def _library() -> ctypes.CDLL:
    """The simulator, built once per source and compiler into the user's cache."""
    compiler = find_compiler()
    digest = hashlib.sha256(_SOURCE.read_bytes() + repr((compiler, _FLAGS)).encode()).hexdigest()[:24]
    target = cache_directory() / "tests" / f"flit-{digest}.so"
    if not target.exists():
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix="build-", dir=target.parent) as workspace:
            made = Path(workspace) / target.name
            run_compiler([*compiler, *_FLAGS, "-o", str(made), str(_SOURCE)])
            made.replace(target)
    library = ctypes.CDLL(str(target))
    pointer, number = ctypes.c_void_p, ctypes.c_uint32
    library.flit_simulate.argtypes = [pointer, number, pointer, number, pointer, pointer, number, pointer, number,
                                      number, number]  # fmt: skip
    return library
