/* DEPTHWISE: choice of kernel, and the one body of all data types, which is also the plainest statement of the
 * arithmetic. Weights of one block of 16 channels: [ky][kx][16], int8 or halves. */
#include "element.h"
#include "matrix.h"

/* Products of 16-bit codes and int8 that an int32 holds the sum of. */
enum { EXACT_TAPS = 256 };

/* The input of a tap at a pixel, from the block's first channel on. */
NPU_INLINE const uint8_t *tap_input(const npu_strip *strip, uint32_t block, uint32_t pixel, uint32_t tap, size_t bytes) {
    return strip->inputs[(size_t)tap * strip->capacity + pixel] + (size_t)block * NPU_CHANNEL_BLOCK * bytes;
}

/* Adds the taps `first..end` of the codes of a block; XOR and subtraction turn a raw code into its value. */
#define ADD_CODES(name, ctype, flip, bias)                                                                          \
    NPU_INLINE void name(const npu_strip *strip, uint32_t block, uint32_t pixel, uint32_t first, uint32_t end,     \
                         int32_t *sums) {                                                                         \
        const int8_t *weights = npu_block_weights(strip->op, strip->spm, block);                                    \
        for (uint32_t tap = first; tap < end; tap++) {                                                              \
            const uint8_t *input = tap_input(strip, block, pixel, tap, sizeof(ctype));                              \
            for (uint32_t c = 0; c < NPU_CHANNEL_BLOCK; c++) {                                                      \
                ctype code;                                                                                         \
                memcpy(&code, input + c * sizeof code, sizeof code);                                                \
                sums[c] = npu_add(sums[c], ((ctype)(code ^ (flip)) - (bias)) * weights[tap * NPU_CHANNEL_BLOCK + c]); \
            }                                                                                                       \
        }                                                                                                           \
    }

ADD_CODES(add_uint8, uint8_t, 0, 0)
ADD_CODES(add_int8, uint8_t, 0x80, 0x80)
ADD_CODES(add_uint16, uint16_t, 0, 0x8000)
ADD_CODES(add_int16, uint16_t, 0x8000, 0x8000)

NPU_INLINE void sum_words(const npu_strip *strip, uint32_t block, uint32_t pixel, uint8_t *kept) {
    int64_t sums[NPU_CHANNEL_BLOCK] = {0};
    for (uint32_t first = 0; first < strip->taps; first += EXACT_TAPS) {
        const uint32_t end = npu_smaller(strip->taps, first + EXACT_TAPS);
        int32_t part[NPU_CHANNEL_BLOCK] = {0};
        if (strip->op->input_type == NPU_TYPE_UINT16)
            add_uint16(strip, block, pixel, first, end, part);
        else
            add_int16(strip, block, pixel, first, end, part);
        for (uint32_t c = 0; c < NPU_CHANNEL_BLOCK; c++) sums[c] += part[c];
    }
    memcpy(kept, sums, sizeof sums);
}

NPU_INLINE void sum_bytes(const npu_strip *strip, uint32_t block, uint32_t pixel, uint8_t *kept) {
    int32_t sums[NPU_CHANNEL_BLOCK] = {0};
    if (strip->op->input_type == NPU_TYPE_UINT8)
        add_uint8(strip, block, pixel, 0, strip->taps, sums);
    else
        add_int8(strip, block, pixel, 0, strip->taps, sums);
    memcpy(kept, sums, sizeof sums);
}

/* `weights`: the block's [taps][16] as float32. */
NPU_INLINE void sum_floats(const npu_strip *strip, uint32_t block, uint32_t pixel, const float *weights, uint8_t *kept) {
    float sums[NPU_CHANNEL_BLOCK] = {0};
    for (uint32_t tap = 0; tap < strip->taps; tap++, weights += NPU_CHANNEL_BLOCK) {
        float input[NPU_CHANNEL_BLOCK];
        memcpy(input, tap_input(strip, block, pixel, tap, sizeof(float)), sizeof input);
        for (uint32_t c = 0; c < NPU_CHANNEL_BLOCK; c++) sums[c] += input[c] * weights[c];
    }
    memcpy(kept, sums, sizeof sums);
}

NPU_INLINE void sum_body(const npu_strip *strip, uint32_t level) {
    const npu_conv *op = strip->op;
    const npu_sum kind = npu_sum_of(op->input_type);
    const uint32_t blocks = (uint32_t)npu_divide_up(op->output_channels, NPU_CHANNEL_BLOCK);
    const size_t bytes = NPU_CHANNEL_BLOCK * npu_conv_sum_bytes(op->input_type);
    float *weights = (float *)(void *)strip->extra;
    for (uint32_t block = 0; block < blocks; block++) {
        if (kind == NPU_SUM_FLOAT32)
            npu_halves_to_floats((const uint8_t *)npu_block_weights(op, strip->spm, block), 0, 1,
                                 (uint64_t)strip->taps * NPU_CHANNEL_BLOCK, weights, level);
        for (uint32_t pixel = 0; pixel < strip->count; pixel++) {
            uint8_t *kept = strip->kept + ((size_t)pixel * blocks + block) * bytes;
            if (kind == NPU_SUM_FLOAT32)
                sum_floats(strip, block, pixel, weights, kept);
            else if (kind == NPU_SUM_INT64)
                sum_words(strip, block, pixel, kept);
            else
                sum_bytes(strip, block, pixel, kept);
        }
    }
}

NPU_LEVELS(sum, (const npu_strip *strip, uint32_t level), (strip, level))

static void sum_portable_strip(const npu_strip *strip) { sum_levels[NPU_LEVEL_PORTABLE - 1](strip, NPU_LEVEL_PORTABLE); }
static void sum_avx2_strip(const npu_strip *strip) { sum_levels[NPU_LEVEL_AVX2 - 1](strip, NPU_LEVEL_AVX2); }
static void sum_avx512_strip(const npu_strip *strip) { sum_levels[NPU_LEVEL_AVX512 - 1](strip, NPU_LEVEL_AVX512); }

npu_status npu_execute_depthwise(const npu_depthwise *op, uint8_t *spm, npu_scratch *scratch, uint32_t level) {
    static npu_sum_kernel *const kernels[] = {sum_portable_strip, sum_avx2_strip, sum_avx512_strip};
    const npu_conv window = npu_window_of_depthwise(op);
    const uint64_t weights_bytes = (uint64_t)op->kernel_height * op->kernel_width * NPU_CHANNEL_BLOCK * sizeof(float);
#if NPU_X86_KERNELS
    if (level == NPU_LEVEL_AVX512 && npu_is_byte_to_byte(&window))
        return npu_run_strips(&window, spm, scratch, npu_depthwise_avx512_bytes(&window), level, npu_depthwise_avx512);
    if (level == NPU_LEVEL_AVX2 && npu_is_byte_to_byte(&window))
        return npu_run_strips(&window, spm, scratch, npu_depthwise_avx2_bytes(&window), level, npu_depthwise_avx2);
#endif
    return npu_run_strips(&window, spm, scratch, weights_bytes, level, kernels[level - 1]);
}
