/* What the matrix engine's kernels share: the window's geometry, the pointer table of the vector kernels and the
 * arithmetic of requantisation, which every level performs with the same float operations in the same order. */
#ifndef NPU_MATRIX_H
#define NPU_MATRIX_H

#include <string.h>

#include "internal.h"

#if defined(__GNUC__) && defined(__x86_64__)
#define NPU_X86_KERNELS 1
#else
#define NPU_X86_KERNELS 0
#endif

enum { NPU_LEVEL_PORTABLE = 1, NPU_LEVEL_AVX2 = 2, NPU_LEVEL_AVX512 = 3 };

/* DEPTHWISE has the fields of CONV up to `accumulators`, so that both share geometry and requantisation. */
_Static_assert(offsetof(npu_conv, block_bytes) == offsetof(npu_depthwise, block_bytes), "CONV and DEPTHWISE differ");

static inline npu_conv npu_window_of_depthwise(const npu_depthwise *op) {
    npu_conv window;
    memset(&window, 0, sizeof window);
    memcpy(&window, op, offsetof(npu_depthwise, block_bytes) + sizeof op->block_bytes);
    return window;
}

static inline uint32_t npu_smaller(uint32_t a, uint32_t b) { return a < b ? a : b; }

static inline uint64_t npu_divide_up(uint64_t value, uint64_t divisor) { return (value + divisor - 1) / divisor; }

/* Where tap (ky, kx) of an output pixel reads; outside 0..input_height-1 and 0..input_width-1 lies padding. */
static inline int64_t npu_input_row(const npu_conv *op, uint32_t output_row, uint32_t ky) {
    return (int64_t)output_row * op->stride_height - op->pad_top + (int64_t)ky * op->dilation_height;
}

static inline int64_t npu_input_column(const npu_conv *op, uint32_t output_column, uint32_t kx) {
    return (int64_t)output_column * op->stride_width - op->pad_left + (int64_t)kx * op->dilation_width;
}

static inline uint8_t *npu_output_pixel(const npu_conv *op, uint8_t *spm, uint64_t pixel) {
    uint64_t row = pixel / op->output_width, column = pixel % op->output_width;
    return spm + op->output + row * op->output_row_bytes + column * op->output_column_bytes;
}

/* Parameters of one block of 16 output channels; the scratchpad promises no alignment, hence the copy. */
typedef struct {
    int32_t bias[NPU_CHANNEL_BLOCK];
    float multiplier[NPU_CHANNEL_BLOCK];
} npu_block_parameters;

static inline npu_block_parameters npu_load_parameters(const npu_conv *op, const uint8_t *spm, uint32_t block) {
    npu_block_parameters parameters;
    memcpy(&parameters, spm + op->parameters + (uint64_t)block * op->block_bytes, sizeof parameters);
    return parameters;
}

static inline int npu_is_byte_type(uint32_t type) { return type == NPU_TYPE_UINT8 || type == NPU_TYPE_INT8; }

static inline int npu_is_code_type(uint32_t type) {
    return npu_is_byte_type(type) || type == NPU_TYPE_UINT16 || type == NPU_TYPE_INT16;
}

/* What products are summed in, by the types of both factors: 8-bit codes in int32, which wraps around; codes of which
 * one has 16 bits exactly in int64; all else in float32, one product after another. */
typedef enum { NPU_SUM_INT32, NPU_SUM_INT64, NPU_SUM_FLOAT32 } npu_sum;

static inline npu_sum npu_sum_of(uint32_t left_type, uint32_t right_type) {
    if (!npu_is_code_type(left_type) || !npu_is_code_type(right_type)) return NPU_SUM_FLOAT32;
    return npu_is_byte_type(left_type) && npu_is_byte_type(right_type) ? NPU_SUM_INT32 : NPU_SUM_INT64;
}

static inline uint32_t npu_sum_bytes(npu_sum sum) { return sum == NPU_SUM_INT64 ? 8 : 4; }

/* Of CONV and DEPTHWISE, whose weights are int8, or float16 as their input. A uint16 counts as 32768 less. Floats start
 * from zero or the accumulator, over [chunk of channels][ky][kx][channel], padding included as zero; the product of two
 * halves is exact in float32, so that a fused and a separate addition give the same bits. */
static inline npu_sum npu_conv_sum_of(uint32_t input_type) { return npu_sum_of(input_type, NPU_TYPE_INT8); }

static inline uint32_t npu_conv_sum_bytes(uint32_t input_type) { return npu_sum_bytes(npu_conv_sum_of(input_type)); }

/* A block's bias of the sums' type, then its float32 multipliers. */
static inline uint32_t npu_parameter_bytes(uint32_t input_type) {
    return NPU_CHANNEL_BLOCK * (npu_conv_sum_bytes(input_type) + (uint32_t)sizeof(float));
}

static inline int npu_is_byte_to_byte(const npu_conv *op) {
    return npu_is_byte_type(op->input_type) && npu_is_byte_type(op->output_type);
}

static inline const int8_t *npu_block_weights(const npu_conv *op, const uint8_t *spm, uint32_t block) {
    return (const int8_t *)(spm + op->weights + (uint64_t)block * op->block_bytes);
}

static inline uint32_t npu_block_channels(const npu_conv *op, uint32_t block) {
    return npu_smaller(op->output_channels - block * NPU_CHANNEL_BLOCK, NPU_CHANNEL_BLOCK);
}

/* Bounds of the output code, moved by the zero point so that clamping comes before the conversion to an integer: no
 * float is too large for it, and between integer bounds the order of clamping and rounding does not matter. */
typedef struct {
    float low;
    float high;
    int32_t zero_point;
} npu_rounding;

static inline int32_t npu_bounded(int32_t value, int32_t low, int32_t high) {
    return value < low ? low : value > high ? high : value;
}

static inline npu_rounding npu_rounding_of(const npu_conv *op) {
    int32_t low = op->output_type == NPU_TYPE_INT8 ? INT8_MIN : 0;
    int32_t high = op->output_type == NPU_TYPE_INT8 ? INT8_MAX : UINT8_MAX;
    int32_t zero_point = npu_bounded(op->output_zero_point, low, high);
    npu_rounding rounding = {(float)(npu_bounded(op->clamp_low, low, high) - zero_point),
                             (float)(npu_bounded(op->clamp_high, low, high) - zero_point), zero_point};
    return rounding;
}

/* The int32 sum wraps around. NaN becomes `low`, as the x86 maximum does. Adding and subtracting 1.5 * 2^23 rounds half
 * to even in the default rounding mode. */
static inline uint8_t npu_requantize(int32_t sum, int32_t bias, float multiplier, const npu_rounding *rounding) {
    const float round_magic = 12582912.0f;
    float value = (float)(int32_t)((uint32_t)sum + (uint32_t)bias) * multiplier;
    value = value > rounding->low ? value : rounding->low;
    value = value < rounding->high ? value : rounding->high;
    value = value + round_magic;
    return (uint8_t)((int32_t)(value - round_magic) + rounding->zero_point);
}

/* A run of output pixels in row-major order, and the address of every input pixel they read, tap by tap. Padding points
 * at a pixel of zero points, so that the kernels know neither borders nor strides. Of halves the input is a copy in
 * float32. */
typedef struct {
    const npu_conv *op;
    uint8_t *spm;
    const uint8_t *input;   /* the first pixel */
    uint64_t row_bytes;     /* from one row of the input to the next */
    uint64_t column_bytes;
    const uint8_t *padding; /* input_channels zero points, then at least 64 readable bytes */
    const uint8_t **inputs; /* [taps][capacity]; behind `count` stand readable addresses */
    uint8_t **outputs;      /* [capacity] */
    const uint8_t *loaded;  /* [count][blocks][16] sums to start from; NULL: zero */
    uint8_t *kept;          /* the same, where the sums go; NULL: the kernel requantises them itself */
    uint8_t *workspace;     /* where sums go that another function finishes; NULL: there is none */
    uint8_t *extra;         /* the kernel's own workspace, 64-byte aligned */
    uint64_t first;         /* output pixel */
    uint32_t taps;
    uint32_t capacity; /* a multiple of NPU_STRIP_PIXELS, which are a multiple of every kernel's tile */
    uint32_t count;
} npu_strip;

enum { NPU_STRIP_PIXELS = 42 };

/* Reserves the workspace; NPU_OUT_OF_MEMORY when there is none. */
npu_status npu_strip_open(npu_strip *strip, const npu_conv *op, uint8_t *spm, npu_scratch *scratch,
                          uint64_t extra_bytes, uint32_t level);
/* Moves to the next run of pixels; 0 when there are no more. */
int npu_strip_next(npu_strip *strip);

/* Every strip's sums by `run`, then what is to become of them. */
typedef void npu_sum_kernel(const npu_strip *strip);
npu_status npu_run_strips(const npu_conv *op, uint8_t *spm, npu_scratch *scratch, uint64_t extra_bytes, uint32_t level,
                          npu_sum_kernel *run);

#if NPU_X86_KERNELS
void npu_conv_avx2(const npu_strip *strip);
void npu_conv_avx512(const npu_strip *strip);
void npu_conv_sums_avx2(const npu_strip *strip); /* of halves and 16-bit codes */
void npu_conv_sums_avx512(const npu_strip *strip);
void npu_depthwise_sums_avx2(const npu_strip *strip); /* of all types */
void npu_depthwise_sums_avx512(const npu_strip *strip);
uint64_t npu_depthwise_avx2_bytes(const npu_conv *op); /* of strip->extra: weights and parameters, arranged for the first strip */
uint64_t npu_depthwise_avx512_bytes(const npu_conv *op);
void npu_depthwise_avx2(const npu_strip *strip);
void npu_depthwise_avx512(const npu_strip *strip);
#endif

#endif
