/* UNARY: a function of one tensor, as FUNCTIONS of npu_backend/ops/numerics_unary.py have it. */
#include "element.h"
#include "elementary.h"

typedef struct {
    npu_element input;
    npu_element output;
    uint32_t function;
    float alpha;
    float beta;
} unary;

/* The function in float32, and in float64 rounded once. */
#define SINGLE(expression)                      \
    for (size_t i = 0; i < NPU_LANES; ++i) {    \
        const float x = values[i];              \
        values[i] = (expression);               \
    }                                           \
    break
#define DOUBLE(expression)                      \
    for (size_t i = 0; i < NPU_LANES; ++i) {    \
        const double x = (double)values[i];     \
        values[i] = (float)(expression);        \
    }                                           \
    break

NPU_INLINE double softplus(double x) {
    return (x > 0.0 ? x : 0.0) + npu_wide_log(1.0 + npu_wide_exp(-fabs(x)));
}

NPU_INLINE float mish(float x) {
    return x * npu_tanh((float)softplus((double)x));
}

NPU_INLINE double gelu_tanh(double x) {
    double inner = 0.7978845608028654 * (x + 0.044715 * x * x * x);
    return x / (1.0 + npu_wide_exp(-2.0 * inner));
}

NPU_INLINE void arithmetic_lanes(const unary *k, float *restrict values) {
    const float alpha = k->alpha, beta = k->beta;
    switch (k->function) {
    case NPU_UNARY_ABS: SINGLE(fabsf(x));
    case NPU_UNARY_NEGATIVE: SINGLE(-x);
    case NPU_UNARY_SIGN: SINGLE(x > 0.0f ? 1.0f : x < 0.0f ? -1.0f : x);
    case NPU_UNARY_CEIL: SINGLE(ceilf(x));
    case NPU_UNARY_FLOOR: SINGLE(floorf(x));
    case NPU_UNARY_ROUND: SINGLE(rintf(x));
    case NPU_UNARY_RELU: SINGLE(x < 0.0f ? 0.0f : x);
    case NPU_UNARY_CLIP: SINGLE(npu_clip(x, alpha, beta));
    case NPU_UNARY_LEAKY_RELU: SINGLE(x >= 0.0f ? x : alpha * x);
    case NPU_UNARY_THRESHOLDED_RELU: SINGLE(x > alpha ? x : 0.0f);
    case NPU_UNARY_HARD_SIGMOID: SINGLE(npu_clip(alpha * x + beta, 0.0f, 1.0f));
    case NPU_UNARY_HARD_SWISH: SINGLE(x * npu_clip((1.0f / 6.0f) * x + 0.5f, 0.0f, 1.0f));
    case NPU_UNARY_RECIPROCAL: SINGLE(1.0f / x);
    case NPU_UNARY_SQRT: SINGLE(sqrtf(x));
    case NPU_UNARY_SOFTSIGN: SINGLE(x / (1.0f + fabsf(x)));
    case NPU_UNARY_NOT: SINGLE(x == 0.0f ? 1.0f : 0.0f);
    case NPU_UNARY_IS_NAN: SINGLE(x != x ? 1.0f : 0.0f);
    case NPU_UNARY_IS_INF: SINGLE(((x == INFINITY) & (beta != 0.0f)) | ((x == -INFINITY) & (alpha != 0.0f)) ? 1.0f : 0.0f);
    default: break; /* IDENTITY */
    }
}

/* The exponent is a lane as the base is: what depends on it alone would split the loop, and keep it from vectorising. */
NPU_INLINE void power_lanes(float exponent, float *restrict values) {
    float exponents[NPU_LANES];
    for (size_t i = 0; i < NPU_LANES; ++i) {
        exponents[i] = exponent;
    }
    switch (exponent == 2.0f ? 2 : exponent == 3.0f ? 3 : 0) {
    case 2: SINGLE(x * x);
    case 3: SINGLE(x * x * x);
    default: DOUBLE(npu_wide_power(x, (double)exponents[i]));
    }
}

NPU_INLINE void elementary_lanes(const unary *k, float *restrict values) {
    const double alpha = (double)k->alpha, beta = (double)k->beta;
    switch (k->function) {
    case NPU_UNARY_SIGMOID: SINGLE(npu_sigmoid(x));
    case NPU_UNARY_TANH: SINGLE(npu_tanh(x));
    case NPU_UNARY_EXP: DOUBLE(npu_wide_exp(x));
    case NPU_UNARY_LOG: DOUBLE(npu_wide_log(x));
    case NPU_UNARY_ERF: DOUBLE(npu_wide_erf(x));
    case NPU_UNARY_SIN: DOUBLE(npu_wide_sin(x));
    case NPU_UNARY_COS: DOUBLE(npu_wide_cos(x));
    case NPU_UNARY_TAN: DOUBLE(npu_wide_tan(x));
    case NPU_UNARY_ASIN: DOUBLE(npu_wide_asin(x));
    case NPU_UNARY_ACOS: DOUBLE(npu_wide_acos(x));
    case NPU_UNARY_ATAN: DOUBLE(npu_wide_atan(x));
    case NPU_UNARY_SINH: DOUBLE(npu_wide_sinh(x));
    case NPU_UNARY_COSH: DOUBLE(npu_wide_cosh(x));
    case NPU_UNARY_ASINH: DOUBLE(npu_wide_asinh(x));
    case NPU_UNARY_ACOSH: DOUBLE(npu_wide_acosh(x));
    case NPU_UNARY_ATANH: DOUBLE(npu_wide_atanh(x));
    case NPU_UNARY_POWER: power_lanes(k->alpha, values); break;
    case NPU_UNARY_ELU: DOUBLE(x >= 0.0 ? x : alpha * (npu_wide_exp(x) - 1.0));
    case NPU_UNARY_CELU: DOUBLE(x >= 0.0 ? x : alpha * (npu_wide_exp(x / alpha) - 1.0));
    case NPU_UNARY_SELU: DOUBLE(beta * (x >= 0.0 ? x : alpha * (npu_wide_exp(x) - 1.0)));
    case NPU_UNARY_SOFTPLUS: DOUBLE(softplus(x));
    case NPU_UNARY_MISH: SINGLE(mish(x));
    case NPU_UNARY_SILU: DOUBLE(x / (1.0 + npu_wide_exp(-x)));
    case NPU_UNARY_GELU: DOUBLE(0.5 * x * (1.0 + npu_wide_erf(x * 0.7071067811865476)));
    case NPU_UNARY_GELU_TANH: DOUBLE(gelu_tanh(x));
    default: arithmetic_lanes(k, values); break;
    }
}

NPU_INLINE void unary_body(const void *context, uint8_t *const at[], size_t n) {
    const unary k = *(const unary *)context;
    for (size_t first = 0; first < n; first += NPU_LANES) {
        float values[NPU_LANES];
        npu_read_block(&k.input, at[0], first, n, values);
        elementary_lanes(&k, values);
        npu_write_block(&k.output, values, first, n, at[1]);
    }
}

NPU_LEVELS(unary, (const void *context, uint8_t *const at[], size_t n), (context, at, n))

npu_status npu_execute_unary(const npu_unary *op, uint8_t *spm, npu_scratch *scratch, uint32_t level) {
    (void)scratch;
    const unary k = {NPU_ELEMENT(op, input, level), NPU_ELEMENT(op, output, level), op->function, op->alpha, op->beta};
    npu_view view = npu_view_of(op->counts);
    npu_view_operand(&view, spm + op->input, k.input.bytes, op->input_strides);
    npu_view_operand(&view, spm + op->output, k.output.bytes, op->output_strides);
    npu_view_for_rows(&view, unary_levels[level - 1], &k);
    return NPU_OK;
}
