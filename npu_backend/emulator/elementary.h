/* Elementary functions, step by step those of npu_backend/ops/elementary.py, which says how exact they are. Plain
 * operations in a fixed order and no branch: they vectorise, and every kernel level gives the same bits. */
#ifndef NPU_ELEMENTARY_H
#define NPU_ELEMENTARY_H

#include "npu_polynomials.h"

#define NPU_PI 3.141592653589793
#define NPU_LN2 0.6931471805599453
#define NPU_LOG2E 1.4426950408889634
#define NPU_SHIFTER 6755399441055744.0 /* 1.5 * 2**52: the sum with it leaves the nearest integer in the lowest bits */
#define NPU_HALF_PI_HIGH 1.57079632673412561417
#define NPU_HALF_PI_LOW 6.07710050650619224932e-11
#define NPU_FRACTION_BITS 52
#define NPU_BIAS 1023u

NPU_INLINE uint64_t npu_double_to_bits(double value) {
    uint64_t bits;
    memcpy(&bits, &value, sizeof bits);
    return bits;
}

NPU_INLINE double npu_bits_to_double(uint64_t bits) {
    double value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

NPU_INLINE double npu_wide_exp(double x) {
    double bounded = x > 150.0 ? 150.0 : x < -150.0 ? -150.0 : x;
    double shifted = bounded * NPU_LOG2E + NPU_SHIFTER;
    uint64_t power = (npu_double_to_bits(shifted) + NPU_BIAS) << NPU_FRACTION_BITS;
    return npu_polynomial_exp(bounded - (shifted - NPU_SHIFTER) * NPU_LN2) * npu_bits_to_double(power);
}

NPU_INLINE double npu_wide_log(double x) {
    const uint64_t root_half = 0x3FE6A09E667F3BCDu, two_to_52 = 0x4330000000000000u;
    uint64_t bits = npu_double_to_bits(x);
    uint64_t exponent = (bits - root_half + ((uint64_t)NPU_BIAS << NPU_FRACTION_BITS)) >> NPU_FRACTION_BITS;
    double k = npu_bits_to_double(exponent | two_to_52) - (4503599627370496.0 + NPU_BIAS);
    double m = npu_bits_to_double(bits - ((exponent - NPU_BIAS) << NPU_FRACTION_BITS));
    double s = (m - 1.0) / (m + 1.0);
    double value = k * NPU_LN2 + 2.0 * s * npu_polynomial_atanh(s * s);
    double positive = x < (double)INFINITY ? value : x;
    return x > 0.0 ? positive : x == 0.0 ? -(double)INFINITY : (double)NAN;
}

NPU_INLINE double npu_wide_erf(double x) {
    double inside = x * npu_polynomial_erf(x * x * 0.125 - 1.0);
    return x > 4.0 ? 1.0 : x < -4.0 ? -1.0 : inside;
}

/* sin(x + quarters * pi / 2) */
NPU_INLINE double npu_wide_sin_ahead(double x, uint64_t quarters) {
    double shifted = x * (2.0 / NPU_PI) + NPU_SHIFTER;
    double k = shifted - NPU_SHIFTER;
    double r = (x - k * NPU_HALF_PI_HIGH) - k * NPU_HALF_PI_LOW;
    uint64_t quadrant = npu_double_to_bits(shifted) + quarters;
    double sine = r * npu_polynomial_sin(r * r), cosine = npu_polynomial_cos(r * r);
    double magnitude = (quadrant & 1u) != 0 ? cosine : sine;
    return (quadrant & 2u) != 0 ? -magnitude : magnitude;
}

NPU_INLINE double npu_wide_sin(double x) {
    return npu_wide_sin_ahead(x, 0);
}

NPU_INLINE double npu_wide_cos(double x) {
    return npu_wide_sin_ahead(x, 1);
}

NPU_INLINE double npu_wide_tan(double x) {
    return npu_wide_sin(x) / npu_wide_cos(x);
}

NPU_INLINE double npu_wide_atan(double x) {
    double magnitude = fabs(x);
    int steep = magnitude > 2.414213562373095, middle = magnitude > 0.41421356237309503;
    double above = steep ? -1.0 : middle ? magnitude - 1.0 : magnitude;
    double below = steep ? magnitude : middle ? magnitude + 1.0 : 1.0;
    double start = steep ? NPU_PI / 2.0 : middle ? NPU_PI / 4.0 : 0.0;
    double tangent = above / below;
    return copysign(start + tangent * npu_polynomial_atan(tangent * tangent), x);
}

NPU_INLINE double npu_wide_asin(double x) {
    return npu_wide_atan(x / sqrt((1.0 - x) * (1.0 + x)));
}

NPU_INLINE double npu_wide_acos(double x) {
    return NPU_PI / 2.0 - npu_wide_asin(x);
}

NPU_INLINE double npu_wide_small_or(double x, double value) {
    return fabs(x) < 0x1p-13 ? x : value;
}

NPU_INLINE double npu_wide_sinh(double x) {
    return npu_wide_small_or(x, 0.5 * (npu_wide_exp(x) - npu_wide_exp(-x)));
}

NPU_INLINE double npu_wide_cosh(double x) {
    return 0.5 * (npu_wide_exp(x) + npu_wide_exp(-x));
}

NPU_INLINE double npu_wide_asinh(double x) {
    double magnitude = fabs(x);
    return npu_wide_small_or(x, copysign(npu_wide_log(magnitude + sqrt(magnitude * magnitude + 1.0)), x));
}

NPU_INLINE double npu_wide_acosh(double x) {
    return npu_wide_log(x + sqrt((x - 1.0) * (x + 1.0)));
}

NPU_INLINE double npu_wide_atanh(double x) {
    return npu_wide_small_or(x, 0.5 * npu_wide_log((1.0 + x) / (1.0 - x)));
}

NPU_INLINE double npu_wide_power(double x, double exponent) {
    int whole = rint(exponent) == exponent;
    int odd = whole & (rint(exponent * 0.5) * 2.0 != exponent);
    double magnitude = fabs(x);
    double product = npu_wide_exp(exponent * npu_wide_log(magnitude));
    double value = ((magnitude == 1.0) & (exponent == exponent)) ? 1.0 : product;
    double is_signed = odd ? copysign(value, x) : value;
    double real = ((x < 0.0) & (magnitude < (double)INFINITY) & !whole) ? (double)NAN : is_signed;
    return ((exponent == 0.0) | (x == 1.0)) ? 1.0 : real;
}

/* NaN stays. */
NPU_INLINE float npu_clip(float x, float low, float high) {
    float raised = x < low ? low : x;
    return raised > high ? high : raised;
}

NPU_INLINE float npu_sigmoid(float x) {
    float bounded = npu_clip(x, -18.0f, 18.0f), square = bounded * bounded;
    float ratio = npu_polynomial_sigmoid_odd(square) * bounded / npu_polynomial_sigmoid_even(square);
    return npu_clip(ratio + 0.5f, 0.0f, 1.0f);
}

NPU_INLINE float npu_tanh(float x) {
    float bounded = npu_clip(x, -9.0f, 9.0f), square = bounded * bounded;
    return npu_polynomial_tanh_odd(square) * bounded / npu_polynomial_tanh_even(square);
}

#endif
