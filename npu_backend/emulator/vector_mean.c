/* MEAN: the mean of all pixels of each channel, from an exact integer sum; npu_backend/ops/numerics_pool.py. */
#include "vector.h"

typedef struct {
    npu_code code;
    int32_t zero_sum; /* what the zero point adds to a sum */
    float factor;
    int32_t output_zero_point;
    float low; /* bounds before the zero point is added */
    float high;
} constants;

NPU_INLINE void mean_lanes(const npu_mean *op, const uint8_t *input, size_t lanes, const constants *k,
                           uint8_t *output) {
    int32_t sums[NPU_LANES] = {0};
    for (uint32_t row = 0; row < op->input_height; ++row) {
        const uint8_t *pixel = input + (size_t)row * op->input_row_bytes;
        for (uint32_t column = 0; column < op->input_width; ++column, pixel += op->input_column_bytes) {
            for (size_t lane = 0; lane < lanes; ++lane) {
                sums[lane] = npu_add(sums[lane], npu_decode(pixel[lane], k->code));
            }
        }
    }
    for (size_t lane = 0; lane < lanes; ++lane) {
        float value = (float)npu_subtract(sums[lane], k->zero_sum) * k->factor;
        output[lane] = (uint8_t)npu_add(npu_round(npu_clamp(value, k->low, k->high)), k->output_zero_point);
    }
}

NPU_INLINE void mean_body(const npu_mean *op, const uint8_t *input, const constants *prepared, uint8_t *output) {
    const constants k = *prepared;
#define MEAN(channel, lanes, to) mean_lanes(op, input + (channel), lanes, &k, to)
    NPU_FOR_LANES(op->channels, output, MEAN);
#undef MEAN
}

NPU_LEVELS(mean, (const npu_mean *op, const uint8_t *input, const constants *k, uint8_t *output), (op, input, k, output))

npu_status npu_execute_mean(const npu_mean *op, uint8_t *spm, npu_scratch *scratch, uint32_t level) {
    (void)scratch;
    uint32_t pixels = op->input_height * op->input_width;
    constants k = {npu_code_of(op->input_type), npu_multiply((int32_t)pixels, op->input_zero_point),
                   op->input_scale / (op->output_scale * (float)pixels), op->output_zero_point,
                   npu_type_low(op->output_type) - (float)op->output_zero_point,
                   npu_type_high(op->output_type) - (float)op->output_zero_point};
    mean_levels[level - 1](op, spm + op->input, &k, spm + op->output);
    return NPU_OK;
}
