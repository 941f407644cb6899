/* COPY and FILL: data movement inside a scratchpad. */
#include "vector.h"

static void copy_row(const void *context, uint8_t *const at[], size_t n) {
    uint32_t element_bytes = *(const uint32_t *)context;
    memmove(at[1], at[0], n * element_bytes);
}

/* Swaps ever larger squares across the diagonal, all rows in registers: as many rows of eight bytes as elements fill. */
NPU_INLINE void transpose_block(const uint8_t *from, int64_t from_stride, uint8_t *to, int64_t to_stride,
                                int element_bytes) {
    static const uint64_t masks[5] = {0, 0x00ff00ff00ff00ffu, 0x0000ffff0000ffffu, 0, 0x00000000ffffffffu};
    const int count = 8 / element_bytes;
    uint64_t rows[8];
    for (int row = 0; row < count; ++row) {
        memcpy(&rows[row], from + row * from_stride, 8);
    }
    for (int distance = 1; distance < count; distance *= 2) {
        const int bytes = distance * element_bytes;
        for (int row = 0; row < count; ++row) {
            if ((row & distance) == 0) {
                uint64_t swapped = (rows[row] >> (8 * bytes) ^ rows[row + distance]) & masks[bytes];
                rows[row + distance] ^= swapped;
                rows[row] ^= swapped << (8 * bytes);
            }
        }
    }
    for (int row = 0; row < count; ++row) {
        memcpy(to + row * to_stride, &rows[row], 8);
    }
}

/* columns lie together in `from`, rows in `to`; the last block of an axis may redo part of the one before. */
NPU_INLINE void transpose(const uint8_t *from, int64_t from_stride, uint8_t *to, int64_t to_stride, int64_t rows,
                          int64_t columns, int bytes) {
    const int64_t step = 8 / bytes;
    for (int64_t column = 0; column < columns; column += step) {
        int64_t left = column + step <= columns ? column : columns - step;
        for (int64_t row = 0; row < rows; row += step) {
            int64_t top = row + step <= rows ? row : rows - step;
            transpose_block(from + top * from_stride + left * bytes, from_stride, to + left * to_stride + top * bytes,
                            to_stride, bytes);
        }
    }
}

static void transpose_elements(const uint8_t *from, int64_t from_stride, uint8_t *to, int64_t to_stride, int64_t rows,
                               int64_t columns, uint32_t element_bytes) {
    switch (element_bytes) {
    case 1: transpose(from, from_stride, to, to_stride, rows, columns, 1); break;
    case 2: transpose(from, from_stride, to, to_stride, rows, columns, 2); break;
    case 4: transpose(from, from_stride, to, to_stride, rows, columns, 4); break;
    default: transpose(from, from_stride, to, to_stride, rows, columns, 8); break;
    }
}

/* An axis of whole blocks on which an operand's elements lie together. */
static int find_unit_axis(const npu_view *view, uint32_t operand) {
    int64_t bytes = view->element_bytes[operand];
    for (int axis = 3; axis >= 0; --axis) {
        if (view->strides[operand][axis] == bytes && (int64_t)view->counts[axis] * bytes >= 8) {
            return axis;
        }
    }
    return -1;
}

/* Elements whose contiguous axis differs between input and output; 0 when the view is none such. */
static int copy_transposed(npu_view *view) {
    npu_view_collapse(view);
    int column_axis = find_unit_axis(view, 0), row_axis = find_unit_axis(view, 1);
    if (column_axis < 0 || row_axis < 0 || column_axis == row_axis) {
        return 0;
    }
    int64_t rows = (int64_t)view->counts[row_axis], columns = (int64_t)view->counts[column_axis];
    view->counts[row_axis] = view->counts[column_axis] = 1;
    for (uint64_t outer = 0; outer < view->counts[0] * view->counts[1] * view->counts[2] * view->counts[3]; ++outer) {
        uint64_t left = outer;
        uint8_t *at[2] = {view->base[0], view->base[1]};
        for (int axis = 3; axis >= 0; --axis) {
            at[0] += (int64_t)(left % view->counts[axis]) * view->strides[0][axis];
            at[1] += (int64_t)(left % view->counts[axis]) * view->strides[1][axis];
            left /= view->counts[axis];
        }
        transpose_elements(at[0], view->strides[0][row_axis], at[1], view->strides[1][column_axis], rows, columns,
                           view->element_bytes[0]);
    }
    return 1;
}

/* Strides below zero walk backwards, which only an input does. */
static void view_input(npu_view *view, const npu_copy *op, uint8_t *spm) {
    static const uint32_t none[4] = {0, 0, 0, 0};
    npu_view_operand(view, spm + op->input, op->element_bytes, none);
    for (int axis = 0; axis < 4; ++axis) {
        view->strides[0][axis] = op->input_strides[axis];
    }
}

npu_status npu_execute_copy(const npu_copy *op, uint8_t *spm, npu_scratch *scratch, uint32_t level) {
    (void)scratch;
    (void)level;
    npu_view view = {0};
    for (int axis = 0; axis < 4; ++axis) {
        view.counts[axis] = op->counts[axis];
    }
    view_input(&view, op, spm);
    npu_view_operand(&view, spm + op->output, op->element_bytes, op->output_strides);
    if (!copy_transposed(&view)) {
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
