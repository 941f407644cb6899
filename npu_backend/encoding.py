"""Instructions to bytes and back, and to text: everything by the table of `isa.py`."""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator, Mapping

from npu_backend.errors import ProgramError
from npu_backend.isa import FORMAT_BY_NAME, FORMATS, Format, Instruction

_FORMAT_BY_CODE: Mapping[int, Format] = {entry.code: entry for entry in FORMATS}
_STRUCT_CODES = {"u32": "I", "i32": "i", "f32": "f", "u64": "Q"}


def _layout(entry: Format) -> struct.Struct:
    body = "".join(f"{field.count}{_STRUCT_CODES[field.type]}" for field in entry.fields)
    layout = struct.Struct("<HHI" + body)
    assert layout.size % 8 == 0, f"{entry.name}: {layout.size} bytes is no multiple of 8"
    return layout


_LAYOUTS: Mapping[str, struct.Struct] = {entry.name: _layout(entry) for entry in FORMATS}
# Opcode, layout, and name and count of every field: plain tuples, since programs have hundreds of thousands.
_ENCODERS = {
    entry.name: (entry.code, _LAYOUTS[entry.name], tuple((field.name, field.count) for field in entry.fields))
    for entry in FORMATS
}


def encode(instruction: Instruction) -> bytes:
    """Bytes of one instruction; a missing or unknown field is our own bug and asserts."""
    code, layout, fields = _ENCODERS[instruction.name]
    given, values = instruction.values, list[int | float]()
    for name, count in fields:
        value = given.get(name, 0) if name == "reserved" else given[name]
        if count == 1:
            values.append(value)  # type: ignore[arg-type]
        else:
            assert len(value) == count, (instruction.name, name, value)  # type: ignore[arg-type]
            values.extend(value)  # type: ignore[arg-type]
    return layout.pack(code, layout.size // 8, instruction.origin, *values)


def encode_tokens(name: str, semaphores: Iterable[int], origin: int) -> bytes:
    """Bytes of a WAIT or SIGNAL for each semaphore: half of all instructions where there are many cores."""
    layout, code = _LAYOUTS[name], FORMAT_BY_NAME[name].code
    words = layout.size // 8
    return b"".join([layout.pack(code, words, origin, semaphore, 0) for semaphore in semaphores])


def decode(stream: bytes) -> Iterator[Instruction]:
    """Instructions of a stream, in order.

    Raises ProgramError for an unknown opcode or a size that differs from the table's.
    """
    offset = 0
    while offset < len(stream):
        if offset + 8 > len(stream):
            raise ProgramError(f"instruction at byte {offset} is cut off: the stream has {len(stream)} bytes")
        code, words, origin = struct.unpack_from("<HHI", stream, offset)
        entry = _FORMAT_BY_CODE.get(code)
        if entry is None or _LAYOUTS[entry.name].size != words * 8 or offset + words * 8 > len(stream):
            raise ProgramError(f"instruction at byte {offset}: opcode {code} of {words * 8} bytes is not in the table")
        yield Instruction(entry.name, _unpack(entry, stream, offset), origin)
        offset += words * 8


def _unpack(entry: Format, stream: bytes, offset: int) -> dict[str, int | float | tuple[int, ...]]:
    flat = list(_LAYOUTS[entry.name].unpack_from(stream, offset))[3:]
    values: dict[str, int | float | tuple[int, ...]] = {}
    for field in entry.fields:
        taken, flat = flat[: field.count], flat[field.count :]
        values[field.name] = taken[0] if field.count == 1 else tuple(taken)
    return values


def format_instruction(instruction: Instruction) -> str:
    """One line of disassembly: the opcode and every field that is not reserved."""
    parts = [f"{name}={_show(value)}" for name, value in instruction.values.items() if name != "reserved"]
    return f"{instruction.name:<10} " + " ".join(parts)


def _show(value: int | float | tuple[int, ...]) -> str:
    if isinstance(value, tuple):
        return "x".join(map(str, value))
    return f"{value:.9g}" if isinstance(value, float) else str(value)


def encode_all(instructions: Iterable[Instruction]) -> bytes:
    """Bytes of a whole stream."""
    return b"".join(map(encode, instructions))
