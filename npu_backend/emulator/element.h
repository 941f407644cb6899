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

typedef struct npu_element npu_element;
struct npu_element {
    uint32_t type;
    uint32_t bytes;
    int32_t zero_point;
    float scale;
    float low; /* bounds of a code before the zero point is added */
    float high;
    /* `lanes` contiguous elements at `at`. */
    void (*read)(const npu_element *from, const uint8_t *restrict at, size_t lanes, float *restrict values);
    void (*write)(const npu_element *to, const float *restrict values, size_t lanes, uint8_t *restrict at);
};

npu_element npu_element_of(uint32_t type, float scale, int32_t zero_point, uint32_t level);

/* The element that the fields name_type, name_scale and name_zero_point of an instruction tell of. */
#define NPU_ELEMENT(op, name, level) npu_element_of((op)->name##_type, (op)->name##_scale, (op)->name##_zero_point, level)

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

NPU_INLINE size_t npu_block_lanes(size_t left) {
    return left < NPU_LANES ? left : NPU_LANES;
}

/* Elements first to n - 1 of a row, no more than NPU_LANES of them, to NPU_LANES values; 0 after the last. */
NPU_INLINE void npu_read_block(const npu_element *from, const uint8_t *row, size_t first, size_t n, float *values) {
    const size_t lanes = npu_block_lanes(n - first);
    if (lanes < NPU_LANES) {
        memset(values, 0, NPU_LANES * sizeof *values); /* all of them: a known number is a few vectors */
    }
    from->read(from, row + first * from->bytes, lanes, values);
}

NPU_INLINE void npu_write_block(const npu_element *to, const float *values, size_t first, size_t n, uint8_t *row) {
    to->write(to, values, npu_block_lanes(n - first), row + first * to->bytes);
}

/* `pixels` of so many channels, `step_bytes` apart, and dense as floats. */
NPU_INLINE void npu_read_pixels(const npu_element *from, const uint8_t *at, size_t step_bytes, size_t pixels,
                                size_t channels, float *values) {
    const size_t together = step_bytes == channels * from->bytes ? pixels : 1;
    for (size_t pixel = 0; pixel < pixels; pixel += together) {
        from->read(from, at + pixel * step_bytes, together * channels, values + pixel * channels);
    }
}

NPU_INLINE void npu_write_pixels(const npu_element *to, const float *values, size_t step_bytes, size_t pixels,
                                 size_t channels, uint8_t *at) {
    const size_t together = step_bytes == channels * to->bytes ? pixels : 1;
    for (size_t pixel = 0; pixel < pixels; pixel += together) {
        to->write(to, values + pixel * channels, together * channels, at + pixel * step_bytes);
    }
}

#endif
