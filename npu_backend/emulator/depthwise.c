/* DEPTHWISE: choice of kernel, and the portable one. Weights of one block of 16 channels: [ky][kx][16]. */
#include "matrix.h"

static void sum_pixel(const npu_conv *op, const uint8_t *spm, uint32_t block, uint32_t row, uint32_t column,
                      uint32_t *sums) {
    const int8_t *weights = npu_block_weights(op, spm, block);
    const uint8_t padding = (uint8_t)op->input_zero_point, flip = op->input_type == NPU_TYPE_INT8 ? 0x80 : 0;
    uint32_t channels = npu_block_channels(op, block);
    for (uint32_t ky = 0; ky < op->kernel_height; ky++)
        for (uint32_t kx = 0; kx < op->kernel_width; kx++, weights += NPU_CHANNEL_BLOCK) {
            int64_t y = npu_input_row(op, row, ky), x = npu_input_column(op, column, kx);
            int inside = y >= 0 && y < op->input_height && x >= 0 && x < op->input_width;
            const uint8_t *input = &padding;
            if (inside)
                input = spm + op->input + (uint64_t)y * op->input_row_bytes + (uint64_t)x * op->input_column_bytes +
                        block * NPU_CHANNEL_BLOCK;
            for (uint32_t c = 0; c < channels; c++) {
                /* XOR and subtraction turn a raw int8 byte into its value, and leave a uint8 alone. */
                int32_t value = (int32_t)(uint8_t)(input[inside ? c : 0] ^ flip) - flip;
                sums[c] += (uint32_t)(value * weights[c]);
            }
        }
}

static void convolve_portable(const npu_conv *op, uint8_t *spm) {
    const npu_rounding rounding = npu_rounding_of(op);
    uint32_t blocks = (uint32_t)npu_divide_up(op->output_channels, NPU_CHANNEL_BLOCK);
    uint64_t pixels = (uint64_t)op->output_height * op->output_width;
    for (uint32_t block = 0; block < blocks; block++) {
        const npu_block_parameters parameters = npu_load_parameters(op, spm, block);
        for (uint64_t pixel = 0; pixel < pixels; pixel++) {
            uint32_t sums[NPU_CHANNEL_BLOCK] = {0};
            sum_pixel(op, spm, block, (uint32_t)(pixel / op->output_width), (uint32_t)(pixel % op->output_width), sums);
            uint8_t *output = npu_output_pixel(op, spm, pixel) + block * NPU_CHANNEL_BLOCK;
            for (uint32_t o = 0; o < npu_block_channels(op, block); o++)
                output[o] = npu_requantize((int32_t)sums[o], parameters.bias[o], parameters.multiplier[o], &rounding);
        }
    }
}

#if NPU_X86_KERNELS
static npu_status convolve_avx2(const npu_conv *op, uint8_t *spm, npu_scratch *scratch) {
    npu_strip strip;
    npu_status status = npu_strip_open(&strip, op, spm, scratch, npu_depthwise_avx2_bytes(op));
    if (status == NPU_OK) npu_depthwise_avx2_arrange(&strip);
    while (status == NPU_OK && npu_strip_next(&strip)) npu_depthwise_avx2(&strip);
    return status;
}

static npu_status convolve_avx512(const npu_conv *op, uint8_t *spm, npu_scratch *scratch) {
    npu_strip strip;
    npu_status status = npu_strip_open(&strip, op, spm, scratch, npu_depthwise_avx512_bytes(op));
    if (status == NPU_OK) npu_depthwise_avx512_arrange(&strip);
    while (status == NPU_OK && npu_strip_next(&strip)) npu_depthwise_avx512(&strip);
    return status;
}
#endif

npu_status npu_execute_depthwise(const npu_depthwise *op, uint8_t *spm, npu_scratch *scratch, uint32_t level) {
    const npu_conv window = npu_window_of_depthwise(op);
#if NPU_X86_KERNELS
    if (level == NPU_LEVEL_AVX512) return convolve_avx512(&window, spm, scratch);
    if (level == NPU_LEVEL_AVX2) return convolve_avx2(&window, spm, scratch);
#endif
    (void)scratch, (void)level;
    convolve_portable(&window, spm);
    return NPU_OK;
}
