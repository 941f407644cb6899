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

INLINE __m512i requantize(__m512i sums, __m512 multiplier, const npu_rounding *rounding) {
    __m512 value = _mm512_mul_ps(_mm512_cvtepi32_ps(sums), multiplier);
    value = _mm512_max_ps(value, _mm512_set1_ps(rounding->low));
    value = _mm512_min_ps(value, _mm512_set1_ps(rounding->high));
    return _mm512_add_epi32(_mm512_cvtps_epi32(value), _mm512_set1_epi32(rounding->zero_point));
}

/* Codes already lie in the range of the output type, of which the low byte is kept. */
INLINE __m512i narrow(const __m512i codes[REGISTERS]) {
    const __m512i low_byte = _mm512_set1_epi16(0xff);
    __m512i low = _mm512_and_si512(_mm512_packs_epi32(codes[0], codes[1]), low_byte);
    __m512i high = _mm512_and_si512(_mm512_packs_epi32(codes[2], codes[3]), low_byte);
    return _mm512_packus_epi16(low, high);
}

INLINE void run_channels(const npu_strip *strip, uint32_t channel, const uint32_t taps, const int is_signed) {
    const arranged *from = arranged_at(strip, channel);
    const npu_rounding rounding = npu_rounding_of(strip->op);
    const uint32_t left = strip->op->output_channels - channel;
    const __mmask64 valid = left >= CHANNELS ? ~(__mmask64)0 : ((__mmask64)1 << left) - 1;
    const __m512i flip = _mm512_set1_epi8((char)0x80);
    for (uint32_t pixel = 0; pixel < strip->count; pixel++) {
        const uint8_t *const *inputs = strip->inputs + pixel;
        __m512i sums[REGISTERS] = {from->bias[0], from->bias[1], from->bias[2], from->bias[3]};
#pragma GCC unroll 3
        for (uint32_t tap = 0; tap < taps; tap += TAPS) {
            __m512i codes[TAPS], lanes[REGISTERS];
#pragma GCC unroll 4
            for (uint32_t i = 0; i < TAPS; i++) {
                codes[i] = _mm512_setzero_si512();
                if (tap + i < taps)
                    codes[i] = _mm512_maskz_loadu_epi8(valid, inputs[(size_t)(tap + i) * strip->capacity] + channel);
                if (is_signed) codes[i] = _mm512_xor_si512(codes[i], flip);
            }
            interleave(codes, lanes);
#pragma GCC unroll 4
            for (int j = 0; j < REGISTERS; j++) sums[j] = _mm512_dpbusd_epi32(sums[j], lanes[j], from->weights[tap + j]);
        }
#pragma GCC unroll 4
        for (int j = 0; j < REGISTERS; j++) sums[j] = requantize(sums[j], from->multiplier[j], &rounding);
        _mm512_mask_storeu_epi8(strip->outputs[pixel] + channel, valid, narrow(sums));
    }
}

AVX512 void npu_depthwise_avx512(const npu_strip *strip) {
    const int is_signed = strip->op->input_type == NPU_TYPE_INT8;
    for (uint32_t channel = 0; channel < strip->op->output_channels; channel += CHANNELS) {
        if (strip->taps == 9 && is_signed)
            run_channels(strip, channel, 9, 1);
        else if (strip->taps == 9)
            run_channels(strip, channel, 9, 0);
        else
            run_channels(strip, channel, strip->taps, is_signed);
    }
}
#endif

/* An empty translation unit is not C. */
typedef int npu_depthwise_avx512_unit;
