/* RESIZE: nearest and bilinear interpolation by tables; npu_backend/ops/numerics_resize.py. */
#include "vector.h"

typedef struct { /* a row of a table, positions in the tile */
    size_t low;
    size_t high;
    float low_weight;
    float high_weight;
} source;

typedef struct {
    npu_code code;
    int32_t zero_point;
    float input_scale;
    float output_scale;
    int32_t output_zero_point;
    float low;
    float high;
} constants;

typedef struct { /* the four neighbours of an output pixel, left to right, top to bottom, and their weights */
    const uint8_t *pixel[4];
    float weight[4];
} corners;

/* The table is data: a source outside the tile is taken for its nearest row. */
static size_t inside(uint32_t index, uint32_t origin, uint32_t length) {
    if (index < origin) {
        return 0;
    }
    return index - origin < length ? index - origin : length - 1;
}

static source source_at(const uint8_t *table, uint32_t index, uint32_t origin, uint32_t length) {
    const uint8_t *entry = table + (size_t)index * 16;
    uint32_t rows[2];
    memcpy(rows, entry, sizeof rows);
    source at = {inside(rows[0], origin, length), inside(rows[1], origin, length), npu_load_f32(entry + 8),
                 npu_load_f32(entry + 12)};
    return at;
}

NPU_INLINE float dequantized(uint8_t byte, const constants *k) {
    return (float)npu_subtract(npu_decode(byte, k->code), k->zero_point) * k->input_scale;
}

NPU_INLINE void bilinear_lanes(const corners *at, size_t channel, size_t lanes, const constants *k, uint8_t *output) {
    for (size_t lane = 0; lane < lanes; ++lane) {
        float value = at->weight[0] * dequantized(at->pixel[0][channel + lane], k);
        value += at->weight[1] * dequantized(at->pixel[1][channel + lane], k);
        value += at->weight[2] * dequantized(at->pixel[2][channel + lane], k);
        value += at->weight[3] * dequantized(at->pixel[3][channel + lane], k);
        int32_t rounded = npu_round(npu_clamp(value / k->output_scale, k->low, k->high));
        output[lane] = (uint8_t)npu_add(rounded, k->output_zero_point);
    }
}

NPU_INLINE void bilinear_body(const corners *corner, size_t channels, const constants *prepared,
                              uint8_t *restrict output) {
    const constants k = *prepared;
    const corners at = *corner;
#define BILINEAR(channel, lanes, to) bilinear_lanes(&at, channel, lanes, &k, to)
    NPU_FOR_LANES(channels, output, BILINEAR);
#undef BILINEAR
}

NPU_LEVELS(bilinear, (const corners *corner, size_t channels, const constants *k, uint8_t *restrict output),
           (corner, channels, k, output))

static void nearest_row(const npu_resize *op, const uint8_t *spm, const uint8_t *input, uint8_t *output) {
    size_t bytes = (size_t)op->channels * npu_type_bytes(op->data_type);
    for (uint32_t column = 0; column < op->output_width; ++column) {
        source at = source_at(spm + op->column_table, column, op->input_column_origin, op->input_width);
        memcpy(output + (size_t)column * op->output_column_bytes, input + at.low * op->input_column_bytes, bytes);
    }
}

static void bilinear_row(const npu_resize *op, const uint8_t *spm, source row, const constants *k, uint32_t level,
                         uint8_t *output) {
    const uint8_t *top = spm + op->input + row.low * op->input_row_bytes;
    const uint8_t *bottom = spm + op->input + row.high * op->input_row_bytes;
    for (uint32_t column = 0; column < op->output_width; ++column) {
        source at = source_at(spm + op->column_table, column, op->input_column_origin, op->input_width);
        size_t left = at.low * op->input_column_bytes, right = at.high * op->input_column_bytes;
        corners corner = {{top + left, top + right, bottom + left, bottom + right},
                          {at.low_weight * row.low_weight, at.high_weight * row.low_weight,
                           at.low_weight * row.high_weight, at.high_weight * row.high_weight}};
        bilinear_levels[level - 1](&corner, op->channels, k, output + (size_t)column * op->output_column_bytes);
    }
}

npu_status npu_execute_resize(const npu_resize *op, uint8_t *spm, npu_scratch *scratch, uint32_t level) {
    (void)scratch;
    constants k = {npu_code_of(op->data_type), op->input_zero_point, op->input_scale, op->output_scale,
                   op->output_zero_point, npu_type_low(op->data_type) - (float)op->output_zero_point,
                   npu_type_high(op->data_type) - (float)op->output_zero_point};
    for (uint32_t row = 0; row < op->output_height; ++row) {
        source at = source_at(spm + op->row_table, row, op->input_row_origin, op->input_height);
        uint8_t *output = spm + op->output + (size_t)row * op->output_row_bytes;
        if (op->function == NPU_RESIZE_NEAREST) {
            nearest_row(op, spm, spm + op->input + at.low * op->input_row_bytes, output);
        } else {
            bilinear_row(op, spm, at, &k, level, output);
        }
    }
    return NPU_OK;
}
