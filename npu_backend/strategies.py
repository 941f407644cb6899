"""The strategies: which of the passes' choices each one makes."""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import Enum

from npu_backend.errors import OptionError


class Directions(Enum):
    """How the partition pass picks the axis on which a layer is divided."""

    SINGLE = "single"
    SPATIAL = "spatial"
    CHANNEL = "channel"
    ADAPTIVE = "adaptive"


@dataclass(frozen=True)
class Strategy:
    """A named combination of the passes' options.

    `forward`: feature maps stay in the scratchpads for the layers that read them, cores exchange what others need of
    them, those parts first, and wait only for data. Without it every map goes through DRAM, and all cores wait for each
    other after every layer. `scheduled`: transfers between cores start in the order that the routing pass finds best,
    else in that of the program. `strata`: chains of layers run without any exchange, overlaps computed by each core.
    `fewer_cores`: cores are left idle where the network is faster without them. `rung_below`: the strategy whose plan
    is taken where it is faster on the emulator's clock.
    """

    name: str
    meaning: str
    directions: Directions
    forward: bool = False
    strata: bool = False
    scheduled: bool = True
    fewer_cores: bool = False
    rung_below: str | None = None

    @property
    def alone(self) -> Strategy:
        """The same on all cores, though a lower rung or fewer cores may be faster."""
        return replace(self, fewer_cores=False, rung_below=None)


STRATEGIES = {
    strategy.name: strategy
    for strategy in (
        Strategy("single", "everything on the first core", Directions.SINGLE, forward=True),
        Strategy("spatial", "every layer divided by rows where it can be", Directions.SPATIAL),
        Strategy("channel", "every layer divided by output channels where it can be", Directions.CHANNEL),
        Strategy("base", "direction per layer by the heuristics h1 to h5 of CGO 2023", Directions.ADAPTIVE),
        Strategy("halo", "base, maps stay in the scratchpads and cores exchange halos", Directions.ADAPTIVE,
                 forward=True, fewer_cores=True, rung_below="base"),
        Strategy("stratum", "halo, and chains of layers without exchange", Directions.ADAPTIVE, forward=True,
                 strata=True, fewer_cores=True, rung_below="halo"),
    )
}  # fmt: skip


# The paper's ablation "+Stratum only": strata, but between them every map through DRAM.
STRATUM_ONLY = replace(STRATEGIES["base"], name="stratum-only", strata=True)


def strategy_named(name: str) -> Strategy:
    """The strategy called `name`.

    Raises OptionError when there is none.
    """
    if name not in STRATEGIES:
        raise OptionError(f"no strategy {name!r}; there are {', '.join(STRATEGIES)}")
    return STRATEGIES[name]
