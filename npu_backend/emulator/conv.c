/* CONV: choice of kernel, and the portable one, which is also the plainest statement of the arithmetic.
 *
 * Weights of one block of 16 output channels: [chunk of 64 channels][ky][kx], then of codes [group of 4][16 outputs][4
 * inputs] int8, of halves [channel][16 outputs]. */
#include "element.h"
#include "matrix.h"

enum { GROUP_WEIGHTS = NPU_CHANNEL_BLOCK * NPU_WEIGHT_GROUP };

/* Adds one tap's channels, each output's four products of a group to sums of their own, as the weights lie. */
static void add_bytes(uint32_t *sums, const uint8_t *input, uint32_t channels, const int8_t *weights, uint8_t flip) {
    for (uint32_t c = 0; c < channels; c += NPU_WEIGHT_GROUP, weights += GROUP_WEIGHTS) {
        int16_t codes[NPU_CHANNEL_BLOCK] = {0};
        for (uint32_t i = 0; i < npu_smaller(channels - c, NPU_WEIGHT_GROUP); i++)
            /* XOR and subtraction turn a raw int8 byte into its value, and leave a uint8 alone. */
            codes[i] = (int16_t)((uint8_t)(input[c + i] ^ flip) - flip);
        for (uint32_t i = NPU_WEIGHT_GROUP; i < NPU_CHANNEL_BLOCK; i++) codes[i] = codes[i - NPU_WEIGHT_GROUP];
        for (uint32_t o = 0; o < GROUP_WEIGHTS; o += NPU_CHANNEL_BLOCK)
            for (uint32_t i = 0; i < NPU_CHANNEL_BLOCK; i++) sums[o + i] += (uint32_t)(codes[i] * weights[o + i]);
    }
}

static void add_words(int64_t *sums, const uint8_t *input, uint32_t channels, const int8_t *weights, uint16_t flip) {
    for (uint32_t c = 0; c < channels; c++) {
        const int8_t *column = weights + c / NPU_WEIGHT_GROUP * GROUP_WEIGHTS + c % NPU_WEIGHT_GROUP;
        uint16_t code;
        memcpy(&code, input + c * sizeof code, sizeof code);
        for (uint32_t o = 0; o < NPU_CHANNEL_BLOCK; o++)
            sums[o] += (int16_t)(code ^ flip) * column[o * NPU_WEIGHT_GROUP];
    }
}

static void add_floats(float *sums, const uint8_t *input, uint32_t channels, const int8_t *weights) {
    for (uint32_t c = 0; c < channels; c++)
        for (uint32_t o = 0; o < NPU_CHANNEL_BLOCK; o++) {
            uint16_t weight;
            memcpy(&weight, weights + (c * NPU_CHANNEL_BLOCK + o) * sizeof weight, sizeof weight);
            sums[o] += npu_load_f32(input + c * sizeof(float)) * npu_half_to_float(weight);
        }
}

typedef union {
    uint32_t bytes[GROUP_WEIGHTS];
    int64_t words[NPU_CHANNEL_BLOCK];
    float floats[NPU_CHANNEL_BLOCK];
} block_sums;

static void add_channels(const npu_conv *op, block_sums *sums, const uint8_t *input, uint32_t chunk, uint32_t channels,
                         const int8_t *weights) {
    switch (npu_conv_sum_of(op->input_type)) {
    case NPU_SUM_FLOAT32:
        add_floats(sums->floats, input + chunk * sizeof(float), channels, weights);
        break;
    case NPU_SUM_INT64:
        add_words(sums->words, input + chunk * sizeof(uint16_t), channels, weights,
                  op->input_type == NPU_TYPE_UINT16 ? 0x8000 : 0);
        break;
    default:
        add_bytes(sums->bytes, input + chunk, channels, weights, op->input_type == NPU_TYPE_INT8 ? 0x80 : 0);
        break;
    }
}

static uint64_t tap_bytes(const npu_conv *op, uint32_t channels) {
    if (op->input_type == NPU_TYPE_FLOAT16) return (uint64_t)channels * NPU_CHANNEL_BLOCK * sizeof(uint16_t);
    return npu_divide_up(channels, NPU_WEIGHT_GROUP) * GROUP_WEIGHTS;
}

static void sum_pixel(const npu_strip *strip, uint32_t block, uint32_t pixel, block_sums *sums) {
    const npu_conv *op = strip->op;
    const int8_t *weights = npu_block_weights(op, strip->spm, block);
    for (uint32_t chunk = 0; chunk < op->input_channels; chunk += NPU_WEIGHT_CHUNK) {
        const uint32_t channels = npu_smaller(op->input_channels - chunk, NPU_WEIGHT_CHUNK);
        const uint8_t *const *input = strip->inputs + pixel;
        for (uint32_t tap = 0; tap < strip->taps; tap++, input += strip->capacity, weights += tap_bytes(op, channels))
            add_channels(op, sums, *input, chunk, channels, weights);
    }
}

/* Sums of bytes start beside the first of an output's four, and are added up at the end. */
static void run_portable(const npu_strip *strip) {
    const npu_conv *op = strip->op;
    const uint32_t blocks = (uint32_t)npu_divide_up(op->output_channels, NPU_CHANNEL_BLOCK);
    const size_t bytes = NPU_CHANNEL_BLOCK * npu_conv_sum_bytes(op->input_type);
    const int are_bytes = npu_is_byte_type(op->input_type);
    for (uint32_t block = 0; block < blocks; block++)
        for (uint32_t pixel = 0; pixel < strip->count; pixel++) {
            const size_t at = ((size_t)pixel * blocks + block) * bytes;
            block_sums sums = {{0}};
            uint32_t before[NPU_CHANNEL_BLOCK] = {0};
            if (strip->loaded) memcpy(are_bytes ? (void *)before : (void *)&sums, strip->loaded + at, bytes);
            sum_pixel(strip, block, pixel, &sums);
            if (are_bytes) {
                for (uint32_t i = 0; i < GROUP_WEIGHTS; i++) before[i / NPU_WEIGHT_GROUP] += sums.bytes[i];
                memcpy(sums.bytes, before, sizeof before);
            }
            memcpy(strip->kept + at, &sums, bytes);
        }
}

static npu_sum_kernel *kernel_of(const npu_conv *op, uint32_t level) {
#if NPU_X86_KERNELS
    const int are_bytes = npu_is_byte_type(op->input_type);
    if (level == NPU_LEVEL_AVX512) return are_bytes ? npu_conv_avx512 : npu_conv_sums_avx512;
    if (level == NPU_LEVEL_AVX2) return are_bytes ? npu_conv_avx2 : npu_conv_sums_avx2;
#endif
    (void)op, (void)level;
    return run_portable;
}

npu_status npu_execute_conv(const npu_conv *op, uint8_t *spm, npu_scratch *scratch, uint32_t level) {
    return npu_run_strips(op, spm, scratch, 0, level, kernel_of(op, level));
}
