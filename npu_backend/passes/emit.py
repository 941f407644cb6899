"""Emit: addresses, semaphores and origins filled in, one stream of bytes per engine."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import numpy as np

from npu_backend.encoding import encode, encode_tokens
from npu_backend.graph import Graph, GraphPort, Op
from npu_backend.isa import Engine
from npu_backend.kernels import Kernel
from npu_backend.machine_types import Machine
from npu_backend.network import machine_records
from npu_backend.ops import spec_of
from npu_backend.ops.base import Address, LoweredInstruction
from npu_backend.passes.lower import resolve
from npu_backend.passes.synchronize import Synchronized
from npu_backend.program import Port, Program
from npu_backend.rates import multiplied_type
from npu_backend.stages import DramLayout, Fused, Partitioned, Placed, Step
from npu_backend.strategies import Strategy

WIDE_CODES = ("uint16", "int16")


def emit(
    synchronized: Synchronized, machine: Machine, strategy: Strategy, plan: Strategy, cores_reason: str = ""
) -> Program:
    """The program of a whole graph for `machine`, of which the plan may use the first cores only, and why.

    `plan` is the rung of the strategy's ladder whose plan it is.
    """
    placed = synchronized.placed
    partitioned = placed.scheduled.tiled.resident.partitioned
    fused, dram = partitioned.fused, placed.scheduled.dram
    records = machine_records(machine)
    origins = _origins(placed)
    kernels = _kernels(placed)
    return Program(
        machine={
            **records.machine,
            "dram_bytes": dram.size_bytes,
            "semaphore_count": synchronized.semaphore_count,
            "multicast_group_count": _multicast_group_count(placed),
        },
        cores=records.cores,
        resources=records.resources,
        paths=records.paths,
        path_steps=records.path_steps,
        ports=tuple(_ports(fused.graph, dram)),
        streams=_streams(synchronized, origins, kernels),
        constants=_constant_image(fused, dram),
        origins=tuple(name for _, name in origins),
        metadata={
            **_metadata(placed, strategy, plan, origins),
            "cores_used": len(partitioned.machine.cores),
            "cores_reason": cores_reason,
        },
        kernels=tuple(dict.fromkeys(kernels.values())),
    )


def _multicast_group_count(placed: Placed) -> int:
    counts = (step.group + _transfers(step) for step in placed.scheduled.steps if step.group is not None)
    return max(counts, default=0)


def _transfers(step: Step) -> int:
    """Multicasts of a step in groups: every load is one, a send to every core that the step writes to is one."""
    return len(step.instructions) // len(step.writes)


def _grouped(step: Step) -> list[LoweredInstruction]:
    """The step's instructions as parts of multicasts."""
    assert step.group is not None
    return [
        LoweredInstruction(f"{each.name}_MULTICAST", {**each.values, "group": step.group + number // len(step.writes)})
        for number, each in enumerate(step.instructions)
    ]


Origin = tuple[int, str]


def _origins(placed: Placed) -> dict[Origin, int]:
    """Every pair of layer and ONNX node that a step comes from, numbered."""
    return {pair: number for number, pair in enumerate(dict.fromkeys(
        (step.layer, step.origin) for step in placed.scheduled.steps))}  # fmt: skip


def _kernels(placed: Placed) -> dict[Kernel, str]:
    """The kernels that steps call, and the symbol of each."""
    values = (instruction.values.get("kernel") for step in placed.scheduled.steps for instruction in step.instructions)
    return {kernel: kernel.symbol for kernel in values if isinstance(kernel, Kernel)}


def _streams(
    synchronized: Synchronized, origins: Mapping[Origin, int], kernels: Mapping[Kernel, str]
) -> dict[tuple[int, Engine], bytes]:
    placed = synchronized.placed
    streams: dict[tuple[int, Engine], list[bytes]] = {}
    addresses = placed.addresses
    numbers = {symbol: number for number, symbol in enumerate(dict.fromkeys(kernels.values()))}

    def kernel_of(kernel: Kernel) -> int:
        return numbers[kernels[kernel]]

    def address_of(address: Address) -> int:
        if isinstance(address.buffer, str):
            return placed.scheduled.dram.tensors[address.buffer] + address.offset
        return addresses[address.buffer] + address.offset

    for step, waits, signals in zip(placed.scheduled.steps, synchronized.waits, synchronized.signals):
        origin = origins[step.layer, step.origin]
        stream = streams.setdefault((step.core, step.engine), [])
        instructions = step.instructions if step.group is None else _grouped(step)
        stream.append(encode_tokens("WAIT", waits, origin))
        stream += [
            encode(resolve(instruction, address_of, origin, lambda kernel: numbers[kernels[kernel]]))
            for instruction in instructions
        ]
        stream.append(encode_tokens("SIGNAL", signals, origin))
    return {key: b"".join(parts) for key, parts in streams.items()}


def _constant_image(fused: Fused, dram: DramLayout) -> bytes:
    image = np.zeros(dram.constant_bytes, np.uint8)
    for (output, index), offset in dram.constants.items():
        rows = fused.constants[output][index].rows
        image[offset : offset + rows.size] = rows.reshape(-1)
    for name in fused.graph.constant_tensors:
        raw = np.frombuffer(fused.graph.constants[name].tobytes(), np.uint8)
        image[dram.tensors[name] : dram.tensors[name] + raw.size] = raw
    return image.tobytes()


def _ports(graph: Graph, dram: DramLayout) -> list[Port]:
    return [_port(graph, port, dram, is_output=False) for port in graph.inputs] + [
        _port(graph, port, dram, is_output=True) for port in graph.outputs
    ]


def _port(graph: Graph, port: GraphPort, dram: DramLayout, *, is_output: bool) -> Port:
    tensor = graph.tensor(port.tensor)
    host_shape, place = port.host_shape(tensor), dram.tensors[port.tensor]
    return Port(port.host_name, is_output, tensor.dtype, host_shape, port.storage_axes, place)


def _metadata(placed: Placed, strategy: Strategy, plan: Strategy, origins: Mapping[Origin, int]) -> dict[str, Any]:
    """What a report needs: the layers, how each was divided and why, and which origins are whose."""
    tiled = placed.scheduled.tiled
    partitioned = tiled.resident.partitioned
    return {
        "graph": partitioned.fused.graph.name,
        "machine": partitioned.machine.name,
        "network": asdict(partitioned.machine.network),
        "strategy": strategy.name,
        "plan": plan.name,
        "spm_peak_bytes": list(placed.peak_bytes),
        "constant_bytes": sum(constant.nbytes for constant in partitioned.fused.graph.constants.values()),
        "dram_peak_gb_per_s": partitioned.machine.dram.bandwidth_gb_per_s,
        "layers": [_layer(partitioned, placed, index) for index in range(len(partitioned.splits))],
        "origin_layers": [layer for layer, _ in origins],
    }


def _layer(partitioned: Partitioned, placed: Placed, index: int) -> dict[str, Any]:
    fused, split, join = partitioned.fused, partitioned.splits[index], partitioned.joins[index]
    layer, tilings = fused.layers[index], placed.scheduled.tiled.tilings[index]
    return {
        "name": layer.name,
        "op": "+".join(op.kind for op in layer.ops),
        "nodes": [name for op in layer.ops for name in op.origin],
        "split": split.direction,
        "reason": split.reason,
        "stratum": join.stratum,
        "stratum_reason": join.reason,
        "recompute_us": _us(join.recompute_ns),
        "synchronization_us": _us(join.synchronization_ns),
        "cores": sum(box is not None for box in split.boxes),
        "tiles": [len(tiling.parts) if tiling else 0 for tiling in tilings],
        "data_type": multiplied_type(fused.graph, layer.anchor),
        "in_float": any(_rounds(fused.graph, op) for op in layer.ops),
        "wide_codes": any(fused.graph.tensor(op.output).dtype in WIDE_CODES for op in layer.ops),
        "macs": sum(spec_of(op).macs(fused.graph, op) for op in layer.ops),
        "resident": layer.output in placed.scheduled.tiled.resident.residencies,
    }


def _us(nanoseconds: float | None) -> float | None:
    return None if nanoseconds is None else nanoseconds / 1000


def _rounds(graph: Graph, op: Op) -> bool:
    """Whether the operator computes float values; those that are only the meaning of codes are exact."""
    return graph.tensor(op.output).dtype.startswith("float") and op.kind != "dequantize"
