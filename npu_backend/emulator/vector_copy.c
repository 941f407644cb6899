/* COPY and FILL: data movement inside a scratchpad. */
#include "vector.h"

static void copy_row(const void *context, uint8_t *const at[], size_t n) {
    uint32_t element_bytes = *(const uint32_t *)context;
    memmove(at[1], at[0], n * element_bytes);
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
    npu_view_for_rows(&view, copy_row, &op->element_bytes);
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
