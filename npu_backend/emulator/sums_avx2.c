/* Sums of halves and of codes with AVX2, F16C and FMA (conv_sums.h, depthwise_sums.h), and the ways between halves and
 * float32. */
#include "matrix.h"

#if NPU_X86_KERNELS
#include <immintrin.h>
#include <math.h>

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

TARGET void npu_to_floats_avx2(const uint8_t *halves, float *floats, uint64_t count) {
    uint64_t i = 0;
    for (; i + 8 <= count; i += 8)
        _mm256_storeu_ps(floats + i, _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)(const void *)(halves + 2 * i))));
    for (; i < count; i++) {
        uint16_t half;
        memcpy(&half, halves + 2 * i, sizeof half);
        floats[i] = _cvtsh_ss(half);
    }
}

/* As npu_float_to_half, which keeps finite values finite and gives every NaN the same fraction. */
TARGET static __m128i to_halves(__m256 values) {
    const __m256 magnitude = _mm256_andnot_ps(_mm256_set1_ps(-0.0f), values), largest = _mm256_set1_ps(65504.0f);
    const __m256 finite = _mm256_cmp_ps(magnitude, _mm256_set1_ps(INFINITY), _CMP_LT_OQ);
    const __m256 bounded = _mm256_max_ps(_mm256_min_ps(values, largest), _mm256_sub_ps(_mm256_setzero_ps(), largest));
    const __m256 canonical = _mm256_or_ps(_mm256_and_ps(values, _mm256_set1_ps(-0.0f)), _mm256_set1_ps(NAN));
    const __m256 is_nan = _mm256_cmp_ps(values, values, _CMP_UNORD_Q);
    const __m256 special = _mm256_blendv_ps(values, canonical, is_nan);
    return _mm256_cvtps_ph(_mm256_blendv_ps(special, bounded, finite), _MM_FROUND_TO_NEAREST_INT);
}

TARGET static void finish_block(const float *sums, const float *parameters, uint8_t *output, uint32_t channels) {
    __m128i halves[2];
    for (int i = 0; i < 2; i++) {
        const __m256 total = _mm256_add_ps(_mm256_loadu_ps(sums + 8 * i), _mm256_loadu_ps(parameters + 8 * i));
        halves[i] = to_halves(_mm256_mul_ps(total, _mm256_loadu_ps(parameters + NPU_CHANNEL_BLOCK + 8 * i)));
    }
    memcpy(output, halves, channels * sizeof(uint16_t));
}

TARGET void npu_finish_halves_avx2(const npu_strip *strip) {
    const npu_conv *op = strip->op;
    const uint32_t blocks = (uint32_t)npu_divide_up(op->output_channels, NPU_CHANNEL_BLOCK);
    const float *sums = (const float *)(const void *)strip->kept;
    for (uint32_t block = 0; block < blocks; block++) {
        const uint32_t channels = npu_block_channels(op, block);
        float parameters[2 * NPU_CHANNEL_BLOCK];
        memcpy(parameters, strip->spm + op->parameters + (uint64_t)block * op->block_bytes, sizeof parameters);
        for (uint32_t pixel = 0; pixel < strip->count; pixel++) {
            const float *from = sums + ((size_t)pixel * blocks + block) * NPU_CHANNEL_BLOCK;
            uint8_t *output = strip->outputs[pixel] + (size_t)block * NPU_CHANNEL_BLOCK * sizeof(uint16_t);
            if (channels == NPU_CHANNEL_BLOCK)
                finish_block(from, parameters, output, NPU_CHANNEL_BLOCK);
            else
                finish_block(from, parameters, output, channels);
        }
    }
}
#endif

/* An empty translation unit is not C. */
typedef int npu_sums_avx2_unit;
