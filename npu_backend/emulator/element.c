/* The codec of element.h, compiled once for each level. */
#include "element.h"

#define READ_PARAMETERS (const npu_element *from, const uint8_t *restrict at, size_t lanes, float *restrict values)
#define WRITE_PARAMETERS (const npu_element *to, const float *restrict values, size_t lanes, uint8_t *restrict at)

NPU_INLINE int32_t to_int32(float value) {
    return value >= 2147483648.0f ? INT32_MAX : value >= -2147483648.0f ? (int32_t)value : INT32_MIN;
}

NPU_INLINE int64_t to_int64(float value) {
    return value >= 9223372036854775808.0f ? INT64_MAX : value >= -9223372036854775808.0f ? (int64_t)value : INT64_MIN;
}

#define READ(ctype, expression)                                 \
    for (size_t i = 0; i < lanes; ++i) {                        \
        ctype stored;                                           \
        memcpy(&stored, at + i * sizeof stored, sizeof stored); \
        values[i] = (expression);                               \
    }                                                           \
    break
#define READ_CODE(ctype) READ(ctype, (float)npu_subtract(stored, zero_point) * scale)

NPU_INLINE void read_body READ_PARAMETERS {
    const int32_t zero_point = from->zero_point;
    const float scale = from->scale;
    switch (from->type) {
    case NPU_TYPE_UINT8: READ_CODE(uint8_t);
    case NPU_TYPE_INT8: READ_CODE(int8_t);
    case NPU_TYPE_UINT16: READ_CODE(uint16_t);
    case NPU_TYPE_INT16: READ_CODE(int16_t);
    case NPU_TYPE_FLOAT16: READ(uint16_t, npu_half_to_float(stored));
    case NPU_TYPE_INT32: READ(int32_t, (float)stored);
    case NPU_TYPE_INT64: READ(int64_t, (float)stored);
    case NPU_TYPE_BOOL: READ(uint8_t, stored != 0 ? 1.0f : 0.0f);
    default: memcpy(values, at, lanes * sizeof(float)); break;
    }
}

#define WRITE(ctype, expression)                                \
    for (size_t i = 0; i < lanes; ++i) {                        \
        const float value = values[i];                          \
        const ctype stored = (ctype)(expression);               \
        memcpy(at + i * sizeof stored, &stored, sizeof stored); \
    }                                                           \
    break
#define WRITE_ROUNDED(ctype, quotient) WRITE(ctype, npu_add(npu_round(npu_clamp(quotient, low, high)), zero_point))
#define WRITE_CODE(ctype)                \
    if (scale == 1.0f) {                 \
        WRITE_ROUNDED(ctype, value);     \
    }                                    \
    WRITE_ROUNDED(ctype, value / scale)

NPU_INLINE void write_body WRITE_PARAMETERS {
    const int32_t zero_point = to->zero_point;
    const float scale = to->scale, low = to->low, high = to->high;
    switch (to->type) {
    case NPU_TYPE_UINT8: WRITE_CODE(uint8_t);
    case NPU_TYPE_INT8: WRITE_CODE(int8_t);
    case NPU_TYPE_UINT16: WRITE_CODE(uint16_t);
    case NPU_TYPE_INT16: WRITE_CODE(int16_t);
    case NPU_TYPE_FLOAT16: WRITE(uint16_t, npu_float_to_half(value));
    case NPU_TYPE_INT32: WRITE(int32_t, to_int32(value));
    case NPU_TYPE_INT64: WRITE(int64_t, to_int64(value));
    case NPU_TYPE_BOOL: WRITE(uint8_t, value != 0.0f);
    default: WRITE(float, value == value ? value : NPU_NAN);
    }
}

NPU_LEVELS(read, READ_PARAMETERS, (from, at, lanes, values))
NPU_LEVELS(write, WRITE_PARAMETERS, (to, values, lanes, at))

#if NPU_VECTOR_X86
#include <immintrin.h>

/* The processor's own conversions give the same bits; they are asked for by name, as compilers do not find them. */
#define F16C __attribute__((target("avx2,f16c")))
enum { HALVES = 8 };

F16C static void read_halves READ_PARAMETERS {
    (void)from;
    for (; lanes >= HALVES; lanes -= HALVES, at += sizeof(__m128i), values += HALVES)
        _mm256_storeu_ps(values, _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)(const void *)at)));
    __m128i rest = _mm_setzero_si128();
    memcpy(&rest, at, lanes * sizeof(uint16_t));
    const __m256 last = _mm256_cvtph_ps(rest);
    memcpy(values, &last, lanes * sizeof *values);
}

/* Finite values stay finite; every NaN becomes 0x7E00. */
F16C static __m256 bound_halves(__m256 values, __m256 magnitude) {
    const __m256 largest = _mm256_or_ps(_mm256_set1_ps(65504.0f), _mm256_xor_ps(values, magnitude));
    const __m256 is_finite = _mm256_cmp_ps(magnitude, _mm256_set1_ps(INFINITY), _CMP_LT_OQ);
    const __m256 is_nan = _mm256_cmp_ps(values, values, _CMP_UNORD_Q);
    const __m256 bounded = _mm256_blendv_ps(values, largest, is_finite);
    return _mm256_blendv_ps(bounded, _mm256_set1_ps(NPU_NAN), is_nan);
}

F16C static __m128i to_halves(__m256 values) {
    const __m256 magnitude = _mm256_andnot_ps(_mm256_set1_ps(-0.0f), values);
    const __m256 is_beyond = _mm256_cmp_ps(magnitude, _mm256_set1_ps(65504.0f), _CMP_NLE_UQ);
    if (_mm256_movemask_ps(is_beyond) != 0)
        values = _mm256_blendv_ps(values, bound_halves(values, magnitude), is_beyond);
    return _mm256_cvtps_ph(values, _MM_FROUND_TO_NEAREST_INT);
}

F16C static void write_halves WRITE_PARAMETERS {
    (void)to;
    for (; lanes >= HALVES; lanes -= HALVES, at += sizeof(__m128i), values += HALVES)
        _mm_storeu_si128((__m128i *)(void *)at, to_halves(_mm256_loadu_ps(values)));
    __m256 rest = _mm256_setzero_ps();
    memcpy(&rest, values, lanes * sizeof *values);
    const __m128i last = to_halves(rest);
    memcpy(at, &last, lanes * sizeof(uint16_t));
}

#endif

npu_element npu_element_of(uint32_t type, float scale, int32_t zero_point, uint32_t level) {
    npu_element element = {type, npu_type_bytes(type), zero_point, scale, npu_type_low(type) - (float)zero_point,
                           npu_type_high(type) - (float)zero_point, read_levels[level - 1], write_levels[level - 1]};
#if NPU_VECTOR_X86
    if (type == NPU_TYPE_FLOAT16 && level > 1) {
        element.read = read_halves;
        element.write = write_halves;
    }
#endif
    return element;
}
