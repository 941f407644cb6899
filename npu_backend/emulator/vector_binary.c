/* BINARY, and its functions on 8-bit codes: in_uint8 of npu_backend/ops/numerics_eltwise.py. */
#include "vector.h"

typedef struct {
    npu_code left;
    npu_code right;
    int32_t left_zero_point;
    int32_t right_zero_point;
    float left_ratio; /* of the product, for a multiply */
    float right_ratio;
    float offset;
    uint8_t flip; /* of the output */
} constants;

NPU_INLINE void add_lanes(const constants *k, const uint8_t *left, const uint8_t *right, size_t lanes,
                          uint8_t *restrict output) {
    for (size_t i = 0; i < lanes; ++i) {
        float inner = fmaf((float)npu_decode(right[i], k->right), k->right_ratio, k->offset);
        float sum = fmaf((float)npu_decode(left[i], k->left), k->left_ratio, inner);
        output[i] = (uint8_t)npu_round(npu_clamp(sum, 0.0f, 255.0f)) ^ k->flip;
    }
}

NPU_INLINE void multiply_lanes(const constants *k, const uint8_t *left, const uint8_t *right, size_t lanes,
                               uint8_t *restrict output) {
    for (size_t i = 0; i < lanes; ++i) {
        int32_t a = npu_subtract(npu_decode(left[i], k->left), k->left_zero_point);
        int32_t b = npu_subtract(npu_decode(right[i], k->right), k->right_zero_point);
        float scaled = (float)npu_multiply(a, b) * k->left_ratio + k->offset;
        output[i] = (uint8_t)npu_round(npu_clamp(scaled, 0.0f, 255.0f)) ^ k->flip;
    }
}

NPU_INLINE void add_body(const void *context, uint8_t *const at[], size_t n) {
    const constants k = *(const constants *)context;
#define ADD(first, lanes, to) add_lanes(&k, at[0] + (first), at[1] + (first), lanes, to)
    NPU_FOR_LANES(n, at[2], ADD);
#undef ADD
}

NPU_INLINE void multiply_body(const void *context, uint8_t *const at[], size_t n) {
    const constants k = *(const constants *)context;
#define MULTIPLY(first, lanes, to) multiply_lanes(&k, at[0] + (first), at[1] + (first), lanes, to)
    NPU_FOR_LANES(n, at[2], MULTIPLY);
#undef MULTIPLY
}

NPU_LEVELS(add, (const void *context, uint8_t *const at[], size_t n), (context, at, n))
NPU_LEVELS(multiply, (const void *context, uint8_t *const at[], size_t n), (context, at, n))

static constants prepare(const npu_binary *op) {
    constants k = {0};
    k.left = npu_unsigned_code(op->left_type);
    k.right = npu_unsigned_code(op->right_type);
    k.left_zero_point = npu_unsigned_zero_point(op->left_zero_point, op->left_type);
    k.right_zero_point = npu_unsigned_zero_point(op->right_zero_point, op->right_type);
    k.flip = npu_unsigned_code(op->output_type).flip;
    float output_zero_point = (float)npu_unsigned_zero_point(op->output_zero_point, op->output_type);
    if (op->function == NPU_BINARY_MULTIPLY_CODES) {
        k.left_ratio = op->left_scale * op->right_scale / op->output_scale;
        k.offset = output_zero_point;
        return k;
    }
    k.left_ratio = op->left_scale / op->output_scale;
    k.right_ratio = op->right_scale / op->output_scale;
    float right_offset = k.right_ratio * (float)k.right_zero_point;
    k.offset = output_zero_point - fmaf(k.left_ratio, (float)k.left_zero_point, right_offset);
    return k;
}

npu_status npu_execute_binary(const npu_binary *op, uint8_t *spm, npu_scratch *scratch, uint32_t level) {
    (void)scratch;
    npu_view view = npu_view_of(op->counts);
    npu_view_operand(&view, spm + op->left, npu_type_bytes(op->left_type), op->left_strides);
    npu_view_operand(&view, spm + op->right, npu_type_bytes(op->right_type), op->right_strides);
    npu_view_operand(&view, spm + op->output, npu_type_bytes(op->output_type), op->output_strides);
    if (op->function <= NPU_BINARY_MULTIPLY_CODES) {
        constants k = prepare(op);
        int adds = op->function == NPU_BINARY_ADD_CODES;
        npu_view_for_rows(&view, adds ? add_levels[level - 1] : multiply_levels[level - 1], &k);
    } else if (npu_is_integer(op->left_type) && npu_is_integer(op->right_type) && npu_is_integer(op->output_type)) {
        npu_binary_of_integers(op, &view);
    } else {
        npu_binary_in_float(op, &view, level);
    }
    return NPU_OK;
}
