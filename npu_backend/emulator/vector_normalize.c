/* NORMALIZE and LRN: every line by its own statistics, in float32; npu_backend/ops/numerics_lines.py. */
#include "lines.h"

NPU_INLINE void normalize_lanes(const npu_normalize *op, float *restrict x, size_t length, const size_t lanes) {
    float of_line[NPU_LINE_LANES];
    if (op->subtract_mean) {
        npu_sum_lines(x, length, lanes, of_line);
        for (size_t l = 0; l < lanes; ++l) {
            of_line[l] /= (float)length;
        }
        NPU_EACH_ELEMENT(x, length, lanes, own - of_line[l])
    }
    npu_sum_squares(x, length, lanes, of_line);
    for (size_t l = 0; l < lanes; ++l) {
        of_line[l] = 1.0f / sqrtf(of_line[l] / (float)length + op->epsilon);
    }
    NPU_EACH_ELEMENT(x, length, lanes, own * of_line[l])
}

NPU_INLINE void normalize_body(const void *context, float *x, float *spare, size_t length, size_t lanes) {
    (void)spare;
    if (lanes == 1) {
        normalize_lanes(context, x, length, 1);
    } else {
        normalize_lanes(context, x, length, NPU_LINE_LANES);
    }
}

NPU_LEVELS(normalize, (const void *context, float *x, float *spare, size_t length, size_t lanes),
           (context, x, spare, length, lanes))

npu_status npu_execute_normalize(const npu_normalize *op, uint8_t *spm, npu_scratch *scratch, uint32_t level) {
    npu_lines lines = npu_lines_of((const npu_line_fields *)(const void *)op, spm, level);
    return npu_transform_lines(&lines, normalize_levels[level - 1], op, 0, scratch);
}

/* The squares, with zeros before and after the line, so that every element has `size` of them around it. */
NPU_INLINE void pad_squares(const npu_lrn *op, const float *restrict x, float *restrict squares, size_t floats,
                            const size_t lanes) {
    const size_t before = (op->size - 1) / 2 * lanes, after = op->size / 2 * lanes;
    npu_fill_floats(squares, before, 0.0f);
    for (size_t i = 0; i < floats; ++i) {
        squares[before + i] = x[i] * x[i];
    }
    npu_fill_floats(squares + before + floats, after, 0.0f);
}

NPU_INLINE void lrn_lanes(const npu_lrn *op, float *restrict x, float *restrict squares, size_t length,
                          const size_t lanes) {
    const size_t floats = length * lanes;
    const float factor = op->alpha / (float)op->size, bias = op->bias;
    const double exponent = -(double)op->beta;
    pad_squares(op, x, squares, floats, lanes);
    for (size_t i = 0; i < floats; i += NPU_LANES) {
        const size_t n = floats - i < NPU_LANES ? floats - i : NPU_LANES;
        float sums[NPU_LANES] = {0};
        for (size_t tap = 0; tap < op->size; ++tap) {
            for (size_t j = 0; j < n; ++j) {
                sums[j] += squares[i + tap * lanes + j];
            }
        }
        for (size_t j = 0; j < n; ++j) {
            x[i + j] *= (float)npu_wide_exp(exponent * npu_wide_log((double)(bias + factor * sums[j])));
        }
    }
}

NPU_INLINE void lrn_body(const void *context, float *x, float *spare, size_t length, size_t lanes) {
    if (lanes == 1) {
        lrn_lanes(context, x, spare, length, 1);
    } else {
        lrn_lanes(context, x, spare, length, NPU_LINE_LANES);
    }
}

NPU_LEVELS(lrn, (const void *context, float *x, float *spare, size_t length, size_t lanes),
           (context, x, spare, length, lanes))

npu_status npu_execute_lrn(const npu_lrn *op, uint8_t *spm, npu_scratch *scratch, uint32_t level) {
    npu_lines lines = npu_lines_of((const npu_line_fields *)(const void *)op, spm, level);
    return npu_transform_lines(&lines, lrn_levels[level - 1], op, op->size, scratch);
}
