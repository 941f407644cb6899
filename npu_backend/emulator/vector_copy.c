/* COPY and FILL: data movement inside a scratchpad. */
#include "vector.h"

static void copy_row(const void *context, uint8_t *const at[], size_t n) {
    uint32_t element_bytes = *(const uint32_t *)context;
    memmove(at[1], at[0], n * element_bytes);
}

/* Swaps ever larger squares across the diagonal, all eight rows in registers. */
static void transpose_8x8(const uint8_t *from, size_t from_stride, uint8_t *to, size_t to_stride) {
    static const uint64_t masks[3] = {0x00ff00ff00ff00ffu, 0x0000ffff0000ffffu, 0x00000000ffffffffu};
    uint64_t rows[8];
    for (int row = 0; row < 8; ++row) {
        memcpy(&rows[row], from + row * from_stride, 8);
    }
    for (int step = 0; step < 3; ++step) {
        int distance = 1 << step;
        for (int row = 0; row < 8; ++row) {
            if ((row & distance) == 0) {
                uint64_t swapped = (rows[row] >> (8 * distance) ^ rows[row + distance]) & masks[step];
                rows[row + distance] ^= swapped;
                rows[row] ^= swapped << (8 * distance);
            }
        }
    }
    for (int row = 0; row < 8; ++row) {
        memcpy(to + row * to_stride, &rows[row], 8);
    }
}

/* columns lie together in `from`, rows in `to`; the last block of an axis may redo part of the one before. */
static void transpose_bytes(const uint8_t *from, size_t from_stride, uint8_t *to, size_t to_stride, size_t rows,
                            size_t columns) {
    for (size_t column = 0; column < columns; column += 8) {
        size_t left = column + 8 <= columns ? column : columns - 8;
        for (size_t row = 0; row < rows; row += 8) {
            size_t top = row + 8 <= rows ? row : rows - 8;
            transpose_8x8(from + top * from_stride + left, from_stride, to + left * to_stride + top, to_stride);
        }
    }
}

static int find_unit_axis(const npu_view *view, uint32_t operand) {
    for (int axis = 3; axis >= 0; --axis) {
        if (view->strides[operand][axis] == 1 && view->counts[axis] >= 8) {
            return axis;
        }
    }
    return -1;
}

/* Bytes whose contiguous axis differs between input and output; 0 when the view is none such. */
static int copy_transposed(npu_view *view) {
    npu_view_collapse(view);
    int column_axis = find_unit_axis(view, 0), row_axis = find_unit_axis(view, 1);
    if (column_axis < 0 || row_axis < 0 || column_axis == row_axis) {
        return 0;
    }
    size_t rows = (size_t)view->counts[row_axis], columns = (size_t)view->counts[column_axis];
    view->counts[row_axis] = view->counts[column_axis] = 1;
    for (uint64_t outer = 0; outer < view->counts[0] * view->counts[1] * view->counts[2] * view->counts[3]; ++outer) {
        uint64_t left = outer;
        uint8_t *at[2] = {view->base[0], view->base[1]};
        for (int axis = 3; axis >= 0; --axis) {
            at[0] += left % view->counts[axis] * view->strides[0][axis];
            at[1] += left % view->counts[axis] * view->strides[1][axis];
            left /= view->counts[axis];
        }
        transpose_bytes(at[0], view->strides[0][row_axis], at[1], view->strides[1][column_axis], rows, columns);
    }
    return 1;
}

npu_status npu_execute_copy(const npu_copy *op, uint8_t *spm, npu_scratch *scratch, uint32_t level) {
    (void)scratch;
    (void)level;
    npu_view view = {0};
    for (int axis = 0; axis < 4; ++axis) {
        view.counts[axis] = op->counts[axis];
    }
    npu_view_operand(&view, spm + op->input, op->element_bytes, op->input_strides);
    npu_view_operand(&view, spm + op->output, op->element_bytes, op->output_strides);
    if (op->element_bytes != 1 || !copy_transposed(&view)) {
        npu_view_for_rows(&view, copy_row, &op->element_bytes);
    }
    return NPU_OK;
}

static void fill_row(const void *context, uint8_t *const at[], size_t n) {
    const npu_fill *op = context;
    uint8_t *output = at[0];
    for (size_t i = 0; i < n; ++i) {
        memcpy(output + i * op->element_bytes, &op->value, op->element_bytes);
    }
}

static void fill_bytes(const void *context, uint8_t *const at[], size_t n) {
    memset(at[0], (int)(((const npu_fill *)context)->value & 0xff), n);
}

npu_status npu_execute_fill(const npu_fill *op, uint8_t *spm, npu_scratch *scratch, uint32_t level) {
    (void)scratch;
    (void)level;
    npu_view view = {0};
    for (int axis = 0; axis < 4; ++axis) {
        view.counts[axis] = op->counts[axis];
    }
    npu_view_operand(&view, spm + op->output, op->element_bytes, op->output_strides);
    npu_view_for_rows(&view, op->element_bytes == 1 ? fill_bytes : fill_row, op);
    return NPU_OK;
}
