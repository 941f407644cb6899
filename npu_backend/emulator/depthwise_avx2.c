/* DEPTHWISE with AVX2, 16 channels at a time: two taps' codes of a channel are interleaved and widened to 16 bits, and
 * vpmaddwd multiplies them with the two weights and adds the products exactly. (vpmaddubsw would saturate.) */
#include "matrix_avx2.h"

#if NPU_X86_KERNELS

enum { TAPS = 2, HALVES = 2 };

/* One block's parameters, followed by [pairs of taps][HALVES] registers of weights, 8 channels each. */
typedef struct {
    npu_block_parameters parameters;
    __m256i weights[];
} arranged;

static size_t arranged_bytes(uint64_t taps) {
    return sizeof(arranged) + npu_divide_up(taps, TAPS) * HALVES * sizeof(__m256i);
}

uint64_t npu_depthwise_avx2_bytes(const npu_conv *op) {
    uint64_t taps = (uint64_t)op->kernel_height * op->kernel_width;
    return npu_divide_up(op->output_channels, NPU_CHANNEL_BLOCK) * arranged_bytes(taps);
}

static arranged *arranged_at(const npu_strip *strip, uint32_t block) {
    return (arranged *)(void *)(strip->extra + block * arranged_bytes(strip->taps));
}

static void arrange_block(const npu_strip *strip, uint32_t block) {
    const npu_conv *op = strip->op;
    const int8_t *weights = npu_block_weights(op, strip->spm, block);
    arranged *to = arranged_at(strip, block);
    to->parameters = npu_load_parameters(op, strip->spm, block);
    int16_t *pair = (int16_t *)(void *)to->weights;
    for (uint32_t tap = 0; tap < strip->taps; tap += TAPS)
        for (uint32_t c = 0; c < NPU_CHANNEL_BLOCK; c++) {
            *pair++ = weights[tap * NPU_CHANNEL_BLOCK + c];
            *pair++ = tap + 1 < strip->taps ? weights[(tap + 1) * NPU_CHANNEL_BLOCK + c] : (int8_t)0;
        }
}

static void arrange(const npu_strip *strip) {
    uint32_t blocks = (uint32_t)npu_divide_up(strip->op->output_channels, NPU_CHANNEL_BLOCK);
    for (uint32_t block = 0; block < blocks; block++) arrange_block(strip, block);
}

NPU_AVX2_INLINE __m256i widen(__m128i codes, const int is_signed) {
    return is_signed ? _mm256_cvtepi8_epi16(codes) : _mm256_cvtepu8_epi16(codes);
}

NPU_AVX2_INLINE __m128i load_codes(const uint8_t *address) {
    return _mm_loadu_si128((const __m128i *)(const void *)address);
}

NPU_AVX2_INLINE void run_block(const npu_strip *strip, uint32_t block, const uint32_t taps, const int is_signed) {
    const arranged *from = arranged_at(strip, block);
    const npu_rounding rounding = npu_rounding_of(strip->op);
    const uint32_t channel = block * NPU_CHANNEL_BLOCK, channels = npu_block_channels(strip->op, block);
    const __m256i *bias = (const __m256i *)(const void *)from->parameters.bias;
    const float *multiplier = from->parameters.multiplier;
    for (uint32_t pixel = 0; pixel < strip->count; pixel++) {
        const uint8_t *const *inputs = strip->inputs + pixel;
        __m256i low = _mm256_setzero_si256(), high = _mm256_setzero_si256();
#pragma GCC unroll 5
        for (uint32_t tap = 0; tap < taps; tap += TAPS, inputs += TAPS * (size_t)strip->capacity) {
            __m128i even = load_codes(inputs[0] + channel);
            __m128i odd = tap + 1 < taps ? load_codes(inputs[strip->capacity] + channel) : _mm_setzero_si128();
            __m256i low_codes = widen(_mm_unpacklo_epi8(even, odd), is_signed);
            __m256i high_codes = widen(_mm_unpackhi_epi8(even, odd), is_signed);
            low = _mm256_add_epi32(low, _mm256_madd_epi16(low_codes, from->weights[tap]));
            high = _mm256_add_epi32(high, _mm256_madd_epi16(high_codes, from->weights[tap + 1]));
        }
        low = npu_requantize_avx2(low, _mm256_loadu_si256(bias), _mm256_loadu_ps(multiplier), &rounding);
        high = npu_requantize_avx2(high, _mm256_loadu_si256(bias + 1), _mm256_loadu_ps(multiplier + 8), &rounding);
        npu_store_codes_avx2(strip->outputs[pixel] + channel, channels, low, high);
    }
}

NPU_AVX2 void npu_depthwise_avx2(const npu_strip *strip) {
    if (strip->first == 0) arrange(strip);
    const int is_signed = strip->op->input_type == NPU_TYPE_INT8;
    const uint32_t blocks = (uint32_t)npu_divide_up(strip->op->output_channels, NPU_CHANNEL_BLOCK);
    for (uint32_t block = 0; block < blocks; block++) {
        if (strip->taps == 9 && is_signed)
            run_block(strip, block, 9, 1);
        else if (strip->taps == 9)
            run_block(strip, block, 9, 0);
        else
            run_block(strip, block, strip->taps, is_signed);
    }
}
#endif

/* An empty translation unit is not C. */
typedef int npu_depthwise_avx2_unit;
