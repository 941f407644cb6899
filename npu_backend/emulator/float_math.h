/* exp and log in float32, of plain additions and multiplications, so that they vectorise and all levels agree.
 *
 * Range reductions and polynomials are those of the Cephes library (expf, logf): errors below two units in the last
 * place. npu_backend/ops/numerics_math.py has the same operations in the same order.
 */
#ifndef NPU_MATH_H
#define NPU_MATH_H

#include "element.h"

/* 2**n, -126 <= n <= 127. */
NPU_INLINE float npu_power_of_two(int32_t n) {
    return npu_bits_to_float((uint32_t)(n + 127) << 23);
}

/* e**x; beyond float32's range 0 or infinity, NaN stays NaN. The power of two is multiplied in halves, as the result
 * may be subnormal. */
NPU_INLINE float npu_exp(float x) {
    const float bounded = npu_clamp(x, -104.0f, 89.0f);
    const int32_t n = npu_round(bounded * 1.44269504088896341f);
    const float whole = (float)n;
    const float r = bounded - whole * 0.693359375f - whole * -2.12194440e-4f;
    float sum = 1.9875691500e-4f * r + 1.3981999507e-3f;
    sum = sum * r + 8.3334519073e-3f;
    sum = sum * r + 4.1665795894e-2f;
    sum = sum * r + 1.6666665459e-1f;
    sum = sum * r + 5.0000001201e-1f;
    sum = sum * (r * r) + r + 1.0f;
    const int32_t half = n >> 1;
    const float result = sum * npu_power_of_two(half) * npu_power_of_two(n - half);
    return x == x ? result : x;
}

/* The natural logarithm; of 0 minus infinity, of less NaN. A subnormal is scaled by 2**23 first. */
NPU_INLINE float npu_log(float x) {
    const int is_small = x < 1.17549435e-38f;
    const uint32_t bits = npu_float_to_bits(is_small ? x * 8388608.0f : x);
    const float fraction = npu_bits_to_float((bits & 0x007FFFFFu) | 0x3F000000u);
    const int is_low = fraction < 0.707106781186547524f;
    const float e = (float)((int32_t)(bits >> 23) - 126 - (is_small ? 23 : 0) - (is_low ? 1 : 0));
    const float r = (is_low ? fraction + fraction : fraction) - 1.0f;
    const float square = r * r;
    float sum = 7.0376836292e-2f * r + -1.1514610310e-1f;
    sum = sum * r + 1.1676998740e-1f;
    sum = sum * r + -1.2420140846e-1f;
    sum = sum * r + 1.4249322787e-1f;
    sum = sum * r + -1.6668057665e-1f;
    sum = sum * r + 2.0000714765e-1f;
    sum = sum * r + -2.4999993993e-1f;
    sum = sum * r + 3.3333331174e-1f;
    sum = sum * r * square + e * -2.12194440e-4f - 0.5f * square;
    const float finite = r + sum + e * 0.693359375f;
    const float positive = x < INFINITY ? finite : x;
    return x > 0.0f ? positive : x == 0.0f ? -INFINITY : NAN;
}

#endif
