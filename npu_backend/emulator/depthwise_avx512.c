/* DEPTHWISE with AVX-512 VNNI, 64 channels at a time. Four taps' bytes of a channel are interleaved into one 32-bit
 * lane, which vpdpbusd multiplies with the same four taps' weights. Interleaving works inside 128-bit lanes: register j
 * of four holds, in its lane l, the channels 16 l + 4 j .. + 3. Weights and parameters are arranged likewise
 * beforehand, and narrowing at the end restores the order. Where at most 32 channels are left, the upper half of every
 * register serves the next pixel. int8 inputs: see conv_avx512.c. */
#include "matrix.h"

#if NPU_X86_KERNELS
#include <immintrin.h>

#define AVX512 __attribute__((target("avx512f,avx512bw,avx512vl,avx512vnni")))
#define INLINE static inline __attribute__((always_inline)) AVX512

enum { CHANNELS = 64, HALF = CHANNELS / 2, REGISTERS = 4, TAPS = 4, BLOCKS = CHANNELS / NPU_CHANNEL_BLOCK };

/* How the channels from one on fill a register. */
typedef enum { FULL, PART, PAIR, SHAPES } shape;

static shape shape_at(const npu_conv *op, uint32_t channel) {
    const uint32_t left = op->output_channels - channel;
    return left >= CHANNELS ? FULL : left > HALF ? PART : PAIR;
}

/* 64 channels' parameters, followed by [groups of four taps][REGISTERS] registers of weights. */
typedef struct {
    __m512i bias[REGISTERS]; /* minus 128 times the sum of the weights, for int8 inputs */
    __m512 multiplier[REGISTERS];
    __m512i weights[];
} arranged;

static size_t arranged_bytes(uint64_t taps) {
    return sizeof(arranged) + npu_divide_up(taps, TAPS) * REGISTERS * sizeof(__m512i);
}

uint64_t npu_depthwise_avx512_bytes(const npu_conv *op) {
    const uint64_t taps = (uint64_t)op->kernel_height * op->kernel_width;
    return npu_divide_up(op->output_channels, CHANNELS) * arranged_bytes(taps);
}

static arranged *arranged_at(const npu_strip *strip, uint32_t channel) {
    return (arranged *)(void *)(strip->extra + channel / CHANNELS * arranged_bytes(strip->taps));
}

INLINE void interleave(const __m512i taps[TAPS], __m512i registers[REGISTERS]) {
    __m512i low_01 = _mm512_unpacklo_epi8(taps[0], taps[1]), high_01 = _mm512_unpackhi_epi8(taps[0], taps[1]);
    __m512i low_23 = _mm512_unpacklo_epi8(taps[2], taps[3]), high_23 = _mm512_unpackhi_epi8(taps[2], taps[3]);
    registers[0] = _mm512_unpacklo_epi16(low_01, low_23);
    registers[1] = _mm512_unpackhi_epi16(low_01, low_23);
    registers[2] = _mm512_unpacklo_epi16(high_01, high_23);
    registers[3] = _mm512_unpackhi_epi16(high_01, high_23);
}

/* 16 bytes of each of four blocks of channels, zero for blocks that do not exist; of two blocks twice for PAIR. */
AVX512 static __m512i load_blocks(const npu_strip *strip, uint32_t channel, uint64_t address) {
    const npu_conv *op = strip->op;
    const uint64_t first = channel / NPU_CHANNEL_BLOCK, end = npu_divide_up(op->output_channels, NPU_CHANNEL_BLOCK);
    const uint32_t distinct = shape_at(op, channel) == PAIR ? BLOCKS / 2 : BLOCKS;
    uint8_t bytes[CHANNELS] = {0};
    for (uint32_t b = 0; b < BLOCKS; b++) {
        const uint64_t block = first + b % distinct;
        if (block < end) memcpy(bytes + b * 16, strip->spm + address + block * op->block_bytes, 16);
    }
    return _mm512_loadu_si512(bytes);
}

AVX512 static void arrange_channels(const npu_strip *strip, uint32_t channel) {
    const npu_conv *op = strip->op;
    arranged *to = arranged_at(strip, channel);
    const uint64_t multipliers = op->parameters + sizeof(int32_t) * NPU_CHANNEL_BLOCK;
    __m512i sums[REGISTERS] = {_mm512_setzero_si512(), _mm512_setzero_si512(), _mm512_setzero_si512(),
                               _mm512_setzero_si512()};
    for (uint32_t tap = 0; tap < strip->taps; tap += TAPS) {
        __m512i taps[TAPS];
        for (uint32_t i = 0; i < TAPS; i++)
            taps[i] = tap + i < strip->taps
                          ? load_blocks(strip, channel, op->weights + (uint64_t)(tap + i) * NPU_CHANNEL_BLOCK)
                          : _mm512_setzero_si512();
        interleave(taps, to->weights + tap);
        for (int j = 0; j < REGISTERS; j++)
            sums[j] = _mm512_dpbusd_epi32(sums[j], _mm512_set1_epi8(1), to->weights[tap + j]);
    }
    for (uint32_t j = 0; j < REGISTERS; j++) {
        to->bias[j] = load_blocks(strip, channel, op->parameters + 16 * j);
        to->multiplier[j] = _mm512_castsi512_ps(load_blocks(strip, channel, multipliers + 16 * j));
        if (op->input_type == NPU_TYPE_INT8) to->bias[j] = _mm512_sub_epi32(to->bias[j], _mm512_slli_epi32(sums[j], 7));
    }
}

static void arrange(const npu_strip *strip) {
    for (uint32_t channel = 0; channel < strip->op->output_channels; channel += CHANNELS)
        arrange_channels(strip, channel);
}

INLINE __m512i requantize(__m512i sums, __m512 multiplier, __m512 low, __m512 high, __m512i zero_point) {
    __m512 value = _mm512_mul_ps(_mm512_cvtepi32_ps(sums), multiplier);
    value = _mm512_min_ps(_mm512_max_ps(value, low), high);
    return _mm512_add_epi32(_mm512_cvtps_epi32(value), zero_point);
}

/* Codes already lie in the range of the output type, of which the low byte is kept. */
INLINE __m512i narrow(const __m512i codes[REGISTERS]) {
    const __m512i low_byte = _mm512_set1_epi16(0xff);
    __m512i low = _mm512_and_si512(_mm512_packs_epi32(codes[0], codes[1]), low_byte);
    __m512i high = _mm512_and_si512(_mm512_packs_epi32(codes[2], codes[3]), low_byte);
    return _mm512_packus_epi16(low, high);
}

INLINE __m512i load_codes(const uint8_t *const *inputs, uint32_t channel, __mmask64 valid, const shape as) {
    if (as == FULL) return _mm512_loadu_si512(inputs[0] + channel);
    if (as == PART) return _mm512_maskz_loadu_epi8(valid, inputs[0] + channel);
    __m256i low = _mm256_maskz_loadu_epi8((__mmask32)valid, inputs[0] + channel);
    __m256i high = _mm256_maskz_loadu_epi8((__mmask32)valid, inputs[1] + channel);
    return _mm512_inserti64x4(_mm512_castsi256_si512(low), high, 1);
}

INLINE void store_codes(uint8_t *const *outputs, uint32_t channel, __mmask64 valid, __m512i codes, int has_next,
                        const shape as) {
    if (as == FULL) {
        _mm512_storeu_si512(outputs[0] + channel, codes);
    } else if (as == PART) {
        _mm512_mask_storeu_epi8(outputs[0] + channel, valid, codes);
    } else {
        _mm256_mask_storeu_epi8(outputs[0] + channel, (__mmask32)valid, _mm512_castsi512_si256(codes));
        if (has_next)
            _mm256_mask_storeu_epi8(outputs[1] + channel, (__mmask32)valid, _mm512_extracti64x4_epi64(codes, 1));
    }
}

INLINE void add_taps(__m512i sums[REGISTERS], const uint8_t *const *inputs, size_t capacity, uint32_t channel,
                     const __m512i *weights, __mmask64 valid, const uint32_t taps, const shape as,
                     const int is_signed) {
#pragma GCC unroll 3
    for (uint32_t tap = 0; tap < taps; tap += TAPS) {
        __m512i codes[TAPS], lanes[REGISTERS];
#pragma GCC unroll 4
        for (uint32_t i = 0; i < TAPS; i++) {
            codes[i] = _mm512_setzero_si512();
            if (tap + i < taps) codes[i] = load_codes(inputs + (tap + i) * capacity, channel, valid, as);
            if (is_signed) codes[i] = _mm512_xor_si512(codes[i], _mm512_set1_epi8((char)0x80));
        }
        interleave(codes, lanes);
#pragma GCC unroll 4
        for (int j = 0; j < REGISTERS; j++) sums[j] = _mm512_dpbusd_epi32(sums[j], lanes[j], weights[tap + j]);
    }
}

INLINE void run_channels(const npu_strip *strip, uint32_t channel, const uint32_t taps, const shape as,
                         const int is_signed) {
    const arranged *from = arranged_at(strip, channel);
    const npu_rounding rounding = npu_rounding_of(strip->op);
    const __m512 low = _mm512_set1_ps(rounding.low), high = _mm512_set1_ps(rounding.high);
    const __m512i zero_point = _mm512_set1_epi32(rounding.zero_point);
    const __mmask64 valid = ((__mmask64)1 << (strip->op->output_channels - channel) % CHANNELS) - 1;
    /* Locals: stores through uint8_t pointers cannot change them. */
    const uint8_t *const *inputs = strip->inputs;
    uint8_t *const *outputs = strip->outputs;
    const size_t capacity = strip->capacity;
    const uint32_t step = as == PAIR ? 2 : 1;
    for (uint32_t pixel = 0, count = strip->count; pixel < count; pixel += step) {
        __m512i sums[REGISTERS] = {from->bias[0], from->bias[1], from->bias[2], from->bias[3]};
        add_taps(sums, inputs + pixel, capacity, channel, from->weights, valid, taps, as, is_signed);
#pragma GCC unroll 4
        for (int j = 0; j < REGISTERS; j++) sums[j] = requantize(sums[j], from->multiplier[j], low, high, zero_point);
        store_codes(outputs + pixel, channel, valid, narrow(sums), pixel + 1 < count, as);
    }
}

typedef void channels_function(const npu_strip *strip, uint32_t channel);

#define RUN(shape, is_signed) \
    AVX512 static void run_3x3_##shape##_##is_signed(const npu_strip *strip, uint32_t channel) { \
        run_channels(strip, channel, 9, shape, is_signed); \
    } \
    AVX512 static void run_any_##shape##_##is_signed(const npu_strip *strip, uint32_t channel) { \
        run_channels(strip, channel, strip->taps, shape, is_signed); \
    }
#define ROW(shape) {{run_any_##shape##_0, run_3x3_##shape##_0}, {run_any_##shape##_1, run_3x3_##shape##_1}}

RUN(FULL, 0) RUN(FULL, 1)
RUN(PART, 0) RUN(PART, 1)
RUN(PAIR, 0) RUN(PAIR, 1)

AVX512 void npu_depthwise_avx512(const npu_strip *strip) {
    if (strip->first == 0) arrange(strip);
    static channels_function *const functions[SHAPES][2][2] = {ROW(FULL), ROW(PART), ROW(PAIR)};
    const npu_conv *op = strip->op;
    for (uint32_t channel = 0; channel < op->output_channels; channel += CHANNELS)
        functions[shape_at(op, channel)][op->input_type == NPU_TYPE_INT8][strip->taps == 9](strip, channel);
}
#endif

/* An empty translation unit is not C. */
typedef int npu_depthwise_avx512_unit;
