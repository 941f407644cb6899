"""The strategies: which of the passes' choices each one makes."""

from __future__ import annotations

from dataclasses import dataclass
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
    """A named combination of the passes' options."""

    name: str
    meaning: str
    directions: Directions
    forward: bool = True


STRATEGIES = {
    strategy.name: strategy
    for strategy in (
        Strategy("single", "everything on the first core", Directions.SINGLE),
        Strategy("spatial", "every layer divided by rows where it can be", Directions.SPATIAL),
        Strategy("channel", "every layer divided by output channels where it can be", Directions.CHANNEL),
        Strategy("base", "direction per layer by the heuristics h1 to h5 of CGO 2023", Directions.ADAPTIVE),
    )
}


def strategy_named(name: str) -> Strategy:
    """The strategy called `name`.

    Raises OptionError when there is none.
    """
    if name not in STRATEGIES:
        raise OptionError(f"no strategy {name!r}; there are {', '.join(STRATEGIES)}")
    return STRATEGIES[name]
