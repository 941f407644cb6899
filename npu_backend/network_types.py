"""Networks as a machine's TOML file describes them: one dataclass per topology, its fields the file's keys.

`topology` says what links a network has and how transfers cross them. Units are in the names; a link carries
`bytes_per_cycle` each way at the network's clock.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

from annotated_types import Ge, Gt, Le, MinLen
from pydantic import ConfigDict

PositiveFloat = Annotated[float, Gt(0)]
FloatFromZero = Annotated[float, Ge(0)]
PositiveInt = Annotated[int, Gt(0), Le(2**31)]
IntFromZero = Annotated[int, Ge(0), Le(2**31)]
Name = Annotated[str, MinLen(1)]

# Read by the file's validator: unknown keys, strings for numbers and infinities are errors.
STRICT = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)


@dataclass(frozen=True, kw_only=True)
class _NetworkBase:
    """What every topology says."""

    __pydantic_config__: ClassVar[ConfigDict] = STRICT

    cores_reach_each_other: bool
    multicast: bool  # whether one transfer may feed several cores
    clock_mhz: PositiveFloat
    hop_latency_ns: FloatFromZero  # of a link and the router behind it


@dataclass(frozen=True, kw_only=True)
class Bus(_NetworkBase):
    """One medium that all transfers share."""

    topology: Literal["bus"]
    bytes_per_cycle: PositiveFloat


@dataclass(frozen=True, kw_only=True)
class Crossbar(_NetworkBase):
    """A link into and a link out of every core, no other contention inside; one hop whichever way."""

    topology: Literal["crossbar"]
    link_bytes_per_cycle: PositiveFloat


@dataclass(frozen=True, kw_only=True)
class LinkOverride:
    """A link of a ring, mesh or torus that differs: from one node to a neighbour, and back unless `one_way`."""

    __pydantic_config__: ClassVar[ConfigDict] = STRICT

    source: IntFromZero
    destination: IntFromZero
    bytes_per_cycle: PositiveFloat | None = None  # the network's unless given
    latency_ns: FloatFromZero | None = None
    one_way: bool = False


@dataclass(frozen=True, kw_only=True)
class _GridBase(_NetworkBase, ABC):
    """Numbered nodes in a regular pattern: core i at `core_nodes[i]`, DRAM at `memory_nodes` by a port each."""

    link_bytes_per_cycle: PositiveFloat
    memory_nodes: tuple[IntFromZero, ...]
    memory_port_gb_per_s: PositiveFloat  # loads and stores together
    core_nodes: tuple[IntFromZero, ...] = ()  # core i at node i unless given
    overrides: tuple[LinkOverride, ...] = ()

    @property
    @abstractmethod
    def shape(self) -> tuple[int, int]:
        """Rows and columns of nodes; a ring is one row."""

    @property
    def node_count(self) -> int:
        """Nodes are numbered from 0 along the rows."""
        rows, columns = self.shape
        return rows * columns


@dataclass(frozen=True, kw_only=True)
class Ring(_GridBase):
    """Nodes 0..nodes-1 in a circle, a link each way, or upwards only when `one_way`."""

    topology: Literal["ring"]
    nodes: Annotated[int, Ge(3), Le(1024)]
    one_way: bool = False

    @property
    def shape(self) -> tuple[int, int]:
        return 1, self.nodes


@dataclass(frozen=True, kw_only=True)
class Mesh(_GridBase):
    """rows x columns nodes, numbered along rows; links between neighbours in a row or a column."""

    topology: Literal["mesh"]
    rows: Annotated[int, Gt(0), Le(64)]
    columns: Annotated[int, Gt(0), Le(64)]

    @property
    def shape(self) -> tuple[int, int]:
        return self.rows, self.columns


@dataclass(frozen=True, kw_only=True)
class Torus(_GridBase):
    """A mesh whose rows and columns are closed to rings."""

    topology: Literal["torus"]
    rows: Annotated[int, Ge(3), Le(64)]
    columns: Annotated[int, Ge(3), Le(64)]

    @property
    def shape(self) -> tuple[int, int]:
        return self.rows, self.columns


@dataclass(frozen=True)
class Link:
    """A link between two nodes, both ways unless `one_way`. Nodes: cores, "dram", or switches named by links only."""

    __pydantic_config__: ClassVar[ConfigDict] = STRICT

    source: Name
    destination: Name
    bytes_per_cycle: PositiveFloat
    one_way: bool = False
    latency_ns: FloatFromZero | None = None  # the network's hop_latency_ns unless given


@dataclass(frozen=True, kw_only=True)
class LinkList(_NetworkBase):
    """An explicit list of links; `virtual_channels` a link bound the layers that keep routes free of deadlock."""

    topology: Literal["links"]
    links: tuple[Link, ...]
    virtual_channels: Annotated[int, Ge(1), Le(64)] = 1


Grid = Ring | Mesh | Torus
Network = Bus | Crossbar | Ring | Mesh | Torus | LinkList
