"""``npuc machines`` and ``npuc ops``: what there is."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import asdict
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from tvm_ext.cli.options import DEFAULT_MACHINE, FILE, parse_shapes
from tvm_ext.cli.quantizing import warn_of_float_model
from tvm_ext.cli.talk import Talk

if TYPE_CHECKING:
    from rich.table import Table

    from npu_backend.machine_types import Core, Machine
    from tvm_ext.parts import Partitioned


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

    talk, dram = Talk(), machine.dram
    talk.show(f"{machine.name}: {machine.description}",
              f"{len(machine.cores)} cores, {_peak(machine):.2f} TMAC/s at int8", *_network_lines(machine),
              f"DRAM {dram.bandwidth_gb_per_s:g} GB/s, {dram.efficiency:.0%} of it reached, {dram.latency_ns:g} ns,"
              f" bursts of {dram.burst_bytes} bytes")  # fmt: skip
    table = Table(box=None, header_style="bold", padding=(0, 1))
    for column in ("core", "MHz", "MACs", "in x out x pixels", "depthwise", "vector B", "SPM KiB", "int16", "fp16"):
        table.add_column(column, justify="left" if column == "core" else "right")
    for _, cores in groupby(machine.cores, lambda core: _core_cells(core)[1:]):
        first, *others = cores
        name, *cells = _core_cells(first)
        table.add_row(f"{name}..{others[-1].name}" if others else name, *cells)
    talk.show(table)


def _network_lines(machine: Machine) -> Iterator[str]:
    from npu_backend.network import machine_topology
    from npu_backend.network_figures import bisection_gb_per_s, diameter, shape

    network, topology = machine.network, machine_topology(machine)
    reach = "cores reach each other's scratchpads" if network.cores_reach_each_other else "cores meet in DRAM only"
    yield f"{shape(machine)}, {reach}{', multicast' if network.multicast else ''}"
    rates, ports = sorted({link.bytes_per_ns for link in topology.links.values()}), sorted(set(topology.ports.values()))
    longest = diameter(machine)
    parts = [f"{len(topology.links)} directed link{'s' * (len(topology.links) != 1)} of {_several(rates)} GB/s",
             f"{network.hop_latency_ns:g} ns a hop", f"longest route {longest} hop{'s' * (longest != 1)}"]  # fmt: skip
    if network.cores_reach_each_other:
        parts.append(f"bisection {bisection_gb_per_s(machine):g} GB/s each way")
    if ports:
        parts.append(f"{len(topology.ports)} memory ports of {_several(ports)} GB/s")
    yield ", ".join(parts)


def _several(values: list[float]) -> str:
    return " to ".join(f"{value:g}" for value in dict.fromkeys((values[0], values[-1])))


def _core_cells(core: Core) -> tuple[str, ...]:
    array = core.mac_array
    return (core.name, f"{core.clock_mhz:g}", str(array.macs_per_cycle),
            f"{array.input_channels} x {array.output_channels} x {array.pixels}",
            f"{array.depthwise_channels} x {array.depthwise_pixels}", str(core.vector_lanes),
            f"{core.spm_bytes / 1024:g}", f"{core.rates.int16:g}", f"{core.rates.float16:g}")  # fmt: skip


def _peak(machine: Machine) -> float:
    """int8 multiply-accumulates a second, in 10^12."""
    return sum(core.peak_macs_per_ns() for core in machine.cores) / 1000


@click.command("ops")
@click.argument("model", type=FILE, required=False)
@click.option("--machine", metavar="NAME|FILE.toml", help=f"The machine; {DEFAULT_MACHINE} by default.")
@click.option("--shapes", metavar="TEXT", help='Shapes of dynamic inputs: "input:[1,3,224,224]".')
@click.option(
    "--kernels/--no-kernels", default=True, help="Let the vector processors run what the engines do not know."
)
@click.option("--json", "json_file", type=FILE, metavar="FILE", help="Write where every node of MODEL runs, and why.")
@click.option("--markdown", type=FILE, metavar="FILE.md", help="Write the operators of the NPU as a page.")
@click.option("-v", "--verbose", is_flag=True, help="Say it of every node.")
def ops_command(
    model: Path | None,
    machine: str | None,
    shapes: str | None,
    kernels: bool,
    json_file: Path | None,
    markdown: Path | None,
    verbose: bool,
) -> None:
    """List the operators of the NPU, or say of the nodes of the ONNX file MODEL where they run, and why."""
    if model is None:
        if (machine, shapes, json_file) != (None, None, None):
            raise click.UsageError("--machine, --shapes and --json go with a MODEL; name its ONNX file")
        _list_operators(markdown)
        return
    if markdown is not None:
        raise click.UsageError("--markdown lists the operators of the NPU; leave out the MODEL")
    Talk(verbose).set_up_log()
    extents = {} if shapes is None else parse_shapes(shapes)
    _list_nodes(model, machine or DEFAULT_MACHINE, extents, kernels, json_file, verbose)


def _list_operators(markdown: Path | None) -> None:
    from npu_backend.files import check_writable, write_atomically
    from tvm_ext import coverage

    if markdown is not None:
        check_writable(markdown)
        write_atomically(markdown, coverage.operators_markdown().encode())
        return
    talk = Talk()
    forms = _text_table("ONNX operators", "what becomes of them", "limits")
    for row in coverage.taken():
        forms.add_row(", ".join(row.operators), row.meaning, ". ".join(row.limits))
    kinds = _text_table("on the NPU", "meaning", "reads", "may be divided along")
    for kind in coverage.kinds():
        kinds.add_row(kind.kind, kind.meaning, ", ".join(kind.forms), kind.split_axes)
    talk.show(forms, "", coverage.FORMS, "Of every operator:")
    talk.show(*(f"  {text}" for text in coverage.common_limits()))
    talk.show(f"QOperator forms and fused operators, rewritten: {', '.join(coverage.rewritten())}", "", kinds)


def _text_table(*columns: str) -> Table:
    from rich.table import Table

    table = Table(box=None, header_style="bold", padding=(0, 1))
    for column in columns:
        table.add_column(column, overflow="fold")
    return table


def _list_nodes(
    model: Path, machine_name: str, shapes: Any, kernels: bool, json_file: Path | None, verbose: bool
) -> None:
    from npu_backend.files import check_writable, write_atomically
    from npu_backend.machine import load_machine
    from npu_backend.report.document import to_json
    from tvm_ext.driver import front_end_options, import_model
    from tvm_ext.package import vector_ops

    if json_file is not None:
        check_writable(json_file)
    machine = load_machine(machine_name)
    parts = import_model(model, shapes, **front_end_options(machine, kernels=kernels)).partitioned
    if json_file is not None:
        document = {
            "model": model.stem,
            "npu_ops": [asdict(op) for op in parts.npu_ops],
            "host_ops": [asdict(op) for op in parts.host_ops],
        }
        write_atomically(json_file, to_json(document))
    for line in _node_lines(parts) if verbose else _summary_lines(parts):
        click.echo(line)
    click.echo(_total_line(parts))
    warn_of_float_model(model, machine.name, len(parts.npu_ops), vector_ops(parts.npu_ops), parts.host_ops)


def _total_line(parts: Partitioned) -> str:
    from npu_backend.ops import spec_of
    from tvm_ext.package import vector_ops

    npu, total = len(parts.npu_ops), len(parts.npu_ops) + len(parts.host_ops)
    vector = vector_ops(parts.npu_ops)
    macs = sum(spec_of(op).macs(graph, op) for graph in parts.graphs.values() for op in graph.ops)
    return (f"{npu} of {total} operators on the NPU in {len(parts.graphs)} program{'s' * (len(parts.graphs) != 1)},"
            f" {macs:,} MACs there, {vector} by kernels of the vector processors;"
            f" {total - npu} on the host")  # fmt: skip


def _node_lines(parts: Partitioned) -> Iterator[str]:
    rows = [(op.engine, op.op, op.name, op.partition) for op in parts.npu_ops]
    rows += [("host", op.op, op.name, op.reason) for op in parts.host_ops]
    for place, op, name, remark in rows:
        yield f"{place:<6} {op:<22} {name}  # {remark}"


def _summary_lines(parts: Partitioned) -> Iterator[str]:
    from tvm_ext.coverage import host_groups
    from tvm_ext.package import ENGINE, NOT_QUANTIZED, VECTOR

    for engine in (ENGINE, VECTOR):
        counted = Counter(op.op for op in parts.npu_ops if op.engine == engine).most_common()
        if counted:
            yield f"{engine:<6} {_counted(counted)}"
    for group in host_groups(parts.host_ops):
        detail = group.example.reason.removeprefix(f"{NOT_QUANTIZED}: ")
        example = f", for example {group.example.name}: {detail}" if group.reason == NOT_QUANTIZED else ""
        yield f"host   {_counted(group.counts)}  # {group.reason}{example}"


def _counted(counts: Iterable[tuple[str, int]]) -> str:
    return ", ".join(f"{count} {name}" for name, count in counts)
