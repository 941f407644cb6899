/* BINARY in float32 between dequantise and quantise: in_float of npu_backend/ops/numerics_eltwise.py. */
#include "vector.h"

typedef struct {
    int is_float;
    npu_code code;
    int32_t zero_point;
    float scale;
} operand;

typedef struct {
    operand left;
    operand right;
    uint32_t function;
    float output_scale;
    int32_t output_zero_point;
    float low; /* bounds before the zero point is added */
    float high;
} constants;

NPU_INLINE void read_lanes(const operand *from, const uint8_t *at, size_t first, size_t lanes, float *restrict to) {
    if (from->is_float) {
        memcpy(to, at + 4 * first, 4 * lanes);
        return;
    }
    for (size_t i = 0; i < lanes; ++i) {
        to[i] = (float)npu_subtract(npu_decode(at[first + i], from->code), from->zero_point) * from->scale;
    }
}

#define NPU_EACH(expression)                                  \
    for (size_t i = 0; i < lanes; ++i) {                      \
        const float a = left[i], b = right[i];                \
        result[i] = (expression);                             \
    }                                                         \
    break

NPU_INLINE void compute_lanes(uint32_t function, const float *restrict left, const float *restrict right, size_t lanes,
                              float *restrict result) {
    switch (function) {
    case NPU_BINARY_FLOAT_ADD: NPU_EACH(a + b);
    case NPU_BINARY_FLOAT_SUBTRACT: NPU_EACH(a - b);
    case NPU_BINARY_FLOAT_MULTIPLY: NPU_EACH(a * b);
    case NPU_BINARY_FLOAT_DIVIDE: NPU_EACH(a / b);
    case NPU_BINARY_FLOAT_MAXIMUM: NPU_EACH(a > b ? a : b);
    case NPU_BINARY_FLOAT_MINIMUM: NPU_EACH(a < b ? a : b);
    default: NPU_EACH(a > 0 ? a : a * b); /* PRELU */
    }
}

NPU_INLINE void float_lanes(const constants *k, uint8_t *const at[], size_t first, size_t lanes) {
    float left[NPU_LANES], right[NPU_LANES], result[NPU_LANES];
    read_lanes(&k->left, at[0], first, lanes, left);
    read_lanes(&k->right, at[1], first, lanes, right);
    compute_lanes(k->function, left, right, lanes, result);
    uint8_t *output = at[2] + first;
    for (size_t i = 0; i < lanes; ++i) {
        int32_t rounded = npu_round(npu_clamp(result[i] / k->output_scale, k->low, k->high));
        output[i] = (uint8_t)npu_add(rounded, k->output_zero_point);
    }
}

NPU_INLINE void float_body(const void *context, uint8_t *const at[], size_t n) {
    const constants k = *(const constants *)context;
    size_t first = 0;
    for (; n - first >= NPU_LANES; first += NPU_LANES) {
        float_lanes(&k, at, first, NPU_LANES);
    }
    float_lanes(&k, at, first, n - first);
}

NPU_LEVELS(float, (const void *context, uint8_t *const at[], size_t n), (context, at, n))

static operand operand_of(uint32_t type, int32_t zero_point, float scale) {
    operand side = {type == NPU_TYPE_FLOAT32, npu_code_of(type), zero_point, scale};
    return side;
}

void npu_binary_in_float(const npu_binary *op, npu_view *view, uint32_t level) {
    constants k = {operand_of(op->left_type, op->left_zero_point, op->left_scale),
                   operand_of(op->right_type, op->right_zero_point, op->right_scale),
                   op->function,
                   op->output_scale,
                   op->output_zero_point,
                   npu_type_low(op->output_type) - (float)op->output_zero_point,
                   npu_type_high(op->output_type) - (float)op->output_zero_point};
    npu_view_for_rows(view, float_levels[level - 1], &k);
}
