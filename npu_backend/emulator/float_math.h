/* exp and log of float32: those of elementary.h, rounded once. npu_backend/ops/numerics_math.py has the same. */
#ifndef NPU_MATH_H
#define NPU_MATH_H

#include "element.h"
#include "elementary.h"

/* e**x; beyond float32's range 0 or infinity, NaN stays NaN. */
NPU_INLINE float npu_exp(float x) {
    return (float)npu_wide_exp((double)x);
}

/* The natural logarithm; of 0 minus infinity, of less NaN. */
NPU_INLINE float npu_log(float x) {
    return (float)npu_wide_log((double)x);
}

#endif
