"""How far the clock's transfers are from a network that moves flit by flit: the tables of `docs/network_error.md`.

python -m tests.emulator.flit_error [--sets 500] [--first 0] [--update docs/network_error.md]
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import click
import numpy as np
import numpy.typing as npt

from npu_backend.isa import Engine
from tests.emulator.flit_reference import Turns
from tests.emulator.flow_cases import NETWORKS, Comparison, Physics, Task, compare, compare_sets, records_of
from tests.emulator.test_flow_reference import CONTENDED_STRETCH

_MEASURED = re.compile(r"(?<=<!-- measured -->\n).*(?=<!-- end of measured -->)", re.DOTALL)
_CROWD_BYTES = 16384
_VARIANTS: dict[str, tuple[Physics, dict[str, Any]]] = {
    "flits, and with them buffers, a quarter as large": (Physics(flit_bytes=4), {}),
    "buffers of 4 flits more than credits need": (Physics(spare_flits=4), {}),
    "buffers of 16 flits more": (Physics(spare_flits=16), {}),
    "latency spent in the links, not before the first byte": (Physics(wires_hold_latency=True), {}),
    "a store's data first, DRAM's latency after it": (Physics(stores_are_posted=True), {}),
    "set-up of 50 ns for 100": (Physics(), {"setup_cycles": 50}),
    "short transfers (sizes log-uniform)": (Physics(), {"short": True}),
}
Numbers = npt.NDArray[np.float64]


@click.command()
@click.option("--sets", default=500, show_default=True, help="random sets on each topology")
@click.option("--first", default=0, show_default=True, help="seed of the first set")
@click.option("--update", type=click.Path(exists=True, dir_okay=False, path_type=Path),
              help="rewrite the tables of this page instead of printing them")  # fmt: skip
def main(sets: int, first: int, update: Path | None) -> None:
    """Measure the error of the emulator's network and print it as Markdown."""
    text = "\n\n".join("\n".join(table) for table in _tables(range(first, first + sets))) + "\n"
    if update is None:
        click.echo(text, nl=False)
    else:
        update.write_text(_MEASURED.sub(lambda _: f"\n{text}\n", update.read_text()))


def _tables(seeds: Sequence[int]) -> Iterator[list[str]]:
    fair = {topology: compare_sets(topology, seeds) for topology in NETWORKS}
    yield _error_table(fair)
    yield _variant_table(seeds)
    yield _turns_table(fair, {name: compare_sets(name, seeds, Physics(turns=Turns.PORTS)) for name in NETWORKS})
    yield _crowd_table()


def _error_table(rows: dict[str, list[Comparison]]) -> list[str]:
    head = ["topology", "transfers", "contended", "mean", "median", "90%", "99%", "worst", "99%, ns", "worst, ns"]
    body = []
    for topology, row in rows.items():
        errors = _errors(row)
        contended = np.mean([one.stretch >= CONTENDED_STRETCH for one in row])
        spread = [errors.mean(), *np.percentile(errors, [50, 90, 99]), errors.max()]
        away_ns = np.abs([one.emulator_ns - one.reference_ns for one in row])
        in_ns = (f"{value:.0f}" for value in (np.percentile(away_ns, 99), away_ns.max()))
        body.append([topology, str(len(row)), f"{contended:.0%}", *map(_percent, spread), *in_ns])
    return _table(head, body)


def _variant_table(seeds: Sequence[int]) -> list[str]:
    """Mean / 99th percentile / worst."""
    body = []
    for name, (physics, sets) in _VARIANTS.items():
        errors = [_errors(compare_sets(topology, seeds, physics, **sets)) for topology in NETWORKS]
        body.append([name, *(" / ".join(map(_percent, (e.mean(), np.percentile(e, 99), e.max()))) for e in errors)])
    return _table(["mean / 99% / worst, when instead", *NETWORKS], body)


def _turns_table(fair: dict[str, list[Comparison]], ports: dict[str, list[Comparison]]) -> list[str]:
    """Times under turns of ports over those under turns of transfers."""
    body = []
    for topology in NETWORKS:
        pairs = zip(ports[topology], fair[topology])
        ratios = np.array([one.reference_ns / other.reference_ns for one, other in pairs])
        spread = [ratios.min(), *np.percentile(ratios, [1, 10, 50, 90, 99]), ratios.max()]
        body.append([topology, _percent(np.abs(ratios - 1).mean()), *(f"{ratio:.2f}" for ratio in spread)])
    return _table(["topology", "mean change", "least", "1%", "10%", "median", "90%", "99%", "most"], body)


def _crowd_table() -> list[str]:
    """All other cores send as much to core 0 at once; nanoseconds."""
    body = []
    for topology in ("ring", "mesh"):
        tasks = [Task(Engine.NETWORK, (core,), (0,), _CROWD_BYTES, 0) for core in range(1, NETWORKS[topology][0])]
        fair, by_ports = (compare(records_of(topology), tasks, Physics(turns=turns)) for turns in Turns)
        times = {
            "emulator": [row.emulator_ns for row in fair],
            "turns of transfers": [row.reference_ns for row in fair],
            "turns of ports": [row.reference_ns for row in by_ports],
        }
        body += [[topology, name, *(f"{value:.0f}" for value in _spread(row))] for name, row in times.items()]
    return _table(["all cores to core 0", "", "first, ns", "mean, ns", "last, ns"], body)


def _spread(times: Sequence[float]) -> tuple[float, float, float]:
    return min(times), float(np.mean(times)), max(times)


def _errors(rows: Sequence[Comparison]) -> Numbers:
    return np.abs(np.array([row.signed_error for row in rows]))


def _percent(value: float) -> str:
    return f"{100 * value:.1f}%"


def _table(head: Sequence[str], body: Sequence[Sequence[str]]) -> list[str]:
    rule = ["---", *("---:" for _ in head[1:])]
    return ["| " + " | ".join(row) + " |" for row in (head, rule, *body)]


if __name__ == "__main__":
    main()
