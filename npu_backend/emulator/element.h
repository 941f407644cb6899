/* Elements of any data type as float32 and back: what every instruction that computes in float32 reads and writes.
 *
 * A code stands for (code - zero_point) * scale; float types, plain integers and booleans have scale 1 and zero point 0.
 * Reading is exact but for integers beyond 2**24. Writing rounds once: codes as QuantizeLinear (divide, round half to
 * even, saturate), float16 to nearest even (finite values stay finite), plain integers towards zero and saturated (NaN:
 * the lowest), booleans are 1 where the value is not 0. A float NaN is written as the positive quiet one: its sign and
 * payload would depend on the order in which a compiler adds. decode and encode of npu_backend/ops/numerics_core.py are
 * the same functions.
 */
#ifndef NPU_ELEMENT_H
#define NPU_ELEMENT_H

#include "vector.h"

typedef struct {
    uint32_t type;
    uint32_t bytes;
    int32_t zero_point;
    float scale;
    float low; /* bounds of a code before the zero point is added */
    float high;
} npu_element;

NPU_INLINE npu_element npu_element_of(uint32_t type, float scale, int32_t zero_point) {
    npu_element element = {type, npu_type_bytes(type), zero_point, scale, npu_type_low(type) - (float)zero_point,
                           npu_type_high(type) - (float)zero_point};
    return element;
}

NPU_INLINE float npu_bits_to_float(uint32_t bits) {
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

NPU_INLINE uint32_t npu_float_to_bits(float value) {
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    return bits;
}

#define NPU_NAN npu_bits_to_float(0x7FC00000u)

/* Exponent and fraction move to float32's places; multiplying by 2**112 mends the bias, of subnormals too. */
NPU_INLINE float npu_half_to_float(uint16_t half) {
    uint32_t magnitude = (uint32_t)(half & 0x7FFF) << 13, sign = (uint32_t)(half & 0x8000) << 16;
    uint32_t finite = npu_float_to_bits(npu_bits_to_float(magnitude) * 5192296858534827628530496329220096.0f);
    uint32_t special = magnitude | 0x7F800000u;
    return npu_bits_to_float(sign | (magnitude >= 0x0F800000u ? special : finite));
}

/* To nearest, ties to even; what is finite stays so (65504). Adding 0.5 leaves a subnormal's fraction in the lowest
 * bits; every NaN becomes 0x7E00. */
NPU_INLINE uint16_t npu_float_to_half(float value) {
    uint32_t bits = npu_float_to_bits(value), magnitude = bits & 0x7FFFFFFFu, sign = bits >> 16 & 0x8000u;
    uint32_t small = npu_float_to_bits(npu_bits_to_float(magnitude) + 0.5f) - 0x3F000000u;
    uint32_t normal = (magnitude - 0x38000000u + 0xFFFu + (magnitude >> 13 & 1u)) >> 13;
    uint32_t finite = magnitude < 0x38800000u ? small : normal;
    uint32_t bounded = magnitude >= 0x477FF000u ? 0x7BFFu : finite;
    uint32_t special = magnitude > 0x7F800000u ? 0x7E00u : sign | 0x7C00u;
    return (uint16_t)(magnitude >= 0x7F800000u ? special : sign | bounded);
}

NPU_INLINE int32_t npu_truncate(float value) {
    return value >= 2147483648.0f ? INT32_MAX : value >= -2147483648.0f ? (int32_t)value : INT32_MIN;
}

NPU_INLINE int64_t npu_truncate_wide(float value) {
    return value >= 9223372036854775808.0f    ? INT64_MAX
           : value >= -9223372036854775808.0f ? (int64_t)value
                                              : INT64_MIN;
}

#define NPU_READ(ctype, expression)                  \
    for (size_t i = 0; i < lanes; ++i) {             \
        ctype stored;                                \
        memcpy(&stored, at + i * sizeof stored, sizeof stored); \
        to[i] = (expression);                        \
    }                                                \
    break
#define NPU_READ_CODE(ctype) NPU_READ(ctype, (float)npu_subtract(stored, zero_point) * scale)

/* `lanes` contiguous elements at `at`. */
NPU_INLINE void npu_read_lanes(const npu_element *from, const uint8_t *restrict at, size_t lanes, float *restrict to) {
    const int32_t zero_point = from->zero_point;
    const float scale = from->scale;
    switch (from->type) {
    case NPU_TYPE_UINT8: NPU_READ_CODE(uint8_t);
    case NPU_TYPE_INT8: NPU_READ_CODE(int8_t);
    case NPU_TYPE_UINT16: NPU_READ_CODE(uint16_t);
    case NPU_TYPE_INT16: NPU_READ_CODE(int16_t);
    case NPU_TYPE_FLOAT16: NPU_READ(uint16_t, npu_half_to_float(stored));
    case NPU_TYPE_INT32: NPU_READ(int32_t, (float)stored);
    case NPU_TYPE_INT64: NPU_READ(int64_t, (float)stored);
    case NPU_TYPE_BOOL: NPU_READ(uint8_t, stored != 0 ? 1.0f : 0.0f);
    default: memcpy(to, at, lanes * sizeof(float)); break;
    }
}

#define NPU_WRITE(ctype, expression)                 \
    for (size_t i = 0; i < lanes; ++i) {             \
        const float value = from[i];                 \
        const ctype stored = (ctype)(expression);    \
        memcpy(at + i * sizeof stored, &stored, sizeof stored); \
    }                                                \
    break
#define NPU_WRITE_CODE(ctype) NPU_WRITE(ctype, npu_add(npu_round(npu_clamp(value / scale, low, high)), zero_point))

/* `lanes` values to contiguous elements at `at`. */
NPU_INLINE void npu_write_lanes(const npu_element *to, const float *restrict from, size_t lanes, uint8_t *restrict at) {
    const int32_t zero_point = to->zero_point;
    const float scale = to->scale, low = to->low, high = to->high;
    switch (to->type) {
    case NPU_TYPE_UINT8: NPU_WRITE_CODE(uint8_t);
    case NPU_TYPE_INT8: NPU_WRITE_CODE(int8_t);
    case NPU_TYPE_UINT16: NPU_WRITE_CODE(uint16_t);
    case NPU_TYPE_INT16: NPU_WRITE_CODE(int16_t);
    case NPU_TYPE_FLOAT16: NPU_WRITE(uint16_t, npu_float_to_half(value));
    case NPU_TYPE_INT32: NPU_WRITE(int32_t, npu_truncate(value));
    case NPU_TYPE_INT64: NPU_WRITE(int64_t, npu_truncate_wide(value));
    case NPU_TYPE_BOOL: NPU_WRITE(uint8_t, value != 0.0f);
    default: NPU_WRITE(float, value == value ? value : NPU_NAN);
    }
}

/* Elements first to n - 1 of a row, no more than NPU_LANES of them, to NPU_LANES values; 0 after the last. */
NPU_INLINE void npu_read_block(const npu_element *from, const uint8_t *at, size_t first, size_t n,
                               float *restrict values) {
    if (n - first >= NPU_LANES) {
        npu_read_lanes(from, at + first * from->bytes, NPU_LANES, values);
        return;
    }
    memset(values, 0, NPU_LANES * sizeof *values);
    npu_read_lanes(from, at + first * from->bytes, n - first, values);
}

NPU_INLINE void npu_write_block(const npu_element *to, const float *restrict values, size_t first, size_t n,
                                uint8_t *at) {
    if (n - first >= NPU_LANES) {
        npu_write_lanes(to, values, NPU_LANES, at + first * to->bytes);
        return;
    }
    npu_write_lanes(to, values, n - first, at + first * to->bytes);
}

#endif
