/* DEPTHWISE with AVX-512 VNNI, 64 channels at a time. Four taps' bytes of a channel are interleaved into one 32-bit lane,
 * which vpdpbusd multiplies with the same four taps' weights. Interleaving works inside 128-bit lanes: register j of four
 * holds, in its lane l, the channels 16 l + 4 j .. + 3. Weights and parameters are arranged likewise beforehand, and
 * narrowing at the end restores the order. int8 inputs: see conv_avx512.c. */
#include "matrix.h"

#if NPU_X86_KERNELS
#include <immintrin.h>

#define AVX512 __attribute__((target("avx512f,avx512bw,avx512vl,avx512vnni")))
#define INLINE static inline __attribute__((always_inline)) AVX512

enum { CHANNELS = 64, REGISTERS = 4, TAPS = 4, BLOCKS = CHANNELS / NPU_CHANNEL_BLOCK };

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
    return npu_divide_up(op->output_channels, CHANNELS) * arranged_bytes((uint64_t)op->kernel_height * op->kernel_width);
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

/* 16 bytes of each of four blocks of channels, zero for blocks that do not exist. */
AVX512 static __m512i load_blocks(const npu_strip *strip, uint32_t channel, uint64_t address) {
    uint8_t bytes[CHANNELS] = {0};
    for (uint32_t b = 0; b < BLOCKS && channel + b * NPU_CHANNEL_BLOCK < strip->op->output_channels; b++) {
        const uint64_t block = channel / NPU_CHANNEL_BLOCK + b;
        memcpy(bytes + b * 16, strip->spm + address + block * strip->op->block_bytes, 16);
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

void npu_depthwise_avx512_arrange(const npu_strip *strip) {
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

INLINE __m512i load_codes(const uint8_t *address, __mmask64 valid, const int is_full) {
    if (is_full) return _mm512_loadu_si512(address);
    return _mm512_maskz_loadu_epi8(valid, address);
}

INLINE void add_taps(__m512i sums[REGISTERS], const uint8_t *const *inputs, size_t capacity, uint32_t channel,
                     const __m512i *weights, __mmask64 valid, const uint32_t taps, const int is_full,
                     const int is_signed) {
#pragma GCC unroll 3
    for (uint32_t tap = 0; tap < taps; tap += TAPS) {
        __m512i codes[TAPS], lanes[REGISTERS];
#pragma GCC unroll 4
        for (uint32_t i = 0; i < TAPS; i++) {
            codes[i] = _mm512_setzero_si512();
            if (tap + i < taps) codes[i] = load_codes(inputs[(tap + i) * capacity] + channel, valid, is_full);
            if (is_signed) codes[i] = _mm512_xor_si512(codes[i], _mm512_set1_epi8((char)0x80));
        }
        interleave(codes, lanes);
#pragma GCC unroll 4
        for (int j = 0; j < REGISTERS; j++) sums[j] = _mm512_dpbusd_epi32(sums[j], lanes[j], weights[tap + j]);
    }
}

INLINE void run_channels(const npu_strip *strip, uint32_t channel, const uint32_t taps, const int is_full,
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
    for (uint32_t pixel = 0, count = strip->count; pixel < count; pixel++) {
        __m512i sums[REGISTERS] = {from->bias[0], from->bias[1], from->bias[2], from->bias[3]};
        add_taps(sums, inputs + pixel, capacity, channel, from->weights, valid, taps, is_full, is_signed);
#pragma GCC unroll 4
        for (int j = 0; j < REGISTERS; j++) sums[j] = requantize(sums[j], from->multiplier[j], low, high, zero_point);
        if (is_full)
            _mm512_storeu_si512(outputs[pixel] + channel, narrow(sums));
        else
            _mm512_mask_storeu_epi8(outputs[pixel] + channel, valid, narrow(sums));
    }
}

#define RUN(name, taps, is_full, is_signed) \
    AVX512 static void name(const npu_strip *strip, uint32_t channel) { \
        run_channels(strip, channel, taps, is_full, is_signed); \
    }

RUN(run_3x3_part_unsigned, 9, 0, 0)
RUN(run_3x3_part_signed, 9, 0, 1)
RUN(run_3x3_full_unsigned, 9, 1, 0)
RUN(run_3x3_full_signed, 9, 1, 1)
RUN(run_any_part_unsigned, strip->taps, 0, 0)
RUN(run_any_part_signed, strip->taps, 0, 1)
RUN(run_any_full_unsigned, strip->taps, 1, 0)
RUN(run_any_full_signed, strip->taps, 1, 1)

typedef void channels_function(const npu_strip *strip, uint32_t channel);

AVX512 void npu_depthwise_avx512(const npu_strip *strip) {
    static channels_function *const functions[2][2][2] = {
        {{run_any_part_unsigned, run_any_part_signed}, {run_any_full_unsigned, run_any_full_signed}},
        {{run_3x3_part_unsigned, run_3x3_part_signed}, {run_3x3_full_unsigned, run_3x3_full_signed}}};
    const uint32_t channels = strip->op->output_channels;
    for (uint32_t channel = 0; channel < channels; channel += CHANNELS)
        functions[strip->taps == 9][channels - channel >= CHANNELS][strip->op->input_type == NPU_TYPE_INT8](strip, channel);
}
#endif

/* An empty translation unit is not C. */
typedef int npu_depthwise_avx512_unit;
