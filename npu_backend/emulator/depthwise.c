/* DEPTHWISE: choice of kernel, and the portable one, which is also the plainest statement of the arithmetic. Weights of
 * one block of 16 channels: [ky][kx][16], int8 or halves. */
#include "element.h"
#include "matrix.h"

typedef union {
    uint32_t bytes[NPU_CHANNEL_BLOCK];
    int64_t words[NPU_CHANNEL_BLOCK];
    float floats[NPU_CHANNEL_BLOCK];
} block_sums;

static void add_bytes(uint32_t *sums, const uint8_t *input, const int8_t *weights, uint8_t flip) {
    /* XOR and subtraction turn a raw int8 byte into its value, and leave a uint8 alone. */
    for (uint32_t c = 0; c < NPU_CHANNEL_BLOCK; c++)
        sums[c] += (uint32_t)(((int32_t)(uint8_t)(input[c] ^ flip) - flip) * weights[c]);
}

static void add_words(int64_t *sums, const uint8_t *input, const int8_t *weights, uint16_t flip) {
    for (uint32_t c = 0; c < NPU_CHANNEL_BLOCK; c++) {
        uint16_t code;
        memcpy(&code, input + c * sizeof code, sizeof code);
        sums[c] += (int16_t)(code ^ flip) * weights[c];
    }
}

static void add_floats(float *sums, const uint8_t *input, const int8_t *weights) {
    for (uint32_t c = 0; c < NPU_CHANNEL_BLOCK; c++) {
        uint16_t weight;
        memcpy(&weight, weights + c * sizeof weight, sizeof weight);
        sums[c] += npu_load_f32(input + c * sizeof(float)) * npu_half_to_float(weight);
    }
}

/* Adds the products of a tap from the block's first channel on. */
static void add_tap(const npu_conv *op, block_sums *sums, const uint8_t *input, uint32_t block, const int8_t *weights) {
    const size_t channel = (size_t)block * NPU_CHANNEL_BLOCK;
    switch (npu_conv_sum_of(op->input_type)) {
    case NPU_SUM_FLOAT32:
        add_floats(sums->floats, input + channel * sizeof(float), weights);
        break;
    case NPU_SUM_INT64:
        add_words(sums->words, input + channel * sizeof(uint16_t), weights,
                  op->input_type == NPU_TYPE_UINT16 ? 0x8000 : 0);
        break;
    default:
        add_bytes(sums->bytes, input + channel, weights, op->input_type == NPU_TYPE_INT8 ? 0x80 : 0);
        break;
    }
}

static void run_portable(const npu_strip *strip) {
    const npu_conv *op = strip->op;
    const uint32_t blocks = (uint32_t)npu_divide_up(op->output_channels, NPU_CHANNEL_BLOCK);
    const size_t tap_bytes = NPU_CHANNEL_BLOCK * (op->input_type == NPU_TYPE_FLOAT16 ? sizeof(uint16_t) : 1);
    const size_t bytes = NPU_CHANNEL_BLOCK * npu_conv_sum_bytes(op->input_type);
    for (uint32_t block = 0; block < blocks; block++)
        for (uint32_t pixel = 0; pixel < strip->count; pixel++) {
            block_sums sums = {{0}};
            for (uint32_t tap = 0; tap < strip->taps; tap++)
                add_tap(op, &sums, strip->inputs[(size_t)tap * strip->capacity + pixel], block,
                        npu_block_weights(op, strip->spm, block) + tap * tap_bytes);
            memcpy(strip->kept + ((size_t)pixel * blocks + block) * bytes, &sums, bytes);
        }
}

npu_status npu_execute_depthwise(const npu_depthwise *op, uint8_t *spm, npu_scratch *scratch, uint32_t level) {
    const npu_conv window = npu_window_of_depthwise(op);
#if NPU_X86_KERNELS
    const uint64_t arranged_bytes = npu_divide_up(op->output_channels, NPU_CHANNEL_BLOCK) * NPU_CHANNEL_BLOCK *
                                    op->kernel_height * op->kernel_width * sizeof(uint32_t);
    const int are_bytes = npu_is_byte_to_byte(&window);
    if (level == NPU_LEVEL_AVX512)
        return npu_run_strips(&window, spm, scratch, are_bytes ? npu_depthwise_avx512_bytes(&window) : arranged_bytes,
                              level, are_bytes ? npu_depthwise_avx512 : npu_depthwise_sums_avx512);
    if (level == NPU_LEVEL_AVX2)
        return npu_run_strips(&window, spm, scratch, are_bytes ? npu_depthwise_avx2_bytes(&window) : arranged_bytes,
                              level, are_bytes ? npu_depthwise_avx2 : npu_depthwise_sums_avx2);
#endif
    return npu_run_strips(&window, spm, scratch, 0, level, run_portable);
}
