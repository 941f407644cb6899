/* Sums of halves and of codes with AVX-512 (conv_sums.h, depthwise_sums.h), and the ways between halves and float32. */
#include "matrix.h"

#if NPU_X86_KERNELS
#include <immintrin.h>
#include <math.h>

#define TARGET __attribute__((target("avx512f,avx512bw,avx512vl,avx512vnni")))
#define INLINE static inline __attribute__((always_inline)) TARGET

typedef __m512i REGISTER;
enum { REGISTER_BYTES = sizeof(REGISTER), MAX_PIXELS = 14, MAX_REGISTERS = 4 };

INLINE __m512i zero(void) { return _mm512_setzero_si512(); }

INLINE __m512i load_register(const uint8_t *at) { return _mm512_loadu_si512(at); }

INLINE void store_register(uint8_t *at, __m512i value) { _mm512_storeu_si512(at, value); }

/* Weights of channels that do not exist are taken as zero whatever the program holds there, since their inputs are
 * bytes of something else. */
INLINE __m512i load_weights(const uint8_t *at, uint32_t channels_left, const int is_float) {
    __m256i packed = _mm256_loadu_si256((const __m256i *)(const void *)at);
    if (is_float) return _mm512_castps_si512(_mm512_cvtph_ps(packed));
    const __mmask32 valid = channels_left >= NPU_WEIGHT_GROUP ? ~(__mmask32)0 : 0x11111111u * ((1u << channels_left) - 1);
    return _mm512_cvtepi8_epi16(_mm256_maskz_mov_epi8(valid, packed));
}

INLINE __m512i broadcast(const uint8_t *at, uint16_t flip, const int is_float) {
    if (is_float) {
        int32_t value;
        memcpy(&value, at, sizeof value);
        return _mm512_set1_epi32(value);
    }
    int64_t codes;
    memcpy(&codes, at, sizeof codes);
    return _mm512_xor_si512(_mm512_set1_epi64(codes), _mm512_set1_epi16((int16_t)flip));
}

INLINE __m512i multiply_add(__m512i sums, __m512i inputs, __m512i weights, const int is_float) {
    if (is_float)
        return _mm512_castps_si512(_mm512_fmadd_ps(_mm512_castsi512_ps(inputs), _mm512_castsi512_ps(weights),
                                                   _mm512_castsi512_ps(sums)));
    return _mm512_dpwssd_epi32(sums, inputs, weights);
}

INLINE __m512i add_pairs(__m512i sums, __m512i pairs) {
    __m512i low = _mm512_srai_epi64(_mm512_slli_epi64(pairs, 32), 32), high = _mm512_srai_epi64(pairs, 32);
    return _mm512_add_epi64(sums, _mm512_add_epi64(low, high));
}

INLINE __m512i load_lanes(const uint8_t *at, uint32_t type, const npu_sum kind) {
    if (kind == NPU_SUM_FLOAT32) return _mm512_loadu_si512(at);
    if (type == NPU_TYPE_UINT8) return _mm512_cvtepu8_epi32(_mm_loadu_si128((const __m128i *)(const void *)at));
    if (type == NPU_TYPE_INT8) return _mm512_cvtepi8_epi32(_mm_loadu_si128((const __m128i *)(const void *)at));
    __m512i codes = _mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i *)(const void *)at));
    return type == NPU_TYPE_UINT16 ? _mm512_xor_si512(codes, _mm512_set1_epi32(0x8000)) : codes;
}

INLINE void add_lanes(uint8_t *sums, __m512i lanes) {
    __m512i low = _mm512_cvtepi32_epi64(_mm512_castsi512_si256(lanes));
    __m512i high = _mm512_cvtepi32_epi64(_mm512_extracti64x4_epi64(lanes, 1));
    store_register(sums, _mm512_add_epi64(load_register(sums), low));
    store_register(sums + REGISTER_BYTES, _mm512_add_epi64(load_register(sums + REGISTER_BYTES), high));
}

#include "conv_sums.h"
#include "depthwise_sums.h"

TILE(14, 1) TILE(4, 1) TILE(1, 1)
TILE(14, 2) TILE(7, 2) TILE(4, 2) TILE(1, 2)
TILE(4, 4) TILE(2, 4) TILE(1, 4)

static const tile_variant *choose_variants(uint32_t registers_left, uint32_t pixels, int is_float, uint32_t *registers) {
    static const tile_variant of_1[] = {ROW(14, 1), ROW(4, 1), ROW(1, 1)};
    static const tile_variant of_2[] = {ROW(14, 2), ROW(7, 2), ROW(4, 2), ROW(1, 2)};
    static const tile_variant of_4[] = {ROW(4, 4), ROW(2, 4), ROW(1, 4)};
    (void)is_float;
    /* Few pixels: more outputs at once, so that enough sums are under way to hide the latency. */
    *registers = registers_left >= 4 && pixels <= 4 ? 4 : npu_smaller(registers_left, 2);
    return *registers == 4 ? of_4 : *registers == 2 ? of_2 : of_1;
}

void npu_conv_sums_avx512(const npu_strip *strip) { run_strip(strip); }

void npu_depthwise_sums_avx512(const npu_strip *strip) { sum_strip(strip, NPU_LEVEL_AVX512); }

TARGET void npu_to_floats_avx512(const uint8_t *halves, float *floats, uint64_t count) {
    uint64_t i = 0;
    for (; i + 16 <= count; i += 16)
        _mm512_storeu_ps(floats + i, _mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *)(const void *)(halves + 2 * i))));
    const __mmask16 left = (__mmask16)((1u << (count - i)) - 1);
    _mm512_mask_storeu_ps(floats + i, left, _mm512_cvtph_ps(_mm256_maskz_loadu_epi16(left, halves + 2 * i)));
}

/* As npu_float_to_half, which keeps finite values finite and gives every NaN the same fraction. */
TARGET static __m256i to_halves(__m512 values) {
    const __m512 largest = _mm512_set1_ps(65504.0f), lowest = _mm512_set1_ps(-65504.0f);
    const __mmask16 finite = _mm512_cmp_ps_mask(_mm512_abs_ps(values), _mm512_set1_ps(INFINITY), _CMP_LT_OQ);
    const __m512i canonical = _mm512_or_si512(
        _mm512_and_si512(_mm512_castps_si512(values), _mm512_set1_epi32(INT32_MIN)), _mm512_set1_epi32(0x7FC00000));
    const __mmask16 is_nan = _mm512_cmp_ps_mask(values, values, _CMP_UNORD_Q);
    const __m512 special = _mm512_mask_mov_ps(values, is_nan, _mm512_castsi512_ps(canonical));
    const __m512 bounded = _mm512_mask_max_ps(special, finite, _mm512_min_ps(values, largest), lowest);
    return _mm512_cvtps_ph(bounded, _MM_FROUND_TO_NEAREST_INT);
}

TARGET void npu_finish_halves_avx512(const npu_strip *strip) {
    const npu_conv *op = strip->op;
    const uint32_t blocks = (uint32_t)npu_divide_up(op->output_channels, NPU_CHANNEL_BLOCK);
    for (uint32_t block = 0; block < blocks; block++) {
        const uint8_t *parameters = strip->spm + op->parameters + (uint64_t)block * op->block_bytes;
        const __m512 bias = _mm512_loadu_ps(parameters), multiplier = _mm512_loadu_ps(parameters + REGISTER_BYTES);
        const __mmask16 valid = (__mmask16)((1u << npu_block_channels(op, block)) - 1);
        for (uint32_t pixel = 0; pixel < strip->count; pixel++) {
            const __m512 sums = _mm512_loadu_ps(strip->kept + ((size_t)pixel * blocks + block) * REGISTER_BYTES);
            const __m256i halves = to_halves(_mm512_mul_ps(_mm512_add_ps(sums, bias), multiplier));
            uint8_t *output = strip->outputs[pixel] + (size_t)block * sizeof halves;
            if (valid == 0xffff)
                _mm256_storeu_si256((__m256i *)(void *)output, halves);
            else
                _mm256_mask_storeu_epi16(output, valid, halves);
        }
    }
}
#endif

/* An empty translation unit is not C. */
typedef int npu_sums_avx512_unit;
