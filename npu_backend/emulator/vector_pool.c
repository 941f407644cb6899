/* POOL: window reductions, channels across the vector lanes; arithmetic of npu_backend/ops/numerics_pool.py.
 *
 * Taps outside the input's rows and columns are padding: no kernel reads them. The averages sum float32 row by row,
 * tap by tap, for each channel on its own, so the order of a sum does not depend on the vector width.
 */
#include "element.h"

typedef struct { /* the taps of one output pixel that lie inside the image */
    const uint8_t *first;
    size_t rows;
    size_t columns;
    size_t row_step; /* bytes */
    size_t column_step;
    float count; /* divisor of an average */
} window;

typedef struct {
    npu_code code;
    int32_t zero_point;
    float input_scale;
    float output_scale;
    float output_zero_point;
    uint8_t flip; /* of the output */
} average;

typedef struct {
    size_t first; /* first tap inside the image */
    size_t count;
    int64_t position; /* of the first tap */
    uint64_t counted; /* taps before the end of the padding */
} taps;

static uint64_t count_taps(int64_t start, uint32_t kernel, uint32_t dilation, uint32_t end) {
    int64_t count = ((int64_t)end - start + dilation - 1) / dilation;
    return count < 1 ? 1 : count < (int64_t)kernel ? (uint64_t)count : kernel;
}

static taps clip_taps(int64_t start, uint32_t kernel, uint32_t dilation, uint32_t length, uint32_t counted_length) {
    taps inside = {0, kernel, start, count_taps(start, kernel, dilation, counted_length)};
    if (start >= 0 && start + (int64_t)(kernel - 1) * dilation < (int64_t)length) {
        return inside;
    }
    if (start < 0) {
        inside.first = (size_t)((-start + dilation - 1) / dilation);
    }
    int64_t last = start >= (int64_t)length ? -1 : ((int64_t)length - 1 - start) / dilation;
    int64_t count = (last < (int64_t)kernel - 1 ? last : (int64_t)kernel - 1) + 1 - (int64_t)inside.first;
    inside.count = count > 0 ? (size_t)count : 0;
    inside.position = start + (int64_t)inside.first * dilation;
    return inside;
}

static window window_at(const npu_pool *op, const uint8_t *input, taps rows, uint32_t column) {
    taps columns = clip_taps((int64_t)column * op->stride_width - op->pad_left, op->kernel_width, op->dilation_width,
                             op->input_width, op->counted_width);
    window at = {input, rows.count, columns.count, 0, 0, 1.0f};
    at.row_step = (size_t)op->dilation_height * op->input_row_bytes;
    at.column_step = (size_t)op->dilation_width * op->input_column_bytes;
    size_t valid = rows.count * columns.count;
    if (valid > 0) {
        at.first += (size_t)rows.position * op->input_row_bytes + (size_t)columns.position * op->input_column_bytes;
    }
    if (op->function == NPU_POOL_AVERAGE_WINDOW) {
        at.count = (float)(rows.counted * columns.counted);
    } else if (valid > 0) {
        at.count = (float)valid;
    }
    return at;
}

NPU_INLINE void maximum_lanes(const window *at, size_t channel, size_t lanes, uint8_t flip, uint8_t *output) {
    uint8_t best[NPU_LANES] = {0};
    for (size_t row = 0; row < at->rows; ++row) {
        for (size_t column = 0; column < at->columns; ++column) {
            const uint8_t *tap = at->first + row * at->row_step + column * at->column_step + channel;
            for (size_t lane = 0; lane < lanes; ++lane) {
                uint8_t value = tap[lane] ^ flip;
                best[lane] = value > best[lane] ? value : best[lane];
            }
        }
    }
    for (size_t lane = 0; lane < lanes; ++lane) {
        output[lane] = best[lane] ^ flip;
    }
}

NPU_INLINE void maximum_body(const window *at, size_t channels, const average *k, uint8_t *output) {
    uint8_t flip = k->code.flip;
#define MAXIMUM(channel, lanes, to) maximum_lanes(at, channel, lanes, flip, to)
    NPU_FOR_LANES(channels, output, MAXIMUM);
#undef MAXIMUM
}

NPU_INLINE void average_lanes(const window *at, size_t channel, size_t lanes, const average *k, uint8_t *output) {
    float sums[NPU_LANES] = {0};
    for (size_t row = 0; row < at->rows; ++row) {
        for (size_t column = 0; column < at->columns; ++column) {
            const uint8_t *tap = at->first + row * at->row_step + column * at->column_step + channel;
            for (size_t lane = 0; lane < lanes; ++lane) {
                int32_t centred = npu_subtract(npu_decode(tap[lane], k->code), k->zero_point);
                sums[lane] += (float)centred * k->input_scale;
            }
        }
    }
    for (size_t lane = 0; lane < lanes; ++lane) {
        float value = sums[lane] / at->count / k->output_scale + k->output_zero_point;
        output[lane] = (uint8_t)npu_round(npu_clamp(value, 0.0f, 255.0f)) ^ k->flip;
    }
}

NPU_INLINE void average_body(const window *at, size_t channels, const average *constants, uint8_t *output) {
    const average k = *constants;
#define AVERAGE(channel, lanes, to) average_lanes(at, channel, lanes, &k, to)
    NPU_FOR_LANES(channels, output, AVERAGE);
#undef AVERAGE
}

typedef struct {
    npu_element from;
    npu_element to;
    uint32_t function;
} elements;

NPU_INLINE void take_tap(uint32_t function, const float *restrict tap, size_t lanes, float *restrict results) {
    for (size_t lane = 0; lane < lanes; ++lane) {
        const float a = results[lane], b = tap[lane];
        results[lane] = function == NPU_POOL_MAXIMUM ? (a > b ? a : b)
                        : function == NPU_POOL_L1    ? a + fabsf(b)
                        : function == NPU_POOL_L2    ? a + b * b
                                                     : a + b;
    }
}

NPU_INLINE void element_lanes(const window *at, size_t channel, size_t lanes, const elements *k, uint8_t *output) {
    float results[NPU_LANES], values[NPU_LANES];
    for (size_t lane = 0; lane < lanes; ++lane) {
        results[lane] = k->function == NPU_POOL_MAXIMUM ? -INFINITY : 0.0f;
    }
    for (size_t row = 0; row < at->rows; ++row) {
        for (size_t column = 0; column < at->columns; ++column) {
            const uint8_t *tap = at->first + row * at->row_step + column * at->column_step;
            k->from.read(&k->from, tap + channel * k->from.bytes, lanes, values);
            take_tap(k->function, values, lanes, results);
        }
    }
    const int is_average = k->function == NPU_POOL_AVERAGE_VALID || k->function == NPU_POOL_AVERAGE_WINDOW;
    const float divisor = is_average ? at->count : 1.0f;
    for (size_t lane = 0; lane < lanes; ++lane) {
        results[lane] = k->function == NPU_POOL_L2 ? sqrtf(results[lane]) : results[lane] / divisor;
    }
    k->to.write(&k->to, results, lanes, output + channel * k->to.bytes);
}

NPU_INLINE void element_body(const window *at, size_t channels, const elements *constants, uint8_t *output) {
    const elements k = *constants;
    size_t channel = 0;
    for (; channels - channel >= NPU_LANES; channel += NPU_LANES) {
        element_lanes(at, channel, NPU_LANES, &k, output);
    }
    element_lanes(at, channel, channels - channel, &k, output);
}

NPU_LEVELS(element, (const window *at, size_t channels, const elements *k, uint8_t *output), (at, channels, k, output))
NPU_LEVELS(maximum, (const window *at, size_t channels, const average *k, uint8_t *output),
           (at, channels, k, output))
NPU_LEVELS(average, (const window *at, size_t channels, const average *k, uint8_t *output),
           (at, channels, k, output))

static average prepare(const npu_pool *op) {
    average k = {npu_code_of(op->input_type), op->input_zero_point, op->input_scale, op->output_scale,
                 (float)npu_unsigned_zero_point(op->output_zero_point, op->output_type),
                 npu_unsigned_code(op->output_type).flip};
    return k;
}

/* ONNX Runtime has integer kernels for averages without dilation, and a maximum that keeps its code needs no float. */
static int is_on_bytes(const npu_pool *op) {
    int keeps_code = op->input_scale == op->output_scale && op->input_zero_point == op->output_zero_point;
    int is_average = op->function == NPU_POOL_AVERAGE_VALID || op->function == NPU_POOL_AVERAGE_WINDOW;
    return op->input_type == op->output_type && op->input_type <= NPU_TYPE_INT8 &&
           (op->function == NPU_POOL_MAXIMUM ? keeps_code
                                             : is_average && op->dilation_height == 1 && op->dilation_width == 1);
}

static void reduce_window(const npu_pool *op, const window *at, const average *k, uint8_t *output, uint32_t level) {
    if (!is_on_bytes(op)) {
        const elements any = {NPU_ELEMENT(op, input, level), NPU_ELEMENT(op, output, level), op->function};
        element_levels[level - 1](at, op->output_channels, &any, output);
    } else if (op->function == NPU_POOL_MAXIMUM) {
        maximum_levels[level - 1](at, op->output_channels, k, output);
    } else {
        average_levels[level - 1](at, op->output_channels, k, output);
    }
}

npu_status npu_execute_pool(const npu_pool *op, uint8_t *spm, npu_scratch *scratch, uint32_t level) {
    (void)scratch;
    average k = prepare(op);
    for (uint32_t row = 0; row < op->output_height; ++row) {
        uint8_t *output = spm + op->output + (size_t)row * op->output_row_bytes;
        taps rows = clip_taps((int64_t)row * op->stride_height - op->pad_top, op->kernel_height, op->dilation_height,
                              op->input_height, op->counted_height);
        for (uint32_t column = 0; column < op->output_width; ++column) {
            window at = window_at(op, spm + op->input, rows, column);
            reduce_window(op, &at, &k, output, level);
            output += op->output_column_bytes;
        }
    }
    return NPU_OK;
}
