/* RESIZE: interpolation whose sources and weights stand in tables. */
#include "element.h"

/* A row of a table: source positions, then their weights. */
typedef struct {
    const uint8_t *entry;
    uint32_t count;
    uint32_t origin;
    uint32_t length; /* positions that are present from the origin on */
} taps;

NPU_INLINE float weight_of(const taps *axis, uint32_t tap) {
    return npu_load_f32(axis->entry + 4 * ((size_t)axis->count + tap));
}

/* The table is data: a source that is not present is taken for its nearest one. */
NPU_INLINE size_t place_of(const taps *axis, uint32_t tap) {
    uint32_t position;
    memcpy(&position, axis->entry + 4 * (size_t)tap, sizeof position);
    uint32_t inside = position < axis->origin ? 0 : position - axis->origin;
    return inside < axis->length ? inside : axis->length - 1;
}

static int is_outside(const taps *axis) {
    for (uint32_t tap = 0; tap < axis->count; ++tap) {
        if (weight_of(axis, tap) != 0.0f) {
            return 0;
        }
    }
    return 1;
}

/* What the pixels of an output row share. */
typedef struct {
    taps row;
    const float *lines; /* the row's sources, one after another */
    size_t pitch;       /* floats of a line */
    size_t channels;
} sources;

NPU_INLINE const float *pixel_at(const sources *from, uint32_t line, const taps *column, uint32_t tap) {
    return from->lines + line * from->pitch + place_of(column, tap) * from->channels;
}

#define PIXEL (const sources *from, const taps *column, float *restrict to)

/* The weights' products first. */
NPU_INLINE void bilinear_body PIXEL {
    const float top = weight_of(&from->row, 0), bottom = weight_of(&from->row, 1);
    const float left = weight_of(column, 0), right = weight_of(column, 1);
    const float weights[4] = {left * top, right * top, left * bottom, right * bottom};
    const float *a = pixel_at(from, 0, column, 0), *b = pixel_at(from, 0, column, 1);
    const float *c = pixel_at(from, 1, column, 0), *d = pixel_at(from, 1, column, 1);
    for (size_t i = 0; i < from->channels; ++i) {
        to[i] = weights[0] * a[i] + weights[1] * b[i] + weights[2] * c[i] + weights[3] * d[i];
    }
}

NPU_INLINE void add_product(float weight, const float *restrict values, size_t lanes, float *restrict sum) {
    for (size_t lane = 0; lane < lanes; ++lane) {
        sum[lane] += weight * values[lane];
    }
}

/* A sum of the rows' sums; taps of weight 0 are left out, since they may be absent. */
NPU_INLINE void separable_lanes(const sources *from, const taps *column, size_t first, size_t lanes, float *to) {
    float total[NPU_LANES] = {0.0f};
    for (uint32_t i = 0; i < from->row.count; ++i) {
        float line[NPU_LANES] = {0.0f}, row_weight = weight_of(&from->row, i);
        if (row_weight == 0.0f) {
            continue;
        }
        for (uint32_t j = 0; j < column->count; ++j) {
            float weight = weight_of(column, j);
            if (weight != 0.0f) {
                add_product(weight, pixel_at(from, i, column, j) + first, lanes, line);
            }
        }
        add_product(row_weight, line, lanes, total);
    }
    memcpy(to + first, total, lanes * sizeof *to);
}

/* Blocks of fixed width become registers. */
NPU_INLINE void separable_body PIXEL {
    size_t first = 0;
    for (; from->channels - first >= NPU_LANES; first += NPU_LANES) {
        separable_lanes(from, column, first, NPU_LANES, to);
    }
    for (; from->channels - first >= 16; first += 16) {
        separable_lanes(from, column, first, 16, to);
    }
    separable_lanes(from, column, first, from->channels - first, to);
}

NPU_LEVELS(bilinear, PIXEL, (from, column, to))
NPU_LEVELS(separable, PIXEL, (from, column, to))

static taps taps_at(const uint8_t *table, uint32_t index, uint32_t count, uint32_t origin, uint32_t length) {
    taps axis = {table + (size_t)index * count * NPU_RESIZE_TAP_BYTES, count, origin, length};
    return axis;
}

static taps row_taps(const npu_resize *op, const uint8_t *spm, uint32_t y) {
    return taps_at(spm + op->row_table, y, op->row_taps, op->input_row_origin, op->input_height);
}

static taps column_taps(const npu_resize *op, const uint8_t *spm, uint32_t x) {
    return taps_at(spm + op->column_table, x, op->column_taps, op->input_column_origin, op->input_width);
}

static void interpolate_row(const npu_resize *op, const uint8_t *spm, const sources *from, float *to, uint32_t level) {
    const int row_is_outside = is_outside(&from->row);
    for (uint32_t x = 0; x < op->output_width; ++x, to += op->channels) {
        const taps column = column_taps(op, spm, x);
        if (row_is_outside || is_outside(&column)) {
            for (uint32_t channel = 0; channel < op->channels; ++channel) {
                to[channel] = op->extrapolation;
            }
        } else if (op->function == NPU_RESIZE_BILINEAR) {
            bilinear_levels[level - 1](from, &column, to);
        } else {
            separable_levels[level - 1](from, &column, to);
        }
    }
}

/* An element becomes a float once for each row of the output that it is a source of. */
static npu_status interpolate(const npu_resize *op, uint8_t *spm, npu_scratch *scratch, uint32_t level) {
    const npu_element input = NPU_ELEMENT(op, input, level), output = NPU_ELEMENT(op, output, level);
    const size_t pitch = (size_t)op->channels * op->input_width, result = (size_t)op->channels * op->output_width;
    float *lines = (float *)(void *)npu_scratch_reserve(scratch, (op->row_taps * pitch + result) * sizeof *lines);
    if (lines == NULL) {
        return NPU_OUT_OF_MEMORY;
    }
    float *to = lines + op->row_taps * pitch;
    for (uint32_t y = 0; y < op->output_height; ++y) {
        const sources from = {row_taps(op, spm, y), lines, pitch, op->channels};
        for (uint32_t i = 0; i < op->row_taps; ++i) {
            npu_read_pixels(&input, spm + op->input + place_of(&from.row, i) * op->input_row_bytes,
                            op->input_column_bytes, op->input_width, op->channels, lines + i * pitch);
        }
        interpolate_row(op, spm, &from, to, level);
        npu_write_pixels(&output, to, op->output_column_bytes, op->output_width, op->channels,
                         spm + op->output + (size_t)y * op->output_row_bytes);
    }
    return NPU_OK;
}

static uint8_t *output_pixel(const npu_resize *op, uint8_t *spm, uint32_t y, uint32_t x) {
    return spm + op->output + (size_t)y * op->output_row_bytes + (size_t)x * op->output_column_bytes;
}

static void take_nearest(const npu_resize *op, uint8_t *spm, uint32_t level) {
    const npu_element output = NPU_ELEMENT(op, output, level);
    for (uint32_t y = 0; y < op->output_height; ++y) {
        const taps row = row_taps(op, spm, y);
        const uint8_t *line = spm + op->input + place_of(&row, 0) * op->input_row_bytes;
        const int row_is_outside = is_outside(&row);
        for (uint32_t x = 0; x < op->output_width; ++x) {
            const taps column = column_taps(op, spm, x);
            uint8_t *to = output_pixel(op, spm, y, x);
            if (!row_is_outside && !is_outside(&column)) {
                memcpy(to, line + place_of(&column, 0) * op->input_column_bytes, op->channels * output.bytes);
                continue;
            }
            for (uint32_t channel = 0; channel < op->channels; ++channel) {
                output.write(&output, &op->extrapolation, 1, to + channel * output.bytes);
            }
        }
    }
}

npu_status npu_execute_resize(const npu_resize *op, uint8_t *spm, npu_scratch *scratch, uint32_t level) {
    if (op->function != NPU_RESIZE_NEAREST) {
        return interpolate(op, spm, scratch, level);
    }
    take_nearest(op, spm, level);
    return NPU_OK;
}
