"""``npuc machines`` and ``npuc ops``: what there is."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from tvm_ext.cli.options import FILE, parse_shapes
from tvm_ext.cli.talk import Talk

if TYPE_CHECKING:
    from npu_backend.machine_types import Core, Machine
    from npu_backend.ops.base import OpSpec


@click.command("machines")
@click.argument("name", required=False)
def machines_command(name: str | None) -> None:
    """List the shipped machines, or describe the machine NAME (or a file that ends in .toml)."""
    from npu_backend.machine import load_machine, machine_names

    if name is not None:
        _describe(load_machine(name))
        return
    from rich.table import Table

    table = Table(box=None, header_style="bold", padding=(0, 1))
    for column in ("machine", "cores", "TMAC/s", "network", "description"):
        table.add_column(column, justify="right" if column in ("cores", "TMAC/s") else "left")
    for machine in map(load_machine, machine_names()):
        table.add_row(machine.name, str(len(machine.cores)), f"{_peak(machine):.2f}", machine.network.topology,
                      machine.description)  # fmt: skip
    Talk().show(table)


def _describe(machine: Machine) -> None:
    from rich.table import Table

    talk, network, dram = Talk(), machine.network, machine.dram
    reach = "cores reach each other's scratchpads" if network.cores_reach_each_other else "cores meet in DRAM only"
    talk.show(f"{machine.name}: {machine.description}",
              f"{len(machine.cores)} cores, {_peak(machine):.2f} TMAC/s at int8; {network.topology}, {reach}"
              f"{', multicast' if network.multicast else ''}",
              f"DRAM {dram.bandwidth_gb_per_s:g} GB/s, {dram.efficiency:.0%} of it reached, {dram.latency_ns:g} ns,"
              f" bursts of {dram.burst_bytes} bytes")  # fmt: skip
    table = Table(box=None, header_style="bold", padding=(0, 1))
    for column in ("core", "MHz", "MACs", "in x out x pixels", "depthwise", "vector B", "SPM KiB", "int16", "fp16"):
        table.add_column(column, justify="left" if column == "core" else "right")
    for core in machine.cores:
        table.add_row(*_core_cells(core))
    talk.show(table)


def _core_cells(core: Core) -> tuple[str, ...]:
    array = core.mac_array
    return (core.name, f"{core.clock_mhz:g}", str(array.macs_per_cycle),
            f"{array.input_channels} x {array.output_channels} x {array.pixels}",
            f"{array.depthwise_channels} x {array.depthwise_pixels}", str(core.vector_lanes),
            f"{core.spm_bytes / 1024:g}", f"{core.rates.int16:g}", f"{core.rates.float16:g}")  # fmt: skip


def _peak(machine: Machine) -> float:
    """int8 multiply-accumulates a second, in 10^12."""
    return sum(core.peak_macs_per_ns for core in machine.cores) / 1000


@click.command("ops")
@click.argument("model", type=FILE, required=False)
@click.option("--shapes", metavar="TEXT", help='Shapes of dynamic inputs: "input:[1,3,224,224]".')
def ops_command(model: Path | None, shapes: str | None) -> None:
    """List the operators of the NPU, or say of every node of the ONNX file MODEL where it runs, and why."""
    if model is None:
        _list_kinds()
    else:
        _list_nodes(model, {} if shapes is None else parse_shapes(shapes))


def _list_kinds() -> None:
    from rich.table import Table

    from npu_backend.ops import registered_ops

    table = Table(box=None, header_style="bold", padding=(0, 1))
    for column in ("operator", "meaning", "may be divided along"):
        table.add_column(column, overflow="fold")
    for kind, spec in registered_ops().items():
        table.add_row(kind, spec.meaning, _axes(spec))
    Talk().show(table)


def _axes(spec: OpSpec) -> str:
    # The method's docstring is what it says to a user, as with the rules of the front end.
    return (spec.split_axes.__doc__ or "").strip().rstrip(".")


def _list_nodes(model: Path, shapes: Any) -> None:
    from tvm_ext.driver import import_model

    parts = import_model(model, shapes).partitioned
    reasons = {op.name: op.reason for op in parts.host_ops}
    rows = [(op.name, op.op, "npu", op.partition) for op in parts.npu_ops]
    rows += [(op.name, op.op, "host", reasons[op.name]) for op in parts.host_ops]
    for name, op, place, remark in rows:
        click.echo(f"{place:<5} {op:<22} {name}  # {remark}")
    click.echo(f"{len(parts.npu_ops)} on the NPU, {len(parts.host_ops)} on the host")
