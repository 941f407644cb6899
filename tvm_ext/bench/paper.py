"""The paper's figures that ours stand beside.

Jung et al., "Accelerating Deep Neural Networks on Mobile Multicore NPUs", CGO 2023, doi 10.1145/3579990.3580015.
"""

from __future__ import annotations

from dataclasses import dataclass
from statistics import mean

# How the six networks are quantised there, where it is not int8 (its table of workloads).
ACTIVATION_TYPES = {"deeplab_v3_plus": "uint16"}

ONE_CORE = "single"


@dataclass(frozen=True)
class Ratio:
    """How many times as fast `strategy` is as `over` on all cores, or on one core where `over` is ONE_CORE."""

    strategy: str
    over: str
    paper: float
    derived: bool = False

    @property
    def name(self) -> str:
        """Of the table's line, and of the JSON with underscores."""
        return f"{self.strategy} over {'one core' if self.over == ONE_CORE else self.over}"


# Averages over the six networks, section of the results and figure 11. Derived: the paper prints the two ratios over
# its base and the one of +Stratum over one core; 2.1 / 1.23 = 1.71, and 1.71 x 1.07 = 1.83.
RATIOS = (
    Ratio("halo", "base", 1.07),
    Ratio("stratum", "base", 1.23),
    Ratio("stratum", ONE_CORE, 2.1),
    Ratio("halo", ONE_CORE, 1.83, derived=True),
    Ratio("base", ONE_CORE, 1.71, derived=True),
)


@dataclass(frozen=True)
class StemRow:
    """A configuration on the first five convolutions of InceptionV3; synchronisation: mean and deviation over cores."""

    latency_us: float
    redundant_share: float
    sync_us: float
    sync_deviation_us: float


# The table of the InceptionV3 stem. Computation there is 1.34, 1.39 and 1.35 G; the shares are those that the text
# gives to its 1.3408 GMAC.
STEM = {
    "halo": StemRow(387, 0.0, 21.2, 9.1),
    "stratum-only": StemRow(386, 0.037, 17.5, 9.2),
    "stratum": StemRow(378.8, 0.0075, 14.2, 7.5),
}


@dataclass(frozen=True)
class TrafficRow:
    """A partitioning scheme on InceptionV3: what each of three cores moves over DRAM, and how long it idles."""

    kilobytes: tuple[float, float, float]
    idle_us: tuple[float, float, float]

    @property
    def megabytes(self) -> float:
        """Of all cores."""
        return sum(self.kilobytes) / 1000

    @property
    def mean_idle_us(self) -> float:
        """Over the cores."""
        return mean(self.idle_us)


# The table of global memory traffic and idle time of InceptionV3, its digits repaired so that the printed means hold:
# "spatial only", "channel only" and "adaptive".
TRAFFIC = {
    "spatial": TrafficRow((31397, 22230, 17708), (145, 1090, 1077)),
    "channel": TrafficRow((32151, 16427, 22573), (163, 607, 147)),
    "base": TrafficRow((32177, 15462, 22224), (206, 427, 199)),
}
