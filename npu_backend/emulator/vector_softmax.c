/* SOFTMAX of 8-bit rows by a table of exponentials; npu_backend/ops/numerics_softmax.py. */
#include "vector.h"

typedef struct {
    const uint8_t *table;
    uint8_t flip;
    float output_scale;
    int32_t zero_point;
    int32_t low;
    int32_t high;
} constants;

NPU_INLINE float exponential(const constants *k, uint8_t byte, uint32_t largest) {
    return npu_load_f32(k->table + 4 * ((uint32_t)(uint8_t)(byte ^ k->flip) + 255 - largest));
}

/* The sum is sequential, as its float32 rounding depends on the order. */
NPU_INLINE void softmax_body(const constants *prepared, const uint8_t *restrict input, uint8_t *restrict output,
                             size_t length) {
    const constants k = *prepared;
    uint8_t largest = 0;
    for (size_t i = 0; i < length; ++i) {
        uint8_t code = input[i] ^ k.flip;
        largest = code > largest ? code : largest;
    }
    float sum = 0.0f;
    for (size_t i = 0; i < length; ++i) {
        sum += exponential(&k, input[i], largest);
    }
    for (size_t i = 0; i < length; ++i) {
        float quotient = exponential(&k, input[i], largest) * k.output_scale / sum;
        int32_t code = npu_add(npu_round(npu_clamp(quotient, 0.0f, 511.0f)), k.zero_point);
        code = code > k.low ? code : k.low;
        output[i] = (uint8_t)(code < k.high ? code : k.high);
    }
}

NPU_LEVELS(softmax, (const constants *k, const uint8_t *restrict input, uint8_t *restrict output, size_t length),
           (k, input, output, length))

npu_status npu_execute_softmax(const npu_softmax *op, uint8_t *spm, npu_scratch *scratch, uint32_t level) {
    (void)scratch;
    constants k = {spm + op->table, npu_code_of(op->input_type).flip, op->output_scale,
                   op->output_zero_point, (int32_t)npu_type_low(op->output_type),
                   (int32_t)npu_type_high(op->output_type)};
    const uint32_t *from = op->input_strides, *to = op->output_strides;
    for (uint32_t i = 0; i < op->counts[0]; ++i) {
        for (uint32_t j = 0; j < op->counts[1]; ++j) {
            for (uint32_t l = 0; l < op->counts[2]; ++l) {
                const uint8_t *input = spm + op->input + (size_t)i * from[0] + (size_t)j * from[1] + (size_t)l * from[2];
                uint8_t *output = spm + op->output + (size_t)i * to[0] + (size_t)j * to[1] + (size_t)l * to[2];
                softmax_levels[level - 1](&k, input, output, op->length);
            }
        }
    }
    return NPU_OK;
}
