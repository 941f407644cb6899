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

static taps rows_of(const npu_pool *op, uint32_t row) {
    return clip_taps((int64_t)row * op->stride_height - op->pad_top, op->kernel_height, op->dilation_height,
                     op->input_height, op->counted_height);
}

static taps columns_of(const npu_pool *op, uint32_t column) {
    return clip_taps((int64_t)column * op->stride_width - op->pad_left, op->kernel_width, op->dilation_width,
                     op->input_width, op->counted_width);
}

static window window_at(const npu_pool *op, const uint8_t *input, taps rows, taps columns) {
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

NPU_INLINE void take_tap(uint32_t function, const float *restrict tap, size_t lanes, float *restrict results) {
    for (size_t lane = 0; lane < lanes; ++lane) {
        const float a = results[lane], b = tap[lane];
        results[lane] = function == NPU_POOL_MAXIMUM ? (a > b ? a : b)
                        : function == NPU_POOL_L1    ? a + fabsf(b)
                        : function == NPU_POOL_L2    ? a + b * b
                                                     : a + b;
    }
}

NPU_INLINE void float_lanes(const window *at, size_t channel, size_t lanes, uint32_t function, float *output) {
    float results[NPU_LANES];
    for (size_t lane = 0; lane < lanes; ++lane) {
        results[lane] = function == NPU_POOL_MAXIMUM ? -INFINITY : 0.0f;
    }
    for (size_t row = 0; row < at->rows; ++row) {
        for (size_t column = 0; column < at->columns; ++column) {
            const uint8_t *tap = at->first + row * at->row_step + column * at->column_step;
            take_tap(function, (const float *)(const void *)tap + channel, lanes, results);
        }
    }
    const int is_average = function == NPU_POOL_AVERAGE_VALID || function == NPU_POOL_AVERAGE_WINDOW;
    const float divisor = is_average ? at->count : 1.0f;
    for (size_t lane = 0; lane < lanes; ++lane) {
        output[lane] = function == NPU_POOL_L2 ? sqrtf(results[lane]) : results[lane] / divisor;
    }
}

NPU_INLINE void floats_body(const window *at, size_t channels, uint32_t function, float *output) {
    size_t channel = 0;
    for (; channels - channel >= NPU_LANES; channel += NPU_LANES) {
        float_lanes(at, channel, NPU_LANES, function, output + channel);
    }
    float_lanes(at, channel, channels - channel, function, output + channel);
}

NPU_LEVELS(floats, (const window *at, size_t channels, uint32_t function, float *output), (at, channels, function, output))
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

static void pool_bytes(const npu_pool *op, uint8_t *spm, uint32_t level) {
    const average k = prepare(op);
    const int is_maximum = op->function == NPU_POOL_MAXIMUM;
    for (uint32_t row = 0; row < op->output_height; ++row) {
        uint8_t *output = spm + op->output + (size_t)row * op->output_row_bytes;
        const taps rows = rows_of(op, row);
        for (uint32_t column = 0; column < op->output_width; ++column, output += op->output_column_bytes) {
            const window at = window_at(op, spm + op->input, rows, columns_of(op, column));
            (is_maximum ? maximum_levels : average_levels)[level - 1](&at, op->output_channels, &k, output);
        }
    }
}

/* The columns of the input that some window reads; beyond them may lie what is no memory. */
static taps read_columns(const npu_pool *op) {
    int64_t low = op->input_width, high = 0;
    for (uint32_t column = 0; column < op->output_width; ++column) {
        const taps inside = columns_of(op, column);
        const int64_t end = inside.position + ((int64_t)inside.count - 1) * op->dilation_width + 1;
        if (inside.count > 0) {
            low = inside.position < low ? inside.position : low;
            high = end > high ? end : high;
        }
    }
    taps read = {0, high > low ? (size_t)(high - low) : 0, high > low ? low : 0, 0};
    return read;
}

typedef struct {
    npu_pool op;      /* as its windows lie in `image` */
    npu_element from;
    npu_element to;
    taps read;        /* columns */
    float *image;     /* the rows that a window reads */
    float *results;   /* a row of the output */
} float_pool;

static void read_rows(const npu_pool *op, const uint8_t *input, const taps *rows, const float_pool *k) {
    const size_t channels = op->output_channels, first = (size_t)k->read.position;
    for (size_t i = 0; i < rows->count; ++i) {
        const size_t y = (size_t)rows->position + i * op->dilation_height;
        npu_read_pixels(&k->from, input + y * op->input_row_bytes + first * op->input_column_bytes,
                        op->input_column_bytes, k->read.count, channels,
                        k->image + (i * op->input_width + first) * channels);
    }
}

static void pool_rows(const npu_pool *op, uint8_t *spm, const float_pool *k, uint32_t level) {
    const size_t channels = op->output_channels;
    for (uint32_t row = 0; row < op->output_height; ++row) {
        taps rows = rows_of(op, row);
        read_rows(op, spm + op->input, &rows, k);
        rows.position = 0;
        for (uint32_t column = 0; column < op->output_width; ++column) {
            const window at = window_at(&k->op, (const uint8_t *)k->image, rows, columns_of(op, column));
            floats_levels[level - 1](&at, channels, op->function, k->results + column * channels);
        }
        npu_write_pixels(&k->to, k->results, op->output_column_bytes, op->output_width, channels,
                         spm + op->output + (size_t)row * op->output_row_bytes);
    }
}

/* An element becomes a float once a row of the output, however many windows read it. */
static npu_status pool_floats(const npu_pool *op, uint8_t *spm, npu_scratch *scratch, uint32_t level) {
    const size_t pixel_bytes = op->output_channels * sizeof(float), row_bytes = pixel_bytes * op->input_width;
    const size_t rows = op->kernel_height < op->input_height ? op->kernel_height : op->input_height;
    uint8_t *space = npu_scratch_reserve(scratch, rows * row_bytes + pixel_bytes * op->output_width);
    if (space == NULL) {
        return NPU_OUT_OF_MEMORY;
    }
    float_pool k = {*op, NPU_ELEMENT(op, input, level), NPU_ELEMENT(op, output, level), read_columns(op),
                    (float *)(void *)space, (float *)(void *)(space + rows * row_bytes)};
    k.op.input_row_bytes = (uint32_t)row_bytes;
    k.op.input_column_bytes = (uint32_t)pixel_bytes;
    k.op.dilation_height = 1;
    pool_rows(op, spm, &k, level);
    return NPU_OK;
}

npu_status npu_execute_pool(const npu_pool *op, uint8_t *spm, npu_scratch *scratch, uint32_t level) {
    if (!is_on_bytes(op)) {
        return pool_floats(op, spm, scratch, level);
    }
    pool_bytes(op, spm, level);
    return NPU_OK;
}
