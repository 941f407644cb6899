/* Requantisation of 16 sums with AVX2. */
#ifndef NPU_MATRIX_AVX2_H
#define NPU_MATRIX_AVX2_H

#include "matrix.h"

#if NPU_X86_KERNELS
#include <immintrin.h>

#define NPU_AVX2 __attribute__((target("avx2")))
#define NPU_AVX2_INLINE static inline __attribute__((always_inline)) NPU_AVX2

NPU_AVX2_INLINE __m256i npu_requantize_avx2(__m256i sums, __m256i bias, __m256 multiplier,
                                            const npu_rounding *rounding) {
    __m256 value = _mm256_mul_ps(_mm256_cvtepi32_ps(_mm256_add_epi32(sums, bias)), multiplier);
    value = _mm256_max_ps(value, _mm256_set1_ps(rounding->low));
    value = _mm256_min_ps(value, _mm256_set1_ps(rounding->high));
    return _mm256_add_epi32(_mm256_cvtps_epi32(value), _mm256_set1_epi32(rounding->zero_point));
}

/* The low bytes of 16 codes, of which the first `channels` are written. */
NPU_AVX2_INLINE void npu_store_codes_avx2(uint8_t *output, uint32_t channels, __m256i low, __m256i high) {
    __m256i words = _mm256_permute4x64_epi64(_mm256_packs_epi32(low, high), 0xd8);
    words = _mm256_and_si256(words, _mm256_set1_epi16(0xff));
    __m128i codes = _mm_packus_epi16(_mm256_castsi256_si128(words), _mm256_extracti128_si256(words, 1));
    if (channels == NPU_CHANNEL_BLOCK) {
        _mm_storeu_si128((__m128i *)(void *)output, codes);
        return;
    }
    uint8_t bytes[NPU_CHANNEL_BLOCK];
    _mm_storeu_si128((__m128i *)(void *)bytes, codes);
    memcpy(output, bytes, channels);
}
#endif

#endif
