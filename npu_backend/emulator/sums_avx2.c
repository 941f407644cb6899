/* Sums of halves and of codes with AVX2, F16C and FMA (conv_sums.h, depthwise_sums.h). */
#include "element.h"
#include "matrix.h"

#if NPU_X86_KERNELS
#include <immintrin.h>

#define TARGET __attribute__((target("avx2,fma,f16c")))
#define INLINE static inline __attribute__((always_inline)) TARGET

typedef __m256i REGISTER;
enum { REGISTER_BYTES = sizeof(REGISTER), MAX_PIXELS = 6, MAX_REGISTERS = 4 };

INLINE __m256i zero(void) { return _mm256_setzero_si256(); }

INLINE __m256i load_register(const uint8_t *at) { return _mm256_loadu_si256((const __m256i *)(const void *)at); }

INLINE void store_register(uint8_t *at, __m256i value) { _mm256_storeu_si256((__m256i *)(void *)at, value); }

/* Weights of channels that do not exist are taken as zero whatever the program holds there, since their inputs are
 * bytes of something else. */
INLINE __m256i load_weights(const uint8_t *at, uint32_t channels_left, const int is_float) {
    __m128i packed = _mm_loadu_si128((const __m128i *)(const void *)at);
    if (is_float) return _mm256_castps_si256(_mm256_cvtph_ps(packed));
    const int32_t valid = channels_left >= NPU_WEIGHT_GROUP ? -1 : (int32_t)((1u << (8 * channels_left)) - 1);
    return _mm256_cvtepi8_epi16(_mm_and_si128(packed, _mm_set1_epi32(valid)));
}

INLINE __m256i broadcast(const uint8_t *at, uint16_t flip, const int is_float) {
    if (is_float) {
        int32_t value;
        memcpy(&value, at, sizeof value);
        return _mm256_set1_epi32(value);
    }
    int64_t codes;
    memcpy(&codes, at, sizeof codes);
    return _mm256_xor_si256(_mm256_set1_epi64x(codes), _mm256_set1_epi16((int16_t)flip));
}

INLINE __m256i multiply_add(__m256i sums, __m256i inputs, __m256i weights, const int is_float) {
    if (is_float)
        return _mm256_castps_si256(_mm256_fmadd_ps(_mm256_castsi256_ps(inputs), _mm256_castsi256_ps(weights),
                                                   _mm256_castsi256_ps(sums)));
    return _mm256_add_epi32(sums, _mm256_madd_epi16(inputs, weights));
}

/* There is no arithmetic shift of 64 bits: the signs are put in from lanes of them. */
INLINE __m256i add_pairs(__m256i sums, __m256i pairs) {
    __m256i signs = _mm256_srai_epi32(pairs, 31);
    __m256i low = _mm256_blend_epi32(pairs, _mm256_slli_epi64(signs, 32), 0xaa);
    __m256i high = _mm256_blend_epi32(_mm256_srli_epi64(pairs, 32), signs, 0xaa);
    return _mm256_add_epi64(sums, _mm256_add_epi64(low, high));
}

INLINE __m256i load_lanes(const uint8_t *at, uint32_t type, const npu_sum kind) {
    if (kind == NPU_SUM_FLOAT32) return load_register(at);
    if (type == NPU_TYPE_UINT8) return _mm256_cvtepu8_epi32(_mm_loadl_epi64((const __m128i *)(const void *)at));
    if (type == NPU_TYPE_INT8) return _mm256_cvtepi8_epi32(_mm_loadl_epi64((const __m128i *)(const void *)at));
    __m256i codes = _mm256_cvtepu16_epi32(_mm_loadu_si128((const __m128i *)(const void *)at));
    return type == NPU_TYPE_UINT16 ? _mm256_xor_si256(codes, _mm256_set1_epi32(0x8000)) : codes;
}

INLINE void add_lanes(uint8_t *sums, __m256i lanes) {
    __m256i low = _mm256_cvtepi32_epi64(_mm256_castsi256_si128(lanes));
    __m256i high = _mm256_cvtepi32_epi64(_mm256_extracti128_si256(lanes, 1));
    store_register(sums, _mm256_add_epi64(load_register(sums), low));
    store_register(sums + REGISTER_BYTES, _mm256_add_epi64(load_register(sums + REGISTER_BYTES), high));
}

#include "conv_sums.h"
#include "depthwise_sums.h"

TILE(6, 2) TILE(3, 2) TILE(1, 2)
TILE(3, 4) TILE(1, 4)

static const tile_variant *choose_variants(uint32_t registers_left, uint32_t pixels, int is_float, uint32_t *registers) {
    static const tile_variant of_2[] = {ROW(6, 2), ROW(3, 2), ROW(1, 2)};
    static const tile_variant of_4[] = {ROW(3, 4), ROW(1, 4)};
    /* A block of codes is four registers. Few pixels: more outputs at once, which hides the latency. */
    *registers = !is_float || (registers_left >= 4 && pixels <= 3) ? 4 : 2;
    return *registers == 4 ? of_4 : of_2;
}

void npu_conv_sums_avx2(const npu_strip *strip) { run_strip(strip); }

void npu_depthwise_sums_avx2(const npu_strip *strip) { sum_strip(strip, NPU_LEVEL_AVX2); }
#endif

/* An empty translation unit is not C. */
typedef int npu_sums_avx2_unit;
