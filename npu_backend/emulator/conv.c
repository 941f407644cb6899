/* CONV: choice of kernel, and the portable one, which is also the plainest statement of the arithmetic.
 *
 * Weights of one block of 16 output channels: [chunk of 64 channels][ky][kx][group of 4][16 outputs][4 inputs]. */
#include "matrix.h"

enum { GROUP_WEIGHTS = NPU_CHANNEL_BLOCK * NPU_WEIGHT_GROUP };

/* Adds one tap's channels, each output's four products of a group to sums of their own, as the weights lie. `step` is 0
 * where one byte stands for all channels. */
static void add_channels(uint32_t *sums, const uint8_t *input, size_t step, uint32_t channels, const int8_t *weights,
                         uint8_t flip) {
    for (uint32_t c = 0; c < channels; c += NPU_WEIGHT_GROUP, weights += GROUP_WEIGHTS) {
        int16_t codes[NPU_CHANNEL_BLOCK] = {0};
        for (uint32_t i = 0; i < npu_smaller(channels - c, NPU_WEIGHT_GROUP); i++)
            /* XOR and subtraction turn a raw int8 byte into its value, and leave a uint8 alone. */
            codes[i] = (int16_t)((uint8_t)(input[(c + i) * step] ^ flip) - flip);
        for (uint32_t i = NPU_WEIGHT_GROUP; i < NPU_CHANNEL_BLOCK; i++) codes[i] = codes[i - NPU_WEIGHT_GROUP];
        for (uint32_t o = 0; o < GROUP_WEIGHTS; o += NPU_CHANNEL_BLOCK)
            for (uint32_t i = 0; i < NPU_CHANNEL_BLOCK; i++) sums[o + i] += (uint32_t)(codes[i] * weights[o + i]);
    }
}

static const uint8_t *tap_input(const npu_conv *op, const uint8_t *spm, int64_t row, int64_t column) {
    if (row < 0 || row >= op->input_height || column < 0 || column >= op->input_width) return NULL;
    return spm + op->input + (uint64_t)row * op->input_row_bytes + (uint64_t)column * op->input_column_bytes;
}

static void sum_taps(const npu_conv *op, const uint8_t *spm, uint32_t block, uint32_t row, uint32_t column,
                     uint32_t *sums) {
    const int8_t *weights = npu_block_weights(op, spm, block);
    const uint8_t padding = (uint8_t)op->input_zero_point, flip = op->input_type == NPU_TYPE_INT8 ? 0x80 : 0;
    for (uint32_t chunk = 0; chunk < op->input_channels; chunk += NPU_WEIGHT_CHUNK) {
        uint32_t channels = npu_smaller(op->input_channels - chunk, NPU_WEIGHT_CHUNK);
        uint64_t tap_bytes = npu_divide_up(channels, NPU_WEIGHT_GROUP) * GROUP_WEIGHTS;
        for (uint32_t ky = 0; ky < op->kernel_height; ky++)
            for (uint32_t kx = 0; kx < op->kernel_width; kx++, weights += tap_bytes) {
                const uint8_t *input =
                    tap_input(op, spm, npu_input_row(op, row, ky), npu_input_column(op, column, kx));
                add_channels(sums, input ? input + chunk : &padding, input != NULL, channels, weights, flip);
            }
    }
}

static void sum_pixel(const npu_conv *op, const uint8_t *spm, uint32_t block, uint64_t pixel, uint32_t *sums) {
    uint32_t parts[GROUP_WEIGHTS] = {0};
    sum_taps(op, spm, block, (uint32_t)(pixel / op->output_width), (uint32_t)(pixel % op->output_width), parts);
    for (uint32_t i = 0; i < GROUP_WEIGHTS; i++) sums[i / NPU_WEIGHT_GROUP] += parts[i];
}

static void convolve_portable(const npu_conv *op, uint8_t *spm) {
    const npu_rounding rounding = npu_rounding_of(op);
    uint32_t blocks = (uint32_t)npu_divide_up(op->output_channels, NPU_CHANNEL_BLOCK);
    uint64_t pixels = (uint64_t)op->output_height * op->output_width;
    for (uint32_t block = 0; block < blocks; block++) {
        const npu_block_parameters parameters = npu_load_parameters(op, spm, block);
        for (uint64_t pixel = 0; pixel < pixels; pixel++) {
            uint32_t sums[NPU_CHANNEL_BLOCK] = {0};
            uint8_t *kept = spm + op->accumulators + (pixel * blocks + block) * sizeof sums;
            if (op->load_accumulators) memcpy(sums, kept, sizeof sums);
            sum_pixel(op, spm, block, pixel, sums);
            if (op->keep_accumulators) {
                memcpy(kept, sums, sizeof sums);
                continue;
            }
            uint8_t *output = npu_output_pixel(op, spm, pixel) + block * NPU_CHANNEL_BLOCK;
            for (uint32_t o = 0; o < npu_block_channels(op, block); o++)
                output[o] = npu_requantize((int32_t)sums[o], parameters.bias[o], parameters.multiplier[o], &rounding);
        }
    }
}

#if NPU_X86_KERNELS
static npu_status convolve_strips(const npu_conv *op, uint8_t *spm, npu_scratch *scratch,
                                  void (*run)(const npu_strip *strip)) {
    npu_strip strip;
    npu_status status = npu_strip_open(&strip, op, spm, scratch, 0);
    while (status == NPU_OK && npu_strip_next(&strip)) run(&strip);
    return status;
}
#endif

npu_status npu_execute_conv(const npu_conv *op, uint8_t *spm, npu_scratch *scratch, uint32_t level) {
#if NPU_X86_KERNELS
    if (level == NPU_LEVEL_AVX512) return convolve_strips(op, spm, scratch, npu_conv_avx512);
    if (level == NPU_LEVEL_AVX2) return convolve_strips(op, spm, scratch, npu_conv_avx2);
#endif
    (void)scratch, (void)level;
    convolve_portable(op, spm);
    return NPU_OK;
}
