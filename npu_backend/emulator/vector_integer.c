/* BINARY and CONVERT of plain integers and booleans, exact in int64: INTEGER_FUNCTIONS of
 * npu_backend/ops/numerics_binary.py. They serve shapes and indices, of which there are few: one portable body. What does
 * not fit wraps. */
#include "vector.h"

typedef struct {
    uint32_t left_type;
    uint32_t right_type;
    uint32_t output_type;
    uint32_t function;
} binary;

int npu_is_integer(uint32_t type) {
    return type == NPU_TYPE_INT32 || type == NPU_TYPE_INT64 || type == NPU_TYPE_BOOL;
}

static int64_t read(const uint8_t *at, size_t index, uint32_t type) {
    int32_t narrow;
    int64_t wide;
    switch (type) {
    case NPU_TYPE_BOOL: return at[index] != 0;
    case NPU_TYPE_INT32: memcpy(&narrow, at + 4 * index, sizeof narrow); return narrow;
    default: memcpy(&wide, at + 8 * index, sizeof wide); return wide;
    }
}

static void write(uint8_t *at, size_t index, uint32_t type, int64_t value) {
    const int32_t narrow = (int32_t)(uint32_t)(uint64_t)value;
    switch (type) {
    case NPU_TYPE_BOOL: at[index] = value != 0; break;
    case NPU_TYPE_INT32: memcpy(at + 4 * index, &narrow, sizeof narrow); break;
    default: memcpy(at + 8 * index, &value, sizeof value); break;
    }
}

static int64_t subtract(int64_t a, int64_t b) {
    return (int64_t)((uint64_t)a - (uint64_t)b);
}

static int64_t multiply(int64_t a, int64_t b) {
    return (int64_t)((uint64_t)a * (uint64_t)b);
}

/* Towards zero; by zero: 0. */
static int64_t divide(int64_t a, int64_t b) {
    return b == 0 ? 0 : b == -1 ? subtract(0, a) : a / b;
}

/* With the dividend's sign; by zero: 0. */
static int64_t remainder_of(int64_t a, int64_t b) {
    return b == 0 || b == -1 ? 0 : a % b;
}

static int64_t modulo(int64_t a, int64_t b) {
    int64_t rest = remainder_of(a, b);
    return rest != 0 && (rest < 0) != (b < 0) ? rest + b : rest;
}

/* Negative exponents leave a fraction of everything but 1 and -1. */
static int64_t power(int64_t base, int64_t exponent) {
    int64_t result = 1;
    if (exponent < 0) {
        return base == 1 ? 1 : base == -1 ? (exponent & 1 ? -1 : 1) : 0;
    }
    for (; exponent > 0; exponent >>= 1) {
        result = exponent & 1 ? multiply(result, base) : result;
        base = multiply(base, base);
    }
    return result;
}

static int64_t compute(uint32_t function, int64_t a, int64_t b) {
    switch (function) {
    case NPU_BINARY_ADD: return (int64_t)((uint64_t)a + (uint64_t)b);
    case NPU_BINARY_SUBTRACT: return subtract(a, b);
    case NPU_BINARY_MULTIPLY: return multiply(a, b);
    case NPU_BINARY_DIVIDE: return divide(a, b);
    case NPU_BINARY_MAXIMUM: return a > b ? a : b;
    case NPU_BINARY_MINIMUM: return a < b ? a : b;
    case NPU_BINARY_PRELU: return a > 0 ? a : multiply(a, b);
    case NPU_BINARY_POWER: return power(a, b);
    case NPU_BINARY_MODULO: return modulo(a, b);
    case NPU_BINARY_FMOD: return remainder_of(a, b);
    case NPU_BINARY_EQUAL: return a == b;
    case NPU_BINARY_GREATER: return a > b;
    case NPU_BINARY_GREATER_OR_EQUAL: return a >= b;
    case NPU_BINARY_LESS: return a < b;
    case NPU_BINARY_LESS_OR_EQUAL: return a <= b;
    case NPU_BINARY_AND: return a != 0 && b != 0;
    case NPU_BINARY_OR: return a != 0 || b != 0;
    default: return (a != 0) != (b != 0); /* XOR */
    }
}

static void integer_row(const void *context, uint8_t *const at[], size_t n) {
    const binary *k = context;
    for (size_t i = 0; i < n; ++i) {
        int64_t a = read(at[0], i, k->left_type), b = read(at[1], i, k->right_type);
        write(at[2], i, k->output_type, compute(k->function, a, b));
    }
}

static void convert_row(const void *context, uint8_t *const at[], size_t n) {
    const npu_convert *op = context;
    for (size_t i = 0; i < n; ++i) {
        write(at[1], i, op->output_type, read(at[0], i, op->input_type));
    }
}

void npu_convert_integers(const npu_convert *op, npu_view *view) {
    npu_view_for_rows(view, convert_row, op);
}

void npu_binary_of_integers(const npu_binary *op, npu_view *view) {
    binary k = {op->left_type, op->right_type, op->output_type, op->function};
    npu_view_for_rows(view, integer_row, &k);
}
