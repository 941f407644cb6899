/* The pointer table of the vector kernels (npu_strip in matrix.h). */
#include "element.h"
#include "matrix.h"

/* Keeps the table of a strip in the first-level cache together with a tile's inputs. */
#define STRIP_TABLE_BYTES 24576u
/* Keeps its sums in the second level. */
#define STRIP_SUMS_BYTES 262144u
#define ALIGNMENT 64u

static uint64_t aligned(uint64_t bytes) { return npu_divide_up(bytes, ALIGNMENT) * ALIGNMENT; }

static uint64_t smaller(uint64_t a, uint64_t b) { return a < b ? a : b; }

static uint64_t pixel_sums_bytes(const npu_conv *op) {
    return npu_divide_up(op->output_channels, NPU_CHANNEL_BLOCK) * NPU_CHANNEL_BLOCK * npu_conv_sum_bytes(op->input_type);
}

static uint32_t strip_capacity(const npu_conv *op, uint64_t taps, int has_workspace) {
    uint64_t fitting = smaller(STRIP_TABLE_BYTES / (taps * sizeof(uint8_t *)), (uint64_t)op->output_height * op->output_width);
    if (has_workspace) fitting = smaller(fitting, STRIP_SUMS_BYTES / pixel_sums_bytes(op));
    uint64_t tiles = npu_divide_up(fitting ? fitting : 1, NPU_STRIP_PIXELS);
    return (uint32_t)(tiles * NPU_STRIP_PIXELS);
}

/* As the kernels read it: halves as float32. */
static uint32_t element_bytes(const npu_conv *op) {
    return op->input_type == NPU_TYPE_FLOAT16 ? (uint32_t)sizeof(float) : npu_type_bytes(op->input_type);
}

/* Zero points up to the end, as one or two bytes; zeros are floats of zero too. */
static void fill_padding(uint8_t *padding, uint64_t bytes, const npu_conv *op) {
    const uint16_t code = (uint16_t)op->input_zero_point;
    if (npu_is_byte_type(op->input_type)) {
        memset(padding, (uint8_t)code, bytes);
        return;
    }
    for (uint64_t at = 0; at < bytes; at += sizeof code) memcpy(padding + at, &code, sizeof code);
}

/* One past the last position of an axis that some tap reads; beyond it may lie what is no memory. */
static uint64_t read_extent(uint32_t outputs, uint32_t kernel, uint32_t stride, uint32_t dilation, int64_t pad,
                            int64_t length) {
    const int64_t last = (int64_t)(outputs - 1) * stride - pad + (int64_t)(kernel - 1) * dilation;
    if (last < 0 || -pad >= length) return 0;
    if (last < length) return (uint64_t)last + 1;
    const int64_t skipped = kernel == 1 ? (length - 1 + pad) % stride : 0;
    return length > skipped ? (uint64_t)(length - skipped) : 0;
}

typedef struct {
    uint64_t rows;
    uint64_t columns;
    uint64_t bytes;
} float_copy;

static float_copy float_copy_of(const npu_conv *op) {
    float_copy copy = {0, 0, 0};
    if (op->input_type != NPU_TYPE_FLOAT16) return copy;
    copy.rows = read_extent(op->output_height, op->kernel_height, op->stride_height, op->dilation_height, op->pad_top,
                            op->input_height);
    copy.columns = read_extent(op->output_width, op->kernel_width, op->stride_width, op->dilation_width, op->pad_left,
                               op->input_width);
    copy.bytes = copy.rows * copy.columns * op->input_channels * sizeof(float);
    return copy;
}

/* The input as the kernels read it: in place, or of halves a copy in float32. */
static void open_input(npu_strip *strip, const float_copy *copy, float *floats, uint32_t level) {
    const npu_conv *op = strip->op;
    strip->input = strip->spm + op->input;
    strip->row_bytes = op->input_row_bytes;
    strip->column_bytes = op->input_column_bytes;
    if (op->input_type != NPU_TYPE_FLOAT16) return;
    const uint64_t pixel = op->input_channels, row = pixel * copy->columns;
    const npu_element half = npu_element_of(NPU_TYPE_FLOAT16, 1.0f, 0, level);
    for (uint64_t y = 0; y < copy->rows && copy->bytes > 0; y++)
        npu_read_pixels(&half, strip->input + y * op->input_row_bytes, op->input_column_bytes, copy->columns, pixel,
                        floats + y * row);
    strip->input = (const uint8_t *)floats;
    strip->row_bytes = row * sizeof(float);
    strip->column_bytes = pixel * sizeof(float);
}

npu_status npu_strip_open(npu_strip *strip, const npu_conv *op, uint8_t *spm, npu_scratch *scratch,
                          uint64_t extra_bytes, uint32_t level) {
    const uint64_t taps = (uint64_t)op->kernel_height * op->kernel_width;
    const int has_workspace = !op->keep_accumulators && (level == NPU_LEVEL_PORTABLE || !npu_is_byte_to_byte(op));
    const uint32_t capacity = strip_capacity(op, taps, has_workspace);
    const uint64_t inputs_at = aligned((uint64_t)op->input_channels * element_bytes(op)) + ALIGNMENT;
    const uint64_t outputs_at = inputs_at + aligned(taps * capacity * sizeof(uint8_t *));
    const uint64_t workspace_at = outputs_at + aligned(capacity * sizeof(uint8_t *));
    const uint64_t copy_at = workspace_at + (has_workspace ? aligned(capacity * pixel_sums_bytes(op)) : 0);
    const float_copy copy = float_copy_of(op);
    const uint64_t extra_at = copy_at + aligned(copy.bytes) + ALIGNMENT;
    uint8_t *space = npu_scratch_reserve(scratch, extra_at + extra_bytes);
    if (space == NULL) return NPU_OUT_OF_MEMORY;
    fill_padding(space, inputs_at, op);
    *strip = (npu_strip){
        .op = op,
        .spm = spm,
        .padding = space,
        .inputs = (const uint8_t **)(void *)(space + inputs_at),
        .outputs = (uint8_t **)(void *)(space + outputs_at),
        .workspace = has_workspace ? space + workspace_at : NULL,
        .extra = space + extra_at,
        .taps = (uint32_t)taps,
        .capacity = capacity,
    };
    open_input(strip, &copy, (float *)(void *)(space + copy_at), level);
    return NPU_OK;
}

/* First output column whose tap lies at input column `bound` or right of it, between low and high. */
static uint32_t first_column(int64_t bound, int64_t origin, uint32_t stride, uint32_t low, uint32_t high) {
    int64_t distance = bound - origin;
    uint64_t column = distance <= 0 ? 0 : npu_divide_up((uint64_t)distance, stride);
    return column < low ? low : column > high ? high : (uint32_t)column;
}

static void fill_addresses(const uint8_t **addresses, uint32_t count, const uint8_t *first, uint64_t step) {
    for (uint32_t i = 0; i < count; i++, first += step) addresses[i] = first;
}

/* Addresses of one tap for the output pixels `low..high` of a row. */
static void fill_tap(const npu_strip *strip, const uint8_t **addresses, uint32_t row, uint32_t low, uint32_t high,
                     uint32_t ky, uint32_t kx) {
    const npu_conv *op = strip->op;
    int64_t y = npu_input_row(op, row, ky), x = npu_input_column(op, 0, kx);
    uint32_t inside = high, behind = high;
    if (y >= 0 && y < op->input_height) {
        inside = first_column(0, x, op->stride_width, low, high);
        behind = first_column(op->input_width, x, op->stride_width, inside, high);
    }
    fill_addresses(addresses, inside - low, strip->padding, 0);
    fill_addresses(addresses + (behind - low), high - behind, strip->padding, 0);
    if (inside == behind) return;
    const uint8_t *first = strip->input + (uint64_t)y * strip->row_bytes +
                           (uint64_t)npu_input_column(op, inside, kx) * strip->column_bytes;
    fill_addresses(addresses + (inside - low), behind - inside, first, op->stride_width * strip->column_bytes);
}

static void fill_row(npu_strip *strip, uint32_t at, uint32_t row, uint32_t low, uint32_t high) {
    const npu_conv *op = strip->op;
    const uint8_t **addresses = strip->inputs + at;
    for (uint32_t ky = 0; ky < op->kernel_height; ky++)
        for (uint32_t kx = 0; kx < op->kernel_width; kx++, addresses += strip->capacity)
            fill_tap(strip, addresses, row, low, high, ky, kx);
    uint8_t *output = strip->spm + op->output + (uint64_t)row * op->output_row_bytes;
    for (uint32_t column = low; column < high; column++)
        strip->outputs[at + column - low] = output + (uint64_t)column * op->output_column_bytes;
}

static void place_sums(npu_strip *strip) {
    const npu_conv *op = strip->op;
    uint8_t *accumulators = strip->spm + op->accumulators + strip->first * pixel_sums_bytes(op);
    strip->loaded = op->load_accumulators ? accumulators : NULL;
    strip->kept = op->keep_accumulators ? accumulators : strip->workspace;
}

int npu_strip_next(npu_strip *strip) {
    const npu_conv *op = strip->op;
    uint64_t pixels = (uint64_t)op->output_height * op->output_width;
    strip->first += strip->count;
    if (strip->first >= pixels) return 0;
    place_sums(strip);
    uint64_t left = pixels - strip->first;
    strip->count = left < strip->capacity ? (uint32_t)left : strip->capacity;
    for (uint32_t at = 0; at < strip->count;) {
        uint32_t row = (uint32_t)((strip->first + at) / op->output_width);
        uint32_t low = (uint32_t)((strip->first + at) % op->output_width);
        uint32_t taken = npu_smaller(op->output_width - low, strip->count - at);
        fill_row(strip, at, row, low, low + taken);
        at += taken;
    }
    for (uint32_t tap = 0; tap < strip->taps; tap++)
        fill_addresses(strip->inputs + (size_t)tap * strip->capacity + strip->count, strip->capacity - strip->count,
                       strip->padding, 0);
    return 1;
}
