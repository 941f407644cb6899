/* CONV with AVX-512 VNNI: a tile of output pixels times blocks of 16 output channels stays in registers; one load
 * broadcasts four input channels of a pixel, one vpdpbusd multiplies them with a block's weights (unsigned times
 * signed, without saturation). int8 inputs become unsigned by flipping the sign bit, which adds 128 to each; 128 times
 * the sum of the weights is taken off at the start. */
#include "matrix.h"

#if NPU_X86_KERNELS
#include <immintrin.h>

#define AVX512 __attribute__((target("avx512f,avx512bw,avx512vl,avx512vnni")))
#define INLINE static inline __attribute__((always_inline)) AVX512

enum { LANES = NPU_CHANNEL_BLOCK, GROUP_BYTES = NPU_CHANNEL_BLOCK * NPU_WEIGHT_GROUP, MAX_BLOCKS = 4, MAX_PIXELS = 14 };

typedef __m512i tile_sums[MAX_PIXELS][MAX_BLOCKS];

/* What the tiles of the same blocks share. */
typedef struct {
    const npu_strip *strip;
    const int8_t *weights;
    uint32_t first_block;
    npu_rounding rounding;
    __m512i start[MAX_BLOCKS]; /* minus 128 times the sum of the weights, for int8 inputs */
    __m512i bias[MAX_BLOCKS];
    __m512 multiplier[MAX_BLOCKS];
    __mmask16 outputs[MAX_BLOCKS];
} block_group;

/* Weights of channels that do not exist are taken as zero whatever the program holds there, since their inputs are
 * bytes of something else. */
INLINE __mmask64 valid_weights(uint32_t channels_left) {
    const __mmask64 first_of_each_group = 0x1111111111111111u;
    return channels_left >= NPU_WEIGHT_GROUP ? ~(__mmask64)0 : first_of_each_group * ((1u << channels_left) - 1);
}

INLINE __m512i broadcast_channels(const uint8_t *address, const int is_signed) {
    int32_t word;
    memcpy(&word, address, sizeof word);
    __m512i codes = _mm512_set1_epi32(word);
    return is_signed ? _mm512_xor_si512(codes, _mm512_set1_epi8((char)0x80)) : codes;
}

INLINE void add_group(tile_sums sums, const uint8_t *const *inputs, size_t channel, const int8_t *weights,
                      size_t block_bytes, __mmask64 valid, const int pixels, const int blocks, const int is_signed) {
    __m512i weight[MAX_BLOCKS];
#pragma GCC unroll 4
    for (int b = 0; b < blocks; b++) weight[b] = _mm512_maskz_loadu_epi8(valid, weights + b * block_bytes);
#pragma GCC unroll 14
    for (int p = 0; p < pixels; p++) {
        __m512i codes = broadcast_channels(inputs[p] + channel, is_signed);
#pragma GCC unroll 4
        for (int b = 0; b < blocks; b++) sums[p][b] = _mm512_dpbusd_epi32(sums[p][b], codes, weight[b]);
    }
}

INLINE void add_all_channels(tile_sums sums, const block_group *group, uint32_t pixel, const int pixels,
                             const int blocks, const int is_signed) {
    const npu_strip *strip = group->strip;
    const uint32_t channels = strip->op->input_channels;
    const size_t block_bytes = strip->op->block_bytes;
    const int8_t *weights = group->weights;
    for (uint32_t chunk = 0; chunk < channels; chunk += NPU_WEIGHT_CHUNK) {
        const uint32_t end = npu_smaller(channels, chunk + NPU_WEIGHT_CHUNK);
        const uint8_t *const *inputs = strip->inputs + pixel;
        for (uint32_t tap = 0; tap < strip->taps; tap++, inputs += strip->capacity)
            for (uint32_t channel = chunk; channel < end; channel += NPU_WEIGHT_GROUP, weights += GROUP_BYTES)
                add_group(sums, inputs, channel, weights, block_bytes, valid_weights(end - channel), pixels, blocks,
                          is_signed);
    }
}

/* Where the sums of the group's first block at a pixel of the strip lie; the next block's follow. */
static inline uint64_t sums_offset(const block_group *group, uint64_t pixel) {
    uint64_t blocks = npu_divide_up(group->strip->op->output_channels, LANES);
    return (pixel * blocks + group->first_block) * sizeof(__m512i);
}

INLINE void load_sums(tile_sums sums, const block_group *group, uint32_t pixel, uint32_t count, const int pixels,
                      const int blocks) {
#pragma GCC unroll 14
    for (int p = 0; p < pixels; p++) {
        if ((uint32_t)p >= count) break;
        const uint8_t *loaded = group->strip->loaded + sums_offset(group, pixel + (uint32_t)p);
#pragma GCC unroll 4
        for (int b = 0; b < blocks; b++)
            sums[p][b] = _mm512_add_epi32(sums[p][b], _mm512_loadu_si512(loaded + b * sizeof(__m512i)));
    }
}

INLINE void store_sums(tile_sums sums, const block_group *group, uint32_t pixel, uint32_t count, const int pixels,
                       const int blocks) {
#pragma GCC unroll 14
    for (int p = 0; p < pixels; p++) {
        if ((uint32_t)p >= count) break;
        uint8_t *kept = group->strip->kept + sums_offset(group, pixel + (uint32_t)p);
#pragma GCC unroll 4
        for (int b = 0; b < blocks; b++) _mm512_storeu_si512(kept + b * sizeof(__m512i), sums[p][b]);
    }
}

INLINE __m128i requantize(__m512i sums, __m512i bias, __m512 multiplier, __m512 low, __m512 high, __m512i zero_point) {
    __m512 value = _mm512_mul_ps(_mm512_cvtepi32_ps(_mm512_add_epi32(sums, bias)), multiplier);
    value = _mm512_min_ps(_mm512_max_ps(value, low), high);
    return _mm512_cvtepi32_epi8(_mm512_add_epi32(_mm512_cvtps_epi32(value), zero_point));
}

/* Only the last block can be partial. The locals are what stores through uint8_t pointers cannot change. */
INLINE void store_codes(tile_sums sums, const block_group *group, uint32_t pixel, uint32_t count, const int pixels,
                        const int blocks) {
    const __m512 low = _mm512_set1_ps(group->rounding.low), high = _mm512_set1_ps(group->rounding.high);
    const __m512i zero_point = _mm512_set1_epi32(group->rounding.zero_point);
    const __mmask16 last = group->outputs[blocks - 1];
    const size_t offset = (size_t)group->first_block * LANES;
    uint8_t *const *outputs = group->strip->outputs + pixel;
    __m512i bias[MAX_BLOCKS];
    __m512 multiplier[MAX_BLOCKS];
#pragma GCC unroll 4
    for (int b = 0; b < blocks; b++) bias[b] = group->bias[b], multiplier[b] = group->multiplier[b];
#pragma GCC unroll 14
    for (int p = 0; p < pixels; p++) {
        if ((uint32_t)p >= count) break;
        uint8_t *output = outputs[p] + offset;
#pragma GCC unroll 4
        for (int b = 0; b < blocks; b++) {
            __m128i codes = requantize(sums[p][b], bias[b], multiplier[b], low, high, zero_point);
            if (b < blocks - 1 || last == 0xffff)
                _mm_storeu_si128((__m128i *)(void *)(output + b * LANES), codes);
            else
                _mm_mask_storeu_epi8(output + b * LANES, last, codes);
        }
    }
}

/* `count` of the tile's `pixels` exist. */
INLINE void run_tile(const block_group *group, uint32_t pixel, uint32_t count, const int pixels, const int blocks,
                     const int is_signed) {
    tile_sums sums;
#pragma GCC unroll 14
    for (int p = 0; p < pixels; p++)
#pragma GCC unroll 4
        for (int b = 0; b < blocks; b++) sums[p][b] = group->start[b];
    add_all_channels(sums, group, pixel, pixels, blocks, is_signed);
    if (group->strip->loaded) load_sums(sums, group, pixel, count, pixels, blocks);
    if (group->strip->kept)
        store_sums(sums, group, pixel, count, pixels, blocks);
    else
        store_codes(sums, group, pixel, count, pixels, blocks);
}

typedef void tile_function(const block_group *group, uint32_t pixel, uint32_t count);

#define TILE(pixels, blocks) \
    AVX512 static void tile_##pixels##x##blocks##_unsigned(const block_group *group, uint32_t pixel, uint32_t count) { \
        run_tile(group, pixel, count, pixels, blocks, 0); \
    } \
    AVX512 static void tile_##pixels##x##blocks##_signed(const block_group *group, uint32_t pixel, uint32_t count) { \
        run_tile(group, pixel, count, pixels, blocks, 1); \
    }
#define ROW(pixels, blocks) {pixels, {tile_##pixels##x##blocks##_unsigned, tile_##pixels##x##blocks##_signed}}

TILE(14, 1) TILE(8, 1) TILE(4, 1) TILE(1, 1)
TILE(14, 2) TILE(10, 2) TILE(7, 2) TILE(4, 2) TILE(2, 2) TILE(1, 2)
TILE(4, 4) TILE(2, 4) TILE(1, 4)

typedef struct {
    uint32_t pixels;
    tile_function *run[2]; /* by is_signed */
} tile_variant;

/* Largest first, ending in one pixel. */
static const tile_variant variants_of_1[] = {ROW(14, 1), ROW(8, 1), ROW(4, 1), ROW(1, 1)};
static const tile_variant variants_of_2[] = {ROW(14, 2), ROW(10, 2), ROW(7, 2), ROW(4, 2), ROW(2, 2), ROW(1, 2)};
static const tile_variant variants_of_4[] = {ROW(4, 4), ROW(2, 4), ROW(1, 4)};

/* The smallest variant that holds the pixels left, or the largest one. */
static const tile_variant *choose(const tile_variant *variants, uint32_t left) {
    while (variants->pixels > 1 && variants[1].pixels >= left) variants++;
    return variants;
}

AVX512 static __m512i signed_start(const npu_conv *op, const int8_t *weights) {
    const uint64_t taps = (uint64_t)op->kernel_height * op->kernel_width;
    __m512i sums = _mm512_setzero_si512();
    if (op->input_type != NPU_TYPE_INT8) return sums;
    for (uint32_t chunk = 0; chunk < op->input_channels; chunk += NPU_WEIGHT_CHUNK) {
        const uint32_t end = npu_smaller(op->input_channels, chunk + NPU_WEIGHT_CHUNK);
        for (uint64_t tap = 0; tap < taps; tap++)
            for (uint32_t channel = chunk; channel < end; channel += NPU_WEIGHT_GROUP, weights += GROUP_BYTES)
                sums = _mm512_dpbusd_epi32(sums, _mm512_set1_epi8(1),
                                           _mm512_maskz_loadu_epi8(valid_weights(end - channel), weights));
    }
    return _mm512_sub_epi32(_mm512_setzero_si512(), _mm512_slli_epi32(sums, 7));
}

AVX512 static void load_group(block_group *group, uint32_t blocks) {
    const npu_conv *op = group->strip->op;
    group->weights = npu_block_weights(op, group->strip->spm, group->first_block);
    for (uint32_t b = 0; b < blocks; b++) {
        const uint32_t block = group->first_block + b;
        const npu_block_parameters parameters = npu_load_parameters(op, group->strip->spm, block);
        group->start[b] = signed_start(op, npu_block_weights(op, group->strip->spm, block));
        group->bias[b] = _mm512_loadu_si512(parameters.bias);
        group->multiplier[b] = _mm512_loadu_ps(parameters.multiplier);
        group->outputs[b] = (__mmask16)((1u << npu_block_channels(op, block)) - 1);
    }
}

AVX512 void npu_conv_avx512(const npu_strip *strip) {
    const npu_conv *op = strip->op;
    const int is_signed = op->input_type == NPU_TYPE_INT8;
    const uint32_t blocks = (uint32_t)npu_divide_up(op->output_channels, LANES);
    block_group group = {.strip = strip, .rounding = npu_rounding_of(op)};
    for (uint32_t taken; group.first_block < blocks; group.first_block += taken) {
        const uint32_t left = blocks - group.first_block;
        /* Few pixels: more blocks at once, so that enough sums are under way to hide the latency. */
        const tile_variant *variants = variants_of_1;
        taken = 1;
        if (left >= 2) variants = variants_of_2, taken = 2;
        if (left >= 4 && strip->count <= 4) variants = variants_of_4, taken = 4;
        load_group(&group, taken);
        for (uint32_t pixel = 0; pixel < strip->count;) {
            const tile_variant *tile = choose(variants, strip->count - pixel);
            const uint32_t count = npu_smaller(tile->pixels, strip->count - pixel);
            tile->run[is_signed](&group, pixel, count);
            pixel += count;
        }
    }
}
#endif

/* An empty translation unit is not C. */
typedef int npu_conv_avx512_unit;
