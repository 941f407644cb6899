"""Lower: one tile of a layer to instructions, its operators one after the other."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from npu_backend.box import Box
from npu_backend.graph import Op
from npu_backend.isa import Instruction
from npu_backend.kernels import Kernel
from npu_backend.ops import spec_of
from npu_backend.ops.base import (
    Address,
    ConstantOperand,
    LoweredInstruction,
    Operand,
    PackedConstant,
    Tile,
    dense_strides,
)
from npu_backend.stages import Fused, Layer, TilePart

OperandOf = Callable[[str, Box], Operand]
ConstantOf = Callable[[Op, int], ConstantOperand]


@dataclass(frozen=True)
class LoweredOp:
    """One operator's instructions for one tile, with the boxes it reads and the box it writes.

    `dram_reads` are those that the instructions fetch from DRAM by themselves.
    """

    op: Op
    instructions: tuple[LoweredInstruction, ...]
    reads: tuple[tuple[str, Box], ...]
    dram_reads: tuple[tuple[str, Box], ...]
    out_box: Box


def ops_of_part(layer: Layer, part: TilePart) -> tuple[Op, ...]:
    """The operators that run in this part: followers wait until the reduction is complete."""
    return layer.ops if part.reduction is None or part.reduction.is_last else layer.ops[:1]


def op_reads(fused: Fused, layer: Layer, op: Op, part: TilePart) -> tuple[tuple[str, Box], ...]:
    """The activations of one operator and the boxes it reads of them in this part."""
    boxes = spec_of(op).input_boxes(fused.graph, op, part.out_box)
    if part.reduction is not None and op is layer.anchor:
        boxes = spec_of(op).reduction_boxes(fused.graph, op, boxes, part.reduction)
    return tuple(zip(fused.graph.activations(op), boxes))


def part_needs(fused: Fused, layer: Layer, part: TilePart) -> dict[str, Box]:
    """The box of every outside tensor that must be in the scratchpad, where it is not empty."""
    needs: dict[str, Box] = {}
    for op in ops_of_part(layer, part):
        in_dram = spec_of(op).read_in_dram(fused.graph, op)
        for name, box in op_reads(fused, layer, op, part):
            if name not in layer.inner and name not in in_dram and not box.is_empty:
                needs[name] = needs[name].hull(box) if name in needs else box
    return needs


def lower_part(
    fused: Fused,
    layer: Layer,
    part: TilePart,
    operand_of: OperandOf,
    constant_of: ConstantOf,
    accumulators: Address | None,
) -> tuple[LoweredOp, ...]:
    """Instructions of every operator of the part; `operand_of` is asked for non-empty boxes only."""
    lowered = []
    for op in ops_of_part(layer, part):
        reads, in_dram = op_reads(fused, layer, op, part), spec_of(op).read_in_dram(fused.graph, op)
        tile = Tile(
            output=operand_of(op.output, part.out_box),
            inputs=tuple(
                _input(fused, name, box, _in_dram(fused) if name in in_dram else operand_of) for name, box in reads
            ),
            constants=tuple(constant_of(op, index) for index in range(len(fused.constants[op.output]))),
            reduction=part.reduction if op is layer.anchor else None,
            accumulators=accumulators,
        )
        filled = [(name, box) for name, box in reads if not box.is_empty]
        lowered.append(LoweredOp(
            op, spec_of(op).lower(fused.graph, op, tile), tuple(read for read in filled if read[0] not in in_dram),
            tuple(read for read in filled if read[0] in in_dram), part.out_box,
        ))  # fmt: skip
    return tuple(lowered)


def _in_dram(fused: Fused) -> OperandOf:
    def operand_of(name: str, box: Box) -> Operand:
        tensor = fused.graph.tensor(name)
        whole = Operand(Address(name, 0), dense_strides(tensor.shape, tensor.itemsize), tensor.box, tensor.dtype)
        return whole.narrow(box)

    return operand_of


def _input(fused: Fused, name: str, box: Box, operand_of: OperandOf) -> Operand:
    if box.is_empty:
        return Operand(Address(0, 0), (0,) * box.rank, box, fused.graph.tensor(name).dtype)
    return operand_of(name, box)


def constant_slice(constant: PackedConstant, part: TilePart) -> tuple[tuple[int, int], tuple[int, int]]:
    """Row and column intervals of a packed constant that a part needs."""
    return constant.row_interval(part.out_box), constant.column_interval(part.reduction)


def dense_operand(fused: Fused, buffer: int, name: str, buffer_box: Box, box: Box) -> Operand:
    """The part `box` of a tensor that lies dense in a buffer which holds `buffer_box` of it."""
    tensor = fused.graph.tensor(name)
    strides = dense_strides(buffer_box.shape, tensor.itemsize)
    return Operand(Address(buffer, 0), strides, buffer_box, tensor.dtype).narrow(box)


def probe(fused: Fused, layer: Layer, part: TilePart) -> list[Instruction]:
    """The instructions of a part with every address 0, for the cost model."""
    return [resolve(instruction, lambda _: 0, 0) for instruction in _apart(fused, layer, part)]


def footprint(fused: Fused, layer: Layer, part: TilePart) -> object:
    """What a part computes, to be compared: parts of a layer that differ only in their place have equal ones."""
    shapes = tuple((name, box.shape) for name, box in part_needs(fused, layer, part).items())
    instructions = (
        resolve(instruction, lambda address: 0 if isinstance(address.buffer, str) else address.offset, 0)
        for instruction in _apart(fused, layer, part)
    )
    return part.out_box.shape, shapes, tuple((each.name, *each.values.items()) for each in instructions)


def _apart(fused: Fused, layer: Layer, part: TilePart) -> list[LoweredInstruction]:
    """The instructions of a part, every operand in a buffer of its own that holds nothing else."""
    needs = part_needs(fused, layer, part)

    def operand_of(name: str, box: Box) -> Operand:
        return dense_operand(fused, 0, name, needs.get(name, part.out_box), box)

    def constant_of(op: Op, index: int) -> ConstantOperand:
        (first, _), (low, high) = constant_slice(fused.constants[op.output][index], part)
        return ConstantOperand(Address(0, 0), high - low, first)

    lowered = lower_part(fused, layer, part, operand_of, constant_of, Address(0, 0) if part.reduction else None)
    return [instruction for each in lowered for instruction in each.instructions]


def resolve(
    instruction: LoweredInstruction,
    address_of: Callable[[Address], int],
    origin: int,
    kernel_of: Callable[[Kernel], int] = lambda _: 0,
) -> Instruction:
    """The instruction with every address and every kernel replaced by a number."""

    def number(value: object) -> object:
        if isinstance(value, Address):
            return address_of(value)
        return kernel_of(value) if isinstance(value, Kernel) else value

    values: Mapping[str, object] = {name: number(value) for name, value in instruction.values.items()}
    return Instruction(instruction.name, values, origin)  # type: ignore[arg-type]
