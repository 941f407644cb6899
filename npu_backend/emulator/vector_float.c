/* BINARY in float32: FLOAT_FUNCTIONS of npu_backend/ops/numerics_binary.py. */
#include "element.h"
#include "elementary.h"

typedef struct {
    npu_element left;
    npu_element right;
    npu_element output;
    uint32_t function;
} binary;

#define EACH(expression)                        \
    for (size_t i = 0; i < NPU_LANES; ++i) {    \
        const float a = left[i], b = right[i];  \
        left[i] = (expression);                 \
    }                                           \
    break
#define TRUTH(condition) EACH((condition) ? 1.0f : 0.0f)

/* fmod is exact, so every C library's is the same. */
NPU_INLINE float modulo(float a, float b) {
    float rest = fmodf(a, b);
    return ((rest != 0.0f) & ((rest < 0.0f) != (b < 0.0f))) ? rest + b : rest;
}

NPU_INLINE void logic_lanes(uint32_t function, float *restrict left, const float *restrict right) {
    switch (function) {
    case NPU_BINARY_EQUAL: TRUTH(a == b);
    case NPU_BINARY_GREATER: TRUTH(a > b);
    case NPU_BINARY_GREATER_OR_EQUAL: TRUTH(a >= b);
    case NPU_BINARY_LESS: TRUTH(a < b);
    case NPU_BINARY_LESS_OR_EQUAL: TRUTH(a <= b);
    case NPU_BINARY_AND: TRUTH((a != 0.0f) & (b != 0.0f));
    case NPU_BINARY_OR: TRUTH((a != 0.0f) | (b != 0.0f));
    default: TRUTH((a != 0.0f) != (b != 0.0f)); /* XOR */
    }
}

/* The result takes the left operand's place. */
NPU_INLINE void arithmetic_lanes(uint32_t function, float *restrict left, const float *restrict right) {
    switch (function) {
    case NPU_BINARY_ADD: EACH(a + b);
    case NPU_BINARY_SUBTRACT: EACH(a - b);
    case NPU_BINARY_MULTIPLY: EACH(a * b);
    case NPU_BINARY_DIVIDE: EACH(a / b);
    case NPU_BINARY_MAXIMUM: EACH(a > b ? a : b);
    case NPU_BINARY_MINIMUM: EACH(a < b ? a : b);
    case NPU_BINARY_PRELU: EACH(a > 0.0f ? a : a * b);
    case NPU_BINARY_POWER: EACH((float)npu_wide_power((double)a, (double)b));
    case NPU_BINARY_MODULO: EACH(modulo(a, b));
    case NPU_BINARY_FMOD: EACH(fmodf(a, b));
    default: logic_lanes(function, left, right); break;
    }
}

NPU_INLINE void binary_body(const void *context, uint8_t *const at[], size_t n) {
    const binary k = *(const binary *)context;
    for (size_t first = 0; first < n; first += NPU_LANES) {
        float left[NPU_LANES], right[NPU_LANES];
        npu_read_block(&k.left, at[0], first, n, left);
        npu_read_block(&k.right, at[1], first, n, right);
        arithmetic_lanes(k.function, left, right);
        npu_write_block(&k.output, left, first, n, at[2]);
    }
}

NPU_LEVELS(binary, (const void *context, uint8_t *const at[], size_t n), (context, at, n))

void npu_binary_in_float(const npu_binary *op, npu_view *view, uint32_t level) {
    const binary k = {NPU_ELEMENT(op, left, level), NPU_ELEMENT(op, right, level), NPU_ELEMENT(op, output, level),
                      op->function};
    npu_view_for_rows(view, binary_levels[level - 1], &k);
}
