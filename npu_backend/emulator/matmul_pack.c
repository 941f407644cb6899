/* MATMUL's operands from any strides and types to units (matmul.h). */
#include "matmul.h"

#include "element.h"

/* One axis of an operand as a line of elements. */
typedef struct {
    npu_element element;
    npu_sum kind;
    uint64_t step_bytes;
    uint32_t level;
    uint8_t *gathered; /* room for a line of elements */
} line_reader;

#define CENTRE(ctype, centred)                                     \
    for (size_t i = 0; i < n; ++i) {                               \
        ctype stored;                                              \
        memcpy(&stored, at + i * sizeof stored, sizeof stored);    \
        to[i] = (centred)npu_subtract(stored, zero_point);         \
    }                                                              \
    break

NPU_INLINE void centre_wide(const npu_element *element, const uint8_t *restrict at, size_t n, int32_t *restrict to) {
    const int32_t zero_point = element->zero_point;
    switch (element->type) {
    case NPU_TYPE_UINT8: CENTRE(uint8_t, int32_t);
    case NPU_TYPE_INT8: CENTRE(int8_t, int32_t);
    case NPU_TYPE_UINT16: CENTRE(uint16_t, int32_t);
    default: CENTRE(int16_t, int32_t);
    }
}

NPU_INLINE void centre_bytes(const npu_element *element, const uint8_t *restrict at, size_t n, int16_t *restrict to) {
    const int32_t zero_point = element->zero_point;
    switch (element->type) {
    case NPU_TYPE_UINT8: CENTRE(uint8_t, int16_t);
    default: CENTRE(int8_t, int16_t);
    }
}

NPU_INLINE void centre_body(const line_reader *reader, const uint8_t *at, size_t n, void *to) {
    if (reader->kind == NPU_SUM_INT64)
        centre_wide(&reader->element, at, n, to);
    else
        centre_bytes(&reader->element, at, n, to);
}

NPU_LEVELS(centre, (const line_reader *reader, const uint8_t *at, size_t n, void *to), (reader, at, n, to))

/* n elements as int16, int32 or float32. */
static void read_line(const line_reader *reader, const uint8_t *at, uint32_t n, void *to) {
    const npu_element *element = &reader->element;
    if (reader->step_bytes != element->bytes && n > 1) {
        npu_copy_strided(reader->gathered, element->bytes, at, (int64_t)reader->step_bytes, element->bytes, n);
        at = reader->gathered;
    }
    if (reader->kind == NPU_SUM_FLOAT32)
        element->read(element, at, n, to);
    else
        centre_levels[reader->level - 1](reader, at, n, to);
}

static line_reader reader_of(const npu_matmul_run *run, npu_element element, uint64_t step_bytes) {
    line_reader reader = {element, run->kind, step_bytes, run->level, run->gathered};
    return reader;
}

/* An odd number of codes leaves half of the last unit, which the caller has cleared. */
void npu_pack_left(const npu_matmul_run *run, uint32_t first_row, uint32_t rows) {
    const npu_matmul *op = run->op;
    const npu_element element = NPU_ELEMENT(op, left, run->level);
    const line_reader reader = reader_of(run, element, op->left_column_bytes);
    const uint8_t *at = run->spm + op->left + (uint64_t)first_row * op->left_row_bytes;
    for (uint32_t r = 0; r < rows; r++, at += op->left_row_bytes)
        read_line(&reader, at, op->inner, run->product.left + (size_t)r * run->product.units);
}

/* Columns lie contiguous along the inner axis, or nothing does. */
static void pack_columns(const npu_matmul_run *run, const line_reader *reader) {
    const npu_matmul *op = run->op;
    const size_t units = run->product.units;
    const uint8_t *at = run->spm + op->right;
    memset(run->lines[0], 0, units * sizeof(uint32_t));
    for (uint32_t c = 0; c < op->columns; c++, at += op->right_column_bytes) {
        const uint32_t within = c % NPU_PANEL_COLUMNS;
        uint32_t *panel = run->product.right + (c - within) * units + within;
        read_line(reader, at, op->inner, run->lines[0]);
        for (size_t u = 0; u < units; u++)
            memcpy(panel + u * NPU_PANEL_COLUMNS, run->lines[0] + u * sizeof *panel, sizeof *panel);
    }
}

/* A line of units to the panels: as it is, or two lines of codes alternating. */
static void spread_line(const npu_matmul_run *run, uint32_t unit) {
    const size_t panel_units = (size_t)run->product.units * NPU_PANEL_COLUMNS;
    uint32_t *to = run->product.right + (size_t)unit * NPU_PANEL_COLUMNS;
    for (uint32_t panel = 0; panel < run->product.panels; panel++, to += panel_units) {
        if (run->unit_codes == 1) {
            memcpy(to, run->lines[0] + panel * NPU_PANEL_COLUMNS * sizeof *to, NPU_PANEL_COLUMNS * sizeof *to);
            continue;
        }
        int16_t even[NPU_PANEL_COLUMNS], odd[NPU_PANEL_COLUMNS], both[2 * NPU_PANEL_COLUMNS];
        memcpy(even, run->lines[0] + panel * sizeof even, sizeof even);
        memcpy(odd, run->lines[1] + panel * sizeof odd, sizeof odd);
        for (uint32_t c = 0; c < NPU_PANEL_COLUMNS; c++) both[2 * c] = even[c], both[2 * c + 1] = odd[c];
        memcpy(to, both, sizeof both);
    }
}

static void pack_rows(const npu_matmul_run *run, const line_reader *reader) {
    const npu_matmul *op = run->op;
    const size_t line_bytes = (size_t)run->product.panels * NPU_PANEL_COLUMNS * sizeof(uint32_t);
    const uint8_t *at = run->spm + op->right;
    for (uint32_t u = 0, place = 0; u < run->product.units; u++) {
        for (uint32_t line = 0; line < run->unit_codes; line++, place++, at += op->right_row_bytes) {
            if (place < op->inner)
                read_line(reader, at, op->columns, run->lines[line]);
            else
                memset(run->lines[line], 0, line_bytes);
        }
        spread_line(run, u);
    }
}

void npu_pack_right(const npu_matmul_run *run) {
    const npu_matmul *op = run->op;
    const int by_row = op->right_column_bytes == npu_type_bytes(op->right_type) || op->columns == 1;
    const npu_element element = NPU_ELEMENT(op, right, run->level);
    const line_reader reader = reader_of(run, element, by_row ? op->right_column_bytes : op->right_row_bytes);
    if (by_row)
        pack_rows(run, &reader);
    else
        pack_columns(run, &reader);
}
