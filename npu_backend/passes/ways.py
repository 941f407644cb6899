"""Ways: how a box best gets from the cores that hold it to those that need it.

Kept is the time for which every resource of the network and every DMA engine is taken by what was decided before. A way
is as good as the busiest of what it takes is afterwards.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from npu_backend.cost import CostModel
from npu_backend.isa import Engine
from npu_backend.program import DRAM_NODE

# A resource of the network by its number, or a core's DMA engine.
_Place = int | tuple[int, Engine]


@dataclass(frozen=True)
class Way:
    """From `source`, directly or through DRAM, to all readers `together` or to one after the other."""

    source: int
    direct: bool
    together: bool
    taken_ns: Mapping[_Place, float]


class Ways:
    """Decides for the moves of one tensor, one after the other.

    `computed_ns`: how long its layer computes. A load that waits for it keeps others, which could be early, behind it.
    """

    def __init__(self, cost: CostModel, itemsize: int, is_stored: bool, computed_ns: float) -> None:
        self.cost, self.itemsize, self.is_stored, self.computed_ns = cost, itemsize, is_stored, computed_ns
        self.taken_ns: dict[_Place, float] = {}
        loads = [set(cost.path_resources(DRAM_NODE, core)) for core in range(len(cost.machine.cores))]
        self.dram = set.intersection(*loads)

    def expect(self, dram_bytes: int) -> None:
        """DRAM delivers so much more beside the moves."""
        _add(self.taken_ns, self._crossed(dram_bytes, self.dram))

    def choose(self, elements: int, holders: Sequence[int], readers: Sequence[int]) -> Way:
        """The best way, which is then taken."""
        size_bytes = elements * self.itemsize
        ways = [way for source in holders for way in self._direct(size_bytes, source, readers)]
        # A load from DRAM waits for the layer at least, so most boxes need no comparison.
        if not ways or min(map(self._busiest_ns, ways)) > self.computed_ns:
            ways += [Way(source, False, True, self._through_dram(size_bytes, source, readers)) for source in holders]
        best = min(ways, key=self._busiest_ns)
        _add(self.taken_ns, best.taken_ns)
        return best

    def _busiest_ns(self, way: Way) -> float:
        return max(self.taken_ns.get(place, 0.0) + more for place, more in way.taken_ns.items())

    def _direct(self, size_bytes: int, source: int, readers: Sequence[int]) -> Iterable[Way]:
        network = self.cost.machine.network
        if not network.cores_reach_each_other:
            return
        if network.multicast and len(readers) > 1:
            yield Way(source, True, True, self._sent(size_bytes, source, readers))
        apart: dict[_Place, float] = {}
        for reader in readers:
            _add(apart, self._sent(size_bytes, source, [reader]))
        yield Way(source, True, False, apart)

    def _sent(self, size_bytes: int, source: int, readers: Sequence[int]) -> dict[_Place, float]:
        resources = {each for reader in readers for each in self.cost.path_resources(source, reader)}
        taken = self._crossed(size_bytes, resources)
        taken[source, Engine.NETWORK] = self.cost.send_ns(source, readers, size_bytes)
        return taken

    def _through_dram(self, size_bytes: int, source: int, readers: Sequence[int]) -> dict[_Place, float]:
        cost = self.cost
        taken: dict[_Place, float] = {}
        waits_ns = self.computed_ns
        if not self.is_stored:
            _add(taken, self._crossed(size_bytes, cost.path_resources(source, DRAM_NODE)))
            taken[source, Engine.STORE] = cost.transfer_ns(source, size_bytes, size_bytes, store=True)
            waits_ns += taken[source, Engine.STORE]
        waits_ns += cost.machine.synchronization.cross_signal_ns
        for reader in readers:
            _add(taken, self._crossed(size_bytes, cost.path_resources(DRAM_NODE, reader)))
            taken[reader, Engine.LOAD] = waits_ns + cost.transfer_ns(reader, size_bytes, size_bytes)
        return taken

    def _crossed(self, size_bytes: int, resources: Iterable[int]) -> dict[_Place, float]:
        return {each: size_bytes / self.cost.resource_bytes_per_ns[each] for each in resources}


def _add(total_ns: dict[_Place, float], more_ns: Mapping[_Place, float]) -> None:
    for place, time_ns in more_ns.items():
        total_ns[place] = total_ns.get(place, 0.0) + time_ns
