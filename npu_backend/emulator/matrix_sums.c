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
} finish;

static finish finish_of(const npu_conv *op) {
    finish made = {npu_element_of(op->output_type, 1.0f, op->output_zero_point), npu_sum_of(op->input_type),
                   npu_conv_sum_bytes(op->input_type)};
    made.output.low = (float)op->clamp_low - (float)op->output_zero_point;
    made.output.high = (float)op->clamp_high - (float)op->output_zero_point;
    return made;
}

/* Kept a loop, which GCC makes vectors of; what it unrolls first it does not. */
#define EVERY_LANE _Pragma("GCC unroll 1") for (uint32_t i = 0; i < NPU_CHANNEL_BLOCK; i++)

#define TOTALS(ctype, expression)                           \
    EVERY_LANE {                                            \
        ctype sum, bias;                                    \
        memcpy(&sum, sums + i * sizeof sum, sizeof sum);    \
        memcpy(&bias, parameters + i * sizeof bias, sizeof bias); \
        totals[i] = (expression);                           \
    }                                                       \
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

NPU_INLINE void write_halves(const float *values, uint8_t *at) {
    uint16_t halves[NPU_CHANNEL_BLOCK];
    EVERY_LANE halves[i] = npu_float_to_half(values[i]);
    memcpy(at, halves, sizeof halves);
}

/* Codes of one or two bytes. */
NPU_INLINE void write_codes(const npu_element *output, const float *values, uint8_t *at) {
    const float low = output->low, high = output->high;
    const int32_t zero_point = output->zero_point;
    uint16_t words[NPU_CHANNEL_BLOCK];
    EVERY_LANE words[i] = (uint16_t)npu_add(npu_round(npu_clamp(values[i], low, high)), zero_point);
    if (output->bytes == sizeof words[0])
        memcpy(at, words, sizeof words);
    else
        EVERY_LANE at[i] = (uint8_t)words[i];
}

/* All 16 elements of a block to `at`, which has room for them. */
NPU_INLINE void finish_block(const finish *k, const uint8_t *sums, const uint8_t *parameters, uint8_t *at) {
    float values[NPU_CHANNEL_BLOCK], multipliers[NPU_CHANNEL_BLOCK];
    if (k->output.type == NPU_TYPE_INT32) {
        int32_t totals[NPU_CHANNEL_BLOCK];
        whole_totals(k->kind, sums, parameters, totals);
        memcpy(at, totals, sizeof totals);
        return;
    }
    memcpy(multipliers, parameters + NPU_CHANNEL_BLOCK * k->sum_bytes, sizeof multipliers);
    float_totals(k->kind, sums, parameters, values);
    EVERY_LANE values[i] *= multipliers[i];
    switch (k->output.type) {
    case NPU_TYPE_FLOAT16: write_halves(values, at); break;
    case NPU_TYPE_FLOAT32: memcpy(at, values, sizeof values); break;
    default: write_codes(&k->output, values, at); break;
    }
}

NPU_INLINE void finish_strip_body(const npu_strip *strip) {
    const npu_conv *op = strip->op;
    const finish k = finish_of(op);
    const uint32_t blocks = (uint32_t)npu_divide_up(op->output_channels, NPU_CHANNEL_BLOCK);
    const uint8_t *sums = strip->kept;
    for (uint32_t pixel = 0; pixel < strip->count; pixel++)
        for (uint32_t block = 0; block < blocks; block++, sums += NPU_CHANNEL_BLOCK * k.sum_bytes) {
            const uint8_t *parameters = strip->spm + op->parameters + (uint64_t)block * op->block_bytes;
            const uint32_t channels = npu_block_channels(op, block);
            uint8_t *output = strip->outputs[pixel] + (size_t)block * NPU_CHANNEL_BLOCK * k.output.bytes;
            uint8_t partial[NPU_CHANNEL_BLOCK * sizeof(float)];
            finish_block(&k, sums, parameters, channels == NPU_CHANNEL_BLOCK ? output : partial);
            if (channels < NPU_CHANNEL_BLOCK) memcpy(output, partial, channels * k.output.bytes);
        }
}

NPU_LEVELS(finish_strip, (const npu_strip *strip), (strip))

static void to_floats(const uint8_t *halves, float *floats, uint64_t count) {
    for (uint64_t i = 0; i < count; i++) {
        uint16_t half;
        memcpy(&half, halves + i * sizeof half, sizeof half);
        floats[i] = npu_half_to_float(half);
    }
}

void npu_halves_to_floats(const uint8_t *input, uint64_t row_bytes, uint64_t rows, uint64_t lanes, float *output,
                          uint32_t level) {
    void (*convert)(const uint8_t *halves, float *floats, uint64_t count) = to_floats;
#if NPU_X86_KERNELS
    if (level == NPU_LEVEL_AVX2) convert = npu_to_floats_avx2;
    if (level == NPU_LEVEL_AVX512) convert = npu_to_floats_avx512;
#endif
    (void)level;
    for (uint64_t row = 0; row < rows; row++) convert(input + row * row_bytes, output + row * lanes, lanes);
}

static npu_sum_kernel *finish_kernel(const npu_conv *op, uint32_t level) {
#if NPU_X86_KERNELS
    if (op->input_type == NPU_TYPE_FLOAT16 && op->output_type == NPU_TYPE_FLOAT16 && level > NPU_LEVEL_PORTABLE)
        return level == NPU_LEVEL_AVX512 ? npu_finish_halves_avx512 : npu_finish_halves_avx2;
#endif
    (void)op;
    return finish_strip_levels[level - 1];
}

npu_status npu_run_strips(const npu_conv *op, uint8_t *spm, npu_scratch *scratch, uint64_t extra_bytes, uint32_t level,
                          npu_sum_kernel *run) {
    npu_sum_kernel *const finish_sums = finish_kernel(op, level);
    npu_strip strip;
    npu_status status = npu_strip_open(&strip, op, spm, scratch, extra_bytes, level);
    while (status == NPU_OK && npu_strip_next(&strip)) {
        run(&strip);
        if (strip.workspace != NULL) finish_sums(&strip);
    }
    return status;
}
