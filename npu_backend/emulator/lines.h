/* Lines: elements along some axes of a strided view, in float32, one result or one new element for each.
 *
 * A line is a buffer of floats. Where neighbouring lines lie side by side in the scratchpad and a line's own elements
 * lie apart, NPU_LINE_LANES lines share a buffer, element by element: x[element * lanes + line].
 *
 * Sums have one order on every machine and layout: element i goes to partial result i % NPU_PARTIALS, each partial
 * result takes its elements in turn, and then the upper half is added to the lower until one is left (fold of
 * npu_backend/ops/numerics_lines.py).
 */
#ifndef NPU_LINES_H
#define NPU_LINES_H

#include "element.h"
#include "float_math.h"

#define NPU_LINE_LANES 16u
#define NPU_PARTIALS 16u
#define NPU_MAX_PARTIALS (NPU_PARTIALS * NPU_LINE_LANES)
#define NPU_CHUNK_FLOATS 4096u /* a multiple of NPU_MAX_PARTIALS */

/* The fields that all instructions on lines begin with. */
typedef npu_reduce npu_line_fields;

typedef struct {
    const uint8_t *input;
    uint8_t *output;
    npu_element from;
    npu_element to;
    npu_view along;  /* input, then output */
    npu_view across; /* the last axis is the one whose neighbours share a buffer */
    size_t length;   /* elements of a line */
    size_t lanes;    /* lines in a buffer: 1 or NPU_LINE_LANES */
    uint32_t level;
} npu_lines;

/* One buffer's worth: `count` lines from these addresses on. */
typedef struct {
    const uint8_t *input;
    uint8_t *output;
    size_t count;
} npu_line_block;

typedef void (*npu_block_visitor)(const npu_lines *lines, npu_line_block block, void *context);
/* A buffer of `length` elements of `lanes` lines, changed in place; `spare` has as many and those asked for. */
typedef void (*npu_line_transform)(const void *context, float *x, float *spare, size_t length, size_t lanes);

npu_lines npu_lines_of(const npu_line_fields *op, uint8_t *spm, uint32_t level);
void npu_for_blocks(const npu_lines *lines, npu_block_visitor visit, void *context);
/* Elements first .. first + count of the block's lines to a buffer. */
void npu_read_lines(const npu_lines *lines, npu_line_block block, size_t first, size_t count, float *x);
/* One element for each of the block's lines. */
void npu_write_across(const npu_lines *lines, npu_line_block block, const float *values);
/* Every line through a buffer, with spare space of `spare_elements` more than a line has, or none where that is 0. */
npu_status npu_transform_lines(const npu_lines *lines, npu_line_transform transform, const void *context,
                               size_t spare_elements, npu_scratch *scratch);

/* Takes `count` elements of each line into the partial results: element i of the buffer as `value`. */
#define NPU_FOLD(partials, x, count, lanes, value)                                   \
    do {                                                                             \
        const size_t npu_period = NPU_PARTIALS * (lanes), npu_end = (count) * (lanes); \
        size_t npu_at = 0;                                                           \
        for (; npu_end - npu_at >= npu_period; npu_at += npu_period) {               \
            for (size_t q = 0; q < npu_period; ++q) {                                \
                const float a = (partials)[q], b = (x)[npu_at + q];                  \
                (partials)[q] = (value);                                             \
            }                                                                        \
        }                                                                            \
        for (size_t q = 0; q < npu_end - npu_at; ++q) {                              \
            const float a = (partials)[q], b = (x)[npu_at + q];                      \
            (partials)[q] = (value);                                                 \
        }                                                                            \
    } while (0)

/* One result a line, in the first `lanes` partial results: a and b joined to `value`. */
#define NPU_JOIN(partials, lanes, value)                                             \
    for (size_t npu_half = NPU_PARTIALS / 2 * (lanes); npu_half >= (lanes); npu_half /= 2) { \
        for (size_t q = 0; q < npu_half; ++q) {                                      \
            const float a = (partials)[q], b = (partials)[q + npu_half];             \
            (partials)[q] = (value);                                                 \
        }                                                                            \
    }

/* x[i] = value, where `own` is x[i] and `l` the number of its line in the buffer. */
#define NPU_EACH_ELEMENT(x, length, lanes, value)    \
    for (size_t r = 0; r < (length); ++r) {          \
        for (size_t l = 0; l < (lanes); ++l) {       \
            const float own = (x)[r * (lanes) + l];  \
            (x)[r * (lanes) + l] = (value);          \
        }                                            \
    }

NPU_INLINE void npu_fill_floats(float *to, size_t count, float value) {
    for (size_t i = 0; i < count; ++i) {
        to[i] = value;
    }
}

/* Sums of the lines to total[lanes]. */
NPU_INLINE void npu_sum_lines(const float *restrict x, size_t length, const size_t lanes, float *restrict total) {
    float partials[NPU_MAX_PARTIALS] = {0};
    NPU_FOLD(partials, x, length, lanes, a + b);
    NPU_JOIN(partials, lanes, a + b)
    memcpy(total, partials, lanes * sizeof *total);
}

NPU_INLINE void npu_sum_squares(const float *restrict x, size_t length, const size_t lanes, float *restrict total) {
    float partials[NPU_MAX_PARTIALS] = {0};
    NPU_FOLD(partials, x, length, lanes, a + b * b);
    NPU_JOIN(partials, lanes, a + b)
    memcpy(total, partials, lanes * sizeof *total);
}

#endif
