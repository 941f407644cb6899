/* What the vector engine's kernels share: one body compiled for every instruction set, views, 8-bit arithmetic.
 *
 * A kernel's inner loop is written once, as an always-inlined body, and compiled at each level. All levels do the same
 * IEEE float32 operations in the same order (the build forbids contraction; an fma is asked for by name), so they give
 * the same bits.
 */
#ifndef NPU_VECTOR_H
#define NPU_VECTOR_H

#include <math.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "internal.h"

#if defined(__x86_64__) && defined(__GNUC__)
#define NPU_VECTOR_X86 1
#define NPU_AVX2 __attribute__((target("avx2,fma")))
#define NPU_AVX512 __attribute__((target("avx2,fma,avx512f,avx512bw,avx512dq,avx512vl")))
#else
#define NPU_VECTOR_X86 0
#endif

#if defined(__GNUC__)
#define NPU_INLINE static inline __attribute__((always_inline))
#else
#define NPU_INLINE static inline
#endif

/* Defines name_levels[level - 1] from the body name_body, all of the same parameters. */
#if NPU_VECTOR_X86
#define NPU_LEVELS(name, parameters, arguments)                              \
    static void name##_portable parameters { name##_body arguments; }        \
    NPU_AVX2 static void name##_avx2 parameters { name##_body arguments; }   \
    NPU_AVX512 static void name##_avx512 parameters { name##_body arguments; } \
    static void(*const name##_levels[3]) parameters = {name##_portable, name##_avx2, name##_avx512};
#else
#define NPU_LEVELS(name, parameters, arguments)                       \
    static void name##_portable parameters { name##_body arguments; } \
    static void(*const name##_levels[3]) parameters = {name##_portable, name##_portable, name##_portable};
#endif

/* Nearest integer, ties to even, of |value| < 2**22: the sum with 1.5 * 2**23 leaves no bits for a fraction. */
NPU_INLINE int32_t npu_round(float value) {
    float shifted = value + 12582912.0f;
    uint32_t bits;
    memcpy(&bits, &shifted, sizeof bits);
    return (int32_t)(bits - 0x4B400000u);
}

/* Sums and products of untrusted fields wrap. */
NPU_INLINE int32_t npu_add(int32_t a, int32_t b) {
    return (int32_t)((uint32_t)a + (uint32_t)b);
}

NPU_INLINE int32_t npu_subtract(int32_t a, int32_t b) {
    return (int32_t)((uint32_t)a - (uint32_t)b);
}

NPU_INLINE int32_t npu_multiply(int32_t a, int32_t b) {
    return (int32_t)((uint32_t)a * (uint32_t)b);
}

/* NaN becomes low. */
NPU_INLINE float npu_clamp(float value, float low, float high) {
    float raised = value > low ? value : low;
    return raised < high ? raised : high;
}

NPU_INLINE float npu_load_f32(const uint8_t *at) {
    float value;
    memcpy(&value, at, sizeof value);
    return value;
}

/* How to read the codes of an 8-bit type: code = (byte ^ flip) - bias, so one loop serves both types. */
typedef struct {
    uint8_t flip;
    int32_t bias;
} npu_code;

NPU_INLINE npu_code npu_code_of(uint32_t type) {
    npu_code code = {0, 0};
    if (type == NPU_TYPE_INT8) {
        code.flip = 0x80;
        code.bias = 128;
    }
    return code;
}

/* ONNX Runtime's x86 kernels whose zero points take part in float32 sums see int8 as uint8 with 128 added to codes and
 * zero points: read with this code, offset the zero point, and flip what is written in the range of uint8.
 */
NPU_INLINE npu_code npu_unsigned_code(uint32_t type) {
    npu_code code = npu_code_of(type);
    code.bias = 0;
    return code;
}

NPU_INLINE int32_t npu_unsigned_zero_point(int32_t zero_point, uint32_t type) {
    return type == NPU_TYPE_INT8 ? (int32_t)((uint32_t)zero_point + 128) : zero_point;
}

NPU_INLINE int32_t npu_decode(uint8_t byte, npu_code code) {
    return (int32_t)(uint8_t)(byte ^ code.flip) - code.bias;
}

NPU_INLINE float npu_type_low(uint32_t type) {
    return type == NPU_TYPE_UINT8 || type == NPU_TYPE_UINT16 ? 0.0f : type == NPU_TYPE_INT8 ? -128.0f : -32768.0f;
}

NPU_INLINE float npu_type_high(uint32_t type) {
    return type == NPU_TYPE_UINT8    ? 255.0f
           : type == NPU_TYPE_INT8   ? 127.0f
           : type == NPU_TYPE_UINT16 ? 65535.0f
                                     : 32767.0f;
}

/* Bodies over channels come in blocks of fixed width, which become registers. The last block computes lanes past the
 * last channel (the scratchpad's slack keeps them readable) and drops them. Expands call(first channel, lanes, output)
 * with a constant number of lanes, where `output` takes all of them. */
#define NPU_LANES 64u
#define NPU_FOR_LANES(channels, output, call)                                      \
    do {                                                                           \
        size_t npu_channel = 0, npu_left = (channels);                             \
        for (; npu_left >= NPU_LANES; npu_left -= NPU_LANES, npu_channel += NPU_LANES) { \
            call(npu_channel, NPU_LANES, (output) + npu_channel);                  \
        }                                                                          \
        uint8_t npu_block[NPU_LANES];                                              \
        if (npu_left > NPU_LANES / 2) {                                            \
            call(npu_channel, NPU_LANES, npu_block);                               \
        } else if (npu_left > NPU_LANES / 4) {                                     \
            call(npu_channel, NPU_LANES / 2, npu_block);                           \
        } else if (npu_left > 0) {                                                 \
            call(npu_channel, NPU_LANES / 4, npu_block);                           \
        }                                                                          \
        memcpy((output) + npu_channel, npu_block, npu_left);                       \
    } while (0)

#define NPU_VIEW_OPERANDS 4 /* up to three inputs, then the output */

/* Operands walked together over four axes, outermost first. */
typedef struct {
    uint32_t operands;
    uint32_t element_bytes[NPU_VIEW_OPERANDS];
    uint8_t *base[NPU_VIEW_OPERANDS];
    uint64_t counts[4];
    int64_t strides[NPU_VIEW_OPERANDS][4]; /* bytes */
} npu_view;

/* n contiguous elements of every operand; the output is the last one. Inputs may be read NPU_LANES - 1 bytes further. */
typedef void (*npu_row)(const void *context, uint8_t *const operands[NPU_VIEW_OPERANDS], size_t n);

npu_view npu_view_of(const uint32_t counts[4]); /* without operands */
void npu_view_operand(npu_view *view, uint8_t *base, uint32_t element_bytes, const uint32_t strides[4]);
void npu_view_collapse(npu_view *view); /* merges axes, so that the last is as long as can be */
void npu_view_swap(npu_view *view, int a, int b);
void npu_view_for_rows(npu_view *view, npu_row row, const void *context);

/* `n` pieces of so many bytes from one stride to another. */
void npu_copy_strided(uint8_t *to, int64_t to_stride, const uint8_t *from, int64_t from_stride, size_t bytes, size_t n);

void npu_binary_in_float(const npu_binary *op, npu_view *view, uint32_t level);
void npu_binary_of_integers(const npu_binary *op, npu_view *view);
void npu_convert_integers(const npu_convert *op, npu_view *view);

#endif
