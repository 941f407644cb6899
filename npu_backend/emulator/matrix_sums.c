/* From sums to outputs: bias, multiplier, and the output's data type.
 *
 * output = encode(float32(sum + bias) * multiplier), where codes are rounded half to even between the clamp's bounds and
 * float types once; an int32 output is the sum and its bias alone, the lower 32 bits of it. */
#include "element.h"
#include "matrix.h"

typedef struct {
    npu_element output;
    npu_sum kind;
    uint32_t sum_bytes;
    const uint8_t *parameters;
    uint32_t block_bytes;
    uint32_t blocks;
} finish;

static finish finish_of(const npu_strip *strip, uint32_t level) {
    const npu_conv *op = strip->op;
    finish made = {npu_element_of(op->output_type, 1.0f, op->output_zero_point, level), npu_conv_sum_of(op->input_type),
                   npu_conv_sum_bytes(op->input_type), strip->spm + op->parameters, op->block_bytes,
                   (uint32_t)npu_divide_up(op->output_channels, NPU_CHANNEL_BLOCK)};
    made.output.low = (float)op->clamp_low - (float)op->output_zero_point;
    made.output.high = (float)op->clamp_high - (float)op->output_zero_point;
    return made;
}

/* Kept a loop, which GCC makes vectors of; what it unrolls first it does not. */
#define EVERY_LANE _Pragma("GCC unroll 1") for (uint32_t i = 0; i < NPU_CHANNEL_BLOCK; i++)

#define TOTALS(ctype, expression)                                 \
    EVERY_LANE {                                                  \
        ctype sum, bias;                                          \
        memcpy(&sum, sums + i * sizeof sum, sizeof sum);          \
        memcpy(&bias, parameters + i * sizeof bias, sizeof bias); \
        totals[i] = (expression);                                 \
    }                                                             \
    break

/* The sum and its bias as an int32. */
NPU_INLINE void whole_totals(npu_sum kind, const uint8_t *sums, const uint8_t *parameters, int32_t *totals) {
    switch (kind) {
    case NPU_SUM_INT64: TOTALS(int64_t, npu_add((int32_t)(uint32_t)sum, (int32_t)(uint32_t)bias));
    default: TOTALS(int32_t, npu_add(sum, bias));
    }
}

NPU_INLINE void float_totals(npu_sum kind, const uint8_t *sums, const uint8_t *parameters, float *totals) {
    switch (kind) {
    case NPU_SUM_FLOAT32: TOTALS(float, sum + bias);
    case NPU_SUM_INT64: TOTALS(int64_t, (float)(int64_t)((uint64_t)sum + (uint64_t)bias));
    default: TOTALS(int32_t, (float)npu_add(sum, bias));
    }
}

/* A pixel's sums as they are to be written: int32, or float32 times the multipliers. Totals take the place of sums. */
NPU_INLINE void scale_body(const finish *given, uint8_t *sums) {
    const finish k = *given;
    const uint8_t *parameters = k.parameters;
    uint8_t *totals = sums;
    for (uint32_t block = 0; block < k.blocks; block++, parameters += k.block_bytes) {
        float values[NPU_CHANNEL_BLOCK], multipliers[NPU_CHANNEL_BLOCK];
        int32_t whole[NPU_CHANNEL_BLOCK];
        if (k.output.type == NPU_TYPE_INT32) {
            whole_totals(k.kind, sums, parameters, whole);
            memcpy(totals, whole, sizeof whole);
        } else {
            memcpy(multipliers, parameters + NPU_CHANNEL_BLOCK * k.sum_bytes, sizeof multipliers);
            float_totals(k.kind, sums, parameters, values);
            EVERY_LANE values[i] *= multipliers[i];
            memcpy(totals, values, sizeof values);
        }
        sums += NPU_CHANNEL_BLOCK * k.sum_bytes;
        totals += sizeof values;
    }
}

NPU_LEVELS(scale, (const finish *k, uint8_t *sums), (k, sums))

static void finish_strip(const npu_strip *strip, uint32_t level) {
    const finish k = finish_of(strip, level);
    const uint32_t channels = strip->op->output_channels;
    uint8_t *sums = strip->kept;
    for (uint32_t pixel = 0; pixel < strip->count; pixel++, sums += k.blocks * NPU_CHANNEL_BLOCK * k.sum_bytes) {
        scale_levels[level - 1](&k, sums);
        if (k.output.type == NPU_TYPE_INT32)
            memcpy(strip->outputs[pixel], sums, channels * sizeof(int32_t));
        else
            k.output.write(&k.output, (const float *)(const void *)sums, channels, strip->outputs[pixel]);
    }
}

npu_status npu_run_strips(const npu_conv *op, uint8_t *spm, npu_scratch *scratch, uint64_t extra_bytes, uint32_t level,
                          npu_sum_kernel *run) {
    npu_strip strip;
    npu_status status = npu_strip_open(&strip, op, spm, scratch, extra_bytes, level);
    while (status == NPU_OK && npu_strip_next(&strip)) {
        run(&strip);
        if (strip.workspace != NULL) finish_strip(&strip, level);
    }
    return status;
}
