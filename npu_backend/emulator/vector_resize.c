/* RESIZE: interpolation whose sources and weights stand in tables. */
#include "element.h"

typedef struct {
    npu_element input;
    npu_element output;
} elements;

/* A row of a table: source positions, then their weights. */
typedef struct {
    const uint8_t *entry;
    uint32_t count;
    uint32_t origin;
    uint32_t length; /* positions that are present from the origin on */
    size_t step_bytes;
} taps;

NPU_INLINE float weight_of(const taps *axis, uint32_t tap) {
    return npu_load_f32(axis->entry + 4 * ((size_t)axis->count + tap));
}

/* The table is data: a source that is not present is taken for its nearest one. */
NPU_INLINE size_t offset_of(const taps *axis, uint32_t tap) {
    uint32_t position;
    memcpy(&position, axis->entry + 4 * (size_t)tap, sizeof position);
    uint32_t inside = position < axis->origin ? 0 : position - axis->origin;
    return (inside < axis->length ? inside : axis->length - 1) * axis->step_bytes;
}

static int is_outside(const taps *axis) {
    for (uint32_t tap = 0; tap < axis->count; ++tap) {
        if (weight_of(axis, tap) != 0.0f) {
            return 0;
        }
    }
    return 1;
}

NPU_INLINE void add_product(const uint8_t *from, const npu_element *element, float weight, size_t lanes, float *sum) {
    float values[NPU_LANES];
    element->read(element, from, lanes, values);
    for (size_t lane = 0; lane < lanes; ++lane) {
        sum[lane] += weight * values[lane];
    }
}

/* The weights' products first; -0 as a start leaves the first product as it is. */
NPU_INLINE void bilinear_lanes(const taps *row, const taps *column, const uint8_t *from, size_t lanes,
                               const elements *types, uint8_t *to) {
    float sum[NPU_LANES];
    for (size_t lane = 0; lane < lanes; ++lane) {
        sum[lane] = -0.0f;
    }
    for (uint32_t i = 0; i < 2; ++i) {
        for (uint32_t j = 0; j < 2; ++j) {
            const uint8_t *at = from + offset_of(row, i) + offset_of(column, j);
            add_product(at, &types->input, weight_of(column, j) * weight_of(row, i), lanes, sum);
        }
    }
    types->output.write(&types->output, sum, lanes, to);
}

/* A sum of the rows' sums; taps of weight 0 are left out, since they may be absent. */
NPU_INLINE void separable_lanes(const taps *row, const taps *column, const uint8_t *from, size_t lanes,
                                const elements *types, uint8_t *to) {
    float total[NPU_LANES] = {0.0f};
    for (uint32_t i = 0; i < row->count; ++i) {
        float line[NPU_LANES] = {0.0f}, row_weight = weight_of(row, i);
        if (row_weight == 0.0f) {
            continue;
        }
        for (uint32_t j = 0; j < column->count; ++j) {
            float weight = weight_of(column, j);
            if (weight != 0.0f) {
                add_product(from + offset_of(row, i) + offset_of(column, j), &types->input, weight, lanes, line);
            }
        }
        for (size_t lane = 0; lane < lanes; ++lane) {
            total[lane] += row_weight * line[lane];
        }
    }
    types->output.write(&types->output, total, lanes, to);
}

/* Blocks of fixed width become registers. */
#define FOR_BLOCKS(function)                                                                              \
    const elements types = *given;                                                                        \
    size_t done = 0;                                                                                      \
    for (; channels - done >= NPU_LANES; done += NPU_LANES) {                                             \
        function(row, column, from + done * types.input.bytes, NPU_LANES, &types, to + done * types.output.bytes); \
    }                                                                                                     \
    for (; channels - done >= 16; done += 16) {                                                           \
        function(row, column, from + done * types.input.bytes, 16, &types, to + done * types.output.bytes); \
    }                                                                                                     \
    function(row, column, from + done * types.input.bytes, channels - done, &types, to + done * types.output.bytes)

#define PIXEL                                                                                               \
    (const taps *row, const taps *column, const uint8_t *from, size_t channels, const elements *given, uint8_t *to)

NPU_INLINE void bilinear_body PIXEL {
    FOR_BLOCKS(bilinear_lanes);
}

NPU_INLINE void separable_body PIXEL {
    FOR_BLOCKS(separable_lanes);
}

NPU_LEVELS(bilinear, PIXEL, (row, column, from, channels, given, to))
NPU_LEVELS(separable, PIXEL, (row, column, from, channels, given, to))

static void nearest PIXEL {
    memcpy(to, from + offset_of(row, 0) + offset_of(column, 0), channels * given->input.bytes);
}

static void fill(const elements *types, float value, size_t channels, uint8_t *to) {
    for (size_t channel = 0; channel < channels; ++channel) {
        types->output.write(&types->output, &value, 1, to + channel * types->output.bytes);
    }
}

typedef void (*pixel_function) PIXEL;

static pixel_function function_of(uint32_t function, uint32_t level) {
    switch (function) {
    case NPU_RESIZE_NEAREST: return nearest;
    case NPU_RESIZE_BILINEAR: return bilinear_levels[level - 1];
    default: return separable_levels[level - 1];
    }
}

static taps taps_at(const uint8_t *table, uint32_t index, uint32_t count, uint32_t origin, uint32_t length,
                    uint32_t step_bytes) {
    taps axis = {table + (size_t)index * count * NPU_RESIZE_TAP_BYTES, count, origin, length, step_bytes};
    return axis;
}

npu_status npu_execute_resize(const npu_resize *op, uint8_t *spm, npu_scratch *scratch, uint32_t level) {
    (void)scratch;
    const elements types = {NPU_ELEMENT(op, input, level), NPU_ELEMENT(op, output, level)};
    const pixel_function function = function_of(op->function, level);
    for (uint32_t y = 0; y < op->output_height; ++y) {
        taps row = taps_at(spm + op->row_table, y, op->row_taps, op->input_row_origin, op->input_height,
                           op->input_row_bytes);
        int row_is_outside = is_outside(&row);
        for (uint32_t x = 0; x < op->output_width; ++x) {
            taps column = taps_at(spm + op->column_table, x, op->column_taps, op->input_column_origin, op->input_width,
                                  op->input_column_bytes);
            uint8_t *to = spm + op->output + (size_t)y * op->output_row_bytes + (size_t)x * op->output_column_bytes;
            if (row_is_outside || is_outside(&column)) {
                fill(&types, op->extrapolation, op->channels, to);
            } else {
                function(&row, &column, spm + op->input, op->channels, &types, to);
            }
        }
    }
    return NPU_OK;
}
