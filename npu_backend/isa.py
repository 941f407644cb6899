"""The only instruction table: encoder, decoder, disassembler (`encoding.py`) and the emulator's C header come from it.

An instruction is a multiple of eight bytes, little-endian: ``u16 opcode, u16 size in 8-byte words, u32 origin`` (index
into the program's table of ONNX nodes), then the fields below in order. Addresses named ``dram`` are byte offsets into
the program's DRAM image, all others are byte offsets into the scratchpad (SPM) of the instruction's own core.

Every feature map is ``[h, w, c]`` with contiguous channels; ``*_row_bytes`` and ``*_column_bytes`` are strides.
``counts`` and strides of four axes are outermost first; unused axes have count 1.

The matrix engine's inputs are codes or float16. Sums of 8-bit codes are int32 and wrap around, those of 16-bit codes
int64 (a uint16 counts as 32768 less), those of float16 float32, in the order of the weights. The output is
``encode(float32(sum + bias) * multiplier)``: codes of scale 1, float16 or float32; as int32 it is ``sum + bias`` alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum

ISA_VERSION = 5

# Output channels are packed in blocks of this many, and convolution weights in groups of this many input channels.
CHANNEL_BLOCK = 16
WEIGHT_CHUNK = 64
WEIGHT_GROUP = 4


class Engine(IntEnum):
    """The decoupled engines of a core; each runs its own stream in order."""

    LOAD = 0
    STORE = 1
    NETWORK = 2
    MATRIX = 3
    VECTOR = 4


class DataType(IntEnum):
    """Element types. Engines compute with those up to BOOL; the rest they move, and kernels read and make."""

    UINT8 = 0
    INT8 = 1
    INT16 = 2
    INT32 = 3
    FLOAT16 = 4
    FLOAT32 = 5
    UINT16 = 6
    INT64 = 7
    BOOL = 8  # a byte, 0 or 1
    FLOAT64 = 9
    UINT32 = 10
    UINT64 = 11


DATA_TYPES = {member.name.lower(): member for member in DataType}
# Those that engines compute with.
COMPUTED_TYPES = tuple(name for name, member in DATA_TYPES.items() if member <= DataType.BOOL)


@dataclass(frozen=True)
class Field:
    """One field: C type (`u32`, `i32`, `f32`, `u64`), number of elements, meaning."""

    name: str
    type: str
    meaning: str
    count: int = 1


@dataclass(frozen=True)
class Format:
    """One opcode: number, engine (None: any), fields in encoding order, meaning."""

    name: str
    code: int
    engine: Engine | None
    fields: tuple[Field, ...]
    meaning: str


def parse_fields(text: str) -> tuple[Field, ...]:
    """Fields from lines ``type name[count] meaning``."""
    rows = []
    for line in filter(None, map(str.strip, text.splitlines())):
        type_name, name, meaning = (line.split(None, 2) + [""])[:3]
        stem, _, count = name.rstrip("]").partition("[")
        rows.append(Field(stem, type_name, meaning, int(count or 1)))
    return tuple(rows)


_SEMAPHORE = """
u32 semaphore
u32 reserved
"""

_TRANSFER = """
u64 dram           byte offset in the DRAM image
u32 spm            byte offset in the scratchpad
u32 run_bytes      contiguous bytes moved at each step
u32 counts[4]      steps on the four outer axes
u32 dram_strides[4] bytes
u32 spm_strides[4]  bytes
"""

_SEND = """
u32 destination_core
u32 spm                 source, in the own scratchpad
u32 destination_spm
u32 run_bytes
u32 counts[4]
u32 spm_strides[4]
u32 destination_strides[4]
"""

_GROUP = """
u32 group               below the machine's multicast_group_count; of one transfer only
u32 reserved
"""

_WINDOW = """
u32 input
u32 input_row_bytes
u32 input_column_bytes
u32 input_height       rows present in the scratchpad; outside them lies padding
u32 input_width
u32 input_channels
u32 output
u32 output_row_bytes
u32 output_column_bytes
u32 output_height
u32 output_width
u32 output_channels
u32 kernel_height
u32 kernel_width
u32 stride_height
u32 stride_width
u32 dilation_height
u32 dilation_width
i32 pad_top            output row 0 starts this many rows above input row 0 (negative: below)
i32 pad_left
u32 input_type         DataType
u32 output_type        DataType
i32 input_zero_point   the value of padding
i32 output_zero_point
"""

_MATRIX = (
    _WINDOW
    + """
i32 clamp_low          bounds of the output code, after the zero point; 0 where the output is no code
i32 clamp_high
u32 weights
u32 parameters         per block: bias[16] of the sums' type, then float32 multiplier[16]
u32 block_bytes        distance from one block of 16 output channels to the next, for weights and parameters
"""
)

_ELEMENTS = """
u32 input
u32 output
u32 counts[4]
u32 input_strides[4]   bytes
u32 output_strides[4]  bytes
"""

_ROWS = """
u32 output
u32 indices
u32 index_type         DataType of the indices: int32 or int64; negative ones count from the end
u32 index_count
u32 index_bytes        distance from one index to the next
u32 extent             positions along the gathered axis
u32 input_step_bytes   distance from one position to the next
u32 output_step_bytes
u32 run_bytes          contiguous bytes moved at each step
u32 counts[3]          steps on the other axes, at every position
u32 input_strides[3]   bytes
u32 output_strides[3]  bytes
"""

_CONVERSION = """
u32 input_type          DataType; any up to BOOL
u32 output_type         DataType; any up to BOOL
i32 input_zero_point    of codes; all other types: scale 1 and zero point 0
i32 output_zero_point
f32 input_scale
f32 output_scale
"""

_OPERANDS = """
u32 left_type           DataType; any up to BOOL (of functions on codes: 8-bit)
u32 right_type
u32 output_type
i32 left_zero_point     of codes; all other types: scale 1 and zero point 0
i32 right_zero_point
i32 output_zero_point
f32 left_scale
f32 right_scale
f32 output_scale
"""

_LINES = (
    _ELEMENTS
    + "u32 line_axes  bit i: axis i runs along a line, the first the slowest; the other axes count lines"
    + _CONVERSION
)

FORMATS: tuple[Format, ...] = (
    Format("WAIT", 1, None, parse_fields(_SEMAPHORE), "block until the semaphore is positive, take one"),
    Format("SIGNAL", 2, None, parse_fields(_SEMAPHORE), "add one to the semaphore when all before is done"),
    Format("LOAD", 3, Engine.LOAD, parse_fields(_TRANSFER), "DRAM to scratchpad"),
    Format("STORE", 4, Engine.STORE, parse_fields(_TRANSFER), "scratchpad to DRAM"),
    Format("SEND", 5, Engine.NETWORK, parse_fields(_SEND), "own scratchpad to another core's, over the network"),
    Format("CONV", 6, Engine.MATRIX, parse_fields(_MATRIX + """
        u32 accumulators        sums [output_height][output_width][output_channels rounded up to 16]
        u32 load_accumulators   1: add to what is there, 0: start from zero
        u32 keep_accumulators   1: write only accumulators, 0: finish the sums and write the output
        """), "convolution; weights per block: [channel chunk of 64][kernel_height][kernel_width], then of codes "
              "[group of 4][16][4] int8, of halves [channel][16] float16; only what the channels fill"),
    Format("DEPTHWISE", 7, Engine.MATRIX, parse_fields(_MATRIX + "u32 reserved"),
           "depthwise convolution, channel multiplier 1; weights per block: [kernel_height][kernel_width][16] int8, or "
           "float16 of halves"),
    Format("POOL", 8, Engine.VECTOR, parse_fields(_WINDOW + """
        u32 function            PoolFunction
        f32 input_scale
        f32 output_scale
        u32 counted_height      AVERAGE_WINDOW divides by the taps above this row, padding included
        u32 counted_width
        u32 reserved
        """), "window reduction of any elements: in float32, or of 8-bit codes as ONNX Runtime's integer kernels"),
    Format("MEAN", 9, Engine.VECTOR, parse_fields("""
        u32 input
        u32 input_row_bytes
        u32 input_column_bytes
        u32 input_height
        u32 input_width
        u32 channels
        u32 output
        u32 input_type
        u32 output_type
        i32 input_zero_point
        i32 output_zero_point
        f32 input_scale
        f32 output_scale
        u32 reserved
        """), "mean over all pixels, per channel: the integer sum of 8-bit codes requantised"),
    Format("TABLE", 10, Engine.VECTOR, parse_fields(_ELEMENTS + "u32 table  256 bytes\n u32 reserved"),
           "8-bit code to 8-bit code by a table indexed by the raw byte"),
    Format("COPY", 11, Engine.VECTOR, parse_fields("""
        u32 input
        u32 output
        u32 counts[4]
        i32 input_strides[4]    bytes; zero repeats, negative walks backwards
        u32 output_strides[4]   bytes
        u32 element_bytes
        u32 reserved
        """), "elements from one strided view to another"),
    Format("FILL", 12, Engine.VECTOR, parse_fields("""
        u32 output
        u32 element_bytes
        u32 counts[4]
        u32 output_strides[4]
        u64 value               the element's bytes, little-endian
        """), "one value into a strided view"),
    Format("BINARY", 13, Engine.VECTOR, parse_fields("""
        u32 left
        u32 right
        u32 output
        u32 function            BinaryFunction
        u32 counts[4]
        u32 left_strides[4]     bytes; zero broadcasts
        u32 right_strides[4]
        u32 output_strides[4]
        """ + _OPERANDS + "u32 reserved"),
           "element-wise function of two tensors"),
    Format("CONVERT", 14, Engine.VECTOR, parse_fields(_ELEMENTS + _CONVERSION),
           "elements of one data type to another, through float32 but for plain integers: quantise, dequantise, cast"),
    Format("RESIZE", 16, Engine.VECTOR, parse_fields("""
        u32 input
        u32 input_row_bytes
        u32 input_column_bytes
        u32 output
        u32 output_row_bytes
        u32 output_column_bytes
        u32 input_height        rows present in the scratchpad
        u32 input_width
        u32 output_height
        u32 output_width
        u32 channels
        u32 row_table           per output row: a u32 source row of the whole input for each tap, then their f32 weights
        u32 column_table        the same for columns
        u32 row_taps
        u32 column_taps
        u32 input_row_origin    row of the whole input that `input` points at
        u32 input_column_origin
        u32 function            ResizeFunction
        """ + _CONVERSION + """
        f32 extrapolation       the value where all weights of the row or of the column are 0
        u32 reserved
        """), "interpolation by tables"),
    Format("SOFTMAX", 17, Engine.VECTOR, parse_fields(_LINES + """
        u32 function            SoftmaxFunction; with a table output_scale is floor(1 / the scale of the output)
        u32 table               256 float32: exponentials, indexed by code - (the line's largest code) + 255
        u32 reserved
        """), "softmax of every line"),
    Format("SELECT", 18, Engine.VECTOR, parse_fields("""
        u32 condition           bool, one byte an element
        u32 left                where the condition holds
        u32 right
        u32 output
        u32 counts[4]
        u32 condition_strides[4] bytes; zero broadcasts
        u32 left_strides[4]
        u32 right_strides[4]
        u32 output_strides[4]
        """ + _OPERANDS + "u32 reserved"),
           "each element from one of two tensors; they move bit for bit where all types and codes are the same"),
    Format("UNARY", 19, Engine.VECTOR, parse_fields(_ELEMENTS + _CONVERSION + """
        u32 function            UnaryFunction
        f32 alpha               the function's own numbers in ONNX's order; 0 where it has fewer
        f32 beta
        u32 reserved
        """), "element-wise function of one tensor in float32"),
    Format("MATMUL", 20, Engine.MATRIX, parse_fields("""
        u32 left                [rows][inner]
        u32 left_row_bytes
        u32 left_column_bytes   from one element of the inner axis to the next
        u32 right               [inner][columns]
        u32 right_row_bytes     from one element of the inner axis to the next
        u32 right_column_bytes
        u32 output              [rows][columns]
        u32 output_row_bytes
        u32 output_column_bytes
        u32 rows
        u32 inner
        u32 columns
        u32 left_type           DataType: codes, float16 or float32
        u32 right_type
        u32 output_type         the same, or int32: the sums as they are
        i32 left_zero_point
        i32 right_zero_point
        i32 output_zero_point
        f32 left_scale
        f32 right_scale
        f32 output_scale
        u32 accumulators        [rows][columns] int32, int64 where a code of 16 bits, float32 where a float takes part
        u32 load_accumulators   1: add to what is there, 0: start from zero
        u32 keep_accumulators   1: write only accumulators, 0: scale and write the output
        """), "product of two matrices; codes in exact integer sums, all else in float32, element by element of inner"),
    Format("REDUCE", 21, Engine.VECTOR, parse_fields(_LINES + "u32 function  ReduceFunction"),
           "one element from every line, in float32; output strides of the line's axes are ignored"),
    Format("NORMALIZE", 22, Engine.VECTOR, parse_fields(_LINES + """
        f32 epsilon             added to the variance
        u32 subtract_mean       0: no mean is subtracted, the variance is the mean square
        u32 reserved
        """), "every line to mean 0 and variance 1, in float32"),
    Format("ARGREDUCE", 23, Engine.VECTOR, parse_fields(_LINES + """
        u32 function            ReduceFunction: maximum or minimum
        u32 select_last         which of equal elements: 0 the first, 1 the last
        u32 reserved
        """), "index, int32 or int64, of every line's extreme; output strides of the line's axes are ignored"),
    Format("LRN", 24, Engine.VECTOR, parse_fields(_LINES + """
        u32 size                elements summed around each, (size - 1) / 2 of them before it
        f32 alpha
        f32 beta
        f32 bias
        u32 reserved
        """), "local response normalisation along every line: x / (bias + alpha / size * sum of squares) ** beta"),
    Format("GATHER", 25, Engine.VECTOR, parse_fields("u32 input\n u32 reserved" + _ROWS),
           "the positions that indices name, along one axis; an index out of range traps"),
    Format("KERNEL", 26, Engine.VECTOR, parse_fields("""
        u32 kernel              index in the section KERNEL
        u32 operand_count       the inputs, then the output
        u32 operand0
        u32 operand1
        u32 operand2
        u32 operand3
        u32 operand4
        u32 operand5
        u32 operand6
        u32 operand7
        u32 run_bytes[8]        contiguous bytes of each operand that are touched; 0 where none is
        u32 counts[32]          four an operand
        u32 strides[32]         bytes
        u64 simple_bytes        of operations, each with the bytes of its data type
        u64 special_bytes       of divisions, roots, exponentials and the like
        u64 access_bytes        loaded and stored
        """), "a native function, which the program's owner binds, on operands in the scratchpad"),
    Format("LOAD_ROWS", 30, Engine.LOAD, parse_fields("u64 dram  byte offset in the DRAM image" + _ROWS),
           "GATHER of what lies in DRAM: only the rows that are named are moved"),
    Format("LOAD_MULTICAST", 31, Engine.LOAD, parse_fields(_TRANSFER + _GROUP),
           "LOAD of what all cores of the group load: one transfer, when the last of them has come to it"),
    Format("SEND_MULTICAST", 32, Engine.NETWORK, parse_fields(_SEND + _GROUP),
           "SEND of what all of the group, next to each other in one stream, send: one transfer"),
)  # fmt: skip

FORMAT_BY_NAME: Mapping[str, Format] = {entry.name: entry for entry in FORMATS}


@dataclass(frozen=True, slots=True)
class Instruction:
    """An instruction whose fields are all numbers (array fields: tuples of numbers)."""

    name: str
    values: Mapping[str, int | float | tuple[int, ...]]
    origin: int = 0
