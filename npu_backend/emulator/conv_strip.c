/* The pointer table of the vector kernels (npu_strip in matrix.h). */
#include "matrix.h"

/* Keeps the table of a strip in the first-level cache together with a tile's inputs. */
#define STRIP_TABLE_BYTES 24576u
#define ALIGNMENT 64u

static uint64_t aligned(uint64_t bytes) { return npu_divide_up(bytes, ALIGNMENT) * ALIGNMENT; }

static uint32_t strip_capacity(uint64_t pixels, uint64_t taps) {
    uint64_t fitting = STRIP_TABLE_BYTES / (taps * sizeof(uint8_t *));
    uint64_t capacity = fitting < pixels ? fitting : pixels;
    uint64_t tiles = npu_divide_up(capacity ? capacity : 1, NPU_STRIP_PIXELS);
    return (uint32_t)(tiles * NPU_STRIP_PIXELS);
}

npu_status npu_strip_open(npu_strip *strip, const npu_conv *op, uint8_t *spm, npu_scratch *scratch,
                          uint64_t extra_bytes) {
    uint64_t taps = (uint64_t)op->kernel_height * op->kernel_width;
    uint64_t pixels = (uint64_t)op->output_height * op->output_width;
    uint32_t capacity = strip_capacity(pixels, taps);
    uint64_t padding_bytes = aligned(op->input_channels) + ALIGNMENT;
    uint64_t inputs_bytes = aligned(taps * capacity * sizeof(uint8_t *));
    uint64_t outputs_bytes = aligned(capacity * sizeof(uint8_t *));
    uint8_t *space = npu_scratch_reserve(scratch, padding_bytes + inputs_bytes + outputs_bytes + extra_bytes);
    if (space == NULL) return NPU_OUT_OF_MEMORY;
    memset(space, (uint8_t)op->input_zero_point, padding_bytes);
    *strip = (npu_strip){
        .op = op,
        .spm = spm,
        .padding = space,
        .inputs = (const uint8_t **)(void *)(space + padding_bytes),
        .outputs = (uint8_t **)(void *)(space + padding_bytes + inputs_bytes),
        .extra = space + padding_bytes + inputs_bytes + outputs_bytes,
        .taps = (uint32_t)taps,
        .capacity = capacity,
    };
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
    const uint8_t *first = strip->spm + op->input + (uint64_t)y * op->input_row_bytes +
                           (uint64_t)npu_input_column(op, inside, kx) * op->input_column_bytes;
    fill_addresses(addresses + (inside - low), behind - inside, first,
                   (uint64_t)op->stride_width * op->input_column_bytes);
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

int npu_strip_next(npu_strip *strip) {
    const npu_conv *op = strip->op;
    uint64_t pixels = (uint64_t)op->output_height * op->output_width;
    strip->first += strip->count;
    if (strip->first >= pixels) return 0;
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
