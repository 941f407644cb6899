"""What an instruction computes: the values of the fields named `function` in the instruction table (`isa.py`)."""

from __future__ import annotations

from enum import IntEnum


class BinaryFunction(IntEnum):
    """Element-wise functions of two tensors.

    The first two work on 8-bit codes as ONNX Runtime's integer kernels do; the rest on values: in int64 where both
    operands are plain integers or booleans, else in float32. Comparisons and logic make 1 or 0. MODULO has the
    divisor's sign, FMOD the dividend's.
    """

    ADD_CODES = 0
    MULTIPLY_CODES = 1
    ADD = 2
    SUBTRACT = 3
    MULTIPLY = 4
    DIVIDE = 5
    MAXIMUM = 6
    MINIMUM = 7
    PRELU = 8
    POWER = 9
    MODULO = 10
    FMOD = 11
    EQUAL = 12
    GREATER = 13
    GREATER_OR_EQUAL = 14
    LESS = 15
    LESS_OR_EQUAL = 16
    AND = 17
    OR = 18
    XOR = 19


class UnaryFunction(IntEnum):
    """Element-wise functions of one tensor in float32; their definitions stand in ops/numerics_unary.py."""

    IDENTITY = 0
    ABS = 1
    NEGATIVE = 2
    SIGN = 3
    CEIL = 4
    FLOOR = 5
    ROUND = 6
    RELU = 7
    CLIP = 8
    LEAKY_RELU = 9
    THRESHOLDED_RELU = 10
    HARD_SIGMOID = 11
    HARD_SWISH = 12
    RECIPROCAL = 13
    SQRT = 14
    SOFTSIGN = 15
    SIGMOID = 16
    TANH = 17
    EXP = 18
    LOG = 19
    ERF = 20
    SIN = 21
    COS = 22
    TAN = 23
    ASIN = 24
    ACOS = 25
    ATAN = 26
    SINH = 27
    COSH = 28
    ASINH = 29
    ACOSH = 30
    ATANH = 31
    POWER = 32
    ELU = 33
    CELU = 34
    SELU = 35
    SOFTPLUS = 36
    MISH = 37
    SILU = 38
    GELU = 39
    GELU_TANH = 40
    NOT = 41
    IS_NAN = 42
    IS_INF = 43


class PoolFunction(IntEnum):
    """Window reductions. The averages divide by the valid elements, or by those and padding; L1 and L2 are norms."""

    MAXIMUM = 0
    AVERAGE_VALID = 1
    AVERAGE_WINDOW = 2
    L1 = 3
    L2 = 4


class ReduceFunction(IntEnum):
    """What becomes of the elements of a line; an index instruction has the first two."""

    MAXIMUM = 0
    MINIMUM = 1
    MEAN = 2
    SUM = 3
    PRODUCT = 4
    L1 = 5
    L2 = 6
    SUM_SQUARE = 7
    LOG_SUM = 8
    LOG_SUM_EXP = 9


class SoftmaxFunction(IntEnum):
    """Softmax of 8-bit codes by a table as ONNX Runtime's integer kernel; of any elements in float32; its logarithm."""

    TABLE = 0
    FLOAT = 1
    LOGARITHM = 2


class ResizeFunction(IntEnum):
    """Interpolations of a resize: elements as they are, two by two taps, or any number of them.

    BILINEAR multiplies the weights first, SEPARABLE sums along the rows first.
    """

    NEAREST = 0
    BILINEAR = 1
    SEPARABLE = 2
