/* CONV with AVX2: codes and weights are widened to 16 bits and vpmaddwd multiplies and adds pairs of them exactly.
 * (vpmaddubsw would saturate.) A register of sums holds 4 output channels, each as two halves, added at the end. */
#include "matrix_avx2.h"

#if NPU_X86_KERNELS

enum { QUARTERS = 4, MAX_PIXELS = 3, GROUP_BYTES = NPU_CHANNEL_BLOCK * NPU_WEIGHT_GROUP };

typedef __m256i tile_sums[MAX_PIXELS][QUARTERS];

typedef struct {
    const npu_strip *strip;
    const int8_t *weights;
    uint32_t block;
    npu_rounding rounding;
    npu_block_parameters parameters;
} block_view;

/* The group's four codes, four times over. */
NPU_AVX2_INLINE __m256i broadcast_channels(const uint8_t *address, const int is_signed) {
    int32_t word;
    memcpy(&word, address, sizeof word);
    __m128i codes = _mm_set1_epi32(word);
    return is_signed ? _mm256_cvtepi8_epi16(codes) : _mm256_cvtepu8_epi16(codes);
}

/* Weights of channels that do not exist are taken as zero whatever the program holds there, since their inputs are
 * bytes of something else. */
NPU_AVX2_INLINE __m128i valid_weights(uint32_t channels_left) {
    return _mm_set1_epi32(channels_left >= NPU_WEIGHT_GROUP ? -1 : (int32_t)((1u << (8 * channels_left)) - 1));
}

NPU_AVX2_INLINE void add_group(tile_sums sums, const uint8_t *const *inputs, size_t channel, const int8_t *weights,
                               __m128i valid, const int pixels, const int is_signed) {
    __m256i codes[MAX_PIXELS];
#pragma GCC unroll 3
    for (int p = 0; p < pixels; p++) codes[p] = broadcast_channels(inputs[p] + channel, is_signed);
#pragma GCC unroll 4
    for (int q = 0; q < QUARTERS; q++) {
        __m128i bytes = _mm_loadu_si128((const __m128i *)(const void *)(weights + 16 * q));
        __m256i weight = _mm256_cvtepi8_epi16(_mm_and_si128(bytes, valid));
#pragma GCC unroll 3
        for (int p = 0; p < pixels; p++)
            sums[p][q] = _mm256_add_epi32(sums[p][q], _mm256_madd_epi16(codes[p], weight));
    }
}

NPU_AVX2_INLINE void add_all_channels(tile_sums sums, const block_view *view, uint32_t pixel, const int pixels,
                                      const int is_signed) {
    const npu_strip *strip = view->strip;
    const uint32_t channels = strip->op->input_channels;
    const int8_t *weights = view->weights;
    for (uint32_t chunk = 0; chunk < channels; chunk += NPU_WEIGHT_CHUNK) {
        const uint32_t end = npu_smaller(channels, chunk + NPU_WEIGHT_CHUNK);
        const uint8_t *const *inputs = strip->inputs + pixel;
        for (uint32_t tap = 0; tap < strip->taps; tap++, inputs += strip->capacity)
            for (uint32_t channel = chunk; channel < end; channel += NPU_WEIGHT_GROUP, weights += GROUP_BYTES)
                add_group(sums, inputs, channel, weights, valid_weights(end - channel), pixels, is_signed);
    }
}

/* Adds the halves of 8 output channels and puts them in order. */
NPU_AVX2_INLINE __m256i add_halves(__m256i low, __m256i high) {
    return _mm256_permute4x64_epi64(_mm256_hadd_epi32(low, high), 0xd8);
}

NPU_AVX2_INLINE void finish_pixel(const block_view *view, uint32_t pixel, __m256i low, __m256i high) {
    const npu_strip *strip = view->strip;
    const npu_conv *op = strip->op;
    const uint64_t blocks = npu_divide_up(op->output_channels, NPU_CHANNEL_BLOCK);
    const uint64_t at = (pixel * blocks + view->block) * (2 * sizeof(__m256i));
    if (strip->loaded) {
        const __m256i *loaded = (const __m256i *)(const void *)(strip->loaded + at);
        low = _mm256_add_epi32(low, _mm256_loadu_si256(loaded));
        high = _mm256_add_epi32(high, _mm256_loadu_si256(loaded + 1));
    }
    if (strip->kept) {
        __m256i *kept = (__m256i *)(void *)(strip->kept + at);
        _mm256_storeu_si256(kept, low);
        _mm256_storeu_si256(kept + 1, high);
        return;
    }
    const __m256i *bias = (const __m256i *)(const void *)view->parameters.bias;
    const float *multiplier = view->parameters.multiplier;
    low = npu_requantize_avx2(low, _mm256_loadu_si256(bias), _mm256_loadu_ps(multiplier), &view->rounding);
    high = npu_requantize_avx2(high, _mm256_loadu_si256(bias + 1), _mm256_loadu_ps(multiplier + 8), &view->rounding);
    npu_store_codes_avx2(strip->outputs[pixel] + (size_t)view->block * NPU_CHANNEL_BLOCK,
                         npu_block_channels(op, view->block), low, high);
}

NPU_AVX2_INLINE void run_tile(const block_view *view, uint32_t pixel, const int pixels, const int is_signed) {
    tile_sums sums;
#pragma GCC unroll 3
    for (int p = 0; p < pixels; p++)
#pragma GCC unroll 4
        for (int q = 0; q < QUARTERS; q++) sums[p][q] = _mm256_setzero_si256();
    add_all_channels(sums, view, pixel, pixels, is_signed);
#pragma GCC unroll 3
    for (int p = 0; p < pixels; p++)
        finish_pixel(view, pixel + (uint32_t)p, add_halves(sums[p][0], sums[p][1]), add_halves(sums[p][2], sums[p][3]));
}

NPU_AVX2_INLINE void run_block(const block_view *view, const int is_signed) {
    const uint32_t count = view->strip->count;
    uint32_t pixel = 0;
    for (; pixel + 3 <= count; pixel += 3) run_tile(view, pixel, 3, is_signed);
    for (; pixel < count; pixel++) run_tile(view, pixel, 1, is_signed);
}

NPU_AVX2 void npu_conv_avx2(const npu_strip *strip) {
    const npu_conv *op = strip->op;
    const uint32_t blocks = (uint32_t)npu_divide_up(op->output_channels, NPU_CHANNEL_BLOCK);
    for (uint32_t block = 0; block < blocks; block++) {
        const block_view view = {strip, npu_block_weights(op, strip->spm, block), block, npu_rounding_of(op),
                                 npu_load_parameters(op, strip->spm, block)};
        if (op->input_type == NPU_TYPE_INT8)
            run_block(&view, 1);
        else
            run_block(&view, 0);
    }
}
#endif

/* An empty translation unit is not C. */
typedef int npu_conv_avx2_unit;
