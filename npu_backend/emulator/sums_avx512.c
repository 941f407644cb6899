/* Sums of halves and of codes with AVX-512 (conv_sums.h, depthwise_sums.h). */
#include "element.h"
#include "matrix.h"

#if NPU_X86_KERNELS
#include <immintrin.h>

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
#endif

/* An empty translation unit is not C. */
typedef int npu_sums_avx512_unit;
